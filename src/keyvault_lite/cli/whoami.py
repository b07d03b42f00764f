"""`kvl whoami`: which service the token is of, what it may do, and when it ends."""

import typer

from keyvault_lite.cli.environment import connect
from keyvault_lite.cli.output import Format, OutputOption, show
from keyvault_lite.cli.service import record

app = typer.Typer()


@app.command("whoami")
def whoami(*, output: OutputOption = Format.TABLE) -> None:
    """Show the calling service: its role and grants, and when its token ends. For every role."""
    with connect() as client:
        show(client.get("/services/self"), output, record)
