"""A record type is declared once: the declarations are complete, and one more needs nothing but its migration."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.ledger.storage.record_types import RECORD_TYPES, RecordType
from keyvault_lite.ledger.storage.schema import FORMATS, IN_ROOT, MAY_BE_LOST, NEVER_DELETED, TABLES
from keyvault_lite.ledger.storage.tables import metadata
from tests.support.paths import ROOT, SOURCE

ONE_MORE = """
import os, sys
from dataclasses import dataclass
from pathlib import Path

from keyvault_lite.ledger.storage import record_types
from keyvault_lite.model.evidence import Action


@dataclass(frozen=True)
class Approval:
    id: str
    by: str
    at: int


APPROVALS = record_types.RecordType(
    table="approvals",
    kind=Approval,
    columns=record_types._columns("id:text by:text at:integer"),
    to_row=lambda one: (one.id, one.by, one.at),
    from_row=lambda row: Approval(*row),
    identity=lambda one: one.id,
    written_by=frozenset({Action.SERVICE_UPDATE}),
)
record_types.RECORD_TYPES.append(APPROVALS)

# Its migration.
import sqlalchemy as sa
from keyvault_lite.ledger.storage import upgrade
from keyvault_lite.ledger.storage.sqlite import database
from keyvault_lite.ledger.storage.tables import metadata

run = upgrade.run_migrations
table = metadata.tables["approvals"]
made = [str(sa.schema.CreateTable(table)), *(str(sa.schema.CreateIndex(one)) for one in table.indexes)]


def with_one_more(url, connection, *, begin, after, **how):
    exists = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'approvals'").fetchone()
    run(url, connection, begin=begin, after=[*([] if exists else made), *after], **how)


database.run_migrations = with_one_more

from keyvault_lite.ledger.state.outcome import Change, Outcome
from keyvault_lite.ledger.storage import driver
from keyvault_lite.model.evidence import Draft, Result
from keyvault_lite.model.requests import VerifyAudit
from keyvault_lite.operator.verify import verify_vault
from tests.support.harness import Harness, create_vault, settings_for

folder = Path(sys.argv[1])
master, token = create_vault(folder)
harness = Harness(settings_for(folder, master), token)


def record(*records):
    draft = Draft(
        action=Action.SERVICE_UPDATE, result=Result.SUCCESS, request_id=os.urandom(16), subject=records[0].id
    )
    outcome = Outcome((draft,), None, Change(records=records))
    version = harness.ledger.snapshot().snapshot_version
    harness.run(harness.ledger.commit(outcome, version, lambda _: outcome))


record(Approval("a1", "ada", 1))
old = driver.connect(str(harness.path)).execute("SELECT * FROM approvals").fetchall()
record(Approval("a1", "bob", 2))
record(Approval("a2", "ada", 3))
assert harness.ledger.snapshot().record(APPROVALS, "a1") == Approval("a1", "bob", 2)
assert harness.ask(VerifyAudit()).findings == ()
harness.reopen()
assert harness.ledger.snapshot().records(APPROVALS) == [Approval("a1", "bob", 2), Approval("a2", "ada", 3)]
assert harness.ask(VerifyAudit()).findings == ()
harness.close()

# A row that was put back, with its genuine MAC, is found and named; an edited one too.
connection = driver.connect(str(folder / "vault.db"), isolation_level=None)
connection.execute("DROP TRIGGER approvals_no_delete")
connection.execute("INSERT OR REPLACE INTO approvals VALUES (?, ?, ?, ?, ?)", old[0])
connection.close()
found = {(one.table, one.row) for one in verify_vault(harness.settings).findings}
assert ("approvals", "a1") in found, found
print("sound")
"""


def test_one_more_record_type_is_a_declaration_and_a_migration(tmp_path: Path) -> None:
    """It goes through commit, state root, start and verification, and an old row put back is named."""
    done = subprocess.run(
        [sys.executable, "-c", ONE_MORE, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(SOURCE), str(ROOT)))},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "sound\n", done.stderr


@pytest.mark.parametrize("kind", RECORD_TYPES, ids=lambda kind: str(kind.table))
def test_every_declaration_is_complete(kind: RecordType[object]) -> None:
    names = tuple(column.name for column in kind.columns)
    assert FORMATS[kind.table].columns == names
    assert FORMATS[kind.table].key == names[: kind.key_columns]
    table = metadata.tables[kind.table]
    assert [(column.name, bool(column.nullable)) for column in table.columns][:-2] == [
        (column.name, column.nullable) for column in kind.columns
    ]
    assert kind.table in IN_ROOT
    assert kind.table in TABLES
    assert kind.table in NEVER_DELETED
    assert kind.table in MAY_BE_LOST
    assert kind.field is None or kind.field in {field.name for field in dataclasses.fields(Change)}
    for given in (kind.to_row, kind.from_row, kind.identity):
        assert callable(given)
