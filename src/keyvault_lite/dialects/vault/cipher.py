"""Encrypting and opening with the keys of the Vault dialect."""

import os
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from keyvault_lite.crypto.versions import IMPORTED
from keyvault_lite.dialects.vault.requests import (
    AEAD,
    ENCRYPTING,
    CipherResult,
    Rules,
    TransitDataKey,
    TransitDecrypt,
    TransitEncrypt,
    TransitRewrap,
    TransitUse,
)
from keyvault_lite.dialects.vault.rules import derivation, processing, protecting, usable
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.keys import Key, KeyVersion
from keyvault_lite.model.requests import Request

ORIGIN: Final = "origin"


class _Use(Struct, frozen=True):
    """A key with what this request binds its messages to."""

    ctx: HandlerContext
    key: Key
    rules: Rules
    context: bytes | None
    associated: bytes | None

    def seal(self, version: KeyVersion, plaintext: bytes) -> bytes:
        """The body of a ciphertext."""
        material = self.ctx.keyring.transit(self.key.spec, version)
        return material.encrypt(plaintext, self.context, self.associated, convergent=self.rules.convergent)

    def open(self, version: KeyVersion, body: bytes) -> bytes:
        """The plaintext. Raises InvalidCiphertext."""
        foreign = version.attributes.get(ORIGIN) == IMPORTED
        material = self.ctx.keyring.transit(self.key.spec, version)
        return material.decrypt(body, self.context, self.associated, convergent=self.rules.convergent, foreign=foreign)


def _encrypting(request: TransitUse, ctx: HandlerContext, what: str) -> _Use:
    key, rules = usable(ctx)
    if key.spec.type not in ENCRYPTING:
        raise InvalidRequest(f"message {what} not supported for key type {key.spec.word}")
    if request.associated and key.spec.type not in AEAD:
        raise InvalidRequest(f"'associated_data' provided for non-AEAD cipher suite {key.spec.word}")
    return _Use(ctx, key, rules, derivation(rules, request.context), request.associated)


def encrypt(request: TransitEncrypt, ctx: HandlerContext) -> HandlerResult:
    """Seal the plaintext under the newest version, or the one named."""
    use = _encrypting(request, ctx, "encryption")
    version = protecting(use.key, use.rules, request.version, what="encryption")
    body = ctx.once("encrypt", (version,), lambda: use.seal(version, request.plaintext))
    return HandlerResult(
        CipherResult(body, version.version),
        key_version=version.version,
        bytes_in=len(request.plaintext),
        bytes_out=len(body),
    )


def decrypt(request: TransitDecrypt, ctx: HandlerContext) -> HandlerResult:
    """Open a ciphertext under the version it names."""
    use = _encrypting(request, ctx, "decryption")
    version = processing(use.key, use.rules, request.version, what="ciphertext")
    plaintext = ctx.once("decrypt", (version,), lambda: use.open(version, request.body))
    return HandlerResult(plaintext, key_version=version.version, bytes_in=len(request.body), bytes_out=len(plaintext))


def rewrap(request: TransitRewrap, ctx: HandlerContext) -> HandlerResult:
    """Open a ciphertext and seal its content under the newest version, or the one named; it never leaves."""
    use = _encrypting(request, ctx, "decryption")
    old = processing(use.key, use.rules, request.version, what="ciphertext")
    new = protecting(use.key, use.rules, request.to_version, what="encryption")
    body = ctx.once("rewrap", (old, new), lambda: use.seal(new, use.open(old, request.body)))
    return HandlerResult(
        CipherResult(body, new.version), key_version=new.version, bytes_in=len(request.body), bytes_out=len(body)
    )


def data_key(request: TransitDataKey, ctx: HandlerContext) -> HandlerResult:
    """A fresh key for the caller's own use, sealed and if asked for plain."""
    use = _encrypting(request, ctx, "encryption")
    version = protecting(use.key, use.rules, request.version, what="encryption")

    def fresh() -> tuple[bytes, bytes]:
        plain = os.urandom(request.bits // 8)
        return plain, use.seal(version, plain)

    plain, body = ctx.once("data_key", (version,), fresh)
    result = CipherResult(body, version.version, plain if request.reveal else None)
    return HandlerResult(result, key_version=version.version, bytes_out=request.bits // 8)


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    TransitDataKey: data_key,
    TransitDecrypt: decrypt,
    TransitEncrypt: encrypt,
    TransitRewrap: rewrap,
}
