"""`kvl migrate`: the vault moves into another database."""

from contextlib import ExitStack
from dataclasses import dataclass

from keyvault_lite.anchors import file_anchor, open_anchor
from keyvault_lite.app import database_of, unlocking
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.migrate.move import Anchors, move
from keyvault_lite.ledger.verify.inspection import Progress
from keyvault_lite.model.errors import Conflict, NotFound
from keyvault_lite.settings import Settings, is_shared


@dataclass(frozen=True, slots=True)
class MigrationResult:
    """Where the vault is after `kvl migrate`."""

    database: str
    anchor: str | None
    entries: int
    entry: int
    """The entry that records it, the first that only the new database has."""


def migrate_vault(chosen: Settings, url: str, *, progress: Progress | None = None) -> MigrationResult:
    """Move the vault into the empty database at `url`, whole and verified. The source's rows are not changed.

    The anchor goes along: a shared one and one that the settings name go on as they are, else the new database gets its
    own. The old anchor gets the entry that records the move, which only the copy has, before the copy can be opened:
    never are both served. A run that was cut off, whenever, is finished by the same call. Raises one of CANNOT_START.
    """
    unlock = unlocking(chosen)
    there = chosen.model_copy(update={"database_url": url})
    source, target = database_of(chosen), database_of(there)
    if (source.place, source.name) == (target.place, target.name):
        raise Conflict("source and target are the same database")
    if not source.is_there():
        raise NotFound(f"there is no database {source.place}")
    if not is_shared(chosen.anchor):
        for settings, database in ((chosen, source), (there, target)):
            file_anchor(
                settings, database
            )  # which raises for a folder that cannot be written, before anything is asked

    def anchors(keyring: Keyring) -> Anchors:
        old, new = open_anchor(chosen, source, keyring), None
        if isinstance(old, FileAnchor):
            new = file_anchor(there, target, keyring=keyring)
            if new is not None and new.path.resolve() == old.path.resolve():
                new = None
        for one in (old, new):
            if one is not None:
                opened.callback(one.close)
                places.append(one.place)
        return Anchors(old, new)

    places: list[str] = []
    with ExitStack() as opened:
        copied = move(source, target, unlock=lambda slots: unlock(slots).keyring, anchors=anchors, progress=progress)
    place = places[-1] if places else None
    return MigrationResult(target.place, place, copied.entries, copied.known.head.size)
