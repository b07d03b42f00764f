"""A batch: the requests that share one transaction, and how far it is.

    loop    form, lock, prepare            publish, answer       where nothing has to be waited for
    thread                       COMMIT
    -------------------------------------------------------------------------------------------------
    thread  lock                 COMMIT    publish               where another process has the lock,
    loop          prepare                            answer      or a flush has to be waited for
    -------------------------------------------------------------------------------------------------
    thread  lock, prepare,       COMMIT,   publish               where anything is remote or at fault
    loop                                             answer

Every batch passes through the same phases. Only who takes the step differs, and whether the step may block.
"""

from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from keyvault_lite.ledger.commit.queue import Waiter
from keyvault_lite.ledger.commit.write_set import CommitRequest, WriteSet


class Phase(Enum):
    """How far a batch is. A phase is entered once, and none is left for an earlier one but by what is noted."""

    FORMED = auto()
    """It has the next place. Requests still join it until the lock is held; nothing was written."""
    LOCKED = auto()
    """The thread holds the lock for the loop that prepares the batch; back to FORMED if that loop does not come."""
    PREPARED = auto()
    """All is written but COMMIT, with the lock held; back to FORMED if the transaction has to be given up."""
    COMMITTED = auto()
    """Durable, with the lock held: a loop or the thread publishes it, and nothing of it is answered yet."""
    PUBLISHING = auto()
    """Somebody publishes it; back to COMMITTED where a loop would have to wait for the anchor."""
    PUBLISHED = auto()
    """In the anchor, signed; the lock is free. Its callers are answered next."""


@dataclass(slots=True, eq=False)
class Batch:
    """The one batch in progress."""

    phase: Phase = Phase.FORMED
    waiters: Sequence[Waiter] = ()
    """Its members, once they have left the queue."""
    entries: int = 0
    """Of its members as they came."""
    write_set: WriteSet | None = None
    """What is written in the open transaction; None before that."""
    began: float = 0.0
    """`time.perf_counter` when its members left the queue."""
    preparing_loop: AbstractEventLoop | None = None
    """The loop that prepares it once the thread has the lock; None if the thread does all of it."""

    def claim(self) -> list[CommitRequest]:
        """The requests that are committed: from now on a member is not told any more that nothing was done.

        Members that gave up before stay out of the log. May be called again, with the same result.
        """
        for waiter in self.waiters:
            waiter.claimed = not waiter.abandoned
        return [waiter.request for waiter in self.waiters if waiter.claimed]

    def release(self) -> None:
        """Undo `claim`: nothing was written, and the thread will prepare it."""
        for waiter in self.waiters:
            waiter.claimed = False


Observer = Callable[[Batch], None]
"""Called when a batch has entered a phase, by the thread that took the step, and before the next one.

The seam for tests that look at a commit or hold it at a phase; the product has none.
"""


def unobserved(_: Batch) -> None:
    """The observer of the product."""
