"""The work that one process does for all: whether this is the one, and when its own rows were last read again."""

import logging
import time
from typing import Final

from keyvault_lite.ledger.storage.database import Database
from keyvault_lite.observe.metrics import METRICS

UNCHECKED_SECONDS: Final = 900.0
"""After so long without a check of all rows the vault says so: an edit might not be found."""
log = logging.getLogger("keyvault_lite.ledger")


class Maintenance:
    """What one process knows of it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._leads = self._usurped = False
        self._checked = time.monotonic()
        METRICS.gauge("keyvault_leads", "Whether this process does the timed work.", lambda: float(self._leads))
        METRICS.gauge("keyvault_rows_age_seconds", "Seconds since all rows were last verified.", lambda: self._age)

    def is_leader(self) -> bool:
        """Whether this process has to do the timed work. Blocks.

        If who has the place cannot do it, every process has to: each change is evaluated under the ledger's lock, so
        what one has done is not done again.
        """
        leads = self._database.is_leader()
        usurped = not leads and self._database.is_leadership_blocked()
        if usurped and not self._usurped:
            log.error("the place of the process that leads is held by a role that cannot do its work: all do it")
        self._leads, self._usurped = leads or usurped, usurped
        return self._leads

    def rows_were_checked(self) -> None:
        """All rows were read and compared, whatever was found."""
        self._checked = time.monotonic()

    @property
    def _age(self) -> float:
        return time.monotonic() - self._checked

    @property
    def is_late(self) -> bool:
        """Whether rows were not checked for so long that somebody should look why."""
        return self._age > UNCHECKED_SECONDS

    def facts(self) -> dict[str, object]:
        """See Ledger.facts."""
        return {"rows_checked_seconds_ago": round(self._age, 1)}
