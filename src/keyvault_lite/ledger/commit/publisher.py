"""What is told outside the database: after COMMIT the head is signed and put in the anchor, and then answers leave.

It is signed once the anchor has nothing against it: of a log that was forked, one branch alone is.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from keyvault_lite.audit import checkpoint
from keyvault_lite.ledger.anchor.files import Anchor, Prove
from keyvault_lite.ledger.anchor.record import Mark
from keyvault_lite.ledger.state.head import Head
from keyvault_lite.ledger.state.outcome import Authority
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.model.errors import IntegrityViolation

PUT_BACK: Final = "the database was put back: its log does not extend the one that the anchor remembers"


class Announcer:
    """Signs heads, and keeps the anchor. Without one it signs alone."""

    def __init__(self, authority: Authority, anchor: Anchor | None) -> None:
        self._authority = authority
        self._anchor = anchor
        self.anchored: Mark | None = None
        """The mark of the anchor as last seen there."""
        self.scrubbed = 0
        """How many entries a background check has read and proven; goes into the anchor."""

    def load(self, mark: Mark | None) -> None:
        """Go on from what was read of the anchor."""
        self.anchored = mark
        self.scrubbed = 0 if mark is None else mark.scrubbed

    def read(self, *, at_once: bool = False) -> Mark | None:
        """What the anchor says now. Raises as Anchor.read."""
        return None if self._anchor is None else self._anchor.read(at_once=at_once)

    def prove(self) -> None:
        """Show that the anchor could be read and written now. Raises as Anchor.prove."""
        if self._anchor is not None:
            self._anchor.prove()

    def check(self, mark: Mark | None, old: Head, hashes: Sequence[bytes]) -> None:
        """The log has to hold what the anchor remembers: at what was known, or within what was just read.

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

    def publish(self, known: LogTip, prove: Prove, *, at_once: bool = False) -> LogTip:
        """Sign the head and put it in the anchor; what is known with its checkpoint. Raises as Anchor.write."""
        signed = known

        def sign() -> Mark:
            nonlocal signed
            signed = replace(known, checkpoint=self._note(known))
            return self.mark(signed)

        anchored = self.anchored
        if self._anchor is None:
            sign()
        elif anchored is None or anchored.hash != known.head.hash or sign() != anchored:
            self.anchored = self._anchor.write(sign, before=anchored, prove=prove, at_once=at_once)
        return signed

    def _note(self, known: LogTip) -> str:
        head = known.head
        origin = checkpoint.origin(self._authority.instance_id, head.epoch)
        lines = checkpoint.fact_lines(head.state_seq, head.hash)
        body = checkpoint.checkpoint_body(origin, head.size, known.tiles.edge.root(), lines)
        return checkpoint.sign_note(body, origin, self._authority.log_public_key, self._authority.sign_log)

    def mark(self, known: LogTip) -> Mark:
        """A head with its checkpoint, as an anchor keeps it."""
        head = known.head
        origin = checkpoint.origin(self._authority.instance_id, head.epoch)
        return Mark(
            epoch=head.epoch,
            size=head.size,
            state_seq=head.state_seq,
            hash=head.hash,
            root=known.tiles.edge.root(),
            checkpoint=known.checkpoint,
            verifier_key=checkpoint.verifier_key(origin, self._authority.log_public_key),
            scrubbed=self.scrubbed,
        )

    def close(self) -> None:
        """Flush the anchor and let go of it."""
        if self._anchor is not None:
            self._anchor.close()
