"""Secrets shared with others: ECDH (SP 800-56A) and ML-KEM (FIPS 203), which dialects alone offer."""

from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keyvault_lite.crypto import pycryptodome_backend
from keyvault_lite.crypto.container import refusal
from keyvault_lite.crypto.material import CURVES, load
from keyvault_lite.crypto.secret import Secret
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.keys import KeySpec


class Agreement(Secret):
    """The loaded material of one version of an AGREE key."""

    __slots__ = ("_curve", "_private")

    def __init__(self, spec: KeySpec, secret: bytes) -> None:
        private = load(secret)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise TypeError("not an EC key")
        self._private: Final = private
        self._curve: Final = type(CURVES[spec.size or 0]())

    def derive(self, peer: bytes) -> bytes:
        """The raw x coordinate shared with a public key (SubjectPublicKeyInfo, DER).

        Raises InvalidRequest for a key of another kind or curve; loading it checks that the point is on the curve.
        """
        try:
            public = load_der_public_key(peer)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            public = None
        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, self._curve):
            raise InvalidRequest("the public key is not one of this key's curve, as SubjectPublicKeyInfo in DER")
        return self._private.exchange(ec.ECDH(), public)


CIPHERTEXTS: Final = {512: pycryptodome_backend.ML_KEM_512_CIPHERTEXT, 768: 1088, 1024: 1568}
"""Bytes of an ML-KEM ciphertext, by parameter set (FIPS 203, table 3)."""


class Encapsulation(Secret):
    """The loaded material of one version of an ENCAPSULATE key."""

    __slots__ = ("_private", "_public", "_secret", "_size")

    def __init__(self, spec: KeySpec, secret: bytes, public: bytes) -> None:
        self._size: Final = spec.size or 0
        self._secret: Final = secret
        self._public: Final = public
        self._private: Final[Any] = None if self._size == 512 else load(secret)  # noqa: PLR2004  (see crypto/pycryptodome_backend.py)

    def encapsulate(self) -> tuple[bytes, bytes]:
        """A fresh secret of 32 bytes, and its ciphertext."""
        if self._private is None:
            return pycryptodome_backend.ml_kem_512_encapsulate(self._public)
        secret, ciphertext = self._private.public_key().encapsulate()
        return secret, ciphertext

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The secret; of an altered ciphertext another one. Raises InvalidCiphertext for one of another length."""
        if len(ciphertext) != CIPHERTEXTS[self._size]:
            raise refusal()
        if self._private is None:
            return pycryptodome_backend.ml_kem_512_decapsulate(self._secret, ciphertext)
        secret: bytes = self._private.decapsulate(ciphertext)
        return secret
