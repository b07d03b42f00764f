"""What waits for a transaction, and how it passes between a loop and the thread that commits it."""

import asyncio
import time
from dataclasses import dataclass

from keyvault_lite.ledger.outcome import Committed
from keyvault_lite.ledger.pending import Item, Pending
from keyvault_lite.model.errors import KeyVaultError


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

    def answer(self, error: KeyVaultError | None) -> None:
        """Wake whoever waits, with its own error if it has one. Runs on its loop."""
        refusal = error if self.item.error is None else self.item.error
        if self.future.done():
            return
        if refusal is not None:
            # An error of its own for each: they are raised in different tasks.
            self.future.set_exception(refusal.again())
        else:
            self.future.set_result(Committed(self.item.outcome, self.item.first_id))


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
