"""What a writer asks of a log that other processes have written to, and the steps of its transactions."""

import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from keyvault_lite import app
from keyvault_lite.audit.merkle import CompactRange, Tiles
from keyvault_lite.crypto.root import MasterKey
from keyvault_lite.ledger.anchor.counter import CounterUse
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.anchor.interface import AnchorBusy
from keyvault_lite.ledger.anchor.record import AnchorRecord
from keyvault_lite.ledger.commit import replica as replica_module
from keyvault_lite.ledger.commit.publisher import PUT_BACK, CheckpointPublisher
from keyvault_lite.ledger.commit.replica import MANY, Replica
from keyvault_lite.ledger.commit.write_set import WouldBlock
from keyvault_lite.ledger.commit.writer import Writer
from keyvault_lite.ledger.state.head import Head
from keyvault_lite.ledger.state.outcome import Authority
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.database import BUSY_SECONDS
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, Unauthenticated
from keyvault_lite.model.identity import Permission, Role
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import CreateService, Encrypt, ListKeys, RevokeKey, VerifyAudit
from keyvault_lite.operator.initialise import initialise_vault
from tests.support.faults import FaultyConnection
from tests.support.harness import Harness, grant, settings_for
from tests.unit.ledger.verify.test_tampering import tamper

HEAD = Head(2, 5, b"5" * 32, 50, 4, bytes(32), CompactRange().to_bytes(), "")
MARK = AnchorRecord(2, 5, 4, HEAD.hash, bytes(32), "note", "key")
NEW = [b"6" * 32, b"7" * 32]


def announcing(anchor: Any) -> CheckpointPublisher:  # noqa: ANN401
    """On an anchor of which nothing is known yet; signs nothing."""
    return CheckpointPublisher(cast(Authority, None), anchor)


