"""What judges a stored log piece by piece: its head, who says what of it, the anchor; on tables of its own."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keyvault_lite.audit.chain import ChainState
from keyvault_lite.audit.checkpoint import origin, verifier_key
from keyvault_lite.audit.merkle import TILE_BYTES, TILE_WIDTH, CompactRange
from keyvault_lite.audit.segment import InvalidSegment
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.ledger import ledger
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.anchor.record import AnchorRecord, DamagedAnchor, NotAnAnchor
from keyvault_lite.ledger.archive.archived import Archived
from keyvault_lite.ledger.archive.segment_files import SegmentStore
from keyvault_lite.ledger.commit.head_check import check_head, root_named
from keyvault_lite.ledger.commit.replica import Replica
from keyvault_lite.ledger.log import retention
from keyvault_lite.ledger.state.head import Head
from keyvault_lite.ledger.state.outcome import PublicAuthority
from keyvault_lite.ledger.state.root import row_key
from keyvault_lite.ledger.state.verified_rows import NOT_COMMITTED, NOT_GENUINE, VerifiedRows
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.record_types import setting_values
from keyvault_lite.ledger.storage.schema import HEAD_COLUMNS
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.ledger.verify import inspection, offline_check, startup
from keyvault_lite.ledger.verify.expected_heads import claim_of, claim_of_head
from keyvault_lite.model.archive import PREFIX, Segment
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.identity import Setting
from keyvault_lite.model.replies import Finding, Verification
from tests.support.faults import FaultyConnection, failing
from tests.support.harness import Harness

RING = Keyring.create()
PUBLIC = PublicAuthority(RING.instance_id, RING.log_public_key)
LEAVES = [bytes([number]) * 32 for number in range(3)]


def no_findings() -> list[Finding]:
    return []


def edge() -> CompactRange:
    made = CompactRange()
    for leaf in LEAVES:
        made.append(leaf)
    return made


HEAD = Head(1, 3, LEAVES[2], 50, 2, bytes(32), edge().to_bytes(), "")
MARK = AnchorRecord(
    1, 3, 2, LEAVES[2], bytes(32), "note", verifier_key(origin(RING.instance_id, 1), RING.log_public_key)
)


@pytest.fixture
def stored() -> Iterator[driver.Connection]:
    """A log of three entries, and a head without a type to its columns."""
    connection = driver.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE audit_logs (id INTEGER PRIMARY KEY, hash, epoch, state_seq)")
    connection.execute(f"CREATE TABLE ledger_head (id, {', '.join(HEAD_COLUMNS)}, mac)")
    connection.execute("CREATE TABLE tiles (level, tile, hashes)")
    for number, leaf in enumerate(LEAVES, 1):
        connection.execute("INSERT INTO audit_logs VALUES (?, ?, 1, ?)", (number, leaf, min(number, 2)))
    yield connection
    connection.close()


def put_head(connection: driver.Connection, id: int = 1, mac: bytes | None = None, **changes: Any) -> None:  # noqa: ANN401
    values = tuple(changes.get(name, value) for name, value in zip(HEAD_COLUMNS, HEAD.values(), strict=True))
    mac = RING.head_mac(*HEAD.values()) if mac is None else mac
    connection.execute(f"INSERT INTO ledger_head VALUES ({', '.join('?' * (len(values) + 2))})", (id, *values, mac))


class TestHead:
    def test_a_good_one(self, stored: driver.Connection) -> None:
        put_head(stored)
        for authority in (RING, PUBLIC):
            findings: list[Finding] = []
            assert check_head(stored, authority, findings) == (RING.head_mac(*HEAD.values()), HEAD)
            assert findings == []
        assert root_named(HEAD, findings := no_findings()) == edge().root()
        assert findings == []

    def test_an_edge_that_is_none_is_told(self) -> None:
        findings: list[Finding] = []
        assert root_named(replace(HEAD, edge=b"x"), findings) == b""
        assert [(one.table, one.row) for one in findings] == [("ledger_head", "1")]

    def test_a_log_without_a_head(self, stored: driver.Connection) -> None:
        findings: list[Finding] = []
        assert check_head(stored, RING, findings) == (b"", None)
        assert findings == [Finding("ledger_head", "1", "the head is missing while the log is not empty")]
        stored.execute("DELETE FROM audit_logs")
        assert check_head(stored, RING, findings := no_findings()) == (b"", None)
        assert findings == []

    def test_a_log_whose_newest_entry_has_no_hash_is_not_empty(self, stored: driver.Connection) -> None:
        stored.execute("UPDATE audit_logs SET hash = NULL WHERE id = 3")
        assert check_head(stored, RING, findings := no_findings()) == (b"", None)
        assert [one.problem for one in findings] == ["the head is missing while the log is not empty"]

    def test_only_row_1_is_the_head(self, stored: driver.Connection) -> None:
        put_head(stored, id=2, mac=bytes(32))
        assert check_head(stored, RING, findings := no_findings()) == (b"", None)
        assert [one.problem for one in findings] == ["the head is missing while the log is not empty"]
        put_head(stored)
        assert check_head(stored, RING, findings := no_findings())[1] == HEAD
        assert findings == [Finding("ledger_head", "2", "does not belong here")]

    def test_a_head_of_other_bytes_is_none(self, stored: driver.Connection) -> None:
        put_head(stored, mac=bytes(32))
        assert check_head(stored, RING, findings := no_findings()) == (b"", None)
        assert findings == [Finding("ledger_head", "1", "the head of the log does not verify")]

    @pytest.mark.parametrize("column", HEAD_COLUMNS)
    @pytest.mark.parametrize("value", [None, "1", 1.5, -1])
    def test_without_a_mac_its_types_are_looked_at(self, stored: driver.Connection, column: str, value: object) -> None:
        good = column == "checkpoint" and isinstance(value, str)
        put_head(stored, 1, None, **{column: value})
        assert (check_head(stored, PUBLIC, findings := no_findings())[1] is not None) is good
        assert [one.problem for one in findings] == ([] if good else ["the head of the log does not verify"])

    @pytest.mark.parametrize("column", ["epoch", "timestamp", "state_seq"])
    def test_a_number_may_be_0(self, stored: driver.Connection, column: str) -> None:
        put_head(stored, 1, None, **{column: 0})
        assert check_head(stored, PUBLIC, findings := no_findings())[1] is not None
        assert findings == []

    @pytest.mark.parametrize(
        "statement",
        [
            "DELETE FROM audit_logs WHERE id = 3",
            "DELETE FROM audit_logs",
            "UPDATE audit_logs SET id = 4 WHERE id = 3",
            "UPDATE audit_logs SET hash = x'00' WHERE id = 3",
            "UPDATE audit_logs SET hash = NULL WHERE id = 3",
        ],
    )
    def test_it_names_the_newest_entry(self, stored: driver.Connection, statement: str) -> None:
        put_head(stored)
        stored.execute(statement)
        assert check_head(stored, RING, findings := no_findings())[1] == HEAD
        assert [(one.table, one.problem) for one in findings] == [
            ("audit_logs", "the newest entry is not the one the head names")
        ]

    def test_the_head_of_an_empty_log_names_no_entry(self, stored: driver.Connection) -> None:
        stored.execute("DELETE FROM audit_logs")
        put_head(stored, size=0)
        assert check_head(stored, PUBLIC, findings := no_findings())[1] is not None
        assert findings == []

    def test_what_cannot_be_read_is_told(self, stored: driver.Connection) -> None:
        stored.execute("DROP TABLE ledger_head")
        assert check_head(stored, RING, findings := no_findings()) == (b"", None)
        assert findings[0].problem.startswith("cannot be read: ")


class TestClaims:
    def test_of_an_anchor(self, tmp_path: Path) -> None:
        anchor = FileAnchor(tmp_path / "a")
        assert claim_of(anchor, None) == claim_of(anchor, replace(MARK, size=0)) == []
        (claim,) = claim_of(anchor, replace(MARK, size=1))
        assert (claim.size, claim.root) == (1, MARK.root)
        assert (claim.otherwise.table, claim.otherwise.row) == ("anchor", str(tmp_path / "a"))

    def test_of_a_head(self) -> None:
        assert claim_of_head(None, findings := no_findings()) == claim_of_head(HEAD, findings) == []
        assert findings == []
        assert claim_of_head(replace(HEAD, checkpoint="nonsense"), findings) == []
        assert [(one.table, one.row) for one in findings] == [("ledger_head", "1")]


def problems(connection: driver.Connection, anchor: FileAnchor, mark: AnchorRecord | None, **more: Any) -> list[str]:  # noqa: ANN401
    found = startup.check_anchor(connection, RING, anchor, mark, **{"head": HEAD, **more})
    assert all((one.table, one.row) == ("anchor", anchor.place) for one in found)
    return [one.problem for one in found]


class TestAnchor:
    @pytest.fixture
    def anchor(self, tmp_path: Path) -> FileAnchor:
        return FileAnchor(tmp_path / "anchor")

    def test_what_agrees(self, stored: driver.Connection, anchor: FileAnchor) -> None:
        behind = replace(MARK, size=2, hash=LEAVES[1])
        for mark in (MARK, behind, replace(MARK, scrubbed=3), replace(MARK, size=0, hash=bytes(32))):
            assert problems(stored, anchor, mark) == []

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"size": 4}, "remembers 4 entries, the database has 3: it was put back or replaced"),
            ({"epoch": 2}, "put back or replaced"),
            ({"hash": LEAVES[1]}, "its log was forked or changed"),
            ({"size": 2}, "its log was forked or changed"),
            ({"epoch": 0}, "the anchor was changed"),
            ({"state_seq": 1}, "the anchor was changed"),
            ({"scrubbed": 4}, "the anchor was changed"),
            ({"verifier_key": "other"}, "belongs to another vault"),
        ],
    )
    def test_what_does_not(
        self, stored: driver.Connection, anchor: FileAnchor, changes: dict[str, Any], told: str
    ) -> None:
        mark = replace(MARK, **changes)
        if "epoch" in changes:  # it is of that epoch, and so is its key
            mark = replace(mark, verifier_key=verifier_key(origin(RING.instance_id, mark.epoch), RING.log_public_key))
        (problem,) = problems(stored, anchor, mark)
        assert told in problem
        if "--acknowledge-rollback" in problem:
            assert "moved by `kvl migrate`" in problem.partition("--acknowledge-rollback")[0]
        assert ("--acknowledge-rollback --size 3" in problem) is ("verifier_key" not in changes)

    def test_a_head_of_no_epoch_is_not_older(self, stored: driver.Connection, anchor: FileAnchor) -> None:
        assert problems(stored, anchor, MARK, head=None) == problems(stored, anchor, MARK, head=replace(HEAD, epoch=0))
        assert problems(stored, anchor, MARK, head=None) == []
        stored.execute("UPDATE audit_logs SET epoch = 2")
        key = verifier_key(origin(RING.instance_id, 2), RING.log_public_key)
        assert problems(stored, anchor, replace(MARK, epoch=2, verifier_key=key), head=None) == []

    def test_the_first_entry_of_a_log_that_is_whole(self, stored: driver.Connection, anchor: FileAnchor) -> None:
        assert problems(stored, anchor, replace(MARK, size=1, hash=LEAVES[0], state_seq=1)) == []

    def test_an_entry_that_is_missing_is_another(self, stored: driver.Connection, anchor: FileAnchor) -> None:
        stored.execute("DELETE FROM audit_logs WHERE id = 2")
        (problem,) = problems(stored, anchor, replace(MARK, size=2, hash=LEAVES[1]))
        assert "remembers another entry 2 than the database has" in problem

    @pytest.mark.parametrize("head", [None, replace(HEAD, edge=b"x"), replace(HEAD, edge=b"")])
    def test_without_a_tree_there_is_nothing_to_acknowledge(
        self, stored: driver.Connection, anchor: FileAnchor, head: Head | None
    ) -> None:
        (problem,) = problems(stored, anchor, replace(MARK, size=4), head=head)
        assert problem.endswith("; restore the newest database")

    def test_none_beside_a_log(self, stored: driver.Connection, anchor: FileAnchor) -> None:
        (problem,) = problems(stored, anchor, None)
        assert problem.startswith("is missing beside a vault of 3 entries")
        stored.execute("DELETE FROM audit_logs")
        assert problems(stored, anchor, None) == problems(stored, anchor, replace(MARK, size=0)) == []
        assert problems(stored, anchor, MARK)
        stored.execute("DROP TABLE audit_logs")
        assert problems(stored, anchor, None) == []

    def test_of_what_was_archived_the_tiles_tell(self, stored: driver.Connection, anchor: FileAnchor) -> None:
        put_tile(stored, 0)
        for mark, agrees in (
            (MARK, True),
            (replace(MARK, size=1, hash=LEAVES[0]), True),
            (replace(MARK, scrubbed=3, epoch=1, state_seq=9), True),
            (replace(MARK, scrubbed=4), False),
            (replace(MARK, hash=LEAVES[0]), False),
        ):
            found = problems(stored, anchor, mark, archived=3)
            assert not found if agrees else "remembers another entry 3" in found[0]
        assert problems(stored, anchor, replace(MARK, state_seq=9), archived=2)

    def test_a_damaged_one_is_told(self, anchor: FileAnchor) -> None:
        findings: list[Finding] = []
        assert startup.read_mark(None, findings) is None
        assert startup.read_mark(anchor, findings) is None
        assert findings == []
        anchor.path.write_bytes(b"x" * 8000)
        assert startup.read_mark(anchor, findings) is None
        anchor.path.write_bytes(b"KVLANCH1" + b"x" * 8000)
        assert startup.read_mark(anchor, findings) is None
        for torn in (b"KVL", bytes(4096) + b"KVLANCH1" + b"x" * 4000, bytes(100) + b"x" * 8000):
            anchor.path.write_bytes(torn)
            told: list[Finding] = []
            assert startup.read_mark(anchor, told) is None
            assert told[0].problem.startswith("is damaged: neither"), torn[:10]
        foreign, found = findings
        assert foreign.problem == f"is another kind of file; {NotAnAnchor.way_out}"
        assert (found.table, found.row) == ("anchor", anchor.place)
        assert found.problem.startswith("is damaged: neither")
        assert found.problem.endswith(DamagedAnchor.way_out)


def put_tile(connection: driver.Connection, index: int, **changes: Any) -> None:  # noqa: ANN401
    leaves = [*LEAVES, *(bytes([index, number % 256]) * 16 for number in range(TILE_WIDTH - len(LEAVES)))]
    connection.execute("INSERT INTO tiles VALUES (0, ?, ?)", (index, changes.get("hashes", b"".join(leaves))))


class TestTiles:
    def test_the_leaves_between(self, stored: driver.Connection) -> None:
        put_tile(stored, 0)
        put_tile(stored, 1)
        both = retention.leaves_between(stored, 0, 2 * TILE_WIDTH)
        assert len(both) == 2 * TILE_WIDTH
        assert both[:3] == both[TILE_WIDTH:][:3] == LEAVES
        for begin in (1, TILE_WIDTH - 1, TILE_WIDTH, TILE_WIDTH + 1):
            assert retention.leaves_between(stored, begin, 2 * TILE_WIDTH) == both[begin:]
        for number in (1, 3, TILE_WIDTH, TILE_WIDTH + 1, 2 * TILE_WIDTH):
            assert retention.leaf_of(stored, number) == both[number - 1]
        assert retention.leaf_of(stored, 2 * TILE_WIDTH + 1) is None

    @pytest.mark.parametrize("hashes", [None, b"", "x" * TILE_BYTES, bytes(TILE_BYTES - 32), bytes(TILE_BYTES + 32)])
    def test_a_tile_that_is_none(self, stored: driver.Connection, hashes: object) -> None:
        put_tile(stored, 0, hashes=hashes)
        with pytest.raises(IntegrityViolation, match="the tile 0/0 over archived entries is missing or damaged"):
            retention.leaves_between(stored, 0, TILE_WIDTH)


SEGMENT = Segment(1, 2, "a" * 64, LEAVES[1], 1, 20, 2)


class TestArchived:
    @pytest.fixture
    def on_record(self, stored: driver.Connection) -> driver.Connection:
        stored.execute("CREATE TABLE settings (name, value, row_seq, row_mac)")
        values = setting_values(SEGMENT.as_setting())
        stored.execute(
            "INSERT INTO settings VALUES (?, ?, 3, ?)", (*values, RING.row_mac("settings", values[:1], 3, values))
        )
        return stored

    @pytest.mark.parametrize(("number", "held"), [(-1, False), (0, False), (3, True), (4, False)])
    def test_entries_that_the_log_has(self, on_record: driver.Connection, number: int, *, held: bool) -> None:
        on_record.execute("DELETE FROM audit_logs WHERE id < 3")
        assert (retention.hash_of_entry(on_record, RING, number) is not None) is held

    def test_of_a_log_without_an_archive_only_what_is_there(self, stored: driver.Connection) -> None:
        stored.execute("CREATE TABLE settings (name, value, row_seq, row_mac)")
        there = [retention.hash_of_entry(stored, RING, number) is not None for number in (0, 1, 3, 4)]
        assert there == [False, True, True, False]

    def test_what_was_archived_is_not_here(self, stored: driver.Connection) -> None:
        stray = Finding("audit_logs", "2", "was archived, and stands here all the same")
        for first, found in ((1, replace(stray, row="1")), (2, stray), (3, None), (4, None)):
            stored.execute("DELETE FROM audit_logs WHERE id < ?", (first,))
            assert Archived(stored, [SEGMENT], None).strays() == ([] if found is None else [found])
        assert Archived(stored, [], None).strays() == []

    def test_the_newest_entry_about_it_names_it(self, stored: driver.Connection) -> None:
        archived = Archived(stored, [SEGMENT], None)
        assert archived.check_named((2, SEGMENT.file_hash)) == []
        for named, told in (
            (None, "no entry tells of it"),
            ((2, "b" * 64), "the newest entry about it names another file"),
            ((1, SEGMENT.file_hash), "the newest entry about it says up to entry 1"),
        ):
            (found,) = archived.check_named(named)
            assert (found.table, found.row) == ("settings", PREFIX)
            assert found.problem == f"says that the log was archived up to entry 2; {told}"
        assert Archived(stored, [], None).check_named(None) == []
        (found,) = Archived(stored, [], None).check_named((2, SEGMENT.file_hash))
        assert found.problem.startswith("says that the log was archived up to entry 0; ")

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (InvalidSegment("is cut short"), "is cut short"),
            (OSError(5, "Input/output error", "secret"), "Input/output error"),
        ],
    )
    def test_a_file_that_cannot_be_read_is_told(
        self, stored: driver.Connection, tmp_path: Path, error: Exception, told: str
    ) -> None:
        class Spoiled(SegmentStore):
            def entries(self, *_: object) -> Iterator[Any]:
                raise error

        put_tile(stored, 0)
        segment = replace(SEGMENT, last=TILE_WIDTH)
        archived = Archived(stored, [segment], Spoiled(tmp_path, PUBLIC, lambda *_: True))
        found = archived.read(ChainState(0, bytes(32), 0, 0, 0, None), lambda *_: None)
        assert found == [Finding("archive", segment.file, told)]
        assert archived.unread == TILE_WIDTH

    def test_a_tile_over_it_that_is_missing_is_told(self, stored: driver.Connection) -> None:
        put_tile(stored, 0)
        segment = replace(SEGMENT, last=2 * TILE_WIDTH)
        fed: list[int] = []
        archived = Archived(stored, [segment], None)
        found = archived.read(ChainState(0, bytes(32), 0, 0, 0, None), lambda rows, leaves: fed.append(len(leaves)))
        assert [(one.table, one.row) for one in found] == [("tiles", "0/1")]
        assert (fed, archived.unread) == ([TILE_WIDTH], 2 * TILE_WIDTH)


@pytest.mark.parametrize(
    ("limit", "scrubbed", "behind"),
    [(2, 0, 1), (2, 1, 1), (2, 2, 2), (2, 3, 3), (2, 9, 3), (3, 0, 0), (3, 2, 0), (0, 0, 3)],
)
def test_a_long_log_is_checked_from_where_it_is_proven(
    stored: driver.Connection, monkeypatch: pytest.MonkeyPatch, limit: int, scrubbed: int, behind: int
) -> None:
    monkeypatch.setattr(startup, "CHECKED_AT_START", limit)
    assert startup.unproven(stored, scrubbed) == behind
    stored.execute("DELETE FROM audit_logs")
    assert startup.unproven(stored, scrubbed) == 0


class TestWords:
    def test_of_tiles(self, stored: driver.Connection) -> None:
        put_tile(stored, 0, hashes=b"other")
        inspection._check_tiles(stored, [(0, 0, b"hashes"), (0, 1, b"hashes")], findings := no_findings())
        assert [(one.table, one.row, one.problem) for one in findings] == [
            ("tiles", "0/0", "is not the one the log gives"),
            ("tiles", "0/1", "is missing"),
        ]

    @pytest.mark.parametrize(
        ("size", "level", "index", "belongs"),
        [
            (512, 0, 0, True),
            (512, 0, 1, True),
            (512, 0, 2, False),
            (511, 0, 1, False),
            (255, 0, 0, False),
            (65536, 1, 0, True),
            (65535, 1, 0, False),
            (65536, 1, 1, False),
            (512, 0, -1, False),
            (512, -1, 0, False),
            (512, 2**62, 0, False),
            (512, 0, 1.0, False),
            (512, 0.0, 1, False),
            (512, "0", 1, False),
            (512, 0, None, False),
        ],
    )
    def test_of_tiles_that_no_entries_fill(
        self, stored: driver.Connection, size: int, level: object, index: object, *, belongs: bool
    ) -> None:
        stored.execute("INSERT INTO tiles VALUES (?, ?, x'')", (level, index))
        inspection._check_no_more_tiles(stored, size, findings := no_findings())
        told = Finding("tiles", f"{level}/{index}", "is beyond what the log gives")
        assert findings == ([] if belongs else [told])

    def test_of_a_state_that_no_row_explains(self) -> None:
        root, other = b"root", VerifiedRows(sealed_root=b"other")
        (found,) = inspection._unexplained(other, [], root=root, archived=0)
        assert (found.table, found.row) == ("ledger_head", "1")
        assert found.problem.endswith("in key_names, settings or tokens one is missing or old")
        (found,) = inspection._unexplained(other, [], root=root, archived=7)
        assert found.problem.endswith("last written by entry 7 or before, one is missing or old")
        for rows, told in ((VerifiedRows(findings=[found]), []), (VerifiedRows(), [found])):
            (beside,) = inspection._unexplained(rows, told, root=root, archived=0)
            assert beside.problem.endswith("commits to: beside what is named one is missing or old")
        edited = VerifiedRows(findings=[found], sealed_root=root)
        assert inspection._unexplained(edited, [found], root=root, archived=0) == []

    def test_the_rows_are_named_where_memory_knows_them(self) -> None:
        differing = {row_key("settings", ("b",)), row_key("settings", ("a",)), row_key("keys", ("k",))}
        rows = VerifiedRows(findings=[Finding("settings", "a", NOT_GENUINE)], differing=differing)
        told = [(one.table, one.row, one.problem) for one in inspection._unexplained(rows, [], root=b"", archived=0)]
        assert told == [("keys", "k", NOT_COMMITTED), ("settings", "b", NOT_COMMITTED)]

    @pytest.mark.parametrize(
        ("count", "named", "more"), [(1, 1, ""), (5, 5, ""), (6, 5, " (and 1 more)"), (8, 5, " (and 3 more)")]
    )
    def test_of_a_vault_that_does_not_start(self, count: int, named: int, more: str) -> None:
        findings = [Finding("keys", f"{number}", "is old") for number in range(count)]
        error = DamagedVault(findings)
        told = "; ".join(f"keys {number}: is old" for number in range(named))
        assert str(error) == error.detail == f"the database does not verify: {told}{more}"
        assert error.findings == tuple(findings)

    def test_of_a_check_that_got_nowhere(self) -> None:
        findings = [Finding("database", "vault.db", "is damaged"), Finding("anchor", "", "is missing")]
        assert offline_check.verification_of(findings) == Verification(
            valid=False, entries=0, head=bytes(32), reason="is damaged", findings=tuple(findings)
        )


@pytest.mark.parametrize(
    ("last", "size", "same"),
    [
        ((3, LEAVES[2]), 3, True),
        ((2, LEAVES[2]), 3, False),
        ((4, LEAVES[2]), 3, False),
        ((3, LEAVES[1]), 3, False),
        ((None, None), 3, False),
        ((None, None), 0, True),
        ((3, LEAVES[2]), 0, False),
    ],
)
def test_the_log_ends_as_its_head_says(last: tuple[Any, Any], size: int, *, same: bool) -> None:
    head = replace(HEAD, size=size)
    if same:
        Replica._check_last(*last, head)
    else:
        with pytest.raises(IntegrityViolation, match="not the one its head names"):
            Replica._check_last(*last, head)


def test_slots_that_are_not_there_are_none(stored: driver.Connection, tmp_path: Path) -> None:
    """A table that is missing is found by who compares the schema; any other error is one."""
    database = SqliteDatabase(tmp_path / "v.db")
    assert offline_check._slots(database, stored) == ()
    faulty = FaultyConnection(stored)
    faulty.before = lambda _: failing()
    with pytest.raises(driver.Error, match="disk I/O error"):
        offline_check._slots(database, faulty)


def test_settings_that_are_no_segments() -> None:
    prefix = PREFIX
    rows = [Setting(f"{prefix}b", {"x": 1}), Setting(f"{prefix}a", None), Setting("other", {"x": 1})]
    assert retention.segments_of(rows, findings := no_findings()) == []
    assert [(one.table, one.row) for one in findings] == [("settings", f"{prefix}b")]


@pytest.mark.parametrize("anchored", [True, False])
def test_a_look_at_everything_tells_of_the_anchor_first(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, *, anchored: bool
) -> None:
    """One that cannot be read is told once, and not compared as well."""
    compared: list[object] = []
    others = [Finding("keys", "1", "is not genuine"), Finding("keys", "2", "is not genuine")]
    damaged = [] if anchored else [Finding("anchor", "/a", "is damaged")]

    def read(_: object, findings: list[Finding]) -> None:
        findings += damaged

    def look(*_: object, anchor: object, **__: object) -> SimpleNamespace:
        compared.append(anchor)
        return SimpleNamespace(findings=[*others])

    monkeypatch.setattr(ledger, "read_mark", read)
    monkeypatch.setattr(ledger, "inspect", look)
    assert harness.ledger.inspect().findings == [*damaged, *others]
    assert compared == [harness.ledger._anchor if anchored else None]


@pytest.mark.parametrize("table", ["audit_logs", "ledger_head", "tiles", "schema", "anchor", "audit_index"])
def test_only_rows_can_be_set_aside(table: str) -> None:
    """What else is damaged keeps the vault from starting, whatever is damaged beside it."""
    set_aside: list[str] = []
    made: Any = object.__new__(ledger.Ledger)
    made._state, made._writer = (
        SimpleNamespace(quarantine=set_aside.append),
        SimpleNamespace(replica=SimpleNamespace(read_only=False)),
    )
    row = Finding("keys", "1", "is not genuine")
    for findings, quarantine in (([row, Finding(table, "1", "is wrong")], True), ([row], False)):
        with pytest.raises(DamagedVault):
            made._set_aside(findings, {"a key"}, quarantine=quarantine)
    assert (set_aside, made._writer.replica.read_only) == ([], False)
    made._state.quarantined = set()
    made._set_aside([row], {"a key"}, quarantine=True)
    assert made.lost == (row,)
    assert set_aside[0] == "a key"
    assert made._writer.replica.read_only
