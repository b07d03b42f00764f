"""Signatures and MACs: one scheme an algorithm, chosen from a table.

ECDSA signatures are DER (RFC 3279), RSA-PSS salts are as long as the hash (FIPS 186-5, section 5.4), Ed25519 is pure
(RFC 8032), ML-DSA is pure with empty context (FIPS 204). Dialects alone name Ed25519ph, external mu, secp256k1 and
HMAC-SHA-224. Not offered: SHA-1, MD5, raw RSA.
"""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

from keyvault_lite.crypto import pycryptodome_backend
from keyvault_lite.crypto.material import load
from keyvault_lite.crypto.secret import Secret
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.keys import DIGEST_SIZES, Algorithm, AnyAlgorithm, DialectAlgorithm, KeySpec, KeyType


@dataclass(frozen=True, slots=True)
class Scheme:
    """How one algorithm signs and verifies. `verify` raises InvalidSignature; for a MAC both keys are the same bytes.

    The last argument says that the message is a digest; only algorithms in DIGEST_SIZES are ever asked that.
    """

    sign: Callable[[Any, bytes, bool], bytes]
    verify: Callable[[Any, bytes, bytes, bool], None]


def _hash(digest: hashes.HashAlgorithm, prehashed: bool) -> hashes.HashAlgorithm | utils.Prehashed:  # noqa: FBT001
    return utils.Prehashed(digest) if prehashed else digest


def _rsa(pad: padding.AsymmetricPadding, digest: hashes.HashAlgorithm) -> Scheme:
    return Scheme(
        sign=lambda key, message, prehashed: key.sign(message, pad, _hash(digest, prehashed)),
        verify=lambda key, message, signature, prehashed: key.verify(signature, message, pad, _hash(digest, prehashed)),
    )


def _pss(digest: hashes.HashAlgorithm) -> Scheme:
    return _rsa(padding.PSS(padding.MGF1(digest), digest.digest_size), digest)


def _ecdsa(digest: hashes.HashAlgorithm) -> Scheme:
    return Scheme(
        sign=lambda key, message, prehashed: key.sign(message, ec.ECDSA(_hash(digest, prehashed))),
        verify=lambda key, message, signature, prehashed: key.verify(
            signature, message, ec.ECDSA(_hash(digest, prehashed))
        ),
    )


def _hmac(digest: str) -> Scheme:
    def verify(key: bytes, message: bytes, tag: bytes, _prehashed: bool) -> None:  # noqa: FBT001
        # The whole tag, in constant time: a truncated one is no tag.
        if not hmac.compare_digest(hmac.digest(key, message, digest), tag):
            raise InvalidSignature

    return Scheme(sign=lambda key, message, _prehashed: hmac.digest(key, message, digest), verify=verify)


_PURE: Final = Scheme(
    sign=lambda key, message, _prehashed: key.sign(message),
    verify=lambda key, message, signature, _prehashed: key.verify(signature, message),
)


def _ph_verify(key: Any, message: bytes, signature: bytes, _prehashed: bool) -> None:  # noqa: ANN401, FBT001
    if not pycryptodome_backend.ed25519ph_verify(key.public_bytes_raw(), message, signature):
        raise InvalidSignature


