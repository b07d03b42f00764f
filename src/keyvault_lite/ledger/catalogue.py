"""The schema as the database itself describes it, compared with what this version expects: nothing more, nothing less.

A planted trigger or view could change what is written, a missing unique index what is possible. The comparison is of
the catalogue's meaning (columns, types, keys, indexes, triggers), never of the raw text of its statements.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import sqlalchemy as sa

from keyvault_lite.ledger import driver
from keyvault_lite.ledger.schema import TRIGGERS, metadata
from keyvault_lite.model.replies import Finding

_ALEMBIC = "alembic_version"
Fact = tuple[Any, ...]


def check_schema(connection: driver.Connection) -> list[Finding]:
    """What differs from the expected schema, a finding each."""
    found = frozenset(_facts(connection))
    missing = [Finding(str(fact[1]), str(fact[0]), "is missing or changed") for fact in expected_schema() - found]
    planted = [Finding(str(fact[1]), str(fact[0]), "does not belong here") for fact in found - expected_schema()]
    return sorted(missing + planted, key=lambda finding: (finding.table, finding.row, finding.problem))


@cache
def expected_schema() -> frozenset[Fact]:
    """The facts of a database made from the tables and triggers of this version."""
    engine = sa.create_engine("sqlite://", module=driver.dbapi)
    with engine.connect() as connection:
        metadata.create_all(connection)
        for statement in TRIGGERS.values():
            connection.exec_driver_sql(statement)
        raw = connection.connection.dbapi_connection
        facts = frozenset(_facts(raw))
    engine.dispose()
    return facts


def _facts(connection: Any) -> Iterator[Fact]:
    catalogue = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    for kind, name, table, sql in catalogue:
        if table == _ALEMBIC or table.startswith("sqlite_stat"):
            continue
        if kind == "table":
            quoted = '"' + name.replace('"', '""') + '"'
            for _, column, column_type, required, default, place in connection.execute(f"PRAGMA table_info({quoted})"):
                yield f"column {column}", name, column_type.upper(), required, default, place
            for row in connection.execute(f"PRAGMA foreign_key_list({quoted})"):
                yield "foreign key", name, row[3], row[2], row[4], row[5], row[6]
            checks = sorted(re.findall(r"CHECK\s*\((.*?)\)", sql, re.IGNORECASE))
            yield "checks", name, tuple(map(_normal, checks)), "WITHOUT ROWID" in sql.upper()
            for _, index, unique, origin, partial in connection.execute(f"PRAGMA index_list({quoted})"):
                columns = tuple(
                    row[2] for row in connection.execute('PRAGMA index_info("' + index.replace('"', '""') + '")')
                )
                # Indexes behind a constraint have names of the database's own making.
                label = f"index {index}" if origin == "c" else "unique constraint"
                yield label, name, columns, unique, partial
        elif kind == "index" and sql is not None:
            where = re.search(r"\bWHERE\b(.*)$", sql, re.IGNORECASE | re.DOTALL)
            yield f"condition of {name}", table, _normal(where.group(1)) if where else ""
        elif kind in {"trigger", "view"}:
            yield f"{kind} {name}", table, _normal(sql)


def _normal(sql: str) -> str:
    return re.sub(r"\s+", " ", sql.replace('"', "")).strip().lower()
