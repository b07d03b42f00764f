"""The file of an archived segment: it comes back as it went in, and no byte of it can be another."""

import io
import random
from collections.abc import Callable, Iterator
from hashlib import sha256

import pytest

from keyvault_lite.audit import segment as segments
from keyvault_lite.audit.chain import ChainState, genesis
from keyvault_lite.audit.entry import ENTRY_COLUMNS, LABEL, Row, encode_draft, entry_hash, entry_row
from keyvault_lite.audit.merkle import TILE_WIDTH, CompactRange
from keyvault_lite.audit.segment import (
    MAGIC,
    MAX_FRAME,
    End,
    InvalidSegment,
    SegmentReader,
    Start,
    write_end,
    write_entries,
    write_start,
)
from keyvault_lite.model.encoding import decode_values, encode, pae
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.names import KeyId, ServiceId

INSTANCE, KEY = bytes(range(16)), bytes(range(32))


def rows(count: int, before: bytes) -> Iterator[Row]:
    """A small log: management entries, denials, texts of every length."""
    for number in range(1, count + 1):
        draft = Draft(
            action=Action.ENCRYPT if number % 7 else Action.ROTATE,
            result=Result.SUCCESS if number % 5 else Result.DENIED,
            request_id=number.to_bytes(16, "big"),
            service_id=ServiceId("s" * (number % 3)) if number % 2 else None,
            key_id=KeyId("key"),
            key_version=number % 4 or None,
            comment="ü" * (number % 11) or None,
            bytes_in=number,
            count=1 + number % 2,
        )
        seq, root = number - number % 7, bytes([number % 256]) * 32 if number % 7 == 0 else None
        here = entry_hash(number, 0, number * 1000, seq, root, encode_draft(draft), before)
        yield entry_row(number, 0, number * 1000, seq, root, draft, before, here)
        before = here


@pytest.fixture(scope="module")
def log() -> list[Row]:
    return list(rows(3 * TILE_WIDTH, genesis(INSTANCE, KEY)))


def position(log: list[Row], size: int) -> ChainState:
    if not size:
        return ChainState.start(genesis(INSTANCE, KEY))
    row = log[size - 1]
    return ChainState(size, row[-1], row[1], row[2], row[3], None)


def edge(log: list[Row], size: int) -> CompactRange:
    grown = CompactRange()
    grown.extend([row[-1] for row in log[:size]])
    return grown


def edge_of(size: int) -> bytes:
    grown = CompactRange()
    grown.extend([bytes(32)] * size)
    return grown.to_bytes()


def segment(log: list[Row], first: int, last: int) -> bytes:
    start = Start(INSTANCE, KEY, first, last, position(log, first - 1), edge(log, first - 1).to_bytes())
    parts = [log[at : at + TILE_WIDTH] for at in range(first - 1, last, TILE_WIDTH)]
    end = End(position(log, last), "a checkpoint", (bytes(32), bytes(range(32))))
    return b"".join((write_start(start), *map(write_entries, parts), write_end(end)))


def read(data: bytes) -> tuple[SegmentReader, list[Row]]:
    reader = SegmentReader(io.BytesIO(data).read)
    return reader, [row for chunk, _ in reader.entries() for row in chunk]


@pytest.mark.parametrize(("first", "last"), [(1, 256), (1, 768), (257, 512), (513, 768)])
def test_it_comes_back_as_it_went_in(log: list[Row], first: int, last: int) -> None:
    reader, found = read(segment(log, first, last))
    assert found == log[first - 1 : last]
    assert reader.start.position == position(log, first - 1)
    assert reader.end == End(position(log, last), "a checkpoint", (bytes(32), bytes(range(32))))
    assert reader.root == edge(log, last).root()


def test_the_format_is_a_promise(log: list[Row]) -> None:
    expected = "0783834a84e66178e591afde00e45f0956260c18ea8e252ccbac722493a4be63"
    assert sha256(segment(log, 257, 768)).hexdigest() == expected


def test_the_bounds_are_a_promise() -> None:
    assert (segments.MAX_ENTRIES, segments.MAX_FRAME, segments.MAX_BYTES) == (65_536, 1_048_576, 1_073_741_824)


