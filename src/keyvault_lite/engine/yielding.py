"""Requests that came together take each step together."""

from collections.abc import Generator
from types import coroutine


@coroutine
def yield_now() -> Generator[None]:
    """Let the others take the same step first.

    What a step touches (code, tables, the cipher's library) is in the processor's caches then for all of them; a
    request that runs through alone finds it cold at each step, because the one before has ended with others (ADR 20).
    """
    yield
