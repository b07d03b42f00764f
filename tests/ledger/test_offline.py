"""What is said of a database that an offline check cannot read, and of an archive that is not one stream."""

import io
import lzma
from pathlib import Path

import pytest

from keyvault_lite.audit.segment import InvalidSegment
from keyvault_lite.ledger import driver, shelf
from keyvault_lite.ledger.offline import _judged
from keyvault_lite.ledger.shelf import _Decompressed
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


@pytest.mark.parametrize("error", [Told(11), Told(26), Told(1), UnicodeDecodeError("utf-8", b"", 0, 1, "told")])
def test_anything_else_is_told_as_it_is(error: Exception) -> None:
    assert _judged(error, Path("vault.db")) is error


def test_a_file_that_this_user_may_not_read() -> None:
    judged = _judged(PermissionError(13, "Permission denied"), Path("vault.db"))
    assert isinstance(judged, AuditUnavailable)
    assert judged.detail == "vault.db cannot be read: Permission denied"


@pytest.mark.parametrize("chunk", [1, 1 << 20])
@pytest.mark.parametrize("rest", [b"", b"x", bytes(4)])
def test_an_archive_is_one_stream_and_nothing_after_it(
    monkeypatch: pytest.MonkeyPatch, chunk: int, rest: bytes
) -> None:
    monkeypatch.setattr(shelf, "_CHUNK", chunk)
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
    with pytest.raises(InvalidSegment, match="is cut short"):
        _Decompressed(io.BytesIO(whole[:-1])).read(9)
