"""What an operator does with a vault that need not be served: have it checked, and see to its anchor."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from keyvault_lite.app import (
    AnyAnchor,
    Vault,
    file_anchor,
    master_key,
    open_anchor,
    open_vault,
    perform,
    shared_anchor,
)
from keyvault_lite.audit.entry import row_entry
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.root import MasterKey, WrongMasterKey
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.ledger.anchor.files import FileAnchor, where_it_stands
from keyvault_lite.ledger.anchor.record import DamagedAnchor, Mark, NotAnAnchor
from keyvault_lite.ledger.archive.archiver import SEGMENT
from keyvault_lite.ledger.archive.segment_files import Shelf
from keyvault_lite.ledger.migrate import backup
from keyvault_lite.ledger.migrate.move import Anchors, move
from keyvault_lite.ledger.opening import check_place, open_database, stored_slots
from keyvault_lite.ledger.state.outcome import Authority
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.database import Database
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.ledger.verify.inspection import Progress
from keyvault_lite.ledger.verify.offline_check import Identity, Means, check, identity_of, verification_of
from keyvault_lite.ledger.verify.trust import Accepted, Trusted, check_accepted, describe_loss, judge
from keyvault_lite.model.archive import Segment
from keyvault_lite.model.errors import Conflict, NotFound
from keyvault_lite.model.evidence import Entry
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.replies import Finding, Verification
from keyvault_lite.model.requests import ArchiveEntries, TrustAnchor
from keyvault_lite.settings import Settings, is_shared
from keyvault_lite.witness.anchor import SharedAnchor


@dataclass(frozen=True, slots=True)
class Moved:
    """Where the vault is after `kvl migrate`."""

    database: str
    anchor: str | None
    entries: int
    entry: int
    """The entry that records it, the first that only the new database has."""


@dataclass(frozen=True, slots=True)
class AnchorView:
    """What `kvl anchor show` tells."""

    place: str
    stands: str
    mark: Mark | None


def show_anchor(chosen: Settings) -> AnchorView:
    """What the anchor remembers. Needs no master key for a file, writes nothing."""
    database = _database(chosen)
    if is_shared(chosen.anchor):
        slots = database.read_offline(partial(stored_slots, database)) if database.exists() else ()
        keyring = Keyring.open(slots, master_key(chosen))
        with closing(shared_anchor(chosen, keyring.instance_id, keyring.log_public_key)) as anchor:
            mark = anchor.read()
        return AnchorView(str(chosen.anchor), where_it_stands(anchor, database.folder), mark)
    file = file_anchor(chosen, database, to_write=False)
    if file is None:
        return AnchorView("off", "off", None)
    return AnchorView(file.place, where_it_stands(file, database.folder), file.peek())


def trust_anchor(chosen: Settings, accepted: Accepted | None = None) -> Trusted:
    """Go on with a database that its anchor does not confirm: none is there, or the operator names the head."""
    found = verify(chosen)
    # Nothing but the anchor is left out when the vault is opened.
    vault = open_vault(chosen, anchored=False)
    with closing(vault), ExitStack() as opened:
        anchor = open_anchor(chosen, vault.database, vault.keyring)
        if anchor is None:
            raise Conflict("KEYVAULT_ANCHOR is off: there is no anchor to trust")
        opened.callback(anchor.close)
        try:
            mark = anchor.read()
        except NotAnAnchor:
            raise  # the database itself, a key, anything: nothing is put in its place
        except DamagedAnchor:
            mark = None
        judge(found.findings, mark, accepted)
        before = vault.ledger.mark()
        if accepted is not None:
            check_accepted(accepted, before.size, before.root)
        lost = None if mark is None else describe_loss(mark, before.size)
        if isinstance(anchor, SharedAnchor):
            anchor.check_trusted(before.epoch if lost is None else before.epoch + 1)
        # The entry first: an anchor that was replaced without one would be a rollback that nobody has on record.
        asyncio.run(perform(vault, TrustAnchor(before.size, lost)))
        kept = anchor.keep_aside() if isinstance(anchor, FileAnchor) else None
        after = vault.ledger.mark()
        anchor.replace(after)
        place = None if kept is None else str(kept)
        return Trusted(before.size, before.root, after.epoch, after.size, lost, place)


@dataclass(frozen=True, slots=True)
class Archiving:
    """What an archiving did."""

    segments: tuple[Segment, ...]
    """The new files, oldest entries first."""
    archived: int
    """Up to which entry the log is archived now."""


def archive(
    chosen: Settings,
    folder: Path,
    *,
    before: int | None = None,
    keep: int = 0,
    vacuum: bool = False,
    progress: Progress | None = None,
) -> Archiving:
    """Put the oldest entries into files, and then out of the database, segment by segment, each on record.

    Those from before `before` (microseconds), and never the last `keep`. Works beside servers. Whenever it ends, every
    entry is in the database or in a file that was checked; to go on, call it again. Raises one of CANNOT_START.
    """
    vault = open_vault(chosen)
    with closing(vault):
        folder.mkdir(mode=0o700, exist_ok=True)
        archived, until = vault.ledger.archivable(before=before, keep=keep)
        segments = asyncio.run(_archive(vault, folder.resolve(), archived, until, progress))
        if vacuum:
            vault.ledger.give_space_back()
        return Archiving(segments, until)


async def _archive(
    vault: Vault, folder: Path, archived: int, until: int, progress: Progress | None
) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    first = archived
    while archived < until:
        archived = min(archived + SEGMENT, until)
        # The file first: what is deleted is in it, flushed and checked.
        segment = vault.ledger.make_segment(folder, verify_ed25519, last=archived)
        await perform(vault, ArchiveEntries(segment))
        segments.append(segment)
        if progress is not None:
            progress(archived - first, until - first)
    return tuple(segments)


def read_archive(
    chosen: Settings,
    folder: Path,
    *,
    key: str | None = None,
    first: int = 1,
    last: int | None = None,
    note: Callable[[str], None],
) -> Iterator[Entry]:
    """The entries in files of archived segments, which prove themselves with the log's verifier key.

    Needs neither database nor master key. The key is `key`, or the one that the anchor remembers. See Shelf.read.
    """
    if key is None:
        mark = show_anchor(chosen).mark
        if mark is None:
            raise NotFound("there is no anchor that knows the log's verifier key: name it (--key)")
        key = mark.verifier_key
    for row in Shelf(folder, identity_of(key), verify_ed25519).read(first=first, last=last, note=note):
        yield row_entry(row)


def verify(
    chosen: Settings,
    *,
    public: bool = False,
    key: str | None = None,
    against: str | None = None,
    archive: Path | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check the whole vault offline, beside a running server too. Writes nothing, and takes no lock.

    `public` needs no master key, but the log's verifier key: the anchor's, or `key`. `against` is a checkpoint that
    somebody has kept, `archive` the folder with what was archived. Raises one of CANNOT_START if nothing can be judged.
    """
    database = _database(chosen)
    master = None if public else master_key(chosen)
    if not database.is_there():
        raise NotFound(f"there is no database {database.place}")

    def anchor(identity: Identity | None) -> AnyAnchor | None:
        if not is_shared(chosen.anchor):
            return file_anchor(chosen, database, to_write=False)
        if identity is None:
            return None
        made = shared_anchor(chosen, identity.instance_id, identity.log_public_key)
        opened.callback(made.close)
        return made

    if not database.exists():
        remembered = anchor(None)
        if isinstance(remembered, FileAnchor) and remembered.exists():
            return verification_of([Finding("database", database.name, f"is empty; {remembered.place} is not")])
        raise NotFound(f"the database {database.place} is empty; run `kvl init`")
    unlocking = None if master is None else partial(_unlock, master)
    means = Means(
        anchor, verify_ed25519, unlock=unlocking, key=key, against=against, progress=progress, archive=archive
    )
    with ExitStack() as opened:
        return check(database, means)


