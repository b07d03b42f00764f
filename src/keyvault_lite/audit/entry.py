"""What is logged, and its bytes: the entry, whose hash is chain link and Merkle leaf at once.

    entry = PAE("kvl/v1/entry", id, epoch, timestamp, state_seq, state_root, <DRAFT_FIELDS…>, prev_hash)
    hash  = SHA-256(0x00 ‖ entry)

0x00 is RFC 6962's prefix of a leaf, so the hash that the next entry names as `prev_hash` is also the leaf of the
tree: chain and tree cannot disagree. What the writer knows last is first, `prev_hash` is at the end, and the
draft between them is encoded once, in the request's own task, by `encode_draft`.

This is the hot path, hence a template of cached pieces instead of the generic encoder. A test holds the two equal,
byte for byte. Caches are keyed by values that repeat; the float 1.0 equals the integer 1 as a key, so integers that
are part of a key are checked for their type first: a stored 1.0 must not pass for 1.
"""

import json
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from struct import Struct, error
from typing import Any, Final

from msgspec.structs import astuple

from keyvault_lite.model.encoding import encode, list_head, pae
from keyvault_lite.model.evidence import Action, Draft, Entry, Result

LABEL: Final = "kvl/v1/entry"
LEAF_PREFIX: Final = b"\x00"
"""RFC 6962, section 2.1: leaves are hashed with 0x00, inner nodes with 0x01."""

DRAFT_FIELDS: Final = (
    "service_id",
    "action",
    "key_id",
    "key_version",
    "result",
    "reason",
    "request_id",
    "client_request_id",
    "source",
    "context_digest",
    "bytes_in",
    "bytes_out",
    "key_ref",
    "subject",
    "operation",
    "comment",
    "count",
)
"""The fields of a Draft in the order of their bytes. Fixed by the label: another order or number is another label."""

ENTRY_COLUMNS: Final = ("id", "epoch", "timestamp", "state_seq", "state_root", *DRAFT_FIELDS, "prev_hash", "hash")
"""The order of an entry's values in a row. All but `hash` are hashed, in this order."""

Row = tuple[Any, ...]
"""Values in the order of ENTRY_COLUMNS, as SQL gives them: int, str, bytes or None."""

FOLDED_TOGETHER: Final = (
    *("epoch", "service_id", "action", "key_id", "key_version", "result", "reason"),
    *("source", "key_ref", "subject", "operation", "comment", "count"),
)
"""Columns that a database can give as one JSON array: half of what reading a log takes is fetching its columns."""
FOLDED_APART: Final = (
    *("id", "timestamp", "state_seq", "state_root", "request_id", "client_request_id"),
    *("context_digest", "bytes_in", "bytes_out", "prev_hash", "hash"),
)
Folded = tuple[Any, ...]
"""A stored entry as the values of FOLDED_APART and the text of the array, which tells 1, 1.0, "1" and null apart."""

MALFORMED: Final = (TypeError, ValueError, OverflowError, error)
"""What the functions below raise for a value that no entry can have (a text for bytes, an integer beyond 64 bits)."""

_DRAFT: Final = slice(ENTRY_COLUMNS.index("service_id"), ENTRY_COLUMNS.index("prev_hash"))
_draft_fields = astuple  # in C; a test holds the two orders equal
# Drivers take a plain str on their fast path, a member of an enumeration by a slow one or not at all.
_PLAIN: Final = {member: member.value for member in (*Action, *Result)}

_NULL: Final = b"\x00"
_HEAD: Final = Struct(">BI")
_TWO_INTS: Final = Struct(">BqBq")
_HEAD_16: Final = _HEAD.pack(3, 16)
_HEAD_32: Final = _HEAD.pack(3, 32)
_COUNT_OF_ONE: Final = b"".join(map(encode, (None, None, None, None, 1)))
_LEAD: Final = LEAF_PREFIX + list_head(len(ENTRY_COLUMNS)) + encode(LABEL)  # the label takes the place of `hash`
_SEAL: Final = Struct(f">{len(_LEAD)}sBqBqBqBq")


def encode_draft(draft: Draft) -> bytes:
    """The middle of the entry: the fields of DRAFT_FIELDS in order, each encoded, concatenated (no list head)."""
    return _middle(*_draft_fields(draft))


