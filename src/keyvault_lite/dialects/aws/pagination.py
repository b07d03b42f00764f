"""Lists of the AWS dialect in pages: sorted by a text; a marker is the kind of list and the text of the last item."""

from collections.abc import Iterable
from typing import Final, TypeVar

from keyvault_lite.dialects.aws.errors import InvalidMarker
from keyvault_lite.dialects.aws.requests import KeyListRequest, ListRequest
from keyvault_lite.model.encoding import decode_base64, encode_base64
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.replies import Page
from keyvault_lite.model.requests import Request

T = TypeVar("T")
KEYS: Final = 100
OTHERS: Final = 50
"""How many items a page has if the caller does not say, of keys and of all else."""


def write_marker(request: Request, text: str) -> str:
    """The marker behind the item of that text."""
    return encode_base64(f"{type(request).__name__}/{text}".encode())


def read_marker(request: Request, marker: str) -> str:
    """The text of the last item given. Raises InvalidMarker, also for a marker of another kind of list."""
    try:
        kind, _, text = decode_base64(marker).decode().partition("/")
    except (InvalidRequest, UnicodeDecodeError):
        raise InvalidMarker from None
    if kind != type(request).__name__:
        raise InvalidMarker
    return text


def page(items: Iterable[tuple[str, T]], request: ListRequest | KeyListRequest, *, default: int = OTHERS) -> Page[T]:
    """One page of the items with their texts, which MUST be unique."""
    size = request.limit or default
    after = None if request.marker is None else read_marker(request, request.marker)
    rest = sorted((item for item in items if after is None or item[0] > after), key=lambda item: item[0])
    more = len(rest) > size
    return Page(tuple(item for _, item in rest[:size]), write_marker(request, rest[size - 1][0]) if more else None)
