"""`kvl repair`: objects that do not verify are given up, on record."""

import asyncio
from contextlib import closing
from pathlib import Path

from keyvault_lite.app import Vault, open_vault, perform
from keyvault_lite.crypto.slot_parameters import MASTER_KEY
from keyvault_lite.ledger.verify.lost_names import with_names
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.replies import Finding
from keyvault_lite.model.requests import Repair
from keyvault_lite.settings import Settings


def repair_vault(chosen: Settings, *, archive: Path | None = None) -> tuple[tuple[Finding, ...], bool]:
    """Give up, on record, every object that does not verify, so that the vault can be managed again.

    Returns them, and whether the index of the log had to be rebuilt.
    """

    async def run() -> tuple[tuple[Finding, ...], bool]:
        with closing(open_vault(chosen, quarantine=True, archive=archive)) as vault:
            with closing(vault.database.reader()) as connection:
                told = with_names(connection, vault.ledger.lost)
            given_up: set[str] = set()
            for one in vault.ledger.lost:
                key_id = one.row.partition("/")[0] if one.table in {"keys", "key_versions"} else None
                if key_id in given_up:
                    continue
                given_up |= set() if key_id is None else {key_id}
                await perform(vault, Repair(one, _slot(vault, one) if one.table == "keyring_slots" else None))
            return told, vault.ledger.mend_index()

    return asyncio.run(run())


def _slot(vault: Vault, finding: Finding) -> Slot:
    """What takes the place of a lost slot: one for the same master key, for any other root a removed one.

    What a device has wrapped is bound to the slot it was made for: `kvl root add` makes another.
    """
    opened, now = vault.opened, vault.ledger.now()
    if opened.slot.kdf == MASTER_KEY:
        return vault.keyring.seal(opened.key, slot_id=finding.row, created_at=now)
    keyring = vault.keyring
    return Slot(finding.row, keyring.generation, keyring.instance_id, MASTER_KEY, b"", now, removed_at=now)
