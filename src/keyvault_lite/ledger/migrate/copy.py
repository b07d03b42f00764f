"""A copy of a vault, written in one transaction with the entry that records the move, and checked whole before COMMIT.

It names a revision that nobody opens: see moving.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import sqlalchemy as sa

from keyvault_lite.ledger.commit.write_set import CommitRequest, WriteSet
from keyvault_lite.ledger.log.query import entries_after
from keyvault_lite.ledger.opening import prepare
from keyvault_lite.ledger.state.outcome import Authority, Change, Outcome
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.database import Database
from keyvault_lite.ledger.storage.schema import Row
from keyvault_lite.ledger.storage.tables import audit_index, audit_logs, ledger_head, metadata
from keyvault_lite.ledger.storage.upgrade import MOVING
from keyvault_lite.ledger.verify.inspection import Inspection, Progress, inspect
from keyvault_lite.ledger.verify.startup import resumed_tiles
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, OutcomeUnknown
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.names import SYSTEM

CHUNK: Final = 2000
NAME_REVISION: Final = "UPDATE alembic_version SET version_num = ?"


@dataclass(frozen=True, slots=True)
class CopiedVault:
    """A whole vault in the target, with the entry that records the move, committed and not to be opened yet."""

    known: LogTip
    entries: int
    """That were copied; those that were archived are in none of the databases."""


@dataclass(frozen=True, slots=True)
class ClosedVault:
    """A vault that nobody writes."""

    reader: driver.Connection
    _holding: driver.Connection

    def keep(self, *_: int) -> None:
        """To be called now and then, and before the end: a server ends a session that stands still, and its lock.

        Raises AuditUnavailable if somebody may have written since.
        """
        try:
            self._holding.execute("SELECT 1")
        except (driver.Error, AuditUnavailable) as error:
            raise AuditUnavailable("the source's lock was lost, and nothing was handed over: start again") from error


def copy(
    source: ClosedVault,
    target: Database,
    authority: Authority,
    seen: Inspection,
    *,
    came_from: str,
    progress: Progress | None,
) -> CopiedVault:
    """Copy it in one transaction, with the entry that records the move, under a revision that nobody opens."""
    try:
        prepare(target)
        with target.lock(), closing(target.writer()) as writer, written(target, writer):
            _fill(source, target, writer, seen.entries, progress)
            known = _record(target, writer, authority, seen, f"from {came_from} to {target.place}")
            _check_copy(target, writer, authority, seen.entries + 1, known, progress=source.keep)
            writer.execute(NAME_REVISION, (MOVING,))
    except OutcomeUnknown:
        raise
    except BaseException:
        _clear(target)
        raise
    return CopiedVault(known, seen.entries)


@contextmanager
def written(target: Database, writer: driver.Connection) -> Iterator[None]:
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
            f"whether {target.place} has the vault now is not known: run `kvl migrate` again"
        ) from error


def _fill(
    source: ClosedVault, target: Database, writer: driver.Connection, total: int, progress: Progress | None
) -> None:
    for table in metadata.sorted_tables:
        if table not in {audit_index, audit_logs, ledger_head}:
            _copy_rows(table, source.reader, writer)
    done = 0
    for chunk in entries_after(source.reader, 0, CHUNK):
        if target.append(writer, chunk).rowcount != len(chunk):
            raise IntegrityViolation("the target did not take every entry")
        done += len(chunk)
        source.keep()
        if progress is not None:
            progress(done, total)
    _copy_rows(ledger_head, source.reader, writer)  # behind the entries, as always


def _record(target: Database, writer: driver.Connection, authority: Authority, seen: Inspection, way: str) -> LogTip:
    """Write the entry that records the move behind what was copied, which has to be what was read."""
    stored = inspect(OpenTransaction(writer), authority, target, load=True)
    if stored.findings:
        raise DamagedVault(stored.findings)
    if stored.mac != seen.mac:
        raise IntegrityViolation("the copy is not the vault that was read")
    known, state = known_of(writer, stored), State(lambda *_: None)
    state.sequence = known.head.state_seq
    comment = f"moved at {known.head.size} entries {way}"
    draft = Draft(
        service_id=SYSTEM, action=Action.MIGRATE, result=Result.SUCCESS, request_id=os.urandom(16), comment=comment
    )
    outcome = Outcome((draft,), None, Change())
    write_set = WriteSet(known, state, stored.tree, authority, lambda *_: None)
    write_set.add(CommitRequest(outcome, state.snapshot_version, lambda _: outcome))
    write_set.store(writer, target)
    return write_set.after


def known_of(connection: driver.Connection, seen: Inspection) -> LogTip:
    """The log that was inspected without a finding, to go on from."""
    if seen.head is None:
        raise IntegrityViolation("the vault has no head")
    return LogTip(seen.head, seen.mac, resumed_tiles(connection, seen.head), seen.head.checkpoint)


def _check_copy(
    target: Database,
    writer: driver.Connection,
    authority: Authority,
    entries: int,
    known: LogTip,
    *,
    progress: Progress | None = None,
) -> None:
    """Raise unless what is in the open transaction verifies whole, and is what was written."""
    copied = inspect(OpenTransaction(writer), authority, target, log_from=0, progress=progress)
    if copied.findings:
        raise DamagedVault(copied.findings)
    if (copied.entries, copied.mac) != (entries, known.mac):
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


class OpenTransaction:
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
