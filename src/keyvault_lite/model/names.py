"""Names and ids: what each is made of, and how a caller's spelling becomes one of them."""

import re
import uuid
from typing import Final, NewType

from keyvault_lite.model.errors import InvalidRequest

KeyId = NewType("KeyId", str)
"""UUID, lower case, dashed; one spelling only."""
KeyRef = NewType("KeyRef", str)
"""What a caller wrote to name a key: an id or a name. Not yet resolved."""
ServiceId = NewType("ServiceId", str)
"""UUID, lower case, dashed."""
TokenId = NewType("TokenId", str)
"""The public half of a token: 16 base62 characters."""

SYSTEM: Final = ServiceId("00000000-0000-0000-0000-000000000000")
"""The vault itself: initialisation, background jobs and offline commands act under this id. It has no token."""

SELF: Final = "self"
"""The service that calls, where a service is named. No service is given this name."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_ID_LENGTH: Final = 36
_PATTERN: Final = re.compile(r"[A-Za-z0-9._/:*+@=, -]{1,256}", re.ASCII)
_LOOKS_LIKE_ID: Final = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def new_id() -> str:
    """A fresh random UUID (version 4, RFC 9562)."""
    return str(uuid.uuid4())


def is_id(text: str) -> bool:
    """Whether `text` is an id in its one spelling."""
    return len(text) == _ID_LENGTH and _ID.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether `text` may be the name of a key or service: the grammar, and not to be mistaken for an id."""
    return _NAME.fullmatch(text) is not None and _LOOKS_LIKE_ID.fullmatch(text) is None


def check_name(text: str) -> str:
    """Return `text` if it is a name, else raise InvalidRequest."""
    if not is_name(text):
        raise InvalidRequest(
            "a name is 1 to 63 of a-z, 0-9, '.', '_' and '-', begins with a letter or digit, and does not look like"
            " an id"
        )
    return text


def check_pattern(text: str) -> str:
    """Return `text` if it may be in a grant: an id, a name, a dialect name, or one of these with `*` as glob."""
    if _PATTERN.fullmatch(text) is None:
        raise InvalidRequest("a grant's key is an id, a name or a glob over names, of at most 256 characters")
    return text


def matches(pattern: str, name: str) -> bool:
    """Whether a grant's pattern covers a name: `*` stands for any run of characters, all else for itself.

    Each part between two stars takes its leftmost place, so the time is linear; a regular expression would try all
    places (C(63, 16) of them for sixteen stars).
    """
    head, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    *middle, tail = rest
    at, end = len(head), len(name) - len(tail)
    if at > end or not (name.startswith(head) and name.endswith(tail)):
        return False
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
