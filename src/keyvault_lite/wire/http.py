"""The edge: one HTTP exchange with its limits, ids and headers, and the dispatcher in front of everything.

Paths are judged as they were sent (`raw_path`), never as something has decoded them: what needs decoding to look like
one of our paths is not one of our paths.
"""

import ipaddress
import os
import re
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import PurePath
from typing import Final, Protocol
from urllib.parse import quote

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keyvault_lite.model.errors import (
    AuditUnavailable,
    Forbidden,
    InternalError,
    KeyVaultError,
    LimitExceeded,
    MalformedRequest,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    Unauthenticated,
    UnsupportedMediaType,
)
from keyvault_lite.model.identity import BearerCredential, Credential
from keyvault_lite.model.replies import Answer, Health
from keyvault_lite.model.requests import Idempotency, Origin, Request
from keyvault_lite.observe import logger
from keyvault_lite.wire.cycle import WHOLE, Whole
from keyvault_lite.wire.problems import problem
from keyvault_lite.wire.reader import read_json

MAX_BODY: Final = 1024 * 1024
STRANGERS_BODY: Final = 64 * 1024
"""Bytes of a body that are taken in and parsed of who is not known yet; no login has more."""
_SHORT: Final = 4
"""Digits of a length below that."""
MAX_TOKEN: Final = 512
MAX_CLIENT_ID: Final = 128
JSON: Final = b"application/json"
EARLY: Final = (TooLarge, UnsupportedMediaType, MalformedRequest)
"""Refusals that win over the role check: they say nothing of what is there."""

Header = tuple[bytes, bytes]
_COMMON: Final[list[Header]] = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
_SINGLE: Final = (
    b"authorization",
    b"content-length",
    b"content-type",
    b"idempotency-key",
    b"request-id",
    b"x-request-id",
    b"x-vault-token",
)
_JSON_TYPE: Final = re.compile(rb'application/json[ \t]*(;[ \t]*charset=("utf-8"|utf-8)[ \t]*)?', re.IGNORECASE)
_SEGMENT: Final = re.compile(rb"(?!\.{1,2}$)[A-Za-z0-9._~:@!$&'()*+,;=-]+")
_PATH: Final = re.compile(rb"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~:@!$&'()*+,;=-]+)+")
_encode: Final = msgspec.json.Encoder().encode
_NONE: Final[Mapping[str, Whole]] = {}
_log: Final = logger("wire")


class Engine(Protocol):
    """The one door, as a dialect sees it."""

    async def perform(self, request: Request, credential: Credential, origin: Origin) -> Answer:
        """Authenticate, authorise, act and record; an error carries the number of the entry that recorded it."""
        ...

    async def knows(self, credential: Credential) -> bool:
        """Whether a credential is good at this moment. Nothing rests on it but how much is taken in."""
        ...

    def health(self) -> Health:
        """Tell whether the vault can serve."""
        ...


def has_body(status: int) -> bool:
    """Whether a final answer of this status can have a body (RFC 9110, section 15)."""
    return 200 <= status <= 599 and status not in {204, 205, 304}  # noqa: PLR2004


