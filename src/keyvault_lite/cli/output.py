"""What commands print: tables for people, the API's own JSON for programs, notes on standard error."""

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from keyvault_lite.cli.failure import CannotRun
from keyvault_lite.client.api import Json, Listing, Reply

if TYPE_CHECKING:
    from rich.console import Console

GAP: Final = 2
"""Spaces between two columns of a table."""
PIPE_WIDTH: Final = 1000
"""Columns when standard output is no terminal: nothing is folded, so that lines can be searched."""


class Format(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Format, typer.Option("--output", "-o", help="A table, or exactly the API's JSON.")]
LimitOption = Annotated[int, typer.Option("--limit", min=0, help="How many at most; 0 is all.")]
WideOption = Annotated[
    bool, typer.Option("--wide", "-w", help="Print every column and every value whole, whatever the terminal's width.")
]

MIN_CUT: Final = 10
"""Columns that a shortened value keeps at least, the ellipsis included."""

Cell = object
Record = Sequence[tuple[str, Cell]]


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a list, and what gives way where the terminal is too narrow for all of them.

    A cell is never wrapped. Columns are dropped in the order of `dropped`, until the rest fits when values of those in
    `cut` are shortened: to MIN_CUT terminal columns, or to `least` of the first column.
    """

    names: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    least: int = MIN_CUT

    def fitting(self, widths: Sequence[int], room: int) -> list[tuple[int, int]]:
        """What is shown in `room` terminal columns: index and width of each column, in order. At least one is."""
        least = [
            min(width, MIN_CUT if i else self.least) if self.names[i] in self.cut else width
            for i, width in enumerate(widths)
        ]
        shown = list(range(len(self.names)))
        for name in self.dropped:
            if sum(least[i] for i in shown) + GAP * (len(shown) - 1) <= room:
                break
            shown.remove(self.names.index(name))
        fitted = {i: widths[i] for i in shown}
        excess = sum(fitted.values()) + GAP * (len(shown) - 1) - room
        while excess > 0 and (wider := [i for i in shown if fitted[i] > least[i]]):
            fitted[max(wider, key=fitted.__getitem__)] -= 1
            excess -= 1
        return list(fitted.items())


def printable(value: Cell) -> str:
    """A value for a terminal: control and invisible characters are escaped, so that stored text cannot drive it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def when(moment: str | None) -> str | None:
    """A timestamp to the second, as people read it."""
    return None if moment is None else f"{moment[:10]} {moment[11:19]}Z"


def pairs(values: Json) -> str | None:
    """An object of strings on one line."""
    return ", ".join(f"{name}={value}" for name, value in values.items()) or None


def show(reply: Reply, output: Format, record: Callable[[Json], Record]) -> None:
    """Print one object."""
    if output is Format.JSON:
        typer.echo(reply.text)
    else:
        show_record(record(reply.json()))


def show_list(
    listing: Listing,
    output: Format,
    columns: Columns,
    row: Callable[[Json], Sequence[Cell]],
    *,
    wide: bool = False,
) -> None:
    """Print a list; say on standard error if there is more."""
    if output is Format.JSON:
        typer.echo(listing.text())
    else:
        show_table(columns, map(row, listing.items), wide=wide)
    if listing.next is not None:
        note(f"{len(listing.items)} shown; there are more: --limit 0 shows all")
    elif listing.archived:
        note(f"entries 1 to {listing.archived} are archived and not listed")


def show_record(record: Record) -> None:
    """Print names and values below each other."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in record:
        table.add_row(Text(name), Text(printable(value)))
    console().print(table)


def show_table(columns: Columns, rows: Iterable[Sequence[Cell]], *, wide: bool = False) -> None:
    """Print rows under a heading, one line each; say on standard error which columns had no room."""
    from rich.cells import cell_len

    table = [columns.names, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(cell_len(row[i]) for row in table) for i in range(len(columns.names))]
    whole = sum(widths) + GAP * (len(widths) - 1)
    shown = columns.fitting(widths, whole if wide else console().width)
    for row in table:
        typer.echo((" " * GAP).join(_fitted(row[i], width) for i, width in shown).rstrip())
    if missing := [name for i, name in enumerate(columns.names) if i not in dict(shown)]:
        note(f"not shown for lack of room: {', '.join(missing)}; --wide shows all")


def _fitted(text: str, width: int) -> str:
    """The text, padded or shortened to a number of terminal columns."""
    from rich.cells import cell_len, set_cell_size

    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def console(*, stderr: bool = False) -> "Console":
    """A console on standard output or standard error as they are now."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else PIPE_WIDTH, highlight=False)


def note(message: str) -> None:
    """Tell the person something that is not the result."""
    with suppress(OSError):  # a closed stream gets nothing
        typer.echo(printable(message), err=True)


def interactive() -> bool:
    """Whether a person can answer a question."""
    return sys.stdin.isatty()


def confirm(question: str, *, yes: bool) -> None:
    """Ask. Raises CannotRun where nobody can answer, typer.Abort for no."""
    if yes:
        return
    if not interactive():
        raise CannotRun("this cannot be undone: say --yes where nobody can be asked")
    typer.confirm(question, abort=True, err=True)
