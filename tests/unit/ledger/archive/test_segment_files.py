"""Files of segments one by one, on a small log: how they come onto the disk, which are taken, and which are refused."""

import lzma
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import IO, Any

import pytest

from keyvault_lite.audit.chain import ChainState, genesis
from keyvault_lite.audit.checkpoint import checkpoint_body, origin, sign_note
from keyvault_lite.audit.entry import ENTRY_COLUMNS, Row, encode_draft, entry_hash, entry_row, row_hash
from keyvault_lite.audit.merkle import TILE_WIDTH, CompactRange, Tiles
from keyvault_lite.audit.segment import (
    MAX_BYTES,
    MAX_ENTRIES,
    End,
    InvalidSegment,
    SegmentReader,
    Start,
    write_end,
    write_entries,
    write_start,
)
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.ledger.archive import segment_files
from keyvault_lite.ledger.archive.archived import Archived
from keyvault_lite.ledger.archive.archiver import SEGMENT, make_segment
from keyvault_lite.ledger.archive.segment_files import NotInFiles, SegmentStore
from keyvault_lite.ledger.log.retention import end_of
from keyvault_lite.ledger.state.head import Head
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.model.archive import PREFIX, Segment
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.replies import Finding

RING = Keyring.create()
START = ChainState.start(genesis(RING.instance_id, RING.log_public_key))
SIZE = 2 * TILE_WIDTH + 5
MANAGED = 100
"""Every so many entries there is one of management."""


@dataclass
class Log:
    """A log of SIZE entries as it is stored, and as it is known."""

    connection: driver.Connection
    known: LogTip

    def archive(self, folder: Path, after: Segment | None = None, last: int = TILE_WIDTH) -> Segment:
        return make_segment(self.connection, self.known, on(folder), after=after, last=last)


def on(folder: Path) -> SegmentStore:
    return SegmentStore(folder, RING, verify_ed25519)


def log_of(connection: driver.Connection, comment: str) -> Log:
    rows: list[Row] = []
    before, draft = (
        START.head,
        Draft(action=Action.ENCRYPT, result=Result.SUCCESS, request_id=bytes(16), comment=comment),
    )
    for number in range(1, SIZE + 1):
        seq = number - number % MANAGED
        root = bytes(32) if seq == number else None
        here = entry_hash(number, 0, number, seq, root, encode_draft(draft), before)
        rows.append(entry_row(number, 0, number, seq, root, draft, before, here))
        before = here
    tiles = Tiles()
    full = tiles.extend([row[-1] for row in rows])
    connection.execute(f"CREATE TABLE audit_logs ({', '.join(ENTRY_COLUMNS)})")
    connection.execute("CREATE TABLE tiles (level, tile, hashes, PRIMARY KEY (level, tile))")
    connection.executemany(statements.APPEND, rows)
    connection.executemany(statements.PUT_TILE, full)
    note, edge = signed(tiles.edge), tiles.edge.to_bytes()
    return Log(connection, LogTip(Head(0, SIZE, before, SIZE, rows[-1][3], bytes(32), edge, note), b"", tiles, note))


def signed(edge: CompactRange, epoch: int = 0) -> str:
    name = origin(RING.instance_id, epoch)
    return sign_note(checkpoint_body(name, edge.size, edge.root()), name, RING.log_public_key, RING.sign_log)


@pytest.fixture
def log() -> Iterator[Log]:
    with closing(driver.connect(":memory:", isolation_level=None)) as connection:
        yield log_of(connection, "this")


@pytest.fixture
def another() -> Iterator[Log]:
    """Another history of the same vault, as after an older copy was put back."""
    with closing(driver.connect(":memory:", isolation_level=None)) as connection:
        yield log_of(connection, "that")


def test_a_file_is_on_disk_before_it_has_its_name_and_its_name_before_it_counts(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[Path, int, list[str]]] = []

    def flush(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        flushed.append((path, path.stat().st_size, [one.name for one in tmp_path.glob("*.kvlseg")]))

    monkeypatch.setattr(os, "fsync", flush)
    opened = set(Path("/proc/self/fd").iterdir())
    segment = log.archive(tmp_path)
    assert set(Path("/proc/self/fd").iterdir()) == opened, "nothing is left open"
    (part, size, before), (folder, _, after) = flushed
    assert (part.suffix, before) == (".part", [])
    assert (folder, after) == (tmp_path.resolve(), [segment.file])
    written = (tmp_path / segment.file).stat()
    assert (written.st_size, written.st_mode & 0o777) == (size, 0o600)


def test_a_file_that_fits_the_buffer_is_on_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_size))
    start = Start(RING.instance_id, RING.log_public_key, 1, TILE_WIDTH, START, bytes(8))
    segment_files._write(tmp_path / "part", start, [], End(START, "a checkpoint", ()))
    assert flushed == [(tmp_path / "part").stat().st_size]


