"""Every column of every row: all rows of a table changed in one column at once, and each of them named."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.tables import metadata
from keyvault_lite.ledger.verify.inspection import MAX_FINDINGS
from tests.suites.tamper.mutations import KEYS, columns_of, label, loosened, others, set_value
from tests.suites.tamper.sample_vault import SampleVault, VaultCopy

COLUMNS = [
    (table, column.name)
    for table in sorted(KEYS.keys() - {"alembic_version"})
    for column in metadata.tables[table].columns
    if column.name not in KEYS[table]
]


def typed(connection: sqlite3.Connection, table: str, column: str) -> dict[tuple[Any, ...], str]:
    """By key: what stands in the column, with its type."""
    keys = ", ".join(KEYS[table])
    rows = connection.execute(f"SELECT {keys}, quote(CAST({column} AS BLOB)), typeof({column}) FROM {table}")
    return {row[:-2]: repr(row[-2:]) for row in rows}


def change_all(copy_of: VaultCopy, table: str, column: str, rng: random.Random) -> Iterator[str]:
    """Change the column in every row, and yield how findings have to name those that hold another value now."""
    with loosened(copy_of, table) as connection:
        names = columns_of(connection, table)
        before = typed(connection, table, column)
        for row in connection.execute(f"SELECT * FROM {table}").fetchall():
            values = dict(zip(names, row, strict=True))
            key = tuple(values[name] for name in KEYS[table])
            for value in rng.sample(found := others(values[column], rng), len(found)):
                try:
                    set_value(connection, table, key, column, value)
                except driver.IntegrityError:
                    continue  # a unique index wants another one
                if typed(connection, table, column)[key] != before[key]:
                    yield label(table, key)
                    break


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_each_row_is_named(vault: SampleVault, tmp_path: Path, table: str, column: str) -> None:
    copy_of = vault.copy(tmp_path / "copy_of")
    expected = set(change_all(copy_of, table, column, random.Random(f"{table}.{column}")))
    with closing(driver.connect(str(copy_of.database))) as connection:
        rows = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    assert len(expected) == rows
    found = copy_of.verify()
    named = {one.row for one in found.findings if one.table == table}
    assert expected <= named, (sorted(expected - named)[:3], found.findings[:3])
    if table not in {"ledger_head", "key_versions", "keys"}:
        assert named == expected, "nothing else is named"
    assert len(found.findings) <= MAX_FINDINGS
