"""Vaults of any size, made in bulk: every row, hash and MAC is genuine, and `kvl verify` accepts them.

A vault is begun by the product, then grown by the ledger's own code for transactions with three differences: entries
and keys come by the thousand in one transaction, nothing is flushed, and the state tree hashes its buckets once a
transaction. Keys of one transaction share one entry; who opens the vault checks it all the same.
"""

import asyncio
import base64
import itertools
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from msgspec import structs

from keyvault_lite import app, settings
from keyvault_lite.audit.merkle import Tiles
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.ledger.commit.write_set import CommitRequest, WriteSet
from keyvault_lite.ledger.opening import open_database, prepare
from keyvault_lite.ledger.state.outcome import Change, Outcome
from keyvault_lite.ledger.state.root import RowMacs, StateTree
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.ledger.storage import statements
from keyvault_lite.ledger.verify.inspection import inspect
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.identity import BearerCredential, Grant, Permission, Role
from keyvault_lite.model.keys import Key, KeySpec, KeyStatus, KeyType, KeyVersion, Purpose, VersionStatus
from keyvault_lite.model.names import KeyId, ServiceId, new_id
from keyvault_lite.model.replies import NewService
from keyvault_lite.model.requests import CreateService, Origin
from keyvault_lite.operator.initialise import initialise_vault
from keyvault_lite.settings import Settings

KEY: Final = "grown-0"
"""The key that is measured; it has all the versions."""
RARE_KEY: Final = "grown-1"
"""A key that one entry in a hundred is of, by the last of the services."""
USERS: Final = 16
"""Services that use keys, and keys that the entries of a long log are of."""
_RARE: Final = 97
_SPEC: Final = KeySpec(KeyType.AES, 256, Purpose.ENCRYPT)
_KEYS_AT_ONCE: Final = 100_000
_ENTRIES_AT_ONCE: Final = 20_000


@dataclass(frozen=True, slots=True)
class Size:
    """How large a vault is to be; what it takes beyond that (services, the entries of its making) comes on top."""

    keys: int = USERS
    entries: int = 0
    versions: int = 1


@dataclass(frozen=True, slots=True)
class Grown:
    """A vault on disk, and who may use it."""

    folder: str
    admin: str
    user: str
    """The token of a SERVICE that may use every key."""
    old: dict[str, str]
    """A message under the first version of the key that is measured, as a request to decrypt has it."""

    @property
    def settings(self) -> dict[str, str]:
        """As `kvl serve` reads them from its environment."""
        return {f"KEYVAULT_{name.upper()}": value for name, value in _settings(Path(self.folder)).items()}

    def chosen(self) -> Settings:
        """As `app.open_vault` takes them."""
        return settings.load(**_settings(Path(self.folder)))


def _settings(folder: Path) -> dict[str, str]:
    return {"master_key_file": str(folder / "master.key"), "database_url": f"sqlite:///{folder / 'keyvault.db'}"}


class _BulkTree(StateTree):
    """A state tree that hashes a touched bucket when the root is asked for, and not at each row. No row comes twice."""

    __slots__ = ("_new",)

    def __init__(self, tree: StateTree) -> None:
        for name in StateTree.__slots__:
            setattr(self, name, getattr(tree, name))
        self._new = RowMacs()

    def put(self, row_key: bytes, mac: bytes) -> None:
        self._new.add(row_key, mac)

    def root(self) -> bytes:
        self.load(self._new)
        self._new = RowMacs()
        return super().root()


class _Grower:
    """The ledger's state between transactions, without the ledger's locks, flushes and anchor."""

    def __init__(self, chosen: Settings) -> None:
        database = self._database = open_database(chosen.database_url)
        self.keyring = Keyring.open(prepare(database), app.master_key(chosen))
        self._connection = database.writer()
        self._connection.execute("PRAGMA synchronous = OFF")
        seen = inspect(self._connection, self.keyring, database, log_from=0, load=True)
        if seen.findings or seen.head is None:
            raise RuntimeError(f"the vault to be grown does not verify: {seen.findings[:3]}")
        self.state = State(lambda *_: None)
        self.state.apply(seen.rows.change)
        self.state.sequence = seen.head.state_seq
        self._tree = _BulkTree(seen.tree)
        tiles = Tiles()
        tiles.extend([row[0] for row in self._connection.execute(statements.LEAVES, (0, seen.head.size))])
        self._known = LogTip(seen.head, seen.mac, tiles, seen.head.checkpoint)

    @property
    def size(self) -> int:
        """How many entries there are."""
        return self._known.head.size

    @property
    def now(self) -> int:
        """The time of the newest entry."""
        return self._known.head.timestamp

    def add(self, *drafts: Draft, change: Change | None = None) -> None:
        """One transaction."""
        outcome = Outcome(drafts, None, change)
        write_set = WriteSet(self._known, self.state, self._tree, self.keyring, lambda *_: None)
        write_set.add(CommitRequest(outcome, self.state.snapshot_version, lambda _: outcome))
        self._connection.execute("BEGIN IMMEDIATE")
        write_set.store(self._connection, self._database)
        self._connection.execute("COMMIT")
        write_set.apply()
        self._known = write_set.after

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()


