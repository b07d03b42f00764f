"""What the store does wrong, and what becomes of requests meanwhile: no record, no result; and service comes back."""

import asyncio
import os
import shutil
import struct
import threading
import time
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from keyvault_lite.engine import engine
from keyvault_lite.engine.attempt import Attempt
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.commit import catch_up
from keyvault_lite.ledger.commit import group_commit as committer_module
from keyvault_lite.ledger.commit import loops as loops_module
from keyvault_lite.ledger.commit import queue as queue_module
from keyvault_lite.ledger.commit import replica as replica_module
from keyvault_lite.ledger.commit.edit_detection import Alarm, compare_rows
from keyvault_lite.ledger.commit.group_commit import _Lifecycle
from keyvault_lite.ledger.commit.queue import Waiter
from keyvault_lite.ledger.commit.write_set import WriteSet
from keyvault_lite.ledger.commit.writer import Writer
from keyvault_lite.ledger.log.retention import hashes_between
from keyvault_lite.ledger.state.outcome import Change, Committed, Outcome
from keyvault_lite.ledger.state.root import RowMacs
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.ledger.state.verified_rows import read_rows
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.model.errors import (
    AuditUnavailable,
    IntegrityViolation,
    KeyVaultError,
    OutcomeUnknown,
)
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.identity import Role, Service
from keyvault_lite.model.keys import Key, VersionStatus
from keyvault_lite.model.names import KeyRef, ServiceId, new_id
from keyvault_lite.model.replies import Answer
from keyvault_lite.model.requests import (
    CreateKey,
    Encrypt,
    ReadKey,
    RevokeKey,
    RotateKey,
    VerifyAudit,
)
from keyvault_lite.observe.metrics import METRICS
from tests.support.faults import FaultyConnection, failing
from tests.support.harness import AES, Harness, idempotent

pytestmark = pytest.mark.both


@pytest.fixture
def faulty(harness: Harness) -> FaultyConnection:
    writer = harness.ledger._writer
    writer.connection = FaultyConnection(writer.connection)
    return writer.connection


def check_sound(harness: Harness) -> None:
    """Memory and database tell the same, and everything verifies, now and after a restart."""
    writer = harness.ledger._writer
    with harness.ledger._readers.one() as connection:
        stored = RowMacs()
        rows = read_rows(connection, harness.vault.keyring, newer_than=0, known=lambda _: None, note=stored.add)
    assert writer.replica.tree.root() == stored.root() == writer.head.state_root
    assert {key.id: key for key in rows.change.keys} == {
        key.id: key for key in harness.ledger.snapshot().keys_after(None)
    }
    assert harness.ask(VerifyAudit()).findings == ()
    harness.reopen()
    assert harness.ask(VerifyAudit()).findings == ()


def test_an_error_at_any_statement_leaves_everything_as_it_was(harness: Harness, faulty: FaultyConnection) -> None:
    key = harness.key()
    name = KeyRef(key.id)
    writer = harness.ledger._writer
    faulty.statements.clear()
    harness.ask(RotateKey(name), idempotency=idempotent("count"))
    rotation = list(faulty.statements)
    assert len(rotation) > 6
    assert rotation[-1] == "COMMIT"
    for place in range(len(rotation) - 1):
        before = (harness.size, writer.replica.tree.root(), writer.head, harness.ask(ReadKey(name)))
        faulty = FaultyConnection(writer.connection)
        writer.connection = faulty
        # Whenever it is tried: what fails on the loop is tried again by the thread.
        faulty.before = lambda sql, stops=rotation[place]: failing() if sql == stops else None  # type: ignore[misc]
        harness.refusal(RotateKey(name), AuditUnavailable, idempotency=idempotent(f"fails-{place}"))
        assert harness.size == before[0] + 1, "only the read before is on record"
        assert harness.ask(ReadKey(name)) == before[3]
        assert writer.replica.tree.root() == before[1]
        assert harness.ledger.fault is None
    assert len(harness.ask(RotateKey(name)).versions) == 3
    check_sound(harness)


