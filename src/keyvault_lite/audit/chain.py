"""The chain: entries follow each other without a gap, each names the hash before it, and time never goes back."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from operator import itemgetter
from typing import Final, Self

from keyvault_lite.audit.entry import MALFORMED, Folded, Row, folded_hashes, row_hash, row_hashes
from keyvault_lite.audit.merkle import CompactRange
from keyvault_lite.model.encoding import pae
from keyvault_lite.model.errors import IntegrityViolation

_ID, _EPOCH, _TIMESTAMP, _STATE_SEQ, _STATE_ROOT = map(itemgetter, range(5))
_PREV_HASH, _HASH = itemgetter(22), itemgetter(23)
GENESIS_LABEL: Final = "kvl/v1/genesis"


def genesis(instance_id: bytes, log_public_key: bytes) -> bytes:
    """`prev_hash` of entry 1: ties the log to its installation and to the key that signs its checkpoints."""
    return sha256(pae(GENESIS_LABEL, instance_id, log_public_key)).digest()


class BrokenChain(IntegrityViolation):
    """The first finding: entry `id` (the sequence number that stands, or should stand, there) is not as sealed."""

    def __init__(self, id: int, reason: str) -> None:
        super().__init__(f"audit entry {id}: {reason}")
        self.id = id
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ChainState:
    """Where a log stands after an entry: all that verifying the next one needs."""

    size: int
    """How many entries there are; the next has the id size + 1."""
    head: bytes
    """The hash of the newest entry; of an empty log, its genesis."""
    epoch: int
    timestamp: int
    state_seq: int
    state_root: bytes | None
    """The root in the newest management entry; None before the first, or if not known."""

    @classmethod
    def start(cls, genesis: bytes) -> Self:
        """Before the first entry."""
        return cls(size=0, head=genesis, epoch=0, timestamp=0, state_seq=0, state_root=None)


class ChainCheck:
    """Verifies stored entries in order, from a position that is trusted.

    Rules: ids without a gap; `prev_hash` is the hash before; `hash` is what the columns give; `timestamp` and `epoch`
    never fall; `state_seq` is the entry's own id if it holds a `state_root`, else that of the entry before.
    """

    __slots__ = ("edge", "position")

    def __init__(self, position: ChainState, edge: CompactRange | None = None) -> None:
        """`edge` is the tree at this position and grows with what is checked; None checks the chain alone."""
        if edge is not None and edge.size != position.size:
            raise ValueError("the edge is not that of the position")
        self.position = position
        self.edge = edge

    def feed(self, rows: Iterable[Row]) -> list[bytes]:
        """Verify the next rows, and return their hashes, which are leaves of the tree.

        Raises BrokenChain for the first row that breaks a rule; position and edge then stand right before it.
        """
        rows = rows if isinstance(rows, (list, tuple)) else list(rows)
        leaves = self._all_well(rows)
        if leaves is None:
            return self._one_by_one(rows)
        if self.edge is not None:
            self.edge.extend(leaves)
        return leaves

    def feed_folded(self, rows: Sequence[Folded]) -> list[bytes] | None:
        """As `feed`, of folded rows. None if one may break a rule: nothing has happened, and `feed` tells which."""
        try:
            hashes, epochs = folded_hashes(rows)
            ids, times, seqs, roots, *_, links, stored, _ = zip(*rows, strict=True)
        except MALFORMED:
            return None
        leaves = self._follow(hashes, ids, epochs, times, seqs, roots, links, stored)
        if leaves is not None and self.edge is not None:
            self.edge.extend(leaves)
        return leaves

    def _all_well(self, rows: Sequence[Row]) -> list[bytes] | None:
        """The usual case, column by column: the hashes of rows of which none breaks a rule; None if one may."""
        try:
            hashes = row_hashes(rows)
        except MALFORMED:
            return None
        if not hashes:
            return hashes
        columns = (_ID, _EPOCH, _TIMESTAMP, _STATE_SEQ, _STATE_ROOT, _PREV_HASH, _HASH)
        return self._follow(hashes, *(list(map(column, rows)) for column in columns))

    def _follow(  # noqa: PLR0917  (columns in their order)
        self,
        hashes: list[bytes],
        ids: Sequence[int],
        epochs: Sequence[int],
        times: Sequence[int],
        seqs: Sequence[int],
        roots: Sequence[bytes | None],
        links: Sequence[bytes],
        stored: Sequence[bytes],
    ) -> list[bytes] | None:
        now = self.position
        size = now.size + len(hashes)
        epochs, times = [now.epoch, *epochs], [now.timestamp, *times]
        if (
            list(ids) != list(range(now.size + 1, size + 1))
            or list(links) != [now.head, *hashes[:-1]]
            or list(stored) != hashes
            or epochs != sorted(epochs)
            or times != sorted(times)
        ):
            return None
        state_seq, state_root = now.state_seq, now.state_root
        if roots.count(None) == len(hashes):
            if seqs.count(state_seq) != len(hashes):
                return None
        else:
            for id, seq, root in zip(ids, seqs, roots, strict=True):
                if root is not None:
                    state_seq, state_root = id, root
                if seq != state_seq:
                    return None
        self.position = ChainState(size, hashes[-1], epochs[-1], times[-1], state_seq, state_root)
        return hashes

    def _one_by_one(self, rows: Sequence[Row]) -> list[bytes]:
        leaves: list[bytes] = []
        now = self.position
        size, head, epoch, timestamp = now.size, now.head, now.epoch, now.timestamp
        state_seq, state_root = now.state_seq, now.state_root
        try:
            for row in rows:
                expected = size + 1
                try:
                    computed = row_hash(row)
                except MALFORMED:
                    raise BrokenChain(expected, "a column holds what no entry can hold") from None
                row_state_root = row[4]
                due = state_seq if row_state_root is None else expected
                # One comparison for the usual case; which rule is broken is looked up only if one is.
                if (
                    row[0] != expected
                    or row[22] != head
                    or row[23] != computed
                    or row[2] < timestamp
                    or row[1] < epoch
                    or row[3] != due
                ):
                    raise _finding(
                        row, expected=expected, head=head, computed=computed, timestamp=timestamp, epoch=epoch
                    )
                size, head, epoch, timestamp, state_seq = expected, computed, row[1], row[2], due
                if row_state_root is not None:
                    state_root = row_state_root
                leaves.append(computed)
        finally:
            self.position = ChainState(size, head, epoch, timestamp, state_seq, state_root)
            if self.edge is not None:
                self.edge.extend(leaves)
        return leaves


def _finding(row: Row, *, expected: int, head: bytes, computed: bytes, timestamp: int, epoch: int) -> BrokenChain:
    if row[0] != expected:
        return BrokenChain(expected, f"it is missing; entry {row[0]} stands in its place")
    if row[22] != head:
        return BrokenChain(expected, "prev_hash is not the hash of the entry before")
    if row[23] != computed:
        return BrokenChain(expected, "hash is not that of its columns")
    if row[2] < timestamp:
        return BrokenChain(expected, "its timestamp is before that of the entry before")
    if row[1] < epoch:
        return BrokenChain(expected, "its epoch is before that of the entry before")
    return BrokenChain(expected, "state_seq is not the newest management entry")
