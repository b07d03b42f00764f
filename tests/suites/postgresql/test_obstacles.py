"""Who holds a lock, hangs up or sets timeouts keeps nothing waiting for ever, and is not taken for damage."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from keyvault_lite import app
from keyvault_lite.dialects.aws.model import AccountRegion
from keyvault_lite.engine import jobs as jobs_module
from keyvault_lite.ledger import maintenance
from keyvault_lite.ledger.commit import writer as writer_module
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.postgresql import bounded_fetch, session
from keyvault_lite.ledger.storage.postgresql import connection as connection_module
from keyvault_lite.ledger.storage.postgresql import database as database_module
from keyvault_lite.ledger.storage.postgresql.address import read_address
from keyvault_lite.ledger.storage.postgresql.database import PostgresDatabase
from keyvault_lite.ledger.storage.schema import FORMATS
from keyvault_lite.ledger.storage.tables import metadata
from keyvault_lite.model.errors import AuditUnavailable, KeyVaultError
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt, UpdateKey, VerifyAudit
from keyvault_lite.operator.initialise import initialise_vault
from keyvault_lite.operator.verify import verify_vault
from keyvault_lite.wire.aws.errors import write_error as aws_error
from keyvault_lite.wire.problems import problem
from keyvault_lite.wire.vault.errors import describe as vault_error
from tests.support.harness import Harness, create_vault, settings_for
from tests.support.postgres import Databases, run
from tools.postgres_server import Server


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "LOCK_SECONDS", 0.2)
    monkeypatch.setattr(database_module, "BEGINNING_SECONDS", 0.2)
    monkeypatch.setattr(writer_module, "REFRESH_SECONDS", 0.2)
    monkeypatch.setattr(writer_module.Writer._begin, "__kwdefaults__", {"patience": 0.2})


@contextmanager
def held(url: str, statement: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A lock that somebody takes and does not let go."""
    with psycopg.connect(url) as somebody:
        somebody.execute(statement.encode())
        yield somebody


def lock(*tables: str) -> str:
    return f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE"


def set_for_all(harness: Harness, *settings: str) -> None:
    name = run(harness.settings.database_url, "SELECT current_database()")[0][0]
    for one in settings:
        run(harness.settings.database_url, f'ALTER DATABASE "{name}" SET {one}')


@pytest.mark.parametrize("table", ["idempotency_replies", "settings", "audit_logs", "tiles", "keys"])
def test_a_table_that_somebody_locks_ends_a_check_with_a_sentence(postgres: Harness, table: str) -> None:
    key = KeyRef(postgres.key().id)
    with held(postgres.settings.database_url, lock(table)):
        for check in (postgres.ledger.scrub, postgres.ledger.verify, lambda: verify_vault(postgres.settings)):
            with pytest.raises(AuditUnavailable, match="has locked"):
                check()
    postgres.ask(Encrypt(key, plaintext=b"x"))
    assert not postgres.ledger.degraded
    assert postgres.ask(VerifyAudit()).findings == ()


def test_a_table_that_somebody_locks_ends_a_start_and_what_is_due(postgres: Harness) -> None:
    with held(postgres.settings.database_url, lock("idempotency_replies", "settings")):
        with pytest.raises(AuditUnavailable):
            postgres.ledger.forget_replies()
        postgres.vault.close()
        with pytest.raises(AuditUnavailable, match="has locked"):
            postgres.open()
    with held(postgres.settings.database_url, lock("alembic_version")), pytest.raises(AuditUnavailable):
        postgres.open()
    postgres.open()


def test_an_edit_that_cannot_be_looked_at_for_a_lock_is_found_behind_it(postgres: Harness) -> None:
    key = KeyRef(postgres.key().id)
    postgres.ask(Encrypt(key, plaintext=b"x"))
    run(postgres.settings.database_url, "SET session_replication_role = replica", "UPDATE services SET name = 'evil'")
    with held(postgres.settings.database_url, lock("settings")):
        postgres.refusal(Encrypt(key, plaintext=b"x"), AuditUnavailable)
    assert not postgres.ledger.degraded, "a row that could not be read is not one that was edited"
    postgres.ledger.scrub()
    deadline = time.monotonic() + 10
    while not postgres.ledger.degraded:
        assert time.monotonic() < deadline
        postgres.together(postgres.perform(Encrypt(key, plaintext=b"x")))


