import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from keyvault_lite.model.errors import (
    AuditUnavailable,
    LimitExceeded,
    MalformedRequest,
    TooLarge,
    UnsupportedMediaType,
)
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import BearerCredential, Credential
from keyvault_lite.model.intake import Intake, RequestConnection, Upload
from keyvault_lite.model.names import ServiceId
from keyvault_lite.model.replies import Answer
from keyvault_lite.model.requests import Encrypt, Rejected
from keyvault_lite.wire import body_memory, http
from keyvault_lite.wire.application import Application
from keyvault_lite.wire.asgi import Message, Scope
from keyvault_lite.wire.body_memory import BodyPool
from keyvault_lite.wire.http import MAX_BODY, UNAUTHENTICATED_BODY_LIMIT, Exchange, Response
from keyvault_lite.wire.native import NativeApi, documentation
from keyvault_lite.wire.vault import VaultApi
from tests.support.fake_engine import TOKEN, FakeEngine, ask, build

BODY = {"plaintext": "hello"}
HOT = "/keys/orders/encrypt"
COLD = "/keys/orders/data-key"


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def app(engine: FakeEngine) -> Application:
    return build(engine)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", HOT, 200),
        ("POST", COLD, 200),
        ("GET", "/health", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/docs", 200),
        ("GET", "/nowhere", 404),
        ("GET", "//", 404),
        ("PUT", HOT, 405),
        ("PUT", COLD, 405),
    ],
)
def test_headers_of_every_reply(app: Application, method: str, path: str, status: int) -> None:
    reply = ask(app, method, path, BODY if path == HOT else None)
    assert reply.status == status
    assert re.fullmatch("[0-9a-f]{32}", reply.headers["request-id"])
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert int(reply.headers["content-length"]) == len(reply.body)


def test_ids(app: Application, engine: FakeEngine) -> None:
    replies = [ask(app, "POST", HOT, BODY) for _ in range(2)]
    assert [reply.headers["audit-id"] for reply in replies] == ["1", "2"]
    assert replies[1].headers["request-id"] == engine.origin.request_id.hex() != replies[0].headers["request-id"]
    refused = ask(app, "POST", HOT, {"x": 1})
    assert (refused.status, refused.headers["audit-id"]) == (422, "3")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json["request_id"] == refused.headers["request-id"]


@pytest.mark.parametrize("path", [HOT, COLD])
@pytest.mark.parametrize("value", [None, "", "nonsense", "Basic eDp5", f"Bearer {TOKEN} x", f"Token {TOKEN}", "Bearer"])
def test_without_a_valid_token(app: Application, engine: FakeEngine, path: str, value: str | None) -> None:
    headers = [] if value is None else [(b"authorization", value.encode())]
    reply = ask(app, "POST", path, BODY, token=None, headers=headers)
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert "audit-id" not in reply.headers
    assert engine.seen[-1][1] == BearerCredential(None)


@pytest.mark.parametrize("value", [f"bearer {TOKEN}", f"BEARER   {TOKEN} "])
def test_scheme_in_any_case(app: Application, value: str) -> None:
    assert ask(app, "POST", HOT, BODY, token=None, headers=[(b"authorization", value.encode())]).status == 200


@pytest.mark.parametrize("path", [HOT, COLD])
def test_two_authorization_headers_are_none(app: Application, path: str) -> None:
    assert ask(app, "POST", path, headers=[(b"authorization", b"Bearer " + TOKEN.encode())]).status == 401


def test_no_token_in_the_query(app: Application) -> None:
    query = b"access_token=" + TOKEN.encode()
    assert ask(app, "POST", HOT, BODY, token=None, query=query).status == 401
    refused = ask(app, "POST", HOT, BODY, query=query)
    assert refused.status == 422
    assert TOKEN.encode() not in refused.body


def test_an_authentication_failure_wins_over_everything(app: Application) -> None:
    for path in (HOT, COLD):
        assert ask(app, "POST", path, b"x" * (MAX_BODY + 1), token="kvl_x_y", content_type=b"text/plain").status == 401


@pytest.mark.parametrize("path", [HOT, COLD])
def test_size_then_type_then_text(app: Application, engine: FakeEngine, path: str) -> None:
    large = b'{"plaintext": "' + b"a" * MAX_BODY
    for body, content_type, status, error in (
        (large, b"text/plain", 413, TooLarge),
        (b"{", b"text/plain", 415, UnsupportedMediaType),
        (b"{", b"application/json", 400, MalformedRequest),
    ):
        assert ask(app, "POST", path, body, content_type=content_type).status == status
        assert isinstance(engine.request, Rejected)
        assert engine.request.early
        assert engine.request.key == "orders"
        assert type(engine.request.error) is error
    assert ask(app, "POST", path, {"x": 1}).status == 422
    assert not engine.request.early