class Following:
    """A replica at HEAD that finds another row; which head it follows is recorded."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        found: Head | None,
        last: bytes | None = None,
        *,
        mac: bytes = b"known",
        anchor: Any = None,  # noqa: ANN401
        others: int = 0,
    ) -> None:
        self.followed: list[tuple[Head, bytes, bool]] = []
        row = None if found is None else (*found.values(), b"mac", found.size, found.hash if last is None else last)
        self._connection: Any = SimpleNamespace(execute=lambda _: SimpleNamespace(fetchone=lambda: row))
        database: Any = SimpleNamespace(count_of_others=lambda _: 1)
        authority: Any = SimpleNamespace(instance_id=bytes(16), log_public_key=bytes(32))
        self.replica = Replica(database, authority, cast(State, None), announcing(anchor), others)
        self.replica.tip = LogTip(HEAD, mac, Tiles(), "")
        monkeypatch.setattr(self.replica, "_follow", self._follow)
        monkeypatch.setattr(replica_module, "read_head", lambda row, _: Head(*row[:-1]))

    def _follow(self, _: object, head: Head, mac: bytes, *, blocking: bool) -> list[bytes]:
        self.followed.append((head, mac, blocking))
        return []

    def catch_up(self, **how: bool) -> None:
        self.replica.catch_up(self._connection, **how)


@pytest.mark.parametrize("changes", [{}, {"size": 6}, {"epoch": 3, "size": 6}])
def test_a_head_that_goes_on_is_adopted(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    """One of the same entries too: whoever closes stores a checkpoint in it."""
    head = replace(HEAD, **changes)
    following = Following(monkeypatch, head)
    following.catch_up()
    assert following.followed == [(head, b"mac", True)]


@pytest.mark.parametrize("changes", [{"size": 4}, {"epoch": 1}, {"size": 6, "epoch": 1}, {"size": 4, "epoch": 3}])
def test_a_head_that_goes_back_is_not(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    following = Following(monkeypatch, replace(HEAD, **changes))
    with pytest.raises(IntegrityViolation, match="the database was put back"):
        following.catch_up()
    assert following.followed == []


def test_a_head_that_names_another_entry_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    following = Following(monkeypatch, replace(HEAD, size=6), last=b"x" * 32)
    with pytest.raises(IntegrityViolation, match="not the one its head names"):
        following.catch_up()
    assert following.followed == []


@pytest.mark.parametrize(("new", "suspect", "short"), [(MANY, False, True), (MANY + 1, False, False), (1, True, False)])
def test_on_the_loop_only_what_is_short_is_begun(
    monkeypatch: pytest.MonkeyPatch, new: int, *, suspect: bool, short: bool
) -> None:
    following = Following(monkeypatch, replace(HEAD, size=HEAD.size + new))
    following.replica.suspect = suspect
    if short:
        following.catch_up(blocking=False)
    else:
        with pytest.raises(WouldBlock):
            following.catch_up(blocking=False)
    assert len(following.followed) == short


@pytest.mark.parametrize("known", [b"", b"known"])
@pytest.mark.parametrize("seen", [None, MARK])
def test_a_log_without_a_head_has_begun_nowhere(
    monkeypatch: pytest.MonkeyPatch, known: bytes, seen: AnchorRecord | None
) -> None:
    """Neither here, nor in another process that the anchor has heard of."""
    following = Following(monkeypatch, None, mac=known, anchor=SimpleNamespace(read=lambda **_: seen))
    if known or seen:
        with pytest.raises(IntegrityViolation, match=PUT_BACK):
            following.catch_up()
    else:
        following.catch_up()


@pytest.mark.parametrize(
    ("mark", "held"),
    [
        (MARK, True),
        (replace(MARK, hash=NEW[1]), False),
        (replace(MARK, size=6, hash=NEW[0]), True),
        (replace(MARK, size=7, hash=NEW[1]), True),
        (replace(MARK, size=7, hash=NEW[0]), False),
        (replace(MARK, size=8, hash=NEW[1]), False),
        (replace(MARK, size=4), False),
        (replace(MARK, size=4, hash=NEW[0]), False),
    ],
)
def test_what_the_anchor_remembers_is_in_the_log(mark: AnchorRecord, *, held: bool) -> None:
    known = announcing(None)
    if held:
        known.check(mark, HEAD, NEW)
        assert known.anchored is mark
    else:
        with pytest.raises(IntegrityViolation, match=PUT_BACK):
            known.check(mark, HEAD, NEW)
        assert known.anchored is None


@pytest.mark.parametrize("changes", [{"size": 1000}, {"edge": CompactRange().to_bytes()}])
def test_a_head_is_adopted_with_its_entries_and_their_tree_alone(harness: Harness, changes: dict[str, Any]) -> None:
    writer = harness.ledger._writer
    known = writer.tip
    with pytest.raises(IntegrityViolation, match="does not extend the one this process knows"):
        writer.replica._follow(writer.connection, replace(known.head, **changes), b"mac", blocking=True)
    assert writer.tip is known


def test_an_anchor_knows_a_log_before_its_first_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that never had an entry, because whoever was to begin it has died, leaves its place to another."""
    wanted = settings_for(tmp_path, MasterKey.generate()[1])

    async def dies(*_: object) -> None:
        raise AuditUnavailable("gone")

    with monkeypatch.context() as dying:
        dying.setattr(app, "perform", dies)
        for _ in range(2):
            with pytest.raises(AuditUnavailable, match="gone"):
                initialise_vault(wanted)
            mark = FileAnchor(SqliteDatabase(tmp_path / "vault.db").anchor_path).peek()
            assert mark is not None
            assert mark.size == 0
    harness = Harness(wanted, initialise_vault(wanted).token)
    assert harness.ledger.mark().size == harness.size == 1
    harness.close()


def bare(**parts: Any) -> Any:  # noqa: ANN401
    """A writer of the parts that are needed alone."""
    writer: Any = object.__new__(Writer)
    for name, part in parts.items():
        setattr(writer, name, part)
    return writer


