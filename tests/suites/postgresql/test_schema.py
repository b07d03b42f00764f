"""The schema on PostgreSQL, and what a writer of the database can do: found at start, by checks, and while it runs."""

import asyncio
import os
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from keyvault_lite import app
from keyvault_lite.ledger.state.outcome import Outcome
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.postgresql.foreign_writes import Snapshot
from keyvault_lite.ledger.storage.schema import NEVER_DELETED
from keyvault_lite.ledger.storage.upgrade import REVISION
from keyvault_lite.model.errors import AuditUnavailable, Conflict, InvalidRequest, KeyVaultError, NotFound
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import Answer
from keyvault_lite.model.requests import CreateKey, Encrypt, ReadKey, RevokeKey, UpdateService, VerifyAudit
from keyvault_lite.operator.initialise import initialise_vault
from keyvault_lite.operator.verify import verify_vault
from tests.support.harness import AES, Harness, grant, settings_for
from tests.support.postgres import Databases, run

PLANTED = [
    "CREATE FUNCTION evil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "CREATE TRIGGER evil BEFORE INSERT ON audit_logs FOR EACH ROW EXECUTE FUNCTION kvl_refuse()",
    "CREATE OR REPLACE FUNCTION kvl_refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "ALTER FUNCTION kvl_refuse() SECURITY DEFINER",
    "CREATE RULE evil AS ON INSERT TO audit_logs DO INSTEAD NOTHING",
    "ALTER TABLE keys ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY evil ON keys USING (false)",
    "CREATE VIEW evil AS SELECT 1 AS one",
    "CREATE TABLE evil (a int)",
    "CREATE TABLE evil () INHERITS (services)",
    "CREATE SEQUENCE evil",
    "CREATE INDEX evil ON keys (name)",
    "CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)",
    "DROP INDEX ix_key_versions_one_active",
    "DROP TRIGGER audit_logs_no_update ON audit_logs",
    "DROP TRIGGER keys_no_truncate ON keys",
    "ALTER TABLE keys DISABLE TRIGGER keys_no_delete",
    "ALTER TABLE key_versions DISABLE TRIGGER ALL",
    "ALTER TABLE keys ADD COLUMN evil int",
    "ALTER TABLE keys ALTER COLUMN description SET DEFAULT 'evil'",
    "ALTER TABLE keys ALTER COLUMN status DROP NOT NULL",
    'ALTER TABLE keys ALTER COLUMN description TYPE varchar COLLATE "C"',
    "ALTER TABLE key_versions DROP CONSTRAINT fk_key_versions_key_id",
    "ALTER TABLE ledger_head DROP CONSTRAINT ck_ledger_head_single",
    "ALTER TABLE tiles SET UNLOGGED",
    "CREATE DOMAIN evil AS text",
    "CREATE TYPE evil AS ENUM ('a')",
    "CREATE TYPE evil AS (a int)",
    'CREATE COLLATION evil FROM "C"',
    "CREATE DEFAULT CONVERSION evil FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
    "CREATE OPERATOR FAMILY evil USING btree",
    "CREATE OPERATOR CLASS evil FOR TYPE text USING btree AS FUNCTION 1 bttextcmp(text, text)",
    "CREATE CAST (bytea AS varchar) WITH INOUT AS IMPLICIT",
]


@pytest.mark.parametrize("statement", PLANTED)
def test_what_was_planted_or_taken_away_is_found(postgres: Harness, statement: str) -> None:
    postgres.vault.close()
    run(postgres.settings.database_url, statement)
    with pytest.raises(DamagedVault):
        postgres.open()
    assert not verify_vault(postgres.settings).valid


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE DOMAIN public.bytea AS pg_catalog.bytea", "ALTER TABLE keys ALTER COLUMN row_mac TYPE public.bytea"],
        ["CREATE DOMAIN public.int8 AS pg_catalog.int8", "ALTER TABLE keys ALTER COLUMN row_seq TYPE public.int8"],
    ],
)
def test_a_type_by_the_name_of_a_builtin_one_is_found(postgres: Harness, statements: list[str]) -> None:
    postgres.vault.close()
    run(postgres.settings.database_url, *statements)
    found = {(one.table, one.row) for one in verify_vault(postgres.settings).findings}
    assert {("keys", one) for one in ("column row_mac", "column row_seq")} & found
    assert not found - {("keys", "column row_mac"), ("keys", "column row_seq")}, "nothing behind it is read"
    with closing(postgres.vault.database.reader()) as connection:
        planted = {(one.table, one.row) for one in postgres.vault.database.check_schema(connection)}
    assert {("", "type bytea"), ("", "type int8")} & planted


