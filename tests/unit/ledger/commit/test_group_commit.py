"""The scheduler of the group commit: what is in the next batch, who takes its steps, what a failure leaves behind."""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from queue import Empty
from types import SimpleNamespace
from typing import Any

import pytest

from keyvault_lite.ledger.commit import batching_delay, queue
from keyvault_lite.ledger.commit import group_commit as module
from keyvault_lite.ledger.commit.availability import StoreFull
from keyvault_lite.ledger.commit.batch import Batch, Phase
from keyvault_lite.ledger.commit.batching_delay import IDLE_ROUNDS
from keyvault_lite.ledger.commit.group_commit import GroupCommit, _Lifecycle
from keyvault_lite.ledger.commit.queue import CommitQueue, Waiter
from keyvault_lite.ledger.commit.write_set import CommitRequest
from keyvault_lite.ledger.state.outcome import Committed, Outcome
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, KeyVaultError, OutcomeUnknown, Overloaded
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.observe.metrics import METRICS


class Steps:
    """A writer whose steps are recorded, and do nothing."""

    def __init__(
        self,
        *,
        is_local: bool = True,
        free: bool = True,
        write_set: object = "written",
        blocks: bool = False,
        busy: bool = False,
    ) -> None:
        self.is_local, self.free, self.write_set, self.blocks, self.busy = is_local, free, write_set, blocks, busy
        self.done: list[Any] = []
        self.fails: dict[str, list[Exception]] = {}

    def _step(self, name: str, *rest: object) -> None:
        self.done.append((name, *rest) if rest else name)
        if self.fails.get(name):
            raise self.fails[name].pop(0)

    def try_acquire(self) -> bool:
        return self.free

    def acquire(self) -> None:
        self._step("acquire")

    def release(self) -> None:
        self._step("release")

    def try_prepare(self, requests: Sequence[CommitRequest]) -> object:
        self._step("try_prepare", list(requests))
        return self.write_set

    def prepare(self, claim: Callable[[], Sequence[CommitRequest]]) -> object:
        claim()
        self._step("prepare")
        return "by the thread"

    def give_up(self) -> None:
        self._step("give up")

    def commit(self, write_set: object) -> None:
        self._step("commit", write_set)

    def make_room(self, full: StoreFull) -> None:
        self._step("make room")

    def publishing_blocks(self, _: object) -> bool:
        return self.blocks

    def try_publish(self, write_set: object) -> bool:
        self._step("try_publish", write_set)
        return not self.busy

    def publish(self, write_set: object) -> None:
        self._step("publish", write_set)

    def recover(self) -> None:
        self._step("recover")


@pytest.fixture
def writer() -> Steps:
    return Steps()


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch, writer: Steps) -> GroupCommit:
    """One whose thread was not started: what it hands over stays in its inbox."""
    monkeypatch.setattr(METRICS, "gauge", lambda *_: None)
    real: Any = writer
    return GroupCommit(real)


def outcome(entries: int = 1) -> Outcome:
    draft = Draft(action=Action.RANDOM, result=Result.SUCCESS, request_id=os.urandom(16))
    return Outcome((draft,) * entries, None)


def waiter(entries: int = 1) -> Waiter:
    made = outcome(entries)
    return Waiter(CommitRequest(made, (0, 0), lambda _: made), asyncio.get_running_loop())


def ask(scheduler: GroupCommit, entries: int = 1) -> asyncio.Future[Committed]:
    made = outcome(entries)
    return scheduler.commit(made, (0, 0), lambda _: made)


def put(scheduler: GroupCommit, *waiters: Waiter) -> None:
    for one in waiters:
        scheduler._queue.append(one)


def form(scheduler: GroupCommit) -> None:
    scheduler._form(asyncio.get_running_loop())


def handed(scheduler: GroupCommit) -> list[Batch | None]:
    found = []
    while not scheduler._inbox.empty():
        found.append(scheduler._inbox.get_nowait())
    return found


