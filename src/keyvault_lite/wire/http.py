"""The edge: one HTTP exchange with its limits, ids and headers.

Paths are checked as they were sent (`raw_path`), never as something has decoded them: what needs decoding to look like
one of our paths is not one of our paths. The one exception is an escaped slash within a mount (`wire/vault/paths.py`).
"""

import asyncio
import os
import re
import traceback
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from keyvault_lite.engine.pauses import pause
from keyvault_lite.model.errors import (
    AuditUnavailable,
    InternalError,
    KeyVaultError,
    LimitExceeded,
    MalformedRequest,
    ShareExceeded,
    TooLarge,
    Unauthenticated,
    UnsupportedMediaType,
)
from keyvault_lite.model.identity import BearerCredential, Credential
from keyvault_lite.model.intake import RequestConnection, Upload
from keyvault_lite.model.names import ServiceId
from keyvault_lite.model.requests import Idempotency, Origin
from keyvault_lite.observe import logger
from keyvault_lite.wire.asgi import Receive, Scope, Send
from keyvault_lite.wire.body_memory import BodyPools, Reservation
from keyvault_lite.wire.direct_exchange import DIRECT_EXCHANGE, DirectExchange
from keyvault_lite.wire.engine_port import Engine
from keyvault_lite.wire.problems import problem
from keyvault_lite.wire.reader import QUICK_PARTS, is_quick, read_in_steps, read_json

MAX_BODY: Final = 1024 * 1024
UNAUTHENTICATED_BODY_LIMIT: Final = 64 * 1024
"""Bytes of a body that are taken in and parsed of a caller who is not known, or whose role and grants do not allow the
operation; no login has more."""
_SHORT: Final = b"4096"
"""Bytes of a body that is taken in of anybody without a question."""
MAX_TOKEN: Final = 512
MAX_CLIENT_ID: Final = 128
JSON: Final = b"application/json"
EARLY: Final = (TooLarge, UnsupportedMediaType, MalformedRequest)
"""Refusals that win over the role check: they say nothing of what is there."""

T = TypeVar("T")
Header = tuple[bytes, bytes]
_COMMON: Final[list[Header]] = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
_SINGLE: Final = (
    b"authorization",
    b"content-encoding",
    b"content-length",
    b"content-type",
    b"idempotency-key",
    b"request-id",
    b"x-request-id",
    b"x-vault-token",
)
_JSON_TYPE: Final = re.compile(rb'application/json[ \t]*(;[ \t]*charset=("utf-8"|utf-8)[ \t]*)?', re.IGNORECASE)
_encode: Final = msgspec.json.Encoder().encode
_NONE: Final[Mapping[str, DirectExchange]] = {}
_log: Final = logger("wire")


RETRY_AFTER: Final[Header] = (b"retry-after", b"1")


def is_passing(error: KeyVaultError) -> bool:
    """Whether trying again in a second may help."""
    return isinstance(error, AuditUnavailable | LimitExceeded)


def has_body(status: int) -> bool:
    """Whether a final answer of this status can have a body (RFC 9110, section 15)."""
    return 200 <= status <= 599 and status not in {204, 205, 304}  # noqa: PLR2004


_rooms: Final = BodyPools()
"""What all connections of this process hold."""


