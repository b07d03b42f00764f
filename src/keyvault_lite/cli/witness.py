"""`kvl witness …`: be the witness of other machines' logs."""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from keyvault_lite.audit.checkpoint import InvalidNote, parse_verifier_key
from keyvault_lite.cli.failure import CannotRun
from keyvault_lite.cli.output import note
from keyvault_lite.cli.vault import starting

app = typer.Typer(
    help="Be a witness: confirm what logs say of themselves, on another machine than theirs.", no_args_is_help=True
)

DEFAULT_PORT: Final = 8001
FolderOption = Annotated[
    Path, typer.Option("--dir", metavar="FOLDER", help="What it knows: its key and its memory. Never put back a copy.")
]


@app.command("init")
def init(
    *,
    folder: FolderOption = Path("witness"),
    name: Annotated[
        str, typer.Option("--name", help="Under which it signs; like a URL without scheme, never changed.")
    ] = "witness.local/1",
) -> None:
    """Make the folder and the key of a witness, and print the key by which others know it."""
    from keyvault_lite.server import serve_witness

    with starting():
        verifier_key = serve_witness.make_witness(folder, name)
    typer.echo(verifier_key)
    note("give this key to the vaults: KEYVAULT_WITNESS_KEY")


@app.command("key")
def key(*, folder: FolderOption = Path("witness")) -> None:
    """Print the key by which others know the witness: KEYVAULT_WITNESS_KEY of the vaults."""
    from keyvault_lite.server import serve_witness

    with starting():
        typer.echo(serve_witness.witness_verifier_key(folder))


@app.command("serve")
def serve(
    *,
    folder: FolderOption = Path("witness"),
    log: Annotated[
        list[str] | None,
        typer.Option(
            "--log", metavar="VKEY", help="The verifier key of a log to be trusted; several times for several."
        ),
    ] = None,
    logs: Annotated[
        Path | None,
        typer.Option("--logs", metavar="FILE", help="Such keys from a file, one a line; # begins a remark."),
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Instead of KEYVAULT_HOST.")] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Not KEYVAULT_PORT, which is the vault's.")] = (
        DEFAULT_PORT
    ),
) -> None:
    """Serve until stopped. The key is made first if there is none.

    A log's key is what its vault answers at /audit/public-key, as verifier_key. A new epoch of a log, after a restore,
    is another log.
    """
    from keyvault_lite import settings
    from keyvault_lite.server import serve_witness

    trusted = _trusted(log or (), logs)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with starting():
        chosen = settings.load(settings.Purpose.WITNESS, port=port, **({} if host is None else {"host": host}))
        serve_witness.serve_witness(chosen, folder, trusted)


def _trusted(given: Sequence[str], file: Path | None) -> list[str]:
    """The verifier keys of both sources. Raises CannotRun for a malformed one, with its source."""
    found = [("--log", text) for text in given]
    if file is not None:
        listed = _read_keys(file)
        if not listed:
            raise CannotRun(f"{file} names no log: a witness would trust none")
        found += listed
    for place, text in found:
        try:
            parse_verifier_key(text)
        except InvalidNote as error:
            raise CannotRun(f"{place}: {error.detail}") from None
    return [text for _, text in found]


def _read_keys(file: Path) -> list[tuple[str, str]]:
    """The keys in a file, each with its place."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    keys = [(f"{file}:{number}", line.partition("#")[0].strip()) for number, line in enumerate(lines, 1)]
    return [(place, text) for place, text in keys if text]
