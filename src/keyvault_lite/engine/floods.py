"""Failed logins by the thousand: ten a second from one address are entries of their own, the rest of the second is one.

Those who are counted together wait for the entry that counts them: no record, no answer. That slows nobody but them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from keyvault_lite.model.errors import KeyVaultError

OWN_ENTRIES: Final = 10
"""Failed logins from one address that are recorded one by one, a second."""
WINDOW: Final = 1.0
"""Seconds."""


class _Window:
    __slots__ = ("began", "counted", "recorded", "singles")

    def __init__(self, began: float) -> None:
        self.began = began
        self.singles = 0
        self.counted = 0
        self.recorded: asyncio.Task[None] | None = None


class FloodGate:
    """Decides which failed logins share an entry. Belongs to one event loop."""

    def __init__(self, record: Callable[[str | None, int], Awaitable[None]]) -> None:
        self._record = record
        """Writes one entry for a number of failed logins from an address."""
        self._windows: dict[str | None, _Window] = {}

    def admit(self, source: str | None) -> bool:
        """Whether this failed login is an entry of its own. If not, `counted` MUST be awaited before it is answered."""
        now = time.monotonic()
        window = self._windows.get(source)
        if window is None or (now - window.began >= WINDOW and window.recorded is None):
            if len(self._windows) > 10_000:  # noqa: PLR2004  (addresses; the old ones go)
                self._windows = {
                    key: one for key, one in self._windows.items() if one.recorded or now - one.began < WINDOW
                }
            window = self._windows[source] = _Window(now)
        window.singles += 1
        return window.singles <= OWN_ENTRIES

    async def counted(self, source: str | None) -> None:
        """Add one to the shared entry of this second, and wait until it is recorded. Raises what recording raises."""
        window = self._windows[source]
        window.counted += 1
        if window.recorded is None:
            window.recorded = asyncio.create_task(self._close(source, window))
        try:
            await asyncio.shield(window.recorded)
        except KeyVaultError as error:
            raise error.again() from None

    async def _close(self, source: str | None, window: _Window) -> None:
        await asyncio.sleep(max(0.0, window.began + WINDOW - time.monotonic()))
        # From here on failed logins open a new second.
        if self._windows.get(source) is window:
            del self._windows[source]
        await self._record(source, window.counted)
