"""The counter beside the anchor: what is put back is refused, what has crashed is not, whatever comes when."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyvault_lite.audit.checkpoint import (
    checkpoint_body,
    counter_line,
    fact_lines,
    origin,
    sign_note,
    verifier_key,
)
from keyvault_lite.ledger.anchor import counter as module
from keyvault_lite.ledger.anchor.counter import CounterState, CounterUse, describe_lost_counts, problem_with, use_of
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.anchor.interface import AnchorBusy
from keyvault_lite.ledger.anchor.record import AnchorRecord
from keyvault_lite.model.errors import IntegrityViolation, OutcomeUnknown
from keyvault_lite.model.evidence import Action

LOG = bytes(16)
PUBLIC = bytes(32)


def verify(_: bytes, message: bytes, signature: bytes) -> bool:
    return signature == sign(message)


def sign(message: bytes) -> bytes:
    return (message[-8:] + bytes(64))[:64] if message else bytes(64)


def record(size: int, count: int | None) -> AnchorRecord:
    name = origin(LOG, 0)
    lines: tuple[str, ...] = fact_lines(size, bytes([size]) * 32)
    lines += () if count is None else (counter_line(count),)
    note = sign_note(checkpoint_body(name, size, bytes(32), lines), name, PUBLIC, sign)
    return AnchorRecord(0, size, size, bytes([size]) * 32, bytes(32), note, verifier_key(name, PUBLIC))


@dataclass
class Chip:
    """A counter that can be made to fail, before or after it has counted."""

    place: str = "chip"
    value: int | None = None
    fails: list[str] = field(default_factory=list)
    increments: int = 0

    def read(self) -> int | None:
        return self.value

    def create(self) -> None:
        self.value = 7

    def increment(self) -> None:
        fault = self.fails.pop() if self.fails else ""
        if fault == "before":
            raise OutcomeUnknown("no chip")
        assert self.value is not None
        self.value += 1
        self.increments += 1
        if fault == "after":
            raise OutcomeUnknown("no answer")


class Process:
    """One process on the anchor's file."""

    def __init__(self, path: Path, chip: Chip, now: list[float]) -> None:
        state = CounterState(chip, instance_id=LOG, log_public_key=PUBLIC, verify=verify, clock=lambda: now[0])
        self.anchor = FileAnchor(path, counter=state)

    def write(self, size: int, use: CounterUse = CounterUse.NONE, *, blocking: bool = True) -> AnchorRecord:
        before = self.anchor.read()
        return self.anchor.write(
            lambda count: record(size, count), before=before, prove=lambda _: (), use=use, blocking=blocking
        )

    def accepts(self) -> bool:
        mark = self.anchor.read()
        assert mark is not None
        return self.anchor.check_counter(mark) is None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "anchor"


@pytest.fixture
def chip() -> Chip:
    return Chip()


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def process(path: Path, chip: Chip, now: list[float]) -> Iterator[Process]:
    made = Process(path, chip, now)
    yield made
    made.anchor.close()


def test_management_is_counted_and_use_is_not(process: Process, chip: Chip) -> None:
    for size, use, value in ((0, 0, 8), (1, 0, 8), (2, 2, 9), (3, 1, 10), (4, 0, 10)):
        mark = process.write(size, CounterUse(use))
        assert (chip.value, counter_line(value) in mark.checkpoint) == (value, True)
    assert process.accepts()


def test_what_waits_for_the_chip_is_left_to_a_thread(process: Process, now: list[float]) -> None:
    with pytest.raises(AnchorBusy):
        process.write(0, blocking=False)
    process.write(0)
    process.write(1, blocking=False)
    with pytest.raises(AnchorBusy):
        process.write(2, CounterUse.MANAGEMENT, blocking=False)
    now[0] += module.DUE_SECONDS
    assert process.anchor.is_due
    with pytest.raises(AnchorBusy):
        process.write(2, blocking=False)
    process.write(2)
    assert not process.anchor.is_due


def test_a_quarter_of_an_hour_in_which_nothing_was_done_is_not_counted(process: Process, now: list[float]) -> None:
    process.write(0)
    now[0] += module.DUE_SECONDS
    assert not process.anchor.is_due


def test_what_another_process_has_counted_need_not_be_counted_again(
    process: Process, path: Path, chip: Chip, now: list[float]
) -> None:
    process.write(0)
    other = Process(path, chip, now)
    other.write(1)
    now[0] += module.DUE_SECONDS - 1
    other.write(2, CounterUse.MANAGEMENT)
    now[0] += 1
    seen = chip.value
    process.write(3)
    assert chip.value == seen
    other.anchor.close()


