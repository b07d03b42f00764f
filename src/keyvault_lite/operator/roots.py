"""`kvl root`: which roots of trust open the vault, one more, one less."""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from keyvault_lite.app import Enroll, Vault, database_of, open_vault, perform, root_named, roots_of
from keyvault_lite.crypto.root import RootError
from keyvault_lite.crypto.slot_parameters import SlotPlace, kind_of
from keyvault_lite.ledger.opening import stored_slots
from keyvault_lite.model.errors import Conflict, NotFound
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.names import new_id
from keyvault_lite.model.requests import AddSlot, RecordRootCheck, RemoveSlots
from keyvault_lite.roots.opening import SHARES, Attempt, KnownSlot, Opened, enroll_shares
from keyvault_lite.roots.people import ShamirRoot, ask_on_terminal
from keyvault_lite.roots.root import Enrolled, Root
from keyvault_lite.settings import Settings

DEVICES: frozenset[str] = frozenset({"awskms", "gcpkms", "pkcs11", "tpm2", "vault"})
"""Kinds of root that are lost with a device, an account or another vault."""
Keep = Callable[[Enrolled], None]
"""Puts away what goes to people, before anything rests on it."""


@dataclass(frozen=True, slots=True)
class NewSlot:
    """What a new slot is made with: the URI of its root, and for shares how many there are and of what."""

    uri: str
    threshold: int = 0
    shares: int = 0
    """Of a `shamir:` root the number of shares, of a `shares:` root the number of holders."""
    of: Sequence[str] = ()
    """The roots that have a share each, of a `shares:` root."""

    def enroll(self, chosen: Settings, keep: Keep) -> Enroll:
        """How it is made. `keep` is called before the key is used. Raises RootError."""
        root = root_named(chosen, self.uri, ask=ask_on_terminal)
        if root.kind == SHARES:
            members = [root_named(chosen, uri, ask=ask_on_terminal) for uri in self.of]
            make: Enroll = partial(enroll_shares, members, self.shares, self.threshold, rng=os.urandom)
        else:
            if isinstance(root, ShamirRoot):
                root = ShamirRoot(threshold=self.threshold, shares=self.shares)
            make = partial(root.enroll, rng=os.urandom)

        def enroll(place: SlotPlace) -> Enrolled:
            made = make(place)
            keep(made)
            return made

        return enroll


def list_slots(chosen: Settings) -> tuple[Slot, ...]:
    """The slots of the vault, not verified; needs no root."""
    database = database_of(chosen)
    if not database.exists():
        raise NotFound("there is no vault in this database")
    return database.read_offline(partial(stored_slots, database))


def add_slot(chosen: Settings, new: NewSlot, keep: Keep) -> Slot:
    """Let one more root open the vault. Raises one of CANNOT_START; then there may be files that `keep` made."""
    enroll = new.enroll(chosen, keep)
    with closing(open_vault(chosen)) as vault:
        return _add(vault, enroll)


def _add(vault: Vault, enroll: Enroll) -> Slot:
    place = SlotPlace(vault.keyring.instance_id, new_id())
    made = enroll(place)
    slot = made.seal(vault.keyring, place, created_at=vault.ledger.now())
    asyncio.run(perform(vault, AddSlot(slot)))
    return slot


def remove_slot(chosen: Settings, slot_id: str, *, without_recovery: bool = False) -> Slot:
    """Let a slot open the vault no more; `slot_id` may be the beginning of an id that no other slot has.

    Raises NotFound, and Conflict for the last slot, and for the last that does not depend on a device unless
    `without_recovery`.
    """
    with closing(open_vault(chosen)) as vault:
        slots = vault.ledger.snapshot().slots()
        found = [slot for slot in slots if slot_id and slot.id.startswith(slot_id)]
        if len(found) != 1:
            raise NotFound("there is no such slot, or several begin like this; see `kvl root ls`")
        rest = [slot for slot in slots if slot is not found[0]]
        if rest and not without_recovery and all(kind_of(slot) in DEVICES for slot in rest):
            raise Conflict(
                "only slots that depend on a device would be left: if it is lost, so is the vault. Add another "
                "(`kvl root add file:…`), or say --no-recovery"
            )
        asyncio.run(perform(vault, RemoveSlots((found[0].id,))))
        vault.ledger.empty_write_ahead_log()  # then no file holds what the removed root opens
        return found[0]


def reseal_slot(chosen: Settings, slot_id: str, new: NewSlot, keep: Keep) -> Slot:
    """Replace a slot by a new one of the same kind: after a change of PCRs, or of shares. The new one first."""
    enroll = new.enroll(chosen, keep)
    with closing(open_vault(chosen)) as vault:
        slots = vault.ledger.snapshot().slots()
        found = [slot for slot in slots if slot_id and slot.id.startswith(slot_id)]
        if len(found) != 1:
            raise NotFound("there is no such slot, or several begin like this; see `kvl root ls`")
        if kind_of(found[0]) != new.uri.partition(":")[0]:
            raise Conflict("the slot is of another kind: add a slot for the other root, then remove this one")
        slot = _add(vault, enroll)
        asyncio.run(perform(vault, RemoveSlots((found[0].id,))))
        vault.ledger.empty_write_ahead_log()
        return slot


@dataclass(frozen=True, slots=True)
class RootCheck:
    """What one root of the settings says."""

    name: str
    opens: bool
    says: str


def check_roots(chosen: Settings, *, use_last_tries: bool = False) -> list[RootCheck]:
    """Ask every root of the settings, whether it opens a slot. On record, if one of them does."""
    roots = roots_of(chosen, ask=ask_on_terminal, use_last_tries=use_last_tries)
    slots = list_slots(chosen)
    checked = [_check(root, slots) for root in roots]
    known = next((KnownSlot.of(opened) for _, opened in checked if opened is not None), None)
    if known is not None:
        pairs = zip(roots, checked, strict=True)
        comment = "; ".join(f"{root.kind} {'opens' if one.opens else 'does not open'}" for root, (one, _) in pairs)
        # By what has opened it just now: a root that has refused is not asked a second time.
        with closing(open_vault(chosen, unlock=known.open)) as vault:
            asyncio.run(perform(vault, RecordRootCheck(comment)))
    return [one for one, _ in checked]


def _check(root: Root, slots: Sequence[Slot]) -> tuple[RootCheck, Opened | None]:
    attempt = Attempt(slots, {root.kind})
    try:
        says = root.check()
        if not root.automatic:
            waits = attempt.takes_shares or attempt.waits_for(root.kind)
            says = "people open it" if waits else "there is no slot for it"
            return RootCheck(root.name, opens=False, says=says), None
        opened = attempt.use(root)
    except RootError as error:
        return RootCheck(root.name, opens=False, says=error.detail), None
    if opened is not None:
        return RootCheck(root.name, opens=True, says=f"opens slot {opened.slot.id}; {says}"), opened
    return RootCheck(root.name, opens=False, says=f"there is no slot that it opens; {says}"), None


def create_key(chosen: Settings, uri: str) -> str:
    """Make the key of a root on its device. Needs no vault."""
    return root_named(chosen, uri).create()
