"""`kvl service …`: callers of the vault, their roles and grants."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from keyvault_lite.cli.arguments import ServiceArgument, grant, parse_moment, span
from keyvault_lite.cli.environment import connect
from keyvault_lite.cli.failure import CannotRun, CheckFailed
from keyvault_lite.cli.files import check_token_out, not_lost, write_new_secret
from keyvault_lite.cli.output import (
    Columns,
    Format,
    LimitOption,
    OutputOption,
    Record,
    WideOption,
    note,
    show,
    show_list,
    when,
)
from keyvault_lite.client.api import Client, Json, Reply, segment
from keyvault_lite.client.errors import Refused
from keyvault_lite.model.identity import Role
from keyvault_lite.model.names import SELF

app = typer.Typer(help="Make and change the services that may call the vault.", no_args_is_help=True)

OWN_GRACE: Final = "10m"
"""So that an answer that is lost locks nobody out."""
NEVER: Final = "never"
"""The expiry of a service that has none, as the API writes it."""
Held = dict[str, list[str]]
ATTEMPTS = 8
"""How often grants are read and changed again, because others have changed them in between."""

GrantOption = Annotated[
    list[str] | None,
    typer.Option("--grant", metavar="KEY=ACTION,…", help="'orders-*=encrypt,decrypt'; may be repeated."),
]
GrantArgument = Annotated[list[str], typer.Argument(metavar="KEY=ACTION,…", help="'orders-*=encrypt,decrypt'")]
ExpiresOption = Annotated[
    str | None,
    typer.Option("--expires", metavar="TIME", help="2027-01-31T12:00:00Z, a span like 90d or 12h, or never."),
]
TtlOption = Annotated[
    str | None,
    typer.Option(
        "--ttl", metavar="SPAN", help="How long the token is valid after each renewal, like 30d; 0: no limit."
    ),
]
MaxTtlOption = Annotated[
    str | None,
    typer.Option("--max-ttl", metavar="SPAN", help="How far renewals can extend it from now, like 365d; 0: no limit."),
]
TokenOutOption = Annotated[
    Path | None,
    typer.Option("--token-out", metavar="FILE", help="Put the token in a new private file, do not print it."),
]


def record(service: Json) -> Record:
    """A service for people, with its token if that was issued now or is the one that asked."""
    lines = [
        ("name", service["name"]),
        ("id", service["id"]),
        ("role", service["role"]),
        ("active", _state(service)),
        ("grants", _grants(service)),
    ]
    if service.get("expires_at"):
        lines.append(("expires", when(service["expires_at"])))
    issued = service.get("token")
    lifetime = issued if isinstance(issued, dict) else {name[6:]: service.get(name) for name in _LIFETIME}
    if isinstance(issued, str):
        lines.append(("token", issued))
    if issued:
        lines.append(("token ends", when(lifetime["expires_at"]) or NEVER))
    if lifetime.get("renewable_until"):
        lines.append(("renewable until", when(lifetime["renewable_until"])))
    return lines


_LIFETIME: Final = ("token_expires_at", "token_renewable_until")


def _state(service: Json) -> str | bool:
    """Whether it can call: yes, no, or that it has expired, which is not a deactivation."""
    end = service.get("expires_at")
    expired = end is not None and datetime.fromisoformat(end) <= datetime.now(UTC)
    return "expired" if service["active"] and expired else bool(service["active"])


def _grants(service: Json) -> str | None:
    return "; ".join(f"{entry['key']}={','.join(entry['actions'])}" for entry in service["grants"] or ()) or None


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Unique.")],
    *,
    role: Annotated[Role, typer.Option("--role", "-r", case_sensitive=False, help="What it may.")] = Role.SERVICE,
    grants: GrantOption = None,
    expires: ExpiresOption = None,
    ttl: TtlOption = None,
    max_ttl: MaxTtlOption = None,
    token_out: TokenOutOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Make a service. Its token is shown this once."""
    body: Json = {"name": name, "role": role}
    if grants:
        body["grants"] = [grant(text) for text in grants]
    if expires and expires != NEVER:
        body["expires_at"] = parse_moment(expires, "--expires")
    body |= _lifetime("token_ttl", ttl, "token_max_ttl", max_ttl)
    check_token_out(token_out)
    with connect() as client:
        _show_token(client.change("POST", "/services", body), output, token_out, name)


