"""`kvl witness …`: be the witness of other machines' logs."""

import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import typer

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
    from keyvault_lite import witnessing

    with starting():
        verifier_key = witnessing.make_witness(folder, name)
    typer.echo(verifier_key)
    note("give this key to the vaults: KEYVAULT_WITNESS_KEY")


@app.command("key")
def key(*, folder: FolderOption = Path("witness")) -> None:
    """Print the key by which others know the witness: KEYVAULT_WITNESS_KEY of the vaults."""
    from keyvault_lite import witnessing

    with starting():
        typer.echo(witnessing.witness_verifier_key(folder))


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
    from keyvault_lite import settings, witnessing

    trusted = [*(log or ()), *(_read_keys(logs.read_text(encoding="utf-8").splitlines()) if logs else ())]
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with starting():
        chosen = settings.load(port=port, **({} if host is None else {"host": host}))
        if not (folder / "key").exists():
            note(f"new witness: KEYVAULT_WITNESS_KEY={witnessing.make_witness(folder, 'witness.local/1')}")
        witnessing.serve_witness(chosen, folder, trusted)


def _read_keys(lines: Iterable[str]) -> list[str]:
    return [text for line in lines if (text := line.partition("#")[0].strip())]
