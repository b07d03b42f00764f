"""A route as data, and the one way all routes go: read, build, perform, render."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import msgspec
from pydantic import BaseModel

from keyvault_lite.model.errors import InternalError, KeyVaultError
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.intake import Upload
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import Replayed
from keyvault_lite.model.requests import FollowAudit, Idempotency, Rejected, Request
from keyvault_lite.wire.fields import Body, convert, validate
from keyvault_lite.wire.http import EARLY, JSON, MAX_BODY, Engine, Exchange, Reply
from keyvault_lite.wire.native.render import Asked
from keyvault_lite.wire.reader import read_query, refuse_query

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


class Nothing(Body):
    """No fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation of the native API."""

    method: str
    path: str
    """With at most one parameter in braces."""
    action: Action
    tag: Tag
    summary: str
    description: str = ""
    shape: Shape = Nothing
    """The fields of the body (POST, PATCH) or of the query (GET). Structs are the hot road's, models the other's."""
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
    limit: int = MAX_BODY
    example: Mapping[str, object] = field(default_factory=dict)

    @property
    def hot(self) -> bool:
        """Whether the dispatcher answers it without FastAPI."""
        return issubclass(self.shape, msgspec.Struct)

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


class Native:
    """Answers the routes of the table through an engine."""

    engine: Engine
    """Set before the first request: when built, or by the lifespan."""

    async def answer(self, route: Route, exchange: Exchange, target: str) -> Reply:
        """Read, build, perform, render. What cannot be built passes the same door, to be authenticated and recorded."""
        idempotency = None
        request: Request
        credential = exchange.credential()
        try:
            if route.method == "GET":
                body = b""
            elif exchange.is_short():
                body = await exchange.body(route.limit)
            else:
                upload = Upload(route.action, KeyRef(target) if route.parameter == "key_id" else None)
                body = await exchange.large_body(credential, self.engine, route.limit, upload)
            value = await exchange.json(body, self.engine) if body else None
            request = route.build(target, route.fill(_source(route, value, exchange.query)))
            value = None  # nobody reads what was left out of the request
            if route.mutating:
                idempotency = _idempotency(route, exchange, body, request)
        except KeyVaultError as error:
            request = _rejected(route, target, error)
        except Exception as error:  # noqa: BLE001  (a defect is answered too, and its message never shown)
            request = _rejected(route, target, exchange.defect(error))
        asked = Asked(request, exchange.request_id.hex())
        try:
            origin = exchange.origin(idempotency=idempotency)
            work = self.engine.perform(request, credential, origin)
            waits = isinstance(request, FollowAudit) and request.wait
            answer = await (exchange.while_connected(work) if waits else work)
            result = answer.result
            text = result.body if isinstance(result, Replayed) else _write(route.render(result, asked))
        except KeyVaultError as error:
            await exchange.hold(error)
            return exchange.problem(error)
        except Exception as error:  # noqa: BLE001  (as above)
            return exchange.problem(exchange.defect(error))
        content_type = TEXT if route.reply is None else JSON
        return exchange.reply(route.status, text, content_type=content_type, audit_id=answer.audit_id)


def _source(route: Route, value: object, query: bytes) -> object:
    if route.method == "GET":
        return read_query(query)
    if query:
        refuse_query(read_query(query))
    return value


def _rejected(route: Route, target: str, error: KeyVaultError) -> Rejected:
    key = KeyRef(target) if route.parameter == "key_id" else None
    early = isinstance(error, (*EARLY, InternalError))
    return Rejected(of=route.action, error=error, early=early, key=key)


def _write(rendered: object) -> bytes:
    return rendered.encode() if isinstance(rendered, str) else _encode(rendered)


def _idempotency(route: Route, exchange: Exchange, body: bytes, request: Request) -> Idempotency | None:
    value = exchange.headers.get(b"idempotency-key")
    if value is None:
        return None
    keep = route.keep or route.render
    asked = Asked(request, exchange.request_id.hex())
    digest = hashlib.sha256(b"\n".join((route.method.encode(), exchange.scope["path"].encode(), body)))
    return Idempotency(
        key=value.decode("latin-1"), body_digest=digest.digest(), render=lambda result: _write(keep(result, asked))
    )
