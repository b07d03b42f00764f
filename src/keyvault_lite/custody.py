"""What an operator does with a vault that need not be served: have it checked, and see to its anchor."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from keyvault_lite.app import (
    AnyAnchor,
    file_anchor,
    is_shared,
    master_key,
    open_anchor,
    open_vault,
    perform,
    shared_anchor,
)
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.root import WrongMasterKey
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.ledger.anchor import DamagedAnchor, FileAnchor, Mark, where_it_stands
from keyvault_lite.ledger.check import Identity, Means, check, verification_of
from keyvault_lite.ledger.inspection import Progress
from keyvault_lite.ledger.ledger import open_database, stored_slots
from keyvault_lite.ledger.trust import Accepted, Trusted, check_accepted, describe_loss, judge
from keyvault_lite.model.errors import Conflict, NotFound
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.replies import Finding, Verification
from keyvault_lite.model.requests import TrustAnchor
from keyvault_lite.settings import Settings
from keyvault_lite.witness.anchor import SharedAnchor


@dataclass(frozen=True, slots=True)
class AnchorView:
    """What `kvl anchor show` tells."""

    place: str
    stands: str
    mark: Mark | None


def show_anchor(chosen: Settings) -> AnchorView:
    """What the anchor remembers. Needs no master key for a file, writes nothing."""
    database = open_database(chosen.database_url, allow_plain=chosen.allow_plain_database)
    if is_shared(chosen.anchor):
        slots = database.read_offline(stored_slots) if database.exists() else ()
        keyring = Keyring.open(slots, master_key(chosen))
        with closing(shared_anchor(chosen, keyring.instance_id, keyring.log_public_key)) as anchor:
            mark = anchor.read()
        return AnchorView(str(chosen.anchor), where_it_stands(anchor, database.folder), mark)
    file = file_anchor(chosen, database)
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


def verify(
    chosen: Settings,
    *,
    public: bool = False,
    key: str | None = None,
    against: str | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check the whole vault offline, beside a running server too. Writes nothing, and takes no lock.

    `public` needs no master key, but the log's verifier key: the anchor's, or `key`. `against` is a checkpoint that
    somebody has kept. Raises one of CANNOT_START if nothing can be judged.
    """
    database = open_database(chosen.database_url, allow_plain=chosen.allow_plain_database)
    master = None if public else master_key(chosen)
    if not database.is_there():
        raise NotFound(f"there is no database {database.place}")

    def anchor(identity: Identity | None) -> AnyAnchor | None:
        if not is_shared(chosen.anchor):
            return file_anchor(chosen, database)
        if identity is None:
            return None
        made = shared_anchor(chosen, identity.instance_id, identity.log_public_key)
        opened.callback(made.close)
        return made

    def unlock(slots: Sequence[Slot]) -> Keyring | None:
        try:
            return None if master is None else Keyring.open(slots, master)
        except WrongMasterKey:
            return None

    if not database.exists():
        remembered = anchor(None)
        if isinstance(remembered, FileAnchor) and remembered.exists():
            return verification_of([Finding("database", database.name, f"is empty; {remembered.place} is not")])
        raise NotFound(f"the database {database.place} is empty; run `kvl init`")
    unlocking = None if public else unlock
    means = Means(anchor, verify_ed25519, unlock=unlocking, key=key, against=against, progress=progress)
    with ExitStack() as opened:
        return check(database, means)
