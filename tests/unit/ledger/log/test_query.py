"""Pages of the log: every filter, both orders, cursors, times, and filters that match little."""

import random
import time
from contextlib import closing
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyvault_lite.audit.entry import ENTRY_COLUMNS, row_hash
from keyvault_lite.ledger.log import query
from keyvault_lite.ledger.log.query import Filter, read_page
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.model.errors import IntegrityViolation, InvalidRequest, NotFound
from keyvault_lite.model.evidence import Action, Entry, Result
from keyvault_lite.model.identity import Role
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt, ListKeys, ReadKey
from tests.support.harness import Harness, grant
from tests.unit.ledger.verify.test_tampering import tamper

pytestmark = pytest.mark.both


@pytest.fixture
def busy(harness: Harness) -> Harness:
    """A vault with a log of two services, several keys and all results."""
    chance = random.Random(5)
    keys = [KeyRef(harness.key().id) for _ in range(3)]
    _, token = harness.service("worker", grant(keys[0], "encrypt"))
    harness.service("idle", role=Role.AUDITOR)
    for _ in range(60):
        key = chance.choice(keys)
        request = chance.choice([Encrypt(key, plaintext=b"x"), ReadKey(key), ReadKey(KeyRef("absent"))])
        caller = chance.choice([harness.admin, token])
        harness.together(harness.perform(request, caller))
        if chance.random() < 0.2:
            time.sleep(0.001)
    return harness


def matching(entries: list[Entry], wanted: Filter) -> list[Entry]:
    """What a page has to be, said in one expression."""
    found = [
        one
        for one in entries
        if (wanted.service_id in {None, one.draft.service_id})
        and (wanted.key_id in {None, one.draft.key_id})
        and (wanted.action in {None, one.draft.action})
        and (wanted.result in {None, one.draft.result})
        and (wanted.since is None or one.timestamp >= wanted.since)
        and (wanted.until is None or one.timestamp < wanted.until)
    ]
    return found if wanted.ascending else found[::-1]


def walk(harness: Harness, wanted: Filter) -> list[Entry]:
    """Every page, from the first to the last."""
    found: list[Entry] = []
    after = None
    for _ in range(500):
        with harness.ledger._readers.one() as connection:
            page = read_page(
                connection,
                Filter(
                    wanted.limit,
                    after,
                    wanted.service_id,
                    wanted.key_id,
                    wanted.action,
                    wanted.result,
                    wanted.since,
                    wanted.until,
                    wanted.ascending,
                ),
            )
        assert len(page.items) <= wanted.limit
        found += page.items
        if page.next is None:
            return found
        assert page.next != after
        after = page.next
    raise AssertionError("pages without end")


