"""`kvl root …`: the roots of trust that open the vault."""

import json
import secrets
from typing import TYPE_CHECKING, Annotated, Final

import typer

from keyvault_lite.cli.arguments import YesOption
from keyvault_lite.cli.failure import CheckFailed
from keyvault_lite.cli.output import Columns, Format, OutputOption, confirm, note, show_record, show_table
from keyvault_lite.cli.slot_options import OfOption, OutOption, SharesOption, ThresholdOption, new_slot
from keyvault_lite.cli.vault import starting

if TYPE_CHECKING:
    from keyvault_lite.model.keyring import Slot

app = typer.Typer(
    help="The roots of trust that open the vault: files, devices, services and people.", no_args_is_help=True
)
ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
GROUPS: Final = 5

UriArgument = Annotated[str, typer.Argument(metavar="URI", help="As in KEYVAULT_ROOT: tpm2:/dev/tpmrm0?pcrs=7.")]
SlotArgument = Annotated[str, typer.Argument(metavar="SLOT", help="Its id in `kvl root ls`, or how it begins.")]


@app.command("ls")
def ls(*, output: OutputOption = Format.TABLE) -> None:
    """List the slots of the vault: each is opened by one root. Needs no root."""
    from keyvault_lite import settings
    from keyvault_lite.crypto.slot_parameters import kind_of
    from keyvault_lite.operator.roots import list_slots

    with starting():
        slots = list_slots(settings.load(settings.Purpose.READ))
    rows = [(slot.id, kind_of(slot), _moment(slot)) for slot in slots]
    if output is Format.JSON:
        typer.echo(json.dumps([dict(zip(("id", "kind", "created_at"), row, strict=True)) for row in rows]))
    else:
        show_table(Columns(("SLOT", "ROOT", "CREATED")), rows)


@app.command("create")
def create(uri: UriArgument) -> None:
    """Make the key of a root on its device. The vault is not changed: `kvl root add` comes next."""
    from keyvault_lite import settings
    from keyvault_lite.operator.roots import create_key

    with starting():
        made = create_key(settings.load(settings.Purpose.READ), uri)
    note(f"made: {made}")


@app.command("add")
def add(
    uri: UriArgument,
    *,
    shares: SharesOption = 0,
    threshold: ThresholdOption = 0,
    of: OfOption = None,
    out: OutOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Let one more root open the vault. On record. Name it in KEYVAULT_ROOT then.

    `kvl root add shamir: --shares 5 --threshold 3 --out shares` writes five shares, any three of which open the vault.
    """
    from keyvault_lite import settings
    from keyvault_lite.operator.roots import add_slot

    new, keep = new_slot(uri, shares, threshold, of, out)
    with starting():
        slot = add_slot(settings.load(), new, keep)
    _show_slot(slot, output)
    if shares:
        note(f"the shares are in {out}: give each to its holder, and delete the files")


@app.command("reseal")
def reseal(
    slot: SlotArgument,
    uri: UriArgument,
    *,
    shares: SharesOption = 0,
    threshold: ThresholdOption = 0,
    of: OfOption = None,
    out: OutOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Replace a slot by a new one of the same kind: after an update that changes PCRs, or for new shares. On record."""
    from keyvault_lite import settings
    from keyvault_lite.operator.roots import reseal_slot

    new, keep = new_slot(uri, shares, threshold, of, out)
    with starting():
        made = reseal_slot(settings.load(), slot, new, keep)
    _show_slot(made, output)


@app.command("rm")
def rm(
    slot: SlotArgument,
    *,
    no_recovery: Annotated[
        bool, typer.Option("--no-recovery", help="Even if only slots are left that depend on a device.")
    ] = False,
    yes: YesOption = False,
) -> None:
    """Let a slot open the vault no more. On record. Old backups are still opened by it."""
    from keyvault_lite import settings
    from keyvault_lite.operator.roots import remove_slot

    confirm(f"Slot {slot} will open the vault no more. Go on?", yes=yes)
    with starting():
        gone = remove_slot(settings.load(), slot, without_recovery=no_recovery)
    note(f"slot {gone.id} was removed")


@app.command("check")
def check(
    *,
    use_last_tries: Annotated[
        bool,
        typer.Option("--use-last-tries", help="Log in to a token although it says that the PIN was wrong before."),
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Ask every root in KEYVAULT_ROOT whether it opens the vault. Exit code 1 if none does. On record if one does."""
    from keyvault_lite import settings
    from keyvault_lite.operator.roots import check_roots

    with starting():
        found = check_roots(settings.load(), use_last_tries=use_last_tries)
    if output is Format.JSON:
        typer.echo(json.dumps([{"root": one.name, "opens": one.opens, "says": one.says} for one in found]))
    else:
        show_record([(one.name, one.says) for one in found])
    if not any(one.opens for one in found):
        raise CheckFailed("no root opens the vault by itself")


@app.command("passphrase")
def passphrase() -> None:
    """Make a passphrase with 125 bits of entropy, for a `passphrase:` root."""
    typer.echo("-".join("".join(secrets.choice(ALPHABET) for _ in range(GROUPS)) for _ in range(GROUPS)))


def _moment(slot: "Slot") -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(slot.created_at / 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _show_slot(slot: "Slot", output: Format) -> None:
    from keyvault_lite.crypto.slot_parameters import kind_of

    if output is Format.JSON:
        typer.echo(json.dumps({"id": slot.id, "kind": kind_of(slot)}))
    else:
        show_record([("slot", slot.id), ("root", kind_of(slot))])
