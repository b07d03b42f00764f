"""Checking what is stored, in one snapshot: schema, head, rows, state root, the log with its tree, and the anchor.

Findings are complete: behind each the check goes on, so that every row and entry not as it was written is named.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from keyvault_lite.audit.chain import BrokenChain, ChainState, genesis
from keyvault_lite.audit.entry import ENTRY_COLUMNS, Row
from keyvault_lite.audit.log_scanner import LogScanner
from keyvault_lite.audit.merkle import CompactRange, Tile, Tiles
from keyvault_lite.ledger.anchor.interface import Remembered
from keyvault_lite.ledger.anchor.record import AnchorRecord
from keyvault_lite.ledger.archive.archived import Archived
from keyvault_lite.ledger.archive.segment_files import SegmentStore
from keyvault_lite.ledger.commit.head_check import check_head, root_named
from keyvault_lite.ledger.log.kept_replies import check_replies
from keyvault_lite.ledger.log.query import entries_after, folded_after, position_behind
from keyvault_lite.ledger.log.retention import segments_of
from keyvault_lite.ledger.state.head import Head
from keyvault_lite.ledger.state.outcome import Authority, PublicAuthority
from keyvault_lite.ledger.state.root import RowMacs, StateTree, row_of
from keyvault_lite.ledger.state.verified_rows import NOT_COMMITTED, VerifiedRows, read_rows
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.bulk_memory import without_collection
from keyvault_lite.ledger.storage.database import Database
from keyvault_lite.ledger.storage.log_index import IndexCheck
from keyvault_lite.ledger.storage.upgrade import check_revision
from keyvault_lite.ledger.verify.expected_heads import ExpectedHead, claim_of, claim_of_head
from keyvault_lite.ledger.verify.row_writers import RowWriters
from keyvault_lite.ledger.verify.startup import check_anchor
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.replies import Finding, Verification

CHUNK: Final = 500
MAX_FINDINGS: Final = 1000
"""Entries of the log that are named; the rest is counted."""
Progress = Callable[[int, int], None]
"""Told how many entries of how many have been checked."""
_ROOT: Final = ENTRY_COLUMNS.index("state_root")
_ACTION: Final = ENTRY_COLUMNS.index("action")
_COMMENT: Final = ENTRY_COLUMNS.index("comment")


@dataclass(slots=True)
class Inspection:
    """What was read and what does not verify."""

    head: Head | None
    mac: bytes
    rows: VerifiedRows
    tree: StateTree
    """Empty, like the keys of `rows`, if nothing was to be loaded."""
    root: bytes
    """Of the Merkle tree that the head names."""
    findings: list[Finding] = field(default_factory=list)
    more: int = 0
    """Findings beyond the limit, counted only."""
    entries: int = 0
    """How many entries of the log were checked."""
    read_to: int = 0
    """Up to which entry."""
    archived: int = 0
    """Up to which entry the log is in an archive that was not read."""
    broken: BrokenChain | None = None
    """The first entry that is not as sealed."""
    schema_is_other: bool = False
    """Whether any of the findings is of the schema."""
    state_is_other: bool = False
    """Whether the rows verify one by one and are not the state that the log commits to."""
    notes: list[str] = field(default_factory=list)
    """What a reader should know and is no finding."""


def inspect(
    connection: driver.Connection,
    authority: Authority | PublicAuthority,
    database: Database,
    *,
    anchor: Remembered | None = None,
    mark: AnchorRecord | None = None,
    log_from: int | None = None,
    progress: Progress | None = None,
    claims: Sequence[ExpectedHead] = (),
    pages: bool = False,
    segment_store: SegmentStore | None = None,
    load: bool = False,
    memory: StateTree | None = None,
) -> Inspection:
    """Read and compare everything. Findings are returned, not raised.

    The keys and the state tree are returned if they are to be loaded: else they are read and let go of. `memory` is the
    tree of a vault that runs: if it is that of the stored head, rows are compared with it and not kept either.

    `mark` MUST have been read from `anchor` before this is called. The log is checked from behind entry `log_from`;
    from 0 it is checked whole, with its tree and the `claims` about it; None leaves it out. `pages` has the database
    check its own structure too. `segment_store` has the files of what was archived.
    """
    connection.execute("BEGIN")
    try:
        if strange := database.check_kinds(connection):
            return Inspection(None, b"", VerifiedRows(), StateTree(), b"", strange, schema_is_other=True)
        findings = database.check_schema(connection)
        schema_is_other = bool(findings)
        check_revision(connection, findings)
        mac, head = check_head(connection, authority, findings)
        rows, tree, state_root = _read_state(connection, authority, head, load=load, memory=memory)
        findings += rows.findings
        root = CompactRange().root() if head is None else root_named(head, findings)
        seen = Inspection(head, mac, rows, tree, root, findings, schema_is_other=schema_is_other)
        seen.state_is_other = head is not None and state_root != head.state_root
        if not isinstance(authority, PublicAuthority):
            findings += check_replies(connection, authority)
        archived = Archived(connection, segments_of(rows.change.settings, findings), segment_store)
        if anchor is not None:
            contradictions = check_anchor(connection, authority, anchor, mark, head, archived=archived.last)
            findings += contradictions
            claims = [*claims, *(() if contradictions else claim_of(anchor, mark))]
        attribution = RowWriters()
        if log_from is not None:
            claims = [*claims, *claim_of_head(head, findings)]
            folds = database.folds_entries
            log = _Log(
                connection,
                authority,
                seen,
                log_from,
                folds=folds,
                attribution=attribution,
                archived=archived,
                index=not load,  # a start is about keys and authority: not refused for what can be rebuilt
            )
            log.read(progress, claims)
            if seen.state_is_other or isinstance(authority, PublicAuthority):
                named = {one.row for one in rows.findings if one.table == "keyring_slots"}
                findings += [one for one in attribution.check_slots(rows.change.slots) if one.row not in named]
        if seen.state_is_other and head is not None:
            told = attribution.explain(connection, rows)
            findings += told + _unexplained(rows, told, root=head.state_root, archived=archived.unread)
        if pages and not schema_is_other:  # it runs whatever conditions the schema has
            findings += database.check_pages(connection)
        return seen
    finally:
        connection.execute("ROLLBACK")


def _read_state(
    connection: driver.Connection,
    authority: Authority | PublicAuthority,
    head: Head | None,
    *,
    load: bool,
    memory: StateTree | None,
) -> tuple[VerifiedRows, StateTree, bytes]:
    """The rows, their tree if it is to be loaded, and its root."""
    with without_collection():
        if memory is not None and head is not None:
            compared = memory.comparison()
            if compared.root() == head.state_root:
                rows = read_rows(connection, authority, newer_than=0, note=compared.add, keep=False)
                rows.differing = compared.differences()
                return rows, StateTree(), b"" if rows.differing else head.state_root
        macs, tree = RowMacs(), StateTree()
        rows = read_rows(connection, authority, newer_than=0, note=macs.add, keep=load)
        if load:
            tree.load(macs)
        root = tree.root() if load else macs.root()
        for one in rows.others:
            macs.add(*one)
        rows.sealed_root = macs.root() if rows.others else root
        return rows, tree, root


def _unexplained(rows: VerifiedRows, told: Sequence[Finding], *, root: bytes, archived: int) -> list[Finding]:
    """What is wrong beside the rows that are named; the findings of a log that names them are `told`.

    Only two things show that nothing is: memory, which knows every row; or that the rows lead to the root with those
    that do not verify, because their columns alone were edited. Else an old row may hide behind any that is named.
    """
    known = {(one.table, one.row) for one in rows.findings}
    if rows.differing:
        return [Finding(*row, NOT_COMMITTED) for row in sorted({*map(row_of, rows.differing)} - known)]
    if rows.sealed_root == root:
        return []
    where = f"last written by entry {archived} or before," if archived else "in key_names, settings or tokens"
    where = "beside what is named" if known or told else where
    problem = f"the rows are not the state that the log commits to: {where} one is missing or old"
    return [Finding("ledger_head", "1", problem)]


class _Log:
    """One reading of the log, from behind an entry that is known or from its beginning."""

    def __init__(
        self,
        connection: driver.Connection,
        authority: Authority | PublicAuthority,
        seen: Inspection,
        log_from: int,
        *,
        folds: bool,
        attribution: RowWriters,
        archived: Archived,
        index: bool,
    ) -> None:
        self._connection = connection
        self._seen = seen
        self._folds = folds
        self._attribution = attribution
        self._archived = archived
        whole = log_from == 0
        self._from = 0 if whole else max(log_from, archived.last)
        self._start = ChainState.start(genesis(authority.instance_id, authority.log_public_key))
        self._behind = archived.position if archived.last >= log_from else _position(connection, log_from)
        """Where the log in the database begins to be read, if not at the start."""
        self._tiles = Tiles() if whole else None
        self._index = IndexCheck(connection, archived.last + 1) if whole and index else None
        self._wanted: list[int] = []
        """Sizes at which somebody claims a root, the smallest first."""
        self._roots: dict[int, bytes] = {}

    def read(self, progress: Progress | None, claims: Sequence[ExpectedHead]) -> None:
        """Verify every entry, then the head and the claims against them; of a whole log its index too, if wanted."""
        seen, head = self._seen, self._seen.head
        if self._from and self._behind is None:
            seen.findings.append(Finding("audit_logs", str(self._from), "is missing, or not as its hash says"))
            return
        survey = LogScanner(self._behind or self._start)
        self._wanted = sorted({claim.size for claim in claims})
        try:
            if self._tiles is not None:
                self._read_archived()
            self._read_entries(survey, progress, 0 if head is None else head.size)
            self._grow(survey.finish(None if head is None else head.hash))
            self._compare(survey)
            if self._index is not None and seen.broken is None:  # an entry that is another needs other rows
                seen.findings += self._index.finish(survey.position.size, MAX_FINDINGS)
            if self._tiles is not None:
                seen.findings += self._archived.check_named(self._attribution.archived)
        except driver.Damaged as error:
            place = survey.position.size + 1
            seen.findings.append(Finding("audit_logs", str(place), f"cannot be read, nor what follows: {error}"))
            return
        finally:
            seen.read_to = survey.position.size
            seen.entries = seen.read_to - (self._from or self._archived.unread)
        if self._tiles is not None:
            for claim in claims:
                if self._roots.get(claim.size) != claim.root:
                    seen.findings.append(claim.otherwise)

    def _read_archived(self) -> None:
        def feed(rows: Sequence[Row], leaves: list[bytes]) -> None:
            self._managed(rows)
            self._grow(leaves)

        findings = self._archived.read(self._start, feed) + self._archived.strays()
        if any(one.table == "tiles" for one in findings):
            self._tiles = None
        self._seen.archived = self._archived.unread
        self._seen.findings += findings
        self._seen.notes += self._archived.notes()

    def _read_entries(self, survey: LogScanner, progress: Progress | None, total: int) -> None:
        try:
            self._read_from(survey, progress, total)
        except driver.Damaged as error:
            if not driver.is_text_error(error):
                raise
            with driver.any_text(self._connection):
                self._read_from(survey, progress, total)

    def _read_from(self, survey: LogScanner, progress: Progress | None, total: int) -> None:
        while True:
            leaves = self._read_folded(survey) or self._read_whole(survey)
            if leaves is None:
                return
            if survey.gap:
                self._tiles = self._index = None  # numbers beyond a gap may be anything
            self._grow(leaves)
            if self._index is not None:
                self._index.read_to(survey.position.size)
            if progress is not None:
                progress(survey.position.size, max(total, survey.position.size))

    def _read_folded(self, survey: LogScanner) -> list[bytes] | None:
        """The leaves of the next entries, if all is well with them; else nothing has happened."""
        before = survey.position.size
        if not self._folds:
            return None
        leaves = survey.feed_folded(folded_after(self._connection, before, CHUNK))
        if survey.position.state_seq > before:
            self._managed(driver.fetch(self._connection, statements.MANAGED, (before + 1, survey.position.size)))
        return leaves

    def _read_whole(self, survey: LogScanner) -> list[bytes] | None:
        """As much of the leaves of the next entries as is certain, every bad one noted; None at the end of the log."""
        chunk = next(entries_after(self._connection, survey.position.size, CHUNK), None)
        if chunk is None:
            return None
        leaves, broken = survey.feed(chunk)
        self._note(broken)
        bad = {error.id for error in broken}
        self._managed([row for row in chunk if row[_ROOT] is not None and row[0] not in bad])
        return leaves

    def _note(self, broken: Sequence[BrokenChain]) -> None:
        for error in broken:
            self._seen.broken = self._seen.broken or error
            if len(self._seen.findings) < MAX_FINDINGS:
                self._seen.findings.append(Finding("audit_logs", str(error.id), error.reason))
            else:
                self._seen.more += 1

    def _managed(self, rows: Sequence[Row]) -> None:
        self._attribution.feed(rows)
        self._seen.notes += [
            f"by the operator's word in entry {row[0]}, from which on the epoch is {row[1]}: {row[_COMMENT]}"
            for row in rows
            if row[_ACTION] == Action.ANCHOR_TRUST
        ]

    def _grow(self, leaves: list[bytes]) -> None:
        tiles = self._tiles
        while tiles is not None and leaves:
            size = tiles.edge.size
            stop = next((wanted - size for wanted in self._wanted if wanted > size), len(leaves))
            part, leaves = leaves[:stop], leaves[stop:]
            _check_tiles(self._connection, tiles.extend(part), self._seen.findings)
            if tiles.edge.size in self._wanted:
                self._roots[tiles.edge.size] = tiles.edge.root()

    def _compare(self, survey: LogScanner) -> None:
        """What the head says, with what there is."""
        seen, head, found = self._seen, self._seen.head, survey.position
        if head is None:
            return
        other: Mapping[str, bool] = {
            "size": found.size != head.size,
            "hash": not survey.ends_in(head.hash),
            "epoch": seen.broken is None and found.epoch != head.epoch,
            "timestamp": seen.broken is None and found.timestamp != head.timestamp,
            "state_seq": seen.broken is None and found.state_seq != head.state_seq,
            "state_root": seen.broken is None and found.state_root not in {None, head.state_root},
            "edge": self._tiles is not None and self._tiles.edge.to_bytes() != head.edge,
        }
        differing = [name for name, differs in other.items() if differs]
        if differing:
            seen.findings.append(
                Finding("ledger_head", "1", f"{', '.join(differing)}: the log is not the one the head names")
            )
        if self._tiles is not None:
            _check_no_more_tiles(self._connection, found.size, seen.findings)


def _position(connection: driver.Connection, size: int) -> ChainState | None:
    """Where the log is behind an entry; None if it is not there, or not as its own hash says."""
    try:
        return position_behind(connection, size)
    except IntegrityViolation:
        return None


def _check_tiles(connection: driver.Connection, full: list[Tile], findings: list[Finding]) -> None:
    for level, index, hashes in full:
        rows = driver.fetch(connection, statements.TILE, (level, index))
        if not rows or rows[0][0] != hashes:
            problem = "is not the one the log gives" if rows else "is missing"
            findings.append(Finding("tiles", f"{level}/{index}", problem))


def _check_no_more_tiles(connection: driver.Connection, size: int, findings: list[Finding]) -> None:
    for level, index in connection.execute("SELECT level, tile FROM tiles"):
        if not (type(level) is type(index) is int and level >= 0 and 0 <= index < size >> min(8 * (level + 1), 64)):
            findings.append(Finding("tiles", f"{level}/{index}", "is beyond what the log gives"))


def verification(seen: Inspection) -> Verification:
    """An inspection as a reply."""
    first = seen.findings[0] if seen.findings else None
    return Verification(
        valid=first is None,
        entries=seen.entries,
        head=bytes(32) if seen.head is None else seen.head.hash,
        first_invalid=None if seen.broken is None else seen.broken.id,
        reason=None if first is None else f"{first.table} {first.row}: {first.problem}",
        findings=tuple(seen.findings[:MAX_FINDINGS]),
        more=seen.more + max(0, len(seen.findings) - MAX_FINDINGS),
        notes=tuple(seen.notes),
        archived=seen.archived,
    )
