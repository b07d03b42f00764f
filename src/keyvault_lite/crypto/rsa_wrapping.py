"""Wrapping a key to an RSA key of a device, outside of the device: RSAES-OAEP (RFC 8017, section 7.1)."""

from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

SMALLEST: Final = 2048
LARGEST: Final = 8192
HASHES: Final = {"sha256": hashes.SHA256, "sha1": hashes.SHA1}
"""SHA-1 is as good in OAEP, which needs no resistance to collisions; some devices have nothing else."""


def wrap_to(modulus: int, exponent: int, raw: bytes, *, hash_name: str) -> bytes:
    """Encrypt up to 190 bytes. Raises ValueError for a key of an unfit size or an unknown hash."""
    if not SMALLEST <= modulus.bit_length() <= LARGEST or hash_name not in HASHES:
        raise ValueError("an RSA key of a root has 2048 to 8192 bits")
    algorithm = HASHES[hash_name]()
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    return key.encrypt(raw, padding.OAEP(padding.MGF1(algorithm), algorithm, None))
