"""The tables, once, for both databases; and how records become rows and back.

Every row that carries authority or keys ends in `row_seq` (the entry that last wrote it) and `row_mac`.
Times are integers, microseconds since 1970-01-01 UTC. Lists and maps stand in canonical JSON: sorted names, no spaces.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from keyvault_lite.audit.entry import ENTRY_COLUMNS
from keyvault_lite.ledger.outcome import Change, StoredReply
from keyvault_lite.model.identity import Grant, Permission, Role, Service, Token, TokenKind
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.keys import Key, KeySpec, KeyStatus, KeyType, KeyVersion, Purpose, VersionStatus
from keyvault_lite.model.names import KeyId, ServiceId, TokenId

Row = tuple[Any, ...]
SCHEMA_VERSION: Final = 1
"""Enters every row MAC: rows of one layout are not rows of another."""

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
    *_sealed(),
    sa.UniqueConstraint("key_id", "version"),
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
sa.Index("ix_audit_logs_service_id", audit_logs.c.service_id, audit_logs.c.id)
sa.Index("ix_audit_logs_key_id", audit_logs.c.key_id, audit_logs.c.id)
if tuple(column.name for column in audit_logs.columns) != ENTRY_COLUMNS:
    raise RuntimeError("audit_logs and the entry format name different columns")
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
    # A cache of the Merkle tree: full tiles only, checked by recomputing the root.
    "tiles",
    metadata,
    sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("tile", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("hashes", sa.LargeBinary, nullable=False),
)

_NEVER_DELETED: Final = (audit_logs, keys, key_versions, services, tokens, keyring_slots)
TRIGGERS: Final[Mapping[str, str]] = {
    # Honest mistakes are stopped here; a forger drops the triggers and is found by hashes and MACs.
    **{
        f"{table.name}_no_delete": f"CREATE TRIGGER {table.name}_no_delete BEFORE DELETE ON {table.name} "
        f"BEGIN SELECT RAISE(ABORT, 'rows of {table.name} are never deleted'); END"
        for table in _NEVER_DELETED
    },
    "audit_logs_no_update": "CREATE TRIGGER audit_logs_no_update BEFORE UPDATE ON audit_logs "
    "BEGIN SELECT RAISE(ABORT, 'audit_logs is append-only'); END",
}


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class RowFormat:
    """How the records of one table become rows: values in the order of `columns`, without row_seq and row_mac."""

    table: sa.Table
    key: tuple[str, ...]

    @property
    def name(self) -> str:
        """The table's name."""
        return self.table.name

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns a MAC covers as values, in order."""
        return tuple(column.name for column in self.table.columns if column.name not in {"row_seq", "row_mac"})

    def key_of(self, values: Row) -> Row:
        """The primary key within a row's values; the key columns come first in every table."""
        return values[: len(self.key)]


FORMATS: Final[Mapping[str, RowFormat]] = {
    table.name: RowFormat(table, tuple(column.name for column in table.primary_key.columns))
    for table in (keys, key_versions, services, tokens, keyring_slots, idempotency_replies)
}
IN_ROOT: Final = ("keys", "key_versions", "services", "tokens", "keyring_slots")
"""The tables under the state root, in the order in which foreign keys let them be written."""


def key_values(key: Key) -> Row:
    """The row of a key, without its versions."""
    return (
        key.id,
        key.name,
        key.spec.type.value,
        key.spec.size,
        key.spec.purpose.value,
        key.status.value,
        key.created_at,
        key.description,
        _json(dict(key.tags)),
        key.rotation_days,
        key.rotate_at,
        key.destroy_at,
        int(key.was_revoked),
    )


def version_values(version: KeyVersion) -> Row:
    """The row of a key version."""
    return (
        f"{version.key_id}/{version.version}",
        version.key_id,
        version.version,
        version.encrypted_key,
        version.status.value,
        version.created_at,
        version.public_key,
        version.generation,
    )


def service_values(service: Service) -> Row:
    """The row of a service."""
    grants = [[grant.key, sorted(grant.actions)] for grant in service.grants]
    return (
        service.id,
        service.name,
        service.role.value,
        int(service.active),
        service.created_at,
        _json(grants),
        service.expires_at,
    )


