"""What a witness must never do, and what it must not forget."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyvault_lite.audit.checkpoint import InvalidNote, checkpoint_body, parse_checkpoint, parse_note, sign_note
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.witness.register import FolderLock, OtherSize, Refused, Register, Submission
from tests.vectors.make_receipts import PUBLIC_KEY, sign
from tests.witness.support import KEY, ORIGIN, VKEY, Tree, register, vkey

SIZE = 24
TREES = (Tree(SIZE), Tree(SIZE, other_from=5), Tree(SIZE, other_from=11))


def answer(witness: Register, submission: Submission) -> Refused | None:
    try:
        witness.add(submission)
    except Refused as refusal:
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
        if isinstance(told, OtherSize):
            assert told.size == confirmed[1]
        if restart == 0:
            witness = register(folder)


@given(flip=st.integers(0, 10_000), old=st.integers(1, SIZE - 1))
@settings(max_examples=60, deadline=None)
def test_no_changed_proof_is_taken(tmp_path_factory: pytest.TempPathFactory, flip: int, old: int) -> None:
    witness = register(tmp_path_factory.mktemp("w"))
    witness.add(TREES[0].submission(0, old))
    honest = TREES[0].submission(old, SIZE)
    changed = [bytearray(hash) for hash in honest.proof]
    place = flip % (len(changed) * 256)
    changed[place // 256][place % 256 // 8] ^= 1 << place % 8
    with pytest.raises(Refused):
        witness.add(honest._replace(proof=tuple(map(bytes, changed))))
    for proof in (honest.proof[:-1], (*honest.proof, bytes(32)), honest.proof[::-1]):
        if proof != honest.proof:
            with pytest.raises(Refused):
                witness.add(honest._replace(proof=proof))
    witness.add(honest)


STEPS = ("fsync", "replace", "fsync of the folder")


@pytest.mark.parametrize("step", STEPS)
def test_nothing_is_confirmed_that_could_be_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The order is: file, name, cosignature. If a step fails the witness has confirmed nothing."""
    witness = register(tmp_path)
    witness.add(TREES[0].submission(0, 3))
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def at(now: str) -> None:
        done.append(now)
        if now == step:
            raise OSError("the disk is gone")

    def failing_fsync(descriptor: int) -> None:
        at(STEPS[2] if os.path.isdir(f"/proc/self/fd/{descriptor}") else STEPS[0])  # noqa: PTH112
        fsync(descriptor)

    def failing_replace(part: Path, target: Path) -> Path:
        at(STEPS[1])
        return replace(part, target)

    monkeypatch.setattr(os, "fsync", failing_fsync)
    monkeypatch.setattr(Path, "replace", failing_replace)
    with pytest.raises(OSError, match="the disk is gone"):
        witness.add(TREES[0].submission(3, 7))
    assert done == list(STEPS[: STEPS.index(step) + 1])
    assert (witness.newest(ORIGIN) or "").startswith(TREES[0].note(3))
    monkeypatch.undo()
    witness.add(TREES[0].submission(3, 9))
    assert (register(tmp_path).newest(ORIGIN) or "").startswith(TREES[0].note(9))


def test_its_memory_is_only_its_own(tmp_path: Path) -> None:
    witness = register(tmp_path / "w")
    witness.add(TREES[0].submission(0, 3))
    (record,) = (tmp_path / "w" / "state").iterdir()
    record.write_text(record.read_text().replace("\n3\n", "\n2\n"))
    with pytest.raises(IntegrityViolation, match=f"record of {ORIGIN} does not verify"):
        register(tmp_path / "w")
    record.write_bytes(b"\xff")
    with pytest.raises(IntegrityViolation, match="does not verify"):
        register(tmp_path / "w")


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


def test_evidence_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyvault_lite.witness.register.MAX_EVIDENCE", 2)
    witness = register(tmp_path)
    witness.add(TREES[0].submission(0, 12))
    for size in (12, 13, 14, 15, 15):
        with pytest.raises(Refused):
            witness.add(Submission(12, TREES[1].prove(12, size), TREES[1].note(size)))
    assert len(list((tmp_path / "evidence").iterdir())) == 2


def test_another_text_of_the_same_head_is_taken(tmp_path: Path) -> None:
    """Extension lines are the log's business: the witness judges size and root."""
    witness = register(tmp_path)
    with_lines = TREES[0].note(3)
    head = parse_checkpoint(parse_note(with_lines).body)
    bare = sign_note(checkpoint_body(ORIGIN, 3, head.root), ORIGIN, PUBLIC_KEY, sign)
    for note in (bare, with_lines):
        witness.add(Submission(0 if note is bare else 3, (), note))
        assert (register(tmp_path).newest(ORIGIN) or "").startswith(note)
