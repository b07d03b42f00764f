"""`kvl` as processes of their own, on a vault whose roots of trust are named by KEYVAULT_ROOT."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.support.devices import free_port
from tests.support.paths import ROOT, SOURCE

KVL = ROOT / "tests" / "support" / "kvl.py"
SECONDS = 60.0


@dataclass
class Place:
    """A folder with a vault, and the roots that its commands are given."""

    folder: Path
    root: str
    port: int = field(default_factory=free_port)
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("KEYVAULT_")}
        return kept | {
            "PYTHONPATH": os.pathsep.join((str(SOURCE), str(ROOT))),
            "KEYVAULT_DATABASE_URL": f"sqlite:///{self.folder}/vault.db",
            "KEYVAULT_PORT": str(self.port),
            "KEYVAULT_ADDR": f"http://127.0.0.1:{self.port}",
            **({"KEYVAULT_ROOT": self.root} if self.root else {}),
            **self.extra,
        }

    def kvl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(KVL), *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )

    def init(self, *arguments: str) -> str:
        """Make the vault; the token of its ADMIN."""
        made = self.kvl("init", "-o", "json", *arguments)
        assert made.returncode == 0, made.stderr
        return str(json.loads(made.stdout)["token"])

    def shares(self, folder: str = "shares") -> list[str]:
        return [one.read_text().strip() for one in sorted((self.folder / folder).iterdir())]

    def serve(self, *arguments: str) -> "Server":
        return Server(self, arguments)


class Server:
    """One `kvl serve`, ended at the end of its block."""

    def __init__(self, place: Place, arguments: tuple[str, ...]) -> None:
        self._place = place
        self._log = place.folder / "server.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(KVL), "serve", *arguments],
                env=place.environment,
                cwd=place.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)

    def workers(self) -> list[int]:
        """The pids of the workers, oldest first."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(one) for one in children if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]

    @property
    def log(self) -> str:
        return self._log.read_text()

    def ask(
        self, method: str, path: str, body: object = None, token: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._place.port, timeout=SECONDS)
        try:
            if token is not None:
                headers["Authorization"] = f"Bearer {token}"
            if body is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            reply = connection.getresponse()
            read = reply.read()
            return reply.status, json.loads(read) if read else None
        finally:
            connection.close()

    def unseal(self, **body: object) -> tuple[int, Any]:
        return self.ask("POST", "/unseal", body)

    def status(self) -> Any:  # noqa: ANN401
        return self.ask("GET", "/seal-status")[1]

    def wait(self, until: Callable[[Any], object], message: str = "") -> Any:  # noqa: ANN401
        """The seal status once it is as wanted."""
        late = time.monotonic() + SECONDS
        while time.monotonic() < late:
            assert self.process.poll() is None, self.log
            try:
                found = self.status()
            except (OSError, http.client.HTTPException):
                found = None
            if found is not None and until(found):
                return found
            time.sleep(0.05)
        raise AssertionError(f"{message}\n{self.log}")

    def wait_sealed(self) -> Any:  # noqa: ANN401
        return self.wait(lambda found: found["sealed"], "it is not sealed")

    def wait_open(self) -> Any:  # noqa: ANN401
        """Once the vault itself answers: the sealed server says so too, before it ends."""
        self.wait(lambda found: not found["sealed"], "it is not open")
        late = time.monotonic() + SECONDS
        while time.monotonic() < late:
            try:
                if self.ask("GET", "/health")[0] == 200:
                    return self.status()
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.05)
        raise AssertionError(self.log)
