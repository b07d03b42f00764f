import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from typer.testing import CliRunner, Result

from keyvault_lite.cli.main import app
from keyvault_lite.client import api
from tests.support.fake_vault import TOKEN, FakeVault


@dataclass
class Ran:
    """What a command printed and how it ended."""

    code: int
    out: str
    raw: bytes
    err: str


Kvl = Callable[..., Ran]


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVault]:
    monkeypatch.setattr(api, "PAUSE", 0.001)
    with FakeVault().served() as served:
        monkeypatch.setenv("KEYVAULT_ADDR", served.address)
        monkeypatch.setenv("KEYVAULT_TOKEN", TOKEN)
        yield served


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests, and a wide colourless screen."""
    for name in ("ADDR", "TOKEN", "TOKEN_FILE", "CACERT", "ALLOW_PLAIN_HTTP", "MASTER_KEY", "MASTER_KEY_FILE"):
        monkeypatch.delenv(f"KEYVAULT_{name}", raising=False)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def kvl() -> Kvl:
    """Run `kvl` in this process."""

    def run(*arguments: str, stdin: bytes = b"") -> Ran:
        result: Result = CliRunner().invoke(app, list(arguments), input=stdin, prog_name="kvl")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert TOKEN not in result.output, "a token was printed"
        return Ran(result.exit_code, result.stdout, result.stdout_bytes, result.stderr)

    return run


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `kvl` think that a person answers."""
    for module in ("keyvault_lite.cli.output",):
        monkeypatch.setattr(sys.modules[module], "interactive", lambda: True)
