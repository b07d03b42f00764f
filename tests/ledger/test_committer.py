"""The queue of the group commit: who is in the next transaction, and what a failure leaves behind."""

import asyncio
import os
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from keyvault_lite.ledger.commit import group_commit as module
from keyvault_lite.ledger.commit.group_commit import QUIET, Committer
from keyvault_lite.ledger.commit.queue import Transaction, Turn, Waiting
from keyvault_lite.ledger.commit.transaction import Item, Pending
from keyvault_lite.ledger.state.outcome import Committed, Outcome
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, KeyVaultError, OutcomeUnknown, Overloaded
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.observe.metrics import METRICS


@pytest.fixture
def committer(monkeypatch: pytest.MonkeyPatch) -> Committer:
    """One whose thread was not started: what it hands over stays to be looked at."""
    monkeypatch.setattr(METRICS, "gauge", lambda *_: None)
    journal: Any = SimpleNamespace(fills_at_once=False)
    return Committer(journal)


def outcome(entries: int = 1) -> Outcome:
    draft = Draft(action=Action.RANDOM, result=Result.SUCCESS, request_id=os.urandom(16))
    return Outcome((draft,) * entries, None)


def waiting(entries: int = 1) -> Waiting:
    made = outcome(entries)
    return Waiting(Item(made, (0, 0), lambda _: made), asyncio.get_running_loop())


def ask(committer: Committer, entries: int = 1) -> asyncio.Future[Committed]:
    made = outcome(entries)
    return committer.commit(made, (0, 0), lambda _: made)


def handed(committer: Committer) -> list[Any]:
    found = []
    while not committer._handed.empty():
        found.append(committer._handed.get_nowait())
    return found


@pytest.mark.parametrize(("company", "rounds"), [(False, 0), (True, QUIET)])
def test_who_came_during_a_transaction_is_in_the_next(
    committer: Committer, monkeypatch: pytest.MonkeyPatch, *, company: bool, rounds: int
) -> None:
    """At once if the last one was of one request, else when so many rounds of the loop have brought nobody else."""
    monkeypatch.setattr(module, "LINGER_SECONDS", 60)

    async def answer() -> int:
        answered, next_one = waiting(), waiting()
        committer._company = company
        committer._queue.append(next_one)
        committer._resolve([answered], None)
        assert answered.future.done()
        waited = 0
        while committer._handed.empty() and waited <= QUIET:
            await asyncio.sleep(0)
            waited += 1
        transaction = committer._handed.get_nowait()
        assert isinstance(transaction, Transaction)
        assert transaction.batch == [next_one]
        return waited

    assert asyncio.run(answer()) == rounds


def test_every_failure_is_counted_and_what_halts_is_for_good(committer: Committer) -> None:
    before, halted = METRICS.commit_failures, list[bool]()
    for refusal in (AuditUnavailable("the disk is full"), IntegrityViolation("damaged"), AuditUnavailable("gone")):
        assert committer._fail(refusal) is committer.fault is refusal
        halted.append(committer.halted)
    assert halted == [False, True, True]
    assert METRICS.commit_failures == before + 3


@pytest.mark.parametrize(
    ("company", "seconds", "enough", "arrivals", "rounds"),
    [
        (False, 60, 64, [0], 1),
        (True, 60, 64, [0], 1 + QUIET),
        (True, 60, 64, [0, 10], 11 + QUIET),
        (True, 60, 3, [0, 10], 11 + QUIET),
        (True, 60, 2, [0, 10], 11),
        (True, -60, 64, [0], 1),
    ],
)
def test_company_is_waited_for_as_long_as_it_comes(
    committer: Committer,
    monkeypatch: pytest.MonkeyPatch,
    *,
    company: bool,
    seconds: float,
    enough: int,
    arrivals: list[int],
    rounds: int,
) -> None:
    """In rounds of the loop; not where nobody had any, where there is enough of it, or where it takes too long."""
    monkeypatch.setattr(module, "LINGER_SECONDS", seconds)
    monkeypatch.setattr(module, "ENOUGH", enough)

    async def come() -> None:
        committer._company = company
        for number in range(rounds):
            assert committer._handed.empty(), number
            if number in arrivals:
                ask(committer)
            await asyncio.sleep(0)
        (transaction,) = handed(committer)
        assert len(transaction.batch) == len(arrivals)

    asyncio.run(come())


