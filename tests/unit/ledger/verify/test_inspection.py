"""Checks of everything: a head that says otherwise than the log, and a log that cannot be read to its end."""

import gc
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from keyvault_lite import app
from keyvault_lite.audit.chain import BrokenChain
from keyvault_lite.audit.entry import ENTRY_COLUMNS, Row
from keyvault_lite.audit.merkle import CompactRange
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.anchor.record import BLOCK, AnchorRecord
from keyvault_lite.ledger.log.query import position_behind, read_entry
from keyvault_lite.ledger.state.outcome import Authority, Change, Outcome
from keyvault_lite.ledger.state.root import StateTree
from keyvault_lite.ledger.state.verified_rows import VerifiedRows
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.schema import HEAD_COLUMNS
from keyvault_lite.ledger.verify import inspection
from keyvault_lite.ledger.verify.expected_heads import ExpectedHead
from keyvault_lite.ledger.verify.inspection import Inspection, inspect, verification
from keyvault_lite.ledger.verify.offline_check import CheckInputs, check
from keyvault_lite.model.encoding import decode_base64, encode_base64
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.names import SYSTEM
from keyvault_lite.model.replies import Finding
from keyvault_lite.model.requests import ListKeys
from keyvault_lite.operator.anchor import trust_anchor
from keyvault_lite.operator.verify import verify_vault
from tests.support.faults import FaultyConnection, failing
from tests.support.harness import Harness
from tests.unit.ledger.verify.test_tampering import tamper


def told(seen: Inspection) -> list[tuple[str, str, str]]:
    return [(one.table, one.row, one.problem) for one in seen.findings]


def look(harness: Harness, **how: Any) -> Inspection:  # noqa: ANN401
    """What is stored, beside the service."""
    with harness.ledger._readers.one() as connection:
        return inspect(connection, harness.vault.keyring, harness.vault.database, **how)


def begin_epoch(harness: Harness) -> None:
    """As who has the operator's word goes on without the anchor's."""
    draft = Draft(
        action=Action.ANCHOR_TRUST, result=Result.SUCCESS, request_id=bytes(16), service_id=SYSTEM, comment="is meant"
    )
    outcome = Outcome((draft,), None, Change(new_epoch=True))
    harness.run(harness.ledger.commit(outcome, harness.ledger.snapshot().snapshot_version, lambda _: outcome))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("size", lambda size: size + 1),
        ("hash", lambda _: bytes(32)),
        ("epoch", lambda epoch: epoch + 1),
        ("timestamp", lambda stamp: stamp + 1),
        ("state_seq", lambda number: number - 1),
        ("state_root", lambda _: bytes(32)),
    ],
)
def test_a_head_with_a_mac_that_says_otherwise(harness: Harness, column: str, value: Any) -> None:  # noqa: ANN401
    """As who has the keyring can write it."""
    harness.ask(ListKeys())
    head = dict(zip(HEAD_COLUMNS, harness.ledger._writer.head.values(), strict=True))
    head[column] = value(head[column])
    with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
        mac = harness.vault.keyring.head_mac(*head.values())
        connection.execute(f"UPDATE ledger_head SET {column} = ?, mac = ?", (head[column], mac))
        seen = inspect(connection, harness.vault.keyring, harness.vault.database, log_from=0)
    assert ("ledger_head", "1", f"{column}: the log is not the one the head names") in told(seen)


@pytest.mark.parametrize("times", [1, 99])
@pytest.mark.parametrize("at", [1, 3])
def test_a_log_that_cannot_be_read_on(harness: Harness, monkeypatch: pytest.MonkeyPatch, at: int, times: int) -> None:
    """Nor is it read again on the chance that it works: what came before would be of another snapshot."""
    monkeypatch.setattr(inspection, "CHUNK", 2)
    for _ in range(3):
        harness.ask(ListKeys())
    with harness.ledger._readers.one() as connection:
        faulty, read = FaultyConnection(connection), [0, 0]

        def fails(sql: str) -> Exception | None:
            if "FROM audit_logs WHERE id >" not in sql:
                return None
            folded = "json_array" in sql
            read[0] += folded
            if read[0] <= at // 2:
                return None
            read[1] += not folded
            return failing() if folded or read[1] <= times else None

        faulty.before = fails
        seen = inspect(faulty, harness.vault.keyring, harness.vault.database, log_from=0)
    assert told(seen) == [("audit_logs", f"{at}", "cannot be read, nor what follows: disk I/O error")]
    assert (seen.read_to, seen.entries) == (at - 1, at - 1)


