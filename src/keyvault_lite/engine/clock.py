"""Whether the clock may be trusted with what cannot be undone.

A machine that starts with a wrong clock (a real-time clock without battery, before NTP) must not destroy what would be
due if the clock were right. So nothing is destroyed unless time is known to have passed: the process itself has run for
a day, or the log has an entry of the day before the last. A clock that leaps ahead finds neither there. A clock that is
set while the process runs parts from the monotonic one, which stops destruction until a restart.

`state` says in a word what an operator has to know of the clock; `/health` shows it.
"""

import time
from typing import Final

from keyvault_lite.ledger.ledger import Ledger
from keyvault_lite.ledger.log.query import Filter
from keyvault_lite.observe import logger
from keyvault_lite.observe.metrics import METRICS

MAX_DRIFT_SECONDS: Final = 600.0
"""How far wall and monotonic clock may part."""
MAX_BEHIND_SECONDS: Final = 60.0
"""How far the wall clock may be behind the newest entry: hosts that share a log differ by some milliseconds."""
DAY_SECONDS: Final = 24 * 3600.0
STEADY: Final = "steady"
CHANGED: Final = "changed"
"""It was set while the process ran: nothing is destroyed until a restart."""
BEHIND: Final = "behind the log"
"""The newest entry is of a later time: the clock was ahead, or was set back. What expired by then stays expired."""
AHEAD: Final = "ahead of the log"
"""The newest entry was older than two days when the process began: the clock leapt, or the vault was idle."""

_log: Final = logger("jobs")


class ClockTrust:
    """Compares the clock of one process with the log and with its own uptime."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._started = time.monotonic()
        self._apart = time.time() - self._started
        newest = ledger.newest_entry_at()
        self._slept = time.time() - newest if newest else 0.0
        self._warned = False
        about = "Seconds by which the newest entry of the log is later than the wall clock."
        METRICS.gauge("keyvault_clock_behind_log_seconds", about, lambda: max(0.0, self._behind()))
        about = "Seconds by which the wall clock was set since the process began."
        METRICS.gauge("keyvault_clock_changed_seconds", about, self._drift)

    @property
    def state(self) -> str:
        """STEADY, or what is wrong with the clock or may be. Reads no database."""
        if self._behind() > MAX_BEHIND_SECONDS:
            return BEHIND
        if abs(self._drift()) > MAX_DRIFT_SECONDS:
            return CHANGED
        return AHEAD if self._slept > 2 * DAY_SECONDS and self._uptime() < DAY_SECONDS else STEADY

    @property
    def is_wrong(self) -> bool:
        """Whether the clock was certainly wrong at some time; AHEAD may be the state of a vault that was idle."""
        return self.state in {BEHIND, CHANGED}

    def _behind(self) -> float:
        return self._ledger.newest_entry_at() - time.time()

    def _drift(self) -> float:
        return time.time() - time.monotonic() - self._apart

    def _uptime(self) -> float:
        return time.monotonic() - self._started

    def allows_destruction(self) -> bool:
        """Whether keys whose time has come may be destroyed now. Blocks: it may read the log."""
        return self.is_steady() and self._time_has_passed()

    def is_steady(self) -> bool:
        """Whether the clock has not been set since the process began."""
        drift = abs(self._drift())
        if drift > MAX_DRIFT_SECONDS:
            _log.error("the clock was changed by %d seconds: nothing is destroyed until a restart", drift)
        return drift <= MAX_DRIFT_SECONDS

    def _time_has_passed(self) -> bool:
        if self._uptime() >= DAY_SECONDS:
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
