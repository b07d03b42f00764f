"""Whether the clock may be trusted with what cannot be undone.

A machine that starts with a wrong clock (a real-time clock without battery, before NTP) must not destroy what would be
due if the clock were right. So nothing is destroyed unless time is known to have passed: the process itself has run for
a day, or the log has an entry of the day before the last. A clock that leaps ahead finds neither there. A clock that is
set while the process runs parts from the monotonic one, which stops destruction until a restart.
"""

import time
from typing import Final

from keyvault_lite.ledger.ledger import Ledger
from keyvault_lite.ledger.log.query import Filter
from keyvault_lite.observe import logger

MAX_DRIFT_SECONDS: Final = 600.0
"""How far wall and monotonic clock may part."""
DAY_SECONDS: Final = 24 * 3600.0

_log: Final = logger("jobs")


class ClockTrust:
    """Compares the clock of one process with the log and with its own uptime."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._started = time.monotonic()
        self._apart = time.time() - self._started
        self._warned = False

    def allows_destruction(self) -> bool:
        """Whether keys whose time has come may be destroyed now. Blocks: it may read the log."""
        return self.is_steady() and self._time_has_passed()

    def is_steady(self) -> bool:
        """Whether the clock has not been set since the process began."""
        drift = abs(time.time() - time.monotonic() - self._apart)
        if drift > MAX_DRIFT_SECONDS:
            _log.error("the clock was changed by %d seconds: nothing is destroyed until a restart", drift)
        return drift <= MAX_DRIFT_SECONDS

    def _time_has_passed(self) -> bool:
        if time.monotonic() - self._started >= DAY_SECONDS:
            return True
        day, now = int(DAY_SECONDS * 1e6), time.time_ns() // 1000
        if self._ledger.evidence.entries(Filter(limit=1, since=now - 2 * day, until=now - day)).items:
            return True
        if not self._warned:
            _log.warning(
                "keys are due for destruction, and the log has no entry of the day before yesterday: the clock may be "
                "wrong. Check it; they are destroyed when this process has run for 24 hours"
            )
            self._warned = True
        return False