@pytest.mark.parametrize(("first", "last", "entries"), [(1, 256, 256), (257, 768, 512), (513, 768, 256)])
def test_a_segment_of_as_many_entries_as_there_may_be(
    log: list[Row], monkeypatch: pytest.MonkeyPatch, first: int, last: int, entries: int
) -> None:
    data = segment(log, first, last)
    monkeypatch.setattr(segments, "MAX_ENTRIES", entries)
    read(data)
    monkeypatch.setattr(segments, "MAX_ENTRIES", entries - 1)
    with pytest.raises(InvalidSegment, match="which whole tiles"):
        read(data)


def test_a_frame_as_large_as_there_may_be(log: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    data = segment(log, 1, 256)
    largest = len(pae("kvl/v1/tile", 0, 0, bytes(256 * 32)))
    monkeypatch.setattr(segments, "MAX_FRAME", largest)
    assert segment(log, 1, 256) == data
    read(data)
    monkeypatch.setattr(segments, "MAX_FRAME", largest - 1)
    with pytest.raises(InvalidSegment, match="larger than a segment can hold"):
        segment(log, 1, 256)
    start = int.from_bytes(data[len(MAGIC) :][:4], "big")
    monkeypatch.setattr(segments, "MAX_FRAME", start)
    SegmentReader(io.BytesIO(data).read)
    monkeypatch.setattr(segments, "MAX_FRAME", start - 1)
    with pytest.raises(InvalidSegment, match="larger than any entry"):
        SegmentReader(io.BytesIO(data).read)


def test_no_byte_of_it_can_be_another(log: list[Row]) -> None:
    whole = segment(log, 257, 512)
    reader, _ = read(whole)
    good = (reader.start, reader.root, reader.end)
    # All of the start, the first entries, a tile's beginning and the end; and places anywhere.
    places = {*range(450), *range(len(whole) - 300, len(whole)), *random.Random(6).sample(range(len(whole)), 150)}
    tile = whole.index(pae("kvl/v1/tile", 0, 1)[5:])
    for place in sorted(places | set(range(tile - 10, tile + 60))):
        changed = bytearray(whole)
        changed[place] ^= 1 << (place % 8)
        try:
            reader, found = read(bytes(changed))
        except IntegrityViolation:
            continue
        # Where a segment begins, and what its checkpoint is, is compared with what is known: see tests/ledger.
        assert found == log[256:512]
        assert (reader.start, reader.root, reader.end) != good, place


@pytest.mark.parametrize("cut", [0, 5, 8, 11, 200, 5_000, -1, -40])
def test_a_part_is_not_a_segment(log: list[Row], cut: int) -> None:
    with pytest.raises(IntegrityViolation):
        read(segment(log, 1, 256)[:cut])


def test_nothing_comes_after_the_end(log: list[Row]) -> None:
    with pytest.raises(InvalidSegment, match="after its end"):
        read(segment(log, 1, 256) + b"\x00")


def test_entries_cannot_change_places(log: list[Row]) -> None:
    swapped = [log[1], log[0], *log[2:256]]
    start = Start(INSTANCE, KEY, 1, 256, position(log, 0), CompactRange().to_bytes())
    data = write_start(start) + write_entries(swapped) + write_end(End(position(log, 256), "", ()))
    with pytest.raises(IntegrityViolation):
        read(data)


@pytest.mark.parametrize(
    "start",
    [
        (INSTANCE, KEY, 2, 256, bytes(32), 0, 0, 0, CompactRange().to_bytes()),
        (INSTANCE, KEY, 1, 255, bytes(32), 0, 0, 0, CompactRange().to_bytes()),
        (INSTANCE, KEY, 257, 256, bytes(32), 0, 0, 0, CompactRange().to_bytes()),
        (INSTANCE, KEY, 1, 1 << 40, bytes(32), 0, 0, 0, CompactRange().to_bytes()),
        (INSTANCE, KEY, -255, 256, bytes(32), 0, 0, 0, CompactRange().to_bytes()),
        (INSTANCE, KEY, 1, 256, bytes(31), 0, 0, 0, CompactRange().to_bytes()),
        (INSTANCE, KEY, 1, 256, bytes(32), 0, 0, 0, bytes(40)),
        (INSTANCE, KEY, 1, 256, bytes(32), 0, 0, "0", CompactRange().to_bytes()),
        (INSTANCE, KEY, 1, 256, bytes(32), 0, 0, CompactRange().to_bytes()),
        (INSTANCE, KEY, 257, 512, bytes(32), 0, 0, 0, CompactRange().to_bytes()),
        (INSTANCE, KEY, 2, 256, bytes(32), 0, 0, 0, edge_of(1)),
        (INSTANCE, KEY, 0, 256, bytes(32), 0, 0, 0, CompactRange().to_bytes()),
    ],
)
def test_a_start_that_makes_no_sense(start: tuple[int | bytes | str, ...]) -> None:
    data = pae("kvl/v1/segment", *start)
    with pytest.raises(InvalidSegment):
        SegmentReader(io.BytesIO(MAGIC + len(data).to_bytes(4, "big") + data).read)


def test_a_frame_is_bounded_before_it_is_read(log: list[Row]) -> None:
    asked: list[int] = []
    stream = io.BytesIO(segment(log, 1, 256)[: len(MAGIC)] + (MAX_FRAME + 1).to_bytes(4, "big") + bytes(MAX_FRAME + 1))

    def noted(count: int) -> bytes:
        asked.append(count)
        return stream.read(count)

    with pytest.raises(InvalidSegment, match="larger than any entry"):
        SegmentReader(noted)
    assert max(asked) <= MAX_FRAME


@pytest.mark.parametrize(
    "entry",
    [
        lambda row: pae("kvl/v1/entry~", *row[:-1]),
        lambda row: pae("kvl/v1/entry", *row[:-2]),
        lambda row: pae("kvl/v1/entry", *row[:-1], 0),
        lambda row: b"no list",
    ],
)
def test_what_is_no_entry_is_no_row(log: list[Row], entry: Callable[[Row], bytes]) -> None:
    start = Start(INSTANCE, KEY, 1, 256, position(log, 0), CompactRange().to_bytes())
    first = entry(log[0])
    with pytest.raises(InvalidSegment):
        read(write_start(start) + len(first).to_bytes(4, "big") + first + write_entries(log[:256]))


def test_an_entry_larger_than_a_frame_is_not_written(log: list[Row]) -> None:
    place = ENTRY_COLUMNS.index("comment")
    large = (*log[0][:place], "x" * MAX_FRAME, *log[0][place + 1 :])
    with pytest.raises(InvalidSegment, match="larger"):
        write_entries([large, *log[1:TILE_WIDTH]])


def test_a_segment_is_not_read_past_its_bound(log: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    data = segment(log, 1, 512)
    monkeypatch.setattr(segments, "MAX_BYTES", len(data) - len(MAGIC))
    read(data)
    monkeypatch.setattr(segments, "MAX_BYTES", len(data) - len(MAGIC) - 1)
    with pytest.raises(InvalidSegment, match="larger than any"):
        read(data)


@pytest.mark.parametrize("proof", [(bytes(31),), (bytes(32), b"x")])
def test_a_proof_is_of_whole_hashes(log: list[Row], proof: tuple[bytes, ...]) -> None:
    start = Start(INSTANCE, KEY, 1, 256, position(log, 0), CompactRange().to_bytes())
    data = write_start(start) + write_entries(log[:256]) + write_end(End(position(log, 256), "", proof))
    with pytest.raises(InvalidSegment, match="no proof"):
        read(data)


def test_the_decoder_takes_one_spelling_only() -> None:
    values = [LABEL, 0, -1, None, b"\x00\xff", "ü", 1 << 62]
    assert decode_values(pae(*values)) == values  # type: ignore[arg-type]
    good = pae("x", 1)
    for bad in (
        b"",
        good[:-1],
        good + b"\x00",
        encode("x"),
        encode(["x", ["y"]]),
        b"\x04\xff\xff\xff\xff",
        b"\x04\x00\x00\x00\x01\x02\x00\x00\x00\x02\xc0\x80",
        b"\x04\x00\x00\x00\x01\x05",
    ):
        with pytest.raises(ValueError):  # noqa: PT011  (its words are not a contract)
            decode_values(bad)
