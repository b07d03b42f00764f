"""`kvl master-key …`: make the key that opens the vault, and replace it."""

import base64
import secrets
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from keyvault_lite.cli.failure import CannotRun
from keyvault_lite.cli.files import write_new_secret
from keyvault_lite.cli.output import note
from keyvault_lite.cli.vault import starting

app = typer.Typer(help="Make and replace the key that opens the vault.", no_args_is_help=True)

MASTER_KEY_BYTES: Final = 32
MAX_FILE: Final = 1024


@app.command("generate")
def generate(
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-O", metavar="FILE", help="A new file, readable by you alone.")
    ] = None,
    stdout: Annotated[bool, typer.Option("--stdout", help="Print it even on a terminal.")] = False,
) -> None:
    """Make a master key: 32 random bytes in base64. Keep a copy of it apart from the vault's backups."""
    if out is None and sys.stdout.isatty() and not stdout:
        raise CannotRun("name a file with --out, or say --stdout to have the key on the terminal")
    text = base64.b64encode(secrets.token_bytes(MASTER_KEY_BYTES)).decode() + "\n"
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_new_secret(out, text)
        note(f"the master key is in {out}: without it nothing in the vault can be read")


@app.command("rotate")
def rotate(
    *,
    new_key_file: Annotated[
        Path, typer.Option("--new-key-file", metavar="FILE", help="What kvl master-key generate wrote.")
    ],
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="Let the old key open it too, until all servers have the new one.")
    ] = False,
) -> None:
    """Seal the vault under another master key, instead of the one that the settings name.

    No key in it changes. Afterwards let the settings name the new one; old backups still need the old one.
    """
    from keyvault_lite import settings
    from keyvault_lite.operator.rotate_master_key import rotate_master_key

    with new_key_file.open("rb") as stream:
        text = stream.read(MAX_FILE).decode("ascii", "replace").removesuffix("\n")
    with starting():
        rotate_master_key(settings.load(), new_key=text, keep_old=keep_old)
    note(f"the vault opens with the key in {new_key_file} now: let KEYVAULT_MASTER_KEY_FILE name it")
