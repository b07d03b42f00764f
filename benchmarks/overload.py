"""What good callers notice of bad ones: their latency alone, and while the server is attacked in one way or another.

    python -m benchmarks.overload [--rounds N] [--only CASE ...]

Each round measures every case once, so that what else the machine does falls on all of them. The good callers are eight
connections without a pause, more than a server is meant to bear beside an attack: it is the worst case. Beside them an
ADMIN on connections of its own revokes keys and somebody asks for /health. Attacker, good callers and server share the
machine's cores.
"""

import argparse
import http.client
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.attacks import ATTACKS, Tokens, under
from benchmarks.load import Client, Load, Measured, WrongAnswerError
from benchmarks.machine import describe
from benchmarks.process import resident_memory
from benchmarks.servers import Vault, http_request

GOOD: Final = 8
SECONDS: Final = 2.0
PROBE_SECONDS: Final = 0.1
"""Pause between two revocations."""
PATIENCE: Final = 30.0
_ENCRYPT: Final = {"plaintext": "aGVsbG8=", "encoding": "base64"}
_LARGE: Final = {"plaintext": "QUJD" * 20_000, "encoding": "base64"}
"""80 KB: it waits for memory like every body above 4 KiB."""
_LARGE_GOOD: Final = 2
_ALONE: Final[Mapping[str | None, str]] = {None: "nobody", "large": "nobody, with bodies of 80 KB"}


@dataclass(slots=True)
class Probed:
    """How long others waited meanwhile, in seconds."""

    revoked: list[float] = field(default_factory=list)
    healthy: list[float] = field(default_factory=list)
    failed: int = 0
    """Requests that were not answered with 200."""


@dataclass(frozen=True, slots=True)
class Found:
    """One case in one round."""

    good: Measured | None
    """None if the good callers lost their connections."""
    probed: Probed
    grown: int
    """Bytes that the server's memory grew by."""


def _ask(port: int, method: str, path: str, token: str | None = None) -> tuple[bool, float]:
    """One request on a connection of its own: whether it was answered with 200, and after how long."""
    began = time.perf_counter()
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    good = False
    with suppress(OSError, http.client.HTTPException):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        good = answer.status == 200  # noqa: PLR2004
    connection.close()
    return good, time.perf_counter() - began


@contextmanager
def _probing(vault: Vault, keys: Iterator[str]) -> Iterator[Probed]:
    probed, ended = Probed(), threading.Event()

    def probe() -> None:
        while not ended.wait(PROBE_SECONDS):
            for times, method, path, token in (
                (probed.revoked, "POST", f"/keys/{next(keys)}/revoke", vault.admin),
                (probed.healthy, "GET", "/health", None),
            ):
                good, seconds = _ask(vault.port, method, path, token)
                times.append(seconds)
                probed.failed += not good

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield probed
    finally:
        ended.set()
        thread.join()


def _prepare(vault: Vault, keys: int) -> tuple[Tokens, list[str]]:
    vault.call("/keys", {"name": "bench-rsa", "type": "RSA", "size": 4096, "purpose": "SIGN"}, vault.admin)
    vault.call("/v1/sys/mounts/transit", {"type": "transit"}, vault.admin)
    vault.call("/v1/transit/keys/bench-transit", {}, vault.admin)
    granted = [vault.token]
    for number in range(2):
        grants = [{"key": "vault:transit/bench-transit", "actions": ["encrypt", "decrypt"]}]
        service = {"name": f"slow-{number}", "role": "SERVICE", "grants": grants}
        granted.append(vault.call("/services", service, vault.admin)["token"])
    nobody, renewer = (
        vault.call("/services", {"name": name, "role": "SERVICE"}, vault.admin)["token"]
        for name in ("nobody", "renewer")
    )
    made = [vault.call("/keys", {"type": "AES", "purpose": "ENCRYPT"}, vault.admin)["id"] for _ in range(keys)]
    return Tokens(admin=vault.admin, granted=tuple(granted), nobody=nobody, renewer=renewer), made


def _measure(rounds: int, cases: Sequence[str]) -> dict[str | None, list[Found]]:
    order: list[str | None] = [None, *cases]
    if any(ATTACKS[case].large for case in cases):
        order.insert(1, "large")
    found: dict[str | None, list[Found]] = {case: [] for case in order}
    with tempfile.TemporaryDirectory() as folder, Client() as client:
        vault = Vault(Path(folder)).start()
        try:
            tokens, made = _prepare(vault, rounds * len(order) * int(SECONDS / PROBE_SECONDS + 10))
            keys = iter(made)
            for _ in range(rounds):
                for case in order:
                    found[case].append(_one(vault, client, tokens, case, keys))
                    time.sleep(0.5)
        finally:
            vault.stop()
    return found


def _is_large(case: str | None) -> bool:
    return case == "large" or (case is not None and ATTACKS[case].large)


def _one(vault: Vault, client: Client, tokens: Tokens, case: str | None, keys: Iterator[str]) -> Found:
    body, connections = (_LARGE, _LARGE_GOOD) if _is_large(case) else (_ENCRYPT, GOOD)
    request = http_request("/keys/bench-aes/encrypt", body, token=vault.token)
    before = resident_memory(vault.pid)
    good: Measured | None = None
    with under(case if case in ATTACKS else None, vault.port, tokens), _probing(vault, keys) as probed:
        try:
            good = client.measure(Load(vault.port, vault.pid, request, connections, SECONDS))
        except WrongAnswerError:
            time.sleep(SECONDS)
    return Found(good, probed, resident_memory(vault.pid) - before)


def _report(found: Mapping[str | None, list[Found]]) -> None:
    print("\n".join(describe()))
    print(
        f"\nMedians of {len(found[None])} rounds, the worst in all rounds where it says so; good callers: {GOOD} "
        f"connections without a pause.\n\n"
        "| beside the good callers | their requests/s | p50 ms | p99 ms | p50, times alone | p99, times alone | "
        "revocation ms, median / worst | /health ms, median / worst | failed |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    for case, rounds in found.items():
        alone = found["large" if _is_large(case) else None]
        title = _ALONE[case] if case in _ALONE else ATTACKS[case or ""].title
        print(f"| {title} | {_row(rounds, alone)} |")


def _row(rounds: Sequence[Found], alone: Sequence[Found]) -> str:
    pairs = [(one.good, other.good) for one, other in zip(rounds, alone, strict=True) if one.good and other.good]
    cells = ["-"] * 5
    if pairs:
        cells = [
            f"{statistics.median(good.rate for good, _ in pairs):,.0f}",
            f"{statistics.median(good.p50_ms for good, _ in pairs):.2f}",
            f"{statistics.median(good.p99_ms for good, _ in pairs):.2f}",
            f"{statistics.median(good.p50_ms / other.p50_ms for good, other in pairs):.2f}",
            f"{statistics.median(good.p99_ms / other.p99_ms for good, other in pairs):.2f}",
        ]
    for times in ([one.probed.revoked for one in rounds], [one.probed.healthy for one in rounds]):
        flat = [1000 * seconds for one in times for seconds in one] or [0.0]
        cells.append(f"{statistics.median(flat):.0f} / {max(flat):.0f}")
    lost = sum(one.good is None for one in rounds)
    cells.append(f"{sum(one.probed.failed for one in rounds)}" + (f", good callers in {lost} rounds" if lost else ""))
    return " | ".join(cells)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    given = parser.parse_args()
    _report(_measure(given.rounds, given.only))


if __name__ == "__main__":
    main()
