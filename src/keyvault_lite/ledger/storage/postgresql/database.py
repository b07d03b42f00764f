"""What is particular to PostgreSQL: sessions that may be relied on, and the locks that all processes share.

The writers' lock is an advisory lock of the session, taken with BEGIN and let go after the head is published: so heads
reach the anchor in the order in which they were committed, from whichever host. It goes with the session: a process
that dies, or whose host does, holds nobody up for longer than it takes the server to notice (seconds; see `session`).
"""

import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Final, TypeVar

import psycopg
from psycopg.errors import ConnectionTimeout
from psycopg.types.numeric import Int8Dumper

from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.database import BUSY_SECONDS, RowCount
from keyvault_lite.ledger.storage.log_index import block_of, rows_for
from keyvault_lite.ledger.storage.postgresql import arrays, session
from keyvault_lite.ledger.storage.postgresql.address import Address
from keyvault_lite.ledger.storage.postgresql.catalogue import (
    GUARD_OF_LOG,
    TRIGGERS,
    check_kinds,
    check_lookups,
    check_schema,
    rows_of,
)
from keyvault_lite.ledger.storage.postgresql.connection import AvailableRow, PostgresConnection, away, is_away, reason
from keyvault_lite.ledger.storage.postgresql.qualified import REFUSE, SCHEMA, SEARCH_PATH, quote, search_path_of
from keyvault_lite.ledger.storage.postgresql.read_timeout import NEXT_STEP, Connection
from keyvault_lite.ledger.storage.postgresql.results import adapters
from keyvault_lite.ledger.storage.schema import TABLES, Row
from keyvault_lite.ledger.storage.upgrade import other_tables, run_migrations
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, InvalidRequest
from keyvault_lite.model.replies import Finding

T = TypeVar("T")
OLDEST: Final = 140000
"""server_version_num of the oldest version this was made for."""
WRITING, BEGINNING, LEADING, UPGRADING = 0x6B766C00, 0x6B766C01, 0x6B766C02, 0x6B766C03
"""The first half of the locks' numbers; the second names the schema, so that vaults of one database do not meet."""
_IS_USURPED: Final = (
    b"SELECT bool_and(NOT has_table_privilege(a.usesysid, %s::text, 'UPDATE')) FROM pg_catalog.pg_locks l "
    b"JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid WHERE l.locktype = 'advisory' AND l.granted AND "
    b"l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) AND "
    b"l.classid = %s::int4::oid AND l.objid = %s::int4::oid AND l.objsubid = 2"
)
_RECORDED: Final = ("audit_logs", "audit_index", "tiles")
_MAY_RECORD: Final = "SELECT " + " AND ".join(["has_table_privilege(current_user, ?, 'INSERT')"] * len(_RECORDED))
BEGINNING_SECONDS: Final = 60.0
"""How long another process may take to begin a vault or to bring its schema up to date."""


