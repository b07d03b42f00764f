"""`kvl key …`: make keys, read them, and lead them through their lives."""

from typing import Annotated, Final, Literal

import typer

from keyvault_lite.cli.arguments import KeyArgument, YesOption, mapping
from keyvault_lite.cli.environment import connect
from keyvault_lite.cli.failure import CannotRun
from keyvault_lite.cli.files import OutOption, writing
from keyvault_lite.cli.output import (
    MIN_CUT,
    Columns,
    Format,
    LimitOption,
    OutputOption,
    Record,
    WideOption,
    confirm,
    pairs,
    show,
    show_list,
    when,
)
from keyvault_lite.client.api import Json, segment
from keyvault_lite.model.keys import (
    MAX_DESTROY_DAYS,
    MAX_ROTATION_DAYS,
    MIN_DESTROY_DAYS,
    PURPOSES,
    KeyStatus,
    KeyType,
    PublicKeyFormat,
)

app = typer.Typer(help="Make, read, rotate, revoke and destroy keys.", no_args_is_help=True)

# What the native API makes; dialects have kinds of their own. A test holds these to model/keys.py.
NativeType = Literal["AES", "RSA", "EC", "ED25519", "HMAC", "ML-DSA"]
NativePurpose = Literal["ENCRYPT", "SIGN", "MAC"]

ID_LENGTH: Final = 36
"""Characters of an id."""

TagOption = Annotated[list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="A label; may be repeated.")]


def _record(key: Json) -> Record:
    rotation = key.get("rotation") or {}
    record = [
        ("name", key["name"]),
        ("id", key["id"]),
        ("type", _kind(key)),
        ("purpose", key["purpose"]),
        ("status", key["status"]),
        ("active version", key["active_version"]),
        ("versions", key["versions_count"]),
        ("created", when(key["created_at"])),
        ("description", key["description"] or None),
        ("tags", pairs(key["tags"])),
        ("rotated every", f"{rotation['period_days']} days" if rotation.get("period_days") else None),
        ("next rotation", when(rotation.get("next_at"))),
    ]
    if key.get("aliases"):
        record.insert(1, ("aliases", ", ".join(key["aliases"])))
    if key.get("destroy_at"):
        destroyed = key["status"] == KeyStatus.DESTROYED
        record.append(("destroyed at" if destroyed else "to be destroyed", when(key["destroy_at"])))
    return record


def _kind(key: Json) -> str:
    if key.get("spec"):
        return str(key["spec"])
    return f"{key['type']} {key['size']}" if key.get("size") else str(key["type"])


