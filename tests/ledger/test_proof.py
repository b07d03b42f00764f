"""What the vault says of its health while nobody asks it for work: whether an entry could be recorded now."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keyvault_lite.ledger.commit import write_probe
from keyvault_lite.ledger.commit.journal import StoreBusy
from keyvault_lite.ledger.commit.write_probe import StoreProof
from keyvault_lite.ledger.storage.sqlite import database as sqlite
from keyvault_lite.ledger.storage.sqlite import locks
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, KeyVaultError
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt, VerifyAudit
from keyvault_lite.observe.metrics import METRICS
from tests.house import House, move_in


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def says(house: House, *status: str) -> bool:
    """What /health answers, without a request for anything else."""
    health = house.engine.health()
    assert health.serving is (health.status in {"ok", "low_space", "degraded", "unchecked", "wrong_clock"})
    return health.status in status


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_probe, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(write_probe, "PROVE_SECONDS", 0.1)


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """A file that nobody can write, root neither."""
    done = subprocess.run(["chattr", "+i", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        bound = subprocess.run(["mount", "--bind", str(path), str(path)], capture_output=True, check=False)
        if bound.returncode:
            pytest.skip(f"no file can be made read-only here: {done.stderr.strip()}")
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(path)], check=True)
        return
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)


def test_a_database_that_is_moved_away_shows_and_is_served_again_once_it_is_back(house: House) -> None:
    name = KeyRef(house.key().id)
    assert says(house, "ok")
    aside = house.path.with_name("aside.db")
    house.path.rename(aside)
    until(lambda: says(house, "audit_unavailable"))
    house.refusal(Encrypt(name, plaintext=b"x"), AuditUnavailable)
    time.sleep(1.2)  # recovery is tried, and makes no database in place of the one that is gone
    assert not house.path.exists()
    assert "gone" in str(house.ledger.fault)
    aside.rename(house.path)
    until(lambda: says(house, "ok"))
    house.ask(Encrypt(name, plaintext=b"x"))
    assert house.ask(VerifyAudit()).findings == ()


def test_nothing_is_written_into_a_file_that_was_moved_away(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_probe, "PROVE_SECONDS", 100.0)
    name, aside = KeyRef(house.key().id), house.path.with_name("aside.db")
    size = house.ledger._journal.head.size
    house.path.rename(aside)
    house.refusal(Encrypt(name, plaintext=b"x"), AuditUnavailable)
    aside.rename(house.path)
    until(lambda: says(house, "ok"))
    assert house.size == size


@pytest.mark.parametrize("name", ["vault.db", "vault.db.anchor"])
def test_files_that_become_read_only_under_an_idle_vault(house: House, name: str) -> None:
    until(lambda: says(house, "ok"))
    with read_only(house.path.with_name(name)):
        until(lambda: says(house, "audit_unavailable"))
        assert "read-only" in str(house.ledger.fault)
    until(lambda: says(house, "ok"))


def test_a_database_that_was_read_only_before_the_start(template: tuple[Path, str, str], tmp_path: Path) -> None:
    folder, master, token = template
    house = move_in(folder, tmp_path / "vault", master, token)
    house.vault.close()
    with read_only(house.path):
        house.open()
        assert says(house, "audit_unavailable"), "before anybody has asked for anything"
    until(lambda: says(house, "ok"))
    house.key()
    house.close()


def test_another_file_in_its_place_ends_service(house: House) -> None:
    aside = house.path.with_name("aside.db")
    house.path.rename(aside)
    until(lambda: says(house, "audit_unavailable"))
    house.path.write_bytes(aside.read_bytes())
    until(lambda: says(house, "integrity_violation"))


def test_a_disk_that_takes_no_flush(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_probe, "FLUSH_SECONDS", 0.0)
    broken = threading.Event()
    broken.set()

    def fsync(descriptor: int) -> None:
        if broken.is_set():
            raise OSError(5, "Input/output error")
        os.fsync(descriptor)

    monkeypatch.setattr(locks, "os", SimpleNamespace(**vars(os) | {"fsync": fsync}))
    until(lambda: says(house, "audit_unavailable"))
    broken.clear()
    until(lambda: says(house, "ok"))


def test_a_lock_that_another_program_keeps_shows_after_a_while(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_probe, "STALE_SECONDS", 1.5)
    with SqliteDatabase(house.path).lock():
        until(lambda: says(house, "audit_unavailable"))
        assert "no record for" in str(house.ledger.fault)
    until(lambda: says(house, "ok"))


def test_a_lock_that_is_kept_for_a_moment_is_no_fault(house: House) -> None:
    database = SqliteDatabase(house.path)
    connection = database.writer()
    database.begin(connection)
    seen = set()
    for _ in range(30):
        time.sleep(0.05)
        seen.add(house.engine.health().status)
    connection.execute("ROLLBACK")
    connection.close()
    assert seen == {"ok"}


def test_who_asks_for_the_health_makes_no_work(house: House) -> None:
    house.ledger._proof.close()
    journal = house.ledger._journal
    journal._connection, before = None, journal.proven_at  # type: ignore[assignment]
    try:
        for _ in range(1000):
            assert house.engine.health().serving
    finally:
        journal.reopen = lambda: None  # type: ignore[method-assign]
        journal._connection = house.vault.database.writer(patient=False)
    assert journal.proven_at == before


@pytest.mark.parametrize("reserve", [True, False])
def test_a_start_on_a_full_disk_serves_only_from_the_reserve(
    house: House, monkeypatch: pytest.MonkeyPatch, *, reserve: bool
) -> None:
    from keyvault_lite.ledger.commit.journal import Journal, StoreFull

    def full(*_: object, **__: object) -> None:
        raise StoreFull("full")

    house.vault.close()
    monkeypatch.setattr(Journal, "_write_apart", full)
    if not reserve:
        house.path.with_name("vault.db.reserve").unlink()
        monkeypatch.setattr(SqliteDatabase, "make_reserve", lambda _: None)
    house.open()
    assert says(house, "ok" if reserve else "audit_unavailable")
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("raised", "told"),
    [(StoreBusy("x"), 0), (AuditUnavailable("x"), 1), (IntegrityViolation("x"), 1), (ValueError("x"), 0)],
)
def test_what_a_look_meets(raised: Exception, told: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[KeyVaultError] = []
    journal: Any = SimpleNamespace(proven_at=time.monotonic())

    def prove(*, flush: bool) -> None:
        raise raised

    journal.prove = prove
    made = StoreProof(journal, found.append, lambda: False)
    made._prove()
    assert len(found) == told
    made._closing.set()
    made._prove()
    assert len(found) == told, "a vault that is closed has nothing to tell"


def test_space_is_scarce_before_it_is_low(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database, free = SqliteDatabase(tmp_path / "vault.db"), [0]
    found = SimpleNamespace(f_frsize=1, f_blocks=2**40)
    monkeypatch.setattr(
        sqlite, "os", SimpleNamespace(statvfs=lambda _: SimpleNamespace(**vars(found), f_bavail=free[0]))
    )
    limit = sqlite.SOFT_LIMIT
    for left, low, scarce in [
        (limit - 1, True, True),
        (limit, False, True),
        (4 * limit - 1, False, True),
        (4 * limit, False, False),
    ]:
        free[0], database._looked = left, 0.0
        assert (database.space_is_low(), database.space_is_scarce()) == (low, scarce)


def test_metrics_of_the_store(house: House) -> None:
    assert "\nkeyvault_store_up 1\n" in METRICS.page()
    house.ledger._committer.fault = AuditUnavailable("x")
    assert "\nkeyvault_store_up 0\n" in METRICS.page()
    house.ledger._committer.fault = None
    assert "\nkeyvault_store_proof_age_seconds 0." in METRICS.page()
