"""Shamir's secret sharing (CACM 22, 1979) over GF(2^8), byte by byte: n shares, any t of which give the secret.

The field is that of AES (polynomial 0x11B), the share at x is the value of a random polynomial of degree t - 1, whose
constant term is the secret: the form that Vault's shares have too. Fewer than t shares say nothing about the secret.
Arithmetic uses shifts and masks and no tables, so its time does not depend on the bytes.
"""

from collections.abc import Mapping
from typing import Final

from keyvault_lite.crypto.container import Rng

MAX_SHARES: Final = 255
_POLYNOMIAL: Final = 0x1B
_BITS: Final = 8


def split(secret: bytes, *, shares: int, threshold: int, rng: Rng) -> dict[int, bytes]:
    """Shares by their x, from 1: each as long as the secret. Needs 1 ≤ threshold ≤ shares ≤ 255."""
    if not 1 <= threshold <= shares <= MAX_SHARES:
        raise ValueError("a threshold is between 1 and the number of shares, of which there are at most 255")
    # Horner's rule from the highest coefficient; all coefficients but the constant are uniform, zero included.
    higher = [rng(len(secret)) for _ in range(threshold - 1)]
    return {x: _evaluate(x, secret, higher) for x in range(1, shares + 1)}


def _evaluate(x: int, secret: bytes, higher: list[bytes]) -> bytes:
    value = bytes(len(secret))
    for coefficient in (*higher, secret):
        value = bytes(_multiply(byte, x) ^ other for byte, other in zip(value, coefficient, strict=True))
    return value


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret from as many shares as the threshold (Lagrange at 0). Others give other bytes, and no error.

    Raises ValueError for shares of different lengths or an x that no share has.
    """
    if not shares or not all(1 <= x <= MAX_SHARES for x in shares) or len({len(y) for y in shares.values()}) != 1:
        raise ValueError("shares have one length, and an x between 1 and 255")
    secret = bytes(len(next(iter(shares.values()))))
    for x, y in shares.items():
        weight = 1
        for other in shares:
            if other != x:
                weight = _multiply(weight, _multiply(other, _inverse(other ^ x)))
        secret = bytes(byte ^ _multiply(part, weight) for byte, part in zip(secret, y, strict=True))
    return secret


def _multiply(a: int, b: int) -> int:
    product = 0
    for _ in range(_BITS):
        product ^= a & -(b & 1)
        b >>= 1
        a = (a << 1) & 0xFF ^ _POLYNOMIAL & -(a >> 7)
    return product


def _inverse(a: int) -> int:
    """a^254, which is 1/a for every a but 0."""
    square, result = a, 1
    for _ in range(_BITS - 1):
        square = _multiply(square, square)
        result = _multiply(result, square)
    return result
