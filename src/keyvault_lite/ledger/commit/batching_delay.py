"""The batching delay: when a loop forms the next batch, so that requests in flight share the cost of a transaction."""

import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Final

BATCHING_SECONDS: Final = 0.004
"""How long a batch waits for more requests at the most, while they arrive (measured: docs/performance.md)."""
IDLE_ROUNDS: Final = 16
"""Rounds of the loop without an arrival that end the wait: a tenth of a millisecond if the loop is idle."""
ENOUGH: Final = 64
"""Requests that make waiting for more pointless."""


class BatchingDelay:
    """Lets a loop go round while that brings requests, then has it form a batch."""

    def __init__(self, waiting: Callable[[], int], form: Callable[[AbstractEventLoop], None]) -> None:
        """`waiting` counts the requests in the queue; `form` is called on the loop."""
        self._waiting = waiting
        self._form = form
        self.loop: AbstractEventLoop | None = None
        """The loop that is to form the next batch."""
        self.last_was_shared = False
        """Whether the last batch had several requests. A request that comes alone waits for no other."""

    def start(self, loop: AbstractEventLoop) -> None:
        """Have the loop form a batch, in its next round at the earliest."""
        self.loop = loop
        loop.call_soon(self._go_round, loop, 0, 0, time.perf_counter() + BATCHING_SECONDS)

    def resume(self, loop: AbstractEventLoop) -> None:
        """As `start`, for requests that have waited for the batch before: in this round, if no more are waited for."""
        self.loop = loop
        self._go_round(loop, 0, 0, time.perf_counter() + BATCHING_SECONDS)

    def _go_round(self, loop: AbstractEventLoop, seen: int, idle: int, until: float) -> None:
        count = self._waiting()
        idle = 0 if count > seen else idle + 1
        if self.last_was_shared and count < ENOUGH and idle < IDLE_ROUNDS and time.perf_counter() < until:
            loop.call_soon(self._go_round, loop, count, idle, until)
        else:
            self._form(loop)
