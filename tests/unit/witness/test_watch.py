"""What a vault does with a witness that is fresh, silent, forgetful, or knows better."""

from pathlib import Path

import pytest

from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation
from keyvault_lite.model.replies import Consistency
from keyvault_lite.observe.metrics import METRICS
from keyvault_lite.witness.client import Confirmed, WitnessAhead, WitnessClient
from keyvault_lite.witness.watch import KEEPALIVE_SECONDS, Watch
from tests.support.witness import KEY, Tree, client, register, served, vkey

TREE = Tree(40)
FORK = Tree(40, other_from=10)


class Log:
    """A log that other processes may have grown."""

    def __init__(self, size: int, tree: Tree = TREE) -> None:
        self.size, self.stored, self.tree = size, size, tree
        self.refreshed = 0

    def signed_head(self) -> str:
        return self.tree.note(self.size) if self.size else ""

    def consistency(self, old: int, new: int) -> Consistency:
        return Consistency(old, new, self.tree.prove(old, new))

    def refresh(self) -> None:
        self.refreshed += 1
        self.size = self.stored


class Witness(WitnessClient):
    """One without a network: `knows` is its memory."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", [vkey(KEY)], verify=lambda *_: True)
        self.knows = 0
        self.time = 100
        self.asked = 0
        self.silent = False

    def submit(self, note: str, *, size: int, old: int, prove: object) -> Confirmed:
        self.asked += 1
        if self.silent:
            raise AuditUnavailable("the witness does not answer")
        if size < self.knows:
            raise WitnessAhead(self.knows)
        self.knows = size
        return Confirmed(note, "— w x\n", size, self.time)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def witness() -> Witness:
    return Witness()


def watching(log: Log, witness: WitnessClient, clock: Clock, *, max_age: float = 60) -> Watch:
    return Watch(log, witness, max_age=max_age, clock=clock)


def refusal(watch: Watch) -> str | None:
    return None if watch.fault is None else f"{watch.fault.code}: {watch.fault.detail}"


def test_what_grew_is_submitted_at_once_and_what_did_not_now_and_then(witness: Witness, clock: Clock) -> None:
    log = Log(5)
    watch = watching(log, witness, clock)
    watch.round()
    watch.round()
    assert witness.asked == 1
    log.size = 6
    watch.round()
    assert (witness.asked, watch.newest and watch.newest.size) == (2, 6)
    clock.now += KEEPALIVE_SECONDS
    watch.round()
    assert witness.asked == 3
    assert watch.facts() == {"witness": {"age_seconds": 0.0}}
    assert watch.newest is not None
    assert watch.newest.size == 6


def test_a_silent_witness_stops_service_after_the_limit_and_no_longer(witness: Witness, clock: Clock) -> None:
    watch = watching(Log(5), witness, clock)
    watch.round()
    witness.silent = True
    clock.now += 60
    watch.round()
    assert refusal(watch) is None
    clock.now += 0.1
    assert refusal(watch) == (
        "audit_unavailable: the witness has not confirmed the log in 60 s: the witness does not answer"
    )
    assert watch.facts() == {"witness": {"age_seconds": 60.1}}
    witness.silent = False
    watch.round()
    assert refusal(watch) is None


def test_a_log_that_was_never_confirmed_is_not_served(witness: Witness, clock: Clock) -> None:
    witness.silent = True
    watch = watching(Log(5), witness, clock)
    assert "was not asked yet" in (refusal(watch) or "")
    watch.round()
    assert "does not answer" in (refusal(watch) or "")
    assert watch.facts() == {"witness": {"age_seconds": None}}
    assert watch.newest is None


def test_an_empty_log_has_nothing_to_confirm(witness: Witness, clock: Clock) -> None:
    log = Log(0)
    watch = watching(log, witness, clock)
    watch.round()
    assert (refusal(watch), witness.asked) == (None, 0)
    witness.silent = True
    log.size = 1
    clock.now += 59
    watch.round()
    assert refusal(watch) is None
    clock.now += 2
    assert refusal(watch) is not None


def test_a_witness_may_be_heard_and_not_required(witness: Witness, clock: Clock) -> None:
    witness.silent = True
    watch = watching(Log(5), witness, clock, max_age=0)
    watch.round()
    clock.now += 10**6
    assert refusal(watch) is None


def test_what_another_process_wrote_is_adopted(witness: Witness, clock: Clock) -> None:
    log = Log(5)
    log.stored, witness.knows = 9, 8
    watch = watching(log, witness, clock)
    watch.round()
    assert (log.refreshed, witness.knows) == (1, 9)
    assert refusal(watch) is None


def test_a_quicker_process_is_waited_for(witness: Witness, clock: Clock) -> None:
    log = Log(5)
    witness.knows = 6
    submit = witness.submit

    def quicker(note: str, *, size: int, old: int, prove: object) -> Confirmed:
        log.stored = witness.knows = witness.knows + 2
        return submit(note, size=size, old=old, prove=prove)

    witness.submit = quicker  # type: ignore[method-assign]
    watch = watching(log, witness, clock)
    watch.round()
    assert watch.newest is None
    assert "was not asked" in (refusal(watch) or "")


def test_a_database_that_was_put_back_stops_service(witness: Witness, clock: Clock) -> None:
    log = Log(5)
    witness.knows = 9
    watch = watching(log, witness, clock)
    with pytest.raises(IntegrityViolation, match="has confirmed 9 entries, the database has 5: it was put back"):
        watch.start()
    log.size = log.stored = 12
    watch.round()
    assert (refusal(watch) or "").startswith("integrity_violation"), "for ever"
    watch.close()


def test_a_clock_that_runs_backwards_confirms_nothing(witness: Witness, clock: Clock) -> None:
    log = Log(5)
    watch = watching(log, witness, clock)
    watch.round()
    log.size, witness.time = 6, 99
    watch.round()
    assert watch.newest is not None
    assert watch.newest.size == 5
    clock.now += 61
    assert "clock runs backwards" in (refusal(watch) or "")


def test_a_damaged_tree_is_no_proof(tmp_path: Path, clock: Clock) -> None:
    with served(register(tmp_path)) as url:
        log, witness = Log(12), client(url)
        watch = watching(log, witness, clock)
        watch.round()
        log.tree, log.size = FORK, 20
        watch.round()
        assert "another history" in (refusal(watch) or "")
        witness.close()


def test_it_asks_by_itself(tmp_path: Path) -> None:
    made = register(tmp_path)
    with served(made) as url:
        log = Log(5)
        watch = Watch(log, client(url), max_age=60, period=0.01)
        watch.start()
        log.size = 9
        for _ in range(500):
            if watch.newest is not None and watch.newest.size == 9:
                break
            watch._closing.wait(0.01)
        watch.close()
        assert watch.newest is not None
        assert watch.newest.size == 9


def test_a_defect_does_not_end_the_asking(witness: Witness, caplog: pytest.LogCaptureFixture) -> None:
    log = Log(5)
    watch = Watch(log, witness, max_age=60, period=0.01)
    watch.start()
    log.tree = None  # type: ignore[assignment]
    watch._closing.wait(0.1)
    log.tree, log.size = TREE, 9
    for _ in range(500):
        if witness.knows == 9:
            break
        watch._closing.wait(0.01)
    watch.close()
    assert witness.knows == 9
    assert "could not be asked" in caplog.text


def test_its_age_and_size_are_metrics(witness: Witness, clock: Clock) -> None:
    watch = watching(Log(5), witness, clock)
    assert "\nkeyvault_witness_age_seconds " not in METRICS.page(), "none before the first confirmation"
    watch.round()
    clock.now += 3
    assert "\nkeyvault_witness_age_seconds 3\n" in METRICS.page()
    assert "\nkeyvault_witness_size 5\n" in METRICS.page()
