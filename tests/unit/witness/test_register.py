"""What a witness must never do, and what it must not forget."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyvault_lite.audit.checkpoint import (
    InvalidNote,
    checkpoint_body,
    origin,
    parse_checkpoint,
    parse_note,
    sign_note,
    verifier_key,
)
from keyvault_lite.audit.merkle import ROOT_OF_EMPTY
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.witness.record import MAX_TEXT, SLOT, Record
from keyvault_lite.witness.register import (
    FolderLock,
    MalformedSubmission,
    Register,
    SizeConflict,
    Submission,
    SubmissionRefused,
)
from tests.support.witness import KEY, ORIGIN, VKEY, Tree, register, vkey
from tests.vectors.make_receipts import INSTANCE, PUBLIC_KEY, sign

SIZE = 24
TREES = (Tree(SIZE), Tree(SIZE, other_from=5), Tree(SIZE, other_from=11))


def newest(witness: Register) -> str:
    return witness.newest(ORIGIN) or ""


def answer(witness: Register, submission: Submission) -> SubmissionRefused | None:
    try:
        witness.add(submission)
    except SubmissionRefused as refusal:
        return refusal
    return None


MOVES = st.lists(
    st.tuples(st.sampled_from(range(3)), st.integers(0, SIZE), st.integers(0, SIZE), st.integers(0, 3)), max_size=25
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=MOVES)
def test_only_what_extends_the_last_is_ever_confirmed(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[int, int, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("w")
    witness = register(folder)
    confirmed: tuple[int, int] = (0, 0)  # tree, size
    for which, old, new, restart in moves:
        tree = TREES[which]
        honest = old <= new and old == confirmed[1] and tree.leaves[:old] == TREES[confirmed[0]].leaves[:old]
        told = answer(witness, tree.submission(old, new))
        assert (told is None) == honest, told
        if told is None:
            confirmed = (which, new)
        if isinstance(told, SizeConflict):
            assert told.size == confirmed[1]
        if restart == 0:
            witness.close()
            witness = register(folder)
    witness.close()


@given(flip=st.integers(0, 10_000), old=st.integers(1, SIZE - 1))
@settings(max_examples=60, deadline=None)
def test_no_changed_proof_is_taken(tmp_path_factory: pytest.TempPathFactory, flip: int, old: int) -> None:
    witness = register(tmp_path_factory.mktemp("w"))
    witness.add(TREES[0].submission(0, old))
    honest = TREES[0].submission(old, SIZE)
    changed = [bytearray(hash) for hash in honest.proof]
    place = flip % (len(changed) * 256)
    changed[place // 256][place % 256 // 8] ^= 1 << place % 8
    with pytest.raises(SubmissionRefused):
        witness.add(honest._replace(proof=tuple(map(bytes, changed))))
    for proof in (honest.proof[:-1], (*honest.proof, bytes(32)), honest.proof[::-1]):
        if proof != honest.proof:
            with pytest.raises(SubmissionRefused):
                witness.add(honest._replace(proof=proof))
    witness.add(honest)


@pytest.mark.parametrize("step", ["pwrite", "fdatasync"])
def test_nothing_is_confirmed_that_could_be_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """First the file, flushed, then the cosignature. If that fails the witness has confirmed nothing, and goes on."""
    witness = register(tmp_path)
    witness.add(TREES[0].submission(0, 3))
    done: list[str] = []

    def watched(name: str, call: Callable[..., int | None]) -> Callable[..., int | None]:
        def run(*arguments: object) -> int | None:
            done.append(name)
            if name == step:
                raise OSError("the disk is gone")
            return call(*arguments)

        return run

    for name in ("pwrite", "fdatasync"):
        monkeypatch.setattr(os, name, watched(name, getattr(os, name)))
    for _ in range(3):  # however often: the slot with what was confirmed is left alone
        with pytest.raises(OSError, match="the disk is gone"):
            witness.add(TREES[0].submission(3, 7))
    assert done == ["pwrite", "fdatasync"][: ["pwrite", "fdatasync"].index(step) + 1] * 3
    assert newest(witness).startswith(TREES[0].note(3))
    monkeypatch.undo()
    witness.add(TREES[0].submission(3, 9))
    assert newest(register(tmp_path)).startswith(TREES[0].note(9))


@pytest.mark.parametrize("written", [0, 1, 20, 65, 66, 100, 300, SLOT - 1])
def test_a_torn_write_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    witness = register(tmp_path)
    for old, new in ((0, 3), (3, 5), (5, 8)):
        witness.add(TREES[0].submission(old, new))
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:written], offset))
    with pytest.raises(OSError, match="not written whole"):
        witness.add(TREES[0].submission(8, 9))
    monkeypatch.undo()
    again = register(tmp_path)
    whole = written == SLOT - 1  # only zeros are missing
    assert newest(again).startswith(TREES[0].note(9 if whole else 8))
    again.add(TREES[0].submission(9 if whole else 8, 12))
    assert newest(register(tmp_path)).startswith(TREES[0].note(12))


def test_its_memory_is_only_its_own(tmp_path: Path) -> None:
    witness = register(tmp_path / "w")
    witness.add(TREES[0].submission(0, 3))
    (file,) = (tmp_path / "w" / "state").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    Record(file).write(TREES[0].note(3).replace("\n3\n", "\n2\n"))
    with pytest.raises(IntegrityViolation, match=f"record of {ORIGIN} does not verify"):
        register(tmp_path / "w")
    for raw in (b"\xff", file.read_bytes()[:65] + b"7" + file.read_bytes()[66:SLOT]):
        file.write_bytes(raw)
        with pytest.raises(IntegrityViolation, match="neither of its two slots"):
            register(tmp_path / "w")
    file.write_bytes(bytes(100))
    assert register(tmp_path / "w").newest(ORIGIN) is None


def test_a_checkpoint_has_to_fit_its_record(tmp_path: Path) -> None:
    witness = register(tmp_path)
    long = sign_note(checkpoint_body(ORIGIN, 0, ROOT_OF_EMPTY, ["x" * MAX_TEXT]), ORIGIN, PUBLIC_KEY, sign)
    with pytest.raises(MalformedSubmission):
        witness.add(Submission(0, (), long))
    with pytest.raises(ValueError, match="too long"):
        Record(tmp_path / "record").write("x" * (MAX_TEXT + 1))


def test_one_process_a_folder(tmp_path: Path) -> None:
    with FolderLock(tmp_path), pytest.raises(IntegrityViolation, match="another process"), FolderLock(tmp_path):
        pass
    with FolderLock(tmp_path):
        pass


def test_logs_are_named_by_their_keys(tmp_path: Path) -> None:
    other = VKEY.replace(VKEY.split("+")[1], "00000000")
    for logs in (["nonsense"], [other], [vkey(KEY)]):
        with pytest.raises(InvalidNote):
            Register(tmp_path, KEY, logs, verify=verify_ed25519)
    Register(tmp_path, KEY, [VKEY, VKEY], verify=verify_ed25519)
    with pytest.raises(IntegrityViolation, match="named twice, with different keys"):
        Register(tmp_path, KEY, [VKEY, verifier_key(ORIGIN, KEY.public_key)], verify=verify_ed25519)


def test_a_log_cannot_take_the_name_of_another_ones_next_epoch(tmp_path: Path) -> None:
    """Its first checkpoint would close the other log: every write of that vault would be refused."""
    theirs = verifier_key(origin(INSTANCE, 7), KEY.public_key)
    for logs in ([VKEY, theirs], [theirs, VKEY]):
        with pytest.raises(IntegrityViolation, match="different keys"):
            Register(tmp_path, KEY, logs, verify=verify_ed25519)
    Register(tmp_path, KEY, [VKEY, verifier_key(origin(INSTANCE, 7), PUBLIC_KEY)], verify=verify_ed25519)


def test_logs_of_other_software_have_no_epochs(tmp_path: Path) -> None:
    """Two shards of one operator are two logs, whatever their names end in."""
    names = ("log.example/shard/1", "log.example/shard/2")
    witness = Register(
        tmp_path,
        KEY,
        [verifier_key(names[0], PUBLIC_KEY), verifier_key(names[1], KEY.public_key)],
        verify=verify_ed25519,
    )
    for name, key, by in ((names[1], KEY.public_key, KEY.sign), (names[0], PUBLIC_KEY, sign)):
        note = sign_note(checkpoint_body(name, 0, ROOT_OF_EMPTY), name, key, by)
        witness.add(Submission(0, (), note))
        assert (witness.newest(name) or "").startswith(note)


def test_evidence_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyvault_lite.witness.register.MAX_EVIDENCE", 2)
    witness = register(tmp_path)
    witness.add(TREES[0].submission(0, 12))
    for size in (12, 13, 14, 15, 15):
        with pytest.raises(SubmissionRefused):
            witness.add(Submission(12, TREES[1].prove(12, size), TREES[1].note(size)))
        time.sleep(0.01)
    kept = {place: {file.read_text() for file in (tmp_path / place).iterdir()} for place in ("evidence", "unproven")}
    assert kept == {"evidence": {TREES[1].note(12)}, "unproven": {TREES[1].note(14), TREES[1].note(15)}}


def test_honest_checkpoints_with_a_wrong_proof_do_not_hide_a_fork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyvault_lite.witness.register.MAX_EVIDENCE", 2)
    witness = register(tmp_path)
    witness.add(TREES[0].submission(0, 12))
    for size in (13, 14, 15, 16):
        with pytest.raises(SubmissionRefused):
            witness.add(Submission(12, (bytes(32),), TREES[0].note(size)))
    with pytest.raises(SubmissionRefused):
        witness.add(Submission(12, (), TREES[1].note(12)))
    assert [file.read_text() for file in (tmp_path / "evidence").iterdir()] == [TREES[1].note(12)]


def test_repeated_signature_lines_drive_no_evidence_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one genuine checkpoint anybody can make many texts, and the oldest of what is kept makes room."""
    monkeypatch.setattr("keyvault_lite.witness.register.MAX_EVIDENCE", 2)
    witness = register(tmp_path)
    witness.add(TREES[0].submission(0, 12))
    honest, fork = TREES[0].note(14), TREES[1].note(13)
    line = honest[honest.rindex("\n\n") + 2 :]
    for note in (fork, *(honest + line * times for times in range(5))):
        with pytest.raises(SubmissionRefused):
            witness.add(Submission(12, (bytes(32),), note))
    assert {file.read_text() for file in (tmp_path / "unproven").iterdir()} == {fork, honest}


def test_another_text_of_the_same_head_is_taken(tmp_path: Path) -> None:
    """Extension lines are the log's business: the witness judges size and root."""
    witness = register(tmp_path)
    with_lines = TREES[0].note(3)
    head = parse_checkpoint(parse_note(with_lines).body)
    bare = sign_note(checkpoint_body(ORIGIN, 3, head.root), ORIGIN, PUBLIC_KEY, sign)
    for note in (bare, with_lines):
        witness.add(Submission(0 if note is bare else 3, (), note))
        assert newest(register(tmp_path)).startswith(note)
