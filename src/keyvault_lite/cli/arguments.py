"""Arguments that several commands take, and how their text becomes values."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer

from keyvault_lite.cli.failure import CannotRun
from keyvault_lite.client.api import Json
from keyvault_lite.model.identity import Permission

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="A key's name or id.")]
ServiceArgument = Annotated[str, typer.Argument(metavar="SERVICE", help="A service's name or id.")]
ContextOption = Annotated[
    list[str] | None,
    typer.Option("--context", metavar="NAME=VALUE", help="Authenticated with the data, never stored; may be repeated."),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_SPAN: Final = re.compile(r"([1-9][0-9]{0,5})([smhdw])", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def mapping(texts: list[str] | None, option: str) -> dict[str, str]:
    """NAME=VALUE texts as a mapping. Raises CannotRun for a text without =, an empty or a repeated name."""
    values: dict[str, str] = {}
    for text in texts or ():
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise CannotRun(f"{option} is written NAME=VALUE")
        if name in values:
            raise CannotRun(f"{option} names {name} twice")
        values[name] = value
    return values


def grant(text: str) -> Json:
    """`orders-*=encrypt,decrypt` as a grant. Raises CannotRun for anything else."""
    key, separator, actions = text.rpartition("=")
    words = [word.strip() for word in actions.split(",")]
    known = [permission.value for permission in Permission]
    if not separator or not key or any(word not in known for word in words):
        raise CannotRun(f"a grant is written KEY=ACTION,… with actions out of {', '.join(known)}")
    return {"key": key, "actions": [permission for permission in known if permission in words]}


def span(text: str, option: str) -> int:
    """A span like 90d or 10m, or 0, in seconds."""
    found = _SPAN.fullmatch(text)
    if found is None and text != "0":
        raise CannotRun(f"{option} is a span like 90d, 12h or 10m, or 0")
    return int(timedelta(**{_UNITS[found[2]]: int(found[1])}).total_seconds()) if found else 0


def parse_moment(text: str, option: str, *, ago: bool = False) -> str:
    """A time in RFC 3339, or a span like 90d or 12h from now (back from now with `ago`), as the API takes it."""
    if span := _SPAN.fullmatch(text):
        distance = timedelta(**{_UNITS[span[2]]: int(span[1])})
        now = datetime.now(UTC)
        return _write(now - distance if ago else now + distance)
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        value = None
    if value is None or value.tzinfo is None:
        raise CannotRun(f"{option} is a time like 2027-01-31T12:00:00Z or a span like 90d, 12h or 30m")
    return _write(value.astimezone(UTC))


def _write(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
