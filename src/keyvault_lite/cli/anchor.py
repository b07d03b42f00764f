"""`kvl anchor …`: what the anchor remembers, and the word of an operator for a database that it does not confirm."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from keyvault_lite.cli.failure import CannotRun, CheckFailed
from keyvault_lite.cli.output import Format, OutputOption, note, show_record
from keyvault_lite.cli.vault import starting
from keyvault_lite.model.encoding import decode_base64, encode_base64
from keyvault_lite.model.errors import InvalidRequest

if TYPE_CHECKING:
    from keyvault_lite.ledger.verify.trust import TrustResult
    from keyvault_lite.operator.anchor import AnchorView

app = typer.Typer(help="The newest head of the log, kept outside the database.", no_args_is_help=True)

ROOT_BYTES = 32


@app.command("show")
def show(*, output: OutputOption = Format.TABLE) -> None:
    """Tell where the anchor is and what it remembers. Exit code 1 if there is none, 2 if it cannot be read."""
    from keyvault_lite import settings
    from keyvault_lite.operator.anchor import show_anchor

    with starting():
        found = show_anchor(settings.load(settings.Purpose.READ))
    facts = _facts(found)
    if output is Format.JSON:
        typer.echo(json.dumps(facts, ensure_ascii=False))
    else:
        show_record([(name.replace("_", " "), value) for name, value in facts.items() if name != "checkpoint"])
        if found.mark is not None:
            typer.echo(f"\n{found.mark.checkpoint}", nl=False)
    if found.mark is None and found.stands != "off":
        raise CheckFailed(f"there is no anchor {found.place}")


def _facts(found: "AnchorView") -> dict[str, object]:
    facts: dict[str, object] = {"anchor": found.place, "stands": found.stands}
    mark = found.mark
    if mark is not None:
        facts |= {
            "size": mark.size,
            "root": encode_base64(mark.root),
            "epoch": mark.epoch,
            "hash": mark.hash.hex(),
            "state_seq": mark.state_seq,
            "scrubbed": mark.scrubbed,
            "verifier_key": mark.verifier_key,
            "checkpoint": mark.checkpoint,
        }
    return facts


@app.command("trust")
def trust(
    *,
    acknowledge_rollback: Annotated[
        bool, typer.Option("--acknowledge-rollback", help="Accept the loss of entries that the anchor knew.")
    ] = False,
    size: Annotated[int | None, typer.Option("--size", min=1, help="How many entries the database has.")] = None,
    root: Annotated[str | None, typer.Option("--root", metavar="BASE64", help="The root of its log.")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Go on with a database that its anchor does not confirm. Goes on record.

    Alone: the anchor is lost, and this is the newest database. With --acknowledge-rollback: an older database was
    restored on purpose; exactly the head named by --size and --root is accepted (the refusal to start prints both), and
    the log goes on as another log, under a new origin that everybody who follows it has to be told.
    """
    from keyvault_lite import settings
    from keyvault_lite.ledger.verify.trust import AcceptedHead
    from keyvault_lite.operator.anchor import trust_anchor

    if acknowledge_rollback != (size is not None) or acknowledge_rollback != (root is not None):
        raise CannotRun("--acknowledge-rollback, --size and --root go together")
    accepted = None if size is None or root is None else AcceptedHead(size, _root(root))
    with starting():
        done = trust_anchor(settings.load(), accepted)
    _tell(done, output)


def _root(text: str) -> bytes:
    try:
        raw = decode_base64(text)
    except InvalidRequest:
        raw = b""
    if len(raw) != ROOT_BYTES:
        raise CannotRun("--root is base64 of 32 bytes")
    return raw


def _tell(done: "TrustResult", output: Format) -> None:
    facts: dict[str, object] = {
        "size": done.size,
        "root": encode_base64(done.root),
        "epoch": done.epoch,
        "entry": done.entry,
        "lost": done.lost,
        "kept": done.kept,
    }
    if output is Format.JSON:
        typer.echo(json.dumps(facts, ensure_ascii=False))
        return
    show_record(list(facts.items()))
    if done.lost is not None:
        note("revoke again what the lost entries revoked; tell the new origin to everybody who follows the log")
