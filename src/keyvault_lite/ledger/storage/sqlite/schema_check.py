"""The schema as the database itself describes it, compared with what this version expects: nothing more, nothing less.

A planted trigger or view could change what is written, a missing unique index what is possible. The comparison is of
the catalogue's meaning (columns, types, keys, indexes, triggers), never of the raw text of its statements. What SQLite
tells nowhere else (conflict clauses, collations) is read from the text as a set of words.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.schema import TRIGGERS
from keyvault_lite.model.replies import Finding

_ALEMBIC: Final = (
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
    "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
)
_CATALOGUE: Final = "SELECT type, name, tbl_name, sql FROM sqlite_master"
_STATISTICS: Final = frozenset({"sqlite_stat1", "sqlite_stat4"})
"""What ANALYZE makes; it changes how fast answers are, never which."""
_WORDS: Final = re.compile(
    r"\b(?:AUTOINCREMENT|CHECK|COLLATE\s+\w+|CONFLICT\s+\w+|DEFERRABLE|DEFERRED|GENERATED|MATCH\s+\w+|ROWID|STRICT"
    r"|USING)\b",
    re.IGNORECASE,
)
_ORDINARY: Final = re.compile(r'CREATE (?:TABLE\s+"?\w+"?\s*\(|(?:UNIQUE )?INDEX\b|TRIGGER\b)')
"""How SQLite keeps the statement of what can be read without running anything, whatever kind it is said to be of."""
MAX_SQL: Final = 20_000
"""Characters of a statement that are looked through: the longest one of the schema has a tenth."""
Fact = tuple[Any, ...]
USUAL: Final = "f92b3247fce3cf9547062d2fb15a5365c77555bdaf03c1feabc267956df1d7ce"
"""The digest of the facts that are expected: where it is found there is nothing to compare."""


def check_kinds(connection: driver.Connection) -> list[Finding]:
    """What is not an ordinary table, index or trigger, a finding each. It is looked at by its text, and never read.

    A view, a virtual table or a computed column returns what its author chose, after as long as the author chose.
    """
    strange: list[Finding] = []
    tables: list[str] = []
    for kind, name, table, sql in connection.execute(_CATALOGUE):
        if not all(isinstance(text, str) for text in (kind, name, table)):
            strange.append(Finding("schema", "an object", "does not belong here"))
        elif sql is not None and (not isinstance(sql, str) or _ORDINARY.match(sql) is None):
            strange.append(Finding(table, f"{kind} {name}", "does not belong here"))
        elif kind == "table":
            tables.append(name)
    if not strange:
        for name in tables:
            columns = connection.execute(f"PRAGMA table_xinfo({_quoted(name)})")
            strange += [Finding(name, f"column {one[1]}", "is computed or hidden") for one in columns if one[6]]
    return strange


def check_schema(connection: driver.Connection) -> list[Finding]:
    """What differs from the expected schema, a finding each."""
    found = frozenset(_facts(connection))
    if digest_of(found) == USUAL:
        return []
    missing = [Finding(str(fact[1]), str(fact[0]), "is missing or changed") for fact in expected_schema() - found]
    planted = [Finding(str(fact[1]), str(fact[0]), "does not belong here") for fact in found - expected_schema()]
    return sorted(missing + planted, key=lambda finding: (finding.table, finding.row, finding.problem))


def digest_of(facts: frozenset[Fact]) -> str:
    """A name for these facts: SHA-256 of them in order."""
    return hashlib.sha256("\n".join(sorted(map(repr, facts))).encode()).hexdigest()


@cache
def expected_schema() -> frozenset[Fact]:
    """The facts of a database made from the tables and triggers of this version."""
    # Imported here: they take a fifth of a second and 15 MB, which a start on a schema that is as usual does not need.
    import sqlalchemy as sa

    from keyvault_lite.ledger.storage.tables import metadata

    engine = sa.create_engine("sqlite://", module=driver.dbapi)
    with engine.connect() as connection:
        metadata.create_all(connection)
        for statement in (_ALEMBIC, *TRIGGERS.values()):
            connection.exec_driver_sql(statement)
        raw = connection.connection.dbapi_connection
        facts = frozenset(_facts(raw))
    engine.dispose()
    return facts


def _facts(connection: Any) -> Iterator[Fact]:  # noqa: ANN401  (a connection of either driver)
    catalogue = connection.execute(_CATALOGUE).fetchall()
    for kind, name, table, sql in catalogue:
        if not all(isinstance(text, str) for text in (kind, name, table, "" if sql is None else sql)):
            yield "an object", "schema", repr((kind, name, table))[:MAX_SQL]
        elif len(sql or "") > MAX_SQL:
            yield f"{kind} {name}", table, "too long"
        elif kind == "table" and name not in _STATISTICS:
            yield from _table_facts(connection, name, str(sql))
        elif kind == "index" and sql is not None:
            where = re.search(r"\bWHERE\b(.*)$", sql, re.IGNORECASE | re.DOTALL)
            yield f"condition of {name}", table, _normal(where.group(1)) if where else ""
        elif kind != "table":
            # Triggers and views, indexes that SQLite makes for constraints, and whatever else is there.
            yield f"{kind} {name}", table, _normal(str(sql))


def _table_facts(connection: Any, name: str, sql: str) -> Iterator[Fact]:  # noqa: ANN401
    # table_xinfo tells hidden and generated columns too.
    for _, column, kind, required, default, place, hidden in connection.execute(f"PRAGMA table_xinfo({_quoted(name)})"):
        yield f"column {column}", name, kind.upper(), required, default, place, hidden
    for row in connection.execute(f"PRAGMA foreign_key_list({_quoted(name)})"):
        yield "foreign key", name, row[3], row[2], row[4], row[5], row[6], row[7]
    checks = sorted(re.findall(r"CHECK\s*\((.*?)\)", sql, re.IGNORECASE))
    words = sorted(_normal(word) for word in _WORDS.findall(sql))
    yield "constraints", name, tuple(map(_normal, checks)), tuple(words)
    for _, index, unique, origin, partial in connection.execute(f"PRAGMA index_list({_quoted(name)})"):
        columns = tuple(tuple(row[2:]) for row in connection.execute(f"PRAGMA index_xinfo({_quoted(index)})"))
        # Indexes behind a constraint have names of the database's own making.
        yield f"index {index}" if origin == "c" else "unique constraint", name, columns, unique, partial


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _normal(sql: str) -> str:
    return re.sub(r"\s+", " ", sql.replace('"', "")).strip().lower()
