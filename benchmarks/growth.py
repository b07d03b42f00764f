"""How the vault's speed changes as it grows: `make bench-growth`, with --full or --huge for larger vaults.

For each of keys, entries and versions there are vaults of several sizes, made by `grown`, each with a server. They are
measured in turn, and each figure is divided by that of the smallest in the same round: what slows the machine down
for a while falls on all alike.
"""

import argparse
import http.client
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final, Self

from benchmarks.grown import KEY, RARE_KEY, USERS, Grown, Size, grow_apart
from benchmarks.load import Client, Load
from benchmarks.machine import describe
from benchmarks.process import cpu_seconds, peak_memory, resident_memory
from benchmarks.report import table
from benchmarks.servers import PLAINTEXT, Server, http_request

SIZES: Final = {
    "quick": {"keys": [100, 10_000], "entries": [10_000, 100_000], "versions": [1, 100]},
    "full": {"keys": [100, 10_000, 100_000], "entries": [10_000, 100_000, 1_000_000], "versions": [1, 100, 1_000]},
    "huge": {
        "keys": [100, 10_000, 100_000, 1_000_000],
        "entries": [10_000, 100_000, 1_000_000, 10_000_000],
        "versions": [1, 100, 1_000, 10_000],
    },
}
CONNECTIONS: Final = 32
IDLE: Final = 0.1
"""Of a core: a server that uses less has done what it does after a start, such as reading its whole log."""
SETTLED_WITHIN: Final = 600.0
"""Seconds after which it is measured all the same."""
ROWS_CHECKED: Final = 70.0
"""Seconds after which a server has begun to read rows and log again in the background."""
ASKED: Final = 8
"""Requests one after another that make one figure of a round."""
_MEGABYTE: Final = 1e6


