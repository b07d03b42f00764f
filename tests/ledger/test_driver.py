"""What is read of a damaged table: texts that are none come as they are, anything else is raised."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keyvault_lite.ledger import driver

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
    with pytest.raises(driver.Damaged):  # the connection itself is as strict as before
        connection.execute(QUERY).fetchall()


@pytest.mark.parametrize("read", READERS, ids=["fetch", "stream"])
def test_any_other_error_is_raised(connection: driver.Connection, read: Callable[..., Any]) -> None:
    connection.execute("DROP TABLE words")
    with pytest.raises(driver.Error, match="no such table"):
        read(connection, QUERY)
