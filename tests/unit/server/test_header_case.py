"""Names of headers leave as HTTP/1.1 has always written them, whoever writes the answer."""

import asyncio
import re
from typing import Any

import pytest

from keyvault_lite.server.canned_responses import FULL, SLOW
from keyvault_lite.server.header_case import BEGINNINGS, spelled
from tests.unit.server.test_request_cycle import Connection, _answer, request

FIELDS = [(b"content-type", b"text/a: b"), (b"x-amzn-requestid", b"1"), (b"audit-id", b"7")]
SPELLED = b"Content-Type: text/a: b\r\nX-Amzn-RequestId: 1\r\nAudit-Id: 7\r\n"
BODY = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n"
"""A body that looks like a head."""


def sent(app: Any, *parts: bytes) -> bytes:  # noqa: ANN401
    async def run() -> bytes:
        connection = Connection(app)
        connection.protocol.server_state.default_headers = [(b"date", b"today")]
        await connection.send(*parts)
        return connection.sent

    return asyncio.run(run())


def by_messages(*bodies: bytes, length: bool = True) -> Any:  # noqa: ANN401
    """An application that answers by messages, each body in a turn of its own."""

    async def app(_: object, __: object, send: Any) -> None:  # noqa: ANN401
        whole = [(b"content-length", b"%d" % len(b"".join(bodies)))] if length else []
        await send({"type": "http.response.start", "status": 200, "headers": [*FIELDS, *whole]})
        for number, body in enumerate(bodies, 1):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})

    return app


def test_a_whole_answer() -> None:
    async def app(scope: Any, _: object, __: object) -> None:  # noqa: ANN401
        await _answer(scope, BODY)

    head = b"HTTP/1.1 200 OK\r\nDate: today\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    assert sent(app, request(b"")) == head + BODY


def test_an_answer_by_messages_and_only_its_head() -> None:
    head = b"HTTP/1.1 200 OK\r\nDate: today\r\n%bContent-Length: %d\r\n\r\n" % (SPELLED, 2 * len(BODY))
    assert sent(by_messages(BODY, BODY), request(b"")) == head + BODY + BODY


def test_what_uvicorn_adds() -> None:
    app = by_messages(b"x", length=False)
    head = b"HTTP/1.1 200 OK\r\nDate: today\r\n" + SPELLED
    chunked = b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    assert sent(app, request(b"")) == head + chunked
    old = b"POST / HTTP/1.0\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    assert sent(app, old) == head + b"Connection: close\r\n" + chunked


def test_the_answer_to_head() -> None:
    head = b"HTTP/1.1 200 OK\r\nDate: today\r\n%bContent-Length: 1\r\n\r\n" % SPELLED
    assert sent(by_messages(b"x"), b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n") == head


def test_what_is_no_request() -> None:
    answer = sent(by_messages(b""), b"nonsense\r\n\r\n")
    head = b"HTTP/1.1 400 Bad Request\r\nDate: today\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: "
    assert answer.startswith(head)
    assert b"\r\nConnection: close\r\n\r\n" in answer


@pytest.mark.parametrize("farewell", [FULL, SLOW])
def test_farewells_are_spelled_and_as_long_as_they_say(farewell: bytes) -> None:
    assert spelled(farewell) == farewell
    _, _, body = farewell.partition(b"\r\n\r\n")
    assert re.findall(rb"Content-Length: (\d+)", farewell) == [b"%d" % len(body)]


def test_names() -> None:
    assert BEGINNINGS[b"www-authenticate"] == b"WWW-Authenticate: "
    assert BEGINNINGS[b"X-AMZN-REQUESTID"] == b"X-Amzn-RequestId: "
    assert spelled(b"HTTP/1.1 100 Continue\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
