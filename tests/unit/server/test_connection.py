"""What only a real socket shows: framing, the bounds of a head, and bodies that are refused unread."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import uvicorn

from keyvault_lite.server.connection import MAX_HEAD, MAX_UNREAD, serve
from keyvault_lite.server.request_head import MAX_HEADERS
from tests.support.fake_engine import TOKEN, FakeEngine, build

HEAD = b"POST /keys/orders/encrypt HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n"
JSON = b"Content-Type: application/json\r\n"
BODY = b'{"plaintext": "hi"}'


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = uvicorn.Server(serve(build(FakeEngine()), host="127.0.0.1", port=0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(10)


def read(connection: socket.socket, *, until: bytes = b"") -> bytes:
    """Read until the server closes, or until what is awaited has come."""
    answer = b""
    while not (until and until in answer) and (data := connection.recv(65536)):
        answer += data
    return answer


def talk(port: int, *parts: bytes, until: bytes = b"") -> bytes:
    """Send bytes and read the answer; nothing, if the server has closed while we were still writing."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            for part in parts:
                connection.sendall(part)
            return read(connection, until=until)
        except ConnectionError:
            return b""


def test_a_request(port: int) -> None:
    answer = talk(port, HEAD + JSON + b"Content-Length: 19\r\n\r\n" + BODY, until=b"key_version")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"server:" not in head.lower()
    assert body == b'{"ciphertext":"aWg=","encrypted_dek":"ZGVr","key_version":1}'


def test_after_the_answer_to_head_comes_the_next_answer(port: int) -> None:
    answers = talk(
        port, b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", until=b"}"
    )
    first, second, _ = answers.split(b"\r\n\r\n", 2)
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert second.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 19\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 19\r\n",
        b"Content-Length: 19\r\nTransfer-Encoding: identity\r\n",
        b"Content-Length: 19\r\nContent-Length: 19\r\n",
        b"Content-Length: 19\r\nContent-Length: 20\r\n",
        b"Content-Length: +19\r\n",
        b"Transfer-Encoding: chunked, gzip\r\n",
        b"Transfer-Encoding : chunked\r\n",
    ],
)
def test_one_framing_only(port: int, framing: bytes) -> None:
    answer = talk(port, HEAD + JSON + framing + b"\r\n" + b"13\r\n" + BODY + b"\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer.lower()
    assert answer.count(b"HTTP/1.1") == 1


def test_chunks_are_a_body(port: int) -> None:
    framing = b"Transfer-Encoding: chunked\r\n\r\n"
    answer = talk(port, HEAD + JSON + framing + b"13\r\n" + BODY + b"\r\n0\r\n\r\n", until=b"key_version")
    assert answer.startswith(b"HTTP/1.1 200 ")


OFFERS = [
    b"Connection: upgrade\r\nUpgrade: foo\r\n",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
    b"CONNECTION: UPGRADE\r\nUPGRADE: websocket\r\n",
]


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("framing", ["Content-Length: 19\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"])
def test_an_offer_to_upgrade_is_left_and_the_body_is_the_body(
    port: int, offer: bytes, framing: str, *, together: bool
) -> None:
    head = HEAD + JSON + offer + framing.encode()
    body = BODY if "Length" in framing else b"13\r\n" + BODY + b"\r\n0\r\n\r\n"
    answer = talk(port, *([head + body] if together else [head, body]), until=b"key_version")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "offer", [b"Connection: upgrade\r\nUp\x00grade: foo\r\n", b"Connection: upgrade\r\nuPgRADE: x\r\n"]
)
def test_what_is_sent_as_a_body_is_no_request(port: int, offer: bytes) -> None:
    """Whether the offer was found or not, also if it came in two reads."""
    inner = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    offer, _, rest = offer.replace(b"\x00", b"|").partition(b"|")
    head = HEAD + JSON + b"Content-Length: %d\r\n" % len(inner) + offer
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError):  # refused with the head
            for part in (head, rest + b"\r\n", inner):
                connection.sendall(part)
                time.sleep(0.05)
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with suppress(ConnectionError):
            answer = read(connection)
    assert answer[:12] in {b"", b"HTTP/1.1 400", b"HTTP/1.1 422"}
    assert answer.count(b"HTTP/1.1") <= 1


@pytest.mark.parametrize("together", [True, False])
def test_trailers_are_no_headers(port: int, *, together: bool) -> None:
    head = HEAD.replace(b"Authorization", b"X-Not") + JSON + b"Transfer-Encoding: chunked\r\n\r\n"
    rest = b"13\r\n" + BODY + b"\r\n0\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
    answer = talk(port, *([head + rest] if together else [head, rest]), until=b"}")
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert talk(port, HEAD + head.partition(b"Host: x\r\n")[2] + rest, until=b"}").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("line", [b"X-Many: " + b"a" * 1000 + b"\r\n", b"a" * 1000], ids=["many", "one"])
def test_trailers_are_bounded(port: int, line: bytes) -> None:
    start = HEAD + JSON + b"Transfer-Encoding: chunked\r\n\r\n13\r\n" + BODY + b"\r\n0\r\nX: "
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(start)
        with suppress(ConnectionError):
            for _ in range(20_000):
                connection.sendall(line)
                sent += len(line)
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with suppress(ConnectionError):
            answer = read(connection)
    assert sent < 20_000 * len(line), "it was cut off"
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /keys/" + b"a" * MAX_HEAD + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /keys HTTP/1.1\r\nHost: x\r\nX: " + b"a" * MAX_HEAD + b"\r\n\r\n",
        b"GET /keys HTTP/1.1\r\nHost: x\r\n" + b"X-Many: aaaaaaaaaaaaaaaa\r\n" * 5000 + b"\r\n",
    ],
    ids=["line", "header", "headers"],
)
def test_heads_are_bounded(port: int, head: bytes) -> None:
    answer = talk(port, head)
    # A head of too many lines is not read to its end, so that the client may meet a reset before the answer.
    assert answer.startswith(b"HTTP/1.1 400 ") or (answer == b"" and head.count(b"\r\n") > MAX_HEADERS)


