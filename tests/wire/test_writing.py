"""Head and body leave together; nothing that was written is lost, doubled or reordered."""

import asyncio
import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from keyvault_lite.wire.server import serve
from keyvault_lite.wire.writing import WHOLE, OneWrite, write_whole


class Recorder:
    """A transport that keeps what it is given."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, name: str) -> str:
        return f"info {name}"


def in_loop(*turns: tuple[bytes, ...], close: bool = False) -> Recorder:
    """Write each turn's pieces in one turn of a loop."""
    recorder = Recorder()

    async def run() -> None:
        transport = OneWrite(recorder, asyncio.get_running_loop())  # type: ignore[arg-type]
        for pieces in turns:
            for piece in pieces:
                transport.write(piece)
            if not close:
                await asyncio.sleep(0)
        if close:
            transport.close()
        assert transport.get_extra_info("peername") == "info peername"

    asyncio.run(run())
    return recorder


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


def test_head_and_body_are_one_write() -> None:
    assert in_loop((HEAD, b"body")).writes == [HEAD + b"body"]


def test_a_head_alone_leaves_at_the_end_of_its_turn() -> None:
    assert in_loop((HEAD,), (b"late",)).writes == [HEAD, b"late"]


def test_answers_to_pipelined_requests_stay_in_order() -> None:
    assert b"".join(in_loop((HEAD, b"one", HEAD, b"two")).writes) == HEAD + b"one" + HEAD + b"two"


def test_closing_sends_what_was_kept() -> None:
    recorder = in_loop((HEAD,), close=True)
    assert recorder.writes == [HEAD]
    assert recorder.closed


@given(st.lists(st.lists(st.sampled_from([HEAD, b"a", b"HTTP/1.1 in a body", b""]), max_size=4).map(tuple), max_size=5))
def test_nothing_is_lost_doubled_or_reordered(turns: list[tuple[bytes, ...]]) -> None:
    assert b"".join(in_loop(*turns).writes) == b"".join(piece for pieces in turns for piece in pieces)


class Cycle(SimpleNamespace):
    """As much of uvicorn's request as writing needs."""

    def __init__(self, method: str = "POST", *, write_paused: bool = False, **more: object) -> None:
        super().__init__(
            scope={"method": method},
            flow=SimpleNamespace(write_paused=write_paused),
            default_headers=[(b"date", b"today")],
            disconnected=False,
            keep_alive=True,
            response_started=False,
            response_complete=False,
            waiting_for_100_continue=True,
            message_event=asyncio.Event(),
            answered=0,
        )
        vars(self).update(more)

    def on_response(self) -> None:
        self.answered += 1


def whole(cycle: Cycle, headers: list[tuple[bytes, bytes]], *before: bytes) -> tuple[bool, Recorder]:
    """Write an answer of one piece, after what was written before."""
    recorder = Recorder()

    async def run() -> bool:
        transport = OneWrite(recorder, asyncio.get_running_loop())  # type: ignore[arg-type]
        for piece in before:
            transport.write(piece)
        return write_whole(cycle, transport, 200, headers, b"body")  # type: ignore[arg-type]

    return asyncio.run(run()), recorder


LENGTH = [(b"content-length", b"4")]
ANSWER = b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 4\r\n"


def test_a_whole_answer_is_one_write_and_the_end_of_its_request() -> None:
    cycle = Cycle()
    written, recorder = whole(cycle, LENGTH)
    assert written
    assert recorder.writes == [ANSWER + b"\r\nbody"]
    assert cycle.response_started
    assert cycle.response_complete
    assert cycle.message_event.is_set()
    assert cycle.answered == 1
    assert not recorder.closed
    assert not cycle.waiting_for_100_continue


def test_a_whole_answer_comes_after_what_was_kept() -> None:
    _, recorder = whole(Cycle(), LENGTH, HEAD)
    assert recorder.writes == [HEAD, ANSWER + b"\r\nbody"]


def test_a_connection_that_is_not_kept_is_closed_and_told_so() -> None:
    cycle = Cycle(keep_alive=False)
    written, recorder = whole(cycle, LENGTH)
    assert written
    assert recorder.writes == [ANSWER + b"connection: close\r\n\r\nbody"]
    assert recorder.closed


@pytest.mark.parametrize(
    "cycle",
    [Cycle("HEAD"), Cycle(write_paused=True), Cycle(disconnected=True), Cycle(response_started=True)],
    ids=["HEAD", "paused", "gone", "begun"],
)
def test_what_needs_messages_is_left_to_them(cycle: Cycle) -> None:
    written, recorder = whole(cycle, LENGTH)
    assert not written
    assert not recorder.writes
    assert not cycle.answered


@pytest.mark.parametrize(
    "header",
    [(b"x", b"a\r\nset-cookie: b"), (b"x", b"a\n"), (b"x\r", b"a"), (b"x", b"a\r\n\r\nbody")],
)
def test_a_header_that_is_two_lines_is_never_sent(header: tuple[bytes, bytes]) -> None:
    cycle = Cycle()
    with pytest.raises(ValueError, match="two lines"):
        whole(cycle, [*LENGTH, header])
    assert not cycle.response_started


class Silent(Recorder):
    """Whose ends have no address."""

    def get_extra_info(self, name: str) -> Any:  # noqa: ANN401
        return None


def test_a_request_that_was_answered_whole_leaves_no_cycle() -> None:
    """What is left to the collector of cycles holds everybody up when it is collected."""
    answered: list[weakref.ref[object]] = []

    async def app(scope: Any, receive: Any, _: object) -> None:  # noqa: ANN401
        await receive()
        answered.append(weakref.ref(connection.cycle))
        assert scope["extensions"][WHOLE](200, [(b"content-length", b"2")], b"ok")

    connection: Any = None

    async def run() -> None:
        nonlocal connection
        config = serve(app, host="127.0.0.1", port=0)
        config.load()
        protocol: Any = config.http_protocol_class
        connection = protocol(config=config, server_state=ServerState(), app_state={})
        connection.connection_made(Silent())
        for _ in range(2):
            connection.data_received(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
            await asyncio.gather(*connection.tasks)

    gc.disable()
    try:
        asyncio.run(run())
        assert [one() is None for one in answered] == [True, False], "the newest is still the connection's"
    finally:
        gc.enable()
