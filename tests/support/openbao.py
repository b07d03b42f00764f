"""OpenBao's own server in its development mode, on loopback: the oracle of the Vault dialect."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.conftest import free_port

TOKEN = "root"


@dataclass(frozen=True)
class OpenBao:
    """Where it listens."""

    url: str
    token: str = TOKEN


def tool(name: str) -> str:
    """A program that a test-only package of this environment brings, or one of the system's."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without what would lead a client elsewhere."""
    unwanted = ("KEYVAULT_", "VAULT_", "BAO_", "SOPS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)} | more


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("nothing listens")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(30)


@contextmanager
def running(home: Path) -> Iterator[OpenBao]:
    """A development server: unsealed, in memory, with a known token."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    process = subprocess.Popen(
        [tool("bao"), "server", "-dev", f"-dev-root-token-id={TOKEN}", f"-dev-listen-address={address}"],
        env=clean_environment(HOME=str(home)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port, process)
        time.sleep(1)  # it listens before it is unsealed
        yield OpenBao(f"http://{address}")
    finally:
        stop(process)
