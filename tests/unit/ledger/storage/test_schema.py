"""The schema: what migrations make is what the tables say, and what does not belong is found."""

import json
import subprocess
import sys
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from keyvault_lite import app
from keyvault_lite.audit.entry import ENTRY_COLUMNS
from keyvault_lite.ledger.opening import open_database, prepare
from keyvault_lite.ledger.state.head import Head
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.schema import FORMATS, HEAD_COLUMNS, IN_ROOT, NEVER_DELETED, TABLES, TRIGGERS
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.ledger.storage.sqlite.schema_check import USUAL, _facts, check_schema, digest_of, expected_schema
from keyvault_lite.ledger.storage.tables import ONE_ACTIVE, metadata
from keyvault_lite.ledger.storage.upgrade import REVISION, revision_of, run_migrations
from keyvault_lite.model.errors import (
    AuditUnavailable,
    Conflict,
    IntegrityViolation,
    InvalidRequest,
    KeyVaultError,
    NotFound,
)
from keyvault_lite.model.replies import Finding
from keyvault_lite.model.requests import CreateKey
from keyvault_lite.operator.initialise import initialise_vault
from keyvault_lite.operator.verify import verify_vault as verify
from tests.support.harness import AES, Harness, create_vault, settings_for

SCHEMA = Path(__file__).with_name("schema.json")
POSTGRESQL = postgresql.dialect()  # type: ignore[no-untyped-call]
COLUMNS = 'SELECT name, type, "notnull", pk FROM pragma_table_info(?) ORDER BY cid'
REFERENCES = 'SELECT "table", "from", "to" FROM pragma_foreign_key_list(?)'


def edit(path: Path, *statements: str) -> None:
    connection = driver.connect(str(path), isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_migrations_make_exactly_the_tables(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "v.db")
    assert prepare(database) == ()
    connection = database.writer()
    assert revision_of(connection, database.tables(connection)) == REVISION
    assert check_schema(connection) == []
    connection.close()
    # SQLAlchemy's own comparison sees the same: nothing to migrate.
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = sa.create_engine("sqlite://", module=driver.dbapi, creator=database.writer, poolclass=sa.NullPool)
    with engine.connect() as handed:
        assert compare_metadata(MigrationContext.configure(handed), metadata) == []
    engine.dispose()
    assert prepare(database) == (), "a second time there is nothing to do"


def test_the_stored_schema_is_the_one_on_record(harness: Harness) -> None:
    """A difference is a migration, or a mistake: the file says what every vault of this revision has."""
    with closing(driver.connect(str(harness.path))) as connection:
        made = {
            table: {
                "columns": [list(row) for row in connection.execute(COLUMNS, (table,))],
                "references": sorted(list(row) for row in connection.execute(REFERENCES, (table,))),
            }
            for table in sorted(metadata.tables)
        }
    assert made == json.loads(SCHEMA.read_text(encoding="utf-8"))


@pytest.mark.parametrize("dialect", [sqlite.dialect(), POSTGRESQL])
def test_a_key_has_one_active_version_on_each_database(dialect: sa.Dialect) -> None:
    made = str(CreateIndex(ONE_ACTIVE).compile(dialect=dialect))
    assert made.startswith("CREATE UNIQUE INDEX")
    assert made.endswith("(key_id) WHERE status = 'ACTIVE'")


def test_no_database_counts_rows_itself() -> None:
    """A number that the log, its head or its tiles need is the one that the vault gives."""
    made = [str(CreateTable(table).compile(dialect=POSTGRESQL)) for table in metadata.tables.values()]
    assert not [statement for statement in made if "SERIAL" in statement or "IDENTITY" in statement]


def test_the_tables_of_the_specification() -> None:
    named = {
        "keys": {"id", "type", "purpose", "status", "created_at"},
        "key_versions": {"id", "key_id", "version", "encrypted_key", "status", "created_at"},
        "services": {"id", "name", "role", "active"},
        "audit_logs": {
            "id",
            "service_id",
            "action",
            "key_id",
            "key_version",
            "timestamp",
            "result",
            "prev_hash",
            "hash",
        },
    }
    for table, columns in named.items():
        assert columns <= set(metadata.tables[table].columns.keys())
    assert all(form.key_of(form.columns) == form.key for form in FORMATS.values()), "key columns come first"
    assert set(IN_ROOT) < set(FORMATS)
    expected_schema.cache_clear()  # it may have been worked out by another test
    assert digest_of(expected_schema()) == USUAL, "what this version expects has another digest: name it"


def test_names_and_columns_are_those_of_the_tables() -> None:
    assert sorted((*metadata.tables, "alembic_version")) == sorted(TABLES)
    for table in metadata.tables.values():
        for key in table.foreign_keys:
            assert TABLES.index(table.name) < TABLES.index(key.column.table.name), "it is removed before what it names"
    assert set(NEVER_DELETED) < set(TABLES)
    assert tuple(metadata.tables["audit_logs"].columns.keys()) == ENTRY_COLUMNS
    sealed = {name: table for name, table in metadata.tables.items() if "row_mac" in table.columns}
    assert set(sealed) == set(FORMATS)
    for name, table in sealed.items():
        form = FORMATS[name]
        assert (form.name, form.key) == (name, tuple(table.primary_key.columns.keys()))
        assert (*form.columns, "row_seq", "row_mac") == tuple(table.columns.keys())


def test_a_start_on_a_current_database_needs_no_sqlalchemy(tmp_path: Path) -> None:
    master, _ = create_vault(tmp_path)
    script = (
        "import json, sys; from keyvault_lite import app, settings; "
        "app.open_vault(settings.load(**json.loads(sys.stdin.read()))).close(); "
        "sys.exit('sqlalchemy' in sys.modules)"
    )
    names = {"database_url": settings_for(tmp_path, master).database_url, "master_key": master, "master_key_file": None}
    subprocess.run([sys.executable, "-c", script], input=json.dumps(names), text=True, check=True)


PLANTED = [
    "CREATE TRIGGER evil AFTER INSERT ON audit_logs BEGIN UPDATE services SET role = 'ADMIN'; END",
    "CREATE TRIGGER evil AFTER INSERT ON alembic_version BEGIN UPDATE services SET role = 'ADMIN'; END",
    "CREATE VIEW evil AS SELECT 1",
    "CREATE TABLE evil (a)",
    "CREATE INDEX evil ON keys (name)",
    "CREATE UNIQUE INDEX evil ON audit_logs (result)",
    "DROP INDEX ix_key_versions_one_active",
    "DROP TABLE audit_index",
    "DROP TRIGGER audit_logs_no_update",
    "DROP TRIGGER keys_no_delete",
    "ALTER TABLE keys ADD COLUMN evil",
    "ALTER TABLE keys ADD COLUMN evil GENERATED ALWAYS AS (1) VIRTUAL",
    "ALTER TABLE keys RENAME COLUMN description TO evil",
    "ALTER TABLE tiles RENAME TO evil",
]


@pytest.mark.parametrize("statement", PLANTED)
def test_what_was_planted_or_taken_away_is_found(harness: Harness, statement: str) -> None:
    harness.vault.close()
    edit(harness.path, statement)
    with pytest.raises(KeyVaultError) as refused:
        harness.open()
    assert refused.value.code in {"integrity_violation", "audit_unavailable"}


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("CREATE VIEW evil AS SELECT 1", Finding("evil", "view evil", "does not belong here")),
        (
            "DROP TRIGGER audit_logs_no_update",
            Finding("audit_logs", "trigger audit_logs_no_update", "is missing or changed"),
        ),
    ],
)
def test_what_is_wrong_with_the_schema_is_named(harness: Harness, statement: str, found: Finding) -> None:
    with closing(harness.vault.database.writer()) as connection:
        assert check_schema(connection) == []
        connection.execute(statement)
        assert check_schema(connection) == [found]


