"""The format of encrypted files: what goes in comes out, and no change to a file goes unnoticed."""

import io
import json
import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyvault_lite.client import sealed_file
from keyvault_lite.client.errors import Damaged, InvalidArgument, UnexpectedAnswer
from keyvault_lite.model.errors import InvalidRequest
from tests.support.fake_vault import FakeCipher
from tests.support.paths import ROOT

CHUNK = sealed_file.CHUNK
CONTEXT = {"tenant": "acme"}
SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 20 * CHUNK + 17)


def seal(plain: bytes, context: dict[str, str] = CONTEXT, key: str = "k", vault: FakeCipher | None = None) -> bytes:
    target = io.BytesIO()
    sealed_file.seal(vault or FakeCipher(), key, io.BytesIO(plain), target, context=context)
    return target.getvalue()


def unseal(sealed: bytes, context: dict[str, str] = CONTEXT, key: str = "k") -> bytes:
    target = io.BytesIO()
    sealed_file.unseal(FakeCipher(), key, io.BytesIO(sealed), target, context=context)
    return target.getvalue()


def frames(sealed: bytes) -> tuple[bytes, list[bytes]]:
    """The header line and the frames' bytes."""
    header, body = sealed.split(b"\n", 1)
    found, at = [], 0
    while at < len(body):
        end = at
        for _field in range(2):
            end += 4 + struct.unpack_from(">I", body, end)[0]
        found.append(body[at:end])
        at = end
    return header + b"\n", found


@pytest.mark.parametrize("size", SIZES)
def test_what_goes_in_comes_out(size: int) -> None:
    plain = os.urandom(size)
    sealed = seal(plain)
    assert unseal(sealed) == plain
    assert len(frames(sealed)[1]) == max(1, -(-size // CHUNK))


def test_the_header_is_as_documented() -> None:
    header = json.loads(frames(seal(b"x", key="orders"))[0])
    assert header.pop("id") != json.loads(frames(seal(b"x"))[0])["id"]
    assert header == {"format": "kvl-file", "version": 1, "key": "orders"}


def test_progress_counts_every_byte() -> None:
    counted: list[int] = []
    plain = bytes(2 * CHUNK + 5)
    sealed_file.seal(FakeCipher(), "k", io.BytesIO(plain), io.BytesIO(), context={}, advance=counted.append)
    assert sum(counted) == len(plain)


@pytest.mark.parametrize("context", [{}, {"tenant": "other"}, {"tenant": "acme", "more": "x"}])
def test_another_context_does_not_open(context: dict[str, str]) -> None:
    with pytest.raises(Damaged, match="--context"):
        unseal(seal(b"secret"), context)


def test_another_key_does_not_open_and_the_file_names_its_own() -> None:
    with pytest.raises(Damaged, match="names the key orders"):
        unseal(seal(b"secret", key="orders"), key="other")


def test_chunks_cannot_be_swapped_left_out_repeated_or_cut() -> None:
    header, parts = frames(seal(os.urandom(3 * CHUNK + 9)))
    first, second, third, last = parts
    for changed in (
        [second, first, third, last],
        [first, third, last],
        [first, second, second, third, last],
        [first, second, third],
        [first],
        [last],
        [first, second, third, last, last],
        [last, second, third, first],
        [],
    ):
        with pytest.raises(Damaged):
            unseal(header + b"".join(changed))


def test_chunks_of_two_files_do_not_mix() -> None:
    plain = os.urandom(2 * CHUNK)
    header, parts = frames(seal(plain))
    _other, foreign = frames(seal(plain))
    with pytest.raises(Damaged):
        unseal(header + parts[0] + foreign[1])
    with pytest.raises(Damaged):
        unseal(_other + b"".join(parts))


SMALL = seal(b"a small file", key="orders")


@pytest.mark.parametrize("position", range(len(SMALL)))
def test_every_bit_of_a_file_counts(position: int) -> None:
    for bit in range(8):
        changed = bytearray(SMALL)
        changed[position] ^= 1 << bit
        with pytest.raises(Damaged):
            unseal(bytes(changed), key="orders")


@pytest.mark.parametrize("length", range(len(SMALL)))
def test_no_beginning_of_a_file_opens(length: int) -> None:
    with pytest.raises(Damaged):
        unseal(SMALL[:length], key="orders")


@given(st.binary(min_size=1, max_size=40))
def test_nothing_can_be_appended(tail: bytes) -> None:
    with pytest.raises(Damaged):
        unseal(SMALL + tail, key="orders")


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_rubbish_is_refused_and_never_breaks(rubbish: bytes) -> None:
    with pytest.raises(Damaged):
        unseal(rubbish)
    with pytest.raises(Damaged):
        unseal(SMALL.split(b"\n", 1)[0] + b"\n" + rubbish)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"", "not a file made by"),
        (b"[]\n", "not a file made by"),
        (b"[" * 4000 + b"\n", "not a file made by"),
        (b'{"format":"kvl-file"}', "not a file made by"),
        (b'{"format":"other","version":1}\n', "not a file made by"),
        (b'{"format":"kvl-file","version":2}\n', "another version"),
        (b'{"format":"kvl-file","version":1}\n', "cut off"),
        (b'{"format":"kvl-file","version":1}\n\xff\xff\xff\xff', "makes no sense"),
        (b'{"format":"kvl-file","version":1}\n' + b"x" * 9, "makes no sense"),
    ],
)
def test_what_is_no_such_file_is_named(header: bytes, said: str) -> None:
    with pytest.raises(Damaged, match=said):
        unseal(header)