def the_batch(scheduler: GroupCommit) -> Batch:
    (batch,) = handed(scheduler)
    assert batch is not None
    return batch


def in_progress(scheduler: GroupCommit, *waiters: Waiter, phase: Phase = Phase.FORMED, **how: Any) -> Batch:  # noqa: ANN401
    batch = Batch(phase=phase, waiters=waiters, entries=sum(one.entries for one in waiters), **how)
    scheduler._batch = batch
    return batch


# Which requests are in the next batch


@pytest.mark.parametrize(("shared", "rounds"), [(False, 0), (True, IDLE_ROUNDS)])
def test_a_request_that_came_during_a_batch_is_in_the_next(
    scheduler: GroupCommit, monkeypatch: pytest.MonkeyPatch, *, shared: bool, rounds: int
) -> None:
    """At once if the last batch was of one request, else when so many rounds of the loop have brought no other."""
    monkeypatch.setattr(batching_delay, "BATCHING_SECONDS", 60)

    async def answer() -> int:
        answered, next_one = waiter(), waiter()
        scheduler._delay.last_was_shared = shared
        put(scheduler, next_one)
        scheduler._resolve(asyncio.get_running_loop(), [answered], None)
        assert answered.future.done()
        rounds = 0
        while scheduler._inbox.empty() and rounds <= IDLE_ROUNDS:
            await asyncio.sleep(0)
            rounds += 1
        assert the_batch(scheduler).waiters == [next_one]
        return rounds

    assert asyncio.run(answer()) == rounds


@pytest.mark.parametrize(
    ("shared", "seconds", "enough", "arrivals", "rounds"),
    [
        (False, 60, 64, [0], 1),
        (True, 60, 64, [0], 1 + IDLE_ROUNDS),
        (True, 60, 64, [0, 10], 11 + IDLE_ROUNDS),
        (True, 60, 3, [0, 10], 11 + IDLE_ROUNDS),
        (True, 60, 2, [0, 10], 11),
        (True, -60, 64, [0], 1),
    ],
)
def test_a_batch_waits_for_more_requests_as_long_as_they_come(
    scheduler: GroupCommit,
    monkeypatch: pytest.MonkeyPatch,
    *,
    shared: bool,
    seconds: float,
    enough: int,
    arrivals: list[int],
    rounds: int,
) -> None:
    """In rounds of the loop; not after a batch of one request, nor where there are enough, nor for too long."""
    monkeypatch.setattr(batching_delay, "BATCHING_SECONDS", seconds)
    monkeypatch.setattr(batching_delay, "ENOUGH", enough)

    async def come() -> None:
        scheduler._delay.last_was_shared = shared
        for number in range(rounds):
            assert scheduler._inbox.empty(), number
            if number in arrivals:
                ask(scheduler)
            await asyncio.sleep(0)
        assert len(the_batch(scheduler).waiters) == len(arrivals)

    asyncio.run(come())


@pytest.mark.parametrize(
    ("entries", "taken"),
    [([1, 1, 1, 1, 1], 3), ([2, 2, 1, 1], 3), ([3, 3, 1], 2), ([5, 1], 1), ([9, 1], 1), ([1, 9, 1], 2), ([4], 1)],
)
def test_a_batch_has_its_size(
    scheduler: GroupCommit, monkeypatch: pytest.MonkeyPatch, entries: list[int], taken: int
) -> None:
    monkeypatch.setattr(queue, "MAX_REQUESTS", 3)
    monkeypatch.setattr(queue, "MAX_ENTRIES", 5)

    async def take() -> None:
        waiters, batch = [waiter(number) for number in entries], Batch()
        put(scheduler, *waiters)
        scheduler._fill(batch)
        assert (batch.waiters, batch.entries) == (waiters[:taken], sum(entries[:taken]))
        assert list(scheduler._queue) == waiters[taken:]
        assert scheduler._delay.last_was_shared is (taken > 1)

    asyncio.run(take())


