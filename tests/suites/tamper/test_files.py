"""Whole files put back, forked, cut, emptied, exchanged or lost: `verify` finds each, a start refuses each in words."""

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keyvault_lite import app
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.anchor.record import BLOCK, AnchorRecord
from keyvault_lite.ledger.verify.trust import AcceptedHead
from keyvault_lite.model.encoding import decode_base64, encode_base64
from keyvault_lite.model.errors import Conflict, IntegrityViolation, KeyVaultError, NotFound
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt
from keyvault_lite.operator.anchor import trust_anchor
from keyvault_lite.operator.rotate_master_key import rotate_master_key
from tests.suites.tamper.sample_vault import SampleVault, VaultCopy, unflushed
from tests.support.harness import Harness, create_vault, settings_for

Tamper = Callable[[SampleVault, VaultCopy], None]


@pytest.fixture
def copy_of(vault: SampleVault, tmp_path: Path) -> VaultCopy:
    return vault.copy(tmp_path / "copy_of")


def refusal(copy_of: VaultCopy) -> str:
    """The sentence with which a server does not start."""
    with pytest.raises(app.CANNOT_START) as refused:
        app.open_vault(settings_for(copy_of.folder, copy_of.master))
    return str(refused.value)


def roll_back(vault: SampleVault, copy_of: VaultCopy) -> None:
    """Put back the database as it was right after the master key was changed."""
    shutil.copyfile(vault.older[2], copy_of.database)


def go_on_apart(vault: SampleVault, copy_of: VaultCopy) -> None:
    """The older copy, led on by an honest server until it is longer than what the anchor knows."""
    elsewhere = copy_of.folder / "elsewhere"
    shutil.copytree(vault.older[1].parent, elsewhere)
    shutil.copyfile(vault.folder / "vault.db.anchor", copy_of.folder / "ours")
    harness = Harness(settings_for(elsewhere, vault.former), vault.token)
    harness.together(*(harness.perform(Encrypt(KeyRef("orders"), None, b"")) for _ in range(400)))
    harness.close()
    rotate_master_key(settings_for(elsewhere, vault.former), new_key=copy_of.master)
    shutil.copyfile(elsewhere / "vault.db", copy_of.database)


def cut(_: SampleVault, copy_of: VaultCopy) -> None:
    copy_of.write(lambda connection: connection.execute("DELETE FROM audit_logs WHERE id > 100"))


