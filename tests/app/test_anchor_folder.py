"""What cannot be anchored is not begun, and what is found can be written down."""

from pathlib import Path

import pytest

from keyvault_lite import app
from keyvault_lite.crypto.root import MasterKey
from keyvault_lite.ledger.schema import FORMATS
from keyvault_lite.settings import InvalidSettings, Settings


def test_a_vault_does_not_begin_where_its_anchor_cannot_be(tmp_path: Path) -> None:
    key = tmp_path / "master.key"
    key.write_text(MasterKey.generate()[1])
    key.chmod(0o600)
    chosen = Settings(
        master_key_file=str(key),
        database_url=f"sqlite:///{tmp_path / 'vault.db'}",
        anchor=str(tmp_path / "elsewhere" / "anchor"),
    )
    with pytest.raises(InvalidSettings, match=r"The folder of the anchor, .*elsewhere, does not exist"):
        app.initialise(chosen)
    (tmp_path / "elsewhere").mkdir()
    assert app.initialise(chosen).token.startswith("kvl_")


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_the_names_of_tables_are_plain_text(name: str) -> None:
    """A finding names its table in JSON, whose encoder takes no subclass of str."""
    assert type(FORMATS[name].name) is str
