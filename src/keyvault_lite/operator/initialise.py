"""`kvl init`: a new vault with its first ADMIN, and a new token for an ADMIN that lost its own."""

import asyncio
from contextlib import closing
from dataclasses import dataclass

from keyvault_lite.app import Vault, open_or_begin, open_vault, perform
from keyvault_lite.model.errors import Conflict
from keyvault_lite.model.replies import NewService
from keyvault_lite.model.requests import RecoverAdmin
from keyvault_lite.settings import Settings


@dataclass(frozen=True, slots=True)
class NewVault:
    """What `kvl init` prints."""

    service_id: str
    token: str
    database: str
    anchor: str | None


def initialise_vault(chosen: Settings, name: str = "admin") -> NewVault:
    """Make a new vault. Raises Conflict if there is one."""

    async def run() -> NewVault:
        vault, made = await open_or_begin(chosen, name)
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
