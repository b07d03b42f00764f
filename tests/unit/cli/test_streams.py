"""Standard streams that are closed, full, broken or of another encoding: one sentence, and no command pretends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fake_vault import KEY_ID, FakeVault, key
from tests.support.paths import SOURCE

FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")


def sh(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which `kvl` is this program."""
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; kvl() {{ "{sys.executable}" -P -m keyvault_lite "$@"; }}; {command}'],
        env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", ["--help", "--version", "key", "key --help", "master-key generate", "key ls"])
@pytest.mark.parametrize(
    ("output", "sentence"),
    [(">&-", "standard input or output is closed"), pytest.param(">/dev/full", "No space left", marks=FULL)],
)
def test_an_output_that_takes_nothing_is_said(vault: FakeVault, command: str, output: str, sentence: str) -> None:
    ran = sh(f"kvl {command} {output}")
    assert ran.returncode == 2
    assert sentence in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["--help", "key ls", "key ls -o json", "encrypt orders -"])
def test_a_reader_that_has_gone_ends_it_quietly(vault: FakeVault, command: str) -> None:
    ran = sh(f"kvl {command} </dev/null | true")
    assert (ran.returncode, ran.stderr) == (2, "")


@pytest.mark.parametrize("errors", ["2>&-", pytest.param("2>/dev/full", marks=FULL)])
def test_without_standard_error_the_exit_codes_stay(vault: FakeVault, errors: str) -> None:
    ran = sh(f"kvl key ls {errors}")
    assert (ran.returncode, "orders" in ran.stdout) == (0, True)
    assert sh(f"kvl key show absent {errors}").returncode == 1
    assert sh(f"kvl nonsense {errors}").returncode == 2


@pytest.mark.parametrize("command", ["encrypt", "decrypt", "sign"])
def test_a_closed_input_is_no_empty_one(vault: FakeVault, command: str) -> None:
    ran = sh(f"kvl {command} {KEY_ID} - <&-")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "kvl: standard input or output is closed\n"


def test_what_an_encoding_lacks_is_escaped(vault: FakeVault) -> None:
    vault.keys = [key(description="Größe ☃ 😀")]
    shown = sh("kvl key show orders", PYTHONIOENCODING="ascii")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert r"Gr\u00f6\u00dfe \u2603 \ud83d\ude00" in shown.stdout
    told = sh("kvl key show orders -o json", PYTHONIOENCODING="ascii")
    assert json.loads(told.stdout)["description"] == "Größe ☃ 😀"
    assert sh("kvl --help", PYTHONIOENCODING="ascii").returncode == 0


def test_an_interrupt_while_the_program_is_loaded_is_quiet() -> None:
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whoever runs the tests may have it ignored
        "import keyvault_lite.__main__ as program\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'keyvault_lite.cli.main': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt()); sys.argv = ['kvl', '--help']; program.main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")
