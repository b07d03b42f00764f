"""What is measured: servers, each a process of its own, and the rows of requests that are put to them.

Another server (OpenBao, a naive stack) is one more class with `start`, and its rows in `ROWS`; nothing else changes.
"""

import base64
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tools.postgres_server import Server as PostgresServer

ROOT: Final = Path(__file__).resolve().parents[1]
PLAINTEXT: Final = base64.b64encode(bytes(range(64))).decode()
CONTEXT: Final = {"tenant": "acme"}
BATCH: Final = 100
TRANSIT_KEY: Final = "bench"
SAME_TOKEN: Final = "same.token"  # noqa: S105  (the name of a file)
_STOP: Final = 10.0


def http_request(path: str, body: object, *, token: str | None = None) -> str:
    """A POST as it goes over the wire."""
    text = json.dumps(body, separators=(",", ":"))
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "User-Agent: kvl-bench",
        "Content-Type: application/json",
        f"Content-Length: {len(text)}",
    ]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", text])


class Server:
    """A server process on a free port of the loopback interface."""

    patience = 30.0
    """Seconds it may take to start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def pid(self) -> int:
        """The process whose family is the server."""
        if self._process is None:
            raise RuntimeError("it is not started")
        return self._process.pid

    def start(self) -> Self:
        """Start it, and make what its rows need. Returns once it answers."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def call(self, path: str, body: object, token: str) -> dict[str, Any]:
        """One request outside the measurement."""
        request = Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
        )
        try:
            with urlopen(request, timeout=self.patience) as answer:  # noqa: S310
                text = answer.read()
        except HTTPError as error:
            raise RuntimeError(f"{path}: {error.code} {error.read(500).decode()}") from None
        found: dict[str, Any] = json.loads(text) if text else {}
        return found

    def _spawn(self, *arguments: str, settings: Mapping[str, str] | None = None, program: str = sys.executable) -> None:
        log = self.folder / f"{type(self).__name__}.log"
        with log.open("wb") as stream:
            self._process = subprocess.Popen(  # noqa: S603  (our own modules, and the programs of the dev extra)
                [program, *arguments],
                cwd=ROOT,
                env=_environment(settings or {}),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        until = time.monotonic() + self.patience
        while self._process.poll() is None and time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')[-500:]}")


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYVAULT_")}
    path = os.pathsep.join(filter(None, (str(ROOT / "src"), kept.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, **settings}


class Floor(Server):
    """A raw ASGI echo behind the same uvicorn."""

    kind = "echo"

    def start(self) -> Self:
        """Nothing to prepare."""
        self._spawn("-m", "benchmarks.floor", str(self.port), self.kind)
        return self


class Ceiling(Floor):
    """Fixed bytes from a bare protocol: shows what the client can do."""

    kind = "canned"


class Vault(Server):
    """The product as `kvl serve` runs it, on a new vault: durable audit, one worker, a SERVICE as caller."""

    workers = 1
    module = "keyvault_lite"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        home = folder / type(self).__name__
        home.mkdir()
        key = home / "master.key"
        key.touch(0o600)
        key.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
        self._settings = {
            "KEYVAULT_MASTER_KEY_FILE": str(key),
            "KEYVAULT_DATABASE_URL": f"sqlite:///{home / 'keyvault.db'}",
        }
        self.token = ""
        self.admin = ""

    def start(self) -> Self:
        """Initialise, serve, and make two keys and a caller who may use them."""
        made = subprocess.run(
            [sys.executable, "-P", "-m", "keyvault_lite", "init", "-o", "json"],
            cwd=ROOT,
            env=_environment(self._settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if made.returncode:
            raise RuntimeError(f"kvl init failed: {made.stderr.decode(errors='replace')[-500:]}")
        self.admin = json.loads(made.stdout)["token"]
        self._spawn(
            *("-m", self.module, "serve", "--host", "127.0.0.1"),
            *("--port", str(self.port), "--workers", str(self.workers)),
            settings=self._settings,
        )
        self.call("/keys", {"name": "bench-aes", "type": "AES", "purpose": "ENCRYPT"}, self.admin)
        self.call("/keys", {"name": "bench-ed25519", "type": "ED25519", "purpose": "SIGN"}, self.admin)
        grants = [{"key": "bench-*", "actions": ["encrypt", "decrypt", "sign", "verify"]}]
        service = {"name": "bench", "role": "SERVICE", "grants": grants}
        self.token = self.call("/services", service, self.admin)["token"]
        return self


class Postgres(Vault):
    """The same on a PostgreSQL of its own beside it, on the same disk, as it comes."""

    def start(self) -> Self:
        """Start the database first. Its driver is of the extra `postgres`."""
        self._database = PostgresServer(on_disk=True)
        self._database.start()
        self._settings["KEYVAULT_DATABASE_URL"] = self._database.url
        self._settings["KEYVAULT_ANCHOR"] = str(self.folder / "postgres.anchor")
        return super().start()

    def stop(self) -> None:
        """End the vault, then its database."""
        super().stop()
        self._database.remove()


class Transit(Vault):
    """The product through its Vault dialect, a SERVICE as caller."""

    def start(self) -> Self:
        """As Vault, with a key of that dialect. Its token is left for who shall send the very same requests."""
        super().start()
        self.call(f"/v1/transit/keys/{TRANSIT_KEY}", {}, self.admin)
        grants = [{"key": f"vault:transit/{TRANSIT_KEY}", "actions": ["encrypt", "decrypt"]}]
        service = {"name": "transit", "role": "SERVICE", "grants": grants}
        self.token = self.call("/services", service, self.admin)["token"]
        (self.folder / SAME_TOKEN).write_text(self.token)
        return self


class OpenBao(Server):
    """OpenBao as it comes, in memory, with its file audit device. Its root token has the text of our SERVICE's token.

    So both servers get the same bytes. Everything is in its favour: no storage, no policy to judge, no fsync.
    """

    audited = True

    def start(self) -> Self:
        """Start it with its audit log, mount transit, and make the key."""
        token = (self.folder / SAME_TOKEN).read_text()
        home = self.folder / type(self).__name__
        home.mkdir()
        configuration = home / "audit.hcl"
        device = f'audit "file" "file" {{\n  options {{\n    file_path = "{home / "audit.log"}"\n  }}\n}}\n'
        configuration.write_text(device if self.audited else "")
        self._spawn(
            *("server", "-dev", "-dev-no-store-token", f"-dev-root-token-id={token}"),
            *(f"-dev-listen-address=127.0.0.1:{self.port}", f"-config={configuration}"),
            settings={"HOME": str(home)},
            program=str(Path(sys.executable).with_name("bao")),
        )
        time.sleep(1)  # it listens before it is unsealed
        self.call("/v1/sys/mounts/transit", {"type": "transit"}, token)
        self.call(f"/v1/transit/keys/{TRANSIT_KEY}", {}, token)
        if self.audited and not (home / "audit.log").stat().st_size:
            raise RuntimeError("OpenBao keeps no audit log: the comparison would not be one")
        self.token = token
        return self


class OpenBaoUnaudited(OpenBao):
    """The same without any audit device."""

    audited = False


class Naive(Server):
    """The usual way: an ORM session and a commit a request."""

    token = "naive-" + "x" * 58

    def start(self) -> Self:
        """On a database of its own."""
        home = self.folder / "naive"
        home.mkdir()
        self._spawn("-m", "benchmarks.naive", str(self.port), str(home), self.token)
        return self


class Unrecorded(Vault):
    """The same without its ledger: shows what the record costs. It is no way to run the product."""

    module = "benchmarks.unrecorded"


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of request to one kind of server."""

    name: str
    title: str
    server: type[Server]
    request: Callable[[Any], str]
    """From the running server to the bytes that are sent."""
    items: int = 1
    """How many operations one request is."""


def _echo(_: Floor) -> str:
    return http_request("/keys/bench-aes/encrypt", _ENCRYPT, token="kvl_" + "x" * 60)


def _encrypt(vault: Vault | Naive) -> str:
    return http_request("/keys/bench-aes/encrypt", _ENCRYPT, token=vault.token)


def _decrypt(vault: Vault) -> str:
    sealed = vault.call("/keys/bench-aes/encrypt", _ENCRYPT, vault.token)
    body = {name: sealed[name] for name in ("ciphertext", "encrypted_dek")}
    return http_request("/keys/bench-aes/decrypt", body | {"encoding": "base64", "context": CONTEXT}, token=vault.token)


def _sign(vault: Vault) -> str:
    return http_request("/keys/bench-ed25519/sign", {"message": PLAINTEXT, "encoding": "base64"}, token=vault.token)


def _batch(vault: Vault) -> str:
    return http_request("/keys/bench-aes/batch/encrypt", {"items": [_ENCRYPT] * BATCH}, token=vault.token)


def _transit_encrypt(server: Transit | OpenBao) -> str:
    return http_request(f"/v1/transit/encrypt/{TRANSIT_KEY}", {"plaintext": PLAINTEXT}, token=server.token)


def _transit_decrypt(server: Transit | OpenBao) -> str:
    sealed = server.call(f"/v1/transit/encrypt/{TRANSIT_KEY}", {"plaintext": PLAINTEXT}, server.token)
    body = {"ciphertext": sealed["data"]["ciphertext"]}
    return http_request(f"/v1/transit/decrypt/{TRANSIT_KEY}", body, token=server.token)


_ENCRYPT: Final = {"plaintext": PLAINTEXT, "encoding": "base64", "context": CONTEXT}
FLOOR: Final = Row("floor", "floor: raw ASGI echo", Floor, _echo)
ROWS: Final[Sequence[Row]] = (
    Row("ceiling", "(client's ceiling: canned bytes)", Ceiling, _echo),
    FLOOR,
    Row("encrypt", "encrypt", Vault, _encrypt),
    Row("decrypt", "decrypt", Vault, _decrypt),
    Row("sign", "sign, Ed25519", Vault, _sign),
    Row("batch", f"encrypt, batch of {BATCH}", Vault, _batch, items=BATCH),
    Row("postgres", "encrypt, on PostgreSQL", Postgres, _encrypt),
    Row("transit", "transit encrypt (Vault dialect)", Transit, _transit_encrypt),
    Row("openbao", "the same at OpenBao, file audit", OpenBao, _transit_encrypt),
    Row("transit-decrypt", "transit decrypt (Vault dialect)", Transit, _transit_decrypt),
    Row("openbao-decrypt", "the same at OpenBao, file audit", OpenBao, _transit_decrypt),
    Row("openbao-unaudited", "transit encrypt at OpenBao, no audit", OpenBaoUnaudited, _transit_encrypt),
    Row("naive", "encrypt, the usual stack (ORM, a commit each)", Naive, _encrypt),
    Row("unrecorded", "(encrypt without any record)", Unrecorded, _encrypt),
)
