"""An edit of the stored head while the vault runs: found by the next commit, and still found after the server's end."""

from contextlib import closing

import psycopg
import pytest

from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.schema import HEAD_COLUMNS
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt
from keyvault_lite.operator.verify import verify_vault
from tests.support.harness import Harness

pytestmark = pytest.mark.both
NUMBERS = {"epoch", "size", "timestamp", "state_seq"}


def edit(harness: Harness, sql: str) -> None:
    """Run a statement as somebody else who may write the database."""
    url = harness.settings.database_url
    if url.startswith("sqlite"):
        with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
            assert connection.execute(sql).rowcount == 1
    else:
        with psycopg.connect(url, autocommit=True) as server:
            assert server.execute(sql.encode()).rowcount == 1


def another(harness: Harness, column: str) -> str:
    """SQL for another value of a column, of the same type."""
    if column in NUMBERS:
        return f"{column} + 1"
    if column == "checkpoint":
        return "checkpoint || 'x'"
    text = "x'00'" if harness.settings.database_url.startswith("sqlite") else r"'\x00'::bytea"
    return f"{column} || {text}" if text.endswith("bytea") else f"CAST({column} || {text} AS BLOB)"


def encrypt(harness: Harness) -> None:
    harness.ask(Encrypt(KeyRef("orders"), plaintext=b"x"))


@pytest.mark.parametrize("column", [*HEAD_COLUMNS, "mac"])
def test_an_edited_column_of_the_head_stops_service_and_outlives_the_server(harness: Harness, column: str) -> None:
    harness.key("orders")
    encrypt(harness)
    edit(harness, f"UPDATE ledger_head SET {column} = {another(harness, column)}")
    harness.refusal(Encrypt(KeyRef("orders"), plaintext=b"x"), IntegrityViolation)
    assert isinstance(harness.ledger.fault, IntegrityViolation)
    harness.vault.close()
    found = verify_vault(harness.settings)
    assert "ledger_head" in {one.table for one in found.findings}, found
    with pytest.raises(IntegrityViolation):
        harness.open()


@pytest.mark.parametrize("column", HEAD_COLUMNS)
def test_the_end_of_the_server_does_not_overwrite_an_edited_head(harness: Harness, column: str) -> None:
    harness.key("orders")
    encrypt(harness)
    edit(harness, f"UPDATE ledger_head SET {column} = {another(harness, column)}")
    harness.vault.close()
    assert not verify_vault(harness.settings).valid


def test_a_look_at_what_others_wrote_finds_an_edited_head(harness: Harness) -> None:
    harness.key("orders")
    edit(harness, "UPDATE ledger_head SET timestamp = timestamp + 1")
    with pytest.raises(IntegrityViolation, match="timestamp"):
        harness.ledger.refresh()
