"""`kvl migrate`: the vault moves into another database."""

from contextlib import ExitStack
from dataclasses import dataclass

from keyvault_lite.app import database_of, file_anchor, shared_anchor, unlocking
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.migrate.move import Anchors, move
from keyvault_lite.ledger.state.outcome import Authority
from keyvault_lite.ledger.storage.database import Database
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
        copied = move(source, target, unlock=lambda slots: unlock(slots).keyring, anchors=anchors, progress=progress)
    place = chosen.anchor if is_shared(chosen.anchor) else None
    for one in (old, new):
        place = place if one is None else one.place
    return MigrationResult(target.place, place, copied.entries, copied.known.head.size)


def _own_anchor(chosen: Settings, database: Database) -> FileAnchor | None:
    return None if is_shared(chosen.anchor) else file_anchor(chosen, database)
