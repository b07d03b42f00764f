"""Group commit: one thread a process takes what is waiting, commits it as one transaction and wakes who waits.

Requests in flight share one lock, one flush and one wake-up. Nobody is answered before COMMIT has succeeded; whoever
cannot be recorded within the limit is told so, and is certain that nothing was done.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from keyvault_lite.ledger.journal import Journal
from keyvault_lite.ledger.outcome import Committed, Outcome
from keyvault_lite.ledger.pending import Item
from keyvault_lite.ledger.state import State
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, KeyVaultError, Overloaded
from keyvault_lite.observe.metrics import METRICS

MAX_BATCH: Final = 256
MAX_ENTRIES: Final = 2_000
"""Entries after which a transaction takes no more: it lasts tens of milliseconds, and who comes next waits for it."""
MAX_WAITING: Final = 20_000
"""Entries that may wait, about a second's work: who would wait longer is turned away at once."""
LINGER_SECONDS: Final = 0.0004
"""How long a transaction waits for company once there is more than one caller (measured: docs/performance.md)."""
ENOUGH: Final = 64
"""Waiting requests that make lingering pointless."""
PATIENCE_SECONDS: Final = 4.5
"""How long a request may wait for the lock before it is told that it cannot be recorded."""
WATCH_SECONDS: Final = 0.25
"""How often that is looked at: whoever cannot be recorded knows within five seconds."""
RETRY_SECONDS: Final = 1.0
"""How often an idle process tries whether a fault is over."""

log = logging.getLogger("keyvault_lite.ledger")


class _Waiting:
    """An item, the future that waits for it, and who has it: the queue until the lock is held, then the transaction."""

    __slots__ = ("abandoned", "entries", "future", "item", "loop", "since", "taken")

    def __init__(self, item: Item, loop: asyncio.AbstractEventLoop) -> None:
        self.item = item
        self.entries = len(item.outcome.drafts)
        """As it came: `redo` may make another number of it."""
        self.loop = loop
        self.future: asyncio.Future[Committed] = loop.create_future()
        self.since = time.monotonic()
        self.taken = False
        self.abandoned = False


class Committer:
    """The queue and its thread."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._queue: deque[_Waiting] = deque()
        self._in_hand: tuple[_Waiting, ...] = ()
        self._wake = threading.Event()
        self._entered = 0
        """Entries that ever came into the queue, counted by the loop; and that left it, counted by the thread."""
        self._left = 0
        self._asleep = False
        self._claim = threading.Lock()
        self._watching: set[asyncio.AbstractEventLoop] = set()
        self._closing = False
        self._stopped = False
        """Whether the thread has looked at the queue for the last time."""
        self.fault: KeyVaultError | None = None
        """Why nothing can be committed at present."""
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
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def waiting(self) -> int:
        """How many entries are in the queue or in the transaction under way."""
        return self._entered - self._left

    async def commit(self, outcome: Outcome, since: int, redo: Callable[[State], Outcome]) -> Committed:
        """Wait until the outcome, or what `redo` made of it under the lock, is durable.

        Raises Overloaded at once if too much is waiting already.
        """
        if self._closing or self.halted:
            raise self._refusal()
        if self.waiting >= MAX_WAITING:
            raise Overloaded("too many requests are waiting to be recorded; nothing was done")
        self._entered += len(outcome.drafts)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(Item(outcome, since, redo), loop)
        self._queue.append(waiting)
        if self._asleep:
            self._wake.set()
        if self._stopped:
            self._turn_away()
        if loop not in self._watching:
            self._watching.add(loop)
            loop.call_later(WATCH_SECONDS, self._watch, loop)
        return await waiting.future

    def _refusal(self) -> KeyVaultError:
        return AuditUnavailable("the server is shutting down") if self.fault is None else self.fault.again()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer those who have waited too long for the lock. Runs on the loop while anyone of it is waiting."""
        late = time.monotonic() - PATIENCE_SECONDS
        with self._claim:
            mine = [one for one in (*self._in_hand, *self._queue) if one.loop is loop]
            abandoned = [one for one in mine if not one.taken and one.since < late and not one.abandoned]
            for one in abandoned:
                one.abandoned = True
        for one in abandoned:
            if not one.future.done():
                one.future.set_exception(AuditUnavailable("the database is locked by someone else"))
        if mine:
            loop.call_later(WATCH_SECONDS, self._watch, loop)
        else:
            self._watching.discard(loop)

    def _run(self) -> None:
        company = False
        while self._wait():
            if company and len(self._queue) < ENOUGH:
                time.sleep(LINGER_SECONDS)
            with self._claim:
                # In one step: `_watch` must find whoever waits in the one place or in the other.
                batch, entries = self._take()
                self._in_hand = tuple(batch)
            company = len(batch) > 1
            began = time.perf_counter()
            answers = self._commit(batch)
            # Before anyone is answered: who was, finds that the queue no longer counts it.
            self._in_hand = ()
            self._left += entries
            for answered, error in answers:
                self._answer(answered, error)
            METRICS.commit_seconds.add(time.perf_counter() - began)
            METRICS.commit_entries.add(entries)
        self._stopped = True
        self._turn_away()

    def _take(self) -> tuple[list[_Waiting], int]:
        """Who is next, and how many entries that is: as many as a transaction takes, or one that is larger."""
        batch: list[_Waiting] = []
        entries = 0
        while self._queue and len(batch) < MAX_BATCH and entries < MAX_ENTRIES:
            batch.append(self._queue.popleft())
            entries += batch[-1].entries
        return batch, entries

    def _wait(self) -> bool:
        """Sleep until something is in the queue; False when there is no more to come."""
        while not self._queue:
            self._asleep = True
            if not self._queue and not self._closing:
                self._wake.wait(RETRY_SECONDS if self.fault is not None and not self.halted else None)
            self._asleep = False
            self._wake.clear()
            if self._queue:
                break
            if self._closing:
                return False
            if self.fault is not None and not self.halted:
                self._recover()
        return True

    def _turn_away(self) -> None:
        """Refuse whoever came after the thread's last look at the queue."""
        with self._claim:
            late = list(self._queue)
            self._queue.clear()
            self._left += sum(one.entries for one in late)
        self._answer(late, AuditUnavailable("the server is shutting down"))

    def _commit(self, batch: list[_Waiting]) -> list[tuple[list[_Waiting], KeyVaultError | None]]:
        """Commit what is still waited for; who is to be answered now, and with which error if not with their own."""
        taken: list[_Waiting] = []

        def claim() -> list[Item]:
            # From here on the transaction has them; whoever was answered before stays out of the log.
            with self._claim:
                for one in batch:
                    if not one.abandoned:
                        one.taken = True
                        taken.append(one)
            return [one.item for one in taken]

        error: KeyVaultError | None = None
        try:
            if self.fault is None or self._recover():
                self._journal.write(claim)
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

    @staticmethod
    def _answer(batch: Sequence[_Waiting], error: KeyVaultError | None) -> None:
        for loop in {one.loop for one in batch}:
            mine = [one for one in batch if one.loop is loop]
            try:
                loop.call_soon_threadsafe(_resolve, mine, error)
            except RuntimeError:
                log.warning("a loop was closed before its requests were answered")

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


def _resolve(batch: Sequence[_Waiting], error: KeyVaultError | None) -> None:
    for one in batch:
        if one.future.done():
            continue
        refusal = error if one.item.error is None else one.item.error
        if refusal is not None:
            # An error of its own for each: they are raised in different tasks.
            one.future.set_exception(refusal.again())
        else:
            one.future.set_result(Committed(one.item.outcome, one.item.first_id))
