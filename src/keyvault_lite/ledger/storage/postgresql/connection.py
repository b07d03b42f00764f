"""A connection of psycopg that speaks as the ledger's connections do: `?` for values, and the errors of `driver`.

A writer opens its transaction in one round trip: BEGIN, the writers' lock, and what every transaction asks first (head,
newest entry, who else wrote), which is then answered from what has come along. It is read under the lock, each
statement on a snapshot of its own (READ COMMITTED), so it is what asking later in the transaction would have given.
"""

import select
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import psycopg
from psycopg import pq

from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.database import BUSY_SECONDS
from keyvault_lite.ledger.storage.postgresql import session
from keyvault_lite.ledger.storage.postgresql.bounded_fetch import bounded, rows_at_once
from keyvault_lite.ledger.storage.postgresql.foreign_writes import SIGN, Snapshots
from keyvault_lite.ledger.storage.postgresql.qualified import qualified
from keyvault_lite.ledger.storage.postgresql.read_timeout import Connection
from keyvault_lite.model.errors import AuditUnavailable

IN_FORCE: Final = {"INTRANS", "ACTIVE", "INERROR"}
_AHEAD: Final = (
    # FOR UPDATE, so that even a writer that knows nothing of the lock between processes cannot come in between.
    f"{statements.READ_HEAD} FOR UPDATE",
    statements.LAST_ENTRY,
    SIGN,
)
_BYTES: Final = 'COLLATE pg_catalog."C"'
_OTHER_WORDS: Final = {
    # Read before the schema is checked, when the column may be of any type and the rows any number.
    "SELECT version_num FROM alembic_version": (
        "SELECT pg_catalog.substr(version_num, 1, 33) FROM alembic_version LIMIT 2"
    ),
    # Names are ordered by their bytes, as in SQLite: the database's locale may leave out punctuation.
    statements.NEWEST_SEGMENT: bounded(
        statements.NEWEST_SEGMENT.replace(
            "name >= ? AND name < ?", f"name {_BYTES} >= ? AND name {_BYTES} < ?"
        ).replace("BY name", f"BY name {_BYTES}")
    ),
    statements.LOSE_REPLY: ("DELETE FROM idempotency_replies WHERE service_id || '/' || encode(key_digest, 'hex') = ?"),
}
# A process that hangs between COMMIT and the release of the lock is no longer in a transaction: its session ends all
# the same, and the lock with it. It is refused by the anchor, which others have moved by then. What COMMIT relies on
# can be taken away by a reload at any time: it is looked at where it costs no round trip.
_LOCK: Final = (
    f"SELECT set_config('idle_session_timeout', '60s', false), pg_advisory_lock(%s::int4, %s::int4), {session.FACTS}"
).encode()
_UNLOCK: Final = b"SELECT pg_advisory_unlock_all(), set_config('idle_session_timeout', '0', false)"
_SNAPSHOT: Final = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_GIVES_SOME: Final = 170000
"""The version of libpq from which on it gives several rows at a time; an older one gives each by itself."""
_DISK_FULL: Final = "53100"
_REFUSED_BY_TRIGGER: Final = "P0001"
_NO_LOCK: Final = "55P03"
_NO_RIGHT: Final = "42501"
_AWAY: Final = ("08", "53", "57", "25P03", "25P04", "40001", "40P01", _NO_LOCK)
"""Beginnings of SQLSTATE that tell nothing of what is stored: the way there, the server's means or end, time, locks."""
_ENDS: Final = frozenset({"BEGIN", "COMMIT", "ROLLBACK"})


class PostgresError(driver.Error):
    """What the server or the way to it refused."""


