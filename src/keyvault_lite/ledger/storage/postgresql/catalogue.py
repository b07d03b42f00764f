"""The schema as PostgreSQL's catalogue describes it, compared with what the tables in `schema.py` come to.

Whatever could change what is written or read is compared: columns, constraints, indexes, triggers, the function that
they call, rules, row security, inheritance; and that nothing else is in the schema, where a planted function, type
or operator could be taken for one of PostgreSQL's own. What belongs to an extension is left out.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.postgresql.qualified import REFUSE, SCHEMA, VERSION_TABLE, quote
from keyvault_lite.ledger.storage.schema import DELETED_ONLY, NEVER_DELETED
from keyvault_lite.ledger.storage.tables import ONE_ACTIVE, audit_logs, metadata
from keyvault_lite.model.replies import Finding

Fact = tuple[Any, ...]
_BODY: Final = (
    " BEGIN RAISE EXCEPTION USING MESSAGE = 'rows of ' || TG_TABLE_NAME || ' are never deleted, "
    "those of audit_logs never changed'; END "
)
_GUARDS: Final[Mapping[str, tuple[str, str]]] = {
    # TRUNCATE passes by triggers for rows.
    **{f"{table}_no_delete": (table, "DELETE") for table in NEVER_DELETED},
    **{f"{table}_no_truncate": (table, "TRUNCATE") for table in NEVER_DELETED},
    f"{audit_logs.name}_no_update": (audit_logs.name, "UPDATE"),
}


def _trigger(name: str, table: str, event: str) -> str:
    each = "STATEMENT" if event == "TRUNCATE" else "ROW"
    column, value = DELETED_ONLY.get(table, ("", ""))
    # As the catalogue writes it.
    when = f" WHEN (((old.{column})::text <> '{value}'::text))" if column and event == "DELETE" else ""
    return f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH {each}{when} EXECUTE FUNCTION {REFUSE}()"


TRIGGERS: Final = (
    *(f"DROP TRIGGER IF EXISTS {name} ON {table}" for name, (table, _) in _GUARDS.items()),
    f"CREATE OR REPLACE FUNCTION {REFUSE}() RETURNS trigger LANGUAGE plpgsql AS $${_BODY}$$",
    *(_trigger(name, *guard) for name, guard in _GUARDS.items()),
)
"""Created again at the end of each migration. They stop honest mistakes; a forger drops them and is detected."""

_NO_DELETE: Final = f"{audit_logs.name}_no_delete"
GUARD_OF_LOG: Final = (f"DROP TRIGGER {_NO_DELETE} ON {audit_logs.name}", _trigger(_NO_DELETE, *_GUARDS[_NO_DELETE]))
"""What takes the guard of the log away, and what puts it back: around the deletion of what was archived."""

_TYPES: Final[Mapping[type[Any], str]] = {
    sa.BigInteger: "bigint",
    sa.Integer: "integer",
    sa.String: "character varying",
    sa.LargeBinary: "bytea",
}
_FIRST_OF_OTHERS: Final = 16384
"""The first object number that is not PostgreSQL's own (FirstNormalObjectId)."""
_NOT_OF_EXTENSIONS: Final = (
    "NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.classid = '{0}'::regclass AND d.objid = o.oid "
    "AND d.deptype = 'e')"
)
_LOOKED_UP: Final = (
    (
        "SELECT 'function ' || o.proname, '', l.lanname::text, o.prosrc, o.prosecdef, coalesce(o.proconfig::text, ''), "
        "pg_catalog.format_type(o.prorettype, NULL), o.pronargs::int FROM pg_catalog.pg_proc o "
        f"JOIN pg_catalog.pg_language l ON l.oid = o.prolang WHERE o.pronamespace = {SCHEMA} "
        f"AND {_NOT_OF_EXTENSIONS.format('pg_catalog.pg_proc')}"
    ),
    (
        "SELECT 'operator ' || o.oprname, '' FROM pg_catalog.pg_operator o "
        f"WHERE o.oprnamespace = {SCHEMA} AND {_NOT_OF_EXTENSIONS.format('pg_catalog.pg_operator')}"
    ),
    # But for those that come with another: the row type of a relation, an array, a multirange.
    (
        "SELECT 'type ' || o.typname, '' FROM pg_catalog.pg_type o "
        f"WHERE o.typnamespace = {SCHEMA} AND o.typrelid = 0 AND o.typtype <> 'm' "
        "AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_type e WHERE e.typarray = o.oid) "
        f"AND {_NOT_OF_EXTENSIONS.format('pg_catalog.pg_type')}"
    ),
    *(
        f"SELECT '{kind} ' || o.{short}name, '' FROM pg_catalog.{table} o "
        f"WHERE o.{short}namespace = {SCHEMA} AND {_NOT_OF_EXTENSIONS.format('pg_catalog.' + table)}"
        for kind, table, short in (
            ("collation", "pg_collation", "coll"),
            ("conversion", "pg_conversion", "con"),
            ("operator class", "pg_opclass", "opc"),
            ("operator family", "pg_opfamily", "opf"),
        )
    ),
    # A cast is in no schema: one that is not PostgreSQL's own, from or to its types or ours.
    (
        "SELECT 'cast ' || pg_catalog.format_type(o.castsource, NULL) || ' as ' || "
        "pg_catalog.format_type(o.casttarget, NULL), '' FROM pg_catalog.pg_cast o "
        "JOIN pg_catalog.pg_type s ON s.oid = o.castsource JOIN pg_catalog.pg_type t ON t.oid = o.casttarget "
        f"WHERE o.oid >= {_FIRST_OF_OTHERS} AND s.typnamespace IN ('pg_catalog'::regnamespace, {SCHEMA}) "
        f"AND t.typnamespace IN ('pg_catalog'::regnamespace, {SCHEMA}) "
        f"AND {_NOT_OF_EXTENSIONS.format('pg_catalog.pg_cast')}"
    ),
)
"""What PostgreSQL chooses by name and by the types of arguments."""
_QUERIES: Final = (
    # What is in the schema, indexes apart; unlogged tables are emptied by a crash, children add rows to parents.
    (
        "SELECT 'relation ' || o.relname, o.relname::text, o.relkind::text, o.relpersistence::text, "
        "o.relrowsecurity, o.relforcerowsecurity, "
        "EXISTS (SELECT 1 FROM pg_catalog.pg_inherits WHERE o.oid IN (inhrelid, inhparent)) "
        f"FROM pg_catalog.pg_class o WHERE o.relnamespace = {SCHEMA} AND o.relkind NOT IN ('i', 'I') "
        f"AND {_NOT_OF_EXTENSIONS.format('pg_catalog.pg_class')}"
    ),
    (
        "SELECT 'column ' || a.attname, o.relname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), "
        "a.attnotnull, "
        "pg_catalog.pg_get_expr(d.adbin, d.adrelid), a.attidentity::text, a.attgenerated::text, "
        "a.attcollation = t.typcollation, "
        # format_type tells a type of our own schema by no more than its name.
        "t.typnamespace = 'pg_catalog'::regnamespace FROM pg_catalog.pg_attribute a "
        "JOIN pg_catalog.pg_class o ON o.oid = a.attrelid "
        "JOIN pg_catalog.pg_type t ON t.oid = a.atttypid "
        "LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum "
        f"WHERE o.relnamespace = {SCHEMA} AND o.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped "
        f"AND {_NOT_OF_EXTENSIONS.format('pg_catalog.pg_class')}"
    ),
    # NOT NULL is compared with the column; from PostgreSQL 18 on it is a constraint besides.
    (
        "SELECT 'constraint ' || c.conname, coalesce(r.relname, '')::text, pg_catalog.pg_get_constraintdef(c.oid), "
        "c.convalidated, c.condeferrable FROM pg_catalog.pg_constraint c LEFT JOIN pg_catalog.pg_class r "
        f"ON r.oid = c.conrelid WHERE c.connamespace = {SCHEMA} AND c.contype <> 'n'"
    ),
    (
        "SELECT 'index ' || o.relname, r.relname::text, pg_catalog.pg_get_indexdef(i.indexrelid), i.indisvalid, "
        "i.indisready, i.indisunique FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class o ON o.oid = i.indexrelid "
        "JOIN pg_catalog.pg_class r ON r.oid = i.indrelid "
        f"WHERE r.relnamespace = {SCHEMA} AND r.relkind <> 't' AND {_NOT_OF_EXTENSIONS.format('pg_catalog.pg_class')}"
    ),
    # Triggers of foreign keys are compared with the constraint; one that is switched off is not the one expected.
    (
        "SELECT 'trigger ' || t.tgname, r.relname::text, pg_catalog.pg_get_triggerdef(t.oid), t.tgenabled::text "
        "FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class r ON r.oid = t.tgrelid "
        f"WHERE r.relnamespace = {SCHEMA} AND (NOT t.tgisinternal OR t.tgenabled <> 'O')"
    ),
    (
        "SELECT 'rule ' || w.rulename, r.relname::text, pg_catalog.pg_get_ruledef(w.oid) FROM pg_catalog.pg_rewrite w "
        f"JOIN pg_catalog.pg_class r ON r.oid = w.ev_class WHERE r.relnamespace = {SCHEMA} AND r.relkind = 'r'"
    ),
    (
        "SELECT 'policy ' || p.polname, r.relname::text FROM pg_catalog.pg_policy p "
        f"JOIN pg_catalog.pg_class r ON r.oid = p.polrelid WHERE r.relnamespace = {SCHEMA}"
    ),
    *_LOOKED_UP,
    (
        "SELECT 'event trigger ' || o.evtname, '' FROM pg_catalog.pg_event_trigger o "
        f"WHERE {_NOT_OF_EXTENSIONS.format('pg_catalog.pg_event_trigger')}"
    ),
)


