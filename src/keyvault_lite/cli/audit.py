"""`kvl audit …`: read the log, follow it, and have it checked."""

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from keyvault_lite.cli import evidence
from keyvault_lite.cli.arguments import YesOption, parse_moment
from keyvault_lite.cli.environment import connect
from keyvault_lite.cli.failure import CannotRun, CheckFailed
from keyvault_lite.cli.files import OutOption, writing
from keyvault_lite.cli.output import (
    Cell,
    Columns,
    Format,
    LimitOption,
    OutputOption,
    WideOption,
    confirm,
    note,
    printable,
    show,
    show_list,
    show_table,
    when,
)
from keyvault_lite.cli.progress import counting
from keyvault_lite.cli.vault import starting
from keyvault_lite.client.api import PAGE, Client, Json
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.names import is_id

app = typer.Typer(help="Read and verify the audit log.", no_args_is_help=True)

COLUMNS: Final = Columns(
    ("ID", "TIME", "SERVICE", "ACTION", "KEY", "VERSION", "RESULT", "REASON"),
    dropped=("VERSION", "REASON"),
    cut=("SERVICE", "KEY", "REASON"),
)
WAIT: Final = 30
"""Seconds that one request waits for the next entry."""
VERIFY_TIMEOUT: Final = 3600.0

ServiceFilter = Annotated[str | None, typer.Option("--service", metavar="NAME|ID", help="Of this service.")]
KeyFilter = Annotated[str | None, typer.Option("--key", metavar="NAME|ID", help="On this key.")]
ActionFilter = Annotated[
    Action | None,
    typer.Option("--action", metavar="ACTION", show_choices=False, help="encrypt, rotate, authenticate, …"),
]
ResultFilter = Annotated[Result | None, typer.Option("--result", help="How it ended.")]
SinceFilter = Annotated[str | None, typer.Option("--since", metavar="TIME", help="From then on; 2h: two hours ago.")]
UntilFilter = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before then.")]


def _row(entry: Json) -> tuple[Cell, ...]:
    names = entry.get("display", {})
    return (
        entry["id"],
        when(entry["timestamp"]),
        names.get("service_name") or entry["service_id"],
        entry["action"],
        names.get("key_name") or entry["key_id"] or entry.get("key_ref"),
        entry["key_version"],
        entry["result"],
        entry.get("reason"),
    )


@app.command("ls")
def ls(
    *,
    service: ServiceFilter = None,
    key: KeyFilter = None,
    action: ActionFilter = None,
    result: ResultFilter = None,
    since: SinceFilter = None,
    until: UntilFilter = None,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Instead of newest first.")] = False,
    limit: LimitOption = 100,
    wide: WideOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """List entries, newest first."""
    with connect() as client:
        parameters = {
            **_filters(client, service, key, action, result),
            **_span(since, until),
            "order": "asc" if oldest_first else None,
        }
        listing = client.collect("/audit", parameters, limit=limit or None)
    show_list(listing, output, COLUMNS, _row, wide=wide)


@app.command("tail")
def tail(
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=1000, help="How many to begin with.")] = 10,
    after: Annotated[
        int | None,
        typer.Option("--after", metavar="ID", min=0, help="Begin behind this entry instead: where a reader stopped."),
    ] = None,
    service: ServiceFilter = None,
    key: KeyFilter = None,
    action: ActionFilter = None,
    result: ResultFilter = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show the newest entries, oldest of them first; as JSON one object a line.

    Following is a session of reading: the log has an entry when it begins and one when it has ended. The former, and
    that of reading the newest entries, are not shown.
    """
    with connect() as client:
        filters = _filters(client, service, key, action, result)
        page, own = _first_page(client, filters, lines) if after is None else ([], set())
        cursor = page[-1]["id"] if page else after or 0
        while True:
            for entry in page:
                if entry["id"] not in own:
                    _print_line(entry, output)
            if not follow and (after is None or (own and not page)):
                return
            reply = client.get("/audit", {**filters, "after": cursor, "wait": WAIT if follow else 0, "limit": PAGE})
            own.add(reply.audit_id)
            page, cursor = reply.json()["items"], reply.json()["next"]


def _first_page(client: Client, filters: Json, lines: int) -> tuple[list[Json], set[int | None]]:
    """The newest entries, oldest first, and the entry of reading them."""
    reply = client.get("/audit", {**filters, "limit": lines})
    return reply.json()["items"][::-1], {reply.audit_id}


def _print_line(entry: Json, output: Format) -> None:
    if output is Format.JSON:
        typer.echo(json.dumps(entry, ensure_ascii=False, separators=(",", ":")))
    else:
        typer.echo("  ".join(printable(cell) for cell in _row(entry)))


@app.command("verify")
def verify(*, output: OutputOption = Format.TABLE) -> None:
    """Have the vault check its whole log. Exit code 0 if it is whole, 1 if not. To check it yourself: kvl verify."""
    with connect() as client:
        reply = client.get("/audit/verify", timeout=VERIFY_TIMEOUT)
    answer = reply.json()
    show(
        reply,
        output,
        lambda found: [
            ("valid", found["valid"]),
            ("entries", found["entries"]),
            ("head", found["head"]),
            *(
                []
                if found["valid"]
                else [("first invalid", found.get("first_invalid")), ("reason", found.get("reason"))]
            ),
        ],
    )
    if answer["valid"] is not True:
        raise CheckFailed("the audit log does not verify: copy everything now, and trust no entry from there on")


@app.command("receipt")
def receipt(
    entry: Annotated[int, typer.Argument(metavar="ID", min=1, help="An entry's number: the Audit-Id of a reply.")],
    *,
    out: OutOption = None,
) -> None:
    """Write out the proof that an entry is in the signed log."""
    with connect() as client:
        text = client.get(f"/audit/{entry}/receipt").text
    with writing(out, binary=False) as stream:
        stream.write(text.encode())
    note(f"receipt of entry {entry}")


@app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that does not exist yet.")],
    *,
    service: ServiceFilter = None,
    key: KeyFilter = None,
    action: ActionFilter = None,
    result: ResultFilter = None,
    since: SinceFilter = None,
    until: UntilFilter = None,
) -> None:
    """Write evidence: entries, a proof for each, the checkpoint, and the program that checks them.

    The recipient needs nothing but Python and the log's verifier key. The log has an entry for
    each thousand entries and for each thousand proofs that are read, and for the checkpoint and the key.
    """
    with connect() as client, counting("entries") as advance:
        parameters = {**_filters(client, service, key, action, result), **_span(since, until)}
        count, archived = evidence.export(client, folder, parameters, advance=advance)
    if archived:
        note(f"entries 1 to {archived} are archived: none of them is in it")
    note(f"evidence of {count} {'entry' if count == 1 else 'entries'} in {printable(folder)}")


@app.command("archive")
def archive(
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where the files go; made if it is not there.")],
    *,
    before: Annotated[
        str | None, typer.Option("--before", metavar="TIME", help="Entries from before then; 90d: older than 90 days.")
    ] = None,
    keep: Annotated[int | None, typer.Option("--keep", metavar="N", min=1, help="Not the newest N entries.")] = None,
    vacuum: Annotated[
        bool,
        typer.Option("--vacuum", help="Give the space back to the file system too. Everybody waits meanwhile."),
    ] = False,
    yes: YesOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Move the oldest entries out of the database, into compressed files. With the master key; beside servers too.

    Goes on record. The log stays one: `kvl verify --archive FOLDER` checks files and database together.
    """
    from keyvault_lite import settings
    from keyvault_lite.operator.archive import archive_entries
    from keyvault_lite.wire.times import parse_time

    if before is None and keep is None:
        raise CannotRun("say which entries may go: --before TIME, --keep N, or both")
    until = None if before is None else parse_time(parse_moment(before, "--before", ago=True))
    confirm(f"Entries go from the database into files in {printable(to)}. Go on?", yes=yes)
    with starting(), counting("entries") as progress:
        done = archive_entries(settings.load(), to, before=until, keep=keep or 0, vacuum=vacuum, progress=progress)
    made = [{"file": one.file, "first": one.first, "last": one.last, "sha256": one.file_hash} for one in done.segments]
    if output is Format.JSON:
        typer.echo(json.dumps({"archived": done.archived, "segments": made}, ensure_ascii=False))
    else:
        show_table(
            Columns(("FILE", "FIRST", "LAST", "SHA-256"), cut=("SHA-256",)), [tuple(one.values()) for one in made]
        )
    note(f"entries 1 to {done.archived} are archived" if done.archived else "nothing is archived")


