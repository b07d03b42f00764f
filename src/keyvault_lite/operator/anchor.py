"""`kvl anchor`: what the anchor remembers, and trust in a database that it does not confirm."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial

from keyvault_lite.anchors import AnyAnchor, file_anchor, open_anchor, shared_anchor
from keyvault_lite.app import database_of, open_vault, perform, unlocking
from keyvault_lite.ledger.anchor.counter import PUT_BACK, describe_lost_counts
from keyvault_lite.ledger.anchor.files import FileAnchor, where_it_stands
from keyvault_lite.ledger.anchor.record import AnchorRecord, DamagedAnchor, NotAnAnchor
from keyvault_lite.ledger.opening import stored_slots
from keyvault_lite.ledger.verify.startup import COUNTER
from keyvault_lite.ledger.verify.trust import (
    AcceptedHead,
    TrustResult,
    check_accepted,
    describe_loss,
    require_acceptable,
)
from keyvault_lite.model.errors import Conflict
from keyvault_lite.model.replies import Finding
from keyvault_lite.model.requests import TrustAnchor
from keyvault_lite.operator.verify import verify_vault
from keyvault_lite.settings import Settings, is_shared
from keyvault_lite.witness.anchor import SharedAnchor


@dataclass(frozen=True, slots=True)
class AnchorView:
    """What `kvl anchor show` tells."""

    place: str
    stands: str
    mark: AnchorRecord | None


def show_anchor(chosen: Settings) -> AnchorView:
    """What the anchor remembers. Needs no master key for a file, writes nothing."""
    database = database_of(chosen)
    if is_shared(chosen.anchor):
        slots = database.read_offline(partial(stored_slots, database)) if database.exists() else ()
        keyring = unlocking(chosen)(slots).keyring
        with closing(shared_anchor(chosen, keyring.instance_id, keyring.log_public_key)) as anchor:
            mark = anchor.read()
        return AnchorView(str(chosen.anchor), where_it_stands(anchor, database.folder), mark)
    file = file_anchor(chosen, database, to_write=False)
    if file is None:
        return AnchorView("off", "off", None)
    return AnchorView(file.place, where_it_stands(file, database.folder), file.peek())


def trust_anchor(chosen: Settings, accepted: AcceptedHead | None = None) -> TrustResult:
    """Go on with a database that its anchor does not confirm: none is there, or the operator names the head."""
    found = verify_vault(chosen)
    # Nothing but the anchor is left out when the vault is opened.
    with closing(open_vault(chosen, anchored=False)) as vault, ExitStack() as opened:
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
        require_acceptable(found.findings, mark, accepted)
        before = vault.ledger.mark()
        if accepted is not None:
            check_accepted(accepted, before.size, before.root)
        lost = _lost(anchor, mark, found.findings, before.size)
        if isinstance(anchor, SharedAnchor):
            anchor.check_trusted(before.epoch if lost is None else before.epoch + 1)
        # The entry first: an anchor that was replaced without one would be a rollback that nobody has on record.
        asyncio.run(perform(vault, TrustAnchor(before.size, lost)))
        kept = anchor.keep_aside() if isinstance(anchor, FileAnchor) else None
        counter = anchor.counter if isinstance(anchor, FileAnchor) else None
        after = vault.ledger.mark(None if counter is None else counter.value_for_trusted())
        anchor.replace(after)
        place = None if kept is None else str(kept)
        return TrustResult(before.size, before.root, after.epoch, after.size, lost, place)


def _lost(anchor: AnyAnchor, mark: AnchorRecord | None, findings: Sequence[Finding], size: int) -> str | None:
    """What is lost by going on, in words; None if nothing says that anything is."""
    if mark is None:
        return None
    if all(one.table != COUNTER for one in findings):
        return describe_loss(mark, size)
    counter = anchor.counter if isinstance(anchor, FileAnchor) else None
    if counter is None or not any(PUT_BACK in one.problem for one in findings):
        return None
    return describe_lost_counts(counter.count_in(mark), counter.read() or 0)
