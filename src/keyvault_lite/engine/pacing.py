"""What one SERVICE may take of the server for requests that use no key: a rate, and a place in a short queue.

The use of a key needs a grant. Everything else is open to every caller with a valid token: refusals, lists, random
bytes, digests, logins, tokens. So that no SERVICE delays others by it, these requests are paced for each SERVICE: a
second's worth at once, then one after the other. Beyond the queue they are turned away without an entry, and told so
late. ADMIN and AUDITOR are not paced.
"""

import time
from typing import Final

from keyvault_lite.engine.pauses import pause
from keyvault_lite.model.errors import ShareExceeded
from keyvault_lite.model.intake import RequestConnection
from keyvault_lite.model.names import ServiceId
from keyvault_lite.observe.metrics import METRICS

INTERVAL: Final = 0.005
"""Seconds between two requests in the long run."""
BURST: Final = 1.0
"""Seconds' worth of requests that may come at once."""
PART: Final = 0.1
"""Of a core, what the work of such requests in threads may take in the long run."""
MAX_DEBT: Final = 5.0
"""Seconds that one costly request may delay the next."""
MAX_WAITING: Final = 128
"""Requests of one SERVICE that wait for their turn."""
AWAY_INTERVAL: Final = 0.01
"""Seconds between two requests that are turned away."""
MAX_AWAY: Final = 10.0
"""The longest that a request waits to be turned away."""


class _Share:
    __slots__ = ("away", "due", "waiting")

    def __init__(self) -> None:
        self.due = 0.0
        """When the newest request has its turn (monotonic time)."""
        self.waiting = 0
        self.away = 0.0
        """When the newest request that was refused gets its answer."""


class ServicePacing:
    """The shares of all SERVICEs. Belongs to one event loop."""

    def __init__(self) -> None:
        self._by_service: dict[ServiceId, _Share] = {}
        METRICS.gauge("keyvault_paced_requests", "Requests that wait for their SERVICE's turn.", self._waiting)

    def _waiting(self) -> float:
        return sum(one.waiting for one in self._by_service.values())

    def _of(self, service: ServiceId) -> _Share:
        share = self._by_service.get(service)
        if share is None:
            share = self._by_service[service] = _Share()
        return share

    async def pace(self, service: ServiceId, conn: RequestConnection | None = None) -> None:
        """Wait for the turn of a request.

        Raises ShareExceeded if too many of that SERVICE are waiting, or the request was given up meanwhile.
        """
        share, now = self._of(service), time.monotonic()
        if share.waiting >= MAX_WAITING:
            share.away = max(share.away, now) + AWAY_INTERVAL
            raise ShareExceeded(
                "too many requests of this service that use no key are waiting; nothing was done",
                after=min(share.away - now, MAX_AWAY),
            )
        share.due = max(share.due, now - BURST) + INTERVAL
        if share.due <= now:
            return
        share.waiting += 1
        try:
            if not await pause(share.due - now, conn):
                raise ShareExceeded("the connection was closed while the request waited; nothing was done", after=0.0)
        finally:
            share.waiting -= 1

    def charge(self, service: ServiceId, seconds: float) -> None:
        """Count work that a request had done in a thread: the next one waits for it."""
        share, now = self._of(service), time.monotonic()
        share.due = min(max(share.due, now - BURST) + seconds / PART, max(share.due, now + MAX_DEBT))
