"""The verified snapshot: every record that carries authority or keys, in memory, and the root that commits to all.

One shared map. A change replaces whole records and never copies the map; readers see a record before or after a change,
never half of one. A reader notes `sequence` *before* it reads: if anything it saw is newer than that, the ledger sees a
newer management entry at commit and has the operation done again. So a torn view across records can cost a
repetition and never an answer.
"""

import hashlib
from array import array
from bisect import bisect_right, insort
from collections import ChainMap
from collections.abc import Callable, Iterator, MutableMapping
from functools import cache
from mmap import mmap
from operator import itemgetter
from struct import Struct
from typing import Final, TypeVar

from keyvault_lite.ledger.outcome import Change, StoredReply
from keyvault_lite.model.encoding import Value, encode, list_head, pae
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.identity import Role, Service, Setting, Token, TokenKind
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.keys import Key
from keyvault_lite.model.names import KeyId, ServiceId, TokenId, is_id

BUCKETS: Final = 4096
_LIST: Final = Struct(">BI")
_BUCKET: Final = encode("bucket")
_RECORD: Final = Struct(">QI")
BLOCK: Final = 1 << 20
"""Bytes of memory that are asked for at a time while rows are read."""
FindReply = Callable[[ServiceId, bytes], StoredReply | None]
Place = tuple[int, str]
"""Where an object stands in a list: time of creation, then id."""
AnyId = TypeVar("AnyId", KeyId, ServiceId)


