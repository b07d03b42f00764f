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
from keyvault_lite.ledger.anchor.record import BLOCK, Mark
from keyvault_lite.ledger.verify.trust import Accepted
from keyvault_lite.model.encoding import decode_base64, encode_base64
from keyvault_lite.model.errors import Conflict, IntegrityViolation, KeyVaultError, NotFound
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt
from keyvault_lite.operator.anchor import trust_anchor
from keyvault_lite.operator.rotate_master_key import rotate_master_key
from tests.campaign.furnished import Furnished, Scene, unflushed
from tests.house import House, chosen, furnish

Tamper = Callable[[Furnished, Scene], None]


@pytest.fixture
def scene(vault: Furnished, tmp_path: Path) -> Scene:
    return vault.copy(tmp_path / "scene")


def refusal(scene: Scene) -> str:
    """The sentence with which a server does not start."""
    with pytest.raises(app.CANNOT_START) as refused:
        app.open_vault(chosen(scene.folder, scene.master))
    return str(refused.value)


def roll_back(vault: Furnished, scene: Scene) -> None:
    """Put back the database as it was right after the master key was changed."""
    shutil.copyfile(vault.older[2], scene.database)


def go_on_apart(vault: Furnished, scene: Scene) -> None:
    """The older copy, led on by an honest server until it is longer than what the anchor knows."""
    elsewhere = scene.folder / "elsewhere"
    shutil.copytree(vault.older[1].parent, elsewhere)
    shutil.copyfile(vault.folder / "vault.db.anchor", scene.folder / "ours")
    house = House(chosen(elsewhere, vault.former), vault.token)
    house.together(*(house.perform(Encrypt(KeyRef("orders"), None, b"")) for _ in range(400)))
    house.close()
    rotate_master_key(chosen(elsewhere, vault.former), new_key=scene.master)
    shutil.copyfile(elsewhere / "vault.db", scene.database)


def cut(_: Furnished, scene: Scene) -> None:
    scene.write(lambda connection: connection.execute("DELETE FROM audit_logs WHERE id > 100"))