def entry_hash(  # noqa: PLR0917  (the order of the bytes, called for each entry: keywords cost)
    id: int, epoch: int, timestamp: int, state_seq: int, state_root: bytes | None, middle: bytes, prev_hash: bytes
) -> bytes:
    """The hash of the entry around `middle` (from `encode_draft`). Raises one of MALFORMED."""
    return sha256(
        b"".join(
            (
                _SEAL.pack(_LEAD, 1, id, 1, epoch, 1, timestamp, 1, state_seq),
                _NULL if state_root is None else _bytes_head(len(state_root)) + state_root,
                middle,
                _bytes_head(len(prev_hash)),
                prev_hash,
            )
        )
    ).digest()


def row_hash(row: Row) -> bytes:
    """The hash of a stored entry, from its columns; the column `hash` itself is not read. Raises one of MALFORMED."""
    return entry_hash(row[0], row[1], row[2], row[3], row[4], _middle(*row[_DRAFT]), row[22])


def row_hashes(rows: Iterable[Row]) -> list[bytes]:
    """`row_hash` of each row, written out in one loop: whole logs pass here. Raises one of MALFORMED."""
    hashes: list[bytes] = []
    append, join = hashes.append, b"".join
    for (
        id, epoch, timestamp, state_seq, state_root, who, action, key_id, version, result, reason, request_id,
        client_id, source, context, size_in, size_out, key_ref, subject, operation, comment, count, prev_hash, _,
    ) in rows:  # fmt: skip
        if (version is not None and version.__class__ is not int) or count.__class__ is not int:
            raise TypeError("key_version and count are integers")
        entry = (
            _SEAL.pack(_LEAD, 1, id, 1, epoch, 1, timestamp, 1, state_seq),
            _NULL if state_root is None else _bytes_head(len(state_root)) + state_root,
            _who_did_what(who, action, key_id, version, result, reason),
            _HEAD_16 if len(request_id) == 16 else _bytes_head(len(request_id)),  # noqa: PLR2004
            request_id,
            _NULL if client_id is None else _text(client_id),
            _source(source),
            _NULL if context is None else _bytes_head(len(context)) + context,
            encode(size_in) + encode(size_out)
            if size_in is None or size_out is None
            else _TWO_INTS.pack(1, size_in, 1, size_out),
            _COUNT_OF_ONE
            if count == 1 and key_ref is None and subject is None and operation is None and comment is None
            else _rare(key_ref, subject, operation, comment, count),
            _HEAD_32 if len(prev_hash) == 32 else _bytes_head(len(prev_hash)),  # noqa: PLR2004
            prev_hash,
        )
        append(sha256(join(entry)).digest())
    return hashes


def folded_hashes(rows: Iterable[Folded]) -> tuple[list[bytes], list[int]]:
    """As `row_hashes`, of folded rows; and their epochs. Raises one of MALFORMED."""
    hashes: list[bytes] = []
    epochs: list[int] = []
    add_hash, add_epoch, join = hashes.append, epochs.append, b"".join
    for (
        id, timestamp, state_seq, state_root, request_id, client_id, context, size_in, size_out, prev_hash, _, folded,
    ) in rows:  # fmt: skip
        epoch, who, source, rare = _unfold(folded)
        entry = (
            _SEAL.pack(_LEAD, 1, id, 1, epoch, 1, timestamp, 1, state_seq),
            _NULL if state_root is None else _bytes_head(len(state_root)) + state_root,
            who,
            _HEAD_16 if len(request_id) == 16 else _bytes_head(len(request_id)),  # noqa: PLR2004
            request_id,
            _NULL if client_id is None else _text(client_id),
            source,
            _NULL if context is None else _bytes_head(len(context)) + context,
            encode(size_in) + encode(size_out)
            if size_in is None or size_out is None
            else _TWO_INTS.pack(1, size_in, 1, size_out),
            rare,
            _HEAD_32 if len(prev_hash) == 32 else _bytes_head(len(prev_hash)),  # noqa: PLR2004
            prev_hash,
        )
        add_hash(sha256(join(entry)).digest())
        add_epoch(epoch)
    return hashes, epochs


def entry_row(  # noqa: PLR0917  (as entry_hash)
    id: int,
    epoch: int,
    timestamp: int,
    state_seq: int,
    state_root: bytes | None,
    draft: Draft,
    prev_hash: bytes,
    hash: bytes,
) -> Row:
    """The entry as a row in the order of ENTRY_COLUMNS, of plain types only."""
    service_id, action, key_id, key_version, result, *rest = _draft_fields(draft)
    return (
        id,
        epoch,
        timestamp,
        state_seq,
        state_root,
        service_id,
        _PLAIN[action],
        key_id,
        key_version,
        _PLAIN[result],
        *rest,
        prev_hash,
        hash,
    )


