"""Signatures, MACs, public keys and shared secrets as the AWS dialect has them."""

from collections.abc import Mapping
from typing import Final

from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.cipher import require_usage
from keyvault_lite.dialects.aws.errors import (
    InvalidKeyUsage,
    InvalidMac,
    InvalidSignature,
    UnsupportedOperation,
    Validation,
)
from keyvault_lite.dialects.aws.guard import guarded, refuse_recipient
from keyvault_lite.dialects.aws.model import (
    DIGEST,
    ED25519PH_DIGEST,
    EXTERNAL_MU,
    MU_BYTES,
    RAW,
    mac_algorithms,
    signing_algorithms,
)
from keyvault_lite.dialects.aws.replies import Derived, Encapsulated, Macced, MacVerified, SignatureVerified, Signed
from keyvault_lite.dialects.aws.view import View
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.keys import (
    DIGEST_SIZES,
    MAY_PROCESS,
    AnyAlgorithm,
    DialectAlgorithm,
    KeyType,
    KeyVersion,
    Purpose,
)
from keyvault_lite.model.requests import Request


def _signing(request: words.Sign | words.Verify, seen: View, operation: str) -> tuple[AnyAlgorithm, bool]:
    """The algorithm in the vault's own words, and whether the message is its digest."""
    require_usage(seen, Purpose.SIGN, operation)
    algorithm = signing_algorithms(seen.key.spec).get(request.signing_algorithm)
    if algorithm is None:
        raise InvalidKeyUsage(f"Algorithm {request.signing_algorithm} is incompatible with key spec {seen.spec}.")
    kind, size = request.message_type, len(request.message)
    if seen.key.spec.type is KeyType.ML_DSA:
        return _ml_dsa(algorithm, kind, size)
    if seen.key.spec.type is KeyType.ED25519:
        return _ed25519(algorithm, kind, size)
    if kind == EXTERNAL_MU:
        raise Validation(f"MessageType {kind} is not compatible with {request.signing_algorithm}.")
    if kind == DIGEST and size != DIGEST_SIZES[algorithm]:
        raise Validation(f"Digest is invalid length for algorithm {request.signing_algorithm}.")
    return algorithm, kind == DIGEST


def _ml_dsa(algorithm: AnyAlgorithm, kind: str, size: int) -> tuple[AnyAlgorithm, bool]:
    if kind == RAW:
        return algorithm, False
    if kind != EXTERNAL_MU:
        raise Validation("MessageType DIGEST is not compatible with ML_DSA_SHAKE_256.")
    if size != MU_BYTES:
        raise Validation(f"An external mu has {MU_BYTES} bytes.")
    return DialectAlgorithm.ML_DSA_MU, False


def _ed25519(algorithm: AnyAlgorithm, kind: str, size: int) -> tuple[AnyAlgorithm, bool]:
    hashed = algorithm is DialectAlgorithm.ED25519PH
    if kind != (DIGEST if hashed else RAW):
        wanted = DIGEST if hashed else RAW
        raise Validation(f"This signing algorithm requires MessageType {wanted}.")
    if hashed and size != ED25519PH_DIGEST:
        raise Validation("Digest is invalid length for algorithm ED25519_PH_SHA_512.")
    return algorithm, False


def _able(seen: View) -> tuple[KeyVersion, ...]:
    """The versions that may verify, newest first."""
    seen.require_usable()
    return tuple(one for one in reversed(seen.key.versions) if one.status in MAY_PROCESS)


def sign(request: words.Sign, seen: View, ctx: HandlerContext) -> HandlerResult:
    """Sign with the newest material."""
    algorithm, prehashed = _signing(request, seen, "Sign")
    version = seen.protecting()
    signature = ctx.once(
        "sign",
        (version,),
        lambda: ctx.keyring.sign(seen.key.spec, version, request.message, algorithm, prehashed=prehashed),
    )
    return HandlerResult(
        Signed(seen.arn, signature, request.signing_algorithm),
        key_version=version.version,
        bytes_in=len(request.message),
        bytes_out=len(signature),
    )


def verify(request: words.Verify, seen: View, ctx: HandlerContext) -> HandlerResult:
    """Check a signature; one that does not hold is an error."""
    algorithm, prehashed = _signing(request, seen, "Verify")
    version = _holds(seen, request.message, request.signature, algorithm, ctx, prehashed=prehashed)
    if version is None:
        raise InvalidSignature
    return HandlerResult(
        SignatureVerified(seen.arn, request.signing_algorithm),
        key_version=version.version,
        bytes_in=len(request.message),
    )


