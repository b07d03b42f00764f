"""No false alarm, and not a byte written: closed, killed, beside a server under load, with whatever lies there."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.sqlite.offline import read_offline
from keyvault_lite.model.errors import AuditUnavailable
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt, RotateKey
from tests.suites.tamper.sample_vault import SampleVault, VaultCopy
from tests.support.harness import Harness, settings_for


def listing(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def nothing(_: Path) -> None: ...


def lose(*suffixes: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for suffix in suffixes:
            (folder / f"vault.db{suffix}").unlink()

    return remove


def empty_wal(folder: Path) -> None:
    (folder / "vault.db-wal").touch()


def stale_shm(folder: Path) -> None:
    (folder / "vault.db-shm").write_bytes(os.urandom(32768))


def read_only(folder: Path) -> None:
    for file in folder.iterdir():
        file.chmod(0o400)
    folder.chmod(0o500)


@pytest.mark.parametrize(
    ("source", "prepare"),
    [
        ("folder", nothing),
        ("folder", empty_wal),
        ("folder", stale_shm),
        ("folder", read_only),
        ("killed", nothing),
        ("killed", lose("-shm")),
        ("killed", stale_shm),
        ("killed", read_only),
    ],
)
@pytest.mark.parametrize("public", [False, True])
def test_nothing_is_written(
    vault: SampleVault, tmp_path: Path, source: str, prepare: Callable[[Path], None], public: bool
) -> None:
    shutil.copytree(getattr(vault, source), tmp_path / "copy_of")
    copy_of = VaultCopy(tmp_path / "copy_of", vault.master)
    prepare(copy_of.folder)
    before = listing(copy_of.folder)
    found = copy_of.verify(public=public)
    assert found.valid, found.findings
    assert found.entries > 300
    assert listing(copy_of.folder) == before
    copy_of.folder.chmod(0o700)


def test_fresh_and_restarted_vaults_are_clean(vault: SampleVault, tmp_path: Path) -> None:
    shutil.copytree(vault.killed, tmp_path / "copy_of")
    copy_of = VaultCopy(tmp_path / "copy_of", vault.master)
    assert copy_of.starts()
    assert copy_of.verify().valid
    older = VaultCopy(vault.older[0].parent, vault.former)
    assert older.verify().valid


def test_beside_a_server_under_load(vault: SampleVault, tmp_path: Path) -> None:
    """In a process of its own, as `kvl verify` is: no check sees half of what is being written."""
    copy_of = vault.copy(tmp_path / "copy_of")
    harness = Harness(settings_for(copy_of.folder, copy_of.master), vault.token)
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            harness.together(*(harness.perform(Encrypt(KeyRef("orders"), None, b"text")) for _ in range(20)))
            harness.ask(RotateKey(KeyRef("kept")))

    worker = threading.Thread(target=load)
    worker.start()
    try:
        reports = [run_verify(copy_of, *how) for how in ([], ["--public"], [], ["--public"])]
    finally:
        done.set()
        worker.join()
        harness.close()
    assert [report["findings"] for report in reports] == [[], [], [], []]
    assert reports[0]["entries"] < reports[2]["entries"], "the server went on meanwhile"


def run_verify(copy_of: VaultCopy, *options: str) -> dict[str, Any]:
    environment = os.environ | {
        "KEYVAULT_MASTER_KEY": copy_of.master,
        "KEYVAULT_DATABASE_URL": f"sqlite:///{copy_of.database}",
    }
    command = [sys.executable, "-P", "-m", "keyvault_lite", "verify", "-o", "json", *options]
    ran = subprocess.run(command, env=environment, cwd=copy_of.folder, capture_output=True, check=False, timeout=60)
    assert ran.returncode == 0, (ran.stdout, ran.stderr)
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


def test_what_changes_meanwhile_is_read_again(vault: SampleVault, tmp_path: Path) -> None:
    copy_of = vault.copy(tmp_path / "copy_of")
    calls = 0

    def once_disturbed(connection: object) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            os.utime(copy_of.database)
        return calls

    assert read_offline(copy_of.database, once_disturbed) == 2
    with pytest.raises(AuditUnavailable, match="keeps changing"):
        read_offline(copy_of.database, lambda _: os.utime(copy_of.database, ns=(calls, next(ticks))))


def test_a_wal_that_goes_while_it_is_opened_is_no_alarm(vault: SampleVault, tmp_path: Path) -> None:
    copy_of = vault.copy(tmp_path / "copy_of")
    left = [1, 1]

    def racing(connection: object) -> str:
        if left:
            os.utime(copy_of.database, ns=(left.pop(), next(ticks)))
            raise FileNotFoundError(2, "No such file or directory")
        return "read"

    assert read_offline(copy_of.database, racing) == "read"


def test_damage_is_told_although_the_files_keep_changing(vault: SampleVault, tmp_path: Path) -> None:
    copy_of = vault.copy(tmp_path / "copy_of")

    def damaged(connection: driver.Connection) -> None:
        os.utime(copy_of.database, ns=(1, next(ticks)))
        connection.execute("SELECT nothing")

    with pytest.raises(driver.Error, match="nothing"):
        read_offline(copy_of.database, damaged)


ticks = iter(range(10**9, 10**10))
