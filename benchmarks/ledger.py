"""What the ledger's guarantees cost: its entries a second beside those of a bare group commit in the same run.

The bare one is what is left if one only wants rows that are durable and hash-chained: a queue and a thread, the same
rows, table and indexes, one lock, one transaction, one flush. No tree, no authenticated head, no check that the log is
the one this process knows, no freshness, no signature, no anchor.
"""

import argparse
import asyncio
import base64
import fcntl
import hashlib
import os
import secrets
import tempfile
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
import uvloop

from benchmarks.report import table
from keyvault_lite import app, settings
from keyvault_lite.audit.entry import entry_row
from keyvault_lite.ledger.ledger import Ledger
from keyvault_lite.ledger.opening import prepare
from keyvault_lite.ledger.state.outcome import Outcome
from keyvault_lite.ledger.storage import statements
from keyvault_lite.ledger.storage.log_index import rows_for
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.names import KeyId, ServiceId, new_id
from keyvault_lite.operator.initialise import initialise_vault
from keyvault_lite.settings import Settings

CALLERS: Final = (32, 128)
TARGETS: Final = {32: 0.65, 128: 0.70}
LINGER: Final = 0.0004
METHOD: Final = """\
Callers on one event loop, each waiting for its entry to be durable before it asks for the next. The bare group commit
has none of the guarantees: a queue and a thread, a file lock, one transaction with the same rows, table and indexes, a
hash chain, one flush. The *ratio* is the median of the rounds'."""

Record = Callable[[Draft], Awaitable[object]]


class BareCommit:
    """Group commit and a hash chain, and nothing else."""

    def __init__(self, folder: Path) -> None:
        database = SqliteDatabase(folder / "bare.db")
        prepare(database)
        self._connection = database.writer()
        self._lock = os.open(folder / "bare.lock", os.O_CREAT | os.O_RDWR)
        self._encode = msgspec.json.Encoder().encode
        self._queue: deque[tuple[Draft, asyncio.Future[int]]] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._size, self._hash = 0, bytes(32)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    async def record(self, draft: Draft) -> int:
        """Wait until it is durable."""
        future: asyncio.Future[int] = self._loop.create_future()
        self._queue.append((draft, future))
        self._wake.set()
        return await future

    def close(self) -> None:
        """End the thread."""
        self._closing = True
        self._wake.set()
        self._thread.join()
        self._connection.close()
        os.close(self._lock)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._closing:
                return
            while self._queue:
                time.sleep(LINGER)
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), 256))]
                first = self._commit([draft for draft, _ in batch])
                self._loop.call_soon_threadsafe(_resolve, batch, first)

    def _commit(self, drafts: list[Draft]) -> int:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._connection.execute("BEGIN IMMEDIATE")
        first, now, rows = self._size + 1, time.time_ns() // 1000, []
        for draft in drafts:
            self._size += 1
            digest = hashlib.sha256(self._hash + self._encode((self._size, now, draft))).digest()
            rows.append(entry_row(self._size, 0, now, 0, None, draft, self._hash, digest))
            self._hash = digest
        self._connection.executemany(statements.APPEND, rows)
        self._connection.executemany(statements.PUT_INDEX, rows_for(rows))
        self._connection.execute("COMMIT")
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        return first


def _resolve(batch: list[tuple[Draft, asyncio.Future[int]]], first: int) -> None:
    for place, (_, future) in enumerate(batch):
        future.set_result(first + place)


def _recorder(ledger: Ledger) -> Record:
    async def record(draft: Draft) -> object:
        outcome = Outcome((draft,), None)
        return await ledger.commit(outcome, ledger.snapshot().snapshot_version, lambda _: outcome)

    return record


@dataclass(frozen=True, slots=True)
class Pair:
    """One round at one number of callers: entries a second and CPU of the whole process an entry."""

    callers: int
    bare: float
    full: float
    bare_cpu_us: float
    full_cpu_us: float


def measure(*, rounds: int, seconds: float) -> list[Pair]:
    """Both, in turn, at every number of callers."""
    with tempfile.TemporaryDirectory(prefix="kvl-bench-") as name:
        folder = Path(name)
        master = base64.b64encode(secrets.token_bytes(32)).decode()
        chosen = settings.load(master_key=master, database_url=f"sqlite:///{folder / 'full.db'}")
        initialise_vault(chosen)
        return uvloop.run(_measure(chosen, folder, rounds=rounds, seconds=seconds))


async def _measure(chosen: Settings, folder: Path, *, rounds: int, seconds: float) -> list[Pair]:
    vault = app.open_vault(chosen)
    bare = BareCommit(folder)
    try:
        return [
            await _pair(callers, bare.record, _recorder(vault.ledger), seconds=seconds, swap=bool(number % 2))
            for number in range(rounds)
            for callers in CALLERS
        ]
    finally:
        bare.close()
        await asyncio.to_thread(vault.close)


async def _pair(callers: int, bare: Record, full: Record, *, seconds: float, swap: bool) -> Pair:
    rates = {}
    for record in (full, bare) if swap else (bare, full):
        rates[record is full] = await _rate(record, callers, seconds)
    (bare_rate, bare_cpu), (full_rate, full_cpu) = rates[False], rates[True]
    return Pair(callers, bare_rate, full_rate, bare_cpu, full_cpu)


async def _rate(record: Record, callers: int, seconds: float) -> tuple[float, float]:
    until = time.perf_counter() + seconds
    services, keys = [ServiceId(new_id()) for _ in range(20)], [KeyId(new_id()) for _ in range(200)]

    async def caller(number: int) -> int:
        done = 0
        while time.perf_counter() < until:
            await record(
                Draft(
                    action=Action.ENCRYPT,
                    result=Result.SUCCESS,
                    request_id=os.urandom(16),
                    service_id=services[number % len(services)],
                    key_id=keys[(number + done) % len(keys)],
                    key_version=1,
                    source="127.0.0.1",
                    context_digest=os.urandom(32),
                    bytes_in=64,
                    bytes_out=170,
                )
            )
            done += 1
        return done

    begun, used = time.perf_counter(), time.process_time()
    entries = sum(await asyncio.gather(*map(caller, range(callers))))
    spent, used = time.perf_counter() - begun, time.process_time() - used
    return entries / spent, 1e6 * used / entries


def lines(results: list[Pair]) -> str:
    """The table."""
    found = []
    for callers in CALLERS:
        mine = [one for one in results if one.callers == callers]
        found.append(
            [
                f"{callers} callers",
                f"{median(one.bare for one in mine):,.0f}",
                f"{median(one.full for one in mine):,.0f}",
                f"{median(one.full / one.bare for one in mine):.2f}",
                f"{TARGETS[callers]:.2f}",
                f"{median(one.bare_cpu_us for one in mine):.1f}",
                f"{median(one.full_cpu_us for one in mine):.1f}",
            ]
        )
    return table(["", "bare entries/s", "ledger entries/s", "ratio", "target", "bare CPU µs", "ledger CPU µs"], found)


def main() -> None:
    """The ledger alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    chosen = parser.parse_args()
    print(lines(measure(rounds=chosen.rounds, seconds=chosen.seconds)))


if __name__ == "__main__":
    main()
