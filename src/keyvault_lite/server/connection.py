"""Connections: uvicorn's HTTP/1.1, with the bounds that it does not have.

Each client has a bounded time for everything that the server waits for, and the number of connections is bounded.
"""

import math
import ssl
from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any, Final
from urllib.parse import unquote

import uvicorn
from httptools import parse_url
from uvicorn._types import ASGI3Application, HTTPScope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from keyvault_lite.model.intake import RequestConnection
from keyvault_lite.observe import logger
from keyvault_lite.observe.metrics import METRICS
from keyvault_lite.server.canned_responses import FULL, SLOW
from keyvault_lite.server.connection_limit import leaving
from keyvault_lite.server.corked_transport import CorkedTransport
from keyvault_lite.server.discarded_bodies import DiscardedBodies
from keyvault_lite.server.header_case import HeaderCase
from keyvault_lite.server.parser_fixes import LIST, STAND_IN, without_offer
from keyvault_lite.server.peer import peer_of
from keyvault_lite.server.request_cycle import RequestCycle
from keyvault_lite.server.request_head import MAX_HEADERS, RefusedHeadError, check_head
from keyvault_lite.wire.asgi import ASGIApp

MAX_HEAD: Final = 64 * 1024
BACKLOG: Final = 2048
KEEP_ALIVE: Final = 75
"""Seconds an idle connection stays open: longer than the usual pools of clients keep theirs."""
HEAD_SECONDS: Final = 10.0
"""How long a head may take, from the connection or the first byte on."""
BODY_SECONDS: Final = 30.0
"""How long a body may take, from the end of its head on."""
WRITE_SECONDS: Final = 30.0
"""How long a client may leave what it was sent unread."""
GRACE_SECONDS: Final = 8
"""How long requests under way have when the server ends: less than `docker stop` waits."""
MAX_CONNECTIONS: Final = 1_000
OVERFLOW: Final = 64
"""Connections beyond the limit that get a 503; further ones are closed without a response."""
MAX_PIPELINE: Final = 64
"""Requests that may be sent ahead of the answers before them."""
MAX_UNREAD: Final = 4 * 1024 * 1024
"""Bytes of a body that are thrown away after its request was answered; then the connection is closed."""
FRESH_SECONDS: Final = 1.0
"""How long a new connection is left alone although it has sent nothing yet."""
_log: Final = logger("server")
_NOTHING, _A_HEAD, _A_BODY = 0, 1, 2
_ALLOWED: Final = (math.inf, HEAD_SECONDS, BODY_SECONDS)


