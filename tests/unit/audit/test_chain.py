"""Every break of the chain is found at the entry where it is."""

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from keyvault_lite.audit.chain import BrokenChain, ChainCheck, ChainState, genesis
from keyvault_lite.audit.entry import (
    ENTRY_COLUMNS,
    FOLDED_APART,
    FOLDED_TOGETHER,
    Folded,
    Row,
    encode_draft,
    entry_hash,
    entry_row,
)
from keyvault_lite.audit.merkle import CompactRange
from keyvault_lite.model.encoding import pae
from tests.vectors import make_receipts
from tests.vectors.make_receipts import INSTANCE, PUBLIC_KEY, START

GENESIS = genesis(INSTANCE, PUBLIC_KEY)


def rows_of(*facts: dict[str, Any]) -> list[Row]:
    """Sealed rows: each link and hash right, the rest as told."""
    rows, head = [], GENESIS
    for number, told in enumerate(facts, 1):
        fact = {"epoch": 0, "timestamp": START, "state_seq": 0, "state_root": None, **told}
        draft = make_receipts.draft(number)
        hash = entry_hash(id=number, **fact, middle=encode_draft(draft), prev_hash=head)
        rows.append(entry_row(id=number, **fact, draft=draft, prev_hash=head, hash=hash))
        head = hash
    return rows


def check() -> ChainCheck:
    return ChainCheck(ChainState.start(GENESIS), CompactRange())


@pytest.fixture
def rows(log: make_receipts.Log) -> list[Row]:
    return [
        entry_row(e.id, e.epoch, e.timestamp, e.state_seq, e.state_root, e.draft, e.prev_hash, e.hash)
        for e in log.entries
    ]


def test_genesis_is_as_documented() -> None:
    assert sha256(pae("kvl/v1/genesis", INSTANCE, PUBLIC_KEY)).digest() == GENESIS
    assert GENESIS not in {genesis(INSTANCE, b"other" * 6), genesis(b"other", PUBLIC_KEY)}


@pytest.mark.parametrize("batch", [1, 5, 23])
def test_a_whole_chain_passes_in_any_batches(rows: list[Row], log: make_receipts.Log, batch: int) -> None:
    judge, leaves = check(), []
    for start in range(0, len(rows), batch):
        leaves += judge.feed(rows[start : start + batch])
    edge = CompactRange()
    edge.extend(log.leaves)
    last = log.entries[-1]
    assert leaves == log.leaves
    assert judge.edge is not None
    assert judge.edge.root() == edge.root()
    assert judge.position == ChainState(
        23, last.hash, 0, last.timestamp, last.state_seq, make_receipts.digest(f"state {last.state_seq}")
    )
    assert judge.feed([]) == []


def test_rows_may_come_from_anything_that_gives_them_once(rows: list[Row], log: make_receipts.Log) -> None:
    judge = check()
    assert judge.feed(row for row in rows) == log.leaves
    assert judge.position.size == 23


def test_a_check_resumes_from_a_trusted_position_without_a_tree(rows: list[Row]) -> None:
    judge = check()
    judge.feed(rows[:11])
    rest = ChainCheck(judge.position)
    rest.feed(rows[11:])
    judge.feed(rows[11:])
    assert rest.position == judge.position
    assert rest.edge is None


def test_the_tree_has_to_be_that_of_the_position() -> None:
    edge = CompactRange()
    edge.append(b"x" * 32)
    with pytest.raises(ValueError, match="edge"):
        ChainCheck(ChainState.start(GENESIS), edge)


@pytest.mark.parametrize("column", ENTRY_COLUMNS)
@pytest.mark.parametrize("number", [1, 13, 23])
def test_a_changed_column_is_found_at_its_entry(rows: list[Row], column: str, number: int) -> None:
    place = ENTRY_COLUMNS.index(column)
    row = rows[number - 1]
    old = row[place]
    changed = {int: lambda: old + 1, str: lambda: old + "x", bytes: lambda: old[:-1] + bytes([old[-1] ^ 1])}
    new = changed.get(type(old), lambda: 7 if column in {"bytes_in", "bytes_out", "key_version"} else b"x")()
    judge = check()
    rows[number - 1] = (*row[:place], new, *row[place + 1 :])
    with pytest.raises(BrokenChain) as caught:
        judge.feed(rows)
    assert caught.value.id == number
    assert str(number) in caught.value.detail
    assert judge.position.size == number - 1
    assert judge.edge is not None
    assert judge.edge.size == number - 1


