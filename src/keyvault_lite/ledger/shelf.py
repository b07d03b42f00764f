"""Files of archived segments in a folder: written whole or not at all, and believed only as far as they prove.

A file is compressed as one xz stream with little memory at either end. Sizes are bounded before anything is parsed: the
file's, the decompressor's memory, and what comes out of it.
"""

import hashlib
import lzma
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from keyvault_lite.audit.chain import Position
from keyvault_lite.audit.checkpoint import Verify, origin, split_origin, verifier_key, verify_note
from keyvault_lite.audit.entry import Row
from keyvault_lite.audit.merkle import verify_consistency
from keyvault_lite.audit.segment import End, InvalidSegment, SegmentReader, Start, write_end, write_entries, write_start
from keyvault_lite.ledger.outcome import Authority, PublicAuthority
from keyvault_lite.ledger.retention import end_of
from keyvault_lite.model.archive import SUFFIX, Segment, file_prefix
from keyvault_lite.model.errors import IntegrityViolation

MAX_FILE: Final = 1 << 30
MEMORY: Final = 64 << 20
"""What a decompressor may use: a crafted file can ask for gigabytes."""
_CHUNK: Final = 1 << 16
_PRESET: Final = 0
"""Most of an entry is random; the higher presets take ten times as long for two percent."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """A folder with segments of one log."""

    folder: Path
    identity: Authority | PublicAuthority
    verify: Verify

    def put(self, start: Start, chunks: Iterable[list[Row]], end: End) -> Segment:
        """Write a file, flush it, read it back and check it whole, and give it its name: only then it is there.

        `chunks` are 256 rows each.
        """
        part = self.folder / f".{file_prefix(start.first, start.last)}{secrets.token_hex(8)}.part"
        try:
            digest = _write(part, start, chunks, end)
            segment = self._examined(part, digest)
            part.rename(self.folder / segment.file)
            _flush_folder(self.folder)
        except BaseException:  # also Ctrl-C: a part must not stay
            part.unlink(missing_ok=True)
            raise
        return segment

    def find(self, first: int, last: int, before: Position) -> Segment | None:
        """A whole file with exactly these entries, continuing the log at `before`: left by a run that was cut off."""
        for path in sorted(self.folder.glob(f"{file_prefix(first, last)}*{SUFFIX}")):
            with suppress(IntegrityViolation, OSError):
                found = self._examined(path, _digest(path))
                with self._opened(path) as reader:
                    if reader.start.position == before and path.name == found.file:
                        return found
        return None

    def entries(self, segment: Segment, before: Position) -> Iterator[tuple[list[Row], list[bytes]]]:
        """The rows and leaf hashes of a segment on record, 256 at a time.

        Raises InvalidSegment or BrokenChain, at the latest after the last of them: none may be used before the end.
        """
        path = self.folder / segment.file
        if not path.exists():
            raise InvalidSegment(f"is missing; its SHA-256 is {segment.file_hash}")
        if path.stat().st_size > MAX_FILE:
            raise InvalidSegment("is larger than any segment")
        if _digest(path) != segment.file_hash:
            raise InvalidSegment(f"is not the file on record, whose SHA-256 is {segment.file_hash}")
        with self._opened(path) as reader:
            start = reader.start
            if (start.first, start.last, start.position) != (segment.first, segment.last, before):
                raise InvalidSegment("holds other entries than the ones on record")
            yield from reader.entries()
            self._check_end(reader)
            if reader.end is None or reader.end.position != end_of(segment):
                raise InvalidSegment("does not end where the record says")

    def read(self, *, first: int, last: int) -> Iterator[Row]:
        """The entries from `first` to `last` that files in the folder hold, each file proven whole before any of it.

        Needs nothing but the folder and the log's public key. Raises InvalidSegment, BrokenChain and the like.
        """
        for path in sorted(self.folder.glob(f"audit-*{SUFFIX}")):
            try:
                with self._opened(path) as reader:
                    if reader.start.last < first or reader.start.first > last:
                        continue
                self._examined(path, "")
                with self._opened(path) as reader:
                    for rows, _ in reader.entries():
                        yield from (row for row in rows if first <= row[0] <= last)
            except IntegrityViolation as error:
                raise InvalidSegment(f"{path.name}: {error.detail}") from None

    def others(self, segments: Iterable[Segment]) -> list[str]:
        """The names of files of segments that are on no record."""
        known = {segment.file for segment in segments}
        return sorted(path.name for path in self.folder.glob(f"audit-*{SUFFIX}") if path.name not in known)

    def _examined(self, path: Path, digest: str) -> Segment:
        """What a file turns out to be, once it was read whole."""
        with self._opened(path) as reader:
            for _ in reader.entries():
                pass
            self._check_end(reader)
            if reader.end is None:
                raise InvalidSegment("has no end")
            at = reader.end.position
            return Segment(
                first=reader.start.first,
                last=reader.start.last,
                file_hash=digest,
                head=at.head,
                epoch=at.epoch,
                timestamp=at.timestamp,
                state_seq=at.state_seq,
            )

    def _check_end(self, reader: SegmentReader) -> None:
        """The checkpoint is this log's, and the tree over the segment leads to it."""
        if reader.end is None:
            raise InvalidSegment("has no end")
        epoch = split_origin(reader.end.checkpoint.partition("\n")[0])[1]
        identity = self.identity
        key = verifier_key(origin(identity.instance_id, epoch), identity.log_public_key)
        said = verify_note(reader.end.checkpoint, key, self.verify)
        verify_consistency(
            reader.end.proof, old=reader.start.last, new=said.size, old_root=reader.root, new_root=said.root
        )

    @contextmanager
    def _opened(self, path: Path) -> Iterator[SegmentReader]:
        with path.open("rb") as stream:
            reader = SegmentReader(_Decompressed(stream).read)
            identity = self.identity
            if (reader.start.instance_id, reader.start.log_public_key) != (
                identity.instance_id,
                identity.log_public_key,
            ):
                raise InvalidSegment("is of another vault")
            yield reader


def _write(part: Path, start: Start, chunks: Iterable[list[Row]], end: End) -> str:
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    digest = hashlib.sha256()
    compressor = lzma.LZMACompressor(check=lzma.CHECK_SHA256, preset=_PRESET)
    with os.fdopen(descriptor, "wb") as stream:

        def put(data: bytes) -> None:
            digest.update(data)
            stream.write(data)

        put(compressor.compress(write_start(start)))
        for rows in chunks:
            put(compressor.compress(write_entries(rows)))
        put(compressor.compress(write_end(end)))
        put(compressor.flush())
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Decompressed:
    """One xz stream and nothing after it, read as it is needed."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._xz = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MEMORY)
        self._ready = bytearray()

    def read(self, count: int) -> bytes:
        """The next `count` bytes, or fewer if the stream ends before."""
        while len(self._ready) < count and not self._xz.eof:
            data = self._stream.read(_CHUNK) if self._xz.needs_input else b""
            if self._xz.needs_input and not data:
                raise InvalidSegment("is cut short")
            try:
                self._ready += self._xz.decompress(data, max_length=_CHUNK)
            except (lzma.LZMAError, EOFError):
                raise InvalidSegment("cannot be decompressed") from None
        if self._xz.eof and (self._xz.unused_data or (not self._ready and self._stream.read(1))):
            raise InvalidSegment("goes on after its end")
        taken = bytes(self._ready[:count])
        del self._ready[:count]
        return taken
