"""Checking what is stored, in one snapshot: schema, head, rows, state root, the log with its tree, and the anchor."""

from collections.abc import Callable
from dataclasses import dataclass, field

from keyvault_lite.audit.chain import BrokenChain, ChainCheck, Position, genesis
from keyvault_lite.audit.merkle import Edge, InvalidProof, Tile, Tiles
from keyvault_lite.ledger import driver, statements
from keyvault_lite.ledger.anchor import Anchor, Mark
from keyvault_lite.ledger.attribution import Attribution
from keyvault_lite.ledger.catalogue import check_schema
from keyvault_lite.ledger.head import Head, read_head
from keyvault_lite.ledger.outcome import Authority
from keyvault_lite.ledger.rows import VerifiedRows, read_rows
from keyvault_lite.ledger.start import check_anchor
from keyvault_lite.ledger.state import StateTree
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.replies import Finding, Verification

CHUNK = 5000
Progress = Callable[[int, int], None]
"""Told how many entries of how many have been checked."""


@dataclass(slots=True)
class Inspection:
    """What was read and what does not verify."""

    head: Head | None
    mac: bytes
    rows: VerifiedRows
    tree: StateTree
    root: bytes
    """Of the Merkle tree that the head names."""
    findings: list[Finding] = field(default_factory=list)
    entries: int = 0
    """How many entries of the log were checked."""
    broken: BrokenChain | None = None
    state_is_other: bool = False
    """Whether the rows verify one by one and are not the state that the log commits to."""


def inspect(
    connection: driver.Connection,
    authority: Authority,
    *,
    anchor: Anchor | None = None,
    mark: Mark | None = None,
    log_from: int | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Read and compare everything. Findings are returned, not raised.

    `mark` MUST have been read from `anchor` before this is called. The log is checked from behind entry `log_from`; from
    0 it is checked whole, with its tree; None leaves it out.
    """
    connection.execute("BEGIN")
    try:
        findings = check_schema(connection)
        row = connection.execute(statements.READ_HEAD).fetchone()
        head = _read_head(connection, authority, row, findings)
        rows = read_rows(connection, authority, newer_than=0, known=lambda _: None)
        findings += rows.findings
        tree = StateTree()
        tree.load(rows.macs)
        root = Edge().root() if head is None else _root(head, findings)
        seen = Inspection(head, row[-1] if row else b"", rows, tree, root, findings)
        seen.state_is_other = head is not None and tree.root() != head.state_root
        if anchor is not None:
            findings += check_anchor(connection, authority, anchor, mark, head, root)
        attribution = Attribution()
        if log_from is not None and head is not None:
            _read_log(connection, authority, seen, head, log_from, attribution, progress)
        if seen.state_is_other and not rows.findings:
            findings += attribution.explain(rows) or [
                Finding("ledger_head", "1", "the rows are not the state that the log commits to: old or missing rows")
            ]
        return seen
    finally:
        connection.execute("ROLLBACK")


def _read_head(
    connection: driver.Connection, authority: Authority, row: tuple[object, ...] | None, findings: list[Finding]
) -> Head | None:
    last = connection.execute(statements.LAST_ENTRY).fetchone() or (0, None)
    if row is None:
        if last[0]:
            findings.append(Finding("ledger_head", "1", "the head is missing while the log is not empty"))
        return None
    try:
        head = read_head(row, authority)
    except IntegrityViolation as error:
        findings.append(Finding("ledger_head", "1", error.detail))
        return None
    if last[0] != head.size or (last[0] and last[1] != head.hash):
        findings.append(Finding("audit_logs", str(last[0]), "the newest entry is not the one the head names"))
    return head


def _root(head: Head, findings: list[Finding]) -> bytes:
    try:
        return Edge.from_bytes(head.edge).root()
    except InvalidProof as error:
        findings.append(Finding("ledger_head", "1", error.detail))
        return b""


def _read_log(
    connection: driver.Connection,
    authority: Authority,
    seen: Inspection,
    head: Head,
    log_from: int,
    attribution: Attribution,
    progress: Progress | None,
) -> None:
    start = (
        _position(connection, log_from)
        if log_from
        else Position.start(genesis(authority.instance_id, authority.log_public_key))
    )
    if start is None:
        seen.findings.append(Finding("audit_logs", str(log_from), "the entry is missing"))
        return
    check, tiles = ChainCheck(start), None if log_from else Tiles()
    rows = connection.execute(f"{statements.ENTRIES} WHERE id > ? ORDER BY id", (log_from,))
    try:
        while chunk := rows.fetchmany(CHUNK):
            leaves = check.feed(chunk)
            attribution.feed(chunk)
            if tiles is not None:
                _check_tiles(connection, tiles.extend(leaves), seen.findings)
            if progress is not None:
                progress(check.position.size, head.size)
    except BrokenChain as error:
        seen.broken = error
        seen.findings.insert(0, Finding("audit_logs", str(error.id), error.reason))
    found = check.position
    seen.entries = found.size - log_from
    if seen.broken is not None:
        return
    if (found.size, found.head, found.state_seq, found.timestamp) != (
        head.size,
        head.hash,
        head.state_seq,
        head.timestamp,
    ):
        seen.findings.append(Finding("ledger_head", "1", "the log is not the one the head names"))
    if found.state_root not in {None, head.state_root}:
        seen.findings.append(Finding("ledger_head", "1", "the newest management entry names another state"))
    if tiles is not None:
        if tiles.edge.to_bytes() != head.edge:
            seen.findings.append(Finding("ledger_head", "1", "the tree over the log is not the one the head names"))
        _check_no_more_tiles(connection, found.size, seen.findings)


def _position(connection: driver.Connection, size: int) -> Position | None:
    row = connection.execute(
        "SELECT hash, epoch, timestamp, state_seq FROM audit_logs WHERE id = ?", (size,)
    ).fetchone()
    return None if row is None else Position(size, row[0], row[1], row[2], row[3], None)


def _check_tiles(connection: driver.Connection, full: list[Tile], findings: list[Finding]) -> None:
    for level, index, hashes in full:
        row = connection.execute(statements.TILE, (level, index)).fetchone()
        if row is None or row[0] != hashes:
            problem = "is missing" if row is None else "is not the one the log gives"
            findings.append(Finding("tiles", f"{level}/{index}", problem))


def _check_no_more_tiles(connection: driver.Connection, size: int, findings: list[Finding]) -> None:
    expected, level = 0, size >> 8
    while level:
        expected += level
        level >>= 8
    stored = connection.execute("SELECT count(*) FROM tiles").fetchone()[0]
    if stored > expected:
        findings.append(Finding("tiles", str(stored), "there are more tiles than the log gives"))


def verification(seen: Inspection) -> Verification:
    """An inspection as the reply to who asked for it."""
    first = seen.findings[0] if seen.findings else None
    return Verification(
        valid=first is None,
        entries=seen.entries,
        head=bytes(32) if seen.head is None else seen.head.hash,
        first_invalid=None if seen.broken is None else seen.broken.id,
        reason=None if first is None else f"{first.table} {first.row}: {first.problem}",
        findings=tuple(seen.findings),
    )
