"""Stores that are full, read-only or used by readers; and the write-ahead log, which must not grow without end."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import keyvault_lite
from keyvault_lite import settings
from keyvault_lite.crypto.root import MasterKey
from keyvault_lite.ledger import ledger
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.commit import group_commit
from keyvault_lite.ledger.commit.journal import Journal, StoreFull
from keyvault_lite.ledger.commit.transaction import Item
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
from tests.house import AES, House
from tests.ledger.faults import FaultyConnection, failing


def test_the_reserve_is_given_back_once(house: House) -> None:
    database = house.vault.database
    reserve = house.ledger._journal._database._reserve  # type: ignore[attr-defined]
    database.make_reserve()
    assert reserve.exists()
    assert database.release_reserve()
    assert not reserve.exists()
    assert not database.release_reserve()


def test_a_look_at_the_rows_makes_the_reserve_anew(house: House) -> None:
    database = house.vault.database
    assert database.release_reserve()
    house.ledger.scrub()
    assert database.release_reserve()


@pytest.mark.parametrize(("low", "reserve"), [(True, True), (True, False), (False, True)])
def test_a_vault_on_a_full_disk_is_opened_with_the_reserve(
    house: House, monkeypatch: pytest.MonkeyPatch, *, low: bool, reserve: bool
) -> None:
    """Else nobody could revoke. If it is not the space that is missing, the reserve stays what it is."""
    house.vault.close()
    database, asked = SqliteDatabase(house.path), list[str]()
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
    house.open()


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
def test_what_the_reserve_makes_room_for_is_written(monkeypatch: pytest.MonkeyPatch, *, reserve: bool) -> None:
    journal, done, items = object.__new__(Journal), list[str](), list[Item]()
    journal._database = SqliteDatabase(Path("never.db"))

    def write(_: Journal, given: Callable[[], Sequence[Item]]) -> None:
        assert given() is items
        done.append("write")
        if len(done) == 1:
            raise StoreFull("the disk is full")

    monkeypatch.setattr(Journal, "_write", write)
    keep_in_reserve(monkeypatch, done, reserve=reserve)
    if reserve:
        assert journal.write(lambda: items) is None
        assert done == ["write", "release", "write"]
    else:
        with pytest.raises(AuditUnavailable, match="the disk is full"):
            journal.write(lambda: items)
        assert done == ["write", "release"]


@pytest.mark.parametrize("reserve", [True, False])
@pytest.mark.parametrize("full", [0, 1, 2])
def test_whether_the_store_works_again_is_tried_with_the_reserve(
    monkeypatch: pytest.MonkeyPatch, full: int, *, reserve: bool
) -> None:
    journal, done = object.__new__(Journal), list[str]()
    journal._database = SqliteDatabase(Path("never.db"))

    def write(_: Journal, *__: str) -> None:
        done.append("write")
        if done.count("write") <= full:
            raise StoreFull("the disk is full")

    monkeypatch.setattr(Journal, "_write_apart", write)
    keep_in_reserve(monkeypatch, done, reserve=reserve)
    if full == 0 or (full == 1 and reserve):
        journal.probe()
    else:
        with pytest.raises(StoreFull):
            journal.probe()
    assert done == ["write", *["release"] * (full > 0), *["write"] * (full > 0 and reserve)]


@pytest.mark.parametrize("stored", [b"", b"mac"])
@pytest.mark.parametrize("known", [b"", b"mac"])
def test_whether_anything_was_written_into_a_full_disk(stored: bytes, known: bytes) -> None:
    """Also of a vault that has no head yet."""
    journal: Any = object.__new__(Journal)
    journal.tree, journal.known = StateTree(), SimpleNamespace(mac=known)
    with closing(driver.connect(":memory:", isolation_level=None)) as connection:
        journal._connection = connection
        connection.execute(f"CREATE TABLE ledger_head (id, {', '.join(HEAD_COLUMNS)}, mac)")
        if stored:
            connection.execute("INSERT INTO ledger_head (id, mac) VALUES (1, ?)", (stored,))
        connection.execute("BEGIN")
        assert journal._nothing_was_written() is (stored == known)
        assert not connection.in_transaction
        connection.execute("DROP TABLE ledger_head")
        assert journal._nothing_was_written() is False


def test_what_anyone_may_know_of_the_anchor(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = house.ledger.facts().keys() - {"epoch", "anchor", "rows_checked_seconds_ago"}
    anchor = house.ledger._anchor
    assert isinstance(anchor, FileAnchor)
    with monkeypatch.context() as later:
        later.setattr(ledger, "time", SimpleNamespace(monotonic=lambda: 102.36))
        later.setattr(anchor, "flushed_at", 100.0)
        assert house.ledger.facts()[name] == 2.4
        later.setattr(anchor, "flushed_at", None)
        assert name not in house.ledger.facts()
        later.setattr(house.ledger, "_anchor", SimpleNamespace(flushed_at=100.0))
        assert name not in house.ledger.facts()


def test_the_anchor_is_flushed_before_it_is_told_what_may_go(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[FileAnchor] = []
    with monkeypatch.context() as noted:
        noted.setattr(FileAnchor, "flush", lambda anchor: flushed.extend([anchor]))
        assert house.ledger.archivable(before=None, keep=300) == (0, 0)
    assert len(flushed) == 1


def test_the_anchor_is_flushed_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a flush that failed: whoever commits meets the same fault and says so."""
    made: Any = object.__new__(ledger.Ledger)
    rounds, done = [False, False, False, True], list[str]()

    def flush() -> None:
        done.append("flush")
        if len(done) == 1:
            raise OutcomeUnknown("the anchor cannot be flushed")

    made._closing = SimpleNamespace(wait=lambda _: rounds.pop(0))
    made._anchor, made._flushed = SimpleNamespace(flush=flush), 0.0
    made._database = SimpleNamespace(space_is_low=lambda: False)
    monkeypatch.setattr(ledger, "time", SimpleNamespace(monotonic=lambda: 7.0))
    made._tend()
    assert done == ["flush"] * 3
    assert made._flushed == 7.0