def grow(folder: Path, size: Size) -> Grown:
    """Make a vault of that size in a new folder."""
    folder.mkdir()
    key = folder / "master.key"
    key.touch(0o600)
    key.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
    chosen = settings.load(**_settings(folder))
    admin = initialise_vault(chosen).token
    services = asyncio.run(_services(chosen, admin))
    with _Grower(chosen) as grower:
        _grow_keys(grower, size)
        _grow_entries(grower, size.entries, [ServiceId(made.service.id) for made in services])
        old = _old_message(grower)
    return Grown(str(folder), admin, services[0].token, old)


async def _services(chosen: Settings, admin: str) -> list[NewService]:
    vault = app.open_vault(chosen)
    try:
        grants = (Grant("grown-*", frozenset({Permission.ENCRYPT, Permission.DECRYPT})),)
        made = []
        for number in range(USERS):
            request = CreateService(name=f"user-{number}", role=Role.SERVICE, grants=grants)
            answer = await vault.engine.perform(request, BearerCredential(admin), Origin(os.urandom(16)))
            if not isinstance(answer.result, NewService):
                raise TypeError("no service was made")
            made.append(answer.result)
        return made
    finally:
        vault.close()


def _grow_keys(grower: _Grower, size: Size) -> None:
    numbers = iter(range(max(size.keys, USERS)))
    while some := list(itertools.islice(numbers, _KEYS_AT_ONCE)):
        keys = tuple(_key(grower, number, size.versions if number == 0 else 1) for number in some)
        draft = Draft(
            action=Action.GENERATE, result=Result.SUCCESS, request_id=os.urandom(16), key_id=keys[0].id, key_version=1
        )
        grower.add(draft, change=Change(keys=keys))


def _key(grower: _Grower, number: int, versions: int) -> Key:
    key_id = KeyId(new_id())
    now = grower.now + number
    made = tuple(
        _version(grower, key_id, version, now, newest=version == versions) for version in range(1, versions + 1)
    )
    return Key(key_id, f"grown-{number}", _SPEC, KeyStatus.ACTIVE, now, versions=made)


def _version(grower: _Grower, key_id: KeyId, version: int, now: int, *, newest: bool) -> KeyVersion:
    material = grower.keyring.generate(_SPEC)
    made = grower.keyring.versions.wrap(material, _SPEC, key_id=key_id, version=version, created_at=now)
    return made if newest else structs.replace(made, status=VersionStatus.DEPRECATED)


def _old_message(grower: _Grower) -> dict[str, str]:
    key = grower.state.find_key(KEY)
    if key is None:
        raise RuntimeError("the key that is measured was not made")
    sealed = grower.keyring.encrypt(_SPEC, key.versions[0], bytes(64), None)
    texts = (base64.b64encode(part).decode() for part in sealed)
    return dict(zip(("ciphertext", "encrypted_dek"), texts, strict=True))


def _grow_entries(grower: _Grower, entries: int, services: list[ServiceId]) -> None:
    drafts = itertools.islice(_drafts(grower, services), max(0, entries - grower.size))
    while some := tuple(itertools.islice(drafts, _ENTRIES_AT_ONCE)):
        grower.add(*some)


def _drafts(grower: _Grower, services: list[ServiceId]) -> Iterator[Draft]:
    """Encryptions by all services under all keys in turn; of the last service and the rare key one in a hundred."""
    found = [grower.state.find_key(f"grown-{number}") for number in range(USERS)]
    keys = [key.id for key in found if key is not None]
    busy, common = services[:-1], [keys[0], *keys[2:]]
    for number in itertools.count():
        rare = number % _RARE == 0
        yield Draft(
            action=Action.ENCRYPT,
            result=Result.SUCCESS,
            request_id=os.urandom(16),
            service_id=services[-1] if rare else busy[number % len(busy)],
            key_id=keys[1] if rare else common[number // 7 % len(common)],
            key_version=1,
            source="127.0.0.1",
            bytes_in=64,
            bytes_out=64,
        )


def grow_apart(folder: Path, sizes: Sequence[Size]) -> list[Grown]:
    """`grow` for each size, in processes of their own at the same time: what that takes of memory goes with them."""
    works = [
        subprocess.Popen(  # noqa: S603  (our own module)
            [sys.executable, "-m", "benchmarks.grown", str(folder / str(number)), json.dumps(asdict(size))],
            cwd=Path(__file__).resolve().parents[1],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, size in enumerate(sizes)
    ]
    outputs = [work.communicate()[0] for work in works]
    if any(work.returncode for work in works):
        raise RuntimeError("a vault could not be grown")
    return [Grown(**json.loads(output)) for output in outputs]


if __name__ == "__main__":
    print(json.dumps(asdict(grow(Path(sys.argv[1]), Size(**json.loads(sys.argv[2]))))))
