"""What anyone may read without a token: health, seal status, whether there is a vault; nothing of what is inside.

The version is the level of the API that is spoken, which clients choose their ways by, with ours as build metadata.
"""

import re
import time
from collections.abc import Mapping
from typing import Final

import msgspec

from keyvault_lite.model.errors import KeyVaultError, LimitExceeded, MalformedRequest
from keyvault_lite.model.replies import Health
from keyvault_lite.model.unseal import SealStatus, Unseal
from keyvault_lite.wire.engine_port import Engine
from keyvault_lite.wire.http import Exchange, Response, has_body
from keyvault_lite.wire.reader import read_json, read_query
from keyvault_lite.wire.routing import READ, PublicAction, PublicPage

API_LEVEL: Final = "1.19.0"
CLUSTER: Final = "keyvault-lite"
SEALED, FAULTY, NO_CONTENT = 503, 500, 204
MAX_UNSEAL: Final = 1024
MAX_SHARE: Final = 256
_SHARE: Final = re.compile(
    r"\s*(?:(?:[0-9A-Fa-f]{2})+|(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2,3}={0,2})?|[Kk][Vv][Ll][A-Za-z0-9 -]+)\s*"
)
_TYPES: Final = {"awskms": "awskms", "gcpkms": "gcpckms", "pkcs11": "pkcs11", "vault": "transit"}
"""How Vault calls the kinds of root that it has too; it calls all others shamir."""


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
    return _seal_status(exchange, engine.seal_status(), engine.health())


def _seal_status(exchange: Exchange, found: SealStatus, health: Health) -> Response:
    document = {
        "type": _TYPES.get(found.root, "shamir"),
        "initialized": True,
        "sealed": found.sealed,
        "t": found.threshold,
        "n": found.shares,
        "progress": found.progress,
        "nonce": found.nonce,
        "version": version(health),
        "build_date": "",
        "migration": False,
        "cluster_name": CLUSTER,
        "cluster_id": "",
        "recovery_seal": False,
        "storage_type": "keyvault-lite",
    }
    return exchange.reply(200, msgspec.json.encode(document))


async def unseal(engine: Engine, exchange: Exchange) -> Response:
    """Take a share, in our form or in Vault's; answers the seal status."""
    try:
        given = _read_share(await exchange.body(MAX_UNSEAL))
        found = await engine.unseal(given, exchange.origin().source)
        return _seal_status(exchange, found, engine.health())
    except KeyVaultError as error:
        status = 429 if isinstance(error, LimitExceeded) else 400
        return exchange.reply(status, msgspec.json.encode({"errors": [error.shown or error.code]}))
    except Exception as error:  # noqa: BLE001  (a defect is answered too, and its message never shown)
        exchange.defect(error)
        return exchange.reply(FAULTY, b'{"errors":["internal error"]}')


def _read_share(body: bytes) -> Unseal:
    fields = read_json(body) if body else {}
    if not isinstance(fields, dict):
        raise MalformedRequest("the body is a JSON object")
    key, reset = fields.get("key"), fields.get("reset")
    if reset is True:
        return Unseal(reset=True)
    if not isinstance(key, str) or not key:
        raise MalformedRequest("'key' must be specified in request body as JSON, or 'reset' set to true")
    if not _may_be_share(key):
        raise MalformedRequest("'key' must be a valid hex or base64 string")
    return Unseal(share=key)


def _may_be_share(text: str) -> bool:
    """Whether it is in one of the alphabets of shares; what it is, the vault says."""
    return len(text) <= MAX_SHARE and _SHARE.fullmatch(text) is not None


def init(_: Engine, exchange: Exchange) -> Response:
    """That there is a vault: a server that answers is initialised."""
    return exchange.reply(200, b'{"initialized":true}')


def leader(_: Engine, exchange: Exchange) -> Response:
    """Every node serves; there is none to be sent to."""
    document = {"ha_enabled": False, "is_self": False, "leader_address": "", "leader_cluster_address": ""}
    return exchange.reply(200, msgspec.json.encode(document))


_GET: Final = frozenset({"GET"})
_WRITE: Final = frozenset({"POST", "PUT"})
PAGES: Final[Mapping[bytes, PublicPage | PublicAction]] = {
    b"sys/health": PublicPage(health, READ),
    b"sys/init": PublicPage(init, _GET),
    b"sys/leader": PublicPage(leader, _GET),
    b"sys/seal-status": PublicPage(seal_status, _GET),
    b"sys/unseal": PublicAction(unseal, _WRITE),
}


async def answer(page: PublicPage | PublicAction, engine: Engine, exchange: Exchange) -> Response:
    """The page; for a method that it does not have, 405 without a message."""
    if exchange.scope["method"] not in page.methods:
        return exchange.reply(405, b'{"errors":[]}')
    if isinstance(page, PublicAction):
        return await page.answer(engine, exchange)
    return page.render(engine, exchange)
