"""LIST over a real socket: the HTTP parser does not know the method, and clients of Vault depend on it."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from keyvault_lite.server.connection import serve


async def echo(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    body = scope["method"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
    server = uvicorn.Server(serve(echo, host="127.0.0.1", port=number))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield number
    server.should_exit = True
    thread.join(10)


def ask(connection: socket.socket, method: str, body: bytes = b"") -> bytes:
    head = f"{method} /v1/transit/keys HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection.recv(4096).rpartition(b"\r\n\r\n")[2]


def test_list_among_others_on_one_connection(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for method in ("LIST", "GET", "LIST", "LINK", "POST", "LIST"):
            assert ask(connection, method) == method.encode()


def test_the_word_in_a_body_is_left_alone(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n")
        connection.sendall(b"LIST ")
        assert connection.recv(4096).endswith(b"POST")
        assert ask(connection, "LIST", b"LIST ") == b"LIST"


def test_methods_that_are_none_stay_refused(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"LISTEN / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 400")
