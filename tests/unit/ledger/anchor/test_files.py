"""The anchor in a file: which slot is written when, what a torn record leaves, and who is refused."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from struct import unpack_from

import pytest

from keyvault_lite.ledger.anchor import files as module
from keyvault_lite.ledger.anchor.files import FileAnchor, where_it_stands
from keyvault_lite.ledger.anchor.interface import AnchorBusy
from keyvault_lite.ledger.anchor.record import (
    BLOCK,
    AnchorRecord,
    DamagedAnchor,
    counter_of,
    pack_record,
    unpack_record,
)
from keyvault_lite.ledger.storage import nonblocking
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, OutcomeUnknown

EMPTY = AnchorRecord(0, 0, 0, bytes(32), bytes(32), "", "key")
FIRST = AnchorRecord(1, 5, 3, b"h" * 32, b"r" * 32, "nöte", "key", 2)
FIXED = 8 + 8 + 4 + 3 * 8 + 32 + 32


def never(_size: int) -> Sequence[bytes]:
    raise AssertionError("nobody proves anything to a file")


def after(mark: AnchorRecord, *, entries: int = 1, managed: int = 0) -> AnchorRecord:
    size = mark.size + entries
    return replace(mark, size=size, state_seq=mark.state_seq + managed, hash=bytes([size % 256]) * 32)


def put(anchor: FileAnchor, mark: AnchorRecord, before: AnchorRecord | None) -> AnchorRecord:
    return anchor.write(lambda _: mark, before=before, prove=never)


def layout(path: Path) -> tuple[list[int], int]:
    """The counter of each slot, and which slot is flushed."""
    raw = path.read_bytes().ljust(2 * BLOCK + 1, b"\xff")
    return [unpack_from(">Q", raw, slot * BLOCK + 8)[0] for slot in (0, 1)], raw[2 * BLOCK]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "one.anchor"


@pytest.fixture
def anchor(path: Path) -> Iterator[FileAnchor]:
    made = FileAnchor(path)
    yield made
    made.close()


def test_a_record_is_the_documented_one() -> None:
    raw = pack_record(7, FIRST)
    assert len(raw) == FIXED + 2 + 5 + 2 + 3 + 32
    assert raw[:8] == b"KVLANCH1"
    assert unpack_from(">QIQQQ", raw, 8) == (7, 1, 5, 3, 2)
    assert raw[44:108] == b"h" * 32 + b"r" * 32
    assert unpack_record(raw.ljust(BLOCK, b"\x00")) == (7, raw, FIRST)
    for at in range(len(raw)):
        assert unpack_record((raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]).ljust(BLOCK, b"\x00")) is None
        assert unpack_record(raw[:at]) is None


def test_what_does_not_fit_is_not_written(anchor: FileAnchor) -> None:
    room = BLOCK - len(pack_record(1, replace(FIRST, checkpoint="")))
    put(anchor, full := replace(FIRST, checkpoint="x" * room), None)
    assert anchor.read() == full
    with pytest.raises(OutcomeUnknown, match="does not fit"):
        put(anchor, replace(after(FIRST), checkpoint="x" * (room + 1)), full)
    assert anchor.read() == full


def test_the_flushed_record_is_never_written_over(path: Path, anchor: FileAnchor) -> None:
    assert anchor.read() is None
    assert not path.exists()
    marks = [FIRST, after(FIRST), after(FIRST, entries=2), after(FIRST, entries=3, managed=1)]
    marks += [after(marks[-1]), after(marks[-1], entries=2)]
    before, seen = None, []
    for mark in marks:
        assert put(anchor, mark, before) == mark
        assert anchor.read() == FileAnchor(path).read() == FileAnchor(path).peek() == mark
        seen.append(layout(path))
        before = mark
    assert seen == [
        ([1, 0], 0),  # of a management entry: flushed at once
        ([1, 2], 0),
        ([1, 3], 0),  # over the one that is not flushed
        ([1, 4], 1),
        ([5, 4], 1),
        ([6, 4], 1),
    ]
    assert path.stat().st_mode & 0o777 == 0o600
    anchor.flush()
    assert layout(path) == ([6, 4], 0)
    put(anchor, after(marks[-1]), before)
    assert layout(path) == ([6, 7], 0)
    anchor.close()
    assert layout(path) == ([6, 7], 1)


def test_the_first_record_of_a_process_is_flushed_also_if_it_manages_nothing(path: Path, anchor: FileAnchor) -> None:
    put(anchor, EMPTY, None)
    assert layout(path) == ([1, 0], 0)
    put(anchor, after(EMPTY), EMPTY)
    assert layout(path) == ([1, 2], 0)


def test_one_that_always_flushes(path: Path) -> None:
    anchor = FileAnchor(path, always_flush=True)
    assert anchor.waits
    assert not FileAnchor(path).waits
    put(anchor, FIRST, None)
    put(anchor, after(FIRST), FIRST)
    assert layout(path) == ([1, 2], 1)
    anchor.close()


def test_another_process_goes_on_from_what_is_there(path: Path, anchor: FileAnchor) -> None:
    other = FileAnchor(path)
    put(anchor, FIRST, None)
    second, third = after(FIRST), after(FIRST, entries=2)
    put(other, second, FIRST)
    assert layout(path) == ([1, 2], 1), "it does not know whether the management entry was flushed"
    assert anchor.read() == second
    with pytest.raises(OutcomeUnknown, match="moved by another"):
        put(anchor, third, FIRST)
    put(anchor, third, second)
    assert other.read() == third
    other.close()


def test_what_another_process_wrote_over_the_same_record_is_seen(path: Path, anchor: FileAnchor) -> None:
    other = FileAnchor(path)
    put(anchor, FIRST, None)
    second, third = after(FIRST), after(FIRST, entries=2)
    put(anchor, second, FIRST)
    put(other, third, second)
    assert layout(path)[0] == [1, 3], "over the one that was not flushed"
    assert anchor.read() == third
    other.close()


def test_what_another_process_flushed_stays_flushed(path: Path, anchor: FileAnchor) -> None:
    other = FileAnchor(path)
    put(anchor, FIRST, None)
    put(other, after(FIRST), FIRST)
    assert layout(path) == ([1, 2], 1)
    anchor.flush()
    assert layout(path) == ([1, 2], 1)
    other.close()


def test_of_equal_counters_it_is_seen_too(path: Path, anchor: FileAnchor) -> None:
    put(anchor, FIRST, None)
    raw = path.read_bytes()
    path.write_bytes(raw[:BLOCK] + pack_record(1, after(FIRST)))
    assert anchor.read() == after(FIRST)


def test_one_that_is_open_is_not_forgotten_when_its_name_goes(path: Path, anchor: FileAnchor) -> None:
    put(anchor, FIRST, None)
    path.unlink()
    assert anchor.read() == FIRST


@pytest.mark.parametrize("record", [b"", b"KVLANCH1", pack_record(7, FIRST)[: FIXED - 1], b"x" * FIXED])
def test_what_is_no_record_counts_for_nothing(record: bytes) -> None:
    assert counter_of(record) == 0
    assert counter_of(pack_record(7, FIRST)[:FIXED]) == 7


@pytest.mark.parametrize("mark", [replace(FIRST, hash=bytes(32)), after(FIRST, entries=-1), replace(FIRST, size=0)])
def test_it_is_not_moved_back_or_aside(anchor: FileAnchor, mark: AnchorRecord) -> None:
    put(anchor, FIRST, None)
    with pytest.raises(IntegrityViolation, match="remembers entries"):
        put(anchor, mark, FIRST)
    assert anchor.read() == FIRST
    scrubbed = replace(FIRST, scrubbed=5)
    assert put(anchor, scrubbed, FIRST) == anchor.read() == scrubbed


def test_one_that_remembers_nothing_is_anybodys(anchor: FileAnchor) -> None:
    put(anchor, EMPTY, None)
    other = replace(EMPTY, hash=b"x" * 32)
    put(anchor, other, EMPTY)
    one = after(EMPTY)
    put(anchor, one, other)
    with pytest.raises(IntegrityViolation):
        put(anchor, EMPTY, one)


def test_one_that_was_emptied_is_begun_anew(path: Path, anchor: FileAnchor) -> None:
    put(anchor, FIRST, None)
    path.write_bytes(b"")
    assert put(anchor, after(FIRST), FIRST) == after(FIRST)
    assert FileAnchor(path).peek() == after(FIRST)


@pytest.mark.parametrize("torn", [0, 1])
def test_a_torn_record_leaves_the_other(path: Path, anchor: FileAnchor, torn: int) -> None:
    put(anchor, FIRST, None)
    put(anchor, after(FIRST), FIRST)
    raw = path.read_bytes()
    path.write_bytes(raw[: torn * BLOCK + 40] + b"torn" + raw[torn * BLOCK + 44 :])
    left = [after(FIRST), FIRST][torn]
    for reader in (anchor, FileAnchor(path)):
        assert reader.read() == reader.peek() == left
    path.write_bytes(b"x" * len(raw))
    fresh = FileAnchor(path)
    for read in (fresh.read, fresh.peek):
        with pytest.raises(DamagedAnchor):
            read()


def test_of_equal_counters_the_second_slot_is_the_newest(path: Path, anchor: FileAnchor) -> None:
    for first, second in ((FIRST, after(FIRST)), (after(FIRST), FIRST)):
        path.write_bytes(pack_record(1, first).ljust(BLOCK, b"\x00") + pack_record(1, second))
        assert anchor.read() == anchor.peek() == second


def test_an_empty_file_remembers_nothing(path: Path, anchor: FileAnchor) -> None:
    assert anchor.peek() is None
    assert not anchor.exists()
    path.touch()
    assert not anchor.exists()
    assert anchor.read() is anchor.peek() is None
    path.write_bytes(b"x")
    assert anchor.exists()
    for flushed in (b"", b"\x00", b"\x01"):
        path.write_bytes(bytes(2 * BLOCK) + flushed)
        assert anchor.exists()
        assert anchor.read() is anchor.peek() is None


def test_what_is_neither_a_record_nor_zeros_is_damage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PEEKS", 1)
    for byte in b"\x01 ~\xff":
        path.write_bytes(bytes(BLOCK) + bytes([byte]) * BLOCK)
        anchor = FileAnchor(path)
        for read in (anchor.read, anchor.peek):
            with pytest.raises(DamagedAnchor):
                read()
        anchor.close()


def test_it_is_kept_aside_once(path: Path, anchor: FileAnchor) -> None:
    assert anchor.keep_aside() is None
    put(anchor, FIRST, None)
    kept = anchor.keep_aside()
    assert kept == path.with_name("one.anchor.lost-5")
    assert kept.read_bytes() == path.read_bytes()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert anchor.keep_aside() == kept
    for number in (2, 3):
        kept.write_bytes(b"other")
        kept = anchor.keep_aside()
        assert kept == path.with_name(f"one.anchor.lost-5-{number}")
    put(anchor, newer := after(FIRST), FIRST)
    assert anchor.keep_aside() == path.with_name(f"one.anchor.lost-{newer.size}")
    path.write_bytes(b"x" * BLOCK)
    assert anchor.keep_aside() == path.with_name("one.anchor.lost-damaged")


def test_what_is_kept_aside_is_on_disk(path: Path, anchor: FileAnchor, monkeypatch: pytest.MonkeyPatch) -> None:
    put(anchor, FIRST, None)
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_size))
    anchor.keep_aside()
    assert flushed == [path.stat().st_size]
    path.write_bytes(b"torn")
    anchor.keep_aside()
    assert flushed[1:] == [4]


def test_a_replaced_one_has_nothing_else_left(path: Path, anchor: FileAnchor) -> None:
    put(anchor, FIRST, None)
    anchor.replace(EMPTY)
    assert layout(path) == ([1, 2], 1)
    for torn in (0, 1):
        raw = bytearray(path.read_bytes())
        raw[torn * BLOCK + 40] ^= 1
        (other := path.with_name("torn")).write_bytes(raw)
        assert FileAnchor(other).peek() == EMPTY
    assert anchor.read() == EMPTY
    put(anchor, FIRST, EMPTY)
    assert layout(path)[0] == [3, 2]


class TestInUse:
    def test_not_blocking_it_is_not_waited_for(self, path: Path, anchor: FileAnchor) -> None:
        put(anchor, FIRST, None)
        for holder in (anchor, FileAnchor(path)):  # another thread's, another process's
            with holder._locked():
                with pytest.raises(AuditUnavailable):
                    anchor.read(blocking=False)
                with pytest.raises(AnchorBusy):
                    anchor.write(lambda _: after(FIRST), before=FIRST, prove=never, blocking=False)
                assert FileAnchor(path).peek() == FIRST
        assert anchor.read(blocking=False) == FIRST
        mark = anchor.write(lambda _: after(FIRST), before=FIRST, prove=never, blocking=False)
        assert anchor.read() == mark

    def test_one_that_becomes_free_is_had(self, anchor: FileAnchor, monkeypatch: pytest.MonkeyPatch) -> None:
        put(anchor, FIRST, None)
        free = [False, True] * 3
        monkeypatch.setattr(nonblocking, "try_lock", lambda _: free.pop(0))
        assert anchor.read() == FIRST
        assert put(anchor, after(FIRST), FIRST) == after(FIRST)
        anchor.flush()
        assert free == []

    def test_threads_wait_for_each_other(self, anchor: FileAnchor, monkeypatch: pytest.MonkeyPatch) -> None:
        put(anchor, FIRST, None)
        waited: list[bool] = []

        class Threads:
            def acquire(self, *, blocking: bool) -> bool:
                waited.append(blocking)
                return True

            def release(self) -> None:
                pass

        monkeypatch.setattr(anchor, "_threads", Threads())
        anchor.read()
        put(anchor, after(FIRST), FIRST)
        anchor.flush()
        anchor.read(blocking=False)
        assert waited == [True, True, True, False]

    def test_patience_has_an_end(self, path: Path, anchor: FileAnchor, monkeypatch: pytest.MonkeyPatch) -> None:
        put(anchor, FIRST, None)
        for name in ("PATIENCE_SECONDS", "PATIENCE_AFTER_COMMIT"):
            monkeypatch.setattr(module, name, 0.02)
        with FileAnchor(path)._locked():
            with pytest.raises(AuditUnavailable, match="locked by someone else"):
                anchor.read()
            with pytest.raises(AnchorBusy, match="locked by someone else"):
                put(anchor, after(FIRST), FIRST)
            with pytest.raises(OutcomeUnknown, match="locked by someone else"):
                anchor.flush()
        assert anchor.read() == FIRST


class TestFaults:
    @pytest.mark.parametrize("written", [0, BLOCK - 1])
    def test_a_short_write_is_an_unknown_outcome(
        self, anchor: FileAnchor, monkeypatch: pytest.MonkeyPatch, written: int
    ) -> None:
        put(anchor, FIRST, None)
        with monkeypatch.context() as short:
            short.setattr(nonblocking, "pwrite", lambda *_: written)
            with pytest.raises(OutcomeUnknown, match="cannot be written"):
                put(anchor, after(FIRST), FIRST)
        assert anchor.read() == FIRST

    @pytest.mark.parametrize(
        ("owner", "name", "told"),
        [
            (nonblocking, "pwrite", "cannot be written"),
            (nonblocking, "pread", "cannot be read"),
            (os, "fdatasync", "cannot be flushed"),
        ],
    )
    def test_a_failed_call_is_an_unknown_outcome(
        self, anchor: FileAnchor, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, told: str
    ) -> None:
        def failing(*_: object) -> None:
            raise OSError

        put(anchor, FIRST, None)
        with monkeypatch.context() as broken:
            broken.setattr(owner, name, failing)
            with pytest.raises(OutcomeUnknown, match=told):
                put(anchor, after(FIRST, managed=1), FIRST)

    def test_a_folder_in_its_place(self, path: Path, anchor: FileAnchor) -> None:
        path.mkdir()
        (path / "one").touch()
        with pytest.raises(OutcomeUnknown, match="cannot be used"):
            anchor.read()
        with pytest.raises(OutcomeUnknown, match="cannot be read"):
            anchor.peek()


def test_the_name_of_a_new_one_is_flushed(path: Path, anchor: FileAnchor, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    opened = len(list(Path("/proc/self/fd").iterdir()))
    put(anchor, FIRST, None)
    assert flushed == [path.parent.resolve()]
    assert len(list(Path("/proc/self/fd").iterdir())) == opened + 1, "that of the anchor, and none of the folder"
    put(anchor, after(FIRST), FIRST)
    assert len(flushed) == 1
    anchor.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == opened


def test_when_it_was_flushed(anchor: FileAnchor) -> None:
    moments: list[float | None] = []
    for step in (
        anchor.flush,
        lambda: put(anchor, FIRST, None),
        lambda: put(anchor, after(FIRST), FIRST),
        anchor.flush,
    ):
        step()
        moments.append(anchor.flushed_at)
    none, first, same, last = moments
    assert none is None
    assert first == same
    assert first is not None
    assert last is not None
    assert last > first


def test_where_it_stands(path: Path, anchor: FileAnchor) -> None:
    assert where_it_stands(None, path.parent) == "off"
    assert where_it_stands(anchor, path.parent) == "same directory"
    assert where_it_stands(anchor, path.parent / "x" / "..") == "same directory"
    assert where_it_stands(anchor, path.parent / "other") == where_it_stands(anchor, None) == "apart"


def test_what_was_put_in_place_of_more_counts_as_flushed_no_further(
    anchor: FileAnchor, monkeypatch: pytest.MonkeyPatch
) -> None:
    high = replace(FIRST, size=50, state_seq=40)
    put(anchor, high, None)
    anchor.replace(FIRST)
    flushed: list[int] = []
    monkeypatch.setattr(os, "fdatasync", flushed.append)
    put(anchor, after(FIRST, managed=1), FIRST)
    assert flushed, "a management entry is flushed before it is answered"
