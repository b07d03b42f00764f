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
from tests.house import DAY, House, idempotent


class Clock:
    """Both clocks of the process, to be moved."""

    def __init__(self, house: House, moved: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = self.steady = 0.0
        time_ns, wall, steady = time.time_ns, time.time, time.monotonic
        monkeypatch.setattr(moved, "time_ns", lambda: time_ns() + int(self.wall * 1e9))
        monkeypatch.setattr(moved, "time", lambda: wall() + self.wall)
        monkeypatch.setattr(moved, "monotonic", lambda: steady() + self.steady)
        now = house.ledger.now
        monkeypatch.setattr(house.ledger, "now", lambda: now() + int(self.wall * 1e6))

    def pass_days(self, days: float) -> None:
        self.wall += days * 86400
        self.steady += days * 86400


@pytest.fixture
def clock(house: House, monkeypatch: pytest.MonkeyPatch) -> Clock:
    # The time of the test itself is not moved: only what reads it through these names.
    moved = ModuleType("time")
    for name in ("time_ns", "time", "monotonic"):
        setattr(moved, name, getattr(time, name))
    monkeypatch.setattr(jobs_module, "time", moved)
    monkeypatch.setattr(clock_module, "time", moved)
    return Clock(house, moved, monkeypatch)


def test_keys_are_rotated_when_their_period_has_passed(house: House, clock: Clock) -> None:
    due, disabled, later = house.key(), house.key(), house.key()
    for key, days in ((due, 1), (disabled, 1), (later, 3)):
        house.ask(UpdateKey(KeyRef(key.id), rotation_days=days))
    house.ask(DisableKey(KeyRef(disabled.id)))
    jobs = house.jobs
    house.run(jobs.round())
    assert len(house.ask(ReadKey(KeyRef(due.id))).versions) == 1
    clock.pass_days(1.5)
    house.run(jobs.round())
    rotated = house.ask(ReadKey(KeyRef(due.id)))
    assert [one.status for one in rotated.versions] == [VersionStatus.DEPRECATED, VersionStatus.ACTIVE]
    assert 0 < rotated.rotate_at - house.ledger.now() <= DAY
    assert [len(house.ask(ReadKey(KeyRef(key.id))).versions) for key in (disabled, later)] == [1, 1]
    entry = next(one.draft for one in house.log() if one.draft.action is Action.ROTATE)
    assert (entry.service_id, entry.key_id, entry.key_version) == (SYSTEM, due.id, 2)
    before = house.size
    house.run(jobs.round())
    assert house.size == before, "nothing is due, nothing is recorded"


def test_nothing_is_changed_while_something_is_in_quarantine(house: House, clock: Clock) -> None:
    key = house.key()
    house.ask(UpdateKey(KeyRef(key.id), rotation_days=2))
    clock.pass_days(3)
    before = house.size
    house.ledger._journal.frozen = True
    house.run(house.jobs.round())
    assert house.size == before, "nothing could come of it but entries that say so"
    house.ledger._journal.frozen = False
    house.run(house.jobs.round())
    assert len(house.ask(ReadKey(KeyRef(key.id))).versions) == 2


def test_a_rotation_by_hand_begins_a_new_period(house: House, clock: Clock) -> None:
    key = KeyRef(house.key().id)
    house.ask(UpdateKey(key, rotation_days=2))
    clock.pass_days(1)
    house.ask(RotateKey(key))
    clock.pass_days(1.5)
    house.run(house.jobs.round())
    assert len(house.ask(ReadKey(key)).versions) == 2


def test_keys_are_erased_when_their_time_has_come(house: House, clock: Clock) -> None:
    key = house.rotated(house.key())
    name = KeyRef(key.id)
    house.ask(Encrypt(name, plaintext=b"x"))
    assert any(one[0] == key.id for one in house.vault.keyring.versions._loaded)
    house.ask(DestroyKey(name, days=7))
    jobs = house.jobs
    clock.pass_days(6.9)
    house.run(jobs.round())
    assert house.ask(ReadKey(name)).status is KeyStatus.PENDING_DESTRUCTION
    clock.pass_days(0.2)
    house.run(jobs.round())
    gone = house.ask(ReadKey(name))
    assert gone.status is KeyStatus.DESTROYED
    assert {one.encrypted_key for one in gone.versions} == {b""}
    # Neither in memory nor in any file of the running vault.
    assert not any(one[0] == key.id for one in house.vault.keyring.versions._loaded)
    stored = house.files()
    assert not any(one.encrypted_key in stored for one in key.versions)
    entry = next(one.draft for one in reversed(house.log()) if one.draft.action is Action.DESTROY)
    assert (entry.service_id, entry.result) == (SYSTEM, Result.SUCCESS)


@pytest.mark.parametrize("hours", [-1.0, 1.0])
def test_nothing_is_destroyed_while_the_clocks_part(house: House, clock: Clock, hours: float) -> None:
    name = KeyRef(house.key().id)
    house.ask(DestroyKey(name, days=7))
    jobs = house.jobs
    clock.pass_days(8)
    clock.wall += hours * 3600
    house.run(jobs.round())
    assert house.ask(ReadKey(name)).status is KeyStatus.PENDING_DESTRUCTION
    clock.wall -= hours * 3600
    house.run(jobs.round())
    assert house.ask(ReadKey(name)).status is KeyStatus.DESTROYED


def test_a_start_with_a_clock_ahead_destroys_nothing(
    house: House, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    name = KeyRef(house.key().id)
    house.ask(DestroyKey(name, days=7))
    clock.wall += 40 * 86400
    jobs = house.jobs
    for _ in range(2):
        house.run(jobs.round())
    assert house.ask(ReadKey(name)).status is KeyStatus.PENDING_DESTRUCTION
    assert caplog.text.count("the clock may be wrong") == 1
    clock.pass_days(1)
    house.run(jobs.round())
    assert house.ask(ReadKey(name)).status is KeyStatus.DESTROYED


@pytest.mark.parametrize(("days", "allowed"), [(1.5, True), (0.5, False), (2.5, False), (400, False)])
def test_the_log_shows_that_time_has_passed(house: House, clock: Clock, days: float, *, allowed: bool) -> None:
    house.key()
    clock.wall += days * 86400
    assert clock_module.ClockTrust(house.ledger).allows_destruction() is allowed


def clock_told(house: House) -> tuple[str, object, bool]:
    health = house.engine.health()
    return health.status, health.details["clock"], health.serving


def test_health_tells_of_a_clock_that_was_set_while_the_server_runs(house: House, clock: Clock) -> None:
    house.key()
    assert clock_told(house) == ("ok", "steady", True)
    clock.pass_days(30)
    assert clock_told(house) == ("ok", "steady", True)
    clock.wall += 3600
    assert clock_told(house) == ("wrong_clock", "changed", True)
    clock.wall -= 3600 - 300
    assert clock_told(house) == ("ok", "steady", True), "NTP that sets the time by some minutes"


@pytest.mark.parametrize(("behind", "told"), [(30, "steady"), (120, "behind the log"), (86400, "behind the log")])
def test_health_tells_of_a_clock_behind_the_log(house: House, clock: Clock, behind: int, told: str) -> None:
    house.key()
    clock.wall -= behind
    _ = house.jobs  # as after a restart with the right time
    assert clock_told(house)[1] == told
    page = METRICS.page()
    seconds = float(page.partition("\nkeyvault_clock_behind_log_seconds ")[2].split()[0])
    assert behind - 30 <= seconds <= behind
    clock.pass_days(2)
    assert clock_told(house) == ("ok", "steady", True), "real time has passed the newest entry"


def test_health_tells_of_a_start_with_a_clock_ahead(house: House, clock: Clock) -> None:
    house.key()
    clock.wall += 1.5 * 86400
    _ = house.jobs
    assert clock_told(house) == ("ok", "steady", True)
    clock.wall += 86400
    _ = house.jobs
    assert clock_told(house) == ("ok", "ahead of the log", True)
    clock.pass_days(1)
    assert clock_told(house) == ("ok", "steady", True)


def test_material_in_use_by_a_reader_is_cleaned_later(house: House, clock: Clock) -> None:
    key = house.key()
    house.ask(DestroyKey(KeyRef(key.id), days=7))
    jobs = house.jobs
    clock.pass_days(8)
    reader = house.vault.database.reader()
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM keys").fetchone()
    house.run(jobs.round())
    assert key.versions[0].encrypted_key in house.files()
    reader.close()
    house.run(jobs.round())
    assert key.versions[0].encrypted_key not in house.files()


def test_expired_replies_are_forgotten(house: House, clock: Clock) -> None:
    house.ask(RotateKey(KeyRef(house.key().id)), idempotency=idempotent("a"))
    clock.pass_days(2)
    house.run(house.jobs.round())
    with house.ledger._readers.one() as connection:
        assert connection.execute("SELECT count(*) FROM idempotency_replies").fetchone() == (0,)


def test_who_comes_second_records_a_conflict_and_goes_on(house: House, clock: Clock) -> None:
    keys = [house.key() for _ in range(3)]
    for key in keys:
        house.ask(UpdateKey(KeyRef(key.id), rotation_days=1))
    clock.pass_days(2)
    house.together(house.jobs.round(), house.jobs.round())
    assert {len(house.ask(ReadKey(KeyRef(key.id))).versions) for key in keys} == {2}


def test_a_defect_ends_one_round_only(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
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
        task = asyncio.create_task(house.jobs.run())
        await asyncio.sleep(0.2)
        assert rounds >= 5
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    house.run(live())
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_rows_and_log_are_read_again(house: House, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(house.ledger, "scrub", lambda: read.append("rows"))
    monkeypatch.setattr(house.ledger, "scrub_log", lambda: read.append("log"))
    jobs = house.jobs
    house.run(jobs.round())
    assert read == ["log"], "the log at the start"
    clock.steady += 61
    clock.wall += 61
    house.run(jobs.round())
    assert read == ["log", "rows"]
    clock.pass_days(1)
    house.run(jobs.round())
    assert read == ["log", "rows", "rows", "log"]
