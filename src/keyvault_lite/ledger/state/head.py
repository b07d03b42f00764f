"""The head of the log: what the newest commit says the whole log and state are, authenticated as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any

from keyvault_lite.ledger.state.outcome import Authority
from keyvault_lite.ledger.storage.schema import HEAD_COLUMNS
from keyvault_lite.model.errors import IntegrityViolation


@dataclass(frozen=True, slots=True)
class Head:
    """The one row of ledger_head, without its MAC."""

    epoch: int
    size: int
    """Number of entries."""
    hash: bytes
    """Of the newest entry; the genesis hash while there is none."""
    timestamp: int
    """Of the newest entry: time in the log never runs backwards."""
    state_seq: int
    """The newest management entry."""
    state_root: bytes
    """The state's root after it."""
    edge: bytes
    """The right edge of the Merkle tree over all entries."""
    checkpoint: str
    """The newest signed checkpoint known when this head was written; empty before the first."""

    def values(self) -> tuple[Any, ...]:
        """The columns in order."""
        return (
            self.epoch,
            self.size,
            self.hash,
            self.timestamp,
            self.state_seq,
            self.state_root,
            self.edge,
            self.checkpoint,
        )


def read_head(row: tuple[Any, ...], authority: Authority) -> Head:
    """The head of a stored row (its columns, then its MAC). Raises IntegrityViolation if it does not verify."""
    *values, mac = row
    try:
        genuine = compare_digest(authority.head_mac(*values), mac)
    except (TypeError, ValueError, OverflowError):
        raise IntegrityViolation("the head of the log does not verify") from None
    if not genuine:
        raise IntegrityViolation("the head of the log does not verify")
    return Head(*values)


def check_unchanged(row: Sequence[Any], head: Head) -> None:
    """Raise IntegrityViolation if a stored row (as in `read_head`) with the MAC of a known head holds other columns.

    A new MAC is not needed for that, so a process that compares MACs alone would overwrite an edit without seeing it.
    """
    values = head.values()
    if tuple(row[:-1]) != values:
        changed = [name for name, stored, known in zip(HEAD_COLUMNS, row, values, strict=False) if stored != known]
        raise IntegrityViolation(
            f"the head of the log was changed by another program: {', '.join(changed)}",
            shown="the head of the log was changed by another program",
        )
