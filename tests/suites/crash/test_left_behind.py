"""What a process that was killed within SQLite leaves behind: `kvl verify` reads it, and raises no alarm."""

import os
from contextlib import closing
from pathlib import Path

import pytest

from keyvault_lite.ledger.storage import driver
from keyvault_lite.operator.anchor import show_anchor
from keyvault_lite.operator.verify import verify_vault
from keyvault_lite.settings import InvalidSettings
from tests.support.harness import Harness

HEADER = 32
"""Bytes of a write-ahead log before its first frame."""


def test_a_write_ahead_log_that_was_just_begun(left: Harness) -> None:
    # Its header is written, no frame is, and the index beside it does not know of it yet.
    wal, shared = (left.path.with_name(f"vault.db{suffix}") for suffix in ("-wal", "-shm"))
    with closing(driver.connect(str(left.path), isolation_level=None)) as connection:
        connection.execute("SELECT count(*) FROM audit_logs").fetchone()
        index = shared.read_bytes()
        connection.execute("UPDATE ledger_head SET size = size + 1")
        begun = wal.read_bytes()[:HEADER]
        connection.execute("UPDATE ledger_head SET size = size - 1")
    assert not wal.exists()
    wal.write_bytes(begun)
    shared.write_bytes(index)
    before = listing(left.path.parent)
    found = verify_vault(left.settings)
    assert found.findings == ()
    assert found.entries == 3
    assert listing(left.path.parent) == before, "nothing is written"
    left.open()


def test_a_read_only_copy_is_checked(left: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a file system that is mounted read-only: what keeps a server from starting keeps nobody from judging.
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and access(path, mode))
    assert verify_vault(left.settings).findings == ()
    assert show_anchor(left.settings).mark is not None
    with pytest.raises(InvalidSettings, match="cannot be written"):
        left.open()
    monkeypatch.undo()
    left.open()


def listing(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}
