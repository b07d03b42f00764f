"""`kvl repair`: objects that do not verify are given up, on record."""

import asyncio
from contextlib import closing
from pathlib import Path

from keyvault_lite.app import open_vault, perform
from keyvault_lite.ledger.verify.lost_names import with_names
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
                slot = None
                if one.table == "keyring_slots":
                    slot = vault.keyring.seal(vault.master, slot_id=one.row, created_at=vault.ledger.now())
                await perform(vault, Repair(one, slot))
            return told, vault.ledger.mend_index()

    return asyncio.run(run())
