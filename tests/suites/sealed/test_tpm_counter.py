"""A vault whose anchor is counted by a TPM: everything of it put back together is refused."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from keyvault_lite.app import open_vault
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.verify.trust import AcceptedHead
from keyvault_lite.model.errors import Conflict, IntegrityViolation, OutcomeUnknown
from keyvault_lite.operator.anchor import trust_anchor
from keyvault_lite.operator.verify import verify_vault
from keyvault_lite.settings import InvalidSettings
from tests.support.devices import SoftwareTpm, needs_tpm
from tests.support.harness import Harness

pytestmark = needs_tpm


@pytest.fixture
def chip(tmp_path: Path) -> SoftwareTpm:
    return SoftwareTpm(tmp_path / "chip")


@pytest.fixture
def counted(harness: Harness, chip: SoftwareTpm) -> Iterator[Harness]:
    """A vault that existed before, and begins to count."""
    harness.close()
    with chip.running() as device:
        harness.settings = harness.settings.model_copy(update={"tpm_anchor": device})
        with pytest.raises(DamagedVault, match="is new"):
            harness.open()
        done = trust_anchor(harness.settings)
        assert done.lost is None
        harness.open()
        yield harness


def copied(harness: Harness, to: Path) -> Path:
    harness.close()
    shutil.copytree(harness.path.parent, to)
    harness.open()
    return to


def put_back(harness: Harness, image: Path) -> None:
    harness.close()
    for file in harness.path.parent.iterdir():
        if file.is_file():
            file.unlink()
    for file in image.iterdir():
        if file.is_file():
            shutil.copy2(file, harness.path.parent / file.name)


def test_what_is_put_back_together_is_refused_until_the_operator_accepts_it(
    counted: Harness, tmp_path_factory: pytest.TempPathFactory
) -> None:
    image = copied(counted, tmp_path_factory.mktemp("image") / "vault")
    counted.key("later")
    put_back(counted, image)
    with pytest.raises(DamagedVault, match="put back together"):
        counted.open()
    found = verify_vault(counted.settings)
    assert [one.table for one in found.findings] == ["counter"]
    with pytest.raises(IntegrityViolation):
        trust_anchor(counted.settings)
    with closing(open_vault(counted.settings, anchored=False)) as vault:
        mark = vault.ledger.mark()
    done = trust_anchor(counted.settings, AcceptedHead(mark.size, mark.root))
    assert done.epoch == 1
    assert "TPM counter went from" in str(done.lost)
    counted.open()
    assert verify_vault(counted.settings).valid


def test_a_restart_is_no_rollback(counted: Harness) -> None:
    for name in ("one", "two"):
        counted.key(name)
        counted.reopen()
    assert verify_vault(counted.settings).valid
    with pytest.raises(Conflict, match="nothing to trust"):
        trust_anchor(counted.settings)


def test_without_the_chip_nothing_is_opened(counted: Harness) -> None:
    counted.close()
    with pytest.raises(OutcomeUnknown, match="TPM"):
        open_vault(counted.settings.model_copy(update={"tpm_anchor": "swtpm:/nonexistent"}))
    with pytest.raises(DamagedVault, match="KEYVAULT_TPM_ANCHOR is not set"):
        open_vault(counted.settings.model_copy(update={"tpm_anchor": None}))
    counted.open()


def test_another_chip_begins_again_on_record(counted: Harness, tmp_path: Path) -> None:
    counted.close()
    with SoftwareTpm(tmp_path / "other").running() as device:
        counted.settings = counted.settings.model_copy(update={"tpm_anchor": device})
        with pytest.raises(DamagedVault, match="is gone"):
            counted.open()
        assert trust_anchor(counted.settings).lost is None
        counted.open()
        counted.close()
    counted.settings = counted.settings.model_copy(update={"tpm_anchor": None})
    trust_anchor(counted.settings)
    counted.open()


def test_the_setting_needs_a_file(harness: Harness) -> None:
    harness.close()
    with pytest.raises(InvalidSettings, match="KEYVAULT_TPM_ANCHOR needs a file"):
        open_vault(harness.settings.model_copy(update={"tpm_anchor": "/dev/tpmrm0", "anchor": "off"}))
    harness.open()
