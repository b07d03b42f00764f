"""A copy of an SQLite vault, made beside running servers: one snapshot in one file, which appears whole or not at all.

It is made in a folder of mode 0700 beside its place, so that nobody else can put anything in the way of SQLite, and
gets its name by a hard link, which replaces nothing and follows no symbolic link. The snapshot is one read transaction:
in WAL mode it keeps no writer waiting.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from keyvault_lite.ledger.anchor.record import AnchorRecord
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.own_files import open_own
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.ledger.storage.sqlite.files import beside
from keyvault_lite.model.errors import AuditUnavailable, Conflict
from keyvault_lite.model.replies import Finding

_BESIDE: Final = ("-wal", "-shm", "-journal")


_NOT_MADE: Final = "the backup cannot be made"


@dataclass(frozen=True, slots=True)
class RememberedAnchor:
    """What an anchor remembered before a copy was made: the copy has to extend it."""

    place: str
    mark: AnchorRecord | None

    def read(self, *, blocking: bool = True) -> AnchorRecord | None:
        """See Remembered."""
        return self.mark

    def check_counter(self, mark: AnchorRecord) -> None:
        """See Remembered. A copy is older than the counter as soon as it is made."""


def check_new(target: Path) -> None:
    """Raise Conflict if a backup's file is there already, or what SQLite would take for a part of it."""
    for file in (target, *(target.with_name(target.name + suffix) for suffix in _BESIDE)):
        if os.path.lexists(file):
            raise Conflict(f"{file} exists already and is left as it is: name a new file")


def check_alone(path: Path) -> None:
    """Raise Conflict if something lies beside a backup that SQLite would take for a part of it."""
    for suffix in _BESIDE:
        if os.path.lexists(file := beside(path, suffix)):
            raise Conflict(f"{file.name} lies beside the backup, and `kvl backup` makes no such file: move it away")


@dataclass(frozen=True, slots=True)
class Draft:
    """A copy that has no name yet."""

    database: SqliteDatabase
    target: Path

    def publish(self) -> None:
        """Give it its name, durably."""
        part = self.database.path
        _flush(part)
        os.link(part, self.target, follow_symlinks=False)
        try:
            _flush(self.target.parent)
        except BaseException:
            self.target.unlink(missing_ok=True)
            raise


@contextmanager
def copied(database: SqliteDatabase, target: Path) -> Iterator[Draft]:
    """A copy that can be checked and published within the block; if it was not, nothing is left of it.

    Raises Conflict if there is such a file, AuditUnavailable if it cannot be written or the vault cannot be read,
    DamagedVault for one that SQLite cannot read.
    """
    check_new(target)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name[:200]}.", suffix=".part", dir=target.parent))
        try:
            part = folder / target.name
            _copy(database, part)
            yield Draft(SqliteDatabase(part), target)
        finally:  # also after Ctrl-C
            shutil.rmtree(folder, ignore_errors=True)
    except FileExistsError:
        raise Conflict(f"{target} exists already and is left as it is: name a new file") from None
    except OSError as error:
        raise AuditUnavailable(f"the backup {target} cannot be written: {error.strerror}", shown=_NOT_MADE) from error


def _copy(database: SqliteDatabase, part: Path) -> None:
    os.close(open_own(part, os.O_CREAT | os.O_EXCL | os.O_RDWR))

    def work(source: Any) -> None:  # noqa: ANN401  (`backup` is a method of SQLite's connections alone)
        with closing(_target(part)) as copy:
            try:
                source.backup(copy)
            except driver.Error as error:
                raise _judged(error, part) from error

    try:
        database.read_offline(work)
    except driver.Damaged as error:
        raise DamagedVault([Finding("database", database.name, f"is damaged, or no database: {error}")]) from error


def _target(part: Path) -> Any:  # noqa: ANN401
    copy = driver.connect(f"file:{quote(str(part))}?mode=rw", uri=True, isolation_level=None)
    # A copy that is not finished is thrown away, so it needs no journal; what is finished is flushed as a whole.
    copy.execute("PRAGMA journal_mode = OFF")
    copy.execute("PRAGMA synchronous = OFF")
    return copy


def _judged(error: driver.Error, part: Path) -> Exception:
    # By its words: pysqlite3 gives no code here. Neither says what is stored, nor which of the two files is meant.
    if driver.is_full(error) or "I/O error" in str(error):
        return AuditUnavailable(
            f"the backup {part.name} cannot be written, or the vault cannot be read: {error}; is there enough space?",
            shown=_NOT_MADE,
        )
    return error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