class Reply:
    """A complete answer."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: list[Header], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def without_body(self) -> "Reply":
        """The same with a status that has no body, and so without the headers about it."""
        self.headers = [one for one in self.headers if one[0] not in {b"content-type", b"content-length"}]
        self.body = b""
        return self

    async def send(self, scope: Scope, send: Send) -> None:
        """Send it whole, if the server can, or as two ASGI messages; to HEAD without its body."""
        whole = _whole(scope)
        if whole is not None and whole.write_whole(self.status, self.headers, self.body):
            return
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self.body})


def _whole(scope: Scope) -> Whole | None:
    whole: Whole | None = scope.get("extensions", _NONE).get(WHOLE)
    return whole


def _path(scope: Scope) -> bytes:
    path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return path


class Exchange:
    """One request on its way in: its own random id, its headers, its body under a limit, and the replies it can get."""

    __slots__ = ("headers", "receive", "request_id", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self.request_id = os.urandom(16)
        pairs: Sequence[Header] = scope["headers"]
        self.headers: dict[bytes, bytes] = dict(pairs)
        if len(self.headers) != len(pairs):
            self._mark_repeated([name for name, _ in pairs])

    def _mark_repeated(self, names: list[bytes]) -> None:
        # Two values of a header that has one: proxies differ on which counts, so neither does. NUL is invalid in all.
        for name in _SINGLE:
            if names.count(name) > 1:
                self.headers[name] = b"\x00"

    @property
    def path(self) -> bytes:
        """The path as sent."""
        return _path(self.scope)

    @property
    def query(self) -> bytes:
        """The query string as sent."""
        query: bytes = self.scope["query_string"]
        return query

    def credential(self) -> BearerCredential:
        """The bearer token, unverified; None for anything that cannot be one."""
        value = self.headers.get(b"authorization")
        if value is None or len(value) > MAX_TOKEN:
            return BearerCredential(None)
        scheme, _, rest = value.partition(b" ")
        token = rest.strip(b" ").decode("latin-1")
        sound = scheme.lower() == b"bearer" and token.isascii() and token.isprintable() and " " not in token
        return BearerCredential(token if sound and token else None)

    def origin(self, *, operation: str | None = None, idempotency: Idempotency | None = None) -> Origin:
        """Where the request came from, for its entry."""
        client = self.scope.get("client")
        return Origin(
            request_id=self.request_id,
            source=client[0] if client else None,
            client_request_id=self._client_request_id(),
            operation=operation,
            idempotency=idempotency,
        )

    def _client_request_id(self) -> str | None:
        value = self.headers.get(b"request-id") or self.headers.get(b"x-request-id")
        if value is None or len(value) > MAX_CLIENT_ID:
            return None
        text = value.decode("latin-1")
        return text if text.isascii() and text.isprintable() else None

    def body_of(self, credential: Credential, engine: Engine, limit: int) -> Awaitable[bytes]:
        """As `body`; of who is not known to the engine no more than STRANGERS_BODY."""
        declared = self.headers.get(b"content-length", b"")
        if len(declared) <= _SHORT and b"transfer-encoding" not in self.headers:
            return self.body(limit)
        return self._body_of(credential, engine, limit)

    async def _body_of(self, credential: Credential, engine: Engine, limit: int) -> bytes:
        return await self.body(limit if await engine.knows(credential) else min(limit, STRANGERS_BODY))

    async def body(self, limit: int = MAX_BODY) -> bytes:
        """Read the body, and stop as soon as it is, or says it will be, beyond the limit (TooLarge)."""
        declared = self.headers.get(b"content-length", b"0")
        if not declared.isdigit():
            raise MalformedRequest("the length of the body is not clear")
        body: bytes | None = None
        if int(declared[:20]) <= limit:
            whole = _whole(self.scope)
            body = None if whole is None else whole.read_whole()
            if body is None:
                body = await self._received(limit)
        if body is None or len(body) > limit:
            raise TooLarge(f"a body is at most {limit} bytes")
        return body

    async def _received(self, limit: int) -> bytes:
        """The body by messages, up to the one with which it is beyond the limit."""
        received = 0
        parts: list[bytes] = []
        more = True
        while more and received <= limit:
            message = await self.receive()
            if message["type"] != "http.request":
                raise MalformedRequest("the body is incomplete")
            parts.append(message.get("body", b""))
            received += len(parts[-1])
            more = message.get("more_body", False)
        return b"".join(parts)

    def json(self, body: bytes) -> object:
        """Parse the body. Raises UnsupportedMediaType, then MalformedRequest."""
        declared = self.headers.get(b"content-type")
        if declared != JSON and (declared is None or _JSON_TYPE.fullmatch(declared) is None):
            raise UnsupportedMediaType("a body is application/json in UTF-8")
        return read_json(body)

    def reply(self, status: int, body: bytes, *, content_type: bytes = JSON, audit_id: int | None = None) -> Reply:
        """A reply with the headers that every reply has."""
        headers = [
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
            (b"request-id", self.request_id.hex().encode()),
            *_COMMON,
        ]
        if audit_id is not None:
            headers.append((b"audit-id", b"%d" % audit_id))
        return Reply(status, headers, body)

    def problem(self, error: KeyVaultError, *, allow: str | None = None) -> Reply:
        """A refusal, as a problem document."""
        document = problem(error, self.request_id.hex())
        # Who is not authenticated learns nothing of the log, not even its length.
        audit_id = None if isinstance(error, Unauthenticated) else error.audit_id
        reply = self.reply(
            document.status, _encode(document), content_type=b"application/problem+json", audit_id=audit_id
        )
        if isinstance(error, Unauthenticated):
            reply.headers.append((b"www-authenticate", b"Bearer"))
        elif isinstance(error, AuditUnavailable | LimitExceeded):
            reply.headers.append((b"retry-after", b"1"))
        if allow is not None:
            reply.headers.append((b"allow", allow.encode()))
        return reply

    def defect(self, error: Exception) -> InternalError:
        """Log a defect of ours by its kind and place: its message and its variables may hold a caller's data."""
        frames = traceback.extract_tb(error.__traceback__)
        places = " < ".join(f"{PurePath(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
        request_id = self.request_id.hex()
        _log.error("a request failed with %s at %s", type(error).__name__, places, extra={"request_id": request_id})
        return InternalError()


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
    ) -> None:
        self._app = app
        self._hot = {tail.encode(): endpoint for tail, endpoint in hot.items()}
        self._mounts = tuple(mounts)
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand the lifespan through."""
        if scope["type"] != "http":
            await self._answer_other(scope, receive, send)
            return
        path = _path(scope)
        if self._loopback_only and _is_exposed(scope):
            detail = "plain HTTP is answered on the loopback address only"
            await Exchange(scope, receive).problem(Forbidden(detail)).send(scope, send)
        elif path.startswith(b"/keys/") and (found := self._find(path)) is not None:
            exchange = Exchange(scope, receive)
            reply = await self._answer_hot(exchange, *found)
            await reply.send(scope, send)
        else:
            for belongs, answer in self._mounts:
                if belongs(path, scope):
                    exchange = Exchange(scope, receive)
                    try:
                        reply = await answer(exchange)
                    except Exception as error:  # noqa: BLE001  (the server behind us would log its message)
                        reply = exchange.problem(exchange.defect(error))
                    await reply.send(scope, send)
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