SLEEPS = "(SELECT 'x' FROM pg_sleep(3600))"
STRANGE = [
    (
        ["ALTER TABLE alembic_version RENAME TO moved", f"CREATE VIEW alembic_version AS SELECT {SLEEPS} version_num"],
        ("alembic_version", "relation alembic_version", "does not belong here"),
    ),
    (
        ["ALTER TABLE keyring_slots RENAME TO moved", f"CREATE VIEW keyring_slots AS SELECT {SLEEPS} id"],
        ("keyring_slots", "relation keyring_slots", "does not belong here"),
    ),
    (["CREATE POLICY evil ON keys USING (pg_sleep(3600) IS NULL)"], ("keys", "policy evil", "does not belong here")),
    (
        ["ALTER TABLE keys ADD COLUMN evil bigint GENERATED ALWAYS AS (created_at) STORED"],
        ("keys", "column evil", "is computed"),
    ),
]


STRANGE += [
    (
        [
            "CREATE SCHEMA evil",
            "CREATE TYPE evil.t AS ENUM ('x')",
            "ALTER TABLE keys ADD COLUMN evil evil.t",
        ],
        ("keys", "column evil", "is of a type of somebody's own"),
    ),
    (
        ["CREATE SCHEMA evil", "CREATE TABLE evil.child () INHERITS (keyring_slots)"],
        ("keyring_slots", "child child", "does not belong here"),
    ),
]


@pytest.mark.parametrize(("statements", "found"), STRANGE)
def test_what_would_run_something_is_not_read(
    postgres: Harness, statements: list[str], found: tuple[str, str, str]
) -> None:
    run(postgres.settings.database_url, *statements)
    told = [(one.table, one.row, one.problem) for one in postgres.ledger.inspect().findings]
    assert told == [found], "while it runs"
    postgres.vault.close()
    with pytest.raises(DamagedVault) as refused:
        postgres.open()
    assert [(one.table, one.row, one.problem) for one in refused.value.findings] == [found]
    assert [(one.table, one.row, one.problem) for one in verify_vault(postgres.settings).findings] == [found]


def test_what_belongs_to_an_extension_and_statistics_may_be_there(postgres: Harness) -> None:
    postgres.vault.close()
    # With types and their arrays, casts, operator classes, views.
    extensions = [f"CREATE EXTENSION IF NOT EXISTS {name}" for name in ("pageinspect", "hstore", "pg_buffercache")]
    run(postgres.settings.database_url, *extensions, "ANALYZE", "VACUUM FULL keys")
    postgres.open()


def test_honest_mistakes_are_stopped_by_triggers(postgres: Harness) -> None:
    postgres.key("orders")
    with closing(postgres.vault.database.writer()) as connection:
        for statement in (
            "DELETE FROM audit_logs WHERE id = 1",
            "UPDATE audit_logs SET result = 'denied' WHERE id = 1",
            "TRUNCATE audit_logs",
            "DELETE FROM keys",
            *(f"TRUNCATE {table} CASCADE" for table in NEVER_DELETED),
        ):
            with pytest.raises(driver.IntegrityError):
                connection.execute(statement)


