"""Group commit: what is waiting is committed as one transaction, and whoever waits for it is woken.

Requests in flight share one lock, one flush and one wake-up. Nobody is answered before COMMIT has succeeded; whoever
cannot be recorded within the limit is told so, and is certain that nothing was done.

A transaction is filled on the event loop when that takes no waiting, and committed by a thread, which waits for the
disk. Filled in the thread, beside a loop that is busy, it would take the interpreter from the loop and give it back at
each of some forty short calls, which costs more than the calls. Where there is anything to wait for (the lock, another
program, the network) or anything is wrong, the thread does all of it: the loop's way is the short one, not another.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final

from keyvault_lite.ledger.commit.journal import Journal
from keyvault_lite.ledger.commit.queue import Transaction, Turn, Waiting, refuse_late, running_loop
from keyvault_lite.ledger.commit.transaction import Item, Pending
from keyvault_lite.ledger.state.outcome import Committed, Outcome
from keyvault_lite.ledger.state.snapshot import Moment, State
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, KeyVaultError, Overloaded
from keyvault_lite.observe.metrics import METRICS

MAX_BATCH: Final = 256
MAX_ENTRIES: Final = 2_000
"""Entries after which a transaction takes no more: it lasts tens of milliseconds, and who comes next waits for it."""
MAX_WAITING: Final = 20_000
"""Entries that may wait, about a second's work: who would wait longer is turned away at once."""
LINGER_SECONDS: Final = 0.004
"""How long a transaction waits for company at the most, while company comes (measured: docs/performance.md)."""
QUIET: Final = 16
"""Rounds of the loop without a newcomer after which nobody is waited for: a tenth of a millisecond if it is idle."""
ENOUGH: Final = 64
"""Waiting requests that make lingering pointless."""
PATIENCE_SECONDS: Final = 4.5
"""How long a request may wait for the lock before it is told that it cannot be recorded."""
PATIENCE_AT_COMMIT: Final = 2 * PATIENCE_SECONDS
"""How long it may wait for its COMMIT; what comes of that is not known then."""
WATCH_SECONDS: Final = 0.25
"""How often that is looked at: whoever cannot be recorded knows within five seconds."""
RETRY_SECONDS: Final = 1.0
"""How often an idle process tries whether a fault is over."""

log = logging.getLogger("keyvault_lite.ledger")
_Answers = list[tuple[list[Waiting], KeyVaultError | None]]
"""Who is to be answered, and with which error."""


