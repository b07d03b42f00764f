"""What the ledger asks of an anchor, whether it is a file or a witness on another host."""

from collections.abc import Callable, Sequence
from typing import Protocol

from keyvault_lite.ledger.anchor.counter import CounterUse
from keyvault_lite.ledger.anchor.record import AnchorRecord
from keyvault_lite.model.errors import OutcomeUnknown

Prove = Callable[[int], Sequence[bytes]]
"""prove(size) → the consistency proof from the tree of that size to the mark's."""
Sign = Callable[[int | None], AnchorRecord]
"""sign(count) → the record of the head; `count` is the value of a hardware counter that it names."""


class AnchorBusy(OutcomeUnknown):
    """Somebody else has the anchor at this moment; nothing was signed or written."""


class Remembered(Protocol):
    """What a check needs of an anchor."""

    def read(self, *, blocking: bool = True) -> AnchorRecord | None:
        """The newest mark; None before the first. Not `blocking`, a local one does not wait for a process that uses it.

        Raises DamagedAnchor, or OutcomeUnknown or AuditUnavailable if it cannot be reached.
        """

    @property
    def place(self) -> str:
        """Where it is, for people."""

    def check_counter(self, mark: AnchorRecord) -> tuple[str, str] | None:
        """What is wrong between a mark and the hardware counter, if there is one, and where that is; None if nothing.

        Raises OutcomeUnknown if the counter cannot be reached.
        """


class Anchor(Remembered, Protocol):
    """Where records are kept. MUST be compare-and-extend: never replaced backwards, one for all users of a log."""

    def write(
        self,
        sign: Sign,
        *,
        before: AnchorRecord | None,
        prove: Prove,
        use: CounterUse = CounterUse.NONE,
        blocking: bool = True,
    ) -> AnchorRecord:
        """Replace the mark that was read as `before` by what `sign` makes; returns it.

        Not `blocking`, a local one raises AnchorBusy instead of waiting for a process that uses it, or for a counter.

        MUST NOT call `sign` for a head that it can tell it will refuse: what is signed cannot be taken back. `prove` is
        for an anchor that verifies itself what extends it. Raises OutcomeUnknown if it is another by now, or cannot be
        replaced; IntegrityViolation if it is one that the new mark does not extend.
        """

    def prove(self) -> None:
        """Show that a mark could be written now, without writing one. Raises AuditUnavailable or OutcomeUnknown."""

    def flush(self) -> None:
        """Make the newest mark survive a power loss."""

    def close(self) -> None:
        """Flush and let go."""

    @property
    def is_local(self) -> bool:
        """Whether reading it waits for nobody outside this host."""

    @property
    def waits(self) -> bool:
        """Whether writing it waits for the disk or the network also where no management entry is new."""

    @property
    def is_due(self) -> bool:
        """Whether it wants to be written although nothing is new: what it has is not counted yet."""
