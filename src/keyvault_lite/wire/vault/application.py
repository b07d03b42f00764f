"""The HTTP API of Vault and OpenBao: paths below /v1/, JSON bodies, results in an envelope."""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from keyvault_lite.dialects.vault.requests import DIALECT, namespace
from keyvault_lite.model.errors import (
    InternalError,
    InvalidRequest,
    KeyVaultError,
    MalformedRequest,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    Unauthenticated,
)
from keyvault_lite.model.identity import BearerCredential
from keyvault_lite.model.intake import Upload
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import Answer
from keyvault_lite.model.requests import Request
from keyvault_lite.wire.asgi import Scope
from keyvault_lite.wire.engine_port import Engine
from keyvault_lite.wire.http import MAX_BODY, MAX_TOKEN, RETRY_AFTER, Exchange, Response, is_passing
from keyvault_lite.wire.pipeline import Invocation, handle
from keyvault_lite.wire.reader import QUICK_TEXT, is_quick, read_json, read_parameters, read_query
from keyvault_lite.wire.vault import status
from keyvault_lite.wire.vault.errors import describe
from keyvault_lite.wire.vault.paths import PathTarget, is_canonical, resolver
from keyvault_lite.wire.vault.route import LIST, NO_CONTENT, NOT_FOUND, WRITE, Operation, RawReply, VaultCall
from keyvault_lite.wire.vault.routes import APPROLE, SYSTEM, TRANSIT
from keyvault_lite.wire.vault.values import Fields, optional_flag, optional_period

PREFIX: Final = b"/v1/"
RESERVED: Final = b"/v1/projects/"
"""Another dialect's."""
_NAME: Final = re.compile(r"\w(?:[\w.-]*\w)?", re.ASCII)
_METHODS: Final = {"GET": "GET", "POST": "POST", "PUT": "POST", "DELETE": "DELETE", "LIST": "LIST"}
_WITH_BODY: Final = frozenset({"POST"})
_WRAPPING: Final = "X-Vault-Wrap-TTL"
_NAMESPACES: Final = frozenset({b"", b"/", b"root", b"root/"})
_encode: Final = msgspec.json.Encoder().encode
_resolve: Final = resolver(SYSTEM, TRANSIT, APPROLE, lambda name: _NAME.fullmatch(name) is not None)


class Envelope(msgspec.Struct):
    """The envelope around the data."""

    request_id: str
    data: object
    lease_id: str = ""
    renewable: bool = False
    lease_duration: int = 0
    wrap_info: None = None
    warnings: tuple[str, ...] | None = None
    auth: object = None


class VaultApi:
    """Answers everything below `/v1/` that is not another protocol's."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def matches(self, path: bytes, scope: Scope) -> bool:
        """Whether a request is below this protocol's prefix."""
        return path.startswith(PREFIX) and not path.startswith(RESERVED)

    async def answer(self, exchange: Exchange) -> Response:
        """Answer one request."""
        path = exchange.path[len(PREFIX) :]
        page = status.PAGES.get(path)
        if page is not None:
            return await status.answer(page, self._engine, exchange)
        try:
            target, route, query = _find(exchange, path)
        except KeyVaultError as error:
            return _errors(exchange, error, (404, "unsupported path"))
        return await handle(VaultInvocation(self._engine, exchange, route, target, query))


class VaultInvocation(Invocation):
    """A request to an operation of the protocol."""

    __slots__ = ("_call", "_route")

    def __init__(self, engine: Engine, exchange: Exchange, route: Operation, target: PathTarget, query: Fields) -> None:
        bearer = _credential(exchange)
        super().__init__(engine, exchange, bearer, route.action, route.operation)
        self._route = route
        self._call = VaultCall(target.mount, target.path, query, bearer.token)

    @property
    def key(self) -> KeyRef | None:
        """See Invocation."""
        return self._call.key if "name" in self._call.path and self._call.mount else None

    async def build(self) -> Request:
        """See Invocation."""
        route, call, exchange = self._route, self._call, self.exchange
        if not call.fields and exchange.scope["method"] in {"POST", "PUT"}:
            if exchange.is_short():
                body = await exchange.body(route.limit)
            else:
                body = await exchange.large_body(self.credential, self.engine, route.limit, _upload(route, call))
            call.fields = await self._fields(body) if body else {}
        _check_headers(exchange.headers)
        if route.credential is not None:
            self.credential = route.credential(call)
        request = route.build(call)
        if isinstance(request, Request):
            return request
        steps = request
        return await self.engine.in_steps(lambda: steps)

    async def _fields(self, body: bytes) -> Mapping[str, Any]:
        exchange = self.exchange
        form = exchange.headers.get(b"content-type", b"").startswith(b"application/x-www-form")
        if form and body[:1] != b"{":
            if len(body) > QUICK_TEXT:
                raise TooLarge(f"a form has at most {QUICK_TEXT} bytes")
            return read_query(body)
        fields = read_json(body) if is_quick(body) else await exchange.large_json(body, self.engine)
        if fields is None:
            return {}
        if not isinstance(fields, dict):
            raise MalformedRequest("the body is a JSON object")
        return fields

    def render(self, request: Request, answer: Answer) -> Response:
        """See Invocation."""
        written = self._route.render(answer.result, request, self._call)
        return _write(self.exchange, written, self._route, self._call.fields, answer.audit_id)

    def refuse(self, request: Request, error: KeyVaultError) -> Response:
        """See Invocation."""
        if isinstance(error, InternalError):
            return _errors(self.exchange, error)
        unknown = isinstance(error, Unauthenticated)
        return _errors(self.exchange, error, self._route.unauthenticated if unknown else self._route.missing)


