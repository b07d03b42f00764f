"""No process of the vault imports a module from the folder where it stands."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyvault_lite import settings
from keyvault_lite.settings import InvalidSettings
from tests.suites.overload.server import Vault, wait_until
from tests.suites.planted_files.plants import KVL, Modules, environment, user_site
from tests.support.paths import SOURCE

WORKERS = 2


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    folder = tmp_path / "vault"
    folder.mkdir()
    made = Vault.make(folder)
    yield made
    made.kill()


def test_workers_and_their_helpers_import_nothing_from_the_working_directory(vault: Vault, tmp_path: Path) -> None:
    planted = Modules(vault.folder, tmp_path / "trace")
    vault.start("--no-init", "--workers", str(WORKERS))
    wait_until(lambda: vault.log.count("requests are answered") == WORKERS, 30)
    vault.key()
    assert vault.client().encrypt().status == 200
    for pid in children(vault):
        # Whatever is imported later is not taken from there either.
        assert b"PYTHONSAFEPATH=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert vault.stop() == 0
    assert planted.imported() == []


def children(vault: Vault) -> list[str]:
    """The workers, and the process that keeps account of what they share."""
    assert vault.process is not None
    found = Path(f"/proc/{vault.process.pid}/task/{vault.process.pid}/children").read_text().split()
    assert len(found) > WORKERS
    return found


def test_the_demonstration_imports_nothing_from_the_working_directory(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    planted = Modules(here, tmp_path / "trace")
    done = subprocess.run(
        [*KVL, "quickstart", "--help"], cwd=here, env=environment(), capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert planted.imported() == []


@pytest.mark.parametrize("command", [("verify",), ("serve", "--no-init"), ("anchor", "show")], ids=" ".join)
@pytest.mark.parametrize("road", ["-m", "PYTHONPATH"])
def test_a_start_that_imports_from_the_folder_of_the_database_is_refused(
    vault: Vault, command: tuple[str, ...], road: str
) -> None:
    """An empty element of PYTHONPATH is the working directory, and so is what `python -m` looks in first."""
    path = str(SOURCE) if road == "-m" else f":{SOURCE}"
    python = [sys.executable, "-m"] if road == "-m" else [sys.executable, "-P", "-m"]
    done = subprocess.run(
        [*python, "keyvault_lite", *command],
        cwd=vault.folder,
        env=environment(**vault.settings, PYTHONPATH=path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stdout
    assert "Python imports modules from" in done.stderr
    assert str(vault.folder) in done.stderr


def test_the_anchors_folder_is_judged_as_the_databases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "anchor").mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "anchor")])
    chosen = {"database_url": f"sqlite:///{tmp_path}/data/vault.db", "anchor": f"{tmp_path}/anchor/vault.anchor"}
    with pytest.raises(InvalidSettings, match="imports modules from"):
        settings.load(**chosen)
    assert settings.load(**{**chosen, "anchor": "off"}).anchor == "off"


def test_packages_in_a_home_that_is_the_databases_folder_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a user whose HOME is the folder of the database, as in installations of 0.1.0."""
    user_site(tmp_path, "")
    [site] = (tmp_path / ".local" / "lib").glob("*/site-packages")
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    monkeypatch.setattr("site.USER_SITE", str(site))
    with pytest.raises(InvalidSettings, match="imports modules from"):
        settings.load(database_url=f"sqlite:///{tmp_path}/vault.db")


def test_a_virtual_environment_below_the_folder_of_the_database_is_mentioned(
    vault: Vault, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    below = vault.folder / ".venv" / "site-packages"
    below.mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [*sys.path, str(below)])
    settings.load(database_url=f"sqlite:///{vault.folder}/vault.db")
    assert "code is imported from" in capsys.readouterr().err


def test_the_start_for_development_says_what_it_imports(vault: Vault) -> None:
    root = Path(__file__).parents[3]
    (vault.folder / "main.py").write_bytes((root / "main.py").read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", "import main"],
        cwd=vault.folder,
        env=environment(**vault.settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Python imports modules from" in done.stderr
    assert os.fspath(vault.folder) in done.stderr
