"""What is particular to SQLite: connections, the lock between processes, and the file's identity.

Writers of all processes pass a blocking file lock before `BEGIN IMMEDIATE`. It is a turnstile of two locks (take
`next`, take `main`, release `next`): the longest waiter is next, which a single flock and SQLite's own busy handler
do not give.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from keyvault_lite.ledger.storage import driver, own_files, statements
from keyvault_lite.ledger.storage.database import BUSY_SECONDS, Count
from keyvault_lite.ledger.storage.log_index import block_of, rows_for
from keyvault_lite.ledger.storage.schema import TABLES, TRIGGERS, Row
from keyvault_lite.ledger.storage.sqlite import files
from keyvault_lite.ledger.storage.sqlite.locks import FileLock
from keyvault_lite.ledger.storage.sqlite.offline import read_offline
from keyvault_lite.ledger.storage.sqlite.schema_check import check_kinds, check_schema
from keyvault_lite.ledger.storage.upgrade import other_tables, run_migrations
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation
from keyvault_lite.model.replies import Finding

T = TypeVar("T")

PAUSE_SECONDS: Final = 0.005
"""How often it is tried again."""
SOFT_LIMIT: Final = 32 * 1024 * 1024
"""Bytes of free space below which only management, audit and denials are written (a tenth of a small disk)."""
SCARCE: Final = 4
"""At how many times that limit the space is called scarce."""
RESERVE: Final = 4 * 1024 * 1024
"""Bytes put aside in a file, which is removed when the disk is full nevertheless."""
LOOK_SECONDS: Final = 0.1
MAX_PROBLEMS: Final = 1000
_GUARD: Final = "audit_logs_no_delete"
_TRIGGERS_ANEW: Final = tuple(
    # Alembic's batch mode rebuilds a table and drops its triggers without a word.
    step
    for name, statement in TRIGGERS.items()
    for step in (f"DROP TRIGGER IF EXISTS {name}", statement)
)
_PRAGMAS: Final = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",  # functions in a planted view or trigger may not run
    "PRAGMA cell_size_check = ON",  # damaged pages are found when read
    "PRAGMA secure_delete = ON",  # replaced key material does not stay in free pages
    "PRAGMA synchronous = FULL",
    "PRAGMA mmap_size = 0",
)


class SqliteDatabase:
    """One database file and the locks beside it. Connections are made here and used by one thread each."""

    def __init__(self, path: Path) -> None:
        if not driver.is_safe:
            raise AuditUnavailable(
                f"SQLite {driver.version} can corrupt this database; install the pysqlite3 package",
                shown="this SQLite can corrupt the database",
            )
        self.path = path
        self._identity: tuple[int, int] | None = None
        self._turnstile = FileLock(path.with_name(path.name + ".next"))
        self._main = FileLock(path.with_name(path.name + ".lock"))
        self._reserve = path.with_name(path.name + ".reserve")
        self._looked, self._low, self._scarce = 0.0, False, False
        self._beginning = FileLock(path.with_name(path.name + ".init"))
        self._leading = FileLock(path.with_name(path.name + ".jobs"))
        self._leads = False

    is_local: Final = True
    folds_entries: Final = True

    @property
    def place(self) -> str:
        """See Database."""
        return str(self.path)

    @property
    def name(self) -> str:
        """See Database."""
        return self.path.name

    @property
    def anchor_path(self) -> Path:
        """See Database."""
        return self.path.with_name(self.path.name + ".anchor")

    @property
    def folder(self) -> Path | None:
        """See Database."""
        return self.path.parent

    def is_there(self) -> bool:
        """See Database."""
        return self.path.exists()

    def exists(self) -> bool:
        """Whether there is a file that is not empty."""
        return self.path.exists() and self.path.stat().st_size > 0

    def writer(self, *, patient: bool = True) -> driver.Connection:
        """A connection that may write, in autocommit mode: transactions are begun and ended by hand.

        One that is not patient never waits for another program's lock but in `begin`.
        """
        files.refuse_journal(self.path)
        if not self.exists():
            files.make_empty(self.path)
        connection: driver.Connection = driver.connect(
            str(self.path), timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        connection.execute("PRAGMA journal_mode = WAL")
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        if not patient:
            connection.execute("PRAGMA busy_timeout = 0")
        self._identity = self._stat()
        return connection

    @staticmethod
    def begin(connection: driver.Connection, *, patience: float = BUSY_SECONDS) -> None:
        """Begin a transaction that writes; waits as many seconds for another program. Raises driver.Error."""
        until = time.monotonic() + patience
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except driver.Error as error:
                if not driver.is_busy(error) or time.monotonic() >= until:
                    raise
                time.sleep(PAUSE_SECONDS)
            else:
                return

    @staticmethod
    def count_of_others(connection: driver.Connection) -> int:
        """A number that changes when another connection has written."""
        return int(connection.execute("PRAGMA data_version").fetchone()[0])

    def reader(self) -> driver.Connection:
        """A connection that cannot write."""
        files.refuse_journal(self.path)
        connection: driver.Connection = driver.connect(
            f"file:{quote(str(self.path))}?mode=ro",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        return connection

    def is_alive(self, connection: driver.Connection) -> bool:
        """See Database. A file does not hang up."""
        return True

    def read_offline(self, work: Callable[[driver.Connection], T]) -> T:
        """See Database."""
        return read_offline(self.path, work)

    @contextmanager
    def pipelined(self, connection: driver.Connection) -> Iterator[None]:
        """See Store: each is done at once."""
        yield

    def append(self, connection: driver.Connection, entries: Sequence[Row]) -> Count:
        """See Store."""
        taken = 0
        for place in range(0, len(entries), statements.MOST_AT_ONCE):
            rows = entries[place : place + statements.MOST_AT_ONCE]
            values = list(chain.from_iterable(rows))
            taken += connection.execute(statements.append(len(rows)), values).rowcount
        connection.executemany(statements.PUT_INDEX, rows_for(entries))
        return Count(taken)

    def may_forget_tokens(self, _connection: driver.Connection) -> bool:
        """See Store."""
        return True

    def forget_entries(self, connection: driver.Connection, first: int, last: int) -> None:
        """See Store.

        The trigger that forbids every deletion is away only inside the transaction: nobody else ever sees the schema
        without it, and if the transaction fails it was never away.
        """
        connection.execute(f"DROP TRIGGER {_GUARD}")
        deleted = connection.execute(statements.FORGET_ENTRIES, (first, last)).rowcount
        connection.execute(TRIGGERS[_GUARD])
        connection.execute(statements.FORGET_INDEX, (block_of(last + 1),))
        left = connection.execute(statements.FIRST_ENTRY).fetchone()
        if deleted != last - first + 1 or left != (last + 1,):
            raise IntegrityViolation("the log does not hold exactly the entries that were archived")

    def give_space_back(self) -> None:
        """See Database: the file is rewritten, and all writers wait for it."""
        with self.lock(), closing(self.writer()) as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the one place among all processes from which the database may be written."""
        self.acquire()
        try:
            yield
        finally:
            self.unlock()

    def acquire(self) -> None:
        """Take it; waits for its holder. Raises AuditUnavailable."""
        with self._turnstile.held():
            self._main.acquire()

    def try_lock(self) -> bool:
        """Take it if nobody has it or waits for it."""
        if not self._turnstile.try_acquire():
            return False
        try:
            return self._main.try_acquire()
        finally:
            self._turnstile.release()

    def unlock(self) -> None:
        """Give it back, from whichever thread."""
        self._main.release()

    def space_is_low(self) -> bool:
        """Whether so little space is left that it is kept for management and denials. Looked up ten times a second."""
        now = time.monotonic()
        if now - self._looked > LOOK_SECONDS:
            self._looked = now
            found = os.statvfs(self.path.parent)
            free, whole = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
            limit = min(SOFT_LIMIT, whole // 10)
            self._low, self._scarce = free < limit, free < SCARCE * limit
        return self._low

    def space_is_scarce(self) -> bool:
        """See Database."""
        return self.space_is_low() or self._scarce

    def has_reserve(self) -> bool:
        """See Database."""
        return self._reserve.exists()

    def make_reserve(self) -> None:
        """Put space aside for the day when the disk is full. Without effect where there is not enough of it."""
        if os.path.lexists(self._reserve) or self.space_is_low():
            return
        with suppress(OSError):
            descriptor = own_files.open_own(self._reserve, os.O_CREAT | os.O_EXCL | os.O_RDWR)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE)
            finally:
                os.close(descriptor)

    def release_reserve(self) -> bool:
        """Give the space that was put aside to the database; false if there was none."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True

    def forget_overwritten(self) -> bool:
        """Bring everything into the database file, so that what was overwritten is gone; false if someone reads."""
        with self.lock(), closing(self.writer()) as connection:
            connection.execute("PRAGMA busy_timeout = 100")
            return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)

    def tables(self, connection: driver.Connection) -> frozenset[str]:
        """See Database: everything in the catalogue."""
        return frozenset(str(name) for (name,) in connection.execute("SELECT name FROM sqlite_master"))

    def upgrade(self, connection: driver.Connection) -> None:
        """See Database."""
        try:
            run_migrations("sqlite://", connection, begin="BEGIN IMMEDIATE", after=_TRIGGERS_ANEW, module=driver.dbapi)
        except driver.Error as error:
            if driver.is_unfit(error):
                raise other_tables() from error
            raise

    def drop_tables(self, connection: driver.Connection) -> None:
        """See Database. Triggers and indexes go with their tables."""
        for name in TABLES:
            connection.execute(f"DROP TABLE {name}")

    def check_kinds(self, connection: driver.Connection) -> list[Finding]:
        """See Database. A rollback journal is written into the database by the next process that opens it."""
        return files.find_journal(self.path) + check_kinds(connection)

    def check_schema(self, connection: driver.Connection) -> list[Finding]:
        """See Database."""
        return files.find_journal(self.path) + check_schema(connection)

    def check_pages(self, connection: driver.Connection) -> list[Finding]:
        """See Database: SQLite's check of its structure, indexes included."""
        problems = driver.fetch(connection, f"PRAGMA integrity_check({MAX_PROBLEMS})")
        return [Finding("database", "pages", str(problem)) for (problem,) in problems if problem != "ok"]

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Hold the right to begin a vault in an empty database; the lock above is free meanwhile."""
        with self._beginning.held():
            yield

    def is_leader(self) -> bool:
        """Whether this process is the one that does the timed work: the first that asks, until it ends."""
        self._leads = self._leads or self._leading.try_acquire()
        return self._leads

    def is_leadership_blocked(self) -> bool:
        """See Database. A user that may open the file beside the database may write the database."""
        return False

    def resign_leadership(self) -> None:
        """Let another process do it."""
        if self._leads:
            self._leads = False
            self._leading.release()

    def check_there(self) -> None:
        """See Database."""
        if not self.path.exists():
            raise AuditUnavailable("the database file is gone from its place: put it back")

    def check_writable(self, _connection: driver.Connection, *, flush: bool) -> None:
        """See Database. Nothing is opened: closing the file would let go of SQLite's own locks on it."""
        wal = self.path.with_name(self.path.name + "-wal")
        for one in (self.path.parent, self.path, *([wal] if wal.exists() else [])):
            if not os.access(one, os.W_OK):
                raise AuditUnavailable("the database cannot be written: it, its folder or file system is read-only")
        if flush:
            self._main.flush()

    def check_same_file(self) -> None:
        """Raise IntegrityViolation if the path no longer leads to the open file (renamed over, unlinked).

        SQLite would go on committing into the file that nobody can reach any more.
        """
        if self._stat() != self._identity:
            raise IntegrityViolation("the database file was replaced under the running server")

    def close(self) -> None:
        """Close the lock files. Connections are closed by their users. A lock taken to begin a vault stays."""
        for lock in (self._turnstile, self._main):
            lock.close()

    def _stat(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino
