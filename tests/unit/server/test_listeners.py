"""A server of several listeners: TCP, a Unix socket, TLS with a client certificate, a protocol that is not HTTP."""

import asyncio
import datetime as dt
import http.client
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from keyvault_lite.model.intake import UNKNOWN_PEER, Peer
from keyvault_lite.server.connection import serve
from keyvault_lite.server.lifecycle import Server
from keyvault_lite.server.listeners import CannotListen, Closing, Listener, UnixSocket, listen
from keyvault_lite.wire.direct_exchange import DIRECT_EXCHANGE

SECONDS = 10


class Application:
    """Answers 200 to all, and remembers the peers of its requests."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return
        self.peers.append(scope["extensions"][DIRECT_EXCHANGE].conn.peer)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@contextmanager
def served(
    app: Application, sockets: Sequence[socket.socket], *listeners: Listener, tls: ssl.SSLContext | None = None
) -> Iterator[Server]:
    ready = threading.Event()
    server = Server(serve(app, host="127.0.0.1", port=0, tls=tls), listeners=listeners, on_start=ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": list(sockets)})
    thread.start()
    try:
        assert ready.wait(SECONDS)
        yield server
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive(), "every listener ends with the server"


class OverUnix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        self.sock.connect(str(self._path))


def get(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/")
    status = connection.getresponse().status
    connection.close()
    return status


def test_one_process_serves_tcp_and_a_unix_socket(tmp_path: Path) -> None:
    app, beside = Application(), UnixSocket(tmp_path / "kvl.sock")
    (tcp,) = listen("127.0.0.1", 0)
    port = tcp.getsockname()[1]
    try:
        with served(app, [tcp, beside.socket]):
            assert (tmp_path / "kvl.sock").stat().st_mode & 0o777 == 0o600
            assert get(http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)) == 200
            assert get(OverUnix(tmp_path / "kvl.sock")) == 200
    finally:
        beside.close()
    assert app.peers == [UNKNOWN_PEER, Peer(uid=os.getuid(), gid=os.getgid(), pid=os.getpid())]
    assert not (tmp_path / "kvl.sock").exists()


class Lines(asyncio.Protocol):
    """A protocol that is not HTTP: answers each line with its length."""

    def __init__(self, connections: set[Closing]) -> None:
        self._connections = connections
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._transport.write(f"{len(data.rstrip())}\n".encode())

    def shutdown(self) -> None:
        self._transport.write(b"bye\n")
        self._transport.close()


def test_a_protocol_that_is_not_http_is_one_more_listener_and_ends_with_the_server() -> None:
    app = Application()
    (tcp,), (lines,) = listen("127.0.0.1", 0), listen("127.0.0.1", 0)
    with served(app, [tcp], Listener(lines, protocol=Lines)):
        client = socket.create_connection(lines.getsockname(), timeout=SECONDS)
        client.sendall(b"12345\n")
        assert client.recv(16) == b"5\n"
        assert get(http.client.HTTPConnection("127.0.0.1", tcp.getsockname()[1], timeout=SECONDS)) == 200
    assert client.recv(16) == b"bye\n"
    assert client.recv(16) == b""
    client.close()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, bytes]:
    """A certificate with its key in one PEM file, and its DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "pair.pem").write_bytes(pem)
    return tmp_path / "pair.pem", certificate.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("presents", [True, False])
def test_the_certificate_of_a_client_arrives_with_its_requests(pair: tuple[Path, bytes], *, presents: bool) -> None:
    path, der = pair
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(path)
    tls.load_verify_locations(path)
    tls.verify_mode = ssl.CERT_OPTIONAL
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    if presents:
        client.load_cert_chain(path)
    app = Application()
    (tcp,) = listen("127.0.0.1", 0)
    port = tcp.getsockname()[1]
    with served(app, [tcp], tls=tls):
        assert get(http.client.HTTPSConnection("127.0.0.1", port, timeout=SECONDS, context=client)) == 200
    assert app.peers == [Peer(certificate=der) if presents else UNKNOWN_PEER]
    assert der.hex() not in repr(app.peers)


class TestUnixSocket:
    def test_a_folder_that_others_can_write_is_refused(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o777)
        with pytest.raises(CannotListen, match="other users can write its folder"):
            UnixSocket(tmp_path / "kvl.sock")

    def test_the_socket_of_a_live_process_is_not_replaced(self, tmp_path: Path) -> None:
        first = UnixSocket(tmp_path / "kvl.sock")
        with pytest.raises(CannotListen, match="another process serves there"):
            UnixSocket(tmp_path / "kvl.sock")
        first.close()
        UnixSocket(tmp_path / "kvl.sock").close()

    def test_that_of_a_process_that_has_ended_is(self, tmp_path: Path) -> None:
        left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        left.bind(str(tmp_path / "kvl.sock"))
        left.close()
        UnixSocket(tmp_path / "kvl.sock").close()
        assert not (tmp_path / "kvl.sock").exists()

    @pytest.mark.parametrize("plant", [lambda path: path.write_text("x"), lambda path: path.symlink_to("elsewhere")])
    def test_no_other_file_is_replaced(self, tmp_path: Path, plant: Callable[[Path], object]) -> None:
        plant(tmp_path / "kvl.sock")
        with pytest.raises(CannotListen, match="it is a file, not a socket"):
            UnixSocket(tmp_path / "kvl.sock")
        assert os.path.lexists(tmp_path / "kvl.sock")

    def test_the_file_of_a_successor_is_not_removed(self, tmp_path: Path) -> None:
        mine = UnixSocket(tmp_path / "kvl.sock")
        (tmp_path / "kvl.sock").unlink()
        (tmp_path / "kvl.sock").write_text("another")
        mine.close()
        assert (tmp_path / "kvl.sock").exists()

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(CannotListen, match="No such file"):
            UnixSocket(tmp_path / "absent" / "kvl.sock")