class TestBadEntries:
    """The slow reading: of a chunk in which some entry is not as sealed."""

    def read(self, monkeypatch: pytest.MonkeyPatch, *bad: int) -> tuple[Any, Inspection, list[Row]]:
        fed: list[Row] = []
        entries = [
            tuple(known.get(name) for name in ENTRY_COLUMNS)
            for number in range(1, 6)
            for known in ({"id": number, "epoch": 9, "state_root": None if number == 2 else b"root"},)
        ]
        broken = [BrokenChain(number, f"is bad as {number}") for number in bad]
        seen = Inspection(None, b"", VerifiedRows(), StateTree(), b"")
        monkeypatch.setattr(inspection, "entries_after", lambda *_: iter([entries]))
        log = object.__new__(inspection._Log)
        log._connection, log._seen = cast(Any, None), seen
        log._attribution = cast(Any, SimpleNamespace(feed=fed.extend))
        survey = SimpleNamespace(position=SimpleNamespace(size=0), feed=lambda _: ([b"leaf"], broken))
        return log._read_whole(cast(Any, survey)), seen, fed

    def test_what_management_entries_tell_is_believed_of_good_ones(self, monkeypatch: pytest.MonkeyPatch) -> None:
        leaves, seen, fed = self.read(monkeypatch, 3)
        assert [row[0] for row in fed] == [1, 4, 5]
        assert leaves == [b"leaf"]
        assert told(seen) == [("audit_logs", "3", "is bad as 3")]

    def test_the_first_is_told_and_the_rest_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inspection, "MAX_FINDINGS", 2)
        _, seen, _ = self.read(monkeypatch, 2, 3, 5)
        assert seen.broken is not None
        assert seen.broken.id == 2
        assert (told(seen), seen.more) == ([("audit_logs", f"{number}", f"is bad as {number}") for number in (2, 3)], 1)


def test_a_damaged_anchor_is_told_as_such(harness: Harness) -> None:
    harness.vault.close()
    anchor = harness.vault.database.anchor_path
    whole = anchor.read_bytes()
    anchor.write_bytes(whole[:100] + b"?" * (2 * BLOCK - 100))
    (found,) = verify_vault(harness.settings).findings
    assert (found.table, found.row) == ("anchor", str(anchor))
    assert found.problem.startswith("is damaged: neither of its two records can be read")
    anchor.write_bytes(whole)
    harness.open()


def test_a_file_that_is_no_anchor_is_not_made_one(harness: Harness, tmp_path: Path) -> None:
    """The database, the master key, anything that KEYVAULT_ANCHOR names by mistake: nothing is put in its place."""
    harness.key("orders")
    harness.vault.close()
    (key := tmp_path / "some.key").write_text("secret")
    for file in (harness.path, key):
        before = file.read_bytes()
        wrong = harness.settings.model_copy(update={"anchor": str(file)})
        (found,) = verify_vault(wrong).findings
        assert found.problem.startswith("is another kind of file; let KEYVAULT_ANCHOR name")
        with pytest.raises(DamagedVault):
            app.open_vault(wrong)
        with pytest.raises(IntegrityViolation, match="another kind of file"):
            trust_anchor(wrong)
        assert file.read_bytes() == before
    assert not list(tmp_path.glob("*.lost-*"))
    assert verify_vault(harness.settings).valid


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_checkpoint_of_the_anchor_is_signed_in_whichever_epoch(harness: Harness, epoch: int) -> None:
    if epoch:
        begin_epoch(harness)
    mark = harness.ledger.mark()
    assert (mark.epoch, mark.scrubbed) == (epoch, 0)
    assert verify_vault(harness.settings).findings == ()
    body, _, signature = mark.checkpoint.rpartition(" ")
    raw = bytearray(decode_base64(signature.strip()))
    raw[-1] ^= 1
    harness.vault.close()
    anchor = FileAnchor(harness.vault.database.anchor_path)
    anchor.replace(replace(mark, checkpoint=f"{body} {encode_base64(bytes(raw))}\n"))
    (found,) = verify_vault(harness.settings).findings
    assert (found.table, found.problem) == ("anchor", "its checkpoint is not signed")
    anchor.replace(mark)
    anchor.close()
    harness.open()


def test_progress_is_told_of_the_whole_log(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "CHUNK", 2)
    for _ in range(4):
        harness.ask(ListKeys())
    size, told = harness.size, list[tuple[int, int]]()
    harness.ledger.inspect(lambda done, all_of: told.append((done, all_of)))
    assert told == [(min(done, size), size) for done in range(2, size + 2, 2)]


@pytest.mark.parametrize(("count", "more"), [(0, 0), (1, 0), (1000, 0), (1001, 1), (1005, 5)])
def test_findings_are_named_up_to_a_limit(count: int, more: int) -> None:
    findings = [Finding("keys", f"{number}", "is old") for number in range(count)]
    for counted in (0, 3):
        seen = Inspection(None, b"", VerifiedRows(), StateTree(), b"", list(findings), counted, entries=7, archived=4)
        found = verification(seen)
        assert found.findings == tuple(findings[:1000])
        assert (found.more, found.entries, found.archived) == (more + counted, 7, 4)
        assert (found.valid, found.reason) == ((False, "keys 0: is old") if count else (True, None))
        assert (found.head, found.first_invalid, found.notes) == (bytes(32), None, ())


