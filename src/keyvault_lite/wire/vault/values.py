"""Values as this dialect's clients send them: loosely typed, as the products read them.

Text may come as a number, numbers and truth values as text, periods as "24h" or seconds. An empty value is an absent
one where the products take it so. What does not fit is refused with the field's name and never with its value.
"""

import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.wire.incremental_json import LongText

Fields = Mapping[str, Any]
_INTEGER: Final = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_TRUE: Final = frozenset({"1", "t", "T", "true", "True", "TRUE"})
_FALSE: Final = frozenset({"0", "f", "F", "false", "False", "FALSE", ""})
_SECOND: Final = 10**9
_DAY: Final = 86_400
_UNITS: Final = {
    "ns": 1,
    "us": 10**3,
    "\N{MICRO SIGN}s": 10**3,
    "\N{GREEK SMALL LETTER MU}s": 10**3,
    "ms": 10**6,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3600 * _SECOND,
}
"""Nanoseconds."""
_AMOUNT: Final = rf"(?:\d+(?:\.\d*)?|\.\d+)(?:{'|'.join(_UNITS)})"
_DURATION: Final = re.compile(rf"[+-]?(?:{_AMOUNT})+", re.ASCII)
_PART: Final = re.compile(rf"(\d*)(?:\.(\d*))?({'|'.join(_UNITS)})", re.ASCII)
_DAYS: Final = re.compile(r"[+-]?\d{1,18}d", re.ASCII)
_LONGEST: Final = 2**63 // _SECOND
"""Seconds of the longest period that the products can say."""
_LONGEST_TEXT: Final = 64


def text(fields: Fields, name: str, default: str = "") -> str:
    """A field of text."""
    value = fields.get(name)
    if isinstance(value, str):
        return value
    if value is None:
        return default
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, int):
        return str(value)
    raise InvalidRequest(f"{name} takes text")


def data(fields: Fields, name: str) -> bytes:
    """A field of bytes, in standard base64 with padding; absent is empty."""
    value = fields.get(name)
    if isinstance(value, LongText):
        if value.prefix:
            raise _illegal(name)
        return value.data
    return decode(value if isinstance(value, str) else text(fields, name), name)


def decode(value: str, name: str) -> bytes:
    """Standard base64 with padding; line breaks inside do not count."""
    if not value:
        return b""
    if not value.isascii():
        raise _illegal(name)
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        pass
    try:
        return binascii.a2b_base64(value.replace("\n", "").replace("\r", ""), strict_mode=True)
    except ValueError:
        raise _illegal(name) from None


def _illegal(name: str) -> InvalidRequest:
    return InvalidRequest(f"{name}: illegal base64 data")


def optional_data(fields: Fields, name: str) -> bytes | None:
    """As `data`; an empty value is none."""
    return data(fields, name) or None if name in fields else None


def number(fields: Fields, name: str, default: int = 0) -> int:
    """A field of a whole number."""
    found = optional_number(fields, name) if name in fields else None
    return default if found is None else found


def optional_number(fields: Fields, name: str) -> int | None:
    """As `number`; None if absent or empty."""
    value = fields.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    raise InvalidRequest(f"{name} takes a whole number")


def flag(fields: Fields, name: str) -> bool:
    """A truth value; absent is false."""
    return name in fields and bool(optional_flag(fields, name))


def optional_flag(fields: Fields, name: str) -> bool | None:
    """A truth value; None if absent."""
    value = fields.get(name)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value != 0
    if isinstance(value, str) and value in _TRUE | _FALSE:
        return value in _TRUE
    raise InvalidRequest(f"{name} takes true or false")


def optional_period(fields: Fields, name: str) -> int | None:
    """A period in seconds, from "24h", "1h30m", "1.5h", "500ms", "2d", "3600" or 3600; None if absent or empty.

    The grammar is that of Go's durations, with whole days beside. Fractions of a second do not count, but what is more
    than nothing is a second at least: 0 means "none" or "without end" in most fields, which nobody asked for.
    """
    value = fields.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str) and len(value) <= _LONGEST_TEXT:
        seconds = _seconds(value)
    else:
        seconds = value if isinstance(value, int) and not isinstance(value, bool) else None
    if seconds is None or seconds < 0:
        raise InvalidRequest(f"{name} is not a period: it is seconds, or numbers with units, as in 1h30m")
    if seconds > _LONGEST:
        raise InvalidRequest(f"{name} is too long a period")
    return seconds


def _seconds(value: str) -> int | None:
    """Seconds of a text; None if it is not a period."""
    if _INTEGER.fullmatch(value):
        return int(value)
    if _DAYS.fullmatch(value):
        return int(value[:-1]) * _DAY
    if not _DURATION.fullmatch(value):
        return None
    total = sum(_nanoseconds(*part) for part in _PART.findall(value))
    seconds = max(total // _SECOND, 1) if total else 0
    return -seconds if value.startswith("-") else seconds


def _nanoseconds(whole: str, part: str, unit: str) -> int:
    scale: int = 10 ** len(part)
    return (int(whole or 0) * scale + int(part or 0)) * _UNITS[unit] // scale


def texts(fields: Fields, name: str) -> tuple[str, ...]:
    """A list of text, or text with commas."""
    value = fields.get(name)
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise InvalidRequest(f"{name} takes a list of text")


def objects(fields: Fields, name: str) -> list[Fields]:
    """A list of objects."""
    value = fields[name]
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise InvalidRequest(f"{name} takes a list of objects")
    return value


def mapping(fields: Fields, name: str) -> Fields:
    """An object; absent is empty."""
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} takes an object")
    return value


_PREFIXED: Final = re.compile(r"vault:v(\d{1,9}):", re.ASCII)


def prefixed(value: str, what: str) -> tuple[int, str]:
    """Version and body text of `vault:v<N>:<text>`."""
    found = _PREFIXED.match(value)
    if found is None:
        raise InvalidRequest(f"invalid {what}: no prefix")
    return int(found[1]), value[found.end() :]


def prefixed_data(fields: Fields, name: str) -> tuple[int, bytes] | None:
    """Version and body of such a field, where the body is base64; None if it is absent."""
    given = fields.get(name)
    if isinstance(given, LongText):
        version, rest = prefixed(given.prefix, name)
        if rest:
            raise _illegal(name)
        return version, given.data
    value = text(fields, name)
    if not value:
        return None
    version, body = prefixed(value, name)
    return version, decode(body, name)
