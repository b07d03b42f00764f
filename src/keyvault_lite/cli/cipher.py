"""`kvl encrypt`, `decrypt` and `rewrap`: files of any size, in the format of sealed_file.py."""

from pathlib import Path
from typing import Annotated

import typer

from keyvault_lite.cli.arguments import ContextOption, KeyArgument, mapping
from keyvault_lite.cli.environment import connect
from keyvault_lite.cli.files import ORDINARY, PRIVATE, InputArgument, OutOption, reading, writing
from keyvault_lite.cli.output import note
from keyvault_lite.cli.progress import progress
from keyvault_lite.client import sealed_file

app = typer.Typer()


@app.command("encrypt")
def encrypt(
    key: KeyArgument, file: InputArgument = "-", *, out: OutOption = None, context: ContextOption = None
) -> None:
    """Encrypt a file of any size with the key's ACTIVE version.

    The vault encrypts it in pieces; kvl decrypt notices if one is changed, moved or missing.
    """
    values = mapping(context, "--context")
    with (
        connect() as client,
        reading(file) as (source, size),
        writing(out) as target,
        progress("encrypting", size) as advance,
    ):
        sealed_file.seal(client, key, source, target, context=values, advance=advance)


@app.command("decrypt")
def decrypt(
    key: KeyArgument, file: InputArgument = "-", *, out: OutOption = None, context: ContextOption = None
) -> None:
    """Decrypt a file that kvl encrypt made.

    Nothing is written before all of it has been checked; a new file is readable by you alone.
    """
    values = mapping(context, "--context")
    with (
        connect() as client,
        reading(file) as (source, size),
        writing(out, mode=PRIVATE, binary=False) as target,
        progress("decrypting", size) as advance,
    ):
        sealed_file.unseal(client, key, source, target, context=values, advance=advance)


@app.command("rewrap")
def rewrap(
    key: KeyArgument,
    file: Annotated[str, typer.Argument(metavar="FILE", help="An encrypted file; - is standard input.")],
    *,
    out: OutOption = None,
    context: ContextOption = None,
) -> None:
    """Bring an encrypted file under the key's ACTIVE version, in place unless -O says otherwise.

    Owner, group and mode stay. Only the wrapped keys in it change; its content is neither decrypted nor sent.
    """
    values = mapping(context, "--context")
    in_place = out is None and file != "-"
    like = Path(file).stat() if in_place else None
    with (
        connect() as client,
        reading(file) as (source, size),
        writing(file if in_place else out, mode=PRIVATE if in_place else ORDINARY, like=like) as target,
        progress("rewrapping", size) as advance,
    ):
        version = sealed_file.rewrap(client, key, source, target, context=values, advance=advance)
    note(f"now under version {version}")
