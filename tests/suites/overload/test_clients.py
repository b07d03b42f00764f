"""Clients that are slow, or too many: each costs a bounded time and a bounded place, and the others notice nothing."""

import asyncio
import contextlib
import math
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from keyvault_lite.observe.metrics import METRICS
from keyvault_lite.server import connection as wire
from keyvault_lite.server.connection import serve
from keyvault_lite.server.lifecycle import Server
from keyvault_lite.server.listeners import CannotListen, address, listen
from tests.suites.overload.server import Client, everything, raw, wait_until
from tests.support.fake_engine import TOKEN, FakeEngine, build

HEAD = b"POST /keys/orders/encrypt HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer "
BODY = b'{"plaintext": "hi"}'
DIRECT_EXCHANGE = HEAD + TOKEN.encode() + b"\r\nContent-Length: 19\r\n\r\n" + BODY
LIMIT = 8


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_ALLOWED", (math.inf, 0.5, 0.5))
    monkeypatch.setattr(wire, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(wire, "WRITE_SECONDS", 0.5)
    monkeypatch.setattr(wire, "FRESH_SECONDS", 0.1)


@contextlib.contextmanager
def serving(config: uvicorn.Config) -> Iterator[int]:
    server = Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    wait_until(lambda: server.started, 10)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture
def port(hurried: None) -> Iterator[int]:
    with serving(serve(build(FakeEngine()), host="127.0.0.1", port=0, max_connections=LIMIT)) as port:
        yield port


def refused(reason: str) -> int:
    return METRICS.connections_refused.get(reason, 0)


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST", HEAD, HEAD + TOKEN.encode() + b"\r\nContent-Length: 19\r\n\r\n" + BODY[:5]],
    ids=["nothing", "line", "head", "body"],
)
@pytest.mark.parametrize("earlier", [b"", DIRECT_EXCHANGE], ids=["first", "later"])
def test_a_request_that_does_not_end(port: int, sent: bytes, earlier: bytes) -> None:
    if earlier and not sent:
        pytest.skip("an idle connection is nobody's fault")
    before = refused("slow")
    began = time.monotonic()
    with raw(port, earlier) as connection:
        if earlier:
            answer = b""
            while b"key_version" not in answer:
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ")
        if sent:
            connection.sendall(sent)
        assert everything(connection).startswith(b"HTTP/1.1 408 ")
    assert 0.4 < time.monotonic() - began < 5
    assert refused("slow") == before + 1


def test_a_slow_trickle_gains_no_time(port: int) -> None:
    began = time.monotonic()
    with raw(port) as connection, contextlib.suppress(OSError):
        for byte in HEAD:
            connection.send(bytes([byte]))
            time.sleep(0.05)
    assert time.monotonic() - began < 5


def test_an_idle_connection_is_left_alone(port: int) -> None:
    client = Client(port, TOKEN)
    assert client.encrypt().status == 200
    time.sleep(1.5)
    assert client.encrypt().status == 200


def test_an_answer_that_is_not_read(hurried: None) -> None:
    async def large(scope: dict[str, object], _: object, send: object) -> None:
        body = b"x" * 20_000_000
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": body})  # type: ignore[operator]

    config = serve(large, host="127.0.0.1", port=0)
    config.lifespan = "off"
    before = refused("unread")
    with serving(config) as port, raw(port, DIRECT_EXCHANGE) as connection:
        wait_until(lambda: refused("unread") > before, 10)
        with contextlib.suppress(ConnectionError):
            assert len(everything(connection)) < 20_000_000


def test_whoever_says_nothing_makes_room_for_whoever_asks(port: int) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(raw(port)) for _ in range(LIMIT)]
        time.sleep(0.2)
        for _ in range(3):
            assert Client(port, TOKEN).encrypt().status == 200
        assert silent[0].recv(1) == b"", "the one that had waited longest"