BURSTS = "abs(-9223372036854775808)"
"""Fails as soon as anybody computes it: a stand-in for what never ends."""


def in_place_of(table: str) -> list[str]:
    """A view that has the name and the columns of a table."""
    columns = ", ".join(f"{BURSTS} AS {name}" for name in columns_of(table))
    return [f"ALTER TABLE {table} RENAME TO moved", f"CREATE VIEW {table} AS SELECT {columns}"]


def columns_of(table: str) -> list[str]:
    return ["version_num"] if table == "alembic_version" else list(metadata.tables[table].columns.keys())


def rewritten(name: str, old: str, new: str) -> list[str]:
    """The stored statement of an object, edited."""
    edited = f"UPDATE sqlite_master SET sql = replace(sql, '{old}', '{new}') WHERE name = '{name}'"
    return ["PRAGMA writable_schema = ON", edited, "PRAGMA writable_schema = RESET"]


STRANGE = [
    *((in_place_of(table), Finding(table, f"view {table}", "does not belong here")) for table in TABLES),
    (
        ["CREATE VIEW evil AS SELECT 1", *rewritten("evil", "CREATE VIEW", "CREATE /* TABLE evil ( */ VIEW")],
        Finding("evil", "view evil", "does not belong here"),
    ),
    (
        ["CREATE VIRTUAL TABLE evil USING rtree (id, low, high)"],
        Finding("evil", "table evil", "does not belong here"),
    ),
    (
        [f"ALTER TABLE keys ADD COLUMN evil GENERATED ALWAYS AS ({BURSTS})"],
        Finding("keys", "column evil", "is computed or hidden"),
    ),
]


