"""The anchor: the newest head of the log, kept outside the database, so that a database put back is found out.

A file of two slots (mark.py) in separate 4 KiB blocks and a third block that says which slot is flushed.
Writes go to the slot that is not flushed, and the roles change only after a flush: whatever a power loss tears, the
other slot is whole. All processes of a host share the file, under its own lock. It may lag behind the log, never lead:
it is written after COMMIT and before the reply, and flushed before a reply while a management entry is newer than the
last flush.
"""

import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from keyvault_lite.ledger.anchor.counter import NOT_SET, CounterState, CounterUse, names_counter, problem_with
from keyvault_lite.ledger.anchor.interface import Anchor, AnchorBusy, Prove, Sign
from keyvault_lite.ledger.anchor.record import (
    BLOCK,
    FIXED,
    SIZE,
    AnchorRecord,
    counter_of,
    is_blank,
    newest_of,
    pack_record,
    records,
    unreadable,
)
from keyvault_lite.ledger.storage import nonblocking
from keyvault_lite.ledger.storage.own_files import open_own
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, KeyVaultError, OutcomeUnknown

PEEKS: Final = 5
PATIENCE_SECONDS: Final = 1.0
"""How long another process's lock is waited for: it has it for one flush at the most, unless it stands still."""
PATIENCE_AFTER_COMMIT: Final = 4.0
"""How long when the outcome would be unknown otherwise."""
PAUSE_SECONDS: Final = 0.005
"""How often it is tried again."""
SAME_DIRECTORY: Final = "same directory"