@pytest.mark.parametrize(("change", "waits"), [(False, False), (False, True), (True, False), (True, True)])
def test_publishing_blocks_where_the_anchor_is_flushed_or_remote(*, change: bool, waits: bool) -> None:
    assert bare(_anchor_waits=waits).publishing_blocks(SimpleNamespace(has_change=change)) is (change or waits)


@pytest.mark.parametrize("step", ["prepare", "commit", "publish", "try_prepare", "try_publish"])
def test_a_step_that_fails_gives_the_lock_back(step: str) -> None:
    done: list[str] = []

    def fail(*_: object, **__: object) -> None:
        raise AuditUnavailable("gone")

    writer = bare(_database=SimpleNamespace(unlock=lambda: done.append("unlock")))
    writer._begin = writer._commit = writer._publish_committed = fail
    if step == "try_prepare":
        assert writer.try_prepare([]) is None
    else:
        with pytest.raises(AuditUnavailable):
            getattr(writer, step)(None)
    assert done == ["unlock"]


def test_an_anchor_in_use_keeps_the_lock_for_the_thread_that_waits_for_it() -> None:
    done: list[str] = []

    def busy(*_: object, **__: object) -> None:
        raise AnchorBusy("in use")

    writer = bare(_database=SimpleNamespace(unlock=lambda: done.append("unlock")))
    writer._publish_committed = busy
    assert writer.try_publish(None) is False
    assert done == []
    with pytest.raises(AnchorBusy):
        writer.publish(None)
    assert done == ["unlock"]


@pytest.mark.parametrize("free", [True, False])
def test_the_lock_is_held_if_it_was_free(*, free: bool) -> None:
    assert bare(_database=SimpleNamespace(try_lock=lambda: free)).try_acquire() is free


@pytest.mark.parametrize(("blocking", "patience"), [(False, 0.0), (True, BUSY_SECONDS)])
def test_a_loop_waits_for_no_other_program(*, blocking: bool, patience: float) -> None:
    waited: list[float] = []

    def begin(*, patience: float) -> None:
        waited.append(patience)
        raise AuditUnavailable("locked")

    with pytest.raises(AuditUnavailable):
        bare(_begin=begin, _database=SimpleNamespace(unlock=lambda: None))._prepare(list, blocking=blocking)
    assert waited == [patience]


@pytest.mark.parametrize("low", [True, False])
def test_on_a_disk_that_is_nearly_full_keys_are_managed_and_not_used(
    monkeypatch: pytest.MonkeyPatch, *, low: bool
) -> None:
    added: list[Any] = []
    write_set = SimpleNamespace(add=lambda request, **_: added.append(request), store=lambda *_: None)
    nothing: Any = lambda *_, **__: None  # noqa: E731
    monkeypatch.setattr(Writer, "_new_write_set", lambda _: write_set)
    replica = SimpleNamespace(
        catch_up=nothing, alarms=[], state=SimpleNamespace(snapshot_version=(0, 0)), overtaken=True
    )
    writer = bare(replica=replica, connection=None, _database=SimpleNamespace(space_is_low=lambda: low))
    use, change, refusal = (
        SimpleNamespace(error=None, outcome=SimpleNamespace(change=change), uses_keys=uses)
        for change, uses in ((None, True), ("change", True), (None, False))
    )
    writer._fill(lambda: [use, change, refusal], blocking=True)
    assert replica.overtaken is False
    assert added == ([change, refusal] if low else [use, change, refusal])
    assert isinstance(use.error, AuditUnavailable) is low


@pytest.mark.parametrize(("mark", "scrubbed"), [(None, 0), (replace(MARK, scrubbed=3), 3)])
def test_a_background_check_goes_on_from_what_the_anchor_says(mark: AnchorRecord | None, scrubbed: int) -> None:
    writer = bare(replica=SimpleNamespace(load=lambda *_: None), publisher=announcing(None))
    writer.load(LogTip(HEAD, b"", Tiles(), ""), None, None, mark)
    assert (writer.publisher.scrubbed, writer.publisher.anchored) == (scrubbed, mark)


