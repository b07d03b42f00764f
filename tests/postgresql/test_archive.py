"""What is archived leaves a PostgreSQL database as it leaves SQLite's, and the log stays one."""

from pathlib import Path

from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt, ListAudit, VerifyAudit
from keyvault_lite.operator.archive import archive_entries
from keyvault_lite.operator.verify import verify_vault
from tests.house import House


def test_entries_are_archived_beside_a_node_that_serves(postgres: House, tmp_path: Path) -> None:
    house, to = postgres, tmp_path / "archive"
    to.mkdir()
    name = KeyRef(house.key().id)
    house.together(*(house.perform(Encrypt(name, plaintext=b"x")) for _ in range(600)))
    assert archive_entries(house.chosen, to, keep=50).archived == 512
    # The node that serves adopts it, and goes on.
    house.ask(Encrypt(name, plaintext=b"x"))
    assert house.ask(ListAudit(limit=1)).archived == 512
    assert house.ask(VerifyAudit()).valid
    for shelf in (None, to):
        found = verify_vault(house.chosen, archive=shelf)
        assert found.valid, found.findings
    house.reopen()
    assert house.ask(VerifyAudit()).valid
