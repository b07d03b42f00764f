"""Stores that are full, read-only or used by readers; and the write-ahead log, which must not grow without end."""

import os
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import keyvault_lite
from keyvault_lite import settings
from keyvault_lite.crypto.root import MasterKey
from keyvault_lite.ledger import ledger
from keyvault_lite.ledger.anchor import files, flusher
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.commit import group_commit, queue
from keyvault_lite.ledger.commit.availability import StoreFull
from keyvault_lite.ledger.commit.writer import Writer
from keyvault_lite.ledger.log.query import Filter
from keyvault_lite.ledger.opening import prepare
from keyvault_lite.ledger.state.root import StateTree
from keyvault_lite.ledger.storage import bulk_memory, driver
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.read_pool import Readers
from keyvault_lite.ledger.storage.schema import HEAD_COLUMNS
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, KeyVaultError, OutcomeUnknown
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import Finding
from keyvault_lite.model.requests import CreateKey, Encrypt, ReadKey, VerifyAudit
from keyvault_lite.observe.metrics import Metrics
from keyvault_lite.operator.initialise import initialise_vault
from keyvault_lite.operator.repair import repair_vault
from tests.support.faults import FaultyConnection, failing
from tests.support.harness import AES, Harness


def test_the_reserve_is_given_back_once(harness: Harness) -> None:
    database = harness.vault.database
    reserve = harness.ledger._writer._database._reserve  # type: ignore[attr-defined]
    database.make_reserve()
    assert reserve.exists()
    assert database.release_reserve()
    assert not reserve.exists()
    assert not database.release_reserve()


def test_a_look_at_the_rows_makes_the_reserve_anew(harness: Harness) -> None:
    database = harness.vault.database
    assert database.release_reserve()
    harness.ledger.scrub()
    assert database.release_reserve()


@pytest.mark.parametrize(("low", "reserve"), [(True, True), (True, False), (False, True)])
def test_a_vault_on_a_full_disk_is_opened_with_the_reserve(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, *, low: bool, reserve: bool
) -> None:
    """Else nobody could revoke. If it is not the space that is missing, the reserve stays what it is."""
    harness.vault.close()
    database, asked = SqliteDatabase(harness.path), list[str]()
    writer = database.writer

    def crowded() -> driver.Connection:
        asked.append("writer")
        if len(asked) == 1:
            raise failing("database or disk is full")
        return writer()

    def release() -> bool:
        asked.append("release")
        return reserve

    monkeypatch.setattr(database, "writer", crowded)
    monkeypatch.setattr(database, "space_is_low", lambda: low)
    monkeypatch.setattr(database, "release_reserve", release)
    if low and reserve:
        assert prepare(database)
        assert asked == ["writer", "release", "writer"]
    else:
        with pytest.raises(AuditUnavailable, match="cannot be opened"):
            prepare(database)
        assert asked == ["writer", "release"][: 1 + low]
    harness.open()


def test_memory_goes_back_where_the_system_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(bulk_memory, "_trim", told.append)
    bulk_memory.give_back()
    assert told == [0], "all of it"
    monkeypatch.setattr(bulk_memory, "_trim", None)
    bulk_memory.give_back()


def keep_in_reserve(monkeypatch: pytest.MonkeyPatch, done: list[str], *, reserve: bool) -> None:
    """Whether there is a reserve to release; that it was asked for is noted."""

    def release(_: SqliteDatabase) -> bool:
        done.append("release")
        return reserve

    monkeypatch.setattr(SqliteDatabase, "release_reserve", release)


@pytest.mark.parametrize("reserve", [True, False])
def test_the_reserve_makes_room(monkeypatch: pytest.MonkeyPatch, *, reserve: bool) -> None:
    writer, done = object.__new__(Writer), list[str]()
    writer._database = SqliteDatabase(Path("never.db"))
    keep_in_reserve(monkeypatch, done, reserve=reserve)
    if reserve:
        writer.make_room(StoreFull("the disk is full"))
    else:
        with pytest.raises(AuditUnavailable, match="the disk is full") as refused:
            writer.make_room(StoreFull("the disk is full"))
        assert not isinstance(refused.value, StoreFull), "it is not tried again"
    assert done == ["release"]


