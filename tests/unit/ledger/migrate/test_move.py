"""A vault is copied whole, under the eyes of nobody who writes, or nothing of it is left where it was to go.

From one file of SQLite into another; tests/suites/postgresql/test_migrate.py has the moves between both databases.
"""

import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.anchor.interface import Anchor
from keyvault_lite.ledger.migrate import copy
from keyvault_lite.ledger.migrate import move as moving
from keyvault_lite.ledger.migrate.copy import CopiedVault
from keyvault_lite.ledger.migrate.move import Anchors
from keyvault_lite.ledger.opening import prepare
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.database import Count
from keyvault_lite.ledger.storage.schema import Row
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.ledger.storage.tables import metadata
from keyvault_lite.ledger.verify.inspection import inspect
from keyvault_lite.model.errors import AuditUnavailable, Conflict, IntegrityViolation, NotFound, OutcomeUnknown
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import Finding
from keyvault_lite.model.requests import CreateKey, Encrypt
from tests.support.harness import AES, grant, idempotent, open_copy
from tests.unit.ledger.verify.test_tampering import tamper

E = TypeVar("E", bound=BaseException)


class Move:
    """A vault at rest, and an empty place for it."""

    def __init__(self, vault: Path, keyring: Keyring, entries: int) -> None:
        self.keyring = keyring
        self.entries = entries
        self.source = SqliteDatabase(vault / "vault.db")
        self.target = SqliteDatabase(vault / "new.db")
        self.anchor: Callable[[Any], Anchor | None] = lambda _: None
        self.told: list[tuple[int, int]] = []

    def make(self) -> CopiedVault:
        return moving.move(
            self.source,
            self.target,
            unlock=lambda slots: self.keyring if slots else pytest.fail("no slots"),
            anchors=lambda authority: Anchors(self.anchor(authority), None),
            progress=lambda done, total: self.told.append((done, total)),
        )

    def refused(self, kind: type[E] | tuple[type[E], ...], says: str | None = None) -> E:
        """It fails, and the source is nobody's any more."""
        with pytest.raises(kind, match=says) as raised:
            self.make()
        again = SqliteDatabase(self.source.path)
        assert again.is_leader()
        again.resign_leadership()
        with again.lock():
            pass
        return raised.value


def rows_of(path: Path) -> dict[str, list[Row]]:
    with closing(driver.connect(str(path))) as connection:
        return {
            str(table): sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
            for table in metadata.sorted_tables
        }


def check_same(source: dict[str, list[Row]], target: dict[str, list[Row]]) -> None:
    """All rows are the same, but for the entry of the move, and the head over it."""
    new = [row for row in target["audit_logs"] if row not in source["audit_logs"]]
    assert [(row[0], "migrate" in row) for row in new] == [(len(source["audit_logs"]) + 1, True)]
    for name, rows in source.items():
        if name not in {"ledger_head", "audit_index"}:
            assert [row for row in target[name] if row not in new] == rows, name


def tables_of(path: Path) -> int:
    with closing(driver.connect(str(path))) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchall()
    return int(count)