def test_a_head_that_an_anchor_refuses_is_not_signed() -> None:
    def refuse(*_: object, **__: object) -> None:
        raise IntegrityViolation("forked")

    known = announcing(SimpleNamespace(write=refuse))
    known.anchored = replace(MARK, hash=NEW[0])
    with pytest.raises(IntegrityViolation, match="forked"):
        known.publish(LogTip(HEAD, b"", Tiles(), ""), lambda _: [])  # without a key to sign with


def test_what_others_wrote_is_read_in_a_transaction() -> None:
    done: list[str] = []
    replica = SimpleNamespace(tip=LogTip(HEAD, b"", Tiles(), ""), catch_up=lambda _: done.append("catch up"))
    writer = bare(replica=replica, connection=None, _database=SimpleNamespace(lock=nullcontext))
    writer._begin = lambda *, patience: done.append(f"begin {patience < BUSY_SECONDS}")
    writer._abort = lambda: done.append("abort")
    writer._publish = lambda _: done.append("publish")
    writer.refresh()
    assert done == ["begin True", "catch up", "abort", "publish"]


def test_whoever_closes_stores_its_checkpoint_in_the_newest_head(harness: Harness) -> None:
    other = Harness(harness.settings, harness.admin)
    other.ask(ListKeys())
    harness.ask(ListKeys())
    note = other.ledger.evidence.signed_head()
    writer, anchor = other.ledger._writer, other.ledger._anchor
    writer.connection = faulty = FaultyConnection(writer.connection)
    other.close()
    assert [one.split()[0] for one in faulty.statements if one.startswith(("BEGIN", "UPDATE", "COMMIT"))] == [
        "BEGIN",
        "UPDATE",
        "COMMIT",
    ]
    assert isinstance(anchor, FileAnchor)
    assert anchor._descriptor is None, "nor is the anchor left open"
    with harness.ledger._readers.one() as connection:
        (stored,) = connection.execute("SELECT size, checkpoint FROM ledger_head").fetchall()
    assert tuple(stored) == (harness.ledger.mark().size, note)
    harness.ask(ListKeys())
    assert harness.ask(VerifyAudit()).valid


def test_a_head_that_stayed_names_the_newest_entry_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    following = Following(monkeypatch, HEAD, last=b"x" * 32, mac=b"mac")
    with pytest.raises(IntegrityViolation, match="not the one its head names"):
        following.catch_up()


@pytest.mark.parametrize("wrote", [True, False])
def test_on_the_loop_rows_are_not_compared(monkeypatch: pytest.MonkeyPatch, *, wrote: bool) -> None:
    """Which has to be if somebody has written, and not to the log."""
    following = Following(monkeypatch, HEAD, mac=b"mac", others=0 if wrote else 1)
    if wrote:
        with pytest.raises(WouldBlock):
            following.catch_up(blocking=False)
    else:
        following.catch_up(blocking=False)
    assert following.replica.suspect is wrote