def back_up(chosen: Settings, target: Path, *, public: bool = False, progress: Progress | None = None) -> Verification:
    """Copy the vault, beside running servers, into the new file `target`, if the copy verifies and extends the anchor.

    Only the result of a check that found nothing says that there is a file. `public` is as for `verify`. The anchor is
    not copied: what it remembers is what refuses a backup that is put back later. Raises one of CANNOT_START.
    """
    source = _file_of(chosen)
    if not source.exists():
        raise NotFound(f"there is no vault in {source.place}")
    master = None if public else master_key(chosen)
    backup.check_new(target.absolute())
    # Before the copy: whatever the anchor says is in what is read after it.
    known = show_anchor(chosen)
    remembered = None if known.stands == "off" else backup.Recalled(known.place, known.mark)
    unlocking = None if master is None else partial(_unlock, master)
    means = Means(lambda _: remembered, verify_ed25519, unlock=unlocking, progress=progress)
    try:
        with backup.copied(source, target.absolute()) as draft:
            found = check(draft.database, means)
            if found.valid:
                draft.publish()
    except DamagedVault as error:
        return verification_of(error.findings)
    return found


def verify_backup(
    chosen: Settings,
    file: Path,
    *,
    public: bool = False,
    key: str | None = None,
    archive: Path | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check a backup offline, and note what its restore would lose that the anchor remembers, if there is one.

    Raises one of CANNOT_START if it cannot be judged.
    """
    copy = SqliteDatabase(file.absolute())
    check_place(copy)
    if not copy.exists():
        raise NotFound(f"there is no backup {file}, or it is empty")
    backup.check_alone(copy.path)
    known = show_anchor(chosen)
    mark = known.mark
    opened: list[Keyring] = []

    def unlock(master: MasterKey, slots: Sequence[Slot]) -> Keyring | None:
        keyring = _unlock(master, slots)
        opened.extend([] if keyring is None else [keyring])
        return keyring

    unlocking = None if public else partial(unlock, master_key(chosen))
    key = key or (mark.verifier_key if public and mark is not None else None)
    means = Means(lambda _: None, verify_ed25519, unlock=unlocking, key=key, archive=archive, progress=progress)
    found = check(copy, means)
    if mark is None:
        return replace(found, notes=(*found.notes, "there is no anchor to compare the backup with"))
    log = identity_of(mark.verifier_key)
    ours = [(one.instance_id, one.log_public_key) for one in opened]
    if ours and ours != [(log.instance_id, log.log_public_key)]:
        return verification_of([Finding("database", file.name, f"is of another vault than the anchor {known.place}")])
    size = found.entries + found.archived
    if found.valid and mark.size > size:
        lost = f"older than the anchor: a restore would lose {describe_loss(mark, size)}"
        return replace(found, notes=(*found.notes, lost))
    return found


def _file_of(chosen: Settings) -> SqliteDatabase:
    database = _database(chosen)
    if not isinstance(database, SqliteDatabase):
        raise Conflict("`kvl backup` copies an SQLite database: for PostgreSQL use pg_dump (docs/postgresql.md)")
    check_place(database)
    return database


def _unlock(master: MasterKey, slots: Sequence[Slot]) -> Keyring | None:
    try:
        return Keyring.open(slots, master)
    except WrongMasterKey:
        return None


def migrate(chosen: Settings, url: str, *, progress: Progress | None = None) -> Moved:
    """Move the vault into the empty database at `url`, whole and verified. The source's rows are not changed.

    The anchor goes along: a shared one and one that the settings name go on as they are, else the new database gets its
    own. The old one is told of the entry that records the move, which only the copy has, before the copy can be opened:
    never are both served. A run that was cut off, whenever, is finished by the same call. Raises one of CANNOT_START.
    """
    master = master_key(chosen)
    there = chosen.model_copy(update={"database_url": url})
    source, target = _database(chosen), _database(there)
    if (source.place, source.name) == (target.place, target.name):
        raise Conflict("source and target are the same database")
    if not source.is_there():
        raise NotFound(f"there is no database {source.place}")
    old, new = _own_anchor(chosen, source), _own_anchor(there, target)
    if new is not None and old is not None and new.path.resolve() == old.path.resolve():
        new = None

    def anchors(authority: Authority) -> Anchors:
        if not is_shared(chosen.anchor):
            return Anchors(old, new)
        made = shared_anchor(chosen, authority.instance_id, authority.log_public_key)
        opened.callback(made.close)
        return Anchors(made, None)

    with ExitStack() as opened:
        for one in (old, new):
            if one is not None:
                opened.callback(one.close)
        copied = move(
            source, target, unlock=lambda slots: Keyring.open(slots, master), anchors=anchors, progress=progress
        )
    place = chosen.anchor if is_shared(chosen.anchor) else None
    for one in (old, new):
        place = place if one is None else one.place
    return Moved(target.place, place, copied.entries, copied.known.head.size)


def _database(chosen: Settings) -> Database:
    return open_database(chosen.database_url, allow_plain=chosen.allow_plain_database)


def _own_anchor(chosen: Settings, database: Database) -> FileAnchor | None:
    return None if is_shared(chosen.anchor) else file_anchor(chosen, database)