class GrownServer(Server):
    """`kvl serve` on a vault that was grown."""

    patience = 120.0

    def __init__(self, grown: Grown) -> None:
        super().__init__(Path(grown.folder))
        self.grown = grown

    def start(self) -> Self:
        """Returns once it has answered."""
        self._spawn(
            *("-m", "keyvault_lite", "serve", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"),
            settings=self.grown.settings,
        )
        self.ask("GET", "/health")
        return self

    def ask(self, method: str, path: str) -> None:
        """One request of the ADMIN's; its answer has to be one of success."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.patience)
        try:
            connection.request(method, path, headers={"Authorization": f"Bearer {self.grown.admin}"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= http.client.BAD_REQUEST:
            raise RuntimeError(f"{path}: {answer.status} {text[:500]!r}")


@dataclass(slots=True)
class Timed:
    """One thing that is done at one size: seconds, and seconds of the server's CPU, each a round."""

    title: str
    size: int
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


Action = Callable[[GrownServer], tuple[float, float]]
"""Does something on a server, and says how long one took and how much CPU."""


def asking(method: str, path: Callable[[], str]) -> Action:
    """Some requests one after another."""

    def action(server: GrownServer) -> tuple[float, float]:
        walls, before = [], cpu_seconds(server.pid)
        for _ in range(ASKED):
            begun = time.perf_counter()
            server.ask(method, path())
            walls.append(time.perf_counter() - begun)
        return median(walls), (cpu_seconds(server.pid) - before) / ASKED

    return action


def loading(client: Client, request: Callable[[GrownServer], str], seconds: float) -> Action:
    """As many requests as the server takes."""

    def action(server: GrownServer) -> tuple[float, float]:
        load = Load(server.port, server.pid, request(server), CONNECTIONS, seconds)
        found = client.measure(load)
        return found.seconds / found.requests, found.server_cpu_us / 1e6

    return action


def starting(server: GrownServer) -> tuple[float, float]:
    """Stop it and start it again."""
    server.stop()
    begun = time.perf_counter()
    server.start()
    return time.perf_counter() - begun, cpu_seconds(server.pid)


def settle(servers: Sequence[GrownServer], *, large: bool) -> None:
    """Wait until none of them is busy by itself: what large ones read again in the background begins a minute later."""
    time.sleep(ROWS_CHECKED if large else 0.0)
    until = time.monotonic() + SETTLED_WITHIN
    busy = True
    while busy and time.monotonic() < until:
        before = [cpu_seconds(server.pid) for server in servers]
        time.sleep(1)
        after = [cpu_seconds(server.pid) for server in servers]
        busy = any(new - old > IDLE for old, new in zip(before, after, strict=True))


def _encrypt(server: GrownServer) -> str:
    body = {"plaintext": PLAINTEXT, "encoding": "base64"}
    return http_request(f"/keys/{KEY}/encrypt", body, token=server.grown.user)


def _decrypt_old(server: GrownServer) -> str:
    return http_request(f"/keys/{KEY}/decrypt", server.grown.old | {"encoding": "base64"}, token=server.grown.user)


@contextmanager
def served(folder: Path, sizes: Sequence[Size]) -> Iterator[list[GrownServer]]:
    """Vaults of these sizes, made in processes of their own, and a server on each."""
    with ExitStack() as stack:
        vaults = grow_apart(folder, sizes)
        servers = []
        for grown in vaults:
            server = GrownServer(grown)
            stack.callback(server.stop)
            servers.append(server.start())
        yield servers


def measure(
    servers: Sequence[GrownServer], sizes: Sequence[int], actions: dict[str, Action], rounds: int
) -> list[Timed]:
    """Every action on every server, round by round, every other round backwards."""
    lines = [
        (Timed(title, size), server, title) for title in actions for server, size in zip(servers, sizes, strict=True)
    ]
    for number in range(rounds):
        for line, server, title in lines if number % 2 == 0 else reversed(lines):
            wall, cpu = actions[title](server)
            line.wall.append(wall)
            line.cpu.append(cpu)
    return [line for line, _, _ in lines]


def _ratio(mine: Sequence[float], smallest: Sequence[float]) -> str:
    return f"{median(one / other for one, other in zip(mine, smallest, strict=True)):.2f}"


def _lines(timed: Sequence[Timed], unit: str) -> str:
    smallest: dict[str, Timed] = {}
    rows = []
    for one in timed:
        base = smallest.setdefault(one.title, one)
        wall, cpu = median(one.wall), median(one.cpu)
        rows.append(
            [
                one.title,
                f"{one.size:,}",
                f"{1000 * wall:,.2f}",
                _ratio(one.wall, base.wall),
                f"{1000 * cpu:,.2f}",
                _ratio(one.cpu, base.cpu),
            ]
        )
    return table(["", unit, "ms each", "ratio", "CPU ms each", "ratio"], rows)


def _memory(servers: Sequence[GrownServer], sizes: Sequence[int], unit: str) -> str:
    rows = [
        [
            f"{size:,}",
            f"{resident_memory(server.pid) / _MEGABYTE:,.0f}",
            f"{peak_memory(server.pid) / _MEGABYTE:,.0f}",
            f"{(server.folder / 'keyvault.db').stat().st_size / _MEGABYTE:,.1f}",
        ]
        for server, size in zip(servers, sizes, strict=True)
    ]
    return table([unit, "memory, MB", "at its highest, MB", "database, MB"], rows)


def by_keys(folder: Path, sizes: Sequence[int], rounds: int, seconds: float) -> Iterator[str]:
    """Start-up, memory and encryption by the number of keys."""
    with served(folder, [Size(keys=size) for size in sizes]) as servers, Client() as client:
        yield _lines(measure(servers, sizes, {"start": starting}, min(rounds, 3)), "keys")
        settle(servers, large=max(sizes) > SIZES["quick"]["keys"][-1])
        actions = {f"encrypt, {CONNECTIONS} connections": loading(client, _encrypt, seconds)}
        yield _lines(measure(servers, sizes, actions, rounds), "keys")
        yield _memory(servers, sizes, "keys")


def by_entries(folder: Path, sizes: Sequence[int], rounds: int, seconds: float) -> Iterator[str]:
    """Start-up and the pages of the log by the number of its entries."""

    def page(query: str = "") -> Action:
        return asking("GET", lambda: f"/audit?limit=100{query}")

    def anywhere(server: GrownServer) -> tuple[float, float]:
        size = sizes[servers.index(server)]
        return asking("GET", lambda: f"/audit?limit=100&after={random.randint(200, size)}")(server)  # noqa: S311

    with served(folder, [Size(entries=size) for size in sizes]) as servers, Client() as client:
        yield _lines(measure(servers, sizes, {"start": starting}, min(rounds, 3)), "entries")
        settle(servers, large=max(sizes) > SIZES["quick"]["entries"][-1])
        pages = {
            "newest 100": page(),
            "100 somewhere": anywhere,
            "100 of a busy key": page(f"&key_id={KEY}"),
            "100 of a rare key": page(f"&key_id={RARE_KEY}"),
            "100 of a busy service": page("&service_id=user-0"),
            "100 of a rare service": page(f"&service_id=user-{USERS - 1}"),
        }
        yield _lines(measure(servers, sizes, pages, rounds), "entries")
        actions = {f"encrypt, {CONNECTIONS} connections": loading(client, _encrypt, seconds)}
        yield _lines(measure(servers, sizes, actions, rounds), "entries")
        yield _memory(servers, sizes, "entries")


def by_versions(folder: Path, sizes: Sequence[int], rounds: int, seconds: float) -> Iterator[str]:
    """Use and rotation of one key by the number of its versions."""
    with served(folder, [Size(versions=size) for size in sizes]) as servers, Client() as client:
        actions = {
            f"decrypt of the first version, {CONNECTIONS} connections": loading(client, _decrypt_old, seconds),
            f"encrypt, {CONNECTIONS} connections": loading(client, _encrypt, seconds),
            "rotate": asking("POST", lambda: f"/keys/{KEY}/rotate"),
        }
        yield _lines(measure(servers, sizes, actions, rounds), "versions")


PARTS: Final = {"keys": by_keys, "entries": by_entries, "versions": by_versions}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-growth ARGS=…", description=__doc__)
    parser.add_argument("--full", action="store_true", help="to 10⁵ keys, 10⁶ entries, 10³ versions: minutes")
    parser.add_argument("--huge", action="store_true", help="to 10⁶ keys, 10⁷ entries, 10⁴ versions; 8 GB of disk")
    for part in PARTS:
        parser.add_argument(f"--{part}", help="other sizes, separated by commas, the smallest first; 0 leaves them out")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.5, help="a measurement under load")
    parser.add_argument("--folder", type=Path, help="where the vaults are made, instead of the temporary folder")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    chosen = _arguments()
    usual = SIZES["huge" if chosen.huge else "full" if chosen.full else "quick"]
    for part, run in PARTS.items():
        given = getattr(chosen, part)
        sizes = usual[part] if given is None else [int(size) for size in given.split(",")]
        if sizes == [0]:
            continue
        print(f"By {part}\n", flush=True)
        with tempfile.TemporaryDirectory(prefix="kvl-growth-", dir=chosen.folder) as folder:
            for text in run(Path(folder), sizes, chosen.rounds, chosen.seconds):
                print(f"{text}\n", flush=True)
    print("\n".join(f"- {fact}" for fact in describe()))
    print(f"- {chosen.rounds} rounds, {chosen.seconds:g} s under load")


if __name__ == "__main__":
    main()
