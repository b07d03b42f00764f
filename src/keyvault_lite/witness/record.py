"""One text on disk of which the newest version survives whatever happens while it is replaced.

Two slots of 8 KiB, written in turn, each `<SHA-256 of what follows> <counter> <text>` and zeros. The slot that holds
the newest text is never written over: a kill or a power loss tears the other one, which was not published yet. That
costs one flush of data, a third of what a new file under the old name does.
"""

import os
from hashlib import sha256
from pathlib import Path
from typing import Final

from keyvault_lite.ledger.storage.own_files import open_own
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.observe import logger

SLOT: Final = 8192
MAX_TEXT: Final = SLOT - 128
"""In bytes; what is left is room for counter and digest."""

log: Final = logger("witness")


class Record:
    """The text of one file. One user at a time; a failed write leaves the old text in force, here and on disk."""

    def __init__(self, path: Path) -> None:
        """Read what is there. Raises IntegrityViolation if there is something and neither slot can be read."""
        self._path = path
        self._descriptor: int | None = None
        self._counter, self._slot = 0, 1
        self.text: str | None = None
        """The newest text; None before the first."""
        try:
            with os.fdopen(open_own(path, os.O_RDONLY), "rb") as file:
                raw = file.read(2 * SLOT + 1)
        except FileNotFoundError:
            return
        found = [(*read, slot) for slot in (0, 1) if (read := _unpack(raw[slot * SLOT :][:SLOT]))]
        if found:
            self._counter, self.text, self._slot = max(found)
            if len(found) == 1 and raw[(self._slot ^ 1) * SLOT :].strip(b"\x00"):
                log.warning("%s: one of the two slots cannot be read, as after a power loss while it was written", path)
        elif raw.strip(b"\x00"):
            raise IntegrityViolation(f"the witness's record {path} is damaged: neither of its two slots can be read")

    def write(self, text: str) -> None:
        """Replace the text; on return it is durable. Raises OSError, ValueError if it is longer than MAX_TEXT."""
        if len(text.encode()) > MAX_TEXT:
            raise ValueError("the text is too long")
        if self._descriptor is None:
            self._descriptor = self._open()
        slot, counter = self._slot ^ 1, self._counter + 1
        content = f"{counter} {text}".encode()
        raw = sha256(content).hexdigest().encode() + b" " + content
        if os.pwrite(self._descriptor, raw.ljust(SLOT, b"\x00"), slot * SLOT) != SLOT:
            raise OSError("the record was not written whole")
        os.fdatasync(self._descriptor)
        self._counter, self._slot, self.text = counter, slot, text

    def _open(self) -> int:
        descriptor = open_own(self._path, os.O_RDWR | os.O_CREAT)
        # Its full length and its name first, so that a later flush of data is all that a later write needs.
        if os.fstat(descriptor).st_size < 2 * SLOT:
            os.pwrite(descriptor, bytes(2 * SLOT - os.fstat(descriptor).st_size), os.fstat(descriptor).st_size)
        os.fsync(descriptor)
        sync_folder(self._path.parent)
        return descriptor

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unpack(slot: bytes) -> tuple[int, str] | None:
    """Counter and text of a slot; None if it is empty or torn."""
    digest, _, content = slot.rstrip(b"\x00").partition(b" ")
    if sha256(content).hexdigest().encode() != digest:
        return None
    counter, _, text = content.decode().partition(" ")
    return int(counter), text
