"""`kvl` itself: help, version, completion, interruption, and how quickly it is there."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

import keyvault_lite
from keyvault_lite.cli.main import app
from keyvault_lite.client import api
from keyvault_lite.settings import Settings
from tests.support.fake_vault import KEY_ID, TOKEN, FakeVault
from tests.support.paths import ROOT, SOURCE
from tests.unit.cli.conftest import Kvl

API = (ROOT / "docs" / "cli.md").read_text()
SETTINGS = (
    "ADDR",
    "TOKEN",
    "TOKEN_FILE",
    "CACERT",
    "ALLOW_PLAIN_HTTP",
    "MASTER_KEY",
    "MASTER_KEY_FILE",
    "DATABASE_URL",
    "ANCHOR",
    "ANCHOR_SYNC",
    "WITNESS",
    "WITNESS_KEY",
    "WITNESS_MAX_AGE",
    "WITNESS_CACERT",
    "ROOT",
    "HOST",
    "PORT",
    "TLS_CERT",
    "TLS_KEY",
    "LOG_LEVEL",
)
VERBS = {
    "": "quickstart init serve verify repair migrate unseal seal status whoami encrypt decrypt rewrap sign "
    "verify-signature",
    "key": "create ls show versions public-key update rotate revoke disable enable destroy restore",
    "service": "create ls show update grant revoke token activate deactivate aws-credentials",
    "audit": "ls tail verify receipt public-key export archive read",
    "anchor": "show trust",
    "backup": "make verify",
    "master-key": "generate rotate",
    "root": "ls create add reseal rm check passphrase",
    "witness": "init key serve",
}
COMMANDS = [f"{noun} {verb}".strip() for noun, verbs in VERBS.items() for verb in verbs.split()]


PAGES = "".join(
    page.read_text() for page in [SOURCE.parent / "README.md", *sorted((SOURCE.parent / "docs").glob("*.md"))]
)


def tree() -> dict[str, list[str]]:
    """Every command there is, and its long options."""
    found: dict[str, list[str]] = {}
    waiting = [("", typer.main.get_command(app))]
    while waiting:
        name, command = waiting.pop()
        below = getattr(command, "commands", None)
        if below is None:
            found[name] = [one for given in command.params for one in given.opts if one.startswith("--")]
        else:
            waiting += [(f"{name} {verb}".strip(), one) for verb, one in below.items()]
    return found


def test_every_command_and_option_is_on_a_page() -> None:
    there = tree()
    assert there.keys() == set(COMMANDS)
    for command, options in there.items():
        noun, _, verb = command.rpartition(" ")
        assert re.search(
            rf"`kvl {noun}[^`]*\b{verb}\b".replace(" [", "[") if noun else rf"`kvl [^`]*\b{verb}\b", API
        ), command
        assert [one for one in options if one not in PAGES] == [], command


def test_help_names_what_works_on_the_vault_itself(kvl: Kvl) -> None:
    [said] = re.findall(
        r"((?:[a-z-]+,? )+and audit read) work on the vault itself", " ".join(kvl("--help").out.split())
    )
    assert {"init", "serve", "verify", "repair", "migrate", "anchor", "backup", "master-key"} <= set(
        re.findall("[a-z-]+", said)
    )


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_every_setting_and_the_exit_codes(kvl: Kvl) -> None:
    out = kvl("--help").out
    for setting in SETTINGS:
        assert re.search(rf"\bKEYVAULT_{setting}\b", out), setting
    for field in Settings.model_fields:
        assert f"KEYVAULT_{field.upper()}" in out, field
    assert "Exit codes" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_every_option(kvl: Kvl, command: str) -> None:
    ran = kvl(*command.split(), "--help")
    assert ran.code == 0
    assert f"kvl {command}" in ran.out
    for line in ran.out.splitlines():
        if option := re.match(r"│ \*?\s*(--\S+)", line):
            assert re.search(r"[a-z]{2,}", line.split(option[1], 1)[1]), line


def test_no_option_takes_a_secret(kvl: Kvl) -> None:
    for command in COMMANDS:
        options = re.findall(r"--([a-z-]+)", kvl(*command.split(), "--help").out)
        assert not {"token", "password", "master-key", "plaintext", "secret"} & set(options), command


def test_version(kvl: Kvl) -> None:
    assert kvl("--version").out == f"kvl {keyvault_lite.__version__}\n"


@pytest.mark.parametrize(("words", "offered"), [("kvl key ro", "rotate"), ("kvl key create --type E", "EC\nED25519")])
def test_the_shell_completes(words: str, offered: str) -> None:
    cursor = str(len(words.split()) - 1)
    ran = python("-m", "keyvault_lite", _KVL_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=cursor)
    assert ran.stdout.split() == offered.split()


@pytest.mark.parametrize(
    "arguments",
    [("nonsense",), ("key",), ("key", "show"), ("key", "ls", "-o", "yaml"), ("key", "create", "--type", "DES")],
)
def test_wrong_usage_is_exit_code_2(kvl: Kvl, arguments: tuple[str, ...]) -> None:
    assert kvl(*arguments).code == 2


def test_ctrl_c_is_quiet(kvl: Kvl, vault: FakeVault, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_arguments: object, **_more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("keyvault_lite.cli.audit._print_line", interrupt)
    ran = kvl("audit", "tail", "-f")
    assert ran.code == 130
    assert "Traceback" not in ran.err


def test_a_terminated_command_leaves_no_half_written_file(vault: FakeVault, tmp_path: Path) -> None:
    read, write = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "keyvault_lite", "encrypt", KEY_ID, "-", "-O", "sealed"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdin=read,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(read)
        deadline = time.monotonic() + 30
        while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert list(tmp_path.iterdir())
        process.send_signal(signal.SIGTERM)
        _out, err = process.communicate(timeout=30)
        os.close(write)
    assert process.returncode == 128 + signal.SIGTERM
    assert b"Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_an_unexpected_error_shows_no_values(vault: FakeVault, tmp_path: Path) -> None:
    code = (
        "import sys; from keyvault_lite.cli import main; from keyvault_lite.client import api\n"
        "def broken(*a, **k):\n"
        "    raise ValueError('a defect')\n"
        "api._read = broken; sys.argv = ['kvl', 'key', 'ls']; main.main()"
    )
    ran = python("-c", code)
    assert ran.returncode == 1
    assert "a defect" in ran.stderr
    assert TOKEN not in ran.stdout + ran.stderr


def test_help_does_not_load_what_it_does_not_need() -> None:
    code = (
        "import sys; from keyvault_lite.cli.main import app\n"
        "heavy = {'httpx2', 'cryptography', 'sqlalchemy', 'fastapi', 'pydantic_settings', 'ssl', 'rich.progress'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert python("-c", code).stdout == "[]\n"


def test_the_module_runs_as_kvl() -> None:
    ran = python("-m", "keyvault_lite", "--version")
    assert (ran.returncode, ran.stdout) == (0, f"kvl {keyvault_lite.__version__}\n")


def test_locals_are_never_shown() -> None:
    assert app.pretty_exceptions_show_locals is False


def test_docs_name_every_command_and_client_setting() -> None:
    for command in COMMANDS:
        assert re.search(rf"\b{command.split()[-1]}\b", API), command
    for setting in SETTINGS[:5]:
        assert f"`KEYVAULT_{setting}`" in API
    assert api.PAGE == 1000