def test_every_filter_in_every_order(busy: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = busy.log()
    services = [None, "nobody", *sorted({one.draft.service_id for one in entries if one.draft.service_id})]
    keys = [None, "nothing", *sorted({one.draft.key_id for one in entries if one.draft.key_id})]
    stamps = sorted({one.timestamp for one in entries})
    times = st.sampled_from([None, 0, 2**62, *stamps, *(stamp + 1 for stamp in stamps)])
    scans = st.sampled_from([(20_000, 1_000_000), (7, 20), (1, 1), (3, 1_000_000)])

    @settings(max_examples=150, deadline=None)
    @given(
        st.builds(
            Filter,
            limit=st.sampled_from([1, 2, 7, 100, 1000]),
            service_id=st.sampled_from(services),
            key_id=st.sampled_from(keys),
            action=st.sampled_from([None, Action.ENCRYPT, Action.KEY_READ, Action.REVOKE]),
            result=st.sampled_from([None, *Result]),
            since=times,
            until=times,
            ascending=st.booleans(),
        ),
        scans,
    )
    def check(wanted: Filter, scan: tuple[int, int]) -> None:
        monkeypatch.setattr(query, "_CHUNK", scan[0])
        monkeypatch.setattr(query, "_SCAN", scan[1])
        assert walk(busy, wanted) == matching(entries, wanted)

    check()


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize(("chunk", "scan"), [(1, 1), (1, 2), (1, 3), (2, 3)])
def test_where_a_scan_ends_nothing_is_told_twice_or_passed_over(
    busy: Harness, monkeypatch: pytest.MonkeyPatch, chunk: int, scan: int, *, ascending: bool
) -> None:
    monkeypatch.setattr(query, "_CHUNK", chunk)
    monkeypatch.setattr(query, "_SCAN", scan)
    entries = busy.log()
    for action in {one.draft.action for one in entries}:
        wanted = Filter(1000, action=action, ascending=ascending)
        assert walk(busy, wanted) == matching(entries, wanted)


def test_a_sparse_filter_looks_through_a_part_and_goes_on(busy: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "_CHUNK", 5)
    monkeypatch.setattr(query, "_SCAN", 10)
    with busy.ledger._readers.one() as connection:
        page = read_page(connection, Filter(10, action=Action.REVOKE))
        assert page.items == ()
        assert page.next == str(busy.size - 9)
        page = read_page(connection, Filter(10, action=Action.REVOKE, ascending=True))
        assert page.next == "10"


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1.0", "٣", "9" * 19, "1 "])
def test_cursors_that_are_none(harness: Harness, cursor: str) -> None:
    with pytest.raises(InvalidRequest):
        harness.ledger.evidence.entries(Filter(10, after=cursor))


def test_a_cursor_has_eighteen_digits_at_most() -> None:
    assert query._cursor("9" * 18) == 10**18 - 1


class TestHowFarAPageLooks:
    """On a table of its own: entries 1 to 30 at the times 10 to 300, every third a refusal."""

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(query, "_CHUNK", 3)
        monkeypatch.setattr(query, "_SCAN", 12)
        monkeypatch.setattr(query, "_entry", lambda row: row[0])

    def page(self, wanted: Filter) -> tuple[list[Any], str | None, list[int]]:
        """What is on it, where the next one begins, and how many entries each statement has read."""
        read: list[int] = []

        class Counted:
            def execute(self, sql: str, values: tuple[Any, ...] = ()) -> Any:  # noqa: ANN401
                if "LIMIT" in sql:
                    read.append(len(connection.execute(sql, values).fetchall()))
                return connection.execute(sql, values)

        with closing(driver.connect(":memory:", isolation_level=None)) as connection:
            connection.execute(f"CREATE TABLE audit_logs ({', '.join(ENTRY_COLUMNS)})")
            log = [(number, 10 * number, "success" if number % 3 else "denied") for number in range(1, 31)]
            connection.executemany("INSERT INTO audit_logs (id, timestamp, result) VALUES (?, ?, ?)", log)
            page = read_page(cast(Any, Counted()), wanted)
        return list(page.items), page.next, read

    def test_one_entry_beyond_a_page_tells_that_there_is_another(self) -> None:
        wanted = Filter(4, result=Result.SUCCESS, ascending=True)
        assert self.page(wanted) == ([1, 2, 4, 5], "5", [2, 2, 1])
        assert self.page(replace(wanted, until=60)) == ([1, 2, 4, 5], None, [2, 2])
        assert self.page(replace(wanted, ascending=False)) == ([29, 28, 26, 25], "25", [2, 2, 1])

    @pytest.mark.parametrize(("ascending", "after"), [(True, "12"), (False, "19")])
    def test_what_matches_nothing_ends_after_so_many_entries(self, after: str, *, ascending: bool) -> None:
        assert self.page(Filter(4, result=Result.ERROR, ascending=ascending)) == ([], after, [0] * 4)

    def test_until_is_exclusive_and_since_inclusive(self) -> None:
        for since, until, found in (
            (20, 40, [2, 3]),
            (20, 41, [2, 3, 4]),
            (21, 40, [3]),
            (20, 20, []),
            (300, None, [30]),
        ):
            assert self.page(Filter(9, since=since, until=until, ascending=True))[:2] == (found, None)


@pytest.mark.parametrize("cursor", ["0", "1", "999999"])
def test_cursors_beyond_the_ends(harness: Harness, cursor: str) -> None:
    ids = [one.id for one in harness.ledger.evidence.entries(Filter(10, after=cursor)).items]
    assert ids == ([harness.size] if cursor == "999999" else [])


@pytest.mark.parametrize(
    ("moment", "begin", "first"),
    [
        (0, 1, 1),
        (10, 1, 1),
        (11, 1, 2),
        (20, 1, 2),
        (21, 1, 4),
        (30, 1, 4),
        (40, 1, 5),
        (41, 1, 6),
        (41, 6, 6),
        (0, 3, 3),
    ],
)
def test_the_first_entry_at_a_moment(moment: int, begin: int, first: int) -> None:
    with closing(driver.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE audit_logs (id INTEGER PRIMARY KEY, timestamp)")
        for number, stamp in enumerate((10, 20, 20, 30, 40), 1):
            connection.execute("INSERT INTO audit_logs VALUES (?, ?)", (number, stamp))
        assert query.first_at(connection, moment, begin, 5) == first
        connection.execute("DELETE FROM audit_logs WHERE id = 3")
        with pytest.raises(IntegrityViolation, match="the log has a gap"):
            query.first_at(connection, 20, 1, 5)


@pytest.mark.sqlite_only
def test_an_edited_entry_is_not_served(harness: Harness) -> None:
    harness.refusal(ReadKey(KeyRef("absent")), NotFound)
    connection = driver.connect(str(harness.path), isolation_level=None)
    connection.execute("DROP TRIGGER audit_logs_no_update")
    connection.execute("UPDATE audit_logs SET result = 'success' WHERE id = ?", (harness.ledger._writer.head.size,))
    connection.close()
    for _ in range(2):
        with pytest.raises(IntegrityViolation):
            harness.ledger.evidence.entries(Filter(10))
    assert harness.ledger.evidence.entry(1) is not None
    assert harness.ledger.evidence.entry(10**6) is None


@pytest.mark.sqlite_only
def test_an_entry_with_a_hash_of_its_own_that_the_tree_does_not_have_ends_service(harness: Harness) -> None:
    harness.refusal(ReadKey(KeyRef("absent")), NotFound)
    harness.refusal(ReadKey(KeyRef("absent")), NotFound)
    connection = driver.connect(str(harness.path), isolation_level=None)
    connection.execute("DROP TRIGGER audit_logs_no_update")
    number = harness.ledger._writer.head.size - 1
    (row,) = connection.execute(f"{statements.ENTRIES} WHERE id = ?", (number,)).fetchall()
    forged = tuple(7 if name == "bytes_in" else value for name, value in zip(ENTRY_COLUMNS, row, strict=True))
    connection.execute("UPDATE audit_logs SET bytes_in = 7, hash = ? WHERE id = ?", (row_hash(forged), number))
    connection.close()
    with pytest.raises(IntegrityViolation, match="not under its head"):
        harness.ledger.evidence.entry(number)
    assert isinstance(harness.ledger.fault, IntegrityViolation)


@pytest.mark.sqlite_only
def test_a_gap_is_not_passed_over(harness: Harness) -> None:
    for _ in range(8):
        harness.ask(ListKeys())
    connection = driver.connect(str(harness.path), isolation_level=None)
    connection.execute("DROP TRIGGER audit_logs_no_delete")
    connection.execute("DELETE FROM audit_logs WHERE id = 5")
    connection.close()
    with pytest.raises(IntegrityViolation, match="gap"):
        harness.ledger.evidence.entries(Filter(10, since=time.time_ns() // 1000))


@pytest.mark.sqlite_only
def test_what_was_removed_is_missed_on_every_page_that_passes_it(harness: Harness) -> None:
    """Whatever the filter: a page of what matches says that this is all there is."""
    key = KeyRef(harness.key("orders").id)
    harness.refusal(ReadKey(KeyRef("absent")), NotFound)
    denied = harness.last.id
    for _ in range(8):
        harness.ask(ReadKey(key))
    wanted = [
        Filter(50),
        Filter(50, ascending=True),
        Filter(50, result=Result.ERROR),
        Filter(50, action=Action.KEY_READ, ascending=True),
        Filter(50, service_id=harness.last.draft.service_id),
        Filter(3, str(denied + 3)),
        Filter(3, str(denied - 2), ascending=True),
        Filter(1, str(denied + 1)),
    ]
    past_it = [Filter(3), Filter(2, str(denied), ascending=True), Filter(2, str(denied - 1))]
    evidence = harness.ledger.evidence
    for one in (*wanted, *past_it):
        evidence.entries(one)
    tamper(harness.path, f"DELETE FROM audit_logs WHERE id = {denied}")
    for one in wanted:
        with pytest.raises(IntegrityViolation, match="gap"):
            evidence.entries(one)
    for one in past_it:
        evidence.entries(one)
    with pytest.raises(IntegrityViolation, match="gap"):
        evidence.entry(denied)
    assert evidence.entry(harness.ledger._writer.head.size + 1) is None


def test_what_is_written_while_it_is_looked_for_is_no_gap(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence, real = harness.ledger.evidence, query.read_entry

    def others_are_quicker(connection: driver.Connection, number: int) -> Entry | None:
        found = real(connection, number)
        harness.ask(ListKeys())
        return found

    monkeypatch.setattr("keyvault_lite.ledger.evidence.read_entry", others_are_quicker)
    assert evidence.entry(harness.ledger._writer.head.size + 1) is None