def test_a_vault_that_somebody_keeps_from_beginning_says_so(
    postgres: Harness, databases: Databases, tmp_path: Path
) -> None:
    url = databases.make()
    master = postgres.settings.master_key
    assert master is not None
    other = settings_for(tmp_path, master.get_secret_value(), url)
    half = database_module._half("public")
    with (
        held(url, f"SELECT pg_advisory_lock({database_module.BEGINNING}, {half})"),
        pytest.raises(AuditUnavailable, match="pg_locks"),
    ):
        initialise_vault(other)
    # One that has begun does not ask who else begins.
    ours = postgres.settings.database_url
    postgres.vault.close()
    with held(ours, f"SELECT pg_advisory_lock({database_module.BEGINNING}, {half})"):
        vault, made = postgres.run(app.open_or_begin(postgres.settings))
        vault.close()
        assert made is None
    postgres.open()
    databases.drop(url)


def test_who_is_cut_off_while_reading_has_found_no_damage(postgres: Harness) -> None:
    url = postgres.settings.database_url
    refused: list[AuditUnavailable] = []

    def check() -> None:
        with pytest.raises(AuditUnavailable) as refusal:
            verify_vault(postgres.settings)
        refused.append(refusal.value)

    for end in ("pg_terminate_backend", "pg_cancel_backend"):
        session.LOCK_SECONDS = 20.0  # type: ignore[misc]  # given back by the fixture
        with held(url, lock("tokens")):
            checking = threading.Thread(target=check)
            checking.start()
            waiting = f"SELECT {end}(pid) FROM pg_stat_activity WHERE datname = current_database() AND "
            deadline = time.monotonic() + 10
            while not run(url, waiting + "wait_event_type = 'Lock'"):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            checking.join()
    assert len(refused) == 2


@pytest.mark.parametrize(
    "setting",
    [
        "idle_session_timeout = '100ms'",
        "idle_in_transaction_session_timeout = '5ms'",
        "transaction_timeout = '20ms'",
        "statement_timeout = '2ms'",
        "lock_timeout = '1ms'",
        "quote_all_identifiers = on",
        "exit_on_error = on",
        "default_transaction_deferrable = on",
    ],
)
def test_what_the_database_is_set_to_is_set_otherwise_for_each_session(postgres: Harness, setting: str) -> None:
    key = KeyRef(postgres.key().id)
    postgres.vault.close()
    set_for_all(postgres, setting)
    postgres.open()
    postgres.ask(Encrypt(key, plaintext=b"x"))
    assert verify_vault(postgres.settings).valid
    name, _, value = setting.partition(" = ")
    database = postgres.vault.database
    for made in (database.reader(), database.writer()):
        with closing(made) as connection:
            assert connection.execute(f"SHOW {name}").fetchone() != (value.strip("'"),)


def test_a_revision_that_is_not_that_of_the_tables_is_damage(postgres: Harness) -> None:
    postgres.vault.close()
    run(postgres.settings.database_url, "UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(DamagedVault, match="alembic_version"):
        postgres.open()
    run(postgres.settings.database_url, "UPDATE alembic_version SET version_num = '0003'")
    postgres.open()


# Durability


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Harness, Databases]]:
    """A vault on a server whose settings may be changed: nobody else's."""
    server = Server()
    try:
        server.start()
        databases = Databases(server.url)
        url = databases.make()
        master, token = create_vault(tmp_path, url)
        harness = Harness(settings_for(tmp_path, master, url), token)
        yield harness, databases
        harness.close()
    finally:
        server.remove()


def test_settings_that_lose_commits_are_seen_by_the_next_transaction(own: tuple[Harness, Databases]) -> None:
    harness, databases = own

    def configure(*settings: str) -> None:
        databases.run(*(f"ALTER SYSTEM {one}" for one in settings), "SELECT pg_reload_conf()")
        time.sleep(0.2)

    def shown() -> object:
        return harness.ledger._writer.connection.execute("SHOW synchronous_commit").fetchone()

    key = KeyRef(harness.key().id)
    configure("SET synchronous_commit = 'remote_apply'")
    harness.reopen()
    configure("SET synchronous_commit = 'off'")
    harness.ask(Encrypt(key, plaintext=b"x"))
    assert shown() == ("remote_apply",), "as it was when the session began"
    for name in ("fsync", "full_page_writes"):
        configure(f"SET {name} = off")
        size = harness.size
        assert f"{name} = off" in str(harness.refusal(Encrypt(key, plaintext=b"x"), AuditUnavailable))
        configure(f"RESET {name}")
        harness.ask(Encrypt(key, plaintext=b"x"))
        assert harness.size == size + 1
    assert harness.ask(VerifyAudit()).findings == ()


