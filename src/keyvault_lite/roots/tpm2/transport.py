"""The way to a chip: the kernel's device, or the socket of a software TPM."""

import os
import select
import socket
import time
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import Final, Self

from keyvault_lite.roots.root import RootUnavailable

SWTPM: Final = "swtpm:"
"""How the path of a software TPM's Unix socket is written. For tests: its state is files."""
HEADER: Final = Struct(">HII")
MAX_RESPONSE: Final = 4096
TIMEOUT_SECONDS: Final = 20.0
"""A chip takes up to a second for a primary key, and the kernel's own limits are near this."""


class Transport:
    """An open way to a chip. One command at a time. Raises RootUnavailable, nothing else."""

    def __init__(self, device: str) -> None:
        """`device` is a path like /dev/tpmrm0, or `swtpm:` and the path of a Unix socket."""
        self.device: Final = device
        self._socket: socket.socket | None = None
        try:
            if device.startswith(SWTPM):
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.settimeout(TIMEOUT_SECONDS)
                self._socket.connect(device.removeprefix(SWTPM))
                self._file = self._socket.fileno()
            else:
                self._file = os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if self._socket is not None:
                self._socket.close()
            why = os.strerror(error.errno) if error.errno else "no answer"
            hint = "" if Path(device).exists() else "; is there a TPM 2.0, and is its resource manager /dev/tpmrm0?"
            raise RootUnavailable(f"The TPM {device} cannot be opened: {why}{hint}.") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        if self._socket is not None:
            self._socket.close()
        else:
            with suppress(OSError):
                os.close(self._file)

    def exchange(self, command: bytes) -> bytes:
        """Send one command, and return the whole response."""
        try:
            until = time.monotonic() + TIMEOUT_SECONDS
            if self._socket is not None:
                self._socket.sendall(command)
            else:
                os.write(self._file, command)
            return self._read(until)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else "no answer"
            raise RootUnavailable(f"The TPM {self.device} does not answer: {why}.") from None

    def _read(self, until: float) -> bytes:
        response = b""
        while len(response) < HEADER.size or len(response) < HEADER.unpack_from(response)[1]:
            # A device hands the response over in one read; a socket in pieces.
            ready, _, _ = select.select([self._file], [], [], max(0.0, until - time.monotonic()))
            part = os.read(self._file, MAX_RESPONSE) if ready else b""
            if not part or len(response) + len(part) > MAX_RESPONSE:
                raise RootUnavailable(f"The TPM {self.device} does not answer.")
            response += part
        return response
