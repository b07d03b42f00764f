"""Somebody between the vault and its database server, who answers in the server's name as he likes."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from struct import pack, unpack
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

AUTHENTICATION, ROW_DESCRIPTION, DATA_ROW, PASSWORD = b"R", b"T", b"D", b"p"
Messages = Iterator[tuple[bytes, bytes]]
"""Kinds and bodies."""
Answer = Callable[[bytes, bytes], Messages]
"""answer(kind, body) → the messages that take the place of one of the server's."""


def message(kind: bytes, body: bytes) -> bytes:
    """A message as the protocol frames it (version 3)."""
    return kind + pack(">I", len(body) + 4) + body


def with_types(body: bytes, oid: int, *, binary: int | None = None) -> bytes:
    """A RowDescription in which every column has this type."""
    (count,) = unpack(">H", body[:2])
    out, at = body[:2], 2
    for _ in range(count):
        end = body.index(b"\0", at) + 1
        table, column, _, size, modifier, form = unpack(">IhIhih", body[end : end + 18])
        form = form if binary is None else binary
        out += body[at:end] + pack(">IhIhih", table, column, oid, size, modifier, form)
        at = end + 18
    return out


def error(text: str, state: str = "XX000") -> bytes:
    """The body of an ErrorResponse."""
    fields = (("S", "ERROR"), ("V", "ERROR"), ("C", state), ("M", text))
    return b"".join(name.encode() + value.encode() + b"\0" for name, value in fields) + b"\0"


class Middle:
    """A proxy on a loopback address. It refuses TLS."""

    def __init__(self, url: str) -> None:
        parts = conninfo_to_dict(url)
        self._target = f"{parts['host']}/.s.PGSQL.{parts.get('port') or 5432}"
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.answer: Answer | None = None
        """What is done to the server's messages; None passes them on."""
        self.asks: bytes | None = None
        """The AuthenticationRequest that each client is met with."""
        self.passwords: list[bytes] = []
        """What clients have answered to it."""
        name, user = parts["dbname"], parts.get("user") or "postgres"
        port = self._listening.getsockname()[1]
        self.url = f"postgresql://{user}:hush@127.0.0.1:{port}/{quote(str(name))}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take nobody any more."""
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError, EOFError):
            # Messages are written one by one: each second one would wait for the client's delayed acknowledgement.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            startup = _framed(client)
            while startup[4:8] in {pack(">I", 80877103), pack(">I", 80877104)}:
                client.sendall(b"N")  # neither TLS nor GSSAPI
                startup = _framed(client)
            if self.asks is not None:
                client.sendall(message(AUTHENTICATION, self.asks))
                kind = _exactly(client, 1)
                if kind == PASSWORD:
                    self.passwords.append(_framed(client)[4:])
                return
            server.connect(self._target)
            server.sendall(startup)
            threading.Thread(target=_pass, args=(client, server), daemon=True).start()
            while True:
                kind = _exactly(server, 1)
                body = _framed(server)[4:]
                if self.answer is None:
                    client.sendall(message(kind, body))
                else:
                    for one in self.answer(kind, body):
                        client.sendall(message(*one))


def _exactly(stream: socket.socket, count: int) -> bytes:
    read = b""
    while len(read) < count:
        more = stream.recv(count - len(read))
        if not more:
            raise EOFError
        read += more
    return read


def _framed(stream: socket.socket) -> bytes:
    head = _exactly(stream, 4)
    return head + _exactly(stream, unpack(">I", head)[0] - 4)


def _pass(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while more := source.recv(65536):
            target.sendall(more)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def between(url: str) -> Iterator[Middle]:
    """Somebody in the middle of the way to a database."""
    middle = Middle(url)
    try:
        yield middle
    finally:
        middle.close()