def _holds(
    seen: View,
    message: bytes,
    signature: bytes,
    algorithm: AnyAlgorithm,
    ctx: HandlerContext,
    *,
    prehashed: bool = False,
) -> KeyVersion | None:
    versions = _able(seen)

    def holds_under() -> KeyVersion | None:
        for version in versions:
            if ctx.keyring.verify(seen.key.spec, version, message, signature, algorithm, prehashed=prehashed):
                return version
        return None

    return ctx.once("verify", versions, holds_under)


def _mac(request: words.GenerateMac | words.VerifyMac, seen: View, operation: str) -> AnyAlgorithm:
    require_usage(seen, Purpose.MAC, operation)
    algorithm = mac_algorithms(seen.key.spec).get(request.mac_algorithm)
    if algorithm is None:
        raise InvalidKeyUsage(f"Algorithm {request.mac_algorithm} is incompatible with key spec {seen.spec}.")
    return algorithm


def generate_mac(request: words.GenerateMac, seen: View, ctx: HandlerContext) -> HandlerResult:
    """A MAC with the newest material."""
    algorithm = _mac(request, seen, "GenerateMac")
    version = seen.protecting()
    mac = ctx.keyring.sign(seen.key.spec, version, request.message, algorithm, prehashed=False)
    return HandlerResult(
        Macced(mac, request.mac_algorithm, seen.arn),
        key_version=version.version,
        bytes_in=len(request.message),
        bytes_out=len(mac),
    )


def verify_mac(request: words.VerifyMac, seen: View, ctx: HandlerContext) -> HandlerResult:
    """Check a MAC; one that does not hold is an error."""
    algorithm = _mac(request, seen, "VerifyMac")
    version = _holds(seen, request.message, request.mac, algorithm, ctx)
    if version is None:
        raise InvalidMac
    return HandlerResult(
        MacVerified(seen.arn, request.mac_algorithm), key_version=version.version, bytes_in=len(request.message)
    )


def get_public_key(_: words.GetPublicKey, seen: View, _scene: HandlerContext) -> HandlerResult:
    """The public key, and what it is for."""
    if not seen.key.spec.asymmetric:
        raise UnsupportedOperation(f"{seen.arn} is not an asymmetric key.")
    return HandlerResult(seen, key_version=seen.protecting().version)


def derive_shared_secret(request: words.DeriveSharedSecret, seen: View, ctx: HandlerContext) -> HandlerResult:
    """The raw x coordinate shared with another's public key."""
    refuse_recipient(request.recipient)
    require_usage(seen, Purpose.AGREE, "DeriveSharedSecret")
    version = seen.protecting()
    try:
        secret = ctx.once(
            "derive", (version,), lambda: ctx.keyring.derive_secret(seen.key.spec, version, request.public_key)
        )
    except InvalidRequest as error:
        raise Validation(error.detail) from None
    result = Derived(seen.arn, secret, request.key_agreement_algorithm, seen.origin)
    return HandlerResult(result, key_version=version.version, bytes_out=len(secret))


def encapsulate(request: words.Encapsulate, seen: View, ctx: HandlerContext) -> HandlerResult:
    """A fresh secret, and its ciphertext."""
    require_usage(seen, Purpose.ENCAPSULATE, "Encapsulate")
    version = seen.protecting()
    secret, ciphertext = ctx.once("encapsulate", (version,), lambda: ctx.keyring.encapsulate(seen.key.spec, version))
    result = Encapsulated(seen.arn, secret, request.encapsulation_algorithm, ciphertext)
    return HandlerResult(result, key_version=version.version, bytes_out=len(secret))


def decapsulate(request: words.Decapsulate, seen: View, ctx: HandlerContext) -> HandlerResult:
    """The secret of a ciphertext; of an altered one another secret, which is how ML-KEM rejects."""
    require_usage(seen, Purpose.ENCAPSULATE, "Decapsulate")
    version = seen.protecting()
    secret = ctx.once(
        "decapsulate",
        (version,),
        lambda: ctx.keyring.decapsulate(seen.key.spec, version, request.shared_secret_ciphertext_blob),
    )
    result = Encapsulated(seen.arn, secret, request.encapsulation_algorithm)
    return HandlerResult(result, key_version=version.version, bytes_out=len(secret))


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    words.Decapsulate: guarded(decapsulate),
    words.DeriveSharedSecret: guarded(derive_shared_secret),
    words.Encapsulate: guarded(encapsulate),
    words.GenerateMac: guarded(generate_mac),
    words.GetPublicKey: guarded(get_public_key),
    words.Sign: guarded(sign),
    words.Verify: guarded(verify),
    words.VerifyMac: guarded(verify_mac),
}
