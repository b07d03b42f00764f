"""What `cryptography` has not: Ed25519ph and ML-KEM-512, from pycryptodome, which comes with the extra `aws-full`.

It is imported when first needed, so that an installation without the extra lacks these two things and nothing else.
Errors name the library. Nothing here chooses parameters: they are fixed by FIPS 186-5 and FIPS 203.
"""

from importlib import import_module
from typing import Any, Final

from keyvault_lite.model.errors import Unsupported

REQUIREMENT: Final = "pycryptodome>=4.4,<4.5"
"""As the extra `aws-full` has it."""
SEED: Final = 64
"""Bytes of an ML-KEM private key as FIPS 203 generates it: d and z."""
ML_KEM_512_CIPHERTEXT: Final = 768


def _library(module: str, what: str) -> Any:  # noqa: ANN401  (it has no types that mypy could follow lazily)
    try:
        return import_module(module)
    except ImportError:
        raise Unsupported(f"{what} needs another library: pip install '{REQUIREMENT}'") from None


# Ed25519ph: the bytes are hashed with SHA-512 first, then signed under the "dom2" prefix (RFC 8032, section 5.1)


def ed25519ph_sign(seed: bytes, message: bytes) -> bytes:
    """Sign with the private key of 32 bytes. Raises Unsupported without the extra."""
    eddsa = _library("Crypto.Signature.eddsa", "Ed25519ph")
    sha512 = _library("Crypto.Hash.SHA512", "Ed25519ph")
    signature: bytes = eddsa.new(eddsa.import_private_key(seed), "rfc8032").sign(sha512.new(message))
    return signature


def ed25519ph_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the signature holds under the public key of 32 bytes. Raises Unsupported without the extra."""
    eddsa = _library("Crypto.Signature.eddsa", "Ed25519ph")
    sha512 = _library("Crypto.Hash.SHA512", "Ed25519ph")
    try:
        eddsa.new(eddsa.import_public_key(public), "rfc8032").verify(sha512.new(message), signature)
    except ValueError:
        return False
    return True


# ML-KEM-512. The library has the two operations under private names only: the range
# of versions in pyproject.toml ends at its next minor release, and tests hold both to vectors.


def _ml_kem() -> Any:  # noqa: ANN401  (as above)
    return _library("Crypto.PublicKey.MLKEM", "ML-KEM-512")


def ml_kem_512_public(seed: bytes) -> bytes:
    """The SubjectPublicKeyInfo (RFC 9935) of the private key."""
    mlkem = _ml_kem()
    public: bytes = mlkem.construct(param_set=mlkem.ML_KEM_512, seed=seed).public_key().export_key(format="DER")
    return public


def ml_kem_512_private(seed: bytes) -> bytes:
    """The private key as PKCS #8 (RFC 9935)."""
    mlkem = _ml_kem()
    private: bytes = mlkem.construct(param_set=mlkem.ML_KEM_512, seed=seed).export_key(format="DER")
    return private


def ml_kem_512_encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """A fresh shared secret, and its ciphertext for the holder of the private key."""
    secret, ciphertext = _ml_kem().import_key(public)._encaps()  # noqa: SLF001
    return secret, ciphertext


def ml_kem_512_decapsulate(private: bytes, ciphertext: bytes) -> bytes:
    """The shared secret; of a ciphertext that was altered, another one (implicit rejection). The key is PKCS #8."""
    secret: bytes = _ml_kem().import_key(private)._decaps(ciphertext)  # noqa: SLF001
    return secret
