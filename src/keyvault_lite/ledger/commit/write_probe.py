"""Proof that the store takes records: a busy process has it from its commits, an idle one looks about once a second.

A health request gets the newest result: it costs the store nothing.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from keyvault_lite.ledger.commit.availability import StoreBusy
from keyvault_lite.ledger.commit.writer import Writer
from keyvault_lite.model.errors import AuditUnavailable, KeyVaultError
from keyvault_lite.observe.metrics import METRICS

LOOK_SECONDS: Final = 0.25
PROVE_SECONDS: Final = 1.0
"""How old the newest proof becomes before an idle process looks again."""
FLUSH_SECONDS: Final = 10.0
"""How often such a look includes a flush to the disk."""
STALE_SECONDS: Final = 9.0
"""A store that has proven nothing for so long is unavailable, whatever keeps it."""
log = logging.getLogger("keyvault_lite.ledger")


class StoreProof:
    """The background check of one process, on a thread of its own: a store that hangs holds nothing else up."""

    def __init__(self, writer: Writer, report: Callable[[KeyVaultError], None], is_faulty: Callable[[], bool]) -> None:
        """`report` is called with a fault; while `is_faulty`, recovery is under way and the store is left alone."""
        self._writer = writer
        self._report = report
        self._is_faulty = is_faulty
        self._closing = threading.Event()
        self._flushed = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="store-proof", daemon=True)
        METRICS.gauge("keyvault_store_proof_age_seconds", "Seconds since the store took a record.", lambda: self.age)

    def start(self) -> None:
        """Write to the store once, then watch it."""
        try:
            self._writer.prove_by_writing()
        except KeyVaultError as error:
            self._report(error)
        self._thread.start()

    def close(self) -> None:
        """End soon. A thread that hangs in the store is left behind."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(STALE_SECONDS)

    @property
    def age(self) -> float:
        """Seconds since the store is known to have taken a record, or to have been able to."""
        return time.monotonic() - self._writer.proven_at

    @property
    def fault(self) -> KeyVaultError | None:
        """That there was no proof for too long; None if there was."""
        if self.age <= STALE_SECONDS:
            return None
        return AuditUnavailable(
            f"the database has taken no record for {self.age:.0f} seconds", shown="the database takes no record"
        )

    def _run(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            if self.age >= PROVE_SECONDS and not self._is_faulty():
                self._prove()

    def _prove(self) -> None:
        flush = time.monotonic() - self._flushed >= FLUSH_SECONDS
        try:
            self._writer.prove(flush=flush)
        except StoreBusy:
            pass  # somebody else writes; if that lasts, `fault` says so
        except KeyVaultError as error:
            if not self._closing.is_set():
                self._report(error)
        except Exception:  # the check goes on: the age of the proof shows what keeps failing
            log.exception("the check of the store failed")
        else:
            self._flushed = time.monotonic() if flush else self._flushed
