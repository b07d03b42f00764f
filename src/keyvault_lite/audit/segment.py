"""The file of an archived segment, as a stream of bytes: its content can be verified with the log's key alone.

    segment = "KVLSEG1" LF
              frame(PAE("kvl/v1/segment", instance id, log's public key, first, last, prev_hash, epoch, timestamp,
                        state_seq, edge))                              where the log is before it
              for every 256 entries: 256 × frame(entry), then their tile, frame(PAE("kvl/v1/tile", 0, index, hashes))
              frame(PAE("kvl/v1/segment-end", last, hash, epoch, timestamp, state_seq, checkpoint, proof))
    frame(x) = uint32(length of x) ‖ x

`entry` is the entry's bytes, whose hash is SHA-256(0x00 ‖ entry). From `edge` and the hashes comes the tree's root over
the first `last` entries; `proof` (RFC 9162, section 2.1.4) leads from it to the root in `checkpoint`, which is signed.
Nothing in a file is trusted: every length is bounded before anything is read or made of it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from keyvault_lite.audit.chain import ChainCheck, ChainState
from keyvault_lite.audit.entry import ENTRY_COLUMNS, LABEL, Row
from keyvault_lite.audit.merkle import HASH_BYTES, TILE_WIDTH, CompactRange, InvalidProof, split
from keyvault_lite.audit.receipt import leaf_hash
from keyvault_lite.model.encoding import decode_values, pae
from keyvault_lite.model.errors import IntegrityViolation

MAGIC: Final = b"KVLSEG1\n"
START_LABEL: Final = "kvl/v1/segment"
TILE_LABEL: Final = "kvl/v1/tile"
END_LABEL: Final = "kvl/v1/segment-end"
MAX_ENTRIES: Final = 1 << 16
"""Of a segment."""
MAX_FRAME: Final = 1 << 20
"""Bytes of an entry at most: more than any request can make of one."""
MAX_BYTES: Final = 1 << 30
"""Of a whole segment, decompressed."""
_LENGTH: Final = 4
_ENTRY_VALUES: Final = len(ENTRY_COLUMNS)  # the label takes the place of `hash`

Read = Callable[[int], bytes]
"""read(n) → the next n bytes, or fewer at the end. May raise InvalidSegment for what cannot be decompressed."""


class InvalidSegment(IntegrityViolation):
    """A file that is no segment, not whole, or not of this log."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a segment says of itself first."""

    instance_id: bytes
    log_public_key: bytes
    first: int
    last: int
    position: ChainState
    """Before entry `first`."""
    edge: bytes
    """The tree's right edge there."""


@dataclass(frozen=True, slots=True)
class End:
    """What a segment says last."""

    position: ChainState
    checkpoint: str
    proof: tuple[bytes, ...]


# Writing


def write_start(start: Start) -> bytes:
    """The bytes before the entries."""
    at = start.position
    return MAGIC + _frame(
        pae(
            START_LABEL,
            start.instance_id,
            start.log_public_key,
            start.first,
            start.last,
            at.head,
            at.epoch,
            at.timestamp,
            at.state_seq,
            start.edge,
        )
    )


def write_entries(rows: Sequence[Row]) -> bytes:
    """The bytes of 256 entries that were verified before, with their tile."""
    index = (rows[0][0] - 1) // TILE_WIDTH
    return b"".join((*(_frame(pae(LABEL, *row[:-1])) for row in rows), _tile(index, [row[-1] for row in rows])))


def write_end(end: End) -> bytes:
    """The bytes after the entries."""
    at = end.position
    return _frame(
        pae(END_LABEL, at.size, at.head, at.epoch, at.timestamp, at.state_seq, end.checkpoint, b"".join(end.proof))
    )


def _tile(index: int, leaves: Sequence[bytes]) -> bytes:
    return _frame(pae(TILE_LABEL, 0, index, b"".join(leaves)))


def _frame(data: bytes) -> bytes:
    if len(data) > MAX_FRAME:
        raise InvalidSegment("an entry is larger than a segment can hold")
    return len(data).to_bytes(_LENGTH, "big") + data


