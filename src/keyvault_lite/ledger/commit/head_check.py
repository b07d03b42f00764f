"""The stored head of the log: whether it is there once, is genuine, and names the newest entry."""

from keyvault_lite.audit.merkle import CompactRange, InvalidProof
from keyvault_lite.ledger.state.head import Head, read_head
from keyvault_lite.ledger.state.outcome import Authority, PublicAuthority
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.model.encoding import Value
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.replies import Finding


def check_head(
    connection: driver.Connection, authority: Authority | PublicAuthority, findings: list[Finding]
) -> tuple[bytes, Head | None]:
    """The MAC and the head, and what is wrong with them; without MAC and head if they are of no use."""
    try:
        last = (driver.fetch(connection, statements.LAST_ENTRY) or [(0, None)])[0]
        rows = driver.fetch(connection, statements.ALL_HEADS)
    except driver.Damaged as error:
        findings.append(Finding("ledger_head", "1", f"cannot be read: {error}"))
        return b"", None
    if not rows or rows[0][0] != 1:
        if last[0]:
            findings.append(Finding("ledger_head", "1", "the head is missing while the log is not empty"))
        return b"", None
    findings += [Finding("ledger_head", str(row[0]), "does not belong here") for row in rows[1:]]
    row = rows[0][1:]
    try:
        head = Head(*row[:-1]) if isinstance(authority, PublicAuthority) else read_head(row, authority)
        _check_types(head)
    except IntegrityViolation as error:
        findings.append(Finding("ledger_head", "1", error.detail))
        return b"", None
    if last[0] != head.size or (last[0] and last[1] != head.hash):
        findings.append(Finding("audit_logs", str(last[0]), "the newest entry is not the one the head names"))
    return row[-1], head


def _check_types(head: Head) -> None:
    """A head whose MAC was not checked can hold anything."""
    integers: tuple[Value, ...] = (head.epoch, head.size, head.timestamp, head.state_seq)
    blobs: tuple[Value, ...] = (head.hash, head.state_root, head.edge)
    if (
        any(type(value) is not int or value < 0 for value in integers)
        or any(type(value) is not bytes for value in blobs)
        or type(head.checkpoint) is not str
    ):
        raise IntegrityViolation("the head of the log does not verify")


def root_named(head: Head, findings: list[Finding]) -> bytes:
    """The root of the Merkle tree that the head names."""
    try:
        return CompactRange.from_bytes(head.edge).root()
    except InvalidProof as error:
        findings.append(Finding("ledger_head", "1", error.detail))
        return b""
