"""The verified snapshot: every record that carries authority or keys, in memory.

One shared map. A change replaces whole records and never copies the map; readers see a record before or after a change,
never half of one. A reader notes `sequence` *before* it reads: if anything it saw is newer than that, the ledger sees a
newer management entry at commit and has the operation done again. So a torn view across records can cost a
repetition and never an answer.
"""

from bisect import bisect_right, insort
from collections import ChainMap
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, TypeVar

from keyvault_lite.ledger.state.outcome import Change, StoredReply
from keyvault_lite.ledger.storage.record_types import RECORD_TYPES, RecordType
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.identity import Role, Service, Setting, Token, TokenKind
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.keys import Key, KeyName
from keyvault_lite.model.names import KeyId, ServiceId, TokenId

FindReply = Callable[[ServiceId, bytes], StoredReply | None]
SnapshotVersion = tuple[int, int]
"""How far a state is: the newest management entry it includes, and how often what is set aside has changed."""
Place = tuple[int, str]
"""Where an object is in a list: time of creation, then id."""
AnyId = TypeVar("AnyId", bound=str)
R = TypeVar("R")


class _Quarantine(set[str | None]):
    """What is set aside. A state and the overlays on it share one, so it counts its own changes."""

    changes = 0


class State:
    """Verified records by id and by name. Only the ledger writes to it; everyone may read."""

    __slots__ = (
        "_find_reply",
        "_key_names",
        "_key_order",
        "_keys",
        "_leased_counts",
        "_native_tokens",
        "_quarantine",
        "_records",
        "_service_names",
        "_service_order",
        "_services",
        "_settings",
        "_slots",
        "_tokens",
        "sequence",
    )

    def __init__(self, find_reply: FindReply) -> None:
        self._find_reply = find_reply
        self.sequence = 0
        """The newest management entry this state includes."""
        self._keys: MutableMapping[KeyId, Key] = {}
        self._key_names: MutableMapping[str, KeyId | None] = {}
        self._key_order: list[KeyId] = []
        self._services: MutableMapping[ServiceId, Service] = {}
        self._service_names: MutableMapping[str, ServiceId] = {}
        self._service_order: list[ServiceId] = []
        self._tokens: MutableMapping[TokenId, Token | None] = {}
        self._native_tokens: MutableMapping[ServiceId, tuple[TokenId, ...]] = {}
        """By service, its native tokens that have not ended."""
        self._leased_counts: MutableMapping[tuple[ServiceId, bool], int] = {}
        """By service and whether they have a parent, how many leased tokens are stored, ended ones included."""
        self._slots: MutableMapping[str, Slot] = {}
        self._settings: MutableMapping[str, Setting] = {}
        self._records: Mapping[str, MutableMapping[Hashable, Any]] = {
            kind.table: {} for kind in RECORD_TYPES if kind.field is None
        }
        """By table, the records of declared types that have no field of their own."""
        self._quarantine = _Quarantine()

    def find_key(self, ref: str) -> Key | None:
        """The key of that id, name or dialect's name. Raises IntegrityViolation for one that did not verify."""
        key_id = KeyId(ref) if ref in self._keys else self._key_names.get(ref)  # no name looks like an id
        if self._quarantine and not self._quarantine.isdisjoint((ref, key_id)):
            raise IntegrityViolation("the stored key does not verify")
        return None if key_id is None else self._keys.get(key_id)

    def key_record(self, key_id: KeyId) -> Key | None:
        """The record of a key, set aside or not: to compare with, never to use."""
        return self._keys.get(key_id)

    def service_record(self, service_id: ServiceId) -> Service | None:
        """As `key_record`, of a service."""
        return self._services.get(service_id)

    def id_of_name(self, name: str) -> KeyId | None:
        """The id of the key that has this name, native or of a dialect, whether or not it verifies."""
        return self._key_names.get(name)

    def find_service(self, ref: str) -> Service | None:
        """The service of that id or name. Raises IntegrityViolation for one that did not verify."""
        service_id = ServiceId(ref) if ref in self._services else self._service_names.get(ref)  # as above
        if self._quarantine and not self._quarantine.isdisjoint((ref, service_id)):
            raise IntegrityViolation("the stored service does not verify")
        return None if service_id is None else self._services.get(service_id)

    def token(self, token_id: TokenId) -> Token | None:
        """The token of that id, ended ones included."""
        return self._tokens.get(token_id)

    def native_tokens(self, service_id: ServiceId) -> list[Token]:
        """The native tokens of a service that have not ended, the newest last."""
        found = map(self._tokens.get, self._native_tokens.get(service_id, ()))
        return sorted(filter(None, found), key=lambda token: (token.created_at, token.id))

    def count_leased(self, service_id: ServiceId, *, children: bool) -> int:
        """How many leased tokens of a service are stored, ended ones included: with a parent, or without."""
        return self._leased_counts.get((service_id, children), 0)

    def active_admins(self) -> list[Service]:
        """Every ADMIN that is active."""
        return [one for one in list(self._services.values()) if one.role is Role.ADMIN and one.active]

    def keys_after(self, place: Place | None) -> Iterator[Key]:
        """The keys that verify in order of creation, from the first after `place`."""
        order = self._key_order
        for key_id in order[0 if place is None else bisect_right(order, place, key=self._place_of_key) :]:
            if key_id not in self._quarantine:
                yield self._keys[key_id]

    def services_after(self, place: Place | None) -> Iterator[Service]:
        """The services that verify in order of creation, from the first after `place`."""
        order = self._service_order
        for service_id in order[0 if place is None else bisect_right(order, place, key=self._place_of_service) :]:
            if service_id not in self._quarantine:
                yield self._services[service_id]

    def slots(self) -> tuple[Slot, ...]:
        """Every slot that is not removed."""
        return tuple(slot for slot in list(self._slots.values()) if slot.removed_at is None)

    def setting(self, name: str) -> Setting | None:
        """The setting of that name, unless it is gone."""
        found = self._settings.get(name)
        return None if found is None or found.value is None else found

    def settings_under(self, prefix: str) -> list[Setting]:
        """Every setting whose name begins so, by name."""
        found = (one for name, one in list(self._settings.items()) if name.startswith(prefix) and one.value is not None)
        return sorted(found, key=lambda one: one.name)

    def record(self, kind: RecordType[R], identity: Hashable) -> R | None:
        """The record of a declared type under its primary key."""
        found: R | None = self._records[kind.table].get(identity)
        return found

    def records(self, kind: RecordType[R]) -> list[R]:
        """Every record of a declared type."""
        return list(self._records[kind.table].values())

    def tokens_of(self, service_id: ServiceId) -> list[Token]:
        """Every token of a service, of any kind, that has not ended."""
        return [one for one in self.tokens() if one.service_id == service_id and one.ended_at is None]

    def tokens(self) -> list[Token]:
        """Every token of every kind, ended ones included."""
        return [one for one in list(self._tokens.values()) if one is not None]

    def reply(self, service_id: ServiceId, key_digest: bytes) -> StoredReply | None:
        """The kept reply to the Idempotency-Key of that digest."""
        return self._find_reply(service_id, key_digest)

    def quarantine(self, ref: str) -> None:
        """From now on answer IntegrityViolation for the key or service of that id or name."""
        self._quarantine.add(ref)
        self._quarantine.changes += 1

    def release(self, refs: Iterable[str]) -> None:
        """Let these be used again: what is stored of them is what memory has."""
        self._quarantine.difference_update(refs)
        self._quarantine.changes += 1

    def is_quarantined(self, ref: str) -> bool:
        """Whether that is set aside."""
        return ref in self._quarantine

    @property
    def snapshot_version(self) -> SnapshotVersion:
        """The version of the state. Read it before anything else: what changes meanwhile is newer."""
        return self.sequence, self._quarantine.changes

    @property
    def quarantined(self) -> frozenset[str]:
        """What does not verify."""
        return frozenset(ref for ref in self._quarantine if ref is not None)

    def apply(self, change: Change) -> None:
        """Put the records of a change in place, each whole, each before the name that leads to it."""
        self._put_keys(change.keys)
        self._put_services(change.services)
        for token in change.tokens:
            self._index_token(self._tokens.get(token.id), token)
            self._tokens[token.id] = token
        for gone in change.gone_tokens:
            self._drop_token(gone)
        for slot in change.slots:
            self._slots[slot.id] = slot
        for setting in change.settings:
            self._settings[setting.name] = setting
        for kind in RECORD_TYPES if change.records else ():
            if kind.field is None:
                self._records[kind.table].update((kind.identity(one), one) for one in change.records_of(kind))

    def _index_token(self, old: Token | None, new: Token | None) -> None:
        """Keep the indexes up to date with a record that takes the place of another, either of which may be absent."""
        if old is not None and old.kind is TokenKind.LEASED:
            self._leased_counts[old.service_id, old.parent is not None] -= 1
        elif old is not None and old.kind is TokenKind.NATIVE:
            live = self._native_tokens.get(old.service_id, ())
            self._native_tokens[old.service_id] = tuple(one for one in live if one != old.id)
        if new is not None and new.kind is TokenKind.LEASED:
            place = new.service_id, new.parent is not None
            self._leased_counts[place] = self._leased_counts.get(place, 0) + 1
        elif new is not None and new.kind is TokenKind.NATIVE and new.ended_at is None:
            self._native_tokens[new.service_id] = (*self._native_tokens.get(new.service_id, ()), new.id)

    def _drop_token(self, token_id: TokenId) -> None:
        self._index_token(self._tokens.get(token_id), None)
        self._tokens.pop(token_id, None)

    def _put_keys(self, keys: Sequence[Key]) -> None:
        new: list[tuple[int, KeyId]] = []
        for key in keys:
            old = self._keys.get(key.id)
            if old is None:
                new.append((key.created_at, key.id))
            self._keys[key.id] = key
            if key.name is not None:
                self._key_names[key.name] = key.id
            if key.names or (old is not None and old.names):
                self._put_names(key, () if old is None else old.names)
        self._key_order = _ordered(self._key_order, new, self._place_of_key)

    def _put_names(self, key: Key, old: Sequence[KeyName]) -> None:
        for lost in old:
            if lost not in key.names and self._key_names.get(lost.text) == key.id:
                self._key_names[lost.text] = None
        for name in key.names:
            self._key_names[name.text] = key.id

    def _put_services(self, services: Sequence[Service]) -> None:
        new: list[tuple[int, ServiceId]] = []
        for service in services:
            if service.id not in self._services:
                new.append((service.created_at, service.id))
            self._services[service.id] = service
            self._service_names[service.name] = service.id
        self._service_order = _ordered(self._service_order, new, self._place_of_service)

    def _place_of_key(self, key_id: KeyId) -> tuple[int, KeyId]:
        return self._keys[key_id].created_at, key_id

    def _place_of_service(self, service_id: ServiceId) -> tuple[int, ServiceId]:
        return self._services[service_id].created_at, service_id