@pytest.mark.sqlite_only
def test_what_fails_on_the_loop_is_tried_again_by_the_thread(harness: Harness, faulty: FaultyConnection) -> None:
    name = KeyRef(harness.key().id)
    errors = [failing()]
    faulty.before = lambda sql: errors.pop() if sql.startswith("UPDATE ledger_head") and errors else None
    before = harness.size
    harness.ask(Encrypt(name, plaintext=b"x"))
    assert not errors
    assert harness.size == before + 1
    assert harness.ledger.fault is None
    check_sound(harness)


def test_what_no_loop_publishes_the_thread_publishes(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    name = KeyRef(harness.key().id)
    call, publish = loops_module.call_soon, harness.ledger._group_commit._publish_on_loop
    monkeypatch.setattr(
        committer_module,
        "call_soon",
        lambda loops, function, *rest: None if function == publish else call(loops, function, *rest),
    )
    before = harness.size
    harness.ask(Encrypt(name, plaintext=b"x"))
    harness.ask(Encrypt(name, plaintext=b"x"))
    assert harness.size == before + 2
    check_sound(harness)


def test_what_may_take_long_is_not_judged_on_the_loop(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    name = KeyRef(harness.key().id)
    threads: set[str] = set()
    judge = Attempt.__call__
    turns = 0

    def watched(self: Attempt, state: State) -> Outcome:
        if isinstance(self._request, Encrypt):  # first it is admitted and acts, in two steps
            threads.add(threading.current_thread().name)
        return judge(self, state)

    async def rotated_meanwhile() -> None:
        nonlocal turns
        turns += 1
        if turns == 2:
            await harness.perform(RotateKey(name))

    monkeypatch.setattr(Attempt, "__call__", watched)
    monkeypatch.setattr(engine, "yield_now", rotated_meanwhile)
    harness.ask(Encrypt(name, plaintext=b"x"))
    assert threads == {"committer"}


@pytest.mark.parametrize("committed", [False, True])
def test_an_error_at_commit_is_an_unknown_outcome(
    harness: Harness, faulty: FaultyConnection, *, committed: bool
) -> None:
    key = harness.key()
    errors = [failing()]
    fault = lambda sql: errors.pop() if sql == "COMMIT" and errors else None  # noqa: E731
    if committed:
        faulty.after = fault
    else:
        faulty.before = fault
    twice = idempotent("rotate")
    harness.refusal(RotateKey(KeyRef(key.id)), OutcomeUnknown, idempotency=twice)
    # The caller asks again with the same key, and learns what became of it.
    harness.ask(RotateKey(KeyRef(key.id)), idempotency=twice)
    found: Key = harness.ask(ReadKey(KeyRef(key.id)))
    assert [one.status for one in found.versions] == [VersionStatus.DEPRECATED, VersionStatus.ACTIVE]
    assert (harness.log()[-2].draft.reason == "replayed") is committed
    assert harness.ledger.fault is None
    check_sound(harness)


@pytest.mark.sqlite_only
@pytest.mark.parametrize("committed", [False, True])
def test_a_disk_that_is_full_at_commit(harness: Harness, faulty: FaultyConnection, *, committed: bool) -> None:
    """What was not written is written once more, with the reserve; what may have been is not."""
    name = KeyRef(harness.key().id)
    errors = [failing("database or disk is full")]
    fault = lambda sql: errors.pop() if sql == "COMMIT" and errors else None  # noqa: E731
    if committed:
        faulty.after = fault
    else:
        faulty.before = fault
    before, reserve = harness.size, harness.vault.database._reserve  # type: ignore[attr-defined]
    assert reserve.exists()
    if committed:
        harness.refusal(RotateKey(name), OutcomeUnknown)
    else:
        harness.ask(RotateKey(name))
    assert not errors
    assert reserve.exists() is committed
    assert harness.size == before + 1
    assert len(harness.ask(ReadKey(name)).versions) == 2
    check_sound(harness)


@pytest.mark.sqlite_only
def test_a_disk_that_is_full_before_commit(harness: Harness, faulty: FaultyConnection) -> None:
    name = KeyRef(harness.key().id)
    before, reserve = harness.size, harness.vault.database._reserve  # type: ignore[attr-defined]
    full = failing("database or disk is full")
    faulty.before = lambda sql: full if sql.startswith("INSERT INTO audit_logs") and reserve.exists() else None
    harness.ask(RotateKey(name))
    assert not reserve.exists()
    assert harness.size == before + 1
    check_sound(harness)


@pytest.mark.sqlite_only
def test_the_anchor_is_not_flushed_on_the_loop(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    name = KeyRef(harness.key().id)
    flush, threads = os.fdatasync, list[str]()

    def watched(descriptor: int) -> None:
        threads.append(threading.current_thread().name)
        flush(descriptor)

    monkeypatch.setattr(os, "fdatasync", watched)
    for request in (RotateKey(name), Encrypt(name, plaintext=b"x")):
        harness.ask(request)
    assert threads.count("committer") == 1, "that of the rotation; another one may be the time's"
    assert threading.main_thread().name not in threads


def test_transactions_are_counted_and_nobody_is_left_waiting(harness: Harness) -> None:
    name = KeyRef(harness.key().id)
    seconds, entries = METRICS.commit_seconds, METRICS.commit_entries
    before = sum(seconds.counts), sum(entries.counts), entries.total, seconds.total
    for _ in range(3):
        harness.ask(Encrypt(name, plaintext=b"x"))
    assert (sum(seconds.counts), sum(entries.counts), entries.total) == (before[0] + 3, before[1] + 3, before[2] + 3)
    assert 0 < seconds.total - before[3] < 60
    assert harness.ledger._group_commit.waiting == 0


@pytest.mark.sqlite_only
def test_much_is_not_read_on_the_loop(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    name = KeyRef(harness.key().id)
    monkeypatch.setattr(replica_module, "MANY", 3)
    threads: list[str] = []

    def watched(*given: Any) -> Any:  # noqa: ANN401
        threads.append(threading.current_thread().name)
        return hashes_between(*given)

    other = Harness(harness.settings, harness.admin)
    try:
        harness.ask(ReadKey(name))
        for times, thread in ((3, threading.main_thread().name), (4, "committer")):
            for _ in range(times):
                other.ask(ReadKey(name))
            monkeypatch.setattr(catch_up, "hashes_between", watched)
            harness.ask(Encrypt(name, plaintext=b"x"))
            monkeypatch.setattr(catch_up, "hashes_between", hashes_between)
            assert threads == [thread]
            threads.clear()
    finally:
        other.close()


@pytest.mark.sqlite_only
def test_after_a_fault_all_rows_are_compared(harness: Harness) -> None:
    """The new connection's count of what others wrote begins anew: what was edited by then would not be noticed."""
    name = KeyRef(harness.key("orders").id)
    with closing(driver.connect(str(harness.path), isolation_level=None)) as other:
        other.execute("UPDATE keys SET description = 'edited'")
    writer = harness.ledger._writer
    writer.reopen()
    assert writer.connection.execute("PRAGMA busy_timeout").fetchone() == (0,)
    harness.refusal(Encrypt(name, plaintext=b"x"), IntegrityViolation)


@pytest.mark.sqlite_only
def test_rows_are_not_compared_on_the_loop(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    name = KeyRef(harness.key().id)
    threads: list[str] = []

    def watched(*given: Any) -> list[Alarm]:  # noqa: ANN401
        threads.append(threading.current_thread().name)
        return compare_rows(*given)

    monkeypatch.setattr(replica_module, "compare_rows", watched)
    with closing(driver.connect(str(harness.path), isolation_level=None)) as other:
        for text in ("x", ""):
            other.execute("UPDATE keys SET description = ?", (text,))
    harness.ask(Encrypt(name, plaintext=b"x"))
    assert threads == ["committer"]


def test_service_comes_back_under_load_after_a_broken_transaction(harness: Harness, faulty: FaultyConnection) -> None:
    # Neither the statement nor the rollback works: the connection is stuck in its transaction.
    name = KeyRef(harness.key().id)
    harness.ledger._writer.is_local = False  # else it is tried twice, the second time on a fresh connection
    faulty.before = lambda sql: failing() if sql == "ROLLBACK" or sql.startswith("INSERT INTO audit_logs") else None

    async def load() -> list[str]:
        codes = []
        for _ in range(40):
            try:
                await harness.perform(Encrypt(name, plaintext=b"x"))
                codes.append("ok")
            except KeyVaultError as error:
                codes.append(error.code)
        return codes

    codes = harness.run(load())
    assert codes[0] == "audit_unavailable"
    assert codes[-1] == "ok", "whoever keeps asking does not keep the fault alive"
    check_sound(harness)


def test_service_comes_back_by_itself(
    harness: Harness, faulty: FaultyConnection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "keyvault_lite.ledger")
    monkeypatch.setattr(committer_module, "RETRY_SECONDS", 0.02)
    faulty.before = lambda sql: failing() if sql.startswith("INSERT INTO audit_logs") else None
    harness.refusal(CreateKey(AES), AuditUnavailable)
    assert not harness.engine.health().serving or harness.ledger.fault is None
    deadline = time.monotonic() + 5
    while harness.ledger.fault is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert harness.engine.health().serving
    check_sound(harness)
    assert any(one.startswith("commit failed: audit_unavailable: ") for one in caplog.messages)
    assert "the audit log can be written again" in caplog.messages


def test_a_reader_fault_is_a_refusal_and_passes(harness: Harness) -> None:
    from keyvault_lite.ledger.log.query import Filter

    with pytest.raises(AuditUnavailable), harness.ledger._readers.one():
        raise failing()
    assert harness.ledger.evidence.entries(Filter(limit=1)).items


def closed(work: Awaitable[Answer]) -> Any:  # noqa: ANN401
    """The answer or the error, and after how many seconds."""

    async def timed() -> tuple[object, float]:
        began = time.monotonic()
        try:
            return await work, time.monotonic() - began
        except KeyVaultError as error:
            return error, time.monotonic() - began

    return timed()


def requests(harness: Harness, name: KeyRef) -> list[Any]:
    return [
        closed(harness.perform(Encrypt(name, plaintext=b"x"))),
        closed(harness.perform(RotateKey(name))),
        closed(harness.perform(ReadKey(name))),
        *(closed(harness.perform(ReadKey(name), None, source="10.0.0.1")) for _ in range(12)),
        closed(harness.perform(RevokeKey(name), "kvl_" + "A" * 16 + "_" + "B" * 43)),
    ]


def late(work: Any, seconds: float) -> Any:  # noqa: ANN401
    async def waiting() -> Any:  # noqa: ANN401
        await asyncio.sleep(seconds)
        return await work

    return waiting()


def check_all_were_refused(results: list[tuple[object, float]]) -> None:
    for result, seconds in results:
        assert isinstance(result, AuditUnavailable), result
        assert result.audit_id is None
        assert seconds < 5


@pytest.mark.sqlite_only
@pytest.mark.timeout(60)
def test_a_database_locked_by_someone_else_is_503_within_five_seconds(harness: Harness) -> None:
    name = KeyRef(harness.key().id)
    before = harness.size
    other = driver.connect(str(harness.path), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    # Some come at once, some while others already wait.
    work = [*requests(harness, name), *(late(one, 2.0) for one in requests(harness, name))]
    check_all_were_refused(harness.together(*work))
    assert not harness.engine.health().serving
    other.execute("ROLLBACK")
    other.close()
    assert harness.ask(ReadKey(name)).versions[-1].version == 1
    assert [entry.draft.action for entry in harness.log(before)] == [Action.KEY_READ], "nothing of it was done"
    check_sound(harness)


@pytest.mark.sqlite_only
@pytest.mark.timeout(60)
def test_a_process_that_stands_still_with_the_lock_holds_nobody_up(harness: Harness) -> None:
    # As if another process were stopped between lock and commit, and went on later.
    name = KeyRef(harness.key().id)
    before = harness.size
    held, release = threading.Event(), threading.Event()

    def stand_still() -> None:
        with SqliteDatabase(harness.path).lock():
            held.set()
            release.wait(30)

    other = threading.Thread(target=stand_still)
    other.start()
    held.wait()
    check_all_were_refused(harness.together(*requests(harness, name)))
    release.set()
    other.join()
    assert harness.ask(ReadKey(name)).versions[-1].version == 1
    assert [entry.draft.action for entry in harness.log(before)] == [Action.KEY_READ]
    check_sound(harness)


@pytest.mark.sqlite_only
def test_a_file_replaced_under_the_server_stops_it(harness: Harness) -> None:
    name = KeyRef(harness.key().id)
    aside = harness.path.with_name("aside.db")
    harness.path.rename(aside)
    shutil.copy(aside, harness.path)
    harness.refusal(Encrypt(name, plaintext=b"x"), IntegrityViolation)
    harness.refusal(RotateKey(name), IntegrityViolation)
    assert not harness.engine.health().serving
    aside.rename(harness.path)
    # Putting it back does not help: only a start, with its checks, does.
    harness.refusal(Encrypt(name, plaintext=b"x"), IntegrityViolation)
    harness.reopen()
    harness.ask(Encrypt(name, plaintext=b"x"))
    assert harness.ask(VerifyAudit()).valid


def test_a_fault_after_commit_is_no_commit_for_memory(harness: Harness) -> None:
    # The file is exchanged in the moment between the last look at it and COMMIT.
    name = KeyRef(harness.key().id)
    database = harness.vault.database

    def look() -> None:
        raise IntegrityViolation("replaced")

    database.check_same_file = look  # type: ignore[method-assign]
    harness.refusal(RotateKey(name), IntegrityViolation)
    harness.refusal(RotateKey(name), IntegrityViolation)
    harness.reopen()
    assert len(harness.ask(ReadKey(name)).versions) == 2


@pytest.mark.sqlite_only
@pytest.mark.parametrize("of_management", [True, False])
@pytest.mark.parametrize(
    ("owner", "method", "fault"),
    [(FileAnchor, "write", ValueError("canary")), (SqliteDatabase, "_stat", PermissionError("canary"))],
    ids=["a defect", "a file that cannot be looked at"],
)
def test_what_fails_after_commit_is_an_unknown_outcome_and_nothing_is_recorded_twice(
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    owner: type,
    method: str,
    fault: Exception,
    of_management: bool,
) -> None:
    name = KeyRef(harness.key().id)
    request = RotateKey(name) if of_management else Encrypt(name, plaintext=b"x")
    whole, faults = getattr(owner, method), [fault]

    def broken(*values: Any, **more: Any) -> Any:  # noqa: ANN401
        if faults:
            raise faults.pop()
        return whole(*values, **more)

    monkeypatch.setattr(owner, method, broken)
    before = harness.size
    results = harness.together(*(harness.perform(request) for _ in range(3)))
    # Whoever was in a later transaction is served again; nobody is told that nothing was done.
    assert OutcomeUnknown in {type(one) for one in results} <= {OutcomeUnknown, Answer}
    assert not faults
    assert told(caplog, "what follows a commit failed") is type(fault)
    assert harness.ask(ReadKey(name)).versions
    assert harness.size == before + 4, "each is there once"
    check_sound(harness)


def test_a_recovery_that_finds_damage_ends_service(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    committer, damage = harness.ledger._group_commit, IntegrityViolation("the log is shorter")

    def refresh(*_: object, **__: object) -> None:
        raise damage

    committer.availability.fail(AuditUnavailable("the disk is full"))
    with monkeypatch.context() as damaged:
        damaged.setattr(Writer, "refresh", refresh)
        assert not committer._recover()
    assert committer.availability.fault is damage
    assert not committer._recover(), "only a restart, with its checks, begins again"
    harness.refusal(CreateKey(AES), IntegrityViolation)


@pytest.mark.parametrize("mates", [1, 5])
def test_one_that_cannot_be_written_keeps_nobody_else_from_being_recorded(
    harness: Harness, caplog: pytest.LogCaptureFixture, mates: int
) -> None:
    draft = Draft(action=Action.SERVICE_CREATE, result=Result.SUCCESS, request_id=os.urandom(16))
    service = Service(ServiceId(new_id()), "monster", Role.SERVICE, active=True, created_at=2**70)
    poison, good = Outcome((draft,), None, Change(services=(service,))), Outcome((draft,), None)

    def commit(outcome: Outcome) -> Awaitable[Committed]:
        return harness.ledger.commit(outcome, harness.ledger.snapshot().snapshot_version, lambda _: outcome)

    async def all_at_once() -> list[Any]:
        others = [commit(good) for _ in range(mates)]
        return await asyncio.gather(*others[:3], commit(poison), *others[3:], return_exceptions=True)

    results = harness.run(all_at_once())
    assert isinstance(results.pop(min(mates, 3)), AuditUnavailable)
    assert all(isinstance(one, Committed) for one in results), results
    assert told(caplog, "the committer failed") is struct.error
    check_sound(harness)


def told(caplog: pytest.LogCaptureFixture, message: str) -> type[BaseException] | None:
    """Of which kind the defect is that the log tells so, with its traceback."""
    (*_, record) = [one for one in caplog.records if one.getMessage() == message]
    assert record.exc_info is not None
    return record.exc_info[0]


# Closing


def test_closing_answers_everyone(harness: Harness) -> None:
    name = KeyRef(harness.key().id)

    async def storm() -> list[Any]:
        tasks = [
            asyncio.create_task(harness.perform(request))
            for _ in range(60)
            for request in (Encrypt(name, plaintext=b"x"), RotateKey(name), ReadKey(name))
        ]
        tasks += [asyncio.create_task(harness.perform(ReadKey(name), None)) for _ in range(5)]
        await asyncio.sleep(0.01)
        closing = asyncio.get_running_loop().run_in_executor(None, harness.vault.close)
        tasks += [asyncio.create_task(harness.perform(RotateKey(name))) for _ in range(20)]
        answered = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 8)
        await closing
        tasks = [asyncio.create_task(harness.perform(RotateKey(name))) for _ in range(2)]
        return answered + await asyncio.gather(*tasks, return_exceptions=True)

    answered = harness.run(storm())
    acknowledged = [one.audit_id for one in answered if isinstance(one, Answer)]
    refused = [one for one in answered if not isinstance(one, Answer)]
    assert {one.code for one in refused} <= {"audit_unavailable", "unauthenticated"}, refused
    harness.open()
    assert {entry.id for entry in harness.log()} >= set(acknowledged)
    check_sound(harness)


def test_nothing_is_taken_after_the_end(harness: Harness) -> None:
    committer = harness.ledger._group_commit
    draft = Draft(action=Action.RANDOM, result=Result.SUCCESS, request_id=os.urandom(16))
    outcome = Outcome((draft,), None)

    async def late() -> object:
        return await committer.commit(outcome, (0, 0), lambda _: outcome)

    async def turned_away_at_once() -> None:
        with pytest.raises(AuditUnavailable):
            committer.commit(outcome, (0, 0), lambda _: outcome)

    harness.vault.close()
    harness.run(turned_away_at_once())
    # As if the thread had taken its last look between the question and the queue.
    committer._lifecycle = _Lifecycle.RUNNING
    append = committer._queue.append

    def stopping(waiter: Waiter) -> None:
        append(waiter)
        committer._lifecycle = _Lifecycle.STOPPED

    committer._queue.append = stopping  # type: ignore[method-assign]
    with pytest.raises(AuditUnavailable):
        harness.run(asyncio.wait_for(late(), 1))
    harness.open()


@pytest.mark.sqlite_only
def test_what_waits_at_the_end_is_recorded_in_turn(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """More waits than a transaction takes, and the loop begins none beside the thread's."""
    monkeypatch.setattr(queue_module, "MAX_REQUESTS", 1)
    committer, writer, before = harness.ledger._group_commit, harness.ledger._writer, harness.size
    draft = Draft(action=Action.RANDOM, result=Result.SUCCESS, request_id=os.urandom(16))
    outcome = Outcome((draft,), None)
    begun, release, write = threading.Event(), threading.Event(), writer.commit

    def slow(write_set: WriteSet) -> None:
        begun.set()
        release.wait(5)
        write(write_set)

    monkeypatch.setattr(writer, "commit", slow)

    async def leave() -> list[Any]:
        waiting = [committer.commit(outcome, (0, 0), lambda _: outcome) for _ in range(3)]
        closing = asyncio.get_running_loop().run_in_executor(None, committer.close)
        begun.wait(5)
        for _ in range(5):
            await asyncio.sleep(0)
        release.set()
        results = await asyncio.gather(*waiting)
        await closing
        return [one.first_id for one in results]

    assert harness.run(leave()) == [before + 1, before + 2, before + 3]
    harness.reopen()


@pytest.mark.sqlite_only
def test_a_closed_vault_leaves_no_log_beside_the_database(harness: Harness) -> None:
    harness.key()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: harness.ledger.evidence.entry(1), range(8)))
    harness.vault.close()
    beside = [file.name for file in harness.path.parent.iterdir() if file.name.endswith(("-wal", "-shm"))]
    harness.open()
    assert beside == []
