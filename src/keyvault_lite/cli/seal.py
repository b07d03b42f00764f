"""`kvl unseal` and `kvl seal`: open a running server that is sealed, and close one that is open."""

import json

import typer

from keyvault_lite.cli.arguments import YesOption
from keyvault_lite.cli.environment import connect
from keyvault_lite.cli.failure import CannotRun
from keyvault_lite.cli.output import Format, OutputOption, confirm, note, show_record
from keyvault_lite.client.api import Client, Json
from keyvault_lite.client.errors import Refused

app = typer.Typer()


@app.command("unseal")
def unseal(*, output: OutputOption = Format.TABLE) -> None:
    """Hand in a share or the passphrase to a sealed server. Needs no token; it is asked for on the terminal.

    Each holder runs this at their own place. Once enough shares are there, the server checks the vault and serves it.
    """
    with connect(anonymous=True) as client:
        found = client.get("/seal-status").json()
        if found.get("sealed") is True:
            found = _hand_in(client, found)
    if output is Format.JSON:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    shown = ["sealed", "root", "reason"] if found.get("threshold") == 1 else ["sealed", "root", "progress", "threshold"]
    show_record([(name, found.get(name)) for name in shown if found.get(name) is not None])
    if found.get("sealed") is not True:
        note("the vault is open; the server checks it before it answers")


def _hand_in(client: Client, found: Json) -> Json:
    if found.get("root") in {"shamir", "shares"}:
        question, field = f"Share {found.get('progress', 0) + 1} of {found.get('threshold')}", "share"
    elif found.get("passphrase") is True:
        question, field = "Passphrase", "passphrase"
    else:
        reason = found.get("reason") or "it waits for its root"
        raise CannotRun(f"the server does not wait for people: {reason}")
    given = typer.prompt(question, hide_input=True, err=True)
    try:
        return client.post("/unseal", {field: given.strip(), "nonce": found.get("nonce") or None}).json()
    except Refused as refused:
        raise CannotRun(str(refused)) from None


@app.command("seal")
def seal(*, yes: YesOption = False) -> None:
    """Have the server forget the keys: it answers `sealed` from then on. For ADMIN, and on record.

    People open it again with `kvl unseal`; where a device or a file is the only root, a restart does.
    """
    confirm("The server will refuse every request until it is opened again. Go on?", yes=yes)
    with connect() as client:
        client.post("/seal", {})
    note("sealed: the server starts again without its keys")
