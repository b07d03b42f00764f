"""The load: one request in flight on each keep-alive connection, next one as soon as the answer is whole.

Runs as a process of its own (`python -m benchmarks.load`), a specification on standard input and a measurement on
standard output, both JSON. It does as little as it can: the request's bytes are made once, one epoll loop without any
framework serves all connections, and an answer is read as far as its status and length. How much of its core it used
is part of the measurement: a client near 100 % measures itself.
"""

import json
import os
import select
import socket
import subprocess
import sys
import time
from array import array
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from benchmarks.process import cpu_seconds, own_cpu_seconds

WARM_UP: Final = 0.25
"""Seconds before the measurement begins: caches fill and the group commit finds its size."""
PATIENCE: Final = 10.0
"""Seconds without any answer after which the server counts as hung."""
_READ: Final = 1 << 18
_OK: Final = b"HTTP/1.1 200"
_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"
_CLOSE: Final = b"connection: close"


@dataclass(frozen=True, slots=True)
class Load:
    """What to send, to whom, and for how long."""

    port: int
    pid: int
    """The server's process, whose CPU is measured."""
    request: str
    """The whole HTTP request, as latin-1 text."""
    connections: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    server_cpu_us: float
    """Of the server, a request."""
    client_busy: float
    """How much of one core the client used, 0 to 1."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


class WrongAnswerError(Exception):
    """An answer that is not 200, or none: what was measured would be something else than what was meant."""


class _Connection:
    """One connection and the request in flight on it; kept alive, unless the server says that it closes."""

    __slots__ = ("_buffer", "_due", "_port", "closing", "sent_at", "socket")

    def __init__(self, port: int) -> None:
        self.socket = _connected(port)
        self.closing = False
        self._port = port
        self.sent_at = 0.0
        self._buffer = b""
        self._due = 0

    def send(self, request: bytes) -> None:
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Take what has arrived; whether the answer is whole now."""
        data = self.socket.recv(_READ)
        if not data:
            raise WrongAnswerError("the server closed the connection")
        if self._buffer:
            data = self._buffer + data
        if not self._due:
            end = data.find(_END)
            if end < 0:
                self._buffer = data
                return False
            if not data.startswith(_OK):
                raise WrongAnswerError(data[:500].decode("latin-1"))
            at = data.lower().index(_LENGTH) + len(_LENGTH)
            self._due = end + len(_END) + int(data[at : data.index(b"\r", at)])
            self.closing = _CLOSE in data[:end].lower()
        if len(data) < self._due:
            self._buffer = data
            return False
        self._buffer, self._due = b"", 0
        return True

    def renew(self, poll: select.epoll) -> None:
        """Connect anew, under the same descriptor: to a server that closes after each answer."""
        descriptor = self.socket.fileno()
        poll.unregister(descriptor)
        with _connected(self._port) as fresh:
            os.dup2(fresh.fileno(), descriptor)
        poll.register(descriptor, select.EPOLLIN)
        self.closing = False


def _connected(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def run(load: Load) -> Measured:
    """Put the load on the server. Raises WrongAnswerError for the first answer that is not 200."""
    request = load.request.encode("latin-1")
    connections = {one.socket.fileno(): one for one in (_Connection(load.port) for _ in range(load.connections))}
    poll = select.epoll()
    for descriptor in connections:
        poll.register(descriptor, select.EPOLLIN)
    for one in connections.values():
        one.send(request)
    _exchange(poll, connections, request, until=time.perf_counter() + WARM_UP)
    before, own_before, begun = cpu_seconds(load.pid), own_cpu_seconds(), time.perf_counter()
    latencies = _exchange(poll, connections, request, until=begun + load.seconds)
    seconds = time.perf_counter() - begun
    used, own_used = cpu_seconds(load.pid) - before, own_cpu_seconds() - own_before
    for one in connections.values():
        one.socket.close()
    ordered = sorted(latencies)
    return Measured(
        requests=len(ordered),
        seconds=seconds,
        p50_ms=1000 * ordered[len(ordered) // 2],
        p99_ms=1000 * ordered[len(ordered) * 99 // 100],
        server_cpu_us=1e6 * used / len(ordered),
        client_busy=own_used / seconds,
    )


def _exchange(
    poll: select.epoll, connections: dict[int, _Connection], request: bytes, *, until: float
) -> "array[float]":
    """Answer each answer with the next request; the latencies in seconds."""
    latencies = array("d")
    clock = time.perf_counter
    now = clock()
    while now < until:
        ready = poll.poll(PATIENCE)
        if not ready:
            raise WrongAnswerError("the server does not answer any more")
        for descriptor, _ in ready:
            one = connections[descriptor]
            if one.receive():
                latencies.append(clock() - one.sent_at)
                if one.closing:
                    one.renew(poll)
                one.send(request)
        now = clock()
    if not latencies:
        raise WrongAnswerError("not one answer in the time given")
    return latencies


class Client:
    """A load process that is kept for the whole run, so that its start is in no measurement."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load"],
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def measure(self, load: Load) -> Measured:
        """As `run`, over there."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the client has no pipes")
        self._process.stdin.write(json.dumps(asdict(load)) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"wrong": "the client ended"}')
        if "wrong" in answer:
            raise WrongAnswerError(answer["wrong"])
        return Measured(**answer)


def main() -> None:
    """Serve specifications, one a line, until there are no more."""
    for line in sys.stdin:
        try:
            answer: dict[str, object] = asdict(run(Load(**json.loads(line))))
        except (WrongAnswerError, OSError) as error:
            answer = {"wrong": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
