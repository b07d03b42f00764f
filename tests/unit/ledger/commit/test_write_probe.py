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
from keyvault_lite.ledger.commit.availability import StoreBusy, StoreFull
from keyvault_lite.ledger.commit.write_probe import StoreProof
from keyvault_lite.ledger.commit.writer import Writer
from keyvault_lite.ledger.storage.sqlite import database as sqlite
from keyvault_lite.ledger.storage.sqlite import locks
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, KeyVaultError
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt, VerifyAudit
from keyvault_lite.observe.metrics import METRICS
from tests.support.harness import Harness, open_copy


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def says(harness: Harness, *status: str) -> bool:
    """What /health answers, without a request for anything else."""
    health = harness.engine.health()
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


def test_a_database_that_is_moved_away_shows_and_is_served_again_once_it_is_back(harness: Harness) -> None:
    name = KeyRef(harness.key().id)
    assert says(harness, "ok")
    aside = harness.path.with_name("aside.db")
    harness.path.rename(aside)
    until(lambda: says(harness, "audit_unavailable"))
    harness.refusal(Encrypt(name, plaintext=b"x"), AuditUnavailable)
    time.sleep(1.2)  # recovery is tried, and makes no database in place of the one that is gone
    assert not harness.path.exists()
    assert "gone" in str(harness.ledger.fault)
    aside.rename(harness.path)
    until(lambda: says(harness, "ok"))
    harness.ask(Encrypt(name, plaintext=b"x"))
    assert harness.ask(VerifyAudit()).findings == ()


def test_nothing_is_written_into_a_file_that_was_moved_away(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_probe, "PROVE_SECONDS", 100.0)
    name, aside = KeyRef(harness.key().id), harness.path.with_name("aside.db")
    size = harness.ledger._writer.head.size
    harness.path.rename(aside)
    harness.refusal(Encrypt(name, plaintext=b"x"), AuditUnavailable)
    aside.rename(harness.path)
    until(lambda: says(harness, "ok"))
    assert harness.size == size


@pytest.mark.parametrize("name", ["vault.db", "vault.db.anchor"])
def test_files_that_become_read_only_under_an_idle_vault(harness: Harness, name: str) -> None:
    until(lambda: says(harness, "ok"))
    with read_only(harness.path.with_name(name)):
        until(lambda: says(harness, "audit_unavailable"))
        assert "read-only" in str(harness.ledger.fault)
    until(lambda: says(harness, "ok"))


def test_a_database_that_was_read_only_before_the_start(template: tuple[Path, str, str], tmp_path: Path) -> None:
    folder, master, token = template
    harness = open_copy(folder, tmp_path / "vault", master, token)
    harness.vault.close()
    with read_only(harness.path):
        harness.open()
        assert says(harness, "audit_unavailable"), "before anybody has asked for anything"
    until(lambda: says(harness, "ok"))
    harness.key()
    harness.close()


def test_another_file_in_its_place_ends_service(harness: Harness) -> None:
    aside = harness.path.with_name("aside.db")
    harness.path.rename(aside)
    until(lambda: says(harness, "audit_unavailable"))
    harness.path.write_bytes(aside.read_bytes())
    until(lambda: says(harness, "integrity_violation"))


def test_a_disk_that_takes_no_flush(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_probe, "FLUSH_SECONDS", 0.0)
    broken = threading.Event()
    broken.set()

    def fsync(descriptor: int) -> None:
        if broken.is_set():
            raise OSError(5, "Input/output error")
        os.fsync(descriptor)

    monkeypatch.setattr(locks, "os", SimpleNamespace(**vars(os) | {"fsync": fsync}))
    until(lambda: says(harness, "audit_unavailable"))
    broken.clear()
    until(lambda: says(harness, "ok"))


def test_a_lock_that_another_program_keeps_shows_after_a_while(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_probe, "STALE_SECONDS", 1.5)
    with SqliteDatabase(harness.path).lock():
        until(lambda: says(harness, "audit_unavailable"))
        assert "no record for" in str(harness.ledger.fault)
    until(lambda: says(harness, "ok"))


def test_a_lock_that_is_kept_for_a_moment_is_no_fault(harness: Harness) -> None:
    database = SqliteDatabase(harness.path)
    connection = database.writer()
    database.begin(connection)
    seen = set()
    for _ in range(30):
        time.sleep(0.05)
        seen.add(harness.engine.health().status)
    connection.execute("ROLLBACK")
    connection.close()
    assert seen == {"ok"}


def test_who_asks_for_the_health_makes_no_work(harness: Harness) -> None:
    harness.ledger._proof.close()
    writer = harness.ledger._writer
    writer.connection, before = None, writer.proven_at  # type: ignore[assignment]
    try:
        for _ in range(1000):
            assert harness.engine.health().serving
    finally:
        writer.reopen = lambda: None  # type: ignore[method-assign]
        writer.connection = harness.vault.database.writer(patient=False)
    assert writer.proven_at == before


@pytest.mark.parametrize("reserve", [True, False])
def test_a_start_on_a_full_disk_serves_only_from_the_reserve(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, *, reserve: bool
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StoreFull("full")

    harness.vault.close()
    monkeypatch.setattr(Writer, "write_apart", full)
    if not reserve:
        harness.path.with_name("vault.db.reserve").unlink()
        monkeypatch.setattr(SqliteDatabase, "make_reserve", lambda _: None)
    harness.open()
    assert says(harness, "ok" if reserve else "audit_unavailable")
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("raised", "told"),
    [(StoreBusy("x"), 0), (AuditUnavailable("x"), 1), (IntegrityViolation("x"), 1), (ValueError("x"), 0)],
)
def test_what_a_look_meets(raised: Exception, told: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[KeyVaultError] = []
    writer: Any = SimpleNamespace(proven_at=time.monotonic())

    def prove(*, flush: bool) -> None:
        raise raised

    writer.prove = prove
    made = StoreProof(writer, found.append, lambda: False)
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


def test_metrics_of_the_store(harness: Harness) -> None:
    assert "\nkeyvault_store_up 1\n" in METRICS.page()
    harness.ledger._group_commit.availability.fault = AuditUnavailable("x")
    assert "\nkeyvault_store_up 0\n" in METRICS.page()
    harness.ledger._group_commit.availability.fault = None
    assert "\nkeyvault_store_proof_age_seconds 0." in METRICS.page()
