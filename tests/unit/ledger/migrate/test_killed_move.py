"""A move that is killed, wherever it is: never are both databases served, and the same command leads out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keyvault_lite import app
from keyvault_lite.ledger.storage.upgrade import UNFINISHED
from keyvault_lite.model.errors import Conflict, KeyVaultError
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt, RevokeKey, VerifyAudit
from keyvault_lite.operator.migrate import MigrationResult, migrate_vault
from keyvault_lite.operator.verify import verify_vault
from keyvault_lite.settings import Settings
from tests.support.harness import Harness, create_vault, open_copy, settings_for
from tests.support.paths import ROOT, SOURCE
from tests.unit.ledger.migrate.killed_move import NEITHER_OPENS, PLACES, SOURCE_OPENS, TARGET_OPENS
from tests.unit.ledger.verify.test_tampering import tamper

COPIED = ("after the copy's COMMIT", "before the old anchor")


class Moving:
    """A vault at rest, and where it is to go."""

    def __init__(self, harness: Harness, chosen: Settings, to: str) -> None:
        self.admin = harness.admin
        self.here = chosen
        self.there = chosen.model_copy(update={"database_url": to})

    def die(self, place: str) -> None:
        assert self.here.master_key is not None
        given = (self.here.database_url, self.here.anchor or "-", self.here.master_key.get_secret_value())
        environment = {key: value for key, value in os.environ.items() if not key.startswith("KEYVAULT_")}
        ran = subprocess.run(
            [sys.executable, "-m", "tests.unit.ledger.migrate.killed_move", self.there.database_url, place],
            cwd=ROOT,
            env={**environment, "PYTHONPATH": os.pathsep.join((str(SOURCE), str(ROOT)))},
            input=" ".join(given),
            text=True,
            capture_output=True,
            check=False,
        )
        assert ran.returncode == 9, ran.stderr

    def again(self) -> MigrationResult:
        return migrate_vault(self.here, self.there.database_url)

    def opening(self) -> tuple[bool, bool]:
        """Whether the source opens, and whether the target does."""
        return opens(self.here), opens(self.there)

    def open(self, chosen: Settings) -> Harness:
        return Harness(chosen, self.admin)

    def check_moved(self) -> None:
        """The target alone is the vault, whole, and the move is one entry of it."""
        assert self.opening() == (False, True)
        harness = self.open(self.there)
        assert [one.draft.action for one in harness.log()].count(Action.MIGRATE) == 1
        assert harness.ask(VerifyAudit()).findings == ()
        harness.close()
        assert verify_vault(self.there).valid


def opens(chosen: Settings) -> bool:
    try:
        app.open_vault(chosen).close()
    except KeyVaultError:
        return False
    return True


@pytest.fixture(params=[False, True], ids=["an anchor each", "one anchor"])
def moving(template: tuple[Path, str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Moving:
    folder, master, token = template
    harness = open_copy(folder, tmp_path / "vault", master, token)
    harness.key("orders")
    harness.ask(Encrypt(KeyRef("orders"), plaintext=b"x"))
    harness.close()
    chosen = harness.settings
    if request.param:
        named = Path(f"{harness.path}.anchor").rename(tmp_path / "own.anchor")
        chosen = chosen.model_copy(update={"anchor": str(named)})
    return Moving(harness, chosen, f"sqlite:///{tmp_path}/new.db")


@pytest.mark.parametrize("place", PLACES)
def test_never_are_both_served_and_the_same_command_leads_out(moving: Moving, place: str) -> None:
    moving.die(place)
    if moving.here.anchor and place == "before the new anchor":
        place = "after the last COMMIT"  # there is no other to be told
    expected = {**dict.fromkeys(SOURCE_OPENS, (True, False)), **dict.fromkeys(NEITHER_OPENS, (False, False))}
    assert moving.opening() == expected.get(place, (False, True))
    if place in TARGET_OPENS:
        with pytest.raises(Conflict, match=r"let KEYVAULT_DATABASE_URL name .*new\.db"):
            moving.again()
    else:
        moved = moving.again()
        assert moved.entry == moved.entries + 1
    moving.check_moved()


@pytest.mark.parametrize("place", COPIED)
def test_what_happened_in_the_source_since_goes_along(moving: Moving, place: str) -> None:
    """A key that was revoked there is revoked, and the copy from before is no vault that anybody gets to use."""
    moving.die(place)
    source = moving.open(moving.here)
    source.ask(RevokeKey(KeyRef("orders")))
    before = source.log()
    source.close()
    moving.again()
    moving.check_moved()
    target = moving.open(moving.there)
    assert target.log()[: len(before)] == before
    with pytest.raises(KeyVaultError):
        target.ask(Encrypt(KeyRef("orders"), plaintext=b"x"))
    target.close()


@pytest.mark.parametrize("place", [COPIED[0], NEITHER_OPENS[0]])
def test_a_copy_that_was_changed_since_is_not_gone_on_with(moving: Moving, place: str) -> None:
    moving.die(place)
    path = Path(moving.there.database_url.removeprefix("sqlite:///"))
    tamper(path, "UPDATE services SET role = 'AUDITOR'")
    if place in NEITHER_OPENS:
        # The source lacks the entry that the anchor knows: what to do is the operator's to say.
        with pytest.raises(KeyVaultError, match="it was put back or replaced"):
            moving.again()
        assert moving.opening() == (False, False)
    else:
        moving.again()
        moving.check_moved()


def test_what_it_has_left_is_named(moving: Moving) -> None:
    moving.die("after the copy's COMMIT")
    with pytest.raises(Conflict, match=UNFINISHED):
        app.open_vault(moving.there)
    assert [one.problem for one in verify_vault(moving.there.model_copy(update={"anchor": "off"})).findings] == [
        UNFINISHED
    ]


def test_what_the_move_of_another_vault_has_left_stays(moving: Moving, tmp_path: Path) -> None:
    moving.die("after the old anchor")
    (tmp_path / "other").mkdir()
    master, _ = create_vault(tmp_path / "other")
    other = settings_for(tmp_path / "other", master)
    with pytest.raises(Conflict, match="is not empty"):
        migrate_vault(other, moving.there.database_url)
    moving.again()
    moving.check_moved()
