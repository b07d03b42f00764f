"""A software TPM and a software token, as their packages install them; tests that need one are skipped without."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SOFTHSM = next(
    (
        path
        for path in map(Path, ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so"))
        if path.exists()
    ),
    None,
)
needs_tpm = pytest.mark.skipif(shutil.which("swtpm") is None, reason="the package swtpm is not installed")
needs_tpm_tools = pytest.mark.skipif(
    shutil.which("swtpm") is None or shutil.which("tpm2_pcrextend") is None,
    reason="the packages swtpm and tpm2-tools are not installed",
)
needs_token = pytest.mark.skipif(
    SOFTHSM is None or shutil.which("softhsm2-util") is None, reason="the package softhsm2 is not installed"
)


@dataclass
class SoftwareTpm:
    """A chip whose state is a folder. Each start is a boot."""

    folder: Path

    @property
    def device(self) -> str:
        return f"swtpm:{self._socket}"

    @property
    def _socket(self) -> Path:
        return self.folder / "sock"

    @contextmanager
    def running(self) -> Iterator[str]:
        """Boot it; its device."""
        self.folder.mkdir(exist_ok=True)
        process = subprocess.Popen(
            [
                *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.folder}"),
                *("--server", f"type=unixio,path={self._socket}", "--ctrl", f"type=unixio,path={self._socket}.ctrl"),
                *("--flags", "not-need-init,startup-clear"),
            ]
        )
        try:
            self._wait(process)
            yield self.device
        finally:
            process.terminate()
            process.wait(20)
            for path in (self._socket, Path(f"{self._socket}.ctrl")):
                path.unlink(missing_ok=True)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        late = time.monotonic() + 20
        while time.monotonic() < late and process.poll() is None:
            if Path(f"{self._socket}.ctrl").exists() and self._socket.exists():
                return
            time.sleep(0.01)
        raise AssertionError("swtpm does not start")

    def tool(self, *command: str) -> str:
        """Run one of tpm2-tools on it."""
        done = subprocess.run(
            command,
            env={**os.environ, "TPM2TOOLS_TCTI": f"swtpm:path={self._socket}"},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@dataclass
class SoftwareToken:
    """A token of SoftHSM in a folder of its own, with a PIN in a file."""

    folder: Path
    pin: str = "271828-canary"

    def __post_init__(self) -> None:
        (self.folder / "tokens").mkdir(parents=True)
        self.pin_file.write_text(self.pin + "\n")
        self.pin_file.chmod(0o600)
        self.conf.write_text(
            f"directories.tokendir = {self.folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        subprocess.run(
            ["softhsm2-util", "--init-token", "--free", "--label", "kvl", "--so-pin", "314159", "--pin", self.pin],
            env={**os.environ, **self.environment},
            capture_output=True,
            timeout=60,
            check=True,
        )

    @property
    def conf(self) -> Path:
        return self.folder / "softhsm2.conf"

    @property
    def pin_file(self) -> Path:
        return self.folder / "pin"

    @property
    def environment(self) -> dict[str, str]:
        return {"SOFTHSM2_CONF": str(self.conf)}

    def uri(self, *, token: str = "kvl", label: str = "root", module: Path | None = None) -> str:
        """Behind `pkcs11:`."""
        return f"token={token};object={label}?module-path={module or SOFTHSM}&pin-source=file:{self.pin_file}"


def free_port() -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
