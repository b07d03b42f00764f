"""A process that dies while it begins a vault: whoever starts next begins it, or has it; nobody has to tidy up."""

import shutil
from pathlib import Path

import pytest

from keyvault_lite.crypto.root import MasterKey
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.verify.offline_check import NothingOpens
from keyvault_lite.model.errors import Conflict
from keyvault_lite.operator.initialise import initialise_vault, recover_admin
from keyvault_lite.operator.verify import verify_vault
from tests.suites.crash.child import Order
from tests.suites.crash.test_named_points import die, places
from tests.support.failpoints import BEGINNING, Point
from tests.support.harness import Harness, settings_for
from tests.support.processes import ProcessSpawner


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "begun"
    made.mkdir()
    return made


@places(BEGINNING)
def test_a_vault_is_begun_all_the_same(folder: Path, spawner: ProcessSpawner, point: Point, way: str) -> None:
    _, master = MasterKey.generate()
    die(spawner, Order("begin", str(folder), master, point=(point.target, point.when), way=way))
    settings = settings_for(folder, master)
    try:
        token = initialise_vault(settings).token
    except Conflict:
        # It was begun, and nobody was told the token: the master key is the authority for another.
        token = recover_admin(settings).token
    harness = Harness(settings, token)
    harness.key()
    harness.close()
    assert verify_vault(settings).findings == ()


def test_an_anchor_of_a_log_without_entries_confirms_no_other(
    harness: Harness, folder: Path, spawner: ProcessSpawner, tmp_path: Path
) -> None:
    _, master = MasterKey.generate()
    before = BEGINNING["before COMMIT"]
    die(spawner, Order("begin", str(folder), master, point=(before.target, before.when)))
    begun = folder / "vault.db.anchor"
    mark = FileAnchor(begun).peek()
    assert mark is not None
    assert mark.size == 0
    with pytest.raises(NothingOpens):
        verify_vault(settings_for(folder, master))  # there is nothing to judge, and nothing is wrong either
    harness.vault.close()
    anchor = harness.path.with_name("vault.db.anchor")
    shutil.copy(anchor, tmp_path / "kept")
    shutil.copy(begun, anchor)
    with pytest.raises(DamagedVault, match="belongs to another vault"):
        harness.open()
    shutil.copy(tmp_path / "kept", anchor)
    harness.open()
