"""No file that the vault makes beside its database, its anchor or its witness is opened through a link or is a pipe."""

import asyncio
import os
import re
import socket
import stat
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import keyvault_lite
from keyvault_lite import app
from keyvault_lite.crypto.root import MasterKey
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.engine.jobs import Jobs
from keyvault_lite.model.errors import KeyVaultError
from keyvault_lite.operator.initialise import initialise_vault
from keyvault_lite.server import serve_witness
from keyvault_lite.settings import Settings
from keyvault_lite.witness.register import FolderLock, Register
from tests.suites.overload.server import Vault
from tests.suites.planted_files.plants import KVL, environment
from tests.support.harness import create_vault, settings_for
from tests.support.witness import VKEY

MADE = ("vault.db.lock", "vault.db.next", "vault.db.init", "vault.db.jobs", "vault.db.reserve", "vault.db.anchor")
WITNESS = ("lock", "log.example")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


def link_to_nothing(place: Path, outside: Path) -> None:
    place.symlink_to(outside / "made")


def link_to_an_empty_file(place: Path, outside: Path) -> None:
    (outside / "empty").touch()
    place.symlink_to(outside / "empty")


def link_to_content(place: Path, outside: Path) -> None:
    (outside / "content").write_bytes(b"precious")
    place.symlink_to(outside / "content")


def pipe(place: Path, _outside: Path) -> None:
    os.mkfifo(place)


def folder(place: Path, _outside: Path) -> None:
    place.mkdir()


def unix_socket(place: Path, _outside: Path) -> None:
    here = Path.cwd()
    os.chdir(place.parent)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(place.name)
    finally:
        os.chdir(here)


PLANTS = [link_to_nothing, link_to_an_empty_file, link_to_content, pipe, folder, unix_socket]
Plant = Callable[[Path, Path], None]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    made = tmp_path / "outside"
    made.mkdir()
    return made


def use(mine: Settings) -> None:
    """All that a server does with the files: it begins or opens the vault, works, and ends."""
    with suppress(*app.CANNOT_START):
        initialise_vault(mine)
    vault = app.open_vault(mine)
    try:
        asyncio.run(Jobs(vault.engine, vault.ledger).round())
    finally:
        vault.close()


def untouched(outside: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in outside.iterdir()}


def test_these_are_the_files(tmp_path: Path) -> None:
    master, _ = create_vault(tmp_path)
    mine = settings_for(tmp_path, master)
    use(mine)
    left = {path.name for path in tmp_path.iterdir() if not path.name.endswith(("-wal", "-shm"))}
    assert left == {"vault.db", *MADE}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("begun", [False, True], ids=["empty", "begun"])
@pytest.mark.parametrize("name", MADE)
def test_what_is_planted_in_place_of_a_file_leads_nowhere(
    tmp_path: Path, outside: Path, name: str, begun: bool, plant: Plant
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    master = create_vault(home)[0] if begun else MasterKey.generate()[1]
    (home / name).unlink(missing_ok=True)
    plant(home / name, outside)
    before = untouched(outside)
    try:
        use(settings_for(home, master))
    except KeyVaultError as refused:
        assert "Traceback" not in str(refused)  # noqa: PT017  (a refusal is one of two right outcomes)
    assert untouched(outside) == before


@pytest.mark.parametrize("target", ["made", "empty"])
def test_a_database_is_not_begun_where_a_link_leads(tmp_path: Path, outside: Path, target: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    if target == "empty":
        (outside / target).touch()
    (home / "vault.db").symlink_to(outside / target)
    with pytest.raises(KeyVaultError, match="symbolic link"):
        initialise_vault(settings_for(home, MasterKey.generate()[1]))
    assert untouched(outside) in ({}, {"empty": b""})


@pytest.mark.parametrize("name", ["vault.db.lock", "vault.db.next", "vault.db.anchor"])
def test_the_refusal_names_the_file_and_what_is_wrong(tmp_path: Path, outside: Path, name: str) -> None:
    master, _ = create_vault(tmp_path)
    (tmp_path / name).unlink()
    link_to_nothing(tmp_path / name, outside)
    with pytest.raises(KeyVaultError, match=rf"{name} .*is a symbolic link"):
        app.open_vault(settings_for(tmp_path, master))


@needs_root
def test_a_lock_file_of_another_user_is_not_used(tmp_path: Path) -> None:
    master, _ = create_vault(tmp_path)
    os.chown(tmp_path / "vault.db.lock", 12345, -1)
    with pytest.raises(KeyVaultError, match="belongs to another user"):
        app.open_vault(settings_for(tmp_path, master))
    # Root works on a vault of the service's user, to whom the folder belongs.
    os.chown(tmp_path, 12345, -1)
    app.open_vault(settings_for(tmp_path, master)).close()


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_pipe_in_place_of_a_file_of_sqlite_holds_no_check_up(tmp_path: Path, suffix: str) -> None:
    vault = Vault.make(tmp_path)
    for one in ("-wal", "-shm"):
        path = tmp_path / f"vault.db{one}"
        path.unlink(missing_ok=True)
        os.mkfifo(path) if one == suffix else path.write_bytes(bytes(64))
    done = subprocess.run(
        [*KVL, "verify"], env=environment(**vault.settings), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode in {0, 1, 2}
    assert "Traceback" not in done.stderr


@pytest.fixture
def witness(tmp_path: Path) -> Path:
    home = tmp_path / "witness"
    serve_witness.make_witness(home, "w.example/1")
    return home


@pytest.mark.parametrize("plant", PLANTS)
def test_the_lock_of_a_witness_leads_nowhere(witness: Path, outside: Path, plant: Plant) -> None:
    plant(witness / "lock", outside)
    before = untouched(outside)
    with pytest.raises((KeyVaultError, OSError)), FolderLock(witness):
        pass
    assert untouched(outside) == before


@pytest.mark.parametrize("plant", PLANTS)
def test_the_records_of_a_witness_lead_nowhere(witness: Path, outside: Path, plant: Plant) -> None:
    key = serve_witness._read_witness_key(witness)
    first = Register(witness, key, [VKEY], verify=verify_ed25519)
    first.close()
    [place] = [record._path for record in first._records.values()]
    place.unlink(missing_ok=True)
    plant(place, outside)
    before = untouched(outside)
    with suppress(KeyVaultError, OSError):
        second = Register(witness, key, [VKEY], verify=verify_ed25519)
        for record in second._records.values():
            record.write("text")
        second.close()
    assert untouched(outside) == before


def test_files_are_opened_in_one_place() -> None:
    """Every other call that makes a file makes a new one, which follows no link."""
    source = Path(keyvault_lite.__file__).parent
    found = {
        f"{path.relative_to(source)}: {line.strip()}"
        for path in source.rglob("*.py")
        for line in path.read_text().splitlines()
        if "O_CREAT" in line and not re.search("O_EXCL|open_own", line)
    }
    assert found == set()