@pytest.mark.parametrize("path", [HOT, COLD, "/v1/transit/encrypt/orders", "/v1/auth/approle/login"])
def test_of_who_is_not_known_no_large_body_is_read(path: str) -> None:
    """Neither one that says how long it is, nor one that does not."""
    engine = FakeEngine()
    app = build(engine, VaultApi(engine))
    declared = [(b"content-length", str(MAX_BODY // 2).encode())]
    for headers in (declared, [(b"transfer-encoding", b"chunked")]):
        parts = [b"a" * 10_000] * 50
        status = ask(app, "POST", path, parts=parts, token="kvl_x_y", headers=headers).status
        assert status in {400, 401, 403}
        assert 50 - len(parts) == (0 if headers is declared else UNAUTHENTICATED_BODY_LIMIT // 10_000 + 1)
        assert isinstance(engine.request, Rejected)
        assert isinstance(engine.request.error, TooLarge)


@pytest.mark.parametrize("path", [HOT, COLD, "/v1/transit/encrypt/orders", "/v1/auth/approle/login"])
@pytest.mark.parametrize("body", [b"x" * 50_000, b'{"plaintext": "%b"}' % (b"A" * 50_000)])
def test_a_request_holds_memory_until_it_is_answered(path: str, body: bytes) -> None:
    engine = FakeEngine()
    held = []
    perform = engine.perform

    async def watched(*arguments: Any) -> Answer:  # noqa: ANN401
        held.append(http._rooms.held)
        return await perform(*arguments)

    engine.perform = watched  # type: ignore[method-assign,assignment]
    app = build(engine, VaultApi(engine))
    ask(app, "POST", path, body)
    assert held == [5 * len(body)]
    assert http._rooms.held == 0


class ManyCallers(FakeEngine):
    """Every token is a service of its own, and may send large bodies."""

    async def intake(self, credential: Credential, upload: Upload, conn: RequestConnection) -> Intake:
        assert isinstance(credential, BearerCredential)
        return Intake(ServiceId(credential.token or ""), may_be_large=True)


def test_a_body_that_comes_too_slowly_is_given_up_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_memory, "PATIENCE", -1.0)
    upload = Upload(Action.ENCRYPT)

    def sending(owner: str, body: bytes, *, ends: bool) -> asyncio.Task[bytes]:
        parts = [body]

        async def receive() -> Message:
            if not parts:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": parts.pop(), "more_body": not ends}

        scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", b"12")]}
        exchange = Exchange(scope, receive)
        return asyncio.create_task(exchange.large_body(BearerCredential(owner), ManyCallers(), 12, upload))

    async def run() -> None:
        room = BodyPool(total=60, share=60)
        monkeypatch.setattr(http, "_rooms", room)
        slow = sending("a", b"half", ends=False)
        await asyncio.wait([slow], timeout=0.05)
        assert not slow.done(), "nobody waits for what it holds"
        good = sending("b", b"twelve bytes", ends=True)
        assert await asyncio.wait_for(good, 20) == b"twelve bytes"
        with pytest.raises(LimitExceeded, match="too slowly while others waited"):
            await slow
        assert room.held == 60

    asyncio.run(run())


@pytest.mark.parametrize("size", [9_999, 10_000, UNAUTHENTICATED_BODY_LIMIT])
def test_a_short_body_is_read_of_anybody(app: Application, engine: FakeEngine, size: int) -> None:
    body = json.dumps({"plaintext": "A" * (size - 20)}).encode()
    assert ask(app, "POST", HOT, body, token="kvl_x_y").status == 401
    assert not isinstance(engine.request, Rejected) or not isinstance(engine.request.error, TooLarge)


def test_a_body_is_not_read_past_its_limit(app: Application) -> None:
    endless = [b"a" * 100_000] * 1000
    before = len(endless)
    assert ask(app, "POST", HOT, parts=endless).status == 413
    assert before - len(endless) == MAX_BODY // 100_000 + 1
    untouched = [b"a"]
    assert ask(app, "POST", HOT, parts=untouched, headers=[(b"content-length", b"9" * 30)]).status == 413
    assert untouched


def test_a_body_in_parts(app: Application, engine: FakeEngine) -> None:
    assert ask(app, "POST", HOT, parts=[b'{"plain', b'text"', b"", b':"hi"}']).status == 200
    assert engine.request.plaintext == b"hi"
    assert ask(app, "POST", HOT, parts=[]).status == 400  # the client is gone
    assert ask(app, "POST", HOT, BODY, headers=[(b"content-length", b"1")]).status == 400


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (b"application/json", 200),
        (b"Application/JSON; charset=UTF-8", 200),
        (b'application/json;charset="utf-8"', 200),
        (b"application/json; charset=latin-1", 415),
        (b"application/json; x=y", 415),
        (b"application/problem+json", 415),
        (b"text/json", 415),
        (b"", 415),
        (None, 415),
    ],
)
@pytest.mark.parametrize("path", [HOT, COLD])
def test_content_type(app: Application, path: str, content_type: bytes | None, status: int) -> None:
    body = BODY if path == HOT else {}
    assert ask(app, "POST", path, body, content_type=content_type).status == status


def test_two_content_types_are_none(app: Application) -> None:
    assert ask(app, "POST", HOT, BODY, headers=[(b"content-type", b"application/json")]).status == 415


@pytest.mark.parametrize(
    "path",
    [
        "//keys",
        "/keys/",
        "/keys//encrypt",
        "/keys/orders/",
        "/keys/orders/encrypt/",
        "/keys/./encrypt",
        "/keys/../encrypt",
        "/keys/../keys",
        "/./keys",
        "/keys/%6frders",
        "/keys/%6frders/encrypt",
        "/keys/a%2fb/encrypt",
        "/keys/a%2Fb",
        "/keys/a%00/encrypt",
        "/keys/a%00",
        "/keys/%2e%2e/encrypt",
        "/keys/%e9",
        "/keys/a b",
        "/keys/a\\b",
        "/keys/orders/encrypt%20",
        "/keys/orders/encrypt\x00",
        "keys",
        "/keys/orders/batch",
        "/keys/orders/batch/encrypt/encrypt",
        "/keys/" + "a" * 10_000 + "%20",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_odd_paths_are_nobodys(app: Application, engine: FakeEngine, method: str, path: str) -> None:
    assert ask(app, method, path.encode("latin-1")).status == 404
    assert not engine.seen


def test_odd_keys_reach_the_engine_as_they_are(app: Application, engine: FakeEngine) -> None:
    for key in ("ORDERS", "a:b", "~", "a" * 2000, "..."):
        assert ask(app, "POST", f"/keys/{key}/encrypt", BODY).status in {200, 404}
        assert engine.request.key == key


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        (HOT, "POST"),
        (COLD, "POST"),
        ("/keys", "GET, HEAD, POST"),
        ("/keys/a", "GET, HEAD, PATCH"),
        ("/health", "GET, HEAD"),
    ],
)
@pytest.mark.parametrize("method", ["OPTIONS", "DELETE", "TRACE", "PROPFIND"])
def test_wrong_methods(app: Application, engine: FakeEngine, path: str, allow: str, method: str) -> None:
    reply = ask(app, method, path)
    assert (reply.status, reply.headers["allow"]) == (405, allow)
    assert not engine.seen


@pytest.mark.parametrize("path", [HOT, COLD])
def test_head_where_there_is_no_get(app: Application, engine: FakeEngine, path: str) -> None:
    reply = ask(app, "HEAD", path)
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert not engine.seen


@pytest.mark.parametrize("path", ["/health", "/openapi.json", "/docs", "/keys", "/keys/a", "/audit", "/metrics"])
def test_head_is_get_without_the_body(app: Application, engine: FakeEngine, path: str) -> None:
    get, head = (ask(app, method, path) for method in ("GET", "HEAD"))
    assert (get.status, head.status, head.body) == (200, 200, b"")
    for name in ("content-length", "content-type", "cache-control"):
        assert head.headers.get(name) == get.headers.get(name)
    assert int(head.headers["content-length"]) == len(get.body)
    assert len(engine.seen) in {0, 2}, "recorded like it"


def test_refusals_of_head_have_no_body_either(app: Application) -> None:
    for token, query, status in ((None, b"", 401), (TOKEN, b"x=1", 422)):
        reply = ask(app, "HEAD", "/keys", token=token, query=query)
        assert (reply.status, reply.body) == (status, b"")


def test_where_a_request_came_from(app: Application, engine: FakeEngine) -> None:
    ask(app, "POST", HOT, BODY, headers=[(b"x-request-id", b"trace-1")])
    assert (engine.origin.source, engine.origin.client_request_id) == ("127.0.0.1", "trace-1")
    ask(app, "POST", COLD, headers=[(b"request-id", b"mine"), (b"x-request-id", b"other")], scope={"client": None})
    assert (engine.origin.source, engine.origin.client_request_id) == (None, "mine")
    for odd in (b"a" * 129, b"\xff", b"a\tb", b""):
        assert ask(app, "POST", HOT, BODY, headers=[(b"request-id", odd)]).status == 200
        assert engine.origin.client_request_id is None
    ask(app, "POST", HOT, BODY, headers=[(b"request-id", b"a"), (b"request-id", b"b")])
    assert engine.origin.client_request_id is None


@pytest.mark.parametrize("path", [HOT, COLD])
def test_a_defect_is_answered_and_logged_without_its_data(
    app: Application, engine: FakeEngine, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    engine.fault = ValueError("canary-5f0a")
    with caplog.at_level(logging.DEBUG):
        reply = ask(app, "POST", path, BODY if path == HOT else {})
    assert (reply.status, reply.json["code"]) == (500, "internal_error")
    assert b"canary" not in reply.body
    assert "canary" not in caplog.text
    assert "ValueError at fake_engine.py:" in caplog.text
    assert reply.headers["request-id"] in {getattr(record, "request_id", None) for record in caplog.records}


def test_a_defect_in_building_is_recorded(
    app: Application, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("canary-11")

    monkeypatch.setattr(Encrypt, "check_context", fail)
    assert ask(app, "POST", HOT, BODY, token=None).status == 401
    assert ask(app, "POST", HOT, BODY).status == 500
    assert isinstance(engine.request, Rejected)
    assert "canary" not in caplog.text


@dataclass
class Below:
    """A protocol of everything below a path."""

    prefix: bytes
    answer: Callable[[Exchange], Coroutine[Any, Any, Response]]

    def matches(self, path: bytes, _scope: Scope) -> bool:
        return path.startswith(self.prefix)


def test_a_protocol_judges_its_own_paths(engine: FakeEngine) -> None:
    async def mine(exchange: Exchange) -> Response:
        return exchange.reply(200, b"mine")

    app = build(engine, Below(b"/v1/", mine))
    assert ask(app, "LIST", "/v1/a%2fb/").body == b"mine"
    assert ask(app, "GET", "/keys").status == 200
    assert ask(app, "GET", "/v2/a%2fb").status == 404


def test_a_protocol_that_fails(engine: FakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_: Exchange) -> Response:
        raise RuntimeError("canary-7")

    app = build(engine, Below(b"/v1/", broken))
    assert ask(app, "GET", "/v1/x%20y").status == 500
    assert ask(app, "GET", "/keys").status == 200
    assert "canary" not in caplog.text


def test_a_defect_outside_the_engine(
    app: Application, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("canary-3")

    monkeypatch.setattr(documentation, "read", fail)
    assert ask(app, "GET", "/docs").status == 500
    assert "canary" not in caplog.text


def test_statuses_that_come_from_inside(app: Application, engine: FakeEngine) -> None:
    engine.fault = LimitExceeded()
    assert ask(app, "POST", HOT, BODY).headers["retry-after"] == "1"
    engine.fault = AuditUnavailable()
    assert ask(app, "GET", "/keys").status == 503


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        ({}, 200),
        ({"server": ("::1", 8000), "client": ("::1", 1)}, 200),
        ({"server": ("/run/kvl.sock", None), "client": None}, 200),
        ({"server": ("::ffff:127.0.0.1", 80), "client": ("127.8.9.1", 1)}, 200),
        ({"server": ("localhost", 80)}, 200),
        ({"scheme": "https", "server": ("192.0.2.7", 443), "client": ("198.51.100.9", 1)}, 200),
        ({"server": ("192.0.2.7", 80)}, 403),
        ({"client": ("198.51.100.9", 1)}, 403),
        ({"server": ("0.0.0.0", 80)}, 403),
        ({"server": ("localhost.example.org", 80)}, 403),
    ],
)
@pytest.mark.parametrize("path", ["/health", "/keys"])
def test_plain_http_stays_at_home(engine: FakeEngine, path: str, scope: dict[str, object], status: int) -> None:
    reply = ask(build(engine, loopback_only=True), "GET", path, scope=scope)
    assert reply.status == status
    assert len(engine.seen) == (1 if status == 200 and path == "/keys" else 0)
    assert ask(build(engine), "GET", path, scope=scope).status == 200


def test_lifespan_opens_the_engine() -> None:
    engine = FakeEngine()
    steps: list[str] = []

    @asynccontextmanager
    async def opening() -> AsyncIterator[FakeEngine]:
        steps.append("opened")
        yield engine
        steps.append("closed")

    app = Application(opening, lambda engine: (NativeApi(engine),))
    incoming: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message["type"])

    asyncio.run(app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert steps == ["opened", "closed"]
    assert ask(app, "GET", "/keys").status == 200


def test_no_websockets(app: Application) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app({"type": "websocket", "path": "/keys"}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
