"""A vault in which everything occurs, its older copies, and a judge of what was done to it."""

import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from msgspec import structs

from keyvault_lite import app
from keyvault_lite.crypto.root import MasterKey
from keyvault_lite.ledger.state.outcome import Change, Outcome
from keyvault_lite.ledger.storage import driver
from keyvault_lite.model.errors import NotFound
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.identity import Role, Setting, Token, TokenKind
from keyvault_lite.model.keys import Algorithm, KeyName, KeySpec, KeyType, Purpose
from keyvault_lite.model.names import SYSTEM, KeyRef, TokenId
from keyvault_lite.model.replies import Verification
from keyvault_lite.model.requests import (
    CreateKey,
    DestroyKey,
    DisableKey,
    Encrypt,
    EraseDueKey,
    ReadKey,
    RenewToken,
    RestoreKey,
    RevokeKey,
    RotateKey,
    Sign,
    UpdateKey,
    UpdateService,
)
from keyvault_lite.operator.rotate_master_key import rotate_master_key
from keyvault_lite.operator.verify import verify_vault
from tests.support.harness import AES, DAY, Harness, create_vault, grant, idempotent, open_copy, settings_for

ENTRIES = 300
"""More than a tile's 256."""
_NO_MEANING = re.compile(rb"constraint \w+|\s+")
KINDS = [
    KeySpec(KeyType.AES, 128, Purpose.ENCRYPT),
    KeySpec(KeyType.RSA, 3072, Purpose.SIGN),
    KeySpec(KeyType.EC, 256, Purpose.SIGN),
    KeySpec(KeyType.EC, 521, Purpose.SIGN),
    KeySpec(KeyType.ED25519, None, Purpose.SIGN),
    KeySpec(KeyType.HMAC, 512, Purpose.MAC),
    KeySpec(KeyType.ML_DSA, 65, Purpose.SIGN),
]


@dataclass(frozen=True)
class SampleVault:
    """The vault as its attacker finds it: closed, with copies of its database from earlier days."""

    folder: Path
    master: str
    former: str
    """The master key of the first two days."""
    token: str
    older: tuple[Path, ...]
    """After the first day, after the second, and after the master key was changed then."""
    killed: Path
    """The same vault after a kill: the newest entries are in the WAL alone."""

    def copy(self, target: Path) -> "VaultCopy":
        target.mkdir()
        for name in ("vault.db", "vault.db.anchor"):
            shutil.copyfile(self.folder / name, target / name)
        return VaultCopy(target, self.master)