def test_the_reply_names_the_head_and_the_first_bad_entry(harness: Harness) -> None:
    head, broken = harness.ledger._writer.head, BrokenChain(3, "is bad")
    found = verification(Inspection(head, b"", VerifiedRows(), StateTree(), b"", broken=broken, notes=["note"]))
    assert (found.head, found.first_invalid, found.notes) == (head.hash, 3, ("note",))


class Asked(FileAnchor):
    """A file that counts how often it is looked at; `shared` does so for one that is no file."""

    def __init__(self, path: Path, mark: AnchorRecord | None) -> None:
        super().__init__(path)
        self.mark, self.asked = mark, 0

    def peek(self) -> AnchorRecord | None:
        self.asked += 1
        return self.mark

    def shared(self) -> Any:  # noqa: ANN401
        return SimpleNamespace(read=self.peek, place="https://anchor", check_counter=lambda _: None)


class TestWhichAnchorIsAsked:
    def check(self, harness: Harness, anchor: Asked, *, opens: bool = True, shared: bool = False) -> list[str]:
        """A shared one is known by the log's identity alone."""

        def unlock(_: object) -> Authority:
            if not opens:
                raise IntegrityViolation("no slot verifies")
            return harness.vault.keyring

        def find(identity: object) -> Any:  # noqa: ANN401
            return anchor if not shared else anchor.shared() if identity is not None else None

        means = CheckInputs(find, verify_ed25519, unlock, harness.ledger.evidence.log_key().verifier_key)
        return [f"{one.table}: {one.problem}" for one in check(harness.vault.database, means).findings]

    @pytest.mark.parametrize("shared", [True, False])
    def test_once(self, harness: Harness, tmp_path: Path, *, shared: bool) -> None:
        for mark, told in (
            (harness.ledger.mark(), ""),
            (replace(harness.ledger.mark(), size=99), "anchor: remembers 99 entries"),
            (None, "anchor: is missing beside a vault"),
        ):
            anchor = Asked(tmp_path / "none", mark)
            found = self.check(harness, anchor, shared=shared)
            assert [one.startswith(told) for one in found] == ([True] if told else [])
            assert anchor.asked == 1

    def test_a_shared_one_has_no_say_where_something_is_wrong_already(self, harness: Harness, tmp_path: Path) -> None:
        anchor = Asked(tmp_path / "none", harness.ledger.mark())
        assert self.check(harness, anchor, opens=False, shared=True) == ["keyring_slots: no slot verifies"]
        assert anchor.asked == 0


@pytest.mark.parametrize(
    ("revision", "hint"),
    [("0001", "brings it up to date"), ("0002", "brings it up to date"), ("0004", "alone"), ("", "alone")],
)
def test_a_vault_of_an_earlier_revision_is_told_what_to_do(harness: Harness, revision: str, hint: str) -> None:
    with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    ((table, _, problem),) = told(harness.ledger.inspect())
    assert table == "alembic_version"
    assert problem.startswith("does not name 0003, the revision of this version, alone")
    assert problem.endswith(hint)


