"""`kvl init`, `serve` and `verify`: what works on the vault itself, with its master key."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer

from keyvault_lite.cli.arguments import YesOption
from keyvault_lite.cli.failure import CannotRun, CheckFailed
from keyvault_lite.cli.files import check_token_out, not_lost, write_new_secret
from keyvault_lite.cli.output import Format, OutputOption, confirm, note, printable, show_record
from keyvault_lite.cli.progress import counting
from keyvault_lite.cli.slot_options import OfOption, OutOption, SharesOption, ThresholdOption, new_slot
from keyvault_lite.model.replies import Finding, Verification

app = typer.Typer()
MAX_WORKERS: Final = 64
"""Of a server: more than any host of one SQLite file has use for."""
ArchiveOption = Annotated[
    Path | None,
    typer.Option("--archive", metavar="FOLDER", help="The files of `kvl audit archive`: read as part of the log."),
]


@contextmanager
def starting() -> Iterator[None]:
    """Turn what keeps a vault from being opened (settings, key, state) into one sentence and exit code 2."""
    from keyvault_lite.app import CANNOT_START

    try:
        yield
    except CANNOT_START as error:
        raise CannotRun(str(error)) from None


@app.command("init")
def init(
    *,
    recover_admin: Annotated[
        bool,
        typer.Option("--recover-admin", help="Give the first ADMIN of a vault a new token; the old one dies."),
    ] = False,
    token_out: Annotated[
        Path | None,
        typer.Option("--token-out", metavar="FILE", help="Put the token in a new private file, do not print it."),
    ] = None,
    recovery_out: Annotated[
        Path | None,
        typer.Option(
            "--recovery-out", metavar="FILE", help="Where the recovery key goes, if the root is a device or service."
        ),
    ] = None,
    no_recovery: Annotated[
        bool, typer.Option("--no-recovery", help="Make no recovery key: if the device is lost, so is the vault.")
    ] = False,
    shares: SharesOption = 0,
    threshold: ThresholdOption = 0,
    of: OfOption = None,
    out: OutOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Make a new vault: database, keyring and first ADMIN, whose token is printed this once.

    Under a root that is a device or a service (KEYVAULT_ROOT) a recovery key is made too: keep it apart, offline.
    """
    from keyvault_lite import settings
    from keyvault_lite.operator import initialise

    check_token_out(token_out)
    with starting():
        chosen = settings.load()
        if recover_admin:
            made = initialise.recover_admin(chosen)
        else:
            first = None
            if chosen.root is not None:
                new, keep = new_slot(chosen.root.split()[0], shares, threshold, of, out)
                recovery = initialise.Recovery(recovery_out, wanted=not no_recovery)
                first = initialise.first_slots(chosen, new, keep, recovery)
            made = initialise.initialise_vault(chosen, slots=first)
    token = made.token if token_out is None else None
    shown = {"service_id": made.service_id, "token": token, "database": made.database, "anchor": made.anchor}
    with not_lost("`kvl init --recover-admin` gives another"):
        if token_out is None:
            _show_vault(shown, output)
        else:
            write_new_secret(token_out, f"{made.token}\n")
    if token_out is not None:
        _show_vault(shown, output)
        note(f"the token is in {token_out}")
    elif output is Format.TABLE:
        note("the token is shown this once: export KEYVAULT_TOKEN=… or keep it in a private file")


def _show_vault(shown: dict[str, str | None], output: Format) -> None:
    if output is Format.JSON:
        typer.echo(json.dumps(shown, ensure_ascii=False))
    else:
        show_record([(name.replace("_", " "), value) for name, value in shown.items() if name != "token" or value])