def token_values(token: Token) -> Row:
    """The row of a token."""
    return (
        token.id,
        token.service_id,
        token.kind.value,
        token.digest,
        token.created_at,
        token.expires_at,
        token.parent,
        token.ended_at,
    )


def slot_values(slot: Slot) -> Row:
    """The row of a keyring slot."""
    return (slot.id, slot.generation, slot.instance_id, slot.kdf, slot.sealed, slot.created_at, slot.removed_at)


def reply_values(reply: StoredReply) -> Row:
    """The row of a kept reply; its `row_seq` is the entry it belongs to."""
    return (reply.service_id, reply.key_digest, reply.body_digest, reply.expires_at, reply.sealed)


def read_key(row: Row, versions: tuple[KeyVersion, ...]) -> Key:
    """The key of a verified row."""
    key_id, name, kind, size, purpose, status, created, description, tags, days, rotate, destroy, revoked = row
    return Key(
        id=KeyId(key_id),
        name=name,
        spec=_spec(kind, size, purpose),
        status=KeyStatus(status),
        created_at=created,
        description=description,
        tags=json.loads(tags),
        rotation_days=days,
        rotate_at=rotate,
        destroy_at=destroy,
        was_revoked=bool(revoked),
        versions=versions,
    )


_SPECS: Final[dict[tuple[str, int | None, str], KeySpec]] = {}


def _spec(kind: str, size: int | None, purpose: str) -> KeySpec:
    # One object for each kind of key: there are few kinds and may be many keys.
    known = (kind, size, purpose)
    if known not in _SPECS:
        _SPECS[known] = KeySpec(KeyType(kind), size, Purpose(purpose))
    return _SPECS[known]


def read_version(row: Row) -> KeyVersion:
    """The key version of a verified row."""
    _, key_id, version, encrypted_key, status, created, public_key, generation = row
    return KeyVersion(
        key_id=KeyId(key_id),
        version=version,
        status=VersionStatus(status),
        created_at=created,
        encrypted_key=encrypted_key,
        public_key=public_key,
        generation=generation,
    )


def read_service(row: Row) -> Service:
    """The service of a verified row."""
    service_id, name, role, active, created, grants, expires = row
    return Service(
        id=ServiceId(service_id),
        name=name,
        role=Role(role),
        active=bool(active),
        created_at=created,
        grants=tuple(Grant(key, frozenset(map(Permission, actions))) for key, actions in json.loads(grants)),
        expires_at=expires,
    )


def read_token(row: Row) -> Token:
    """The token of a verified row."""
    token_id, service_id, kind, digest, created, expires, parent, ended = row
    return Token(
        id=TokenId(token_id),
        service_id=ServiceId(service_id),
        kind=TokenKind(kind),
        digest=digest,
        created_at=created,
        expires_at=expires,
        parent=parent,
        ended_at=ended,
    )


def read_slot(row: Row) -> Slot:
    """The slot of a row; before the keyring is open it cannot be verified, and its container verifies itself."""
    slot_id, generation, instance_id, kdf, sealed, created, removed = row
    return Slot(slot_id, generation, instance_id, kdf, sealed, created, removed)


def read_reply(row: Row, row_seq: int) -> StoredReply:
    """The kept reply of a verified row."""
    service_id, key_digest, body_digest, expires_at, sealed = row
    return StoredReply(ServiceId(service_id), key_digest, body_digest, expires_at, sealed, row_seq)


def changed_rows(change: Change, before: Callable[[KeyId], Key | None]) -> Iterator[tuple[str, Row]]:
    """The rows a change writes, as (table, values): only versions that are not the very records of `before`.

    Within a key the versions come oldest first, so that an ACTIVE version steps down before the next one is ACTIVE.
    """
    for key in change.keys:
        old = before(key.id)
        yield "keys", key_values(key)
        known = () if old is None else old.versions
        for index, version in enumerate(key.versions):
            if index >= len(known) or known[index] is not version:
                yield "key_versions", version_values(version)
    for service in change.services:
        yield "services", service_values(service)
    for token in change.tokens:
        yield "tokens", token_values(token)
    for slot in change.slots:
        yield "keyring_slots", slot_values(slot)
