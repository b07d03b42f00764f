"""The tables, once, for both databases: what migrations make and the stored schema is compared with.

Imported only where that is done, because SQLAlchemy takes time and memory that a start on a current database need not.
"""

from typing import Any, Final

import sqlalchemy as sa

from keyvault_lite.ledger.storage.record_types import RECORD_TYPES, ColumnType, RecordType

metadata: Final = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def _sealed() -> tuple[sa.Column[Any], sa.Column[Any]]:
    return (
        sa.Column("row_seq", sa.BigInteger, nullable=False, index=True),
        sa.Column("row_mac", sa.LargeBinary, nullable=False),
    )


keys: Final = sa.Table(
    "keys",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("name", sa.String, unique=True),
    sa.Column("type", sa.String, nullable=False),
    sa.Column("size", sa.Integer),
    sa.Column("purpose", sa.String, nullable=False),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("description", sa.String, nullable=False),
    sa.Column("tags", sa.String, nullable=False),
    sa.Column("rotation_days", sa.Integer),
    sa.Column("rotate_at", sa.BigInteger),
    sa.Column("destroy_at", sa.BigInteger),
    sa.Column("was_revoked", sa.Integer, nullable=False),
    sa.Column("attributes", sa.String, nullable=False),
    *_sealed(),
)
key_versions: Final = sa.Table(
    "key_versions",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("key_id", sa.String, sa.ForeignKey("keys.id"), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("encrypted_key", sa.LargeBinary, nullable=False),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("public_key", sa.LargeBinary),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("attributes", sa.String, nullable=False),
    *_sealed(),
    sa.UniqueConstraint("key_id", "version"),
)
key_names: Final = sa.Table(
    # Names of dialects. One that is gone stays as a tombstone, without a key.
    "key_names",
    metadata,
    sa.Column("namespace", sa.String, primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("key_id", sa.String, sa.ForeignKey("keys.id")),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    *_sealed(),
)
ONE_ACTIVE: Final = sa.Index(
    "ix_key_versions_one_active",
    key_versions.c.key_id,
    unique=True,
    sqlite_where=key_versions.c.status == "ACTIVE",
    postgresql_where=key_versions.c.status == "ACTIVE",
)
services: Final = sa.Table(
    "services",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False, unique=True),
    sa.Column("role", sa.String, nullable=False),
    sa.Column("active", sa.Integer, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("grants", sa.String, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    *_sealed(),
)
tokens: Final = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("service_id", sa.String, sa.ForeignKey("services.id"), nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("parent", sa.String),
    sa.Column("ended_at", sa.BigInteger),
    sa.Column("attributes", sa.String, nullable=False),
    *_sealed(),
)
settings: Final = sa.Table(
    "settings",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.String),
    *_sealed(),
)
keyring_slots: Final = sa.Table(
    "keyring_slots",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("instance_id", sa.LargeBinary, nullable=False),
    sa.Column("kdf", sa.String, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("removed_at", sa.BigInteger),
    *_sealed(),
)
idempotency_replies: Final = sa.Table(
    # Authenticated, but not part of the state root: rows expire without an entry.
    "idempotency_replies",
    metadata,
    sa.Column("service_id", sa.String, primary_key=True),
    sa.Column("key_digest", sa.LargeBinary, primary_key=True),
    sa.Column("body_digest", sa.LargeBinary, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False, index=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    *_sealed(),
)
audit_logs: Final = sa.Table(
    # No foreign keys: an attempt on an object that does not exist is recorded too, and a record outlives all else.
    "audit_logs",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    sa.Column("state_seq", sa.BigInteger, nullable=False),
    sa.Column("state_root", sa.LargeBinary),
    sa.Column("service_id", sa.String),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("key_id", sa.String),
    sa.Column("key_version", sa.Integer),
    sa.Column("result", sa.String, nullable=False),
    sa.Column("reason", sa.String),
    sa.Column("request_id", sa.LargeBinary, nullable=False),
    sa.Column("client_request_id", sa.String),
    sa.Column("source", sa.String),
    sa.Column("context_digest", sa.LargeBinary),
    sa.Column("bytes_in", sa.BigInteger),
    sa.Column("bytes_out", sa.BigInteger),
    sa.Column("key_ref", sa.String),
    sa.Column("subject", sa.String),
    sa.Column("operation", sa.String),
    sa.Column("comment", sa.String),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("prev_hash", sa.LargeBinary, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
)
audit_index: Final = sa.Table(
    # Which blocks of 256 entries name a service or a key; see ledger/storage/log_index.py.
    "audit_index",
    metadata,
    sa.Column("object_id", sa.String, primary_key=True),
    sa.Column("block", sa.BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)
ledger_head: Final = sa.Table(
    # One row. `mac` covers all the other columns.
    "ledger_head",
    metadata,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="single"), primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    sa.Column("state_seq", sa.BigInteger, nullable=False),
    sa.Column("state_root", sa.LargeBinary, nullable=False),
    sa.Column("edge", sa.LargeBinary, nullable=False),
    sa.Column("checkpoint", sa.String, nullable=False),
    sa.Column("mac", sa.LargeBinary, nullable=False),
)
tiles: Final = sa.Table(
    # The Merkle tree's full tiles, checked by recomputing the root; of archived entries all that stays.
    "tiles",
    metadata,
    sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("tile", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("hashes", sa.LargeBinary, nullable=False),
)


def _declared(kind: RecordType[Any]) -> sa.Table:
    """The table of a record type that is declared in `record_types` and has no definition of its own above."""
    types = {ColumnType.TEXT: sa.String, ColumnType.INTEGER: sa.BigInteger, ColumnType.BYTES: sa.LargeBinary}
    columns: list[sa.Column[Any]] = [
        sa.Column(column.name, types[column.type], primary_key=index < kind.key_columns, nullable=column.nullable)
        for index, column in enumerate(kind.columns)
    ]
    return sa.Table(kind.table, metadata, *columns, *_sealed())


for _kind in RECORD_TYPES:
    if _kind.table not in metadata.tables:
        _declared(_kind)
