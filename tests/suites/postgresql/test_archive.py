"""What is archived leaves a PostgreSQL database as it leaves SQLite's, and the log stays one."""

from pathlib import Path

from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt, ListAudit, VerifyAudit
from keyvault_lite.operator.archive import archive_entries
from keyvault_lite.operator.verify import verify_vault
from tests.support.harness import Harness


def test_entries_are_archived_beside_a_node_that_serves(postgres: Harness, tmp_path: Path) -> None:
    harness, to = postgres, tmp_path / "archive"
    to.mkdir()
    name = KeyRef(harness.key().id)
    harness.together(*(harness.perform(Encrypt(name, plaintext=b"x")) for _ in range(600)))
    assert archive_entries(harness.settings, to, keep=50).archived == 512
    # The node that serves adopts it, and goes on.
    harness.ask(Encrypt(name, plaintext=b"x"))
    assert harness.ask(ListAudit(limit=1)).archived == 512
    assert harness.ask(VerifyAudit()).valid
    for segments in (None, to):
        found = verify_vault(harness.settings, archive=segments)
        assert found.valid, found.findings
    harness.reopen()
    assert harness.ask(VerifyAudit()).valid
