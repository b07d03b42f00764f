"""The state tree: the root that commits to every row that carries authority or keys, by the rows' MACs."""

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache, partial
from mmap import mmap
from operator import itemgetter
from struct import Struct
from typing import Final

from keyvault_lite.model.encoding import Value, encode, list_head, pae

BUCKETS: Final = 4096
_LIST: Final = Struct(">BI")
_BUCKET: Final = encode("bucket")
WINDOW: Final = 1 << 16
"""Rows after which those that were read are put away."""


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

    def remove(self, row_keys: Iterable[bytes]) -> None:
        """Note that rows are gone. As `put` it takes effect at once and can be undone."""
        for row_key in row_keys:
            index = _bucket_of(row_key)
            bucket, count = self._buckets[index], self._counts[index]
            start, end = _find(bucket, row_key)
            if start != end:
                self._undo.append((index, count, bucket))
                self._set(index, count - 1, bucket[:start] + bucket[end:])

    def load(self, rows: "RowMacs") -> None:
        """Put many rows in place that are all new here, none of them to be rolled back."""
        for index, bucket in enumerate(self._buckets):
            if new := rows.bucket(index):
                pairs = new + _split(bucket)
                self._set(index, len(pairs), _joined(pairs))

    def comparison(self) -> "Comparison":
        """What rows can be compared with. It stays as it is when the tree changes.

        If that happens at this moment, in another thread, `Comparison.root` is not the root of any state.
        """
        return Comparison(self._buckets[:], self._counts[:])

    def _set(self, index: int, count: int, bucket: bytes) -> None:
        self.count += count - self._counts[index]
        self._counts[index] = count
        self._buckets[index] = bucket
        self._digests[index] = _bucket_digest(count, bucket)

    def root(self) -> bytes:
        """The root over all rows noted."""
        return _root(self.count, self._digests)

    def accept(self) -> None:
        """Keep what was put and removed since the last `accept` or `rollback`."""
        self._undo.clear()

    def rollback(self) -> None:
        """Undo what was put and removed since the last `accept` or `rollback`."""
        for index, count, bucket in reversed(self._undo):
            self._set(index, count, bucket)
        self._undo.clear()


class RowMacs:
    """Row keys and MACs of many rows as they are read, each once, in memory of their own.

    As objects, or on the heap, they would leave gaps behind that the process keeps. They are put away a window at a
    time, those together that are as long as each other and of one bucket: so a bucket is cut into pairs without a look.
    """

    __slots__ = ("_count", "_parts", "_sizes", "_waiting", "_windows")

    def __init__(self) -> None:
        self._waiting: defaultdict[int, list[bytes]] = defaultdict(list)
        """The encoded pairs of this window, by size << 12 | bucket."""
        self._windows: list[mmap] = []
        self._parts: defaultdict[int, array[int]] = defaultdict(partial(array, "Q"))
        """Those put away, by the same: in turn window << 32 | beginning, and how many bytes."""
        self._sizes: set[int] = set()
        self._count = 0

    def add(self, row_key: bytes, mac: bytes) -> None:
        """Take note of a row."""
        pair = _pair(row_key, mac)
        self._waiting[len(pair) << 12 | _bucket_of(row_key)].append(pair)
        self._count += 1
        if self._count % WINDOW == 0:
            self._put_away()

    def _put_away(self) -> None:
        number, start = len(self._windows) << 32, 0
        window = mmap(-1, sum(len(pairs) * (place >> 12) for place, pairs in self._waiting.items()))
        for place, pairs in self._waiting.items():
            part = b"".join(pairs)
            window[start : start + len(part)] = part
            self._parts[place].extend((number | start, len(part)))
            self._sizes.add(place >> 12)
            start += len(part)
        self._windows.append(window)
        self._waiting.clear()

    def bucket(self, index: int) -> list[bytes]:
        """The encoded pairs of a bucket, in no order."""
        if self._waiting:
            self._put_away()
        found: list[bytes] = []
        for size in self._sizes:
            parts = self._parts.get(size << 12 | index, ())
            for place, length in zip(parts[::2], parts[1::2], strict=True):
                start = place & 0xFFFFFFFF
                part = self._windows[place >> 32][start : start + length]
                found += [part[at : at + size] for at in range(0, length, size)]
        return found

    def root(self) -> bytes:
        """The root of a tree of these rows."""
        buckets = map(self.bucket, range(BUCKETS))
        return _root(self._count, [_bucket_digest(len(pairs), _joined(pairs)) for pairs in buckets])


