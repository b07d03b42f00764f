"""The template of cached pieces gives the bytes of the generic encoder, whatever an entry holds."""

import dataclasses
import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from keyvault_lite.audit.entry import (
    DRAFT_FIELDS,
    ENTRY_COLUMNS,
    FOLDED_APART,
    FOLDED_TOGETHER,
    LABEL,
    LEAF_PREFIX,
    MALFORMED,
    encode_draft,
    encode_entry,
    entry_hash,
    entry_row,
    folded_hashes,
    row_entry,
    row_hash,
    row_hashes,
)
from keyvault_lite.model.encoding import encode, list_head
from keyvault_lite.model.evidence import Action, Draft, Entry, Result
from keyvault_lite.model.names import KeyId, ServiceId
from tests.vectors import make_receipts

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
BYTES = st.binary(max_size=300)
# Few values each, so that two entries often differ in one field only.
ENTRIES = st.builds(
    Entry,
    id=INT64,
    epoch=st.integers(0, 2),
    timestamp=INT64,
    state_seq=INT64,
    state_root=st.none() | BYTES,
    draft=st.builds(
        Draft,
        action=st.sampled_from(Action),
        result=st.sampled_from(Result),
        request_id=BYTES,
        service_id=st.none() | TEXTS.map(ServiceId),
        key_id=st.none() | TEXTS.map(KeyId),
        key_version=st.none() | INT64,
        reason=st.none() | TEXTS,
        client_request_id=st.none() | TEXTS,
        source=st.none() | TEXTS,
        context_digest=st.none() | BYTES,
        bytes_in=st.none() | INT64,
        bytes_out=st.none() | INT64,
        key_ref=st.none() | TEXTS,
        subject=st.none() | TEXTS,
        operation=st.none() | TEXTS,
        comment=st.none() | TEXTS,
        count=INT64,
    ),
    prev_hash=BYTES,
    hash=st.binary(min_size=32, max_size=32),
)


def values(entry: Entry) -> tuple[object, ...]:
    """All that is hashed, in order, read without the code under test."""
    outer = (entry.id, entry.epoch, entry.timestamp, entry.state_seq, entry.state_root)
    return (*outer, *(getattr(entry.draft, name) for name in DRAFT_FIELDS), entry.prev_hash)


def row_of(entry: Entry) -> tuple[object, ...]:
    return entry_row(
        entry.id,
        entry.epoch,
        entry.timestamp,
        entry.state_seq,
        entry.state_root,
        entry.draft,
        entry.prev_hash,
        entry.hash,
    )


def hash_by_template(entry: Entry) -> bytes:
    return entry_hash(
        entry.id,
        entry.epoch,
        entry.timestamp,
        entry.state_seq,
        entry.state_root,
        encode_draft(entry.draft),
        entry.prev_hash,
    )


@given(ENTRIES)
def test_template_and_row_give_the_bytes_of_the_generic_encoder(entry: Entry) -> None:
    generic = encode_entry(entry)
    assert generic == list_head(24) + b"".join(map(encode, (LABEL, *values(entry))))  # type: ignore[arg-type]
    assert encode_draft(entry.draft) in generic
    expected = sha256(LEAF_PREFIX + generic).digest()
    assert hash_by_template(entry) == expected
    assert row_hash(row_of(entry)) == expected


@given(ENTRIES, ENTRIES)
def test_different_entries_have_different_bytes(one: Entry, other: Entry) -> None:
    assert (encode_entry(one) == encode_entry(other)) == (values(one) == values(other))


@given(ENTRIES, st.sampled_from([*ENTRY_COLUMNS[:5], "prev_hash"]), st.sampled_from(DRAFT_FIELDS), st.data())
def test_each_field_counts(entry: Entry, column: str, field: str, data: st.DataObject) -> None:
    donor = data.draw(ENTRIES)
    moved = dataclasses.replace(entry, **{column: getattr(donor, column)})
    assert (encode_entry(moved) == encode_entry(entry)) == (getattr(donor, column) == getattr(entry, column))
    draft = structs.replace(entry.draft, **{field: getattr(donor.draft, field)})
    same = getattr(donor.draft, field) == getattr(entry.draft, field)
    assert (encode_draft(draft) == encode_draft(entry.draft)) == same


FULL: dict[str, Any] = dict(
    zip(
        ENTRY_COLUMNS,
        (
            *(7, 1, 5, 3, b"r" * 32, "who", "ACT", "key", 2, "OK", "why", b"q" * 16, "client", "source", b"c" * 32),
            *(10, 20, "ref", "subject", "operation", "a, comment", 4, b"p" * 32, b""),
        ),
        strict=True,
    )
)
OPTIONAL = (
    *("state_root", "service_id", "key_id", "key_version", "reason", "client_request_id", "source"),
    *("context_digest", "bytes_in", "bytes_out", "key_ref", "subject", "operation", "comment"),
)
BARE = FULL | dict.fromkeys(OPTIONAL) | {"count": 1}
LENGTHS = [
    (name, b"x" * size) for name in ("state_root", "request_id", "prev_hash") for size in (0, 15, 16, 17, 31, 33)
]


