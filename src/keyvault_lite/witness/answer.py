"""The answer to an HTTP request, which has to be there whole in the time that the connection allows for one read.

A socket's timeout starts again with each byte. A server that sends one now and then would keep a caller waiting for
hours, and with it whatever lock the caller holds.
"""

import http.client
import io
import socket
import time
from typing import Any, Final, cast


class _Limited(io.RawIOBase):
    """What a socket receives until its timeout, counted from now, is over."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock: Final = sock
        self._raw: Final = sock.makefile("rb", buffering=0)
        self._end: Final = time.monotonic() + (sock.gettimeout() or 0.0)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401  (as io has it)
        """See io.RawIOBase. Raises TimeoutError."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        """See io.RawIOBase."""
        self._raw.close()
        super().close()


class _Source:
    """A socket as http.client reads from it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock: Final = sock

    def makefile(self, _mode: str) -> io.BufferedReader:
        """The one stream of an answer."""
        return io.BufferedReader(_Limited(self._sock))


class Response(http.client.HTTPResponse):
    """As http.client has it, with the connection's timeout for all of it: status line, headers and body."""

    def __init__(self, sock: socket.socket, *how: Any, **more: Any) -> None:  # noqa: ANN401  (as http.client has it)
        super().__init__(cast("socket.socket", _Source(sock)), *how, **more)
