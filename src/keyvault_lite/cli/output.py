"""What commands print: tables for people, the API's own JSON for programs, notes on standard error."""

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from keyvault_lite.cli.client import Json, Listing, Reply
from keyvault_lite.cli.failure import CannotRun

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH: Final = 1000
"""Columns when standard output is no terminal: nothing is folded, so that lines can be searched."""


class Format(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Format, typer.Option("--output", "-o", help="A table, or exactly the API's JSON.")]
LimitOption = Annotated[int, typer.Option("--limit", min=0, help="How many at most; 0 is all.")]

Cell = object
Record = Sequence[tuple[str, Cell]]


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


def show_list(listing: Listing, output: Format, columns: Sequence[str], row: Callable[[Json], Sequence[Cell]]) -> None:
    """Print a list; say on standard error if there is more."""
    if output is Format.JSON:
        typer.echo(listing.text())
    else:
        show_table(columns, map(row, listing.items))
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


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print rows under a heading."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console().print(table)


def console(*, stderr: bool = False) -> "Console":
    """A console on standard output or standard error as they are now."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else PIPE_WIDTH, highlight=False)


def note(message: str) -> None:
    """Tell the person something that is not the result."""
    with suppress(OSError):  # who does not listen is not told
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
