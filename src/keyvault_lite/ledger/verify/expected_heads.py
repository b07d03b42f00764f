"""What somebody says of the log: the anchor, the stored checkpoint, a checkpoint that was kept."""

from dataclasses import dataclass

from keyvault_lite.audit.checkpoint import InvalidNote, parse_checkpoint, parse_note
from keyvault_lite.ledger.anchor.interface import Remembered
from keyvault_lite.ledger.anchor.record import AnchorRecord
from keyvault_lite.ledger.state.head import Head
from keyvault_lite.model.replies import Finding


@dataclass(frozen=True, slots=True)
class ExpectedHead:
    """Somebody's word about the log: the root of its tree when it had `size` entries. Checked where the log is read."""

    size: int
    root: bytes
    otherwise: Finding
    """What it means if the log has another root there, or never had so many entries."""


def claim_of(anchor: Remembered, mark: AnchorRecord | None) -> list[ExpectedHead]:
    """What an anchor says."""
    if mark is None or mark.size == 0:
        return []
    problem = f"remembers another tree over {mark.size} entries than the log has"
    return [ExpectedHead(mark.size, mark.root, Finding("anchor", anchor.place, problem))]


def claim_of_head(head: Head | None, findings: list[Finding]) -> list[ExpectedHead]:
    """What the stored checkpoint says; whether it is signed is checked by callers that have the key."""
    if head is None or not head.checkpoint:
        return []
    try:
        said = parse_checkpoint(parse_note(head.checkpoint).body)
    except InvalidNote as error:
        findings.append(Finding("ledger_head", "1", error.detail))
        return []
    otherwise = Finding("ledger_head", "1", "its checkpoint is of another tree than the log's")
    return [ExpectedHead(said.size, said.root, otherwise)]
