"""`kvl init`: a new vault with its first ADMIN, and a new token for an ADMIN that lost its own."""

import asyncio
import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from keyvault_lite.app import FirstSlots, Vault, open_or_begin, open_vault, perform
from keyvault_lite.crypto.keyfile import write_new
from keyvault_lite.crypto.root import MasterKey
from keyvault_lite.crypto.slot_parameters import SlotPlace
from keyvault_lite.model.errors import Conflict
from keyvault_lite.model.replies import NewService
from keyvault_lite.model.requests import RecoverAdmin
from keyvault_lite.operator.roots import DEVICES, Keep, NewSlot
from keyvault_lite.roots.keyfile import FileRoot
from keyvault_lite.roots.root import Enrolled
from keyvault_lite.settings import InvalidSettings, Settings


@dataclass(frozen=True, slots=True)
class NewVault:
    """What `kvl init` prints."""

    service_id: str
    token: str
    database: str
    anchor: str | None


@dataclass(frozen=True, slots=True)
class Recovery:
    """Whether a vault under a device gets a second slot, and where the master key of that goes."""

    file: Path | None
    wanted: bool = True


def first_slots(chosen: Settings, new: NewSlot, keep: Keep, recovery: Recovery) -> FirstSlots:
    """The slots of a new vault under the roots of KEYVAULT_ROOT. Raises RootError, and InvalidSettings.

    Whatever goes to people is in its files before the vault begins.
    """
    enroll = new.enroll(chosen, keep)
    needs_one = new.uri.partition(":")[0] in DEVICES
    if needs_one and recovery.wanted and recovery.file is None:
        raise InvalidSettings(
            "If the device or service of this root is lost, so is the vault: name a file for a recovery key with "
            "--recovery-out, to be kept apart and offline, or say --no-recovery."
        )
    if recovery.file is None:
        return FirstSlots(enroll)
    file = recovery.file

    def spare(place: SlotPlace) -> Enrolled:
        master, text = MasterKey.generate()
        write_new(file, f"{text}\n")
        return FileRoot(lambda: master).enroll(place, os.urandom)

    return FirstSlots(enroll, spare)


def initialise_vault(chosen: Settings, name: str = "admin", *, slots: FirstSlots | None = None) -> NewVault:
    """Make a new vault. Raises Conflict if there is one."""

    async def run() -> NewVault:
        vault, made = await open_or_begin(chosen, name, slots=slots)
        vault.close()
        if made is None:
            raise Conflict("the vault is initialised already; if the token was lost, use `kvl init --recover-admin`")
        return _new_vault(vault, made)

    return asyncio.run(run())


def recover_admin(chosen: Settings) -> NewVault:
    """Give the oldest ADMIN a new token; the old one dies. The master key is the authority for it."""

    async def run() -> NewVault:
        with closing(open_vault(chosen)) as vault:
            made = await perform(vault, RecoverAdmin())
        if not isinstance(made, NewService):
            raise TypeError("recovery made no token")
        return _new_vault(vault, made)

    return asyncio.run(run())


def _new_vault(vault: Vault, made: NewService) -> NewVault:
    anchor = vault.anchor
    return NewVault(made.service.id, made.token, vault.database.place, None if anchor is None else anchor.place)