class BoundedProtocol(HttpToolsProtocol):
    """Bounds request line and headers, connections, and the time that clients take, which uvicorn does not.

    That a message has one framing only (RFC 9112, 6.3: Content-Length beside Transfer-Encoding is how requests are
    smuggled past proxies) is its parser's work; tests/unit/server/test_connection.py holds it to that.
    """

    _head = 0
    """Bytes of a head that has not ended, without the read in which it began."""
    _read = 0
    """Bytes of this read, and of those before it that began or went on with the same head."""
    _rest = 0
    """Bytes of a body since those that the application was given: of its framing, and of trailers."""
    _unread = 0
    """Bytes of a body that came after the answer to its request."""
    _in_head = False
    _awaited = _A_HEAD
    """What the client is still to send."""
    _timed = _NOTHING
    """What `deadline` is for."""
    _asked = False
    """Whether any request was complete in its head."""
    _turned_away = False
    _lists = False
    """Whether the head that is read has a stand-in for its method."""
    cycle: RequestCycle
    """The newest request."""
    deadline = math.inf
    """Until when it has to come (time of the loop)."""
    unread_until = math.inf
    """Until when the client has to read what it was sent."""
    idle_since = math.inf
    """Since when no request is under way. Bytes that begin none do not count, nor does the rest of an answered one."""

    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401
        limit: int = MAX_CONNECTIONS,
        remainders: DiscardedBodies | None = None,
        **more: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*arguments, **more)
        self.conn = RequestConnection()
        self._limit = limit
        self._remainders = remainders or DiscardedBodies()

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401
        """Take the connection in, if there is room or room can be made."""
        self._one_write = CorkedTransport(transport, self.loop)
        super().connection_made(self._one_write)  # type: ignore[arg-type]
        self.conn.peer = peer_of(transport)
        self._time()
        beyond = len(self.connections) - self._limit
        if beyond > 0 and not self._make_room():
            METRICS.count_connection("full")
            self._turned_away = True
            if beyond > OVERFLOW:
                transport.abort()

    def _make_room(self) -> bool:
        """Close the connections that need their place least; whether there was one."""
        others = (one for one in self.connections if isinstance(one, BoundedProtocol) and one is not self)
        least = leaving(others, self._limit, self.loop.time())
        for one in least:
            self.connections.discard(one)
            one.give_way()
        return bool(least)

    def is_silent(self, now: float) -> bool:
        """Whether it never asked anything, and is not new."""
        return not (self._asked or self._turned_away) and self.deadline - HEAD_SECONDS < now - FRESH_SECONDS

    def is_seated(self) -> bool:
        """Whether it has asked something, and counts for its owner."""
        return self._asked and not self._turned_away

    def is_waiting(self) -> bool:
        """Whether its request waits for its client or its turn, so that nothing of it has been done."""
        if not self._asked or self.cycle.response_started:
            return False
        return self._awaited == _A_BODY or self.conn.leave is not None

    def give_way(self) -> None:
        """Close it: its place is needed for another."""
        METRICS.count_connection("idle" if self.idle_since != math.inf or not self._asked else "share")
        if self.is_waiting() and not self._is_answering():
            self.transport.write(FULL)
        self.transport.close()

    def on_message_begin(self) -> None:
        """Begin to count."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self.idle_since = math.inf
        self._head = self._rest = self._unread = 0
        self._in_head = True
        self._awaited = _A_HEAD

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what comes as a trailer is none of the request's (RFC 9110, section 6.5.1)."""
        if self._in_head:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))
            if len(self.headers) > MAX_HEADERS:
                raise RefusedHeadError

    def on_headers_complete(self) -> None:
        """Check the whole head, before the application sees any of it."""
        self._in_head = False
        self._awaited = _A_BODY
        self._asked = True
        # No larger than the reads that it came in: they are nearly always too small to count what is in them.
        # After an offer to upgrade what follows would be taken for the next message, the body included.
        if (self._read > MAX_HEAD and self._size_of_head() > MAX_HEAD) or self.parser.should_upgrade():
            raise RefusedHeadError
        check_head(self.parser.get_http_version(), self.headers)
        before: RequestCycle | None = self.cycle
        cycle = self.cycle = self._make_cycle()
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            if len(self.pipeline) >= MAX_PIPELINE:
                raise RefusedHeadError
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for what was sent ahead, nor for the turn of a request."""
        self.pipeline.clear()
        if self.conn.leave is not None:
            self.conn.leave()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """As in uvicorn, unless it would be taken for the answer to a request that is under way."""
        now: RequestCycle | None = self.cycle
        if now is not None and (self._is_answering() or (self._awaited == _NOTHING and not now.response_complete)):
            self.transport.abort()
        else:
            self.transport = HeaderCase(self.transport)  # type: ignore[assignment]  # for the last that is sent here
            super().send_400_response(msg)

    def _make_cycle(self) -> RequestCycle:
        """The request whose head is complete, for the application: uvicorn's, without what is not used here."""
        parser = self.parser
        version = parser.get_http_version()
        url = parse_url(self.url)
        scope: HTTPScope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,  # type: ignore[typeddict-item]  # known once connected
            "method": "LIST" if self._lists else parser.get_method().decode("ascii"),
            "root_path": "",
            "path": unquote(url.path.decode("ascii")),
            "raw_path": url.path,
            "query_string": url.query or b"",
            "headers": self.headers,
            "state": self.app_state.copy(),
        }
        self._lists = False
        return RequestCycle(
            scope,
            self._one_write,
            self.flow,
            self.server_state.default_headers,
            self.on_response_complete,
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            awaits_continue=self.expect_100_continue,
            conn=self.conn,
        )

    def _size_of_head(self) -> int:
        return len(self.url) + len(b"".join(chain.from_iterable(self.headers)))

    def on_response_complete(self) -> None:
        """As in uvicorn, but without a timer for each: `close_if_late` sees to connections that stay idle."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self.idle_since = self.loop.time()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Note that a request is under way: its head may have begun before the answer to the one before."""
        self.idle_since = math.inf
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body. What comes of one after its answer is left."""
        self._rest = 0
        if not self.cycle.response_complete:
            self.cycle.add(body)
            return
        self._unread += len(body)
        if self._unread > MAX_UNREAD:
            self.transport.close()
            return
        seconds = self._remainders.read(len(body), self.loop.time())
        if seconds:
            self.flow.pause_reading()
            self.loop.call_later(seconds, self._read_on)

    def _read_on(self) -> None:
        """Read the remainder of a body again, unless that has been closed meanwhile."""
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def on_message_complete(self) -> None:
        """Await nothing more."""
        self._awaited = _NOTHING
        if not self.cycle.response_complete:
            self.cycle.end()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a head that does not end is cut off. The read in which it begins is not counted."""
        if self._turned_away:
            self.transport.write(FULL)
            self.transport.close()
            return
        unfinished = self._in_head
        if self._awaited == _A_BODY:
            self._rest += len(data)
        else:
            data = without_offer(data)
            if data.startswith(LIST) and not unfinished:  # the next byte begins a message
                self._lists = True
                data = STAND_IN + data[len(LIST) :]
        self._read = self._read + len(data) if unfinished else len(data)
        super().data_received(data)
        if self._awaited != self._timed:
            self._time()
        if unfinished and self._in_head:
            self._head += len(data)
            if self._head > MAX_HEAD and not self.transport.is_closing():
                self.send_400_response("Request head too large.")
        if self._rest > MAX_HEAD and not self.transport.is_closing():
            if self.cycle.response_started:
                self.transport.close()
            else:
                self.send_400_response("Trailers too large.")

    def _time(self) -> None:
        self._timed = self._awaited
        self.deadline = self.loop.time() + _ALLOWED[self._awaited]

    def pause_writing(self) -> None:
        """Note since when the client does not read."""
        super().pause_writing()
        self.unread_until = self.loop.time() + WRITE_SECONDS

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self.unread_until = math.inf

    def close_if_late(self, now: float) -> None:
        """Close the connection on a client that takes too long."""
        if now >= self.unread_until:
            METRICS.count_connection("unread")
            self.transport.abort()
        elif now >= self.deadline:
            METRICS.count_connection("slow")
            self.deadline = now + HEAD_SECONDS  # should the farewell not be read either
            if self.transport.is_closing() or self._is_answering():
                self.transport.abort()
                return
            self.transport.write(SLOW)
            self.transport.close()
        elif now >= self.idle_since + KEEP_ALIVE:
            self.transport.close()

    def _is_answering(self) -> bool:
        """Whether what is sent now would be taken for the answer to another request, or for a part of one."""
        if not self._asked or self.cycle.response_complete:
            return False
        return self.cycle.response_started or bool(self.pipeline) or self._awaited == _A_HEAD


def serve(
    app: ASGIApp | Callable[..., Any] | str,
    *,
    host: str,
    port: int,
    tls: ssl.SSLContext | None = None,
    max_connections: int = MAX_CONNECTIONS,
) -> uvicorn.Config:
    """How to run `app` on an address, in one process."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=partial(BoundedProtocol, limit=max_connections, remainders=DiscardedBodies()),  # type: ignore[arg-type]  # called like a class
        ws="none",
        loop="keyvault_lite.server.event_loop:Loop",
        lifespan="on",
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ssl_context_factory=None if tls is None else lambda _config, _default: tls,
        proxy_headers=False,  # X-Forwarded-For would let a caller write another's address into the audit log
        server_header=False,
        access_log=False,  # the audit log is the record; request lines may hold what should not be kept
        log_config=None,
    )
