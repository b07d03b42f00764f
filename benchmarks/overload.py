"""What good callers notice of bad ones: their latency alone, and while the server is attacked in one way or another.

    python -m benchmarks.overload [--rounds N]

Each round measures every case once, so that what else the machine does falls on all of them. The good callers are eight
connections without a pause, more than a server is meant to bear beside an attack: it is the worst case. Attacker, good
callers and server share the machine's cores.
"""

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from benchmarks.load import Client, Load, Measured
from benchmarks.machine import describe
from benchmarks.servers import Vault, http_request

GOOD: Final = 8
SECONDS: Final = 2.0
LEAD: Final = 1.5
"""Seconds that an attack goes on before it is measured: the good callers meet it in full."""
_ENCRYPT: Final = {"plaintext": "aGVsbG8=", "encoding": "base64"}
_BAD: Final = http_request("/keys/bench-aes/encrypt", _ENCRYPT, token="kvl_" + "A" * 16 + "_" + "b" * 43)


async def _repeat(port: int, request: bytes) -> None:
    """One connection that asks again as soon as it was answered."""
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(writer):
                while True:
                    writer.write(request)
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r", 1)[0])
                    await reader.readexactly(length)
        await asyncio.sleep(0.01)


async def _trickle(port: int, _: bytes) -> None:
    """One connection that sends its head byte by byte."""
    while True:
        with contextlib.suppress(OSError):
            writer = (await asyncio.open_connection("127.0.0.1", port))[1]
            with contextlib.closing(writer):
                writer.write(b"POST /keys/bench-aes/encrypt HTTP/1.1\r\nHost: x\r\nX-Slow: ")
                while not writer.is_closing():
                    writer.write(b"a")
                    await asyncio.sleep(random.uniform(0.2, 1.0))  # noqa: S311


async def _reconnect(port: int, request: bytes) -> None:
    """A new connection for each request."""
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(writer):
                writer.write(request)
                await reader.read(4096)


Attacker = Callable[[int, bytes], Awaitable[None]]
ATTACKS: Final[Mapping[str, tuple[str, tuple[tuple[Attacker, int, str], ...]]]] = {
    "tokens": ("bad tokens on 256 connections", ((_repeat, 256, "bad"),)),
    "connects": ("bad tokens, 64 at a time, a connection each", ((_reconnect, 64, "bad"),)),
    "slow": ("heads byte by byte on 900 connections", ((_trickle, 900, "bad"),)),
    "rsa": ("RSA-4096 signatures on 16 connections, new keys on 2", ((_repeat, 16, "sign"), (_repeat, 2, "make"))),
}


async def _attack(port: int, name: str, requests: Mapping[str, str]) -> None:
    _, parts = ATTACKS[name]
    await asyncio.gather(*(run(port, requests[what].encode()) for run, count, what in parts for _ in range(count)))


@contextlib.contextmanager
def _under(name: str | None, port: int, requests: Mapping[str, str]) -> Iterator[None]:
    if name is None:
        yield
        return
    order = json.dumps({"port": port, "name": name, "requests": dict(requests)})
    command = [sys.executable, "-m", "benchmarks.overload", "--attack", "-"]
    root = Path(__file__).resolve().parents[1]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, text=True) as attacker:  # noqa: S603  (ourselves)
        if attacker.stdin is None:
            raise RuntimeError("the attacker has no pipe")
        attacker.stdin.write(order + "\n")
        attacker.stdin.flush()
        try:
            time.sleep(LEAD)
            yield
        finally:
            attacker.kill()


def _measure(rounds: int) -> dict[str | None, list[Measured]]:
    cases: list[str | None] = [None, *ATTACKS]
    found: dict[str | None, list[Measured]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as folder, Client() as client:
        vault = Vault(Path(folder)).start()
        try:
            vault.call("/keys", {"name": "bench-rsa", "type": "RSA", "size": 4096, "purpose": "SIGN"}, vault.admin)
            requests = {
                "bad": _BAD,
                "sign": http_request("/keys/bench-rsa/sign", {"message": "x"}, token=vault.token),
                "make": http_request("/keys", {"type": "RSA", "size": 4096, "purpose": "SIGN"}, token=vault.admin),
            }
            good = http_request("/keys/bench-aes/encrypt", _ENCRYPT, token=vault.token)
            for _ in range(rounds):
                for case in cases:
                    with _under(case, vault.port, requests):
                        found[case].append(client.measure(Load(vault.port, vault.pid, good, GOOD, SECONDS)))
                    time.sleep(0.5)
        finally:
            vault.stop()
    return found


def _report(found: Mapping[str | None, list[Measured]]) -> None:
    print("\n".join(describe()))
    print(f"\nMedians of {len(found[None])} rounds; good callers: {GOOD} connections without a pause.\n")
    print("| beside the good callers | their requests/s | p50 ms | p99 ms | p99, times that alone (per round) |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for case, measured in found.items():
        times = [one.p99_ms / alone.p99_ms for one, alone in zip(measured, found[None], strict=True)]
        rate, p50, p99 = (statistics.median(of) for of in zip(*((m.rate, m.p50_ms, m.p99_ms) for m in measured)))  # noqa: B905
        title = "nobody" if case is None else ATTACKS[case][0]
        print(f"| {title} | {rate:,.0f} | {p50:.2f} | {p99:.2f} | {statistics.median(times):.2f} |")


def main() -> None:
    """Measure and report; or be the attacker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.attack:
        asyncio.run(_attack(**json.loads(sys.stdin.readline())))
        return
    _report(_measure(given.rounds))


if __name__ == "__main__":
    main()
