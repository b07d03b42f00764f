"""One request of uvicorn's, whose body comes and whose answer leaves whole where they can.

ASGI passes both in messages, each with an event or a task switch. What nearly every request is here, a body that has
come with its head and an answer that is complete, needs none: an application that knows of it takes the one and gives
the other by the ASGI extension `DIRECT_EXCHANGE`. For all others nothing is different.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from uvicorn._types import ASGISendEvent, HTTPScope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from keyvault_lite.model.intake import RequestConnection
from keyvault_lite.server.corked_transport import CorkedTransport
from keyvault_lite.server.header_case import BEGINNINGS, HeaderCase
from keyvault_lite.wire.direct_exchange import DIRECT_EXCHANGE


class RequestCycle(RequestResponseCycle):
    """What uvicorn keeps of a request and its response. What all begin with alike is of the class."""

    logger = logging.getLogger("uvicorn.error")
    access_log = False
    disconnected = False
    more_body = True
    response_started = False
    response_complete = False
    chunked_encoding = None
    expected_content_length = 0
    _event: asyncio.Event | None = None
    _taken = False
    """Whether the application has all of the body."""

    def __init__(
        self,
        scope: HTTPScope,
        transport: CorkedTransport,
        flow: FlowControl,
        default_headers: list[tuple[bytes, bytes]],
        on_response: Callable[[], None],
        *,
        keep_alive: bool,
        awaits_continue: bool,
        conn: RequestConnection | None = None,
    ) -> None:
        self.scope = scope
        self.transport = transport  # type: ignore[assignment]  # a transport but for its type
        self.flow = flow
        self.default_headers = default_headers
        self.on_response = on_response
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = awaits_continue
        self.body = bytearray()
        self.conn = conn
        scope["extensions"] = {DIRECT_EXCHANGE: self}  # type: ignore[dict-item]  # elsewhere what is here is a dict

    @property
    def message_event(self) -> asyncio.Event:  # type: ignore[override]
        """What a reader of messages waits for; made for the first one."""
        if self._event is None:
            self._event = asyncio.Event()
            if self.body or not (self.more_body or self._taken):
                self._event.set()
        return self._event

    def add(self, data: bytes) -> None:
        """Another part of the body has come."""
        self.body += data
        if len(self.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self._wake()

    def end(self) -> None:
        """All of the body has come."""
        self.more_body = False
        self._wake()

    async def send(self, message: ASGISendEvent) -> None:
        """As in uvicorn; but names of headers are spelled."""
        if message["type"] != "http.response.start":
            await super().send(message)
            return
        transport, self.transport = self.transport, HeaderCase(self.transport)  # type: ignore[assignment]
        try:
            await super().send(message)
        finally:
            self.transport = transport

    def _wake(self) -> None:
        if self._event is not None:
            self._event.set()

    def read_whole(self) -> bytes | None:
        """See DirectExchange."""
        if self.more_body or self.disconnected or self._event is not None or self._taken:
            return None
        self._taken = True
        self.waiting_for_100_continue = False  # nobody waits any more: it has all been sent
        self.flow.resume_reading()
        body, self.body = bytes(self.body), bytearray()
        return body

    def write_whole(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bool:
        """See DirectExchange."""
        if self.flow.write_paused or self.disconnected or self.response_started or self.scope["method"] == "HEAD":
            return False
        fields = [*self.default_headers, *headers]
        if not self.keep_alive:
            fields.append((b"connection", b"close"))
        head = STATUS_LINE[status] + b"\r\n".join([BEGINNINGS[name] + value for name, value in fields])
        if head.count(b"\n") + head.count(b"\r") != 2 * len(fields):
            raise ValueError("a header of two lines")
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write_whole(b"\r\n\r\n".join((head, body)))  # type: ignore[attr-defined]
        self._wake()
        # It leads back to here: all of the request would be left to the collector of cycles, which holds everybody up.
        self.scope.pop("extensions", None)
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
        return True
