"""Power cuts, as far as files can tell of them: what was not flushed is gone, torn or older than the rest.

The promise (docs/operations.md, "The anchor"; threat_model.md): what the anchor remembers is there, or the start is
refused and says so; what it does not remember yet may be gone, and the vault starts, whole, without it.
"""

import os
import random
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt, VerifyAudit
from keyvault_lite.operator.verify import verify_vault
from tests.suites.crash.workload import ORDERS
from tests.support.harness import Harness

CUTS = 24
HEADER, FRAME = 32, 24 + 4096
"""Bytes of the write-ahead log."""


@dataclass(frozen=True)
class Cut:
    """The files of a vault that runs, and its anchor from moments before."""

    files: Path
    anchors: tuple[Path, ...]
    size: int

    def restore(self, harness: Harness, anchor: Path, wal: bytes) -> int:
        """Put them in the place of a closed vault's; how many entries are in what of the WAL counts."""
        folder = harness.path.parent
        shutil.rmtree(folder)
        shutil.copytree(self.files, folder)
        shutil.copy(anchor, folder / "vault.db.anchor")
        (folder / "vault.db-shm").unlink()  # it is shared memory
        (folder / "vault.db-wal").write_bytes(wal)
        shutil.copytree(folder, self.files.with_name("counted"), dirs_exist_ok=True)
        with closing(driver.connect(str(self.files.with_name("counted") / "vault.db"))) as connection:
            return int(connection.execute("SELECT max(id) FROM audit_logs").fetchone()[0])

    @property
    def wal(self) -> bytes:
        return (self.files / "vault.db-wal").read_bytes()


@pytest.fixture
def cut(left: Harness, tmp_path: Path) -> Cut:
    """Management and uses of keys in turn, and the power goes."""
    left.open()
    anchors: list[Path] = []
    for number in range(3):
        left.key(f"key-{number}")
        for _ in range(4):
            left.ask(Encrypt(KeyRef(ORDERS), plaintext=b"x"))
        anchors.append(tmp_path / f"anchor-{number}")
        shutil.copy(left.path.with_name("vault.db.anchor"), anchors[-1])
    size = left.size
    shutil.copytree(left.path.parent, tmp_path / "files")
    left.vault.close()
    return Cut(tmp_path / "files", tuple(anchors), size)


def check_start(harness: Harness, stored: int, anchor: Path) -> bool:
    """Whether it starts; that it does exactly if all is there that the anchor remembers."""
    mark = FileAnchor(anchor).peek()
    assert mark is not None
    found = verify_vault(harness.settings)
    if stored < mark.size:
        assert {one.table for one in found.findings} == {"anchor"}
        with pytest.raises(DamagedVault, match="put back or replaced"):
            harness.open()
        return False
    assert found.findings == ()
    harness.open()
    assert harness.size == stored, "whole transactions, and all of them"
    harness.ask(Encrypt(KeyRef(ORDERS), plaintext=b"x"))
    assert harness.ask(VerifyAudit()).findings == ()
    harness.vault.close()
    return True


@pytest.mark.parametrize("torn", [False, True])
def test_a_write_ahead_log_without_its_end(left: Harness, cut: Cut, torn: bool) -> None:
    # A disk that has not kept its word about fsync: some of the newest is gone, or is something else.
    chance = random.Random(f"torn {torn}")
    started = []
    for number in range(CUTS):
        between_frames = HEADER + FRAME * chance.randrange(len(cut.wal) // FRAME)
        place = chance.choice([chance.randrange(len(cut.wal) + 1), between_frames])
        wal = cut.wal[:place] + (os.urandom(len(cut.wal) - place) if torn else b"")
        anchor = cut.anchors[number % len(cut.anchors)]
        started.append(check_start(left, cut.restore(left, anchor, wal), anchor))
    assert set(started) == {True, False}
    cut.restore(left, cut.anchors[-1], cut.wal)
    left.open()


@pytest.mark.parametrize("age", range(3))
def test_an_anchor_that_was_not_flushed(left: Harness, cut: Cut, age: int) -> None:
    stored = cut.restore(left, cut.anchors[age], cut.wal)
    assert stored == cut.size, "nothing is lost"
    assert check_start(left, stored, cut.anchors[age])
    left.open()
