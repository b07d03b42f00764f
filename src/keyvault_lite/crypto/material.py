"""Key material: how it is made, written down and loaded again.

Symmetric material is its bytes; a key pair is PKCS #8 in DER (RFC 5958; ML-DSA as its seed, RFC 9881) and its public
key SubjectPublicKeyInfo in DER (RFC 5280); ML-KEM is its seed too (RFC 9935). Material is only ever stored inside a
`kek` container.
"""

from collections.abc import Callable, Mapping
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from keyvault_lite.crypto import pycryptodome_backend
from keyvault_lite.crypto.container import Rng
from keyvault_lite.crypto.secret import Secret
from keyvault_lite.model.keys import KeySpec, KeyType

PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | mldsa.MLDSA44PrivateKey
    | mldsa.MLDSA65PrivateKey
    | mldsa.MLDSA87PrivateKey
    | mlkem.MLKEM768PrivateKey
    | mlkem.MLKEM1024PrivateKey
)
PublicKey = (
    rsa.RSAPublicKey
    | ec.EllipticCurvePublicKey
    | ed25519.Ed25519PublicKey
    | mldsa.MLDSA44PublicKey
    | mldsa.MLDSA65PublicKey
    | mldsa.MLDSA87PublicKey
    | mlkem.MLKEM768PublicKey
    | mlkem.MLKEM1024PublicKey
)

RSA_EXPONENT: Final = 65537
_PAIR: Final = b"pairwise consistency"
CURVES: Final[Mapping[int, Callable[[], ec.EllipticCurve]]] = {256: ec.SECP256R1, 384: ec.SECP384R1, 521: ec.SECP521R1}
_ML_DSA: Final[Mapping[int, Callable[[bytes], PrivateKey]]] = {
    44: mldsa.MLDSA44PrivateKey.from_seed_bytes,
    65: mldsa.MLDSA65PrivateKey.from_seed_bytes,
    87: mldsa.MLDSA87PrivateKey.from_seed_bytes,
}
_ML_KEM: Final[Mapping[int, Callable[[bytes], PrivateKey]]] = {
    768: mlkem.MLKEM768PrivateKey.from_seed_bytes,
    1024: mlkem.MLKEM1024PrivateKey.from_seed_bytes,
}


class Material(Secret):
    """Fresh material of one key version, not yet wrapped. Opaque: only the keyring takes it."""

    __slots__ = ("public_key", "secret")

    def __init__(self, secret: bytes, public_key: bytes | None = None) -> None:
        self.secret: Final = secret
        self.public_key: Final = public_key
        """SubjectPublicKeyInfo, DER; None for symmetric material."""


def generate(spec: KeySpec, rng: Rng) -> Material:
    """Fresh material for a key of this kind. RSA takes up to seconds: keep it off the event loop.

    RSA and EC keys are drawn by OpenSSL's own generator, all else from `rng`.
    """
    if spec.type is KeyType.ML_KEM and spec.size not in _ML_KEM:
        seed = rng(pycryptodome_backend.SEED)
        return Material(pycryptodome_backend.ml_kem_512_private(seed), pycryptodome_backend.ml_kem_512_public(seed))
    if spec.asymmetric:
        return _write(_PAIRS[spec.type](spec.size or 0, rng))
    return Material(rng((spec.size or 0) // 8))


def load(secret: bytes) -> PrivateKey:
    """The key pair from its PKCS #8 bytes.

    RSA keys are not validated again (half a second for 4096 bits): they were when they came in, and the container that
    the bytes come from is authenticated.
    """
    return _load(secret, trusted=True)


def load_rsa(secret: bytes) -> rsa.RSAPrivateKey:
    """As `load`, for a key that is RSA."""
    key = load(secret)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("not an RSA key")
    return key


def _load(secret: bytes, *, trusted: bool) -> PrivateKey:
    key = load_der_private_key(secret, None, unsafe_skip_rsa_key_validation=trusted)
    if not isinstance(key, PrivateKey):
        raise TypeError("not a key pair of a known type")
    return key


def parse_pair(secret: bytes) -> PrivateKey:
    """A key pair from outside, validated in full. Raises ValueError, TypeError or UnsupportedAlgorithm."""
    return _load(secret, trusted=False)


def adopt(key: PrivateKey) -> Material:
    """Material from a validated key pair of outside."""
    return _write(key)


def _write(key: PrivateKey) -> Material:
    secret = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    # From the very bytes that will be loaded from now on.
    read = load(secret)
    public = read.public_key()
    if isinstance(read, rsa.RSAPrivateKey):
        _check_pair(read, read.public_key())
    return Material(secret, public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _check_pair(private: rsa.RSAPrivateKey, public: rsa.RSAPublicKey) -> None:
    """The pairwise consistency test of SP 800-56B: all parts that are used fit together. Raises InvalidSignature.

    Not OpenSSL's whole check, which tests primes that the generator of the same library has just tested: for 4096 bits
    it takes half a second, in which the interpreter stands still and nobody is served.
    """
    padding, digest = PKCS1v15(), SHA256()
    public.verify(private.sign(_PAIR, padding, digest), _PAIR, padding, digest)


_PAIRS: Final[Mapping[KeyType, Callable[[int, Rng], PrivateKey]]] = {
    KeyType.RSA: lambda size, _rng: rsa.generate_private_key(RSA_EXPONENT, size),
    KeyType.EC: lambda size, _rng: ec.generate_private_key(CURVES[size]()),
    KeyType.ED25519: lambda _size, rng: ed25519.Ed25519PrivateKey.from_private_bytes(rng(32)),
    KeyType.ML_DSA: lambda size, rng: _ML_DSA[size](rng(32)),
    KeyType.ML_KEM: lambda size, rng: _ML_KEM[size](rng(64)),
    KeyType.SECP256K1: lambda _size, _rng: ec.generate_private_key(ec.SECP256K1()),
}
