"""A server that keeps the connection open and answers nothing is given up after a while.

A server process that is stopped, or a pooler whose server is gone, leaves the connection alive as far as TCP can tell,
and no timeout of the server's own ends a wait for it. The bound is on the time in which nothing comes at all: however
long a check of a large vault takes, rows keep arriving.
"""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import psycopg

SILENCE_SECONDS: Final = 90.0
"""How long nothing may come. Longer than the longest wait for a lock, which the server ends with an answer."""
NEXT_STEP: Final = "check that the server, and any proxy or connection pooler in front of it, is running and not stuck"

T = TypeVar("T")


class ServerSilent(psycopg.OperationalError):
    """Nothing came in the time that is allowed."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection of psycopg that is closed, with ServerSilent, when the server has said nothing for too long."""

    fell_silent: ServerSilent | None = None
    """Why it is closed, if that is why."""
    _unhurried = False

    def wait(self, gen: Generator[Any, Any, T], interval: float = 0.1, timeout: float | None = None) -> T:
        """See psycopg.Connection."""
        try:
            return super().wait(gen if self._unhurried else _bounded(gen, SILENCE_SECONDS), interval, timeout)
        except ServerSilent as error:
            self.fell_silent = error
            self.pgconn.finish()
            raise

    @contextmanager
    def unhurried(self) -> Iterator[None]:
        """For statements that an operator waits for and that may take hours without a word: VACUUM, migrations."""
        self._unhurried = True
        try:
            yield
        finally:
            self._unhurried = False


def _bounded(gen: Generator[Any, Any, T], seconds: float) -> Generator[Any, Any, T]:
    """The driver's generator, which yields what to wait for and is sent what is ready: nothing, every `interval`."""
    since: float | None = None
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready:
                since = None
            elif since is None:
                since = time.monotonic()
            elif time.monotonic() - since > seconds:
                raise ServerSilent(f"no answer for {seconds:.0f} seconds, though it accepts connections: {NEXT_STEP}")
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
