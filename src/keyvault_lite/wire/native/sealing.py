"""Whether the vault is sealed, and what opens it: for callers without a token, who have shares or a passphrase."""

import msgspec

from keyvault_lite.model.errors import InvalidRequest, KeyVaultError
from keyvault_lite.model.unseal import SealStatus, Unseal
from keyvault_lite.wire.engine_port import Engine
from keyvault_lite.wire.fields import convert
from keyvault_lite.wire.http import Exchange, Response

MAX_BODY = 4096
"""Bytes: a passphrase has at most 1024 characters."""


class UnsealBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A share, or a passphrase, or neither to begin again."""

    share: str | None = None
    passphrase: str | None = None
    reset: bool = False
    nonce: str | None = None


class SealStatusReply(msgspec.Struct):
    """Whether the vault is open, and what is missing."""

    sealed: bool
    root: str
    threshold: int
    shares: int
    progress: int
    nonce: str
    passphrase: bool
    reason: str | None


def seal_status(engine: Engine, exchange: Exchange) -> Response:
    """GET /seal-status."""
    return _reply(exchange, engine.seal_status())


async def unseal(engine: Engine, exchange: Exchange) -> Response:
    """POST /unseal."""
    try:
        given = _read(await exchange.json(await exchange.body(MAX_BODY), engine))
        return _reply(exchange, await engine.unseal(given, exchange.origin().source))
    except KeyVaultError as error:
        return exchange.problem(error)
    except Exception as error:  # noqa: BLE001  (a defect is answered too, and its message never shown)
        return exchange.problem(exchange.defect(error))


def _read(value: object) -> Unseal:
    given: UnsealBody = convert(value, UnsealBody)
    if given.share is not None and given.passphrase is not None:
        raise InvalidRequest("hand in a share or a passphrase, one at a time")
    return Unseal(given.share, given.passphrase, reset=given.reset, nonce=given.nonce)


def _reply(exchange: Exchange, found: SealStatus) -> Response:
    shown = SealStatusReply(
        found.sealed,
        found.root,
        found.threshold,
        found.shares,
        found.progress,
        found.nonce,
        found.passphrase,
        found.reason,
    )
    return exchange.reply(200, msgspec.json.encode(shown))
