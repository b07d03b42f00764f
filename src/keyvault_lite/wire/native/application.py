"""The native API: JSON over HTTP, by the table of its operations."""

import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import Final

import msgspec

from keyvault_lite.model.errors import InvalidRequest, MethodNotAllowed, NotFound
from keyvault_lite.wire.asgi import Scope
from keyvault_lite.wire.engine_port import Engine
from keyvault_lite.wire.http import Exchange, Response
from keyvault_lite.wire.native import documentation, openapi, sealing
from keyvault_lite.wire.native.route import NativeInvocation, Operation
from keyvault_lite.wire.native.routes import ROUTES
from keyvault_lite.wire.pipeline import handle
from keyvault_lite.wire.reader import read_query, refuse_query
from keyvault_lite.wire.routing import READ, Match, PublicAction, PublicPage, Table

_PATH: Final = re.compile(rb"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~:@!$&'()*+,=-]+)+")
"""No percent sign, and no semicolon: what is behind one may be taken for a parameter and left out on the way."""

MAX_PATH: Final = 512
"""Bytes of a path that is remembered with what it fits."""


class NativeApi:
    """Answers every path: it is the last of the protocols that are asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def matches(self, path: bytes, scope: Scope) -> bool:
        """What no other protocol takes."""
        return True

    async def answer(self, exchange: Exchange) -> Response:
        """Answer one request. A path without an operation is 404; one whose operations have other methods, 405."""
        path = exchange.path
        method = exchange.scope["method"]
        best = None
        # A literal path is not the object of that name, unless only the object has the method.
        for match in _resolve(path) if len(path) <= MAX_PATH else _matches(path):
            route = match.methods.get(method)
            if isinstance(route, Operation):
                target = next(iter(match.parameters.values()), "")
                return await handle(NativeInvocation(self._engine, exchange, route, target))
            if isinstance(route, PublicAction):
                return await route.answer(self._engine, exchange)
            if route is not None:
                return self._page(route, exchange)
            best = best or match.methods
        if best is None:
            return exchange.problem(NotFound())
        return exchange.problem(MethodNotAllowed(), allow=", ".join(sorted(best)))

    def _page(self, page: PublicPage, exchange: Exchange) -> Response:
        try:
            refuse_query(read_query(exchange.query))
        except InvalidRequest as error:
            return exchange.problem(error)
        return page.render(self._engine, exchange)


def _health(engine: Engine, exchange: Exchange) -> Response:
    found = engine.health()
    body = {"status": found.status, "sealed": found.sealed, "version": found.version, **found.details}
    return exchange.reply(200 if found.serving else 503, msgspec.json.encode(body))


@cache
def _document() -> bytes:
    return msgspec.json.encode(openapi.document())


def _openapi(_: Engine, exchange: Exchange) -> Response:
    return exchange.reply(200, _document())


def _root(_: Engine, exchange: Exchange) -> Response:
    body = {"name": "KeyVault Lite", "documentation": "/docs", "openapi": "/openapi.json", "health": "/health"}
    return exchange.reply(200, msgspec.json.encode(body))


def _asset(name: str, _: Engine, exchange: Exchange) -> Response:
    body, content_type = documentation.read(name)
    response = exchange.reply(200, body, content_type=content_type)
    response.headers += documentation.SECURITY
    return response


PAGES: Final[Mapping[str, PublicPage]] = {
    "": PublicPage(_root),
    "health": PublicPage(_health),
    "openapi.json": PublicPage(_openapi),
    "seal-status": PublicPage(sealing.seal_status),
    **{f"docs/{name}".rstrip("/"): PublicPage(partial(_asset, name)) for name in documentation.NAMES},
}
"""What anyone may read without a token: it tells nothing of what is in the vault."""


ACTIONS: Final[Mapping[str, PublicAction]] = {"unseal": PublicAction(sealing.unseal)}
"""What anyone may do without a token."""
AnyRoute = Operation | PublicPage | PublicAction


def _table() -> Table[AnyRoute]:
    routes: dict[tuple[str, str], AnyRoute] = {}
    for route in ROUTES:
        for method in READ if route.method == "GET" else (route.method,):
            routes[method, route.path.removeprefix("/")] = route
    public: dict[str, PublicPage | PublicAction] = {**PAGES, **ACTIONS}
    for path, page in public.items():
        for method in page.methods:
            routes[method, path] = page
    return Table(routes)


_TABLE: Final = _table()


def _matches(path: bytes) -> Sequence[Match[AnyRoute]]:
    sound = path == b"/" or _PATH.fullmatch(path) is not None
    return _TABLE.find_all(path[1:].decode().split("/")) if sound else ()


_resolve: Final = lru_cache(maxsize=8192)(_matches)