# Reading


class SegmentReader:
    """Reads a segment once, in order, verifying it on the way. Raises InvalidSegment or BrokenChain."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._bytes = 0
        if read(len(MAGIC)) != MAGIC:
            raise InvalidSegment("is not an archived segment")
        self.start = self._start()
        self._edge = CompactRange.from_bytes(self.start.edge)
        self._check = ChainCheck(self.start.position, self._edge)
        self.end: End | None = None
        """Known once all entries have been read."""

    def entries(self) -> Iterator[tuple[list[Row], list[bytes]]]:
        """The rows and leaf hashes, 256 at a time; the chain is checked, and the tiles in the file are theirs."""
        for _ in range(self.start.first - 1, self.start.last, TILE_WIDTH):
            rows = [self._row() for _ in range(TILE_WIDTH)]
            leaves = self._check.feed(rows)
            tile = _tile((rows[0][0] - 1) // TILE_WIDTH, leaves)
            if self._exactly(len(tile)) != tile:
                raise InvalidSegment("holds a tile that is not that of its entries")
            yield rows, leaves
        self.end = self._end()
        if self._read(1):
            raise InvalidSegment("goes on after its end")

    @property
    def root(self) -> bytes:
        """The root of the tree over the entries read and all before them."""
        return self._edge.root()

    def _start(self) -> Start:
        instance_id, key, first, last, head, epoch, timestamp, state_seq, edge = self._values(
            START_LABEL, (bytes, bytes, int, int, bytes, int, int, int, bytes)
        )
        position = ChainState(first - 1, head, epoch, timestamp, state_seq, None)
        start = Start(instance_id, key, first, last, position, edge)
        before = first - 1
        if (
            not 0 < first <= last
            or before % TILE_WIDTH
            or last % TILE_WIDTH
            or last - before > MAX_ENTRIES
            or len(head) != HASH_BYTES
            or edge[:8] != before.to_bytes(8, "big")
        ):
            raise InvalidSegment("does not say which whole tiles it holds")
        try:
            CompactRange.from_bytes(edge)
        except InvalidProof:
            raise InvalidSegment("does not hold the edge of a tree") from None
        return start

    def _row(self) -> Row:
        raw = self._frame()
        values = _decoded(raw, _ENTRY_VALUES)
        if values[0] != LABEL:
            raise InvalidSegment("holds something that is no entry")
        # Of the bytes, not of the columns: ChainCheck computes the hash of the columns and compares.
        return (*values[1:], leaf_hash(raw))

    def _end(self) -> End:
        size, head, epoch, timestamp, state_seq, checkpoint, proof = self._values(
            END_LABEL, (int, bytes, int, int, int, str, bytes)
        )
        now = self._check.position
        if (size, head, epoch, timestamp, state_seq) != (
            now.size, now.head, now.epoch, now.timestamp, now.state_seq,
        ):  # fmt: skip
            raise InvalidSegment("does not end where its entries do")
        if len(proof) % HASH_BYTES:
            raise InvalidSegment("ends in something that is no proof")
        return End(replace(now, state_root=None), checkpoint, tuple(split(proof)))

    def _values(self, label: str, types: Sequence[type]) -> list[Any]:
        values = _decoded(self._frame(), len(types) + 1)
        if values[0] != label or [type(value) for value in values[1:]] != list(types):
            raise InvalidSegment("is not laid out as a segment")
        return values[1:]

    def _frame(self) -> bytes:
        length = int.from_bytes(self._exactly(_LENGTH), "big")
        if length > MAX_FRAME:
            raise InvalidSegment("holds something larger than any entry")
        return self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        self._bytes += count
        if self._bytes > MAX_BYTES:
            raise InvalidSegment("is larger than any segment")
        data = self._read(count)
        if len(data) != count:
            raise InvalidSegment("is cut short")
        return data


def _decoded(raw: bytes, count: int) -> list[Any]:
    try:
        values = decode_values(raw)
    except ValueError:
        raise InvalidSegment("holds bytes that are no list of values") from None
    if len(values) != count:
        raise InvalidSegment("holds a list of another length")
    return values