class Comparison:
    """Rows as they are read, each compared with those of a tree; hardly anything is kept of them."""

    __slots__ = ("_buckets", "_counts", "_others", "_seen")

    def __init__(self, buckets: list[bytes], counts: "array[int]") -> None:
        self._buckets, self._counts = buckets, counts
        self._seen = [array("I") for _ in range(BUCKETS)]
        """By bucket, where in it the rows stand that were read."""
        self._others: set[bytes] = set()
        """The keys of rows that the tree does not have, or with another MAC."""

    def add(self, row_key: bytes, mac: bytes) -> None:
        """Compare a row."""
        index = _bucket_of(row_key)
        # Found at the beginning of a pair or not at all: nothing else in a bucket has a MAC's 32 bytes.
        place = self._buckets[index].find(_pair(row_key, mac))
        if place < 0:
            self._others.add(row_key)
        else:
            self._seen[index].append(place)

    def root(self) -> bytes:
        """The root of the rows that are compared with."""
        digests = [_bucket_digest(count, bucket) for count, bucket in zip(self._counts, self._buckets, strict=True)]
        return _root(sum(self._counts), digests)

    def differences(self) -> set[bytes]:
        """The keys of rows that were read with another MAC than the tree has, twice, or on one side only."""
        found = set(self._others)
        for bucket, count, seen in zip(self._buckets, self._counts, self._seen, strict=True):
            if not len(seen) == len(set(seen)) == count:
                found.update(key for place, key in _keys(bucket) if seen.count(place) != 1)
        return found


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
    # As encode(row_key) + encode(mac), but for the calls: at a start there are as many as rows.
    return _LIST.pack(3, len(row_key)) + row_key + _LIST.pack(3, len(mac)) + mac


def _root(count: int, digests: list[bytes]) -> bytes:
    values = encode("state"), encode(count), *digests
    return hashlib.sha256(list_head(len(values)) + b"".join(values)).digest()


_BY_KEY: Final = itemgetter(slice(_LIST.size, None))
"""Sorts pairs by row key: behind the head of its length stands the key, and no row key is the beginning of another."""


def _joined(pairs: list[bytes]) -> bytes:
    in_order: list[bytes] = sorted(pairs, key=_BY_KEY)
    return b"".join(in_order)


def _key_end(bucket: bytes, start: int) -> int:
    """Where the row key of the pair at `start` ends."""
    return start + _LIST.size + int(_LIST.unpack_from(bucket, start)[1])


def _find(bucket: bytes, row_key: bytes) -> tuple[int, int]:
    """From where to where the pair of a row key is in its bucket; where it belongs, twice, if it is not there."""
    start = 0
    while start < len(bucket):
        middle = _key_end(bucket, start)
        end = _key_end(bucket, middle)
        found = bucket[start + _LIST.size : middle]
        if found >= row_key:
            return start, end if found == row_key else start
        start = end
    return start, start


def _keys(bucket: bytes) -> Iterator[tuple[int, bytes]]:
    """Where each pair of a bucket stands, and its row key."""
    start = 0
    for pair in _split(bucket):
        yield start, pair[_LIST.size : _key_end(pair, 0)]
        start += len(pair)


def _split(bucket: bytes) -> list[bytes]:
    """The pairs of a bucket, one by one."""
    pairs, start = [], 0
    while start < len(bucket):
        end = _key_end(bucket, _key_end(bucket, start))
        pairs.append(bucket[start:end])
        start = end
    return pairs
