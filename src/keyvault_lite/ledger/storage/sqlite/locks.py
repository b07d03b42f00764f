"""The locks in the files beside an SQLite database."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keyvault_lite.ledger.storage import nonblocking, own_files
from keyvault_lite.model.errors import AuditUnavailable


class FileLock:
    """A blocking flock between processes, and a lock between the threads of this one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = threading.Lock()
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Wait for it. Raises AuditUnavailable if its file cannot be used."""
        self._threads.acquire()
        try:
            nonblocking.lock(self._opened())
        except OSError as error:
            self._threads.release()
            place = error.filename or "beside the database"
            raise AuditUnavailable(
                f"the lock file {place} cannot be used: {error.strerror}",
                shown="a lock file of the database cannot be used",
            ) from error

    def try_acquire(self) -> bool:
        """Take it, if nobody has it."""
        if not self._threads.acquire(blocking=False):
            return False
        try:
            if nonblocking.try_lock(self._opened()):
                return True
        except OSError:
            pass  # a caller that needs it gets the reason
        self._threads.release()
        return False

    def _opened(self) -> int:
        if self._descriptor is None:
            self._descriptor = own_files.open_own(self._path, os.O_CREAT | os.O_RDWR)
        return self._descriptor

    def release(self) -> None:
        """Let somebody else have it."""
        try:
            if self._descriptor is not None:
                nonblocking.unlock(self._descriptor)
        finally:
            self._threads.release()

    def flush(self) -> None:
        """While it is held: write its times to the disk, and nothing into the file. Raises AuditUnavailable."""
        try:
            os.utime(self._opened())
            os.fsync(self._opened())
        except OSError as error:
            raise AuditUnavailable(
                f"the disk of the database takes nothing: {error.strerror}",
                shown="the disk of the database takes nothing",
            ) from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have it for as long as the context lasts."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        with self._threads:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def __del__(self) -> None:
        # Without the lock: it may be held for good, and nobody else can reach this object any more.
        if self._descriptor is not None:
            os.close(self._descriptor)
