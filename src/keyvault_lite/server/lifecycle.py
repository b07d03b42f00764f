"""The server's start and end, and its look at late clients once a second. At its end it answers what was asked."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Final, cast

import uvicorn

from keyvault_lite import __version__
from keyvault_lite.observe import logger
from keyvault_lite.observe.metrics import METRICS
from keyvault_lite.server.connection import BoundedProtocol
from keyvault_lite.server.listeners import Closing, Listener, http_listeners
from keyvault_lite.wire.application import has_ended, stop_waiting

STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_log: Final = logger("server")


class Server(uvicorn.Server):
    """Closes connections of late clients, and ends with a clean exit on a signal."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        listeners: Sequence[Listener] = (),
        on_start: Callable[[], None] = lambda: None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        """`listeners` are served beside the sockets that `run` is given, which speak HTTP.

        `on_start` is called when requests are taken, `on_stop` when it begins to end.
        """
        super().__init__(config)
        self._listeners = listeners
        self._on_start, self._on_stop = on_start, on_stop
        self._about = {"version": __version__, "worker": METRICS.worker or None}
        self.interrupted = False
        """Whether it was stopped from the keyboard."""
        self.has_ended = False
        """Whether the application has ended it."""
        METRICS.gauge("keyvault_connections", "Open connections.", lambda: len(self.server_state.connections))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve every listener, and tell when requests are taken."""
        # uvicorn would bind an address of its own if it were given none.
        await super().startup(sockets=[] if sockets is not None or self._listeners else None)
        if not self.started:
            return
        loop, open_connections = asyncio.get_running_loop(), cast("set[Closing]", self.server_state.connections)
        for one in (*http_listeners(sockets or (), self.config.ssl), *self._listeners):
            make = self._http if one.protocol is None else partial(one.protocol, open_connections)
            self.servers.append(
                await loop.create_server(make, sock=one.socket, ssl=one.tls, backlog=self.config.backlog)
            )
        _log.info("requests are answered", extra=self._about)
        self._on_start()

    def _http(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell of the end, and of how it went."""
        _log.info("stopping: what is under way is finished", extra=self._about)
        await stop_waiting(self.config.app)
        await super().shutdown(sockets=[*(sockets or ()), *(one.socket for one in self._listeners)])
        _log.info("stopped", extra=self._about)

    async def on_tick(self, counter: int) -> bool:
        """Once a second look for clients that are late."""
        if counter % 10 == 0:
            for connection in tuple(self.server_state.connections):
                if isinstance(connection, BoundedProtocol):
                    connection.close_if_late(connection.loop.time())
            with suppress(OSError):
                METRICS.publish()
        if has_ended(self.config.app):
            self.has_ended = True
            return True
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As in uvicorn, but the signal that ended it is not raised again: what was asked is done."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; the second interrupt waits for nobody."""
        self.interrupted = self.interrupted or sig == signal.SIGINT
        on_stop, self._on_stop = self._on_stop, lambda: None  # before it is called: another signal may come meanwhile
        on_stop()
        super().handle_exit(sig, frame)