class Committer:
    """The queue and its thread."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._queue: deque[Waiting] = deque()
        self._in_hand: tuple[Waiting, ...] = ()
        self._entered = 0
        """Entries that ever came into the queue, counted by the loop; and that left it, counted by the thread."""
        self._left = 0
        self._busy = False
        """Whether a transaction is under way, from its first item to its answers."""
        self._called: asyncio.AbstractEventLoop | None = None
        """The loop that is to begin the next one."""
        self._company = False
        """Whether the transaction before was of several requests: who comes alone, waits for nobody."""
        self._handed: SimpleQueue[Transaction | Turn | None] = SimpleQueue()
        """What the loop hands to the thread; None to have it look round."""
        self._turn: Turn | None = None
        """For whom the thread has taken the lock, until a loop fills."""
        self._unsettled: Transaction | None = None
        """What the thread has committed and a loop is to settle."""
        self._claim = threading.Lock()
        self._watching: set[asyncio.AbstractEventLoop] = set()
        self._closing = False
        self._stopped = False
        """Whether the thread has looked at the queue for the last time."""
        self.fault: KeyVaultError | None = None
        """Why nothing can be committed at present."""
        self.stuck: KeyVaultError | None = None
        """Why somebody has waited too long for the lock or a COMMIT, until it has come."""
        self.halted = False
        """Whether only a restart, with its checks, can clear the fault."""
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        METRICS.gauge("keyvault_queue_entries", "Entries that wait for their transaction.", lambda: self.waiting)

    def start(self) -> None:
        """Begin to take items."""
        self._thread.start()

    def close(self) -> None:
        """Commit what is waiting, then stop."""
        self._closing = True
        self._handed.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def waiting(self) -> int:
        """How many entries are in the queue or in the transaction under way."""
        return self._entered - self._left

    def commit(self, outcome: Outcome, since: Moment, redo: Callable[[State], Outcome]) -> asyncio.Future[Committed]:
        """A future that is done once the outcome, or what `redo` made of it under the lock, is durable.

        Raises Overloaded at once if too much is waiting already.
        """
        if self._closing or self.halted:
            raise self._refusal()
        if self.waiting >= MAX_WAITING:
            raise Overloaded("too many requests are waiting to be recorded; nothing was done")
        self._entered += len(outcome.drafts)
        loop = asyncio.get_running_loop()
        waiting = Waiting(Item(outcome, since, redo), loop)
        self._queue.append(waiting)
        if self._called is not loop and not self._busy:
            self._called = loop
            loop.call_soon(self._linger, loop, 0, 0, time.perf_counter() + LINGER_SECONDS)
        if self._stopped:
            self._turn_away()
        if loop not in self._watching:
            self._watching.add(loop)
            loop.call_later(WATCH_SECONDS, self._watch, loop)
        return waiting.future

    def _refusal(self) -> KeyVaultError:
        return AuditUnavailable("the server is shutting down") if self.fault is None else self.fault.again()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer those who have waited too long. Runs on the loop while anyone of it is waiting."""
        with self._claim:
            mine = [one for one in (*self._in_hand, *self._queue) if one.loop is loop]
            self.stuck = refuse_late(mine, PATIENCE_SECONDS, PATIENCE_AT_COMMIT) or self.stuck
        if mine:
            loop.call_later(WATCH_SECONDS, self._watch, loop)
            self._begin()  # in case the loop that was called for it has ended
        else:
            self._watching.discard(loop)

    def _linger(self, loop: asyncio.AbstractEventLoop, seen: int, quiet: int, until: float) -> None:
        """Let the loop go round as long as that brings company, so that the fixed cost of a transaction is shared."""
        count = len(self._queue)
        quiet = 0 if count > seen else quiet + 1
        if self._company and count < ENOUGH and quiet < QUIET and time.perf_counter() < until:
            loop.call_soon(self._linger, loop, count, quiet, until)
        else:
            self._begin()

    def _begin(self) -> None:
        """Take what is waiting into a transaction, unless one is under way. Runs on a loop."""
        self._called = None
        with self._claim:
            if self._busy or self._stopped or not self._queue:
                return
            self._busy = True
        if self.fault is not None or not self._journal.fills_at_once:
            self._handed.put(self._all_of_it())
        elif self._journal.try_hold():
            self._fill()
        else:
            # Whoever comes while the thread waits for the lock comes into the same transaction.
            self._handed.put(Turn(asyncio.get_running_loop()))

    def _all_of_it(self) -> Transaction:
        """What is waiting, as a transaction that the thread fills too."""
        with self._claim:
            return Transaction(*self._take(), None, time.perf_counter())

    def _fill(self) -> None:
        """With the lock held: fill what is waiting, and hand it to the thread. Runs on a loop."""
        began = time.perf_counter()
        with self._claim:
            batch, entries = self._take()
            for one in batch:
                one.taken = not one.abandoned
        filled = self._journal.fill_held([one.item for one in batch if one.taken])
        if filled is None:
            with self._claim:
                for one in batch:
                    one.taken = False
        self._handed.put(Transaction(batch, entries, filled, began))

    def _fill_in_turn(self, turn: Turn) -> None:
        """As `_fill`, if the thread still holds the lock for it."""
        with self._claim:
            if self._turn is not turn:
                return
            self._turn = None
        self._fill()

    def _await_turn(self, turn: Turn) -> Transaction | None:
        """Wait for the lock, and call a loop to fill. A transaction, if the thread is to do all of it instead."""
        try:
            self._journal.hold()
        except KeyVaultError:
            return self._all_of_it()  # it meets the fault again, and tells it
        self._turn = turn
        self._call({turn.loop}, self._fill_in_turn, turn)
        return None

    def _end_turn(self) -> Transaction | None:
        """Give the lock back if no loop came to fill; the thread does all of it then."""
        with self._claim:
            turn, self._turn = self._turn, None
        if turn is None:
            return None
        self._journal.release()
        return self._all_of_it()

    def _run(self) -> None:
        while (transaction := self._wait()) is not None:
            answers = self._commit(transaction.batch, transaction.filled)
            if answers:
                self._finish(transaction, answers)
            else:
                # A loop does the rest: it takes no waiting, and no turns with the loop either.
                self._unsettled = transaction
                self._call({one.loop for one in transaction.batch}, self._settle, transaction)
        self._turn_away()

    def _settle(self, transaction: Transaction) -> None:
        """Do what comes between COMMIT and the answers, once: on a loop, or in the thread if no loop comes to it."""
        with self._claim:
            if self._unsettled is not transaction or transaction.filled is None:
                return
            self._unsettled = None
        error: KeyVaultError | None = None
        try:
            if not self._journal.settle(transaction.filled, at_once=running_loop() is not None):
                # The anchor is in use: the thread waits for it, the loop for nobody.
                self._unsettled = transaction
                self._handed.put(None)
                return
        except KeyVaultError as refusal:
            error = self._fail(refusal)
        self._finish(transaction, [(transaction.batch, error)])

    def _finish(self, transaction: Transaction, answers: _Answers) -> None:
        METRICS.commit_seconds.add(time.perf_counter() - transaction.began)
        METRICS.commit_entries.add(transaction.entries)
        # Before anyone is answered: who was, finds that the queue no longer counts it.
        with self._claim:  # in one step: whoever looks finds them late no more
            self._in_hand, self.stuck = (), None
        self._left += transaction.entries
        self._busy = False
        for answered, error in answers:
            self._answer(answered, error)

    def _take(self) -> tuple[list[Waiting], int]:
        """Who is next, and how many entries that is: as many as a transaction takes, or one that is larger."""
        batch: list[Waiting] = []
        entries = 0
        while self._queue and len(batch) < MAX_BATCH and entries < MAX_ENTRIES:
            batch.append(self._queue.popleft())
            entries += batch[-1].entries
        # In one step with the queue: `_watch` must find whoever waits in the one place or in the other.
        self._in_hand = tuple(batch)
        self._company = len(batch) > 1
        return batch, entries

    def _wait(self) -> Transaction | None:
        """Sleep until there is a transaction to commit; None when there is no more to come."""
        while True:
            if self._closing:
                with self._claim:
                    if not self._busy:
                        if not self._queue:
                            self._stopped = True
                            return None
                        self._busy = True
                        return Transaction(*self._take(), None, time.perf_counter())
            called = self._unsettled is not None or self._turn is not None
            faulty = self.fault is not None and not self.halted
            try:
                handed = self._handed.get(
                    timeout=WATCH_SECONDS if called or self._closing else RETRY_SECONDS if faulty else None
                )
            except Empty:
                handed = None
            if handed is None:
                handed = self._look_round(faulty=faulty)
            transaction = self._await_turn(handed) if isinstance(handed, Turn) else handed
            if transaction is not None:
                return transaction

    def _look_round(self, *, faulty: bool) -> Transaction | None:
        """See whether a loop that was called has not come, or a fault is over."""
        if self._unsettled is not None:
            self._settle(self._unsettled)
        elif self._turn is not None:
            return self._end_turn()
        elif faulty and not self._busy:
            self._recover()
        return None

    def _turn_away(self) -> None:
        """Refuse whoever came after the thread's last look at the queue."""
        with self._claim:
            late = list(self._queue)
            self._queue.clear()
            self._left += sum(one.entries for one in late)
        self._answer(late, AuditUnavailable("the server is shutting down"))

    def _commit(self, batch: list[Waiting], filled: Pending | None = None) -> _Answers:
        """Commit what is still waited for; who is to be answered now, and with which error if not with their own.

        Nobody, if it is committed and has to be settled.
        """
        taken: list[Waiting] = []

        def claim() -> list[Item]:
            # From here on the transaction has them; whoever was answered before stays out of the log.
            with self._claim:
                for one in batch:
                    if not one.abandoned:
                        one.taken = True
                        taken.append(one)
            return [one.item for one in taken]

        error: KeyVaultError | None = None
        if filled is not None and self.fault is not None:  # halted since it was filled
            self._journal.give_up()
            filled = None
        try:
            if self.fault is None or self._recover():
                if self._journal.write(claim, filled) is not None:
                    return []
            else:
                error = self._refusal()
        except KeyVaultError as refusal:
            error = self._fail(refusal)
        except Exception:
            # A defect of ours, brought up by one of them; nothing was committed (the transaction was rolled back).
            log.exception("the committer failed")
            if len(batch) > 1:
                # Each gets a transaction of its own, so that one cannot keep the others from being recorded.
                return [answer for one in batch for answer in self._commit([one])]
            error = self._fail(AuditUnavailable("the audit log cannot be written"))
        return [(taken or batch, error)]

    def _answer(self, batch: Sequence[Waiting], error: KeyVaultError | None) -> None:
        here = running_loop()
        for loop in {one.loop for one in batch}:
            mine = [one for one in batch if one.loop is loop]
            if loop is here:
                self._resolve(mine, error)
            else:
                self._call({loop}, self._resolve, mine, error)

    @staticmethod
    def _call(loops: set[asyncio.AbstractEventLoop], function: Callable[..., None], *arguments: object) -> None:
        """Have a loop call it soon. A loop that was closed has nobody waiting any more."""
        for loop in loops:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(function, *arguments)

    def report(self, fault: KeyVaultError) -> None:
        """Take note of a fault that others have met: nothing is committed until the store is well again."""
        if isinstance(fault, IntegrityViolation):
            self.halt(fault)
        elif self.fault is None:
            self.fault = fault
            log.error("the store cannot be written: %s: %s", fault.code, fault.detail)
            self._handed.put(None)  # so that the thread begins to try again

    def halt(self, reason: IntegrityViolation) -> None:
        """Stop all service: the log itself is damaged. Only a restart, with its checks, begins again."""
        self._fail(reason)

    def _fail(self, refusal: KeyVaultError) -> KeyVaultError:
        self.fault = refusal
        self.halted = self.halted or isinstance(refusal, IntegrityViolation)
        METRICS.commit_failures += 1
        log.error("commit failed: %s: %s", refusal.code, refusal.detail)
        return refusal

    def _recover(self) -> bool:
        """After a fault: a fresh connection, the catch-up against memory, and a flushed write; whether it is over."""
        if self.halted:
            return False
        try:
            self._journal.reopen()
            self._journal.refresh()
            self._journal.probe()
        except KeyVaultError as refusal:
            self._fail(refusal)
        except Exception:
            # Whatever it is, the fault it was to clear stands, and so it is tried again.
            log.exception("recovery failed")
        else:
            self.fault = None
            log.info("the audit log can be written again")
        return self.fault is None

    def _resolve(self, batch: Sequence[Waiting], error: KeyVaultError | None) -> None:
        for one in batch:
            one.answer(error)
        if self._queue and self._called is None and batch:
            self._called = batch[0].loop
            self._linger(self._called, 0, 0, time.perf_counter() + LINGER_SECONDS)