@pytest.mark.parametrize("reserve", [True, False])
@pytest.mark.parametrize("full", [0, 1, 2])
def test_whether_the_store_works_again_is_tried_with_the_reserve(
    monkeypatch: pytest.MonkeyPatch, full: int, *, reserve: bool
) -> None:
    writer, done = object.__new__(Writer), list[str]()
    writer._database = SqliteDatabase(Path("never.db"))

    def write(_: Writer, *__: str) -> None:
        done.append("write")
        if done.count("write") <= full:
            raise StoreFull("the disk is full")

    for name in ("reopen", "refresh"):
        monkeypatch.setattr(Writer, name, lambda _: None)
    monkeypatch.setattr(Writer, "write_apart", write)
    keep_in_reserve(monkeypatch, done, reserve=reserve)
    if full == 0 or (full == 1 and reserve):
        writer.recover()
    else:
        with pytest.raises(StoreFull):
            writer.recover()
    assert done == ["write", *["release"] * (full > 0), *["write"] * (full > 0 and reserve)]


@pytest.mark.parametrize("stored", [b"", b"mac"])
@pytest.mark.parametrize("known", [b"", b"mac"])
def test_whether_anything_was_written_into_a_full_disk(stored: bytes, known: bytes) -> None:
    """Also of a vault that has no head yet."""
    writer: Any = object.__new__(Writer)
    writer.replica = SimpleNamespace(tree=StateTree(), tip=SimpleNamespace(mac=known))
    with closing(driver.connect(":memory:", isolation_level=None)) as connection:
        writer.connection = connection
        connection.execute(f"CREATE TABLE ledger_head (id, {', '.join(HEAD_COLUMNS)}, mac)")
        if stored:
            connection.execute("INSERT INTO ledger_head (id, mac) VALUES (1, ?)", (stored,))
        connection.execute("BEGIN")
        assert writer._nothing_was_written() is (stored == known)
        assert not connection.in_transaction
        connection.execute("DROP TABLE ledger_head")
        assert writer._nothing_was_written() is False


