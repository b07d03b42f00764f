"""What every use of the tables needs: their names, columns and triggers. What they are made from is in `tables`.

Every row that carries authority or keys ends in `row_seq` (the entry that last wrote it) and `row_mac`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from keyvault_lite.ledger.storage.record_types import RECORD_TYPES, RecordType

Row = tuple[Any, ...]
_DECLARED: Final = tuple(kind.table for kind in RECORD_TYPES)
TABLES: Final = (
    *reversed(_DECLARED),
    *("key_versions", "key_names", "tiles", "ledger_head", "keys"),
    *("idempotency_replies", "audit_logs", "audit_index", "alembic_version"),
)
"""All tables of a vault, in the order in which foreign keys let them be removed."""
HEAD_COLUMNS: Final = ("epoch", "size", "hash", "timestamp", "state_seq", "state_root", "edge", "checkpoint")
"""The columns of ledger_head between its id and its MAC."""
NEVER_DELETED: Final = ("audit_logs", "keys", "key_versions", "key_names", *_DECLARED)
DELETED_ONLY: Final[Mapping[str, tuple[str, str]]] = {"tokens": ("kind", "leased")}
"""Of which rows the guard of a table lets deletions pass, by a column and its value."""


def _refused_rows(table: str) -> str:
    column, value = DELETED_ONLY.get(table, ("", ""))
    return f"WHEN OLD.{column} <> '{value}' " if column else ""


TRIGGERS: Final[Mapping[str, str]] = {
    # Honest mistakes are stopped here; a forger drops the triggers and is found by hashes and MACs.
    **{
        f"{table}_no_delete": f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} "
        f"{_refused_rows(table)}BEGIN SELECT RAISE(ABORT, 'rows of {table} are never deleted'); END"
        for table in NEVER_DELETED
    },
    "audit_logs_no_update": "CREATE TRIGGER audit_logs_no_update BEFORE UPDATE ON audit_logs "
    "BEGIN SELECT RAISE(ABORT, 'audit_logs is append-only'); END",
    # INSERT OR REPLACE deletes the row in its way without the trigger for deletions. Entries are written before the
    # head that counts them, so what comes at or below its size replaces one. AFTER costs half of what BEFORE does.
    "audit_logs_no_replace": "CREATE TRIGGER audit_logs_no_replace AFTER INSERT ON audit_logs "
    "WHEN NEW.id <= (SELECT size FROM ledger_head WHERE id = 1) "
    "BEGIN SELECT RAISE(ABORT, 'audit_logs is append-only'); END",
}


@dataclass(frozen=True, slots=True)
class RowFormat:
    """How the records of one table become rows: values in the order of `columns`, without row_seq and row_mac."""

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    """What a MAC covers as values, the primary key first."""

    def key_of(self, values: Row) -> Row:
        """The primary key within a row's values."""
        return values[: len(self.key)]


def _format(kind: RecordType[Any]) -> RowFormat:
    names = tuple(column.name for column in kind.columns)
    return RowFormat(kind.table, names[: kind.key_columns], names)


_COLUMNS: Final = {
    # By table, the primary key before the bar.
    "keys": "id | name type size purpose status created_at description tags rotation_days rotate_at destroy_at "
    "was_revoked attributes",
    "key_versions": "id | key_id version encrypted_key status created_at public_key generation attributes",
    "key_names": "namespace name | key_id created_at updated_at",
    "idempotency_replies": "service_id key_digest | body_digest expires_at sealed",
}
FORMATS: Final[Mapping[str, RowFormat]] = {
    **{
        table: RowFormat(table, tuple(text.partition("|")[0].split()), tuple(text.replace("|", "").split()))
        for table, text in _COLUMNS.items()
    },
    **{kind.table: _format(kind) for kind in RECORD_TYPES},
}
IN_ROOT: Final = ("keys", "key_versions", "key_names", *_DECLARED)
"""The tables under the state root, in the order in which foreign keys let them be written."""
CAN_BE_MADE_ANEW: Final = "audit_index"
"""The table that follows from another, and on which nothing rests but how pages are found."""
MAY_BE_LOST: Final = frozenset({*IN_ROOT, "idempotency_replies"})
"""Rows that can be set aside one by one; damage anywhere else is damage to all."""