@pytest.mark.parametrize(
    ("entries", "taken"),
    [([1, 1, 1, 1, 1], 3), ([2, 2, 1, 1], 3), ([3, 3, 1], 2), ([5, 1], 1), ([9, 1], 1), ([1, 9, 1], 2), ([4], 1)],
)
def test_a_transaction_has_its_size(
    committer: Committer, monkeypatch: pytest.MonkeyPatch, entries: list[int], taken: int
) -> None:
    monkeypatch.setattr(module, "MAX_BATCH", 3)
    monkeypatch.setattr(module, "MAX_ENTRIES", 5)

    async def take() -> None:
        queue = [waiting(number) for number in entries]
        committer._queue.extend(queue)
        assert committer._take() == (queue[:taken], sum(entries[:taken]))
        assert list(committer._queue) == queue[taken:]
        assert committer._company is (taken > 1)

    asyncio.run(take())


def test_who_would_wait_too_long_is_turned_away(committer: Committer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 5)

    async def come() -> None:
        ask(committer, 4)
        ask(committer, 3)
        assert committer.waiting == 7
        with pytest.raises(Overloaded):
            ask(committer)
        await asyncio.sleep(0)
        (transaction,) = handed(committer)
        committer._finish(transaction, [])
        assert committer.waiting == 0
        ask(committer, 4)
        ask(committer)
        with pytest.raises(Overloaded):
            ask(committer)
        committer.halt(IntegrityViolation("damaged"))
        with pytest.raises(IntegrityViolation, match="damaged"):
            ask(committer)

    asyncio.run(come())


def test_a_loop_is_watched_once_and_as_long_as_anyone_waits(committer: Committer) -> None:
    async def come() -> None:
        loop, later = asyncio.get_running_loop(), list[Any]()
        loop.call_later = lambda _, *what: later.append(what)  # type: ignore[assignment, method-assign]
        ask(committer)
        ask(committer)
        assert later == [(committer._watch, loop)]
        await asyncio.sleep(0)
        committer._watch(loop)
        assert len(later) == 2
        (transaction,) = handed(committer)
        committer._finish(transaction, [])
        committer._watch(loop)
        assert len(later) == 2
        ask(committer)
        assert len(later) == 3

    asyncio.run(come())


def test_who_waits_too_long_for_the_lock_is_told(committer: Committer) -> None:
    """But nobody whom the transaction has: of those it is not certain that nothing was done."""

    async def wait() -> None:
        late_here, late_there, taken, fresh = (waiting() for _ in range(4))
        for one in (late_here, late_there, taken):
            one.since -= module.PATIENCE_SECONDS + 1
        taken.taken = True
        committer._in_hand = (late_there, taken)
        committer._queue.extend([late_here, fresh])
        committer._called = asyncio.new_event_loop()
        committer._called.close()  # and it will not begin what is waiting
        committer._watch(asyncio.get_running_loop())
        for one in (late_here, late_there):
            assert one.abandoned
            assert isinstance(one.future.exception(), AuditUnavailable)
        assert not any(one.abandoned or one.future.done() for one in (taken, fresh))
        (transaction,) = handed(committer)
        assert transaction.batch == [late_here, fresh]

    asyncio.run(wait())


def test_a_commit_that_does_not_come_back_is_told_though_nobody_else_waits(committer: Committer) -> None:
    async def wait() -> None:
        taken = waiting()
        taken.taken = True
        committer._in_hand = (taken,)
        seen: list[KeyVaultError | None] = []
        for _ in range(2):
            committer._watch(asyncio.get_running_loop())
            seen.append(committer.stuck)
            assert not taken.future.done()
            taken.since -= module.PATIENCE_SECONDS + 1
        first, second = seen
        assert first is None
        assert second is not None
        assert "does not answer a commit" in second.detail
        taken.since -= module.PATIENCE_AT_COMMIT
        committer._watch(asyncio.get_running_loop())
        assert isinstance(taken.future.exception(), OutcomeUnknown)
        assert not taken.abandoned

    asyncio.run(wait())


