"""`kvl witness`: what is wrong is one sentence, said before anything is made or served."""

import errno
import os
import socket
from pathlib import Path

import pytest

from tests.support.witness import VKEY
from tests.unit.cli.conftest import Kvl


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_name_that_cannot_be_signed_under_leaves_nothing(kvl: Kvl, folder: Path) -> None:
    ran = kvl("witness", "init", "--dir", "w", "--name", "bad name")
    assert (ran.code, "the name of a witness is" in ran.err) == (2, True)
    assert list(folder.iterdir()) == []
    assert kvl("witness", "init", "--dir", "w", "--name", "good.example/1").code == 0
    assert kvl("witness", "init", "--dir", "w").code == 2


@pytest.mark.parametrize(
    "command", [("witness", "init", "--dir", "."), ("master-key", "generate", "--out", "key")], ids=" ".join
)
def test_a_key_is_written_whole_or_not_at_all(
    kvl: Kvl, folder: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    ran = kvl(*command)
    assert (ran.code, "No space left" in ran.err) == (2, True)
    assert list(folder.iterdir()) == []


def test_a_file_that_names_no_log_is_refused(kvl: Kvl, folder: Path) -> None:
    (folder / "logs").write_text("# none yet\n\n")
    ran = kvl("witness", "serve", "--logs", "logs")
    assert (ran.code, ran.err) == (2, "kvl: logs names no log: a witness would trust none\n")
    assert not (folder / "witness").exists()


def test_a_log_s_key_that_is_none_is_named_by_its_place(kvl: Kvl, folder: Path) -> None:
    (folder / "logs").write_text(f"# ours\n{VKEY}\njunk # theirs\n")
    ran = kvl("witness", "serve", "--logs", "logs")
    assert (ran.code, ran.err) == (2, "kvl: logs:3: not a verifier key\n")
    ran = kvl("witness", "serve", "--log", VKEY.replace("+", "+0", 1)[:-1])
    assert (ran.code, ran.err.startswith("kvl: --log: ")) == (2, True)
    assert not (folder / "witness").exists()


def test_a_port_that_is_taken_is_said_before_anything_else(kvl: Kvl, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = kvl("witness", "serve", "--log", VKEY, "--port", str(port))
    assert ran.code == 2
    assert ran.err.startswith(f"kvl: Cannot listen on 127.0.0.1, port {port}: Address already in use; another server")
    assert not (folder / "witness").exists()
