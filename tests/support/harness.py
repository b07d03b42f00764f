"""A real vault on a database of its own, asked through `Engine.perform` as every front end asks."""

import asyncio
import hashlib
import os
import shutil
from collections.abc import Awaitable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from keyvault_lite import app, settings
from keyvault_lite.crypto.root import MasterKey
from keyvault_lite.engine.clock import ClockTrust
from keyvault_lite.engine.engine import Engine
from keyvault_lite.engine.jobs import Jobs
from keyvault_lite.ledger.ledger import Ledger
from keyvault_lite.ledger.log.query import Filter
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.model.errors import KeyVaultError
from keyvault_lite.model.evidence import Entry
from keyvault_lite.model.identity import (
    BearerCredential,
    Credential,
    Grant,
    Permission,
    Role,
    Service,
    SystemCredential,
)
from keyvault_lite.model.keys import Key, KeySpec, KeyType, Purpose
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import Answer, NewService
from keyvault_lite.model.requests import CreateKey, CreateService, Idempotency, Origin, Request, RotateKey
from keyvault_lite.operator.initialise import initialise_vault
from keyvault_lite.settings import Settings

E = TypeVar("E", bound=KeyVaultError)
T = TypeVar("T")
AES = KeySpec(KeyType.AES, 256, Purpose.ENCRYPT)
ED25519 = KeySpec(KeyType.ED25519, None, Purpose.SIGN)
HMAC = KeySpec(KeyType.HMAC, 256, Purpose.MAC)
P256 = KeySpec(KeyType.EC, 256, Purpose.SIGN)
ALL = frozenset(Permission)
DAY = 24 * 3600 * 1_000_000


def grant(key: str, *actions: str) -> Grant:
    return Grant(key, frozenset(map(Permission, actions)) or ALL)


def idempotent(key: str, body: str = "body") -> Idempotency:
    """An Idempotency-Key as a front end hands it over; what it keeps of a reply is its `repr`."""
    return Idempotency(key, hashlib.sha256(body.encode()).digest(), lambda result: repr(result).encode())


class Harness:
    """An open vault. `ask` is one request of one caller; by default the first ADMIN calls."""

    def __init__(self, settings: Settings, admin: str) -> None:
        self.settings = settings
        self.admin = admin
        self._runner = asyncio.Runner()
        self.vault: app.Vault
        self.open()

    # The vault

    def open(self) -> None:
        self.vault = app.open_vault(self.settings)

    def reopen(self) -> None:
        """Close and open again: what a restart does, every check included."""
        self.vault.close()
        self.open()

    def close(self) -> None:
        self.vault.close()
        self._runner.close()

    @property
    def engine(self) -> Engine:
        return self.vault.engine

    @property
    def ledger(self) -> Ledger:
        return self.vault.ledger

    @property
    def path(self) -> Path:
        """The file of a vault on SQLite."""
        database = self.vault.database
        assert isinstance(database, SqliteDatabase)
        return database.path

    @property
    def jobs(self) -> Jobs:
        """Background work as it begins with a process."""
        self.engine.clock = ClockTrust(self.ledger)
        return Jobs(self.engine, self.ledger)

    # Asking

    def run(self, work: Awaitable[T]) -> T:
        async def waiting() -> T:
            return await work

        return self._runner.run(waiting())

    def perform(
        self,
        request: Request,
        token: str | None = "",
        *,
        credential: Credential | None = None,
        source: str | None = None,
        idempotency: Idempotency | None = None,
    ) -> Coroutine[Any, Any, Answer]:
        """The coroutine of one request; an empty token is the first ADMIN's, None is no token."""
        origin = Origin(os.urandom(16), source, idempotency=idempotency)
        who = credential or BearerCredential(self.admin if token == "" else token)
        return self.engine.perform(request, who, origin)

    def answer(self, request: Request, token: str | None = "", **how: Any) -> Answer:  # noqa: ANN401
        return self.run(self.perform(request, token, **how))

    def ask(self, request: Request, token: str | None = "", **how: Any) -> Any:  # noqa: ANN401
        """The result of one request."""
        return self.answer(request, token, **how).result

    def together(self, *work: Awaitable[Any]) -> list[Any]:
        """Results or exceptions of what runs at the same time."""

        async def all_of() -> list[Any]:
            return await asyncio.gather(*work, return_exceptions=True)

        return self._runner.run(all_of())

    def refusal(self, request: Request, kind: type[E], token: str | None = "", **how: Any) -> E:  # noqa: ANN401
        """The error that refuses the request: of exactly that kind."""
        with pytest.raises(KeyVaultError) as refused:
            self.ask(request, token, **how)
        error = refused.value
        assert error.code == kind.code, (error.code, error.detail)
        assert isinstance(error, kind)
        return error

    def system(self, request: Request) -> Any:  # noqa: ANN401
        return self.ask(request, credential=SystemCredential())

    # Furnishing

    def key(self, name: str | None = None, spec: KeySpec = AES) -> Key:
        made: Key = self.ask(CreateKey(spec, name))
        return made

    def rotated(self, key: Key, times: int = 1) -> Key:
        for _ in range(times):
            key = self.ask(RotateKey(KeyRef(key.id)))
        return key

    def service(self, name: str, *grants: Grant, role: Role = Role.SERVICE) -> tuple[Service, str]:
        """A new service and its token."""
        made: NewService = self.ask(CreateService(name, role, grants))
        return made.service, made.token

    # The log

    def log(self, after: int = 0) -> list[Entry]:
        """The entries after a number, oldest first, as an outsider reads them."""
        entries: list[Entry] = []
        while page := self._page(after + len(entries)):
            entries += page
        return entries

    def _page(self, after: int) -> Iterable[Entry]:
        return self.ledger.evidence.entries(Filter(limit=1000, after=str(after), ascending=True)).items

    @property
    def last(self) -> Entry:
        return self.ledger.evidence.entries(Filter(limit=1)).items[0]

    @property
    def size(self) -> int:
        return self.last.id

    def files(self) -> bytes:
        """Everything that stands in the vault's folder: database, write-ahead log and what else there is."""
        return b"".join(file.read_bytes() for file in sorted(self.path.parent.iterdir()) if file.is_file())


def create_vault(folder: Path, url: str | None = None) -> tuple[str, str]:
    """Begin a vault in a folder, or in the database of a server; its master key and the token of its first ADMIN."""
    _, master = MasterKey.generate()
    return master, initialise_vault(settings_for(folder, master, url)).token


def settings_for(folder: Path, master: str, url: str | None = None) -> Settings:
    """Settings of a vault in a folder; with the URL of a server's database only its anchor is there."""
    if url is None:
        return settings.load(master_key=master, master_key_file=None, database_url=f"sqlite:///{folder}/vault.db")
    anchor = f"{folder}/keyvault.anchor"
    return settings.load(master_key=master, master_key_file=None, database_url=url, anchor=anchor)


def open_copy(template: Path, folder: Path, master: str, token: str, url: str | None = None) -> Harness:
    """A copy of a vault, opened. `url` is that of the copy of its database, if a server has it."""
    shutil.copytree(template, folder, dirs_exist_ok=True)
    return Harness(settings_for(folder, master, url), token)
