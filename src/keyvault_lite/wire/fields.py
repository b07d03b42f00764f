"""From parsed JSON to typed fields, by msgspec or pydantic.

What these libraries say is translated, never shown: their messages quote what was submitted. Ours name the place, and
of the place only names we know ourselves; and what the field takes, its limits and choices.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import inspect
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
_STRUCT_LIMIT: Final = re.compile(r"Expected `int` (>=|<=) ([0-9]+)")
_STRUCT_CHOICE: Final = "Invalid enum value"
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
_LIMITS: Final[Mapping[str, tuple[str, str]]] = {
    "greater_than_equal": ("ge", "is at least {}"),
    "less_than_equal": ("le", "is at most {}"),
    "string_too_short": ("min_length", "has a length of at least {}"),
    "string_too_long": ("max_length", "has a length of at most {}"),
    "too_short": ("min_length", "has a length of at least {}"),
    "too_long": ("max_length", "has a length of at most {}"),
    "string_pattern_mismatch": ("pattern", "takes no NUL character"),
}
"""Of each kind of limit: what the library calls its number, and how it is said. The one pattern is that of Text."""


def _refusal(place: str, kind: str | None) -> InvalidRequest:
    expected = f"takes {kind}" if kind else "does not take this value"
    return InvalidRequest(f"{place or 'the body'} {expected}")


def _unknown(fields: Iterable[str]) -> InvalidRequest:
    """The refusal of a field that is not one of those of the body; without them, of a field further inside."""
    named = ", ".join(sorted(fields))
    return InvalidRequest(
        f"an unknown field; the fields are {named}" if named else "an unknown field within a field of the body"
    )


def convert(value: object, shape: type[B]) -> B:
    """Read a value into a struct. Raises InvalidRequest."""
    try:
        return msgspec.convert(value, shape, strict=True)
    except msgspec.ValidationError as error:
        raise _explain_struct(str(error), shape) from None


def _explain_struct(message: str, shape: type[msgspec.Struct]) -> InvalidRequest:
    if message.startswith("Object contains unknown field"):
        inner = message.partition(" - at `$")[2]
        return _unknown(shape.__struct_encode_fields__ if not inner else ())
    missing = _STRUCT_MISSING.match(message)
    if missing is not None:
        return InvalidRequest(f"the field {missing[1]} is missing")
    found = _STRUCT_PLACE.search(message)
    place = found[1].removeprefix(".") if found is not None else ""
    if re.split(r"[.\[]", place)[0] not in shape.__struct_fields__:
        place = ""
    if message.startswith(_STRUCT_CHOICE) and (words := _struct_choices(shape, place)):
        return _one_of(place, words)
    limit = _STRUCT_LIMIT.match(message)
    if limit is not None and place:
        return InvalidRequest(f"{place} is at {'least' if limit[1] == '>=' else 'most'} {limit[2]}")
    expected = _STRUCT_EXPECTED.match(message)
    return _refusal(place, _KINDS.get(expected[1]) if expected is not None else None)


def _one_of(place: str, words: Iterable[str]) -> InvalidRequest:
    return InvalidRequest(f"{place} is one of {', '.join(words)}")


@lru_cache
def _struct_choices(shape: type[msgspec.Struct], name: str) -> tuple[str, ...]:
    """The words that a field takes, if it takes one of a few."""
    about = inspect.type_info(shape)
    if not isinstance(about, inspect.StructType):
        return ()
    return next((_words(one.type) for one in about.fields if one.name == name), ())


def _words(kind: inspect.Type) -> tuple[str, ...]:
    if isinstance(kind, inspect.Metadata):
        return _words(kind.type)
    if isinstance(kind, inspect.UnionType):
        return next(filter(None, map(_words, kind.types)), ())
    return tuple(str(one.value) for one in kind.cls) if isinstance(kind, inspect.EnumType) else ()


def validate(value: object, shape: type[M]) -> M:
    """Read a value into a pydantic model. Raises InvalidRequest."""
    if isinstance(value, dict) and not _names(shape).issuperset(value):
        raise _unknown(shape.model_fields[name].alias or name for name in shape.model_fields)
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "enum" and len(first["loc"]) == 1 and (values := _choices(shape, first["loc"])):
            raise _one_of(str(first["loc"][0]), values) from None
        raise _explain_model(first["type"], first["loc"], _names(shape), first.get("ctx", {})) from None


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


def _explain_model(
    kind: str, location: Sequence[int | str], known: frozenset[str], context: Mapping[str, object]
) -> InvalidRequest:
    if kind == "extra_forbidden":
        return _unknown(known if len(location) == 1 else ())
    # Past the first name a part may be the caller's own (the name of a tag): only a position is safe to show.
    names = [str(part) for part in location[:1] if part in known]
    place = "".join(names + [f"[{part}]" for part in location[1:2] if isinstance(part, int)])
    if kind == "missing":
        return InvalidRequest(f"the field {place} is missing" if len(location) == 1 else f"{place} lacks a field")
    if kind in {"enum", "literal_error"}:  # what is expected is written down by the library from our own words
        return _one_of(place, re.findall(r"'([^']*)'", str(context["expected"])))
    if kind in _LIMITS:
        name, said = _LIMITS[kind]
        return InvalidRequest(f"{_part(location, place)} {said.format(context[name])}")
    return _refusal(place, _MODEL_KINDS.get(kind))


def _part(location: Sequence[int | str], place: str) -> str:
    """What of an object with the caller's names a limit is about; else the place."""
    if location[1:] and isinstance(location[1], str):
        return f"a name in {place}" if location[-1] == "[key]" else f"a value in {place}"
    return place


def field_bytes(name: str, text: str) -> bytes:
    """Decode a field of strict base64. Raises InvalidRequest naming the field."""
    try:
        return decode_base64(text)
    except InvalidRequest as error:
        raise InvalidRequest(f"{name} is {error.detail}") from None
