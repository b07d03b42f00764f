"""Signatures, MACs, digests and random bytes of the Vault dialect."""

import hmac
import os
from collections.abc import Mapping
from typing import Final

from keyvault_lite.crypto.transit import digest
from keyvault_lite.dialects.vault.requests import (
    SIGNING,
    CipherResult,
    TransitHash,
    TransitHmac,
    TransitRandom,
    TransitSign,
    TransitVerify,
    TransitVerifyHmac,
)
from keyvault_lite.dialects.vault.rules import derivation, processing, protecting, usable
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.requests import Request


def sign(request: TransitSign, ctx: HandlerContext) -> HandlerResult:
    """Sign with the newest version, or the one named."""
    key, rules = usable(ctx)
    if key.spec.type not in SIGNING:
        raise InvalidRequest(f"key type {key.spec.word} does not support signing")
    context = derivation(rules, request.context)
    version = protecting(key, rules, request.version, what="signing")
    signature, public = ctx.once(
        "sign",
        (version,),
        lambda: ctx.keyring.transit(key.spec, version).sign(request.input, request.scheme, context),
    )
    return HandlerResult(
        CipherResult(signature, version.version, public_key=public),
        key_version=version.version,
        bytes_in=len(request.input),
        bytes_out=len(signature),
    )


def verify(request: TransitVerify, ctx: HandlerContext) -> HandlerResult:
    """Check a signature under the version it names."""
    key, rules = usable(ctx)
    if key.spec.type not in SIGNING:
        raise InvalidRequest(f"key type {key.spec.word} does not support verification")
    context = derivation(rules, request.context)
    version = processing(key, rules, request.version, what="signature")
    valid = ctx.once(
        "verify",
        (version,),
        lambda: ctx.keyring.transit(key.spec, version).verify(
            request.input, request.signature, request.scheme, context
        ),
    )
    return HandlerResult(valid, key_version=version.version, bytes_in=len(request.input))


def mac(request: TransitHmac, ctx: HandlerContext) -> HandlerResult:
    """MAC with the HMAC key of the newest version, or of the one named."""
    key, rules = usable(ctx)
    version = protecting(key, rules, request.version, what="HMAC")
    tag = ctx.once("mac", (version,), lambda: ctx.keyring.transit(key.spec, version).mac(request.input, request.digest))
    return HandlerResult(
        CipherResult(tag, version.version),
        key_version=version.version,
        bytes_in=len(request.input),
        bytes_out=len(tag),
    )


def verify_mac(request: TransitVerifyHmac, ctx: HandlerContext) -> HandlerResult:
    """Check a MAC under the version it names, the whole tag and in constant time."""
    key, rules = usable(ctx)
    version = processing(key, rules, request.version, what="HMAC")
    tag = ctx.once("mac", (version,), lambda: ctx.keyring.transit(key.spec, version).mac(request.input, request.digest))
    valid = hmac.compare_digest(tag, request.mac)
    return HandlerResult(valid, key_version=version.version, bytes_in=len(request.input))


def plain_digest(request: TransitHash, _: HandlerContext) -> HandlerResult:
    """A digest without any key."""
    return HandlerResult(digest(request.digest, request.input), bytes_in=len(request.input))


def random_bytes(request: TransitRandom, ctx: HandlerContext) -> HandlerResult:
    """Bytes of the operating system's generator."""
    return HandlerResult(ctx.once("random", (), lambda: os.urandom(request.count)), bytes_out=request.count)


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    TransitHash: plain_digest,
    TransitHmac: mac,
    TransitRandom: random_bytes,
    TransitSign: sign,
    TransitVerify: verify,
    TransitVerifyHmac: verify_mac,
}