def test_low_space_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    made: Any = object.__new__(ledger.Ledger)
    rounds, lows = [False] * 5 + [True], [False, True, True, False, False]
    made._closing, made._anchor = SimpleNamespace(wait=lambda _: rounds.pop(0)), None
    made._database = SimpleNamespace(space_is_low=lambda: lows.pop(0))
    with caplog.at_level("WARNING", logger="keyvault_lite.ledger"):
        made._tend()
    assert [one.message for one in caplog.records] == [
        "space is low: keys are managed, not used",
        "there is space again",
    ]


@pytest.mark.sqlite_only
@pytest.mark.parametrize("replaced", [True, False])
def test_an_anchor_that_was_removed_or_replaced_ends_service(house: House, *, replaced: bool) -> None:
    """As a database does: what is written into a file that nobody can find protects nobody."""
    anchor = house.ledger._anchor
    assert isinstance(anchor, FileAnchor)
    name = KeyRef(house.key().id)
    copy = anchor.path.read_bytes()
    anchor.path.unlink()
    if replaced:
        anchor.path.write_bytes(copy)
    house.ledger._flush_anchor()
    assert isinstance(house.ledger.fault, IntegrityViolation)
    house.refusal(Encrypt(name, plaintext=b"x"), IntegrityViolation)