def halve(_: SampleVault, copy_of: VaultCopy) -> None:
    raw = copy_of.database.read_bytes()
    copy_of.database.write_bytes(raw[: len(raw) // 2])


def empty(_: SampleVault, copy_of: VaultCopy) -> None:
    copy_of.database.write_bytes(b"")


def empty_tables(_: SampleVault, copy_of: VaultCopy) -> None:
    def write(connection: Any) -> None:  # noqa: ANN401
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            if name != "alembic_version":
                connection.execute(f"DELETE FROM {name}")

    copy_of.write(write)


def no_database(_: SampleVault, copy_of: VaultCopy) -> None:
    copy_of.database.write_bytes(b"no database, but text\n" * 100)


def something_else(_: SampleVault, copy_of: VaultCopy) -> None:
    copy_of.database.unlink()
    with closing(unflushed(str(copy_of.database))) as connection:
        connection.execute("CREATE TABLE cats (name)")


def another_vault(_: SampleVault, copy_of: VaultCopy) -> None:
    other = copy_of.folder / "other"
    other.mkdir()
    create_vault(other)
    shutil.copyfile(other / "vault.db", copy_of.database)


def lose_anchor(_: SampleVault, copy_of: VaultCopy) -> None:
    copy_of.anchor.unlink()


def damage_anchor(_: SampleVault, copy_of: VaultCopy) -> None:
    copy_of.anchor.write_bytes((b"KVLANCH1" + b"?" * 2 * BLOCK)[: 2 * BLOCK])


def replace_anchor(_: SampleVault, copy_of: VaultCopy) -> None:
    copy_of.anchor.write_bytes(b"?" * 2 * BLOCK)


def foreign_anchor(_: SampleVault, copy_of: VaultCopy) -> None:
    other = copy_of.folder / "other"
    other.mkdir()
    create_vault(other)
    shutil.copyfile(other / "vault.db.anchor", copy_of.anchor)


CASES: list[tuple[Tamper, str, str]] = [
    (roll_back, "anchor", "was put back or replaced"),
    (go_on_apart, "anchor", "its log was forked"),
    (cut, "anchor", "was put back or replaced"),
    (halve, "database", ""),
    (empty, "database", "the database is empty"),
    (empty_tables, "anchor", "the database is empty"),
    (no_database, "database", "is no SQLite database"),
    (something_else, "anchor", "holds something else"),
    (another_vault, "anchor", ""),
    (lose_anchor, "anchor", "is missing beside a vault of"),
    (damage_anchor, "anchor", "neither of its two records can be read"),
    (replace_anchor, "anchor", "is another kind of file"),
    (foreign_anchor, "anchor", "belongs to another vault"),
]


@pytest.mark.parametrize(("tamper", "table", "sentence"), CASES, ids=[case[0].__name__ for case in CASES])
def test_whole_files(vault: SampleVault, copy_of: VaultCopy, tamper: Tamper, table: str, sentence: str) -> None:
    tamper(vault, copy_of)
    before = listing(copy_of.folder)
    found = copy_of.verify()
    assert not found.valid
    assert table in {one.table for one in found.findings}, found.findings
    assert listing(copy_of.folder) == before
    assert sentence in refusal(copy_of)


def listing(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_the_log_in_the_wal_lost(vault: SampleVault, tmp_path: Path) -> None:
    shutil.copytree(vault.killed, tmp_path / "copy_of")
    copy_of = VaultCopy(tmp_path / "copy_of", vault.master)
    for suffix in ("-wal", "-shm"):
        (copy_of.folder / f"vault.db{suffix}").unlink()
    assert "anchor" in {one.table for one in copy_of.verify().findings}
    assert "was put back or replaced" in refusal(copy_of)


def test_one_record_of_the_anchor_may_be_torn(copy_of: VaultCopy) -> None:
    whole = copy_of.anchor.read_bytes()
    newest = max((0, 1), key=lambda slot: int.from_bytes(whole[slot * BLOCK + 8 :][:8], "big"))
    for slot in (0, 1):
        torn = bytearray(whole)
        torn[slot * BLOCK + 20 : slot * BLOCK + 60] = bytes(40)
        copy_of.anchor.write_bytes(torn)
        assert copy_of.verify().valid == (slot != newest or FileAnchor(copy_of.anchor).peek() is not None)
    assert copy_of.starts()


@pytest.mark.parametrize(
    "changed",
    [
        {"size": 100},
        {"size": 10_000},
        {"epoch": 3},
        {"state_seq": 5},
        {"hash": bytes(32)},
        {"root": bytes(32)},
        {"scrubbed": 10_000},
        {"checkpoint": "x"},
        {"verifier_key": "x"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_an_anchor_that_was_changed(copy_of: VaultCopy, changed: dict[str, Any]) -> None:
    rewrite(copy_of, **changed)
    assert "anchor" in {one.table for one in copy_of.verify().findings}
    if "checkpoint" not in changed:  # only `verify` looks at the signature: the server signs anew
        assert not copy_of.starts()


def rewrite(copy_of: VaultCopy, **changed: Any) -> AnchorRecord:  # noqa: ANN401
    anchor = FileAnchor(copy_of.anchor)
    mark = anchor.read()
    assert mark is not None
    mark = replace(mark, **changed)
    anchor.replace(mark)
    anchor.close()
    return mark


# What an operator may do about it


def trust(copy_of: VaultCopy, accepted: AcceptedHead | None = None) -> Any:  # noqa: ANN401
    return trust_anchor(settings_for(copy_of.folder, copy_of.master), accepted)


@pytest.mark.parametrize("lose", [lose_anchor, damage_anchor])
def test_a_lost_anchor_is_made_again(vault: SampleVault, copy_of: VaultCopy, lose: Tamper) -> None:
    size = copy_of.verify().entries
    lose(vault, copy_of)
    with pytest.raises(Conflict, match="remembers nothing that could be lost"):
        trust(copy_of, AcceptedHead(size, bytes(32)))
    done = trust(copy_of)
    assert (done.size, done.epoch, done.entry, done.lost) == (size, 0, size + 1, None)
    assert (done.kept is None) == (lose is lose_anchor)
    assert copy_of.verify().valid
    assert copy_of.starts()


def test_a_file_in_place_of_the_anchor_is_left_alone(vault: SampleVault, copy_of: VaultCopy) -> None:
    replace_anchor(vault, copy_of)
    before = listing(copy_of.folder)
    with pytest.raises(IntegrityViolation, match="another kind of file"):
        trust(copy_of)
    assert listing(copy_of.folder).items() >= before.items()
    copy_of.anchor.unlink()
    assert trust(copy_of).lost is None
    assert copy_of.starts()


def test_an_acknowledged_rollback(vault: SampleVault, copy_of: VaultCopy) -> None:
    newest = FileAnchor(copy_of.anchor).peek()
    assert newest is not None
    roll_back(vault, copy_of)
    offered = refusal(copy_of)
    older = copy_of.verify()
    assert f"--size {older.entries} --root " in offered
    with pytest.raises(IntegrityViolation, match="was put back or replaced"):
        trust(copy_of)
    accepted = accepted_from(offered)
    for wrong in (replace(accepted, size=accepted.size - 1), replace(accepted, root=bytes(32))):
        with pytest.raises(Conflict, match="nothing was accepted"):
            trust(copy_of, wrong)
    done = trust(copy_of, accepted)
    assert (done.size, done.epoch, done.entry) == (older.entries, 1, older.entries + 1)
    assert f"entries {older.entries + 1} to {newest.size}" in done.lost
    assert encode_base64(newest.root) in done.lost
    assert Path(done.kept).name == f"vault.db.anchor.lost-{newest.size}"
    kept = FileAnchor(Path(done.kept)).peek()
    assert kept == newest
    after = copy_of.verify()
    assert after.valid
    assert any("rollback to" in note for note in after.notes)
    harness = Harness(settings_for(copy_of.folder, copy_of.master), vault.token)
    assert harness.log(older.entries)[0].draft.action is Action.ANCHOR_TRUST
    assert harness.ledger.evidence.log_key().verifier_key.split("+")[0].endswith("/1")
    assert harness.ledger.evidence.checkpoint().split("\n")[0].endswith("/1")
    assert harness.engine.health().details["epoch"] == 1
    harness.close()
    with pytest.raises(Conflict, match="nothing to trust"):
        trust(copy_of)
    shutil.copyfile(vault.folder / "vault.db", copy_of.database)
    assert "its log was forked" in refusal(copy_of), "the lost history does not come back unseen"


def accepted_from(sentence: str) -> AcceptedHead:
    size, root = sentence.split("--size ")[1].split("`", maxsplit=1)[0].split(" --root ")
    return AcceptedHead(int(size), decode_base64(root))


def test_nothing_else_is_forgiven(vault: SampleVault, copy_of: VaultCopy) -> None:
    roll_back(vault, copy_of)
    accepted = accepted_from(refusal(copy_of))
    copy_of.write(lambda connection: connection.execute("UPDATE keys SET description = 'x' WHERE name = 'kept'"))
    with pytest.raises(KeyVaultError, match="row does not verify"):
        trust(copy_of, accepted)


def test_a_foreign_anchor_is_never_trusted(vault: SampleVault, copy_of: VaultCopy) -> None:
    size = copy_of.verify().entries
    foreign_anchor(vault, copy_of)
    with pytest.raises(IntegrityViolation, match="belongs to another vault"):
        trust(copy_of, AcceptedHead(size, bytes(32)))


def test_no_database_at_all(copy_of: VaultCopy) -> None:
    copy_of.database.unlink()
    with pytest.raises(NotFound):
        copy_of.verify()
    assert not copy_of.database.exists()
