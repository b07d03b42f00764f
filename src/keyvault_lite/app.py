"""The composition root: the only module that chooses concrete parts and puts them together."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from keyvault_lite.crypto.hygiene import forget_environment_secrets, protect_process
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.root import InvalidMasterKey, MasterKey, read_master_key
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.dialects.aws.handlers import aws
from keyvault_lite.dialects.vault.handlers import VAULT
from keyvault_lite.engine.engine import Engine
from keyvault_lite.engine.jobs import Jobs
from keyvault_lite.engine.native import NATIVE
from keyvault_lite.engine.sealed import SealedEngine
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.archive.segment_files import SegmentStore
from keyvault_lite.ledger.ledger import Ledger
from keyvault_lite.ledger.opening import check_place, open_database, prepare
from keyvault_lite.ledger.storage.bulk_memory import give_back
from keyvault_lite.ledger.storage.database import Database
from keyvault_lite.model.errors import IntegrityViolation, InvalidRequest, KeyVaultError, NotFound
from keyvault_lite.model.identity import SystemCredential
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.names import new_id
from keyvault_lite.model.replies import NewService
from keyvault_lite.model.requests import (
    Initialise,
    Origin,
    Request,
)
from keyvault_lite.observe import announce
from keyvault_lite.settings import InvalidSettings, Settings, check_witness, is_shared
from keyvault_lite.wire.application import Api, Application, CannotStart
from keyvault_lite.wire.aws import AwsApi
from keyvault_lite.wire.engine_port import Engine as WireEngine
from keyvault_lite.wire.native import NativeApi
from keyvault_lite.wire.vault import VaultApi
from keyvault_lite.witness.anchor import SharedAnchor
from keyvault_lite.witness.client import WitnessClient
from keyvault_lite.witness.watch import Watch

AnyAnchor = FileAnchor | SharedAnchor

COLLECT_AFTER: Final = 10_000
"""New objects after which cycles are looked for among them: requests under way hold thousands that are no garbage."""
CANNOT_START: Final = (InvalidMasterKey, InvalidSettings, KeyVaultError)
"""What keeps a command or server from starting; each says in one sentence why."""


@dataclass(frozen=True, slots=True)
class Vault:
    """An open vault."""

    database: Database
    master: MasterKey
    keyring: Keyring
    anchor: AnyAnchor | None
    ledger: Ledger
    engine: Engine
    watch: Watch | None = None

    def close(self) -> None:
        """Commit what is waiting and let go of everything."""
        if self.watch is not None:
            self.watch.close()
        self.engine.close()


def master_key(chosen: Settings) -> MasterKey:
    """The key that the settings name. Raises InvalidMasterKey."""
    text = None if chosen.master_key is None else chosen.master_key.get_secret_value()
    return read_master_key(text=text, path=chosen.master_key_file)


@dataclass(frozen=True, slots=True)
class SealedVault:
    """A vault that was found and is not open: its slots can be read, and nothing else of it."""

    settings: Settings
    database: Database
    slots: tuple[Slot, ...]

    def engine(self, reason: str) -> SealedEngine:
        """What a server answers with until the vault is open; `reason` is shown to anyone."""
        return SealedEngine(reason)

    def open(
        self, master: MasterKey, *, quarantine: bool = False, anchored: bool = True, archive: Path | None = None
    ) -> Vault:
        """Open it, every check included. Raises InvalidMasterKey if the key opens no slot, and one of CANNOT_START.

        With `quarantine`, what does not verify is set aside where that is possible; `archive` is the folder with what
        was archived, which may be needed to name it. Without `anchored`, the anchor is neither compared nor written:
        for `trust_anchor` alone.
        """
        keyring = Keyring.open(self.slots, master)
        segment_store = None if archive is None else SegmentStore(archive, keyring, verify_ed25519)
        return _compose(
            self.settings,
            self.database,
            master,
            keyring,
            quarantine=quarantine,
            anchored=anchored,
            segment_store=segment_store,
        )


def find_vault(chosen: Settings) -> SealedVault:
    """The initialised vault of the settings, sealed. Raises one of CANNOT_START."""
    check_witness(chosen)
    database = database_of(chosen)
    check_place(database)
    # Looking at a vault that is not there must not make one.
    slots = prepare(database) if database.exists() else ()
    if not slots:
        _refuse_emptied(chosen, database)
        raise NotFound("the vault is not initialised; run `kvl init`")
    return SealedVault(chosen, database, tuple(slots))


def open_vault(
    chosen: Settings, *, quarantine: bool = False, anchored: bool = True, archive: Path | None = None
) -> Vault:
    """Find and open a vault with the master key of the settings. See `SealedVault.open`. Raises one of CANNOT_START."""
    check_witness(chosen)
    master = master_key(chosen)
    return find_vault(chosen).open(master, quarantine=quarantine, anchored=anchored, archive=archive)


def open_anchor(chosen: Settings, database: Database, keyring: Keyring) -> AnyAnchor | None:
    """The anchor that KEYVAULT_ANCHOR names, by default a file beside the database."""
    if is_shared(chosen.anchor):
        return shared_anchor(chosen, keyring.instance_id, keyring.log_public_key)
    return file_anchor(chosen, database)


def shared_anchor(chosen: Settings, instance_id: bytes, public_key: bytes) -> SharedAnchor:
    """The shared anchor that KEYVAULT_ANCHOR names, of the log with that key."""
    client = _witness_client(chosen, str(chosen.anchor), "KEYVAULT_ANCHOR")
    return SharedAnchor(client, instance_id=instance_id, public_key=public_key, verify=verify_ed25519)


def _witness_client(chosen: Settings, url: str, setting: str) -> WitnessClient:
    if not chosen.witness_key:
        raise InvalidSettings("KEYVAULT_WITNESS_KEY has to name the key that `kvl witness key` prints.")
    ca_file = None if chosen.witness_cacert is None else str(chosen.witness_cacert)
    try:
        return WitnessClient(url, chosen.witness_key.split(), verify=verify_ed25519, ca_file=ca_file)
    except InvalidRequest as error:
        raise InvalidSettings(f"{setting}: {error.detail}.") from None
    except OSError as error:
        raise InvalidSettings("KEYVAULT_WITNESS_CACERT is not a readable file of certificates.") from error


def file_anchor(chosen: Settings, database: Database, *, to_write: bool = True) -> FileAnchor | None:
    """The anchor's file, whether there is one or not; None if the anchor is off.

    Raises InvalidSettings if it cannot be written where that is wanted.
    """
    if chosen.anchor == "off":
        return None
    path = database.anchor_path if chosen.anchor is None else Path(chosen.anchor)
    folder = path.absolute().parent
    if to_write and not os.access(folder, os.W_OK | os.X_OK):
        # Found out before anything is committed: what is committed and cannot be anchored is not answered.
        why = "does not exist" if not folder.exists() else "cannot be written" if folder.is_dir() else "is not a folder"
        raise InvalidSettings(f"The folder of the anchor, {folder}, {why}.")
    return FileAnchor(path.absolute(), always_flush=chosen.anchor_sync == "always")


def _refuse_emptied(chosen: Settings, database: Database) -> None:
    """Raise IntegrityViolation for an empty database beside an anchor that remembers a vault."""
    if is_shared(chosen.anchor):
        raise IntegrityViolation(
            "the database is empty, and a vault does not begin with a shared anchor. If there was a vault, its "
            "database was replaced or removed: restore it. A new one begins with a file as anchor (docs/witness.md)."
        )
    anchor = file_anchor(chosen, database)
    mark = None if anchor is None else anchor.peek()
    if anchor is not None and mark is not None and mark.size:
        raise IntegrityViolation(
            f"the database is empty, but the anchor {anchor.place} remembers a vault: the database was replaced or "
            "removed. Restore it; for a new vault move the anchor away."
        )


def _compose(
    chosen: Settings,
    database: Database,
    master: MasterKey,
    keyring: Keyring,
    *,
    quarantine: bool = False,
    anchored: bool = True,
    segment_store: SegmentStore | None = None,
) -> Vault:
    client = (
        None if chosen.witness is None or not anchored else _witness_client(chosen, chosen.witness, "KEYVAULT_WITNESS")
    )
    anchor = open_anchor(chosen, database, keyring) if anchored else None
    ledger = Ledger.open(database, keyring, anchor, quarantine=quarantine, segment_store=segment_store)
    watch = None if client is None else Watch(ledger.evidence, client, max_age=chosen.witness_max_age)
    engine = Engine(ledger, keyring, (NATIVE, aws(chosen.aws_account_id), VAULT))
    vault = Vault(database, master, keyring, anchor, ledger, engine, watch)
    ledger.evidence.witnesses = tuple(one for one in (watch, anchor) if isinstance(one, Watch | SharedAnchor))
    try:
        if watch is not None:
            watch.start()
    except BaseException:
        vault.close()
        raise
    return vault


def database_of(chosen: Settings) -> Database:
    """The database that the settings name, not opened yet."""
    return open_database(chosen.database_url, allow_plain=chosen.allow_plain_database)


async def perform(vault: Vault, request: Request) -> object:
    """Have the vault itself do something, and return the result."""
    return (await vault.engine.perform(request, SystemCredential(), Origin(request_id=os.urandom(16)))).result


async def open_or_begin(
    chosen: Settings, name: str = "admin", *, quarantine: bool = False
) -> tuple[Vault, NewService | None]:
    """Open the vault; if it is empty, begin it and return its first ADMIN. Exactly one process does."""
    check_witness(chosen)
    master = master_key(chosen)
    database = database_of(chosen)
    check_place(database)
    if database.exists() and prepare(database):
        # Begun already, which is never undone: nobody else has to be waited for.
        return open_vault(chosen, quarantine=quarantine), None
    with database.beginning():
        if database.exists() and prepare(database):
            return open_vault(chosen, quarantine=quarantine), None
        _refuse_emptied(chosen, database)
        prepare(database)
        keyring = Keyring.create()
        vault = _compose(chosen, database, master, keyring)
        try:
            vault.ledger.begin()
            slot = keyring.seal(master, slot_id=new_id(), created_at=vault.ledger.now())
            made = await perform(vault, Initialise(slot, name))
        except BaseException:
            vault.close()
            raise
        if not isinstance(made, NewService):
            raise TypeError("initialisation made no service")
        return vault, made


def announce_admin(made: NewService) -> None:
    """Print the token of a new vault's first ADMIN on standard error."""
    announce("new vault. The token of its first ADMIN, shown this once:", token=made.token)


