"""A child that moves a vault and dies at a given place: `python -m tests.unit.ledger.migrate.killed_move TO PLACE`.

Database, anchor ("-" for its own) and master key of the vault come on standard input.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.migrate import copy, move
from keyvault_lite.operator.migrate import migrate_vault
from keyvault_lite.settings import Settings, load

SOURCE_OPENS = (
    "before the schema",
    "before a row",
    "before the copy's COMMIT",
    "after the copy's COMMIT",
    "before the old anchor",
)
NEITHER_OPENS = (
    "after the old anchor",
    "before the new anchor",
    "before the last COMMIT",
)
TARGET_OPENS = ("after the last COMMIT",)
PLACES = (*SOURCE_OPENS, *NEITHER_OPENS, *TARGET_OPENS)


def die(*_: object, **__: object) -> None:
    """As if by SIGKILL: no handler, no cleaning up."""
    os._exit(9)


@contextmanager
def _dying(*given: Any) -> Iterator[None]:  # noqa: ANN401
    with _written(*given):
        yield
        die()


_written, _hand_over = copy.written, move._hand_over


def hand_over(change: Callable[[], object]) -> object:
    """Let something be changed once the copy is committed."""

    def handed_over(*given: Any) -> None:  # noqa: ANN401
        change()
        _hand_over(*given)
        die()

    return patch.object(move, "_hand_over", handed_over).start()


def die_at(place: str) -> None:
    """Let the process end there."""
    changes: dict[str, Callable[[], object]] = {
        "before the schema": patch.object(copy, "prepare", die).start,
        "before a row": patch.object(copy, "_fill", die).start,
        "before the copy's COMMIT": patch.object(copy, "written", _dying).start,
        "after the copy's COMMIT": patch.object(move, "_hand_over", die).start,
        "before the old anchor": lambda: hand_over(patch.object(FileAnchor, "write", die).start),
        "after the old anchor": lambda: hand_over(patch.object(FileAnchor, "flush", die).start),
        "before the new anchor": lambda: hand_over(patch.object(FileAnchor, "replace", die).start),
        "before the last COMMIT": lambda: hand_over(patch.object(move, "written", _dying).start),
        "after the last COMMIT": lambda: hand_over(lambda: None),
    }
    changes[place]()


def settings_of(text: str) -> Settings:
    """The settings of the vault."""
    database, anchor, master = text.split()
    named = None if anchor == "-" else anchor
    return load(master_key=master, master_key_file=None, database_url=database, anchor=named)


if __name__ == "__main__":
    to, place = sys.argv[1:3]
    die_at(place)
    migrate_vault(settings_of(sys.stdin.read()), to)