def is_away(error: psycopg.Error) -> bool:
    """Whether the server did not get to answer, whatever the database holds."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(_AWAY)


def away(error: psycopg.Error) -> AuditUnavailable:
    """The refusal for an error that `is_away`."""
    if error.sqlstate == _NO_LOCK:
        return AuditUnavailable(
            "somebody else has locked the database or a table of it: the server's pg_locks tells who"
        )
    return AuditUnavailable(f"the database server did not answer: {reason(error)}", shown="the database did not answer")


def reason(error: psycopg.Error) -> str:
    """Why, in the server's or the library's words: neither repeats a password, nor a value without its details."""
    text = (error.diag.message_primary or str(error)).strip()
    return text.splitlines()[-1].strip()[:300] if text else "no reason given"


class PostgresIntegrityError(driver.IntegrityError):
    """A row that a constraint or an append-only trigger refused."""


@cache
def _translated(sql: str, schema: str) -> bytes:
    """The statement as psycopg wants it: once for each that there is, as they are all written in the code."""
    text = (_OTHER_WORDS.get(sql) or bounded(sql)).replace("%", "%%").replace("?", "%s")
    # Last, and with what it may hold kept apart from the places of values.
    return qualified(text, schema.replace("%", "%%")).encode()


@cache
def _plain(sql: str, schema: str) -> bytes:
    """As `_translated`, for a statement without values."""
    return qualified(_OTHER_WORDS.get(sql) or bounded(sql), schema).encode()


class AvailableRow:
    """A result of at most one row that is there already."""

    def __init__(self, row: tuple[Any, ...] | None, rowcount: int = -1) -> None:
        self.rowcount = rowcount
        self._rows = [] if row is None else [row]

    def fetchone(self) -> tuple[Any, ...] | None:
        """See driver.Rows."""
        return self._rows.pop() if self._rows else None

    def fetchall(self) -> list[Any]:
        """See driver.Rows."""
        rows, self._rows = self._rows, []
        return rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())


class PostgresConnection:
    """See driver.Connection."""

    __slots__ = ("_ahead", "_hold", "_key", "_patience", "_writes", "locked", "others", "raw", "schema")

    def __init__(
        self,
        raw: Connection,
        *,
        schema: str,
        writes: bool,
        key: tuple[int, int],
        hold: "Callable[[PostgresConnection], None] | None" = None,
    ) -> None:
        self.raw = raw
        self.schema = schema
        """The one schema that its statements mean."""
        self.locked = False
        """Whether it holds the lock between processes."""
        self._writes = writes
        self._key = key
        self._hold = hold
        """Told before it takes the lock between processes, so that it is the one that is made to let it go."""
        self.others = Snapshots()
        """What tells of other writers."""
        self._patience = BUSY_SECONDS
        self._ahead: tuple[driver.Rows, ...] = ()

    @property
    def in_transaction(self) -> bool:
        """See driver.Connection."""
        return self.raw.info.transaction_status.name in IN_FORCE

    @property
    def is_alive(self) -> bool:
        """Whether the server has not hung up: told without asking, by what lies in the socket of an idle connection."""
        if self.raw.closed or self.raw.info.transaction_status.name != "IDLE":
            return not self.raw.closed
        return not _has_something_to_read(self.raw.fileno())

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> driver.Rows:
        """See driver.Connection."""
        try:
            if sql == statements.CATCH_UP and self._writes:
                return self._catch_up()
            if sql == "BEGIN":
                return self._begin()
            if sql == "COMMIT":
                return self._commit()
            if not values:
                return self.raw.execute(_plain(sql, self.schema), binary=True)
            return self.raw.execute(_translated(sql, self.schema), values, binary=True)
        except psycopg.Error as error:
            raise self._told(error, sql) from error

    def stream(self, sql: str, values: Sequence[Any] = (), /) -> Iterator[Any]:
        """As `execute`, with few rows in memory. Until the last is taken, nothing else can be asked."""
        size = rows_at_once(sql) if pq.version() >= _GIVES_SOME else 1
        try:
            words, given = (_translated(sql, self.schema), values) if values else (_plain(sql, self.schema), None)
            yield from self.raw.cursor().stream(words, given, binary=True, size=size)
        except psycopg.Error as error:
            raise self._told(error, sql) from error

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> driver.Rows:
        """See driver.Connection."""
        try:
            cursor = self.raw.cursor()
            cursor.executemany(_translated(sql, self.schema), list(rows))
            return cursor
        except psycopg.Error as error:
            raise self._told(error) from error

    @contextmanager
    def pipelined(self) -> Iterator[None]:
        """Send all statements within before any of them is waited for."""
        try:
            with self.raw.pipeline():
                yield
        except psycopg.Error as error:
            raise self._told(error) from error

    def set_patience(self, seconds: float) -> None:
        """How long locks of others are waited for from now on."""
        if seconds != self._patience:
            self.raw.execute(f"SET lock_timeout = {int(seconds * 1000) or 1}".encode())
            self._patience = seconds

    def unlock(self) -> None:
        """Let the next process write. A connection that is broken has let go of its lock already."""
        self.locked = False
        if self.raw.closed:
            return
        try:
            self.raw.execute(_UNLOCK)
        except psycopg.Error:
            self.raw.close()  # then the server sees to it

    def close(self) -> None:
        """See driver.Connection. What it holds at the server ends with it."""
        self.locked = False
        self.raw.close()

    def _begin(self) -> driver.Rows:
        if not self._writes:
            begun = self.raw.execute(_SNAPSHOT)
            # A statement that fails would end the whole transaction, and with it the one snapshot of a check.
            self.raw.execute(b"SAVEPOINT whole")
            return begun
        # Before it is known to be held: a failure half-way releases whatever is held.
        self.locked = True
        if self._hold is not None:
            self._hold(self)
        with self.raw.pipeline():
            begun = self.raw.execute(b"BEGIN")
            locked = self.raw.execute(_LOCK, self._key)
            self._ahead = tuple(self.raw.execute(_plain(sql, self.schema), binary=True) for sql in _AHEAD)
        if (problem := session.missing((locked.fetchone() or ())[2:])) is not None:
            self._ahead = ()
            self.raw.execute(b"ROLLBACK")
            raise AuditUnavailable(problem, shown="the database is not set to keep what it confirms")
        return begun

    def _catch_up(self) -> "AvailableRow":
        """What CATCH_UP asks for, as it came along with BEGIN; what else came along tells of other writers."""
        ahead, self._ahead = self._ahead, ()
        if not ahead:
            ahead = tuple(self.raw.execute(_plain(sql, self.schema), binary=True) for sql in _AHEAD)
        head, last, sign = (rows.fetchone() for rows in ahead)
        self.others.look(self, sign or (None, None))
        return AvailableRow(None if head is None else (*head, *(last or (None, None))))

    def _commit(self) -> driver.Rows:
        done = self.raw.execute(b"COMMIT")
        if done.statusmessage != "COMMIT":
            # COMMIT of a transaction that had failed is no error to the server: it answers ROLLBACK.
            raise PostgresError("the transaction was rolled back")
        return done

    def _told(self, error: psycopg.Error, sql: str = "") -> Exception:
        """The error of `driver` for the server's, or AuditUnavailable if it tells nothing of what is stored.

        Where a transaction of a writer begins and ends it is one of `driver` all the same: only there it decides what
        has happened.
        """
        error = self.raw.fell_silent or error
        if is_away(error) and error.sqlstate != _DISK_FULL and not (self._writes and sql in _ENDS):
            self._restore_snapshot()
            return away(error)
        lost = self._restore_snapshot()
        if lost is not None:
            return away(lost)
        return self._refused(error)

    def _refused(self, error: psycopg.Error) -> Exception:
        """As `_told`, for a statement that the server itself refused."""
        state = error.sqlstate or ""
        if state == _NO_RIGHT:
            # Nothing of what is stored: not a sign of damage, neither at a start nor in a check.
            return AuditUnavailable(
                f"the role {self.raw.info.user} lacks a right ({reason(error)}): run the GRANTs of docs/postgresql.md",
                shown="the database refused a statement",
            )
        if isinstance(error, psycopg.IntegrityError) or state == _REFUSED_BY_TRIGGER:
            return PostgresIntegrityError(f"{state}: refused by a constraint or trigger")
        if isinstance(error, psycopg.DataError) and self._writes:
            # No fault of the store: a request of the transaction has a value that no column can hold.
            return ValueError("a value that the database cannot hold")
        if state == _DISK_FULL:
            return PostgresError("the disk of the database server is full")
        # Never the driver's whole message: its details repeat values.
        return PostgresError(
            f"{state or type(error).__name__}: {error.diag.message_primary or 'the connection failed'}"
        )

    def _restore_snapshot(self) -> psycopg.Error | None:
        """After a reader's statement that failed: let the next one be asked; what kept it from that."""
        if self._writes or self.raw.info.transaction_status is not pq.TransactionStatus.INERROR:
            return None
        try:
            self.raw.execute(b"ROLLBACK TO SAVEPOINT whole")
        except psycopg.Error as error:
            return error
        return None


def _has_something_to_read(descriptor: int) -> bool:
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(0))
