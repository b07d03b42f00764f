"""One share of a slot key, as it is written on paper and as the slot knows it.

    kvlshare1…       Bech32m (BIP-350) with the prefix `kvlshare` over  set[4] | t | n | x | y[32]

The checksum finds up to four mistyped characters. A slot has a digest of each share, so a wrong share is refused by
itself, before others are there; y has 256 bits of entropy, so that digest cannot be guessed backwards.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final, Self

from keyvault_lite.crypto.container import Rng
from keyvault_lite.crypto.root import SIZE, RootError
from keyvault_lite.crypto.secret import Secret
from keyvault_lite.crypto.shamir import split
from keyvault_lite.crypto.slot_parameters import SlotPlace

PREFIX: Final = "kvlshare"
SET_SIZE: Final = 4
_HEAD: Final = SET_SIZE + 3
_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32M: Final = 0x2BC830A3
_CHECKSUM: Final = 6
_MAX_TEXT: Final = 128


class NotAShare(RootError):
    """The text is not a share, or was mistyped."""


@dataclass(frozen=True, slots=True, repr=False)
class Share(Secret):
    """One of `shares` shares, any `threshold` of which open the slot."""

    set_id: bytes
    """4 random bytes that shares made together have in common."""
    threshold: int
    shares: int
    x: int
    y: bytes

    def write(self) -> str:
        """The text for its holder."""
        raw = self.set_id + bytes((self.threshold, self.shares, self.x)) + self.y
        return encode_bech32m(PREFIX, raw)

    @classmethod
    def read(cls, text: str) -> Self:
        """From the text, in lower or upper case, with spaces and hyphens between groups. Raises NotAShare."""
        compact = "".join(text[: 2 * _MAX_TEXT].replace("-", " ").split())
        raw = decode_bech32m(PREFIX, compact)
        if raw is None or len(raw) != _HEAD + SIZE:
            raise NotAShare("That is not a share, or a character of it is wrong.")
        threshold, shares, x = raw[SET_SIZE:_HEAD]
        if not 1 <= threshold <= shares or not 1 <= x <= shares:
            raise NotAShare("That is not a share, or a character of it is wrong.")
        return cls(raw[:SET_SIZE], threshold, shares, x, raw[_HEAD:])


def new_shares(secret: bytes, *, shares: int, threshold: int, rng: Rng) -> list[Share]:
    """A secret of 32 bytes, split."""
    set_id = rng(SET_SIZE)
    made = split(secret, shares=shares, threshold=threshold, rng=rng)
    return [Share(set_id, threshold, shares, x, y) for x, y in made.items()]


def share_check(place: SlotPlace, set_id: bytes, x: int, y: bytes) -> bytes:
    """What the slot knows of a share; 32 bytes."""
    return hashlib.sha256(place.label("share-check", set_id, x, y)).digest()


def is_share(place: SlotPlace, set_id: bytes, x: int, y: bytes, check: bytes) -> bool:
    """Whether a share is the one that the slot knows."""
    return hmac.compare_digest(share_check(place, set_id, x, y), check)


def encode_bech32m(prefix: str, raw: bytes) -> str:
    """BIP-350, for data of whole bytes."""
    words = _regroup(raw, 8, 5)
    checksum = _polymod([*_expand(prefix), *words, *[0] * _CHECKSUM]) ^ _BECH32M
    tail = [checksum >> 5 * (_CHECKSUM - 1 - i) & 31 for i in range(_CHECKSUM)]
    return f"{prefix}1{''.join(_ALPHABET[word] for word in (*words, *tail))}"


def decode_bech32m(prefix: str, text: str) -> bytes | None:
    """The data, None for any text that `encode_bech32m` does not write in lower or upper case."""
    if len(text) > _MAX_TEXT or text not in {text.lower(), text.upper()}:
        return None
    head, separator, tail = text.lower().rpartition("1")
    if head != prefix or not separator or len(tail) < _CHECKSUM or not set(tail) <= set(_ALPHABET):
        return None
    words = [_ALPHABET.index(letter) for letter in tail]
    if _polymod([*_expand(prefix), *words]) != _BECH32M:
        return None
    raw = bytes(_regroup(bytes(words[:-_CHECKSUM]), 5, 8, whole=True))
    # Padding bits that are not zero would give one share two texts.
    return raw if encode_bech32m(prefix, raw) == text.lower() else None


def _polymod(words: list[int]) -> int:
    check = 1
    for word in words:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ word
        for bit, factor in enumerate(_GENERATOR):
            check ^= factor if top >> bit & 1 else 0
    return check


def _expand(prefix: str) -> list[int]:
    return [*(ord(letter) >> 5 for letter in prefix), 0, *(ord(letter) & 31 for letter in prefix)]


def _regroup(values: bytes, width: int, into: int, *, whole: bool = False) -> list[int]:
    """Bits in groups of another width; with `whole` the bits that fill no group are left out."""
    held = bits = 0
    groups = []
    for value in values:
        held, bits = held << width | value, bits + width
        while bits >= into:
            bits -= into
            groups.append(held >> bits & (1 << into) - 1)
    if bits and not whole:
        groups.append(held << into - bits & (1 << into) - 1)
    return groups
