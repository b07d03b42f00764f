"""The SQL of the hot path, written out once from the schema: raw, because the driver's fast path is the point."""

from functools import cache
from typing import Final

from keyvault_lite.audit.entry import ENTRY_COLUMNS, FOLDED_APART, FOLDED_TOGETHER
from keyvault_lite.ledger.storage.schema import FORMATS, HEAD_COLUMNS, RowFormat
from keyvault_lite.model.evidence import Action


def insert(table: str, columns: tuple[str, ...]) -> str:
    """The statement that puts one row into a table."""
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608


def _upsert(form: RowFormat) -> str:
    columns = (*form.columns, "row_seq", "row_mac")
    changes = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in form.key)
    return f"{insert(form.name, columns)} ON CONFLICT ({', '.join(form.key)}) DO UPDATE SET {changes}"


def _select(form: RowFormat) -> str:
    return f"SELECT {', '.join((*form.columns, 'row_seq', 'row_mac'))} FROM {form.name}"  # noqa: S608


APPEND: Final = insert("audit_logs", ENTRY_COLUMNS)
MOST_AT_ONCE: Final = 64
"""Entries a statement appends."""
_APPEND_INTO, _, _APPEND_ONE = APPEND.partition(" VALUES ")


@cache
def append(count: int) -> str:
    """The statement that appends so many entries, MOST_AT_ONCE at the most."""
    return f"{_APPEND_INTO} VALUES {', '.join([_APPEND_ONE] * count)}"


PUT_INDEX: Final = insert("audit_index", ("object_id", "block")) + " ON CONFLICT DO NOTHING"
ENTRIES: Final = f"SELECT {', '.join(ENTRY_COLUMNS)} FROM audit_logs"  # noqa: S608
ENTRY: Final = f"{ENTRIES} WHERE id = ?"
_ANY_BYTES: Final = " OR ".join(f"{name} >= x''" for name in FOLDED_TOGETHER)
FOLDED: Final = (
    f"SELECT {', '.join(FOLDED_APART)}, json_array({', '.join(FOLDED_TOGETHER)}) "  # noqa: S608
    f"FROM audit_logs WHERE id > ? AND NOT coalesce({_ANY_BYTES}, 0) ORDER BY id LIMIT ?"
)
"""Entries folded, in SQLite, but for those with bytes in place of a text or number.

Bytes that are JSON in SQLite's binary form `json_array` would write as the text or number that they stand for. Only
bytes are not less than any bytes.
"""
MANAGED: Final = f"{ENTRIES} WHERE id BETWEEN ? AND ? AND state_root IS NOT NULL ORDER BY id"
LAST_ENTRY: Final = "SELECT id, hash FROM audit_logs ORDER BY id DESC LIMIT 1"
CATCH_UP: Final = (
    f"SELECT {', '.join(HEAD_COLUMNS)}, mac, "  # noqa: S608
    "(SELECT max(id) FROM audit_logs), (SELECT hash FROM audit_logs ORDER BY id DESC LIMIT 1) "
    "FROM ledger_head WHERE id = 1"
)
"""What a transaction looks at before it goes on: the head, and whether the log ends as it says."""
READ_HEAD: Final = f"SELECT {', '.join(HEAD_COLUMNS)}, mac FROM ledger_head WHERE id = 1"  # noqa: S608
ALL_HEADS: Final = f"SELECT id, {', '.join(HEAD_COLUMNS)}, mac FROM ledger_head ORDER BY id"  # noqa: S608
FIRST_HEAD: Final = insert("ledger_head", ("id", *HEAD_COLUMNS, "mac"))
WRITE_HEAD: Final = (
    f"UPDATE ledger_head SET {', '.join(f'{column} = ?' for column in HEAD_COLUMNS)}, mac = ? WHERE id = 1"  # noqa: S608
)
PUT_TILE: Final = insert("tiles", ("level", "tile", "hashes")) + " ON CONFLICT DO NOTHING"
TILE: Final = "SELECT hashes FROM tiles WHERE level = ? AND tile = ?"
ALARMS: Final = f"SELECT 1 FROM audit_logs WHERE id > ? AND id <= ? AND action = '{Action.INTEGRITY.value}' LIMIT 1"  # noqa: S608
LEAVES: Final = "SELECT hash FROM audit_logs WHERE id > ? AND id <= ? ORDER BY id"
PROBE: Final = (
    "UPDATE ledger_head SET size = size + 1 WHERE id = 1",
    "UPDATE ledger_head SET size = size - 1 WHERE id = 1",
)
"""Writes and flushes without changing anything: whether the store works again after a fault.

SQLite writes no page for a value that stays as it is: there and back it does.
"""
UPSERT: Final = {name: _upsert(form) for name, form in FORMATS.items()}
SELECT: Final = {name: _select(form) for name, form in FORMATS.items()}
FIND_REPLY: Final = SELECT["idempotency_replies"] + " WHERE service_id = ? AND key_digest = ?"
ENTRY_HASH: Final = "SELECT hash FROM audit_logs WHERE id = ?"
LOSE_REPLY: Final = "DELETE FROM idempotency_replies WHERE service_id || '/' || lower(hex(key_digest)) = ?"
RELEASE_TOKEN: Final = "UPDATE tokens SET kind = 'leased' WHERE id = ? AND ended_at IS NOT NULL"  # noqa: S105  (no token)
"""Before a row goes: the guard of the table lets those of leased tokens go, and nothing that has not ended."""
FORGET_TOKEN: Final = "DELETE FROM tokens WHERE id = ?"  # noqa: S105  (as above)
"""Of one that is no longer valid, and only in the transaction that records it."""
TOKEN_IDS: Final = "SELECT id FROM tokens"  # noqa: S105
FORGET_REPLIES: Final = "DELETE FROM idempotency_replies WHERE expires_at < ?"
FORGET_ENTRIES: Final = "DELETE FROM audit_logs WHERE id BETWEEN ? AND ?"
"""Of entries that were archived, and only in the transaction that records it; see ledger/log/retention.py."""
NEWEST_SEGMENT: Final = (
    SELECT["settings"] + " WHERE name >= ? AND name < ? AND value IS NOT NULL ORDER BY name DESC LIMIT 1"
)
FORGET_INDEX: Final = "DELETE FROM audit_index WHERE block < ?"
SIZE: Final = "SELECT coalesce(max(id), 0) FROM audit_logs"
COUNT_BETWEEN: Final = "SELECT count(*) FROM audit_logs WHERE id BETWEEN ? AND ?"
FIRST_ENTRY: Final = "SELECT id FROM audit_logs ORDER BY id LIMIT 1"