def test_what_a_run_has_left_is_taken(log: Log, tmp_path: Path) -> None:
    after = None
    for last in (TILE_WIDTH, 2 * TILE_WIDTH):
        segment = log.archive(tmp_path, after, last)
        written = (tmp_path / segment.file).stat()
        assert log.archive(tmp_path, after, last) == segment
        assert (tmp_path / segment.file).stat().st_ino == written.st_ino, "and not written again"
        after = segment
    assert len(list(tmp_path.iterdir())) == 2


def test_what_another_history_has_left_is_not(log: Log, another: Log, tmp_path: Path) -> None:
    """It is whole, and signed with the same key; only the tree in memory tells."""
    theirs = another.archive(tmp_path)
    assert on(tmp_path).find(1, TILE_WIDTH, START) == theirs
    ours = log.archive(tmp_path)
    assert ours.head != theirs.head
    assert {file.name for file in tmp_path.iterdir()} == {ours.file, theirs.file}


def test_another_history_is_not_archived(log: Log, another: Log, tmp_path: Path) -> None:
    """A database that is consistent in itself, under a head that is not the one in memory."""
    with pytest.raises(IntegrityViolation):
        make_segment(another.connection, log.known, on(tmp_path), after=None, last=TILE_WIDTH)
    assert list(tmp_path.iterdir()) == []


def test_what_was_signed_once_is_not_enough(log: Log, another: Log, tmp_path: Path) -> None:
    """A checkpoint from before holds for the file; the log that goes on behind it, in memory, is another."""
    before = CompactRange()
    before.extend([leaf for (leaf,) in log.connection.execute(statements.LEAVES, (0, TILE_WIDTH))])
    log.known = replace(another.known, checkpoint=signed(before))
    with pytest.raises(IntegrityViolation, match="not under the head of the log"):
        log.archive(tmp_path)


def test_a_log_that_goes_on_in_a_later_epoch_is_archived(log: Log, tmp_path: Path) -> None:
    log.known = replace(log.known, checkpoint=signed(log.known.tiles.edge, epoch=2))
    segment = log.archive(tmp_path)
    assert on(tmp_path).find(1, TILE_WIDTH, START) == segment


