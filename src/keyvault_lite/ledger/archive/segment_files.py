"""Files of archived segments in a folder: written whole or not at all, and believed only as far as they prove.

A file is compressed as one xz stream with little memory at either end. Sizes are bounded before anything is parsed: the
file's, the decompressor's memory, and what comes out of it. A file is read once, into a private copy, which is examined
and used: a writer of the folder may exchange it or write into it meanwhile.
"""

import hashlib
import lzma
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Final

from keyvault_lite.audit.chain import ChainState
from keyvault_lite.audit.checkpoint import Verify, origin, split_origin, verifier_key, verify_note
from keyvault_lite.audit.entry import Row
from keyvault_lite.audit.merkle import verify_consistency
from keyvault_lite.audit.segment import End, InvalidSegment, SegmentReader, Start, write_end, write_entries, write_start
from keyvault_lite.ledger.log.retention import end_of
from keyvault_lite.ledger.state.outcome import Authority, PublicAuthority
from keyvault_lite.model.archive import SUFFIX, Segment, file_prefix
from keyvault_lite.model.errors import IntegrityViolation, NotFound

MAX_FILE: Final = 1 << 30
MEMORY: Final = 64 << 20
"""What a decompressor may use: a crafted file can ask for gigabytes."""
IN_MEMORY: Final = 1 << 24
"""Up to which size the copy of a file is kept in memory; a larger one is in a file without a name."""
_CHUNK: Final = 1 << 16
_PRESET: Final = 0
"""Most of an entry is random; the higher presets take ten times as long for two percent."""


class NotInFiles(NotFound):
    """Entries that were asked for are in no file; all others were handed over before."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """A private copy of a file, and the SHA-256 of its bytes."""

    stream: IO[bytes]
    digest: str


@dataclass(frozen=True, slots=True)
class _Proven:
    """What a file was when it was examined."""

    path: Path
    before: ChainState
    segment: Segment
    heads: Mapping[int, bytes]
    """By size of the log, the hash of its newest entry then: at both ends, and after each tile."""


@dataclass(frozen=True, slots=True)
class SegmentStore:
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
            _write(part, start, chunks, end)
            segment = self._proven(part).segment
            part.rename(self.folder / segment.file)
            _flush_folder(self.folder)
        except BaseException:  # also Ctrl-C: a part must not stay
            part.unlink(missing_ok=True)
            raise
        return segment

    def find(self, first: int, last: int, before: ChainState) -> Segment | None:
        """A whole file with exactly these entries, continuing the log at `before`: left by a run that was cut off."""
        for path in sorted(self.folder.glob(f"{file_prefix(first, last)}*{SUFFIX}")):
            with suppress(IntegrityViolation, OSError):
                found = self._proven(path)
                if found.before == before and path.name == found.segment.file:
                    return found.segment
        return None

    def entries(self, segment: Segment, before: ChainState) -> Iterator[tuple[list[Row], list[bytes]]]:
        """The rows and leaf hashes of a segment on record, 256 at a time.

        Raises InvalidSegment or BrokenChain, at the latest after the last of them: none may be used before the end.
        """
        try:
            with _copied(self.folder / segment.file) as copy:
                if copy.digest != segment.file_hash:
                    raise InvalidSegment(f"is not the file on record, whose SHA-256 is {segment.file_hash}")
                yield from self._entries(copy, segment, before)
        except FileNotFoundError:
            raise InvalidSegment(f"is missing; its SHA-256 is {segment.file_hash}") from None

    def _entries(self, copy: _Copy, segment: Segment, before: ChainState) -> Iterator[tuple[list[Row], list[bytes]]]:
        reader = self._reader(copy.stream)
        start = reader.start
        if (start.first, start.last, start.position) != (segment.first, segment.last, before):
            raise InvalidSegment("holds other entries than the ones on record")
        yield from reader.entries()
        if self._end(reader).position != end_of(segment):
            raise InvalidSegment("does not end where the record says")

    def read(self, *, first: int, last: int | None, note: Callable[[str], None]) -> Iterator[Row]:
        """The entries from `first` to `last` (None: to the end) that files in the folder hold, in order and each once.

        Every file that has some is proven whole before the first entry is handed over, and that they are of one
        history. Needs nothing but the folder and the log's public key. `note` is called for files that have nothing
        new. Raises InvalidSegment, before the first entry unless a file is changed meanwhile, and NotInFiles at the
        end.
        """
        at = first
        missing: list[str] = []
        for file in self._history(first, last):
            if file.segment.last < at:
                note(f"{file.path.name} has no entry that the files before it do not have")
                continue
            if file.segment.first > at:
                missing.append(f"entries {at} to {file.segment.first - 1}")
            for row in self._rows(file):
                if at <= row[0] and (last is None or row[0] <= last):
                    yield row
            at = file.segment.last + 1
        if last is not None and at <= last:
            missing.append(f"entries {at} to {last}")
        elif at == first:
            missing.append(f"entries from {first} on")
        if missing:
            raise NotInFiles(f"{', '.join(missing)} are in no file")

    def _history(self, first: int, last: int | None) -> list[_Proven]:
        """The files with any of these entries, proven, by their first entry. Raises InvalidSegment for two histories.

        The chain leads from each hash to all before it: files that agree wherever both know one are of one history.
        """
        found: list[_Proven] = []
        heads: dict[int, tuple[bytes, str]] = {}
        for path in sorted(self.folder.glob(f"audit-*{SUFFIX}")):
            with _named(path):
                if not _overlaps(self._start(path), first, last):
                    continue
                file = self._proven(path)
            for size, head in file.heads.items():
                known, name = heads.setdefault(size, (head, path.name))
                if known != head:
                    raise InvalidSegment(
                        f"{path.name} and {name} hold two histories of the log, which differ up to entry {size}: "
                        "put the files of one of them elsewhere"
                    )
            found.append(file)
        return sorted(found, key=lambda file: (file.segment.first, -file.segment.last))

    def _start(self, path: Path) -> Start:
        """What a file says of itself, unproven."""
        with _regular(path) as stream:
            return self._reader(stream).start

    def _rows(self, file: _Proven) -> Iterator[Row]:
        """The rows of a file that was proven: of these very bytes."""
        with _named(file.path), _copied(file.path) as copy:
            if copy.digest != file.segment.file_hash:
                raise InvalidSegment("was changed while it was read")
            for rows, _ in self._reader(copy.stream).entries():
                yield from rows

    def others(self, segments: Iterable[Segment]) -> list[str]:
        """The names of files of segments that are on no record."""
        known = {segment.file for segment in segments}
        return sorted(path.name for path in self.folder.glob(f"audit-*{SUFFIX}") if path.name not in known)

    def _proven(self, path: Path) -> _Proven:
        with _copied(path) as copy:
            return self._examined(path, copy)

    def _examined(self, path: Path, copy: _Copy) -> _Proven:
        """What a file turns out to be, once it was read whole."""
        reader = self._reader(copy.stream)
        start = reader.start
        heads = {start.position.size: start.position.head}
        heads |= {rows[-1][0]: leaves[-1] for rows, leaves in reader.entries()}
        at = self._end(reader).position
        segment = Segment(
            first=start.first,
            last=start.last,
            file_hash=copy.digest,
            head=at.head,
            epoch=at.epoch,
            timestamp=at.timestamp,
            state_seq=at.state_seq,
        )
        return _Proven(path, start.position, segment, heads)

    def _end(self, reader: SegmentReader) -> End:
        """The end of a segment that was read: its checkpoint is this log's, and the tree over it leads to that."""
        if reader.end is None:
            raise InvalidSegment("has no end")
        epoch = split_origin(reader.end.checkpoint.partition("\n")[0])[1]
        identity = self.identity
        key = verifier_key(origin(identity.instance_id, epoch), identity.log_public_key)
        said = verify_note(reader.end.checkpoint, key, self.verify)
        verify_consistency(
            reader.end.proof, old=reader.start.last, new=said.size, old_root=reader.root, new_root=said.root
        )
        return reader.end

    def _reader(self, stream: IO[bytes]) -> SegmentReader:
        reader = SegmentReader(_Decompressed(stream).read)
        identity = self.identity
        if (reader.start.instance_id, reader.start.log_public_key) != (identity.instance_id, identity.log_public_key):
            raise InvalidSegment("is of another vault")
        return reader


