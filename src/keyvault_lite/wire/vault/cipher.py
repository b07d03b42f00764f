"""Encrypt, decrypt, rewrap and data keys: bodies to requests, results to data. The hot road."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final

from keyvault_lite.dialects.vault.requests import (
    CipherResult,
    TransitDataKey,
    TransitDecrypt,
    TransitEncrypt,
    TransitRewrap,
)
from keyvault_lite.engine.cooperative import Steps
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import BatchReply
from keyvault_lite.model.requests import KeyRequest, Request
from keyvault_lite.wire.vault.batch import BATCH, PARTIAL, REFERENCE, build_batch, is_batch, outcome
from keyvault_lite.wire.vault.route import MAX_DATA, Operation, RawReply, VaultCall
from keyvault_lite.wire.vault.values import (
    Fields,
    data,
    flag,
    number,
    optional_data,
    prefixed_data,
    text,
)

_MISSING: Final = (400, "encryption key not found")


def ciphertext(body: bytes, version: int) -> str:
    """As the products write it."""
    return f"vault:v{version}:{b64encode(body).decode()}"


# Encrypt


def _encrypt(key: KeyRef, fields: Fields, common: Fields) -> TransitEncrypt:
    if fields.get("plaintext") is None:
        raise InvalidRequest("missing plaintext to encrypt")
    return TransitEncrypt(
        key=key,
        context=optional_data(fields, "context"),
        associated=optional_data(fields, "associated_data"),
        plaintext=data(fields, "plaintext"),
        version=number(fields, "key_version"),
        kind=text(common, "type"),
        convergent=flag(common, "convergent_encryption"),
    )


def _encrypted(result: CipherResult) -> dict[str, object]:
    return {"ciphertext": ciphertext(result.body, result.version), "key_version": result.version}


# Decrypt


def _parts(fields: Fields, what: str) -> tuple[int, bytes]:
    found = prefixed_data(fields, "ciphertext")
    if found is None:
        raise InvalidRequest(f"missing ciphertext to {what}")
    return found


def _decrypt(key: KeyRef, fields: Fields, _: Fields) -> TransitDecrypt:
    version, body = _parts(fields, "decrypt")
    return TransitDecrypt(
        key=key,
        context=optional_data(fields, "context"),
        associated=optional_data(fields, "associated_data"),
        version=version,
        body=body,
    )


def _decrypted(result: bytes) -> dict[str, object]:
    return {"plaintext": b64encode(result).decode()}


# Rewrap


def _rewrap(key: KeyRef, fields: Fields, _: Fields) -> TransitRewrap:
    version, body = _parts(fields, "decrypt")
    return TransitRewrap(
        key=key,
        context=optional_data(fields, "context"),
        associated=optional_data(fields, "associated_data"),
        version=version,
        body=body,
        to_version=number(fields, "key_version"),
    )


# Data keys


def build_data_key(call: VaultCall) -> Request:
    """A data key, by the path plain or only wrapped."""
    kind, fields = call.path["kind"], call.fields
    if kind not in {"plaintext", "wrapped"}:
        raise InvalidRequest("Invalid path, must be 'plaintext' or 'wrapped'")
    return TransitDataKey(
        key=call.key,
        context=optional_data(fields, "context"),
        associated=optional_data(fields, "associated_data"),
        bits=number(fields, "bits", 256),
        reveal=kind == "plaintext",
        version=number(fields, "key_version"),
    )


def _data_key(result: CipherResult, _: Request, __: VaultCall) -> RawReply:
    written = _encrypted(result)
    if result.plaintext is not None:
        written["plaintext"] = b64encode(result.plaintext).decode()
    return RawReply(written)


Single = Callable[[KeyRef, Fields, Fields], KeyRequest]
Show = Callable[[Any], dict[str, object]]


def _route(
    operation: str,
    action: Action,
    single: Single,
    show: Show,
    *,
    fields: frozenset[str],
    failed: Mapping[str, object],
    strict: bool,
) -> Operation:
    """The route of an operation that also comes in batches.

    `failed` is in the place of an item that failed; `strict` makes a failed item show in the status.
    """

    def build(call: VaultCall) -> Request | Steps[Request]:
        if is_batch(call.fields):
            return build_batch(call, action, single, one_kind=True)
        return single(call.key, call.fields, call.fields)

    def render(result: Any, request: Request, call: VaultCall) -> RawReply:  # noqa: ANN401
        if isinstance(result, BatchReply):
            return outcome(result, call.fields, show, failed=failed, strict=strict)
        return RawReply(show(result))

    return Operation(
        operation=f"transit.{operation}",
        action=action,
        build=build,
        render=render,
        fields=fields | {BATCH},
        missing=_MISSING,
        limit=MAX_DATA,
    )


_CONTEXT: Final = frozenset({"context", "associated_data", PARTIAL, REFERENCE})
ENCRYPT: Final = _route(
    "encrypt",
    Action.ENCRYPT,
    _encrypt,
    _encrypted,
    fields=_CONTEXT | {"plaintext", "key_version", "type", "convergent_encryption"},
    failed={},
    strict=True,
)
DECRYPT: Final = _route(
    "decrypt",
    Action.DECRYPT,
    _decrypt,
    _decrypted,
    fields=_CONTEXT | {"ciphertext"},
    failed={"plaintext": ""},
    strict=True,
)
REWRAP: Final = _route(
    "rewrap",
    Action.REWRAP,
    _rewrap,
    _encrypted,
    fields=(_CONTEXT - {PARTIAL}) | {"ciphertext", "key_version"},
    failed={},
    strict=False,
)
DATA_KEY: Final = Operation(
    operation="transit.datakey",
    action=Action.DATA_KEY,
    build=build_data_key,
    render=_data_key,
    fields=frozenset({"bits", "context", "associated_data", "key_version"}),
    missing=_MISSING,
)
