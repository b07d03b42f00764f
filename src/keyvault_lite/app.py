"""The composition root: the only module that chooses concrete parts and puts them together."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from keyvault_lite.anchors import AnyAnchor, open_anchor, refuse_emptied, witness_client
from keyvault_lite.crypto.hygiene import forget_environment_secrets, protect_process
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.root import MasterKey, RootError, read_master_key
from keyvault_lite.crypto.slot_parameters import SlotPlace
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.dialects.aws.handlers import aws
from keyvault_lite.dialects.vault.handlers import VAULT
from keyvault_lite.engine.engine import Engine
from keyvault_lite.engine.jobs import Jobs
from keyvault_lite.engine.native import NATIVE
from keyvault_lite.engine.sealed import SealedEngine
from keyvault_lite.engine.unsealing import Unsealing
from keyvault_lite.ledger.archive.segment_files import SegmentStore
from keyvault_lite.ledger.ledger import Ledger
from keyvault_lite.ledger.opening import check_place, open_database, prepare
from keyvault_lite.ledger.storage.bulk_memory import give_back
from keyvault_lite.ledger.storage.database import Database
from keyvault_lite.model.errors import KeyVaultError, NotFound
from keyvault_lite.model.identity import SystemCredential
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.names import new_id
from keyvault_lite.model.replies import NewService
from keyvault_lite.model.requests import Initialise, Origin, Request
from keyvault_lite.observe import announce
from keyvault_lite.roots.keyfile import FileRoot
from keyvault_lite.roots.opening import Opened, open_by, status_of
from keyvault_lite.roots.people import Ask, ask_on_terminal
from keyvault_lite.roots.root import Enrolled, Root
from keyvault_lite.roots.uris import parse_root, parse_roots
from keyvault_lite.settings import InvalidSettings, Settings, check_witness
from keyvault_lite.wire.application import Api, Application, CannotStart
from keyvault_lite.wire.aws import AwsApi
from keyvault_lite.wire.engine_port import Engine as WireEngine
from keyvault_lite.wire.native import NativeApi
from keyvault_lite.wire.vault import VaultApi
from keyvault_lite.witness.anchor import SharedAnchor
from keyvault_lite.witness.watch import Watch

Unlock = Callable[[Sequence[Slot]], Opened]
"""From the slots to the open keyring. Raises RootError."""
Enroll = Callable[[SlotPlace], Enrolled]
"""From the place of a new slot to its key. Raises RootError."""

COLLECT_AFTER: Final = 10_000
"""New objects after which cycles are looked for among them: requests under way hold thousands that are no garbage."""
CANNOT_START: Final = (RootError, InvalidSettings, KeyVaultError)
"""What keeps a command or server from starting; each says in one sentence why."""


@dataclass(frozen=True, slots=True)
class Vault:
    """An open vault."""

    database: Database
    opened: Opened
    anchor: AnyAnchor | None
    ledger: Ledger
    engine: Engine
    watch: Watch | None = None

    @property
    def keyring(self) -> Keyring:
        """The open keyring."""
        return self.opened.keyring

    def close(self) -> None:
        """Commit what is waiting and let go of everything."""
        if self.watch is not None:
            self.watch.close()
        self.engine.close()


def master_key(chosen: Settings) -> MasterKey:
    """The key that the settings name. Raises InvalidMasterKey."""
    text = None if chosen.master_key is None else chosen.master_key.get_secret_value()
    return read_master_key(text=text, path=chosen.master_key_file)


def roots_of(chosen: Settings, *, ask: Ask | None = None, use_last_tries: bool = False) -> list[Root]:
    """The roots that the settings name, in order. Raises RootError and InvalidSettings; asks no device."""
    if chosen.root is None:
        master = master_key(chosen)
        return [FileRoot(lambda: master, chosen.master_key_file)]
    if (chosen.master_key is not None or chosen.master_key_file) and "file:" not in chosen.root.split():
        raise InvalidSettings(
            "KEYVAULT_ROOT and a master key are both set: name the file in KEYVAULT_ROOT as file:/path, or say file: "
            "for the one of KEYVAULT_MASTER_KEY_FILE."
        )
    return parse_roots(chosen.root, master=partial(master_key, chosen), ask=ask, use_last_tries=use_last_tries)


def root_named(chosen: Settings, uri: str, *, ask: Ask | None = None) -> Root:
    """One root by its URI, which the settings need not name. Raises RootError."""
    return parse_root(uri, master=partial(master_key, chosen), ask=ask)


def unlocking(chosen: Settings) -> Unlock:
    """How a command opens the keyring: by the roots of the settings, people asked on the terminal.

    Raises RootError and InvalidSettings where that can be told without slots.
    """
    roots = roots_of(chosen, ask=ask_on_terminal)

    def unlock(slots: Sequence[Slot]) -> Opened:
        return open_by(slots, roots, ask=ask_on_terminal)

    return unlock


@dataclass(frozen=True, slots=True)
class SealedVault:
    """A vault that was found and is not open: its slots can be read, and nothing else of it."""

    settings: Settings
    database: Database
    slots: tuple[Slot, ...]

    def open(
        self, unlock: Unlock, *, quarantine: bool = False, anchored: bool = True, archive: Path | None = None
    ) -> Vault:
        """Open it, every check included. Raises one of CANNOT_START, among them what `unlock` raises.

        With `quarantine`, what does not verify is set aside where that is possible; `archive` is the folder with what
        was archived, which may be needed to name it. Without `anchored`, the anchor is neither compared nor written:
        for `trust_anchor` alone.
        """
        opened = unlock(self.slots)
        segment_store = None if archive is None else SegmentStore(archive, opened.keyring, verify_ed25519)
        return _compose(
            self.settings,
            self.database,
            opened,
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
        refuse_emptied(chosen, database)
        raise NotFound("the vault is not initialised; run `kvl init`")
    return SealedVault(chosen, database, tuple(slots))


def open_vault(
    chosen: Settings,
    *,
    unlock: Unlock | None = None,
    quarantine: bool = False,
    anchored: bool = True,
    archive: Path | None = None,
) -> Vault:
    """Find and open a vault, by the roots of the settings if `unlock` is not given. See `SealedVault.open`.

    Raises one of CANNOT_START.
    """
    check_witness(chosen)
    unlock = unlock or unlocking(chosen)
    return find_vault(chosen).open(unlock, quarantine=quarantine, anchored=anchored, archive=archive)


def _compose(
    chosen: Settings,
    database: Database,
    opened: Opened,
    *,
    quarantine: bool = False,
    anchored: bool = True,
    segment_store: SegmentStore | None = None,
) -> Vault:
    client = (
        None if chosen.witness is None or not anchored else witness_client(chosen, chosen.witness, "KEYVAULT_WITNESS")
    )
    keyring = opened.keyring
    anchor = open_anchor(chosen, database, keyring) if anchored else None
    ledger = Ledger.open(database, keyring, anchor, quarantine=quarantine, segment_store=segment_store)
    watch = None if client is None else Watch(ledger.evidence, client, max_age=chosen.witness_max_age)
    engine = Engine(ledger, keyring, (NATIVE, aws(chosen.aws_account_id), VAULT), seal_status=status_of(opened))
    vault = Vault(database, opened, anchor, ledger, engine, watch)
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


@dataclass(frozen=True, slots=True)
class FirstSlots:
    """How a new vault is opened from then on: its first slot by `enroll`, and one for recovery if that is given."""

    enroll: Enroll
    recovery: Enroll | None = None


def first_slots(chosen: Settings) -> FirstSlots:
    """Of a vault that begins without anybody who could keep a recovery key or shares. Raises InvalidSettings."""
    root = roots_of(chosen)[0]
    if not isinstance(root, FileRoot):
        raise InvalidSettings("An empty database becomes a vault under this root by `kvl init`, which makes its slots.")
    return FirstSlots(partial(root.enroll, rng=os.urandom))


async def open_or_begin(
    chosen: Settings,
    name: str = "admin",
    *,
    slots: FirstSlots | None = None,
    unlock: Unlock | None = None,
    quarantine: bool = False,
) -> tuple[Vault, NewService | None]:
    """Open the vault; if it is empty, begin it and return its first ADMIN. Exactly one process does."""
    check_witness(chosen)
    unlock = unlock or unlocking(chosen)
    database = database_of(chosen)
    check_place(database)
    if database.exists() and prepare(database):
        # Begun already, which is never undone: nobody else has to be waited for.
        return open_vault(chosen, unlock=unlock, quarantine=quarantine), None
    with database.beginning():
        if database.exists() and prepare(database):
            return open_vault(chosen, unlock=unlock, quarantine=quarantine), None
        refuse_emptied(chosen, database)
        slots = slots or first_slots(chosen)
        prepare(database)
        return await _begin(chosen, name, database, slots)


async def _begin(chosen: Settings, name: str, database: Database, slots: FirstSlots) -> tuple[Vault, NewService]:
    keyring = Keyring.create()
    first = _first_slot(keyring, slots.enroll)
    recovery = None if slots.recovery is None else _first_slot(keyring, slots.recovery).slot
    vault = _compose(chosen, database, first)
    try:
        vault.ledger.begin()
        now = vault.ledger.now()
        recovery = None if recovery is None else replace(recovery, created_at=now)
        made = await perform(vault, Initialise(replace(first.slot, created_at=now), name, recovery))
    except BaseException:
        vault.close()
        raise
    if not isinstance(made, NewService):
        raise TypeError("initialisation made no service")
    return vault, made


def _first_slot(keyring: Keyring, enroll: Enroll) -> Opened:
    place = SlotPlace(keyring.instance_id, new_id())
    made = enroll(place)
    return Opened(keyring, made.seal(keyring, place, created_at=0), made.key, made.parameters.kind)


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
    return Application(partial(_serving, chosen, vault), partial(_apis, chosen), loopback_only=loopback_only)


def build_sealed(chosen: Settings, unsealing: Unsealing) -> Application:
    """As `build`, of a vault that is sealed. It ends its server once the vault is open."""

    @asynccontextmanager
    async def serving() -> AsyncIterator[WireEngine]:
        asking = asyncio.create_task(unsealing.keep_asking())
        try:
            yield SealedEngine(unsealing)
        finally:
            asking.cancel()
            await asyncio.wait([asking])

    return Application(serving, partial(_apis, chosen))


def _apis(chosen: Settings, engine: WireEngine) -> tuple[Api, ...]:
    return (AwsApi(engine, chosen.aws_account_id), VaultApi(engine), NativeApi(engine))
