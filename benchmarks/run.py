"""Operations a second, beside a floor in the same run: `python -m benchmarks.run`, or `make bench`.

Prints the tables, and with --write puts them into a document together with method, machine and date.
"""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks import aws, ledger
from benchmarks.load import Client, Load
from benchmarks.report import HEADINGS, Samples, document, line, table
from benchmarks.servers import FLOOR, Row, Server
from benchmarks.servers import ROWS as OWN_ROWS

ROWS: Final = (*OWN_ROWS, *aws.ROWS)
QUICK: Final = (2, 0.7)
FULL: Final = (5, 2.0)
"""Rounds, and seconds a measurement."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    names = ", ".join(row.name for row in ROWS)
    parser.add_argument("--quick", action="store_true", help="about 40 seconds, for a first look")
    parser.add_argument("--rows", default="", help=f"only these, separated by commas: {names}")
    parser.add_argument("--connections", default="1,32,128", help="separated by commas")
    parser.add_argument("--rounds", type=int, help=f"instead of {FULL[0]} ({QUICK[0]} when quick)")
    parser.add_argument("--seconds", type=float, help=f"a measurement, instead of {FULL[1]} ({QUICK[1]} when quick)")
    parser.add_argument("--no-ledger", action="store_true", help="leave the ledger by itself out")
    parser.add_argument("--write", type=Path, help="write the report there: docs/performance.md")
    return parser.parse_args()


def _chosen(names: str) -> list[Row]:
    wanted = {name for name in names.split(",") if name} or {row.name for row in ROWS}
    unknown = wanted - {row.name for row in ROWS}
    if unknown:
        raise SystemExit(f"there is no row {', '.join(sorted(unknown))}")
    return [row for row in ROWS if row.name in wanted | {FLOOR.name}]


def measure(rows: Sequence[Row], connections: Sequence[int], *, rounds: int, seconds: float) -> list[Samples]:
    """All rows at all numbers of connections, interleaved."""
    samples = [Samples(row.name, row.title, count, row.items) for count in connections for row in rows]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kvl-bench-")))
        running: dict[type[Server], Server] = {}
        for kind in dict.fromkeys(row.server for row in rows):
            server = kind(folder)
            stack.callback(server.stop)
            running[kind] = server.start()
        requests = {row.name: row.request(running[row.server]) for row in rows}
        servers = {row.name: running[row.server] for row in rows}
        client = stack.enter_context(Client())
        for number in range(rounds):
            for one in samples if number % 2 == 0 else reversed(samples):
                server = servers[one.row]
                one.rounds.append(
                    client.measure(
                        Load(
                            port=server.port,
                            pid=server.pid,
                            request=requests[one.row],
                            connections=one.connections,
                            seconds=seconds,
                        )
                    )
                )
    return samples


def _http_table(samples: Sequence[Samples]) -> str:
    floors = {one.connections: one for one in samples if one.row == FLOOR.name}
    return table(HEADINGS, [line(one, floors.get(one.connections)) for one in samples])


def main() -> None:
    """Measure, print, write."""
    chosen = _arguments()
    usual_rounds, usual_seconds = QUICK if chosen.quick else FULL
    rounds, seconds = chosen.rounds or usual_rounds, chosen.seconds or usual_seconds
    connections = [int(count) for count in chosen.connections.split(",")]
    samples = measure(_chosen(chosen.rows), connections, rounds=rounds, seconds=seconds)
    sections = [("Over HTTP", _http_table(samples))]
    if not chosen.no_ledger:
        results = ledger.measure(rounds=rounds, seconds=seconds)
        sections.append(("The ledger by itself", f"{ledger.METHOD}\n\n{ledger.lines(results)}"))
    for title, text in sections:
        print(f"{title}\n\n{text}\n")
    if chosen.write is not None:
        shape = f"{rounds} rounds of {seconds:g} s"
        chosen.write.write_text(document(sections, command="make bench ARGS='--write …'", shape=shape))


if __name__ == "__main__":
    main()
