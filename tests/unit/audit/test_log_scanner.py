"""A damaged log surveyed: one finding for each bad entry, none for its neighbours, the tree as far as it is known."""

import pytest

from keyvault_lite.audit.chain import ChainState
from keyvault_lite.audit.entry import ENTRY_COLUMNS, Row, encode_draft, entry_hash, entry_row, row_hash
from keyvault_lite.audit.log_scanner import LogScanner
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.names import ServiceId
from tests.unit.audit.test_chain import folded

GENESIS = bytes(range(32))
SIZE = 40
AT = {name: place for place, name in enumerate(ENTRY_COLUMNS)}


def log() -> list[Row]:
    rows, head, state_seq = list[Row](), GENESIS, 0
    for number in range(1, SIZE + 1):
        root = number.to_bytes(32, "big") if number % 5 == 1 else None
        state_seq = state_seq if root is None else number
        draft = Draft(
            action=Action.ENCRYPT,
            result=Result.SUCCESS,
            request_id=number.to_bytes(16, "big"),
            service_id=ServiceId("somebody") if number % 2 == 0 else None,
            count=1,
        )
        digest = entry_hash(number, 0, number, state_seq, root, encode_draft(draft), head)
        rows.append(entry_row(number, 0, number, state_seq, root, draft, head, digest))
        head = digest
    return rows


def changed(row: Row, column: str, value: object) -> Row:
    return tuple(value if place == AT[column] else old for place, old in enumerate(row))


LEAVES = [row[AT["hash"]] for row in log()]


def survey(rows: list[Row], chunk: int) -> tuple[list[int], list[bytes], LogScanner]:
    judge = LogScanner(ChainState.start(GENESIS))
    found, leaves = list[int](), list[bytes]()
    for start in range(0, len(rows), chunk):
        more, broken = judge.feed(rows[start : start + chunk])
        leaves += more
        found += [error.id for error in broken]
    return found, leaves + judge.finish(LEAVES[-1]), judge


CHUNKS = [1, 2, 7, SIZE]


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_whole_log(chunk: int) -> None:
    found, leaves, judge = survey(log(), chunk)
    assert (found, leaves, judge.gap) == ([], LEAVES, False)
    assert judge.ends_in(LEAVES[-1])
    assert not judge.ends_in(LEAVES[-2])


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("column", ENTRY_COLUMNS[1:])
def test_each_bad_entry_is_one_finding(column: str, chunk: int) -> None:
    rows, bad = log(), [1, 6, 7, 20, 31, SIZE]
    for number in bad:
        old = rows[number - 1][AT[column]]
        value = {int: 77, str: "x", bytes: b"\xff" * 32}.get(type(old), "unheard of")
        rows[number - 1] = changed(rows[number - 1], column, value)
    found, leaves, judge = survey(rows, chunk)
    assert found == bad
    assert not judge.gap
    assert leaves == LEAVES
    assert judge.ends_in(LEAVES[-1])


@pytest.mark.parametrize("chunk", CHUNKS)
def test_missing_entries(chunk: int) -> None:
    rows = log()
    found, leaves, judge = survey(rows[:9] + rows[10:], chunk)
    assert (found, leaves, judge.gap) == ([10], LEAVES, False)
    found, _, judge = survey(rows[:9] + rows[15:20] + rows[21:], chunk)
    assert (found, judge.gap) == ([10, 21], True)
    found, _, judge = survey(rows[1:], chunk)
    assert found == [1]


@pytest.mark.parametrize("hash", [None, "x" * 32, b"x" * 31, b"x" * 33])
def test_what_cannot_be_hashed_is_bad_too(hash: object) -> None:
    rows = log()
    rows[4] = changed(changed(rows[4], "bytes_in", 1.5), "hash", hash)
    found, leaves, _ = survey(rows, SIZE)
    assert found == [5]
    assert leaves[:4] + leaves[5:] == LEAVES[:4] + LEAVES[5:]


def test_the_last_entry_without_a_hash_leaves_one_of_the_length_of_a_hash() -> None:
    for hash in (None, "x" * 32, b"x" * 31):
        rows = log()
        rows[-1] = changed(changed(rows[-1], "bytes_in", 1.5), "hash", hash)
        found, leaves, _ = survey(rows, SIZE)
        assert found == [SIZE]
        assert len(leaves) == SIZE
        assert all(len(leaf) == 32 for leaf in leaves)


def test_what_a_bad_entry_left_is_believed_within_bounds() -> None:
    rows = log()
    rows[5] = changed(rows[5], "state_root", None)  # a management entry: the next ones name it
    assert survey(rows, SIZE)[0] == [6]
    for state_seq, found in ((15, [18, 19]), (16, [18]), (18, [18]), (19, [18, 19]), (39, [18, 19])):
        rows = log()[:19]
        rows[17] = changed(rows[17], "source", "unheard of")
        rows[18] = changed(rows[18], "state_seq", state_seq)
        rows[18] = changed(rows[18], "hash", row_hash(rows[18]))
        assert survey(rows, SIZE)[0] == found


def test_a_gap_before_an_entry_without_a_link() -> None:
    rows = log()
    rows[10] = changed(rows[10], "prev_hash", None)
    found, leaves, _ = survey(rows[:9] + rows[10:], SIZE)
    assert found == [10, 11]
    assert all(len(leaf) == 32 for leaf in leaves)


def test_entries_of_nothing() -> None:
    rows = log()
    for number in (3, 4, 9):
        rows[number - 1] = (number, *[None] * (len(ENTRY_COLUMNS) - 1))
    found, leaves, _ = survey(rows, SIZE)
    assert found == [3, 4, 9]
    assert all(len(leaf) == 32 for leaf in leaves)


def test_two_entries_exchanged() -> None:
    rows = log()
    rows[10], rows[11] = (changed(rows[11], "id", 11), changed(rows[10], "id", 12))
    assert survey(rows, SIZE)[0] == [11, 12]


def test_behind_a_bad_entry_folded_rows_are_left_to_whole_ones() -> None:
    rows = log()
    rows[9] = changed(rows[9], "bytes_in", 77)
    judge = LogScanner(ChainState.start(GENESIS))
    leaves, broken = judge.feed(rows[:10])
    assert [error.id for error in broken] == [10]
    before = judge.position
    assert judge.feed_folded(list(map(folded, rows[10:]))) is None
    assert judge.position == before
    more, broken = judge.feed(rows[10:])
    assert (leaves + more, broken) == (LEAVES, [])


def test_what_the_last_entry_should_be_is_believed_of_its_hashes_alone() -> None:
    rows = log()
    rows[-1] = changed(rows[-1], "bytes_in", 77)
    for head, end in ((LEAVES[-1], LEAVES[-1]), (row_hash(rows[-1]), row_hash(rows[-1])), (bytes(32), LEAVES[-1])):
        judge = LogScanner(ChainState.start(GENESIS))
        leaves, _ = judge.feed(rows)
        assert leaves + judge.finish(head) == [*LEAVES[:-1], end]
