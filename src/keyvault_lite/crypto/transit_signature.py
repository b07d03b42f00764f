"""Signatures of keys of purpose TRANSIT: more choices than the native API has, and the two ways to write them.

ECDSA in DER, or fixed-width r | s for JWS (RFC 7515, RFC 7518 section 3.4). RSA-PSS (the default) with the longest salt
that fits, or PKCS #1 v1.5. Ed25519 and ML-DSA sign the input as it is, whatever hash is named. SHA-1 verifies what is
old and signs nothing new.
"""

from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.signature_schemes import NO_HASH, SALT_AUTO, SALT_HASH, Marshaling, Padding, Scheme

HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "sha1": hashes.SHA1(),  # noqa: S303  (verifies only)
    "sha2-224": hashes.SHA224(),
    "sha2-256": hashes.SHA256(),
    "sha2-384": hashes.SHA384(),
    "sha2-512": hashes.SHA512(),
    "sha3-224": hashes.SHA3_224(),
    "sha3-256": hashes.SHA3_256(),
    "sha3-384": hashes.SHA3_384(),
    "sha3-512": hashes.SHA3_512(),
}
_LEGACY: Final = frozenset({"sha1"})


def sign(private: Any, message: bytes, scheme: Scheme) -> bytes:  # noqa: ANN401
    """A signature in the scheme's marshaling, before any base64."""
    if isinstance(private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) and scheme.digest in _LEGACY:
        raise InvalidRequest("SHA-1 verifies old signatures and makes no new ones")
    if isinstance(private, rsa.RSAPrivateKey):
        algorithm = _rsa_hash(message, scheme)
        return private.sign(message, _padding(private.key_size, scheme, signing=True), algorithm)
    if isinstance(private, ec.EllipticCurvePrivateKey):
        signature = private.sign(message, ec.ECDSA(_hash(message, scheme)))
        return _to_fixed(signature, private.key_size) if scheme.marshaling is Marshaling.JWS else signature
    pure: bytes = private.sign(message)
    return pure


def verify(public: Any, message: bytes, signature: bytes, scheme: Scheme) -> bool:  # noqa: ANN401
    """Whether the signature holds. Raises InvalidRequest for an ECDSA signature that does not parse."""
    try:
        if isinstance(public, rsa.RSAPublicKey):
            chosen = _padding(public.key_size, scheme, signing=False)
            public.verify(signature, message, chosen, _rsa_hash(message, scheme))
        elif isinstance(public, ec.EllipticCurvePublicKey):
            if scheme.marshaling is Marshaling.JWS:
                signature = _from_fixed(signature, public.key_size)
            else:
                _check_der(signature)
            public.verify(signature, message, ec.ECDSA(_hash(message, scheme)))
        else:
            public.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _hash(message: bytes, scheme: Scheme) -> hashes.HashAlgorithm | utils.Prehashed:
    if scheme.digest == NO_HASH:
        raise InvalidRequest("hash_algorithm=none is for RSA keys")
    algorithm = HASHES[scheme.digest]
    if not scheme.prehashed:
        return algorithm
    if len(message) != algorithm.digest_size:
        raise InvalidRequest(f"a prehashed input of {scheme.digest} has {algorithm.digest_size} bytes")
    return utils.Prehashed(algorithm)


def _rsa_hash(message: bytes, scheme: Scheme) -> Any:  # noqa: ANN401
    return utils.NoDigestInfo() if scheme.digest == NO_HASH else _hash(message, scheme)


def _padding(key_size: int, scheme: Scheme, *, signing: bool) -> padding.AsymmetricPadding:
    if scheme.padding is Padding.PKCS1V15:
        return padding.PKCS1v15()
    algorithm = HASHES[scheme.digest]
    longest = (key_size + 6) // 8 - algorithm.digest_size - 2
    if scheme.salt > longest or (scheme.salt == SALT_HASH and algorithm.digest_size > longest):
        raise InvalidRequest("the requested salt length is longer than this key and hash allow")
    salt: Any = scheme.salt
    if scheme.salt == SALT_AUTO:
        salt = padding.PSS.MAX_LENGTH if signing else padding.PSS.AUTO
    elif scheme.salt == SALT_HASH:
        salt = algorithm.digest_size
    return padding.PSS(padding.MGF1(algorithm), salt)


def _to_fixed(signature: bytes, bits: int) -> bytes:
    size = (bits + 7) // 8
    return b"".join(number.to_bytes(size, "big") for number in utils.decode_dss_signature(signature))


def _from_fixed(signature: bytes, bits: int) -> bytes:
    size = (bits + 7) // 8
    if len(signature) != 2 * size:
        raise InvalidSignature
    return utils.encode_dss_signature(int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big"))


def _check_der(signature: bytes) -> None:
    try:
        utils.decode_dss_signature(signature)
    except ValueError:
        raise InvalidRequest("supplied signature is invalid") from None
