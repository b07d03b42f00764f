"""Head and body leave together; nothing that was written is lost, doubled or reordered."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from keyvault_lite.server.corked_transport import CorkedTransport


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
        transport = CorkedTransport(recorder, asyncio.get_running_loop())  # type: ignore[arg-type]
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