@pytest.mark.sqlite_only
def test_a_lock_that_does_not_come_shows_until_it_comes(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(group_commit, "WATCH_SECONDS", 0.05)
    name = KeyRef(house.key().id)
    with SqliteDatabase(house.path).lock():
        house.refusal(Encrypt(name, plaintext=b"x"), AuditUnavailable)
        assert isinstance(house.ledger.fault, AuditUnavailable)
        assert (house.engine.health().status, house.engine.health().serving) == ("audit_unavailable", False)
    house.ask(Encrypt(name, plaintext=b"x"))
    assert house.engine.health().status == "ok"


@pytest.mark.sqlite_only
def test_low_space_shows(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house.vault.database, "space_is_scarce", lambda: True)
    health = house.engine.health()
    assert (health.status, health.serving) == ("low_space", True)
    monkeypatch.setattr(house.vault.database, "space_is_low", lambda: True)
    health = house.engine.health()
    assert (health.status, health.serving) == ("no_space", False), "keys are not used"


@pytest.mark.sqlite_only
@pytest.mark.parametrize("column", ["hash", "checkpoint", "edge", "mac"])
def test_a_head_with_damaged_text_is_damage_and_no_lock(house: House, column: str) -> None:
    name = KeyRef(house.key().id)
    with closing(driver.connect(str(house.path), isolation_level=None)) as connection:
        connection.execute(f"UPDATE ledger_head SET {column} = CAST(x'ff' AS TEXT)")
    house.refusal(Encrypt(name, plaintext=b"x"), IntegrityViolation)
    assert house.ledger._committer.halted


def test_time_in_the_log_never_runs_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "time", SimpleNamespace(time_ns=lambda: 5_000_999))
    made: Any = object.__new__(ledger.Ledger)
    for newest, now in ((4_999, 5_000), (5_001, 5_001)):
        made._journal = SimpleNamespace(head=SimpleNamespace(timestamp=newest))
        assert made.now() == now


def test_a_start_makes_the_reserve_anew(house: House) -> None:
    assert house.vault.database.release_reserve()
    house.reopen()
    assert house.vault.database.release_reserve()


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


def test_a_full_store_is_a_refusal_and_service_comes_back(house: House) -> None:
    name = KeyRef(house.key().id)
    connection = house.ledger._journal._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    before = house.log()

    def fill() -> None:
        for _ in range(40):
            house.ask(CreateKey(AES, description="x" * 4000))

    with pytest.raises((AuditUnavailable, OutcomeUnknown)) as refused:
        fill()
    assert refused.value.audit_id is None
    house.ledger._journal._connection.execute("PRAGMA max_page_count = 1000000")
    deadline = time.monotonic() + 5
    while house.ledger.fault is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    house.ask(Encrypt(name, plaintext=b"x"))
    assert house.log()[: len(before)] == before
    assert house.ask(VerifyAudit()).findings == ()
    house.reopen()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_database_does_not_start(house: House) -> None:  # pragma: no cover
    house.vault.close()
    house.path.chmod(0o400)
    with pytest.raises(KeyVaultError):
        house.open()
    house.path.chmod(0o600)
    house.open()


