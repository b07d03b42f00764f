"""Disks that are full, or take no more of a file: refused, on record what can be, `revoke` to the last, back by itself.

The faults are SQLite's and the kernel's own: a limit of pages, and one of a file's size. Real small disks are in
`test_small_disk.py`; disks that are locked, read-only or fail while committing in tests/ledger.
"""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest

from keyvault_lite.ledger.commit import group_commit
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.sqlite import database as sqlite
from keyvault_lite.ledger.storage.sqlite.database import RESERVE, SqliteDatabase
from keyvault_lite.model.errors import AuditUnavailable, KeyVaultError, NotFound, OutcomeUnknown, Unauthenticated
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.keys import Key, KeyStatus
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import Replayed
from keyvault_lite.model.requests import CreateKey, Encrypt, ListKeys, ReadKey, RevokeKey, VerifyAudit
from keyvault_lite.operator.verify import verify_vault
from tests.support.faults import FaultyConnection
from tests.support.harness import AES, Harness, idempotent

PAGE = 4096


def comes_back(harness: Harness) -> None:
    """Without a request, and without a hand. The test's timeout is the limit."""
    while harness.ledger.fault is not None:
        time.sleep(0.01)
    assert harness.engine.health().serving


class SmallDisk:
    """A disk of so many pages for the database, and the reserve."""

    def __init__(self, harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
        self._house, self._reserve = harness, harness.path.with_name("vault.db.reserve")
        self.seen_as_full = True
        """Whether it can be seen beforehand that the disk is nearly full."""
        writer, release = SqliteDatabase.writer, SqliteDatabase.release_reserve

        def limited(database: SqliteDatabase, **how: Any) -> Any:  # noqa: ANN401
            connection = writer(database, **how)
            connection.execute(f"PRAGMA max_page_count = {self.pages}")
            return connection

        def give_up(database: SqliteDatabase) -> bool:
            given = release(database)
            if given:
                self.resize(self.pages + RESERVE // PAGE)
            return given

        def statvfs(_: object) -> SimpleNamespace:
            free = 0 if self.seen_as_full else 2**20
            return SimpleNamespace(f_bavail=free, f_frsize=PAGE, f_blocks=2**22)

        monkeypatch.setattr(SqliteDatabase, "writer", limited)
        monkeypatch.setattr(SqliteDatabase, "release_reserve", give_up)
        monkeypatch.setattr(sqlite, "os", SimpleNamespace(**vars(os) | {"statvfs": statvfs}))
        self.resize(self._query("PRAGMA page_count"))

    def resize(self, pages: int) -> None:
        self.pages = pages
        with suppress(driver.dbapi.ProgrammingError):  # a vault that is closed learns of it when it opens
            self._query(f"PRAGMA max_page_count = {pages}")

    def _query(self, sql: str) -> int:
        return int(self._house.ledger._writer.connection.execute(sql).fetchone()[0])

    def has_reserve(self) -> bool:
        return self._reserve.exists()


@pytest.fixture
def disk(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> SmallDisk:
    return SmallDisk(harness, monkeypatch)


def fill(harness: Harness) -> None:
    """Until a change that needs room is refused."""

    def ask_on() -> None:
        for _ in range(10_000):
            harness.ask(CreateKey(AES, description="x" * 4000))

    with pytest.raises(AuditUnavailable):
        ask_on()


def test_a_nearly_full_disk_is_kept_for_management_and_denials(harness: Harness, disk: SmallDisk) -> None:
    name = KeyRef(harness.key().id)
    disk.resize(disk.pages + 1000)
    time.sleep(sqlite.LOOK_SECONDS)
    before = harness.size
    answers = harness.together(
        harness.perform(Encrypt(name, plaintext=b"x")),
        harness.perform(RevokeKey(name)),
        harness.perform(Encrypt(KeyRef("absent"), plaintext=b"x")),
        harness.perform(ListKeys(), None),
        harness.perform(ReadKey(name)),
    )
    refused, revoked, absent, unknown, read = answers
    assert isinstance(refused, AuditUnavailable)
    assert refused.audit_id is None
    assert revoked.result.status is KeyStatus.REVOKED
    assert isinstance(absent, NotFound)
    assert isinstance(unknown, Unauthenticated)
    assert read.result.id == name
    actions = [(entry.draft.action, entry.draft.result) for entry in harness.log(before)]
    assert (Action.ENCRYPT, Result.SUCCESS) not in actions
    assert len(actions) == 4
    health = harness.engine.health()
    assert (health.status, health.serving) == ("no_space", False), "keys are managed, not used"
    assert disk.has_reserve(), "and the reserve is for worse"
    disk.seen_as_full = False
    time.sleep(sqlite.LOOK_SECONDS)
    harness.ask(Encrypt(KeyRef(harness.key().id), plaintext=b"x"))


@pytest.mark.timeout(60)
def test_a_full_disk_never_blocks_revoke(harness: Harness, disk: SmallDisk) -> None:
    name = KeyRef(harness.key().id)
    disk.resize(disk.pages + 100)
    doomed = [harness.key() for _ in range(20)]
    time.sleep(sqlite.LOOK_SECONDS)
    # Nothing of the reserve is taken by whoever only makes more: it is full to the last page.
    disk.resize(disk._query("PRAGMA page_count"))
    with pytest.MonkeyPatch.context() as without:
        without.setattr(SqliteDatabase, "release_reserve", lambda _: False)
        fill(harness)
    assert disk.has_reserve()
    for key in doomed:
        harness.refusal(Encrypt(name, plaintext=b"x"), AuditUnavailable)
        assert harness.ask(RevokeKey(KeyRef(key.id))).status is KeyStatus.REVOKED
    assert not disk.has_reserve()
    harness.refusal(Encrypt(KeyRef("absent"), plaintext=b"x"), NotFound)
    fill(harness)
    disk.resize(2**20)
    disk.seen_as_full = False
    comes_back(harness)
    time.sleep(sqlite.LOOK_SECONDS)
    harness.ask(Encrypt(name, plaintext=b"x"))
    harness.ledger.scrub()  # as each minute
    assert disk.has_reserve()
    assert harness.ask(VerifyAudit()).findings == ()
    harness.reopen()
    assert {harness.ask(ReadKey(KeyRef(key.id))).status for key in doomed} == {KeyStatus.REVOKED}


def test_a_start_on_a_full_disk_is_not_kept_from_revoking(
    harness: Harness, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    doomed = KeyRef(harness.key().id)
    harness.vault.close()
    opened = SqliteDatabase.writer

    def needs_room(database: SqliteDatabase, **how: Any) -> Any:  # noqa: ANN401
        if disk.has_reserve():
            raise driver.dbapi.OperationalError("disk I/O error")  # so SQLite tells that its index finds no room
        return opened(database, **how)

    monkeypatch.setattr(SqliteDatabase, "writer", needs_room)
    harness.open()
    assert harness.ask(RevokeKey(doomed)).status is KeyStatus.REVOKED


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """For the whole process: whoever writes beyond that gets EFBIG (Python ignores the signal)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def counting_probes(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[KeyVaultError | None]]:
    """How each look whether the fault is over has ended, as they come."""
    writer, told = harness.ledger._writer, list[KeyVaultError | None]()
    recover = writer.recover

    def watched() -> None:
        try:
            recover()
        except KeyVaultError as error:
            told.append(error)
            raise
        told.append(None)

    monkeypatch.setattr(group_commit, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(writer, "recover", watched)
    yield told


@pytest.mark.timeout(60)
def test_a_fault_that_lasts_is_not_told_to_be_over(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    # What looks whether the store can be written again really writes.
    with counting_probes(harness, monkeypatch) as told:
        with files_no_larger_than(min(harness.path.stat().st_size, PAGE)):
            with pytest.raises((AuditUnavailable, OutcomeUnknown)):
                harness.ask(CreateKey(AES))
            while len(told) < 3 and None not in told:
                time.sleep(0.01)
            assert None not in told
            assert not harness.engine.health().serving
        comes_back(harness)
    assert told[-1] is None
    harness.ask(CreateKey(AES))


@pytest.mark.timeout(60)
def test_the_reserve_is_given_up_for_recovery_too(
    harness: Harness, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The disk fills up while something else keeps the vault from serving: that being over, it serves.
    doomed = KeyRef(harness.key().id)
    full = driver.dbapi.OperationalError("database or disk is full")

    def filled_up(database: SqliteDatabase, **how: Any) -> FaultyConnection:  # noqa: ANN401
        made = FaultyConnection(open_writer(database, **how))
        made.before = lambda sql: full if sql.startswith("UPDATE ledger_head") and disk.has_reserve() else None
        return made

    open_writer = SqliteDatabase.writer
    monkeypatch.setattr(SqliteDatabase, "writer", filled_up)
    harness.ledger._group_commit.availability.fail(AuditUnavailable("a fault"))
    assert harness.ask(RevokeKey(doomed)).status is KeyStatus.REVOKED
    assert not disk.has_reserve()
    assert harness.ledger._writer.connection.in_transaction is False


@pytest.mark.timeout(60)
def test_files_that_may_not_grow(harness: Harness) -> None:
    """A write that fails wherever it stands: in the log that is written ahead, within COMMIT, in the copy of it."""
    made: dict[str, Key] = {}
    refused: dict[str, KeyVaultError] = {}

    def create(name: str) -> None:
        request = CreateKey(AES, name, description="x" * 2000)
        try:
            made[name] = harness.ask(request, idempotency=idempotent(name, name))
        except KeyVaultError as error:
            refused[name] = error

    wal = harness.path.with_name("vault.db-wal")
    with files_no_larger_than(max(harness.path.stat().st_size, wal.stat().st_size) + 20 * PAGE + 1):
        for number in range(600):
            create(f"key-{number}")
            if len(refused) == 5:
                break
        assert {error.code for error in refused.values()} <= {"audit_unavailable", "outcome_unknown"}
        assert len(refused) == 5
        assert {error.audit_id for error in refused.values()} == {None}
        assert not harness.engine.health().serving
    comes_back(harness)
    for name, error in refused.items():
        was_there = harness.ledger.snapshot().find_key(KeyRef(name)) is not None
        assert not was_there or error.code == "outcome_unknown"
        again = harness.ask(CreateKey(AES, name, description="x" * 2000), idempotency=idempotent(name, name))
        assert isinstance(again, Replayed) is was_there
    stored = {key.name: key for key in harness.ledger.snapshot().keys_after(None)}
    assert stored == {**made, **{name: stored[name] for name in refused}}
    assert harness.ask(VerifyAudit()).findings == ()
    harness.vault.close()
    assert verify_vault(harness.settings).findings == ()
    harness.open()
