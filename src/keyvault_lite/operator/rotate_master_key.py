"""`kvl rotate-master-key`: another master key opens the vault."""

import asyncio
from contextlib import closing

from keyvault_lite.app import open_vault, perform
from keyvault_lite.crypto.root import MasterKey
from keyvault_lite.model.errors import Conflict
from keyvault_lite.model.names import new_id
from keyvault_lite.model.requests import (
    AddSlot,
    RemoveSlots,
)
from keyvault_lite.settings import Settings


def rotate_master_key(chosen: Settings, *, new_key: str, keep_old: bool = False) -> None:
    """Let another master key (base64) open the vault, and unless `keep_old` no other. No key row changes.

    Raises Conflict if nothing would change by it.
    """
    new_master = MasterKey.parse(new_key)

    async def run() -> None:
        with closing(open_vault(chosen)) as vault:
            slots = vault.ledger.snapshot().slots()
            keep = [slot.id for slot in slots if vault.keyring.opens(slot, new_master)]
            if keep and (keep_old or len(keep) == len(slots)):
                vault.ledger.empty_write_ahead_log()  # a change may have been cut off right before it
                raise Conflict("that is the key the vault has")
            if not keep:
                slot = vault.keyring.seal(new_master, slot_id=new_id(), created_at=vault.ledger.now())
                await perform(vault, AddSlot(slot))
                keep = [slot.id]
            old = tuple(slot.id for slot in slots if slot.id not in keep)
            if old and not keep_old:
                await perform(vault, RemoveSlots(old))
                vault.ledger.empty_write_ahead_log()  # then no file holds what the old master key opens

    asyncio.run(run())
