"""A response leaves in one system call and one segment.

Of an application that knows nothing of it, the head waits for what follows it in the same turn. One that has its
answer complete gives it to the server whole, by the ASGI extension `WHOLE`, which spares both the work of two messages.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

WHOLE: Final = "keyvault.whole_response"
"""The name of the extension; what stands under it in a scope is a WriteWhole."""
WriteWhole = Callable[[int, Sequence[tuple[bytes, bytes]], bytes], bool]
"""Sends status, headers and body. False, with nothing sent, if it has to be done by messages."""

_HEAD: Final = b"HTTP/1.1 "


class OneWrite:
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


def write_whole(
    cycle: RequestResponseCycle, transport: OneWrite, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> bool:
    """A WriteWhole for one request of uvicorn's: what its `send` does with the two messages of a plain response.

    `headers` have lower-case names, `content-length` among them. Raises ValueError, having sent nothing, if a name or a
    value has a line of its own.
    """
    if cycle.flow.write_paused or cycle.disconnected or cycle.response_started or cycle.scope["method"] == "HEAD":
        return False
    fields = [*cycle.default_headers, *headers]
    if not cycle.keep_alive:
        fields.append((b"connection", b"close"))
    head = STATUS_LINE[status] + b"\r\n".join(map(b": ".join, fields))
    if head.count(b"\n") + head.count(b"\r") != 2 * len(fields):
        raise ValueError("a header of two lines")
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    transport.write_whole(b"\r\n\r\n".join((head, body)))
    cycle.message_event.set()
    # It leads back to the request: all of that would be left to the collector of cycles, which holds everybody up.
    cycle.scope.pop("extensions", None)
    if not cycle.keep_alive:
        transport.close()
    cycle.on_response()
    return True
