"""Shares of a slot key: any threshold of them give it back, fewer say nothing, and a slip in copying is found."""

import itertools
import os
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyvault_lite.crypto.shamir import combine, split
from keyvault_lite.crypto.shares import NotAShare, Share, decode_bech32m, encode_bech32m, is_share, share_check
from keyvault_lite.crypto.slot_parameters import SlotPlace

PLACE = SlotPlace(b"i" * 16, "00000000-0000-4000-8000-000000000001")
SHARE = Share(b"set!", 3, 5, 2, bytes(range(32)))


@given(secret=st.binary(min_size=1, max_size=40), data=st.data())
def test_any_threshold_of_them_give_the_secret(secret: bytes, data: st.DataObject) -> None:
    shares = data.draw(st.integers(1, 12))
    threshold = data.draw(st.integers(1, shares))
    made = split(secret, shares=shares, threshold=threshold, rng=os.urandom)
    chosen = data.draw(st.lists(st.sampled_from(sorted(made)), min_size=threshold, max_size=shares, unique=True))
    assert combine({x: made[x] for x in chosen}) == secret


def _first_of_two(secret: bytes, slope: bytes) -> bytes:
    return split(secret, shares=2, threshold=2, rng=lambda _: slope)[1]


def test_fewer_say_nothing() -> None:
    """Of a one-byte secret under two of two, one share has each value equally often, whatever the secret."""
    for secret in (b"\x00", b"\x5a", b"\xff"):
        seen = Counter(_first_of_two(secret, bytes([slope])) for slope in range(256))
        assert len(seen) == 256


def test_the_field_is_that_of_aes() -> None:
    """FIPS 197, section 4.2: 57 times 83 is c1. The share at x = 0x83 of a line with slope 0x57 says so."""
    assert split(b"\x00", shares=0x83, threshold=2, rng=lambda _: b"\x57")[0x83] == b"\xc1"


@pytest.mark.parametrize("shares", [{}, {0: b"a"}, {256: b"a"}, {1: b"a", 2: b"bb"}])
def test_what_cannot_be_combined_is_an_error(shares: dict[int, bytes]) -> None:
    with pytest.raises(ValueError, match="shares have one length"):
        combine(shares)


@pytest.mark.parametrize(("shares", "threshold"), [(1, 2), (0, 0), (256, 2), (3, 0)])
def test_what_cannot_be_split_is_an_error(shares: int, threshold: int) -> None:
    with pytest.raises(ValueError, match="threshold"):
        split(b"secret", shares=shares, threshold=threshold, rng=os.urandom)


@given(
    set_id=st.binary(min_size=4, max_size=4),
    numbers=st.tuples(*[st.integers(1, 255)] * 3).map(sorted),
    y=st.binary(min_size=32, max_size=32),
)
def test_the_text_gives_the_share_back(set_id: bytes, numbers: list[int], y: bytes) -> None:
    low, middle, high = numbers
    share = Share(set_id, middle, high, low, y)
    text = share.write()
    assert Share.read(text) == share
    assert Share.read(text.upper()) == share
    assert Share.read("  " + "-".join(text[at : at + 5] for at in range(0, len(text), 5)) + "\n") == share


@given(places=st.lists(st.integers(9, len(SHARE.write()) - 1), min_size=1, max_size=4, unique=True), data=st.data())
def test_up_to_four_wrong_characters_are_found(places: list[int], data: st.DataObject) -> None:
    text = list(SHARE.write())
    for place in places:
        others = [letter for letter in "qpzry9x8gf2tvdw0s3jn54khce6mua7l" if letter != text[place]]
        text[place] = data.draw(st.sampled_from(others))
    with pytest.raises(NotAShare):
        Share.read("".join(text))


@given(st.text(max_size=300))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(NotAShare):
        Share.read(text)


@pytest.mark.parametrize("numbers", [(0, 5, 1), (3, 2, 1), (2, 3, 0), (2, 3, 4)])
def test_numbers_that_no_set_has_are_refused(numbers: tuple[int, int, int]) -> None:
    text = encode_bech32m("kvlshare", b"set!" + bytes(numbers) + bytes(32))
    with pytest.raises(NotAShare):
        Share.read(text)


def test_bech32m_as_its_specification_has_it() -> None:
    """BIP-350, valid test vectors."""
    assert decode_bech32m("a", "A1LQFN3A") == b""
    assert decode_bech32m("abcdef", "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx") is not None
    for wrong in ("M1VUXWEZ", "16plkw9", "1p2gdwpf", "a1LQFN3A"):
        assert decode_bech32m("m", wrong) is None


def test_a_share_shows_nothing() -> None:
    assert SHARE.y.hex() not in repr(SHARE)
    assert SHARE.write() not in repr(SHARE)


def test_the_digest_is_of_one_share_at_one_place() -> None:
    check = share_check(PLACE, b"set!", 1, bytes(32))
    assert is_share(PLACE, b"set!", 1, bytes(32), check)
    other = SlotPlace(b"j" * 16, PLACE.slot_id)
    places, sets, numbers, values = (PLACE, other), (b"set!", b"set?"), (1, 2), (bytes(32), b"\x01" + bytes(31))
    fitting = [
        (place, set_id, x, y)
        for place, set_id, x, y in itertools.product(places, sets, numbers, values)
        if is_share(place, set_id, x, y, check)
    ]
    assert fitting == [(PLACE, b"set!", 1, bytes(32))]