@app.command("serve")
def serve(
    *,
    host: Annotated[str | None, typer.Option("--host", help="Instead of KEYVAULT_HOST.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Instead of KEYVAULT_PORT.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=MAX_WORKERS, help="Processes.")] = 1,
    quarantine: Annotated[
        bool,
        typer.Option("--quarantine", help="Start without the objects that do not verify; see `kvl repair`."),
    ] = False,
    begin: Annotated[
        bool,
        typer.Option("--init/--no-init", help="Make an empty database a vault and print the token of its first ADMIN."),
    ] = True,
    sealed: Annotated[
        bool, typer.Option("--sealed", help="Ask no device or file: people alone open the vault, as after `kvl seal`.")
    ] = False,
) -> None:
    """Serve the vault over HTTP until it is stopped. It is checked before; what is found ends it with one sentence."""
    from keyvault_lite import settings
    from keyvault_lite.server import serve as serving

    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    # Until the server takes it over: what has not begun to serve has nothing to finish.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with starting():
        chosen = settings.load(settings.Purpose.SERVE, **given)
        code = serving.serve(chosen, workers=workers, quarantine=quarantine, begin=begin, sealed=sealed)
    raise typer.Exit(code)


@app.command("repair")
def repair(
    *,
    archive: ArchiveOption = None,
    yes: YesOption = False,
) -> None:
    """Give up, on record, what does not verify and cannot be restored. First try to restore the newest database."""
    from keyvault_lite import settings
    from keyvault_lite.operator.repair import repair_vault

    confirm("What does not verify is lost for good. Go on?", yes=yes)
    with starting():
        lost, mended = repair_vault(settings.load(), archive=folder_of(archive))
    for one in lost:
        typer.echo(printable(f"lost: {one.table} {one.row}: {one.problem}"))
    if mended:
        typer.echo("the index of the log did not match the log: it was rebuilt, and nothing is lost")
    if lost:
        typer.echo(f"{len(lost)} given up; the vault can be managed again")
    elif not mended:
        typer.echo("nothing to repair")


@app.command("verify")
def verify(
    *,
    public: Annotated[bool, typer.Option("--public", help="Without the master key: what everybody can check.")] = False,
    key: Annotated[
        str | None, typer.Option("--key", metavar="VKEY", help="The log's verifier key, instead of the anchor's.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="FILE", help="A signed checkpoint you have kept: the log has to extend it."),
    ] = None,
    archive: ArchiveOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Check the whole vault offline, beside a running server too. Changes nothing.

    Exit code 0 clean, 1 tampered with (one line a finding), 2 could not run.
    """
    from keyvault_lite import settings
    from keyvault_lite.operator.verify import verify_vault

    if key is not None and not public:
        raise CannotRun("--key goes with --public: with the master key the vault knows its own")
    kept = None if against is None else _read_checkpoint(against)
    with starting(), counting("entries") as progress:
        found = verify_vault(
            settings.load(settings.Purpose.READ),
            public=public,
            key=key,
            against=kept,
            archive=folder_of(archive),
            progress=progress,
        )
    if against is not None:
        found = replace(found, findings=tuple(_with_file(one, against) for one in found.findings))
    show_verification(found, output)


def show_verification(found: Verification, output: Format) -> None:
    """Print what a check found. Raises CheckFailed if that is anything."""
    if output is Format.JSON:
        typer.echo(json.dumps(_as_json(found), ensure_ascii=False))
    else:
        for one in found.findings:
            typer.echo(printable(f"{one.table} {one.row}: {one.problem}"))
        if found.more:
            typer.echo(f"and {found.more} more")
        for text in found.notes:
            note(text)
        if found.valid:
            typer.echo(
                f"clean: {found.entries} entries{f' behind {found.archived} archived' if found.archived else ''}"
            )
    if not found.valid:
        raise CheckFailed("the vault was tampered with")


def _read_checkpoint(file: Path) -> str:
    """A checkpoint that somebody has kept; its signature is not looked at. Raises CannotRun for any other file."""
    from keyvault_lite.audit.checkpoint import InvalidNote, parse_checkpoint, parse_note

    text = file.read_bytes().decode("utf-8", "replace")
    try:
        parse_checkpoint(parse_note(text).body)
    except InvalidNote as error:
        raise CannotRun(f"{file} is no checkpoint: {error.detail}") from None
    return text


def _with_file(finding: Finding, kept: Path) -> Finding:
    """A finding about the checkpoint that was kept says which file it is in."""
    return replace(finding, row=str(kept)) if finding.table == "checkpoint" else finding


def folder_of(archive: Path | None) -> Path | None:
    """The folder of archived segments, if one is named. Raises CannotRun if it is none."""
    if archive is not None and not archive.is_dir():
        raise CannotRun(f"{archive} is not a folder")
    return archive


def _as_json(found: Verification) -> dict[str, object]:
    listed = [{"table": one.table, "row": one.row, "problem": one.problem} for one in found.findings]
    told: dict[str, object] = {"ok": found.valid, "entries": found.entries, "findings": listed}
    if found.archived:
        told["archived"] = found.archived
    if found.more:
        told["more"] = found.more
    if found.notes:
        told["notes"] = found.notes
    return told
