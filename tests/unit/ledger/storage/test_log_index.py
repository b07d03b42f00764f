"""The index of the log: what it holds, what it finds, and that a wrong one is found and made anew."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keyvault_lite.audit.entry import ENTRY_COLUMNS
from keyvault_lite.ledger.commit.maintenance_writes import rebuild_index
from keyvault_lite.ledger.log import query
from keyvault_lite.ledger.log.query import Filter
from keyvault_lite.ledger.storage import driver, log_index, statements
from keyvault_lite.ledger.storage.log_index import BLOCK, IndexCheck, block_of, blocks_with, rows_for
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import Finding
from keyvault_lite.model.requests import Encrypt, ListKeys, ReadKey
from keyvault_lite.operator.repair import repair_vault
from keyvault_lite.operator.verify import verify_vault as verify
from tests.support.faults import FaultyConnection, failing
from tests.support.harness import Harness

LACKS = "lacks a service or key that its entries name"
NEEDLESS = "has a row that no entry needs"


def entry(number: int, service: str | None, key: str | None) -> tuple[Any, ...]:
    values = {"id": number, "service_id": service, "key_id": key}
    return tuple(values.get(name) for name in ENTRY_COLUMNS)


@pytest.fixture
def stored() -> Iterator[driver.Connection]:
    """A log of 1 300 entries by two services about three keys, with its index."""
    with closing(driver.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE audit_logs (id INTEGER PRIMARY KEY, service_id VARCHAR, key_id VARCHAR)")
        connection.execute(
            "CREATE TABLE audit_index (object_id VARCHAR, block BIGINT, PRIMARY KEY (object_id, block)) WITHOUT ROWID"
        )
        log = [
            (number, None if number == 7 else "often" if number % 500 else "rare", f"key{block_of(number) % 2}")
            for number in range(1, 1301)
        ]
        connection.executemany("INSERT INTO audit_logs VALUES (?, ?, ?)", log)
        connection.execute("INSERT INTO audit_logs VALUES (1301, 'often', 'last')")
        entries = [entry(*row) for row in (*log, (1301, "often", "last"))]
        connection.executemany(statements.PUT_INDEX, rows_for(entries))
        yield connection


def findings(connection: driver.Connection, first: int = 1, last: int = 1301, most: int = 10) -> list[tuple[str, str]]:
    return [(one.row, one.problem) for one in IndexCheck(connection, first).finish(last, most)]


@pytest.mark.parametrize(("number", "block"), [(1, 0), (256, 0), (257, 1), (512, 1), (513, 2)])
def test_a_block_is_the_entries_of_a_tile(number: int, block: int) -> None:
    assert block_of(number) == block
    assert BLOCK == 256


def test_a_service_and_a_key_have_a_row_a_block() -> None:
    entries = [entry(255, "s", None), entry(256, "s", "k"), entry(257, None, "k"), entry(258, "s", "k")]
    assert rows_for(entries) == [("k", 0), ("k", 1), ("s", 0), ("s", 1)]
    assert rows_for([entry(1, None, None)]) == []


def test_what_is_written_is_the_index_of_the_log(stored: driver.Connection) -> None:
    assert findings(stored) == []
    written = stored.execute("SELECT * FROM audit_index").fetchall()
    stored.execute("DELETE FROM audit_index")
    stored.execute(log_index.FILL, (1, 1301, 1, 1301))
    assert stored.execute("SELECT * FROM audit_index").fetchall() == written
    stored.execute(log_index.FILL, (1, 1301, 1, 1301))  # what is there does no harm


@settings(deadline=None)
@given(
    objects=st.sampled_from([["often"], ["rare"], ["key0"], ["key1"], ["often", "key1"], ["rare", "key0"], ["nobody"]]),
    bounds=st.tuples(st.integers(0, 6), st.integers(-1, 6)),
    ascending=st.booleans(),
    at_once=st.integers(1, 4),
)
@example(objects=["often"], bounds=(0, 5), at_once=1, ascending=True)
@example(objects=["often"], bounds=(0, 5), at_once=2, ascending=False)
@example(objects=["often"], bounds=(0, 5), at_once=1, ascending=False)
def test_blocks_with_all_objects(objects: list[str], bounds: tuple[int, int], at_once: int, *, ascending: bool) -> None:
    held = {
        "often": {0, 1, 2, 3, 4, 5},
        "rare": {1, 3},
        "key0": {0, 2, 4},
        "key1": {1, 3, 5},
        "nobody": set[int](),
    }
    expected = sorted(
        set.intersection(*(held[one] for one in objects)) & set(range(bounds[0], bounds[1] + 1)), reverse=not ascending
    )
    with closing(driver.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE audit_index (object_id, block)")
        rows = [(name, block) for name, blocks in held.items() for block in blocks]
        connection.executemany("INSERT INTO audit_index VALUES (?, ?)", rows)
        blocks = blocks_with(connection, objects, *bounds, ascending=ascending, at_once=at_once)
        found = list(islice(blocks, 9))  # more than there are, if one that repeats itself has no end
    assert found == expected


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        ("DELETE FROM audit_index WHERE object_id = 'rare' AND block = 1", [("1", LACKS)]),
        ("DELETE FROM audit_index WHERE object_id = 'last'", [("5", LACKS)]),
        ("DELETE FROM audit_index WHERE block = 0", [("0", LACKS)]),
        ("DELETE FROM audit_index WHERE object_id = 'key0'", [("0", LACKS), ("2", LACKS), ("4", LACKS)]),
        ("INSERT INTO audit_index VALUES ('rare', 2)", [("2", NEEDLESS)]),
        ("INSERT INTO audit_index VALUES ('nobody', 5), ('else', 0)", [("0", NEEDLESS), ("5", NEEDLESS)]),
        ("INSERT INTO audit_index VALUES ('often', 6)", [("6", NEEDLESS)]),
        ("INSERT INTO audit_index VALUES ('often', -1)", [("-1", NEEDLESS)]),
        (f"INSERT INTO audit_index VALUES ('often', {2**63 - 1})", [(str(2**63 - 1), NEEDLESS)]),
        (f"INSERT INTO audit_index VALUES ('often', {2**54})", [(str(2**54), NEEDLESS)]),
        ("INSERT INTO audit_index VALUES ('often', 4.996)", [("", NEEDLESS)]),
        ("INSERT INTO audit_index VALUES ('often', 'x')", [("0", NEEDLESS)]),
        ("INSERT INTO audit_index VALUES (CAST(x'ff' AS TEXT), CAST(x'ff' AS TEXT))", [("0", NEEDLESS)]),
        ("INSERT INTO audit_index VALUES (x'6b657930', 0)", [("0", NEEDLESS)]),
        ("UPDATE audit_index SET block = 2 WHERE object_id = 'rare' AND block = 3", [("3", LACKS), ("2", NEEDLESS)]),
        (
            "UPDATE audit_index SET object_id = 'a' WHERE block = 4 AND object_id = 'key0'",
            [("4", LACKS), ("4", NEEDLESS)],
        ),
    ],
)
def test_an_index_that_is_another_is_found(stored: driver.Connection, edit: str, found: list[tuple[str, str]]) -> None:
    stored.execute(edit)
    assert findings(stored) == found


def test_rows_that_no_entry_needs_are_named_up_to_a_limit(stored: driver.Connection) -> None:
    stored.executemany("INSERT INTO audit_index VALUES ('nobody', ?)", [(block,) for block in range(20)])
    assert findings(stored, most=3) == [(str(block), NEEDLESS) for block in range(3)]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_index_that_cannot_be_read_is_told_once(stored: driver.Connection, at: int) -> None:
    check = IndexCheck(stored, 1)
    check.read_to(1024 * at)
    stored.execute("DROP TABLE audit_index")
    assert check.finish(1301, 10) == [Finding("audit_index", "", "cannot be read")]


@pytest.mark.parametrize(
    "statement", ["SELECT count(*), count(i.block)", "SELECT DISTINCT p.block", "SELECT count(*) FROM"]
)
def test_whatever_cannot_be_read_is_told_once(stored: driver.Connection, statement: str) -> None:
    stored.execute("DELETE FROM audit_index WHERE object_id = 'often'")
    faulty = FaultyConnection(stored)
    faulty.before = lambda sql: failing() if sql.startswith(statement) else None
    found = IndexCheck(faulty, 1).finish(1301, 10)
    assert [one.problem for one in found].count("cannot be read") == 1


def test_entries_that_were_archived_need_no_rows(stored: driver.Connection) -> None:
    stored.execute("DELETE FROM audit_logs WHERE id <= 512")
    stored.execute(statements.FORGET_INDEX, (block_of(513),))
    assert findings(stored, first=513) == []
    stored.execute("INSERT INTO audit_index VALUES ('often', 1)")
    assert findings(stored, first=513) == [("1", NEEDLESS)]


@pytest.mark.parametrize("read", [[], [1], [1023, 1024, 1025], [256, 700, 1300], list(range(0, 1301, 50))])
def test_it_is_compared_as_the_log_is_read(stored: driver.Connection, read: list[int]) -> None:
    stored.execute("DELETE FROM audit_index WHERE block IN (0, 3, 4) AND object_id = 'often'")
    check = IndexCheck(stored, 1)
    for last in read:
        check.read_to(last)
    assert [one.row for one in check.finish(1301, 10)] == ["0", "3", "4"]


@pytest.mark.parametrize("number", [1024, 1025, 1026])
def test_no_entry_is_left_out_where_a_step_ends(stored: driver.Connection, number: int) -> None:
    stored.execute("UPDATE audit_logs SET key_id = 'alone' WHERE id = ?", (number,))
    assert findings(stored) == [(str(block_of(number)), LACKS)]


def test_a_log_that_ends_with_a_step_is_compared_once(stored: driver.Connection) -> None:
    stored.execute("DELETE FROM audit_logs WHERE id > 1024")
    stored.execute("DELETE FROM audit_index WHERE block > 3")
    check = IndexCheck(stored, 1)
    check.read_to(1024)
    assert check.finish(1024, 10) == []


# Of a vault


@pytest.fixture
def long(harness: Harness) -> Harness:
    """A vault whose log has some blocks, with one key that is used in the first and the last alone."""
    rare, often = harness.key("rare"), harness.key("often")
    harness.ask(Encrypt(KeyRef(rare.id), plaintext=b"x"))
    for _ in range(9):
        harness.together(*(harness.perform(Encrypt(KeyRef(often.id), plaintext=b"x")) for _ in range(64)))
    harness.ask(ReadKey(KeyRef(rare.id)))
    return harness


def stored_index(harness: Harness) -> list[tuple[str, int]]:
    with harness.ledger._readers.one() as connection:
        return [tuple(row) for row in connection.execute("SELECT * FROM audit_index ORDER BY 1, 2").fetchall()]


@pytest.mark.both
def test_commits_keep_the_index(long: Harness) -> None:
    entries = long.log()
    ids = [(one.id, name) for one in entries for name in (one.draft.service_id, one.draft.key_id) if name]
    assert stored_index(long) == sorted({(name, (number - 1) // 256) for number, name in ids})
    assert verify(long.settings).valid


@pytest.mark.both
@pytest.mark.parametrize("ascending", [True, False])
def test_a_page_by_key_looks_through_its_blocks_alone(
    long: Harness, monkeypatch: pytest.MonkeyPatch, *, ascending: bool
) -> None:
    rare = next(one.draft.key_id for one in long.log() if one.draft.action is Action.KEY_READ)
    looked: list[tuple[int, int]] = []
    real = query._parts

    def watched(*given: Any, **more: Any) -> Iterator[tuple[int, int]]:  # noqa: ANN401
        for part in real(*given, **more):
            looked.append(part)
            yield part

    expected = [one.id for one in long.log() if one.draft.key_id == rare]
    size = long.size
    monkeypatch.setattr(query, "_parts", watched)
    page = long.ledger.evidence.entries(Filter(10, key_id=rare, ascending=ascending))
    assert [one.id for one in page.items] == (expected if ascending else expected[::-1])
    assert page.next is None
    assert looked == [(1, 256), (513, size)][:: 1 if ascending else -1]


@pytest.mark.both
def test_a_row_that_was_taken_away_hides_entries_from_a_page_and_is_found_and_put_back(long: Harness) -> None:
    often = next(one.draft.key_id for one in long.log() if one.draft.action is Action.ENCRYPT and one.id > 300)
    whole = stored_index(long)
    wanted = Filter(1000, key_id=often)
    before = long.ledger.evidence.entries(wanted).items
    with closing(long.vault.database.writer()) as connection, long.vault.database.lock():
        long.vault.database.begin(connection)
        connection.execute("DELETE FROM audit_index WHERE object_id = ? AND block = 1", (often,))
        connection.execute("INSERT INTO audit_index (object_id, block) VALUES ('nobody', 2)")
        connection.execute("COMMIT")
    assert len(long.ledger.evidence.entries(wanted).items) < len(before)
    assert verify(long.settings).findings == (Finding("audit_index", "1", LACKS), Finding("audit_index", "2", NEEDLESS))
    assert long.ledger.mend_index()
    assert stored_index(long) == whole
    assert verify(long.settings).valid
    assert not long.ledger.mend_index(), "a second time there is nothing to do"
    assert long.ledger.evidence.entries(wanted).items == before


def test_repair_makes_it_anew(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(12):
        harness.ask(ListKeys())
    whole = stored_index(harness)
    harness.vault.close()
    assert repair_vault(harness.settings) == ((), False)
    with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
        connection.execute("DELETE FROM audit_index")
    monkeypatch.setattr("keyvault_lite.ledger.commit.maintenance_writes.PART", 5)
    assert repair_vault(harness.settings) == ((), True)
    harness.open()
    assert stored_index(harness) == whole


def test_an_entry_that_is_another_is_told_alone(harness: Harness) -> None:
    key = harness.key()
    harness.ask(Encrypt(KeyRef(key.id), plaintext=b"x"))
    with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER audit_logs_no_update")
        connection.execute("UPDATE audit_logs SET key_id = 'another' WHERE id = ?", (harness.size,))
    assert "audit_index" not in {one.table for one in verify(harness.settings).findings}


def test_a_wrong_index_is_told_and_stops_no_service(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
        connection.execute("DELETE FROM audit_index")
    harness.reopen()
    harness.ledger.scrub_log()
    assert harness.ledger.fault is None
    assert f"audit_index 0: {LACKS}: `kvl repair` makes it anew" in caplog.text
    harness.ask(ListKeys())


@pytest.mark.parametrize(("first", "part"), [(1, 3), (1, 9), (1, 10), (1, 11), (257, 3)])
def test_it_is_made_anew_in_parts(harness: Harness, monkeypatch: pytest.MonkeyPatch, first: int, part: int) -> None:
    writer = harness.ledger._writer
    size = first + 9
    written: list[Any] = []
    monkeypatch.setattr("keyvault_lite.ledger.commit.maintenance_writes.PART", part)
    monkeypatch.setattr(writer, "write_apart", lambda sql, values=(): written.append((sql, values)))
    monkeypatch.setattr(writer.replica, "tip", replace(writer.tip, head=replace(writer.head, size=size)))
    rebuild_index(writer, first)
    expected = [(low, low + part - 1) * 2 for low in range(first, size + 1, part)]
    assert written == [(log_index.CLEAR, ()), *((log_index.FILL, bounds) for bounds in expected)]


def test_it_is_compared_and_made_anew_from_behind_the_archive(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    class Check:
        def __init__(self, _: driver.Connection, first: int) -> None:
            told.append(first)

        def finish(self, last: int, most: int) -> list[int]:
            told.append((last, most))
            return [1]

    size = harness.size
    monkeypatch.setattr("keyvault_lite.ledger.ledger.IndexCheck", Check)
    monkeypatch.setattr("keyvault_lite.ledger.ledger.archived_up_to", lambda *_: 512)
    monkeypatch.setattr("keyvault_lite.ledger.ledger.rebuild_index", lambda _, first: told.append(first))
    assert harness.ledger.mend_index()
    assert told == [513, (size, 1), 513]
