"""The checkpoint publisher: after COMMIT and before the answers, the head is signed and put in the anchor.

It is signed only once the anchor accepts it: of a log that was forked, only one branch is ever signed.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from keyvault_lite.audit import checkpoint
from keyvault_lite.ledger.anchor.counter import CounterUse
from keyvault_lite.ledger.anchor.interface import Anchor, Prove
from keyvault_lite.ledger.anchor.record import AnchorRecord
from keyvault_lite.ledger.state.head import Head
from keyvault_lite.ledger.state.outcome import Authority
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.model.errors import IntegrityViolation

PUT_BACK: Final = "the database was put back: its log does not extend the one that the anchor remembers"


class CheckpointPublisher:
    """Signs heads and writes the anchor. Without an anchor it only signs."""

    def __init__(self, authority: Authority, anchor: Anchor | None) -> None:
        self._authority = authority
        self._anchor = anchor
        self.anchored: AnchorRecord | None = None
        """The anchor record as last read or written."""
        self.scrubbed = 0
        """How many entries the background check has read and verified; goes into the anchor record."""

    def load(self, mark: AnchorRecord | None) -> None:
        """Start from what was read of the anchor."""
        self.anchored = mark
        self.scrubbed = 0 if mark is None else mark.scrubbed

    def read(self, *, blocking: bool = True) -> AnchorRecord | None:
        """The anchor record now. Raises as Anchor.read."""
        return None if self._anchor is None else self._anchor.read(blocking=blocking)

    def prove(self) -> None:
        """Show that the anchor could be read and written now. Raises as Anchor.prove."""
        if self._anchor is not None:
            self._anchor.prove()

    def check(self, mark: AnchorRecord | None, old: Head, hashes: Sequence[bytes]) -> None:
        """Whether the log holds what the anchor names: at the old head, or among the hashes just read.

        Raises IntegrityViolation.
        """
        if mark == self.anchored:
            return
        if mark is None:
            raise IntegrityViolation("the anchor is gone")
        newer = mark.size - old.size
        held = old.hash if newer == 0 else hashes[newer - 1] if 0 < newer <= len(hashes) else None
        if held != mark.hash:
            raise IntegrityViolation(PUT_BACK)
        self.anchored = mark

    def publish(self, tip: LogTip, prove: Prove, *, use: CounterUse = CounterUse.NONE, blocking: bool = True) -> LogTip:
        """Sign the head and put it in the anchor; the tip with its checkpoint. Raises as Anchor.write."""
        signed = tip

        def sign(count: int | None) -> AnchorRecord:
            nonlocal signed
            signed = self.sign(tip, count)
            return self.mark(signed)

        anchor, anchored = self._anchor, self.anchored
        if anchor is None:
            sign(None)
        elif anchored is None or anchored.hash != tip.head.hash or anchor.is_due or sign(_count(anchored)) != anchored:
            self.anchored = anchor.write(sign, before=anchored, prove=prove, use=use, blocking=blocking)
        return signed

    def lags(self, head: Head) -> bool:
        """Whether the anchor lacks a management entry of this head: the process that wrote it has died after COMMIT."""
        return self.anchored is not None and self.anchored.state_seq < head.state_seq

    @property
    def is_due(self) -> bool:
        """Whether the anchor is to be written although nothing is new."""
        return self._anchor is not None and self._anchor.is_due

    def sign(self, tip: LogTip, count: int | None = None) -> LogTip:
        """The tip with a checkpoint, which names the value of a hardware counter if there is one."""
        head = tip.head
        name = checkpoint.origin(self._authority.instance_id, head.epoch)
        lines: tuple[str, ...] = checkpoint.fact_lines(head.state_seq, head.hash)
        if count is not None:
            lines += (checkpoint.counter_line(count),)
        body = checkpoint.checkpoint_body(name, head.size, tip.tiles.edge.root(), lines)
        note = checkpoint.sign_note(body, name, self._authority.log_public_key, self._authority.sign_log)
        return replace(tip, checkpoint=note)

    def mark(self, tip: LogTip) -> AnchorRecord:
        """A head with its checkpoint, as an anchor keeps it."""
        head = tip.head
        name = checkpoint.origin(self._authority.instance_id, head.epoch)
        return AnchorRecord(
            epoch=head.epoch,
            size=head.size,
            state_seq=head.state_seq,
            hash=head.hash,
            root=tip.tiles.edge.root(),
            checkpoint=tip.checkpoint,
            verifier_key=checkpoint.verifier_key(name, self._authority.log_public_key),
            scrubbed=self.scrubbed,
        )

    def close(self) -> None:
        """Flush and close the anchor."""
        if self._anchor is not None:
            self._anchor.close()


def _count(mark: AnchorRecord) -> int | None:
    note = mark.checkpoint
    if not checkpoint.has_counter(note):
        return None
    return checkpoint.counter_of(checkpoint.parse_checkpoint(checkpoint.parse_note(note).body).extensions)
