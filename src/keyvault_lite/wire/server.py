"""How the application is run: uvicorn, with what it leaves open closed."""

from collections.abc import Callable
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD: Final = 64 * 1024
BACKLOG: Final = 2048
KEEP_ALIVE: Final = 75
"""Seconds an idle connection stays open: longer than the usual pools of clients keep theirs."""


_LIST: Final = b"LIST "
_STAND_IN: Final = b"LINK "
"""The Vault dialect has a method that the parser does not know. It reads one of the same length, and the application
sees the right one; a real LINK stays what it is."""


class RefusedHeadError(Exception):
    """A head beyond the bound. Raised inside the parser, which makes it a plain 400 and a closed connection."""


class BoundedProtocol(HttpToolsProtocol):
    """Bounds request line and headers, which uvicorn does not.

    That a message has one framing only (RFC 9112, 6.3: Content-Length beside Transfer-Encoding is how requests are
    smuggled past proxies) is its parser's work; tests/wire/test_server.py holds it to that.
    """

    _head = 0
    _in_head = False
    _between = True
    """Whether the next byte begins a message."""
    _lists = False

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._head = 0
        self._in_head = True
        self._between = False

    def on_message_complete(self) -> None:
        """Note that the next message may begin."""
        self._between = True
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        """Judge the whole head, before the application sees any of it."""
        self._in_head = False
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD:
            raise RefusedHeadError
        super().on_headers_complete()
        if self._lists:
            self._lists = False
            self.scope["method"] = "LIST"

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a head that does not end is cut off. The read in which it begins is not counted."""
        unfinished = self._in_head
        if self._between and data.startswith(_LIST):
            self._lists = True
            data = _STAND_IN + data[len(_LIST) :]
        super().data_received(data)
        if unfinished and self._in_head:
            self._head += len(data)
            if self._head > MAX_HEAD and not self.transport.is_closing():
                self.send_400_response("Request head too large.")


def serve(
    app: ASGIApp | Callable[..., Any] | str,
    *,
    host: str,
    port: int,
    workers: int = 1,
    tls_cert: str | None = None,
    tls_key: str | None = None,
) -> uvicorn.Config:
    """How to run `app` on an address. With several workers it must be an import path."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        workers=workers,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        ssl_certfile=tls_cert,
        ssl_keyfile=tls_key,
        proxy_headers=False,  # X-Forwarded-For would let a caller write another's address into the audit log
        server_header=False,
        access_log=False,  # the audit log is the record; request lines may hold what should not be kept
        log_config=None,
    )
