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
from tests.crash.test_disk import comes_back, fill
from tests.house import House, move_in

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
def on_small_disk(small: Path, template: tuple[Path, str, str]) -> Iterator[House]:
    folder, master, token = template
    opened = move_in(folder, small / "vault", master, token)
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


def test_a_full_disk(on_small_disk: House, small: Path) -> None:
    house, ballast = on_small_disk, small / "ballast"
    name = KeyRef(house.key().id)
    doomed = [house.key() for _ in range(40)]
    fill_disk(ballast)
    time.sleep(database.LOOK_SECONDS)
    for key in doomed:
        house.refusal(Encrypt(name, plaintext=b"x"), AuditUnavailable)
        assert house.ask(RevokeKey(KeyRef(key.id))).status is KeyStatus.REVOKED
    fill(house)  # what was kept is used up, by whoever only makes more
    ballast.unlink()
    comes_back(house)
    time.sleep(database.LOOK_SECONDS)
    house.ask(Encrypt(name, plaintext=b"x"))
    house.ledger.scrub()
    assert house.path.with_name("vault.db.reserve").exists()
    assert house.ask(VerifyAudit()).findings == ()
    house.reopen()
    assert {house.ask(ReadKey(KeyRef(key.id))).status for key in doomed} == {KeyStatus.REVOKED}


def test_a_start_on_a_full_disk(on_small_disk: House, small: Path) -> None:
    house, ballast = on_small_disk, small / "ballast"
    doomed = KeyRef(house.key().id)
    house.vault.close()
    fill_disk(ballast)
    house.open()
    assert house.ask(RevokeKey(doomed)).status is KeyStatus.REVOKED
    house.vault.close()
    assert verify_vault(house.chosen).findings == ()
    ballast.unlink()
    house.open()
    assert house.ask(ReadKey(doomed)).status is KeyStatus.REVOKED


def test_a_disk_that_is_read_only(on_small_disk: House, small: Path) -> None:
    house = on_small_disk
    name = KeyRef(house.key().id)
    house.vault.close()
    mount("-o", "remount,ro", str(small))
    with pytest.raises(CANNOT_START):
        house.open()
    assert verify_vault(house.chosen).findings == ()
    mount("-o", "remount,rw", str(small))
    house.open()
    house.ask(Encrypt(name, plaintext=b"x"))


def test_a_copy_that_does_not_fit(on_small_disk: House, small: Path, tmp_path: Path) -> None:
    # Killed on a full disk, with a write-ahead log that no room is left to copy from.
    house, ballast = on_small_disk, small / "ballast"
    keys = [house.key() for _ in range(30)]
    shutil.copytree(house.path.parent, tmp_path / "killed")
    house.vault.close()
    shutil.rmtree(house.path.parent)
    shutil.copytree(tmp_path / "killed", house.path.parent)
    fill_disk(ballast)
    house.open()
    assert house.ask(RevokeKey(KeyRef(keys[0].id))).status is KeyStatus.REVOKED
    ballast.unlink()
    assert house.ask(VerifyAudit()).findings == ()