@asynccontextmanager
async def _serving(chosen: Settings, vault: Vault | None) -> AsyncIterator[Engine]:
    if vault is None:
        try:
            vault, made = await open_or_begin(chosen)
        except CANNOT_START as error:
            raise CannotStart(error) from None
        if made is not None:
            announce_admin(made)
    forget_environment_secrets()
    protect_process()
    _spare_collector()
    jobs = asyncio.create_task(Jobs(vault.engine, vault.ledger).run())
    try:
        yield vault.engine
    finally:
        jobs.cancel()
        await asyncio.wait([jobs])
        # Off the loop: requests still under way are resolved on it.
        await asyncio.get_running_loop().run_in_executor(None, vault.close)


def _spare_collector() -> None:
    """Let the cycle collector pass over what stays for good: looking through it takes a tenth of a second each time."""
    gc.collect()
    give_back()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])


def build(chosen: Settings, *, vault: Vault | None = None, loopback_only: bool = False) -> Application:
    """The ASGI application; it opens the vault, and begins an empty one, when it is started."""

    def apis(engine: WireEngine) -> tuple[Api, ...]:
        return (AwsApi(engine, chosen.aws_account_id), VaultApi(engine), NativeApi(engine))

    return Application(partial(_serving, chosen, vault), apis, loopback_only=loopback_only)
