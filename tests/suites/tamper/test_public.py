"""Found without the master key: log, order, tree, signatures, rows put back or removed. Not edits of columns."""

import random
from pathlib import Path

import pytest

from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.verify.offline_check import NothingOpens
from keyvault_lite.model.errors import InvalidRequest
from tests.suites.tamper import mutations
from tests.suites.tamper.mutations import Impossible, Mutation
from tests.suites.tamper.sample_vault import SampleVault, VaultCopy

SOME = 10


@pytest.mark.parametrize(
    "mutate",
    [mutations.delete_row, mutations.replay_row, mutations.replay_table, mutations.cut_tail, mutations.plant],
)
def test_without_the_master_key(vault: SampleVault, tmp_path: Path, mutate: Mutation) -> None:
    untouched = vault.copy(tmp_path / "untouched").content()
    for seed in range(SOME):
        copy_of = vault.copy(tmp_path / f"copy_of-{seed}")
        try:
            done = mutate(vault, copy_of, random.Random(seed))
        except Impossible:
            continue
        assert copy_of.content() == untouched or not copy_of.verify(public=True).valid, done.what


def test_a_log_is_judged_by_a_key_kept_elsewhere(vault: SampleVault, tmp_path: Path) -> None:
    copy_of = vault.copy(tmp_path / "copy_of")
    mark = FileAnchor(copy_of.anchor).peek()
    assert mark is not None
    assert copy_of.verify(public=True, key=mark.verifier_key).valid
    stranger = FileAnchor(vault.copy(tmp_path / "copy").anchor)
    with pytest.raises(InvalidRequest):
        copy_of.verify(public=True, key="witness.example/w1+e81c5069+BHEmUfRQugW2OJi5nvX3ukVjLo4lJ/f3Fc1nHsQCTMUe")
    assert stranger.peek() == mark


def test_a_kept_checkpoint_has_to_be_extended(vault: SampleVault, tmp_path: Path) -> None:
    copy_of = vault.copy(tmp_path / "copy_of")
    older = [FileAnchor(path.with_name("vault.db.anchor")).peek() for path in vault.older]
    for mark in older:
        assert mark is not None
        for public in (False, True):
            assert copy_of.verify(public=public, against=mark.checkpoint).valid
    newest = FileAnchor(copy_of.anchor).peek()
    assert newest is not None
    back = VaultCopy(vault.older[2].parent, vault.master)
    found = back.verify(against=newest.checkpoint)
    assert [(one.table, one.problem) for one in found.findings] == [
        ("checkpoint", f"is of {newest.size} entries which this log does not extend")
    ]
    assert not copy_of.verify(against=newest.checkpoint.replace(str(newest.size), "5")).valid
    assert not copy_of.verify(against="no checkpoint").valid


def test_a_slot_that_was_changed_is_told_from_another_master_key(vault: SampleVault, tmp_path: Path) -> None:
    copy_of = vault.copy(tmp_path / "copy_of")
    with pytest.raises(NothingOpens):
        VaultCopy(copy_of.folder, vault.former).verify()
    forge = "UPDATE keyring_slots SET sealed = randomblob(length(sealed)) WHERE removed_at IS NULL"
    copy_of.write(lambda connection: connection.execute(forge))
    found = copy_of.verify()
    assert {one.table for one in found.findings} == {"keyring_slots"}