SCHEMES: Final[Mapping[AnyAlgorithm, Scheme]] = {
    Algorithm.RSA_PSS_SHA256: _pss(hashes.SHA256()),
    Algorithm.RSA_PSS_SHA384: _pss(hashes.SHA384()),
    Algorithm.RSA_PSS_SHA512: _pss(hashes.SHA512()),
    Algorithm.RSA_PKCS1_SHA256: _rsa(padding.PKCS1v15(), hashes.SHA256()),
    Algorithm.RSA_PKCS1_SHA384: _rsa(padding.PKCS1v15(), hashes.SHA384()),
    Algorithm.RSA_PKCS1_SHA512: _rsa(padding.PKCS1v15(), hashes.SHA512()),
    Algorithm.ECDSA_SHA256: _ecdsa(hashes.SHA256()),
    Algorithm.ECDSA_SHA384: _ecdsa(hashes.SHA384()),
    Algorithm.ECDSA_SHA512: _ecdsa(hashes.SHA512()),
    Algorithm.ED25519: _PURE,
    Algorithm.ML_DSA_44: _PURE,
    Algorithm.ML_DSA_65: _PURE,
    Algorithm.ML_DSA_87: _PURE,
    Algorithm.HMAC_SHA256: _hmac("sha256"),
    Algorithm.HMAC_SHA384: _hmac("sha384"),
    Algorithm.HMAC_SHA512: _hmac("sha512"),
    DialectAlgorithm.ECDSA_SECP256K1_SHA256: _ecdsa(hashes.SHA256()),
    DialectAlgorithm.ED25519PH: Scheme(
        sign=lambda key, message, _prehashed: pycryptodome_backend.ed25519ph_sign(key.private_bytes_raw(), message),
        verify=_ph_verify,
    ),
    DialectAlgorithm.HMAC_SHA224: _hmac("sha224"),
    DialectAlgorithm.ML_DSA_MU: Scheme(
        sign=lambda key, mu, _prehashed: key.sign_mu(mu),
        verify=lambda key, mu, signature, _prehashed: key.verify_mu(signature, mu),
    ),
}
DIALECTS: Final[Mapping[KeyType, frozenset[AnyAlgorithm]]] = {
    # What dialects do with keys of a type besides what the native API does with them.
    KeyType.ED25519: frozenset({DialectAlgorithm.ED25519PH}),
    KeyType.HMAC: frozenset({DialectAlgorithm.HMAC_SHA224}),
    KeyType.ML_DSA: frozenset({DialectAlgorithm.ML_DSA_MU}),
    KeyType.RSA: frozenset(one for one in Algorithm if one.startswith("RSA_P")),
    KeyType.SECP256K1: frozenset({DialectAlgorithm.ECDSA_SECP256K1_SHA256}),
}


class Signer(Secret):
    """The loaded material of one version of a SIGN or MAC key."""

    __slots__ = ("_private", "_public", "_spec")

    def __init__(self, spec: KeySpec, secret: bytes) -> None:
        self._spec: Final = spec
        self._private: Any
        self._public: Any
        if spec.type is KeyType.HMAC:
            self._private = self._public = secret
        else:
            self._private = load(secret)
            self._public = self._private.public_key()

    def sign(self, message: bytes, algorithm: AnyAlgorithm, *, prehashed: bool) -> bytes:
        """Signature or MAC of the message, or of the digest that is in its place.

        Raises InvalidRequest for an algorithm this key does not have and for a digest of another length.
        """
        return self._scheme(message, algorithm, prehashed).sign(self._private, message, prehashed)

    def verify(self, message: bytes, signature: bytes, algorithm: AnyAlgorithm, *, prehashed: bool) -> bool:
        """Whether the signature or MAC holds. Raises as `sign` does."""
        scheme = self._scheme(message, algorithm, prehashed)
        try:
            scheme.verify(self._public, message, signature, prehashed)
        except InvalidSignature:
            return False
        return True

    def _scheme(self, message: bytes, algorithm: AnyAlgorithm, prehashed: bool) -> Scheme:  # noqa: FBT001
        if algorithm not in self._spec.algorithms and algorithm not in DIALECTS.get(self._spec.type, ()):
            raise InvalidRequest(f"this key does not do {algorithm}; it does {', '.join(self._spec.algorithms)}")
        if prehashed:
            size = DIGEST_SIZES.get(algorithm)
            if size is None:
                raise InvalidRequest(f"{algorithm} takes the message itself, not a digest")
            if len(message) != size:
                raise InvalidRequest(f"the digest of {algorithm} has {size} bytes")
        return SCHEMES[algorithm]
