"""Every operation of the service: what request it is, and which members fill the fields of that request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import fields

from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.errors import UnsupportedOperation
from keyvault_lite.dialects.aws.model import AccountRegion
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.requests import Rejected, Request
from keyvault_lite.wire.aws.shapes import TABLE, read_members
from keyvault_lite.wire.routing import Route

MAX_BODY: Final = 256 * 1024
"""A key policy, the largest there is, has 128 KiB at most; the caller is known with the whole body only."""
_MEMBERS: Final[Mapping[str, str]] = {"key": "KeyId", "context": "EncryptionContext"}
"""Members of a field, where that is not its name in capitals."""
_OWN_MEMBERS: Final[Mapping[type[Request], Mapping[str, str]]] = {
    words.CreateAlias: {"key": "TargetKeyId"},
    words.DeleteAlias: {"key": "AliasName"},
    words.ReEncrypt: {"key": "SourceKeyId", "context": "SourceEncryptionContext"},
    words.UpdateAlias: {"key": "TargetKeyId"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Route):
    """One operation of the service."""

    kind: type[Request] | None
    """None for what the vault does not offer: key stores of others."""
    members: tuple[tuple[str, str], ...]
    """Fields with their members."""
    needs_key: bool
    """Whether the request has a key that its members may leave out."""

    def build(self, body: object, place: AccountRegion) -> Request:
        """The request that a parsed body makes. Raises Unserializable or Validation."""
        given = read_members(str(self.operation), body)
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
        return Operation(action=Action.GENERATE, operation=name, limit=MAX_BODY, kind=None, members=(), needs_key=False)
    own = _OWN_MEMBERS.get(kind, {})
    members = tuple(
        (one.name, own.get(one.name) or _MEMBERS.get(one.name) or _pascal(one.name))
        for one in fields(kind)
        if one.name != "place"
    )
    needs_key = any(one.name == "key" and one.required for one in fields(kind))
    return Operation(
        action=kind.action, operation=name, limit=MAX_BODY, kind=kind, members=members, needs_key=needs_key
    )


OPERATIONS: Final[Mapping[str, Operation]] = {name: _operation(name) for name in TABLE["operations"]}
