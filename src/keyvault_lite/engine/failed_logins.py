"""Failed logins by the thousand: ten a second from one address are entries of their own, the rest of the second is one.

An IPv6 network of 64 bits counts as one address: a client that has one has all of them. All addresses together have a
hundred entries of their own a second; beyond that, those of all addresses share one.

Callers that are counted together wait for the entry that counts them: no record, no answer. They are answered a few at
a time, so that a flood takes a small part of the loop however many connections it has, and good callers have the rest.
"""

import asyncio
import ipaddress
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from keyvault_lite.model.errors import KeyVaultError, LimitExceeded, Overloaded
from keyvault_lite.observe.metrics import METRICS

OWN_ENTRIES: Final = 10
"""Failed logins from one address that are recorded one by one, a second."""
ALL_ENTRIES: Final = 100
"""The same from all addresses together."""
EVERYWHERE: Final = "everywhere"
"""Stands for all addresses."""
WINDOW: Final = 1.0
"""Seconds."""
MANY: Final = 50
"""Failed logins a second from one address that are a flood ..."""
STRIKES: Final = 10
"""... once there were that many in so many seconds on end: then they get 429 instead of 401."""
MAX_WAITING: Final = 4_000
"""How many may wait for their shared entry."""
SLICE: Final = 8
"""How many of them are answered at a time, ..."""
PAUSE: Final = 0.01
"""... and how many seconds apart."""


class _Window:
    __slots__ = ("began", "counted", "recorded", "singles", "strikes")

    def __init__(self, began: float, strikes: int) -> None:
        self.began = began
        self.singles = 0
        self.counted = 0
        self.strikes = strikes
        """How many seconds on end before this one were a flood."""
        self.recorded: asyncio.Task[None] | None = None


def network(source: str | None) -> str | None:
    """What an address is counted as: an IPv6 address as its network of 64 bits, another as it is."""
    if source is None or ":" not in source:
        return source
    try:
        address = ipaddress.IPv6Address(source.partition("%")[0])
    except ValueError:
        return source
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


class FailedLoginThrottle:
    """Decides which failed logins share an entry. Belongs to one event loop."""

    def __init__(self, record: Callable[[str | None, int], Awaitable[None]]) -> None:
        self._record = record
        """Writes one entry for a number of failed logins from an address."""
        self._windows: dict[str | None, _Window] = {}
        self._last: dict[str | None, tuple[float, int]] = {}
        """When the last shared second of an address ended, and with how many strikes."""
        self._swept = float("-inf")
        self._waiting = 0
        self._leaving: deque[asyncio.Future[None]] = deque()
        self._usher: asyncio.Task[None] | None = None
        METRICS.gauge(
            "keyvault_failed_logins_waiting", "Failed logins that are counted together.", lambda: self._waiting
        )

    def admit(self, source: str | None) -> bool:
        """Whether this failed login is an entry of its own. If not, `counted` MUST be awaited before it is answered."""
        now = time.monotonic()
        window = self._window(network(source), now)
        window.singles += 1
        if window.singles > OWN_ENTRIES:
            return False
        everywhere = self._window(EVERYWHERE, now)
        everywhere.singles += 1
        return everywhere.singles <= ALL_ENTRIES

    def _window(self, source: str | None, now: float) -> _Window:
        window = self._windows.get(source)
        if window is None or (now - window.began >= WINDOW and window.recorded is None):
            self._forget_old(now)
            ended, strikes = self._last.get(source, (now, 0))
            window = self._windows[source] = _Window(now, strikes if now - ended < WINDOW else 0)
        return window

    def _forget_old(self, now: float) -> None:
        """Once a second, so that a flood from everywhere costs one look at each of its addresses."""
        if now - self._swept >= WINDOW:
            self._swept = now
            self._windows = {key: one for key, one in self._windows.items() if one.recorded or now - one.began < WINDOW}
            self._last = {key: one for key, one in self._last.items() if now - one[0] < WINDOW}

    async def counted(self, source: str | None) -> None:
        """Add one to the shared entry of this second, and wait until it is recorded.

        Raises what recording raises, LimitExceeded in a flood that does not end, and Overloaded, having counted
        nothing, if too many wait already.
        """
        if self._waiting >= MAX_WAITING:
            raise Overloaded("too many failed logins are waiting to be recorded")
        source = network(source)
        if (own := self._windows.get(source)) is None or own.singles <= OWN_ENTRIES:
            source = EVERYWHERE
        window = self._window(source, time.monotonic())
        window.counted += 1
        if window.recorded is None:
            window.recorded = asyncio.create_task(self._close(source, window))
        self._waiting += 1
        try:
            await asyncio.shield(window.recorded)
            await self._turn()
        except KeyVaultError as error:
            raise error.again() from None
        finally:
            self._waiting -= 1
        if window.strikes >= STRIKES and source != EVERYWHERE:
            raise LimitExceeded("too many failed logins from this address")

    async def _close(self, source: str | None, window: _Window) -> None:
        await asyncio.sleep(max(0.0, window.began + WINDOW - time.monotonic()))
        # From here on failed logins open a new second.
        del self._windows[source]
        window.strikes = window.strikes + 1 if window.singles > MANY else 0
        self._last[source] = time.monotonic(), window.strikes
        await self._record(None if source == EVERYWHERE else source, window.counted)

    async def _turn(self) -> None:
        """Wait for one's turn to be answered."""
        mine = asyncio.get_running_loop().create_future()
        self._leaving.append(mine)
        if self._usher is None or self._usher.done():
            self._usher = asyncio.create_task(self._see_off())
        await mine

    async def _see_off(self) -> None:
        while self._leaving:
            for _ in range(min(SLICE, len(self._leaving))):
                one = self._leaving.popleft()
                if not one.done():
                    one.set_result(None)
            await asyncio.sleep(PAUSE)
