"""What the vault does by itself, and that it goes on doing it."""

import asyncio
import time
from types import ModuleType

import pytest

from keyvault_lite.engine import clock as clock_module
from keyvault_lite.engine import jobs as jobs_module
from keyvault_lite.engine.jobs import Jobs
from keyvault_lite.model.errors import AuditUnavailable
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.keys import KeyStatus, VersionStatus
from keyvault_lite.model.names import SYSTEM, KeyRef
from keyvault_lite.model.requests import DestroyKey, DisableKey, Encrypt, ReadKey, RotateKey, UpdateKey
from keyvault_lite.observe.metrics import METRICS
from tests.support.harness import DAY, Harness, idempotent


class Clock:
    """Both clocks of the process, to be moved."""

    def __init__(self, harness: Harness, moved: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = self.steady = 0.0
        time_ns, wall, steady = time.time_ns, time.time, time.monotonic
        monkeypatch.setattr(moved, "time_ns", lambda: time_ns() + int(self.wall * 1e9))
        monkeypatch.setattr(moved, "time", lambda: wall() + self.wall)
        monkeypatch.setattr(moved, "monotonic", lambda: steady() + self.steady)
        now = harness.ledger.now
        monkeypatch.setattr(harness.ledger, "now", lambda: now() + int(self.wall * 1e6))

    def pass_days(self, days: float) -> None:
        self.wall += days * 86400
        self.steady += days * 86400


@pytest.fixture
def clock(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> Clock:
    # The time of the test itself is not moved: only what reads it through these names.
    moved = ModuleType("time")
    for name in ("time_ns", "time", "monotonic"):
        setattr(moved, name, getattr(time, name))
    monkeypatch.setattr(jobs_module, "time", moved)
    monkeypatch.setattr(clock_module, "time", moved)
    return Clock(harness, moved, monkeypatch)


def test_keys_are_rotated_when_their_period_has_passed(harness: Harness, clock: Clock) -> None:
    due, disabled, later = harness.key(), harness.key(), harness.key()
    for key, days in ((due, 1), (disabled, 1), (later, 3)):
        harness.ask(UpdateKey(KeyRef(key.id), rotation_days=days))
    harness.ask(DisableKey(KeyRef(disabled.id)))
    jobs = harness.jobs
    harness.run(jobs.round())
    assert len(harness.ask(ReadKey(KeyRef(due.id))).versions) == 1
    clock.pass_days(1.5)
    harness.run(jobs.round())
    rotated = harness.ask(ReadKey(KeyRef(due.id)))
    assert [one.status for one in rotated.versions] == [VersionStatus.DEPRECATED, VersionStatus.ACTIVE]
    assert 0 < rotated.rotate_at - harness.ledger.now() <= DAY
    assert [len(harness.ask(ReadKey(KeyRef(key.id))).versions) for key in (disabled, later)] == [1, 1]
    entry = next(one.draft for one in harness.log() if one.draft.action is Action.ROTATE)
    assert (entry.service_id, entry.key_id, entry.key_version) == (SYSTEM, due.id, 2)
    before = harness.size
    harness.run(jobs.round())
    assert harness.size == before, "nothing is due, nothing is recorded"


def test_nothing_is_changed_while_something_is_in_quarantine(harness: Harness, clock: Clock) -> None:
    key = harness.key()
    harness.ask(UpdateKey(KeyRef(key.id), rotation_days=2))
    clock.pass_days(3)
    before = harness.size
    harness.ledger._writer.replica.read_only = True
    harness.run(harness.jobs.round())
    assert harness.size == before, "nothing could come of it but entries that say so"
    harness.ledger._writer.replica.read_only = False
    harness.run(harness.jobs.round())
    assert len(harness.ask(ReadKey(KeyRef(key.id))).versions) == 2


def test_a_rotation_by_hand_begins_a_new_period(harness: Harness, clock: Clock) -> None:
    key = KeyRef(harness.key().id)
    harness.ask(UpdateKey(key, rotation_days=2))
    clock.pass_days(1)
    harness.ask(RotateKey(key))
    clock.pass_days(1.5)
    harness.run(harness.jobs.round())
    assert len(harness.ask(ReadKey(key)).versions) == 2


def test_keys_are_erased_when_their_time_has_come(harness: Harness, clock: Clock) -> None:
    key = harness.rotated(harness.key())
    name = KeyRef(key.id)
    harness.ask(Encrypt(name, plaintext=b"x"))
    assert any(one[0] == key.id for one in harness.vault.keyring.versions._loaded)
    harness.ask(DestroyKey(name, days=7))
    jobs = harness.jobs
    clock.pass_days(6.9)
    harness.run(jobs.round())
    assert harness.ask(ReadKey(name)).status is KeyStatus.PENDING_DESTRUCTION
    clock.pass_days(0.2)
    harness.run(jobs.round())
    gone = harness.ask(ReadKey(name))
    assert gone.status is KeyStatus.DESTROYED
    assert {one.encrypted_key for one in gone.versions} == {b""}
    # Neither in memory nor in any file of the running vault.
    assert not any(one[0] == key.id for one in harness.vault.keyring.versions._loaded)
    stored = harness.files()
    assert not any(one.encrypted_key in stored for one in key.versions)
    entry = next(one.draft for one in reversed(harness.log()) if one.draft.action is Action.DESTROY)
    assert (entry.service_id, entry.result) == (SYSTEM, Result.SUCCESS)


@pytest.mark.parametrize("hours", [-1.0, 1.0])
def test_nothing_is_destroyed_while_the_clocks_part(harness: Harness, clock: Clock, hours: float) -> None:
    name = KeyRef(harness.key().id)
    harness.ask(DestroyKey(name, days=7))
    jobs = harness.jobs
    clock.pass_days(8)
    clock.wall += hours * 3600
    harness.run(jobs.round())
    assert harness.ask(ReadKey(name)).status is KeyStatus.PENDING_DESTRUCTION
    clock.wall -= hours * 3600
    harness.run(jobs.round())
    assert harness.ask(ReadKey(name)).status is KeyStatus.DESTROYED


def test_a_start_with_a_clock_ahead_destroys_nothing(
    harness: Harness, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    name = KeyRef(harness.key().id)
    harness.ask(DestroyKey(name, days=7))
    clock.wall += 40 * 86400
    jobs = harness.jobs
    for _ in range(2):
        harness.run(jobs.round())
    assert harness.ask(ReadKey(name)).status is KeyStatus.PENDING_DESTRUCTION
    assert caplog.text.count("the clock may be wrong") == 1
    clock.pass_days(1)
    harness.run(jobs.round())
    assert harness.ask(ReadKey(name)).status is KeyStatus.DESTROYED


@pytest.mark.parametrize(("days", "allowed"), [(1.5, True), (0.5, False), (2.5, False), (400, False)])
def test_the_log_shows_that_time_has_passed(harness: Harness, clock: Clock, days: float, *, allowed: bool) -> None:
    harness.key()
    clock.wall += days * 86400
    assert clock_module.ClockTrust(harness.ledger).allows_destruction() is allowed


def clock_told(harness: Harness) -> tuple[str, object, bool]:
    health = harness.engine.health()
    return health.status, health.details["clock"], health.serving


def test_health_tells_of_a_clock_that_was_set_while_the_server_runs(harness: Harness, clock: Clock) -> None:
    harness.key()
    assert clock_told(harness) == ("ok", "steady", True)
    clock.pass_days(30)
    assert clock_told(harness) == ("ok", "steady", True)
    clock.wall += 3600
    assert clock_told(harness) == ("wrong_clock", "changed", True)
    clock.wall -= 3600 - 300
    assert clock_told(harness) == ("ok", "steady", True), "NTP that sets the time by some minutes"


@pytest.mark.parametrize(("behind", "told"), [(30, "steady"), (120, "behind the log"), (86400, "behind the log")])
def test_health_tells_of_a_clock_behind_the_log(harness: Harness, clock: Clock, behind: int, told: str) -> None:
    harness.key()
    clock.wall -= behind
    _ = harness.jobs  # as after a restart with the right time
    assert clock_told(harness)[1] == told
    page = METRICS.page()
    seconds = float(page.partition("\nkeyvault_clock_behind_log_seconds ")[2].split()[0])
    assert behind - 30 <= seconds <= behind
    clock.pass_days(2)
    assert clock_told(harness) == ("ok", "steady", True), "real time has passed the newest entry"


def test_health_tells_of_a_start_with_a_clock_ahead(harness: Harness, clock: Clock) -> None:
    harness.key()
    clock.wall += 1.5 * 86400
    _ = harness.jobs
    assert clock_told(harness) == ("ok", "steady", True)
    clock.wall += 86400
    _ = harness.jobs
    assert clock_told(harness) == ("ok", "ahead of the log", True)
    clock.pass_days(1)
    assert clock_told(harness) == ("ok", "steady", True)


def test_material_in_use_by_a_reader_is_cleaned_later(harness: Harness, clock: Clock) -> None:
    key = harness.key()
    harness.ask(DestroyKey(KeyRef(key.id), days=7))
    jobs = harness.jobs
    clock.pass_days(8)
    reader = harness.vault.database.reader()
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM keys").fetchone()
    harness.run(jobs.round())
    assert key.versions[0].encrypted_key in harness.files()
    reader.close()
    harness.run(jobs.round())
    assert key.versions[0].encrypted_key not in harness.files()


def test_expired_replies_are_forgotten(harness: Harness, clock: Clock) -> None:
    harness.ask(RotateKey(KeyRef(harness.key().id)), idempotency=idempotent("a"))
    clock.pass_days(2)
    harness.run(harness.jobs.round())
    with harness.ledger._readers.one() as connection:
        assert connection.execute("SELECT count(*) FROM idempotency_replies").fetchone() == (0,)


def test_who_comes_second_records_a_conflict_and_goes_on(harness: Harness, clock: Clock) -> None:
    keys = [harness.key() for _ in range(3)]
    for key in keys:
        harness.ask(UpdateKey(KeyRef(key.id), rotation_days=1))
    clock.pass_days(2)
    harness.together(harness.jobs.round(), harness.jobs.round())
    assert {len(harness.ask(ReadKey(KeyRef(key.id))).versions) for key in keys} == {2}


def test_a_defect_ends_one_round_only(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jobs_module, "PERIOD_SECONDS", 0.001)
    errors = [AuditUnavailable("locked"), ValueError("a defect")]
    rounds = 0

    async def round_(_: Jobs) -> None:
        nonlocal rounds
        rounds += 1
        if errors:
            raise errors.pop()

    monkeypatch.setattr(Jobs, "round", round_)

    async def live() -> None:
        task = asyncio.create_task(harness.jobs.run())
        await asyncio.sleep(0.2)
        assert rounds >= 5
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    harness.run(live())
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_rows_and_log_are_read_again(harness: Harness, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(harness.ledger, "scrub", lambda: read.append("rows"))
    monkeypatch.setattr(harness.ledger, "scrub_log", lambda: read.append("log"))
    jobs = harness.jobs
    harness.run(jobs.round())
    assert read == ["log"], "the log at the start"
    clock.steady += 61
    clock.wall += 61
    harness.run(jobs.round())
    assert read == ["log", "rows"]
    clock.pass_days(1)
    harness.run(jobs.round())
    assert read == ["log", "rows", "rows", "log"]
