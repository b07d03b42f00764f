"""Moving a vault into another database: every row as it is, in one transaction, checked whole before it is committed.

Nothing is made anew: MACs, hashes and signatures name the vault and not its database, so the copy verifies or it is not
committed. The source is only read, under its writers' lock, so that nobody writes behind the copy.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import sqlalchemy as sa

from keyvault_lite.ledger import driver, statements
from keyvault_lite.ledger.anchor import Anchor
from keyvault_lite.ledger.inspection import Inspection, Progress, inspect
from keyvault_lite.ledger.opening import prepare, stored_slots
from keyvault_lite.ledger.outcome import Authority
from keyvault_lite.ledger.reader import entries_after
from keyvault_lite.ledger.schema import Row
from keyvault_lite.ledger.start import DamagedVault, read_mark
from keyvault_lite.ledger.store import Database
from keyvault_lite.ledger.tables import audit_index, audit_logs, ledger_head, metadata
from keyvault_lite.model.errors import AuditUnavailable, Conflict, IntegrityViolation, NotFound, OutcomeUnknown
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.replies import Finding

CHUNK: Final = 2000


@dataclass(frozen=True, slots=True)
class Copied:
    """What stands in both databases now."""

    entries: int
    root: bytes


@contextmanager
def standing_still(source: Database) -> Iterator[driver.Connection]:
    """A reader of a vault that nobody writes meanwhile. Raises Conflict if a server is running on it."""
    if not source.leads():
        raise Conflict(f"a server is running on {source.place}: stop it first")
    try:
        with source.lock(), closing(source.writer()) as holding, closing(source.reader()) as reader:
            source.begin(holding)
            yield reader
    except driver.Damaged as error:
        raise AuditUnavailable(f"the database {source.place} cannot be read: it is locked or damaged") from error
    finally:
        source.stop_leading()


def copy(
    source: Database,
    target: Database,
    *,
    unlock: Callable[[Sequence[Slot]], Authority],
    anchor: Callable[[Authority], Anchor | None],
    finish: Callable[[Copied], None],
    progress: Progress | None = None,
) -> Copied:
    """Copy a whole vault into an empty database; `finish` is called once it is committed, the source still at rest.

    Raises DamagedVault for a source that does not verify, Conflict for a target that is not empty, and leaves nothing
    in it unless it succeeds; OutcomeUnknown if that cannot be told.
    """
    with standing_still(source) as reader, target.beginning():
        slots = stored_slots(source, reader)
        if not slots:
            raise NotFound(f"there is no vault in {source.place}")
        authority = unlock(slots)
        seen = _verified(source, reader, authority, anchor(authority))
        if target.exists():
            raise Conflict(f"the database {target.place} is not empty")
        try:
            prepare(target)
            with target.lock(), closing(target.writer()) as writer, _written(target, writer):
                _fill(reader, target, writer, seen.entries, progress)
                _check_copy(target, writer, authority, seen)
        except OutcomeUnknown:
            raise
        except BaseException:
            _clear(target)
            raise
        copied = Copied(seen.entries, seen.root)
        finish(copied)
        return copied


def _verified(source: Database, reader: driver.Connection, authority: Authority, anchor: Anchor | None) -> Inspection:
    findings: list[Finding] = []
    mark = read_mark(anchor, findings)
    seen = inspect(reader, authority, source, anchor=None if findings else anchor, mark=mark, log_from=0, pages=True)
    findings += seen.findings
    if findings:
        raise DamagedVault(findings)
    return seen


@contextmanager
def _written(target: Database, writer: driver.Connection) -> Iterator[None]:
    """One transaction of the target: committed at the end, or as if it had never been once the writer is closed."""
    target.begin(writer)
    try:
        yield
    except driver.Damaged as error:
        raise AuditUnavailable(f"the database {target.place} did not take the copy: {error}") from error
    try:
        writer.execute("COMMIT")
    except driver.Error as error:
        raise OutcomeUnknown(
            f"whether {target.place} has the vault now is not known: ask `kvl verify`, with its URL"
        ) from error


def _fill(
    reader: driver.Connection, target: Database, writer: driver.Connection, total: int, progress: Progress | None
) -> None:
    for table in metadata.sorted_tables:
        if table not in {audit_index, audit_logs, ledger_head}:
            _copy_rows(table, reader, writer)
    done = 0
    for chunk in entries_after(reader, 0, CHUNK):
        if target.append(writer, chunk).rowcount != len(chunk):
            raise IntegrityViolation("the target did not take every entry")
        done += len(chunk)
        if progress is not None:
            progress(done, total)
    _copy_rows(ledger_head, reader, writer)  # behind the entries, as always


def _check_copy(target: Database, writer: driver.Connection, authority: Authority, seen: Inspection) -> None:
    """Raise unless what stands in the open transaction verifies whole, and is what was read."""
    copied = inspect(_Within(writer), authority, target, log_from=0)
    if copied.findings:
        raise DamagedVault(copied.findings)
    if (copied.entries, copied.mac) != (seen.entries, seen.mac):
        raise IntegrityViolation("the copy is not the vault that was read")


def _copy_rows(table: sa.Table, reader: driver.Connection, writer: driver.Connection) -> None:
    names = tuple(column.name for column in table.columns)
    sql = f"SELECT {', '.join(names)} FROM {table.name}"  # noqa: S608
    rows: Iterator[Row] = iter(reader.execute(sql))
    while chunk := list(islice(rows, CHUNK)):
        writer.executemany(statements.insert(str(table.name), names), chunk)


def _clear(target: Database) -> None:
    """Take away the empty tables that were made for a copy which then failed."""
    with suppress(AuditUnavailable, driver.Error), closing(target.writer()) as writer, target.lock():
        target.begin(writer)
        if writer.execute(statements.LAST_ENTRY).fetchone() is None:
            target.drop_tables(writer)
            writer.execute("COMMIT")


class _Within:
    """A connection whose transaction goes on although a check would begin and end one of its own."""

    def __init__(self, real: driver.Connection) -> None:
        self._real = real

    @property
    def in_transaction(self) -> bool:
        """See driver.Connection."""
        return self._real.in_transaction

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> driver.Rows:
        """See driver.Connection."""
        if sql in {"BEGIN", "ROLLBACK"}:
            return self._real.execute("SELECT 1")
        return self._real.execute(sql, values)

    def executemany(self, sql: str, rows: Any, /) -> driver.Rows:  # noqa: ANN401
        """See driver.Connection."""
        return self._real.executemany(sql, rows)

    def close(self) -> None:
        """See driver.Connection: it is not ours to close."""