def test_a_request_that_would_wait_too_long_is_refused(scheduler: GroupCommit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "MAX_WAITING", 5)

    async def come() -> None:
        ask(scheduler, 4)
        ask(scheduler, 3)
        assert scheduler.waiting == 7
        with pytest.raises(Overloaded):
            ask(scheduler)
        await asyncio.sleep(0)
        scheduler._finish(the_batch(scheduler), [])
        assert scheduler.waiting == 0
        ask(scheduler, 4)
        ask(scheduler)
        with pytest.raises(Overloaded):
            ask(scheduler)
        scheduler.halt(IntegrityViolation("damaged"))
        with pytest.raises(IntegrityViolation, match="damaged"):
            ask(scheduler)

    asyncio.run(come())


@pytest.mark.parametrize(("busy", "stopped", "waiting"), [(True, False, 1), (False, True, 1), (False, False, 0)])
def test_no_batch_is_formed_beside_another_or_of_nothing(
    scheduler: GroupCommit, *, busy: bool, stopped: bool, waiting: int
) -> None:
    async def begin() -> None:
        batch = in_progress(scheduler) if busy else None
        scheduler._lifecycle = _Lifecycle.STOPPED if stopped else _Lifecycle.RUNNING
        put(scheduler, *(waiter() for _ in range(waiting)))
        form(scheduler)
        assert handed(scheduler) == []
        assert scheduler._batch is batch

    asyncio.run(begin())


# Callers that wait too long


def test_a_loop_is_watched_once_and_as_long_as_a_request_waits(scheduler: GroupCommit) -> None:
    async def come() -> None:
        loop, later = asyncio.get_running_loop(), list[Any]()
        loop.call_later = lambda _, *what: later.append(what)  # type: ignore[assignment, method-assign]
        ask(scheduler)
        ask(scheduler)
        assert later == [(scheduler._watch, loop)]
        await asyncio.sleep(0)
        scheduler._watch(loop)
        assert len(later) == 2
        scheduler._finish(the_batch(scheduler), [])
        scheduler._watch(loop)
        assert len(later) == 2
        ask(scheduler)
        assert len(later) == 3

    asyncio.run(come())


def test_a_request_that_waits_too_long_for_the_lock_is_refused(scheduler: GroupCommit, writer: Steps) -> None:
    """But not one that a transaction has: it is not certain that nothing of it was done."""
    writer.is_local = False

    async def wait() -> None:
        late_here, late_there, claimed, fresh = (waiter() for _ in range(4))
        for one in (late_here, late_there, claimed):
            one.since -= queue.LOCK_SECONDS + 1
        claimed.claimed = True
        batch = in_progress(scheduler, late_there, claimed)
        put(scheduler, late_here, fresh)
        scheduler._watch(asyncio.get_running_loop())
        for one in (late_here, late_there):
            assert one.abandoned
            assert isinstance(one.future.exception(), AuditUnavailable)
        assert not any(one.abandoned or one.future.done() for one in (claimed, fresh))
        scheduler._finish(batch, [])
        scheduler._delay.loop = asyncio.new_event_loop()
        scheduler._delay.loop.close()  # and it will not form the next
        scheduler._watch(asyncio.get_running_loop())
        assert scheduler._filled(the_batch(scheduler)).waiters == [late_here, fresh]

    asyncio.run(wait())


def test_a_commit_that_does_not_return_is_reported_though_no_other_request_waits(scheduler: GroupCommit) -> None:
    async def wait() -> None:
        claimed = waiter()
        claimed.claimed = True
        in_progress(scheduler, claimed)
        seen: list[KeyVaultError | None] = []
        for _ in range(2):
            scheduler._watch(asyncio.get_running_loop())
            seen.append(scheduler.stuck)
            assert not claimed.future.done()
            claimed.since -= queue.LOCK_SECONDS + 1
        first, second = seen
        assert first is None
        assert second is not None
        assert "does not answer a commit" in second.detail
        claimed.since -= queue.COMMIT_SECONDS
        scheduler._watch(asyncio.get_running_loop())
        assert isinstance(claimed.future.exception(), OutcomeUnknown)
        assert not claimed.abandoned

    asyncio.run(wait())