def _find(exchange: Exchange, path: bytes) -> tuple[PathTarget, Operation, Fields]:
    """Where a path (from behind `/v1/`) leads by the method of the request, and the query that counts."""
    if not is_canonical(path):
        raise InvalidRequest("vault request paths must be canonical and not relative")
    target = _resolve(path)
    if target is None:
        raise NotFound
    method, query = _method(exchange)
    if not target.takes(method):
        raise InvalidRequest("cannot write to a path ending in '/'") if method == WRITE else NotFound
    route = target.methods.get(method)
    if route is None:
        raise MethodNotAllowed
    return target, route, query if method not in _WITH_BODY else {}


def _method(exchange: Exchange) -> tuple[str, Fields]:
    method = _METHODS.get(exchange.scope["method"], "")
    if method in _WITH_BODY or not exchange.query:
        return method, {}
    query = read_parameters(exchange.query)
    if method == "GET" and query.get("list", "") != "" and optional_flag(query, "list"):
        return LIST, {name: value for name, value in query.items() if name != "list"}
    return method, query


def _upload(route: Operation, call: VaultCall) -> Upload:
    if call.mount and "name" in call.path:
        return Upload(route.action, call.key)
    space = namespace(call.mount) if call.mount else DIALECT
    return Upload(route.action, space=space if route.limit > MAX_BODY else None)


def _credential(exchange: Exchange) -> BearerCredential:
    value = exchange.headers.get(b"x-vault-token")
    if value is None or not value.strip():
        return exchange.credential()
    token = value.decode("latin-1")
    sound = 0 < len(token) <= MAX_TOKEN and token.isascii() and token.isprintable()
    return BearerCredential(token if sound else None)


def _check_headers(headers: Mapping[bytes, bytes]) -> None:
    # Ignoring either would do something else than was asked: another's key space, or a secret in the clear.
    if headers.get(b"x-vault-namespace", b"") not in _NAMESPACES:
        raise InvalidRequest("there are no namespaces here")
    wrapping = headers.get(b"x-vault-wrap-ttl")
    if wrapping and optional_period({_WRAPPING: wrapping.decode("latin-1")}, _WRAPPING):
        raise InvalidRequest("responses are not wrapped here")


def _errors(exchange: Exchange, error: KeyVaultError, missing: tuple[int, str] | None = None) -> Response:
    status_code, message = describe(error, missing)
    body = _encode({"errors": [message] if message else []})
    audit_id = None if status_code == 403 else error.audit_id  # noqa: PLR2004
    reply = exchange.reply(status_code, body, audit_id=audit_id)
    if is_passing(error):
        reply.headers.append(RETRY_AFTER)
    return reply


def _request_id(exchange: Exchange) -> str:
    text = exchange.request_id.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _write(
    exchange: Exchange, written: RawReply, route: Operation, fields: Mapping[str, Any], audit_id: int
) -> Response:
    if written is NO_CONTENT:
        return exchange.reply(204, b"", audit_id=audit_id).without_body()
    if written is NOT_FOUND:
        return exchange.reply(404, b'{"errors":[]}', audit_id=audit_id)
    if written.bare:
        return exchange.reply(written.status, _encode(written.data), audit_id=audit_id)
    warnings = written.warnings
    if not route.fields.issuperset(fields):
        unknown = " ".join(sorted(name for name in fields if name not in route.fields and name.isprintable()))
        warnings = (*warnings, f"Endpoint ignored these unrecognized parameters: [{unknown[:200]}]")
    envelope = Envelope(_request_id(exchange), written.data, warnings=warnings or None, auth=written.auth)
    if written.merged and isinstance(written.data, Mapping):
        return exchange.reply(
            written.status, _encode({**written.data, **msgspec.structs.asdict(envelope)}), audit_id=audit_id
        )
    return exchange.reply(written.status, _encode(envelope), audit_id=audit_id)
