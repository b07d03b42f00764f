"""Real disks that fill up or become read-only: the long form (`make crash`), where file systems can be mounted."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyvault_lite.app import CANNOT_START
from keyvault_lite.ledger.storage.sqlite import database
from keyvault_lite.model.errors import AuditUnavailable
from keyvault_lite.model.keys import KeyStatus
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt, ReadKey, RevokeKey, VerifyAudit
from keyvault_lite.operator.verify import verify_vault
from tests.suites.crash.test_disk import comes_back, fill
from tests.support.harness import Harness, open_copy

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]
SIZE = "64m"
"""A tenth of it, kept for management, is more than the reserve."""


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place))
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def on_small_disk(small: Path, template: tuple[Path, str, str]) -> Iterator[Harness]:
    folder, master, token = template
    opened = open_copy(folder, small / "vault", master, token)
    yield opened
    opened.close()


def fill_disk(ballast: Path, leave: int = 0) -> None:
    """To the last byte, but for some pages."""
    with ballast.open("wb", buffering=0) as stream:
        try:
            while stream.write(bytes(4096)):
                pass
        except OSError:
            stream.truncate(max(0, stream.tell() - leave))


def test_a_full_disk(on_small_disk: Harness, small: Path) -> None:
    harness, ballast = on_small_disk, small / "ballast"
    name = KeyRef(harness.key().id)
    doomed = [harness.key() for _ in range(40)]
    fill_disk(ballast)
    time.sleep(database.LOOK_SECONDS)
    for key in doomed:
        harness.refusal(Encrypt(name, plaintext=b"x"), AuditUnavailable)
        assert harness.ask(RevokeKey(KeyRef(key.id))).status is KeyStatus.REVOKED
    fill(harness)  # what was kept is used up, by whoever only makes more
    ballast.unlink()
    comes_back(harness)
    time.sleep(database.LOOK_SECONDS)
    harness.ask(Encrypt(name, plaintext=b"x"))
    harness.ledger.scrub()
    assert harness.path.with_name("vault.db.reserve").exists()
    assert harness.ask(VerifyAudit()).findings == ()
    harness.reopen()
    assert {harness.ask(ReadKey(KeyRef(key.id))).status for key in doomed} == {KeyStatus.REVOKED}


def test_a_start_on_a_full_disk(on_small_disk: Harness, small: Path) -> None:
    harness, ballast = on_small_disk, small / "ballast"
    doomed = KeyRef(harness.key().id)
    harness.vault.close()
    fill_disk(ballast)
    harness.open()
    assert harness.ask(RevokeKey(doomed)).status is KeyStatus.REVOKED
    harness.vault.close()
    assert verify_vault(harness.settings).findings == ()
    ballast.unlink()
    harness.open()
    assert harness.ask(ReadKey(doomed)).status is KeyStatus.REVOKED


def test_a_disk_that_is_read_only(on_small_disk: Harness, small: Path) -> None:
    harness = on_small_disk
    name = KeyRef(harness.key().id)
    harness.vault.close()
    mount("-o", "remount,ro", str(small))
    with pytest.raises(CANNOT_START):
        harness.open()
    assert verify_vault(harness.settings).findings == ()
    mount("-o", "remount,rw", str(small))
    harness.open()
    harness.ask(Encrypt(name, plaintext=b"x"))


def test_a_copy_that_does_not_fit(on_small_disk: Harness, small: Path, tmp_path: Path) -> None:
    # Killed on a full disk, with a write-ahead log that no room is left to copy from.
    harness, ballast = on_small_disk, small / "ballast"
    keys = [harness.key() for _ in range(30)]
    shutil.copytree(harness.path.parent, tmp_path / "killed")
    harness.vault.close()
    shutil.rmtree(harness.path.parent)
    shutil.copytree(tmp_path / "killed", harness.path.parent)
    fill_disk(ballast)
    harness.open()
    assert harness.ask(RevokeKey(KeyRef(keys[0].id))).status is KeyStatus.REVOKED
    ballast.unlink()
    assert harness.ask(VerifyAudit()).findings == ()
