"""A rollback journal beside a vault: nobody lets SQLite play it back, and whatever would open the vault names it."""

import os
import shutil
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from keyvault_lite import app
from keyvault_lite.crypto.root import MasterKey
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.ledger.storage.sqlite.files import _EMPTY, beside, make_empty
from keyvault_lite.ledger.storage.sqlite.offline import read_offline
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation
from keyvault_lite.model.requests import ListKeys
from keyvault_lite.operator.anchor import trust_anchor
from keyvault_lite.operator.archive import archive_entries
from keyvault_lite.operator.initialise import initialise_vault, recover_admin
from keyvault_lite.operator.migrate import migrate_vault
from keyvault_lite.operator.repair import repair_vault
from keyvault_lite.operator.rotate_master_key import rotate_master_key
from keyvault_lite.operator.verify import verify_vault
from keyvault_lite.settings import Settings
from tests.support.harness import Harness

PAGE = 4096


def journal(pages: int, super_journal: Path | None = None) -> bytes:
    """A hot journal: played back it cuts the database to so many pages; it may name a super-journal."""
    header = bytes.fromhex("d9d505f920a163d7") + struct.pack(">5I", 0, 7, pages, 512, PAGE)
    raw = header.ljust(512, b"\x00")
    if super_journal is not None:
        name = os.fsencode(super_journal)
        number = 1 + (1 << 30) // PAGE  # the page of the locks, which stands before the name
        checksum = sum(name) & 0xFFFFFFFF
        raw += struct.pack(">I", number) + name + struct.pack(">2I", len(name), checksum) + header[:8]
    return raw


def files(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def move(chosen: Settings) -> object:
    return migrate_vault(chosen, f"sqlite:///{chosen.database_url.removeprefix('sqlite:///')}.moved")


OPENINGS: dict[str, Callable[[Settings], object]] = {
    "a server": app.open_vault,
    "a first server": initialise_vault,
    "an archive": lambda chosen: archive_entries(chosen, Path(chosen.database_url.removeprefix("sqlite:///") + ".arc")),
    "a move": move,
    "a repair": repair_vault,
    "a lost token": recover_admin,
    "another master key": lambda chosen: rotate_master_key(chosen, new_key=MasterKey.generate()[1]),
    "an anchor's trust": trust_anchor,
}


@pytest.fixture(params=[0, 1, 3])
def planted(harness: Harness, tmp_path: Path, request: pytest.FixtureRequest) -> Harness:
    """A vault at rest with a hot journal beside it, whose super-journal is a file that somebody wants to be gone."""
    harness.key("orders")
    harness.vault.close()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    harness.path.with_name("vault.db-journal").write_bytes(journal(request.param, victim))
    return harness


@pytest.mark.parametrize("opening", sorted(OPENINGS))
def test_nothing_opens_the_vault(planted: Harness, tmp_path: Path, opening: str) -> None:
    before = files(tmp_path)
    with pytest.raises(app.CANNOT_START) as refused:
        OPENINGS[opening](planted.settings)
    assert "vault.db-journal" in str(refused.value)
    after = files(tmp_path)
    assert {name: after.get(name) for name in before} == before


def test_verify_names_it(planted: Harness, tmp_path: Path) -> None:
    before = files(tmp_path)
    for public in (False, True):
        found = verify_vault(planted.settings, public=public)
        assert [(one.table, one.row) for one in found.findings] == [("database", "vault.db-journal")]
    assert files(tmp_path) == before


def test_a_vault_goes_on_once_it_was_moved_away(planted: Harness) -> None:
    planted.path.with_name("vault.db-journal").unlink()
    assert verify_vault(planted.settings).valid
    planted.open()
    assert planted.ask(ListKeys()).items


@pytest.mark.parametrize("kind", ["empty", "folder", "link to nothing", "pipe"])
def test_whatever_kind_of_file_it_is(harness: Harness, kind: str) -> None:
    harness.vault.close()
    place = harness.path.with_name("vault.db-journal")
    make: dict[str, Callable[[], None]] = {
        "empty": place.touch,
        "folder": place.mkdir,
        "link to nothing": lambda: place.symlink_to("nowhere"),
        "pipe": lambda: os.mkfifo(place),
    }
    make[kind]()
    assert [one.row for one in verify_vault(harness.settings).findings] == ["vault.db-journal"]
    with pytest.raises(DamagedVault, match=r"vault\.db-journal"):
        harness.open()


def test_it_stands_beside_the_file_that_a_link_leads_to(harness: Harness, tmp_path: Path) -> None:
    harness.vault.close()
    real = tmp_path / "elsewhere" / "real.db"
    real.parent.mkdir()
    shutil.move(harness.path, real)
    harness.path.symlink_to(real)
    real.with_name("real.db-journal").write_bytes(journal(0))
    assert [one.row for one in verify_vault(harness.settings).findings] == ["real.db-journal"]
    with pytest.raises(DamagedVault, match=r"real\.db-journal"):
        harness.open()


def test_of_a_database_that_names_no_wal_mode(harness: Harness) -> None:
    """As where the header was changed too, so that it would not look strange to SQLite."""
    harness.vault.close()
    with harness.path.open("r+b") as stream:
        stream.seek(18)
        stream.write(b"\x01\x01")
    harness.path.with_name("vault.db-journal").write_bytes(journal(0))
    assert [one.row for one in verify_vault(harness.settings).findings] == ["vault.db-journal"]
    with pytest.raises(DamagedVault, match=r"vault\.db-journal"):
        harness.open()


def test_beside_a_running_vault_it_ends_service(harness: Harness) -> None:
    harness.key("orders")
    harness.path.with_name("vault.db-journal").write_bytes(journal(0))
    harness.ledger.scrub()
    assert "vault.db-journal" in harness.refusal(ListKeys(), IntegrityViolation).detail


def test_reading_offline_looks_before_each_attempt(harness: Harness) -> None:
    harness.vault.close()
    place, seen = harness.path.with_name("vault.db-journal"), []

    def work(connection: driver.Connection) -> None:
        seen.append(connection.execute("SELECT count(*) FROM keys").fetchone())
        place.write_bytes(journal(0))

    with pytest.raises(DamagedVault):
        read_offline(harness.path, work)
    assert len(seen) == 1


class TestEmpty:
    def test_is_what_sqlite_makes(self, tmp_path: Path) -> None:
        with closing(driver.connect(str(tmp_path / "theirs"))) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        theirs = (tmp_path / "theirs").read_bytes()
        assert theirs[:96] + theirs[100:] == _EMPTY[:96] + _EMPTY[100:]

    def test_no_rollback_journal_is_ever_made(self, tmp_path: Path) -> None:
        make_empty(tmp_path / "new")
        with closing(driver.connect(f"file:{tmp_path}/new?mode=ro", uri=True)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    def test_a_file_with_something_in_it_stays(self, tmp_path: Path) -> None:
        (tmp_path / "old").write_bytes(b"x")
        make_empty(tmp_path / "old")
        assert (tmp_path / "old").read_bytes() == b"x"

    def test_where_none_can_be_made(self, tmp_path: Path) -> None:
        with pytest.raises(AuditUnavailable, match=r"nowhere\.db cannot be made: No such file"):
            make_empty(tmp_path / "no" / "nowhere.db")

    def test_a_vault_begins_in_an_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "vault.db").touch()
        database = SqliteDatabase(tmp_path / "vault.db")
        with closing(database.writer()) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert not beside(database.path, "-journal").exists()
