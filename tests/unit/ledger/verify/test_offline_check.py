"""What an offline check reads of a database, what is said of one that it cannot, and of an archive that is none."""

import io
import lzma
import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from keyvault_lite.audit.segment import InvalidSegment
from keyvault_lite.ledger.archive import segment_files
from keyvault_lite.ledger.archive.segment_files import _Decompressed
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.sqlite import offline
from keyvault_lite.ledger.storage.sqlite.offline import _is_stale, _judged, read_offline
from keyvault_lite.model.errors import AuditUnavailable


class Told(driver.Error):
    """An error of SQLite, with its (extended) code."""

    def __init__(self, code: int) -> None:
        super().__init__("told")
        self.sqlite_errorcode = code


@pytest.mark.parametrize(
    ("code", "told"),
    [
        *((code, "locked") for code in (5, 6, 5 | 1 << 8, 6 | 2 << 8)),
        *((code, "opened") for code in (8, 14, 14 | 1 << 8)),
    ],
)
def test_what_is_no_damage(code: int, told: str) -> None:
    judged = _judged(Told(code), Path("vault.db"))
    assert isinstance(judged, AuditUnavailable)
    assert judged.detail.startswith("vault.db ")
    assert told in judged.detail


@pytest.mark.parametrize(
    "error", [Told(11), Told(26), Told(1), UnicodeDecodeError("utf-8", b"", 0, 1, "told"), driver.Error("told")]
)
def test_anything_else_is_told_as_it_is(error: Exception) -> None:
    assert _judged(error, Path("vault.db")) is error


def test_a_file_that_this_user_may_not_read() -> None:
    judged = _judged(PermissionError(13, "Permission denied"), Path("vault.db"))
    assert isinstance(judged, AuditUnavailable)
    assert judged.detail == "vault.db cannot be read: Permission denied"


