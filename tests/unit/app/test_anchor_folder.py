"""What cannot be anchored is not begun, and what is found can be written down."""

from pathlib import Path

import pytest

from keyvault_lite import app
from keyvault_lite.crypto.root import MasterKey
from keyvault_lite.ledger.storage.schema import FORMATS
from keyvault_lite.model.errors import AuditUnavailable, InvalidRequest, KeyVaultError
from keyvault_lite.operator.initialise import initialise_vault
from keyvault_lite.settings import InvalidSettings, Settings, load


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
        initialise_vault(chosen)
    (tmp_path / "elsewhere").mkdir()
    assert initialise_vault(chosen).token.startswith("kvl_")


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_the_names_of_tables_are_plain_text(name: str) -> None:
    """A finding names its table in JSON, whose encoder takes no subclass of str."""
    assert type(FORMATS[name].name) is str


def settings_of(url: str, anchor: str | None = None) -> Settings:
    return load(master_key=MasterKey.generate()[1], database_url=url, anchor=anchor)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("absent/vault.db", r"the folder of the database, .*/absent, does not exist"),
        ("text/vault.db", r"the folder of the database, .*/text, is not a folder"),
        ("folder", r"the database .*/folder is a folder"),
        ("text", r".*/text is no SQLite database"),
    ],
)
def test_where_no_database_can_be_is_said_and_left_as_it_is(tmp_path: Path, path: str, sentence: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("a file of somebody's")
    chosen = settings_of(f"sqlite:///{tmp_path / path}")
    for start in (initialise_vault, app.open_vault):
        with pytest.raises(KeyVaultError, match=sentence):
            start(chosen)
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["folder", "text"]


@pytest.mark.parametrize("url", ["sqlite:///a.db?mode=ro", "sqlite:///a.db?", "sqlite:///a#b.db", "sqlite:///:memory:"])
def test_a_url_says_nothing_that_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidRequest, match=r"no query|:memory:"):
        initialise_vault(settings_of(url))
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "vault.db.init").mkdir()
    with pytest.raises(AuditUnavailable, match=r"the lock file .*/vault\.db\.init cannot be used: Is a directory"):
        initialise_vault(settings_of(f"sqlite:///{tmp_path / 'vault.db'}"))


def test_the_folder_of_an_anchor_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a file of somebody's")
    chosen = settings_of(f"sqlite:///{tmp_path / 'vault.db'}", str(tmp_path / "text" / "anchor"))
    with pytest.raises(InvalidSettings, match=r"The folder of the anchor, .*/text, is not a folder"):
        initialise_vault(chosen)
