"""Every operation of the service: what request it is, and which members fill the fields of that request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import fields

from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.errors import UnsupportedOperation
from keyvault_lite.dialects.aws.model import Place
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.requests import Rejected, Request
from keyvault_lite.wire.aws.shapes import TABLE, read_members

_MEMBERS: Final[Mapping[str, str]] = {"key": "KeyId", "context": "EncryptionContext"}
"""Members of a field, where that is not its name in capitals."""
_OWN_MEMBERS: Final[Mapping[type[Request], Mapping[str, str]]] = {
    words.CreateAlias: {"key": "TargetKeyId"},
    words.DeleteAlias: {"key": "AliasName"},
    words.ReEncrypt: {"key": "SourceKeyId", "context": "SourceEncryptionContext"},
    words.UpdateAlias: {"key": "TargetKeyId"},
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the service."""

    name: str
    kind: type[Request] | None
    """None for what the vault does not offer: key stores of others."""
    members: tuple[tuple[str, str], ...]
    """Fields with their members."""
    needs_key: bool
    """Whether the request has a key that its members may leave out."""

    @property
    def action(self) -> Action:
        """What is attempted."""
        return Action.GENERATE if self.kind is None else self.kind.action

    def build(self, body: object, place: Place) -> Request:
        """The request that a parsed body makes. Raises Unserializable or Validation."""
        given = read_members(self.name, body)
        if self.kind is None:
            detail = "custom key stores are not offered here"
            return Rejected(of=self.action, error=UnsupportedOperation(detail))
        if self.kind is words.CreateKey and "CustomerMasterKeySpec" in given:
            given.setdefault("KeySpec", given["CustomerMasterKeySpec"])  # its name until 2021
        filled: dict[str, Any] = {field: given[member] for field, member in self.members if member in given}
        if "tags" in filled:
            filled["tags"] = tuple((tag["TagKey"], tag["TagValue"]) for tag in filled["tags"])
        if self.needs_key:
            filled.setdefault("key", "")
        return self.kind(place=place, **filled)


def _pascal(field: str) -> str:
    return "".join(part.capitalize() for part in field.split("_"))


def _operation(name: str) -> Operation:
    kind: type[Request] | None = getattr(words, name, None)
    if kind is None:
        return Operation(name, None, (), needs_key=False)
    own = _OWN_MEMBERS.get(kind, {})
    members = tuple(
        (one.name, own.get(one.name) or _MEMBERS.get(one.name) or _pascal(one.name))
        for one in fields(kind)
        if one.name != "place"
    )
    needs_key = any(one.name == "key" and one.required for one in fields(kind))
    return Operation(name, kind, members, needs_key)


OPERATIONS: Final[Mapping[str, Operation]] = {name: _operation(name) for name in TABLE["operations"]}
