"""The ASGI application: the choice of a protocol, the limits of plain HTTP, and the lifespan of the engine."""

import ipaddress
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from typing import Final, Protocol

from keyvault_lite.model.errors import Forbidden, NotFound
from keyvault_lite.wire.asgi import Receive, Scope, Send
from keyvault_lite.wire.engine_port import Engine
from keyvault_lite.wire.http import Exchange, Response, path_of


class Api(Protocol):
    """A protocol of the service over HTTP. It is constructed with its engine."""

    def matches(self, path: bytes, scope: Scope) -> bool:
        """Whether a request is one of this protocol."""
        ...

    async def answer(self, exchange: Exchange) -> Response:
        """Answer a request that matches."""
        ...


Opening = Callable[[], AbstractAsyncContextManager[Engine]]
MakeApis = Callable[[Engine], Sequence[Api]]
"""The protocols of an engine. A request is answered by the first that matches."""
_NOT_LOOPBACK: Final = "plain HTTP is answered on the loopback address only"


class CannotStart(Exception):
    """The application cannot be started; the message is one sentence for the operator, shown without a traceback."""


@lru_cache(maxsize=1024)
def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.startswith("/")  # the path of a Unix socket
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_exposed(scope: Scope) -> bool:
    """Whether a request came in plain HTTP over something else than the loopback interface."""
    ends = (scope.get("server"), scope.get("client"))
    return scope.get("scheme") != "https" and not all(end is None or _is_loopback(end[0]) for end in ends)


class Application:
    """The ASGI application. With `loopback_only` every plain-HTTP request from or to another address is refused."""

    def __init__(self, opening: Opening, make_apis: MakeApis, *, loopback_only: bool = False) -> None:
        """`opening` opens the engine when the server starts, and closes it when the server has ended."""
        self._opening = opening
        self._make_apis = make_apis
        self._loopback_only = loopback_only
        self._engine: Engine | None = None
        self._apis: tuple[Api, ...] = ()

    def serve(self, engine: Engine) -> None:
        """Answer requests by this engine from now on."""
        self._apis = tuple(self._make_apis(engine))
        self._engine = engine

    def has_ended(self) -> bool:
        """Whether the server has to end, by what the engine says."""
        return self._engine is not None and self._engine.has_ended()

    async def stop_waiting(self) -> None:
        """Answer the requests that wait for something: the server is about to end."""
        if self._engine is not None:
            await self._engine.stop_waiting()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or take part in the lifespan."""
        if scope["type"] == "http":
            await self._answer(Exchange(scope, receive), send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, exchange: Exchange, send: Send) -> None:
        scope = exchange.scope
        try:
            try:
                path = path_of(scope)
                if self._loopback_only and _is_exposed(scope):
                    response = exchange.problem(Forbidden(_NOT_LOOPBACK))
                else:
                    for api in self._apis:
                        if api.matches(path, scope):
                            response = await api.answer(exchange)
                            break
                    else:
                        response = exchange.problem(NotFound())
            except Exception as error:  # noqa: BLE001  (the HTTP server would log its message)
                response = exchange.problem(exchange.defect(error))
            await response.send(scope, send)
        finally:
            exchange.release()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with self._opening() as engine:
                self.serve(engine)
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except BaseException:
            await self._tell_failure(send)
            raise
        await send({"type": "lifespan.shutdown.complete"})

    async def _tell_failure(self, send: Send) -> None:
        error = sys.exception()
        message = f"KeyVault Lite does not start: {error}" if isinstance(error, CannotStart) else traceback.format_exc()
        step = "startup" if self._engine is None else "shutdown"
        await send({"type": f"lifespan.{step}.failed", "message": message})


async def stop_waiting(app: object) -> None:
    """As `Application.stop_waiting`, where a server's application is one."""
    if isinstance(app, Application):
        await app.stop_waiting()


def has_ended(app: object) -> bool:
    """As `Application.has_ended`, where a server's application is one."""
    return isinstance(app, Application) and app.has_ended()
