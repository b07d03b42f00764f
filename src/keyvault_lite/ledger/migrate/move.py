"""Moving a vault into another database: every row as it is, in one transaction, checked whole before it is committed.

Nothing is computed again: MACs, hashes and signatures name the vault and not its database, so the copy verifies or it
is not committed. The source is only read, under its writers' lock, so that nobody writes behind the copy.

At no moment may both be served, whenever a process is killed. So the copy has one entry more, which records the move,
and names no revision that anybody opens (MOVING) until the source's anchor knows that entry, which the source lacks:

    killed                              opens    the same command again
    before the schema's COMMIT          source   copies
    before the copy's COMMIT            source   copies: a schema without any row is as good as none
    after it                            source   goes on; copies again if the source was used since
    after the old anchor was told       neither  goes on
    after the new anchor was written    neither  goes on
    after the revision's COMMIT         target   says that the vault is there already

Of a vault without anchor nothing but the operator keeps the source from being served.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from keyvault_lite.audit.merkle import consistency_proof
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.anchor.interface import Anchor
from keyvault_lite.ledger.anchor.record import AnchorRecord
from keyvault_lite.ledger.commit.publisher import CheckpointPublisher
from keyvault_lite.ledger.log.tiles import tile_reader
from keyvault_lite.ledger.migrate.copy import (
    NAME_REVISION,
    ClosedVault,
    CopiedVault,
    OpenTransaction,
    copy,
    known_of,
    written,
)
from keyvault_lite.ledger.opening import refuse_strange, stored_slots
from keyvault_lite.ledger.state.outcome import Authority
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.database import Database
from keyvault_lite.ledger.storage.tables import metadata
from keyvault_lite.ledger.storage.upgrade import MOVING, REVISION, VERSION_TABLE, revision_of
from keyvault_lite.ledger.verify.inspection import Inspection, Progress, inspect
from keyvault_lite.ledger.verify.startup import read_mark
from keyvault_lite.model.errors import AuditUnavailable, Conflict, NotFound
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.replies import Finding

A = TypeVar("A", bound=Authority)
_HASH: Final = "SELECT hash FROM audit_logs WHERE id = ?"


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
    resting: ClosedVault
    authority: Authority
    anchor: Anchor | None
    mark: AnchorRecord | None
    damaged: Sequence[Finding]
    """What is wrong with the anchor itself."""


@contextmanager
def standing_still(source: Database) -> Iterator[ClosedVault]:
    """Let nobody write a vault meanwhile. Raises Conflict if a server is running on it."""
    if not source.is_leader():
        raise Conflict(f"a server is running on {source.place}: stop it first")
    try:
        with source.lock(), closing(source.writer()) as holding, closing(source.reader()) as reader:
            source.begin(holding)
            yield ClosedVault(reader, holding)
    except driver.Damaged as error:
        raise AuditUnavailable(f"the database {source.place} cannot be read: it is locked or damaged") from error
    finally:
        source.resign_leadership()


def move(
    source: Database,
    target: Database,
    *,
    unlock: Callable[[Sequence[Slot]], A],
    anchors: Callable[[A], Anchors],
    progress: Progress | None = None,
) -> CopiedVault:
    """Let the vault go on in the target, which is empty or holds what an earlier run has left.

    Raises DamagedVault for a source that does not verify, Conflict for a target or an anchor of it that holds something
    else. Nothing is left in the target then. OutcomeUnknown, and whatever an anchor raises, may come in between: the
    same again leads out.
    """
    with standing_still(source) as resting, target.beginning():
        slots = stored_slots(source, resting.reader)
        if not slots:
            raise NotFound(f"there is no vault in {source.place}")
        authority = unlock(slots)
        remembered = anchors(authority)
        half = _holds_copy(target, resting.reader, authority)
        _check_new_anchor(remembered.new, target if half else None)
        damaged: list[Finding] = []
        mark = read_mark(remembered.old, damaged)
        vault = _Source(source, resting, authority, remembered.old, mark, damaged)
        copied = _left_over(vault, target) if half else None
        if copied is None:
            seen = _verified(vault)
            if half:
                _discard(target)
            copied = copy(resting, target, authority, seen, came_from=source.place, progress=progress)
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
            if VERSION_TABLE in tables:
                refuse_strange(target, connection)
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


def _left_over(source: _Source, target: Database) -> CopiedVault | None:
    """The copy in the target, if it verifies whole and the source was not used since; nothing is changed."""
    try:
        with target.lock(), closing(target.writer()) as writer:  # closed without COMMIT
            target.begin(writer)
            if _ahead(writer, source.resting.reader) != 1 or source.damaged:
                return None
            writer.execute(NAME_REVISION, (REVISION,))
            seen = inspect(
                OpenTransaction(writer),
                source.authority,
                target,
                anchor=source.anchor,
                mark=source.mark,
                log_from=0,
                progress=source.resting.keep,
            )
            return None if seen.findings else CopiedVault(known_of(writer, seen), seen.entries - 1)
    except driver.Damaged as error:
        raise AuditUnavailable(f"the database {target.place} cannot be read: it is locked or damaged") from error


def _discard(target: Database) -> None:
    """Take away a copy that nobody can have opened, and that is not the vault: the source is, and verifies."""
    with target.lock(), closing(target.writer()) as writer, written(target, writer):
        target.drop_tables(writer)


def _verified(source: _Source) -> Inspection:
    anchor = None if source.damaged else source.anchor
    seen = inspect(
        source.resting.reader,
        source.authority,
        source.database,
        anchor=anchor,
        mark=source.mark,
        log_from=0,
        pages=True,
        progress=source.resting.keep,
    )
    if findings := [*source.damaged, *seen.findings]:
        raise DamagedVault(findings)
    return seen


# Handing over


def _hand_over(source: _Source, target: Database, known: LogTip, new: FileAnchor | None) -> None:
    """Let the target be the vault: tell the anchors of its newest entry, then name the revision that is opened."""
    with target.lock(), closing(target.writer()) as writer, written(target, writer):
        # In the transaction, before the source is closed: a target that cannot be written is found while the source
        # serves.
        writer.execute(NAME_REVISION, (REVISION,))
        node = tile_reader(writer, known).node
        publisher = CheckpointPublisher(source.authority, source.anchor)
        publisher.load(source.mark)
        source.resting.keep()
        signed = publisher.publish(known, lambda old: consistency_proof(node, old, known.head.size))
        if source.anchor is not None:
            source.anchor.flush()
        if new is not None:
            new.replace(publisher.mark(signed))
