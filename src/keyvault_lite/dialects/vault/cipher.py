"""Encrypting and opening with the keys of the Vault dialect."""

import os
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from keyvault_lite.crypto.versions import IMPORTED
from keyvault_lite.dialects.vault.requests import (
    AEAD,
    ENCRYPTING,
    Protected,
    Rules,
    TransitDataKey,
    TransitDecrypt,
    TransitEncrypt,
    TransitRewrap,
    TransitUse,
)
from keyvault_lite.dialects.vault.rules import derivation, processing, protecting, usable
from keyvault_lite.engine.scene import Done, Handler, Scene
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.keys import Key, KeyVersion
from keyvault_lite.model.requests import Request

ORIGIN: Final = "origin"


class _Use(Struct, frozen=True):
    """A key with what this request binds its messages to."""

    scene: Scene
    key: Key
    rules: Rules
    context: bytes | None
    associated: bytes | None

    def seal(self, version: KeyVersion, plaintext: bytes) -> bytes:
        """The body of a ciphertext."""
        material = self.scene.keyring.transit(self.key.spec, version)
        return material.encrypt(plaintext, self.context, self.associated, convergent=self.rules.convergent)

    def open(self, version: KeyVersion, body: bytes) -> bytes:
        """The plaintext. Raises InvalidCiphertext."""
        foreign = version.attributes.get(ORIGIN) == IMPORTED
        material = self.scene.keyring.transit(self.key.spec, version)
        return material.decrypt(body, self.context, self.associated, convergent=self.rules.convergent, foreign=foreign)


def _encrypting(request: TransitUse, scene: Scene, what: str) -> _Use:
    key, rules = usable(scene)
    if key.spec.type not in ENCRYPTING:
        raise InvalidRequest(f"message {what} not supported for key type {key.spec.word}")
    if request.associated and key.spec.type not in AEAD:
        raise InvalidRequest(f"'associated_data' provided for non-AEAD cipher suite {key.spec.word}")
    return _Use(scene, key, rules, derivation(rules, request.context), request.associated)


def encrypt(request: TransitEncrypt, scene: Scene) -> Done:
    """Seal the plaintext under the newest version, or the one named."""
    use = _encrypting(request, scene, "encryption")
    version = protecting(use.key, use.rules, request.version, what="encryption")
    body = scene.once("encrypt", (version,), lambda: use.seal(version, request.plaintext))
    return Done(
        Protected(body, version.version),
        key_version=version.version,
        bytes_in=len(request.plaintext),
        bytes_out=len(body),
    )


def decrypt(request: TransitDecrypt, scene: Scene) -> Done:
    """Open a ciphertext under the version it names."""
    use = _encrypting(request, scene, "decryption")
    version = processing(use.key, use.rules, request.version, what="ciphertext")
    plaintext = scene.once("decrypt", (version,), lambda: use.open(version, request.body))
    return Done(plaintext, key_version=version.version, bytes_in=len(request.body), bytes_out=len(plaintext))


def rewrap(request: TransitRewrap, scene: Scene) -> Done:
    """Open a ciphertext and seal its content under the newest version, or the one named; it never leaves."""
    use = _encrypting(request, scene, "decryption")
    old = processing(use.key, use.rules, request.version, what="ciphertext")
    new = protecting(use.key, use.rules, request.to_version, what="encryption")
    body = scene.once("rewrap", (old, new), lambda: use.seal(new, use.open(old, request.body)))
    return Done(Protected(body, new.version), key_version=new.version, bytes_in=len(request.body), bytes_out=len(body))


def data_key(request: TransitDataKey, scene: Scene) -> Done:
    """A fresh key for the caller's own use, sealed and if asked for plain."""
    use = _encrypting(request, scene, "encryption")
    version = protecting(use.key, use.rules, request.version, what="encryption")

    def fresh() -> tuple[bytes, bytes]:
        plain = os.urandom(request.bits // 8)
        return plain, use.seal(version, plain)

    plain, body = scene.once("data_key", (version,), fresh)
    result = Protected(body, version.version, plain if request.reveal else None)
    return Done(result, key_version=version.version, bytes_out=request.bits // 8)


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    TransitDataKey: data_key,
    TransitDecrypt: decrypt,
    TransitEncrypt: encrypt,
    TransitRewrap: rewrap,
}
