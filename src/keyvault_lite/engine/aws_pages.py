"""Lists of the AWS dialect in pages: sorted by a text, and a marker is the text of the last item given."""

from collections.abc import Iterable
from typing import Final, TypeVar

from keyvault_lite.model.aws_errors import InvalidMarker
from keyvault_lite.model.encoding import decode_base64, encode_base64
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.replies import Page

T = TypeVar("T")
KEYS: Final = 100
OTHERS: Final = 50
"""How many items a page has if the caller does not say, of keys and aliases and of all else."""


def write_marker(text: str) -> str:
    """The marker behind the item of that text."""
    return encode_base64(text.encode())


def read_marker(marker: str) -> str:
    """The text of the last item given. Raises InvalidMarker."""
    try:
        return decode_base64(marker).decode()
    except (InvalidRequest, UnicodeDecodeError):
        raise InvalidMarker from None


def page(items: Iterable[tuple[str, T]], limit: int | None, marker: str | None, *, default: int = OTHERS) -> Page[T]:
    """One page of the items with their texts, which MUST be unique."""
    size = limit or default
    after = None if marker is None else read_marker(marker)
    rest = sorted((item for item in items if after is None or item[0] > after), key=lambda item: item[0])
    more = len(rest) > size
    return Page(tuple(item for _, item in rest[:size]), write_marker(rest[size - 1][0]) if more else None)