def halve(_: Furnished, scene: Scene) -> None:
    raw = scene.database.read_bytes()
    scene.database.write_bytes(raw[: len(raw) // 2])


def empty(_: Furnished, scene: Scene) -> None:
    scene.database.write_bytes(b"")


def empty_tables(_: Furnished, scene: Scene) -> None:
    def write(connection: Any) -> None:  # noqa: ANN401
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            if name != "alembic_version":
                connection.execute(f"DELETE FROM {name}")

    scene.write(write)


def no_database(_: Furnished, scene: Scene) -> None:
    scene.database.write_bytes(b"no database, but text\n" * 100)


def something_else(_: Furnished, scene: Scene) -> None:
    scene.database.unlink()
    with closing(unflushed(str(scene.database))) as connection:
        connection.execute("CREATE TABLE cats (name)")


def another_vault(_: Furnished, scene: Scene) -> None:
    other = scene.folder / "other"
    other.mkdir()
    furnish(other)
    shutil.copyfile(other / "vault.db", scene.database)


def lose_anchor(_: Furnished, scene: Scene) -> None:
    scene.anchor.unlink()


def damage_anchor(_: Furnished, scene: Scene) -> None:
    scene.anchor.write_bytes((b"KVLANCH1" + b"?" * 2 * BLOCK)[: 2 * BLOCK])


def replace_anchor(_: Furnished, scene: Scene) -> None:
    scene.anchor.write_bytes(b"?" * 2 * BLOCK)


def foreign_anchor(_: Furnished, scene: Scene) -> None:
    other = scene.folder / "other"
    other.mkdir()
    furnish(other)
    shutil.copyfile(other / "vault.db.anchor", scene.anchor)


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
def test_whole_files(vault: Furnished, scene: Scene, tamper: Tamper, table: str, sentence: str) -> None:
    tamper(vault, scene)
    before = listing(scene.folder)
    found = scene.verify()
    assert not found.valid
    assert table in {one.table for one in found.findings}, found.findings
    assert listing(scene.folder) == before
    assert sentence in refusal(scene)


def listing(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_the_log_in_the_wal_lost(vault: Furnished, tmp_path: Path) -> None:
    shutil.copytree(vault.killed, tmp_path / "scene")
    scene = Scene(tmp_path / "scene", vault.master)
    for suffix in ("-wal", "-shm"):
        (scene.folder / f"vault.db{suffix}").unlink()
    assert "anchor" in {one.table for one in scene.verify().findings}
    assert "was put back or replaced" in refusal(scene)


def test_one_record_of_the_anchor_may_be_torn(scene: Scene) -> None:
    whole = scene.anchor.read_bytes()
    newest = max((0, 1), key=lambda slot: int.from_bytes(whole[slot * BLOCK + 8 :][:8], "big"))
    for slot in (0, 1):
        torn = bytearray(whole)
        torn[slot * BLOCK + 20 : slot * BLOCK + 60] = bytes(40)
        scene.anchor.write_bytes(torn)
        assert scene.verify().valid == (slot != newest or FileAnchor(scene.anchor).peek() is not None)
    assert scene.starts()


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
def test_an_anchor_that_was_changed(scene: Scene, changed: dict[str, Any]) -> None:
    rewrite(scene, **changed)
    assert "anchor" in {one.table for one in scene.verify().findings}
    if "checkpoint" not in changed:  # only `verify` looks at the signature: the server signs anew
        assert not scene.starts()


def rewrite(scene: Scene, **changed: Any) -> Mark:  # noqa: ANN401
    anchor = FileAnchor(scene.anchor)
    mark = anchor.read()
    assert mark is not None
    mark = replace(mark, **changed)
    anchor.replace(mark)
    anchor.close()
    return mark


# What an operator may do about it


def trust(scene: Scene, accepted: Accepted | None = None) -> Any:  # noqa: ANN401
    return trust_anchor(chosen(scene.folder, scene.master), accepted)


@pytest.mark.parametrize("lose", [lose_anchor, damage_anchor])
def test_a_lost_anchor_is_made_again(vault: Furnished, scene: Scene, lose: Tamper) -> None:
    size = scene.verify().entries
    lose(vault, scene)
    with pytest.raises(Conflict, match="remembers nothing that could be lost"):
        trust(scene, Accepted(size, bytes(32)))
    done = trust(scene)
    assert (done.size, done.epoch, done.entry, done.lost) == (size, 0, size + 1, None)
    assert (done.kept is None) == (lose is lose_anchor)
    assert scene.verify().valid
    assert scene.starts()


def test_a_file_in_place_of_the_anchor_is_left_alone(vault: Furnished, scene: Scene) -> None:
    replace_anchor(vault, scene)
    before = listing(scene.folder)
    with pytest.raises(IntegrityViolation, match="another kind of file"):
        trust(scene)
    assert listing(scene.folder).items() >= before.items()
    scene.anchor.unlink()
    assert trust(scene).lost is None
    assert scene.starts()


def test_an_acknowledged_rollback(vault: Furnished, scene: Scene) -> None:
    newest = FileAnchor(scene.anchor).peek()
    assert newest is not None
    roll_back(vault, scene)
    offered = refusal(scene)
    older = scene.verify()
    assert f"--size {older.entries} --root " in offered
    with pytest.raises(IntegrityViolation, match="was put back or replaced"):
        trust(scene)
    accepted = accepted_from(offered)
    for wrong in (replace(accepted, size=accepted.size - 1), replace(accepted, root=bytes(32))):
        with pytest.raises(Conflict, match="nothing was accepted"):
            trust(scene, wrong)
    done = trust(scene, accepted)
    assert (done.size, done.epoch, done.entry) == (older.entries, 1, older.entries + 1)
    assert f"entries {older.entries + 1} to {newest.size}" in done.lost
    assert encode_base64(newest.root) in done.lost
    assert Path(done.kept).name == f"vault.db.anchor.lost-{newest.size}"
    kept = FileAnchor(Path(done.kept)).peek()
    assert kept == newest
    after = scene.verify()
    assert after.valid
    assert any("rollback to" in note for note in after.notes)
    house = House(chosen(scene.folder, scene.master), vault.token)
    assert house.log(older.entries)[0].draft.action is Action.ANCHOR_TRUST
    assert house.ledger.evidence.log_key().verifier_key.split("+")[0].endswith("/1")
    assert house.ledger.evidence.checkpoint().split("\n")[0].endswith("/1")
    assert house.engine.health().details["epoch"] == 1
    house.close()
    with pytest.raises(Conflict, match="nothing to trust"):
        trust(scene)
    shutil.copyfile(vault.folder / "vault.db", scene.database)
    assert "its log was forked" in refusal(scene), "the lost history does not come back unseen"


def accepted_from(sentence: str) -> Accepted:
    size, root = sentence.split("--size ")[1].split("`", maxsplit=1)[0].split(" --root ")
    return Accepted(int(size), decode_base64(root))


def test_nothing_else_is_forgiven(vault: Furnished, scene: Scene) -> None:
    roll_back(vault, scene)
    accepted = accepted_from(refusal(scene))
    scene.write(lambda connection: connection.execute("UPDATE keys SET description = 'x' WHERE name = 'kept'"))
    with pytest.raises(KeyVaultError, match="row does not verify"):
        trust(scene, accepted)


def test_a_foreign_anchor_is_never_trusted(vault: Furnished, scene: Scene) -> None:
    size = scene.verify().entries
    foreign_anchor(vault, scene)
    with pytest.raises(IntegrityViolation, match="belongs to another vault"):
        trust(scene, Accepted(size, bytes(32)))


def test_no_database_at_all(scene: Scene) -> None:
    scene.database.unlink()
    with pytest.raises(NotFound):
        scene.verify()
    assert not scene.database.exists()
