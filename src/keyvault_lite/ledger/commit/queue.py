"""The queue of requests that wait for a transaction."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from keyvault_lite.ledger.commit.write_set import CommitRequest
from keyvault_lite.ledger.state.outcome import Committed
from keyvault_lite.model.errors import AuditUnavailable, KeyVaultError, OutcomeUnknown, Overloaded

MAX_REQUESTS: Final = 256
"""Requests in one transaction."""
MAX_ENTRIES: Final = 2_000
"""Entries after which a transaction takes no more: it lasts tens of milliseconds, and the next one waits for it."""
MAX_WAITING: Final = 20_000
"""Entries that may wait, about a second's work: a request beyond that is refused at once."""
LOCK_SECONDS: Final = 4.5
"""How long a request waits for the lock before it is refused as not recorded."""
COMMIT_SECONDS: Final = 2 * LOCK_SECONDS
"""How long it waits for its COMMIT; the outcome is unknown then."""


class Waiter:
    """A request, and the future of the caller that waits for it."""

    __slots__ = ("abandoned", "claimed", "entries", "future", "loop", "request", "since")

    def __init__(self, request: CommitRequest, loop: asyncio.AbstractEventLoop) -> None:
        self.request = request
        self.entries = len(request.outcome.drafts)
        """As it came: evaluated again, it may have another number."""
        self.loop = loop
        self.future: asyncio.Future[Committed] = loop.create_future()
        self.since = time.monotonic()
        self.claimed = False
        """Whether a transaction has it."""
        self.abandoned = False
        """Whether its caller was told that nothing was done. Never both."""

    def refuse(self, error: KeyVaultError) -> None:
        """Answer with an error, unless it was answered. Runs on its loop."""
        if not self.future.done():
            self.future.set_exception(error)

    def answer(self, error: KeyVaultError | None) -> None:
        """Answer with what was committed, else with the request's own error, else with that of the batch."""
        refusal = error if self.request.error is None else self.request.error
        if refusal is not None:
            # A new error for each: they are raised in different tasks.
            self.refuse(refusal.again())
        elif not self.future.done():
            self.future.set_result(Committed(self.request.outcome, self.request.first_id))


class CommitQueue:
    """Requests in the order of their arrival. Appended to on the loops; all else under the scheduler's mutex."""

    def __init__(self) -> None:
        self._waiters: deque[Waiter] = deque()
        # Entries are counted in by the loop and out by the thread: two counters need no lock.
        self._entered = 0
        self._left = 0

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self._waiters)

    @property
    def entries(self) -> int:
        """Entries of requests that have no answer yet, those of the batch in progress included."""
        return self._entered - self._left

    def append(self, waiter: Waiter) -> None:
        """Add a request. Raises Overloaded if too much is waiting already."""
        if self.entries >= MAX_WAITING:
            raise Overloaded("too many requests are waiting to be recorded; nothing was done")
        self._entered += waiter.entries
        self._waiters.append(waiter)

    def take(self) -> tuple[list[Waiter], int]:
        """The next requests and their entries: as many as a transaction takes, or one that is larger."""
        waiters: list[Waiter] = []
        entries = 0
        while self._waiters and len(waiters) < MAX_REQUESTS and entries < MAX_ENTRIES:
            waiters.append(self._waiters.popleft())
            entries += waiters[-1].entries
        return waiters, entries

    def take_all(self) -> list[Waiter]:
        """All requests, because no transaction will take them; they count no longer."""
        waiters = list(self._waiters)
        self._waiters.clear()
        self.leave(sum(waiter.entries for waiter in waiters))
        return waiters

    def leave(self, entries: int) -> None:
        """These entries are about to be answered."""
        self._left += entries


def expire(waiters: Iterable[Waiter]) -> KeyVaultError | None:
    """Answer the waiters whose time is over; the reason, if any of them waits too long.

    A request that no transaction has yet stays out of the log. The outcome of one in a transaction is unknown until its
    COMMIT returns. Runs on the loop of these waiters, under the scheduler's mutex.
    """
    reason: KeyVaultError | None = None
    now = time.monotonic()
    for waiter in waiters:
        if waiter.abandoned or waiter.since >= now - LOCK_SECONDS:
            continue
        if not waiter.claimed:
            waiter.abandoned = True
            reason = AuditUnavailable("the database is locked by another process")
            waiter.refuse(reason.again())
            continue
        reason = reason or AuditUnavailable("the database does not answer a commit")
        if waiter.since < now - COMMIT_SECONDS:
            waiter.refuse(OutcomeUnknown("the database has not answered: whether this is recorded is unknown"))
    return reason
