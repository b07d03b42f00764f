"""`kvl anchor trust`: when a database may go on although its anchor does not confirm it, and what is lost by it.

The operator names the head that is accepted, so that nobody can swap the database between looking and accepting. Every
other check has to pass before. What the anchor remembered goes into the log, and the log goes on as another log.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from keyvault_lite.ledger.anchor.counter import PUT_BACK
from keyvault_lite.ledger.anchor.record import AnchorRecord
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.verify.startup import COUNTER, FOREIGN, TABLE
from keyvault_lite.model.encoding import encode_base64
from keyvault_lite.model.errors import Conflict, IntegrityViolation
from keyvault_lite.model.replies import Finding


@dataclass(frozen=True, slots=True)
class AcceptedHead:
    """The head that the operator accepts."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class TrustResult:
    """What was accepted, and what is lost by it."""

    size: int
    root: bytes
    epoch: int
    entry: int
    """The entry that records it."""
    lost: str | None
    """In words; None if the anchor was only missing or damaged."""
    kept: str | None
    """Where the anchor's file as it was is kept, as evidence."""


def require_acceptable(findings: Sequence[Finding], mark: AnchorRecord | None, accepted: AcceptedHead | None) -> None:
    """Raise if anything but the anchor is wrong, or the operator's word is not the one that this case needs."""
    others = [one for one in findings if one.table not in {TABLE, COUNTER}]
    if others:
        raise DamagedVault(others)
    if not findings:
        raise Conflict("the anchor confirms this database: there is nothing to trust")
    seen = next((one for one in findings if FOREIGN in one.problem), findings[0])
    if seen.table == COUNTER:
        _require_counter_acceptable(seen, accepted)
        return
    if FOREIGN in seen.problem or (mark is not None and accepted is None):
        raise IntegrityViolation(f"the anchor {seen.row} {seen.problem}", shown="the anchor does not fit the database")
    if mark is None and accepted is not None:
        raise Conflict(f"the anchor {seen.row} remembers nothing that could be lost: run `kvl anchor trust` alone")


def _require_counter_acceptable(seen: Finding, accepted: AcceptedHead | None) -> None:
    """The anchor confirms the database, and the counter does not confirm the anchor."""
    if (PUT_BACK in seen.problem) is (accepted is not None):
        return
    if accepted is None:
        raise IntegrityViolation(f"the counter {seen.row} {seen.problem}", shown="the counter does not fit the anchor")
    raise Conflict(f"the counter {seen.row} tells of nothing that is lost: run `kvl anchor trust` alone")


def check_accepted(accepted: AcceptedHead, size: int, root: bytes) -> None:
    """Raise Conflict unless the database has exactly the head that is accepted."""
    if (accepted.size, accepted.root) != (size, root):
        raise Conflict(f"the database has {size} entries with the root {encode_base64(root)}: nothing was accepted")


def describe_loss(mark: AnchorRecord, size: int) -> str:
    """What the anchor knew and this database does not."""
    if mark.size > size:
        lost = f"entries {size + 1} to {mark.size}"
        management = (
            f"management entries among them, the newest {mark.state_seq}: what they created or revoked is undone"
            if mark.state_seq > size
            else "none of them a management entry"
        )
    else:
        lost = f"another history of {mark.size} entries"
        management = f"its newest management entry was {mark.state_seq}"
    return f"{lost} (root {encode_base64(mark.root)}, epoch {mark.epoch}); {management}"