@pytest.mark.parametrize(("stuck", "alive"), [(False, True), (True, True), (False, False)])
def test_a_connection_that_is_stuck_or_dead_is_replaced_and_all_rows_are_compared(*, stuck: bool, alive: bool) -> None:
    begun: list[tuple[object, float]] = []
    old, new = SimpleNamespace(in_transaction=stuck, close=lambda: None), SimpleNamespace(in_transaction=False)
    database = SimpleNamespace(
        is_alive=lambda one: alive or one is new,
        writer=lambda *, patient: None if patient else new,
        count_of_others=lambda one: 5 if one is new else 0,
        begin=lambda one, *, patience: begun.append((one, patience)),
        check_there=lambda: None,
    )
    others: list[int] = []
    writer = bare(connection=old, _database=database, replica=SimpleNamespace(reconnected=others.append))
    writer._begin()
    replaced = stuck or not alive
    assert begun == [(new if replaced else old, BUSY_SECONDS)]
    assert others == ([5] if replaced else [])


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize(("anchor", "waits"), [(None, False), (True, False), (False, True), (True, True)])
def test_a_transaction_is_filled_on_the_loop_where_nobody_elsewhere_is_waited_for(
    *, local: bool, anchor: bool | None, waits: bool
) -> None:
    """And the connection waits for nobody of itself: how long is said each time."""
    database: Any = SimpleNamespace(
        is_local=local, writer=lambda *, patient: f"patient {patient}", count_of_others=lambda _: 0
    )
    authority: Any = SimpleNamespace(instance_id=bytes(16), log_public_key=bytes(32))
    beside: Any = None if anchor is None else SimpleNamespace(is_local=anchor, waits=waits)
    writer: Any = Writer(database, authority, cast(State, None), beside)
    assert writer.is_local is (local and anchor is not False)
    assert writer._anchor_waits is waits
    assert writer.connection == "patient False"


def test_an_anchor_in_use_is_waited_for_unless_it_is_said_otherwise() -> None:
    asked: list[bool] = []
    anchor = SimpleNamespace(write=lambda *_, blocking, **__: asked.append(blocking), is_due=False)
    database = SimpleNamespace(check_same_file=lambda: None)
    replica = SimpleNamespace(apply=lambda _: None)
    writer = bare(publisher=announcing(anchor), replica=replica, _database=database)
    tip = LogTip(HEAD, b"", Tiles(), "")
    write_set = SimpleNamespace(before=tip, after=tip, counter_use=CounterUse.NONE)
    writer._publish(write_set.after)
    writer._publish_committed(write_set, blocking=True)
    writer._publish_committed(write_set, blocking=False)
    assert asked == [True, True, False]


def test_who_opened_a_vault_before_it_began_takes_in_its_first_entry(harness: Harness) -> None:
    state = State(lambda *_: None)
    writer = Writer(harness.vault.database, harness.vault.keyring, state, None)
    writer.refresh()
    known = harness.ledger._writer
    assert (writer.head, writer.replica.tree.root()) == (known.head, known.replica.tree.root())
    assert state.sequence == harness.size == 1
    writer.close()


def catch_up(harness: Harness, *, blocking: bool = True) -> None:
    """Take in what another process has written, as every transaction does first."""
    writer = harness.ledger._writer
    with writer._database.lock():
        writer._begin()
        try:
            writer.replica.catch_up(writer.connection, blocking=blocking)
        finally:
            writer._abort()


@pytest.fixture
def other(harness: Harness) -> Iterator[Harness]:
    """The same vault, as another process has it."""
    opened = Harness(harness.settings, harness.admin)
    yield opened
    opened.close()


def test_what_others_changed_is_taken_in_on_the_loop(harness: Harness, other: Harness) -> None:
    other.key("orders")
    catch_up(harness, blocking=False)
    assert harness.ledger._writer.replica.tree.root() == other.ledger._writer.replica.tree.root()


OTHER_STATE = "the stored state is not the one the log commits to"


def test_a_row_of_another_process_that_was_edited_is_not_taken_in(harness: Harness, other: Harness) -> None:
    other.key("orders")
    with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
        connection.execute("UPDATE keys SET description = 'edited' WHERE name = 'orders'")
    with pytest.raises(IntegrityViolation, match=OTHER_STATE):
        catch_up(harness)


def test_an_old_row_put_back_over_that_of_another_process_is_not_taken_in(harness: Harness, other: Harness) -> None:
    key = harness.key("orders")
    with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
        for table in ("keys", "key_versions"):
            connection.execute(f"CREATE TEMP TABLE old_{table} AS SELECT * FROM {table}")
        other.ask(RevokeKey(KeyRef(key.id)))
        for table in ("keys", "key_versions"):
            connection.execute(f"REPLACE INTO {table} SELECT * FROM old_{table}")
    with pytest.raises(IntegrityViolation, match=OTHER_STATE):
        catch_up(harness)