class Response:
    """A complete HTTP response."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: list[Header], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def without_body(self) -> "Response":
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


def _whole(scope: Scope) -> DirectExchange | None:
    whole: DirectExchange | None = scope.get("extensions", _NONE).get(DIRECT_EXCHANGE)
    return whole


def path_of(scope: Scope) -> bytes:
    """The path as sent."""
    path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return path


class Exchange:
    """One request on its way in: its own random id, its headers, its body under a limit, and the replies it can get."""

    __slots__ = ("_place", "conn", "headers", "may_be_large", "receive", "request_id", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self.may_be_large = False
        """Whether a large body is wanted of this caller for this operation."""
        self._place: Reservation | None = None
        whole = _whole(scope)
        self.conn = (None if whole is None else whole.conn) or RequestConnection()
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
        return path_of(self.scope)

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
            conn=self.conn,
        )

    def _client_request_id(self) -> str | None:
        value = self.headers.get(b"request-id") or self.headers.get(b"x-request-id")
        if value is None or len(value) > MAX_CLIENT_ID:
            return None
        text = value.decode("latin-1")
        return text if text.isascii() and text.isprintable() else None

    def is_short(self) -> bool:
        """Whether the body is short enough to be read without a question of whose it is."""
        declared = self.headers.get(b"content-length", b"")
        short = len(declared) < len(_SHORT) or (len(declared) == len(_SHORT) and declared <= _SHORT)
        return short and b"transfer-encoding" not in self.headers

    async def large_body(self, credential: Credential, engine: Engine, limit: int, upload: Upload) -> bytes:
        """As `body`; at most UNAUTHENTICATED_BODY_LIMIT from a caller that may not perform the operation."""
        intake = await engine.intake(credential, upload, self.conn)
        self.may_be_large = intake.may_be_large
        if not intake.may_be_large:
            limit = min(limit, UNAUTHENTICATED_BODY_LIMIT)
        if self._declared() <= limit:
            await self.make_room(intake.owner, limit)
        try:
            return await self._arriving(limit)
        except TooLarge as error:
            if intake.may_be_large:
                raise
            raise TooLarge(f"{error.detail}, of a caller whose role and grants do not allow this") from None

    async def _arriving(self, limit: int) -> bytes:
        """As `body`; given up if it comes too slowly while others wait for the memory that it takes."""
        place, loop = self._place, asyncio.get_running_loop()
        if place is None:
            return await self.body(limit)
        try:
            async with asyncio.timeout(None) as given_up:
                with place.arriving(lambda: given_up.reschedule(loop.time())):
                    return await self.body(limit)
        except TimeoutError:
            self.release()
            raise LimitExceeded(
                "the body came too slowly while others waited for the memory that it takes; nothing was done"
            ) from None

    async def make_room(self, owner: ServiceId | None, limit: int) -> None:
        """Wait for the memory that a body may need, until `release`."""
        size = limit if b"transfer-encoding" in self.headers else self._declared()
        self._place = await _rooms.take(owner, size)

    def release(self) -> None:
        """The request has been answered: let go of what it held."""
        place, self._place = self._place, None
        if place is not None:
            place.give_back()

    async def hold(self, error: KeyVaultError) -> None:
        """Wait before a caller gets 429."""
        if isinstance(error, ShareExceeded):
            await pause(error.after, self.conn)

    def _declared(self) -> int:
        declared = self.headers.get(b"content-length", b"0")
        if not declared.isdigit():
            raise MalformedRequest("the length of the body is not clear")
        return int(declared[:20])

    async def body(self, limit: int = MAX_BODY) -> bytes:
        """Read the body, and stop as soon as it is, or says it will be, beyond the limit (TooLarge)."""
        body: bytes | None = None
        if self._declared() <= limit:
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
            part = message.get("body", b"")
            parts.append(part)
            received += len(part)
            more = message.get("more_body", False)
        return b"".join(parts)

    async def while_connected(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of work that may wait for long; it is given up once the client has gone."""
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(self._gone())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise MalformedRequest("the client has gone")
            return task.result()
        finally:
            task.cancel()
            gone.cancel()

    async def _gone(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def json(self, body: bytes, engine: Engine) -> object:
        """Parse the body. Raises UnsupportedMediaType, then MalformedRequest."""
        if self.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise UnsupportedMediaType("a body is sent as it is: no Content-Encoding but identity is taken")
        declared = self.headers.get(b"content-type")
        if declared != JSON and (declared is None or _JSON_TYPE.fullmatch(declared) is None):
            raise UnsupportedMediaType("a body is application/json in UTF-8")
        return read_json(body) if is_quick(body) else await self.large_json(body, engine)

    async def large_json(self, body: bytes, engine: Engine) -> object:
        """Parse a body that is not quick to read, in steps. Raises TooLarge for a caller of whom none is wanted."""
        if not self.may_be_large:
            raise TooLarge(
                f"a body has at most {QUICK_PARTS} parts, of a caller whose role and grants do not allow this"
            )
        return await engine.in_steps(lambda: read_in_steps(body))

    def reply(self, status: int, body: bytes, *, content_type: bytes = JSON, audit_id: int | None = None) -> Response:
        """A reply with the headers that every reply has."""
        headers = [
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
            (b"request-id", self.request_id.hex().encode()),
            *_COMMON,
        ]
        if audit_id is not None:
            headers.append((b"audit-id", b"%d" % audit_id))
        return Response(status, headers, body)

    def problem(self, error: KeyVaultError, *, allow: str | None = None) -> Response:
        """A refusal, as a problem document."""
        document = problem(error, self.request_id.hex())
        # An unauthenticated caller learns nothing of the log, not even its length.
        audit_id = None if isinstance(error, Unauthenticated) else error.audit_id
        reply = self.reply(
            document.status, _encode(document), content_type=b"application/problem+json", audit_id=audit_id
        )
        if isinstance(error, Unauthenticated):
            reply.headers.append((b"www-authenticate", b"Bearer"))
        elif is_passing(error):
            reply.headers.append(RETRY_AFTER)
        if allow is not None:
            reply.headers.append((b"allow", allow.encode()))
        return reply

    def defect(self, error: Exception) -> InternalError:
        """Log a defect by its kind and place: its message and its variables may hold a caller's data."""
        frames = traceback.extract_tb(error.__traceback__)
        places = " < ".join(f"{PurePath(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
        request_id = self.request_id.hex()
        _log.error("a request failed with %s at %s", type(error).__name__, places, extra={"request_id": request_id})
        return InternalError()
