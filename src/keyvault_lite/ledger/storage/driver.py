"""The SQLite library, imported in one place, and the words of its interface that every connection here speaks.

It is the `pysqlite3` wheel, else the interpreter's if it is safe:

SQLite 3.7.0 to 3.51.2 can corrupt a WAL database written by several connections, so an older library is refused.
"""

import sqlite3 as _standard
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

try:
    from pysqlite3 import dbapi2 as _bundled
except ImportError:
    _bundled = None

__all__ = ["Connection", "Error", "IntegrityError"]

FIRST_SAFE = (3, 51, 3)
_driver: ModuleType = _standard if _bundled is None else _bundled

if TYPE_CHECKING:
    from sqlite3 import Error, IntegrityError
else:
    Error, IntegrityError = _driver.Error, _driver.IntegrityError

connect = _driver.connect
dbapi = _driver
version: str = _driver.sqlite_version
is_safe: bool = _driver.sqlite_version_info >= FIRST_SAFE


class Rows(Protocol):
    """What a statement gives."""

    @property
    def rowcount(self) -> int:
        """How many rows it has changed."""

    def fetchone(self) -> Any:  # noqa: ANN401  (whatever the database holds)
        """The next row, or None."""

    def fetchall(self) -> list[Any]:
        """All rows that are left."""

    def __iter__(self) -> Iterator[Any]:
        """Row by row."""


class Connection(Protocol):
    """A connection of either database, as the ledger uses it: SQL with `?` for values, errors of this module."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open on it."""

    def execute(self, sql: str, values: Sequence[Any] = ..., /) -> Rows:
        """Run one statement."""

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Rows:
        """Run one statement for each row of values."""

    def close(self) -> None:
        """Let go of it."""


def is_full(error: Exception) -> bool:
    """Whether the store had no space left."""
    return "full" in str(error)


def is_busy(error: Exception) -> bool:
    """Whether another program holds a lock on the store."""
    return "locked" in str(error) or "lock timeout" in str(error)


def is_unfit(error: Exception) -> bool:
    """Whether a statement does not fit the tables there are (SQLITE_ERROR)."""
    return getattr(error, "sqlite_errorcode", None) == 1


Damaged = (Error, UnicodeDecodeError)
"""What reading a damaged database raises: SQLite's own message may name something that is no text."""


def fetch(connection: Connection, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
    """All rows of a query, those with damaged text included (see `any_text`)."""
    try:
        return connection.execute(sql, values).fetchall()
    except Damaged as error:
        if not is_text_error(error):
            raise
        with any_text(connection):
            return connection.execute(sql, values).fetchall()


def stream(connection: Connection, sql: str, values: tuple[object, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """As `fetch`, row by row, in a snapshot: of a large table hardly more than one row is in memory.

    MUST NOT ask anything else of the connection before the last row was taken.
    """
    taken = 0
    try:
        for row in _one_by_one(connection, sql, values):
            taken += 1
            yield row
    except Damaged as error:
        if not is_text_error(error):
            raise
    else:
        return
    with any_text(connection):
        yield from islice(connection.execute(sql, values), taken, None)


def _one_by_one(connection: Connection, sql: str, values: tuple[object, ...]) -> Iterable[tuple[Any, ...]]:
    """The rows by a connection's own way to take few at a time, if `execute` would take all."""
    own: Any = connection
    rows: Iterable[tuple[Any, ...]] = (own.stream if hasattr(own, "stream") else own.execute)(sql, values)
    return rows


def is_text_error(error: Exception) -> bool:
    """Whether a stored text is not UTF-8, which ends a query in the middle."""
    return "decode to UTF-8" in str(error)


@contextmanager
def any_text(connection: Connection) -> Iterator[None]:
    """Read text that is not UTF-8 with lone surrogates in it: no MAC or hash can be made of it, so its row is found."""
    own: Any = connection  # only SQLite keeps malformed texts
    own.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    try:
        yield
    finally:
        own.text_factory = str
