"""`kvl serve` as a process of its own, and a client that keeps its connections."""

import base64
import contextlib
import http.client
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from keyvault_lite import app
from keyvault_lite.operator.initialise import initialise_vault
from keyvault_lite.settings import Settings
from tests.support.paths import ROOT, SOURCE

KVL = ROOT / "tests" / "support" / "kvl.py"
START = 60
_LISTENS = re.compile(r"listens on http://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401
        return json.loads(self.body)


class Client:
    """One caller on one connection, which is made anew when the server has closed it."""

    def __init__(self, port: int, token: str | None) -> None:
        self._token = token
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self, method: str, path: str, body: object = None) -> Reply:
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        data = None if body is None else json.dumps(body)
        if data is not None:
            headers["Content-Type"] = "application/json"
        self._connection.request(method, path, data, headers)
        reply = self._connection.getresponse()
        named = {name.lower(): value for name, value in reply.getheaders()}
        return Reply(reply.status, named, reply.read())

    def encrypt(self) -> Reply:
        return self.ask("POST", "/keys/orders/encrypt", {"plaintext": "aGk="})

    def close(self) -> None:
        self._connection.close()

    __del__ = close


@dataclass
class Vault:
    """A vault in a folder, and the server that it is given."""

    folder: Path
    admin: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def make(cls, folder: Path) -> Self:
        key = folder / "master.key"
        key.touch(0o600)
        key.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
        vault = cls(folder)
        vault.settings = {
            "KEYVAULT_MASTER_KEY_FILE": str(key),
            "KEYVAULT_DATABASE_URL": f"sqlite:///{folder / 'vault.db'}",
            "KEYVAULT_PORT": "0",
        }
        vault.admin = initialise_vault(vault.chosen).token
        return vault

    @property
    def chosen(self) -> Settings:
        return Settings(
            master_key_file=str(self.folder / "master.key"), database_url=f"sqlite:///{self.folder / 'vault.db'}"
        )

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYVAULT_")}
        return {**kept, "PYTHONPATH": str(SOURCE), **self.settings}

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    @property
    def port(self) -> int:
        found = _LISTENS.search(self.log)
        assert found is not None, self.log
        return int(found[1])

    def command(self, *options: str) -> list[str]:
        return [sys.executable, str(KVL), "serve", *options]

    def start(self, *options: str, files: Sequence[int] = ()) -> None:
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                self.command(*options),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=files,
            )
        wait_until(lambda: self._ended() or _LISTENS.search(self.log) is not None, START)
        assert self.process.poll() is None, self.log
        wait_until(lambda: self._ended() or answers(self.port), START)
        assert self.process.poll() is None, self.log

    def _ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def client(self, token: str | None = "") -> Client:
        return Client(self.port, self.admin if token == "" else token)

    def key(self, name: str = "orders", **kind: object) -> None:
        made = self.client().ask("POST", "/keys", {"name": name, "type": "AES", "purpose": "ENCRYPT", **kind})
        assert made.status == 201, made.body

    def workers(self) -> list[int]:
        """The pids of the workers, oldest first."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, within: float = 30) -> int:
        """Ask it to end; its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(within)

    def entries(self) -> int:
        """How many entries the log has, once it was found whole: one chain, no gap."""
        opened = app.open_vault(self.chosen)
        try:
            found = opened.ledger.verify()
            assert found.valid, found
            return found.entries
        finally:
            opened.close()

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(OSError):
                for pid in self.workers():
                    os.kill(pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()


def wait_until(true: Callable[[], object], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.02)


def answers(port: int) -> bool:
    try:
        return Client(port, None).ask("GET", "/health").status == 200
    except OSError:
        return False


def gone(pid: int) -> bool:
    """Whether a process has ended. Nobody may wait for the children of one that was killed: they stay as zombies."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class Load:
    """Callers that encrypt one after the other until they are stopped or the server closes."""

    def __init__(self, vault: Vault, callers: int, token: str = "") -> None:
        self.recorded: list[int] = []
        """The entries of what was answered with 200."""
        self.others: list[Reply] = []
        self.seconds: list[float] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(vault.client(token),)) for _ in range(callers)]

    def __enter__(self) -> Self:
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for one in self._threads:
            one.join(30)

    def _call(self, client: Client) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            while not self._stop.is_set():
                began = time.perf_counter()
                reply = client.encrypt()
                self.seconds.append(time.perf_counter() - began)
                if reply.status == 200:
                    self.recorded.append(int(reply.headers["audit-id"]))
                else:
                    self.others.append(reply)
        client.close()


@contextlib.contextmanager
def raw(port: int, *parts: bytes) -> Iterator[socket.socket]:
    """A bare connection on which something was sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        yield connection


def everything(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    answer = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(65536):
            answer += data
    return answer