@pytest.mark.parametrize(("statements", "found"), STRANGE)
def test_what_would_run_something_is_not_read(harness: Harness, statements: list[str], found: Finding) -> None:
    assert harness.ledger.inspect().findings == []
    edit(harness.path, *statements)
    assert harness.ledger.inspect().findings == [found], "while it runs"
    harness.vault.close()
    with pytest.raises(DamagedVault) as refused:
        harness.open()
    assert refused.value.findings == (found,)
    assert verify(harness.settings).findings == (found,)


def test_the_guard_of_a_table_that_is_gone_is_no_row_to_set_aside(harness: Harness) -> None:
    harness.vault.close()
    edit(harness.path, "DROP TRIGGER keys_no_delete")
    with pytest.raises(DamagedVault, match="trigger keys_no_delete: is missing or changed"):
        app.open_vault(harness.settings, quarantine=True)


def test_conditions_of_a_schema_that_was_changed_are_not_run(harness: Harness) -> None:
    harness.vault.close()
    edit(harness.path, *rewritten("tiles", "level INTEGER NOT NULL", f"level INTEGER NOT NULL CHECK ({BURSTS})"))
    found = verify(harness.settings).findings
    assert [(one.table, one.row) for one in found] == [("tiles", "constraints")] * 2


CLAUSES = (
    "",
    "ON DELETE CASCADE",
    "ON UPDATE CASCADE",
    "ON DELETE SET NULL",
    "DEFERRABLE INITIALLY DEFERRED",
    "MATCH FULL",
)


def test_references_that_differ_in_anything_are_others() -> None:
    digests = set()
    for clause in CLAUSES:
        with closing(driver.connect(":memory:", isolation_level=None)) as connection:
            connection.execute("CREATE TABLE one (id INTEGER PRIMARY KEY)")
            connection.execute(f"CREATE TABLE two (id INTEGER REFERENCES one (id) {clause})")
            digests.add(digest_of(frozenset(_facts(connection))))
    assert len(digests) == len(CLAUSES)


@pytest.mark.parametrize("statement", ["CREATE VIEW evil AS SELECT 1", "DROP TRIGGER audit_logs_no_update"])
def test_a_change_of_the_schema_under_a_running_vault_stops_it(harness: Harness, statement: str) -> None:
    harness.key("before")
    edit(harness.path, statement)
    for name in ("next", "after"):
        refused = harness.refusal(CreateKey(AES, name), IntegrityViolation)
        assert "the database was changed" in refused.detail


def test_the_definition_of_a_trigger_and_of_an_index_counts(harness: Harness) -> None:
    harness.vault.close()
    edit(
        harness.path,
        "DROP TRIGGER audit_logs_no_update",
        "CREATE TRIGGER audit_logs_no_update BEFORE UPDATE ON audit_logs BEGIN SELECT 1; END",
        "DROP INDEX ix_key_versions_one_active",
        "CREATE UNIQUE INDEX ix_key_versions_one_active ON key_versions (key_id) WHERE status = 'NONE'",
    )
    with pytest.raises(DamagedVault) as refused:
        harness.open()
    assert {one.table for one in refused.value.findings} == {"audit_logs", "key_versions"}
    edit(
        harness.path,
        "DROP TRIGGER audit_logs_no_update",
        TRIGGERS["audit_logs_no_update"].replace(" ON ", "\n  ON "),
        "DROP INDEX ix_key_versions_one_active",
        "CREATE UNIQUE INDEX ix_key_versions_one_active ON key_versions (key_id)\n where  status =\n 'ACTIVE'",
    )
    harness.open()


def test_honest_mistakes_are_stopped_by_triggers(harness: Harness) -> None:
    harness.key("orders")
    connection = driver.connect(str(harness.path), isolation_level=None)
    for statement in (
        "DELETE FROM audit_logs WHERE id = 1",
        "UPDATE audit_logs SET result = 'denied' WHERE id = 1",
        *(f"DELETE FROM {table}" for table in IN_ROOT if table not in {"key_names", "settings"}),
    ):
        with pytest.raises(driver.IntegrityError):
            connection.execute(statement)
    connection.close()


def test_the_statistics_of_the_database_may_be_there(harness: Harness) -> None:
    harness.vault.close()
    edit(harness.path, "ANALYZE")
    harness.open()


# Databases that are not ours, or not there


def test_a_database_of_something_else_is_left_alone(harness: Harness, tmp_path: Path) -> None:
    other = tmp_path / "other" / "vault.db"
    other.parent.mkdir()
    edit(other, "CREATE TABLE notes (a)")
    with pytest.raises(Conflict, match="something else"):
        initialise_vault(settings_for(other.parent, harness.settings.master_key.get_secret_value()))  # type: ignore[union-attr]
    connection = driver.connect(str(other))
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("notes",)]
    connection.close()