class State:
    """Verified records by id and by name. Only the ledger writes to it; everyone may read."""

    __slots__ = (
        "_find_reply",
        "_key_names",
        "_key_order",
        "_keys",
        "_native_tokens",
        "_quarantine",
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
        self._tokens: MutableMapping[TokenId, Token] = {}
        self._native_tokens: MutableMapping[ServiceId, TokenId] = {}
        self._slots: MutableMapping[str, Slot] = {}
        self._settings: MutableMapping[str, Setting] = {}
        self._quarantine: set[str | None] = set()

    def find_key(self, ref: str) -> Key | None:
        """The key of that id, name or dialect's name. Raises IntegrityViolation for one that did not verify."""
        key_id = KeyId(ref) if is_id(ref) else self._key_names.get(ref)
        if not self._quarantine.isdisjoint((ref, key_id)):
            raise IntegrityViolation("the stored key does not verify")
        return None if key_id is None else self._keys.get(key_id)

    def key_record(self, key_id: KeyId) -> Key | None:
        """The record of a key, set aside or not: to compare with, never to use."""
        return self._keys.get(key_id)

    def id_of_name(self, name: str) -> KeyId | None:
        """The id of the key that has this name, native or of a dialect, whether or not it verifies."""
        return self._key_names.get(name)

    def find_service(self, ref: str) -> Service | None:
        """The service of that id or name. Raises IntegrityViolation for one that did not verify."""
        service_id = ServiceId(ref) if is_id(ref) else self._service_names.get(ref)
        if not self._quarantine.isdisjoint((ref, service_id)):
            raise IntegrityViolation("the stored service does not verify")
        return None if service_id is None else self._services.get(service_id)

    def token(self, token_id: TokenId) -> Token | None:
        """The token of that id, ended ones included."""
        return self._tokens.get(token_id)

    def native_token(self, service_id: ServiceId) -> Token | None:
        """The one live native token of a service."""
        token_id = self._native_tokens.get(service_id)
        return None if token_id is None else self._tokens[token_id]

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

    def tokens_of(self, service_id: ServiceId) -> list[Token]:
        """Every token of a service, of any kind, that has not ended."""
        return [one for one in list(self._tokens.values()) if one.service_id == service_id and one.ended_at is None]

    def reply(self, service_id: ServiceId, key_digest: bytes) -> StoredReply | None:
        """The kept reply to the Idempotency-Key of that digest."""
        return self._find_reply(service_id, key_digest)

    def quarantine(self, ref: str) -> None:
        """From now on answer IntegrityViolation for the key or service of that id or name."""
        self._quarantine.add(ref)

    @property
    def quarantined(self) -> frozenset[str]:
        """What does not verify."""
        return frozenset(ref for ref in self._quarantine if ref is not None)

    def apply(self, change: Change) -> None:
        """Put the records of a change in place, each whole, each before the name that leads to it."""
        new = list(dict.fromkeys(key.id for key in change.keys if key.id not in self._keys))
        for key in change.keys:
            self._put_key(key)
        self._key_order = _ordered(self._key_order, new, self._place_of_key)
        new_services = [service.id for service in change.services if service.id not in self._services]
        for service in change.services:
            self._services[service.id] = service
            self._service_names[service.name] = service.id
        self._service_order = _ordered(self._service_order, new_services, self._place_of_service)
        for token in change.tokens:
            self._tokens[token.id] = token
            if token.kind is TokenKind.NATIVE and token.ended_at is None:
                self._native_tokens[token.service_id] = token.id
        for slot in change.slots:
            self._slots[slot.id] = slot
        for setting in change.settings:
            self._settings[setting.name] = setting

    def _put_key(self, key: Key) -> None:
        old = self._keys.get(key.id)
        self._keys[key.id] = key
        if key.name is not None:
            self._key_names[key.name] = key.id
        for lost in () if old is None else old.names:
            if lost not in key.names and self._key_names.get(lost.text) == key.id:
                self._key_names[lost.text] = None
        for name in key.names:
            self._key_names[name.text] = key.id

    def _place_of_key(self, key_id: KeyId) -> Place:
        return self._keys[key_id].created_at, key_id

    def _place_of_service(self, service_id: ServiceId) -> Place:
        return self._services[service_id].created_at, service_id


def _ordered(order: list[AnyId], new: list[AnyId], place: Callable[[AnyId], Place]) -> list[AnyId]:
    """A list with new ids in their places."""
    if len(new) > len(order):
        return sorted([*order, *new], key=place)
    for one in new:
        insort(order, one, key=place)
    return order


class Overlay(State):
    """A state with uncommitted changes on top of another: what the next operation of the same transaction is judged on.

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
        self._slots = ChainMap({}, below._slots)
        self._settings = ChainMap({}, below._settings)
        self._quarantine = below._quarantine

    def apply(self, change: Change) -> None:
        """As State.apply, on top."""
        if any(key.id not in self._keys for key in change.keys):
            self._key_order = list(self._key_order)
        if any(service.id not in self._services for service in change.services):
            self._service_order = list(self._service_order)
        super().apply(change)


class StateTree:
    """The root over all row MACs: 4 096 buckets by hashed row key, then one hash. Belongs to the committer thread.

    root = SHA-256(PAE("state", row count, b₀ … b₄₀₉₅)), bᵢ = SHA-256(PAE of the sorted (row key, row MAC) whose
    SHA-256(row key) begins with the 12 bits i), row key = PAE(table, primary key…). Only touched buckets are hashed
    again.
    """

    __slots__ = ("_buckets", "_counts", "_digests", "_undo", "count")

    def __init__(self) -> None:
        self._buckets = [b""] * BUCKETS
        """Of each its pairs in order, encoded as they are hashed: half of what an object for each would take."""
        self._counts = array("Q", [0]) * BUCKETS
        self._digests = [_bucket_digest(0, b"")] * BUCKETS
        self._undo: list[tuple[int, int, bytes]] = []
        self.count = 0

    def put(self, row_key: bytes, mac: bytes) -> None:
        """Note the MAC of a row, new or changed. Takes effect on `root` at once; `rollback` undoes it."""
        index = _bucket_of(row_key)
        bucket, count = self._buckets[index], self._counts[index]
        self._undo.append((index, count, bucket))
        start, end = _find(bucket, row_key)
        self._set(index, count + (start == end), bucket[:start] + _pair(row_key, mac) + bucket[end:])

    def load(self, rows: "RowMacs") -> None:
        """Put many rows in place that are all new here, none of them to be rolled back."""
        for index, bucket in enumerate(self._buckets):
            if new := rows.bucket(index):
                pairs = new + _split(bucket)
                self._set(index, len(pairs), _joined(pairs))

    def _set(self, index: int, count: int, bucket: bytes) -> None:
        self.count += count - self._counts[index]
        self._counts[index] = count
        self._buckets[index] = bucket
        self._digests[index] = _bucket_digest(count, bucket)

    def root(self) -> bytes:
        """The root over all rows noted."""
        return _root(self.count, self._digests)

    def accept(self) -> None:
        """Keep what was put since the last `accept` or `rollback`."""
        self._undo.clear()

    def rollback(self) -> None:
        """Undo what was put since the last `accept` or `rollback`."""
        for index, count, bucket in reversed(self._undo):
            self._set(index, count, bucket)
        self._undo.clear()

    def differences(self, rows: "RowMacs") -> set[bytes]:
        """The keys of rows whose MAC is another one there, or that are on one side only."""
        found: set[bytes] = set()
        for index, bucket in enumerate(self._buckets):
            differing = {*_split(bucket)} ^ {*rows.bucket(index)}
            found |= {pair[_LIST.size : _key_end(pair, 0)] for pair in differing}
        return found


class RowMacs:
    """Row keys and MACs of many rows as they are read, each once, in memory of their own.

    As objects, or on the heap, they would leave gaps behind that the process keeps. Before each pair stands where the
    one before it in the same bucket is, and how long it is itself.
    """

    __slots__ = ("_blocks", "_count", "_last", "_used")

    def __init__(self) -> None:
        self._blocks: list[mmap] = []
        self._used = BLOCK
        """Bytes of the newest block."""
        self._last = [0] * BUCKETS
        """By bucket: block << 32 | end of the newest pair's head; 0 for none."""
        self._count = 0

    def add(self, row_key: bytes, mac: bytes) -> None:
        """Take note of a row."""
        index, pair = _bucket_of(row_key), _pair(row_key, mac)
        record = _RECORD.pack(self._last[index], len(pair)) + pair
        start, end = self._used, self._used + len(record)
        if end > BLOCK:
            self._blocks.append(mmap(-1, max(BLOCK, len(record))))
            start, end = 0, len(record)
        self._blocks[-1][start:end] = record
        self._used = end
        self._last[index] = len(self._blocks) - 1 << 32 | start + _RECORD.size
        self._count += 1

    def bucket(self, index: int) -> list[bytes]:
        """The encoded pairs of a bucket, in no order."""
        found, place = [], self._last[index]
        while place:
            block, start = self._blocks[place >> 32], place & 0xFFFFFFFF
            place, length = _RECORD.unpack_from(block, start - _RECORD.size)
            found.append(block[start : start + length])
        return found

    def root(self) -> bytes:
        """The root of a tree of these rows."""
        buckets = map(self.bucket, range(BUCKETS))
        return _root(self._count, [_bucket_digest(len(pairs), _joined(pairs)) for pairs in buckets])


def row_key(table: str, key: tuple[Value, ...]) -> bytes:
    """PAE(table, primary key…): the name of a row in the tree."""
    if len(key) == 1:
        return _row_head(table) + encode(key[0])
    return pae(table, *key)


@cache
def _row_head(table: str) -> bytes:
    return list_head(2) + encode(table)


def row_of(row_key: bytes) -> tuple[str, str]:
    """Table, and key columns joined, of a row under the root: these are all text."""
    texts, at = [], _LIST.size
    while at < len(row_key):
        _, length = _LIST.unpack_from(row_key, at)
        at += _LIST.size
        texts.append(row_key[at : at + length].decode())
        at += length
    return texts[0], "".join(texts[1:])


def _bucket_of(row_key: bytes) -> int:
    digest = hashlib.sha256(row_key).digest()
    return digest[0] << 4 | digest[1] >> 4


def _bucket_digest(count: int, bucket: bytes) -> bytes:
    # As encode(SHA-256(pae("bucket", key, MAC, key, MAC, …))), of pairs that are encoded already.
    return encode(hashlib.sha256(list_head(2 * count + 1) + _BUCKET + bucket).digest())


def _pair(row_key: bytes, mac: bytes) -> bytes:
    return encode(row_key) + encode(mac)


def _root(count: int, digests: list[bytes]) -> bytes:
    values = encode("state"), encode(count), *digests
    return hashlib.sha256(list_head(len(values)) + b"".join(values)).digest()


_BY_KEY: Final = itemgetter(slice(_LIST.size, None))
"""Sorts pairs by row key: behind the head of its length stands the key, and no row key is the beginning of another."""


def _joined(pairs: list[bytes]) -> bytes:
    return b"".join(sorted(pairs, key=_BY_KEY))


def _key_end(bucket: bytes, start: int) -> int:
    """Where the row key of the pair at `start` ends."""
    return start + _LIST.size + int(_LIST.unpack_from(bucket, start)[1])


def _find(bucket: bytes, row_key: bytes) -> tuple[int, int]:
    """From where to where the pair of a row key stands in its bucket; where it belongs, twice, if it is not there."""
    start = 0
    while start < len(bucket):
        middle = _key_end(bucket, start)
        end = _key_end(bucket, middle)
        found = bucket[start + _LIST.size : middle]
        if found >= row_key:
            return start, end if found == row_key else start
        start = end
    return start, start


def _split(bucket: bytes) -> list[bytes]:
    """The pairs of a bucket, one by one."""
    pairs, start = [], 0
    while start < len(bucket):
        end = _key_end(bucket, _key_end(bucket, start))
        pairs.append(bucket[start:end])
        start = end
    return pairs
