"""The ASGI application of the native API: the dispatcher, the hot road, and FastAPI for the rest."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache, partial
from typing import Final

import msgspec
from fastapi import FastAPI, Response
from fastapi import Request as HttpRequest
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.routing import Match

from keyvault_lite.model.errors import KeyVaultError, MethodNotAllowed, NotFound
from keyvault_lite.wire.dispatcher import Dispatcher, Mount
from keyvault_lite.wire.http import Engine, Exchange, Reply
from keyvault_lite.wire.native import documentation, openapi
from keyvault_lite.wire.native.route import Native, Route
from keyvault_lite.wire.native.routes import ROUTES
from keyvault_lite.wire.reader import read_query, refuse_query

Endpoint = Callable[[HttpRequest], Awaitable[Response]]
Opening = Callable[[], AbstractAsyncContextManager[Engine]]
TELEMETRY_OFF: Final[TelemetryConfig] = {"auto_configure": False, "logs": False, "tracing": False, "metrics": False}
"""FastAPI would export what it sees of requests, plaintext in exceptions too, as soon as an exporter is configured."""


def build(
    engine: Engine | None = None,
    *,
    lifespan: Opening | None = None,
    mounts: Sequence[Mount] = (),
    loopback_only: bool = False,
) -> Dispatcher:
    """Build the application round an engine, or round the one that `lifespan` opens before the first request."""
    native = Native()
    if engine is not None:
        native.engine = engine

    @asynccontextmanager
    async def live(_: FastAPI) -> AsyncIterator[None]:
        if lifespan is None:
            yield
            return
        async with lifespan() as opened:
            native.engine = opened
            yield

    app = FastAPI(
        title=openapi.TITLE,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=live,
        telemetry=TELEMETRY_OFF,
        exception_handlers={HTTPException: _refuse},
    )
    for route in ROUTES:
        if not route.hot:
            app.add_api_route(route.path, _endpoint(native, route), methods=_methods(route.method))
    for path, content in _public(native).items():
        app.add_api_route(path, _open(content), methods=_methods("GET"))
    hot = {route.path.removeprefix("/keys/{key_id}/"): partial(native.answer, route) for route in ROUTES if route.hot}

    async def stop() -> None:
        await native.engine.stop_waiting()

    return Dispatcher(app, hot=hot, mounts=mounts, loopback_only=loopback_only, on_stop=stop)


def _methods(method: str) -> list[str]:
    """HEAD stands beside every GET: it is judged and recorded like it, and answered without the body."""
    return ["GET", "HEAD"] if method == "GET" else [method]


def _response(request: HttpRequest, reply: Reply) -> Response:
    response = Response(b"" if request.method == "HEAD" else reply.body, status_code=reply.status)
    response.raw_headers = reply.headers
    return response


def _endpoint(native: Native, route: Route) -> Endpoint:
    parameter = route.parameter

    async def endpoint(request: HttpRequest) -> Response:
        target = "" if parameter is None else request.path_params[parameter]
        exchange = Exchange(request.scope, request.receive)
        try:
            return _response(request, await native.answer(route, exchange, target))
        finally:
            exchange.release()

    return endpoint


def _open(content: Callable[[Exchange], Reply]) -> Endpoint:
    """What anyone may read without a token; it passes no door, because it tells nothing of what is inside."""

    async def endpoint(request: HttpRequest) -> Response:
        exchange = Exchange(request.scope, request.receive)
        try:
            refuse_query(read_query(exchange.query))
            return _response(request, content(exchange))
        except KeyVaultError as error:
            return _response(request, exchange.problem(error))
        except Exception as error:  # noqa: BLE001  (answered, and its message never shown)
            return _response(request, exchange.problem(exchange.defect(error)))

    return endpoint


def _public(native: Native) -> dict[str, Callable[[Exchange], Reply]]:
    document = cache(lambda: msgspec.json.encode(openapi.document()))

    def health(exchange: Exchange) -> Reply:
        found = native.engine.health()
        body = {"status": found.status, "sealed": found.sealed, "version": found.version, **found.details}
        return exchange.reply(200 if found.serving else 503, msgspec.json.encode(body))

    def asset(name: str, exchange: Exchange) -> Reply:
        body, content_type = documentation.read(name)
        reply = exchange.reply(200, body, content_type=content_type)
        reply.headers += documentation.SECURITY
        return reply

    assets = {f"/docs/{name}".rstrip("/"): partial(asset, name) for name in documentation.NAMES}
    return {"/health": health, "/openapi.json": lambda exchange: exchange.reply(200, document()), **assets}


async def _refuse(request: HttpRequest, error: Exception) -> Response:
    """Answer what no route took: 405 with every method that the path has, else 404."""
    exchange = Exchange(request.scope, request.receive)
    found = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    # A path that is written out is not the object of that name which a parameter would find.
    exact = [route for route in found if route.path == request.scope["path"]]
    allow = {method for route in exact or found for method in route.methods}
    if allow:
        return _response(request, exchange.problem(MethodNotAllowed(), allow=", ".join(sorted(allow))))
    return _response(request, exchange.problem(NotFound()))
