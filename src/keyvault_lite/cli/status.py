"""`kvl status`: is the vault there, is it well, and does it know us."""

import json

import typer

from keyvault_lite.cli.environment import connect
from keyvault_lite.cli.failure import CheckFailed
from keyvault_lite.cli.output import Format, OutputOption, pairs, show_record
from keyvault_lite.client.api import Client
from keyvault_lite.client.errors import Refused

app = typer.Typer()


@app.command("status")
def status(*, output: OutputOption = Format.TABLE) -> None:
    """Tell whether the vault answers and is well, and whether it accepts the token.

    Exit code 1 if it says it is not well or refuses the token, 2 if there is no answer. Needs no token.
    """
    with connect(anonymous=True) as client:
        health = client.health()
        token = _token(client)
    well = health.get("status") == "ok"
    if output is Format.JSON:
        found = {"address": client.connection.address, "health": health, "token": token}
        typer.echo(json.dumps(found, ensure_ascii=False))
    else:
        details = (
            (name.replace("_", " "), pairs(value) if isinstance(value, dict) else value)
            for name, value in health.items()
        )
        show_record([("address", client.connection.address), *details, ("token", token)])
    if not well:
        raise CheckFailed(f"the vault says it is {health.get('status')}")
    if token == "refused":  # noqa: S105  (a word, not a secret)
        raise CheckFailed("the vault refuses the token")


def _token(client: Client) -> str:
    if client.connection.token is None:
        return "none"
    try:
        client.get("/keys", {"limit": 1})
    except Refused as refused:
        return "refused" if refused.code == "unauthenticated" else "unknown"
    return "accepted"
