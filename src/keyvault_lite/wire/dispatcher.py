"""The ASGI application: which requests go where, and who may come over plain HTTP."""

import ipaddress
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keyvault_lite.model.errors import Forbidden, MethodNotAllowed, NotFound
from keyvault_lite.wire.http import Exchange, Reply, path_of

_SEGMENT: Final = re.compile(rb"(?!\.{1,2}$)[A-Za-z0-9._~:@!$&'()*+,=-]+")
"""No percent sign, and no semicolon: what is behind one may be taken for a parameter and left out on the way."""
_PATH: Final = re.compile(rb"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~:@!$&'()*+,=-]+)+")

Endpoint = Callable[[Exchange, str], Awaitable[Reply]]
Mount = tuple[Callable[[bytes, Scope], bool], Callable[[Exchange], Awaitable[Reply]]]
"""A dialect: which requests are its own, by path and scope, and how it answers one."""


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


async def _answer_mount(answer: Callable[[Exchange], Awaitable[Reply]], exchange: Exchange, send: Send) -> None:
    try:
        try:
            reply = await answer(exchange)
        except Exception as error:  # noqa: BLE001  (the server behind us would log its message)
            reply = exchange.problem(exchange.defect(error))
        await reply.send(exchange.scope, send)
    finally:
        exchange.release()


class CannotStart(Exception):
    """The application cannot be started; the message is one sentence for the operator, shown without a traceback."""


class Dispatcher:
    """The ASGI application: hot routes by one dictionary lookup, dialects by their predicate, the rest by `app`.

    `hot` maps what follows `/keys/{key_id}/` to an endpoint; all of these take POST only.
    With `loopback_only` every plain-HTTP request from or to another address is refused.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hot: Mapping[str, Endpoint],
        mounts: Sequence[Mount] = (),
        loopback_only: bool = False,
        on_stop: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._app = app
        self.on_stop = on_stop
        """Answers the requests that wait for something, before the server ends."""
        self._hot = {tail.encode(): endpoint for tail, endpoint in hot.items()}
        self._mounts = tuple(mounts)
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand the lifespan through."""
        if scope["type"] != "http":
            await self._answer_other(scope, receive, send)
            return
        path = path_of(scope)
        if self._loopback_only and _is_exposed(scope):
            detail = "plain HTTP is answered on the loopback address only"
            await Exchange(scope, receive).problem(Forbidden(detail)).send(scope, send)
        elif path.startswith(b"/keys/") and (found := self._find(path)) is not None:
            exchange = Exchange(scope, receive)
            try:
                reply = await self._answer_hot(exchange, *found)
                await reply.send(scope, send)
            finally:
                exchange.release()
        else:
            for belongs, answer in self._mounts:
                if belongs(path, scope):
                    await _answer_mount(answer, Exchange(scope, receive), send)
                    return
            await self._answer_cold(path, scope, receive, send)

    def _find(self, path: bytes) -> tuple[Endpoint, bytes] | None:
        key, _, tail = path[6:].partition(b"/")
        endpoint = self._hot.get(tail)
        return None if endpoint is None else (endpoint, key)

    async def _answer_hot(self, exchange: Exchange, endpoint: Endpoint, key: bytes) -> Reply:
        if _SEGMENT.fullmatch(key) is None:
            return exchange.problem(NotFound())
        if exchange.scope["method"] != "POST":
            return exchange.problem(MethodNotAllowed(), allow="POST")
        return await endpoint(exchange, key.decode())

    async def _answer_cold(self, path: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            if _PATH.fullmatch(path) is None:
                await Exchange(scope, receive).problem(NotFound()).send(scope, send)
                return
            await self._app(scope, receive, watch)
        except Exception as error:  # noqa: BLE001  (as above)
            exchange = Exchange(scope, receive)
            refusal = exchange.problem(exchange.defect(error))
            if not started:
                await refusal.send(scope, send)

    async def _answer_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            error = sys.exception()
            if message["type"] == "lifespan.startup.failed" and isinstance(error, CannotStart):
                message = {**message, "message": f"KeyVault Lite does not start: {error}"}
            await send(message)

        if scope["type"] == "lifespan":
            await self._app(scope, receive, tell)
        else:
            await send({"type": "websocket.close", "code": 1008})


async def stop_waiting(app: object) -> None:
    """Have an application answer the requests that wait for something: the server is about to end."""
    if isinstance(app, Dispatcher) and app.on_stop is not None:
        await app.on_stop()
