"""`kvl backup` and `kvl backup verify`, for SQLite."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from keyvault_lite.app import Unlock, database_of, unlocking
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.ledger.migrate import backup
from keyvault_lite.ledger.opening import check_place
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.ledger.verify.inspection import Progress
from keyvault_lite.ledger.verify.offline_check import CheckInputs, check, identity_of, verification_of
from keyvault_lite.ledger.verify.trust import describe_loss
from keyvault_lite.model.errors import Conflict, NotFound
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.replies import Finding, Verification
from keyvault_lite.operator.anchor import show_anchor
from keyvault_lite.operator.verify import unlock_keyring
from keyvault_lite.settings import Settings


def back_up_vault(
    chosen: Settings, target: Path, *, public: bool = False, progress: Progress | None = None
) -> Verification:
    """Copy the vault, beside running servers, into the new file `target`, if the copy verifies and extends the anchor.

    Only the result of a check that found nothing says that there is a file. `public` is as for `verify`. The anchor is
    not copied: what it remembers is what refuses a backup that is put back later. Raises one of CANNOT_START.
    """
    source = _file_of(chosen)
    if not source.exists():
        raise NotFound(f"there is no vault in {source.place}")
    unlock = None if public else unlocking(chosen)
    backup.check_new(target.absolute())
    # Before the copy: whatever the anchor says is in what is read after it.
    known = show_anchor(chosen)
    remembered = None if known.stands == "off" else backup.RememberedAnchor(known.place, known.mark)
    opening = None if unlock is None else partial(unlock_keyring, unlock)
    means = CheckInputs(lambda _: remembered, verify_ed25519, unlock=opening, progress=progress)
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

    Raises one of CANNOT_START if it cannot be verified.
    """
    copy = SqliteDatabase(file.absolute())
    check_place(copy)
    if not copy.exists():
        raise NotFound(f"there is no backup {file}, or it is empty")
    backup.check_alone(copy.path)
    known = show_anchor(chosen)
    mark = known.mark
    opened: list[Keyring] = []

    def noted(unlock: Unlock, slots: Sequence[Slot]) -> Keyring | None:
        keyring = unlock_keyring(unlock, slots)
        opened.extend([] if keyring is None else [keyring])
        return keyring

    opening = None if public else partial(noted, unlocking(chosen))
    key = key or (mark.verifier_key if public and mark is not None else None)
    means = CheckInputs(lambda _: None, verify_ed25519, unlock=opening, key=key, archive=archive, progress=progress)
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
    database = database_of(chosen)
    if not isinstance(database, SqliteDatabase):
        raise Conflict("`kvl backup` copies an SQLite database: for PostgreSQL use pg_dump (docs/postgresql.md)")
    check_place(database)
    return database