@pytest.mark.parametrize(
    ("change", "id", "reason"),
    [
        (lambda rows: rows.pop(4), 5, "missing; entry 6"),
        (lambda rows: rows.insert(4, rows[3]), 5, "missing; entry 4"),
        (lambda rows: rows.insert(4, rows.pop(5)), 5, "missing; entry 6"),
        (lambda rows: rows.pop(0), 1, "missing; entry 2"),
    ],
)
def test_missing_repeated_and_swapped_entries_are_found(
    rows: list[Row], change: Callable[[list[Row]], object], id: int, reason: str
) -> None:
    change(rows)
    with pytest.raises(BrokenChain, match=reason) as caught:
        check().feed(rows)
    assert caught.value.id == id


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (({}, {"timestamp": START - 1}), "timestamp"),
        (({"epoch": 1}, {"epoch": 0}), "epoch"),
        (({"state_root": b"r" * 32, "state_seq": 1}, {"state_seq": 0}), "state_seq"),
        (({}, {"state_root": b"r" * 32}), "state_seq"),
        (({}, {"state_seq": 2}), "state_seq"),
    ],
)
def test_rules_hold_even_for_entries_that_are_sealed_right(facts: tuple[dict[str, Any], ...], reason: str) -> None:
    with pytest.raises(BrokenChain, match=reason) as caught:
        check().feed(rows_of(*facts))
    assert caught.value.id == 2


def test_an_entry_whose_number_is_another_is_found_even_if_it_is_sealed_right() -> None:
    (first,) = rows_of({})
    draft, facts = make_receipts.draft(2), (0, START, 0, None)
    hash = entry_hash(3, *facts, encode_draft(draft), first[-1])
    with pytest.raises(BrokenChain, match="missing; entry 3") as caught:
        check().feed([first, entry_row(3, *facts, draft, first[-1], hash)])
    assert caught.value.id == 2


def test_equal_times_before_a_bad_entry_are_no_finding() -> None:
    managed = {"state_root": b"r" * 32, "epoch": 2}
    rows = rows_of({**managed, "state_seq": 1}, {"epoch": 2, "state_seq": 1}, {**managed, "state_seq": 3}, {"epoch": 1})
    judge = check()
    with pytest.raises(BrokenChain, match="epoch") as caught:
        judge.feed(rows)
    assert caught.value.id == 4
    assert judge.position == ChainState(3, rows[2][-1], 2, START, 3, b"r" * 32)


def test_a_later_epoch_and_an_equal_time_are_fine() -> None:
    judge = check()
    judge.feed(rows_of({}, {"epoch": 3}, {"epoch": 3, "state_root": b"r" * 32, "state_seq": 3}))
    assert (judge.position.epoch, judge.position.state_root) == (3, b"r" * 32)


def test_an_epoch_that_falls_back_between_two_batches_is_found() -> None:
    judge, rows = check(), rows_of({}, {"epoch": 3}, {"epoch": 2})
    judge.feed(rows[:2])
    with pytest.raises(BrokenChain, match="epoch"):
        judge.feed(rows[2:])


def test_another_installation_or_log_key_is_another_chain(rows: list[Row]) -> None:
    foreign = ChainCheck(ChainState.start(genesis(INSTANCE[::-1], PUBLIC_KEY)))
    with pytest.raises(BrokenChain, match="prev_hash"):
        foreign.feed(rows)


def test_a_column_of_another_type_is_a_finding(rows: list[Row]) -> None:
    with pytest.raises(BrokenChain, match="no entry can hold") as caught:
        check().feed([(*rows[0][:-3], 1.0, *rows[0][-2:])])
    assert caught.value.reason == "a column holds what no entry can hold"


def test_an_empty_root_is_a_root() -> None:
    """NULL says that the entry manages nothing; bytes of any length say that it does, and bind its `state_seq`."""
    first = {"state_seq": 1, "state_root": bytes(32)}
    check().feed(rows_of(first, {"state_seq": 2, "state_root": b""}))
    with pytest.raises(BrokenChain):
        check().feed(rows_of(first, {"state_seq": 1, "state_root": b""}))


@pytest.mark.parametrize("with_tree", [True, False])
def test_reading_one_by_one_says_of_a_whole_chain_what_the_quick_reading_says(
    rows: list[Row], *, with_tree: bool
) -> None:
    quick, slow = (ChainCheck(ChainState.start(GENESIS), CompactRange() if with_tree else None) for _ in range(2))
    assert slow._one_by_one(rows) == quick.feed(rows)
    assert slow.position == quick.position
    assert (slow.edge and slow.edge.root()) == (quick.edge and quick.edge.root())


def folded(row: Row) -> Folded:
    values = dict(zip(ENTRY_COLUMNS, row, strict=True))
    return (
        *(values[name] for name in FOLDED_APART),
        json.dumps([values[name] for name in FOLDED_TOGETHER], separators=(",", ":")),
    )


def test_a_chain_begins_with_nothing() -> None:
    assert ChainState.start(GENESIS) == ChainState(0, GENESIS, 0, 0, 0, None)


@pytest.mark.parametrize("with_tree", [True, False])
def test_a_folded_row_that_breaks_a_rule_is_left_to_whole_ones(
    rows: list[Row], log: make_receipts.Log, *, with_tree: bool
) -> None:
    checked = ChainCheck(ChainState.start(GENESIS), CompactRange() if with_tree else None)
    before = checked.position
    assert checked.feed_folded([*map(folded, rows[:5]), folded(rows[6])]) is None
    assert checked.position == before
    assert checked.feed_folded(list(map(folded, rows))) == log.leaves


def test_folded_rows_that_are_none_are_left_to_whole_ones() -> None:
    checked = check()
    before = checked.position
    assert checked.feed_folded([()]) is None
    assert checked.position == before
