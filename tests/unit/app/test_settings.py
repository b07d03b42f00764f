"""Settings: where they come from, which wins, and what is said of wrong ones."""

import json
import os
from pathlib import Path

import pytest

from keyvault_lite import app, settings
from keyvault_lite.crypto.root import MasterKey
from keyvault_lite.observe import configure_logs, logger
from keyvault_lite.operator.initialise import initialise_vault
from keyvault_lite.server import serve_witness
from keyvault_lite.settings import InvalidSettings, Settings
from tests.support.witness import VKEY


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("KEYVAULT_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults() -> None:
    found = settings.load()
    assert (found.host, found.port, found.database_url) == ("127.0.0.1", 8000, "sqlite:///keyvault.db")
    assert (found.master_key, found.master_key_file, found.allow_plain_http) == (None, None, False)
    assert (found.anchor, found.anchor_sync, found.log_level) == (None, "second", "info")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings file that is named."""
    path = tmp_path / "etc" / "vault.toml"
    path.parent.mkdir()
    monkeypatch.setenv("KEYVAULT_CONFIG", str(path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return path


def test_the_command_line_wins_then_the_environment_then_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('port = 1\nhost = "file"\nlog_level = "debug"\n')
    assert settings.load().port == 1
    monkeypatch.setenv("KEYVAULT_PORT", "2")
    monkeypatch.setenv("KEYVAULT_HOST", "")
    found = settings.load(log_level="error")
    assert (found.port, found.host, found.log_level) == (2, "file", "error")


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "many"), ("PORT", "70000"), ("LOG_LEVEL", "loud"), ("ALLOW_PLAIN_HTTP", "perhaps"), ("ANCHOR_SYNC", "x")],
)
def test_a_wrong_setting_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"KEYVAULT_{name}", value)
    with pytest.raises(InvalidSettings) as refused:
        settings.load()
    assert f"KEYVAULT_{name}" in str(refused.value)
    assert value not in str(refused.value)
    assert refused.value.__suppress_context__, "the library's message holds the value"


@pytest.mark.parametrize("text", ["not toml", "port = [", "\xff"])
def test_a_file_that_is_no_settings(file: Path, text: str) -> None:
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidSettings, match=r"vault\.toml is not TOML"):
        settings.load()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('anchr = "a"', "anchr is not a setting"),
        ('KEYVAULT_ANCHOR = "a"', "KEYVAULT_ANCHOR is written anchor"),
        ('Anchor = "a"', "Anchor is written anchor"),
        ('[vault]\nanchor = "a"', "[vault] is a table"),
        ('port = 1\n[anchor]\nx = "a"', "KEYVAULT_ANCHOR"),
        ('master_key_fil = "c2VjcmV0"', "master_key_fil is not a setting"),
    ],
)
def test_what_is_no_setting_in_the_file_is_named(file: Path, text: str, sentence: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidSettings) as refused:
        settings.load()
    assert sentence in str(refused.value)
    assert "c2VjcmV0" not in str(refused.value)


def test_a_folder_in_place_of_the_file(file: Path) -> None:
    file.mkdir()
    with pytest.raises(InvalidSettings, match=r"vault\.toml is not a regular file"):
        settings.load()


def test_a_variable_that_is_no_setting_is_warned_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PORT", "TOKEN", "ADDR", "TOKEN_FILE", "CACERT", "DATABSE_URL", "ANCHR", "TEST_PG_URL"):
        monkeypatch.setenv(f"KEYVAULT_{name}", "1")
    assert settings.load().port == 1
    assert capsys.readouterr().err.splitlines() == [
        "KeyVault Lite: KEYVAULT_ANCHR is not a setting and is ignored; did you mean KEYVAULT_ANCHOR?",
        "KeyVault Lite: KEYVAULT_DATABSE_URL is not a setting and is ignored; did you mean KEYVAULT_DATABASE_URL?",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read(file: Path) -> None:  # pragma: no cover
    file.write_text("port = 1")
    file.chmod(0)
    with pytest.raises(InvalidSettings, match="Permission denied"):
        settings.load()


def test_the_master_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYVAULT_MASTER_KEY", "c2VjcmV0")
    found = settings.load()
    assert "c2VjcmV0" not in repr(found)
    assert "c2VjcmV0" not in str(found)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings.load().port = 1  # type: ignore[misc]


def test_every_setting_has_its_name() -> None:
    assert {"master_key", "master_key_file", "database_url", "anchor", "anchor_sync", "host", "port"} <= set(
        Settings.model_fields
    )


def test_logs_are_lines_of_json_without_messages_of_exceptions(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("debug")
    log = logger("test")
    try:
        int("a secret")
    except ValueError:
        log.exception("it failed", extra={"operation": "encrypt", "other": "a secret"})
    log.debug("a line\nbreak %d", 1)
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["message"], first["exception"], first["operation"]) == ("it failed", "ValueError", "encrypt")
    assert "a secret" not in json.dumps(first)
    assert first["at"][-1].startswith(__file__)
    assert (second["level"], second["message"]) == ("debug", "a line\nbreak 1")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"witness_key": "w"}, "KEYVAULT_WITNESS_KEY is set, but no witness is named"),
        ({"witness_cacert": "w"}, "KEYVAULT_WITNESS_CACERT is set"),
        ({"witness_max_age": 5}, "KEYVAULT_WITNESS_MAX_AGE is set"),
        ({"witness_key": "w", "witness": "https://w"}, "KEYVAULT_WITNESS_KEY: not a verifier key"),
        ({"witness_key": VKEY, "anchor": "https://w"}, "KEYVAULT_WITNESS_KEY: this is the key of a log"),
    ],
)
def test_settings_of_a_witness_go_together(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidSettings, match=sentence):
        settings.check_witness(settings.load(**given))


def test_an_address_that_is_none_is_named_by_its_setting(tmp_path: Path) -> None:
    key = serve_witness.make_witness(tmp_path / "w", "w.example/1")
    master = MasterKey.generate()[1]
    initialise_vault(settings.load(master_key=master))
    for name in ("witness", "anchor"):
        chosen = settings.load(master_key=master, witness_key=key, **{name: "http://w.example"})
        with pytest.raises(InvalidSettings, match=f"KEYVAULT_{name.upper()}: a witness on another machine"):
            app.open_vault(chosen)


def test_an_ipv6_address_in_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.load(host="[::1]").host == "::1"
    monkeypatch.setenv("KEYVAULT_HOST", "[::]")
    assert settings.load().host == "::"
