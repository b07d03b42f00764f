"""Making a segment of the oldest entries: a file that is read back whole and proven to hold this log.

Nothing here changes the vault. The entries go by an operation of their own, made only of a segment that came from here.
"""

from collections.abc import Iterator
from typing import Final

from keyvault_lite.audit.chain import ChainState, genesis
from keyvault_lite.audit.entry import Row
from keyvault_lite.audit.merkle import (
    TILE_WIDTH,
    CompactRange,
    InvalidProof,
    TileReader,
    consistency_proof,
    inclusion_proof,
    verify_inclusion,
)
from keyvault_lite.audit.segment import End, Start
from keyvault_lite.ledger.archive.segment_files import SegmentStore
from keyvault_lite.ledger.log.query import first_at, position_behind
from keyvault_lite.ledger.log.retention import end_of
from keyvault_lite.ledger.log.tiles import tile_reader
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.model.archive import Segment
from keyvault_lite.model.errors import IntegrityViolation

SEGMENT: Final = 32_768
"""Entries of a segment at most. They are deleted in one transaction, for which all writers wait: less than 0.1 s and
12 MB of write-ahead log (measured)."""


def boundary(connection: driver.Connection, *, archived: int, size: int, before: int | None, keep: int) -> int:
    """Up to which entry the log can be archived: whole tiles, from before `before` (microseconds), not the last `keep`.

    Never the newest entry: the head names one that is there.
    """
    last = size - max(keep, 1)
    if before is not None:
        last = min(last, first_at(connection, before, archived + 1, size) - 1)
    return max(archived, last // TILE_WIDTH * TILE_WIDTH)


def make_segment(
    connection: driver.Connection, known: LogTip, segment_store: SegmentStore, *, after: Segment | None, last: int
) -> Segment:
    """A file in the store with the entries behind `after` up to `last`, checked whole and proven to be the log's.

    One that a run which was cut off has left is taken instead of writing another. Raises IntegrityViolation if
    anything does not verify.
    """
    start = 0 if after is None else after.last
    position = _genesis(segment_store) if after is None else end_of(after)
    tree = tile_reader(connection, known)
    found = segment_store.find(start + 1, last, position)
    if found is None or not _is_under(found, tree, known):
        note = known.checkpoint
        size = int(note.split("\n", 2)[1])
        end = End(_position(connection, last), note, tuple(consistency_proof(tree.node, last, size)))
        edge = _edge(tree, start).to_bytes()
        identity = segment_store.identity
        head = Start(identity.instance_id, identity.log_public_key, start + 1, last, position, edge)
        found = segment_store.put(head, _chunks(connection, start, last), end)
    # The chain leads back from the last entry to what is known, and forward nobody has to be believed: the tree's
    # root is the one in memory. So the file holds this log and no other, whatever the database said meanwhile.
    if not _is_under(found, tree, known):
        raise IntegrityViolation("the entries to be archived are not under the head of the log")
    return found


def _is_under(segment: Segment, tree: TileReader, known: LogTip) -> bool:
    edge, index = known.tiles.edge, segment.last - 1
    try:
        proof = inclusion_proof(tree.node, index, edge.size)
        verify_inclusion(segment.head, proof, index=index, size=edge.size, root=edge.root())
    except InvalidProof:
        return False
    return True


def _genesis(segment_store: SegmentStore) -> ChainState:
    return ChainState.start(genesis(segment_store.identity.instance_id, segment_store.identity.log_public_key))


def _position(connection: driver.Connection, last: int) -> ChainState:
    found = position_behind(connection, last)
    if found is None:
        raise IntegrityViolation("the log has a gap")
    return found


def _edge(tree: TileReader, size: int) -> CompactRange:
    """The right edge of the tree over the first `size` entries."""
    levels = range(size.bit_length())
    return CompactRange(
        size, [tree.node(level, (size >> level) - 1) if size >> level & 1 else None for level in levels]
    )


def _chunks(connection: driver.Connection, start: int, last: int) -> Iterator[list[Row]]:
    # A statement a chunk, so that no snapshot is open while the disk is written.
    for at in range(start, last, TILE_WIDTH):
        rows = connection.execute(f"{statements.ENTRIES} WHERE id > ? AND id <= ? ORDER BY id", (at, at + TILE_WIDTH))
        chunk = rows.fetchall()
        if len(chunk) != TILE_WIDTH:
            raise IntegrityViolation("the log has a gap")
        yield chunk
