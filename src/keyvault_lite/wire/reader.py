"""The strict readers of untrusted text: one for JSON, one for query strings. All dialects and both roads use them.

What two parsers could understand differently is refused: other encodings than UTF-8, a byte order mark, duplicate
names, NaN and infinities, lone surrogates, nesting beyond what any operation needs.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qsl

from keyvault_lite.model.errors import InvalidRequest, MalformedRequest
from keyvault_lite.model.strict_json import DECODER

MAX_DEPTH: Final = 32
MAX_PARTS: Final = 200_000
"""Commas and colons of a text: the largest batch there is has a fifth, and a tenth of a second is for so many."""
MAX_PARAMETERS: Final = 32
_STRINGS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""Strings, the last one also without its end. It never goes back: what no string begins with is looked at once."""
_PLAIN_STRINGS: Final = re.compile(rb'"[^"]*"')
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"{}[]"))
_NO_SHAPE: Final = bytes(set(_NO_BRACKETS) - set(b'"'))
_ONE_KIND: Final = bytes.maketrans(b"[]", b"{}")


_scan: Final[Callable[[str, int], tuple[object, int]]] = DECODER.scan_once  # type: ignore[attr-defined]  # undocumented in typeshed


def _check_depth(body: bytes) -> None:
    """Refuse nesting that could exhaust a recursive parser's stack, before one sees it."""
    if body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        return  # fewer brackets than levels: true of nearly every request, at the price of two scans
    if b"\\" in body:
        shape = _STRINGS.sub(b"", body).translate(_ONE_KIND, _NO_BRACKETS)
    else:  # a string ends at the next quote: what is in none of them is left out before they are looked for
        shape = _PLAIN_STRINGS.sub(b"", body.translate(_ONE_KIND, _NO_SHAPE))
    # Each round takes away the innermost level and no other, because all brackets are of one kind: of two kinds it
    # would take away two where they alternate. Which belongs to which, the parser finds.
    for _ in range(MAX_DEPTH):
        if not shape:
            return
        shape = shape.replace(b"{}", b"")
    if shape:
        raise MalformedRequest(f"the body is nested deeper than {MAX_DEPTH} levels, or not balanced")


def read_json(body: bytes) -> object:
    """Parse one JSON text. Raises MalformedRequest, with a detail that repeats nothing of the text."""
    _check_depth(body)
    if len(body) > MAX_PARTS and body.count(b",") + body.count(b":") > MAX_PARTS:
        raise MalformedRequest(f"the body has more than {MAX_PARTS} parts")
    try:
        text = body.decode()
        value = _decode(text)
        if "\\u" in text:
            # Only an escape can bring in half a surrogate pair: the decoding above refused it in UTF-8.
            json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeDecodeError, UnicodeEncodeError):
        raise MalformedRequest("the body is not Unicode text in UTF-8") from None
    except (json.JSONDecodeError, ValueError):
        raise MalformedRequest("the body is not valid JSON") from None
    return value


def _decode(text: str) -> object:
    # As `decode`, without its two searches for white space around the value, where clients leave none.
    if text.startswith("{"):
        try:
            value, end = _scan(text, 0)
        except StopIteration:
            pass
        else:
            if end == len(text):
                return value
    return DECODER.decode(text)


def refuse_query(parameters: Mapping[str, str]) -> None:
    """Refuse all parameters, where none are known."""
    if parameters:
        raise InvalidRequest("there is no such query parameter")


def read_query(query: bytes) -> dict[str, str]:
    """Parse a query string. Raises InvalidRequest for repeated parameters and for text that is not UTF-8."""
    if not query:
        return {}
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError:
        raise InvalidRequest("the query string does not parse") from None
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise InvalidRequest("a query parameter is repeated")
    return parameters


def read_parameters(query: bytes) -> dict[str, str | list[str]]:
    """As `read_query`, for who looks at some parameters and ignores the rest. One without a value is empty.

    A repeated one is the list of its values, which no field of a single value takes: two readers cannot differ on it.
    """
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise InvalidRequest("the query string does not parse") from None
    parameters: dict[str, list[str]] = {}
    for name, value in pairs:
        parameters.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in parameters.items()}
