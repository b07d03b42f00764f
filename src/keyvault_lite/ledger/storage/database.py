"""What the ledger asks of a database: all that differs between SQLite and PostgreSQL, and no more.

MUST: `begin` returns only while nobody else can write, and nobody else can before `lock` is left, so that what is
committed is also published in that order. MUST: `writer` gives a connection on which COMMIT returns once it is durable.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.schema import Row
from keyvault_lite.model.replies import Finding

T = TypeVar("T")
BUSY_SECONDS: Final = 4.0
"""How long another program's lock on the database is waited for."""


class RowCount(Protocol):
    """What a database says of rows that were put to it."""

    @property
    def rowcount(self) -> int:
        """How many it has taken; known once `together` is left."""


@dataclass(frozen=True, slots=True)
class Count:
    """See RowCount: known already."""

    rowcount: int


class Store(Protocol):
    """What a transaction is written with."""

    def pipelined(self, connection: driver.Connection) -> AbstractContextManager[None]:
        """Statements within are sent together where that saves waiting: their `rowcount` is known at the end of it."""

    def append(self, connection: driver.Connection, entries: Sequence[Row]) -> RowCount:
        """Append entries to the log."""

    def may_forget_tokens(self, connection: driver.Connection) -> bool:
        """Whether this process may delete rows of tokens."""

    def forget_entries(self, connection: driver.Connection, first: int, last: int) -> None:
        """Delete what was archived, in the open transaction that also writes its record. The log begins with `first`.

        Raises IntegrityViolation if the log does not hold exactly these entries before those that stay.
        """


class Database(Store, Protocol):
    """One database, and the locks that all processes which use it share."""

    @property
    def place(self) -> str:
        """Where it is, for people: no secret in it."""

    @property
    def name(self) -> str:
        """Its name alone, for findings."""

    @property
    def anchor_path(self) -> Path:
        """Where its anchor is unless the settings say otherwise."""

    @property
    def folder(self) -> Path | None:
        """The folder that goes back together with it, as far as this host knows."""

    def is_there(self) -> bool:
        """Whether there is a database of this name, empty or not. Looking makes nothing."""

    def exists(self) -> bool:
        """Whether there is anything in it."""

    # Connections, each used by one thread at a time

    @property
    def is_local(self) -> bool:
        """Whether a statement waits for nobody outside this host, so that an event loop may run it."""

    @property
    def folds_entries(self) -> bool:
        """Whether it gives entries folded (`statements.FOLDED`), which is a faster way to read the whole log."""

    def writer(self, *, patient: bool = True) -> driver.Connection:
        """A connection that may write, in autocommit mode. Raises AuditUnavailable if there is none to be had.

        One that is not patient never waits for another program's lock but in `begin`.
        """

    def reader(self) -> driver.Connection:
        """A connection that cannot write. BEGIN on it takes one snapshot for all that follows."""

    def is_alive(self, connection: driver.Connection) -> bool:
        """Whether a connection that was left alone is still usable, as far as can be told without asking."""

    def read_offline(self, work: Callable[[driver.Connection], T]) -> T:
        """The result of `work` on a connection that cannot write, nor wake anything. It may be done repeatedly."""

    # Writing

    def lock(self) -> AbstractContextManager[None]:
        """Hold the one place among all processes from which the database may be written."""

    def try_lock(self) -> bool:
        """Take it if that takes no waiting."""

    def acquire(self) -> None:
        """Take it; waits for its holder. Raises AuditUnavailable."""

    def unlock(self) -> None:
        """Give back what `try_lock` or `acquire` took, from whichever thread."""

    def begin(self, connection: driver.Connection, *, patience: float = BUSY_SECONDS) -> None:
        """Begin a transaction that writes; `lock` MUST be held. Waits as many seconds. Raises driver.Error."""

    def count_of_others(self, connection: driver.Connection) -> int:
        """A number that changes when others may have written; to be asked after CATCH_UP, in its transaction."""

    def check_there(self) -> None:
        """Raise AuditUnavailable if the database is no longer where it was, so that nothing is written elsewhere."""

    def check_writable(self, connection: driver.Connection, *, flush: bool) -> None:
        """In an open transaction that writes: raise AuditUnavailable if the entries of a commit would not be taken.

        With `flush`, a file beside the database is written and flushed.
        """

    def check_same_file(self) -> None:
        """Raise IntegrityViolation if what is open is no longer what is found under its name."""

    def space_is_low(self) -> bool:
        """Whether so little space is left that it is kept for management and denials."""

    def space_is_scarce(self) -> bool:
        """Whether there is so little space that it will soon be low."""

    def has_reserve(self) -> bool:
        """Whether space is put aside at present."""

    def make_reserve(self) -> None:
        """Put space aside for the day when there is none."""

    def release_reserve(self) -> bool:
        """Give the space that was put aside to the database; false if there was none."""

    def give_space_back(self) -> None:
        """Free the space that deleted entries have left. Raises driver.Error."""

    def forget_overwritten(self) -> bool:
        """Remove what was overwritten from where this process can; false if it has to be tried again."""

    # The schema

    def tables(self, connection: driver.Connection) -> frozenset[str]:
        """The names of whatever could be a table."""

    def upgrade(self, connection: driver.Connection) -> None:
        """Bring the schema to the newest revision, in one transaction."""

    def drop_tables(self, connection: driver.Connection) -> None:
        """Remove the tables of this version, in the transaction under way: only for a vault that has not begun."""

    def check_kinds(self, connection: driver.Connection) -> list[Finding]:
        """What makes reading run something, a finding each. To be asked before anything else is read."""

    def check_schema(self, connection: driver.Connection) -> list[Finding]:
        """What differs from the expected schema, a finding each."""

    def check_pages(self, connection: driver.Connection) -> list[Finding]:
        """What is wrong with the storage itself, as far as the database can tell."""

    # Among processes

    def beginning(self) -> AbstractContextManager[None]:
        """Hold the right to begin a vault in an empty database; `lock` is free meanwhile."""

    def is_leader(self) -> bool:
        """Whether this process is the one that does the timed work: the first that asks, until it ends."""

    def is_leadership_blocked(self) -> bool:
        """Whether the leader's lock is held by a role that has no right to do its work."""

    def resign_leadership(self) -> None:
        """Let another process do it."""

    def close(self) -> None:
        """Let go of everything but connections, which are their users' to close."""
