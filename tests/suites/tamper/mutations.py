"""What an attacker can do to a database file: each mutation is done to a copy, and tells which row it was done to.

Values are changed through a schema without types and constraints, which is put back afterwards, so that a column can
hold what its type would never let in: 1.0 or '1' for 1, text for bytes, NULL.
"""

import random
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from keyvault_lite.ledger.storage import driver
from tests.suites.tamper.sample_vault import SampleVault, VaultCopy, unflushed

KEYS: Final = {
    "alembic_version": ("version_num",),
    "audit_index": ("object_id", "block"),
    "audit_logs": ("id",),
    "idempotency_replies": ("service_id", "key_digest"),
    "key_names": ("namespace", "name"),
    "key_versions": ("id",),
    "keyring_slots": ("id",),
    "keys": ("id",),
    "ledger_head": ("id",),
    "services": ("id",),
    "settings": ("name",),
    "tiles": ("level", "tile"),
    "tokens": ("id",),
}
ROWIDS: Final = frozenset({"audit_logs", "ledger_head"})
"""Tables whose first column is the row's number in SQLite: it can hold nothing but integers."""
WORDS: Final = (
    "ACTIVE", "DEPRECATED", "REVOKED", "DISABLED", "DESTROYED", "PENDING_DESTRUCTION", "ADMIN", "SERVICE", "AUDITOR",
    "encrypt", "decrypt", "revoke", "success", "denied", "error", "native", "leased", "ENCRYPT", "SIGN", "AES", "RSA",
)  # fmt: skip


@dataclass(frozen=True)
class Done:
    """What was done, and to which row: label as findings spell it, None if any finding of the table will do."""

    what: str
    table: str
    row: str | None


class Impossible(Exception):
    """SQLite itself refuses: a unique index, an integer that has to be one."""


Mutation = Callable[[SampleVault, VaultCopy, random.Random], Done]


