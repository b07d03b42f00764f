"""SQLite's part: how connections are set up, the locks between processes, the room that is kept, whose file it is."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from keyvault_lite.ledger.opening import prepare
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.schema import TABLES, TRIGGERS
from keyvault_lite.ledger.storage.sqlite import database as module
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation

MB = 1024 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a database with a name that has to be quoted in a URI."""
    return tmp_path / "a vault?.db"


@pytest.fixture
def database(path: Path) -> Iterator[SqliteDatabase]:
    made = SqliteDatabase(path)
    yield made
    made.close()


@pytest.fixture
def other(path: Path) -> Iterator[SqliteDatabase]:
    """As another process has it."""
    made = SqliteDatabase(path)
    yield made
    made.close()


def pragmas(connection: driver.Connection, *names: str) -> list[object]:
    return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]


def opened() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


class TestConnections:
    GUARDS = ("foreign_keys", "trusted_schema", "cell_size_check", "secure_delete", "synchronous", "mmap_size")

    @pytest.mark.parametrize(("how", "timeout"), [({}, 4000), ({"patient": True}, 4000), ({"patient": False}, 0)])
    def test_of_writers(self, database: SqliteDatabase, path: Path, how: dict[str, bool], timeout: int) -> None:
        before = os.umask(0)
        try:
            connection = database.writer(**how)
        finally:
            os.umask(before)
        with closing(connection):
            assert pragmas(connection, *self.GUARDS) == [1, 0, 1, 1, 2, 0]
            assert pragmas(connection, "journal_mode", "busy_timeout") == ["wal", timeout]
            assert not connection.in_transaction
            connection.execute("CREATE TABLE words (word)")
            assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}

    def test_of_readers(self, database: SqliteDatabase) -> None:
        with closing(database.writer()) as writer:
            writer.execute("CREATE TABLE words (word)")
            with closing(database.reader()) as connection:
                assert pragmas(connection, "query_only", "trusted_schema", "cell_size_check") == [1, 0, 1]
                assert pragmas(connection, "busy_timeout") == [4000]
                with pytest.raises(driver.Error):
                    connection.execute("INSERT INTO words VALUES (1)")
                assert database.is_alive(connection)

    def test_others_are_counted_and_oneself_is_not(self, database: SqliteDatabase) -> None:
        with closing(database.writer()) as one, closing(database.writer()) as two:
            one.execute("CREATE TABLE words (word)")
            before = database.count_of_others(one)
            one.execute("INSERT INTO words VALUES (1)")
            assert database.count_of_others(one) == before
            two.execute("INSERT INTO words VALUES (1)")
            assert database.count_of_others(one) != before

    def test_names(self, database: SqliteDatabase, path: Path) -> None:
        assert (database.place, database.name, database.folder) == (str(path), path.name, path.parent)
        assert database.anchor_path == path.parent / f"{path.name}.anchor"
        assert (database.is_there(), database.exists()) == (False, False)
        path.touch()
        assert (database.is_there(), database.exists()) == (True, False)
        path.write_bytes(b"x")
        assert (database.is_there(), database.exists()) == (True, True)


class TestLocks:
    def test_one_at_a_time(self, database: SqliteDatabase, other: SqliteDatabase) -> None:
        for first, second in ((database, other), (other, database), (database, database)):
            assert first.try_lock()
            assert not second.try_lock()
            assert not second.try_lock()
            first.unlock()
            with second.lock():
                assert not first.try_lock()

    def test_who_waits_is_next(self, database: SqliteDatabase, other: SqliteDatabase) -> None:
        with other._turnstile.held():
            assert not database.try_lock()
        assert database.try_lock()
        database.unlock()

    def test_one_that_cannot_be_had(self, tmp_path: Path) -> None:
        absent = SqliteDatabase(tmp_path / "absent" / "vault.db")
        for _ in range(2):  # nobody is held up by the one before
            assert not absent.try_lock()
            with pytest.raises(AuditUnavailable, match=r"the lock file .* cannot be used: No such file"):
                absent.acquire()

    def test_what_was_let_go_of_is_opened_again(self, database: SqliteDatabase, other: SqliteDatabase) -> None:
        before = opened()
        with database.lock():
            pass
        assert opened() == before + 2
        database.close()
        assert opened() == before
        with other.lock():
            assert not database.try_lock()
        assert database.try_lock()
        database.unlock()

    def test_who_is_gone_holds_none(self, database: SqliteDatabase, path: Path) -> None:
        forgotten = SqliteDatabase(path)
        assert forgotten.try_lock()
        assert not database.try_lock()
        assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
        del forgotten
        assert database.try_lock()
        database.unlock()

    def test_one_leads_until_it_ends(self, database: SqliteDatabase, other: SqliteDatabase) -> None:
        other.resign_leadership()
        assert [database.is_leader(), database.is_leader(), other.is_leader()] == [True, True, False]
        other.resign_leadership()
        assert not other.is_leader()
        database.resign_leadership()
        assert [other.is_leader(), database.is_leader()] == [True, False]
        other.resign_leadership()
        assert database.is_leader()
        database.resign_leadership()

    def test_one_begins_a_vault(self, database: SqliteDatabase, other: SqliteDatabase) -> None:
        with database.beginning():
            assert not other._beginning.try_acquire()
            assert other.try_lock()
            other.unlock()
        assert other._beginning.try_acquire()
        other._beginning.release()


