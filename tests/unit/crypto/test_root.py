"""The master key: which values are refused, where it is read from, and that no message repeats it."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from keyvault_lite.crypto import root
from keyvault_lite.crypto.root import DOCUMENTATION_SAMPLE, InvalidMasterKey, MasterKey, WrongMasterKey, read_master_key
from keyvault_lite.model.encoding import encode_base64

# Fixed, so that the names of the tests are the same in every process that runs them.
GOOD = encode_base64(bytes.fromhex("8f0b61d7e4297ca3b5501e98c2fd476a130ee9845fb2d07c3ba96f1824c5d3e1"))


def test_generate_makes_what_parse_takes() -> None:
    texts = {MasterKey.generate()[1] for _ in range(20)}
    assert len(texts) == 20
    for text in texts:
        MasterKey.parse(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "0 bytes"),
        ("not base64!", "not standard base64"),
        (GOOD.rstrip("="), "not standard base64"),
        (GOOD + "\n", "not standard base64"),
        (" " + GOOD, "not standard base64"),
        ("\ud800", "not standard base64"),
        ("ключ", "not standard base64"),
        (encode_base64(bytes(range(100, 131))), "31 bytes"),
        (encode_base64(bytes(range(100, 133))), "33 bytes"),
        (encode_base64(bytes(32)), "one byte repeated"),
        (encode_base64(b"\xff" * 32), "one byte repeated"),
        (encode_base64(b"correct horse battery staple 123"), "printable text"),
        (encode_base64("größere Schlüssel wären besser".encode()[:32].ljust(32, b".")), "printable text"),
        (encode_base64(b"0123456789abcdef\t\n 3456789abcdef"), "printable text"),
        (DOCUMENTATION_SAMPLE, "sample from the documentation"),
    ],
)
def test_refused_without_being_repeated(text: str, says: str) -> None:
    with pytest.raises(InvalidMasterKey, match=says) as caught:
        MasterKey.parse(text)
    assert caught.value.detail == str(caught.value)
    assert not text.strip() or text.strip() not in caught.value.detail
    assert caught.value.__cause__ is None


def test_bytes_that_are_text_with_control_characters_pass() -> None:
    MasterKey.parse(encode_base64(bytes(range(1, 33))))


def test_wrong_master_key_is_an_invalid_one() -> None:
    assert issubclass(WrongMasterKey, InvalidMasterKey)


class TestRead:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "master.key"
        path.touch(mode=0o600)
        return path

    @pytest.mark.parametrize("end", ["", "\n", "\r\n"])
    def test_from_a_file(self, file: Path, end: str) -> None:
        file.write_bytes((GOOD + end).encode())
        assert isinstance(read_master_key(text=None, path=str(file)), MasterKey)
        assert isinstance(read_master_key(text="", path=str(file)), MasterKey)

    def test_from_text(self) -> None:
        assert isinstance(read_master_key(text=GOOD, path=None), MasterKey)

    def test_both_are_refused(self, file: Path) -> None:
        with pytest.raises(InvalidMasterKey, match="Both KEYVAULT_MASTER_KEY and KEYVAULT_MASTER_KEY_FILE"):
            read_master_key(text=GOOD, path=str(file))

    @pytest.mark.parametrize("nothing", [None, ""])
    def test_neither_names_both_settings(self, nothing: str | None) -> None:
        with pytest.raises(InvalidMasterKey, match="KEYVAULT_MASTER_KEY and KEYVAULT_MASTER_KEY_FILE"):
            read_master_key(text=nothing, path=nothing)

    @pytest.mark.parametrize("content", [b"\xff\xfe", GOOD.encode() + b"\n\n", b"A" * 5000])
    def test_other_contents_are_refused(self, file: Path, content: bytes) -> None:
        file.write_bytes(content)
        with pytest.raises(InvalidMasterKey, match="base64"):
            read_master_key(text=None, path=str(file))

    def test_a_missing_file_is_one_sentence(self, file: Path) -> None:
        file.unlink()
        with pytest.raises(InvalidMasterKey, match="cannot be read: No such file or directory"):
            read_master_key(text=None, path=str(file))

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o602, 0o601])
    def test_a_file_open_to_others_is_warned_of(
        self, file: Path, mode: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logging.getLogger("keyvault_lite"), "propagate", True)
        file.write_text(GOOD)
        file.chmod(mode)
        assert isinstance(read_master_key(text=None, path=str(file)), MasterKey)
        assert "open to other users; run: chmod 600" in caplog.text
        assert GOOD not in caplog.text
        told = caplog.text
        read_master_key(text=None, path=str(file))
        assert caplog.text == told, "once is enough"

    def test_what_nobody_else_can_open_is_not_warned_of(
        self, file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logging.getLogger("keyvault_lite"), "propagate", True)
        monkeypatch.setattr(root, "_warned", set())  # a descriptor of this number may have been warned of
        file.write_text(GOOD)
        read_master_key(text=None, path=str(file))
        file.chmod(0o644)
        with file.open() as handed:  # by whoever started us
            read_master_key(text=None, path=f"/dev/fd/{handed.fileno()}")
        assert caplog.text == ""

    def test_a_named_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe, 0o600)
        with pytest.raises(InvalidMasterKey, match="is a named pipe"):
            read_master_key(text=None, path=str(pipe))

    @pytest.mark.parametrize(
        ("owner", "flags", "passes"), [(0, os.ST_RDONLY, True), (0, 0, False), (1, os.ST_RDONLY, False)]
    )
    def test_root_files_on_read_only_mounts_pass(
        self,
        file: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        *,
        owner: int,
        flags: int,
        passes: bool,
    ) -> None:
        monkeypatch.setattr(logging.getLogger("keyvault_lite"), "propagate", True)
        file.write_text(GOOD)
        file.chmod(0o444)
        about = list(file.stat())
        about[4] = owner
        monkeypatch.setattr(os, "fstatvfs", lambda _fd: SimpleNamespace(f_flag=flags))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fstat", lambda _fd: os.stat_result(about))
            read_master_key(text=None, path=str(file))
        assert ("chmod" not in caplog.text) is passes

    @pytest.fixture
    def pipe(self) -> Iterator[int]:
        read, write = os.pipe()
        os.write(write, GOOD.encode() + b"\n")
        os.close(write)
        yield read
        os.close(read)

    def test_from_a_pipe(self, pipe: int) -> None:
        assert isinstance(read_master_key(text=None, path=f"/dev/fd/{pipe}"), MasterKey)

    def test_from_a_descriptor_of_a_file(self, file: Path) -> None:
        file.write_text(GOOD)
        file.chmod(0o644)
        with file.open() as opened:
            assert isinstance(read_master_key(text=None, path=f"/dev/fd/{opened.fileno()}"), MasterKey)
