"""JSON that two parsers cannot understand differently: duplicate names, NaN and infinities are refused.

The reader of request bodies (wire/reader.py) uses the same decoder, behind limits on size and nesting.
"""

import json
from typing import Final

from keyvault_lite.model.errors import MalformedRequest

_INT64_DIGITS: Final = 20  # of the longest 64-bit integer, sign included


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedRequest("an object has the same name twice")
    return members


def _integer(digits: str) -> int | float:
    # An integer beyond 64 bits fits no field. As a float it is refused like one: by type, where its field is known.
    return int(digits) if len(digits) <= _INT64_DIGITS else float(digits)


def _refuse_constant(_: str) -> object:
    raise MalformedRequest("NaN and infinities are not JSON")


DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_integer, parse_constant=_refuse_constant)


def read_text(text: str) -> object:
    """Parse one JSON text. Raises MalformedRequest, with a detail that repeats nothing of the text."""
    try:
        value = DECODER.decode(text)
        if "\\u" in text:  # only an escape can bring in half a surrogate pair
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise MalformedRequest("the text is not Unicode") from None
    except (ValueError, RecursionError):
        raise MalformedRequest("the text is not valid JSON") from None
    return value
