"""Several processes behind one address: they are started, watched, restarted when they die, and ended together.

The supervisor holds the listening sockets and opens nothing else: one set for each worker, so that the kernel spreads
connections over them evenly, which a socket that all of them accept from does not do. A worker that dies takes only its
own requests with it; its sockets take no more until it serves again. One that cannot start is tried again, ever later,
as long as another one serves. A worker whose supervisor has gone ends by itself.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Final

import uvicorn

from keyvault_lite.observe import logger
from keyvault_lite.observe.metrics import METRICS
from keyvault_lite.server.connection import GRACE_SECONDS
from keyvault_lite.server.lifecycle import STOPPING, Server

START_SECONDS: Final = 120.0
"""How long a worker may take until it serves: it reads and checks the vault first."""
STOP_SECONDS: Final = GRACE_SECONDS + 7.0
"""How long it may take to end; then it is killed."""
RETRY_SECONDS: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""The delay before a worker is restarted, by how often it has died without ever serving."""
CANNOT_START: Final = 3
"""Exit code when no worker can be started."""
HAS_ENDED: Final = 5
"""Exit code of a worker whose application has ended its server: the others end too."""

MakeConfig = Callable[[int], uvicorn.Config]
"""From a worker's number to what it serves. Called in the worker; must survive pickling."""
Listen = Callable[[], Sequence[socket.socket]]
_log: Final = logger("workers")
_spawning: Final = get_context("spawn")


def _work(make: MakeConfig, number: int, sockets: list[socket.socket], line: Connection) -> None:
    """Be a worker: serve until told to end, or until the supervisor is gone."""
    for one in STOPPING:
        signal.signal(one, signal.SIG_DFL)

    def outlive_nobody() -> None:
        with suppress(OSError, EOFError):
            line.recv_bytes()  # nothing ever comes
        METRICS.abandon()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=outlive_nobody, name="supervisor", daemon=True).start()

    def ready() -> None:
        with suppress(OSError):
            line.send_bytes(b"ready")

    server = Server(make(number), on_start=ready)
    server.run(sockets=sockets)
    if server.has_ended:
        sys.exit(HAS_ENDED)


@dataclass(slots=True)
class _Worker:
    number: int
    process: SpawnProcess
    line: Connection
    """Says when it serves; its end tells the worker that the supervisor has gone."""
    began: float
    ready: bool = False

    @property
    def alive(self) -> bool:
        return self.process.exitcode is None

    def listen(self) -> None:
        """Take note of whether it serves by now."""
        with suppress(OSError, EOFError):
            if not self.ready and self.line.poll():
                self.ready = self.line.recv_bytes() == b"ready"

    def end(self) -> None:
        """Ask it to end."""
        if self.alive:
            self.process.terminate()

    def bury(self, until: float) -> None:
        """Wait for its end, and make it one if it is late."""
        self.process.join(max(0.0, until - time.monotonic()))
        if self.alive:
            _log.error("worker did not end in time and is killed", extra={"worker": self.number})
            self.process.kill()
            self.process.join()
        self.line.close()


class Supervisor:
    """Keeps a number of workers running. Belongs to the main thread, whose signals it takes."""

    def __init__(self, make: MakeConfig, shares: Sequence[Sequence[socket.socket]], listen: Listen) -> None:
        """A worker for each set of sockets; `listen` takes another set of the same addresses."""
        self._make = make
        self._listen = listen
        self._shares = [list(one) for one in shares]
        self._workers: dict[int, _Worker] = {}
        self._failures = dict.fromkeys(range(len(shares)), 0)
        """How often each was started in a row without ever serving."""
        self._due: dict[int, float] = {}
        """When workers that died are due to be restarted."""
        self._stopping = False
        self._renewing = False
        self.interrupted = False
        """Whether it was stopped from the keyboard."""
        self.has_ended = False
        """Whether the application of a worker has ended it."""

    def run(self) -> int:
        """Serve until told to end; the exit code."""
        before = {number: signal.signal(number, self._take) for number in STOPPING}
        try:
            for number in range(len(self._shares)):
                if not self._stopping:
                    self._start(number)
            code = self._watch()
            self._end_all()
            return code
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._renewing = True
        else:
            self.interrupted = self.interrupted or number == signal.SIGINT
            self._stopping = True

    def _start(self, number: int) -> _Worker:
        ours, theirs = _spawning.Pipe()
        arguments = (self._make, number, self._shares[number], theirs)
        process = _spawning.Process(target=_work, args=arguments, name=f"worker-{number}", daemon=False)
        process.start()
        theirs.close()
        worker = self._workers[number] = _Worker(number, process, ours, time.monotonic())
        return worker

    def _watch(self) -> int:
        while not self._stopping:
            wait([one.process.sentinel for one in self._workers.values() if one.alive], timeout=0.1)
            for worker in tuple(self._workers.values()):
                self._look_at(worker)
            if not self._workers and all(self._failures.values()):
                _log.error("no worker can be started")
                return CANNOT_START
            for number in [one for one, due in self._due.items() if due <= time.monotonic()]:
                del self._due[number]
                self._start(number)
            if self._renewing:
                self._renewing = False
                self._renew()
        return 0

    def _look_at(self, worker: _Worker) -> None:
        worker.listen()
        if worker.ready:
            self._failures[worker.number] = 0
        elif worker.alive and time.monotonic() - worker.began > START_SECONDS:
            _log.error("worker does not come to serve", extra={"worker": worker.number})
            worker.process.kill()
            worker.process.join()
        if worker.alive:
            return
        if worker.process.exitcode == HAS_ENDED:
            self.has_ended = self._stopping = True
            return
        _log.error("worker ended with %s", worker.process.exitcode, extra={"worker": worker.number})
        worker.bury(0.0)
        del self._workers[worker.number]
        self._replace_sockets(worker.number)
        self._failures[worker.number] += not worker.ready
        delay = RETRY_SECONDS[min(self._failures[worker.number], len(RETRY_SECONDS) - 1)]
        self._due[worker.number] = time.monotonic() + delay

    def _replace_sockets(self, number: int) -> None:
        """Have new connections go to the other workers, and sockets ready for the next one.

        New ones: Linux gives no connection to a socket that was shut down and listens again beside others. They are
        taken first, so that the address is held throughout.
        """
        old = self._shares[number]
        try:
            self._shares[number] = list(self._listen())
        except OSError:
            _log.exception("the address cannot be taken again", extra={"worker": number})
            return  # the next one takes over the sockets, and their queue
        for one in old:
            one.close()

    def _renew(self) -> None:
        """Replace the workers one by one, each when its successor serves."""
        _log.info("workers are renewed")
        for number in range(len(self._shares)):
            old = self._workers.pop(number, None)
            self._due.pop(number, None)
            new = self._start(number)
            while not (new.ready or self._stopping) and new.alive and time.monotonic() - new.began < START_SECONDS:
                wait([new.line, new.process.sentinel], timeout=0.1)
                new.listen()
            if not new.ready and old is not None:
                _log.error("the new worker does not serve; the old ones stay", extra={"worker": number})
                new.end()
                new.bury(time.monotonic() + STOP_SECONDS)
                self._workers[number] = old
                return
            if old is not None:
                old.end()
                old.bury(time.monotonic() + STOP_SECONDS)

    def _end_all(self) -> None:
        for one in chain.from_iterable(self._shares):
            one.close()
        until = time.monotonic() + STOP_SECONDS
        for worker in self._workers.values():
            worker.end()
        for worker in self._workers.values():
            worker.bury(until)
