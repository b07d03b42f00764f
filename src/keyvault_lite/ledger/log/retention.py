"""Where the log in the database begins: entries up to a boundary were archived.

They are deleted by the store's `forget_entries` and nowhere else.

The boundary is a row under the state root, written by the entry that records the archiving and in the transaction that
deletes. So an archive can be told from a theft of entries.
"""

from collections.abc import Iterable
from typing import Final

from keyvault_lite.audit.chain import ChainState
from keyvault_lite.audit.merkle import HASH_BYTES, TILE_BYTES, TILE_WIDTH, split
from keyvault_lite.ledger.state.outcome import Authority
from keyvault_lite.ledger.state.verified_rows import row_is_genuine
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.record_types import read_setting
from keyvault_lite.ledger.storage.schema import FORMATS
from keyvault_lite.model.archive import PREFIX, Segment, read_segment_setting
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.identity import Setting
from keyvault_lite.model.replies import Finding

_BEYOND: Final = PREFIX[:-1] + chr(ord(PREFIX[-1]) + 1)
"""The first name after all that begin with the prefix."""


def newest_segment(connection: driver.Connection, authority: Authority) -> Segment | None:
    """The segment behind which the stored log begins; None if nothing was archived. Its row is verified."""
    row = connection.execute(statements.NEWEST_SEGMENT, (PREFIX, _BEYOND)).fetchone()
    if row is None:
        return None
    if not row_is_genuine(authority, FORMATS["settings"], row):
        raise IntegrityViolation("the record of what was archived does not verify")
    setting = read_setting(row[:-2])
    return read_segment_setting(setting.name, setting.value or {})


def archived_up_to(connection: driver.Connection, authority: Authority) -> int:
    """The newest entry that is in an archive; 0 if none is."""
    segment = newest_segment(connection, authority)
    return 0 if segment is None else segment.last


def segments_of(settings: Iterable[Setting], findings: list[Finding]) -> list[Segment]:
    """All segments on record, oldest first. What is no such record is a finding: without the keyring it may be."""
    found = []
    for setting in sorted(settings, key=lambda one: one.name):
        if setting.name.startswith(PREFIX) and setting.value is not None:
            try:
                found.append(read_segment_setting(setting.name, setting.value))
            except ValueError as error:
                findings.append(Finding("settings", setting.name, f"is {error}"))
    return found


def end_of(segment: Segment) -> ChainState:
    """Where the log is behind a segment."""
    return ChainState(segment.last, segment.head, segment.epoch, segment.timestamp, segment.state_seq, None)


def leaves_between(connection: driver.Connection, start: int, end: int) -> list[bytes]:
    """The hashes of entries start + 1 to end from the tiles of the tree, which are never archived.

    `end` is a multiple of 256; if it is not above `start`, there are none. Nothing read here is trusted: the tree over
    the hashes has to be that of the head.
    Raises IntegrityViolation if a tile is missing or has another size.
    """
    leaves: list[bytes] = []
    for index in range(start // TILE_WIDTH, end // TILE_WIDTH):
        rows = driver.fetch(connection, statements.TILE, (0, index))
        if not rows or not isinstance(rows[0][0], bytes) or len(rows[0][0]) != TILE_BYTES:
            raise IntegrityViolation(f"the tile 0/{index} over archived entries is missing or damaged")
        leaves += split(rows[0][0])
    return leaves[start % TILE_WIDTH :]


def hashes_between(connection: driver.Connection, authority: Authority, start: int, end: int) -> list[bytes]:
    """The hashes of entries start + 1 to end: of those that are stored, and of those archived since from their tiles.

    Nothing read here is trusted: the tree over the hashes has to be that of the head. Raises IntegrityViolation if one
    is no hash, or a tile is missing.
    """
    stored = [row[0] for row in driver.fetch(connection, statements.LEAVES, (start, end))]
    if len(stored) < end - start:
        segment = newest_segment(connection, authority)
        if segment is not None:
            stored = leaves_between(connection, start, segment.last) + stored
    if not all(isinstance(one, bytes) and len(one) == HASH_BYTES for one in stored):
        raise IntegrityViolation("a hash in the log is none")
    return stored


def leaf_of(connection: driver.Connection, entry_id: int) -> bytes | None:
    """The hash of one archived entry, from its tile; None if that is not there."""
    start = entry_id - 1
    try:
        return leaves_between(connection, start, (start // TILE_WIDTH + 1) * TILE_WIDTH)[0]
    except IntegrityViolation:
        return None


def hash_of_entry(connection: driver.Connection, authority: Authority, entry_id: int) -> bytes | None:
    """The hash of an entry, in the database or archived; None if the log has no such entry. Nothing here is trusted."""
    for (found,) in driver.fetch(connection, statements.ENTRY_HASH, (entry_id,)):
        return found if isinstance(found, bytes) else None
    return leaf_of(connection, entry_id) if 0 < entry_id <= archived_up_to(connection, authority) else None
