"""Files of segments one by one, on a small log: how they come onto the disk, which are taken, and which are refused."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from keyvault_lite.audit.chain import Position, genesis
from keyvault_lite.audit.checkpoint import checkpoint_body, origin, sign_note
from keyvault_lite.audit.entry import ENTRY_COLUMNS, Row, encode_draft, entry_hash, entry_row
from keyvault_lite.audit.merkle import TILE_WIDTH, Edge, Tiles
from keyvault_lite.audit.segment import MAX_BYTES, MAX_ENTRIES, End, InvalidSegment, Start
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.ledger import driver, shelf, statements
from keyvault_lite.ledger.archived import Archived
from keyvault_lite.ledger.archiver import SEGMENT, make_segment
from keyvault_lite.ledger.head import Head
from keyvault_lite.ledger.pending import Known
from keyvault_lite.ledger.retention import end_of
from keyvault_lite.ledger.shelf import Shelf
from keyvault_lite.model.archive import PREFIX, Segment
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.replies import Finding

RING = Keyring.create()
START = Position.start(genesis(RING.instance_id, RING.log_public_key))
SIZE = 2 * TILE_WIDTH + 5
MANAGED = 100
"""Every so many entries there is one of management."""


@dataclass
class Log:
    """A log of SIZE entries as it is stored, and as it is known."""

    connection: driver.Connection
    known: Known

    def archive(self, folder: Path, after: Segment | None = None, last: int = TILE_WIDTH) -> Segment:
        return make_segment(self.connection, self.known, on(folder), after=after, last=last)


def on(folder: Path) -> Shelf:
    return Shelf(folder, RING, verify_ed25519)


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
    return Log(connection, Known(Head(0, SIZE, before, SIZE, rows[-1][3], bytes(32), edge, note), b"", tiles, note))


def signed(edge: Edge, epoch: int = 0) -> str:
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
    shelf._write(tmp_path / "part", start, [], End(START, "a checkpoint", ()))
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
    before = Edge()
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
    assert shelf.MAX_FILE >= MAX_BYTES


def test_a_file_larger_than_any_is_not_read(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = log.archive(tmp_path)
    size = (tmp_path / segment.file).stat().st_size
    monkeypatch.setattr(shelf, "MAX_FILE", size)
    assert [len(rows) for rows, _ in on(tmp_path).entries(segment, START)] == [TILE_WIDTH]
    monkeypatch.setattr(shelf, "MAX_FILE", size - 1)
    monkeypatch.delattr(shelf, "_digest")
    with pytest.raises(InvalidSegment, match="is larger than any segment"):
        list(on(tmp_path).entries(segment, START))


def test_the_file_on_record_is_believed_only_if_the_log_has_signed_it(log: Log, tmp_path: Path) -> None:
    segment = log.archive(tmp_path)
    with pytest.raises(IntegrityViolation, match="signature"):
        list(Shelf(tmp_path, RING, lambda *_: False).entries(segment, START))


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