def columns_of(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def label(table: str, key: tuple[Any, ...]) -> str:
    """A row as findings name it."""
    if table == "audit_index":
        return str(key[1])
    if table == "tiles":
        return f"{key[0]}/{key[1]}"
    if table == "idempotency_replies":
        return f"{key[0]}/{key[1].hex()}"
    return "".join(map(str, key))


@contextmanager
def loosened(copy_of: VaultCopy, table: str) -> Iterator[sqlite3.Connection]:
    """A connection to a database in which the table's columns take any value; its schema is as before afterwards."""
    path = str(copy_of.database)
    with closing(unflushed(path)) as connection:
        (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        _put_schema(connection, table, _loose(table, sql))
    try:
        with closing(unflushed(path)) as connection:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            try:
                yield connection
            except (driver.IntegrityError, driver.dbapi.DataError) as error:
                raise Impossible(str(error)) from error
    finally:
        with closing(unflushed(path)) as connection:
            _put_schema(connection, table, sql)
        with closing(unflushed(path)) as connection:
            for _, trigger in triggers:
                connection.execute(trigger)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _put_schema(connection: sqlite3.Connection, table: str, sql: str) -> None:
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_master SET sql = ? WHERE type = 'table' AND name = ?", (sql, table))
    (version,) = connection.execute("PRAGMA schema_version").fetchone()
    connection.execute(f"PRAGMA schema_version = {version + 1}")


def _loose(table: str, sql: str) -> str:
    head, first, rest = re.split(r"(?<=\()|(?<=,)", sql, maxsplit=2, flags=0)
    pattern = r"(\s\w+) (?:INTEGER|BIGINT|BLOB|VARCHAR(?:\(\d+\))?)( NOT NULL)?(?=\s*[,)])"
    if table not in ROWIDS:
        first = re.sub(pattern, r"\1 BLOB", first)
    return head + first + re.sub(pattern, r"\1 BLOB", rest)


def pick(copy_of: VaultCopy, table: str, rng: random.Random) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A row: its key, its values."""
    with closing(driver.connect(f"file:{copy_of.database}?mode=ro", uri=True)) as connection:
        names = columns_of(connection, table)
        rows = connection.execute(f"SELECT * FROM {table}").fetchall()
    row = dict(zip(names, rng.choice(rows), strict=True))
    return tuple(row[name] for name in KEYS[table]), row


def others(value: Any, rng: random.Random) -> list[Any]:  # noqa: ANN401
    """Values that are not the one, of its own type and of others."""
    found: list[Any]
    if value is None:
        found = [0, "", b"", 1, "x"]
    elif isinstance(value, int):
        found = [
            value + 1,
            value - 1,
            value ^ 1 << rng.randrange(62),
            -value,
            0,
            1,
            2**63 - 1,
            float(value),
            str(value),
        ]
        found += [None, str(value).encode()]
    elif isinstance(value, str):
        at = rng.randrange(len(value) + 1)
        found = [value[:at] + "x" + value[at:], value[:-1], value.swapcase(), value + "\0", "", rng.choice(WORDS)]
        found += [value.encode(), None, 7, value.replace(":", " : "), Raw(value.encode() + b"\xff")]
    else:
        at = rng.randrange(len(value)) if value else 0
        flipped = bytearray(value or b"\0")
        flipped[at] ^= 1 << rng.randrange(8)
        found = [bytes(flipped), value[:-1], value + b"\0", b"", bytes(len(value)), None, Raw(value), 0, 1.5]
    return found


@dataclass(frozen=True)
class Raw:
    """Bytes that are stored as text, UTF-8 or not."""

    value: bytes


def set_value(connection: sqlite3.Connection, table: str, key: tuple[Any, ...], column: str, value: Any) -> None:  # noqa: ANN401
    where = " AND ".join(f"{name} IS ?" for name in KEYS[table])
    place = "CAST(? AS TEXT)" if isinstance(value, Raw) else "?"
    plain = value.value if isinstance(value, Raw) else value
    connection.execute(f"UPDATE {table} SET {column} = {place} WHERE {where}", (plain, *key))


# Mutations


def change_value(_: SampleVault, copy_of: VaultCopy, rng: random.Random) -> Done:
    table = rng.choice(sorted(KEYS))
    key, row = pick(copy_of, table, rng)
    column = rng.choice(sorted(row))
    value = rng.choice(others(row[column], rng))
    with loosened(copy_of, table) as connection:
        set_value(connection, table, key, column, value)
    # A row whose key was changed is found under either name, or as one that does not belong there.
    named = None if column in KEYS[table] else label(table, key)
    return Done(f"{table}.{column} of {key}: {row[column]!r} -> {value!r}", table, named)


def swap_values(_: SampleVault, copy_of: VaultCopy, rng: random.Random) -> Done:
    """Two rows of a table exchange one column, or all that are not their key."""
    table = rng.choice(["audit_logs", "idempotency_replies", "key_versions", "keys", "services", "settings", "tokens"])
    (one, first), (two, second) = pick(copy_of, table, rng), pick(copy_of, table, rng)
    free = [name for name in first if name not in KEYS[table]]
    names = free if rng.random() < 0.5 else [rng.choice(free)]
    with loosened(copy_of, table) as connection:
        connection.execute("BEGIN")
        for name in names:
            set_value(connection, table, one, name, f"between {one}")
            set_value(connection, table, two, name, first[name])
            set_value(connection, table, one, name, second[name])
        connection.execute("COMMIT")
    return Done(f"{table}: {names} of {one} and {two} exchanged", table, None)


def delete_row(_: SampleVault, copy_of: VaultCopy, rng: random.Random) -> Done:
    # A kept reply may be gone: it expires without an entry.
    table = rng.choice(sorted(KEYS.keys() - {"idempotency_replies"}))
    key, _row = pick(copy_of, table, rng)
    where = " AND ".join(f"{name} IS ?" for name in KEYS[table])
    copy_of.write(lambda connection: _run(connection, f"DELETE FROM {table} WHERE {where}", key))
    return Done(f"{table}: {key} deleted", table, None)


def copy_row(_: SampleVault, copy_of: VaultCopy, rng: random.Random) -> Done:
    table = rng.choice(sorted(KEYS))
    key, row = pick(copy_of, table, rng)
    for name in KEYS[table]:
        row[name] = row[name] + 1000 if isinstance(row[name], int) else f"copy of {row[name]}"
    if "name" in row and "name" not in KEYS[table]:
        row["name"] = f"copy of {row['name']}"
    if table == "key_versions":
        row["version"], row["status"] = row["version"] + 100, "DEPRECATED"
    with loosened(copy_of, table) as connection:
        places = ", ".join("?" * len(row))
        _run(connection, f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", tuple(row.values()))
    return Done(f"{table}: {key} copied", table, None)


def replay_row(vault: SampleVault, copy_of: VaultCopy, rng: random.Random) -> Done:
    """A row as it was on an earlier day, its MAC included."""
    older = VaultCopy(rng.choice(vault.older).parent, "")
    table = rng.choice(sorted(KEYS.keys() - {"alembic_version", "audit_logs", "idempotency_replies", "tiles"}))
    key, row = pick(older, table, rng)
    _put(copy_of, table, key, row)
    return Done(f"{table}: {key} as it was", table, None)


def replay_table(vault: SampleVault, copy_of: VaultCopy, rng: random.Random) -> Done:
    """A whole table as it was on an earlier day."""
    older = VaultCopy(rng.choice(vault.older).parent, "")
    table = rng.choice(sorted(KEYS.keys() - {"alembic_version", "audit_logs", "idempotency_replies", "tiles"}))
    with closing(driver.connect(f"file:{older.database}?mode=ro", uri=True)) as connection:
        names = columns_of(connection, table)
        rows = connection.execute(f"SELECT * FROM {table}").fetchall()

    def write(connection: sqlite3.Connection) -> None:
        connection.execute(f"DELETE FROM {table}")
        places = ", ".join("?" * len(names))
        connection.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})", rows)

    copy_of.write(write)
    return Done(f"{table} as it was", table, None)


def _put(copy_of: VaultCopy, table: str, key: tuple[Any, ...], row: dict[str, Any]) -> None:
    where = " AND ".join(f"{name} IS ?" for name in KEYS[table])
    places = ", ".join("?" * len(row))
    with loosened(copy_of, table) as connection:
        connection.execute("BEGIN")
        connection.execute(f"DELETE FROM {table} WHERE {where}", key)
        connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", tuple(row.values()))
        connection.execute("COMMIT")


def cut_tail(_: SampleVault, copy_of: VaultCopy, rng: random.Random) -> Done:
    def write(connection: sqlite3.Connection) -> None:
        (size,) = connection.execute("SELECT max(id) FROM audit_logs").fetchone()
        connection.execute("DELETE FROM audit_logs WHERE id > ?", (rng.randrange(size),))

    copy_of.write(write)
    return Done("the tail of the log cut", "audit_logs", None)


def plant(_: SampleVault, copy_of: VaultCopy, rng: random.Random) -> Done:
    sql = rng.choice(PLANTS)

    def write(connection: sqlite3.Connection) -> None:
        for statement in sql.split(";;"):
            connection.execute(statement)

    copy_of.write(write)
    return Done(f"planted: {sql}", "", None)


def drop(_: SampleVault, copy_of: VaultCopy, rng: random.Random) -> Done:
    """A trigger or index less."""
    with closing(unflushed(str(copy_of.database))) as connection:
        sql = (
            "SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'index') AND sql IS NOT NULL ORDER BY name"
        )
        kind, name = rng.choice(connection.execute(sql).fetchall())
        connection.execute(f"DROP {kind} {name}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Done(f"{kind} {name} dropped", "", None)


def rewrite_schema(_: SampleVault, copy_of: VaultCopy, rng: random.Random) -> Done:
    """A table's own statement with a clause that changes what is kept or found."""
    table = rng.choice(["audit_logs", "keys", "services", "tokens", "ledger_head"])
    before, after = rng.choice(
        [
            (" NOT NULL", ""),
            ("VARCHAR", "VARCHAR COLLATE NOCASE"),
            (" NOT NULL", " NOT NULL ON CONFLICT IGNORE"),
            ("BLOB", "BLOB DEFAULT x'00'"),
            ("BLOB", "TEXT"),
        ]
    )
    with closing(unflushed(str(copy_of.database))) as connection:
        (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        at = rng.choice([found.start() for found in re.finditer(re.escape(before), sql)])
        _put_schema(connection, table, sql[:at] + after + sql[at + len(before) :])
    with closing(unflushed(str(copy_of.database))) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Done(f"{table}: {before!r} became {after!r}", table, None)


def flip_byte(_: SampleVault, copy_of: VaultCopy, rng: random.Random) -> Done:
    """Some bytes of the file changed where they are."""
    raw = bytearray(copy_of.database.read_bytes())
    places = [rng.randrange(len(raw)) for _ in range(rng.choice([1, 1, 4]))]
    for place in places:
        raw[place] ^= 1 << rng.randrange(8)
    copy_of.database.write_bytes(raw)
    return Done(f"bytes {places} of the file", "", None)


def lose_page(_: SampleVault, copy_of: VaultCopy, rng: random.Random) -> Done:
    """A page zeroed, or another one in its place."""
    raw = bytearray(copy_of.database.read_bytes())
    page = int.from_bytes(raw[16:18], "big")
    at, source = (rng.randrange(len(raw) // page) * page for _ in range(2))
    raw[at : at + page] = bytes(page) if rng.random() < 0.5 else raw[source : source + page]
    copy_of.database.write_bytes(raw)
    return Done(f"page at {at}", "", None)


def _run(connection: sqlite3.Connection, sql: str, values: tuple[Any, ...]) -> None:
    connection.execute(sql, values)


PLANTS: Final = (
    "CREATE TRIGGER planted AFTER INSERT ON audit_logs BEGIN DELETE FROM audit_logs WHERE id = new.id; END",
    "CREATE TRIGGER planted AFTER UPDATE ON alembic_version BEGIN DELETE FROM tiles; END",
    "CREATE TRIGGER planted BEFORE UPDATE ON keys BEGIN SELECT RAISE(IGNORE); END",
    "CREATE VIEW planted AS SELECT * FROM keys",
    "CREATE TABLE planted (id INTEGER)",
    "CREATE UNIQUE INDEX planted ON audit_logs (action, id)",
    "CREATE INDEX planted ON tokens (digest)",
    "ALTER TABLE services ADD COLUMN planted VARCHAR",
    "ALTER TABLE keys RENAME TO planted",
    "ALTER TABLE audit_logs ADD COLUMN planted AS (id) VIRTUAL",
    "DROP INDEX ix_key_versions_one_active;;CREATE INDEX ix_key_versions_one_active ON key_versions (key_id)",
    "DROP TABLE settings",
    "DELETE FROM alembic_version",
    "INSERT INTO ledger_head SELECT 2, epoch, size, hash, 0, state_seq, state_root, edge, '', mac FROM ledger_head",
)
MUTATIONS: Final[dict[Mutation, int]] = {
    change_value: 50,
    swap_values: 8,
    delete_row: 6,
    copy_row: 6,
    replay_row: 8,
    replay_table: 3,
    cut_tail: 2,
    plant: 3,
    drop: 2,
    rewrite_schema: 3,
    flip_byte: 6,
    lose_page: 3,
}
"""With how often each is drawn."""
