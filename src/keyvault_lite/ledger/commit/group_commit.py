"""Group commit: requests that wait are committed as one transaction, and answered once it is durable.

Requests in flight share one lock, one flush and one wake-up. No caller is answered before COMMIT has succeeded and the
checkpoint is published; a caller whose request cannot be recorded in time is refused, and nothing of it was done.

An event loop, which must not block, and the committer's thread, which may, take the steps of a batch (see `batch`). The
loop prepares and publishes where that needs no waiting: in a thread beside a busy loop, these steps would hand the
interpreter back and forth at each of some forty short calls (ADR 16). Where there is anything to wait for (the lock,
the network, a flush), or anything is at fault, the thread takes them.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from queue import Empty, SimpleQueue
from typing import Final

from keyvault_lite.ledger.commit.availability import Availability, StoreFull
from keyvault_lite.ledger.commit.batch import Batch, Observer, Phase, unobserved
from keyvault_lite.ledger.commit.batching_delay import BatchingDelay
from keyvault_lite.ledger.commit.loops import call_soon, running_loop
from keyvault_lite.ledger.commit.queue import CommitQueue, Waiter, expire
from keyvault_lite.ledger.commit.write_set import CommitRequest, WriteSet
from keyvault_lite.ledger.commit.writer import Writer
from keyvault_lite.ledger.state.outcome import Committed, Outcome
from keyvault_lite.ledger.state.snapshot import SnapshotVersion, State
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, KeyVaultError
from keyvault_lite.observe.metrics import METRICS

WATCH_SECONDS: Final = 0.25
"""How often requests that wait too long are looked for: their callers are answered within five seconds."""
RETRY_SECONDS: Final = 1.0
"""How often an idle process tries whether a fault is over."""

log = logging.getLogger("keyvault_lite.ledger")
_Answers = list[tuple[Sequence[Waiter], KeyVaultError | None]]
"""Waiters that are to be answered, and the error if they have none of their own."""


class _Lifecycle(Enum):
    RUNNING = auto()
    CLOSING = auto()
    """No request is taken any more; those in the queue are committed."""
    STOPPED = auto()
    """The thread has looked at the queue for the last time."""


class GroupCommit:
    """Schedules batches: which requests are in the next one, who takes its next step, who is answered with what."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.availability = Availability()
        self.stuck: KeyVaultError | None = None
        """Why a request has waited too long for the lock or for COMMIT; None once the batch has finished."""
        self.observer: Observer = unobserved
        self._queue = CommitQueue()
        self._batch: Batch | None = None
        """The batch in progress: there is one at a time."""
        self._delay = BatchingDelay(lambda: len(self._queue), self._form)
        self._inbox: SimpleQueue[Batch | None] = SimpleQueue()
        """Batches for the thread; None to have it look at the batch in progress again."""
        self._mutex = threading.Lock()
        """Held, briefly, to move requests from the queue to a batch and a batch to its next phase."""
        self._watched: set[asyncio.AbstractEventLoop] = set()
        self._lifecycle = _Lifecycle.RUNNING
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        METRICS.gauge("keyvault_queue_entries", "Entries that wait for their transaction.", lambda: self.waiting)

    # Called by the ledger

    def start(self) -> None:
        """Begin to commit."""
        self._thread.start()

    def close(self) -> None:
        """Commit what is in the queue, then stop."""
        self._lifecycle = _Lifecycle.CLOSING
        self._inbox.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def waiting(self) -> int:
        """Entries of requests in the queue or in the batch in progress."""
        return self._queue.entries

    def commit(
        self, outcome: Outcome, since: SnapshotVersion, redo: Callable[[State], Outcome]
    ) -> asyncio.Future[Committed]:
        """A future that is done once the outcome, or what `redo` made of it under the lock, is durable.

        Raises Overloaded at once if too much is waiting already.
        """
        if self._lifecycle is not _Lifecycle.RUNNING or self.availability.halted:
            raise self.availability.refusal()
        loop = asyncio.get_running_loop()
        waiter = Waiter(CommitRequest(outcome, since, redo), loop)
        self._queue.append(waiter)
        if self._delay.loop is not loop and self._batch is None:
            self._delay.start(loop)
        if self._has_stopped:  # since the first look
            self._refuse_all()
        if loop not in self._watched:
            self._watched.add(loop)
            loop.call_later(WATCH_SECONDS, self._watch, loop)
        return waiter.future

    def report(self, fault: KeyVaultError) -> None:
        """Take over a fault found elsewhere: nothing is committed until the store is written again."""
        if isinstance(fault, IntegrityViolation):
            self.halt(fault)
        elif self.availability.suspect(fault):
            self._inbox.put(None)  # so that the thread begins to try again

    def halt(self, reason: IntegrityViolation) -> None:
        """Stop all service: the log itself is damaged. Only a restart, with its checks, begins again."""
        self.availability.fail(reason)

    # On a loop: forming and preparing a batch

    def _form(self, loop: asyncio.AbstractEventLoop) -> None:
        """Form a batch of what is waiting, unless there is one in progress."""
        self._delay.loop = None
        with self._mutex:
            if self._batch is not None or self._has_stopped or not self._queue:
                return
            batch = self._batch = Batch()
        if self.availability.fault is not None or not self._writer.is_local:
            self._inbox.put(batch)
        elif self._writer.try_acquire():
            self._prepare(batch)
        else:
            # Requests that arrive while the thread waits for the lock join the batch.
            batch.preparing_loop = loop
            self._inbox.put(batch)

    @property
    def _has_stopped(self) -> bool:
        return self._lifecycle is _Lifecycle.STOPPED

    def _prepare_locked(self, batch: Batch) -> None:
        """As `_prepare`, for a batch that the thread has locked, if it still is."""
        with self._mutex:
            if batch.phase is not Phase.LOCKED:
                return
            batch.phase = Phase.FORMED
        self._prepare(batch)

    def _prepare(self, batch: Batch) -> None:
        """With the lock held: write all of the batch but COMMIT, and hand it to the thread."""
        with self._mutex:
            self._fill(batch)
            requests = batch.claim()
        batch.write_set = self._writer.try_prepare(requests)
        if batch.write_set is None:
            with self._mutex:
                batch.release()
        else:
            self._enter(batch, Phase.PREPARED)
        batch.preparing_loop = None
        self._inbox.put(batch)

    def _fill(self, batch: Batch) -> None:
        """Move requests from the queue into the batch. Under the mutex: `_watch` must find each in one of the two."""
        batch.waiters, batch.entries = self._queue.take()
        batch.began = time.perf_counter()
        self._delay.last_was_shared = len(batch.waiters) > 1

    # In the thread: waiting for the lock, COMMIT, and whatever may block

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            answers = self._commit(batch)
            if answers:
                self._finish(batch, answers)
            else:
                call_soon({waiter.loop for waiter in batch.waiters}, self._publish_on_loop, batch)
        self._refuse_all()

    def _next(self) -> Batch | None:
        """Sleep until there is a batch to commit; None when there will be no more."""
        while True:
            if self._lifecycle is _Lifecycle.CLOSING:
                with self._mutex:
                    if self._batch is None:
                        if not self._queue:
                            self._lifecycle = _Lifecycle.STOPPED
                            return None
                        batch = self._batch = Batch()
                        self._fill(batch)
                        return batch
            try:
                batch_or_none = self._inbox.get(timeout=self._patience())
            except Empty:
                batch_or_none = None
            batch_to_commit = self._look_again() if batch_or_none is None else self._ready(batch_or_none)
            if batch_to_commit is not None:
                return batch_to_commit

    def _patience(self) -> float | None:
        """How long the thread sleeps unless it is handed something."""
        if self._lifecycle is _Lifecycle.CLOSING or self._awaits_loop:
            return WATCH_SECONDS
        return RETRY_SECONDS if self._can_recover else None

    @property
    def _awaits_loop(self) -> bool:
        return self._batch is not None and self._batch.phase in {Phase.LOCKED, Phase.COMMITTED}

    @property
    def _can_recover(self) -> bool:
        return self.availability.fault is not None and not self.availability.halted

    def _look_again(self) -> Batch | None:
        """Take the step that a loop was called for and has not taken, or see whether a fault is over."""
        batch = self._batch
        if batch is None:
            if self._can_recover:
                self._recover()
        elif batch.phase is Phase.COMMITTED:
            self._publish_in_thread(batch)
        elif batch.phase is Phase.LOCKED:
            return self._take_back(batch)
        return None

    def _ready(self, batch: Batch) -> Batch | None:
        """A batch that was handed over, once it can be committed; None if a loop is to prepare it first."""
        if batch.preparing_loop is None:
            return self._filled(batch)
        try:
            self._writer.acquire()
        except KeyVaultError:
            return self._filled(batch)  # committing it meets the fault again, and reports it
        self._enter(batch, Phase.LOCKED)
        call_soon({batch.preparing_loop}, self._prepare_locked, batch)
        return None

    def _take_back(self, batch: Batch) -> Batch | None:
        """Give the lock back if the loop has not come to prepare; the thread does all of it then."""
        with self._mutex:
            if batch.phase is not Phase.LOCKED:
                return None
            batch.phase = Phase.FORMED
        self._writer.release()
        return self._filled(batch)

    def _filled(self, batch: Batch) -> Batch:
        if not batch.waiters:
            with self._mutex:
                self._fill(batch)
        return batch

    def _commit(self, batch: Batch) -> _Answers:
        """Make the batch durable; the answers to give, or none if a loop has to publish it first."""
        if batch.phase is Phase.PREPARED and self.availability.fault is not None:  # halted since it was prepared
            self._writer.give_up()
            batch.phase, batch.write_set = Phase.FORMED, None
        try:
            if self.availability.fault is not None and not self._recover():
                return [(batch.waiters, self.availability.refusal())]
            by_loop = batch.phase is Phase.PREPARED
            try:
                write_set = self._prepare_and_commit(batch)
            except StoreFull as full:
                # The reserve is kept for this: the record of a denial and a revocation still fit.
                self._writer.make_room(full)
                batch.phase, by_loop = Phase.FORMED, False
                write_set = self._prepare_and_commit(batch)
            self._enter(batch, Phase.COMMITTED)
            if by_loop and not self._writer.publishing_blocks(write_set):
                return []
            batch.phase = Phase.PUBLISHING
            self._writer.publish(write_set)
            self._enter(batch, Phase.PUBLISHED)
        except KeyVaultError as refusal:
            return [(batch.waiters, self.availability.fail(refusal))]
        except Exception:
            # A defect, reached by one of the requests; nothing was committed, and the transaction was rolled back.
            log.exception("the committer failed")
            if len(batch.waiters) > 1:
                # Each gets a transaction of its own, so that one cannot keep the others from being recorded.
                singles = [Batch(waiters=[waiter], entries=waiter.entries) for waiter in batch.waiters]
                return [answer for single in singles for answer in self._commit(single)]
            return [(batch.waiters, self.availability.fail(AuditUnavailable("the audit log cannot be written")))]
        return [(batch.waiters, None)]

    def _prepare_and_commit(self, batch: Batch) -> WriteSet:
        if batch.phase is not Phase.PREPARED or batch.write_set is None:
            self._writer.acquire()
            batch.write_set = self._writer.prepare(lambda: self._claim(batch))
            self._enter(batch, Phase.PREPARED)
        self._writer.commit(batch.write_set)
        return batch.write_set

    def _claim(self, batch: Batch) -> list[CommitRequest]:
        with self._mutex:
            return batch.claim()

    def _recover(self) -> bool:
        """After a fault: a new connection, the catch-up with memory, and a flushed write; whether it is over."""
        if self.availability.halted:
            return False
        try:
            self._writer.recover()
        except KeyVaultError as refusal:
            self.availability.fail(refusal)
        except Exception:
            # Whatever it is, the fault that it was to clear remains, and recovery is tried again.
            log.exception("recovery failed")
        else:
            self.availability.clear()
        return self.availability.fault is None

    # Publishing: on a loop, or in the thread where it may block

    def _publish_on_loop(self, batch: Batch) -> None:
        self._publish(batch, self._writer.try_publish)

    def _publish_in_thread(self, batch: Batch) -> None:
        def publish(write_set: WriteSet) -> bool:
            self._writer.publish(write_set)
            return True

        self._publish(batch, publish)

    def _publish(self, batch: Batch, publish: Callable[[WriteSet], bool]) -> None:
        """Publish and answer a committed batch, unless another thread does or has done so."""
        with self._mutex:
            if batch.phase is not Phase.COMMITTED or batch.write_set is None:
                return
            batch.phase = Phase.PUBLISHING
        error: KeyVaultError | None = None
        try:
            if not publish(batch.write_set):
                # Another process uses the anchor. The thread waits for it.
                batch.phase = Phase.COMMITTED
                self._inbox.put(None)
                return
            self._enter(batch, Phase.PUBLISHED)
        except KeyVaultError as refusal:
            error = self.availability.fail(refusal)
        self._finish(batch, [(batch.waiters, error)])

    # The end of a batch

    def _enter(self, batch: Batch, phase: Phase) -> None:
        batch.phase = phase
        self.observer(batch)

    def _finish(self, batch: Batch, answers: _Answers) -> None:
        METRICS.commit_seconds.add(time.perf_counter() - batch.began)
        METRICS.commit_entries.add(batch.entries)
        # Before the answers: a caller that has its answer finds that the queue no longer counts it.
        with self._mutex:  # in one step: `_watch` no longer finds these waiters late
            self._queue.leave(batch.entries)
            self._batch, self.stuck = None, None
        for waiters, error in answers:
            self._answer(waiters, error)

    def _answer(self, waiters: Sequence[Waiter], error: KeyVaultError | None) -> None:
        here = running_loop()
        for loop in {waiter.loop for waiter in waiters}:
            mine = [waiter for waiter in waiters if waiter.loop is loop]
            if loop is here:
                self._resolve(loop, mine, error)
            else:
                call_soon({loop}, self._resolve, loop, mine, error)

    def _resolve(self, loop: asyncio.AbstractEventLoop, waiters: Sequence[Waiter], error: KeyVaultError | None) -> None:
        """Answer waiters on their loop, and begin the next batch."""
        for waiter in waiters:
            waiter.answer(error)
        if self._queue and self._delay.loop is None:
            self._delay.resume(loop)

    # Requests that are not committed

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer the waiters of a loop that have waited too long. Runs on it while any of them waits."""
        with self._mutex:
            taken = () if self._batch is None else self._batch.waiters
            mine = [waiter for waiter in (*taken, *self._queue) if waiter.loop is loop]
            self.stuck = expire(mine) or self.stuck
        if mine:
            loop.call_later(WATCH_SECONDS, self._watch, loop)
            self._form(loop)  # in case the loop that was asked to has ended
        else:
            self._watched.discard(loop)

    def _refuse_all(self) -> None:
        """Refuse the requests that came after the thread's last look at the queue."""
        with self._mutex:
            late = self._queue.take_all()
        self._answer(late, AuditUnavailable("the server is shutting down"))
