"""From measurements to medians, ratios and tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median

from benchmarks.load import Measured
from benchmarks.machine import describe

Cell = list[str]


@dataclass(frozen=True, slots=True)
class Samples:
    """One row at one number of connections: a measurement a round."""

    row: str
    title: str
    connections: int
    items: int
    rounds: list[Measured] = field(default_factory=list)


def _middle(values: Sequence[float]) -> float:
    return median(values) if values else 0.0


def ratio(one: Samples, other: Samples) -> float:
    """The median of the ratios of rates, round by round: what slows a whole round down cancels out."""
    return _middle([mine.rate / base.rate for mine, base in zip(one.rounds, other.rounds, strict=False)])


def line(one: Samples, floor: Samples | None) -> Cell:
    """A row of the table."""
    rates = [each.rate for each in one.rounds]
    per_item = f" = {_middle(rates) * one.items:,.0f} items" if one.items > 1 else ""
    share, by_cpu = "–", "–"
    if floor is not None and floor.rounds and one.items == 1:
        cpu = [base.server_cpu_us / each.server_cpu_us for each, base in zip(one.rounds, floor.rounds, strict=False)]
        share, by_cpu = f"{ratio(one, floor):.2f}", f"{_middle(cpu):.2f}"
    return [
        one.title,
        str(one.connections),
        f"{_middle(rates):,.0f}{per_item}",
        f"{min(rates):,.0f}–{max(rates):,.0f}",
        share,
        f"{_middle([each.p50_ms for each in one.rounds]):.2f}",
        f"{_middle([each.p99_ms for each in one.rounds]):.2f}",
        f"{_middle([each.server_cpu_us for each in one.rounds]):.1f}",
        by_cpu,
        f"{100 * _middle([each.client_busy for each in one.rounds]):.0f} %",
    ]


HEADINGS = [
    "row",
    "conns",
    "requests/s",
    "min–max",
    "of floor",
    "p50 ms",
    "p99 ms",
    "CPU µs",
    "by CPU",
    "client",
]


def table(headings: Sequence[str], lines: Sequence[Cell]) -> str:
    """A Markdown table that can be read in a terminal too."""
    widths = [max(len(cell) for cell in column) for column in zip(headings, *lines, strict=True)]

    def row(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [":" + "-" * (width - 1) if place == 0 else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    return "\n".join([row(headings), row(rule), *map(row, lines)])


METHOD = """\
Every server is a process of its own from beginning to end, nothing is pinned. A round puts each row's load on its
server once, one after another, and every other round goes backwards, so that what disturbs the machine disturbs all
rows alike. Figures are medians over the rounds; *of floor* is the median of the ratios within a round. *CPU µs* is user
and system time of the server's processes a request, *by CPU* the floor's divided by it: on a machine that does other
things too it is the steadier figure.

The floor is a raw ASGI application behind the same uvicorn, httptools and uvloop: it parses the same body and answers
as many bytes. The vault is `kvl serve` with one worker on a new SQLite database: every answer waits for its audit entry
to be chained and flushed to disk, all guarantees on. The caller is a SERVICE with one grant by pattern, the message has
64 bytes and a context of one pair. The load is one process with one request in flight on each keep-alive connection;
every answer must be 200. *client* is how much of one core it used: near 100 % a row would be bounded by it and not by
the server. The row of canned bytes is the client's own ceiling."""


ADVICE = "Run it on your machine: rates differ from machine to machine, ratios much less."


def document(sections: Sequence[tuple[str, str]], *, command: str, shape: str) -> str:
    """The whole of docs/performance.md."""
    facts = "\n".join(f"- {fact}" for fact in describe())
    parts = [
        "# Performance",
        f"Written by `{command}` on {datetime.now(UTC):%Y-%m-%d}, no figure by hand. {ADVICE}",
        f"{facts}\n- {shape}",
        "## Method",
        METHOD,
    ]
    for title, text in sections:
        parts += [f"## {title}", text]
    return "\n\n".join(parts) + "\n"
