"""A vault that is served as in production: `kvl serve` in a process of its own, on a free port, on files of its own."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import SOURCE


@dataclass(frozen=True)
class Answered:
    status: int
    body: Any
    headers: dict[str, str]


@dataclass(frozen=True)
class Served:
    """A running server, and how to ask its native API."""

    url: str
    admin: str
    """The token of its first ADMIN."""
    folder: Path
    environment: dict[str, str] = field(repr=False)

    def ask(self, method: str, path: str, body: object = None, *, token: str | None = None) -> Answered:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {token or self.admin}", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return Answered(reply.status, json.load(reply), {k.lower(): v for k, v in reply.headers.items()})
        except urllib.error.HTTPError as error:
            return Answered(error.code, json.load(error), {k.lower(): v for k, v in error.headers.items()})

    def service(self, name: str, role: str = "SERVICE", grants: list[dict[str, Any]] | None = None) -> str:
        """A new service; its token."""
        made = self.ask("POST", "/services", {"name": name, "role": role, "grants": grants or []})
        assert made.status == 201, made
        token: str = made.body["token"]
        return token

    def kvl(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a command as its own process, as the first ADMIN."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "keyvault_lite", *arguments],
            cwd=self.folder,
            env={**self.environment, "KEYVAULT_ADDR": self.url, "KEYVAULT_TOKEN": self.admin, **settings},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def log(self, query: str = "") -> list[dict[str, Any]]:
        """The newest entries of the audit log."""
        items: list[dict[str, Any]] = self.ask("GET", f"/audit?{query}").body["items"]
        return items


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment_of(database: str) -> dict[str, str]:
    """The environment of a vault whose files are in the working directory."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("KEYVAULT_", "AWS_"))} | {
        "PYTHONPATH": str(SOURCE),
        "COLUMNS": "300",
        "KEYVAULT_MASTER_KEY_FILE": "master.key",
        "KEYVAULT_DATABASE_URL": f"sqlite:///{database}",
    }


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    environment = environment_of("vault.db")
    command = [sys.executable, "-P", "-m", "keyvault_lite"]

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*command, *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    run("master-key", "generate", "--out", "master.key")
    made = json.loads(run("init", "-o", "json"))
    with serving(folder, environment, made["token"]) as running:
        yield running


@contextmanager
def serving(folder: Path, environment: dict[str, str], admin: str) -> Iterator[Served]:
    """Run `kvl serve` in a folder for as long as the context lasts; `admin` is a token of its first ADMIN."""
    port = free_port()
    with (folder / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-P", "-m", "keyvault_lite", "serve", "--port", str(port)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _wait(server, port, folder / "serve.log")
        yield Served(f"http://127.0.0.1:{port}", admin, folder, environment)
    finally:
        server.terminate()
        server.wait(30)


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    server.kill()
    raise AssertionError(log.read_text())