@pytest.fixture(scope="module")
def lived_in(template: tuple[Path, str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Keyring, int]:
    """A vault with a bit of everything, a full tile of the log included, at rest."""
    folder, master, token = template
    harness = open_copy(folder, tmp_path_factory.mktemp("lived") / "vault", master, token)
    key = harness.rotated(harness.key("orders"), 2)
    harness.service("worker", grant("orders", "encrypt"))
    harness.ask(CreateKey(AES, "kept"), idempotency=idempotent("once"))
    harness.together(*(harness.perform(Encrypt(KeyRef(key.id), plaintext=b"x")) for _ in range(300)))
    path, size = harness.path, harness.size
    harness.close()
    return path.parent, harness.vault.keyring, size


@pytest.fixture
def move(lived_in: tuple[Path, Keyring, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Move:
    """It, to be moved in parts of 100 rows."""
    folder, keyring, size = lived_in
    monkeypatch.setattr(copy, "CHUNK", 100)
    return Move(shutil.copytree(folder, tmp_path / "vault"), keyring, size)


def test_every_row_goes_along(move: Move) -> None:
    before = rows_of(move.source.path)
    assert len(before["tiles"]) == 1
    assert len(before["idempotency_replies"]) == 1

    copied = move.make()

    assert copied.entries == move.entries
    assert before == rows_of(move.source.path)
    check_same(before, rows_of(move.target.path))
    assert move.told == [(done, move.entries) for done in (100, 200, 300, move.entries)]
    with closing(move.target.reader()) as reader:
        seen = inspect(reader, move.keyring, move.target, log_from=0, pages=True)
    assert (seen.findings, seen.root) == ([], copied.known.tiles.edge.root())
    assert move.source.is_leader(), "whoever moved it has let go of it"


def test_nobody_writes_meanwhile(move: Move) -> None:
    with moving.standing_still(move.source) as resting:
        reader = resting.reader
        assert reader.execute("SELECT count(*) FROM audit_logs").fetchall() == [(move.entries,)]
        with pytest.raises(driver.Error, match="readonly"):
            reader.execute("DELETE FROM tokens")
        other = driver.connect(str(move.source.path), timeout=0)
        with closing(other), pytest.raises(driver.Error, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        assert not SqliteDatabase(move.source.path).try_lock()
    with closing(driver.connect(str(move.source.path), timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")


def test_a_vault_that_is_served_stays(move: Move) -> None:
    serving = SqliteDatabase(move.source.path)
    assert serving.is_leader()
    with pytest.raises(Conflict, match="a server is running on"):
        move.make()
    assert not move.source.is_leader()
    serving.resign_leadership()
    assert not move.target.exists()


def test_what_is_no_vault_is_not_moved(move: Move, tmp_path: Path) -> None:
    move.source = SqliteDatabase(tmp_path / "empty.db")
    with closing(move.source.writer()) as writer:
        writer.execute("CREATE TABLE keyring_slots (a, b, c, d, e, f, removed_at, row_seq, row_mac)")
    # A table of that name, without the columns.
    move.refused(AuditUnavailable, "locked or damaged")
    (tmp_path / "garbage.db").write_bytes(b"no database" * 100)
    move.source = SqliteDatabase(tmp_path / "garbage.db")
    move.refused(AuditUnavailable, "locked or damaged")
    assert not move.target.exists()


def test_a_vault_without_slots_is_none(move: Move) -> None:
    tamper(move.source.path, "DELETE FROM keyring_slots")
    move.refused(NotFound, "there is no vault in")
    assert not move.target.exists()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE services SET role = 'ADMIN' WHERE name = 'worker'",
        "UPDATE audit_logs SET source = 'elsewhere' WHERE id = 5",
        "DELETE FROM tiles",
        "DELETE FROM audit_index",
    ],
)
def test_what_does_not_verify_stays(move: Move, damage: str) -> None:
    tamper(move.source.path, damage)
    move.refused(DamagedVault)
    assert not move.target.exists()


def test_a_database_whose_own_structure_is_damaged_stays(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    torn = Finding("database", "vault.db", "a page is torn")
    monkeypatch.setattr(SqliteDatabase, "check_pages", lambda *_: [torn])
    move.refused(DamagedVault, "a page is torn")
    assert not move.target.exists()


def test_what_its_anchor_does_not_know_stays(move: Move, tmp_path: Path) -> None:
    move.anchor = lambda _: FileAnchor(tmp_path / "none.anchor")
    move.refused(DamagedVault, "anchor")
    (tmp_path / "damaged.anchor").write_bytes(b"x" * 4096)
    move.anchor = lambda _: FileAnchor(tmp_path / "damaged.anchor")
    (finding,) = move.refused(DamagedVault, "anchor").findings
    assert finding.table == "anchor"
    assert not move.target.exists()
    move.anchor = lambda _: FileAnchor(move.source.anchor_path)
    assert move.make().entries == move.entries


def test_a_place_that_is_not_empty_is_left_alone(move: Move) -> None:
    with closing(sqlite3.connect(move.target.path)) as other:
        other.execute("CREATE TABLE notes (a)")
    move.refused(Conflict, "is not empty")
    assert tables_of(move.target.path) == 1
    with closing(sqlite3.connect(move.target.path)) as other:
        other.execute("DROP TABLE notes")
    move.target.path.write_bytes(b"no database" * 100)
    move.refused(Conflict, "is not empty")


@pytest.mark.parametrize("row", [False, True], ids=["without a row", "with a row"])
def test_a_schema_without_a_row_is_as_good_as_none(move: Move, *, row: bool) -> None:
    prepare(move.target)
    if row:
        with closing(move.target.writer()) as writer:
            writer.execute("INSERT INTO settings VALUES ('a', 'b', 1, x'00')")
        move.refused(Conflict, "is not empty")
    else:
        assert move.make().entries == move.entries


class Failing(SqliteDatabase):
    """Takes what comes first, and then something happens."""

    def __init__(self, path: Path, then: Callable[[Sequence[Row]], Count]) -> None:
        super().__init__(path)
        self.then = then
        self.taken = 0

    def append(self, connection: driver.Connection, entries: Sequence[Row]) -> Count:
        self.taken += 1
        return super().append(connection, entries) if self.taken == 1 else self.then(entries)


def _raise(error: BaseException) -> Count:
    raise error


@pytest.mark.parametrize(
    ("then", "kind", "says"),
    [
        (
            lambda _: _raise(driver.Error("the disk is gone")),
            AuditUnavailable,
            "did not take the copy: the disk is gone",
        ),
        (lambda _: _raise(KeyboardInterrupt()), KeyboardInterrupt, None),
        (lambda entries: Count(len(entries) - 1), IntegrityViolation, "did not take every entry"),
        (lambda entries: Count(len(entries)), DamagedVault, "audit_logs"),
    ],
    ids=["an error", "an interrupt", "one entry less", "an entry that is not there"],
)
def test_a_copy_that_fails_leaves_nothing(
    move: Move, then: Callable[[Sequence[Row]], Count], kind: type[BaseException], says: str | None
) -> None:
    before = rows_of(move.source.path)
    place = move.target.path
    move.target = Failing(place, then)
    move.refused(kind, says)
    assert tables_of(place) == 0
    assert rows_of(move.source.path) == before
    # Nothing stands in the way of a second attempt, into the very same place.
    move.target = SqliteDatabase(place)
    assert move.make().entries == move.entries


@pytest.mark.parametrize(
    "table", ["audit_logs", "key_versions", "keyring_slots", "keys", "ledger_head", "services", "tiles", "tokens"]
)
def test_a_copy_that_lacks_a_table_is_not_kept(move: Move, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = copy._copy_rows
    monkeypatch.setattr(copy, "_copy_rows", lambda one, *how: None if one.name == table else real(one, *how))
    if table == "audit_logs":
        monkeypatch.setattr(SqliteDatabase, "append", lambda _, __, entries: Count(len(entries)))
    move.refused((DamagedVault, AuditUnavailable))  # the second where the database itself refuses what is left
    assert tables_of(move.target.path) == 0


@pytest.mark.parametrize("other", [{"entries": 1}, {"mac": bytes(32)}], ids=["entries", "head"])
def test_a_copy_of_something_else_is_none(move: Move, other: dict[str, Any]) -> None:
    with closing(move.source.reader()) as reader:
        seen = inspect(reader, move.keyring, move.source, log_from=0)
        known = copy.known_of(reader, seen)
    with closing(move.source.writer()) as writer:
        writer.execute("BEGIN")
        copy._check_copy(move.source, writer, move.keyring, seen.entries, known)
        assert writer.in_transaction, "the check has not ended it"
        entries, mac = other.get("entries", seen.entries), other.get("mac", known.mac)
        with pytest.raises(IntegrityViolation, match="is not the vault that was read"):
            copy._check_copy(move.source, writer, move.keyring, entries, replace(known, mac=mac))
        if "mac" in other:
            with pytest.raises(IntegrityViolation, match="is not the vault that was read"):
                copy._record(move.source, writer, move.keyring, replace(seen, mac=mac), "")
        writer.execute("ROLLBACK")


class Uncertain:
    """A connection whose COMMIT is done, and does not say so."""

    def __init__(self, real: driver.Connection) -> None:
        self._real = real

    def execute(self, sql: str, *values: Any) -> Any:  # noqa: ANN401
        done = self._real.execute(sql, *values)
        if sql == "COMMIT" and self._real.execute("SELECT count(*) FROM audit_logs").fetchone() != (0,):
            raise driver.Error("the connection is gone")
        return done

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._real, name)


def test_a_copy_that_may_be_there_is_left_there(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    real = SqliteDatabase.writer

    def writer(database: SqliteDatabase, *, patient: bool = True) -> Any:  # noqa: ANN401
        opened = real(database, patient=patient)
        return Uncertain(opened) if database is move.target else opened

    monkeypatch.setattr(SqliteDatabase, "writer", writer)
    before = rows_of(move.source.path)
    move.refused(OutcomeUnknown, "run `kvl migrate` again")
    check_same(before, rows_of(move.target.path))
    # The next attempt meets the same once more, with the last COMMIT; and then it is told that the vault is there.
    move.refused(OutcomeUnknown, "run `kvl migrate` again")
    monkeypatch.undo()
    move.refused(Conflict, "the vault was moved already")
