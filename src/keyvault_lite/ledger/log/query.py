"""Reading the log back: pages by filter, found through its index and in time that does not grow with the log."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from keyvault_lite.audit.chain import ChainState
from keyvault_lite.audit.entry import MALFORMED, Folded, Row, row_entry, row_hash
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.log_index import BLOCK, block_of, blocks_with
from keyvault_lite.model.errors import IntegrityViolation, InvalidRequest
from keyvault_lite.model.evidence import Action, Entry, Result
from keyvault_lite.model.replies import Page

_CHUNK: Final = 20_000
"""Entries read in one statement: no snapshot stays open long enough to hold up the write-ahead log."""
_DIGITS: Final = 18
"""Of a cursor, at most: it fits the integers of the database."""
_SCAN: Final = 1_000_000
"""Entries one request looks through; the cursor then goes on from there."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What to read of the log. Times are microseconds, `since` inclusive, `until` exclusive."""

    limit: int
    after: str | None = None
    service_id: str | None = None
    key_id: str | None = None
    action: Action | None = None
    result: Result | None = None
    since: int | None = None
    until: int | None = None
    ascending: bool = False
    last: int | None = None
    """No entry behind this one."""


def read_page(connection: driver.Connection, wanted: Filter, *, archived: int = 0) -> Page[Entry]:
    """The entries that match, in the order wanted, from behind the cursor. Each entry's own hash is checked.

    `archived` is up to which entry the log was archived: the list begins behind it.
    """
    size = connection.execute(statements.SIZE).fetchone()[0]
    begin = archived + 1
    low = begin if wanted.since is None else first_at(connection, wanted.since, begin, size)
    high = size if wanted.until is None else first_at(connection, wanted.until, begin, size) - 1
    if wanted.last is not None:
        high = min(high, wanted.last)
    if wanted.after is not None:
        cursor = _cursor(wanted.after)
        low, high = (max(low, cursor + 1), high) if wanted.ascending else (low, min(high, cursor - 1))
    conditions: list[str] = []
    values: list[str] = []
    for column, named in (("service_id", wanted.service_id), ("key_id", wanted.key_id)):
        if named is not None:
            conditions.append(f"{column} = ?")
            values.append(named)
    objects = tuple(values)
    for column, word in (("action", wanted.action), ("result", wanted.result)):
        if word is not None:
            conditions.append(f"{column} = ?")
            values.append(word.value)
    order = "" if wanted.ascending else " DESC"
    where = " AND ".join(("id BETWEEN ? AND ?", *conditions))
    sql = f"{statements.ENTRIES} WHERE {where} ORDER BY id{order} LIMIT ?"
    rows: list[Row] = []
    beyond = None
    looked = 0
    for first, last in _parts(connection, wanted, objects, low, high):
        if looked >= _SCAN:
            beyond = str(first - 1 if wanted.ascending else last + 1)
            break
        found = connection.execute(sql, (first, last, *values, wanted.limit + 1 - len(rows))).fetchall()
        rows += found
        full = len(rows) > wanted.limit
        low_end = found[-1][0] if full and not wanted.ascending else first
        high_end = found[-1][0] if full and wanted.ascending else last
        _check_whole(connection, low_end, high_end, None if conditions else len(found))
        if full:
            beyond = str(rows[wanted.limit - 1][0])
            break
        looked += last - first + 1
    return Page(tuple(map(_entry, rows[: wanted.limit])), beyond, archived)


def _check_whole(connection: driver.Connection, first: int, last: int, there: int | None) -> None:
    """Raise IntegrityViolation unless every entry of a range is there; `there` is how many, if that is known.

    What was deleted would not be on a page of what matches, and nobody would miss it there.
    """
    if there is None:
        there = connection.execute(statements.COUNT_BETWEEN, (first, last)).fetchone()[0]
    if there != max(last - first + 1, 0):
        raise IntegrityViolation("the log has a gap: entries were removed from it")


def _parts(
    connection: driver.Connection, wanted: Filter, objects: tuple[str, ...], low: int, high: int
) -> Iterator[tuple[int, int]]:
    """The parts of a range, in the order wanted, in which there may be entries that match."""
    if objects:
        bounds = block_of(low), block_of(high)
        for block in blocks_with(connection, objects, *bounds, ascending=wanted.ascending, at_once=wanted.limit + 1):
            yield max(low, block * BLOCK + 1), min(high, (block + 1) * BLOCK)
        return
    while low <= high:
        first, last = (low, min(high, low + _CHUNK - 1)) if wanted.ascending else (max(low, high - _CHUNK + 1), high)
        yield first, last
        low, high = (last + 1, high) if wanted.ascending else (low, first - 1)


def entries_after(connection: driver.Connection, number: int, size: int) -> Iterator[list[Row]]:
    """All entries after a number in order, `size` at a time: never the whole log in memory. Raises driver.Damaged."""
    sql = f"{statements.ENTRIES} WHERE id > ? ORDER BY id LIMIT ?"
    while rows := connection.execute(sql, (number, size)).fetchall():
        if not all(type(row[0]) is int for row in rows):
            raise driver.Error("the number of an entry is not an integer")
        yield rows
        number = rows[-1][0]


def folded_after(connection: driver.Connection, number: int, size: int) -> list[Folded]:
    """The entries after a number, folded: without those that have bytes in place of a text, none if one is damaged."""
    try:
        return connection.execute(statements.FOLDED, (number, size)).fetchall()
    except driver.Damaged:
        return []  # reading them whole tells what it is


def _entry(row: Row) -> Entry:
    try:
        if row_hash(row) == row[-1]:
            return row_entry(row)
    except (*MALFORMED, KeyError):
        pass
    raise IntegrityViolation("a stored entry does not verify")


def read_entry(connection: driver.Connection, entry_id: int) -> Entry | None:
    """One entry, its own hash checked: IntegrityViolation if it is not that of its columns."""
    rows = driver.fetch(connection, statements.ENTRY, (entry_id,))
    return _entry(rows[0]) if rows else None


def position_behind(connection: driver.Connection, entry_id: int) -> ChainState | None:
    """Where the log is behind an entry, which is read as by `read_entry`; None if it is not there."""
    entry = read_entry(connection, entry_id)
    if entry is None:
        return None
    return ChainState(entry.id, entry.hash, entry.epoch, entry.timestamp, entry.state_seq, None)


def _cursor(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise InvalidRequest("after is not a cursor of this list")
    return int(text)


def first_at(connection: driver.Connection, moment: int, begin: int, size: int) -> int:
    """The first entry at or after a moment, of those from `begin` to `size`, or the one after them.

    Time never runs backwards in the log, so halving finds it.
    """
    low, high = begin, size + 1
    while low < high:
        middle = (low + high) // 2
        stamp = connection.execute("SELECT timestamp FROM audit_logs WHERE id = ?", (middle,)).fetchone()
        if stamp is None or type(stamp[0]) is not int:
            raise IntegrityViolation("the log has a gap, or an entry without a time")
        low, high = (low, middle) if stamp[0] >= moment else (middle + 1, high)
    return low
