"""An operation of the native API as data, and how a request to it is read and answered."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import msgspec
from pydantic import BaseModel

from keyvault_lite.model.errors import KeyVaultError
from keyvault_lite.model.intake import Upload
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import Answer, Replayed
from keyvault_lite.model.requests import Idempotency, Request
from keyvault_lite.wire.engine_port import Engine
from keyvault_lite.wire.fields import Body, convert, validate
from keyvault_lite.wire.http import JSON, Exchange, Response
from keyvault_lite.wire.native.render import Asked
from keyvault_lite.wire.pipeline import Invocation
from keyvault_lite.wire.reader import read_query, refuse_query
from keyvault_lite.wire.routing import Route

TEXT: Final = b"text/plain; charset=utf-8"
Shape = type[msgspec.Struct] | type[BaseModel]
Build = Callable[[str, Any], Request]
"""From what the path names ("" where it names nothing) and the filled-in shape to the request."""
Render = Callable[[Any, Asked], Any]
"""From result and what was asked to what is written: a struct for JSON, a string for text."""
_encode: Final = msgspec.json.Encoder().encode


class Tag(StrEnum):
    """The chapters of the documentation."""

    KEYS = "Keys"
    CIPHER = "Encryption"
    SIGNING = "Signatures"
    SERVICES = "Services"
    AUDIT = "Audit"
    SERVER = "Server"


class NoFields(Body):
    """No fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Route):
    """One operation of the native API."""

    method: str
    path: str
    """With at most one parameter in braces."""
    tag: Tag
    summary: str
    description: str = ""
    shape: Shape = NoFields
    """The fields of the body (POST, PATCH) or of the query (GET)."""
    build: Build
    render: Render
    keep: Render | None = None
    """What an Idempotency-Key keeps, where that is not the reply itself."""
    reply: type | None = None
    """The shape of the reply, for the documentation; None is text."""
    item: type[msgspec.Struct] | None = None
    """In a batch the shape of one item, and `reply` is that of one too."""
    status: int = 200
    mutating: bool = False
    """Whether an Idempotency-Key is heeded."""
    example: Mapping[str, object] = field(default_factory=dict)

    @property
    def parameter(self) -> str | None:
        """The name of the path's parameter."""
        _, brace, rest = self.path.partition("{")
        return rest.partition("}")[0] if brace else None

    def fill(self, value: object) -> msgspec.Struct | BaseModel:
        """Put a parsed value into the shape; a body left out has no fields. Raises InvalidRequest."""
        if value is None:
            value = {}
        return validate(value, self.shape) if issubclass(self.shape, BaseModel) else convert(value, self.shape)


class NativeInvocation(Invocation):
    """A request to an operation of the native API."""

    __slots__ = ("_route", "_target")

    def __init__(self, engine: Engine, exchange: Exchange, route: Operation, target: str) -> None:
        """`target` is what the path names; empty where it names nothing."""
        super().__init__(engine, exchange, exchange.credential(), route.action, route.operation)
        self._route = route
        self._target = target

    @property
    def key(self) -> KeyRef | None:
        """See Invocation."""
        return KeyRef(self._target) if self._route.parameter == "key_id" else None

    async def build(self) -> Request:
        """See Invocation."""
        route, exchange = self._route, self.exchange
        if route.method == "GET":
            body = b""
        elif exchange.is_short():
            body = await exchange.body(route.limit)
        else:
            upload = Upload(route.action, self.key)
            body = await exchange.large_body(self.credential, self.engine, route.limit, upload)
        value = await exchange.json(body, self.engine) if body else None
        request = route.build(self._target, route.fill(_source(route, value, exchange.query)))
        if route.mutating:
            self.idempotency = _idempotency(route, exchange, body, request)
        return request

    def render(self, request: Request, answer: Answer) -> Response:
        """See Invocation."""
        route, result = self._route, answer.result
        if isinstance(result, Replayed):
            text = result.body
        else:
            text = _write(route.render(result, Asked(request, self.exchange.request_id.hex())))
        content_type = TEXT if route.reply is None else JSON
        return self.exchange.reply(route.status, text, content_type=content_type, audit_id=answer.audit_id)

    def refuse(self, request: Request, error: KeyVaultError) -> Response:
        """See Invocation."""
        return self.exchange.problem(error)


def _source(route: Operation, value: object, query: bytes) -> object:
    if route.method == "GET":
        return read_query(query)
    if query:
        refuse_query(read_query(query))
    return value


def _write(rendered: object) -> bytes:
    return rendered.encode() if isinstance(rendered, str) else _encode(rendered)


def _idempotency(route: Operation, exchange: Exchange, body: bytes, request: Request) -> Idempotency | None:
    value = exchange.headers.get(b"idempotency-key")
    if value is None:
        return None
    keep = route.keep or route.render
    asked = Asked(request, exchange.request_id.hex())
    digest = hashlib.sha256(b"\n".join((route.method.encode(), exchange.scope["path"].encode(), body)))
    return Idempotency(
        key=value.decode("latin-1"), body_digest=digest.digest(), render=lambda result: _write(keep(result, asked))
    )
