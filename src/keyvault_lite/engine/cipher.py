"""Encrypting and opening: messages, their DEKs, and data keys."""

from collections.abc import Mapping
from typing import Final

from keyvault_lite.crypto.container import refusal
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.engine.keys import require_active
from keyvault_lite.model.errors import InvalidRequest, InvalidState
from keyvault_lite.model.keys import MAY_PROCESS, MAY_PROTECT, Key, KeyVersion, Purpose
from keyvault_lite.model.replies import DataKey, Decrypted, Encrypted, Rewrapped
from keyvault_lite.model.requests import Decrypt, Encrypt, GenerateDataKey, OpenDataKey, Request, Rewrap


def _require_encryption(key: Key, now: int) -> None:
    if key.spec.purpose is not Purpose.ENCRYPT:
        raise InvalidRequest(f"a key of purpose {key.spec.purpose} does not encrypt or decrypt")
    key.spec.check_native()
    require_active(key, now)


def protecting(key: Key) -> KeyVersion:
    """The version that may encrypt and sign now."""
    version = key.active
    if version is None or version.status not in MAY_PROTECT:
        raise InvalidState("the key has no ACTIVE version")
    return version


def _opening(key: Key, wrapped: bytes, ctx: HandlerContext) -> KeyVersion:
    """The version that `wrapped` names, if its state lets it open anything."""
    version = key.version(ctx.keyring.version_in(key.id, wrapped))
    if version is None:
        raise refusal()
    if version.status not in MAY_PROCESS:
        raise InvalidState(f"the version is {version.status}")
    return version


def encrypt(request: Encrypt, ctx: HandlerContext) -> HandlerResult:
    """A fresh DEK encrypts the message, the ACTIVE version wraps the DEK."""
    key = ctx.key
    _require_encryption(key, ctx.now)
    version = protecting(key)
    ciphertext, encrypted_dek = ctx.once(
        "encrypt",
        (version,),
        lambda: ctx.keyring.encrypt(key.spec, version, request.plaintext, request.context),
    )
    return HandlerResult(
        Encrypted(ciphertext, encrypted_dek, version.version),
        key_version=version.version,
        bytes_in=len(request.plaintext),
        bytes_out=len(ciphertext),
    )


def decrypt(request: Decrypt, ctx: HandlerContext) -> HandlerResult:
    """Open a message: parse, then the version's state, then the cryptography; every failure of it is the same."""
    key = ctx.key
    _require_encryption(key, ctx.now)
    version = _opening(key, request.encrypted_dek, ctx)
    if request.key_version not in {None, version.version}:
        raise refusal()
    plaintext = ctx.once(
        "decrypt",
        (version,),
        lambda: ctx.keyring.decrypt(key.spec, version, request.ciphertext, request.encrypted_dek, request.context),
    )
    if request.as_text and not _is_text(plaintext):
        raise InvalidRequest('the plaintext is not UTF-8 text; ask for it with "encoding": "base64"')
    return HandlerResult(
        Decrypted(plaintext, version.version),
        key_version=version.version,
        bytes_in=len(request.ciphertext),
        bytes_out=len(plaintext),
    )


def _is_text(plaintext: bytes) -> bool:
    try:
        plaintext.decode()
    except UnicodeDecodeError:
        return False
    return True


def rewrap(request: Rewrap, ctx: HandlerContext) -> HandlerResult:
    """The DEK under the ACTIVE version."""
    key = ctx.key
    _require_encryption(key, ctx.now)
    old, new = _opening(key, request.encrypted_dek, ctx), protecting(key)
    encrypted_dek = ctx.once(
        "rewrap",
        (old, new),
        lambda: ctx.keyring.rewrap(key.spec, old, new, request.encrypted_dek, request.context),
    )
    return HandlerResult(Rewrapped(encrypted_dek, new.version), key_version=new.version)


def generate_data_key(request: GenerateDataKey, ctx: HandlerContext) -> HandlerResult:
    """A data key for the caller's own use, wrapped by the ACTIVE version."""
    key = ctx.key
    _require_encryption(key, ctx.now)
    version = protecting(key)
    plaintext, wrapped = ctx.once(
        "data_key", (version,), lambda: ctx.keyring.data_key(key.spec, version, request.bits, request.context)
    )
    result = DataKey(plaintext if request.reveal else None, wrapped, version.version)
    return HandlerResult(result, key_version=version.version, bytes_out=request.bits // 8)


def open_data_key(request: OpenDataKey, ctx: HandlerContext) -> HandlerResult:
    """Open a data key; the DEK of a message does not open here."""
    key = ctx.key
    _require_encryption(key, ctx.now)
    version = _opening(key, request.encrypted_key, ctx)
    plaintext = ctx.once(
        "open",
        (version,),
        lambda: ctx.keyring.open_data_key(key.spec, version, request.encrypted_key, request.context),
    )
    return HandlerResult(
        DataKey(plaintext, None, version.version), key_version=version.version, bytes_out=len(plaintext)
    )


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    Decrypt: decrypt,
    Encrypt: encrypt,
    GenerateDataKey: generate_data_key,
    OpenDataKey: open_data_key,
    Rewrap: rewrap,
}
