"""The offline commands: what they hand to the composition root, and what they make of its answers."""

import base64
import errno
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import keyvault_lite
from keyvault_lite.ledger.anchor.record import AnchorRecord
from keyvault_lite.ledger.verify.trust import AcceptedHead, TrustResult
from keyvault_lite.model.archive import Segment
from keyvault_lite.model.errors import Conflict, InvalidRequest
from keyvault_lite.model.replies import Finding, Verification
from keyvault_lite.settings import Purpose
from tests.support.fake_vault import ISSUED
from tests.unit.cli.conftest import Kvl

Calls = list[tuple[Any, ...]]
MADE = SimpleNamespace(service_id="id", token=ISSUED, database="sqlite:///keyvault.db", anchor="keyvault.db.anchor")

ROOT = base64.b64encode(bytes(32)).decode()
CHECKPOINT = f"log/1\n7\n{ROOT}\n\n— log/1 {base64.b64encode(bytes(68)).decode()}\n"
MARK = AnchorRecord(1, 7, 5, bytes(32), bytes(32), "log/1\n7\nroot\n\n— log/1 signature\n", "log/1+vkey", 7)
TRUSTED = TrustResult(size=7, root=bytes(32), epoch=1, entry=8, lost="entries 8 to 9", kept="a.lost-9")

SEGMENT = Segment(257, 512, "ab" * 32, bytes(32), 0, 0, 0)