@pytest.mark.parametrize("entry", [1, 5, TILE_WIDTH])
def test_a_log_with_a_gap_is_not_archived(log: Log, tmp_path: Path, entry: int) -> None:
    log.connection.execute("DELETE FROM audit_logs WHERE id = ?", (entry,))
    with pytest.raises(IntegrityViolation, match="the log has a gap"):
        log.archive(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_segments_are_whole_tiles_and_no_larger_than_can_be_read() -> None:
    assert SEGMENT % TILE_WIDTH == 0
    assert TILE_WIDTH <= SEGMENT <= MAX_ENTRIES
    assert segment_files.MAX_FILE >= MAX_BYTES


def test_a_file_larger_than_any_is_not_read(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = log.archive(tmp_path)
    size = (tmp_path / segment.file).stat().st_size
    monkeypatch.setattr(segment_files, "MAX_FILE", size)
    assert [len(rows) for rows, _ in on(tmp_path).entries(segment, START)] == [TILE_WIDTH]
    monkeypatch.setattr(segment_files, "MAX_FILE", size - 1)
    monkeypatch.delattr(segment_files, "_digest")
    with pytest.raises(InvalidSegment, match="is larger than any segment"):
        list(on(tmp_path).entries(segment, START))


def test_the_file_on_record_is_believed_only_if_the_log_has_signed_it(log: Log, tmp_path: Path) -> None:
    segment = log.archive(tmp_path)
    with pytest.raises(IntegrityViolation, match="signature"):
        list(SegmentStore(tmp_path, RING, lambda *_: False).entries(segment, START))


def test_files_on_no_record(log: Log, another: Log, tmp_path: Path) -> None:
    first, theirs = log.archive(tmp_path), another.archive(tmp_path)
    second = log.archive(tmp_path, first, 2 * TILE_WIDTH)
    (tmp_path / "audit.txt").touch()
    assert on(tmp_path).others([first, second]) == [theirs.file]
    assert on(tmp_path).others([theirs]) == [first.file, second.file]
    assert on(tmp_path).others([]) == sorted((first.file, second.file, theirs.file))


def test_all_that_is_archived_is_read_where_files_are_at_hand(log: Log, tmp_path: Path) -> None:
    first = log.archive(tmp_path)
    second = log.archive(tmp_path, first, 2 * TILE_WIDTH)
    managed: list[int] = []
    fed: list[bytes] = []

    def feed(rows: Sequence[Row], leaves: list[bytes]) -> None:
        managed.extend(row[0] for row in rows)
        fed.extend(leaves)

    archived = Archived(log.connection, [first, second], on(tmp_path))
    assert (archived.last, archived.position) == (2 * TILE_WIDTH, end_of(second))
    log.connection.execute("DROP TABLE tiles")
    assert archived.read(START, feed) == []
    assert managed == list(range(MANAGED, 2 * TILE_WIDTH + 1, MANAGED))
    assert fed == [leaf for (leaf,) in log.connection.execute(statements.LEAVES, (0, 2 * TILE_WIDTH))]
    assert archived.unread == 0


def test_of_a_log_that_was_never_archived_nothing_is(log: Log) -> None:
    archived = Archived(log.connection, [], None)
    assert (archived.last, archived.position, archived.read(START, lambda *_: None)) == (0, None, [])


def test_an_entry_without_a_number_is_not_judged_as_archived(log: Log, tmp_path: Path) -> None:
    """Who compares the schema finds it."""
    archived = Archived(log.connection, [log.archive(tmp_path)], None)
    assert [one.row for one in archived.strays()] == ["1"]
    log.connection.execute("UPDATE audit_logs SET id = 'one'")
    assert archived.strays() == []


@pytest.mark.parametrize("at_hand", [True, False])
def test_a_segment_that_is_on_no_record_is_told_where_files_are_read(
    log: Log, tmp_path: Path, *, at_hand: bool
) -> None:
    """What is behind it is not read then, and its hashes come from the tiles."""
    first = log.archive(tmp_path)
    second = log.archive(tmp_path, first, 2 * TILE_WIDTH)
    fed: list[Any] = []
    archived = Archived(log.connection, [second], on(tmp_path) if at_hand else None)
    problem = Finding("settings", PREFIX, f"entries 1 to {TILE_WIDTH} are archived in a file on no record")
    assert archived.read(START, lambda _, leaves: fed.extend(leaves)) == ([problem] if at_hand else [])
    assert (fed[-1], len(fed), archived.unread) == (end_of(second).head, 2 * TILE_WIDTH, 2 * TILE_WIDTH)


# What is no file of ours, and what becomes another while it is read


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [fifo, endless, Path.mkdir, lambda path: path.symlink_to(path.name)])
def test_what_is_no_regular_file_is_refused_at_once(log: Log, tmp_path: Path, make: Callable[[Path], None]) -> None:
    segment = log.archive(tmp_path)
    path = tmp_path / segment.file
    whole = path.rename(tmp_path / "whole")
    make(path)
    opened = set(Path("/proc/self/fd").iterdir())
    with pytest.raises((InvalidSegment, OSError)):
        list(on(tmp_path).entries(segment, START))
    with pytest.raises(InvalidSegment, match=segment.file):
        list(read(tmp_path))
    assert on(tmp_path).find(1, TILE_WIDTH, START) is None
    assert set(Path("/proc/self/fd").iterdir()) == opened, "nothing is left open"
    # A link to a file is as good as the file.
    path.rmdir() if path.is_dir() else path.unlink()
    path.symlink_to(whole)
    assert on(tmp_path).find(1, TILE_WIDTH, START) == segment
    assert ids(read(tmp_path)) == list(range(1, TILE_WIDTH + 1))


def test_a_file_that_grows_while_it_is_read_is_not_read_for_ever(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = log.archive(tmp_path)
    size = (tmp_path / segment.file).stat().st_size
    monkeypatch.setattr(segment_files, "MAX_FILE", size)
    real = os.fstat

    def late(descriptor: int) -> os.stat_result:
        found = real(descriptor)
        with (tmp_path / segment.file).open("ab") as file:
            file.write(bytes(10))
        return found

    monkeypatch.setattr(os, "fstat", late)
    with pytest.raises(InvalidSegment, match="is larger than any segment"):
        list(on(tmp_path).entries(segment, START))


def read(folder: Path, first: int = 1, last: int | None = None, notes: list[str] | None = None) -> Iterator[Row]:
    return on(folder).read(first=first, last=last, note=pytest.fail if notes is None else notes.append)


def ids(rows: Iterable[Row]) -> list[int]:
    return [row[0] for row in rows]


def numbers(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "by another file"])
@pytest.mark.parametrize("times", range(1, 4))
def test_only_the_bytes_that_were_proven_are_handed_over(
    log: Log, another: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, *, in_place: bool
) -> None:
    """The file is exchanged after it was opened for the first, second and third time: the last is proven no more."""
    ours = tmp_path / "ours"
    ours.mkdir()
    path = ours / log.archive(ours).file
    forged = forgery(path.read_bytes())
    regular, opened = segment_files._regular, [0]

    @contextmanager
    def exchanged(name: Path) -> Iterator[IO[bytes]]:
        opened[0] += 1
        with regular(name) as stream:
            if opened[0] == times:
                if not in_place:
                    path.unlink()
                path.write_bytes(forged)
            yield stream

    monkeypatch.setattr(segment_files, "_regular", exchanged)
    found: list[Row] = []
    try:
        found.extend(read(ours))
    except InvalidSegment as error:
        assert path.name in error.detail  # noqa: PT017
    assert all(row[SOURCE] != "elsewhere" for row in found)
    assert len(found) in {0, TILE_WIDTH}


SOURCE = ENTRY_COLUMNS.index("source")


def forgery(whole: bytes) -> bytes:
    """Another history from the first entry on, consistent in itself, that keeps checkpoint and proof."""
    reader = SegmentReader(segment_files._Decompressed(BytesIO(whole)).read)
    rows: list[Row] = []
    before = reader.start.position.head
    for one in chain.from_iterable(rows for rows, _ in reader.entries()):
        values = dict(zip(ENTRY_COLUMNS, one, strict=True)) | {"prev_hash": before, "source": "elsewhere"}
        values["hash"] = before = row_hash(tuple(values.values()))
        rows.append(tuple(values.values()))
    assert reader.end is not None
    end = replace(reader.end, position=replace(reader.end.position, head=before))
    return lzma.compress(write_start(reader.start) + write_entries(rows) + write_end(end))


# Reading several files


def test_files_are_read_in_the_order_of_their_entries(log: Log, tmp_path: Path) -> None:
    first = log.archive(tmp_path)
    second = log.archive(tmp_path, first, 2 * TILE_WIDTH)
    (tmp_path / first.file).rename(tmp_path / "audit-z.kvlseg")
    (tmp_path / second.file).rename(tmp_path / "audit-a.kvlseg")
    assert ids(read(tmp_path)) == numbers(1, 2 * TILE_WIDTH)
    assert ids(read(tmp_path, 200, 300)) == numbers(200, 300)


def test_entries_that_several_files_have_are_handed_over_once(log: Log, tmp_path: Path) -> None:
    first = log.archive(tmp_path)
    log.archive(tmp_path, first, 2 * TILE_WIDTH)
    (tmp_path / "audit-copy.kvlseg").write_bytes((tmp_path / first.file).read_bytes())
    notes: list[str] = []
    assert ids(read(tmp_path, notes=notes)) == numbers(1, 2 * TILE_WIDTH)
    assert len(notes) == 1
    # A run that was cut off may have left other boundaries: the same history, in other parts.
    log.archive(tmp_path, None, 2 * TILE_WIDTH)
    assert ids(read(tmp_path, notes=notes)) == numbers(1, 2 * TILE_WIDTH)
    assert ids(read(tmp_path, TILE_WIDTH, TILE_WIDTH + 1, notes)) == [TILE_WIDTH, TILE_WIDTH + 1]


def test_entries_in_no_file_are_named_at_the_end(log: Log, tmp_path: Path) -> None:
    def missing(first: int, last: int | None = None) -> tuple[list[int], str]:
        found: list[int] = []
        with pytest.raises(NotInFiles) as raised:
            found += (row[0] for row in read(tmp_path, first, last))
        return found, raised.value.detail

    first = log.archive(tmp_path)
    second = log.archive(tmp_path, first, 2 * TILE_WIDTH)
    assert missing(500, 600)[1] == "entries 513 to 600 are in no file"
    assert missing(600, 700)[1] == "entries 600 to 700 are in no file"
    assert missing(600)[1] == "entries from 600 on are in no file"
    (tmp_path / first.file).unlink()
    assert missing(1) == (numbers(257, 512), "entries 1 to 256 are in no file")
    assert missing(250, 513)[1] == "entries 250 to 256, entries 513 to 513 are in no file"
    assert ids(read(tmp_path, 257, 512)) == numbers(257, 512)
    (tmp_path / second.file).unlink()
    assert missing(1) == ([], "entries from 1 on are in no file")


def test_two_histories_are_not_one(log: Log, another: Log, tmp_path: Path) -> None:
    """Each file is proven; that they do not belong together is said before the first entry."""
    ours, theirs = log.archive(tmp_path), another.archive(tmp_path)
    with pytest.raises(InvalidSegment, match="two histories"):
        next(read(tmp_path))
    # One after the other, as in folders that were thrown together.
    after = another.archive(tmp_path, theirs, 2 * TILE_WIDTH)
    (tmp_path / theirs.file).unlink()
    with pytest.raises(InvalidSegment, match=f"{after.file} and {ours.file}"):
        next(read(tmp_path))
    assert ids(read(tmp_path, last=5)) == numbers(1, 5), "of what is not asked for nothing is said"
