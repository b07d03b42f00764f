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
from tests.crash.child import Order
from tests.crash.nursery import Nursery
from tests.crash.points import BEGINNING, Point
from tests.crash.test_named_points import die, places
from tests.house import House, chosen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "begun"
    made.mkdir()
    return made


@places(BEGINNING)
def test_a_vault_is_begun_all_the_same(folder: Path, nursery: Nursery, point: Point, way: str) -> None:
    _, master = MasterKey.generate()
    die(nursery, Order("begin", str(folder), master, point=(point.target, point.moment), way=way))
    settings = chosen(folder, master)
    try:
        token = initialise_vault(settings).token
    except Conflict:
        # It was begun, and nobody was told the token: the master key is the authority for another.
        token = recover_admin(settings).token
    house = House(settings, token)
    house.key()
    house.close()
    assert verify_vault(settings).findings == ()


def test_an_anchor_of_a_log_without_entries_confirms_no_other(
    house: House, folder: Path, nursery: Nursery, tmp_path: Path
) -> None:
    _, master = MasterKey.generate()
    before = BEGINNING["before COMMIT"]
    die(nursery, Order("begin", str(folder), master, point=(before.target, before.moment)))
    begun = folder / "vault.db.anchor"
    mark = FileAnchor(begun).peek()
    assert mark is not None
    assert mark.size == 0
    with pytest.raises(NothingOpens):
        verify_vault(chosen(folder, master))  # there is nothing to judge, and nothing is wrong either
    house.vault.close()
    anchor = house.path.with_name("vault.db.anchor")
    shutil.copy(anchor, tmp_path / "kept")
    shutil.copy(begun, anchor)
    with pytest.raises(DamagedVault, match="belongs to another vault"):
        house.open()
    shutil.copy(tmp_path / "kept", anchor)
    house.open()
