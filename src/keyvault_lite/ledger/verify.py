"""Checking what is stored: schema, head, rows and root in one snapshot, and the whole log from its first entry."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from keyvault_lite.audit.chain import BrokenChain, ChainCheck, Position, genesis
from keyvault_lite.audit.merkle import Edge
from keyvault_lite.ledger import driver, statements
from keyvault_lite.ledger.catalogue import check_schema
from keyvault_lite.ledger.head import Head, read_head
from keyvault_lite.ledger.outcome import Authority
from keyvault_lite.ledger.rows import VerifiedRows, read_rows
from keyvault_lite.ledger.state import StateTree
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.replies import Finding, Verification

_CHUNK = 5000


@dataclass(slots=True)
class Opened:
    """A database read and verified in one snapshot."""

    head: Head | None
    mac: bytes
    rows: VerifiedRows
    tree: StateTree
    findings: list[Finding]
    entries: int = 0
    """How many entries of the log were checked; 0 unless the whole log was."""
    broken: BrokenChain | None = None


def read_verified(connection: driver.Connection, authority: Authority, *, whole_log: bool = False) -> Opened:
    """Read schema, head and state, and the log if wanted, in one transaction and compare them.

    Findings are returned, not raised.
    """
    connection.execute("BEGIN")
    try:
        findings = check_schema(connection)
        tree = StateTree()
        row = connection.execute(statements.READ_HEAD).fetchone()
        head: Head | None = None
        if row is None:
            if connection.execute(statements.LAST_ENTRY).fetchone() is not None:
                findings.append(Finding("ledger_head", "1", "the head is missing while the log is not empty"))
        else:
            try:
                head = read_head(row, authority)
            except IntegrityViolation as error:
                findings.append(Finding("ledger_head", "1", error.detail))
        rows = read_rows(connection, authority, newer_than=0, known=lambda _: None)
        findings += rows.findings
        tree.load(rows.macs)
        if head is not None:
            last = connection.execute(statements.LAST_ENTRY).fetchone() or (0, None)
            if last[0] != head.size or (last[0] and last[1] != head.hash):
                findings.append(Finding("audit_logs", str(last[0]), "the newest entry is not the one the head names"))
            if tree.root() != head.state_root and not rows.findings:
                findings.append(
                    Finding(
                        "ledger_head", "1", "the rows are not the state that the log commits to: old or missing rows"
                    )
                )
        opened = Opened(head, row[-1] if row else b"", rows, tree, findings)
        if whole_log:
            _read_log(connection, authority, opened)
        return opened
    finally:
        connection.execute("ROLLBACK")


def _read_log(connection: driver.Connection, authority: Authority, opened: Opened) -> None:
    start = genesis(authority.instance_id, authority.log_public_key)
    check = ChainCheck(Position.start(start), Edge())
    rows = connection.execute(f"{statements.ENTRIES} ORDER BY id")
    try:
        while chunk := rows.fetchmany(_CHUNK):
            check.feed(chunk)
    except BrokenChain as error:
        opened.broken = error
    opened.entries = check.position.size
    head, found = opened.head, check.position
    if head is None or opened.broken is not None:
        return
    if (found.size, found.head, found.state_seq, found.timestamp) != (
        head.size,
        head.hash,
        head.state_seq,
        head.timestamp,
    ):
        opened.findings.append(Finding("ledger_head", "1", "the log is not the one the head names"))
    if found.state_root not in {None, head.state_root}:
        opened.findings.append(Finding("ledger_head", "1", "the newest management entry names another state"))
    if check.edge is not None and check.edge.to_bytes() != head.edge:
        opened.findings.append(Finding("ledger_head", "1", "the tree over the log is not the one the head names"))


def verify_log(connection: driver.Connection, authority: Authority) -> Verification:
    """Everything `read_verified` checks, and every entry of the log under the head."""
    opened = read_verified(connection, authority, whole_log=True)
    head, chain = opened.head, opened.broken
    findings = list(opened.findings)
    if chain is not None:
        findings.insert(0, Finding("audit_logs", str(chain.id), chain.reason))
    first = findings[0] if findings else None
    return Verification(
        valid=not findings,
        entries=opened.entries,
        head=bytes(32) if head is None else head.hash,
        first_invalid=None if chain is None else chain.id,
        reason=None if first is None else f"{first.table} {first.row}: {first.problem}",
        findings=tuple(findings),
    )


class SharedVerification:
    """At most one check of the whole log at a time; who asks meanwhile gets its result."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Future[Verification] | None = None

    def run(self, check: Callable[[], Verification]) -> Verification:
        """Verify, or wait for the check that is under way. Blocks."""
        with self._lock:
            running, mine = self._running, self._running is None
            if running is None:
                running = self._running = Future()
        if not mine:
            return running.result()
        try:
            running.set_result(check())
        except BaseException as error:
            running.set_exception(error)
            raise
        finally:
            with self._lock:
                self._running = None
        return running.result()