@app.command("create")
def create(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Unique; without it there is the id.")] = None,
    *,
    type: Annotated[NativeType, typer.Option("--type", "-t", case_sensitive=False, help="The family.")] = "AES",
    size: Annotated[
        int | None, typer.Option("--size", "-s", help="Bits, or the ML-DSA parameter set; without it the usual one.")
    ] = None,
    purpose: Annotated[
        NativePurpose | None, typer.Option("--purpose", "-p", case_sensitive=False, help="What for; RSA needs it said.")
    ] = None,
    description: Annotated[str, typer.Option("--description", "-d", help="For people.")] = "",
    tag: TagOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Generate a key with its first version."""
    fits = PURPOSES[KeyType(type)]
    if purpose is None and len(fits) > 1:
        raise CannotRun(f"a key of type {type} needs --purpose {' or '.join(fits)}")
    body: Json = {"type": type, "purpose": purpose or fits[0]}
    given = {"name": name, "size": size, "description": description or None, "tags": mapping(tag, "--tag") or None}
    body |= {field: value for field, value in given.items() if value is not None}
    with connect() as client:
        show(client.change("POST", "/keys", body), output, _record)


@app.command("ls")
def ls(*, limit: LimitOption = 0, wide: WideOption = False, output: OutputOption = Format.TABLE) -> None:
    """List the keys you may know of."""
    with connect() as client:
        listing = client.collect("/keys", limit=limit or None)
    named = all(key["name"] or key.get("aliases") for key in listing.items)
    show_list(
        listing,
        output,
        Columns(
            ("NAME", "TYPE", "PURPOSE", "STATUS", "ACTIVE", "VERSIONS", "CREATED", "ID"),
            dropped=("ID", "CREATED", "VERSIONS", "ACTIVE", "PURPOSE"),
            cut=("NAME", "TYPE"),
            least=MIN_CUT if named else ID_LENGTH,  # a part of an id names nothing
        ),
        lambda key: (
            key["name"] or next(iter(key.get("aliases") or ()), key["id"]),
            _kind(key),
            key["purpose"],
            key["status"],
            key["active_version"],
            key["versions_count"],
            when(key["created_at"]),
            key["id"],
        ),
        wide=wide,
    )


@app.command("show")
def show_one(key: KeyArgument, *, output: OutputOption = Format.TABLE) -> None:
    """Show one key."""
    with connect() as client:
        show(client.get(_path(key)), output, _record)


@app.command("versions")
def versions(key: KeyArgument, *, limit: LimitOption = 0, output: OutputOption = Format.TABLE) -> None:
    """List the versions of a key."""
    with connect() as client:
        listing = client.collect(_path(key, "versions"), limit=limit or None)
    show_list(
        listing,
        output,
        Columns(("VERSION", "STATUS", "CREATED")),
        lambda version: (version["version"], version["status"], when(version["created_at"])),
    )


@app.command("public-key")
def public_key(
    key: KeyArgument,
    *,
    version: Annotated[int | None, typer.Option("--version", min=1, help="Which; without it the newest.")] = None,
    format: Annotated[
        PublicKeyFormat, typer.Option("--format", "-f", help="der and raw are written as bytes.")
    ] = PublicKeyFormat.PEM,
    out: OutOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Write out the public key."""
    with connect() as client:
        reply = client.get(_path(key, "public-key"), {"version": version, "format": format})
    content, binary = _written(reply.json()["public_key"], format)
    if output is Format.JSON:
        content, binary = reply.text.encode() + b"\n", False
    with writing(out, binary=binary) as stream:
        stream.write(content)


def _written(public: object, format: PublicKeyFormat) -> tuple[bytes, bool]:
    """What goes into the file, and whether it is binary."""
    import base64
    import json

    if isinstance(public, dict):
        return json.dumps(public, indent=2).encode() + b"\n", False
    if format is PublicKeyFormat.PEM:
        return str(public).rstrip("\n").encode() + b"\n", False
    return base64.b64decode(str(public)), True


@app.command("update")
def update(
    key: KeyArgument,
    *,
    description: Annotated[str | None, typer.Option("--description", "-d", help="For people.")] = None,
    tag: TagOption = None,
    no_tags: Annotated[bool, typer.Option("--no-tags", help="Remove all tags.")] = False,
    rotate_every: Annotated[
        int | None,
        typer.Option("--rotate-every", min=0, max=MAX_ROTATION_DAYS, metavar="DAYS", help="By itself; 0 is never."),
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Change description, tags (the given ones replace all) or the rotation period."""
    tags = {} if no_tags else mapping(tag, "--tag") or None
    given = {"description": description, "tags": tags, "rotation_period_days": rotate_every}
    body = {field: value for field, value in given.items() if value is not None}
    if not body:
        raise CannotRun("nothing to change: say --description, --tag, --no-tags or --rotate-every")
    with connect() as client:
        show(client.change("PATCH", _path(key), body), output, _record)


@app.command("rotate")
def rotate(key: KeyArgument, *, output: OutputOption = Format.TABLE) -> None:
    """Make a new ACTIVE version; the former one only decrypts and verifies from then on."""
    _change(key, "rotate", output)


@app.command("disable")
def disable(key: KeyArgument, *, output: OutputOption = Format.TABLE) -> None:
    """Stop all use of a key until it is enabled again."""
    _change(key, "disable", output)


@app.command("enable")
def enable(key: KeyArgument, *, output: OutputOption = Format.TABLE) -> None:
    """Allow use of a disabled key again."""
    _change(key, "enable", output)


@app.command("revoke")
def revoke(
    key: KeyArgument,
    *,
    version: Annotated[int | None, typer.Option("--version", min=1, help="This one only, not the ACTIVE.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Recorded in the audit log.")] = None,
    yes: YesOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Revoke a key, or one version of it, for ever: what it encrypted cannot be decrypted any more."""
    what = f"version {version} of {key}" if version else f"the whole key {key}"
    confirm(f"Revoke {what}? This is final: what it encrypted stays unreadable.", yes=yes)
    given = {"version": version, "reason": reason}
    _change(key, "revoke", output, {field: value for field, value in given.items() if value is not None})


@app.command("destroy")
def destroy(
    key: KeyArgument,
    *,
    days: Annotated[
        int, typer.Option("--days", min=MIN_DESTROY_DAYS, max=MAX_DESTROY_DAYS, help="Until then it can be restored.")
    ] = MAX_DESTROY_DAYS,
    yes: YesOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Schedule the destruction of all key material."""
    confirm(f"Destroy {key} in {days} days? After that nothing brings it back.", yes=yes)
    _change(key, "destroy", output, {"days": days})


@app.command("restore")
def restore(key: KeyArgument, *, output: OutputOption = Format.TABLE) -> None:
    """Call a scheduled destruction off; the key is DISABLED then, or REVOKED if it was."""
    _change(key, "restore", output)


def _path(key: str, *rest: str) -> str:
    return "/".join(("/keys", segment(key), *rest))


def _change(key: str, verb: str, output: Format, body: Json | None = None) -> None:
    with connect() as client:
        show(client.change("POST", _path(key, verb), body), output, _record)