def test_a_forged_row_beside_those_of_another_process_does_not_hide_a_revocation(
    harness: Harness, other: Harness
) -> None:
    """Its key is set aside with it, and the root, which knows of genuine rows alone, is the one the log commits to."""
    key = harness.key("orders")
    other.ask(RevokeKey(KeyRef(key.id)))
    with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
        connection.execute("CREATE TEMP TABLE forged AS SELECT * FROM key_versions WHERE key_id = ?", (key.id,))
        connection.execute("UPDATE forged SET id = 'forged', version = 2, row_seq = row_seq + 1")
        connection.execute("INSERT INTO key_versions SELECT * FROM forged")
    with pytest.raises(IntegrityViolation, match=OTHER_STATE):
        catch_up(harness)


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("first", "second"),
    [
        # Of other lengths, but one after another the same bytes: and so is what the tree makes of them.
        ("CAST(first || substr(second, 1, 1) AS BLOB)", "substr(second, 2)"),
        ("substr(first, 1, 31)", "CAST(substr(first, 32) || second AS BLOB)"),
        ("second", "first"),
        ("first", "x''"),
        ("'text'", "second"),
        ("1", "second"),
    ],
)
def test_entries_of_another_process_are_taken_in_by_their_hashes(
    harness: Harness, other: Harness, first: str, second: str
) -> None:
    key = KeyRef(other.key().id)
    if other.size % 2:  # the next two have a parent of their own
        other.ask(Encrypt(key, plaintext=b"x"))
    catch_up(harness)
    size, known = other.size, harness.ledger._writer.tip
    for _ in range(3):
        other.ask(Encrypt(key, plaintext=b"x"))
    tamper(
        harness.path,
        "CREATE TABLE two AS SELECT a.hash AS first, b.hash AS second FROM audit_logs a, audit_logs b "
        f"WHERE a.id = {size + 1} AND b.id = {size + 2}",
        f"UPDATE audit_logs SET hash = (SELECT {first} FROM two) WHERE id = {size + 1}",
        f"UPDATE audit_logs SET hash = (SELECT {second} FROM two) WHERE id = {size + 2}",
        "DROP TABLE two",
    )
    with pytest.raises(IntegrityViolation):
        catch_up(harness)
    assert harness.ledger._writer.tip is known


@pytest.mark.sqlite_only
def test_what_an_entry_of_another_process_says_is_checked_with_the_rest_of_the_log(
    harness: Harness, other: Harness
) -> None:
    key = KeyRef(other.key().id)
    other.ask(Encrypt(key, plaintext=b"x"))
    number = other.size
    tamper(harness.path, f"UPDATE audit_logs SET action = 'decrypt' WHERE id = {number}")
    harness.ask(Encrypt(key, plaintext=b"x"))
    found = harness.ask(VerifyAudit())
    assert (found.valid, found.first_invalid) == (False, number)


@pytest.mark.sqlite_only
def test_what_ends_by_time_is_judged_by_the_latest_time_of_the_log(
    harness: Harness, other: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the clock was set back, and this process has not heard yet how late it was for another."""
    key = KeyRef(other.key().id)
    catch_up(harness)
    ends = time.time_ns() // 1000 + 3_600_000_000
    made = other.ask(CreateService("brief", Role.SERVICE, (grant("*", Permission.ENCRYPT),), expires_at=ends))
    catch_up(harness)
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 7_200_000_000_000)
    other.refusal(Encrypt(key, plaintext=b"x"), Unauthenticated, made.token)
    monkeypatch.setattr(time, "time_ns", real)
    harness.refusal(Encrypt(key, plaintext=b"x"), Unauthenticated, made.token)
