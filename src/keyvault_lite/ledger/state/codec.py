"""How records become rows and back. Times are integers, microseconds since 1970-01-01 UTC.

Lists and maps are in canonical JSON: sorted names, no spaces.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from keyvault_lite.ledger.state.outcome import Change, StoredReply
from keyvault_lite.ledger.storage.record_types import NO_ATTRIBUTES, RECORD_TYPES, json_text
from keyvault_lite.ledger.storage.schema import Row
from keyvault_lite.model.keys import Key, KeyName, KeySpec, KeyStatus, KeyType, KeyVersion, Purpose, VersionStatus
from keyvault_lite.model.names import KeyId, ServiceId


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
        json_text(dict(key.tags)),
        key.rotation_days,
        key.rotate_at,
        key.destroy_at,
        int(key.was_revoked),
        json_text(dict(key.attributes)),
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
        json_text(dict(version.attributes)),
    )


def name_values(name: KeyName, key_id: KeyId | None) -> Row:
    """The row of a dialect's name; without a key, its tombstone."""
    return (name.namespace, name.name, key_id, name.created_at, name.updated_at)


def reply_values(reply: StoredReply) -> Row:
    """The row of a kept reply; its `row_seq` is the entry it belongs to."""
    return (reply.service_id, reply.key_digest, reply.body_digest, reply.expires_at, reply.sealed)


def read_key(row: Row, *, versions: tuple[KeyVersion, ...], names: tuple[KeyName, ...]) -> Key:
    """The key of a verified row."""
    key_id, name, kind, size, purpose, status, created, description, tags, days, rotate, destroy, revoked, more = row
    return Key(
        id=versions[0].key_id if versions else KeyId(key_id),  # the same as there, once in memory
        name=name,
        spec=_spec(kind, size, purpose),
        status=_KEY_STATUS[status],
        created_at=versions[0].created_at if versions and versions[0].created_at == created else created,
        description=description,
        tags=NO_ATTRIBUTES if tags == "{}" else json.loads(tags),
        rotation_days=days,
        rotate_at=rotate,
        destroy_at=destroy,
        was_revoked=bool(revoked),
        versions=versions,
        names=names,
        attributes=NO_ATTRIBUTES if more == "{}" else json.loads(more),
    )


_KEY_STATUS: Final = {status.value: status for status in KeyStatus}
_VERSION_STATUS: Final = {status.value: status for status in VersionStatus}
_SPECS: Final[dict[tuple[str, int | None, str], KeySpec]] = {}


def _spec(kind: str, size: int | None, purpose: str) -> KeySpec:
    # One object for each kind of key: there are few kinds and may be many keys.
    known = (kind, size, purpose)
    if known not in _SPECS:
        _SPECS[known] = KeySpec(KeyType(kind), size, Purpose(purpose))
    return _SPECS[known]


def read_version(row: Row) -> KeyVersion:
    """The key version of a verified row."""
    _, key_id, version, encrypted_key, status, created, public_key, generation, more = row
    return KeyVersion(
        key_id=KeyId(key_id),
        version=version,
        status=_VERSION_STATUS[status],
        created_at=created,
        encrypted_key=encrypted_key,
        public_key=public_key,
        generation=generation,
        attributes=NO_ATTRIBUTES if more == "{}" else json.loads(more),
    )


def read_name(row: Row) -> tuple[KeyId | None, KeyName]:
    """The dialect's name of a verified row, and the key it names."""
    namespace, name, key_id, created, updated = row
    return (None if key_id is None else KeyId(key_id)), KeyName(namespace, name, created, updated)


def read_reply(row: Row, row_seq: int) -> StoredReply:
    """The kept reply of a verified row."""
    service_id, key_digest, body_digest, expires_at, sealed = row
    return StoredReply(ServiceId(service_id), key_digest, body_digest, expires_at, sealed, row_seq)


def changed_rows(change: Change, before: Callable[[KeyId], Key | None]) -> Iterator[tuple[str, Row]]:
    """The rows a change writes, as (table, values); of versions and names those that are no records of `before`."""
    olds = {key.id: before(key.id) for key in change.keys}
    for key in change.keys:
        yield "keys", key_values(key)
        yield from (("key_versions", version_values(version)) for version in _changed_versions(key, olds[key.id]))
    yield from (("key_names", values) for values in _changed_names(change, olds))
    for kind in RECORD_TYPES:
        yield from ((kind.table, kind.to_row(record)) for record in change.records_of(kind))


def _changed_versions(key: Key, old: Key | None) -> Iterator[KeyVersion]:
    """Oldest first, so that an ACTIVE version steps down before the next one is ACTIVE."""
    known = () if old is None else old.versions
    for index, version in enumerate(key.versions):
        if index >= len(known) or known[index] is not version:
            yield version


def _changed_names(change: Change, olds: Mapping[KeyId, Key | None]) -> Iterator[Row]:
    """Names that keys lose before those that keys gain, so that a name can move from one key to another."""
    had = {key_id: () if old is None else old.names for key_id, old in olds.items()}
    for key in change.keys:
        yield from (name_values(name, None) for name in had[key.id] if name not in key.names)
    yield from (name_values(name, None) for name in change.gone_names)
    for key in change.keys:
        yield from (name_values(name, key.id) for name in key.names if name not in had[key.id])
