"""Signatures, MACs and random bytes."""

import os
from collections.abc import Mapping
from typing import Final

from keyvault_lite.engine.cipher import protecting
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.engine.keys import require_active
from keyvault_lite.model.errors import InvalidCiphertext, InvalidRequest, InvalidState
from keyvault_lite.model.keys import DIGEST_SIZES, MAY_PROCESS, Algorithm, Key, KeyVersion, Purpose
from keyvault_lite.model.replies import Signed, Verified
from keyvault_lite.model.requests import GenerateRandom, Request, Sign, Verify


def _algorithm(key: Key, request: Sign | Verify) -> Algorithm:
    """What to sign or verify with. Independent of the state: an impossible request is refused alike in every state."""
    named = request.algorithm
    if key.spec.purpose is Purpose.ENCRYPT or not key.spec.algorithms:
        raise InvalidRequest(f"a key of purpose {key.spec.purpose} does not sign or verify")
    if named is not None and named not in key.spec.algorithms:
        raise InvalidRequest(f"this key's algorithms are {', '.join(key.spec.algorithms)}")
    algorithm = named or key.spec.algorithms[0]
    if request.prehashed and len(request.message) != DIGEST_SIZES.get(algorithm):
        size = DIGEST_SIZES.get(algorithm)
        rule = "takes the message itself, not a digest" if size is None else f"takes a digest of {size} bytes"
        raise InvalidRequest(f"{algorithm} {rule}")
    return algorithm


def sign(request: Sign, ctx: HandlerContext) -> HandlerResult:
    """Sign or MAC with the ACTIVE version."""
    key = ctx.key
    algorithm = _algorithm(key, request)
    require_active(key, ctx.now)
    version = protecting(key)
    signature = ctx.once(
        "sign",
        (version,),
        lambda: ctx.keyring.sign(key.spec, version, request.message, algorithm, prehashed=request.prehashed),
    )
    return HandlerResult(
        Signed(signature, algorithm, version.version),
        key_version=version.version,
        bytes_in=len(request.message),
        bytes_out=len(signature),
    )


def verify(request: Verify, ctx: HandlerContext) -> HandlerResult:
    """Check against the version named, or against each that may verify, newest first."""
    key = ctx.key
    algorithm = _algorithm(key, request)
    candidates = _candidates(key, request.key_version)
    require_active(key, ctx.now)

    def holds_under() -> int | None:
        for version in candidates:
            if ctx.keyring.verify(
                key.spec, version, request.message, request.signature, algorithm, prehashed=request.prehashed
            ):
                return version.version
        return None

    found = ctx.once("verify", candidates, holds_under)
    return HandlerResult(
        Verified(found is not None, found),
        key_version=found,
        bytes_in=len(request.message),
    )


def _candidates(key: Key, number: int | None) -> tuple[KeyVersion, ...]:
    if number is None:
        return tuple(version for version in reversed(key.versions) if version.status in MAY_PROCESS)
    version = key.version(number)
    if version is None:  # As in decrypt: one that does not exist is one that does not match, not a missing object.
        raise InvalidCiphertext("the key has no such version")
    if version.status not in MAY_PROCESS:
        raise InvalidState(f"the version is {version.status}")
    return (version,)


def random_bytes(request: GenerateRandom, ctx: HandlerContext) -> HandlerResult:
    """Bytes of the operating system's generator."""
    return HandlerResult(ctx.once("random", (), lambda: os.urandom(request.count)), bytes_out=request.count)


HANDLERS: Final[Mapping[type[Request], Handler]] = {GenerateRandom: random_bytes, Sign: sign, Verify: verify}
