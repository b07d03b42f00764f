"""`kvl migrate`: everything goes along or nothing does, and the old database is not served by mistake."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyvault_lite import app
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.postgresql import session
from keyvault_lite.ledger.storage.postgresql.database import PostgresDatabase
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.model.errors import AuditUnavailable, Conflict, IntegrityViolation, KeyVaultError, NotFound
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import Role
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import CreateKey, Decrypt, Encrypt, ReadKey, VerifyAudit
from keyvault_lite.operator.migrate import migrate_vault
from keyvault_lite.operator.verify import verify_vault
from keyvault_lite.settings import Settings
from tests.support.harness import AES, Harness, grant, idempotent
from tests.support.postgres import Databases, run
from tests.unit.ledger.migrate.killed_move import NEITHER_OPENS
from tests.unit.ledger.migrate.test_killed_move import Moving
from tests.unit.ledger.storage.test_schema import edit

TABLES = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"


@pytest.fixture
def target(databases: Databases) -> Iterator[str]:
    url = databases.make()
    yield url
    databases.drop(url)


@pytest.fixture
def lived_in(harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Harness:
    """A vault with a bit of everything, tiles of the log included, at rest. The working folder is its own."""
    monkeypatch.chdir(tmp_path)
    key = harness.rotated(harness.key("orders"), 2)
    harness.service("worker", grant("orders", "encrypt"))
    harness.service("eye", role=Role.AUDITOR)
    harness.ask(CreateKey(AES, "kept", description="ünïcode, ' and ?"), idempotency=idempotent("once"))
    harness.together(*(harness.perform(Encrypt(KeyRef(key.id), plaintext=b"x")) for _ in range(600)))
    harness.vault.close()
    return harness


def there(harness: Harness, url: str) -> Settings:
    return harness.settings.model_copy(update={"database_url": url})


def test_a_vault_moves_with_its_whole_log_and_back_again(lived_in: Harness, target: str, tmp_path: Path) -> None:
    lived_in.open()
    sealed = lived_in.ask(Encrypt(KeyRef("orders"), plaintext=b"secret"))
    before = lived_in.log()
    lived_in.vault.close()

    moved = migrate_vault(lived_in.settings, target)

    assert moved.entries == len(before) == moved.entry - 1
    assert moved.anchor == str(tmp_path / "keyvault.anchor")
    harness = Harness(there(lived_in, target), lived_in.admin)
    log = harness.log()
    assert log[: len(before)] == before
    assert log[len(before)].draft.action is Action.MIGRATE
    assert "vault.db" in str(log[len(before)].draft.comment)
    assert harness.ask(VerifyAudit()).findings == ()
    opened = harness.ask(Decrypt(KeyRef("orders"), None, sealed.ciphertext, sealed.encrypted_dek))
    assert opened.plaintext == b"secret"
    assert len(harness.ask(ReadKey(KeyRef("orders"))).versions) == 3
    # A repeat of what was done before the move is still one.
    harness.ask(CreateKey(AES, "kept", description="ünïcode, ' and ?"), idempotency=idempotent("once"))
    assert harness.last.draft.reason == "replayed"
    harness.close()
    assert verify_vault(there(lived_in, target)).valid

    # The old database is as it was, and no longer the newest: it does not start.
    with pytest.raises(IntegrityViolation):
        lived_in.open()

    back = f"sqlite:///{tmp_path}/back.db"
    again = migrate_vault(there(lived_in, target), back)
    returned = Harness(there(lived_in, back), lived_in.admin)
    assert returned.log()[: len(log)] == log
    assert returned.ask(VerifyAudit()).valid
    assert again.anchor == f"{tmp_path}/back.db.anchor"
    returned.close()
    with pytest.raises(IntegrityViolation):
        app.open_vault(there(lived_in, target))


def test_an_anchor_that_the_settings_name_goes_on(lived_in: Harness, target: str, tmp_path: Path) -> None:
    own = f"{tmp_path}/own.anchor"
    Path(f"{lived_in.path}.anchor").rename(own)
    lived_in.settings = lived_in.settings.model_copy(update={"anchor": own})
    assert migrate_vault(lived_in.settings, target).anchor == own
    harness = Harness(there(lived_in, target), lived_in.admin)
    harness.ask(Encrypt(KeyRef("orders"), plaintext=b"x"))
    harness.close()
    with pytest.raises(IntegrityViolation):
        lived_in.open()


def test_a_running_server_is_refused(lived_in: Harness, target: str) -> None:
    running = SqliteDatabase(lived_in.path)
    assert running.is_leader()
    with pytest.raises(Conflict, match="running"):
        migrate_vault(lived_in.settings, target)
    running.resign_leadership()
    assert run(target, TABLES) == [(0,)]


def test_a_target_that_is_not_empty_is_left_alone(lived_in: Harness, target: str, tmp_path: Path) -> None:
    run(target, "CREATE TABLE notes (a int)")
    with pytest.raises(Conflict, match="not empty"):
        migrate_vault(lived_in.settings, target)
    assert run(target, TABLES) == [(1,)]
    run(target, "DROP TABLE notes")
    (tmp_path / "keyvault.anchor").write_bytes(b"something")
    with pytest.raises(Conflict, match="anchor"):
        migrate_vault(lived_in.settings, target)
    with pytest.raises(Conflict, match="same"):
        migrate_vault(lived_in.settings, lived_in.settings.database_url)
    assert run(target, TABLES) == [(0,)]
    lived_in.open()


def test_a_source_that_does_not_verify_stays_where_it_is(lived_in: Harness, target: str) -> None:
    edit(lived_in.path, "UPDATE services SET role = 'ADMIN' WHERE name = 'worker'")
    with pytest.raises(DamagedVault):
        migrate_vault(lived_in.settings, target)
    assert run(target, TABLES) == [(0,)]
    with pytest.raises(NotFound):
        migrate_vault(there(lived_in, "sqlite:///absent.db"), target)


@pytest.mark.parametrize("after", [0, 1])
def test_a_move_that_fails_leaves_nothing(
    lived_in: Harness, target: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = PostgresDatabase.append
    left = [after]

    def append(database: PostgresDatabase, connection: object, entries: object) -> object:
        if left[0] == 0:
            run(
                target,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
        left[0] -= 1
        return real(database, connection, entries)  # type: ignore[arg-type]

    monkeypatch.setattr(PostgresDatabase, "append", append)
    monkeypatch.setattr("keyvault_lite.ledger.migrate.copy.CHUNK", 100)
    with pytest.raises(AuditUnavailable):
        migrate_vault(lived_in.settings, target)
    monkeypatch.setattr(PostgresDatabase, "append", real)
    assert run(target, TABLES) == [(0,)]
    assert not Path("keyvault.anchor").exists()
    # Nothing stands in the way of going on with the old one, nor of a second attempt.
    lived_in.open()
    lived_in.ask(Encrypt(KeyRef("orders"), plaintext=b"x"))
    lived_in.vault.close()
    migrate_vault(lived_in.settings, target)


def test_a_copy_that_is_not_the_vault_is_not_committed(
    lived_in: Harness, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from keyvault_lite.ledger.migrate import copy

    real = copy._copy_rows

    def leave_out(table: object, reader: object, writer: object) -> None:
        if getattr(table, "name", None) != "services":
            return
        real(table, reader, writer)  # type: ignore[arg-type]

    monkeypatch.setattr(copy, "_copy_rows", leave_out)
    with pytest.raises(KeyVaultError):
        migrate_vault(lived_in.settings, target)
    assert run(target, TABLES) == [(0,)]


@pytest.mark.parametrize("place", ["before a row", "before the copy's COMMIT", *NEITHER_OPENS[::2]])
def test_a_move_that_is_killed_leaves_one_to_serve_and_is_finished(
    lived_in: Harness, target: str, tmp_path: Path, place: str
) -> None:
    own = f"{tmp_path}/own.anchor"
    Path(f"{lived_in.path}.anchor").rename(own)
    move = Moving(lived_in, lived_in.settings.model_copy(update={"anchor": own}), target)
    move.die(place)
    assert move.opening() == (place not in NEITHER_OPENS, False)
    move.again()
    move.check_moved()


@pytest.mark.parametrize("keeps", [True, False], ids=["is kept", "is lost"])
def test_nobody_writes_a_source_that_takes_long(
    lived_in: Harness, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, keeps: bool
) -> None:
    """A session that stands still loses the lock: it does not, and a move that has lost it hands nothing over."""
    migrate_vault(lived_in.settings, target)
    impatient = "SET idle_in_transaction_session_timeout = '1500ms'"
    monkeypatch.setattr(session, "WRITER", (*session.WRITER, impatient))
    monkeypatch.setattr("keyvault_lite.ledger.migrate.copy.CHUNK", 100)
    back = f"sqlite:///{tmp_path}/back.db"
    if keeps:
        migrate_vault(there(lived_in, target), back, progress=lambda *_: time.sleep(0.5))
        assert Harness(there(lived_in, back), lived_in.admin).ask(VerifyAudit()).valid
    else:
        with pytest.raises(AuditUnavailable, match="the source's lock was lost"):
            migrate_vault(there(lived_in, target), back, progress=lambda *_: time.sleep(2))
        Harness(there(lived_in, target), lived_in.admin).close()
        with pytest.raises(KeyVaultError):
            app.open_vault(there(lived_in, back))