_STRANGE: Final = (
    # Ordinary tables, their indexes and what is out of line of them.
    (
        "SELECT o.relname::text, 'relation ' || o.relname, 'does not belong here' FROM pg_catalog.pg_class o "
        f"WHERE o.relnamespace = {SCHEMA} AND o.relkind NOT IN ('r', 'i', 'I', 't') "
        f"AND {_NOT_OF_EXTENSIONS.format('pg_catalog.pg_class')}"
    ),
    (
        "SELECT o.relname::text, 'column ' || a.attname, 'is computed' FROM pg_catalog.pg_attribute a "
        "JOIN pg_catalog.pg_class o ON o.oid = a.attrelid "
        f"WHERE o.relnamespace = {SCHEMA} AND a.attgenerated <> ''"
    ),
    # A user-defined type has functions of its own, for its output and for casts.
    (
        "SELECT o.relname::text, 'column ' || a.attname, 'is of a type of somebody''s own' "
        "FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class o ON o.oid = a.attrelid "
        "JOIN pg_catalog.pg_type t ON t.oid = a.atttypid "
        f"WHERE o.relnamespace = {SCHEMA} AND o.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped "
        "AND t.typnamespace <> 'pg_catalog'::regnamespace"
    ),
    # A read of a table reads its children, in any schema.
    (
        "SELECT p.relname::text, 'child ' || c.relname, 'does not belong here' FROM pg_catalog.pg_inherits i "
        "JOIN pg_catalog.pg_class p ON p.oid = i.inhparent JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid "
        f"WHERE p.relnamespace = {SCHEMA} AND p.relkind IN ('r', 'p')"
    ),
    (
        "SELECT r.relname::text, 'policy ' || p.polname, 'does not belong here' FROM pg_catalog.pg_policy p "
        f"JOIN pg_catalog.pg_class r ON r.oid = p.polrelid WHERE r.relnamespace = {SCHEMA}"
    ),
)