class Loaded(dict[str, object]):
    """Settings: what they were loaded with."""

    root = None


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A composition root that notes what it is asked."""
    noted: Calls = []

    def note(name: str, answer: object = None) -> Any:  # noqa: ANN401
        def call(*arguments: object, **named: object) -> object:
            noted.append((name, arguments, named))
            return answer

        return call

    answers: dict[str, object] = {
        "initialise.initialise_vault": MADE,
        "initialise.recover_admin": MADE,
        "rotate_master_key.rotate_master_key": None,
        "repair.repair_vault": ((), False),
        "verify.verify_vault": Verification(valid=True, entries=7, head=b""),
        "anchor.show_anchor": SimpleNamespace(place="a", stands="apart", mark=MARK),
        "anchor.trust_anchor": TRUSTED,
        "archive.archive_entries": SimpleNamespace(segments=(SEGMENT,), archived=512),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(f"keyvault_lite.operator.{name}", note(name.partition(".")[2], answer))
    monkeypatch.setattr("keyvault_lite.server.serve.serve", note("serve", 0))
    loaded = SimpleNamespace(load=lambda _purpose=None, **given: Loaded(given), Purpose=Purpose)
    monkeypatch.setattr(keyvault_lite, "settings", loaded, raising=False)
    return noted


def test_init_as_table_and_json(kvl: Kvl, calls: Calls) -> None:
    ran = kvl("init", "-o", "json")
    assert json.loads(ran.out) == vars(MADE)
    assert kvl("init").out.count(ISSUED) == 1
    assert kvl("init", "--recover-admin").code == 0
    assert [call[0] for call in calls] == ["initialise_vault", "initialise_vault", "recover_admin"]


def test_init_can_keep_the_token_off_the_screen(kvl: Kvl, calls: Calls, tmp_path: Path) -> None:
    file = tmp_path / "token"
    ran = kvl("init", "--token-out", str(file), "-o", "json")
    assert json.loads(ran.out)["token"] is None
    assert ISSUED not in ran.out + ran.err
    assert file.read_text() == ISSUED + "\n"
    assert kvl("init", "--token-out", str(file)).code == 2
    ran = kvl("init", "--token-out", str(tmp_path / "absent" / "token"))
    assert (ran.code, "cannot be created: No such file" in ran.err) == (2, True)
    assert len(calls) == 1, "no vault is made whose token could not be kept"
    table = kvl("init", "--token-out", str(tmp_path / "other")).out
    assert "service id" in table
    assert "token" not in table


def test_init_says_if_its_token_could_not_be_written_out(
    kvl: Kvl, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("keyvault_lite.cli.vault.show_record", full)
    ran = kvl("init")
    assert (ran.code, ISSUED in ran.err) == (2, False)
    assert "the new token is in force, but it could not be written out" in ran.err
    assert "`kvl init --recover-admin` gives another" in ran.err


def test_serve_hands_over_what_was_said(kvl: Kvl, calls: Calls) -> None:
    kvl("serve")
    kvl("serve", "--host", "::1", "--port", "9000", "--workers", "3", "--no-init")
    assert calls == [
        ("serve", ({},), {"workers": 1, "quarantine": False, "begin": True, "sealed": False}),
        (
            "serve",
            ({"host": "::1", "port": 9000},),
            {"workers": 3, "quarantine": False, "begin": False, "sealed": False},
        ),
    ]


@pytest.mark.parametrize("workers", ["0", "-1", "65", "1000"])
def test_the_number_of_workers_has_an_end(kvl: Kvl, calls: Calls, workers: str) -> None:
    ran = kvl("serve", "--workers", workers)
    assert (ran.code, "--workers" in ran.err) == (2, True)
    assert calls == []


def test_verify_of_a_clean_vault(kvl: Kvl, calls: Calls) -> None:
    assert kvl("verify").out == "clean: 7 entries\n"
    assert json.loads(kvl("verify", "--public", "-o", "json").out) == {"ok": True, "entries": 7, "findings": []}
    plain = {"public": False, "key": None, "against": None, "archive": None, "progress": None}
    assert [call[2] for call in calls] == [plain, plain | {"public": True}]


def test_verify_and_repair_take_an_archive(kvl: Kvl, calls: Calls, tmp_path: Path) -> None:
    assert kvl("verify", "--archive", str(tmp_path)).code == 0
    assert calls[0][2]["archive"] == tmp_path
    assert kvl("repair", "--yes", "--archive", str(tmp_path)).code == 0
    assert calls[1][2] == {"archive": tmp_path}
    for command in (("verify",), ("repair", "--yes")):
        ran = kvl(*command, "--archive", str(tmp_path / "absent"))
        assert (ran.code, "is not a folder" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("lost", "mended", "last"),
    [
        ((), False, "nothing to repair"),
        ((), True, "it was rebuilt, and nothing is lost"),
        ((Finding("keys", "orders", "row does not verify"),), False, "1 given up; the vault can be managed again"),
        ((Finding("keys", "orders", "row does not verify"),), True, "1 given up; the vault can be managed again"),
    ],
)
def test_repair_tells_what_it_did(
    kvl: Kvl,
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
    lost: tuple[Finding, ...],
    last: str,
    *,
    mended: bool,
) -> None:
    monkeypatch.setattr("keyvault_lite.operator.repair.repair_vault", lambda *_, **__: (lost, mended))
    ran = kvl("repair", "--yes")
    assert ran.code == 0
    assert ran.out.splitlines()[-1].endswith(last)
    assert ("rebuilt" in ran.out) is mended
    assert ("lost: keys orders" in ran.out) is bool(lost)


def test_what_is_archived_and_was_not_read_is_told(kvl: Kvl, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Verification(valid=True, entries=7, head=b"", notes=("a file has them",), archived=512)
    monkeypatch.setattr("keyvault_lite.operator.verify.verify_vault", lambda *_arguments, **_named: found)
    ran = kvl("verify")
    assert (ran.out, ran.err) == ("clean: 7 entries behind 512 archived\n", "a file has them\n")
    assert json.loads(kvl("verify", "-o", "json").out)["archived"] == 512


def test_audit_archive(kvl: Kvl, calls: Calls, tmp_path: Path) -> None:
    ran = kvl("audit", "archive", "--to", str(tmp_path), "--before", "2027-01-31T12:00:00Z", "--yes")
    assert ran.code == 0
    assert SEGMENT.file in ran.out
    assert "entries 1 to 512 are archived" in ran.err
    ran = kvl("audit", "archive", "--to", str(tmp_path), "--keep", "5", "--vacuum", "--yes", "-o", "json")
    listed = [{"file": SEGMENT.file, "first": 257, "last": 512, "sha256": "ab" * 32}]
    assert json.loads(ran.out) == {"archived": 512, "segments": listed}
    given = {"before": None, "keep": 0, "vacuum": False, "progress": None}
    assert [call[1:] for call in calls] == [
        (({}, tmp_path), given | {"before": 1_801_396_800_000_000}),
        (({}, tmp_path), given | {"keep": 5, "vacuum": True}),
    ]


def test_audit_archive_wants_to_know_what_may_go(kvl: Kvl, calls: Calls, tmp_path: Path) -> None:
    assert kvl("audit", "archive", "--to", str(tmp_path), "--yes").code == 2
    assert kvl("audit", "archive", "--to", str(tmp_path), "--keep", "0", "--yes").code == 2
    assert kvl("audit", "archive", "--to", str(tmp_path), "--keep", "5").code == 2  # nobody to ask
    assert calls == []


def test_verify_takes_a_key_and_a_kept_checkpoint(kvl: Kvl, calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text(CHECKPOINT)
    assert kvl("verify", "--public", "--key", "vkey", "--against", str(tmp_path / "old.txt")).code == 0
    given = {"public": True, "key": "vkey", "against": CHECKPOINT, "archive": None, "progress": None}
    assert calls[0][2] == given
    assert kvl("verify", "--key", "vkey").code == 2
    assert kvl("verify", "--against", str(tmp_path / "absent")).code == 2


@pytest.mark.parametrize("content", ["", "hello\n", "log/1\n7\nroot\n\n— log/1 AAAAAAA=\n", "\x00\ud800"])
def test_a_file_that_is_no_checkpoint_is_not_compared(kvl: Kvl, calls: Calls, tmp_path: Path, content: str) -> None:
    file = tmp_path / "old.txt"
    file.write_bytes(content.encode("utf-8", "surrogatepass"))
    ran = kvl("verify", "--against", str(file))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"kvl: {file} is no checkpoint: ")
    assert calls == []


def test_a_checkpoint_that_is_not_extended_is_named_by_its_file(
    kvl: Kvl, calls: Calls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    findings = (Finding("keys", "3", "row does not verify"), Finding("checkpoint", "", "is of 9 entries"))
    found = Verification(valid=False, entries=7, head=b"", findings=findings)
    monkeypatch.setattr("keyvault_lite.operator.verify.verify_vault", lambda *_arguments, **_named: found)
    file = tmp_path / "old.txt"
    file.write_text(CHECKPOINT)
    ran = kvl("verify", "--against", str(file))
    assert (ran.code, ran.out) == (1, f"keys 3: row does not verify\ncheckpoint {file}: is of 9 entries\n")


def test_verify_counts_what_it_does_not_list(kvl: Kvl, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = (Finding("audit_logs", "3", "hash differs"),)
    found = Verification(valid=False, entries=7, head=b"", findings=findings, more=9, notes=("epoch 1 begins",))
    monkeypatch.setattr("keyvault_lite.operator.verify.verify_vault", lambda *_arguments, **_named: found)
    ran = kvl("verify")
    assert (ran.code, ran.out) == (1, "audit_logs 3: hash differs\nand 9 more\n")
    assert "epoch 1 begins" in ran.err
    told = json.loads(kvl("verify", "-o", "json").out)
    assert (told["more"], told["notes"]) == (9, ["epoch 1 begins"])


def test_verify_of_a_vault_that_was_tampered_with(kvl: Kvl, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = (Finding("audit_logs", "3", "hash differs"), Finding("keys", "orders\x1b", "row MAC differs"))
    found = Verification(valid=False, entries=7, head=b"", first_invalid=3, reason="hash", findings=findings)
    monkeypatch.setattr("keyvault_lite.operator.verify.verify_vault", lambda *_arguments, **_named: found)
    ran = kvl("verify")
    assert ran.code == 1
    assert ran.out == "audit_logs 3: hash differs\nkeys orders\\x1b: row MAC differs\n"
    ran = kvl("verify", "-o", "json")
    assert ran.code == 1
    assert json.loads(ran.out)["findings"][0] == {"table": "audit_logs", "row": "3", "problem": "hash differs"}


def test_a_refusal_of_the_vault_is_one_sentence(kvl: Kvl, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_named: object) -> None:
        raise Conflict("there is a vault already")

    monkeypatch.setattr("keyvault_lite.operator.initialise.initialise_vault", refuse)
    ran = kvl("init")
    assert (ran.code, ran.err) == (2, "kvl: there is a vault already\n")


def test_master_key_generate(kvl: Kvl, tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    ran = kvl("master-key", "generate", "--out", str(file))
    assert ran.code == 0
    text = file.read_text()
    assert len(base64.b64decode(text)) == 32
    assert text.endswith("\n")
    assert text.strip() not in ran.out + ran.err
    assert file.stat().st_mode & 0o777 == 0o600
    assert kvl("master-key", "generate", "--out", str(file)).code == 2
    assert file.read_text() == text
    assert len(base64.b64decode(kvl("master-key", "generate").out)) == 32


def test_master_key_generate_keeps_off_a_terminal(kvl: Kvl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.testing._NamedTextIOWrapper.isatty", lambda _self: True, raising=False)
    ran = kvl("master-key", "generate")
    assert (ran.code, ran.out) == (2, "")
    assert len(base64.b64decode(kvl("master-key", "generate", "--stdout").out)) == 32


def test_master_key_rotate(kvl: Kvl, calls: Calls, tmp_path: Path) -> None:
    file = tmp_path / "new.key"
    kvl("master-key", "generate", "--out", str(file))
    ran = kvl("master-key", "rotate", "--new-key-file", str(file))
    assert ran.code == 0
    assert file.read_text().strip() not in ran.out + ran.err
    assert kvl("master-key", "rotate", "--new-key-file", str(file), "--keep-old").code == 0
    new_key = file.read_text().strip()
    assert calls == [
        ("rotate_master_key", ({},), {"new_key": new_key, "keep_old": False}),
        ("rotate_master_key", ({},), {"new_key": new_key, "keep_old": True}),
    ]


def test_a_file_without_a_master_key_is_refused(
    kvl: Kvl, calls: Calls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_arguments: object, **_named: object) -> None:
        raise InvalidRequest("a master key is base64 of 32 bytes")

    monkeypatch.setattr("keyvault_lite.operator.rotate_master_key.rotate_master_key", refuse)
    (tmp_path / "new.key").write_text("nonsense")
    ran = kvl("master-key", "rotate", "--new-key-file", str(tmp_path / "new.key"))
    assert (ran.code, ran.err) == (2, "kvl: a master key is base64 of 32 bytes\n")
    assert kvl("master-key", "rotate", "--new-key-file", str(tmp_path / "absent")).code == 2


def test_anchor_show(kvl: Kvl, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    told = json.loads(kvl("anchor", "show", "-o", "json").out)
    assert (told["anchor"], told["stands"], told["size"], told["epoch"], told["state_seq"]) == ("a", "apart", 7, 1, 5)
    assert (told["root"], told["hash"], told["verifier_key"]) == (ROOT, bytes(32).hex(), "log/1+vkey")
    assert MARK.checkpoint in kvl("anchor", "show").out
    missing = SimpleNamespace(place="a", stands="apart", mark=None)
    monkeypatch.setattr("keyvault_lite.operator.anchor.show_anchor", lambda _: missing)
    assert kvl("anchor", "show").code == 1
    off = SimpleNamespace(place="off", stands="off", mark=None)
    monkeypatch.setattr("keyvault_lite.operator.anchor.show_anchor", lambda _: off)
    assert kvl("anchor", "show").code == 0


def test_anchor_trust(kvl: Kvl, calls: Calls) -> None:
    assert kvl("anchor", "trust").code == 0
    ran = kvl("anchor", "trust", "--acknowledge-rollback", "--size", "7", "--root", ROOT, "-o", "json")
    assert json.loads(ran.out) == {
        "size": 7,
        "root": ROOT,
        "epoch": 1,
        "entry": 8,
        "lost": "entries 8 to 9",
        "kept": "a.lost-9",
    }
    assert [call[1][1] for call in calls] == [None, AcceptedHead(7, bytes(32))]


@pytest.mark.parametrize(
    "options",
    [
        ["--acknowledge-rollback"],
        ["--size", "7"],
        ["--size", "7", "--root", ROOT],
        ["--acknowledge-rollback", "--size", "7"],
        ["--acknowledge-rollback", "--size", "7", "--root", "AAAA"],
        ["--acknowledge-rollback", "--size", "7", "--root", "?"],
    ],
)
def test_a_rollback_is_acknowledged_in_full(kvl: Kvl, calls: Calls, options: list[str]) -> None:
    assert kvl("anchor", "trust", *options).code == 2
    assert not calls