@pytest.mark.parametrize(("busy", "stopped", "queue"), [(True, False, 1), (False, True, 1), (False, False, 0)])
def test_no_transaction_is_begun_beside_another_or_of_nothing(
    committer: Committer, *, busy: bool, stopped: bool, queue: int
) -> None:
    async def begin() -> None:
        committer._busy, committer._stopped = busy, stopped
        committer._queue.extend(waiting() for _ in range(queue))
        committer._begin()
        assert handed(committer) == []
        assert committer._busy is busy

    asyncio.run(begin())


class Filling:
    """A journal that fills at once, if it has the lock and nothing is wrong."""

    fills_at_once = True

    def __init__(self, *, free: bool = True, filled: object = None) -> None:
        self.free, self.filled, self.done = free, filled, list[Any]()

    def try_hold(self) -> bool:
        return self.free

    def fill_held(self, items: list[Item]) -> object:
        self.done.append(items)
        return self.filled

    def give_up(self) -> None:
        self.done.append("give up")

    def write(self, claim: Callable[[], list[Item]], filled: object = None) -> object:
        self.done.append(("write", filled))
        if filled is None:
            claim()
        return filled

    def settle(self, filled: object, *, at_once: bool) -> bool:
        self.done.append(("settle", filled, at_once))
        return True


@pytest.mark.parametrize("filled", [None, "filled"])
def test_who_was_filled_has_no_way_back(committer: Committer, monkeypatch: pytest.MonkeyPatch, filled: object) -> None:
    """And who was not, because the thread has to do it, may still be told that it waits too long."""
    journal = Filling(filled=filled)
    monkeypatch.setattr(committer, "_journal", journal)

    async def begin() -> None:
        one, abandoned = waiting(), waiting()
        abandoned.abandoned = True
        committer._queue.extend([one, abandoned])
        committer._begin()
        assert journal.done == [[one.item]]
        assert (one.taken, abandoned.taken) == (filled is not None, False)
        (transaction,) = handed(committer)
        assert transaction.filled is filled

    asyncio.run(begin())


@pytest.mark.parametrize("faulty", [True, False])
def test_who_waits_for_the_lock_or_for_a_recovery_is_the_threads(
    committer: Committer, monkeypatch: pytest.MonkeyPatch, *, faulty: bool
) -> None:
    journal = Filling(free=faulty)
    monkeypatch.setattr(committer, "_journal", journal)

    async def begin() -> None:
        committer.fault = AuditUnavailable("gone") if faulty else None
        committer._queue.append(waiting())
        committer._begin()
        assert [type(one) for one in handed(committer)] == [Transaction if faulty else Turn]
        assert journal.done == []

    asyncio.run(begin())


@pytest.mark.parametrize("halted", [True, False])
def test_what_was_filled_before_a_halt_is_not_committed(
    committer: Committer, monkeypatch: pytest.MonkeyPatch, *, halted: bool
) -> None:
    journal, filled = Filling(), cast(Pending, "filled")
    monkeypatch.setattr(committer, "_journal", journal)

    async def commit() -> None:
        one = waiting()
        if halted:
            committer.halt(IntegrityViolation("damaged"))
            ((answered, error),) = committer._commit([one], filled)
            assert (answered, type(error)) == ([one], IntegrityViolation)
            assert journal.done == ["give up"]
            assert committer._commit([one]) != []
            assert journal.done == ["give up"], "there is nothing to give up of what was not filled"
        else:
            assert committer._commit([one], filled) == []
            assert journal.done == [("write", filled)]

    asyncio.run(commit())