def rows_of(connection: driver.Connection, query: str) -> list[Any]:
    """What a query of the catalogue gives. Raises driver.Error for names that are no text, too."""
    try:
        return connection.execute(query).fetchall()
    except UnicodeDecodeError as error:
        raise driver.Error("a name in the catalogue is not UTF-8") from error


def check_kinds(connection: driver.Connection) -> list[Finding]:
    """What makes reading run something, a finding each: views, foreign tables, computed columns, row security."""
    found = [row for query in _STRANGE for row in rows_of(connection, query)]
    return [Finding(*map(str, row)) for row in sorted(found)]


def check_lookups(connection: driver.Connection) -> list[Finding]:
    """What a statement that names no schema could be led to, a finding each: functions, operators, types, casts.

    The function of the triggers is left out: a migration replaces it.
    """
    found = {tuple(map(str, row[:2])) for query in _LOOKED_UP for row in rows_of(connection, query)}
    return [Finding(table, row, "does not belong here") for row, table in sorted(found) if row != f"function {REFUSE}"]


def check_schema(connection: driver.Connection, schema: str) -> list[Finding]:
    """What differs from the expected schema, a finding each."""
    found, expected = frozenset(_facts(connection, schema)), expected_schema()
    missing = [Finding(str(fact[1]), str(fact[0]), "is missing or changed") for fact in expected - found]
    planted = [Finding(str(fact[1]), str(fact[0]), "does not belong here") for fact in found - expected]
    return sorted(missing + planted, key=lambda finding: (finding.table, finding.row, finding.problem))