class FileAnchor:
    """The anchor of one host, in a file."""

    is_local: Final = True

    def __init__(self, path: Path, *, always_flush: bool = False, counter: CounterState | None = None) -> None:
        self._path = path
        self.counter: Final = counter
        self._always = always_flush
        self._descriptor: int | None = None
        self._threads = threading.Lock()
        self._seen: tuple[int, bytes, AnchorRecord] | None = None
        """Slot, raw block and mark of the newest record this process has read or written."""
        self._covered = -1
        """The newest management entry that a flush of this process has covered."""
        self.flushed_at: float | None = None
        """When its newest mark was last known to be flushed, on the monotonic clock."""

    @property
    def waits(self) -> bool:
        """See Anchor."""
        return self._always

    @property
    def place(self) -> str:
        """The file's path."""
        return str(self._path)

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def facts(self) -> dict[str, object]:
        """For `/health`."""
        found: dict[str, object] = {}
        if self.flushed_at is not None:
            found["anchor_flushed_seconds_ago"] = round(time.monotonic() - self.flushed_at, 1)
        if self.counter is not None:
            found["tpm_increments_left_today"] = self.counter.left_today
        return found

    def exists(self) -> bool:
        """Whether there is a file that is not empty."""
        try:
            found = self._path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        # What is not a file is there, so that it is opened and refused.
        return found.st_size > 0 or not stat.S_ISREG(found.st_mode)

    def read(self, *, blocking: bool = True) -> AnchorRecord | None:
        """See Anchor."""
        if self._descriptor is None and not self.exists():
            return None
        with self._locked(PATIENCE_SECONDS if blocking else 0.0, busy=AuditUnavailable) as descriptor:
            return self._newest(descriptor)

    def peek(self) -> AnchorRecord | None:
        """As `read`, but without taking the lock or opening the file for writing: for checks beside a running server.

        A record may be torn while it is written; the other one is whole then, or both are a moment later.
        """
        blocks = b""
        for attempt in range(PEEKS):
            blocks = self._raw()
            if found := records(blocks):
                return newest_of(found)
            if is_blank(blocks):
                return None
            time.sleep(0.01 * attempt)
        raise unreadable(blocks)

    def keep_aside(self) -> Path | None:
        """Copy the file, as evidence, before it is replaced. Returns where, None if there is none."""
        raw = self._raw()
        if not raw:
            return None
        found = records(raw)
        name = f"{self._path.name}.lost-{newest_of(found).size if found else 'damaged'}"
        target, number = self._path.with_name(name), 1
        while target.exists() and target.read_bytes() != raw:
            number += 1
            target = target.with_name(f"{name}-{number}")
        if not target.exists():
            with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as copy:
                copy.write(raw)
                copy.flush()
                os.fsync(copy.fileno())
        return target

    def _raw(self) -> bytes:
        """The file, or as much of it as tells that it is none."""
        try:
            with os.fdopen(open_own(self._path, os.O_RDONLY), "rb") as file:
                return file.read(SIZE + 1)
        except FileNotFoundError:
            return b""
        except OSError as problem:
            raise OutcomeUnknown(
                f"the anchor {self._path.name} cannot be read: {problem.strerror}", shown="the anchor cannot be read"
            ) from problem

    def write(
        self,
        sign: Sign,
        *,
        before: AnchorRecord | None,
        prove: Prove,
        use: CounterUse = CounterUse.NONE,
        blocking: bool = True,
    ) -> AnchorRecord:
        """See Anchor. Flushed at once if it holds a management entry that no flush has covered yet, or is counted."""
        with self._locked(PATIENCE_AFTER_COMMIT if blocking else 0.0, busy=AnchorBusy) as descriptor:
            now = self._newest(descriptor)
            if now is not None and now != before:
                raise OutcomeUnknown("the anchor was moved by another vault or copy of this one")
            counted, count = self._count(now, use, blocking=blocking)
            mark = sign(count)
            # One that never had an entry remembers nothing: any log may begin in its place.
            if now is not None and 0 < now.size >= mark.size and (now.size, now.hash) != (mark.size, mark.hash):
                raise IntegrityViolation("the anchor remembers entries that this log does not have")
            counter, slot = 1, 0
            if self._seen is not None:
                newest, raw, _ = self._seen
                counter = counter_of(raw) + 1
                # Over the newest record if it is not flushed yet, else over the other one.
                slot = newest ^ 1 if self._flushed_slot(descriptor) == newest else newest
            raw = pack_record(counter, mark)
            self._pwrite(descriptor, raw.ljust(BLOCK, b"\x00"), slot * BLOCK)
            self._seen = (slot, raw, mark)
            if self._always or counted or mark.state_seq > self._covered:
                self._flush(descriptor, slot)
                self._covered = mark.state_seq
            if self.counter is not None:
                self.counter.made(mark, count)
                if counted and count is not None:
                    self.counter.finish(mark, count)
            return mark

    def _count(self, now: AnchorRecord | None, use: CounterUse, *, blocking: bool) -> tuple[bool, int | None]:
        """Whether what follows the newest mark is counted, and the value that it names."""
        counter = self.counter
        if counter is None:
            return False, None
        if not blocking and (use is not CounterUse.NONE or counter.is_due(now)):
            raise AnchorBusy("the counter has to be waited for")
        if counter.is_counted(now, use):
            return True, counter.value_for_next(now)
        return False, None if now is None else counter.count_in(now)

    @property
    def is_due(self) -> bool:
        """See Anchor."""
        return self.counter is not None and self.counter.is_due(None if self._seen is None else self._seen[2])

    def check_counter(self, mark: AnchorRecord) -> tuple[str, str] | None:
        """See Anchor. Beside a running server, the mark and the counter are read until they are of one moment."""
        if self.counter is None:
            return (self.place, NOT_SET) if names_counter(mark) else None
        value = self.counter.read()
        for _ in range(PEEKS):
            newest = self.peek()
            if newest is None or self.counter.count_in(newest) == self.counter.count_in(mark):
                break
            mark, value = newest, self.counter.read()
        problem = problem_with(self.counter.count_in(mark), value)
        return None if problem is None else (self.counter.place, problem)

    def prove(self) -> None:
        """See Anchor. `flush`, which is called more often, tells whether it is the file that was opened."""
        if self._path.exists() and not os.access(self._path, os.W_OK):
            raise AuditUnavailable("the anchor's file cannot be written: it or its file system is read-only")

    def flush(self) -> None:
        """See Anchor."""
        if self._descriptor is None:
            return
        self._check_same_file(self._descriptor)
        with self._locked() as descriptor:
            if self._newest(descriptor) is not None and self._seen is not None:
                slot = self._seen[0]
                if self._flushed_slot(descriptor) != slot:
                    self._flush(descriptor, slot)
                self.flushed_at = time.monotonic()

    def _check_same_file(self, descriptor: int) -> None:
        """Raise IntegrityViolation if the path no longer leads to the open file: nobody would find what is written."""
        ours = os.fstat(descriptor)
        try:
            found = self._path.stat()
        except FileNotFoundError:
            found = None
        except OSError as problem:
            raise OutcomeUnknown("the anchor cannot be looked at") from problem
        if found is None or (found.st_dev, found.st_ino) != (ours.st_dev, ours.st_ino):
            raise IntegrityViolation("the anchor's file was removed or replaced under the running server")

    def close(self) -> None:
        """See Anchor."""
        with suppress(KeyVaultError):
            self.flush()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def replace(self, mark: AnchorRecord) -> None:
        """Put a mark in place of whatever is there: only for `kvl anchor trust`, after every other check."""
        with self._locked() as descriptor:
            for slot in (0, 1):
                self._pwrite(descriptor, pack_record(slot + 1, mark).ljust(BLOCK, b"\x00"), slot * BLOCK)
            self._seen = (1, pack_record(2, mark), mark)
            self._flush(descriptor, 1)
            self._covered = mark.state_seq

    @contextmanager
    def _locked(
        self, patience: float = PATIENCE_SECONDS, *, busy: type[KeyVaultError] = OutcomeUnknown
    ) -> Iterator[int]:
        """Hold it alone. Raises `busy` if another process has it for longer; without patience, if anybody has it."""
        # Threads share one descriptor, and with it one flock: they need a lock of their own.
        if not self._threads.acquire(blocking=patience > 0):
            raise busy("the anchor is in use")
        try:
            try:
                if self._descriptor is None:
                    self._descriptor = self._open()
            except OSError as problem:
                raise OutcomeUnknown(
                    f"the anchor {self._path.name} cannot be used: {problem.strerror}",
                    shown="the anchor cannot be used",
                ) from problem
            until = time.monotonic() + patience
            while not nonblocking.try_lock(self._descriptor):
                if time.monotonic() >= until:
                    raise busy("the anchor is locked by someone else")
                time.sleep(PAUSE_SECONDS)
            try:
                yield self._descriptor
            finally:
                nonblocking.unlock(self._descriptor)
        finally:
            self._threads.release()

    def _open(self) -> int:
        with suppress(FileNotFoundError):
            return open_own(self._path, os.O_RDWR)
        descriptor = open_own(self._path, os.O_RDWR | os.O_CREAT)
        # The name has to survive a power loss too.
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return descriptor

    def _newest(self, descriptor: int) -> AnchorRecord | None:
        try:
            if self._seen is not None:
                slot, raw, mark = self._seen
                # The usual case: nobody has written since, neither over this record nor into the other slot.
                other = nonblocking.pread(descriptor, FIXED.size, (slot ^ 1) * BLOCK)
                if nonblocking.pread(descriptor, len(raw), slot * BLOCK) == raw and counter_of(other) < counter_of(raw):
                    return mark
            blocks = nonblocking.pread(descriptor, SIZE + 1, 0)
        except OSError as problem:
            raise OutcomeUnknown("the anchor cannot be read") from problem
        found = records(blocks)
        if not found:
            if not is_blank(blocks):
                raise unreadable(blocks)
            return None
        _, slot, (_, raw, mark) = max(found, key=lambda one: one[:2])
        self._seen = (slot, raw, mark)
        return mark

    def _flushed_slot(self, descriptor: int) -> int | None:
        said = nonblocking.pread(descriptor, 1, 2 * BLOCK)
        return said[0] if said in {b"\x00", b"\x01"} else None

    def _flush(self, descriptor: int, slot: int) -> None:
        try:
            os.fdatasync(descriptor)
        except OSError as problem:
            raise OutcomeUnknown("the anchor cannot be flushed") from problem
        self.flushed_at = time.monotonic()
        # Need not be flushed itself: after a power loss every start flushes what it found before it serves.
        self._pwrite(descriptor, bytes((slot,)), 2 * BLOCK)

    def _pwrite(self, descriptor: int, data: bytes, offset: int) -> None:
        try:
            written = nonblocking.pwrite(descriptor, data, offset)
        except OSError as problem:
            raise OutcomeUnknown("the anchor cannot be written") from problem
        if written != len(data):
            raise OutcomeUnknown("the anchor cannot be written")


def where_it_stands(anchor: Anchor | None, folder: Path | None) -> str:
    """Where it is, for people: in the folder of the database it goes back with a snapshot of the volume."""
    if anchor is None:
        return "off"
    if not isinstance(anchor, FileAnchor):
        return "shared"
    return SAME_DIRECTORY if folder is not None and anchor.path.resolve().parent == folder.resolve() else "apart"