def test_the_day_s_increments(process: Process, chip: Chip, now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DAILY_INCREMENTS", 4)
    process.write(0)
    begun = chip.increments
    for size in range(1, 5):
        process.write(size, CounterUse.SELF_SERVICE)
    assert chip.increments - begun == 2
    for size in range(5, 9):
        process.write(size, CounterUse.MANAGEMENT)
    assert (chip.increments - begun, process.anchor.facts()["tpm_increments_left_today"]) == (4, 0)
    now[0] += module.DAY_SECONDS
    process.write(9, CounterUse.MANAGEMENT)  # due, which takes nothing of the day's
    process.write(10, CounterUse.MANAGEMENT)
    assert process.anchor.facts()["tpm_increments_left_today"] == 3


@pytest.mark.parametrize("fault", ["before", "after"])
def test_a_chip_that_fails_is_never_answered_over(process: Process, chip: Chip, fault: str) -> None:
    process.write(0)
    chip.fails.append(fault)
    with pytest.raises(OutcomeUnknown):
        process.write(1, CounterUse.MANAGEMENT)
    assert process.accepts()
    assert process.anchor.is_due
    process.write(1)
    assert process.accepts()


def test_a_newer_note_in_an_older_record_is_refused(process: Process, path: Path) -> None:
    process.write(0)
    process.write(1, CounterUse.MANAGEMENT)
    old = process.anchor.peek()
    new = process.write(2, CounterUse.MANAGEMENT)
    assert old is not None
    for forged in (new.checkpoint, old.checkpoint.replace("tpm-counter 9", "tpm-counter 10")):
        mark = AnchorRecord(0, old.size, old.state_seq, old.hash, old.root, forged, old.verifier_key)
        with pytest.raises(IntegrityViolation):
            process.anchor.check_counter(mark)


def test_a_record_with_a_value_needs_the_setting(process: Process, path: Path) -> None:
    mark = process.write(0)
    assert "KEYVAULT_TPM_ANCHOR" in str(FileAnchor(path).check_counter(mark))
    assert FileAnchor(path).check_counter(record(1, None)) is None


@pytest.mark.parametrize(
    ("count", "value", "told"),
    [
        (5, 5, None),
        (6, 5, None),
        (4, 5, "put back together"),
        (7, 5, "put back together"),
        (None, 5, "put back together"),
        (5, None, "is gone"),
        (None, None, "is new"),
    ],
)
def test_what_a_start_says(count: int | None, value: int | None, told: str | None) -> None:
    found = problem_with(count, value)
    assert found is None if told is None else told in str(found)


def test_what_is_said_of_a_loss() -> None:
    assert "from 3 to 9" in describe_lost_counts(3, 9)
    assert "unknown" in describe_lost_counts(None, 9)


@pytest.mark.parametrize(
    ("action", "use"),
    [
        (Action.REVOKE, CounterUse.MANAGEMENT),
        (Action.MASTER_KEY_ROTATE, CounterUse.MANAGEMENT),
        (Action.TOKEN_REVOKE, CounterUse.SELF_SERVICE),
        (Action.LOGIN, CounterUse.NONE),
        (Action.TOKEN_REMOVE, CounterUse.NONE),
    ],
)
def test_what_counts(action: Action, use: CounterUse) -> None:
    assert use_of([Action.LOGIN, action]) == use
    assert use_of([]) == CounterUse.NONE


STEPS = st.lists(
    st.sampled_from(["use", "manage", "image", "restore", "die before", "die after", "restart"]), max_size=14
)


@settings(deadline=None)
@given(STEPS)
def test_nothing_answered_is_lost_unseen_and_no_crash_locks_out(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    """A restored image is accepted only if no counted write was answered since; without a restore a start succeeds."""
    path, chip, now = tmp_path_factory.mktemp("model") / "anchor", Chip(), [0.0]
    process, size, image, answered = Process(path, chip, now), 1, b"", 0
    process.write(0)
    process.write(1)
    imaged = 0
    for step in steps:
        if step == "image":
            image, imaged = path.read_bytes(), answered
            continue
        if step == "restore" and image:
            process.anchor.close()
            path.write_bytes(image)
            process = Process(path, chip, now)
            found = process.anchor.read()
            assert found is not None
            if not process.accepts():
                return
            assert imaged == answered
            size = found.size
        elif step == "restart":
            process = Process(path, chip, now)
            assert process.accepts()
        elif step.startswith("die"):
            chip.fails.append(step.removeprefix("die "))
            with suppress(OutcomeUnknown):
                process.write(size := size + 1, CounterUse.MANAGEMENT)
            chip.fails.clear()
            process = Process(path, chip, now)
            assert process.accepts()
        process.write(size := size + 1, CounterUse.MANAGEMENT if step == "manage" else CounterUse.NONE)
        answered += step == "manage"
    assert process.accepts()
