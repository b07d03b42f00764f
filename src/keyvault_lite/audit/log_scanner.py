"""Judging a whole log to its end: behind an entry that is not as sealed the survey picks the chain up again.

What the entry after a bad one names as `prev_hash` tells which of its hashes is the genuine one, that of its columns or
the one in its column `hash`. So each bad entry is one finding, and its neighbours are none.
"""

from collections.abc import Sequence
from dataclasses import replace

from keyvault_lite.audit.chain import BrokenChain, ChainCheck, ChainState
from keyvault_lite.audit.entry import MALFORMED, Folded, Row, row_hash
from keyvault_lite.audit.merkle import HASH_BYTES

_STATE_SEQ, _STATE_ROOT, _PREV_HASH, _HASH = 3, 4, 22, 23


class LogScanner:
    """Verifies stored entries in order, to the end. Memory does not grow with the log."""

    __slots__ = ("_check", "_doubtful", "_held", "gap")

    def __init__(self, position: ChainState) -> None:
        self._check = ChainCheck(position)
        self._doubtful: tuple[bytes, ...] | None = None
        """Behind a bad entry: what its hash may be, the likelier first; None while all is well."""
        self._held: list[bytes] = []
        """The hash of a bad entry, until the next entry tells which it is."""
        self.gap = False
        """Whether entries are missing, so that the tree over the rest cannot be known."""

    @property
    def position(self) -> ChainState:
        """Where the log is behind what was verified."""
        return self._check.position

    def ends_in(self, head: bytes) -> bool:
        """Whether that may be the hash of the last entry verified."""
        return head == self.position.head or head in (self._doubtful or ())

    def feed_folded(self, rows: Sequence[Folded]) -> list[bytes] | None:
        """The leaves of the next rows; None if one of them may be bad, or the one before: `feed` them whole."""
        return self._check.feed_folded(rows) if self._doubtful is None else None

    def feed(self, rows: Sequence[Row]) -> tuple[list[bytes], list[BrokenChain]]:
        """Verify the next rows: the leaves of the tree that are certain by now, and one finding for each bad entry."""
        if self._doubtful is None:
            start = self._check.position
            try:
                return self._check.feed(rows), []
            except BrokenChain:
                self._check.position = start
        leaves, findings = [*self._held], list[BrokenChain]()
        self._held.clear()
        for row in rows:
            self._one(row, leaves, findings)
        if self._doubtful is not None and leaves:
            self._held.append(leaves.pop())
        return leaves, findings

    def finish(self, head: bytes | None) -> list[bytes]:
        """The leaves held back, when there are no more rows; `head` is the hash that the last entry should have."""
        return [head] if head is not None and self._held and self.ends_in(head) else self._held

    def _one(self, row: Row, leaves: list[bytes], findings: list[BrokenChain]) -> None:
        if row[0] > self.position.size + 1:
            findings.append(self._skip(row, leaves))
        if self._doubtful is not None:
            self._pick_up(row, leaves)
        try:
            leaves += self._check.feed((row,))
            self._doubtful = None
        except BrokenChain as error:
            findings.append(error)
            self._doubtful = _hashes(row)
            now = self._check.position
            self._check.position = replace(now, size=now.size + 1, head=self._doubtful[0])
            leaves.append(self._doubtful[0])

    def _skip(self, row: Row, leaves: list[bytes]) -> BrokenChain:
        """Go on at a row before which entries are missing."""
        first, last, named = self.position.size + 1, row[0] - 1, row[_PREV_HASH]
        if not _is_hash(named):
            named = bytes(HASH_BYTES)
        leaves.append(named)
        self.gap = self.gap or first < last
        self._check.position = replace(self.position, size=last, head=named)
        self._doubtful = (named,)
        return BrokenChain(first, "is missing" if first == last else f"is missing, and all after it up to {last}")

    def _pick_up(self, row: Row, leaves: list[bytes]) -> None:
        """The row's own hash covers its link and its `state_seq`: they are what the bad entry before it left.

        Whether that is believed decides over one more finding only: the bad entry is one, the head has the last word.
        """
        here = self.position
        own = _computed(row)
        if row[_PREV_HASH] in (self._doubtful or ()) or (own is not None and row[_HASH] == own):
            here = replace(here, head=row[_PREV_HASH])
            leaves[-1] = here.head
        if row[_STATE_ROOT] is None and type(row[_STATE_SEQ]) is int and here.state_seq <= row[_STATE_SEQ] <= here.size:
            here = replace(here, state_seq=row[_STATE_SEQ])
        self._check.position = here


def _hashes(row: Row) -> tuple[bytes, ...]:
    """What may be the genuine hash of a bad row: what is there, what its columns give."""
    stored, computed = row[_HASH] if _is_hash(row[_HASH]) else bytes(HASH_BYTES), _computed(row)
    return (stored,) if computed is None else (stored, computed)


def _computed(row: Row) -> bytes | None:
    try:
        return row_hash(row)
    except MALFORMED:
        return None


def _is_hash(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == HASH_BYTES