class PostgresDatabase:
    """One schema of a database of a server."""

    is_local: Final = False
    folds_entries: Final = False

    def __init__(self, address: Address) -> None:
        self.place = address.place
        self.name = address.name
        self._conninfo = address.conninfo
        self._threads = threading.Lock()
        self._holder: PostgresConnection | None = None
        """The writer that has the lock between processes, or is waiting for it."""
        self._leading: PostgresConnection | None = None

    @property
    def anchor_path(self) -> Path:
        """See Database."""
        return Path("keyvault.anchor")

    @property
    def folder(self) -> Path | None:
        """See Database: not of this host."""
        return None

    def is_there(self) -> bool:
        """See Database. Raises AuditUnavailable if it cannot be reached."""
        self.reader().close()
        return True

    def exists(self) -> bool:
        """See Database."""
        with closing(self.reader()) as connection:
            try:
                return bool(self.tables(connection))
            except driver.Error as error:
                raise AuditUnavailable(
                    f"the database {self.place} cannot be read: {error}", shown="the database cannot be read"
                ) from error

    # Connections

    def writer(self, *, patient: bool = True) -> driver.Connection:
        """See Database."""
        raw, schema = self._connect(session.WRITER)
        try:
            self._check_durability(raw)
        except BaseException:
            raw.close()
            raise
        raw.prepare_threshold = 0
        arrays.register(raw)
        return PostgresConnection(raw, schema=schema, writes=True, key=(WRITING, _half(schema)), hold=self._hold)

    def reader(self) -> driver.Connection:
        """See Database."""
        raw, schema = self._connect(session.READER)
        return PostgresConnection(raw, schema=schema, writes=False, key=(WRITING, _half(schema)))

    def _connect(self, more: tuple[str, ...]) -> tuple[Connection, str]:
        try:
            raw = Connection.connect(self._conninfo, autocommit=True, context=adapters())
        except psycopg.Error as error:
            why = f"{reason(error)}: {NEXT_STEP}" if isinstance(error, ConnectionTimeout) else reason(error)
            raise AuditUnavailable(
                f"the database {self.place} cannot be reached: {why}", shown="the database cannot be reached"
            ) from None
        try:
            # AvailableRow integer type in all statements, so that each is prepared once.
            raw.adapters.register_dumper(int, Int8Dumper)
            session.prepare(raw, more)
            # The search path that it was given names the vault's schema. Nothing is looked up along it but that name.
            found = raw.execute(b"SELECT pg_catalog.current_schema()").fetchone()
            raw.execute(SEARCH_PATH)
        except (psycopg.Error, *driver.Damaged) as error:
            raw.close()
            raise self._cannot_be_used(error) from None
        problem = None
        if raw.info.server_version < OLDEST:
            problem = f"is PostgreSQL {raw.info.server_version // 10000}, and 14 is needed"
        elif found is None or not isinstance(found[0], str):
            problem = "has no schema for this user (search_path, see docs/postgresql.md)"
        if problem is not None or found is None:
            raw.close()
            raise InvalidRequest(f"the database {self.place} {problem}")
        return raw, found[0]

    def _check_durability(self, raw: Connection) -> None:
        """Raise AuditUnavailable unless COMMIT, on this session, returns only once all of it is durable."""
        try:
            session.make_durable(raw)
            facts = raw.execute(f"SELECT {session.FACTS}".encode()).fetchone()
            if raw.execute(b"SELECT pg_is_in_recovery()").fetchone() != (False,):
                raise AuditUnavailable(
                    f"the database {self.place} is a standby, which cannot be written",
                    shown="the database cannot be written",
                )
        except (psycopg.Error, *driver.Damaged) as error:
            raise self._cannot_be_used(error) from None
        if (problem := session.missing(facts or ())) is not None:
            raise AuditUnavailable(problem, shown="the database is not set to keep what it confirms")

    def _cannot_be_used(self, error: Exception) -> AuditUnavailable:
        why = reason(error) if isinstance(error, psycopg.Error) else str(error)
        return AuditUnavailable(f"the database {self.place} cannot be used: {why}", shown="the database cannot be used")

    def is_alive(self, connection: driver.Connection) -> bool:
        """See Database."""
        return connection.is_alive if isinstance(connection, PostgresConnection) else True

    def read_offline(self, work: Callable[[driver.Connection], T]) -> T:
        """See Database: beside a running server, on a standby too."""
        with closing(self.reader()) as connection:
            return work(connection)

    # Writing

    @contextmanager
    def lock(self) -> Iterator[None]:
        """See Database. Between processes it is taken by `begin`; here it is let go."""
        self.acquire()
        try:
            yield
        finally:
            self.unlock()

    def try_lock(self) -> bool:
        """See Database: another host may have to be asked, so it never takes no waiting."""
        return False

    def acquire(self) -> None:
        """See `lock`."""
        self._threads.acquire()

    def _hold(self, connection: PostgresConnection) -> None:
        self._holder = connection

    def unlock(self) -> None:
        """See `lock`."""
        holder, self._holder = self._holder, None
        try:
            if holder is not None and holder.locked:
                holder.unlock()
        finally:
            self._threads.release()

    def begin(self, connection: driver.Connection, *, patience: float = BUSY_SECONDS) -> None:
        """See Database."""
        if isinstance(connection, PostgresConnection):
            try:
                connection.set_patience(patience)
            except psycopg.Error as error:
                raise driver.Error("the connection was lost") from error
        connection.execute("BEGIN")

    def count_of_others(self, connection: driver.Connection) -> int:
        """See Database."""
        return connection.others.count if isinstance(connection, PostgresConnection) else 0

    @contextmanager
    def pipelined(self, connection: driver.Connection) -> Iterator[None]:
        """See Store: in one round trip."""
        if not isinstance(connection, PostgresConnection):
            yield  # each by itself
            return
        with connection.pipelined():
            yield

    def append(self, connection: driver.Connection, entries: Sequence[Row]) -> RowCount:
        """See Store."""
        if not entries:
            return AvailableRow(None, rowcount=0)
        if index := rows_for(entries):
            connection.execute(arrays.PUT_INDEX, arrays.index_columns_of(index))
        return connection.execute(arrays.APPEND, arrays.columns_of(entries))

    def may_forget_tokens(self, connection: driver.Connection) -> bool:
        """See Store: a right that the service role has to be given."""
        table = f"{quote(_schema_of(connection))}.tokens"
        row = connection.execute("SELECT has_table_privilege(current_user, ?, 'DELETE')", (table,)).fetchone()
        return bool(row and row[0])

    def forget_entries(self, connection: driver.Connection, first: int, last: int) -> None:
        """See Store. Needs the owner's role: the trigger in the way is away only inside the transaction."""
        drop, create = GUARD_OF_LOG
        connection.execute(drop)
        with _unhurried(connection):
            deleted = connection.execute(statements.FORGET_ENTRIES, (first, last)).rowcount
        connection.execute(create)
        connection.execute(statements.FORGET_INDEX, (block_of(last + 1),))
        left = connection.execute(statements.FIRST_ENTRY).fetchone()
        if deleted != last - first + 1 or left is None or tuple(left) != (last + 1,):
            raise IntegrityViolation("the log does not hold exactly the entries that were archived")

    def give_space_back(self) -> None:
        """See Database. Needs the owner's role; autovacuum does it in time."""
        with closing(self.writer()) as connection, _unhurried(connection):
            connection.execute("VACUUM audit_logs")

    def check_there(self) -> None:
        """See Database. A server that is gone is met by the statement that comes next."""

    def check_writable(self, connection: driver.Connection, *, flush: bool) -> None:
        """See Database. That the session may write, and change the head, was shown by BEGIN, which locks it."""
        schema = quote(_schema_of(connection))
        row = connection.execute(_MAY_RECORD, [f"{schema}.{table}" for table in _RECORDED]).fetchone()
        if row is None or not row[0]:
            raise AuditUnavailable(
                "this role may not write the log: run the GRANTs of docs/postgresql.md with the owner's role"
            )

    def check_same_file(self) -> None:
        """See Database. The session is with one server for as long as it lasts."""

    def space_is_low(self) -> bool:
        """See Database. The disk is the server's: watch it there."""
        return False

    def space_is_scarce(self) -> bool:
        """See `space_is_low`."""
        return False

    def has_reserve(self) -> bool:
        """See Database."""
        return False

    def make_reserve(self) -> None:
        """See Database. There is none to be had from here."""

    def release_reserve(self) -> bool:
        """See Database."""
        return False

    def forget_overwritten(self) -> bool:
        """See Database. Needs the owner's role; without it autovacuum does it later, and so it is not tried again."""
        connection = self.writer()
        with closing(connection), suppress(driver.Error, AuditUnavailable):
            for table in ("key_versions", "keyring_slots"):
                connection.execute(f"VACUUM {table}")
        return True

    # The schema

    def tables(self, connection: driver.Connection) -> frozenset[str]:
        """See Database: whatever is in the schema and belongs to no extension."""
        rows = rows_of(
            connection,
            f"SELECT o.relname::text FROM pg_catalog.pg_class o WHERE o.relnamespace = {SCHEMA} "  # noqa: S608
            "AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass "
            "AND d.objid = o.oid AND d.deptype = 'e')",
        )
        return frozenset(str(name) for (name,) in rows)

    def upgrade(self, connection: driver.Connection) -> None:
        """See Database."""
        if not isinstance(connection, PostgresConnection):
            raise TypeError("a connection of this database is needed")
        with self._alone(UPGRADING):
            try:
                self._migrate(connection)
            except psycopg.errors.InsufficientPrivilege as error:
                raise AuditUnavailable(
                    "this role may not make the schema: run it once with the owner's role (docs/postgresql.md)"
                ) from error
            except psycopg.Error as error:
                if is_away(error):
                    raise away(error) from error
                raise other_tables() from error

    def _migrate(self, connection: PostgresConnection) -> None:
        # The statements of the migrations name no schema.
        if planted := check_lookups(connection):
            raise DamagedVault(planted)
        connection.raw.execute(search_path_of(connection.schema))
        try:
            with connection.raw.unhurried():
                run_migrations("postgresql+psycopg://", connection.raw, begin="BEGIN", after=TRIGGERS)
        finally:
            if not connection.raw.closed:
                connection.raw.execute(SEARCH_PATH)

    def drop_tables(self, connection: driver.Connection) -> None:
        """See Database."""
        for name in TABLES:
            connection.execute(f"DROP TABLE {name}")
        connection.execute(f"DROP FUNCTION {REFUSE}()")

    def check_kinds(self, connection: driver.Connection) -> list[Finding]:
        """See Database."""
        return check_kinds(connection)

    def check_schema(self, connection: driver.Connection) -> list[Finding]:
        """See Database."""
        return check_schema(connection, _schema_of(connection))

    def check_pages(self, connection: driver.Connection) -> list[Finding]:
        """See Database. Storage is checked by the server: data checksums, amcheck."""
        return []

    # Among processes

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """See Database."""
        with self._alone(BEGINNING):
            yield

    @contextmanager
    def _alone(self, lock: int) -> Iterator[None]:
        """Hold a lock of the schema, on a session of its own. Raises AuditUnavailable if somebody keeps it."""
        with closing(self._session()) as connection:
            try:
                connection.set_patience(BEGINNING_SECONDS)
                connection.raw.execute(b"SELECT pg_advisory_lock(%s::int4, %s::int4)", [lock, _half(connection.schema)])
            except psycopg.Error as error:
                raise (
                    away(error)
                    if is_away(error)
                    else AuditUnavailable(reason(error), shown="the database cannot be checked")
                ) from error
            yield

    def is_leader(self) -> bool:
        """See Database. The lock goes with the session, so a session that is lost has to ask again."""
        if self._leading is not None:
            if self._leading.is_alive:
                return True
            self.resign_leadership()
        try:
            connection = self._session()
        except AuditUnavailable:
            return False
        try:
            got = connection.raw.execute(
                b"SELECT pg_try_advisory_lock(%s::int4, %s::int4)", [LEADING, _half(connection.schema)]
            ).fetchone()
        except psycopg.Error:
            got = None
        if got != (True,):
            connection.close()
            return False
        self._leading = connection
        return True

    def is_leadership_blocked(self) -> bool:
        """See Database. An advisory lock asks for no right but to connect: its holder is known by the role."""
        try:
            with closing(self._session()) as connection:
                head = f"{quote(connection.schema)}.ledger_head"
                found = connection.raw.execute(_IS_USURPED, [head, LEADING, _half(connection.schema)]).fetchone()
        except (psycopg.Error, AuditUnavailable):
            return False
        return found == (True,)

    def _session(self) -> PostgresConnection:
        """A session that only holds a lock."""
        raw, schema = self._connect(())
        return PostgresConnection(raw, schema=schema, writes=False, key=(WRITING, _half(schema)))

    def resign_leadership(self) -> None:
        """See Database."""
        if self._leading is not None:
            self._leading.close()
            self._leading = None

    def close(self) -> None:
        """See Database."""


def _schema_of(connection: driver.Connection) -> str:
    """The vault's schema; asked, because a connection may be behind another object."""
    row = connection.execute(f"SELECT nspname::text FROM pg_catalog.pg_namespace WHERE oid = {SCHEMA}").fetchone()  # noqa: S608
    return "" if row is None else str(row[0])


def _unhurried(connection: driver.Connection) -> AbstractContextManager[None]:
    return connection.raw.unhurried() if isinstance(connection, PostgresConnection) else nullcontext()


def _half(schema: str) -> int:
    """A number for a schema that fits half of an advisory lock's."""
    return zlib.crc32(schema.encode()) - (1 << 31)
