"""The part of the log that is not in the database: how a check goes on behind it, and how it reads it from files.

Without the files the tree's tiles give the hash of every archived entry, and the tree over them has to lead to the
signed head: so not one of them can be exchanged, though what they say is not read. With the files everything is.
"""

from collections.abc import Callable, Iterator, Sequence

from keyvault_lite.audit.chain import ChainState
from keyvault_lite.audit.entry import Row
from keyvault_lite.audit.merkle import TILE_WIDTH
from keyvault_lite.ledger.archive.segment_files import SegmentStore
from keyvault_lite.ledger.log.retention import end_of, leaves_between
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.model.archive import PREFIX, Segment
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.replies import Finding

Feed = Callable[[Sequence[Row], list[bytes]], None]
"""feed(rows, leaves): takes what was read of the log, in order. `rows` is empty where only the hashes are known."""


class Archived:
    """What the state says was archived, and the files it is in, if they are at hand."""

    def __init__(
        self, connection: driver.Connection, segments: Sequence[Segment], segment_store: SegmentStore | None
    ) -> None:
        self._connection = connection
        self._segments = segments
        self._segment_store = segment_store
        self.unread = 0
        """Up to which entry the log was not read, after `read`; 0 if all of it was."""

    @property
    def last(self) -> int:
        """Up to which entry the log was archived; 0 if it was not."""
        return self._segments[-1].last if self._segments else 0

    @property
    def position(self) -> ChainState | None:
        """Where the log is there; None if nothing was archived."""
        return end_of(self._segments[-1]) if self._segments else None

    def read(self, start: ChainState, feed: Feed) -> list[Finding]:
        """Hand over everything that is archived, and return what is wrong with it."""
        findings: list[Finding] = []
        position = start
        for segment in self._segments:
            if segment.first != position.size + 1 and self._segment_store is not None:
                problem = f"entries {position.size + 1} to {segment.first - 1} are archived in a file on no record"
                findings.append(Finding("settings", PREFIX, problem))
            read = self._from_file(segment, position, findings) if segment.first == position.size + 1 else None
            if read is None:
                self.unread = segment.last
                self._from_tiles(position.size, segment.last, feed, findings)
            else:
                feed(*read)
            position = end_of(segment)
        return findings

    def _from_file(
        self, segment: Segment, before: ChainState, findings: list[Finding]
    ) -> tuple[list[Row], list[bytes]] | None:
        """The management entries of a segment and the hashes of all; only once all of it has proven good."""
        if self._segment_store is None:
            return None
        managed: list[Row] = []
        leaves: list[bytes] = []
        try:
            for rows, hashes in self._segment_store.entries(segment, before):
                managed += [row for row in rows if row[_ROOT] is not None]
                leaves += hashes
        except (IntegrityViolation, OSError) as error:
            problem = error.detail if isinstance(error, IntegrityViolation) else str(error.strerror)
            findings.append(Finding("archive", segment.file, problem))
            return None
        return managed, leaves

    def _from_tiles(self, start: int, end: int, feed: Feed, findings: list[Finding]) -> None:
        for at in range(start, end, TILE_WIDTH):
            try:
                leaves = leaves_between(self._connection, at, at + TILE_WIDTH)
            except IntegrityViolation as error:
                findings.append(Finding("tiles", f"0/{at // TILE_WIDTH}", error.detail))
                return
            feed((), leaves)

    def strays(self) -> list[Finding]:
        """Entries that were archived and are in the database all the same: deleted in one transaction, or not."""
        rows = driver.fetch(self._connection, statements.FIRST_ENTRY)
        if not rows or not isinstance(rows[0][0], int) or rows[0][0] > self.last:
            return []
        return [Finding("audit_logs", str(rows[0][0]), "was archived, and stands here all the same")]

    def check_named(self, named: tuple[int, str] | None) -> list[Finding]:
        """Whether the newest entry about archiving is about the newest segment: what everybody can check.

        That entry is always in the database, or in nothing that was read: it comes after what it archives.
        """
        newest = self._segments[-1] if self._segments else None
        if named == (None if newest is None else (newest.last, newest.file_hash)):
            return []
        if named is None:
            said = "no entry tells of it"
        elif named[0] == self.last:
            said = "the newest entry about it names another file"
        else:
            said = f"the newest entry about it says up to entry {named[0]}"
        return [Finding("settings", PREFIX, f"says that the log was archived up to entry {self.last}; {said}")]

    def notes(self) -> Iterator[str]:
        """What was not read, and which files would be needed for it."""
        if not self.unread:
            if self._segment_store is not None:
                for name in self._segment_store.others(self._segments):
                    yield f"{name} is on no record, and nothing needs it: left by a run that was cut off"
            return
        yield f"entries 1 to {self.unread} are archived: their hashes lead to the head, their contents were not read"
        for segment in self._segments:
            yield f"{segment.file} has entries {segment.first} to {segment.last}, SHA-256 {segment.file_hash}"


_ROOT = 4
