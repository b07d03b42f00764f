"""A hardware counter beside the anchor: it finds a database and an anchor that were put back together.

The newest checkpoint names a value k of a counter that cannot go back. A write that is counted goes:

    COMMIT; sign a checkpoint with k = C + 1; write and flush the anchor; increment the counter to C + 1; answer

So a start finds k = C, or k = C + 1 where a process has died before the increment, and everything else was put back.
What is not counted repeats k, and is lost without a trace if it is put back: it waits for the next counted write, which
comes after a quarter of an hour at the latest. A counted write comes first in each process, because a checkpoint with
k = C + 1 would otherwise stay good for two values of the counter.
"""

import logging
import time
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Final, Protocol

from keyvault_lite.audit.checkpoint import (
    Verify,
    counter_of,
    fact_lines,
    has_counter,
    origin,
    verifier_key,
    verify_note,
)
from keyvault_lite.ledger.anchor.record import AnchorRecord
from keyvault_lite.model.actions import ADMIN, RULES
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.evidence import Action

DAILY_INCREMENTS: Final = 2000
"""Counted writes a day and process: a chip's memory wears out after some hundred thousand increments."""
DUE_SECONDS: Final = 900
"""After how long data entries are counted too."""
DAY_SECONDS: Final = 86_400
PUT_BACK: Final = "the database and its anchor were put back together"
NOT_COUNTED: Final = frozenset({Action.LOGIN, Action.TOKEN_CREATE, Action.TOKEN_EXTEND, Action.TOKEN_REMOVE})
"""What a cluster does each minute, and what takes back nothing that was given."""
log = logging.getLogger("keyvault_lite.ledger")


class MonotonicCounter(Protocol):
    """A counter that never goes back.

    Raises OutcomeUnknown if it cannot be reached, IntegrityViolation if it is not this vault's.
    """

    @property
    def place(self) -> str:
        """Where it is, for people."""

    def read(self) -> int | None:
        """Its value; None if this vault has none there."""

    def create(self) -> None:
        """Make it, above every value that a counter there ever had."""

    def increment(self) -> None:
        """Add one."""


class CounterUse(IntEnum):
    """What a write asks of the counter."""

    NONE = 0
    SELF_SERVICE = 1
    """Something that callers do to their own credentials: no more than half of the day's increments are for it."""
    MANAGEMENT = 2


def use_of(actions: Iterable[Action]) -> CounterUse:
    """What a change by these actions asks of the counter."""
    return max(map(_use_of, actions), default=CounterUse.NONE)


def _use_of(action: Action) -> CounterUse:
    if action in NOT_COUNTED:
        return CounterUse.NONE
    return CounterUse.MANAGEMENT if RULES[action].roles <= ADMIN else CounterUse.SELF_SERVICE