def test_the_longest_idle_makes_room(port: int) -> None:
    before = refused("idle")
    idle = [Client(port, TOKEN) for _ in range(LIMIT)]
    assert {one.encrypt().status for one in idle} == {200}
    assert Client(port, TOKEN).encrypt().status == 200
    assert refused("idle") == before + 1
    with pytest.raises(OSError, match=r"."):
        idle[0].encrypt()
    assert {one.encrypt().status for one in idle[1:]} == {200}


def test_requests_whose_body_does_not_come_make_room(port: int) -> None:
    before = refused("share")
    slow = HEAD + TOKEN.encode() + b"\r\nContent-Length: 19\r\n\r\n" + BODY[:5]
    with contextlib.ExitStack() as opened:
        waiting = [opened.enter_context(raw(port, slow)) for _ in range(LIMIT)]
        time.sleep(0.1)  # until they have come
        assert Client(port, TOKEN).encrypt().status == 200
        assert refused("share") > before
        assert any(everything(one).startswith(b"HTTP/1.1 503 ") for one in waiting)


def test_when_all_are_at_work_a_new_one_is_told_so(hurried: None) -> None:
    release = threading.Event()

    async def busy(scope: dict[str, object], _: object, send: object) -> None:
        await asyncio.to_thread(release.wait)
        await send({"type": "http.response.start", "status": 204, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b""})  # type: ignore[operator]

    config = serve(busy, host="127.0.0.1", port=0, max_connections=2)
    config.lifespan = "off"
    with serving(config) as port, raw(port, DIRECT_EXCHANGE) as first, raw(port, DIRECT_EXCHANGE) as second:
        time.sleep(0.2)
        with raw(port, DIRECT_EXCHANGE) as third:
            answer = everything(third).lower()
        assert answer.startswith(b"http/1.1 503 ")
        assert b"retry-after: 1\r\n" in answer
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"content-length: %d\r\n" % len(body) in head
        release.set()
        for one in (first, second):
            assert one.recv(65536).startswith(b"HTTP/1.1 204 ")


def test_an_address_in_use() -> None:
    [taken] = listen("127.0.0.1", 0)
    with taken:
        taken.listen()
        with pytest.raises(CannotListen, match="in use"):
            listen("127.0.0.1", taken.getsockname()[1])
    for one in listen("localhost", 0):
        assert one.family in {socket.AF_INET, socket.AF_INET6}
        one.close()


LATE_BODY = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345"


@pytest.mark.parametrize(
    ("request_", "after"),
    [(DIRECT_EXCHANGE, b"\r\n"), (LATE_BODY, b"67890")],
    ids=["an empty line", "the rest of a body"],
)
def test_what_begins_no_request_keeps_no_connection(
    port: int, monkeypatch: pytest.MonkeyPatch, request_: bytes, after: bytes
) -> None:
    monkeypatch.setattr(wire, "KEEP_ALIVE", 0.5)
    with raw(port, request_) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 ")
        connection.sendall(after)
        assert everything(connection) == b""


def test_whoever_sends_empty_lines_gives_way(port: int) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(LIMIT):
            connection = stack.enter_context(raw(port, DIRECT_EXCHANGE))
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            connection.sendall(b"\r\n")
        time.sleep(0.2)  # until the lines have come
        with raw(port, DIRECT_EXCHANGE) as late:
            assert late.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_request_that_begins_during_an_answer_is_no_idle_one(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    protocols = wire.BoundedProtocol
    idle: list[bool] = []
    start = protocols._start_asgi_task

    def started(self: wire.BoundedProtocol, *values: object) -> None:
        start(self, *values)  # type: ignore[arg-type]
        idle.append(self.idle_since != math.inf)

    monkeypatch.setattr(protocols, "_start_asgi_task", started)
    with raw(port, DIRECT_EXCHANGE + DIRECT_EXCHANGE[:20]) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(DIRECT_EXCHANGE[20:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert idle == [False, False]


@pytest.mark.parametrize(
    ("host", "written"), [("127.0.0.1", "http://127.0.0.1:8"), ("::1", "http://[::1]:8"), ("vault", "http://vault:8")]
)
def test_an_address_is_written_as_a_client_takes_it(host: str, written: str) -> None:
    assert address("http", host, 8) == written