def test_a_claimed_request_is_not_refused_as_not_done(scheduler: GroupCommit, writer: Steps) -> None:
    async def take() -> None:
        one, abandoned = waiter(), waiter()
        abandoned.abandoned = True
        abandoned.refuse(AuditUnavailable("late"))
        for late in (one, abandoned):
            late.since -= queue.LOCK_SECONDS + 1
        batch = in_progress(scheduler, one, abandoned)
        assert scheduler._commit(batch) == [((one, abandoned), None)]
        assert (one.claimed, abandoned.claimed) == (True, False)
        scheduler._watch(asyncio.get_running_loop())
        assert not one.abandoned
        assert not one.future.done()

    asyncio.run(take())


# Who takes the steps of a batch


@pytest.mark.parametrize("write_set", [None, "written"])
def test_what_a_loop_has_prepared_is_claimed(scheduler: GroupCommit, writer: Steps, write_set: object) -> None:
    """And what the thread has to prepare may still be refused because it waits too long."""
    writer.write_set = write_set

    async def begin() -> None:
        one, abandoned = waiter(), waiter()
        abandoned.abandoned = True
        put(scheduler, one, abandoned)
        form(scheduler)
        assert writer.done == [("try_prepare", [one.request])]
        assert (one.claimed, abandoned.claimed) == (write_set is not None, False)
        batch = the_batch(scheduler)
        assert (batch.write_set, batch.phase) == (write_set, Phase.PREPARED if write_set else Phase.FORMED)

    asyncio.run(begin())


@pytest.mark.parametrize(("faulty", "local", "free"), [(True, True, True), (False, False, True), (False, True, False)])
def test_whatever_has_to_be_waited_for_is_the_threads(
    scheduler: GroupCommit, writer: Steps, *, faulty: bool, local: bool, free: bool
) -> None:
    writer.is_local, writer.free = local, free

    async def begin() -> None:
        scheduler.availability.fault = AuditUnavailable("gone") if faulty else None
        put(scheduler, waiter())
        form(scheduler)
        batch = the_batch(scheduler)
        assert batch.preparing_loop is (None if free else asyncio.get_running_loop())
        assert (batch.phase, writer.done, len(scheduler._queue)) == (Phase.FORMED, [], 1)

    asyncio.run(begin())


@pytest.mark.parametrize("comes", [True, False])
def test_the_thread_waits_for_the_lock_and_the_loop_prepares_if_it_comes(
    scheduler: GroupCommit, writer: Steps, *, comes: bool
) -> None:
    writer.free = False

    async def begin() -> None:
        one, late = waiter(), waiter()
        put(scheduler, one)
        form(scheduler)
        batch = the_batch(scheduler)
        put(scheduler, late)
        assert scheduler._ready(batch) is None
        if comes:
            await asyncio.sleep(0)
            assert writer.done == ["acquire", ("try_prepare", [one.request, late.request])]
            assert (the_batch(scheduler), batch.phase) == (batch, Phase.PREPARED)
            assert scheduler._take_back(batch) is None
        else:
            assert scheduler._look_again() is batch
            assert writer.done == ["acquire", "release"]
            await asyncio.sleep(0)
            assert writer.done == ["acquire", "release"], "the loop comes too late"
            assert batch.waiters == [one, late]

    asyncio.run(begin())


def test_a_lock_that_cannot_be_had_is_met_again_by_the_commit(scheduler: GroupCommit, writer: Steps) -> None:
    writer.free = False
    writer.fails["acquire"] = [AuditUnavailable("gone"), AuditUnavailable("gone")]

    async def begin() -> None:
        one = waiter()
        put(scheduler, one)
        form(scheduler)
        batch = the_batch(scheduler)
        assert scheduler._ready(batch) is batch
        ((answered, error),) = scheduler._commit(batch)
        assert (answered, type(error)) == ([one], AuditUnavailable)

    asyncio.run(begin())


