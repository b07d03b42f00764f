"""Reading the log back: pages by filter, found through the indexes and in time that does not grow with the log."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from keyvault_lite.audit.entry import Folded, Row, row_entry, row_hash
from keyvault_lite.ledger import driver, statements
from keyvault_lite.model.errors import IntegrityViolation, InvalidRequest
from keyvault_lite.model.evidence import Action, Entry, Result
from keyvault_lite.model.replies import Page

_CHUNK: Final = 20_000
"""Entries read in one statement: no snapshot stays open long enough to hold up the write-ahead log."""
_DIGITS: Final = 18
"""Of a cursor, at most: it fits the integers of the database."""
_SCAN: Final = 1_000_000
"""Entries one request looks through for a filter without an index; the cursor then goes on from there."""


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


def read_page(connection: driver.Connection, wanted: Filter, *, archived: int = 0) -> Page[Entry]:
    """The entries that match, in the order wanted, from behind the cursor. Each entry's own hash is checked.

    `archived` is up to which entry the log was archived: the list begins behind it.
    """
    size = connection.execute("SELECT coalesce(max(id), 0) FROM audit_logs").fetchone()[0]
    begin = archived + 1
    low = begin if wanted.since is None else first_at(connection, wanted.since, begin, size)
    high = size if wanted.until is None else first_at(connection, wanted.until, begin, size) - 1
    if wanted.after is not None:
        cursor = _cursor(wanted.after)
        low, high = (max(low, cursor + 1), high) if wanted.ascending else (low, min(high, cursor - 1))
    conditions: list[str] = []
    values: list[Any] = []
    for column, value in (("service_id", wanted.service_id), ("key_id", wanted.key_id)):
        if value is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    for column, word in (("action", wanted.action), ("result", wanted.result)):
        if word is not None:
            # An expression keeps the planner on the id or on the indexed columns.
            conditions.append(f"({column} || '') = ?")
            values.append(word.value)
    sparse = wanted.service_id is None and wanted.key_id is None and bool(conditions)
    rows: list[Any] = []
    beyond = None
    end = (low + _SCAN) if wanted.ascending else (high - _SCAN)
    while low <= high and len(rows) <= wanted.limit:
        first, last = low, high
        if sparse:
            if low >= end if wanted.ascending else high <= end:
                beyond = str(low - 1 if wanted.ascending else high + 1)
                break
            first, last = _chunk(low, high, ascending=wanted.ascending)
        order = "" if wanted.ascending else " DESC"
        sql = " AND ".join(("id BETWEEN ? AND ?", *conditions))
        rows += connection.execute(
            f"{statements.ENTRIES} WHERE {sql} ORDER BY id{order} LIMIT ?",
            (first, last, *values, wanted.limit + 1 - len(rows)),
        ).fetchall()
        if not sparse:
            break
        low, high = (last + 1, high) if wanted.ascending else (low, first - 1)
    page = rows[: wanted.limit]
    return Page(tuple(map(_entry, page)), str(page[-1][0]) if len(rows) > wanted.limit else beyond, archived)


def entries_after(connection: driver.Connection, number: int, size: int) -> Iterator[list[Row]]:
    """All entries after a number in order, `size` at a time: never the whole log in memory."""
    sql = f"{statements.ENTRIES} WHERE id > ? ORDER BY id LIMIT ?"
    while rows := connection.execute(sql, (number, size)).fetchall():
        yield rows
        number = rows[-1][0]


def folded_after(connection: driver.Connection, number: int, size: int) -> list[Folded]:
    """The entries after a number, folded: without those that have bytes in place of a text, none if one is damaged."""
    try:
        return connection.execute(statements.FOLDED, (number, size)).fetchall()
    except driver.Damaged:
        return []  # reading them whole tells what it is


def _chunk(low: int, high: int, *, ascending: bool) -> tuple[int, int]:
    """The part of a range that is read first."""
    return (low, min(high, low + _CHUNK - 1)) if ascending else (max(low, high - _CHUNK + 1), high)


def _entry(row: Row) -> Entry:
    try:
        if row_hash(row) == row[-1]:
            return row_entry(row)
    except (TypeError, ValueError, OverflowError, KeyError):
        pass
    raise IntegrityViolation("a stored entry does not verify")


def read_entry(connection: driver.Connection, entry_id: int) -> Entry | None:
    """One entry, its own hash checked."""
    row = connection.execute(f"{statements.ENTRIES} WHERE id = ?", (entry_id,)).fetchone()
    return None if row is None else _entry(row)


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
        if stamp is None:
            raise IntegrityViolation("the log has a gap")
        low, high = (low, middle) if stamp[0] >= moment else (middle + 1, high)
    return low
