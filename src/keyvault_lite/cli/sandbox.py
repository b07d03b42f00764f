"""A vault for a demonstration: in a temporary folder, served by a real server process, gone afterwards."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import keyvault_lite
from keyvault_lite.cli.failure import CannotRun
from keyvault_lite.client.api import Client, Json
from keyvault_lite.client.connection import Connection
from keyvault_lite.client.errors import ClientError

START: Final = 30.0
"""Seconds a server may take to answer."""
STOP: Final = 10.0
"""Seconds it may take to end after it was asked to."""
POLL: Final = 0.05


@dataclass(frozen=True, slots=True)
class VaultFiles:
    """What a vault is made of on disk: a folder of its own."""

    folder: Path

    @property
    def database(self) -> Path:
        """The SQLite file; its write-ahead log and its anchor are beside it."""
        return self.folder / "keyvault.db"

    def replace(self, old: bytes, new: bytes) -> bool:
        """Overwrite every occurrence of `old` on disk, as an attacker with the files would. Whether there was one."""
        found = False
        for path in (self.database, self.database.with_name(f"{self.database.name}-wal")):
            content = path.read_bytes() if path.exists() else b""
            if old in content:
                found = True
                path.write_bytes(content.replace(old, new))
        return found


class Sandbox:
    """Owns the folder and the server; both are gone when the block ends, however it ends."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="kvl-quickstart-")
        self.folder = Path(self._temporary.name)
        self.vault = VaultFiles(self.folder / "vault")
        self.vault.folder.mkdir()
        self.address = ""
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self._temporary.cleanup()

    def initialise(self) -> str:
        """Make the master key and the vault. Returns the first ADMIN's token."""
        self._kvl("master-key", "generate", "--out", str(self.folder / "master.key"))
        made: Json = json.loads(self._kvl("init", "-o", "json").stdout)
        return str(made["token"])

    def serve(self) -> float:
        """Start the server. Returns the seconds until it answered. Raises CannotRun if it does not."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        log = self.folder / "server.log"
        started = time.monotonic()
        with log.open("wb") as stream:
            self._server = subprocess.Popen(  # noqa: S603  (our own interpreter and module)
                [sys.executable, "-P", "-m", "keyvault_lite", "serve", "--host", "127.0.0.1", "--port", str(port)],
                env=self._environment(self.vault),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        while self._server.poll() is None and time.monotonic() - started < START:
            if self._answers():
                return time.monotonic() - started
            time.sleep(POLL)
        last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise CannotRun(f"the demo server did not start: {last[0]}")

    def stop(self) -> None:
        """End the server, in peace if it can."""
        server, self._server = self._server, None
        if server is None:
            return
        server.terminate()
        try:
            server.wait(STOP)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    def copy(self) -> VaultFiles:
        """Copy the vault's files, as a backup or a thief would."""
        copied = VaultFiles(self.folder / "copy")
        shutil.copytree(self.vault.folder, copied.folder)
        return copied

    def verify(self, vault: VaultFiles) -> tuple[int, Json]:
        """`kvl verify -o json` on a vault: its exit code and its report. Raises CannotRun without a report."""
        done = self._kvl("verify", "-o", "json", vault=vault, accept=(0, 1))
        report: Json = json.loads(done.stdout)
        return done.returncode, report

    def openssl_verify(self, name: str, public_key: str, signature: bytes) -> str | None:
        """What `openssl dgst` says of a SHA-256 signature over a file in the folder; None if there is no openssl."""
        openssl = shutil.which("openssl")
        if openssl is None:
            return None
        (self.folder / "public.pem").write_text(public_key)
        (self.folder / "signature").write_bytes(signature)
        done = subprocess.run(  # noqa: S603  (a fixed command on files we made)
            [openssl, "dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", name],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return (done.stdout.strip() or done.stderr.strip() or "nothing").splitlines()[0]

    def _answers(self) -> bool:
        try:
            with Client(Connection(self.address), anonymous=True) as client:
                return client.health().get("status") == "ok"
        except ClientError:
            return False

    def _kvl(
        self, *arguments: str, vault: VaultFiles | None = None, accept: tuple[int, ...] = (0,)
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(  # noqa: S603  (our own interpreter and module)
            [sys.executable, "-P", "-m", "keyvault_lite", *arguments],
            env=self._environment(vault or self.vault),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in accept:
            raise CannotRun(f"kvl {arguments[0]} failed in the demo: {done.stderr.strip()[-500:]}")
        return done

    def _environment(self, vault: VaultFiles) -> dict[str, str]:
        """The caller's environment with none of its vault's settings, and this package first to be found."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYVAULT_")}
        here = str(Path(keyvault_lite.__file__).resolve().parents[1])
        return kept | {
            "PYTHONPATH": os.pathsep.join(filter(None, (here, kept.get("PYTHONPATH")))),
            "KEYVAULT_MASTER_KEY_FILE": str(self.folder / "master.key"),
            "KEYVAULT_DATABASE_URL": f"sqlite:///{vault.database}",
        }
