"""Long work that stays on the event loop, in slices: between two of them everybody else has a turn.

A batch of quick operations is a thousand calls of a microsecond, and many of them (random bytes, a MAC) let go of the
interpreter. Beside a busy loop each of those would be a change of threads, which costs more than the call (ADR 22).
"""

import asyncio
from collections.abc import Callable, Generator
from math import inf
from time import perf_counter
from typing import Final, TypeVar

from keyvault_lite.engine.yielding import yield_now
from keyvault_lite.model.errors import Overloaded

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work that pauses after each step, and returns its result at the end."""
SLICE_SECONDS: Final = 0.0003
"""Some ten items of a batch, or five requests' worth: as long as anyone has to wait for it."""


class CooperativeExecutor:
    """One work at a time, first come, first served, and the queue before it. Belongs to one event loop."""

    def __init__(self, name: str, *, waiting: int) -> None:
        self.name = name
        self._limit = 1 + waiting
        self._one_at_a_time = asyncio.Lock()
        self.busy = 0
        """How many are in it, waiting or at work."""

    async def run(self, begin: Callable[[], Steps[T]]) -> T:
        """Take the steps of what `begin` begins when it is its turn.

        Raises Overloaded, having done nothing, if too much is waiting already.
        """
        if self.busy >= self._limit:
            raise Overloaded("too much work of this kind is waiting; nothing was done")
        self.busy += 1
        try:
            async with self._one_at_a_time:
                steps = begin()
                while not (result := _take(steps, SLICE_SECONDS)):
                    await yield_now()
                return result[0]
        finally:
            self.busy -= 1


def run_to_end(steps: Steps[T]) -> T:
    """Take all steps without a pause."""
    return _take(steps, inf)[0]


def _take(steps: Steps[T], seconds: float) -> tuple[T, ...]:
    """Take steps for as long; their result, if they have come to their end."""
    until = perf_counter() + seconds
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return (end.value,)
        if perf_counter() >= until:
            return ()