@app.command("token")
def token(
    service: ServiceArgument,
    *,
    ttl: TtlOption = None,
    max_ttl: MaxTtlOption = None,
    grace: Annotated[
        str | None,
        typer.Option(
            "--grace",
            metavar="SPAN",
            help="How long the old token stays valid, like 10m; 0 ends it at once. By default 10m for self, else 0.",
        ),
    ] = None,
    token_out: TokenOutOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Give a service a new token. The old one ends at once, or after --grace; `self` is the service that calls."""
    body = _lifetime("ttl", ttl, "max_ttl", max_ttl)
    if grace or service == SELF:
        body["grace"] = span(grace or OWN_GRACE, "--grace")
    check_token_out(token_out)
    with connect() as client:
        _show_token(_renew(client, service, body), output, token_out, service)


def _lifetime(ttl_name: str, ttl: str | None, max_ttl_name: str, max_ttl: str | None) -> Json:
    """What is given of a lifetime, in seconds."""
    given = ((ttl_name, ttl, "--ttl"), (max_ttl_name, max_ttl, "--max-ttl"))
    return {name: span(text, option) for name, text, option in given if text is not None}


@app.command("ls")
def ls(*, limit: LimitOption = 0, wide: WideOption = False, output: OutputOption = Format.TABLE) -> None:
    """List the services."""
    with connect() as client:
        listing = client.collect("/services", limit=limit or None)
    show_list(
        listing,
        output,
        Columns(
            ("NAME", "ROLE", "ACTIVE", "EXPIRES", "GRANTS", "ID"),
            dropped=("ID", "EXPIRES", "GRANTS"),
            cut=("NAME", "GRANTS"),
        ),
        lambda service: (
            service["name"],
            service["role"],
            _state(service),
            when(service.get("expires_at")),
            _grants(service),
            service["id"],
        ),
        wide=wide,
    )


@app.command("show")
def show_one(service: ServiceArgument, *, output: OutputOption = Format.TABLE) -> None:
    """Show one service."""
    with connect() as client:
        show(client.get(_path(service)), output, record)


@app.command("grant")
def add_grants(service: ServiceArgument, grants: GrantArgument, *, output: OutputOption = Format.TABLE) -> None:
    """Allow a service more."""
    added = [grant(text) for text in grants]

    def allow(held: Held) -> None:
        for entry in added:
            held[entry["key"]] = [*held.get(entry["key"], ()), *entry["actions"]]

    with connect() as client:
        show(_change_grants(client, service, allow), output, record)


@app.command("revoke")
def remove_grants(
    service: ServiceArgument,
    grants: Annotated[list[str], typer.Argument(metavar="KEY[=ACTION,…]", help="'orders-*', or some of its actions.")],
    *,
    output: OutputOption = Format.TABLE,
) -> None:
    """Allow a service less: whole grants, or some actions of them."""

    def allow_less(held: Held) -> None:
        for text in grants:
            whole = text in held or "=" not in text
            removed = {"key": text, "actions": held.get(text, ())} if whole else grant(text)
            key, actions = removed["key"], removed["actions"]
            if key not in held:
                raise CheckFailed(f"{service} has no grant on {key}")
            held[key] = [action for action in held[key] if action not in actions]

    with connect() as client:
        show(_change_grants(client, service, allow_less), output, record)


@app.command("update")
def update(
    service: ServiceArgument,
    *,
    role: Annotated[Role | None, typer.Option("--role", "-r", case_sensitive=False, help="What it may.")] = None,
    expires: ExpiresOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Change a service's role or expiry."""
    body: Json = {} if role is None else {"role": role}
    if expires:
        body["expires_at"] = expires if expires == NEVER else parse_moment(expires, "--expires")
    if not body:
        raise CannotRun("nothing to change: say --role or --expires")
    with connect() as client:
        show(client.change("PATCH", _path(service), body), output, record)


@app.command("activate")
def activate(service: ServiceArgument, *, output: OutputOption = Format.TABLE) -> None:
    """Let a deactivated service in again."""
    with connect() as client:
        show(client.change("PATCH", _path(service), {"active": True}), output, record)


@app.command("deactivate")
def deactivate(service: ServiceArgument, *, output: OutputOption = Format.TABLE) -> None:
    """Refuse a service from now on, without forgetting it."""
    with connect() as client:
        show(client.change("PATCH", _path(service), {"active": False}), output, record)


@app.command("aws-credentials")
def aws_credentials(
    service: ServiceArgument,
    *,
    ls: Annotated[bool, typer.Option("--list", help="List the access keys there are instead of making one.")] = False,
    revoke: Annotated[
        str | None,
        typer.Option("--revoke", metavar="ACCESS_KEY_ID", help="End an access key instead; it dies at once."),
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Give a service credentials for clients of AWS KMS. The secret is shown this once."""
    path = _path(service, "aws-credentials")
    with connect() as client:
        if ls or revoke is not None:
            revocation = {"access_key_id": revoke}
            reply = client.get(path) if revoke is None else client.change("POST", f"{path}/revoke", revocation)
            show(reply, output, _access_keys)
            return
        reply = client.change("POST", path)
    made = reply.json()
    if made.get("secret_access_key") is None:
        # As for tokens: a repeated call gets the first answer again, and no secret.
        raise CheckFailed(
            f"done, but the answer with the secret was lost: revoke {made.get('access_key_id')} and make another"
        )
    show(reply, output, _members)
    if output is Format.TABLE:
        note("the secret is shown this once: keep it where only this service reads it")


def _change_grants(client: Client, service: str, change: Callable[[Held], None]) -> Reply:
    """Change the grants that were read, if they are still those by then: what others do meanwhile is not undone."""
    for attempt in range(1, ATTEMPTS + 1):
        before = client.get(_path(service)).json()["grants"]
        held: Held = {}
        for entry in before:
            held[entry["key"]] = [*held.get(entry["key"], ()), *entry["actions"]]
        change(held)
        body = {"grants": _as_grants(held), "expected_grants": before}
        try:
            return client.change("PATCH", _path(service), body)
        except Refused as refused:
            if refused.code != "conflict" or attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def _members(answer: Json) -> Record:
    """A flat object as it is."""
    return list(answer.items())


def _access_keys(answer: Json) -> Record:
    return [(one["access_key_id"], when(one["created_at"])) for one in answer["items"]]


def _path(service: str, *rest: str) -> str:
    return "/".join(("/services", segment(service), *rest))


def _as_grants(held: Held) -> list[Json]:
    return [{"key": key, "actions": sorted(set(actions))} for key, actions in held.items() if actions]


def _renew(client: Client, service: str, body: Json) -> Reply:
    """Ask for a new token. The one that asks may be the one that dies: then a repetition cannot be answered."""
    before = client.sent
    try:
        return client.change("POST", _path(service, "token"), body or None)
    except Refused as refused:
        if refused.code != "unauthenticated" or client.sent == before + 1:
            raise
        raise CheckFailed(
            "the token was probably renewed and the answer with the new one lost: the token that asked does not hold "
            f"any more. An ADMIN gives a new one: `kvl service token {service}`, or on the vault's host "
            "`kvl init --recover-admin`",
        ) from None


def _show_token(reply: Reply, output: Format, token_out: Path | None, service: str) -> None:
    import json

    answer = reply.json()
    issued = answer.get("token")
    if not isinstance(issued, str):
        # A repeated call gets the first answer again, and the vault keeps no token to repeat.
        raise CheckFailed(
            f"done, but the answer with the token was lost: `kvl service token {service}` gives a new one"
        )
    with not_lost(f"`kvl service token {service}` by an ADMIN gives another"):
        if token_out is not None:
            write_new_secret(token_out, issued + "\n")
            reply = Reply(json.dumps({**answer, "token": None}, ensure_ascii=False), reply.audit_id)
        else:
            show(reply, output, record)
    if token_out is not None:
        show(reply, output, record)
        note(f"the token is in {token_out}")
    elif output is Format.TABLE:
        note("the token is shown this once: keep it where only this service reads it")