class TestRoom:
    @pytest.mark.parametrize(
        ("free", "whole", "low"),
        [
            (32 * MB, 1000 * MB, False),
            (32 * MB - 4096, 1000 * MB, True),
            (10 * MB, 100 * MB, False),
            (10 * MB - 4096, 100 * MB, True),
            (0, 1000 * MB, True),
        ],
    )
    def test_is_low(
        self, database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch, free: int, whole: int, *, low: bool
    ) -> None:
        self.disk(monkeypatch, free, whole)
        assert database.space_is_low() is low
        assert database.space_is_low() is low
        database.make_reserve()
        assert database._reserve.exists() is not low

    def disk(self, monkeypatch: pytest.MonkeyPatch, free: int, whole: int) -> list[Path]:
        """What is asked of a disk of that size."""
        asked: list[Path] = []

        def told(folder: Path) -> object:
            asked.append(folder)
            return SimpleNamespace(f_bavail=free // 4096, f_frsize=4096, f_blocks=whole // 4096)

        monkeypatch.setattr(os, "statvfs", told)
        return asked

    def test_is_looked_up_now_and_then(self, database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = self.disk(monkeypatch, 0, MB)
        monkeypatch.setattr(module, "LOOK_SECONDS", 60)
        assert [database.space_is_low() for _ in range(3)] == [True] * 3
        assert asked == [database.folder]
        monkeypatch.setattr(module, "LOOK_SECONDS", -1)
        self.disk(monkeypatch, MB, MB)
        assert not database.space_is_low()

    def test_is_put_aside_once(self, database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
        self.disk(monkeypatch, 1000 * MB, 1000 * MB)
        database.make_reserve()
        made = database._reserve.stat()
        assert (made.st_size, made.st_mode & 0o777) == (4 * MB, 0o600)
        database._reserve.write_bytes(b"")
        database.make_reserve()
        assert database._reserve.stat().st_size == 0, "what is there stays as it is"
        assert [database.release_reserve(), database.release_reserve()] == [True, False]

    def test_that_cannot_be_put_aside_is_no_fault(
        self, database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
        before = opened()
        database.make_reserve()
        assert opened() == before


class TestFile:
    def test_another_one_in_its_place_is_found(self, database: SqliteDatabase, path: Path) -> None:
        with closing(database.writer()):
            database.check_same_file()
            aside = path.rename(path.with_name("aside"))
            with pytest.raises(IntegrityViolation):
                database.check_same_file()
            path.write_bytes(aside.read_bytes())
            with pytest.raises(IntegrityViolation):
                database.check_same_file()
            aside.replace(path)
            database.check_same_file()

    def test_what_was_overwritten_stays_while_somebody_reads(self, database: SqliteDatabase) -> None:
        with closing(database.writer()) as writer, closing(database.reader()) as reader:
            writer.execute("CREATE TABLE words (word)")
            assert database.forget_overwritten() is True
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM words").fetchone() == (0,)
            writer.execute("INSERT INTO words VALUES (1)")
            assert database.forget_overwritten() is False
            reader.execute("ROLLBACK")
            assert database.forget_overwritten() is True
            assert database.path.with_name(f"{database.name}-wal").stat().st_size == 0

    @pytest.mark.parametrize(
        ("stored", "first", "last", "left"),
        [
            ("123456", 1, 3, "456"),
            ("456", 4, 5, "6"),
            ("13456", 1, 3, None),
            ("12356", 1, 3, None),
            ("123456", 2, 3, None),
            ("123456", 1, 6, None),
            ("456", 1, 3, None),
            ("123456", 1, 1, "23456"),
        ],
    )
    def test_only_exactly_what_was_archived_goes(
        self, database: SqliteDatabase, stored: str, first: int, last: int, left: str | None
    ) -> None:
        with closing(database.writer()) as writer:
            writer.execute("CREATE TABLE audit_logs (id INTEGER PRIMARY KEY)")
            writer.execute("CREATE TABLE audit_index (block INTEGER)")
            writer.execute(TRIGGERS["audit_logs_no_delete"])
            writer.execute("BEGIN IMMEDIATE")
            writer.executemany("INSERT INTO audit_logs VALUES (?)", [(int(number),) for number in stored])
            if left is None:
                with pytest.raises(IntegrityViolation, match="exactly the entries that were archived"):
                    database.forget_entries(writer, first, last)
                return
            database.forget_entries(writer, first, last)
            assert "".join(str(number) for (number,) in writer.execute("SELECT id FROM audit_logs")) == left
            with pytest.raises(driver.Error, match="never deleted"):
                writer.execute("DELETE FROM audit_logs")

    def test_damaged_pages_are_told(self, database: SqliteDatabase, path: Path) -> None:
        with closing(database.writer()) as writer:
            writer.execute("CREATE TABLE words (word TEXT UNIQUE)")
            writer.execute("INSERT INTO words VALUES ('canary')")
            assert database.check_pages(writer) == []
        path.write_bytes(path.read_bytes().replace(b"canary", b"cuckoo", 1))  # in the table, and not in its index
        with closing(database.reader()) as reader:
            (found,) = database.check_pages(reader)
        assert (found.table, found.row) == ("database", "pages")
        assert "missing from index" in found.problem

    def test_tables_come_and_go(self, database: SqliteDatabase) -> None:
        assert prepare(database) == ()
        with closing(database.writer()) as writer:
            assert set(TABLES) < database.tables(writer)
            assert database.may_forget_tokens(writer)
            database.drop_tables(writer)
            assert set(TABLES).isdisjoint(database.tables(writer))
            database.upgrade(writer)
            assert database.check_schema(writer) == []