def _overlaps(start: Start, first: int, last: int | None) -> bool:
    return start.last >= first and (last is None or start.first <= last)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let what is wrong with a file begin with its name."""
    try:
        yield
    except IntegrityViolation as error:
        raise InvalidSegment(f"{path.name}: {error.detail}") from None
    except OSError as error:
        raise InvalidSegment(f"{path.name}: {error.strerror}") from None


@contextmanager
def _regular(path: Path) -> Iterator[IO[bytes]]:
    """A file, open. Raises InvalidSegment for a pipe, a device and the like, at once, and for what is too large.

    Links are followed, as an operator may have the files on another volume: what counts is where they lead.
    """
    # Without O_NONBLOCK the open alone waits for a writer of a pipe.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY)) as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise InvalidSegment("is no regular file")
        if found.st_size > MAX_FILE:
            raise InvalidSegment("is larger than any segment")
        yield stream


@contextmanager
def _copied(path: Path) -> Iterator[_Copy]:
    """A private copy of a file. Raises OSError, or InvalidSegment for what cannot be a segment."""
    with _regular(path) as stream, SpooledTemporaryFile(max_size=IN_MEMORY) as copy:
        left = MAX_FILE + 1  # it may grow meanwhile
        while left and (data := stream.read(min(left, _CHUNK))):
            copy.write(data)
            left -= len(data)
        if not left:
            raise InvalidSegment("is larger than any segment")
        copy.seek(0)
        digest = _digest(copy)
        copy.seek(0)
        yield _Copy(copy, digest)


def _write(part: Path, start: Start, chunks: Iterable[list[Row]], end: End) -> None:
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    compressor = lzma.LZMACompressor(check=lzma.CHECK_SHA256, preset=_PRESET)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(compressor.compress(write_start(start)))
        for rows in chunks:
            stream.write(compressor.compress(write_entries(rows)))
        stream.write(compressor.compress(write_end(end)))
        stream.write(compressor.flush())
        stream.flush()
        os.fsync(stream.fileno())


def _digest(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while data := stream.read(_CHUNK):
        digest.update(data)
    return digest.hexdigest()


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Decompressed:
    """One xz stream and nothing after it, read as it is needed."""

    def __init__(self, stream: IO[bytes]) -> None:
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
