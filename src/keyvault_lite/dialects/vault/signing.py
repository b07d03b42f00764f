"""Signatures, MACs, digests and random bytes of the Vault dialect."""

import hmac
import os
from collections.abc import Mapping
from typing import Final

from keyvault_lite.crypto.transit import digest
from keyvault_lite.dialects.vault.requests import (
    SIGNING,
    Protected,
    TransitHash,
    TransitHmac,
    TransitRandom,
    TransitSign,
    TransitVerify,
    TransitVerifyHmac,
)
from keyvault_lite.dialects.vault.rules import derivation, processing, protecting, usable
from keyvault_lite.engine.scene import Done, Handler, Scene
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.requests import Request


def sign(request: TransitSign, scene: Scene) -> Done:
    """Sign with the newest version, or the one named."""
    key, rules = usable(scene)
    if key.spec.type not in SIGNING:
        raise InvalidRequest(f"key type {key.spec.word} does not support signing")
    context = derivation(rules, request.context)
    version = protecting(key, rules, request.version, what="signing")
    signature, public = scene.once(
        "sign",
        (version,),
        lambda: scene.keyring.transit(key.spec, version).sign(request.input, request.scheme, context),
    )
    return Done(
        Protected(signature, version.version, public_key=public),
        key_version=version.version,
        bytes_in=len(request.input),
        bytes_out=len(signature),
    )


def verify(request: TransitVerify, scene: Scene) -> Done:
    """Check a signature under the version it names."""
    key, rules = usable(scene)
    if key.spec.type not in SIGNING:
        raise InvalidRequest(f"key type {key.spec.word} does not support verification")
    context = derivation(rules, request.context)
    version = processing(key, rules, request.version, what="signature")
    valid = scene.once(
        "verify",
        (version,),
        lambda: scene.keyring.transit(key.spec, version).verify(
            request.input, request.signature, request.scheme, context
        ),
    )
    return Done(valid, key_version=version.version, bytes_in=len(request.input))


def mac(request: TransitHmac, scene: Scene) -> Done:
    """MAC with the HMAC key of the newest version, or of the one named."""
    key, rules = usable(scene)
    version = protecting(key, rules, request.version, what="HMAC")
    tag = scene.once(
        "mac", (version,), lambda: scene.keyring.transit(key.spec, version).mac(request.input, request.digest)
    )
    return Done(
        Protected(tag, version.version),
        key_version=version.version,
        bytes_in=len(request.input),
        bytes_out=len(tag),
    )


def verify_mac(request: TransitVerifyHmac, scene: Scene) -> Done:
    """Check a MAC under the version it names, the whole tag and in constant time."""
    key, rules = usable(scene)
    version = processing(key, rules, request.version, what="HMAC")
    tag = scene.once(
        "mac", (version,), lambda: scene.keyring.transit(key.spec, version).mac(request.input, request.digest)
    )
    valid = hmac.compare_digest(tag, request.mac)
    return Done(valid, key_version=version.version, bytes_in=len(request.input))


def plain_digest(request: TransitHash, _: Scene) -> Done:
    """A digest without any key."""
    return Done(digest(request.digest, request.input), bytes_in=len(request.input))


def random_bytes(request: TransitRandom, scene: Scene) -> Done:
    """Bytes of the operating system's generator."""
    return Done(scene.once("random", (), lambda: os.urandom(request.count)), bytes_out=request.count)


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    TransitHash: plain_digest,
    TransitHmac: mac,
    TransitRandom: random_bytes,
    TransitSign: sign,
    TransitVerify: verify,
    TransitVerifyHmac: verify_mac,
}
