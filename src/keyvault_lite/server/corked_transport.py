"""A response leaves in one system call and one segment."""

import asyncio
from typing import Any, Final

_HEAD: Final = b"HTTP/1.1 "


class CorkedTransport:
    """A transport that sends a response's head together with what is written next.

    uvicorn writes head and body apart, and uvloop sends each write at once. A head that nothing follows in this turn of
    the loop (the answer to HEAD, a stream that has yet to begin) leaves at its end.
    """

    __slots__ = ("_head", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        """Send; or keep for a moment, if it is a head."""
        head, self._head = self._head, None
        if head is not None:
            self._transport.write(head + data)
        elif data.startswith(_HEAD):
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def write_whole(self, data: bytes) -> None:
        """Send a complete response, after what is kept."""
        self._flush()
        self._transport.write(data)

    def _flush(self) -> None:
        head, self._head = self._head, None
        if head is not None and not self._transport.is_closing():
            self._transport.write(head)

    def is_closing(self) -> bool:
        """Whether it is closed or being closed."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Send what is kept, then close."""
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  (the rest is the transport's own)
        return getattr(self._transport, name)