def test_a_store_that_fails_while_it_is_opened_does_not_start(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.vault.close()
    writer = SqliteDatabase.writer

    def fails(database: SqliteDatabase, *, patient: bool = True) -> driver.Connection:
        if not patient:
            raise failing()
        return writer(database)

    monkeypatch.setattr(SqliteDatabase, "writer", fails)
    with pytest.raises(AuditUnavailable, match="cannot be opened"):
        house.open()
    monkeypatch.undo()
    house.open()


@pytest.mark.parametrize("damaged", [True, False])
def test_a_start_that_fails_lets_go_of_the_database(
    house: House, monkeypatch: pytest.MonkeyPatch, *, damaged: bool
) -> None:
    house.key("orders")
    house.vault.close()
    if damaged:
        with closing(driver.connect(str(house.path), isolation_level=None)) as connection:
            connection.execute("UPDATE keys SET description = 'edited'")
    else:
        monkeypatch.setattr(Journal, "refresh", lambda _: (_ for _ in ()).throw(AuditUnavailable("gone")))
    with pytest.raises((DamagedVault, AuditUnavailable)) as refused:
        house.open()
    assert refused.value is not None, "it is held, and with it what the start has made"
    opened = {str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()}
    assert [file for file in opened if file.startswith(str(house.path)) and not file.endswith((".lock", ".next"))] == []
    monkeypatch.undo()
    if damaged:
        repair_vault(house.chosen)
    house.open()


def test_a_vault_without_an_anchor(tmp_path: Path) -> None:
    _, master = MasterKey.generate()
    choice = settings.load(
        master_key=master, master_key_file=None, database_url=f"sqlite:///{tmp_path}/vault.db", anchor="off"
    )
    house = House(choice, initialise_vault(choice).token)
    name = KeyRef(house.key().id)
    house.ask(Encrypt(name, plaintext=b"x"))
    assert (house.ledger.facts()["anchor"], house.ledger.mark().scrubbed) == ("off", 0)
    size = house.size
    house.reopen()
    house.ask(Encrypt(name, plaintext=b"x"))
    assert house.ask(VerifyAudit()).valid
    assert house.ledger.mark().scrubbed == 0
    assert house.ledger.evidence.checkpoint().splitlines()[1] == f"{size + 2}"
    assert not house.vault.database.anchor_path.exists()
    house.close()


def test_a_store_that_turns_read_only_refuses_and_comes_back(house: House) -> None:
    name = KeyRef(house.key().id)
    journal = house.ledger._journal
    journal._connection.execute("PRAGMA query_only = ON")
    house.refusal(Encrypt(name, plaintext=b"x"), AuditUnavailable)
    # The connection is replaced before the next transaction.
    house.ask(Encrypt(name, plaintext=b"x"))
    assert house.ask(VerifyAudit()).valid


def test_the_write_ahead_log_stays_bounded(house: House) -> None:
    name = KeyRef(house.key().id)
    wal = house.path.with_name(house.path.name + "-wal")
    sizes = []
    for _ in range(8):
        house.together(
            *(house.perform(Encrypt(name, plaintext=b"x")) for _ in range(400)),
            *(house.perform(ReadKey(name)) for _ in range(10)),
        )
        house.ledger.evidence.entries(Filter(1000))
        house.ledger.verify()
        sizes.append(wal.stat().st_size)
    assert max(sizes) < 16 * 1024 * 1024


def test_descriptors_do_not_leak(house: House) -> None:
    name = KeyRef(house.key().id)

    def descriptors() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    def use() -> None:
        threads = [threading.Thread(target=lambda: house.ledger.evidence.entries(Filter(5))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        house.ask(CreateKey(AES))
        house.ask(Encrypt(name, plaintext=b"x"))
        house.ask(VerifyAudit())

    use()
    house.reopen()
    opened = descriptors()
    for _ in range(5):
        use()
        house.reopen()
    assert descriptors() <= opened + 2


def test_threads_that_are_gone_leave_no_connection(house: House) -> None:
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    for _ in range(60):
        thread = threading.Thread(target=lambda: house.ledger.evidence.entries(Filter(5)))
        thread.start()
        thread.join()
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) <= before + 6


def test_a_library_that_corrupts_is_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "is_safe", False)
    with pytest.raises(AuditUnavailable, match="pysqlite3"):
        SqliteDatabase(house.path)


def test_a_lock_that_cannot_be_had_is_told(house: House) -> None:
    database = SqliteDatabase(house.path.parent / "absent" / "vault.db")
    with pytest.raises(AuditUnavailable), database.lock():
        pass
    # And the next one is not held up by it.
    with pytest.raises(AuditUnavailable), database.lock():
        pass


def test_a_fault_while_recovering_is_not_the_end(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = KeyRef(house.key().id)
    journal = house.ledger._journal
    faulty = FaultyConnection(journal._connection)
    faulty.before = lambda sql: failing() if sql.startswith("INSERT INTO audit") else None
    journal._connection = faulty
    house.refusal(Encrypt(name, plaintext=b"x"), AuditUnavailable)
    errors = [AuditUnavailable("still gone"), ValueError("a defect")]
    probe = journal.probe

    def failing_probe() -> None:
        if errors:
            raise errors.pop()
        probe()

    monkeypatch.setattr(journal, "probe", failing_probe)
    for _ in range(len(errors)):
        house.refusal(Encrypt(name, plaintext=b"x"), AuditUnavailable)
    (defect,) = [one for one in caplog.records if one.getMessage() == "recovery failed"]
    assert defect.exc_info is not None
    assert defect.exc_info[0] is ValueError
    house.ask(Encrypt(name, plaintext=b"x"))


@pytest.mark.parametrize("damaged", [True, False])
@pytest.mark.parametrize(("quarantine", "scrubbed", "behind"), [(True, 3, 0), (False, 3, 8), (False, None, 5)])
def test_a_start_reads_the_log_from_where_the_anchor_says_that_it_is_proven(
    house: House, monkeypatch: pytest.MonkeyPatch, scrubbed: int | None, behind: int, *, quarantine: bool, damaged: bool
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
        house.ledger._load(quarantine=quarantine, shelf=None)
    assert asked == [(None if damaged else house.ledger._anchor, behind)]


def test_nothing_is_set_aside_unless_that_is_wanted(house: House) -> None:
    house.key("orders")
    vault = house.vault
    vault.close()
    with closing(driver.connect(str(house.path), isolation_level=None)) as connection:
        connection.execute("UPDATE keys SET description = 'edited'")
    with pytest.raises(DamagedVault, match="keys"):
        ledger.Ledger.open(SqliteDatabase(house.path), vault.keyring, None)
    repair_vault(house.chosen)
    house.open()


def test_checks_of_the_log_are_given_up_once_the_vault_is_to_be_closed(house: House) -> None:
    house.ledger.scrub_log()
    house.ledger.give_up_checks()
    with pytest.raises(AuditUnavailable, match="shutting down"):
        house.ledger.scrub_log()


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

    made._closing, made._committer, made._flusher = part("end", "set"), part("queue", "close"), part("anchor", "join")
    made._database, made._journal = part("database", "stop_leading", "close"), part("journal", "close")
    made._readers = part("readers", "keep_no_more", "close")
    made._proof = part("proof", "close")
    made.close()
    assert done == [
        "end set",
        "readers keep_no_more",
        "proof close",
        "queue close",
        "anchor join",
        "database stop_leading",
        "readers close",
        "journal close",
        "database close",
    ]


def test_where_there_is_no_anchor_none_is_flushed() -> None:
    made: Any = object.__new__(ledger.Ledger)
    made._anchor = None
    made._flush_anchor()


def test_what_makes_a_database_ready_lets_go_of_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    database, used = SqliteDatabase(house.path), list[driver.Connection]()
    writer = database.writer

    def noted() -> driver.Connection:
        used.append(writer())
        return used[-1]

    monkeypatch.setattr(database, "writer", noted)
    assert prepare(database)
    (connection,) = used
    with pytest.raises(driver.dbapi.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_what_is_measured_of_a_vault(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    for module in (ledger, group_commit):
        monkeypatch.setattr(module, "METRICS", metrics)
    house.reopen()
    house.key()

    def measured() -> dict[str, float]:
        lines = [line.rsplit(" ", 1) for line in metrics.page().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    found = measured()
    assert (found["keyvault_log_entries"], found["keyvault_queue_entries"]) == (house.size, 0)
    assert found["keyvault_quarantined"] == 0
    assert 0 <= found["keyvault_anchor_age_seconds"] < 60
    house.ledger._state.quarantine("orders")
    house.ledger._committer.halt(IntegrityViolation("damaged"))
    found = measured()
    assert found["keyvault_quarantined"] == found['keyvault_fault{code="integrity_violation"}'] == 1


def test_a_vault_that_is_not_closed_does_not_keep_its_program_from_ending(house: House) -> None:
    assert house.chosen.master_key is not None
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYVAULT_")}
    ended = subprocess.run(
        [sys.executable, "-c", "from keyvault_lite import app, settings; vault = app.open_vault(settings.load())"],
        env={
            **environment,
            "PYTHONPATH": str(Path(keyvault_lite.__file__).parents[1]),
            "KEYVAULT_MASTER_KEY": house.chosen.master_key.get_secret_value(),
            "KEYVAULT_DATABASE_URL": house.chosen.database_url,
        },
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0
