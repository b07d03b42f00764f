"""Reading a database beside its users: nothing is written to it or next to it, and no user waits.

SQLite's plain opening would create, checkpoint or delete the WAL. So there are three ways, by what lies beside it:

    -wal and -shm     read-only, with the -shm never written: beside a running server, or one that was killed
    no -wal           the file alone, as one that does not change; if it did change meanwhile, the reading is repeated
    anything else     a private temporary copy of database and WAL, removed afterwards

MUST NOT be used in a process that has the database open: closing the file would let go of that process's locks on it.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.own_files import open_own
from keyvault_lite.ledger.storage.sqlite.files import beside, refuse_journal
from keyvault_lite.model.errors import AuditUnavailable

T = TypeVar("T")
ATTEMPTS: Final = 5
PAUSE_SECONDS: Final = 0.02
"""Before the first repetition; each further one waits as much longer."""
BUSY_SECONDS: Final = 4.0
_CANNOT_OPEN: Final = frozenset({8, 14})
"""SQLITE_READONLY, SQLITE_CANTOPEN."""
_OCCUPIED: Final = frozenset({5, 6})
"""SQLITE_BUSY, SQLITE_LOCKED."""
_NO_INDEX: Final = _CANNOT_OPEN | {15}
"""What a -shm that cannot be used brings: SQLITE_PROTOCOL as well."""
_SALT: Final = 8
"""Bytes in the headers of WAL and -shm, at these places, that say which WAL it is (SQLite's WAL-mode File Format)."""
_SALT_OF_WAL: Final = 16
_SALT_OF_INDEX: Final = 32


def read_offline(path: Path, work: Callable[[driver.Connection], T]) -> T:
    """The result of `work` on a connection that cannot write. `work` is done again if the files changed under it.

    Raises AuditUnavailable if the database cannot be read now or by this user; driver.Error for a damaged one,
    DamagedVault for one with a rollback journal beside it.
    """
    problem: Exception = AuditUnavailable(
        f"{path.name} keeps changing while it is read, and not as a server would change it"
    )
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE_SECONDS * attempt)
        refuse_journal(path)
        before = _look(path)
        try:
            with _opened(path) as (connection, steady):
                result = work(connection)
        except (*driver.Damaged, OSError) as error:
            problem = _judged(error, path)
            if _look(path) == before:
                break
            continue  # read while it changed, as when a server stops and takes its WAL away: it need not be so
        if steady or _look(path) == before:
            return result
    raise problem


def _judged(error: Exception, path: Path) -> Exception:
    if isinstance(error, OSError):
        return AuditUnavailable(f"{path.name} cannot be read: {error.strerror}")
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _OCCUPIED:
        return AuditUnavailable(f"{path.name} is locked by someone else")
    if code in _CANNOT_OPEN:
        return AuditUnavailable(f"{path.name} cannot be opened for reading")
    return error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[driver.Connection, bool]]:
    """A connection, and whether what it reads is protected from change."""
    with path.open("rb"):
        pass  # a file that this user may not read is not a damaged one
    wal, shared = beside(path, "-wal"), beside(path, "-shm")
    if not wal.exists() or (wal.stat().st_size == 0 and not shared.exists()):
        with _connected(path, "immutable=1") as connection:
            yield connection, False
        return
    if shared.exists() and not _is_stale(shared, wal):
        attempt = _try_shared(path)
        if attempt is not None:
            with _closing(attempt):
                yield attempt, True
            return
    with tempfile.TemporaryDirectory(prefix="kvl-verify-") as folder:
        copy = Path(folder) / "copy.db"
        shutil.copyfile(path, copy)
        with os.fdopen(open_own(wal, os.O_RDONLY), "rb") as source, beside(copy, "-wal").open("wb") as target:
            shutil.copyfileobj(source, target)
        with _connected(copy, "mode=rw") as connection:
            yield connection, False


def _is_stale(shared: Path, wal: Path) -> bool:
    """Whether the WAL was restarted and its index is older: its writer was killed between, else it soon does.

    SQLite itself would wait for the writer for ten seconds, and then give up.
    """
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE_SECONDS * attempt)
        begun = _part(wal, _SALT_OF_WAL)
        if len(begun) < _SALT or _part(shared, _SALT_OF_INDEX) == begun:
            return False
    return True


def _part(file: Path, offset: int) -> bytes:
    with os.fdopen(open_own(file, os.O_RDONLY), "rb") as stream:
        stream.seek(offset)
        return stream.read(_SALT)


def _try_shared(path: Path) -> driver.Connection | None:
    connection = _connect(path, "mode=ro&readonly_shm=1")
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except driver.Error as error:
        connection.close()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NO_INDEX:
            return None
        raise
    return connection


@contextmanager
def _connected(path: Path, how: str) -> Iterator[driver.Connection]:
    with _closing(_connect(path, how)) as connection:
        yield connection


@contextmanager
def _closing(connection: driver.Connection) -> Iterator[driver.Connection]:
    try:
        yield connection
    finally:
        connection.close()


def _connect(path: Path, how: str) -> driver.Connection:
    connection: driver.Connection = driver.connect(
        f"file:{quote(str(path))}?{how}", uri=True, timeout=BUSY_SECONDS, isolation_level=None
    )
    for pragma in ("query_only = ON", "trusted_schema = OFF", "cell_size_check = ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _look(path: Path) -> tuple[object, ...]:
    """What changes whenever the database does."""
    seen: list[object] = []
    for file in (path, beside(path, "-wal"), beside(path, "-journal")):
        try:
            found = file.stat()
        except FileNotFoundError:
            seen.append(None)
        else:
            seen.append((found.st_ino, found.st_size, found.st_mtime_ns))
    return tuple(seen)