@dataclass(frozen=True)
class VaultCopy:
    """A copy to be tampered with."""

    folder: Path
    master: str

    @property
    def database(self) -> Path:
        return self.folder / "vault.db"

    @property
    def anchor(self) -> Path:
        return self.folder / "vault.db.anchor"

    def verify(self, **how: Any) -> Verification:  # noqa: ANN401
        return verify_vault(settings_for(self.folder, self.master), **how)

    def starts(self) -> bool:
        try:
            vault = app.open_vault(settings_for(self.folder, self.master))
        except app.CANNOT_START:
            return False
        vault.close()
        return True

    def write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Tamper through SQL, as one who holds the file can: no trigger, constraint or foreign key is in the way."""
        with closing(unflushed(str(self.database))) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute("PRAGMA ignore_check_constraints = ON")
            triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
            for name, _ in triggers:
                connection.execute(f"DROP TRIGGER {name}")
            try:
                work(connection)
            finally:
                for _, sql in triggers:
                    with suppress(driver.Error):  # its table is gone
                        connection.execute(sql)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def content(self) -> object:
        """All that the database says, types included; None if SQLite cannot read it or finds it damaged."""
        try:
            with closing(driver.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
                connection.text_factory = bytes
                if connection.execute("PRAGMA integrity_check").fetchall() != [(b"ok",)]:
                    return None
                schema = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
                tables = [name.decode() for kind, name, *_ in schema if kind == b"table"]
                # SQL knows neither upper and lower case nor kinds of white space; a constraint's name means nothing.
                schema = [(*row[:3], _NO_MEANING.sub(b" ", (row[3] or b"").lower())) for row in schema]
                return sorted(map(repr, schema)), {name: rows_of(connection, name) for name in tables}
        except (driver.Error, UnicodeDecodeError):
            return None


def unflushed(path: str) -> sqlite3.Connection:
    """A connection that writes; nothing of what a test tampers with has to survive a power loss."""
    connection: sqlite3.Connection = driver.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def rows_of(connection: sqlite3.Connection, table: str) -> list[str]:
    columns = [row[1].decode() for row in connection.execute(f'PRAGMA table_info("{table}")')]
    typed = ", ".join(f'"{column}", typeof("{column}")' for column in columns)
    return sorted(map(repr, connection.execute(f'SELECT {typed} FROM "{table}"').fetchall()))


def build(folder: Path) -> SampleVault:
    """Begin a vault and let it live: all kinds of keys and states, services, tokens, names, settings, kept replies."""
    template = folder / "template"
    template.mkdir()
    master, token = create_vault(template)
    harness = open_copy(template, folder / "vault", master, token)
    older = [_first_day(harness, folder / "older-0"), _second_day(harness, folder / "older-1")]
    harness.close()
    _, newer = MasterKey.generate()
    rotate_master_key(settings_for(folder / "vault", master), new_key=newer)
    harness = Harness(settings_for(folder / "vault", newer), token)
    older.append(_keep(harness, folder / "older-2"))
    _third_day(harness)
    killed = folder / "killed"
    shutil.copytree(harness.path.parent, killed)
    harness.close()
    return SampleVault(folder / "vault", newer, master, token, tuple(older), killed)


def _first_day(harness: Harness, copy: Path) -> Path:
    for number, spec in enumerate(KINDS):
        harness.key(f"kind-{number}", spec)
    for name in ("orders", "doomed", "gone", "revoked"):
        harness.key(name)
    harness.service("shop", grant("orders"))
    harness.service("auditor", role=Role.AUDITOR)
    _annex(harness, 1)
    return _keep(harness, copy)


def _second_day(harness: Harness, copy: Path) -> Path:
    harness.rotated(harness.ask(ReadKey(KeyRef("orders"))), 2)
    harness.ask(RotateKey(KeyRef("revoked")))
    harness.ask(RevokeKey(KeyRef("revoked"), reason="lost"))
    harness.ask(RevokeKey(KeyRef("orders"), 1))
    for name in ("doomed", "gone"):
        harness.ask(DestroyKey(KeyRef(name), 7))
    harness.ask(RenewToken("shop"))
    harness.ask(UpdateService("shop", grants=(grant("*", "decrypt"),)))
    harness.ask(UpdateKey(KeyRef("orders"), description="of the shop", tags={"team": "a"}))
    harness.ask(CreateKey(AES, "kept"), idempotency=idempotent("one"))
    harness.ask(RotateKey(KeyRef("kept")), idempotency=idempotent("two"))
    _annex(harness, 2)
    return _keep(harness, copy)


def _third_day(harness: Harness) -> None:
    harness.ask(UpdateService("auditor", active=False))
    harness.ask(DisableKey(KeyRef("kind-0")))
    harness.ask(RestoreKey(KeyRef("doomed")))
    with mock.patch.object(harness.ledger, "now", return_value=time.time_ns() // 1000 + 8 * DAY):
        harness.system(EraseDueKey(KeyRef("gone")))
    harness.ask(RotateKey(KeyRef("kept")), idempotency=idempotent("three"))
    _annex(harness, 3)
    harness.together(*(harness.perform(Encrypt(KeyRef("orders"), {"n": str(n)}, b"text")) for n in range(ENTRIES)))
    harness.ask(Sign(KeyRef("kind-4"), b"message", Algorithm.ED25519))
    harness.refusal(ReadKey(KeyRef("absent")), NotFound)


def _annex(harness: Harness, day: int) -> None:
    """Rows that only dialects write: names that move, settings, leased tokens."""
    state = harness.ledger.snapshot()
    key, service = state.find_key("orders"), state.find_service("shop")
    assert key is not None
    assert service is not None
    name = KeyName("aws:eu", f"alias/day-{day}", 1, day)
    change = Change(
        keys=(structs.replace(key, names=(name, KeyName("vault:transit", "orders", 1, day))),),
        settings=(Setting("vault/mounts", {"day": day}), Setting(f"vault/day-{day}", None if day == 2 else {"a": 1})),
        tokens=(Token(TokenId("Leased0000000000"), service.id, TokenKind.LEASED, b"d" * 32, 1, expires_at=day),),
    )
    draft = Draft(
        action=Action.SETTING_UPDATE, result=Result.SUCCESS, request_id=os.urandom(16), service_id=SYSTEM, key_id=key.id
    )
    outcome = Outcome((draft,), None, change)
    harness.run(harness.ledger.commit(outcome, state.snapshot_version, lambda _: outcome))


def _keep(harness: Harness, copy: Path) -> Path:
    harness.vault.close()
    shutil.copytree(harness.path.parent, copy)
    harness.open()
    return copy / "vault.db"