def test_rows_in_one_loop_have_the_hashes_of_the_definition() -> None:
    """Each value there or not, beside those that are usual and those that are not; whole rows and folded ones."""
    facts = [FULL, BARE, BARE | {"count": 2}, FULL | {"count": 1}, FULL | {"bytes_in": -1, "bytes_out": 0}]
    for name in OPTIONAL:
        facts += [FULL | {name: None}, BARE | {name: FULL[name]}]
    for name, value in LENGTHS:
        facts += [FULL | {name: value}, BARE | {name: value}]
    facts += [BARE | {name: number} for name in ("epoch", "key_version", "count") for number in (0, 5, 300)]
    rows = [tuple(fact.values()) for fact in facts]
    lead = LEAF_PREFIX + list_head(len(ENTRY_COLUMNS)) + encode(LABEL)
    expected = [sha256(lead + b"".join(map(encode, row[:-1]))).digest() for row in rows]
    assert row_hashes(rows) == [row_hash(row) for row in rows] == expected
    folded = [
        (
            *(fact[name] for name in FOLDED_APART),
            json.dumps([fact[name] for name in FOLDED_TOGETHER], separators=(",", ":")),
        )
        for fact in facts
    ]
    assert folded_hashes(folded) == (expected, [fact["epoch"] for fact in facts])


@pytest.mark.parametrize("column", ["epoch", "key_version", "count"])
@pytest.mark.parametrize("value", [1.0, "1"])
def test_what_is_no_integer_is_none_in_one_loop_either(column: str, value: object) -> None:
    with pytest.raises(MALFORMED):
        row_hashes([tuple((FULL | {column: value}).values())])
    fact = FULL | {column: value}
    together = json.dumps([fact[name] for name in FOLDED_TOGETHER], separators=(",", ":"))
    with pytest.raises(MALFORMED):
        folded_hashes([(*(fact[name] for name in FOLDED_APART), together)])


def test_null_and_empty_text_are_different() -> None:
    one = make_receipts.draft(1)
    for field in ("service_id", "key_id", "reason", "client_request_id", "source", "key_ref", "subject", "operation"):
        values: list[dict[str, Any]] = [{field: ""}, {field: None}]
        empty, null = (structs.replace(one, **value) for value in values)
        assert encode_draft(empty) != encode_draft(null)


@given(ENTRIES)
def test_a_row_is_plain_and_leads_back_to_the_entry(entry: Entry) -> None:
    row = row_of(entry)
    assert len(row) == len(ENTRY_COLUMNS)
    assert {type(value) for value in row} <= {int, str, bytes, type(None)}
    assert row == (*values(entry), entry.hash)
    assert row_entry(row) == entry


def test_the_columns_are_the_contract() -> None:
    assert " ".join(ENTRY_COLUMNS) == (
        "id epoch timestamp state_seq state_root service_id action key_id key_version result reason request_id "
        "client_request_id source context_digest bytes_in bytes_out key_ref subject operation comment count "
        "prev_hash hash"
    )
    assert Draft.__struct_fields__ == DRAFT_FIELDS, "an entry is made of what a draft holds, in its order"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *((name, 1.0) for name in ("id", "epoch", "timestamp", "state_seq", "key_version", "count", "bytes_in")),
        *((name, "1") for name in ("id", "key_version", "count", "bytes_out", "state_root", "request_id")),
        *((name, "x") for name in ("context_digest", "prev_hash")),
        *((name, b"x") for name in ("client_request_id", "bytes_in")),
        *((name, 7) for name in ("client_request_id", "request_id", "context_digest", "state_root", "prev_hash")),
        *((name, None) for name in ("id", "count", "request_id", "prev_hash")),
        *((name, 2**63) for name in ("id", "key_version", "bytes_in", "count")),
        *((name, "\ud800") for name in ("source", "client_request_id", "comment")),
        *((name, 1.5) for name in ("source", "service_id", "operation")),
    ],
)
def test_what_no_entry_can_hold_is_refused_and_never_passes_for_a_cached_equal(column: str, value: object) -> None:
    row = entry_row(1, 0, 1, 1, b"r" * 32, make_receipts.draft(3), b"p" * 32, b"h" * 32)
    row_hash(row)  # fills the caches with the values that 1.0 equals
    position = ENTRY_COLUMNS.index(column)
    with pytest.raises(MALFORMED):
        row_hash((*row[:position], value, *row[position + 1 :]))


@pytest.mark.parametrize("column", ["service_id", "action", "key_id", "result", "reason", "source", "comment"])
def test_bytes_in_place_of_a_text_change_the_hash(column: str) -> None:
    row = entry_row(1, 0, 1, 1, None, make_receipts.draft(3), b"p" * 32, b"h" * 32)
    position = ENTRY_COLUMNS.index(column)
    blob = str(row[position]).encode()
    assert row_hash((*row[:position], blob, *row[position + 1 :])) != row_hash(row)


def test_an_unknown_action_is_refused() -> None:
    row = entry_row(1, 0, 1, 1, None, make_receipts.draft(3), b"p" * 32, b"h" * 32)
    with pytest.raises(ValueError, match="unknown"):
        row_entry((*row[:6], "unknown", *row[7:]))
