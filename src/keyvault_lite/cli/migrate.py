"""`kvl migrate`: the vault moves into another database, with its whole log."""

import json

import typer

from keyvault_lite.cli.arguments import YesOption
from keyvault_lite.cli.failure import CannotRun
from keyvault_lite.cli.output import Format, OutputOption, confirm, note, show_record
from keyvault_lite.cli.progress import counting
from keyvault_lite.cli.vault import starting

app = typer.Typer()


@app.command("migrate")
def migrate(*, yes: YesOption = False, output: OutputOption = Format.TABLE) -> None:
    """Move the vault from KEYVAULT_DATABASE_URL into the empty database that KEYVAULT_MIGRATE_TO names.

    Stop the server first. Source and copy are checked whole; on failure the target stays empty. If it is interrupted,
    run it again: never are both served. Afterwards let KEYVAULT_DATABASE_URL name the new database: the old one is not
    changed, but its anchor no longer confirms it.
    """
    from keyvault_lite import settings
    from keyvault_lite.operator.migrate import migrate_vault

    with starting():
        chosen = settings.load()
    if chosen.migrate_to is None:
        raise CannotRun("KEYVAULT_MIGRATE_TO has to name the database to move to")
    confirm("The vault moves, and the old database is not served any more. Go on?", yes=yes)
    with starting(), counting("entries") as progress:
        moved = migrate_vault(chosen, chosen.migrate_to, progress=progress)
    facts = {"database": moved.database, "anchor": moved.anchor, "entries": moved.entries, "entry": moved.entry}
    if output is Format.JSON:
        typer.echo(json.dumps(facts, ensure_ascii=False))
    else:
        show_record(list(facts.items()))
    note("let KEYVAULT_DATABASE_URL name the new database, and put the old one away as you would a backup")
    if moved.anchor is None:
        note("there is no anchor: nothing but you keeps the old one from being served")