def _facts(connection: driver.Connection, schema: str) -> Iterator[Fact]:
    # Definitions name the schema: as it is, or in quotation marks.
    qualified = re.compile(rf'(?<![\w"])(?:{re.escape(schema)}|{re.escape(quote(schema))})\.')
    for query in _QUERIES:
        for row in rows_of(connection, query):
            yield tuple(qualified.sub("", one) if isinstance(one, str) else one for one in row)


@cache
def expected_schema() -> frozenset[Fact]:
    """The facts of a database made from the tables and triggers of this version."""
    return frozenset(_expected())


def _expected() -> Iterator[Fact]:
    for table in metadata.tables.values():
        yield f"relation {table.name}", table.name, "r", "p", False, False, False
        for column in table.columns:
            kind = next(name for base, name in _TYPES.items() if isinstance(column.type, base))
            yield _column(table.name, column.name, kind, required=not column.nullable)
        yield from _constraints(table)
        for index in table.indexes:
            where = " WHERE ((status)::text = 'ACTIVE'::text)" if index is ONE_ACTIVE else ""
            yield _index(str(index.name), table.name, [one.name for one in index.columns], bool(index.unique), where)
    yield f"relation {VERSION_TABLE}", VERSION_TABLE, "r", "p", False, False, False
    yield _column(VERSION_TABLE, "version_num", "character varying(32)", required=True)
    yield f"constraint {VERSION_TABLE}_pkc", VERSION_TABLE, "PRIMARY KEY (version_num)", True, False
    yield _index(f"{VERSION_TABLE}_pkc", VERSION_TABLE, ["version_num"], unique=True)
    for name, guard in _GUARDS.items():
        yield f"trigger {name}", guard[0], _trigger(name, *guard), "O"
    yield f"function {REFUSE}", "", "plpgsql", _BODY, False, "", "trigger", 0


def _column(table: str, name: str, kind: str, *, required: bool) -> Fact:
    return f"column {name}", table, kind, required, None, "", "", True, True


def _constraints(table: sa.Table) -> Iterator[Fact]:
    for column in table.columns:
        for check in column.constraints:
            if isinstance(check, sa.CheckConstraint):
                yield f"constraint {check.name}", table.name, f"CHECK (({check.sqltext}))", True, False
    for constraint in table.constraints:
        name = str(constraint.name)
        columns = ", ".join(column.name for column in getattr(constraint, "columns", ()))
        if isinstance(constraint, sa.ForeignKeyConstraint):
            target = constraint.elements[0].column
            text = f"FOREIGN KEY ({columns}) REFERENCES {target.table.name}({target.name})"
            yield f"constraint {name}", table.name, text, True, False
        else:
            word = "PRIMARY KEY" if isinstance(constraint, sa.PrimaryKeyConstraint) else "UNIQUE"
            yield f"constraint {name}", table.name, f"{word} ({columns})", True, False
            yield _index(name, table.name, columns.split(", "), unique=True)


def _index(name: str, table: str, columns: list[str], unique: bool, where: str = "") -> Fact:  # noqa: FBT001
    kind = "UNIQUE INDEX" if unique else "INDEX"
    text = f"CREATE {kind} {name} ON {table} USING btree ({', '.join(columns)}){where}"
    return f"index {name}", table, text, True, True, unique
