"""What waits for a transaction, and how it passes between a loop and the thread that commits it."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

from keyvault_lite.ledger.commit.transaction import Item, Pending
from keyvault_lite.ledger.state.outcome import Committed
from keyvault_lite.model.errors import AuditUnavailable, KeyVaultError, OutcomeUnknown


class Waiting:
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

    def refuse(self, error: KeyVaultError) -> None:
        """Answer with an error, if there is no answer yet. Runs on its loop."""
        if not self.future.done():
            self.future.set_exception(error)

    def answer(self, error: KeyVaultError | None) -> None:
        """Wake whoever waits, with its own error if it has one. Runs on its loop."""
        refusal = error if self.item.error is None else self.item.error
        if refusal is not None:
            # An error of its own for each: they are raised in different tasks.
            self.refuse(refusal.again())
        elif not self.future.done():
            self.future.set_result(Committed(self.item.outcome, self.item.first_id))


def refuse_late(waiting: Iterable[Waiting], lock: float, commit: float) -> KeyVaultError | None:
    """Answer those who have waited for more seconds than that; the reason, if anybody waits too long.

    Who is in no transaction yet stays out of the log. Of who is in one nobody knows what comes of its COMMIT. Runs on
    their loop, and with what keeps others from taking them.
    """
    reason: KeyVaultError | None = None
    now = time.monotonic()
    for one in waiting:
        if one.abandoned or one.since >= now - lock:
            continue
        if not one.taken:
            one.abandoned = True
            reason = AuditUnavailable("the database is locked by someone else")
            one.refuse(reason.again())
            continue
        reason = reason or AuditUnavailable("the database does not answer a commit")
        if one.since < now - commit:
            one.refuse(OutcomeUnknown("the database has not answered: whether this is recorded is not known"))
    return reason


@dataclass(frozen=True, slots=True)
class Transaction:
    """Who is in a transaction, and how far it is."""

    batch: list[Waiting]
    entries: int
    filled: Pending | None
    """What needs but COMMIT, with the lock held; None if the thread is to do all of it."""
    began: float


@dataclass(frozen=True, slots=True)
class Turn:
    """A wish to hold the lock that somebody else has: the thread waits for it, a loop fills what is waiting by then."""

    loop: asyncio.AbstractEventLoop


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that this runs on; None in a thread that has none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
