"""The strict readers of untrusted text: one for JSON, one for query strings. All dialects and both roads use them.

What two parsers could understand differently is refused: other encodings than UTF-8, a byte order mark, duplicate
names, NaN and infinities, lone surrogates, nesting beyond what any operation needs.

A text that takes longer than a millisecond or two is not given to the parser in C as a whole, but read in steps
(`stepwise.py`), which a server spreads over turns of its loop.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qsl

from keyvault_lite.engine.cooperative import Steps, run_to_end
from keyvault_lite.model.errors import InvalidRequest, MalformedRequest
from keyvault_lite.model.strict_json import DECODER
from keyvault_lite.wire.incremental_json import StepReader, invalid

MAX_DEPTH: Final = 32
MAX_PARTS: Final = 200_000
"""Values in a text: the largest batch there is has a fifth of it."""
QUICK_SIZE: Final = 4 * 1024
"""Bytes of a text that is quick to read whatever it is."""
QUICK_TEXT: Final = 256 * 1024
"""Bytes of a text that is quick to read if it has no more than QUICK_PARTS."""
QUICK_PARTS: Final = 2_000
"""Brackets, commas and colons."""
MAX_PARAMETERS: Final = 32
_STRINGS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""Strings, the last one also without its end. It never goes back: what no string begins with is looked at once."""
_PLAIN_STRINGS: Final = re.compile(rb'"[^"]*"')
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"{}[]"))
_NO_SHAPE: Final = bytes(set(_NO_BRACKETS) - set(b'"'))
_ONE_KIND: Final = bytes.maketrans(b"[]", b"{}")
_PARTS: Final = (b"[", b"{", b",", b":")


_scan: Final[Callable[[str, int], tuple[object, int]]] = DECODER.scan_once  # type: ignore[attr-defined]  # undocumented in typeshed


def _check_depth(body: bytes | bytearray) -> None:
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


def is_quick(body: bytes | bytearray) -> bool:
    """Whether a text can be read at once without holding anybody up."""
    if len(body) <= QUICK_SIZE:
        return True
    return len(body) <= QUICK_TEXT and sum(map(body.count, _PARTS)) <= QUICK_PARTS


def read_json(body: bytes | bytearray) -> object:
    """Parse one JSON text. Raises MalformedRequest, with a detail that repeats nothing of the text."""
    return _read_quick(body) if is_quick(body) else run_to_end(read_in_steps(body))


def read_in_steps(body: bytes | bytearray) -> Steps[object]:
    """As `read_json`, in steps: of a text that is not quick. A LongText stands for a text beyond its size."""
    return StepReader(body, _scan, max_depth=MAX_DEPTH, max_parts=MAX_PARTS).read()


def _read_quick(body: bytes | bytearray) -> object:
    _check_depth(body)
    try:
        text = body.decode()
        value = _decode(text)
        if "\\u" in text:
            # Only an escape can bring in half a surrogate pair: the decoding above refused it in UTF-8.
            json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeDecodeError, UnicodeEncodeError):
        raise MalformedRequest("the body is not Unicode text in UTF-8") from None
    except (json.JSONDecodeError, ValueError):
        raise invalid() from None
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
    """As `read_query`, for callers that use some parameters and ignore the rest. One without a value is empty.

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