def test_a_head_has_a_bounded_number_of_lines(port: int) -> None:
    for lines, status in ((MAX_HEADERS - 1, b"200"), (MAX_HEADERS, b"400")):
        head = b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * lines + b"\r\n"
        assert talk(port, head, until=b"\r\n\r\n").startswith(b"HTTP/1.1 " + status)


def test_what_is_thrown_away_of_a_body_has_a_bound(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(HEAD + JSON + b"Content-Length: %d\r\n\r\n" % (64 * MAX_UNREAD))
        assert read(connection, until=b"request_id").startswith(b"HTTP/1.1 413 ")
        with pytest.raises(ConnectionError):
            connection.sendall(b"a" * (63 * MAX_UNREAD))


@pytest.mark.parametrize(("extra", "status"), [(1, b"400"), (-2048, b"200")])
def test_a_head_is_bounded_in_however_many_reads_it_comes(port: int, extra: int, status: bytes) -> None:
    lines = (b"X-Many: " + b"a" * 1014 + b"\r\n") * ((MAX_HEAD + extra) // 1020 + 1)
    head = b"GET /health HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(head), 8192):
            connection.sendall(head[start : start + 8192])
            time.sleep(0.005)
        assert read(connection, until=b"\r\n\r\n").startswith(b"HTTP/1.1 " + status)


def test_a_head_that_never_ends(port: int) -> None:
    parts = [b"GET /keys HTTP/1.1\r\nHost: x\r\nX: "] + [b"a" * 65536] * 400
    answer = talk(port, *parts)
    assert not answer or answer.startswith(b"HTTP/1.1 400 ")


def test_a_head_near_the_bound(port: int) -> None:
    padding = b"X: " + b"a" * (MAX_HEAD - 1000) + b"\r\n"
    answer = talk(port, b"GET /health HTTP/1.1\r\nHost: x\r\n" + padding, b"\r\n", until=b"version")
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("declared", [True, False])
def test_a_large_body_is_refused_and_the_connection_goes_on(port: int, declared: bool) -> None:
    size = 3 * 1024 * 1024
    if declared:
        large = HEAD + JSON + b"Content-Length: %d\r\n\r\n" % size + b"a" * size
    else:
        chunk = b"10000\r\n" + b"a" * 65536 + b"\r\n"
        large = HEAD + JSON + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * (size // 65536) + b"0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(large)
        assert read(connection, until=b"request_id").startswith(b"HTTP/1.1 413 ")
        connection.sendall(HEAD + JSON + b"Content-Length: 19\r\n\r\n" + BODY)
        assert read(connection, until=b"key_version").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "line",
    [
        b"GET http://x/keys HTTP/1.1",
        b"GET * HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"CONNECT x:1 HTTP/1.1",
        b"GET /\xff HTTP/1.1",
    ],
)
def test_odd_targets_do_not_hurt(port: int, line: bytes) -> None:
    answer = talk(port, line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert int(answer.split()[1]) in {400, 401, 404, 405}


def test_more_requests_than_are_waited_for_end_the_connection(port: int) -> None:
    one = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + b"\r\n" * 100
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        with suppress(ConnectionError):
            for _ in range(2_000):
                connection.sendall(one * 50)
                sent += 1
        assert sent < 2_000, "it was cut off"


def test_no_refusal_stands_in_the_place_of_another_answer(port: int) -> None:
    """A request under way is answered, or the connection ends without a word."""
    head = HEAD + JSON + b"Content-Length: 19\r\n\r\n"
    answer = talk(port, head + BODY + b"GARBAGE\r\n\r\n")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
        b"GET /health HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET http://a/health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: user@a\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a:b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: [::1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\\b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a?b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/0.9\r\nHost: a\r\n\r\n",
        b"GET /health HTTP/1.2\r\nHost: a\r\n\r\n",
        b"GET /health HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET /health HTTP/9.9\r\nHost: a\r\n\r\n",
    ],
    ids=repr,
)
def test_a_head_without_one_host_or_version_is_refused_and_the_connection_ends(port: int, head: bytes) -> None:
    answer = talk(port, head)  # to the end of the connection
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("host", [b"a", b"a:1", b"a:", b"[::1]", b"[::1]:8000", b"127.0.0.1:8000", b"", b"a_b.example"])
def test_a_head_with_one_host_is_taken(port: int, host: bytes) -> None:
    head = b"GET /health HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
    assert talk(port, head, until=b"version").startswith(b"HTTP/1.1 200 ")
    assert talk(port, b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
