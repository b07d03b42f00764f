"""Encrypting, decrypting and signing real files: what is written, with which mode, and when nothing is."""

import base64
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import get_args

import pytest

from keyvault_lite.cli.failure import CannotRun
from keyvault_lite.cli.files import appearing, check_new, writing
from keyvault_lite.cli.signature import Signing
from keyvault_lite.model.keys import ALGORITHMS, Purpose
from tests.support.fake_vault import KEY_ID, FakeVault, key
from tests.unit.cli.conftest import Kvl

PLAIN = b"attack at dawn " * 9000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").write_bytes(PLAIN)
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_goes_there_and_back(kvl: Kvl, vault: FakeVault, folder: Path) -> None:
    assert kvl("encrypt", KEY_ID, "plain", "-O", "sealed", "--context", "tenant=acme").code == 0
    sealed = (folder / "sealed").read_bytes()
    assert b"dawn" not in sealed
    assert kvl("decrypt", KEY_ID, "sealed", "-O", "back", "--context", "tenant=acme").code == 0
    assert (folder / "back").read_bytes() == PLAIN
    assert mode(folder / "back") == 0o600
    assert sorted(os.listdir(folder)) == ["back", "plain", "sealed"]  # noqa: PTH208


def test_pipes(kvl: Kvl, vault: FakeVault, folder: Path) -> None:
    sealed = kvl("encrypt", KEY_ID, stdin=PLAIN)
    assert sealed.code == 0
    assert kvl("decrypt", KEY_ID, "-", stdin=sealed.raw).raw == PLAIN


def test_the_plaintext_and_the_token_are_only_where_they_belong(kvl: Kvl, vault: FakeVault, folder: Path) -> None:
    ran = kvl("encrypt", KEY_ID, "plain", "-O", "sealed")
    assert ran.out + ran.err == ""
    for seen in vault.seen:
        assert "kvl_" not in seen.path
        assert "kvl_" not in json.dumps(seen.body)


@pytest.mark.parametrize("how", ["file", "pipe"])
def test_a_changed_file_leaves_nothing(kvl: Kvl, vault: FakeVault, folder: Path, how: str) -> None:
    kvl("encrypt", KEY_ID, "plain", "-O", "sealed")
    sealed = bytearray((folder / "sealed").read_bytes())
    sealed[-1] ^= 1
    (folder / "sealed").write_bytes(sealed)
    (folder / "back").write_text("older")
    ran = kvl("decrypt", KEY_ID, "sealed", *(["-O", "back"] if how == "file" else []))
    assert (ran.code, ran.raw) == (1, b"")
    assert "changed, cut or rearranged" in ran.err
    assert (folder / "back").read_text() == "older"
    assert sorted(os.listdir(folder)) == ["back", "plain", "sealed"]  # noqa: PTH208


def test_a_file_that_is_not_encrypted_is_named(kvl: Kvl, vault: FakeVault, folder: Path) -> None:
    ran = kvl("decrypt", KEY_ID, "plain")
    assert ran.code == 1
    assert "not a file made by" in ran.err


@pytest.mark.parametrize(
    "command", [("encrypt", KEY_ID, "absent"), ("encrypt", KEY_ID, "."), ("sign", KEY_ID, "absent")]
)
def test_an_input_that_cannot_be_read(kvl: Kvl, vault: FakeVault, folder: Path, command: tuple[str, ...]) -> None:
    ran = kvl(*command)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1


def test_an_output_that_cannot_be_written(kvl: Kvl, vault: FakeVault, folder: Path) -> None:
    ran = kvl("encrypt", KEY_ID, "plain", "-O", "no/such/folder")
    assert (ran.code, ran.err) == (2, "kvl: no/such/folder: No such file or directory\n")
    assert kvl("encrypt", KEY_ID, "plain", "-O", ".").code == 2


def test_an_encrypted_file_keeps_the_umask(kvl: Kvl, vault: FakeVault, folder: Path) -> None:
    before = os.umask(0o027)
    try:
        kvl("encrypt", KEY_ID, "plain", "-O", "sealed")
    finally:
        os.umask(before)
    assert mode(folder / "sealed") == 0o640