@pytest.mark.parametrize("code", [8, 14, 15, 14 | 1 << 8, 8 | 4 << 8])
def test_without_an_index_that_can_be_shared_there_is_none(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    tried = Tried(Told(code))
    monkeypatch.setattr(offline, "_connect", lambda *_: tried)
    assert offline._try_shared(Path("vault.db")) is None
    assert tried.closed


@pytest.mark.parametrize("error", [Told(1), Told(9), Told(11), Told(26), driver.Error("told")])
def test_what_else_is_wrong_with_it_is_told(monkeypatch: pytest.MonkeyPatch, error: driver.Error) -> None:
    tried = Tried(error)
    monkeypatch.setattr(offline, "_connect", lambda *_: tried)
    with pytest.raises(driver.Error) as caught:
        offline._try_shared(Path("vault.db"))
    assert caught.value is error
    assert tried.closed


class Tried:
    """A connection that fails at once."""

    def __init__(self, error: driver.Error) -> None:
        self._error = error
        self.closed = False

    def execute(self, _: str) -> None:
        raise self._error

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A database whose writer was killed: its newest rows are in the WAL, and there is no index of that."""
    with closing(driver.connect(str(tmp_path / "whole.db"), isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE words (word)")
        connection.execute("INSERT INTO words VALUES ('one')")
        for suffix in ("", "-wal"):
            shutil.copyfile(tmp_path / f"whole.db{suffix}", tmp_path / f"left.db{suffix}")
    return tmp_path / "left.db"


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_what_changes_while_it_is_copied_is_read_again(left: Path, suffix: str) -> None:
    read: list[list[tuple[str]]] = []

    def disturbed(connection: driver.Connection) -> int:
        read.append(connection.execute("SELECT word FROM words").fetchall())
        if len(read) == 1:
            os.utime(left.with_name(left.name + suffix))
        return len(read)

    assert read_offline(left, disturbed) == 2
    assert read == [[("one",)], [("one",)]]


INDEX, ALONE, COPY = "mode=ro&readonly_shm=1", "immutable=1", "mode=rw"


@pytest.mark.parametrize(
    ("wal", "index", "usable", "opened"),
    [
        (None, None, True, [ALONE]),
        (None, "its own", True, [ALONE]),
        ("empty", None, True, [ALONE]),
        ("empty", "its own", True, [INDEX]),
        ("short", None, True, [COPY]),
        ("whole", None, True, [COPY]),
        ("whole", "its own", True, [INDEX]),
        ("whole", "its own", False, [INDEX, COPY]),
        ("whole", "stale", True, [COPY]),
    ],
)
def test_what_lies_beside_it_says_how_it_is_read(
    left: Path, monkeypatch: pytest.MonkeyPatch, wal: str | None, index: str | None, opened: list[str], *, usable: bool
) -> None:
    """Whichever way: the connection cannot write, it believes nothing of the schema, and it is closed afterwards."""
    ways: list[str] = []
    made: list[driver.Connection] = []
    connect = offline._connect

    def noted(path: Path, how: str) -> driver.Connection:
        ways.append(how)
        if how == INDEX and not usable:
            return Tried(Told(14))  # type: ignore[return-value]
        made.append(connect(path, ALONE if how == INDEX else how))
        return made[-1]

    monkeypatch.setattr(offline, "_connect", noted)
    monkeypatch.setattr(offline, "_is_stale", lambda *_: index == "stale")
    file, shared = (left.with_name(left.name + suffix) for suffix in ("-wal", "-shm"))
    if wal is None:
        file.unlink()
    elif wal != "whole":
        os.truncate(file, 1 if wal == "short" else 0)
    if index is not None:
        shared.touch()
    lying = sorted(left.parent.iterdir())
    guards = ("query_only", "trusted_schema", "cell_size_check")
    assert read_offline(left, lambda one: [one.execute(f"PRAGMA {name}").fetchone()[0] for name in guards]) == [1, 0, 1]
    assert ways == opened
    assert sorted(left.parent.iterdir()) == lying, "nothing is made beside it or taken away"
    for connection in made:
        with pytest.raises(driver.dbapi.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")


@pytest.mark.parametrize(
    ("wal", "index", "stale"),
    [
        (bytes(16) + b"saltsalt", bytes(32) + b"saltsalt", False),
        (bytes(16) + b"saltsalt", bytes(32) + b"saltsalt" + b"more", False),
        (bytes(16) + b"saltsalt", bytes(32) + b"tlastlas", True),
        (bytes(16) + b"saltsalt", bytes(32) + b"saltsalT", True),
        (bytes(16) + b"saltsalt", b"", True),
        (bytes(16) + b"saltsal", bytes(32) + b"tlastla", False),
        (b"", bytes(64), False),
    ],
    ids=["its own", "longer", "another", "of one other byte", "none", "a WAL cut short", "an empty WAL"],
)
def test_an_index_of_another_wal_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wal: bytes, index: bytes, *, stale: bool
) -> None:
    monkeypatch.setattr(offline, "PAUSE_SECONDS", 0)
    (tmp_path / "v-wal").write_bytes(wal)
    (tmp_path / "v-shm").write_bytes(index)
    assert _is_stale(tmp_path / "v-shm", tmp_path / "v-wal") is stale


@pytest.mark.parametrize("chunk", [1, 1 << 20])
@pytest.mark.parametrize("rest", [b"", b"x", bytes(4)])
def test_an_archive_is_one_stream_and_nothing_after_it(
    monkeypatch: pytest.MonkeyPatch, chunk: int, rest: bytes
) -> None:
    monkeypatch.setattr(segment_files, "_CHUNK", chunk)
    whole = lzma.compress(b"payload")
    reader = _Decompressed(io.BytesIO(whole))
    assert [reader.read(3), reader.read(9), reader.read(9)] == [b"pay", b"load", b""]

    def read_all() -> list[bytes]:
        more = _Decompressed(io.BytesIO(whole + rest))
        return [more.read(3), more.read(4), more.read(1)]

    if rest:
        with pytest.raises(InvalidSegment, match="goes on after its end"):
            read_all()
    else:
        assert read_all() == [b"pay", b"load", b""]
    with pytest.raises(InvalidSegment, match="cannot be decompressed"):
        _Decompressed(io.BytesIO(b"no archive at all")).read(1)
    with pytest.raises(InvalidSegment, match="is cut short"):
        _Decompressed(io.BytesIO(whole[:-1])).read(9)


def test_of_an_archive_as_much_is_read_as_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_files, "_CHUNK", 16)
    stream = io.BytesIO(whole := lzma.compress(bytes(1 << 20)))
    reader = _Decompressed(stream)
    assert reader.read(0) == b""
    assert reader.read(1000) == bytes(1000)
    assert stream.tell() < len(whole) / 2
    monkeypatch.setattr(segment_files, "_CHUNK", 1 << 16)
    assert reader.read(1 << 20) == bytes((1 << 20) - 1000)
