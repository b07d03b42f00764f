"""The script `kvl`: all commands in one tree, and the one place where an error becomes a sentence and an exit code."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from keyvault_lite import __version__
from keyvault_lite.cli import (
    anchor,
    audit,
    backup,
    cipher,
    key,
    master_key,
    migrate,
    quickstart,
    root,
    seal,
    service,
    signature,
    status,
    streams,
    vault,
    whoami,
    witness,
)
from keyvault_lite.cli.failure import Failure, exit_code, sentence
from keyvault_lite.cli.output import note
from keyvault_lite.client.errors import ClientError
from keyvault_lite.model.errors import KeyVaultError
from keyvault_lite.settings_file import VARIABLE as CONFIG

SETTINGS = """
**Commands that talk to a vault** read

- `KEYVAULT_ADDR`: its address (default `http://127.0.0.1:8000`)
- `KEYVAULT_TOKEN`, or `KEYVAULT_TOKEN_FILE`, a file that holds it; never an argument
- `KEYVAULT_CACERT`: certificates (PEM) to trust instead of the system's
- `KEYVAULT_ALLOW_PLAIN_HTTP`: `1` allows plain http on an address that is not loopback

**init, serve, verify, backup, repair, migrate, anchor, root, master-key, audit archive** and **audit read** work on
the vault itself and read, also from the settings file that `kvl --config` or `KEYVAULT_CONFIG` names,

- `KEYVAULT_ROOT`: the roots of trust that open the vault, or for a master key alone
- `KEYVAULT_MASTER_KEY_FILE` (preferred) or `KEYVAULT_MASTER_KEY` (base64, 32 bytes)
- `KEYVAULT_DATABASE_URL` (default `sqlite:///keyvault.db`; `postgresql://…`), `KEYVAULT_ALLOW_PLAIN_DATABASE`
- `KEYVAULT_MIGRATE_TO`, for `kvl migrate`: the database to move to
- `KEYVAULT_ANCHOR`, `KEYVAULT_ANCHOR_SYNC`, `KEYVAULT_TPM_ANCHOR`
- `KEYVAULT_WITNESS`, `KEYVAULT_WITNESS_KEY`, `KEYVAULT_WITNESS_MAX_AGE`, `KEYVAULT_WITNESS_CACERT`
- `KEYVAULT_HOST`, `KEYVAULT_PORT`, `KEYVAULT_TLS_CERT`, `KEYVAULT_TLS_KEY`, `KEYVAULT_ALLOW_PLAIN_HTTP`
- `KEYVAULT_AWS_ACCOUNT_ID`: the account in the ARNs that clients of AWS KMS see
- `KEYVAULT_LOG_LEVEL`, `KEYVAULT_MAX_CONNECTIONS`

**Exit codes:** 0 done, 1 refused or does not verify, 2 could not run, 130 interrupted.
"""


class Commands(TyperGroup):
    """A group whose commands end with a sentence instead of a traceback when something expected goes wrong."""

    def make_context(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401  (as typer has it)
        """Read the arguments; the help is printed here."""
        with explained():
            return super().make_context(*arguments, **named)

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]  # typer's context is the only one made
        """Run the command. Raises typer.Exit with the code that cli/failure.py documents."""
        with explained():
            return super().invoke(ctx)


@contextmanager
def explained() -> Iterator[None]:
    """Say in a sentence what is expected to go wrong. Raises typer.Exit with the code that cli/failure.py documents."""
    try:
        with streams.broken_pipes():
            yield
    except (Failure, ClientError) as failure:
        note(f"kvl: {sentence(failure)}")
        raise typer.Exit(exit_code(failure)) from None
    except KeyVaultError as error:
        note(f"kvl: {error.detail or error.code}")
        raise typer.Exit(2) from None
    except BrokenPipeError:  # the reader has closed the pipe
        raise typer.Exit(2) from None
    except OSError as error:
        note(f"kvl: {streams.explain(error)}")
        raise typer.Exit(2) from None


app = typer.Typer(
    cls=Commands,
    name="kvl",
    help="KeyVault Lite: keys stay in the vault, every use of them is on a tamper-evident record.",
    epilog=SETTINGS,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,  # they would print tokens
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001  (typer calls it so)
    if wanted:
        typer.echo(f"kvl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings of the vault (TOML), instead of KEYVAULT_CONFIG."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Options of kvl itself."""
    if config is not None:
        os.environ[CONFIG] = str(config)


app.command("quickstart")(quickstart.quickstart)
for module in (vault, seal, migrate, status, whoami, cipher, signature):
    app.add_typer(module.app)
app.add_typer(key.app, name="key")
app.add_typer(service.app, name="service")
app.add_typer(audit.app, name="audit")
app.add_typer(anchor.app, name="anchor")
app.add_typer(backup.app, name="backup")
app.add_typer(master_key.app, name="master-key")
app.add_typer(root.app, name="root")
app.add_typer(witness.app, name="witness")


def main() -> None:
    """Run `kvl` on the process's arguments; exits."""
    signal.signal(signal.SIGTERM, _terminate)
    streams.prepare()
    try:
        app(prog_name="kvl")
    except SystemExit as ended:
        unwritten = streams.finish()
        if unwritten is not None and not ended.code:
            note(f"kvl: {unwritten}")
            sys.exit(2)
        raise
    except OSError:  # of standard error, where a usage error is printed: nothing more can be reported
        sys.exit(2)


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    """End like an exception would: half-written files are removed, the demo's server is stopped."""
    sys.exit(128 + number)
