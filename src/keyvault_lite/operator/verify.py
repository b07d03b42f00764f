"""`kvl verify`: everything that can be checked of a vault, offline or beside a running server."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from keyvault_lite.anchors import AnyAnchor, file_anchor, shared_anchor
from keyvault_lite.app import Unlock, database_of, unlocking
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.root import WrongMasterKey
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.dialects.changed_meaning import ChangedMeaning
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.verify.inspection import Progress
from keyvault_lite.ledger.verify.offline_check import CheckInputs, Identity, check, verification_of
from keyvault_lite.model.errors import NotFound
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.replies import Finding, Verification
from keyvault_lite.settings import Settings, is_shared


def verify_vault(
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
    somebody has kept, `archive` the folder with what was archived. Raises one of CANNOT_START if nothing can be
    verified.
    """
    database = database_of(chosen)
    unlock = None if public else unlocking(chosen)
    if not database.is_there():
        raise NotFound(f"there is no database {database.place}")

    def anchor(identity: Identity | None) -> AnyAnchor | None:
        if not is_shared(chosen.anchor):
            keyring = identity if isinstance(identity, Keyring) else None
            return file_anchor(chosen, database, keyring=keyring, to_write=False)
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
    opening = None if unlock is None else partial(unlock_keyring, unlock)
    means = CheckInputs(
        anchor,
        verify_ed25519,
        unlock=opening,
        key=key,
        against=against,
        progress=progress,
        archive=archive,
        reviewer=ChangedMeaning(),
    )
    with ExitStack() as opened:
        return check(database, means)


def unlock_keyring(unlock: Unlock, slots: Sequence[Slot]) -> Keyring | None:
    """The keyring, None if the root answers and opens none of these slots."""
    try:
        return unlock(slots).keyring
    except WrongMasterKey:
        return None
