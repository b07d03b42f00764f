"""From parsed JSON to typed fields, by msgspec or pydantic.

What these libraries say is translated, never shown: their messages quote what was submitted. Ours name the place, and
of the place only names we know ourselves.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Final, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from keyvault_lite.model.encoding import decode_base64
from keyvault_lite.model.errors import InvalidRequest

B = TypeVar("B", bound=msgspec.Struct)
M = TypeVar("M", bound=BaseModel)


class Body(BaseModel):
    """Base of the shapes read by pydantic: no coercion, no unknown field."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""Text that is stored: any, but for NUL, which PostgreSQL cannot hold."""

_STRUCT_PLACE: Final = re.compile(r" - at `\$((?:\.[a-z_]+|\[\.\.\.\]|\[\d+\])*)`$", re.ASCII)
_STRUCT_EXPECTED: Final = re.compile(r"Expected `([a-z]+)")
_STRUCT_MISSING: Final = re.compile(r"Object missing required field `([a-z_]+)`")
_KINDS: Final[Mapping[str, str]] = {
    "str": "text",
    "int": "an integer",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
}
_MODEL_KINDS: Final[Mapping[str, str]] = {
    "string_type": "text",
    "int_type": "an integer",
    "bool_type": "true or false",
    "dict_type": "an object",
    "model_type": "an object",
    "list_type": "a list",
}


def _refusal(place: str, kind: str | None) -> InvalidRequest:
    expected = f"takes {kind}" if kind else "does not take this value"
    return InvalidRequest(f"{place or 'the body'} {expected}")


def convert(value: object, shape: type[B]) -> B:
    """Read a value into a struct. Raises InvalidRequest."""
    try:
        return msgspec.convert(value, shape, strict=True)
    except msgspec.ValidationError as error:
        raise _explain_struct(str(error), frozenset(shape.__struct_fields__)) from None


def _explain_struct(message: str, known: frozenset[str]) -> InvalidRequest:
    if message.startswith("Object contains unknown field"):
        return InvalidRequest("an unknown field; the documentation lists the fields there are")
    missing = _STRUCT_MISSING.match(message)
    if missing is not None:
        return InvalidRequest(f"the field {missing[1]} is missing")
    found = _STRUCT_PLACE.search(message)
    place = found[1].removeprefix(".") if found is not None else ""
    if re.split(r"[.\[]", place)[0] not in known:
        place = ""
    expected = _STRUCT_EXPECTED.match(message)
    return _refusal(place, _KINDS.get(expected[1]) if expected is not None else None)


def validate(value: object, shape: type[M]) -> M:
    """Read a value into a pydantic model. Raises InvalidRequest."""
    if isinstance(value, dict) and not _names(shape).issuperset(value):
        raise InvalidRequest("an unknown field; the documentation lists the fields there are")
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if first["type"] == "enum" and len(first["loc"]) == 1 and (values := _choices(shape, first["loc"])):
            raise InvalidRequest(f"{first['loc'][0]} is one of {', '.join(values)}") from None
        raise _explain_model(first["type"], first["loc"], _names(shape)) from None


def _names(shape: type[BaseModel]) -> frozenset[str]:
    return frozenset(field.alias or name for name, field in shape.model_fields.items())


@lru_cache
def _choices(shape: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, ...]:
    """What the document says a field of the body itself takes, if it takes one of a few words."""
    schema = shape.model_json_schema()
    field = schema["properties"].get(location[0], {}) if len(location) == 1 else {}
    for option in (field, *field.get("anyOf", ())):
        words = schema["$defs"][option["$ref"].rpartition("/")[2]] if "$ref" in option else option
        if "enum" in words:
            return tuple(words["enum"])
    return ()


def _explain_model(kind: str, location: Sequence[int | str], known: frozenset[str]) -> InvalidRequest:
    if kind == "extra_forbidden":
        return InvalidRequest("an unknown field; the documentation lists the fields there are")
    # Past the first name a part may be the caller's own (the name of a tag): only a position is safe to show.
    names = [str(part) for part in location[:1] if part in known]
    place = "".join(names + [f"[{part}]" for part in location[1:2] if isinstance(part, int)])
    if kind == "missing":
        return InvalidRequest(f"the field {place} is missing" if len(location) == 1 else f"{place} lacks a field")
    return _refusal(place, _MODEL_KINDS.get(kind))


def field_bytes(name: str, text: str) -> bytes:
    """Decode a field of strict base64. Raises InvalidRequest naming the field."""
    try:
        return decode_base64(text)
    except InvalidRequest as error:
        raise InvalidRequest(f"{name} is {error.detail}") from None