def test_rewrap_changes_the_wrapped_keys_and_nothing_else() -> None:
    plain = os.urandom(150 * CHUNK // 10)
    vault = FakeCipher()
    sealed = seal(plain, vault=vault)
    vault.version = 2
    target = io.BytesIO()
    assert sealed_file.rewrap(vault, "k", io.BytesIO(sealed), target, context=CONTEXT) == 2
    rewrapped = target.getvalue()
    assert len(rewrapped) == len(sealed)
    assert rewrapped != sealed
    assert frames(rewrapped)[0] == frames(sealed)[0]
    assert unseal(rewrapped) == plain


def test_rewrap_refuses_a_changed_file() -> None:
    header, parts = frames(seal(os.urandom(3 * CHUNK)))
    for sealed, context in ((header + parts[1] + parts[0], CONTEXT), (header + b"".join(parts), {}), (header, CONTEXT)):
        with pytest.raises(Damaged):
            sealed_file.rewrap(FakeCipher(), "k", io.BytesIO(sealed), io.BytesIO(), context=context)


def test_a_context_that_cannot_be_is_refused_before_anything_is_sent() -> None:
    for context, error in (
        ({"kvl.chunk": "0"}, InvalidArgument),
        ({str(n): "" for n in range(30)}, InvalidRequest),
        ({"a": "x" * 9000}, InvalidRequest),
        ({"a": "e\u0301"}, InvalidRequest),
    ):
        with pytest.raises(error):
            seal(b"x", context)


def test_the_largest_context_fits_the_requests() -> None:
    context = {"a": "\u0001" * 7900}
    plain = os.urandom(5 * CHUNK)
    assert unseal(seal(plain, context), context) == plain


def test_a_reply_that_lacks_something_is_noticed() -> None:
    class Poor(FakeCipher):
        def encrypt(self, key: str, item: dict[str, object]) -> dict[str, object]:
            return {"ciphertext": "*"}

    with pytest.raises(UnexpectedAnswer):
        seal(b"x", vault=Poor())


def test_the_documentation_describes_this_format() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    for word in ("kvl-file", "kvl.file", "kvl.chunk", "kvl.last", "uint32", "48 KiB"):
        assert word in text
