"""Settings come from a file that is named, and that nobody can write but root and whoever runs the vault."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyvault_lite import settings
from keyvault_lite.settings import InvalidSettings, Purpose
from tests.suites.overload.server import Vault
from tests.suites.planted_files.plants import KVL, environment

VALUE = "999999999999"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    folder = tmp_path / "vault"
    folder.mkdir()
    made = Vault.make(folder)
    yield made
    made.kill()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file that is named and well protected."""
    for name in [name for name in os.environ if name.startswith("KEYVAULT_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "etc" / "vault.toml"
    path.parent.mkdir(mode=0o755)
    path.write_text(f'aws_account_id = "{VALUE}"\nport = 1\n')
    path.chmod(0o644)
    monkeypatch.setenv("KEYVAULT_CONFIG", str(path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return path


def kvl(vault: Vault, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KVL, *arguments],
        cwd=vault.folder,
        env=environment(**{**vault.settings, **more}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "planted",
    ['anchor = "off"', f'aws_account_id = "{VALUE}"\nhost = "0.0.0.0"\nallow_plain_http = true', "not TOML at all"],
)
def test_a_file_in_the_working_directory_sets_nothing(vault: Vault, planted: str) -> None:
    (vault.folder / "keyvault.toml").write_text(f"{planted}\n")
    verified = kvl(vault, "verify")
    assert verified.returncode == 0
    assert "clean" in verified.stdout
    refused = kvl(vault, "serve", "--no-init")
    assert (verified.stderr.count("\n"), refused.stderr.count("\n"), refused.returncode) == (1, 1, 2)
    for told in (verified.stderr, refused.stderr):
        assert f"{vault.folder}/keyvault.toml is not read" in told
        assert "KEYVAULT_CONFIG" in told
        assert planted not in told


def test_a_rollback_stays_found_beside_a_file_that_switches_the_anchor_off(vault: Vault) -> None:
    shutil.copy(vault.folder / "vault.db", vault.folder / "old.db")
    vault.start()
    vault.key()
    assert vault.stop() == 0
    shutil.copy(vault.folder / "old.db", vault.folder / "vault.db")
    assert kvl(vault, "verify").returncode == 1
    (vault.folder / "keyvault.toml").write_text('anchor = "off"\n')
    assert kvl(vault, "verify").returncode == 1


def test_it_is_never_opened(vault: Vault) -> None:
    os.mkfifo(vault.folder / "keyvault.toml")  # opening it would wait for a writer
    assert kvl(vault, "verify").returncode == 0
    (vault.folder / "keyvault.toml").unlink()
    (vault.folder / "keyvault.toml").symlink_to("nowhere")
    assert "is not read" in kvl(vault, "verify").stderr


def test_a_named_file_is_read_and_what_it_sets_is_told_without_values(vault: Vault, file: Path) -> None:
    file.write_text(f'aws_account_id = "{VALUE}"\nport = 1\nwitness_max_age = 60\n')
    given = {"KEYVAULT_CONFIG": str(file), "KEYVAULT_ANCHOR": "off", "KEYVAULT_WITNESS_MAX_AGE": "60"}
    (vault.folder / "keyvault.toml").write_text("port = 2\n")  # no start takes this for its own
    verified = kvl(vault, "verify", **given)
    assert verified.stderr == f"KeyVault Lite: settings from {file}: aws_account_id\n", "the environment has the others"
    option = kvl(vault, "--config", str(file), "verify")
    assert f"settings from {file}: aws_account_id, witness_max_age" in option.stderr
    assert VALUE not in verified.stderr + option.stderr


def test_a_server_tells_it_as_a_line_of_json(vault: Vault, file: Path) -> None:
    file.write_text(f'aws_account_id = "{VALUE}"\nlog_level = "error"\n')
    vault.settings["KEYVAULT_CONFIG"] = str(file)
    vault.settings["KEYVAULT_ANCHR"] = "x"
    vault.start("--no-init")
    vault.stop()
    lines = [json.loads(line) for line in vault.log.splitlines()]
    told = [line["message"] for line in lines]
    assert f"settings from {file}: aws_account_id, log_level" in told
    assert any("KEYVAULT_ANCHR" in one for one in told)
    assert any(one.startswith("listens on http://127.0.0.1:") for one in told)
    assert VALUE not in vault.log


@pytest.mark.parametrize("purpose", Purpose)
def test_it_may_be_protected_in_more_than_one_way(file: Path, purpose: Purpose) -> None:
    assert settings.load(purpose).aws_account_id == VALUE
    file.chmod(0o400)
    assert settings.load(purpose).aws_account_id == VALUE
    link = file.with_name("link.toml")
    link.symlink_to(file)
    os.environ["KEYVAULT_CONFIG"] = "../etc/link.toml"
    assert settings.load(purpose).aws_account_id == VALUE


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o622])
def test_a_file_that_others_can_write_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    refuse("can be changed by other users; run: chmod go-w")


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
@pytest.mark.parametrize("depth", [0, 1])
def test_a_file_that_others_can_replace_is_refused(tmp_path: Path, file: Path, mode: int, depth: int) -> None:
    folder = [file.parent, tmp_path][depth]
    folder.chmod(mode)
    refuse(f"can be replaced by other users; run: chmod go-w {folder}")
    folder.chmod(mode | 0o1000)
    assert settings.load().aws_account_id == VALUE


def test_a_link_is_judged_by_both_its_ends(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    (loose / "link.toml").symlink_to(file)
    monkeypatch.setenv("KEYVAULT_CONFIG", str(loose / "link.toml"))
    refuse("can be replaced by other users")
    (loose / "real.toml").write_text("port = 1\n")
    link = tmp_path / "etc" / "link.toml"
    link.symlink_to(loose / "real.toml")
    monkeypatch.setenv("KEYVAULT_CONFIG", str(link))
    refuse("can be replaced by other users")


@needs_root
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_file_or_folder_of_somebody_else_is_refused(tmp_path: Path, file: Path, depth: int) -> None:
    os.chown([file, file.parent, tmp_path][depth], 12345, -1)
    refuse("belong to root or to the user of this process")


def test_a_file_in_the_folder_of_database_or_anchor_is_refused(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(file.parent)
    for chosen in (
        {"database_url": f"sqlite:///{file.parent}/vault.db"},
        {"database_url": f"sqlite:///{tmp_path}/vault.db"},
        {"database_url": f"sqlite:///{tmp_path}/link/vault.db"},
        {"database_url": "sqlite:////elsewhere/vault.db", "anchor": str(file.parent / "vault.anchor")},
    ):
        refuse("is in the folder of the database or the anchor", **chosen)
    monkeypatch.setenv("KEYVAULT_CONFIG", str(tmp_path / "link" / file.name))
    refuse("is in the folder of the database", database_url=f"sqlite:///{file.parent}/vault.db")
    file.write_text(f'database_url = "sqlite:///{file.parent}/vault.db"\n')
    refuse("is in the folder of the database")


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "large", "missing", "loop"])
def test_what_is_not_a_file_is_refused_at_once(file: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file.unlink()
    match kind:
        case "fifo":
            os.mkfifo(file)
        case "socket":
            import socket

            monkeypatch.chdir(file.parent)
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(file.name)
        case "device":
            monkeypatch.setenv("KEYVAULT_CONFIG", "/dev/zero")
        case "large":
            file.write_bytes(b"#" * 100_000)
        case "loop":
            file.symlink_to(file)
        case _:
            assert kind == "missing"
    refuse("settings file .* (cannot be read|is not a regular file|is larger)")


def refuse(pattern: str, **given: str) -> None:
    with pytest.raises(InvalidSettings, match=pattern) as refused:
        settings.load(**given)
    assert VALUE not in str(refused.value)
