"""The composition root: the only module that chooses concrete parts and puts them together."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keyvault_lite.crypto.hygiene import forget_environment_key, protect_process
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.root import InvalidMasterKey, MasterKey, read_master_key
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.engine.engine import Engine
from keyvault_lite.engine.jobs import Jobs
from keyvault_lite.ledger.anchor.files import SAME_DIRECTORY, FileAnchor, where_it_stands
from keyvault_lite.ledger.archive.segment_files import Shelf
from keyvault_lite.ledger.commit.edit_detection import tell_quarantine
from keyvault_lite.ledger.ledger import Ledger
from keyvault_lite.ledger.opening import check_place, open_database, prepare
from keyvault_lite.ledger.storage.bulk_memory import give_back
from keyvault_lite.ledger.storage.database import Database
from keyvault_lite.ledger.verify.lost_names import with_names
from keyvault_lite.model.errors import Conflict, IntegrityViolation, InvalidRequest, KeyVaultError, NotFound
from keyvault_lite.model.identity import SystemCredential
from keyvault_lite.model.names import new_id
from keyvault_lite.model.replies import Finding, NewService
from keyvault_lite.model.requests import (
    AddSlot,
    Initialise,
    Origin,
    RecoverAdmin,
    RemoveSlots,
    Repair,
    Request,
)
from keyvault_lite.observe import announce
from keyvault_lite.settings import InvalidSettings, Settings, check_witness, is_shared
from keyvault_lite.wire import native
from keyvault_lite.wire.aws import Aws
from keyvault_lite.wire.aws import belongs as aws_belongs
from keyvault_lite.wire.dispatcher import CannotStart, Dispatcher, Mount
from keyvault_lite.wire.vault import VaultDialect
from keyvault_lite.witness.anchor import SharedAnchor
from keyvault_lite.witness.client import WitnessClient
from keyvault_lite.witness.watch import Watch

AnyAnchor = FileAnchor | SharedAnchor

_ANCHOR_ADVICE: Final = {
    SAME_DIRECTORY: "it goes back together with the database; let KEYVAULT_ANCHOR name a file elsewhere",
    "off": "a database that is put back will not be found out",
}
COLLECT_AFTER: Final = 10_000
"""New objects after which cycles are looked for among them: requests under way hold thousands that are no garbage."""
CANNOT_START: Final = (InvalidMasterKey, InvalidSettings, KeyVaultError)
"""What keeps a command or server from starting; each says in one sentence why."""


@dataclass(frozen=True, slots=True)
class NewVault:
    """What `kvl init` prints."""

    service_id: str
    token: str
    database: str
    anchor: str | None


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


def _origin() -> Origin:
    return Origin(request_id=os.urandom(16))


def open_vault(
    chosen: Settings, *, quarantine: bool = False, anchored: bool = True, archive: Path | None = None
) -> Vault:
    """Open an initialised vault, every check included. Raises one of CANNOT_START.

    With `quarantine`, what does not verify is set aside where that is possible; `archive` is the folder with what was
    archived, which may be needed to name it. Without `anchored`, the anchor is
    neither compared nor written: for `trust_anchor` alone.
    """
    check_witness(chosen)
    master = master_key(chosen)
    database = open_database(chosen.database_url, allow_plain=chosen.allow_plain_database)
    check_place(database)
    # Looking at a vault that is not there must not make one.
    slots = prepare(database) if database.exists() else ()
    if not slots:
        _refuse_emptied(chosen, database)
        raise NotFound("the vault is not initialised; run `kvl init`")
    keyring = Keyring.open(slots, master)
    shelf = None if archive is None else Shelf(archive, keyring, verify_ed25519)
    return _compose(chosen, database, master, keyring, quarantine=quarantine, anchored=anchored, shelf=shelf)


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
    shelf: Shelf | None = None,
) -> Vault:
    client = (
        None if chosen.witness is None or not anchored else _witness_client(chosen, chosen.witness, "KEYVAULT_WITNESS")
    )
    anchor = open_anchor(chosen, database, keyring) if anchored else None
    ledger = Ledger.open(database, keyring, anchor, quarantine=quarantine, shelf=shelf)
    watch = None if client is None else Watch(ledger.evidence, client, max_age=chosen.witness_max_age)
    engine = Engine(ledger, keyring, chosen.aws_account_id)
    vault = Vault(database, master, keyring, anchor, ledger, engine, watch)
    ledger.evidence.witnesses = tuple(one for one in (watch, anchor) if isinstance(one, Watch | SharedAnchor))
    try:
        if watch is not None:
            watch.start()
    except BaseException:
        vault.close()
        raise
    return vault


async def perform(vault: Vault, request: Request) -> object:
    """Have the vault itself do something, and return the result."""
    return (await vault.engine.perform(request, SystemCredential(), _origin())).result


async def _initialise(
    chosen: Settings, name: str = "admin", *, quarantine: bool = False
) -> tuple[Vault, NewService | None]:
    """Open the vault; if it is empty, begin it and return its first ADMIN. Exactly one process does."""
    check_witness(chosen)
    master = master_key(chosen)
    database = open_database(chosen.database_url, allow_plain=chosen.allow_plain_database)
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


def initialise(chosen: Settings, name: str = "admin") -> NewVault:
    """Make a new vault. Raises Conflict if there is one."""

    async def run() -> NewVault:
        vault, made = await _initialise(chosen, name)
        vault.close()
        if made is None:
            raise Conflict("the vault is initialised already; `kvl init --recover-admin` helps who lost the token")
        return _new_vault(vault, made)

    return asyncio.run(run())


def recover_admin(chosen: Settings) -> NewVault:
    """Give the oldest ADMIN a new token; the old one dies. The master key is the authority for it."""

    async def run() -> NewVault:
        vault = open_vault(chosen)
        try:
            made = await perform(vault, RecoverAdmin())
        finally:
            vault.close()
        if not isinstance(made, NewService):
            raise TypeError("recovery made no token")
        return _new_vault(vault, made)

    return asyncio.run(run())


def _new_vault(vault: Vault, made: NewService) -> NewVault:
    anchor = vault.anchor
    return NewVault(made.service.id, made.token, vault.database.place, None if anchor is None else anchor.place)


def rotate_master_key(chosen: Settings, *, new_key: str, keep_old: bool = False) -> None:
    """Let another master key (base64) open the vault, and unless `keep_old` no other. No key row changes.

    Raises Conflict if nothing would change by it.
    """
    new_master = MasterKey.parse(new_key)

    async def run() -> None:
        vault = open_vault(chosen)
        try:
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
                vault.ledger.empty_write_ahead_log()  # what the old master key opens is in no file of ours any more
        finally:
            vault.close()

    asyncio.run(run())


def repair(chosen: Settings, *, archive: Path | None = None) -> tuple[tuple[Finding, ...], bool]:
    """Give up, on record, every object that does not verify, so that the vault can be managed again.

    Returns them, and whether the index of the log had to be made anew.
    """

    async def run() -> tuple[tuple[Finding, ...], bool]:
        vault = open_vault(chosen, quarantine=True, archive=archive)
        try:
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
        finally:
            vault.close()

    return asyncio.run(run())


# Serving


@asynccontextmanager
async def _serving(chosen: Settings, vault: Vault | None) -> AsyncIterator[Engine]:
    if vault is None:
        try:
            vault, made = await _initialise(chosen)
        except CANNOT_START as error:
            raise CannotStart(error) from None
        if made is not None:
            _announce(made)
    forget_environment_key()
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


def _announce(made: NewService) -> None:
    announce("new vault. The token of its first ADMIN, shown this once:", token=made.token)


def build(chosen: Settings, *, vault: Vault | None = None, loopback_only: bool = False) -> Dispatcher:
    """The ASGI application; it opens the vault, and begins an empty one, when it is started."""
    aws = Aws(chosen.aws_account_id)
    transit = VaultDialect()

    @asynccontextmanager
    async def serving() -> AsyncIterator[Engine]:
        async with _serving(chosen, vault) as engine:
            aws.engine = transit.engine = engine
            yield engine

    mounts: list[Mount] = [(aws_belongs, aws.answer), (transit.belongs, transit.answer)]
    return native.build(lifespan=serving, mounts=mounts, loopback_only=loopback_only)


def open_to_serve(chosen: Settings, *, quarantine: bool = False, begin: bool = True) -> Vault:
    """Open the vault; with `begin`, make an empty database one and print its first token on standard error."""
    if not begin:
        vault, made = open_vault(chosen, quarantine=quarantine), None
    else:
        vault, made = asyncio.run(_initialise(chosen, quarantine=quarantine))
    if made is not None:
        _announce(made)
    tell_quarantine(vault.ledger.lost)
    stands = where_it_stands(vault.anchor, vault.database.folder)
    if stands in _ANCHOR_ADVICE:
        announce(f"anchor: {stands}: {_ANCHOR_ADVICE[stands]}", level="warning")
    return vault