@pytest.mark.parametrize("chunk", [1, 2, 3, 500])
def test_in_whatever_parts_the_log_is_read_it_is_the_same(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(inspection, "CHUNK", chunk)
    harness.ask(ListKeys())
    begin_epoch(harness)
    number = harness.size
    harness.key()
    for _ in range(2):
        harness.ask(ListKeys())
    tree, claims = CompactRange(), list[ExpectedHead]()
    for entry in harness.log():
        tree.append(entry.hash)
        claims.append(ExpectedHead(entry.id, tree.root(), Finding("checkpoint", f"{entry.id}", "is of another tree")))
    seen = look(harness, log_from=0, claims=claims)
    assert told(seen) == []
    assert seen.root == tree.root()
    assert seen.notes == [f"by the operator's word in entry {number}, from which on the epoch is 1: is meant"]
    seen = look(harness, log_from=0, claims=[replace(claim, root=bytes(32)) for claim in claims])
    assert seen.findings == [claim.otherwise for claim in claims]


@pytest.mark.parametrize("newest", [begin_epoch, Harness.key])
@pytest.mark.parametrize("change", ["comment = 'was not'", "hash = zeroblob(32)"])
def test_a_newest_entry_that_is_another_says_nothing_against_the_head(
    harness: Harness, change: str, newest: Callable[[Harness], object]
) -> None:
    harness.ask(ListKeys())
    newest(harness)
    number = harness.size
    tamper(harness.path, f"UPDATE audit_logs SET {change} WHERE id = {number}")
    found = told(look(harness, log_from=0))
    assert found[-1] == ("audit_logs", f"{number}", "hash is not that of its columns")
    assert {(table, row) for table, row, _ in found} == {("audit_logs", f"{number}")}


def test_an_anchor_that_remembers_another_tree_is_told_once(harness: Harness) -> None:
    anchor, mark = FileAnchor(harness.vault.database.anchor_path), harness.ledger.mark()
    another = (anchor.place, f"remembers another tree over {mark.size} entries than the log has")
    for changes, problems in (
        ({}, []),
        ({"root": bytes(32)}, [("anchor", *another)]),
        ({"root": bytes(32), "size": mark.size + 1}, [("anchor", anchor.place)]),
    ):
        seen = look(harness, anchor=anchor, mark=replace(mark, **changes), log_from=0)
        assert [one[: len(problem)] for one, problem in zip(told(seen), problems, strict=True)] == problems


def test_the_log_is_checked_from_behind_an_entry(harness: Harness) -> None:
    """Without what is of the whole log: its index and the tiles of its tree."""
    for _ in range(3):
        harness.ask(ListKeys())
    size = harness.size
    tamper(harness.path, "DELETE FROM audit_index", "INSERT INTO tiles VALUES (0, 5, zeroblob(8192))")
    for number in range(1, size + 1):
        seen = look(harness, log_from=number)
        assert (told(seen), seen.read_to, seen.entries) == ([], size, size - number)
    tamper(harness.path, "UPDATE audit_logs SET source = 'elsewhere' WHERE id = 3")
    assert [bool(look(harness, log_from=number).findings) for number in (1, 2, 3, 4)] == [True, True, True, False]


@pytest.mark.parametrize("column", ["epoch", "timestamp", "state_seq", "hash", "source"])
@pytest.mark.parametrize("value", ["'x'", "x'01'", "CAST(x'ff' AS TEXT)", "1.5"])
def test_an_entry_from_behind_which_the_log_is_checked_is_one_itself(harness: Harness, column: str, value: str) -> None:
    number = harness.size
    harness.ask(ListKeys())
    tamper(harness.path, f"UPDATE audit_logs SET {column} = {value} WHERE id = {number}")
    found = told(look(harness, log_from=number))
    assert found[0] == ("audit_logs", f"{number}", "is missing, or not as its hash says")


@pytest.mark.parametrize("value", ["'x'", "x'01'", "CAST(x'ff' AS TEXT)", "1.5"])
def test_an_entry_that_holds_what_none_can_hold_is_not_given_out(harness: Harness, value: str) -> None:
    number = harness.size
    tamper(harness.path, f"UPDATE audit_logs SET epoch = {value} WHERE id = {number}")
    with harness.ledger._readers.one() as connection:
        for read in (read_entry, position_behind):
            with pytest.raises(IntegrityViolation, match="a stored entry does not verify"):
                read(connection, number)
            assert read(connection, number + 1) is None


def test_behind_an_entry_that_is_not_there_nothing_is_checked(harness: Harness) -> None:
    beyond = harness.size + 1
    seen = look(harness, log_from=beyond)
    assert told(seen) == [("audit_logs", f"{beyond}", "is missing, or not as its hash says")]
    assert (seen.read_to, seen.entries, seen.archived) == (0, 0, 0)


def test_what_stands_there_besides_is_found(harness: Harness) -> None:
    tamper(
        harness.path,
        "INSERT INTO tiles VALUES (0, 5, zeroblob(8192))",
        "INSERT INTO settings (name, value, row_seq, row_mac) VALUES ('of/nobody', '{}', -1, zeroblob(32))",
    )
    seen = look(harness, log_from=0)
    assert {one[:2] for one in told(seen)} == {("tiles", "0/5"), ("settings", "of/nobody")}


def test_a_slot_that_is_gone_is_named(harness: Harness) -> None:
    (slot,) = look(harness).rows.change.slots
    tamper(harness.path, "DELETE FROM keyring_slots")
    assert ("keyring_slots", slot.id, "is missing") in told(look(harness, log_from=0))


def test_the_structure_of_the_file_is_checked_for_who_wants_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn = Finding("database", "vault.db", "a page is torn")
    monkeypatch.setattr(type(harness.vault.database), "check_pages", lambda *_: [torn])
    assert look(harness).findings == look(harness, pages=False).findings == []
    assert look(harness, pages=True).findings == [torn]


def test_keys_are_kept_for_who_loads_them(harness: Harness) -> None:
    key = harness.key()
    assert [one.id for one in look(harness, load=True).rows.change.keys] == [key.id]
    seen = look(harness)
    assert (seen.rows.change.keys, seen.tree.count) == ((), 0)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_search_for_cycles_goes_on_as_before(harness: Harness, *, enabled: bool) -> None:
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        look(harness)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
