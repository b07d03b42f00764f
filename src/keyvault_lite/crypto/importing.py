"""Material that comes from outside: unwrapped from what its owner wrapped under a wrapping key of the vault.

Two ways: RSA-OAEP of the material itself, or RSA-OAEP of a fresh AES-256 key and the material under AES key wrap with
padding (RFC 5649; PKCS #11's CKM_RSA_AES_KEY_WRAP). Every failure is one InvalidCiphertext. Unwrapped material is
parsed and validated in full before anything is kept: it is the one input that becomes a key.

A public key needs no wrapping; of a key of purpose TRANSIT it can come alone, and the private key later.
"""

from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap_with_padding
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from keyvault_lite.crypto.container import refusal
from keyvault_lite.crypto.material import CURVES, Material, adopt, parse_pair
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.keys import KeySpec, KeyType

HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "SHA1": hashes.SHA1(),  # noqa: S303  (in OAEP, where clients still name it)
    "SHA224": hashes.SHA224(),
    "SHA256": hashes.SHA256(),
    "SHA384": hashes.SHA384(),
    "SHA512": hashes.SHA512(),
}
_AES_KEYS: Final = frozenset({16, 24, 32})
_ML_DSA: Final[Mapping[int, type]] = {
    44: mldsa.MLDSA44PublicKey,
    65: mldsa.MLDSA65PublicKey,
    87: mldsa.MLDSA87PublicKey,
}
_PUBLIC: Final = "-----BEGIN PUBLIC KEY-----"


def open_oaep(private: rsa.RSAPrivateKey, wrapped: bytes, digest: str) -> bytes:
    """What was encrypted to the public key with RSAES-OAEP, hash and mask the same. Raises InvalidCiphertext."""
    algorithm = HASHES[digest]
    try:
        return private.decrypt(wrapped, padding.OAEP(padding.MGF1(algorithm), algorithm, None))
    except ValueError:
        raise refusal() from None


def seal_oaep(public: rsa.RSAPublicKey, plaintext: bytes, digest: str) -> bytes:
    """Encrypt to the public key. Raises InvalidRequest for more than the modulus holds."""
    algorithm = HASHES[digest]
    if len(plaintext) > public.key_size // 8 - 2 * algorithm.digest_size - 2:
        raise InvalidRequest("the plaintext is larger than this key and algorithm can encrypt")
    return public.encrypt(plaintext, padding.OAEP(padding.MGF1(algorithm), algorithm, None))


def open_wrapped(private: rsa.RSAPrivateKey, wrapped: bytes, digest: str) -> bytes:
    """What is under AES-KWP behind an AES key in RSAES-OAEP. Raises InvalidCiphertext."""
    end = private.key_size // 8
    key = open_oaep(private, wrapped[:end], digest)
    if len(key) not in _AES_KEYS:
        raise refusal()
    try:
        return aes_key_unwrap_with_padding(key, wrapped[end:])
    except (InvalidUnwrap, ValueError):
        raise refusal() from None


def imported(spec: KeySpec, raw: bytes) -> Material:
    """Material of that kind: the bytes of a symmetric key, or a key pair as PKCS #8 in DER. Raises InvalidRequest."""
    if not spec.asymmetric:
        if len(raw) != (spec.size or 0) // 8:
            raise InvalidRequest(f"the material of this kind of key has {(spec.size or 0) // 8} bytes")
        return Material(raw)
    try:
        pair = parse_pair(raw)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidRequest("the material is not a private key as PKCS #8 in DER") from None
    _check_kind(spec, pair.public_key())
    return adopt(pair)


def imported_public(spec: KeySpec, pem: str) -> Material:
    """Material without a secret, from SubjectPublicKeyInfo in PEM. Raises InvalidRequest."""
    if not spec.asymmetric:
        raise InvalidRequest("provided type does not support public_key import")
    try:
        # The other block that would be read is PKCS #1, which says nothing of the key's kind.
        key = load_pem_public_key(pem.encode()) if _PUBLIC in pem else None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if key is None:
        raise InvalidRequest("the public key is not SubjectPublicKeyInfo in PEM")
    _check_kind(spec, key)
    return Material(b"", key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _check_kind(spec: KeySpec, key: object) -> None:
    fits = {
        KeyType.RSA: lambda: isinstance(key, rsa.RSAPublicKey) and key.key_size == spec.size,
        KeyType.EC: lambda: (
            isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, type(CURVES[spec.size or 0]()))
        ),
        KeyType.SECP256K1: lambda: isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256K1),
        KeyType.ED25519: lambda: isinstance(key, ed25519.Ed25519PublicKey),
        KeyType.ML_DSA: lambda: isinstance(key, _ML_DSA[spec.size or 0]),
    }.get(spec.type)
    if fits is None or not fits():
        raise InvalidRequest("the material is of another kind than the key")