@pytest.mark.parametrize("halted", [True, False])
def test_what_was_prepared_before_a_halt_is_not_committed(
    scheduler: GroupCommit, writer: Steps, *, halted: bool
) -> None:
    write_set: Any = "written"

    async def commit() -> None:
        one = waiter()
        batch = in_progress(scheduler, one, phase=Phase.PREPARED, write_set=write_set)
        if halted:
            scheduler.halt(IntegrityViolation("damaged"))
            ((answered, error),) = scheduler._commit(batch)
            assert (answered, type(error)) == ((one,), IntegrityViolation)
            assert writer.done == ["give up"]
            assert scheduler._commit(batch) != []
            assert writer.done == ["give up"], "there is nothing to give up of what was not prepared"
        else:
            assert scheduler._commit(batch) == []
            assert writer.done == [("commit", "written")]
            assert batch.phase is Phase.COMMITTED

    asyncio.run(commit())


@pytest.mark.parametrize(("prepared", "blocks"), [(True, False), (True, True), (False, False), (False, True)])
def test_a_loop_publishes_what_a_loop_has_prepared_unless_that_blocks(
    scheduler: GroupCommit, writer: Steps, *, prepared: bool, blocks: bool
) -> None:
    writer.blocks = blocks
    phases: list[Phase] = []
    scheduler.observer = lambda batch: phases.append(batch.phase)
    write_set: Any = "written" if prepared else None

    async def commit() -> None:
        batch = in_progress(
            scheduler, waiter(), phase=Phase.PREPARED if prepared else Phase.FORMED, write_set=write_set
        )
        answers = scheduler._commit(batch)
        used = "written" if prepared else "by the thread"
        before = [] if prepared else ["acquire", "prepare"]
        if prepared and not blocks:
            assert (answers, writer.done) == ([], [("commit", used)])
        else:
            assert writer.done == [*before, ("commit", used), ("publish", used)]
            assert answers == [(batch.waiters, None)]
        published = [] if prepared and not blocks else [Phase.PUBLISHED]
        assert phases == ([] if prepared else [Phase.PREPARED]) + [Phase.COMMITTED, *published]

    asyncio.run(commit())


@pytest.mark.parametrize("prepared", [True, False])
def test_a_full_disk_is_written_once_more_with_the_reserve(
    scheduler: GroupCommit, writer: Steps, *, prepared: bool
) -> None:
    write_set: Any = "written" if prepared else None
    writer.fails["commit"] = [StoreFull("full")]

    async def commit() -> None:
        phase = Phase.PREPARED if prepared else Phase.FORMED
        batch = in_progress(scheduler, waiter(), phase=phase, write_set=write_set)
        assert scheduler._commit(batch) == [(batch.waiters, None)]
        first = [("commit", "written")] if prepared else ["acquire", "prepare", ("commit", "by the thread")]
        again = ["acquire", "prepare", ("commit", "by the thread"), ("publish", "by the thread")]
        assert writer.done == [*first, "make room", *again]
        writer.done.clear()
        writer.fails = {"commit": [StoreFull("full")] * 2}
        batch = in_progress(scheduler, waiter())
        ((_, error),) = scheduler._commit(batch)
        assert isinstance(error, AuditUnavailable)
        assert "publish" not in str(writer.done)

    asyncio.run(commit())


def test_a_defect_keeps_one_request_from_being_recorded_and_no_other(scheduler: GroupCommit, writer: Steps) -> None:
    writer.fails["prepare"] = [ZeroDivisionError(), ZeroDivisionError()]

    async def commit() -> None:
        first, second = waiter(), waiter()
        answers = scheduler._commit(in_progress(scheduler, first, second))
        assert [(list(waiters), type(error)) for waiters, error in answers] == [
            ([first], AuditUnavailable),
            ([second], type(None)),
        ]

    asyncio.run(commit())


