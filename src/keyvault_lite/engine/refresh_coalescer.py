"""Before a caller is refused, this process reads what other processes have committed: the token may be among it."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from keyvault_lite.model.errors import AuditUnavailable, KeyVaultError

INTERVAL_SECONDS: Final = 0.05
"""How seldom, whatever number of callers ask."""
PATIENCE_SECONDS: Final = 4.5
"""How long a caller waits for it: what keeps this process from reading keeps it from recording the refusal too."""


class RefreshCoalescer:
    """Shares refreshes among the callers that wait for one. Belongs to one event loop at a time."""

    def __init__(self, refresh: Callable[[], None]) -> None:
        self._refresh = refresh
        """Adopts what others have committed. Blocks."""
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="refresh")
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        self._began = float("-inf")

    async def renew(self) -> None:
        """Return after a refresh that began after this call. Raises AuditUnavailable, and what the refresh raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._soon(self._running))
            self._next.add_done_callback(_heard)
        try:
            await asyncio.wait_for(asyncio.shield(self._next), PATIENCE_SECONDS)
        except TimeoutError:
            raise AuditUnavailable("the database is locked by someone else") from None
        except KeyVaultError as error:
            raise error.again() from None

    async def _soon(self, before: asyncio.Task[None] | None) -> None:
        try:
            if before is not None:
                await asyncio.wait([before])
            await asyncio.sleep(max(0.0, self._began + INTERVAL_SECONDS - time.monotonic()))
        finally:
            # A caller that comes from here on may need something newer than this refresh sees.
            self._running, self._next = self._next, None
        self._began = time.monotonic()
        try:
            work = asyncio.get_running_loop().run_in_executor(self._pool, self._refresh)
        except RuntimeError:
            raise AuditUnavailable("the server is shutting down") from None
        await work

    def close(self) -> None:
        """Wait for the one under way."""
        self._pool.shutdown(wait=True)


def _heard(task: asyncio.Task[None]) -> None:
    """Take note of how it ended, for the case that nobody waits any more."""
    with suppress(asyncio.CancelledError):
        task.exception()