def row_entry(row: Row) -> Entry:
    """The entry of a row. Raises ValueError for an action or a result that this version does not know."""
    id, epoch, timestamp, state_seq, state_root = row[:5]
    fields = dict(zip(DRAFT_FIELDS, row[_DRAFT], strict=True))
    fields["action"] = Action(fields["action"])
    fields["result"] = Result(fields["result"])
    return Entry(
        id=id,
        epoch=epoch,
        timestamp=timestamp,
        state_seq=state_seq,
        state_root=state_root,
        draft=Draft(**fields),
        prev_hash=row[22],
        hash=row[23],
    )


def encode_entry(entry: Entry) -> bytes:
    """The entry's bytes by the generic encoder: what is documented, and what the template must equal.

    `hash` of the entry is SHA-256(0x00 ‖ these bytes).
    """
    return pae(
        LABEL,
        entry.id,
        entry.epoch,
        entry.timestamp,
        entry.state_seq,
        entry.state_root,
        *_draft_fields(entry.draft),
        entry.prev_hash,
    )


def _middle(  # noqa: PLR0917  (a slice of a row is its argument list)
    service_id: str | None,
    action: str,
    key_id: str | None,
    key_version: int | None,
    result: str,
    reason: str | None,
    request_id: bytes,
    client_request_id: str | None,
    source: str | None,
    context_digest: bytes | None,
    bytes_in: int | None,
    bytes_out: int | None,
    key_ref: str | None,
    subject: str | None,
    operation: str | None,
    comment: str | None,
    count: int,
) -> bytes:
    if (key_version is not None and key_version.__class__ is not int) or count.__class__ is not int:
        raise TypeError("key_version and count are integers")
    return b"".join(
        (
            _who_did_what(service_id, action, key_id, key_version, result, reason),
            _bytes_head(len(request_id)),
            request_id,  # join takes bytes only: a text in this column is refused, not encoded
            _NULL if client_request_id is None else _text(client_request_id),
            _source(source),
            _NULL if context_digest is None else _bytes_head(len(context_digest)) + context_digest,
            encode(bytes_in) + encode(bytes_out)
            if bytes_in is None or bytes_out is None
            else _TWO_INTS.pack(1, bytes_in, 1, bytes_out),
            _rare(key_ref, subject, operation, comment, count),
        )
    )


@lru_cache(maxsize=16384)
def _who_did_what(  # noqa: PLR0917  (a cache key is cheapest as bare positions)
    service_id: str | None, action: str, key_id: str | None, key_version: int | None, result: str, reason: str | None
) -> bytes:
    return b"".join(map(encode, (service_id, action, key_id, key_version, result, reason)))


@lru_cache(maxsize=4096)
def _source(source: str | None) -> bytes:
    return encode(source)


@lru_cache(maxsize=1024)
def _rare(key_ref: str | None, subject: str | None, operation: str | None, comment: str | None, count: int) -> bytes:
    return b"".join(map(encode, (key_ref, subject, operation, comment, count)))


@lru_cache(maxsize=16384)
def _unfold(folded: str) -> tuple[int, bytes, bytes, bytes]:
    """Of FOLDED_TOGETHER the epoch, and encoded: caller and action, the source, and the rest."""
    pieces = folded[1:-1].split(",")
    if len(pieces) != len(FOLDED_TOGETHER):  # there is a comma within a text
        pieces = [json.dumps(value) for value in json.loads(folded)]
    encoded = [_unfold_one(piece) for piece in pieces]
    if encoded[0][0] != 1 or encoded[4][0] not in {0, 1} or encoded[12][0] != 1:  # the tags of NULL and integer
        raise TypeError("epoch, key_version and count are integers")
    return int(pieces[0]), b"".join(encoded[1:7]), encoded[7], b"".join(encoded[8:])


@lru_cache(maxsize=16384)
def _unfold_one(piece: str) -> bytes:
    return encode(json.loads(piece))


@lru_cache(maxsize=256)
def _bytes_head(length: int) -> bytes:
    return _HEAD.pack(3, length)


def _text(text: str) -> bytes:
    raw = str.encode(text)  # TypeError, not AttributeError, for what is no text
    return _HEAD.pack(2, len(raw)) + raw