@pytest.mark.parametrize("thread", [True, False])
def test_what_was_committed_is_published_once(scheduler: GroupCommit, writer: Steps, *, thread: bool) -> None:
    write_set: Any = "written"

    async def publish() -> None:
        one = waiter()
        batch = in_progress(scheduler, one, phase=Phase.COMMITTED, write_set=write_set)
        for _ in range(2):
            if thread:
                scheduler._look_again()
                scheduler._publish_in_thread(batch)
            scheduler._publish_on_loop(batch)
        assert writer.done == [("publish" if thread else "try_publish", "written")]
        await asyncio.sleep(0)
        assert one.future.done()
        assert scheduler._batch is None

    asyncio.run(publish())


def test_an_anchor_in_use_is_left_to_the_thread(scheduler: GroupCommit, writer: Steps) -> None:
    writer.busy = True
    write_set: Any = "written"

    async def publish() -> None:
        one = waiter()
        batch = in_progress(scheduler, one, phase=Phase.COMMITTED, write_set=write_set)
        scheduler._publish_on_loop(batch)
        assert (handed(scheduler), batch.phase) == ([None], Phase.COMMITTED)
        assert not one.future.done()
        assert scheduler._look_again() is None
        assert writer.done == [("try_publish", "written"), ("publish", "written")]

    asyncio.run(publish())


@pytest.mark.parametrize("step", ["publish", "try_publish"])
def test_a_failure_after_commit_is_answered_and_reported(scheduler: GroupCommit, writer: Steps, step: str) -> None:
    writer.fails[step] = [OutcomeUnknown("the anchor cannot be written")]
    write_set: Any = "written"

    async def publish() -> None:
        one = waiter()
        batch = in_progress(scheduler, one, phase=Phase.COMMITTED, write_set=write_set)
        (scheduler._publish_on_loop if step == "try_publish" else scheduler._publish_in_thread)(batch)
        await asyncio.sleep(0)
        assert isinstance(one.future.exception(), OutcomeUnknown)
        assert isinstance(scheduler.availability.fault, OutcomeUnknown)

    asyncio.run(publish())


# Answers


