"""What anyone may read without a token: health, seal status, whether there is a vault; nothing of what is inside.

The version is the level of the API that is spoken, which clients choose their ways by, with ours as build metadata.
"""

import time
from collections.abc import Mapping
from typing import Final

import msgspec

from keyvault_lite.model.errors import KeyVaultError
from keyvault_lite.model.replies import Health
from keyvault_lite.wire.engine_port import Engine
from keyvault_lite.wire.http import Exchange, Response, has_body
from keyvault_lite.wire.reader import read_query
from keyvault_lite.wire.routing import READ, PublicPage

API_LEVEL: Final = "1.19.0"
CLUSTER: Final = "keyvault-lite"
SEALED, FAULTY, NO_CONTENT = 503, 500, 204


def version(found: Health) -> str:
    """As clients parse it (semantic versioning)."""
    return f"{API_LEVEL}+keyvault-lite.{found.version}"


def _code(exchange: Exchange, name: str, default: int) -> int:
    try:
        asked = read_query(exchange.query).get(name, "")
    except KeyVaultError:
        return default
    code = int(asked[:4]) if asked.isascii() and asked.isdigit() else 0
    return code if has_body(code) or code == NO_CONTENT else default


def health(engine: Engine, exchange: Exchange) -> Response:
    """Whether the vault serves: by status, for probes."""
    found = engine.health()
    code = _code(exchange, "activecode", 200)
    if found.sealed:
        code = _code(exchange, "sealedcode", SEALED)
    elif not found.serving:
        code = FAULTY
    document = {
        "initialized": True,
        "sealed": found.sealed,
        "standby": False,
        "replication_performance_mode": "disabled",
        "replication_dr_mode": "disabled",
        "server_time_utc": int(time.time()),
        "version": version(found),
        "cluster_name": CLUSTER,
        "cluster_id": "",
    }
    reply = exchange.reply(code, msgspec.json.encode(document))
    return reply if has_body(code) else reply.without_body()


def seal_status(engine: Engine, exchange: Exchange) -> Response:
    """Whether the keyring is open."""
    found = engine.health()
    document = {
        "type": "shamir",
        "initialized": True,
        "sealed": found.sealed,
        "t": 1,
        "n": 1,
        "progress": 0,
        "nonce": "",
        "version": version(found),
        "build_date": "",
        "migration": False,
        "cluster_name": CLUSTER,
        "cluster_id": "",
        "recovery_seal": False,
        "storage_type": "keyvault-lite",
    }
    return exchange.reply(200, msgspec.json.encode(document))


def init(_: Engine, exchange: Exchange) -> Response:
    """That there is a vault: a server that answers is initialised."""
    return exchange.reply(200, b'{"initialized":true}')


def leader(_: Engine, exchange: Exchange) -> Response:
    """Every node serves; there is none to be sent to."""
    document = {"ha_enabled": False, "is_self": False, "leader_address": "", "leader_cluster_address": ""}
    return exchange.reply(200, msgspec.json.encode(document))


def refuse_seal(_: Engine, exchange: Exchange) -> Response:
    """There is no seal of this kind yet: the master key opens the vault when it starts."""
    return exchange.reply(400, b'{"errors":["sealing is not available: the vault is opened by its master key"]}')


_GET: Final = frozenset({"GET"})
_WRITE: Final = frozenset({"POST", "PUT"})
PAGES: Final[Mapping[bytes, PublicPage]] = {
    b"sys/health": PublicPage(health, READ),
    b"sys/init": PublicPage(init, _GET),
    b"sys/leader": PublicPage(leader, _GET),
    b"sys/seal": PublicPage(refuse_seal, _WRITE),
    b"sys/seal-status": PublicPage(seal_status, _GET),
    b"sys/unseal": PublicPage(refuse_seal, _WRITE),
}


def answer(page: PublicPage, engine: Engine, exchange: Exchange) -> Response:
    """The page; for a method that it does not have, 405 without a message."""
    if exchange.scope["method"] not in page.methods:
        return exchange.reply(405, b'{"errors":[]}')
    return page.render(engine, exchange)
