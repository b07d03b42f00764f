"""Record types: each is declared once, and everything else is derived from the declaration.

A declaration says how records of a type are stored (table, columns, row and back), how memory finds them, and which
actions write them. From it follow the columns under the row MAC, the place under the state root, the rule that rows are
never deleted, the statements, the table of the schema, what a commit writes and a start reads, and what verification
expects. One more record type is one more declaration and a migration that creates its table.

Keys are composite (with versions and dialects' names) and kept replies are outside the root: `schema` has their tables.
"""

import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import Grant, Permission, Role, Service, Setting, Token, TokenKind
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.names import ServiceId, TokenId

R = TypeVar("R")
Values = tuple[Any, ...]
NO_ATTRIBUTES: Final[Mapping[str, Any]] = MappingProxyType({})
"""One empty map for all records that have none: there may be many."""


def json_text(value: object) -> str:
    """Canonical JSON: sorted names, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class ColumnType(StrEnum):
    """What a column holds."""

    TEXT = "text"
    INTEGER = "integer"
    BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a record type, without row_seq and row_mac, which every table has."""

    name: str
    type: ColumnType
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class RecordType(Generic[R]):
    """A kind of record in a table of its own, with one row each."""

    table: str
    kind: type[R]
    columns: tuple[Column, ...]
    """In the order that the row MAC covers, the primary key first."""
    to_row: Callable[[R], Values]
    from_row: Callable[[Values], R]
    """Only called on rows that verify. Raises TypeError, ValueError or KeyError for what is no record."""
    identity: Callable[[R], Hashable]
    """Under which memory keeps a record: the value of the primary key."""
    written_by: frozenset[Action]
    """Actions whose entry names a record as its subject, and writes its row: a row of an older entry was put back."""
    field: str | None = None
    """The field of Change with its records; None: among `Change.records`."""
    key_columns: int = 1


def _columns(text: str) -> tuple[Column, ...]:
    """From `name:type`, with `?` behind a type that may be NULL."""
    pairs = (part.split(":") for part in text.split())
    return tuple(Column(name, ColumnType(kind.rstrip("?")), nullable=kind.endswith("?")) for name, kind in pairs)


def setting_values(setting: Setting) -> Values:
    """The row of a setting."""
    return (setting.name, None if setting.value is None else json_text(dict(setting.value)))


def service_values(service: Service) -> Values:
    """The row of a service."""
    grants = [[grant.key, sorted(grant.actions)] for grant in service.grants]
    return (
        service.id,
        service.name,
        service.role.value,
        int(service.active),
        service.created_at,
        json_text(grants),
        service.expires_at,
    )


def token_values(token: Token) -> Values:
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
        json_text(dict(token.attributes)),
    )


def slot_values(slot: Slot) -> Values:
    """The row of a keyring slot."""
    return (slot.id, slot.generation, slot.instance_id, slot.kdf, slot.sealed, slot.created_at, slot.removed_at)


def read_setting(row: Values) -> Setting:
    """The setting of a verified row."""
    name, value = row
    return Setting(name, None if value is None else json.loads(value))


def read_service(row: Values) -> Service:
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


def read_token(row: Values) -> Token:
    """The token of a verified row."""
    token_id, service_id, kind, digest, created, expires, parent, ended, more = row
    return Token(
        id=TokenId(token_id),
        service_id=ServiceId(service_id),
        kind=TokenKind(kind),
        digest=digest,
        created_at=created,
        expires_at=expires,
        parent=parent,
        ended_at=ended,
        attributes=NO_ATTRIBUTES if more == "{}" else json.loads(more),
    )


def read_slot(row: Values) -> Slot:
    """The slot of a row; before the keyring is open it cannot be verified, and its container verifies itself."""
    slot_id, generation, instance_id, kdf, sealed, created, removed = row
    # Nothing has verified the row when the keyring is opened with it.
    if tuple(map(type, row[:6])) != (str, int, bytes, str, bytes, int) or type(removed) not in {int, type(None)}:
        raise TypeError("a slot has columns of other types")
    (slot_id + kdf).encode()  # raises ValueError for text that was not UTF-8
    return Slot(slot_id, generation, instance_id, kdf, sealed, created, removed)


SERVICES: Final = RecordType(
    table="services",
    kind=Service,
    columns=_columns("id:text name:text role:text active:integer created_at:integer grants:text expires_at:integer?"),
    to_row=service_values,
    from_row=read_service,
    identity=lambda service: service.id,
    written_by=frozenset({Action.SERVICE_CREATE, Action.SERVICE_UPDATE, Action.INITIALISE, Action.REPAIR}),
    field="services",
)
TOKENS: Final = RecordType(
    table="tokens",
    kind=Token,
    columns=_columns(
        "id:text service_id:text kind:text digest:bytes created_at:integer expires_at:integer? parent:text? "
        "ended_at:integer? attributes:text"
    ),
    to_row=token_values,
    from_row=read_token,
    identity=lambda token: token.id,
    written_by=frozenset(),  # entries name the service; `row_writers` finds its newest token
    field="tokens",
)
SLOTS: Final = RecordType(
    table="keyring_slots",
    kind=Slot,
    columns=_columns(
        "id:text generation:integer instance_id:bytes kdf:text sealed:bytes created_at:integer removed_at:integer?"
    ),
    to_row=slot_values,
    from_row=read_slot,
    identity=lambda slot: slot.id,
    written_by=frozenset(),  # entries name the slot by the digest of its content, which is more
    field="slots",
)
SETTINGS: Final = RecordType(
    table="settings",
    kind=Setting,
    columns=_columns("name:text value:text?"),
    to_row=setting_values,
    from_row=read_setting,
    identity=lambda setting: setting.name,
    written_by=frozenset(),  # an entry may write several
    field="settings",
)
RECORD_TYPES: Final[list[RecordType[Any]]] = [SERVICES, TOKENS, SLOTS, SETTINGS]
"""In the order in which foreign keys let rows be written. A declaration is added here, at the end."""