def test_an_answer_is_given_on_the_loop_that_waits(scheduler: GroupCommit, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, resolve = list[threading.Thread](), scheduler._resolve

    def watched(*given: Any) -> None:  # noqa: ANN401
        threads.append(threading.current_thread())
        resolve(*given)

    monkeypatch.setattr(scheduler, "_resolve", watched)

    async def answer() -> None:
        here, from_elsewhere = waiter(), waiter()
        scheduler._answer([here], None)
        assert here.future.done()
        await asyncio.to_thread(scheduler._answer, [from_elsewhere], None)
        await from_elsewhere.future

    asyncio.run(answer())
    assert threads == [threading.main_thread()] * 2


def test_a_request_with_an_error_of_its_own_is_answered_with_that(scheduler: GroupCommit) -> None:
    async def answer() -> None:
        for own, error in ((True, False), (True, True), (False, True), (False, False)):
            one = waiter()
            one.request.error = Overloaded("own") if own else None
            scheduler._resolve(one.loop, [one], AuditUnavailable("all") if error else None)
            expected = Overloaded if own else AuditUnavailable if error else type(None)
            assert type(one.future.exception()) is expected

    asyncio.run(answer())


# Faults, and the end


def test_every_failure_is_counted_and_what_halts_is_final(scheduler: GroupCommit) -> None:
    before, halted, availability = METRICS.commit_failures, list[bool](), scheduler.availability
    for refusal in (AuditUnavailable("the disk is full"), IntegrityViolation("damaged"), AuditUnavailable("gone")):
        assert availability.fail(refusal) is availability.fault is refusal
        halted.append(availability.halted)
    assert halted == [False, True, True]
    assert METRICS.commit_failures == before + 3


@pytest.mark.parametrize(("faulty", "busy"), [(True, False), (True, True), (False, False), (False, True)])
def test_a_fault_is_cleared_by_an_idle_thread(
    scheduler: GroupCommit, writer: Steps, *, faulty: bool, busy: bool
) -> None:
    """A batch in progress meets the fault itself."""
    scheduler.availability.fault = AuditUnavailable("gone") if faulty else None
    if busy:
        in_progress(scheduler)
    assert scheduler._look_again() is None
    assert writer.done == (["recover"] if faulty and not busy else [])


@pytest.mark.parametrize("started", [True, False])
def test_closing_waits_for_the_thread(
    scheduler: GroupCommit, monkeypatch: pytest.MonkeyPatch, *, started: bool
) -> None:
    joined: list[bool] = []
    thread = SimpleNamespace(ident=1 if started else None, join=lambda: joined.append(True))
    monkeypatch.setattr(scheduler, "_thread", thread)
    scheduler.close()
    assert bool(joined) is started


def test_a_request_after_the_last_look_is_refused(scheduler: GroupCommit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_next", lambda: None)

    async def end() -> None:
        late = ask(scheduler)
        scheduler._run()
        assert isinstance(late.exception(), AuditUnavailable)
        assert scheduler.waiting == 0
        append = CommitQueue.append

        def stopping(self: CommitQueue, one: Waiter) -> None:
            append(self, one)
            scheduler._lifecycle = _Lifecycle.STOPPED

        monkeypatch.setattr(CommitQueue, "append", stopping)
        assert isinstance(ask(scheduler).exception(), AuditUnavailable)
        assert scheduler.waiting == 0

    asyncio.run(end())


@pytest.mark.parametrize(
    ("phase", "lifecycle", "fault", "seconds"),
    [
        (None, _Lifecycle.RUNNING, None, None),
        (Phase.COMMITTED, _Lifecycle.RUNNING, None, module.WATCH_SECONDS),
        (Phase.LOCKED, _Lifecycle.RUNNING, None, module.WATCH_SECONDS),
        (Phase.FORMED, _Lifecycle.RUNNING, None, None),
        (Phase.FORMED, _Lifecycle.CLOSING, None, module.WATCH_SECONDS),
        (None, _Lifecycle.RUNNING, AuditUnavailable("gone"), module.RETRY_SECONDS),
        (Phase.LOCKED, _Lifecycle.RUNNING, AuditUnavailable("gone"), module.WATCH_SECONDS),
        (None, _Lifecycle.RUNNING, IntegrityViolation("damaged"), None),
    ],
)
def test_the_thread_sleeps_until_it_has_something_to_look_after(
    scheduler: GroupCommit,
    monkeypatch: pytest.MonkeyPatch,
    *,
    phase: Phase | None,
    lifecycle: _Lifecycle,
    fault: KeyVaultError | None,
    seconds: float | None,
) -> None:
    slept: list[float | None] = []

    async def sleep() -> None:
        batch = Batch(waiters=[waiter()])

        def get(*, timeout: float | None) -> Batch:
            slept.append(timeout)
            if len(slept) == 1 and phase in {None, Phase.FORMED}:
                raise Empty
            return batch

        monkeypatch.setattr(scheduler, "_inbox", SimpleNamespace(get=get))
        if phase is not None:
            in_progress(scheduler, phase=phase)
        scheduler._lifecycle = lifecycle
        if fault is not None:
            scheduler.availability.fail(fault)
        monkeypatch.setattr(scheduler, "_recover", lambda: False)
        assert scheduler._next() is batch

    asyncio.run(sleep())
    assert set(slept) == {seconds}


def test_closing_commits_what_is_in_the_queue_and_then_stops(scheduler: GroupCommit) -> None:
    async def close() -> None:
        one = waiter()
        put(scheduler, one)
        scheduler._lifecycle = _Lifecycle.CLOSING
        batch = scheduler._next()
        assert batch is not None
        assert (batch.waiters, scheduler._batch) == ([one], batch)
        scheduler._finish(batch, [])
        assert scheduler._next() is None
        assert scheduler._has_stopped

    asyncio.run(close())
