"""The files of an SQLite database: how an empty one is made, and the refusal of a rollback journal beside it.

A vault is in WAL mode from its first byte on, so SQLite never makes a rollback journal for it. One that lies beside the
file all the same was put there, and is dangerous: the next process that opens the database lets SQLite write the
journal's pages into it before anything is read, and older versions of SQLite then delete the file that the journal
names as its super-journal. So it is looked for before SQLite opens the file, for reading too.
"""

import os
import struct
from pathlib import Path
from typing import Final

from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.own_files import open_own
from keyvault_lite.model.errors import AuditUnavailable
from keyvault_lite.model.replies import Finding

MAGIC: Final = b"SQLite format 3\x00"
_PAGE: Final = 4096
_WAL_MODE: Final = 2
_EMPTY: Final = (
    # "Database File Format", section 1.3: as SQLite itself writes page 1 for `PRAGMA journal_mode = WAL`.
    MAGIC
    + struct.pack(">H6B", _PAGE, _WAL_MODE, _WAL_MODE, 0, 64, 32, 32)
    + struct.pack(">2I", 1, 1)
    + bytes(60)
    + struct.pack(">2I", 1, 3_051_003)
    + struct.pack(">B3HB", 13, 0, 0, _PAGE, 0)
).ljust(_PAGE, b"\x00")
"""A database without tables, in WAL mode."""
_PROBLEM: Final = (
    "lies beside the database, and KeyVault Lite never makes a rollback journal: SQLite would write its pages into the "
    "database. Nothing was opened. Keep a copy of both files, move the journal away, then run `kvl verify`"
)


def beside(path: Path, suffix: str) -> Path:
    """The file that SQLite keeps beside a database: it stands where a symbolic link leads to."""
    real = Path(os.path.realpath(path))
    return real.with_name(real.name + suffix)


def find_journal(path: Path) -> list[Finding]:
    """A finding if there is a rollback journal beside a database, of whatever kind of file."""
    journal = beside(path, "-journal")
    return [Finding("database", journal.name, _PROBLEM)] if os.path.lexists(journal) else []


def refuse_journal(path: Path) -> None:
    """Raise DamagedVault if there is a rollback journal. To be called before SQLite opens the database."""
    if found := find_journal(path):
        raise DamagedVault(found)


def make_empty(path: Path) -> None:
    """Make a missing or empty file an empty database in WAL mode.

    SQLite would use a rollback journal for its first page, which a process that is killed then leaves behind.
    Raises AuditUnavailable.
    """
    try:
        # Mode 0600 whatever the caller's umask; the WAL's files inherit it.
        descriptor = open_own(path, os.O_CREAT | os.O_RDWR)
        try:
            if os.fstat(descriptor).st_size == 0:
                os.pwrite(descriptor, _EMPTY, 0)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise AuditUnavailable(
            f"the database {path.name} cannot be made: {error.strerror}", shown="the database cannot be made"
        ) from error