# Who leads


LEADING = f"SELECT pg_advisory_lock({database_module.LEADING}, {database_module._half('public')})"


@contextmanager
def leading(harness: Harness, databases: Databases, role: str) -> Iterator[None]:
    """Somebody who holds the place of the node that leads."""
    name = run(harness.settings.database_url, "SELECT current_database()")[0][0]
    with psycopg.connect(databases.of(name, user=role), autocommit=True) as somebody:
        somebody.execute(LEADING.encode())
        yield


def test_who_may_only_connect_does_not_keep_the_nodes_from_their_work(
    postgres: Harness, databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    databases.run("DROP ROLE IF EXISTS kvl_nobody", "CREATE ROLE kvl_nobody LOGIN")
    key = postgres.key()
    postgres.ask(UpdateKey(KeyRef(key.id), rotation_days=1))
    with leading(postgres, databases, "kvl_nobody"):
        assert not postgres.vault.database.is_leader(), "nobody may take it for free"
        assert [postgres.ledger.is_leader, postgres.ledger.is_leader] == [True, True]
        postgres.run(postgres.jobs.round())
    assert sum("cannot do its work" in record.message for record in caplog.records) == 1, "said once"
    assert postgres.vault.database.is_leader()
    databases.run("DROP ROLE kvl_nobody")


def test_rows_are_checked_although_the_node_that_leads_stands_still(
    postgres: Harness, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    monkeypatch.setattr(postgres.ledger, "scrub", lambda: checked.append("rows"))
    monkeypatch.setattr(postgres.ledger, "scrub_log", lambda: checked.append("log"))
    jobs = postgres.jobs
    with leading(postgres, databases, "postgres"):
        assert not postgres.ledger.is_leader
        postgres.run(jobs.round())
        assert checked == [], "that is its work"
        monkeypatch.setattr(jobs_module, "ROWS_SECONDS", 0.0)
        monkeypatch.setattr(jobs_module, "LOG_SECONDS", 0.0)
        postgres.run(jobs.round())
    assert checked == ["rows", "log"]


def test_what_fails_keeps_nothing_else_from_being_done(postgres: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "ROWS_SECONDS", 0.0)
    checked: list[float] = []
    monkeypatch.setattr(postgres.ledger, "scrub", lambda: checked.append(time.monotonic()))
    with held(postgres.settings.database_url, lock("idempotency_replies")), pytest.raises(AuditUnavailable):
        postgres.run(postgres.jobs.round())
    with (
        held(
            postgres.settings.database_url, LEADING.replace(str(database_module.LEADING), str(database_module.WRITING))
        ),
        pytest.raises(AuditUnavailable),
    ):
        postgres.run(postgres.jobs.round())
    assert len(checked) == 2

    def locked() -> None:
        raise AuditUnavailable("locked")

    monkeypatch.setattr(postgres.ledger, "scrub", locked)
    monkeypatch.setattr(postgres.ledger, "forget_replies", lambda: checked.append(time.monotonic()))
    with pytest.raises(AuditUnavailable):
        postgres.run(postgres.jobs.round())
    assert len(checked) == 3


def test_a_vault_whose_rows_were_not_checked_for_long_says_so(
    postgres: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgres.engine.health().status == "ok"
    monkeypatch.setattr(maintenance, "UNCHECKED_SECONDS", 0.05)
    time.sleep(0.06)
    health = postgres.engine.health()
    assert (health.status, health.serving) == ("unchecked", True)
    with held(postgres.settings.database_url, lock("settings")), pytest.raises(AuditUnavailable):
        postgres.ledger.scrub()
    assert postgres.engine.health().details["rows_checked_seconds_ago"]
    monkeypatch.setattr(maintenance, "UNCHECKED_SECONDS", 5.0)
    postgres.ledger.scrub()
    assert postgres.engine.health().status == "ok"


# What is too long to be ours


PLANTED = {
    "settings": "INSERT INTO settings SELECT 'x' || i, repeat('y', 20000000), 1, '' FROM generate_series(1, 5) i",
    "idempotency_replies": (
        "INSERT INTO idempotency_replies SELECT 'x', '\\x00', '\\x00', 1, decode(repeat('00', 70000000), 'hex'), 1, ''"
    ),
    "keys": "UPDATE keys SET row_mac = decode(repeat('00', 20000000), 'hex'), description = repeat('y', 20000000)",
    "audit_logs": "UPDATE audit_logs SET comment = repeat('y', 20000000), hash = decode(repeat('00', 9000000), 'hex')",
}


@pytest.mark.parametrize("table", PLANTED)
def test_what_is_longer_than_any_genuine_value_is_named_and_never_fetched_whole(postgres: Harness, table: str) -> None:
    postgres.key("orders")
    assert postgres.ledger.verify().valid
    longest = {"settings": bounded_fetch.LONG, "idempotency_replies": bounded_fetch.REPLY, "keys": bounded_fetch.LONG}
    run(postgres.settings.database_url, "SET session_replication_role = replica", PLANTED[table])
    with closing(postgres.vault.database.reader()) as reader:
        sql = statements.ENTRIES if table == "audit_logs" else statements.SELECT[table]
        values = [one for row in driver.stream(reader, sql) for one in row if isinstance(one, str | bytes)]
        assert max(map(len, values)) == longest.get(table, bounded_fetch.MEDIUM) + 1
        assert all(len(row[-1]) <= bounded_fetch.SHORT + 1 for row in reader.execute(sql))
    found = postgres.ledger.verify().findings
    assert {one.table for one in found} & {table}
    assert postgres.ledger._writer.connection.execute("SELECT 1").fetchone() == (1,)


def test_only_columns_of_the_tables_are_cut() -> None:
    cut = "SELECT id, pg_catalog.substr(hash, 1, 16385) FROM audit_logs ORDER BY id DESC LIMIT 1"
    assert bounded_fetch.bounded(statements.LAST_ENTRY) == cut
    for other in ("SELECT 1", "SELECT count(*) FROM keys", "SELECT oid FROM pg_class", "SELECT one FROM keys"):
        assert bounded_fetch.bounded(other) == other
    for table, form in FORMATS.items():
        assert "substr" in bounded_fetch.bounded(statements.SELECT[table]), form
    assert {name.partition(".")[0] for name in bounded_fetch._OTHERS} <= set(metadata.tables)
    assert all(
        name.partition(".")[2] in metadata.tables[name.partition(".")[0]].columns for name in bounded_fetch._OTHERS
    )


def test_what_orders_or_compares_names_does_so_by_their_bytes() -> None:
    """Locales differ in punctuation and case: the archive's newest segment would be another, or none."""
    written = [one for one in vars(statements).values() if isinstance(one, str) and one.isprintable()]
    ordered = [one for one in written if re.search(r"(ORDER BY (?!id\b)|\b)name\b (>=|<|DESC|ASC)", one)]
    assert statements.NEWEST_SEGMENT in ordered
    for one in ordered:
        words = connection_module._translated(one, "public").decode()
        assert words.count('name COLLATE pg_catalog."C"') == len(re.findall(r"\bname (?:>=|<)|BY name\b", one)), words


def test_the_newest_segment_is_found_by_its_bytes(postgres: Harness) -> None:
    run(
        postgres.settings.database_url,
        *(
            f"INSERT INTO settings (name, value, row_seq, row_mac) VALUES ('{name}', '1', 1, '')"
            for name in ("a/2", "a/1", "a0", "A/9", "a-3")
        ),
    )
    with closing(postgres.vault.database.reader()) as reader:
        row = reader.execute(statements.NEWEST_SEGMENT, ("a/", "a0")).fetchone()
    assert row is not None
    assert row[0] == "a/2"


@pytest.mark.parametrize(
    "answer",
    [
        lambda error: problem(error, "request").detail,
        lambda error: vault_error(error)[1],
        lambda error: str(aws_error(error, "Encrypt", AccountRegion("000000000000", "eu-central-1"), "k")[1]),
    ],
)
def test_callers_are_not_told_where_the_database_is(answer: Callable[[KeyVaultError], str]) -> None:
    nobody = read_address("postgresql://keyvault@127.0.0.1:9/nowhere", allow_plain=True)
    with pytest.raises(AuditUnavailable) as refused:
        PostgresDatabase(nobody).writer()
    assert "127.0.0.1" in refused.value.detail
    told = answer(refused.value)
    assert not re.search(r"127\.0\.0\.1|nowhere|keyvault|refused|port", told), told
