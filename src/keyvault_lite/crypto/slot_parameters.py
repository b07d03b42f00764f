"""How the key of a slot is had: the slot's `kdf`, `none` for a master key, else the parameters of a root of trust.

    {"kind":"passphrase","m":262144,"p":4,"salt":"…","t":3,"v":1}

Strict JSON with sorted names and no spaces, at most 4096 bytes. It is read before anything is verified: a writer of the
database chooses it. So every value is checked for type and size before any work is done with it, and the text is under
the commitment of the slot's container: other parameters open nothing.
"""

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from keyvault_lite.crypto.root import RootError, SlotKey
from keyvault_lite.model.encoding import decode_base64, encode_base64, pae
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.strict_json import read_text

MASTER_KEY: Final = "none"
"""The `kdf` of a slot that a master key opens as it is."""
FILE: Final = "file"
VERSION: Final = 1
MAX_TEXT: Final = 4096
MAX_WRAPPED: Final = 2048
"""Bytes of one wrapped key."""


class UnusableSlot(RootError):
    """A slot whose parameters this release does not take."""


@dataclass(frozen=True, slots=True)
class SlotPlace:
    """Where a key belongs: one slot of one installation. A root binds what it wraps or derives to it."""

    instance_id: bytes
    slot_id: str

    @classmethod
    def of(cls, slot: Slot) -> Self:
        """The place of a slot."""
        return cls(slot.instance_id, slot.id)

    def label(self, kind: str, *parts: bytes | int) -> bytes:
        """PAE("kvl/v1/root", kind, instance id, slot id, …): associated data, MAC input or encryption context."""
        return pae("kvl/v1/root", kind, self.instance_id, self.slot_id, *parts)


@dataclass(frozen=True, slots=True)
class SlotParameters:
    """The parameters of one kind of root. The readers raise UnusableSlot for a missing, wrong or oversized value."""

    kind: str
    values: Mapping[str, object]

    @classmethod
    def read(cls, kdf: str) -> Self | None:
        """From a slot's `kdf`; None for any text that `write` would not have written."""
        if kdf == MASTER_KEY:
            return cls(FILE, {})
        if len(kdf) > MAX_TEXT:
            return None
        try:
            found = read_text(kdf)
        except InvalidRequest:
            return None
        made = cls.of(found)
        return made if made is not None and made.kind != FILE and _text(found) == kdf else None

    @classmethod
    def of(cls, found: object) -> Self | None:
        """From a parsed object; None if it does not hold parameters of this version."""
        if not isinstance(found, dict) or type(found.get("v")) is not int or found["v"] != VERSION:
            return None
        kind = found.get("kind")
        if not isinstance(kind, str):
            return None
        return cls(kind, {name: value for name, value in found.items() if name not in {"kind", "v"}})

    def as_object(self) -> dict[str, object]:
        """As it is written."""
        return {**self.values, "kind": self.kind, "v": VERSION}

    def write(self) -> str:
        """The `kdf`. Raises UnusableSlot if it is longer than a reader takes."""
        if self.kind == FILE:
            return MASTER_KEY
        text = _text(self.as_object())
        if len(text) > MAX_TEXT:
            raise UnusableSlot(f"The parameters of the slot have {len(text)} bytes, and {MAX_TEXT} are read.")
        return text

    def integer(self, name: str, low: int, high: int) -> int:
        """A number between two limits, both included."""
        value = self.values.get(name)
        if type(value) is not int or not low <= value <= high:
            raise self._unusable(name)
        return value

    def text(self, name: str, longest: int = MAX_WRAPPED) -> str:
        """Printable ASCII."""
        value = self.values.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= longest or not (value.isascii() and value.isprintable()):
            raise self._unusable(name)
        return value

    def raw(self, name: str, shortest: int = 1, longest: int = MAX_WRAPPED) -> bytes:
        """Bytes, stored as base64."""
        try:
            value = decode_base64(self.text(name, 2 * longest))
        except InvalidRequest:
            raise self._unusable(name) from None
        if not shortest <= len(value) <= longest:
            raise self._unusable(name)
        return value

    def items(self, name: str, most: int) -> list[object]:
        """A list that is not too long."""
        value = self.values.get(name)
        if not isinstance(value, list) or len(value) > most:
            raise self._unusable(name)
        return value

    def _unusable(self, name: str) -> UnusableSlot:
        return UnusableSlot(f"A {self.kind} slot has an unusable value of `{name}`: the database was changed.")


def bind_to_place(raw: bytes, place: SlotPlace, kind: str) -> SlotKey:
    """The slot key that follows from what a device wrapped and the place it was wrapped for (HMAC-SHA256)."""
    return SlotKey(hmac.digest(raw, place.label(kind), "sha256"))


def parameters(kind: str, **values: bytes | int | str | list[object]) -> SlotParameters:
    """New parameters; bytes are written as base64."""
    written = {name: encode_base64(value) if isinstance(value, bytes) else value for name, value in values.items()}
    return SlotParameters(kind, written)


def kind_of(slot: Slot) -> str:
    """The kind of root that opens a slot, as operators call it; `unknown` for one of another release."""
    found = SlotParameters.read(slot.kdf)
    return "unknown" if found is None else found.kind


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
