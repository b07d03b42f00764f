"""The index of the log: which blocks of it name a service or a key. A page by either looks through those blocks alone.

A row an entry and column, as databases index, would cost an append half as much as the entry itself; here a service or
key pays once a block.

Nothing authenticates these rows: a writer that removes one hides entries from such pages, never from the log. So `kvl
verify` compares the index with the log, and `kvl repair` rebuilds it.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from keyvault_lite.audit.entry import ENTRY_COLUMNS
from keyvault_lite.audit.merkle import TILE_WIDTH
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.schema import Row
from keyvault_lite.model.replies import Finding

BLOCK: Final = TILE_WIDTH
"""Entries of a block: those of a tile, so that archives end where blocks do."""
STEP: Final = 4 * BLOCK
"""Entries that are compared in one query: they are still in the database's cache when they were just read."""
_SERVICE: Final = ENTRY_COLUMNS.index("service_id")
_KEY: Final = ENTRY_COLUMNS.index("key_id")
_PAIRS: Final = " UNION ".join(
    f"SELECT {column} AS object_id, (id - 1) / {BLOCK} AS block FROM audit_logs "  # noqa: S608
    f"WHERE id BETWEEN ? AND ? AND {column} IS NOT NULL"
    for column in ("service_id", "key_id")
)
FILL: Final = f"{statements.PUT_INDEX.partition(' VALUES ')[0]} {_PAIRS} ON CONFLICT DO NOTHING"
"""Adds what a range of entries needs; takes the bounds twice."""
CLEAR: Final = "DELETE FROM audit_index"
PART: Final = 256 * BLOCK
"""Entries for which the index is filled in one transaction."""
_COMPARED: Final = (
    f"FROM ({_PAIRS}) p LEFT JOIN audit_index i ON i.object_id = p.object_id AND i.block = p.block "
    "AND CAST(i.block AS TEXT) = CAST(p.block AS TEXT)"  # SQLite keeps 0.0 in a column of integers, if it is made to
)
_COUNT: Final = f"SELECT count(*), count(i.block) {_COMPARED}"
_MISSING: Final = f"SELECT DISTINCT p.block {_COMPARED} WHERE i.block IS NULL ORDER BY 1"
_IN_RANGE: Final = f"(CASE WHEN i.block BETWEEN 0 AND {2**54} THEN i.block ELSE -1 END * {BLOCK})"
_NEEDLESS: Final = (
    "SELECT DISTINCT CAST(i.block AS BIGINT) FROM audit_index i WHERE NOT EXISTS ("  # noqa: S608
    f"SELECT 1 FROM audit_logs e WHERE e.id BETWEEN {_IN_RANGE} + 1 AND {_IN_RANGE} + {BLOCK} "
    "AND i.object_id IN (e.service_id, e.key_id)) ORDER BY 1 LIMIT ?"
)
_SIZE: Final = "SELECT count(*) FROM audit_index"


def block_of(entry_id: int) -> int:
    """The block an entry is in, from 0 on."""
    return (entry_id - 1) // BLOCK


def rows_for(entries: Sequence[Row]) -> list[tuple[str, int]]:
    """The rows of the index that these entries need, in order; most of them may be there."""
    named = {(row[_SERVICE], block_of(row[0])) for row in entries}
    named.update((row[_KEY], block_of(row[0])) for row in entries)
    return sorted(pair for pair in named if pair[0] is not None)


def blocks_with(
    connection: driver.Connection, objects: Sequence[str], low: int, high: int, *, ascending: bool, at_once: int
) -> Iterator[int]:
    """The blocks between two that name all the objects, in the order wanted; read so many at a time."""
    one = "SELECT block FROM audit_index WHERE object_id = ? AND block BETWEEN ? AND ?"
    sql = f"{' INTERSECT '.join([one] * len(objects))} ORDER BY block{'' if ascending else ' DESC'} LIMIT ?"
    while low <= high:
        values = [value for one in objects for value in (one, low, high)]
        found = [block for (block,) in connection.execute(sql, (*values, at_once)).fetchall()]
        yield from found
        if len(found) < at_once:
            return
        low, high = (found[-1] + 1, high) if ascending else (low, found[-1] - 1)


class IndexCheck:
    """One comparison of the index with the log, as the log is read. Entries before `first` are not in the database."""

    def __init__(self, connection: driver.Connection, first: int) -> None:
        self._connection = connection
        self._next = first
        self._rows = 0
        self._bad: list[Finding] = []
        self._readable = True

    def read_to(self, last: int) -> None:
        """Entries up to this one have been read: compare those in whole steps."""
        while (end := self._next - self._next % STEP + STEP) <= last:
            self._compare(end)

    def _compare(self, end: int) -> None:
        bounds = (self._next, end) * 2
        self._next = end + 1
        ((needed, found),) = self._fetch(_COUNT, bounds) or [(0, 0)]
        self._rows += found
        if found != needed:
            self._note("lacks a service or key that its entries name", self._fetch(_MISSING, bounds))

    def finish(self, last: int, most: int) -> list[Finding]:
        """The findings for a log that ends with entry `last`: a row that is too much, of `most` blocks, is one too."""
        self.read_to(last)
        if self._next <= last:
            self._compare(last)
        ((size,),) = self._fetch(_SIZE) or [(self._rows,)]
        if size != self._rows:
            self._note("has a row that no entry needs", self._fetch(_NEEDLESS, (most,)) or [("",)])
        return self._bad

    def _fetch(self, sql: str, values: tuple[int, ...] = ()) -> list[Row]:
        """The rows; none, and a finding, if there is no reading them."""
        try:
            return driver.fetch(self._connection, sql, values) if self._readable else []
        except driver.Damaged:
            self._readable = False
            self._bad.append(Finding("audit_index", "", "cannot be read"))
            return []

    def _note(self, problem: str, blocks: Sequence[Row]) -> None:
        self._bad += [Finding("audit_index", str(block), problem) for (block,) in blocks]