def test_interrupted_work_leaves_nothing(folder: Path) -> None:
    def work() -> None:
        with writing("out") as stream:
            stream.write(b"half")
            assert len(os.listdir(folder)) == 2  # noqa: PTH208
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert os.listdir(folder) == ["plain"]  # noqa: PTH208


def test_an_interrupted_folder_leaves_nothing_either(folder: Path) -> None:
    def work() -> None:
        with appearing(folder / "made") as place:
            (place / "inner").mkdir(parents=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    with appearing(folder / "made") as place:
        place.mkdir()
    assert sorted(os.listdir(folder)) == ["made", "plain"]  # noqa: PTH208


def test_a_link_to_nowhere_is_there_already(folder: Path) -> None:
    (folder / "link").symlink_to("nowhere")
    with pytest.raises(CannotRun, match="exists already"):
        check_new(folder / "link")


def test_a_link_is_followed_and_a_device_is_not_replaced(folder: Path) -> None:
    (folder / "link").symlink_to("target")
    with writing("link") as stream:
        stream.write(b"x")
    assert (folder / "link").is_symlink()
    assert (folder / "target").read_bytes() == b"x"
    with writing("/dev/null") as stream:
        stream.write(b"x")
    assert not Path("/dev/null").is_file()


def test_binary_is_kept_off_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(CannotRun, match="-O -"), writing(None):
        pass


def test_a_context_has_names(kvl: Kvl, vault: FakeVault, folder: Path) -> None:
    assert kvl("encrypt", KEY_ID, "plain", "-O", "s", "--context", "tenant").code == 2
    assert kvl("encrypt", KEY_ID, "plain", "-O", "s", "--context", "kvl.last=true").code == 2
    assert kvl("encrypt", KEY_ID, "plain", "-O", "s", "--context", "a=e\u0301").code == 2
    assert vault.seen == []
    assert not (folder / "s").exists()


def test_rewrap_in_place(kvl: Kvl, vault: FakeVault, folder: Path) -> None:
    kvl("encrypt", KEY_ID, "plain", "-O", "sealed")
    (folder / "sealed").chmod(0o640)
    before = (folder / "sealed").read_bytes()
    kvl("key", "rotate", "orders")
    ran = kvl("rewrap", KEY_ID, "sealed")
    assert ran.code == 0
    assert "version 2" in ran.err
    after = (folder / "sealed").read_bytes()
    assert after != before
    assert mode(folder / "sealed") == 0o640
    assert all(item.keys() == {"encrypted_dek", "context"} for item in (vault.seen[-1].body or {})["items"])
    assert kvl("decrypt", KEY_ID, "sealed").raw == PLAIN


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_rewrap_in_place_keeps_owner_and_group(kvl: Kvl, vault: FakeVault, folder: Path) -> None:
    kvl("encrypt", KEY_ID, "plain", "-O", "sealed")
    os.chown(folder / "sealed", 65534, 65533)
    (folder / "sealed").chmod(0o640)
    assert kvl("rewrap", KEY_ID, "sealed").code == 0
    found = (folder / "sealed").stat()
    assert (found.st_uid, found.st_gid, mode(folder / "sealed")) == (65534, 65533, 0o640)


def test_rewrap_refuses_to_take_a_file_over(
    kvl: Kvl, vault: FakeVault, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kvl("encrypt", KEY_ID, "plain", "-O", "sealed")
    before = (folder / "sealed").read_bytes()

    def refuse(*_arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    owned = os.stat_result((0o100640, 1, 1, 1, os.getuid() + 1, os.getgid(), 0, 0, 0, 0))
    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(CannotRun, match="belongs to another user"), writing("sealed", like=owned) as stream:
        stream.write(b"x")
    assert (folder / "sealed").read_bytes() == before
    assert sorted(os.listdir(folder)) == ["plain", "sealed"]  # noqa: PTH208


def test_rewrap_elsewhere(kvl: Kvl, vault: FakeVault, folder: Path) -> None:
    sealed = kvl("encrypt", KEY_ID, "plain", "-O", "-").raw
    moved = kvl("rewrap", KEY_ID, "-", stdin=sealed)
    assert kvl("decrypt", KEY_ID, stdin=moved.raw).raw == PLAIN


def test_a_small_file_is_signed_itself(kvl: Kvl, vault: FakeVault, folder: Path) -> None:
    (folder / "small").write_bytes(b"hello")
    ran = kvl("sign", KEY_ID, "small")
    assert vault.seen[-1].body == {"message": base64.b64encode(b"hello").decode(), "encoding": "base64"}
    signature = b"sig:" + hashlib.sha256(b"hello").digest()
    assert ran.out == base64.b64encode(signature).decode() + "\n"
    assert kvl("sign", KEY_ID, "small", "--raw").raw == signature
    assert json.loads(kvl("sign", KEY_ID, "small", "-o", "json").out)["algorithm"] == "ECDSA_SHA256"


def test_a_large_file_is_signed_by_its_digest(kvl: Kvl, vault: FakeVault, folder: Path) -> None:
    vault.keys = [key("signer", type="EC", size=384, purpose="SIGN")]
    assert kvl("sign", "signer", "plain", "-O", "sig").code == 0
    assert vault.seen[-1].body == {
        "message": base64.b64encode(hashlib.sha384(PLAIN).digest()).decode(),
        "encoding": "base64",
        "algorithm": "ECDSA_SHA384",
        "prehashed": True,
    }
    assert kvl("verify-signature", "signer", "plain", "--signature", "sig").code == 0
    kvl("sign", "signer", "plain", "--algorithm", "rsa_pkcs1_sha512")
    assert len(base64.b64decode((vault.seen[-1].body or {})["message"])) == 64


def test_a_large_file_that_no_digest_stands_for_is_refused(kvl: Kvl, vault: FakeVault, folder: Path) -> None:
    vault.keys = [key("signer", type="ED25519", size=None, purpose="SIGN")]
    ran = kvl("sign", "signer", "plain")
    assert ran.code == 2
    assert "ED25519" in ran.err
    vault.keys = [key("signer", type="SECP256K1", size=None, purpose="SIGN")]
    assert kvl("sign", "signer", "plain").code == 2


def test_only_what_signs_is_offered(kvl: Kvl, vault: FakeVault, folder: Path) -> None:
    signing = {one for kind, all_ in ALGORITHMS.items() for one in all_ if kind[2] is not Purpose.ENCRYPT}
    assert set(get_args(Signing)) == signing
    ran = kvl("sign", KEY_ID, "plain", "--algorithm", "aes_256_gcm")
    assert (ran.code, vault.seen) == (2, [])
    ran = kvl("sign", "orders", "plain")
    assert (ran.code, ran.err) == (2, "kvl: this kind of key does not sign in the native API\n")


@pytest.mark.parametrize("raw", [(), ("--raw",)])
def test_verify_signature_ends_as_the_signature_is(
    kvl: Kvl, vault: FakeVault, folder: Path, raw: tuple[str, ...]
) -> None:
    (folder / "small").write_bytes(b"hello")
    kvl("sign", KEY_ID, "small", "-O", "sig", *raw)
    ran = kvl("verify-signature", KEY_ID, "small", "-s", "sig", *raw)
    assert ran.code == 0
    assert "version 1" in ran.out
    (folder / "small").write_bytes(b"hellO")
    ran = kvl("verify-signature", KEY_ID, "small", "-s", "sig", "--version", "1", "-o", "json", *raw)
    assert ran.code == 1
    assert json.loads(ran.out) == {"valid": False, "key_version": None}
    assert (vault.seen[-1].body or {})["key_version"] == 1


def test_a_signature_that_is_not_base64_is_named(kvl: Kvl, vault: FakeVault, folder: Path) -> None:
    (folder / "sig").write_bytes(b"\xff\xfe")
    ran = kvl("verify-signature", KEY_ID, "plain", "-s", "sig")
    assert ran.code == 2
    assert "--raw" in ran.err


def test_a_progress_bar_shows_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from keyvault_lite.cli.progress import progress

    with progress("working", 10) as advance:
        advance(5)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress("working", 10) as advance:
        advance(10)
    printed = capsys.readouterr()
    assert "working" in printed.err
    assert printed.out == ""
