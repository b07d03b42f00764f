"""Whether records can be committed: the fault that prevents it, and whether a restart is needed to clear it."""

import logging

from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, KeyVaultError
from keyvault_lite.observe.metrics import METRICS

log = logging.getLogger("keyvault_lite.ledger")


class StoreFull(AuditUnavailable):
    """The disk is full; nothing was written."""


class StoreBusy(AuditUnavailable):
    """Another program holds a lock on the database; nothing was written."""


class Availability:
    """The state that every failure of a commit goes through."""

    def __init__(self) -> None:
        self.fault: KeyVaultError | None = None
        """Why nothing can be committed at present."""
        self.halted = False
        """Whether only a restart, with its checks, can clear the fault."""

    def refusal(self) -> KeyVaultError:
        """The error for a request that is not taken."""
        return AuditUnavailable("the server is shutting down") if self.fault is None else self.fault.again()

    def fail(self, error: KeyVaultError) -> KeyVaultError:
        """Record that a commit has failed; the error. An IntegrityViolation halts all service."""
        self.fault = error
        self.halted = self.halted or isinstance(error, IntegrityViolation)
        METRICS.commit_failures += 1
        log.error("commit failed: %s: %s", error.code, error.detail)
        return error

    def suspect(self, fault: KeyVaultError) -> bool:
        """Take over a fault that was found outside a commit; false if there is one already."""
        if self.fault is not None:
            return False
        self.fault = fault
        log.error("the store cannot be written: %s: %s", fault.code, fault.detail)
        return True

    def clear(self) -> None:
        """The store was written again."""
        self.fault = None
        log.info("the audit log can be written again")