def test_a_database_of_something_else_is_left_alone(postgres: Harness, databases: Databases, tmp_path: Path) -> None:
    url = databases.make()
    run(url, "CREATE TABLE notes (a int)")
    master = postgres.settings.master_key
    assert master is not None
    other = settings_for(tmp_path, master.get_secret_value(), url).model_copy(update={"anchor": "off"})
    with pytest.raises(Conflict, match="something else"):
        initialise_vault(other)
    assert run(url, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [(1,)]
    run(url, "DROP TABLE notes")
    with pytest.raises(NotFound):
        app.open_vault(other)
    with pytest.raises(NotFound):
        verify_vault(other)
    assert run(url, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [(0,)]
    databases.drop(url)


def test_a_schema_of_an_earlier_revision_gets_the_index_of_its_log(postgres: Harness) -> None:
    key = postgres.key("orders")
    postgres.vault.close()
    url = postgres.settings.database_url
    index = run(url, "SELECT * FROM audit_index ORDER BY 1, 2")
    assert (key.id, 0) in index
    run(
        url,
        "DROP TABLE audit_index",
        "CREATE INDEX ix_audit_logs_service_id ON audit_logs (service_id, id)",
        "CREATE INDEX ix_audit_logs_key_id ON audit_logs (key_id, id)",
        "UPDATE alembic_version SET version_num = '0002'",
    )
    postgres.open()
    assert run(url, "SELECT * FROM audit_index ORDER BY 1, 2") == index
    assert verify_vault(postgres.settings).valid


def test_a_newer_schema_is_not_touched(postgres: Harness) -> None:
    postgres.vault.close()
    run(postgres.settings.database_url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Conflict, match="another version"):
        postgres.open()
    run(postgres.settings.database_url, f"UPDATE alembic_version SET version_num = '{REVISION}'")
    postgres.open()


# What a writer of the database can do

EDITS = {
    "a revoked key is ACTIVE again": "UPDATE keys SET status = 'ACTIVE' WHERE name = 'revoked'",
    "a worker is ADMIN": "UPDATE services SET role = 'ADMIN' WHERE name = 'worker'",
    "a token is another service's": "UPDATE tokens SET service_id = (SELECT id FROM services WHERE name = 'admin')",
    "material is exchanged": (
        "UPDATE key_versions SET encrypted_key = (SELECT encrypted_key FROM key_versions ORDER BY id DESC LIMIT 1)"
    ),
    "a key is gone": "WITH gone AS (DELETE FROM key_versions RETURNING id) SELECT count(*) FROM gone",
    "an entry tells otherwise": "UPDATE audit_logs SET result = 'denied' WHERE id = 3",
    "an entry is gone": "DELETE FROM audit_logs WHERE id = 3",
    "the newest entry is gone": "DELETE FROM audit_logs WHERE id = (SELECT max(id) FROM audit_logs)",
    "the head is gone": "DELETE FROM ledger_head",
    "the head is smaller": "UPDATE ledger_head SET size = size - 1",
}


@pytest.fixture
def lived_in(postgres: Harness) -> Harness:
    postgres.key("orders")
    postgres.service("worker", grant("orders", "encrypt"))
    postgres.key("revoked")
    postgres.ask(RevokeKey(KeyRef("revoked")))
    postgres.ask(UpdateService("worker", active=False))
    postgres.ask(Encrypt(KeyRef("orders"), plaintext=b"x"))
    return postgres


def tamper(harness: Harness, statement: str) -> None:
    # As a superuser can: without triggers and foreign keys, which are as they were afterwards.
    run(harness.settings.database_url, "SET session_replication_role = replica", statement)


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_is_found_by_a_check_and_at_the_start(lived_in: Harness, what: str) -> None:
    tamper(lived_in, EDITS[what])
    found = lived_in.ledger.verify()
    assert not found.valid
    assert found.reason
    assert not verify_vault(lived_in.settings).valid
    if what == "the head is smaller":
        return  # closing commits, and a commit writes the head as memory has it
    lived_in.vault.close()
    with pytest.raises(KeyVaultError):
        lived_in.open()


def test_an_edit_is_found_by_the_next_operation(lived_in: Harness) -> None:
    lived_in.ask(ReadKey(KeyRef("orders")))
    tamper(lived_in, EDITS["a worker is ADMIN"])
    lived_in.ask(ReadKey(KeyRef("orders")))
    assert [entry.draft.action for entry in lived_in.log()[-2:]] == [Action.INTEGRITY, Action.KEY_READ]
    # The next edit is looked for a second later, and not forgotten until then.
    tamper(lived_in, EDITS["a revoked key is ACTIVE again"])
    deadline = time.monotonic() + 5
    while sum(entry.draft.action is Action.INTEGRITY for entry in lived_in.log()) < 2:
        assert time.monotonic() < deadline
        lived_in.ask(ReadKey(KeyRef("orders")))
        time.sleep(0.05)


def test_an_edit_begun_before_and_committed_after_ours_is_found(lived_in: Harness) -> None:
    lived_in.ask(ReadKey(KeyRef("orders")))
    with psycopg.connect(lived_in.settings.database_url) as edit:
        edit.execute("SET session_replication_role = replica")
        edit.execute("UPDATE services SET role = 'ADMIN' WHERE name = 'worker'")
        lived_in.ask(ReadKey(KeyRef("orders")))
        lived_in.ask(ReadKey(KeyRef("orders")))
    lived_in.ask(ReadKey(KeyRef("orders")))
    assert lived_in.log()[-2].draft.action is Action.INTEGRITY


def test_a_planted_trigger_stops_the_service(lived_in: Harness) -> None:
    lived_in.ask(ReadKey(KeyRef("orders")))
    run(lived_in.settings.database_url, PLANTED[4])
    with pytest.raises(KeyVaultError) as refused:
        lived_in.ask(ReadKey(KeyRef("orders")))
    assert refused.value.code == "integrity_violation"


def test_what_others_do_elsewhere_on_the_server_is_no_alarm(lived_in: Harness, databases: Databases) -> None:
    elsewhere = databases.make()
    run(elsewhere, "CREATE TABLE notes (a int)")
    for number in range(3):
        run(elsewhere, f"INSERT INTO notes VALUES ({number})")
        lived_in.ask(ReadKey(KeyRef("orders")))
    databases.drop(elsewhere)
    assert all(entry.draft.action is not Action.INTEGRITY for entry in lived_in.log())
    assert lived_in.ask(VerifyAudit()).valid


@pytest.mark.parametrize(
    ("before", "after", "ended"),
    [
        ("5:5:", "5:5:", set()),
        ("5:5:", "6:6:", {5}),
        ("5:8:5,7", "5:8:5", {7}),
        ("5:8:5,7", "8:10:8", {5, 7, 9}),
        ("5:5:", "50000:50000:", None),
    ],
)
def test_which_transactions_have_ended_between_two_snapshots(before: str, after: str, ended: set[int] | None) -> None:
    first, second = Snapshot.read(before), Snapshot.read(after)
    assert first is not None
    assert second is not None
    assert second.ended_since(first) == ended


@pytest.mark.parametrize("text", [None, 5, "", "5:5", "a:b:c", "1:2:3;"])
def test_what_is_no_snapshot(text: object) -> None:
    assert Snapshot.read(text) is None


# Servers and sessions that cannot be relied on


@pytest.mark.parametrize(("setting", "value"), [("session_replication_role", "replica"), ("synchronous_commit", "off")])
def test_settings_of_the_role_that_lose_what_is_acknowledged(postgres: Harness, setting: str, value: str) -> None:
    postgres.vault.close()
    name = run(postgres.settings.database_url, "SELECT current_database()")[0][0]
    run(postgres.settings.database_url, f'ALTER DATABASE "{name}" SET {setting} = {value}')
    if setting == "synchronous_commit":
        postgres.open()  # each session sets it right for itself
        with closing(postgres.vault.database.writer()) as connection:
            assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
        return
    with pytest.raises(AuditUnavailable, match="session_replication_role"):
        postgres.open()
    run(postgres.settings.database_url, f'ALTER DATABASE "{name}" RESET {setting}')
    postgres.open()


def test_a_database_in_another_encoding_is_refused(databases: Databases, postgres: Harness) -> None:
    databases.run("CREATE DATABASE kvl_latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    url = databases.of("kvl_latin")
    other = postgres.settings.model_copy(update={"database_url": url, "anchor": "off"})
    with pytest.raises(AuditUnavailable, match="server_encoding"):
        initialise_vault(other)
    databases.drop(url)


def test_a_server_that_is_not_there_is_told_in_a_sentence_without_the_password(postgres: Harness) -> None:
    url = "postgresql://kvl:hush@127.0.0.1:1/vault"
    other = postgres.settings.model_copy(update={"database_url": url})
    with pytest.raises(AuditUnavailable) as refused:
        app.open_vault(other)
    assert "127.0.0.1:1/vault" in str(refused.value)
    assert "hush" not in str(refused.value)
    assert "hush" not in repr(other)
    with pytest.raises(InvalidRequest) as malformed:
        app.open_vault(postgres.settings.model_copy(update={"database_url": "postgresql://kvl:hush@[::1/v"}))
    assert "hush" not in str(malformed.value)


def test_what_no_column_can_hold_keeps_nobody_else_from_being_recorded(postgres: Harness) -> None:
    with pytest.raises(InvalidRequest):
        CreateKey(AES, description="a\x00b")
    name = KeyRef(postgres.key().id)
    draft = Draft(action=Action.RANDOM, result=Result.SUCCESS, request_id=os.urandom(16), comment="a\x00b")
    poison = Outcome((draft,), None)

    async def all_at_once() -> list[Any]:
        commit = postgres.ledger.commit(poison, postgres.ledger.snapshot().snapshot_version, lambda _: poison)
        mates = [postgres.perform(Encrypt(name, plaintext=b"x")) for _ in range(5)]
        return await asyncio.gather(*mates[:3], commit, *mates[3:], return_exceptions=True)

    results = postgres.run(all_at_once())
    assert isinstance(results.pop(3), AuditUnavailable)
    assert all(isinstance(one, Answer) for one in results), results
    assert postgres.ask(VerifyAudit()).valid
