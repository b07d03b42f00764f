"""Moving a vault into another database: every row as it is, in one transaction, checked whole before it is committed.

Nothing is made anew: MACs, hashes and signatures name the vault and not its database, so the copy verifies or it is not
committed. The source is only read, under its writers' lock, so that nobody writes behind the copy.

At no moment may both be served, whenever a process is killed. So the copy has one entry more, which records the move,
and names no revision that anybody opens (MOVING) until the source's anchor knows that entry, which the source lacks:

    killed                              opens    the same command again
    before the schema's COMMIT          source   copies
    before the copy's COMMIT            source   copies: a schema without any row is as good as none
    after it                            source   goes on; copies anew if the source was used since
    after the old anchor was told       neither  goes on
    after the new anchor was written    neither  goes on
    after the revision's COMMIT         target   says that the vault is there already

Of a vault without anchor nothing but the operator keeps the source from being served.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import sqlalchemy as sa

from keyvault_lite.audit.merkle import consistency_proof
from keyvault_lite.ledger import driver, statements
from keyvault_lite.ledger.anchor import Anchor, FileAnchor, Mark
from keyvault_lite.ledger.announcer import Announcer
from keyvault_lite.ledger.inspection import Inspection, Progress, inspect
from keyvault_lite.ledger.opening import prepare, stored_slots
from keyvault_lite.ledger.outcome import Authority, Change, Outcome
from keyvault_lite.ledger.pending import Item, Known, Pending
from keyvault_lite.ledger.reader import entries_after
from keyvault_lite.ledger.schema import Row
from keyvault_lite.ledger.start import DamagedVault, read_mark, resumed_tiles
from keyvault_lite.ledger.state import State
from keyvault_lite.ledger.store import Database
from keyvault_lite.ledger.tables import audit_index, audit_logs, ledger_head, metadata
from keyvault_lite.ledger.tiles import tile_reader
from keyvault_lite.ledger.upgrade import MOVING, REVISION, VERSION_TABLE, revision_of
from keyvault_lite.model.errors import AuditUnavailable, Conflict, IntegrityViolation, NotFound, OutcomeUnknown
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.names import SYSTEM
from keyvault_lite.model.replies import Finding

CHUNK: Final = 2000


_NAME_REVISION: Final = "UPDATE alembic_version SET version_num = ?"
_HASH: Final = "SELECT hash FROM audit_logs WHERE id = ?"


@dataclass(frozen=True, slots=True)
class Copied:
    """A whole vault in the target, with the entry that records the move, committed and not to be opened yet."""

    known: Known
    entries: int
    """That were copied; those that were archived are in none of the databases."""


@dataclass(frozen=True, slots=True)
class Anchors:
    """Where the head of the log is remembered."""

    old: Anchor | None
    """The source's."""
    new: FileAnchor | None
    """The target's, if it is another."""


@dataclass(frozen=True, slots=True)
class _Source:
    """The vault that moves, at rest, and what its anchor said before it was read."""

    database: Database
    reader: driver.Connection
    authority: Authority
    anchor: Anchor | None
    mark: Mark | None
    damaged: Sequence[Finding]
    """What is wrong with the anchor itself."""


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


def move(
    source: Database,
    target: Database,
    *,
    unlock: Callable[[Sequence[Slot]], Authority],
    anchors: Callable[[Authority], Anchors],
    progress: Progress | None = None,
) -> Copied:
    """Let the vault go on in the target, which is empty or holds what an earlier run has left.

    Raises DamagedVault for a source that does not verify, Conflict for a target or an anchor of it that holds something
    else. Nothing is left in the target then. OutcomeUnknown, and whatever an anchor raises, may come in between: the
    same again leads out.
    """
    with standing_still(source) as reader, target.beginning():
        slots = stored_slots(source, reader)
        if not slots:
            raise NotFound(f"there is no vault in {source.place}")
        authority = unlock(slots)
        remembered = anchors(authority)
        half = _holds_copy(target, reader, authority)
        _check_new_anchor(remembered.new, target if half else None)
        damaged: list[Finding] = []
        mark = read_mark(remembered.old, damaged)
        vault = _Source(source, reader, authority, remembered.old, mark, damaged)
        copied = _left_over(vault, target) if half else None
        if copied is None:
            seen = _verified(vault)
            if half:
                _discard(target)
            copied = _copy(vault, target, seen, progress)
        _hand_over(vault, target, copied.known, remembered.new)
        return copied


# What an earlier run has left


def _holds_copy(target: Database, source: driver.Connection, authority: Authority) -> bool:
    """Whether a copy of this vault that nobody can have opened is there. Raises Conflict for all else but emptiness."""
    if not target.exists():
        return False
    try:
        with closing(target.reader()) as connection:
            tables = target.tables(connection)
            if VERSION_TABLE in tables and (strange := target.check_kinds(connection)):
                raise DamagedVault(strange)
            revision = revision_of(connection, tables)
            if revision == MOVING and _is_of(authority, target, connection):
                return True
            if not tables or (revision == REVISION and not _has_rows(connection)):
                return False
            there = revision == REVISION and _ahead(connection, source) > 0
    except driver.Damaged:
        there = False
    if there:
        raise Conflict(f"the vault was moved already: let KEYVAULT_DATABASE_URL name {target.place}")
    raise Conflict(f"the database {target.place} is not empty")


def _is_of(authority: Authority, target: Database, connection: driver.Connection) -> bool:
    """Whether a copy says that it is of this vault: another's may be all that its anchor still confirms."""
    return {slot.instance_id for slot in stored_slots(target, connection)} == {authority.instance_id}