def test_a_newer_schema_is_not_touched(harness: Harness) -> None:
    harness.vault.close()
    edit(harness.path, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Conflict, match="another version"):
        harness.open()
    edit(harness.path, f"UPDATE alembic_version SET version_num = '{REVISION}'")
    harness.open()


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_a_database_of_an_earlier_revision_gets_its_triggers_and_the_index_of_its_log(
    harness: Harness, revision: str
) -> None:
    key = harness.key()
    harness.vault.close()
    with closing(driver.connect(str(harness.path))) as connection:
        index = connection.execute("SELECT * FROM audit_index").fetchall()
    assert (key.id, 0) in index
    edit(
        harness.path,
        "DROP TRIGGER tokens_no_delete",
        "CREATE TRIGGER tokens_no_delete BEFORE DELETE ON tokens BEGIN SELECT RAISE(ABORT, 'never'); END",
        "DROP TABLE audit_index",
        "CREATE INDEX ix_audit_logs_service_id ON audit_logs (service_id, id)",
        "CREATE INDEX ix_audit_logs_key_id ON audit_logs (key_id, id)",
        f"UPDATE alembic_version SET version_num = '{revision}'",
    )
    harness.open()
    with closing(driver.connect(str(harness.path))) as connection:
        assert revision_of(connection, frozenset({"alembic_version"})) == REVISION
        assert check_schema(connection) == []
        assert connection.execute("SELECT * FROM audit_index").fetchall() == index
    assert verify(harness.settings).valid


def test_a_database_that_names_no_revision_is_at_none() -> None:
    with closing(driver.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num)")
        assert revision_of(connection, frozenset({"alembic_version"})) is None


def test_a_schema_that_cannot_be_made_whole_is_not_made(tmp_path: Path) -> None:
    with closing(SqliteDatabase(tmp_path / "v.db").writer()) as connection:
        before = connection.execute("SELECT name FROM sqlite_master").fetchall()
        with pytest.raises(driver.Error, match="no such table"):
            run_migrations(
                "sqlite://", connection, begin="BEGIN IMMEDIATE", after=["DROP TABLE absent"], module=driver.dbapi
            )
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == before


def test_a_revision_that_is_not_that_of_the_tables_is_damage(harness: Harness) -> None:
    harness.vault.close()
    edit(harness.path, "UPDATE alembic_version SET version_num = '0002'", "DROP TABLE tokens")
    with pytest.raises(DamagedVault, match="alembic_version"):
        harness.open()


def test_what_is_no_database_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "v.db").write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    with pytest.raises(AuditUnavailable, match=r"v\.db"):
        prepare(SqliteDatabase(tmp_path / "v.db"))
    with pytest.raises(AuditUnavailable):
        prepare(SqliteDatabase(tmp_path / "absent" / "v.db"))


def test_looking_for_a_vault_makes_none(harness: Harness, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(NotFound):
        app.open_vault(settings_for(empty, harness.settings.master_key.get_secret_value()))  # type: ignore[union-attr]
    assert not (empty / "vault.db").exists()


@pytest.mark.parametrize("url", ["", "v.db", "sqlite://", "sqlite:///", "sqlite://host/v.db", "mysql:///v.db"])
def test_urls_that_name_no_database(url: str) -> None:
    with pytest.raises(InvalidRequest):
        open_database(url)


def test_a_server_elsewhere_is_not_used_without_tls_unless_that_is_said() -> None:
    url = "postgresql://kvl@db.example/vault?sslmode=disable"
    with pytest.raises(InvalidRequest, match="verify-full"):
        open_database(url)
    open_database(url, allow_plain=True)


def test_urls_that_name_one() -> None:
    assert open_database("sqlite:////tmp/a%20b.db").place == "/tmp/a b.db"
    assert open_database("sqlite:///v.db").place == str(Path.cwd() / "v.db")


def test_files_are_for_their_owner_alone(harness: Harness) -> None:
    harness.key()
    modes = {file.name: file.stat().st_mode & 0o777 for file in harness.path.parent.iterdir()}
    assert set(modes.values()) == {0o600}, modes


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_logs SET action = 'x' WHERE id = 1",
        "DELETE FROM audit_logs WHERE id = 1",
        "INSERT OR REPLACE INTO audit_logs SELECT * FROM audit_logs WHERE id = 1",
        "INSERT OR REPLACE INTO audit_logs SELECT * FROM audit_logs WHERE id = (SELECT max(id) FROM audit_logs)",
    ],
)
def test_an_entry_is_not_changed_by_mistake(harness: Harness, statement: str) -> None:
    """The triggers stop whoever does not mean to forge."""
    with closing(driver.connect(str(harness.path))) as connection, pytest.raises(driver.IntegrityError):
        connection.execute(statement)


def test_the_columns_of_the_head_are_the_fields_of_its_record() -> None:
    assert tuple(field.name for field in fields(Head)) == HEAD_COLUMNS
