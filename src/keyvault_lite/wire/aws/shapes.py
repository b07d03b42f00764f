"""Members of requests against the service's own model, by a table compiled once: types, lengths, patterns, values.

The table is facts of the service (tools/make_aws_shapes.py). What it refuses it words as the service does: all broken
constraints of a request in one ValidationException; a member of another JSON type is a SerializationException.
A member that the model does not have is refused, where the service passes it over: it may narrow what a newer client
asks for, as a constraint of a grant does.
"""

import json
import re
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, Final

from keyvault_lite.dialects.aws.errors import Unserializable, Validation
from keyvault_lite.model.encoding import decode_base64
from keyvault_lite.model.errors import InvalidRequest

Reader = Callable[[Any, str, list[str]], Any]
"""From a JSON value and its place to what it stands for; what it breaks goes to the list."""
MICROSECONDS: Final = 1_000_000
LATEST: Final = 253402300799
"""Seconds to the end of the year 9999."""
_ORDERS: Final[Mapping[str, str]] = {
    # The service lists values in an order of its own: known where it was recorded.
    "MacAlgorithmSpec": "HMAC_SHA_384, HMAC_SHA_256, HMAC_SHA_224, HMAC_SHA_512",
}
TABLE: Final[Mapping[str, Any]] = json.loads(
    resources.files(__package__).joinpath("shapes.json").read_text(encoding="utf-8")
)


def _unknown(place: str) -> str:
    return f"A member of '{place or 'the request'}' is unknown to this version of the service: leave it out"


def _fault(shown: str, place: str, rule: str) -> str:
    return f"Value {shown} at '{place}' failed to satisfy constraint: Member must {rule}"


def _range(what: str, size: int, shape: Mapping[str, Any]) -> str | None:
    if "min" in shape and size < shape["min"]:
        return f"have {what} greater than or equal to {shape['min']}"
    if "max" in shape and size > shape["max"]:
        return f"have {what} less than or equal to {shape['max']}"
    return None


def _typed(value: object, kind: type, name: str) -> None:
    if type(value) is not kind:
        raise Unserializable(f"a member that is {name} is not")


def _string(name: str, shape: Mapping[str, Any]) -> Reader:
    pattern = re.compile(shape["pattern"], re.ASCII) if "pattern" in shape else None
    values = frozenset(shape.get("enum", ()))
    listed = _ORDERS.get(name, ", ".join(shape.get("enum", ())))
    secret = shape.get("sensitive", False)

    def read(value: Any, place: str, faults: list[str]) -> str:  # noqa: ANN401
        _typed(value, str, "text")
        text: str = value
        rule = _range("length", len(text), shape)
        if rule is None and values and text not in values:
            rule = f"satisfy enum value set: [{listed}]"
        if rule is None and pattern is not None and pattern.fullmatch(text) is None:
            rule = f"satisfy regular expression pattern: {shape['pattern']}"
        if rule is not None:
            faults.append(_fault("***" if secret else f"'{text}'", place, rule))
        return text

    return read


def _blob(_: str, shape: Mapping[str, Any]) -> Reader:
    def read(value: Any, place: str, faults: list[str]) -> bytes:  # noqa: ANN401
        _typed(value, str, "base64")
        try:
            raw = decode_base64(value)
        except InvalidRequest:
            raise Unserializable("a member that is base64 is not") from None
        rule = _range("length", len(raw), shape)
        if rule is not None:
            shown = f"'java.nio.HeapByteBuffer[pos=0 lim={len(raw)} cap={len(raw)}]'"
            faults.append(_fault(shown, place, rule))
        return raw

    return read


def _integer(_: str, shape: Mapping[str, Any]) -> Reader:
    def read(value: Any, place: str, faults: list[str]) -> int:  # noqa: ANN401
        _typed(value, int, "an integer")
        number: int = value
        rule = _range("value", number, shape)
        if rule is not None:
            faults.append(_fault(f"'{number}'", place, rule))
        return number

    return read


def _boolean(_: str, _shape: Mapping[str, Any]) -> Reader:
    def read(value: Any, _place: str, _faults: list[str]) -> bool:  # noqa: ANN401
        _typed(value, bool, "true or false")
        return bool(value)

    return read


def _timestamp(_: str, _shape: Mapping[str, Any]) -> Reader:
    def read(value: Any, _place: str, _faults: list[str]) -> int:  # noqa: ANN401
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LATEST:
            raise Unserializable("a member that is a time is not")
        return round(value * MICROSECONDS)

    return read


def _list(_: str, shape: Mapping[str, Any]) -> Reader:
    member = _reader(shape["member"])

    def read(value: Any, place: str, faults: list[str]) -> tuple[Any, ...]:  # noqa: ANN401
        _typed(value, list, "a list")
        rule = _range("length", len(value), shape)
        if rule is not None:
            faults.append(_fault(f"of {len(value)} members", place, rule))
            return ()
        return tuple(member(one, f"{place}.{index}.member", faults) for index, one in enumerate(value, 1))

    return read


def _map(_: str, shape: Mapping[str, Any]) -> Reader:
    key, content = _reader(shape["key"]), _reader(shape["value"])

    def read(value: Any, place: str, faults: list[str]) -> dict[str, Any]:  # noqa: ANN401
        _typed(value, dict, "an object")
        return {key(name, place, faults): content(one, f"{place}.value", faults) for name, one in value.items()}

    return read


def _structure(_: str, shape: Mapping[str, Any]) -> Reader:
    members = [
        (name, name[0].lower() + name[1:], _reader(inner), name in shape.get("required", ()))
        for name, inner in shape["members"].items()
    ]

    known = frozenset(shape["members"])

    def read(value: Any, place: str, faults: list[str]) -> dict[str, Any]:  # noqa: ANN401
        _typed(value, dict, "an object")
        found = {}
        if not known.issuperset(name for name, one in value.items() if one is not None):
            faults.append(_unknown(place))
        for name, shown, reader, required in members:
            one = value.get(name)
            if one is not None:
                found[name] = reader(one, f"{place}.{shown}" if place else shown, faults)
            elif required:
                faults.append(_fault("null", f"{place}.{shown}" if place else shown, "not be null"))
        return found

    return read


_KINDS: Final[Mapping[str, Callable[[str, Mapping[str, Any]], Reader]]] = {
    "blob": _blob,
    "boolean": _boolean,
    "integer": _integer,
    "list": _list,
    "map": _map,
    "string": _string,
    "structure": _structure,
    "timestamp": _timestamp,
}


def _reader(name: str) -> Reader:
    shape = TABLE["shapes"][name]
    return _KINDS[shape["type"]](name, shape)


_READERS: Final[Mapping[str, Reader]] = {name: _reader(shape) for name, shape in TABLE["operations"].items()}


def read_members(operation: str, body: object) -> dict[str, Any]:
    """The members of a request that are there. Raises Unserializable or Validation."""
    faults: list[str] = []
    found: dict[str, Any] = _READERS[operation](body, "", faults)
    if faults:
        count = f"{len(faults)} validation error{'s' * (len(faults) > 1)} detected: "
        raise Validation(count + "; ".join(faults))
    return found