def _ordered(
    order: list[AnyId], new: Sequence[tuple[int, AnyId]], place: Callable[[AnyId], tuple[int, AnyId]]
) -> list[AnyId]:
    """A list with new ids in their places."""
    if len(new) > len(order):
        return [one for _, one in sorted([*map(place, order), *new])]
    for _, one in new:
        insort(order, one, key=place)
    return order


class Overlay(State):
    """A state with uncommitted changes on top of another: the state for the next operation of the transaction.

    The state below is not touched, so an aborted transaction needs no undoing here.
    """

    __slots__ = ()

    def __init__(self, below: State, find_reply: FindReply) -> None:
        self._find_reply = find_reply
        self.sequence = below.sequence
        self._keys = ChainMap({}, below._keys)
        self._key_names = ChainMap({}, below._key_names)
        self._key_order = below._key_order
        self._services = ChainMap({}, below._services)
        self._service_names = ChainMap({}, below._service_names)
        self._service_order = below._service_order
        self._tokens = ChainMap({}, below._tokens)
        self._native_tokens = ChainMap({}, below._native_tokens)
        self._leased_counts = ChainMap({}, below._leased_counts)
        self._slots = ChainMap({}, below._slots)
        self._settings = ChainMap({}, below._settings)
        self._records = {table: ChainMap({}, records) for table, records in below._records.items()}
        self._quarantine = below._quarantine

    def apply(self, change: Change) -> None:
        """As State.apply, on top."""
        if any(key.id not in self._keys for key in change.keys):
            self._key_order = list(self._key_order)
        if any(service.id not in self._services for service in change.services):
            self._service_order = list(self._service_order)
        super().apply(change)

    def _drop_token(self, token_id: TokenId) -> None:
        self._index_token(self._tokens.get(token_id), None)
        self._tokens[token_id] = None  # what is below must not show through
