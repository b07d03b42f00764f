"""Entries read folded have the hashes of entries read whole, and what no entry can hold does not pass for it."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from keyvault_lite.audit.chain import ChainCheck, ChainState
from keyvault_lite.audit.entry import (
    ENTRY_COLUMNS,
    FOLDED_APART,
    FOLDED_TOGETHER,
    MALFORMED,
    folded_hashes,
    row_hash,
    row_hashes,
)
from keyvault_lite.audit.merkle import CompactRange
from keyvault_lite.ledger.log import query
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.verify import inspection
from keyvault_lite.model.requests import VerifyAudit
from tests.support.harness import Harness

INT64 = st.integers(-(2**63), 2**63 - 1)
INTEGERS = st.integers(0, 2) | INT64
TEXTS = st.text(st.characters(codec="utf-8"), max_size=6) | st.text('",\\[]\x00\x1f1.nul', max_size=6)
BLOBS = st.binary(max_size=4)
# What the columns can hold, and what else a forger could write to a table that he has made anew.
KINDS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("epoch", "timestamp", "state_seq", "count"), INTEGERS),
    **dict.fromkeys(("key_version", "bytes_in", "bytes_out"), st.none() | INTEGERS),
    **dict.fromkeys(("request_id", "prev_hash", "hash"), st.binary(min_size=16, max_size=16) | BLOBS),
    **dict.fromkeys(("state_root", "context_digest"), st.none() | BLOBS),
}
# Bytes that SQLite takes for JSON in its binary form, and would write as the text or number that they stand for.
BINARY_JSON = (b"\x00", b"\x130", b"\x131", b"\x17A", b"\x17S", b"\x3b\x17S\x131", b"\xc3\x0210")
ANYTHING = st.one_of(
    *(st.none(), INTEGERS, TEXTS, BLOBS, st.floats(allow_nan=False)), st.sampled_from([1.0, "1", b"1", *BINARY_JSON])
)
ROWS = st.tuples(
    st.just(1),
    *(KINDS.get(name, st.none() | TEXTS if name not in {"action", "result"} else TEXTS) for name in ENTRY_COLUMNS[1:]),
)


def stored(row: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[tuple[Any, ...]]]:
    """A row as SQLite gives it, whole and folded. The columns have no type, so that every value stays what it is."""
    connection = driver.connect(":memory:")
    try:
        connection.execute(f"CREATE TABLE audit_logs ({', '.join(ENTRY_COLUMNS)})")
        connection.execute(f"INSERT INTO audit_logs VALUES ({', '.join('?' * len(row))})", row)
        return connection.execute("SELECT * FROM audit_logs").fetchone(), query.folded_after(connection, 0, 1)
    finally:
        connection.close()


def test_every_column_is_read_once() -> None:
    assert sorted((*FOLDED_APART, *FOLDED_TOGETHER)) == sorted(ENTRY_COLUMNS)


@hypothesis_settings(deadline=None)
@given(ROWS)
def test_the_hash_is_that_of_the_whole_row(row: tuple[Any, ...]) -> None:
    whole, folded = stored(row)
    assert folded_hashes(folded) == ([row_hash(whole)], [row[ENTRY_COLUMNS.index("epoch")]])


def test_what_cannot_be_folded_is_left_to_whole_rows() -> None:
    at = ENTRY_COLUMNS.index("action")
    _, folded = stored((*GOOD[:at], b"A", *GOOD[at + 1 :], b""))
    assert folded == []


@hypothesis_settings(deadline=None)
@given(ROWS, st.sampled_from(ENTRY_COLUMNS[1:]), ANYTHING)
def test_what_a_whole_row_does_not_pass_with_a_folded_one_does_not(
    row: tuple[Any, ...], column: str, value: object
) -> None:
    at = ENTRY_COLUMNS.index(column)
    whole, folded = stored((*row[:at], value, *row[at + 1 :]))
    try:
        hashes, _ = folded_hashes(folded)
    except MALFORMED:
        return
    if folded:
        assert hashes == [row_hash(whole)]


@pytest.mark.parametrize("value", ["1", None])
@pytest.mark.parametrize("column", ["epoch", "key_version", "count"])
def test_integers_are_integers_whatever_hash_was_made_of_them(column: str, value: object) -> None:
    at = ENTRY_COLUMNS.index(column)
    _, folded = stored((*GOOD[:at], value, *GOOD[at + 1 :], b""))
    if (column, value) == ("key_version", None):
        assert folded_hashes(folded)
    else:
        with pytest.raises(TypeError, match="are integers"):
            folded_hashes(folded)


GOOD = (1, 0, 5, 0, None, None, "A", None, 1, "S", None, bytes(16), *[None] * 9, 1, bytes(32))


def sealed(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*row, row_hash((*row, b"")))


def test_rows_in_one_loop_have_the_hashes_of_single_ones() -> None:
    rows = [sealed(GOOD), sealed((*GOOD[:8], None, *GOOD[9:]))]
    assert row_hashes(rows) == [row_hash(row) for row in rows]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("epoch", 0.0), ("epoch", "0"), ("key_version", 1.0), ("key_version", "1"), ("count", 1.0), ("count", "1")),
        *(("action", b"A"), ("source", b""), ("timestamp", 5.0), ("state_seq", "0"), ("request_id", "\0" * 16)),
        *(("epoch", b"\x130"), ("count", b"\x131"), ("action", b"\x17A"), ("result", b"\x17S"), ("service_id", b"\0")),
        *(("prev_hash", "\0" * 32), ("hash", "x"), ("id", 2), ("state_seq", 1), ("timestamp", 4), ("state_root", b"")),
    ],
)
def test_a_chain_that_a_folded_row_breaks_is_left_to_the_whole_row(column: str, value: object) -> None:
    start = ChainState(0, bytes(32), 0, 5, 0, None)
    good = sealed(GOOD)
    _, folded = stored(good)
    assert ChainCheck(start).feed_folded(folded) == [good[-1]]
    with_tree = ChainCheck(start, CompactRange())
    assert with_tree.feed_folded(folded) == [good[-1]]
    assert with_tree.edge is not None
    assert with_tree.edge.root() == good[-1]
    at = ENTRY_COLUMNS.index(column)
    check = ChainCheck(start)
    _, folded = stored((*good[:at], value, *good[at + 1 :]))
    assert not folded or check.feed_folded(folded) is None
    assert check.position == start


def test_a_sound_log_is_read_folded(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.key()
    whole: list[int] = []

    def end(_connection: driver.Connection, number: int, _size: int) -> Iterator[list[Any]]:
        whole.append(number)
        return iter(())

    monkeypatch.setattr(inspection, "entries_after", end)
    found = harness.ask(VerifyAudit())
    assert found.valid
    assert whole == [found.entries], "only to see that there are no more"
