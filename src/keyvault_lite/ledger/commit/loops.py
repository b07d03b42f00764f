"""Calls from one thread to the event loops of others."""

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable
from contextlib import suppress


def call_soon(loops: Iterable[AbstractEventLoop], function: Callable[..., None], *arguments: object) -> None:
    """Have loops call it soon, from any thread. On a loop that was closed nothing waits any more."""
    for loop in loops:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(function, *arguments)


def running_loop() -> AbstractEventLoop | None:
    """The loop that this runs on; None in a thread that has none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