def test_what_anyone_may_know_of_the_anchor(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = harness.ledger.facts().keys() - {"epoch", "anchor", "rows_checked_seconds_ago"}
    anchor = harness.ledger._anchor
    assert isinstance(anchor, FileAnchor)
    with monkeypatch.context() as later:
        later.setattr(files, "time", SimpleNamespace(monotonic=lambda: 102.36))
        later.setattr(anchor, "flushed_at", 100.0)
        assert harness.ledger.facts()[name] == 2.4
        later.setattr(anchor, "flushed_at", None)
        assert name not in harness.ledger.facts()
        later.setattr(harness.ledger, "_anchor", SimpleNamespace(flushed_at=100.0))
        assert name not in harness.ledger.facts()


def test_the_anchor_is_flushed_before_it_is_told_what_may_go(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[FileAnchor] = []
    with monkeypatch.context() as noted:
        noted.setattr(FileAnchor, "flush", lambda anchor: flushed.extend([anchor]))
        assert harness.ledger.archivable(before=None, keep=300) == (0, 0)
    assert len(flushed) == 1


def never(_: IntegrityViolation) -> None:
    raise AssertionError("the anchor is sound")


def test_the_anchor_is_flushed_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a flush that failed: whoever commits meets the same fault and says so."""
    rounds, done = [False, False, False, True], list[str]()

    def flush() -> None:
        done.append("flush")
        if len(done) == 1:
            raise OutcomeUnknown("the anchor cannot be flushed")

    anchor: Any = SimpleNamespace(flush=flush, is_due=False)
    closing: Any = SimpleNamespace(wait=lambda _: rounds.pop(0))
    made = flusher.AnchorFlusher(anchor, never, lambda: False, closing, publish=lambda: None)
    monkeypatch.setattr(flusher, "time", SimpleNamespace(monotonic=lambda: 7.0))
    made._run()
    assert done == ["flush"] * 3
    assert made.age == 0.0


def test_low_space_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    rounds, lows = [False] * 5 + [True], [False, True, True, False, False]
    closing: Any = SimpleNamespace(wait=lambda _: rounds.pop(0))
    with caplog.at_level("WARNING", logger="keyvault_lite.ledger"):
        flusher.AnchorFlusher(None, never, lambda: lows.pop(0), closing, publish=lambda: None)._run()
    assert [one.message for one in caplog.records] == [
        "space is low: keys are managed, not used",
        "there is space again",
    ]


@pytest.mark.sqlite_only
@pytest.mark.parametrize("replaced", [True, False])
def test_an_anchor_that_was_removed_or_replaced_ends_service(harness: Harness, *, replaced: bool) -> None:
    """As a database does: what is written into a file that nobody can find protects nobody."""
    anchor = harness.ledger._anchor
    assert isinstance(anchor, FileAnchor)
    name = KeyRef(harness.key().id)
    copy = anchor.path.read_bytes()
    anchor.path.unlink()
    if replaced:
        anchor.path.write_bytes(copy)
    harness.ledger._flusher.flush()
    assert isinstance(harness.ledger.fault, IntegrityViolation)
    harness.refusal(Encrypt(name, plaintext=b"x"), IntegrityViolation)


@pytest.mark.sqlite_only
def test_a_lock_that_does_not_come_shows_until_it_comes(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "LOCK_SECONDS", 0.2)
    monkeypatch.setattr(group_commit, "WATCH_SECONDS", 0.05)
    name = KeyRef(harness.key().id)
    with SqliteDatabase(harness.path).lock():
        harness.refusal(Encrypt(name, plaintext=b"x"), AuditUnavailable)
        assert isinstance(harness.ledger.fault, AuditUnavailable)
        assert (harness.engine.health().status, harness.engine.health().serving) == ("audit_unavailable", False)
    harness.ask(Encrypt(name, plaintext=b"x"))
    assert harness.engine.health().status == "ok"


@pytest.mark.sqlite_only
def test_low_space_shows(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.vault.database, "space_is_scarce", lambda: True)
    health = harness.engine.health()
    assert (health.status, health.serving) == ("low_space", True)
    monkeypatch.setattr(harness.vault.database, "space_is_low", lambda: True)
    health = harness.engine.health()
    assert (health.status, health.serving) == ("no_space", False), "keys are not used"


@pytest.mark.sqlite_only
@pytest.mark.parametrize("column", ["hash", "checkpoint", "edge", "mac"])
def test_a_head_with_damaged_text_is_damage_and_no_lock(harness: Harness, column: str) -> None:
    name = KeyRef(harness.key().id)
    with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
        connection.execute(f"UPDATE ledger_head SET {column} = CAST(x'ff' AS TEXT)")
    harness.refusal(Encrypt(name, plaintext=b"x"), IntegrityViolation)
    assert harness.ledger._group_commit.availability.halted


def test_time_in_the_log_never_runs_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "time", SimpleNamespace(time_ns=lambda: 5_000_999))
    made: Any = object.__new__(ledger.Ledger)
    for newest, now in ((4_999, 5_000), (5_001, 5_001)):
        made._writer = SimpleNamespace(head=SimpleNamespace(timestamp=newest))
        assert made.now() == now


def test_a_start_makes_the_reserve_anew(harness: Harness) -> None:
    assert harness.vault.database.release_reserve()
    harness.reopen()
    assert harness.vault.database.release_reserve()


def test_a_connection_that_has_died_is_not_read_from() -> None:
    closed: list[str] = []
    alive, dead, new = (
        SimpleNamespace(close=lambda name=name: closed.append(name)) for name in ("alive", "dead", "new")
    )
    database: Any = SimpleNamespace(is_alive=lambda one: one is not dead, reader=lambda: new)
    readers = Readers(database)
    readers._idle = cast(list[driver.Connection], [alive, dead])
    with readers.one() as first, readers.one() as second:
        assert (first, second, closed) == (alive, new, ["dead"])


def test_a_full_store_is_a_refusal_and_service_comes_back(harness: Harness) -> None:
    name = KeyRef(harness.key().id)
    connection = harness.ledger._writer.connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    before = harness.log()

    def fill() -> None:
        for _ in range(40):
            harness.ask(CreateKey(AES, description="x" * 4000))

    with pytest.raises((AuditUnavailable, OutcomeUnknown)) as refused:
        fill()
    assert refused.value.audit_id is None
    harness.ledger._writer.connection.execute("PRAGMA max_page_count = 1000000")
    deadline = time.monotonic() + 5
    while harness.ledger.fault is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    harness.ask(Encrypt(name, plaintext=b"x"))
    assert harness.log()[: len(before)] == before
    assert harness.ask(VerifyAudit()).findings == ()
    harness.reopen()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_database_does_not_start(harness: Harness) -> None:  # pragma: no cover
    harness.vault.close()
    harness.path.chmod(0o400)
    with pytest.raises(KeyVaultError):
        harness.open()
    harness.path.chmod(0o600)
    harness.open()


def test_a_store_that_fails_while_it_is_opened_does_not_start(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.vault.close()
    writer = SqliteDatabase.writer

    def fails(database: SqliteDatabase, *, patient: bool = True) -> driver.Connection:
        if not patient:
            raise failing()
        return writer(database)

    monkeypatch.setattr(SqliteDatabase, "writer", fails)
    with pytest.raises(AuditUnavailable, match="cannot be opened"):
        harness.open()
    monkeypatch.undo()
    harness.open()


@pytest.mark.parametrize("damaged", [True, False])
def test_a_start_that_fails_lets_go_of_the_database(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, *, damaged: bool
) -> None:
    harness.key("orders")
    harness.vault.close()
    if damaged:
        with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
            connection.execute("UPDATE keys SET description = 'edited'")
    else:
        monkeypatch.setattr(Writer, "refresh", lambda _: (_ for _ in ()).throw(AuditUnavailable("gone")))
    with pytest.raises((DamagedVault, AuditUnavailable)) as refused:
        harness.open()
    assert refused.value is not None, "it is held, and with it what the start has made"
    opened = {str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()}
    assert [
        file for file in opened if file.startswith(str(harness.path)) and not file.endswith((".lock", ".next"))
    ] == []
    monkeypatch.undo()
    if damaged:
        repair_vault(harness.settings)
    harness.open()


def test_a_vault_without_an_anchor(tmp_path: Path) -> None:
    _, master = MasterKey.generate()
    choice = settings.load(
        master_key=master, master_key_file=None, database_url=f"sqlite:///{tmp_path}/vault.db", anchor="off"
    )
    harness = Harness(choice, initialise_vault(choice).token)
    name = KeyRef(harness.key().id)
    harness.ask(Encrypt(name, plaintext=b"x"))
    assert (harness.ledger.facts()["anchor"], harness.ledger.mark().scrubbed) == ("off", 0)
    size = harness.size
    harness.reopen()
    harness.ask(Encrypt(name, plaintext=b"x"))
    assert harness.ask(VerifyAudit()).valid
    assert harness.ledger.mark().scrubbed == 0
    assert harness.ledger.evidence.checkpoint().splitlines()[1] == f"{size + 2}"
    assert not harness.vault.database.anchor_path.exists()
    harness.close()


def test_a_store_that_turns_read_only_refuses_and_comes_back(harness: Harness) -> None:
    name = KeyRef(harness.key().id)
    writer = harness.ledger._writer
    writer.connection.execute("PRAGMA query_only = ON")
    harness.refusal(Encrypt(name, plaintext=b"x"), AuditUnavailable)
    # The connection is replaced before the next transaction.
    harness.ask(Encrypt(name, plaintext=b"x"))
    assert harness.ask(VerifyAudit()).valid


def test_the_write_ahead_log_stays_bounded(harness: Harness) -> None:
    name = KeyRef(harness.key().id)
    wal = harness.path.with_name(harness.path.name + "-wal")
    sizes = []
    for _ in range(8):
        harness.together(
            *(harness.perform(Encrypt(name, plaintext=b"x")) for _ in range(400)),
            *(harness.perform(ReadKey(name)) for _ in range(10)),
        )
        harness.ledger.evidence.entries(Filter(1000))
        harness.ledger.verify()
        sizes.append(wal.stat().st_size)
    assert max(sizes) < 16 * 1024 * 1024


def test_descriptors_do_not_leak(harness: Harness) -> None:
    name = KeyRef(harness.key().id)

    def descriptors() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    def use() -> None:
        threads = [threading.Thread(target=lambda: harness.ledger.evidence.entries(Filter(5))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        harness.ask(CreateKey(AES))
        harness.ask(Encrypt(name, plaintext=b"x"))
        harness.ask(VerifyAudit())

    use()
    harness.reopen()
    opened = descriptors()
    for _ in range(5):
        use()
        harness.reopen()
    assert descriptors() <= opened + 2


def test_threads_that_are_gone_leave_no_connection(harness: Harness) -> None:
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    for _ in range(60):
        thread = threading.Thread(target=lambda: harness.ledger.evidence.entries(Filter(5)))
        thread.start()
        thread.join()
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) <= before + 6


def test_a_library_that_corrupts_is_refused(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "is_safe", False)
    with pytest.raises(AuditUnavailable, match="pysqlite3"):
        SqliteDatabase(harness.path)


def test_a_lock_that_cannot_be_had_is_told(harness: Harness) -> None:
    database = SqliteDatabase(harness.path.parent / "absent" / "vault.db")
    with pytest.raises(AuditUnavailable), database.lock():
        pass
    # And the next one is not held up by it.
    with pytest.raises(AuditUnavailable), database.lock():
        pass


def test_a_fault_while_recovering_is_not_the_end(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = KeyRef(harness.key().id)
    writer = harness.ledger._writer
    faulty = FaultyConnection(writer.connection)
    faulty.before = lambda sql: failing() if sql.startswith("INSERT INTO audit") else None
    writer.connection = faulty
    harness.refusal(Encrypt(name, plaintext=b"x"), AuditUnavailable)
    errors = [AuditUnavailable("still gone"), ValueError("a defect")]
    recover = writer.recover

    def failing_recovery() -> None:
        if errors:
            raise errors.pop()
        recover()

    monkeypatch.setattr(writer, "recover", failing_recovery)
    for _ in range(len(errors)):
        harness.refusal(Encrypt(name, plaintext=b"x"), AuditUnavailable)
    (defect,) = [one for one in caplog.records if one.getMessage() == "recovery failed"]
    assert defect.exc_info is not None
    assert defect.exc_info[0] is ValueError
    harness.ask(Encrypt(name, plaintext=b"x"))


@pytest.mark.parametrize("damaged", [True, False])
@pytest.mark.parametrize(("quarantine", "scrubbed", "behind"), [(True, 3, 0), (False, 3, 8), (False, None, 5)])
def test_a_start_reads_the_log_from_where_the_anchor_says_that_it_is_proven(
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
    scrubbed: int | None,
    behind: int,
    *,
    quarantine: bool,
    damaged: bool,
) -> None:
    """All of it where something may be set aside; and an anchor that is damaged is asked for nothing more."""
    asked: list[tuple[object, int]] = []

    def read_mark(_anchor: object, findings: list[Finding]) -> Any:  # noqa: ANN401
        findings += [Finding("anchor", "/a", "is damaged")] * damaged
        return None if scrubbed is None else SimpleNamespace(scrubbed=scrubbed)

    def inspect(*_: object, anchor: object, log_from: int, **__: object) -> None:
        asked.append((anchor, log_from))
        raise AuditUnavailable("that is far enough")

    monkeypatch.setattr(ledger, "read_mark", read_mark)
    monkeypatch.setattr(ledger, "inspect", inspect)
    monkeypatch.setattr(ledger, "unproven", lambda _, proven: proven + 5)
    with pytest.raises(AuditUnavailable, match="far enough"):
        harness.ledger._load(quarantine=quarantine, segment_store=None)
    assert asked == [(None if damaged else harness.ledger._anchor, behind)]


def test_nothing_is_set_aside_unless_that_is_wanted(harness: Harness) -> None:
    harness.key("orders")
    vault = harness.vault
    vault.close()
    with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
        connection.execute("UPDATE keys SET description = 'edited'")
    with pytest.raises(DamagedVault, match="keys"):
        ledger.Ledger.open(SqliteDatabase(harness.path), vault.keyring, None)
    repair_vault(harness.settings)
    harness.open()


def test_checks_of_the_log_are_given_up_once_the_vault_is_to_be_closed(harness: Harness) -> None:
    harness.ledger.scrub_log()
    harness.ledger.give_up_checks()
    with pytest.raises(AuditUnavailable, match="shutting down"):
        harness.ledger.scrub_log()


@pytest.mark.parametrize("last", [True, False])
def test_a_connection_is_kept_for_the_next_reader_until_the_end(*, last: bool) -> None:
    closed: list[str] = []
    connection = SimpleNamespace(close=lambda: closed.append("closed"))
    database: Any = SimpleNamespace(reader=lambda: connection)
    readers = Readers(database)
    if last:
        readers.keep_no_more()
    with readers.one():
        pass
    assert (readers._idle, closed) == (([], ["closed"]) if last else ([connection], []))
    readers.close()
    assert (readers._idle, closed) == ([], ["closed"])


def test_the_end_lets_go_of_everything_in_its_order() -> None:
    """The thread of the anchor ends once it is told to; the database's lead goes before its connections."""
    made: Any = object.__new__(ledger.Ledger)
    done: list[str] = []

    def part(name: str, *methods: str) -> SimpleNamespace:
        return SimpleNamespace(**{one: lambda one=one: done.append(f"{name} {one}") for one in methods})

    made._closing, made._group_commit, made._flusher = (
        part("end", "set"),
        part("queue", "close"),
        part("anchor", "join"),
    )
    made._database, made._writer = part("database", "resign_leadership", "close"), part("writer", "close")
    made._readers = part("readers", "keep_no_more", "close")
    made._proof = part("proof", "close")
    made.close()
    assert done == [
        "end set",
        "readers keep_no_more",
        "proof close",
        "queue close",
        "anchor join",
        "database resign_leadership",
        "readers close",
        "writer close",
        "database close",
    ]


def test_what_makes_a_database_ready_lets_go_of_it(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    database, used = SqliteDatabase(harness.path), list[driver.Connection]()
    writer = database.writer

    def noted() -> driver.Connection:
        used.append(writer())
        return used[-1]

    monkeypatch.setattr(database, "writer", noted)
    assert prepare(database)
    (connection,) = used
    with pytest.raises(driver.dbapi.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_what_is_measured_of_a_vault(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    for module in (ledger, group_commit):
        monkeypatch.setattr(module, "METRICS", metrics)
    harness.reopen()
    harness.key()

    def measured() -> dict[str, float]:
        lines = [line.rsplit(" ", 1) for line in metrics.page().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    found = measured()
    assert (found["keyvault_log_entries"], found["keyvault_queue_entries"]) == (harness.size, 0)
    assert found["keyvault_quarantined"] == 0
    assert 0 <= found["keyvault_anchor_age_seconds"] < 60
    harness.ledger._state.quarantine("orders")
    harness.ledger._group_commit.halt(IntegrityViolation("damaged"))
    found = measured()
    assert found["keyvault_quarantined"] == found['keyvault_fault{code="integrity_violation"}'] == 1


def test_a_vault_that_is_not_closed_does_not_keep_its_program_from_ending(harness: Harness) -> None:
    assert harness.settings.master_key is not None
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYVAULT_")}
    ended = subprocess.run(
        [sys.executable, "-c", "from keyvault_lite import app, settings; vault = app.open_vault(settings.load())"],
        env={
            **environment,
            "PYTHONPATH": str(Path(keyvault_lite.__file__).parents[1]),
            "KEYVAULT_MASTER_KEY": harness.settings.master_key.get_secret_value(),
            "KEYVAULT_DATABASE_URL": harness.settings.database_url,
        },
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0