class _Budget:
    """The increments of one day."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._day = clock()
        self._spent = 0

    def left(self, use: CounterUse = CounterUse.MANAGEMENT) -> int:
        """How many there still are for this use."""
        if self._clock() - self._day >= DAY_SECONDS:
            self._day, self._spent = self._clock(), 0
        most = DAILY_INCREMENTS if use is CounterUse.MANAGEMENT else DAILY_INCREMENTS // 2
        return max(0, most - self._spent)

    def spend(self, use: CounterUse) -> bool:
        """Take one; false if there is none."""
        left = self.left(use)
        if left == 1:
            log.warning("the day's increments of the TPM counter are used up: changes are counted each 15 minutes")
        self._spent += left > 0
        return left > 0


class CounterState:
    """What one process knows of the counter. Used under the anchor's lock."""

    def __init__(
        self,
        counter: MonotonicCounter,
        *,
        instance_id: bytes,
        log_public_key: bytes,
        verify: Verify,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counter = counter
        self._instance_id = instance_id
        self._log_public_key = log_public_key
        self._verify = verify
        self._clock = clock
        self._budget = _Budget(clock)
        self._known: int | None = None
        """The counter's value, if this process was the last that has incremented it."""
        self._verified: tuple[AnchorRecord, int | None] | None = None
        """The newest record that was verified or made, and its value."""
        self._counted: tuple[int, int | None, float] = 0, None, clock()
        """The last counted write of any process: how long the log was, its value, and when it was seen."""

    @property
    def place(self) -> str:
        """Where the counter is, for people."""
        return self._counter.place

    @property
    def left_today(self) -> int:
        """How many counted writes there still are today."""
        return self._budget.left()

    def count_in(self, mark: AnchorRecord) -> int | None:
        """The counter's value in a record, if it has one. Raises InvalidNote unless the log's key has signed it all.

        The record itself is not signed: the note of a newer one in an older one would make that one new.
        """
        if self._verified is not None and self._verified[0] == mark:
            return self._verified[1]
        vkey = verifier_key(origin(self._instance_id, mark.epoch), self._log_public_key)
        head = verify_note(mark.checkpoint, vkey, self._verify)
        if (head.size, head.root) != (mark.size, mark.root) or head.extensions[:2] != fact_lines(
            mark.state_seq, mark.hash
        ):
            raise IntegrityViolation("the anchor's checkpoint is not of the head that the anchor names")
        count = counter_of(head.extensions)
        self._verified = mark, count
        return count

    def is_due(self, mark: AnchorRecord | None) -> bool:
        """Whether the next write has to be counted, whatever it is."""
        if self._known is None:
            return True
        size, _, at = self._counted
        return mark is not None and mark.size > size and self._clock() - at >= DUE_SECONDS

    def is_counted(self, mark: AnchorRecord | None, use: CounterUse) -> bool:
        """Whether the write that follows `mark` is counted. To be asked once: it takes of the day's increments."""
        if self._known is None:
            return True
        count = None if mark is None else self.count_in(mark)
        if mark is not None and count != self._counted[1]:  # another process has counted since
            self._counted = mark.size, count, self._clock()
        return self.is_due(mark) or (use is not CounterUse.NONE and self._budget.spend(use))

    def value_for_next(self, mark: AnchorRecord | None) -> int:
        """The value that a counted write after `mark` names: one more than the counter has.

        Raises IntegrityViolation if the record was put back, OutcomeUnknown if the counter cannot be reached.
        """
        value, count = self._known, None if mark is None else self.count_in(mark)
        self._known = None  # until the write is finished
        if value is None or value != count:
            value = self._counter.read()
        if mark is None or mark.size == 0:
            return self._begun(value) + 1  # a log that never had an entry: there is nothing to put back
        if value is None or count is None or count not in {value, value + 1}:
            raise IntegrityViolation(PUT_BACK)
        if count == value + 1:  # the process that wrote it has died
            self._counter.increment()
        return count + 1

    def finish(self, mark: AnchorRecord, count: int) -> None:
        """After the flush of a counted write: increment. Raises OutcomeUnknown if the counter cannot be reached."""
        self._counter.increment()
        self._known, self._verified = count, (mark, count)
        self._counted = mark.size, count, self._clock()

    def made(self, mark: AnchorRecord, count: int | None) -> None:
        """Take note of a record that this process has made."""
        self._verified = mark, count

    def value_for_trusted(self) -> int:
        """The value for a record that the operator accepts; the counter is made if there is none.

        The counter is not incremented: the next start does it, as after a process that has died.
        """
        return self._begun(self._counter.read()) + 1

    def _begun(self, value: int | None) -> int:
        if value is None:
            self._counter.create()
            value = self._counter.read()
            if value is None:
                raise IntegrityViolation("the TPM has forgotten its counter at once")
        return value

    def read(self) -> int | None:
        """The counter's value now; None if this vault has none there."""
        return self._counter.read()


def problem_with(count: int | None, value: int | None) -> str | None:
    """What is wrong between the value in the newest record and that of the counter, and what to do; None if nothing."""
    if value is None and count is None:
        return (
            "is new, and no record names its value: begin to count with `kvl anchor trust`, if this is the newest "
            "database"
        )
    if value is None:
        return (
            f"is gone, and the anchor names its value {count}. The vault was moved to another machine, the TPM was "
            "cleared, or somebody has deleted the counter to put an older state back: if this is the newest database, "
            "accept it with `kvl anchor trust`"
        )
    if count is not None and count in {value, value + 1}:
        return None
    named = "no value" if count is None else f"the value {count}"
    return (
        f"has the value {value} and the anchor names {named}: {PUT_BACK}. Restore the newest database with its anchor, "
        "or accept the loss with `kvl anchor trust --acknowledge-rollback`"
    )


def describe_lost_counts(count: int | None, value: int) -> str:
    """What a state that was put back has lost, as far as the counter tells."""
    if count is None:
        return f"an unknown number of entries: the TPM counter has the value {value}, and the anchor names none"
    return (
        f"what was done while the TPM counter went from {count} to {value}: management entries, or a quarter of an "
        "hour of use, for each step"
    )


NOT_SET: Final = (
    "names the value of a TPM counter, and KEYVAULT_TPM_ANCHOR is not set: set it, or go on without the counter by "
    "`kvl anchor trust`"
)


def names_counter(mark: AnchorRecord) -> bool:
    """Whether a record names the value of a counter, genuine or not."""
    return has_counter(mark.checkpoint)
