"""`kvl backup FILE`: a copy of the vault beside its server, and `kvl backup verify FILE`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from keyvault_lite.cli.failure import CannotRun
from keyvault_lite.cli.output import Format, OutputOption, note
from keyvault_lite.cli.progress import counting
from keyvault_lite.cli.vault import ArchiveOption, folder_of, show_verification, starting

MAKE = "make"


class Backups(TyperGroup):
    """A group that takes a file where a command is missing: `kvl backup FILE` is `kvl backup make FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  (typer's own context)
        """Put the command in front where there is none."""
        if args and args[0] not in {*self.commands, "--help"}:
            args = [MAKE, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=Backups,
    help="Copy an SQLite vault beside its server: `kvl backup FILE`. `kvl backup verify FILE` checks a copy.",
    no_args_is_help=True,
)
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]
PublicOption = Annotated[bool, typer.Option("--public", help="Without the master key: what everybody can check.")]


@app.command(MAKE)
def make(file: FileArgument, *, public: PublicOption = False, output: OutputOption = Format.TABLE) -> None:
    """Copy the vault into a new private file, whole and checked, or not at all. A server may run.

    The copy has to verify and to extend the anchor, which is not copied. For SQLite; PostgreSQL has pg_dump.
    Exit code 0 done, 1 tampered with (no file is made), 2 could not run.
    """
    from keyvault_lite import settings
    from keyvault_lite.operator.backup import back_up_vault

    with starting(), counting("entries") as progress:
        found = back_up_vault(settings.load(settings.Purpose.READ), file, public=public, progress=progress)
    if not found.valid:
        note(f"{file} was not made")
    show_verification(found, output)
    note(f"the backup is {file}: keep the master key elsewhere, and leave the anchor out")


@app.command("verify")
def verify(
    file: FileArgument,
    *,
    public: PublicOption = False,
    key: Annotated[
        str | None, typer.Option("--key", metavar="VKEY", help="The log's verifier key, instead of the anchor's.")
    ] = None,
    archive: ArchiveOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Check a backup offline, and say what a restore would lose. Changes nothing.

    Exit code 0 clean, 1 tampered with or another vault's, 2 could not run.
    """
    from keyvault_lite import settings
    from keyvault_lite.operator.backup import verify_backup

    if key is not None and not public:
        raise CannotRun("--key goes with --public: with the master key the vault knows its own")
    with starting(), counting("entries") as progress:
        found = verify_backup(
            settings.load(settings.Purpose.READ),
            file,
            public=public,
            key=key,
            archive=folder_of(archive),
            progress=progress,
        )
    show_verification(found, output)
