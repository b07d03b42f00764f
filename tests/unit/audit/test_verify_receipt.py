"""The stand-alone verifier agrees with the package on what is proven, and shares nothing with it."""

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from keyvault_lite.audit.checkpoint import MAX_SIGNATURES, InvalidNote, parse_note
from keyvault_lite.audit.merkle import CompactRange
from tests.support.paths import ROOT
from tests.vectors import make_receipts
from tests.vectors.make_receipts import PUBLIC_KEY, VKEY, Log, consistency_json, item, sign

TOOL = ROOT / "tools" / "verify_receipt.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify_receipt", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Files = dict[str, Any]
Judge = Callable[..., tuple[int, str]]


def place(folder: Path, files: Files) -> None:
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))


@pytest.fixture
def judge(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Judge:
    """Runs the tool in this process, in a folder of its own, with these files; answers status and sentence."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, key: str = VKEY, **files: Any) -> tuple[int, str]:  # noqa: ANN401
        place(tmp_path, files)
        monkeypatch.setattr(sys, "argv", ["verify_receipt.py", "--key", key, *arguments])
        status = tool.main()
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


def run_alone(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Runs the tool as a stranger would: isolated, without the package on the path."""
    command = [sys.executable, "-I", "-S", str(TOOL), "--key", VKEY, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False)
    return done.returncode, done.stdout, done.stderr


def test_it_is_small_and_imports_the_standard_library_alone() -> None:
    source = TOOL.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 300
    for statement in ast.walk(ast.parse(source)):
        if isinstance(statement, ast.Import):
            assert {name.name.split(".")[0] for name in statement.names} <= sys.stdlib_module_names
        elif isinstance(statement, ast.ImportFrom):
            assert statement.module in sys.stdlib_module_names


def test_the_published_file_is_what_the_code_makes() -> None:
    assert make_receipts.FILE.read_text(encoding="utf-8") == make_receipts.text()


def test_published_receipts(judge: Judge, published: dict[str, Any]) -> None:
    for case in published["receipts"]:
        entries = {number: entry["item"] for number, entry in enumerate(published["entries"], 1)}
        if "entry" in case:
            status, said = judge("r", "--entry", "e", r=case["receipt"], e=entries[case["entry"]])
        else:
            status, said = judge("r", *(["--hash", case["hash"]] if "hash" in case else []), r=case["receipt"])
        assert status == case["status"], (case["what"], said)
        assert said.startswith(["valid: ", "NOT VALID: ", "cannot be judged: "][status])
        assert said.endswith(".\n")
        assert said.count("\n") == 1


def test_published_consistency_proofs(judge: Judge, published: dict[str, Any]) -> None:
    for case in published["consistency"]:
        old, new = (published["checkpoints"][str(case[which])] for which in ("old", "new"))
        status, said = judge("--consistency", "p", "o", "n", p=case["proof"], o=old, n=new)
        assert status == case["status"], (case["what"], said)


def test_it_agrees_with_the_package_at_every_size(tool: ModuleType, log: Log) -> None:
    for new in range(1, len(log.leaves) + 1):
        size, root = tool.verify_checkpoint(log.checkpoint(new), tool.read_key(VKEY)) if new % 8 == 7 else (new, None)
        assert size == new
        roots = [
            tool.roots_by_consistency(old, new, log.consistency(old, new), head(log, old)) for old in range(1, new)
        ]
        assert roots == [(head(log, old), head(log, new)) for old in range(1, new)]
        assert root in {None, head(log, new)}


def head(log: Log, size: int) -> bytes:
    edge = CompactRange()
    edge.extend(log.leaves[:size])
    return edge.root()


def test_it_runs_alone(tmp_path: Path, log: Log) -> None:
    shown = item(log.entries[12])
    proof = consistency_json(7, 23, log.consistency(7, 23))
    place(tmp_path, {"r": log.receipt(13, 23), "e": shown, "p": proof, "o": log.checkpoint(7), "n": log.checkpoint(23)})
    right = f"valid: the entry with the hash {shown['hash']} is number 13 of the 23 in {make_receipts.ORIGIN}.\n"
    assert run_alone(tmp_path, "r", "--entry", "e") == (0, right, "")
    assert run_alone(tmp_path, "r", "--hash", shown["hash"]) == (0, right, "")
    status, said, _ = run_alone(tmp_path, "--consistency", "p", "o", "n")
    assert (status, said.startswith("valid: the 23 entries")) == (0, True)
    assert run_alone(tmp_path, "r", "--hash", "00" * 32)[0] == 1
    assert run_alone(tmp_path, "absent", "--hash", "00" * 32)[0] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("r", "r"),
        ("--consistency", "p", "o"),
        ("r", "--hash", "xyz"),
        ("r", "--hash", "00", "--entry", "e"),
        ("--unknown",),
    ],
)
def test_wrong_usage_is_status_2(judge: Judge, arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as left:
        judge(*arguments)
    assert left.value.code == 2


@pytest.mark.parametrize("field", [*item(Log(1).entries[0])])
def test_each_field_of_an_entry_counts(judge: Judge, log: Log, field: str) -> None:
    shown = item(log.entries[12])
    receipt = log.receipt(13, 23)
    others = [None, 7, "x", "", "ab", "2026-11-24T13:19:58.000000Z", shown["hash"].upper(), 1.0, True, [], {}]
    for other in others:
        if other != shown[field]:
            status, said = judge("r", "--entry", "e", r=receipt, e={**shown, field: other})
            assert status in {1, 2}, (field, other, said)
    del shown[field]
    assert judge("r", "--entry", "e", r=receipt, e=shown)[0] in {1, 2}


def test_fields_that_are_not_hashed_do_not_disturb(judge: Judge, log: Log) -> None:
    assert judge("r", "--entry", "e", r=log.receipt(13, 23), e={**item(log.entries[12]), "new": 1})[0] == 0


@pytest.mark.parametrize("text", ["", "[]", "{", '{"id": 1, "id": 1}', "[" * 100_000, '{"id": NaN}', "\udcff"])
def test_what_is_no_entry_cannot_be_judged(judge: Judge, log: Log, text: str) -> None:
    assert judge("r", "--entry", "e", r=log.receipt(13, 23), e=text)[0] == 2


@pytest.mark.parametrize(
    "vkey",
    ["", "x", "x+y", VKEY + "=", VKEY[:-1], VKEY.replace("keyvault", "keyvaults"), "+".join([*VKEY.split("+"), "x"])],
)
def test_a_mistyped_key_cannot_be_judged(judge: Judge, log: Log, vkey: str) -> None:
    status, said = judge("r", "--hash", log.leaves[12].hex(), key=vkey, r=log.receipt(13, 23))
    assert (status, "verifier key" in said) == (2, True)


def test_every_flipped_bit_is_refused(tool: ModuleType, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the signature's check (20 ms) replaced by that of the package: only what reaches it is under test here."""
    key, leaf = tool.read_key(VKEY), log.leaves[12]
    monkeypatch.setattr(tool, "ed25519_verifies", make_receipts.verify)
    for extra in (False, True):
        raw = log.receipt(13, 23, extra=extra).encode()
        monkeypatch.setattr(tool, "read", lambda text: text)
        assert tool.check_receipt(key, raw.decode(), None, leaf)
        for position in range(len(raw) * 8):
            flipped = bytearray(raw)
            flipped[position // 8] ^= 1 << position % 8
            with pytest.raises((tool.Refused, UnicodeDecodeError)):
                tool.check_receipt(key, flipped.decode(), None, leaf)


def test_published_ed25519_signatures(tool: ModuleType, vectors: Callable[[str], Any]) -> None:
    document = vectors("wycheproof/ed25519_test.json")
    cases = [(group["publicKey"]["pk"], case) for group in document["testGroups"] for case in group["tests"]]
    assert len(cases) > 100
    for public_key, case in cases:
        signature = bytes.fromhex(case["sig"])
        good = len(signature) == 64 and tool.ed25519_verifies(
            bytes.fromhex(public_key), bytes.fromhex(case["msg"]), signature
        )
        assert good == (case["result"] == "valid"), case["tcId"]


def test_odd_points_are_judged_as_the_product_judges_them(tool: ModuleType, vectors: Callable[[str], Any]) -> None:
    """Every seventh of 914 cases (one takes 20 ms). RFC 8032 refuses a key in another spelling; OpenSSL takes it."""
    for case in vectors("cctv/ed25519vectors.json")[::7]:
        asked = bytes.fromhex(case["key"]), case["msg"].encode(), bytes.fromhex(case["sig"])
        strict = "non_canonical_A" not in case["flags"]
        assert tool.ed25519_verifies(*asked) == (strict and make_receipts.verify(*asked)), case["number"]


def test_a_signature_is_bound_to_message_and_key(tool: ModuleType) -> None:
    signature = sign(b"message")
    assert tool.ed25519_verifies(PUBLIC_KEY, b"message", signature)
    assert not tool.ed25519_verifies(PUBLIC_KEY, b"massage", signature)
    assert not tool.ed25519_verifies(make_receipts.WITNESS_PUBLIC_KEY, b"message", signature)
    for no_point in (bytes([2]) + bytes(31), b"\xff" * 32, b"\x01" + bytes(30) + b"\x80"):
        assert not tool.ed25519_verifies(no_point, b"message", signature)
    order = 2**252 + 27742317777372353535851937790883648493
    twin = (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    assert not tool.ed25519_verifies(PUBLIC_KEY, b"message", signature[:32] + twin)


def receipt(log: Log, *, index: str | None = None, repeated: int = 1) -> str:
    """A receipt of entry 1, with another index or with its signature line more than once."""
    text = log.receipt(1, 23)
    if index is not None:
        text = text.replace("index 0\n", f"index {index}\n")
    signature = text[text.rindex("\n\n") + 2 :]
    return text + signature * (repeated - 1)


@pytest.mark.parametrize("index", [2**63 - 1, 2**63, 10**18 * 9, 10**19 - 1])
def test_no_number_is_too_large_to_be_refused(judge: Judge, log: Log, index: int) -> None:
    status, said = judge("r", "--entry", "e", r=receipt(log, index=str(index)), e=item(log.entries[0]))
    assert status == 1, said
    assert "NOT VALID" in said


def test_many_signatures_are_refused_before_they_are_verified(
    judge: Judge, tool: ModuleType, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes milliseconds, and a file has room for thousands. The product takes as many."""
    text = receipt(log, repeated=MAX_SIGNATURES)
    assert len(parse_note(text.partition("\n\n")[2]).signatures) == MAX_SIGNATURES
    monkeypatch.setattr(tool, "ed25519_verifies", lambda *_: True)
    assert judge("r", "--entry", "e", r=text, e=item(log.entries[0]))[0] == 0
    monkeypatch.setattr(tool, "ed25519_verifies", lambda *_: pytest.fail("verified"))
    text = receipt(log, repeated=MAX_SIGNATURES + 1)
    with pytest.raises(InvalidNote):
        parse_note(text.partition("\n\n")[2])
    assert judge("r", "--entry", "e", r=text, e=item(log.entries[0]))[0] == 1


def test_a_hash_has_32_bytes(judge: Judge, log: Log) -> None:
    bare = receipt(log)
    for given in ("", "00", "00" * 31, "00" * 33, "00" * 64):
        assert judge("r", "--hash", given, r=bare)[0] == 2


def test_a_file_without_end_is_not_read_to_its_end(judge: Judge) -> None:
    assert judge("/dev/zero")[0] == 1
