"""A child that archives and dies at a given place: `python -m` this module, with FOLDER TO PLACE MASTER."""

import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from keyvault_lite.ledger.archive.segment_files import SegmentStore
from keyvault_lite.ledger.commit.writer import Writer
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.operator.archive import archive_entries
from tests.support.harness import settings_for

PLACES = (
    "the file is half written",
    "the file is there",
    "the entries are deleted",
    "it is committed",
    "it is anchored",
)
COMMITTED = PLACES[3:]
_forget = SqliteDatabase.forget_entries


def die(*_: object, **__: object) -> None:
    """As if by SIGKILL: no handler, no cleaning up."""
    os._exit(9)


def die_at(place: str) -> None:
    """Let the process end there."""
    if place == "the file is half written":
        patch.object(SegmentStore, "_examined", die).start()
    elif place == "the file is there":
        patch("keyvault_lite.operator.archive.perform", die).start()
    else:
        patch.object(SqliteDatabase, "forget_entries", lambda *given: forgotten(place, *given)).start()


def forgotten(place: str, *given: Any) -> None:  # noqa: ANN401
    """In the transaction that deletes."""
    _forget(*given)
    if place == "the entries are deleted":
        die()
    publish = Writer._publish

    def published(*arguments: Any, **how: Any) -> None:  # noqa: ANN401
        if place == "it is anchored":
            publish(*arguments, **how)
        die()

    patch.object(Writer, "_publish", published).start()


if __name__ == "__main__":
    folder, to, place, master = sys.argv[1:5]
    patch("keyvault_lite.operator.archive.SEGMENT", 512).start()
    if place in PLACES:
        die_at(place)
    archive_entries(settings_for(Path(folder), master), Path(to), keep=300)
