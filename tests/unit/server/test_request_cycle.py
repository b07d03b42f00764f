"""A request that comes and goes whole is the same request as one in messages, and nothing of either is lost."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from keyvault_lite.server.connection import serve
from keyvault_lite.server.corked_transport import CorkedTransport
from keyvault_lite.server.request_cycle import RequestCycle
from keyvault_lite.wire.direct_exchange import DIRECT_EXCHANGE
from keyvault_lite.wire.http import Exchange
from tests.unit.server.test_corked_transport import HEAD, Recorder


class Silent(Recorder):
    """Whose ends have no address, and whose other side can be told to wait."""

    reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_extra_info(self, name: str) -> Any:  # noqa: ANN401
        return None


class Answered:
    """Counts the ends of responses."""

    count = 0

    def __call__(self) -> None:
        self.count += 1


def whole(
    headers: Sequence[tuple[bytes, bytes]], *before: bytes, method: str = "POST", paused: bool = False, **more: object
) -> tuple[bool, RequestCycle, Recorder, Answered]:
    """Write an answer of one piece, after what was written before."""
    recorder, answered = Recorder(), Answered()

    async def run() -> tuple[bool, RequestCycle]:
        transport = CorkedTransport(recorder, asyncio.get_running_loop())  # type: ignore[arg-type]
        for piece in before:
            transport.write(piece)
        scope: Any = {"method": method}
        flow: Any = SimpleNamespace(write_paused=paused)
        date = [(b"date", b"today")]
        cycle = RequestCycle(scope, transport, flow, date, answered, keep_alive=True, awaits_continue=True)
        vars(cycle).update(more)
        return cycle.write_whole(200, headers, b"body"), cycle

    return *asyncio.run(run()), recorder, answered


LENGTH = [(b"content-length", b"4")]
ANSWER = b"HTTP/1.1 200 OK\r\nDate: today\r\nContent-Length: 4\r\n"


def test_a_whole_answer_is_one_write_and_the_end_of_its_request() -> None:
    written, cycle, recorder, answered = whole(LENGTH)
    assert written
    assert recorder.writes == [ANSWER + b"\r\nbody"]
    assert cycle.response_started
    assert cycle.response_complete
    assert answered.count == 1
    assert not recorder.closed
    assert not cycle.waiting_for_100_continue


def test_a_whole_answer_comes_after_what_was_kept() -> None:
    assert whole(LENGTH, HEAD)[2].writes == [HEAD, ANSWER + b"\r\nbody"]


def test_a_connection_that_is_not_kept_is_closed_and_told_so() -> None:
    written, _, recorder, _ = whole(LENGTH, keep_alive=False)
    assert written
    assert recorder.writes == [ANSWER + b"Connection: close\r\n\r\nbody"]
    assert recorder.closed


@pytest.mark.parametrize(
    "how",
    [{"method": "HEAD"}, {"paused": True}, {"disconnected": True}, {"response_started": True}],
    ids=["HEAD", "paused", "gone", "begun"],
)
def test_what_needs_messages_is_left_to_them(how: dict[str, Any]) -> None:
    written, _, recorder, answered = whole(LENGTH, **how)
    assert not written
    assert not recorder.writes
    assert not answered.count


@pytest.mark.parametrize(
    "header",
    [(b"x", b"a\r\nset-cookie: b"), (b"x", b"a\n"), (b"x\r", b"a"), (b"x", b"a\r\n\r\nbody")],
)
def test_a_header_that_is_two_lines_is_never_sent(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="two lines"):
        whole([*LENGTH, header])


App = Callable[[Any, Any, Any], Awaitable[None]]


class Connection:
    """A connection to an application, without a socket."""

    def __init__(self, app: App) -> None:
        config = serve(app, host="127.0.0.1", port=0)
        config.load()
        protocol: Any = config.http_protocol_class
        self.protocol = protocol(config=config, server_state=ServerState(), app_state={})
        self.recorder = Silent()
        self.protocol.connection_made(self.recorder)

    async def send(self, *parts: bytes) -> None:
        """Each part in a turn of its own, which is long enough for all that can be done with it."""
        for part in parts:
            self.protocol.data_received(part)
            for _ in range(10):
                await asyncio.sleep(0)

    @property
    def sent(self) -> bytes:
        return b"".join(self.recorder.writes)


async def _answer(scope: Any, body: bytes) -> None:  # noqa: ANN401
    assert scope["extensions"][DIRECT_EXCHANGE].write_whole(200, [(b"content-length", b"%d" % len(body))], body)


def request(body: bytes, *, expects: bool = False) -> bytes:
    expect = b"expect: 100-continue\r\n" if expects else b""
    return b"POST / HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b" % (expect, len(body), body)


def test_a_request_that_was_answered_whole_leaves_no_cycle() -> None:
    """What is left to the collector of cycles holds everybody up when it is collected."""
    answered: list[weakref.ref[object]] = []

    async def app(scope: Any, receive: Any, _: object) -> None:  # noqa: ANN401
        body = await Exchange(scope, receive).body()
        answered.append(weakref.ref(connection.protocol.cycle))
        await _answer(scope, body)

    connection: Any = None

    async def run() -> None:
        nonlocal connection
        connection = Connection(app)
        await connection.send(request(b"{}"), request(b"{}"))

    gc.disable()
    try:
        asyncio.run(run())
        assert [one() is None for one in answered] == [True, False], "the newest is still the connection's"
    finally:
        gc.enable()


@given(st.binary(max_size=40), st.lists(st.integers(0, 140), max_size=4), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=200)
def test_a_body_arrives_however_it_is_cut_and_taken(body: bytes, cuts: list[int], whole: bool, late: bool) -> None:
    """By the extension or by messages, begun before the body is here or after; twice on one connection."""
    got: list[bytes] = []

    async def app(scope: Any, receive: Any, _: object) -> None:  # noqa: ANN401
        if late:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if whole:
            got.append(await Exchange(scope, receive).body())
        else:
            parts, more = [], True
            while more:
                message = await receive()
                assert message["type"] == "http.request"
                parts.append(message["body"])
                more = message["more_body"]
            got.append(b"".join(parts))
        await _answer(scope, b"ok")

    async def run() -> bytes:
        connection = Connection(app)
        data = request(body)
        places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        parts = [data[low:high] for low, high in pairwise(places) if low < high]
        await connection.send(*parts, *parts)
        return connection.sent

    sent = asyncio.run(run())
    assert got == [body, body]
    assert sent.count(b"HTTP/1.1 200 OK") == 2


def _taken(*sent: bytes, leave: bool = True) -> tuple[list[Any], bytes]:
    """What an application finds that takes a body, then waits for what comes after it."""
    found: list[Any] = []

    async def app(scope: Any, receive: Any, _: object) -> None:  # noqa: ANN401
        found.append(scope["extensions"][DIRECT_EXCHANGE].read_whole())
        found.append(scope["extensions"][DIRECT_EXCHANGE].read_whole())
        found.append((await receive())["type"])

    async def run() -> bytes:
        connection = Connection(app)
        await connection.send(*sent)
        if leave:
            connection.protocol.connection_lost(None)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        else:
            for task in tuple(connection.protocol.tasks):
                task.cancel()
        return connection.sent

    return found, asyncio.run(run())


def test_a_body_is_taken_once_and_what_follows_it_is_the_end() -> None:
    assert _taken(request(b"body"))[0] == [b"body", None, "http.disconnect"]
    assert _taken(request(b"body"), leave=False)[0] == [b"body", None], "nothing follows while the client is there"


def test_a_body_that_is_not_all_here_comes_by_messages() -> None:
    assert _taken(request(b"body")[:-1])[0] == [None, None, "http.request"]


def test_who_asks_whether_to_go_on_is_told_unless_it_has_gone_on() -> None:
    asked = request(b"body", expects=True)
    assert b"100 Continue" not in _taken(asked)[1]
    assert _taken(asked[:-4])[1] == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_a_client_that_sends_too_much_ahead_waits_until_it_is_read() -> None:
    reading: list[bool] = []

    async def app(scope: Any, receive: Any, _: object) -> None:  # noqa: ANN401
        reading.append(connection.recorder.reading)
        assert len(await Exchange(scope, receive).body()) == 70_000
        reading.append(connection.recorder.reading)
        await _answer(scope, b"")

    connection: Any = None

    async def run() -> None:
        nonlocal connection
        connection = Connection(app)
        await connection.send(request(bytes(70_000)))

    asyncio.run(run())
    assert reading == [False, True]


def test_what_comes_of_a_body_after_its_answer_is_left() -> None:
    async def app(scope: Any, _: object, __: object) -> None:  # noqa: ANN401
        await _answer(scope, b"")

    async def run() -> Connection:
        connection = Connection(app)
        data = request(b"0123456789")
        await connection.send(data[:-5], data[-5:], request(b""))
        return connection

    connection = asyncio.run(run())
    assert connection.sent.count(b"HTTP/1.1 200") == 2
    assert not connection.protocol.cycle.body
