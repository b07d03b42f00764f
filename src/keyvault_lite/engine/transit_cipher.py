"""Encrypting and opening with the keys of the Vault dialect."""

import os
from collections.abc import Mapping
from typing import Final

from keyvault_lite.crypto.keyring import IMPORTED
from keyvault_lite.engine.scene import Done, Handler, Scene
from keyvault_lite.engine.transit_rules import derivation, processing, protecting, usable
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.keys import Key, KeyVersion
from keyvault_lite.model.requests import Request
from keyvault_lite.model.transit import (
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

ORIGIN: Final = "origin"


def _encrypting(request: TransitUse, scene: Scene, what: str) -> tuple[Key, Rules, bytes | None]:
    key, rules = usable(scene)
    if key.spec.type not in ENCRYPTING:
        raise InvalidRequest(f"message {what} not supported for key type {key.spec.word}")
    if request.associated and key.spec.type not in AEAD:
        raise InvalidRequest(f"'associated_data' provided for non-AEAD cipher suite {key.spec.word}")
    return key, rules, derivation(rules, request.context)


def _seal(
    scene: Scene, version: KeyVersion, rules: Rules, plaintext: bytes, context: bytes | None, associated: bytes | None
) -> bytes:
    material = scene.keyring.transit(scene.key.spec, version)
    return material.encrypt(plaintext, context, associated, convergent=rules.convergent)


def _open(
    scene: Scene, version: KeyVersion, rules: Rules, body: bytes, context: bytes | None, associated: bytes | None
) -> bytes:
    foreign = version.attributes.get(ORIGIN) == IMPORTED
    material = scene.keyring.transit(scene.key.spec, version)
    return material.decrypt(body, context, associated, convergent=rules.convergent, foreign=foreign)


def encrypt(request: TransitEncrypt, scene: Scene) -> Done:
    """Seal the plaintext under the newest version, or the one named."""
    key, rules, context = _encrypting(request, scene, "encryption")
    version = protecting(key, rules, request.version, what="encryption")
    body = scene.once(
        "encrypt", (version,), lambda: _seal(scene, version, rules, request.plaintext, context, request.associated)
    )
    return Done(
        Protected(body, version.version),
        key_version=version.version,
        bytes_in=len(request.plaintext),
        bytes_out=len(body),
    )


def decrypt(request: TransitDecrypt, scene: Scene) -> Done:
    """Open a ciphertext under the version it names."""
    key, rules, context = _encrypting(request, scene, "decryption")
    version = processing(key, rules, request.version, what="ciphertext")
    plaintext = scene.once(
        "decrypt", (version,), lambda: _open(scene, version, rules, request.body, context, request.associated)
    )
    return Done(plaintext, key_version=version.version, bytes_in=len(request.body), bytes_out=len(plaintext))


def rewrap(request: TransitRewrap, scene: Scene) -> Done:
    """Open a ciphertext and seal its content under the newest version, or the one named; it never leaves."""
    key, rules, context = _encrypting(request, scene, "decryption")
    old = processing(key, rules, request.version, what="ciphertext")
    new = protecting(key, rules, request.to_version, what="encryption")

    def again() -> bytes:
        plaintext = _open(scene, old, rules, request.body, context, request.associated)
        return _seal(scene, new, rules, plaintext, context, request.associated)

    body = scene.once("rewrap", (old, new), again)
    return Done(Protected(body, new.version), key_version=new.version, bytes_in=len(request.body), bytes_out=len(body))


def data_key(request: TransitDataKey, scene: Scene) -> Done:
    """A fresh key for the caller's own use, sealed and if asked for plain."""
    key, rules, context = _encrypting(request, scene, "encryption")
    version = protecting(key, rules, request.version, what="encryption")

    def fresh() -> tuple[bytes, bytes]:
        plain = os.urandom(request.bits // 8)
        return plain, _seal(scene, version, rules, plain, context, request.associated)

    plain, body = scene.once("data_key", (version,), fresh)
    result = Protected(body, version.version, plain if request.reveal else None)
    return Done(result, key_version=version.version, bytes_out=request.bits // 8)


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    TransitDataKey: data_key,
    TransitDecrypt: decrypt,
    TransitEncrypt: encrypt,
    TransitRewrap: rewrap,
}