def test_what_was_committed_is_settled_once(committer: Committer, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Filling()
    monkeypatch.setattr(committer, "_journal", journal)

    async def settle() -> None:
        one = waiting()
        transaction = Transaction([one], 1, cast(Pending, "filled"), 0.0)
        committer._unsettled = transaction
        for _ in range(2):
            committer._settle(transaction)
        assert journal.done == [("settle", "filled", True)]
        assert one.future.done()

    asyncio.run(settle())


def test_an_answer_is_given_on_the_loop_that_waits(committer: Committer, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, resolve = list[threading.Thread](), committer._resolve

    def watched(*given: Any) -> None:  # noqa: ANN401
        threads.append(threading.current_thread())
        resolve(*given)

    monkeypatch.setattr(committer, "_resolve", watched)

    async def answer() -> None:
        here, from_elsewhere = waiting(), waiting()
        committer._answer([here], None)
        assert here.future.done()
        await asyncio.to_thread(committer._answer, [from_elsewhere], None)
        await from_elsewhere.future

    asyncio.run(answer())
    assert threads == [threading.main_thread()] * 2


def test_who_has_an_error_of_its_own_is_told_that(committer: Committer) -> None:
    async def answer() -> None:
        for own, error in ((True, False), (True, True), (False, True), (False, False)):
            one = waiting()
            one.item.error = Overloaded("own") if own else None
            committer._resolve([one], AuditUnavailable("all") if error else None)
            expected = Overloaded if own else AuditUnavailable if error else type(None)
            assert type(one.future.exception()) is expected

    asyncio.run(answer())


@pytest.mark.parametrize(("faulty", "busy"), [(True, False), (True, True), (False, False), (False, True)])
def test_a_fault_is_cleared_by_whoever_is_idle(
    committer: Committer, monkeypatch: pytest.MonkeyPatch, *, faulty: bool, busy: bool
) -> None:
    """A transaction that is under way meets the fault itself."""
    recovered: list[bool] = []
    monkeypatch.setattr(committer, "_recover", lambda: recovered.append(True))
    committer._busy = busy
    assert committer._look_round(faulty=faulty) is None
    assert bool(recovered) is (faulty and not busy)


@pytest.mark.parametrize("started", [True, False])
def test_the_end_is_that_of_the_thread(committer: Committer, monkeypatch: pytest.MonkeyPatch, *, started: bool) -> None:
    joined: list[bool] = []
    thread = SimpleNamespace(ident=1 if started else None, join=lambda: joined.append(True))
    monkeypatch.setattr(committer, "_thread", thread)
    committer.close()
    assert bool(joined) is started


def test_who_comes_after_the_last_look_is_refused(committer: Committer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "_wait", lambda: None)

    async def end() -> None:
        late = ask(committer)
        committer._run()
        assert isinstance(late.exception(), AuditUnavailable)
        assert committer.waiting == 0
        committer._stopped = True
        assert isinstance(ask(committer).exception(), AuditUnavailable)
        assert committer.waiting == 0

    asyncio.run(end())


@pytest.mark.parametrize(
    ("state", "seconds"),
    [
        ({}, None),
        ({"_unsettled": "a transaction"}, module.WATCH_SECONDS),
        ({"_turn": "a turn"}, module.WATCH_SECONDS),
        ({"_closing": True, "_busy": True}, module.WATCH_SECONDS),
        ({"fault": AuditUnavailable("gone")}, module.RETRY_SECONDS),
        ({"fault": AuditUnavailable("gone"), "_turn": "a turn"}, module.WATCH_SECONDS),
        ({"fault": IntegrityViolation("damaged"), "halted": True}, None),
    ],
)
def test_the_thread_sleeps_until_it_has_something_to_look_after(
    committer: Committer, monkeypatch: pytest.MonkeyPatch, state: dict[str, Any], seconds: float | None
) -> None:
    slept, transaction = list[float | None](), Transaction([], 0, None, 0.0)

    def get(*, timeout: float | None) -> Transaction:
        slept.append(timeout)
        return transaction

    monkeypatch.setattr(committer, "_handed", SimpleNamespace(get=get))
    for name, value in state.items():
        setattr(committer, name, value)
    assert committer._wait() is transaction
    assert slept == [seconds]


def test_the_thread_waits_for_the_lock_when_it_is_handed_a_turn(
    committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn, transaction = Turn(asyncio.new_event_loop()), Transaction([], 0, None, 0.0)
    turn.loop.close()
    awaited: list[Turn] = []

    def wait(given: Turn) -> Transaction | None:
        awaited.append(given)
        return None

    monkeypatch.setattr(committer, "_await_turn", wait)
    for one in (turn, transaction):
        committer._handed.put(one)
    assert committer._wait() is transaction
    assert awaited == [turn]


def test_whom_the_thread_has_taken_is_not_told_that_nothing_was_done(
    committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "_journal", Filling())

    async def take() -> None:
        one, abandoned = waiting(), waiting()
        abandoned.abandoned = True
        for late in (one, abandoned):
            late.since -= module.PATIENCE_SECONDS + 1
        committer._in_hand = (one, abandoned)
        assert committer._commit([one, abandoned]) == [([one], None)]
        committer._watch(asyncio.get_running_loop())
        assert not one.abandoned
        assert not one.future.done()

    asyncio.run(take())
