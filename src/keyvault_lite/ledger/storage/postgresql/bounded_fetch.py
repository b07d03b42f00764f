"""How much of a stored value is fetched: a little more than the vault ever writes, however long one of others is.

The server keeps a gigabyte of one letter in a few megabytes. Cut off, it is no value that a MAC or hash verifies: its
row is named like any that was edited, and nobody has to hold the whole of it in memory.
"""

import re
from functools import cache
from typing import Final

import sqlalchemy as sa

from keyvault_lite.ledger.storage.tables import metadata

SHORT: Final = 16 * 1024
"""Characters or bytes of a value: names, ids, hashes, MACs, tiles, heads, what an entry of the log says."""
MEDIUM: Final = 256 * 1024
"""Of a slot, and of a comment, which may name all slots."""
LONG: Final = 4 * 1024 * 1024
"""Of what grows with what it describes: a thousand grants, fifty tags, policies and certificates of 64 KiB."""
REPLY: Final = 64 * 1024 * 1024
"""Of a kept reply: it may list a hundred thousand versions."""
_REPLIES: Final = "idempotency_replies"
_PLAIN: Final = re.compile(r"SELECT (\w+(?:, \w+)*) FROM (\w+)(.*)", re.DOTALL)
_OTHERS: Final = {
    "audit_logs.comment": MEDIUM,
    "keyring_slots.sealed": MEDIUM,
    "keys.description": LONG,
    "keys.tags": LONG,
    "keys.attributes": 2 * LONG,  # grants are made up to three quarters of LONG; policies of all Regions beside
    "key_versions.encrypted_key": LONG,
    "key_versions.public_key": LONG,
    "key_versions.attributes": LONG,
    "services.grants": LONG,
    "tokens.attributes": LONG,
    "settings.value": LONG,
    f"{_REPLIES}.sealed": REPLY,
}
ROWS: Final = 16
"""Rows that are taken at once where many are read one by one."""


@cache
def bounded(sql: str) -> str:
    """A statement that fetches no more of each value than the vault writes, if it reads columns of one of its tables.

    Qualified, as a function of the same name in our own schema would be taken for it. Without a name of their own, so
    that what else is in the statement means the columns.
    """
    found = _PLAIN.fullmatch(sql)
    table = None if found is None else metadata.tables.get(found[2])
    if found is None or table is None or not set(found[1].split(", ")) <= set(table.columns.keys()):
        return sql
    columns = [_cut(table.name, table.columns[name]) for name in found[1].split(", ")]
    return f"SELECT {', '.join(columns)} FROM {table.name}{found[3]}"  # noqa: S608


def _cut(table: str, column: "sa.Column[object]") -> str:
    if isinstance(column.type, sa.Integer):
        return column.name
    return f"pg_catalog.substr({column.name}, 1, {_OTHERS.get(f'{table}.{column.name}', SHORT) + 1})"


def rows_at_once(sql: str) -> int:
    """How many rows of a statement are held at once."""
    return 1 if _REPLIES in sql else ROWS
