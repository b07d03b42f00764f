"""What is read of a damaged table: texts that are none come as they are, anything else is raised."""

import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from tests.support.faults import FaultyConnection, failing

QUERY = "SELECT id, word FROM words ORDER BY id"
READERS: tuple[Callable[..., Any], ...] = (driver.fetch, lambda *query: list(driver.stream(*query)))


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[driver.Connection]:
    own = driver.connect(str(tmp_path / "words.db"), isolation_level=None)
    own.execute("CREATE TABLE words (id INTEGER, word TEXT)")
    own.execute("INSERT INTO words VALUES (1, 'one'), (2, CAST(x'74ff6f' AS TEXT)), (3, 'three')")
    yield own
    own.close()


@pytest.mark.parametrize("read", READERS, ids=["fetch", "stream"])
def test_text_that_is_not_utf_8_ends_no_query(connection: driver.Connection, read: Callable[..., Any]) -> None:
    assert read(connection, QUERY) == [(1, "one"), (2, "t\udcffo"), (3, "three")]
    assert read(connection, f"{QUERY} LIMIT ?", (1,)) == [(1, "one")]
    connection.execute("UPDATE words SET id = 4 WHERE id = 2")
    assert read(connection, QUERY) == [(1, "one"), (3, "three"), (4, "t\udcffo")]
    with pytest.raises(driver.Damaged):  # the connection itself is as strict as before
        connection.execute(QUERY).fetchall()


@pytest.mark.parametrize(
    ("bundled", "own", "safe"),
    [
        ((3, 51, 3), (3, 51, 2), True),
        ((3, 51, 2), (3, 51, 3), False),
        (None, (3, 51, 3), True),
        (None, (3, 51, 2), False),
    ],
)
def test_a_library_that_can_corrupt_a_database_is_not_safe(
    monkeypatch: pytest.MonkeyPatch, bundled: tuple[int, ...] | None, own: tuple[int, ...], *, safe: bool
) -> None:
    def library(version: tuple[int, ...]) -> object:
        return SimpleNamespace(**vars(driver.dbapi) | {"sqlite_version_info": version})

    monkeypatch.setitem(sys.modules, "pysqlite3", bundled and SimpleNamespace(dbapi2=library(bundled)))
    monkeypatch.setitem(sys.modules, "sqlite3", library(own))
    assert runpy.run_path(str(driver.__file__))["is_safe"] is safe


class Occupied:
    """A connection that fails so many times."""

    def __init__(self, message: str, times: int) -> None:
        self.message, self.left, self.asked = message, times, 0

    def execute(self, sql: str) -> None:
        assert sql == "BEGIN IMMEDIATE"
        self.asked += 1
        if self.left:
            self.left -= 1
            raise driver.Error(self.message)


@pytest.mark.parametrize(
    ("message", "patience", "asked", "begun"),
    [
        ("database is locked", 60.0, 3, True),
        ("database is locked", 0.0, 1, False),
        ("disk I/O error", 60.0, 1, False),
    ],
)
def test_only_a_lock_is_waited_for(message: str, patience: float, asked: int, *, begun: bool) -> None:
    connection: Any = Occupied(message, 2)
    if begun:
        SqliteDatabase.begin(connection, patience=patience)
    else:
        with pytest.raises(driver.Error, match=message):
            SqliteDatabase.begin(connection, patience=patience)
    assert connection.asked == asked


@pytest.mark.parametrize("read", READERS, ids=["fetch", "stream"])
def test_any_other_error_is_raised(connection: driver.Connection, read: Callable[..., Any]) -> None:
    # Also one that passes: what comes after it would be of another snapshot.
    faulty, errors = FaultyConnection(connection), [failing()]
    faulty.before = lambda _: errors.pop() if errors else None
    with pytest.raises(driver.Error, match="disk I/O error"):
        read(faulty, QUERY)
    connection.execute("DROP TABLE words")
    with pytest.raises(driver.Error, match="no such table"):
        read(connection, QUERY)


def test_a_full_disk_and_a_lock_are_told_by_their_messages() -> None:
    messages = ("database or disk is full", "database is locked", "database table is locked", "disk I/O error")
    assert [driver.is_full(failing(message)) for message in messages] == [True, False, False, False]
    assert [driver.is_busy(failing(message)) for message in messages] == [False, True, True, False]