@app.command("read")
def read(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where `kvl audit archive` has put its files.")],
    *,
    first: Annotated[int, typer.Option("--from", metavar="ID", min=1, help="The first entry.")] = 1,
    last: Annotated[int | None, typer.Option("--to", metavar="ID", min=1, help="The last entry.")] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="VKEY", help="The log's verifier key, instead of the anchor's.")
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Print archived entries, oldest first; as JSON one object a line. All files they are in are checked whole before.

    Needs no vault and no master key. Exit code 1 if a file does not verify, if files hold two histories of the log, or
    if entries that were asked for are in no file.
    """
    import msgspec

    from keyvault_lite import settings
    from keyvault_lite.ledger.archive.segment_files import NotInFiles
    from keyvault_lite.model.errors import IntegrityViolation
    from keyvault_lite.operator.archive import read_archive
    from keyvault_lite.wire.native import render

    if not folder.is_dir():
        raise CannotRun(f"{folder} is not a folder")
    with starting():
        chosen = settings.load(settings.Purpose.READ)
    try:
        for entry in read_archive(chosen, folder, key=key, first=first, last=last, note=note):
            _print_line(msgspec.to_builtins(render.entry(entry, None)), output)
    except IntegrityViolation as error:
        raise CheckFailed(f"the archive does not verify: {error.detail}") from None
    except NotInFiles as error:
        raise CheckFailed(error.detail) from None


@app.command("public-key")
def public_key(*, output: OutputOption = Format.TABLE) -> None:
    """Print the verifier key of the log: for a witness, for verifiers of receipts. It changes with the log's epoch."""
    with connect() as client:
        reply = client.get("/audit/public-key")
    if output is Format.JSON:
        show(reply, output, lambda found: list(found.items()))
    else:
        typer.echo(reply.json()["verifier_key"])


def _filters(
    client: Client, service: str | None, key: str | None, action: Action | None, result: Result | None
) -> Json:
    """The filters as parameters of the API, which takes ids: names are looked up."""
    return {
        "service_id": _id(client, "services", service),
        "key_id": _id(client, "keys", key),
        "action": action,
        "result": result,
    }


def _span(since: str | None, until: str | None) -> Json:
    return {
        "since": None if since is None else parse_moment(since, "--since", ago=True),
        "until": None if until is None else parse_moment(until, "--until", ago=True),
    }


def _id(client: Client, kind: str, name: str | None) -> str | None:
    from keyvault_lite.client.api import segment

    if name is None or is_id(name):
        return name
    return str(client.get(f"/{kind}/{segment(name)}").json()["id"])