def _has_rows(connection: driver.Connection) -> bool:
    tables = (table.name for table in metadata.sorted_tables)
    return any(connection.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone() for name in tables)  # noqa: S608


def _ahead(target: driver.Connection, source: driver.Connection) -> int:
    """By how many entries the target's log extends the source's, unverified; 0 if it does not."""
    ours, theirs = (one.execute(statements.LAST_ENTRY).fetchone() for one in (source, target))
    if ours is None or theirs is None:
        return 0
    size, head = ours
    same = target.execute(_HASH, (size,)).fetchone() == (head,)
    return int(theirs[0]) - int(size) if same else 0


def _check_new_anchor(new: FileAnchor | None, half: Database | None) -> None:
    """Raise Conflict if the target's own anchor remembers anything but the copy that is there already."""
    if new is None or not new.exists():
        return
    if half is not None and (mark := new.peek()) is not None:
        with closing(half.reader()) as connection:
            if connection.execute(statements.LAST_ENTRY).fetchone() == (mark.size, mark.hash):
                return
    raise Conflict(f"the anchor {new.place} remembers a vault already: move it away")


def _left_over(source: _Source, target: Database) -> Copied | None:
    """The copy in the target, if it verifies whole and the source was not used since; nothing is changed."""
    try:
        with target.lock(), closing(target.writer()) as writer:  # closed without COMMIT
            target.begin(writer)
            if _ahead(writer, source.reader) != 1 or source.damaged:
                return None
            writer.execute(_NAME_REVISION, (REVISION,))
            seen = inspect(
                _Within(writer), source.authority, target, anchor=source.anchor, mark=source.mark, log_from=0
            )
            return None if seen.findings else Copied(_known(writer, seen), seen.entries - 1)
    except driver.Damaged as error:
        raise AuditUnavailable(f"the database {target.place} cannot be read: it is locked or damaged") from error


def _discard(target: Database) -> None:
    """Take away a copy that nobody can have opened, and that is not the vault: the source is, and verifies."""
    with target.lock(), closing(target.writer()) as writer, _written(target, writer):
        target.drop_tables(writer)


# The copy


def _verified(source: _Source) -> Inspection:
    anchor = None if source.damaged else source.anchor
    seen = inspect(
        source.reader, source.authority, source.database, anchor=anchor, mark=source.mark, log_from=0, pages=True
    )
    if findings := [*source.damaged, *seen.findings]:
        raise DamagedVault(findings)
    return seen


def _copy(source: _Source, target: Database, seen: Inspection, progress: Progress | None) -> Copied:
    """Copy it in one transaction, with the entry that records the move, under a revision that nobody opens."""
    try:
        prepare(target)
        with target.lock(), closing(target.writer()) as writer, _written(target, writer):
            _fill(source.reader, target, writer, seen.entries, progress)
            way = f"from {source.database.place} to {target.place}"
            known = _record(target, writer, source.authority, seen, way)
            _check_copy(target, writer, source.authority, seen.entries + 1, known)
            writer.execute(_NAME_REVISION, (MOVING,))
    except OutcomeUnknown:
        raise
    except BaseException:
        _clear(target)
        raise
    return Copied(known, seen.entries)


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
            f"whether {target.place} has the vault now is not known: run `kvl migrate` again"
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


def _record(target: Database, writer: driver.Connection, authority: Authority, seen: Inspection, way: str) -> Known:
    """Write the entry that records the move behind what was copied, which has to be what was read."""
    stored = inspect(_Within(writer), authority, target, load=True)
    if stored.findings:
        raise DamagedVault(stored.findings)
    if stored.mac != seen.mac:
        raise IntegrityViolation("the copy is not the vault that was read")
    known, state = _known(writer, stored), State(lambda *_: None)
    state.sequence = known.head.state_seq
    comment = f"moved at {known.head.size} entries {way}"
    draft = Draft(
        service_id=SYSTEM, action=Action.MIGRATE, result=Result.SUCCESS, request_id=os.urandom(16), comment=comment
    )
    outcome = Outcome((draft,), None, Change())
    pending = Pending(known, state, stored.tree, authority, lambda *_: None)
    pending.add(Item(outcome, state.moment, lambda _: outcome))
    pending.store(writer, target)
    return pending.after


def _known(connection: driver.Connection, seen: Inspection) -> Known:
    if seen.head is None:
        raise IntegrityViolation("the vault has no head")
    return Known(seen.head, seen.mac, resumed_tiles(connection, seen.head), seen.head.checkpoint)


def _check_copy(target: Database, writer: driver.Connection, authority: Authority, entries: int, known: Known) -> None:
    """Raise unless what stands in the open transaction verifies whole, and is what was written."""
    copied = inspect(_Within(writer), authority, target, log_from=0)
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


# Handing over


def _hand_over(source: _Source, target: Database, known: Known, new: FileAnchor | None) -> None:
    """Let the target be the vault: tell the anchors of its newest entry, then name the revision that is opened."""
    with target.lock(), closing(target.writer()) as writer, _written(target, writer):
        # In the transaction before anybody is told: a target that cannot be written is met while the source serves.
        writer.execute(_NAME_REVISION, (REVISION,))
        node = tile_reader(writer, known).node
        announcer = Announcer(source.authority, source.anchor)
        announcer.load(source.mark)
        signed = announcer.publish(known, lambda old: consistency_proof(node, old, known.head.size))
        if source.anchor is not None:
            source.anchor.flush()
        if new is not None:
            new.replace(announcer.mark(signed))


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
