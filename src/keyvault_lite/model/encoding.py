"""The canonical encoding (PAE) and strict base64: one way to write each value, so that bytes can be compared and MACed.

PAE is typed and length-prefixed, so it is injective: two different sequences of values never give the same bytes
(NULL, "" and 0 differ; text and bytes differ). The first element is a label unique to the use, which separates domains.
JSON is a view for people and is never hashed or MACed.

    value   = 00                                   NULL
            | 01 int64                             integer, signed, big-endian
            | 02 uint32(length) UTF-8              text
            | 03 uint32(length) bytes              bytes
            | 04 uint32(count) value*              list
    PAE(label, v1 … vn) = the list of the text `label` and the values
"""

import base64
import binascii
import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import chain
from struct import Struct
from typing import Final

from keyvault_lite.model.errors import InvalidRequest

_NULL: Final = b"\x00"
_INT: Final = Struct(">Bq")
_HEAD: Final = Struct(">BI")

Value = None | int | str | bytes | Sequence["Value"]


def encode(value: Value) -> bytes:
    """Encode one value.

    Raises TypeError for a type outside the grammar (bool and float included), struct.error for an integer beyond 64
    bits, and UnicodeEncodeError for text that is not Unicode scalar values.
    """
    if value is None:
        return _NULL
    if isinstance(value, str):
        raw = value.encode()
        return _HEAD.pack(2, len(raw)) + raw
    if isinstance(value, bytes):
        return _HEAD.pack(3, len(value)) + value
    if isinstance(value, bool):
        raise TypeError("a truth value has no canonical encoding; write 0 or 1")
    if isinstance(value, int):
        return _INT.pack(1, value)
    if isinstance(value, (list, tuple)):
        return _HEAD.pack(4, len(value)) + encode_items(value)
    raise TypeError(f"{type(value).__name__} has no canonical encoding")


def pae(label: str, *values: Value) -> bytes:
    """PAE(label, values…): the input of every MAC, derivation and hash in the product."""
    return _HEAD.pack(4, len(values) + 1) + encode_items((label, *values))


_COMMON: Final = {
    # Texts that most rows of the vault hold, encoded once. Only texts: 1 and 1.0 would be one key.
    text: _HEAD.pack(2, len(text)) + text.encode()
    for text in ("", "{}", "[]", "ACTIVE", "DEPRECATED", "DESTROYED", "AES", "RSA", "EC", "ENCRYPT", "SIGN", "TRANSIT")
}


def encode_items(values: Sequence[Value]) -> bytes:
    """What is behind the head of an encoded list, for writers that assemble an encoding."""
    # As joining `encode` of each, with the plain kinds written out: every row of the vault passes here at each start.
    return b"".join(
        [
            _NULL
            if value is None
            else _COMMON.get(value) or _HEAD.pack(2, len(raw := value.encode())) + raw
            if value.__class__ is str
            else _INT.pack(1, value)
            if value.__class__ is int
            else _HEAD.pack(3, len(value)) + value
            if value.__class__ is bytes
            else encode(value)
            for value in values
        ]
    )


def decode_values(raw: bytes) -> list[int | str | bytes | None]:
    """The values of an encoded list that holds no lists, a label first. Raises ValueError for any other bytes.

    Strict, so that bytes that decode are the only ones that encode to these values.
    """
    kind, count = _head(raw, 0)
    at = _HEAD.size
    if kind != 4 or count > len(raw):  # noqa: PLR2004  (the grammar above)
        raise ValueError("not a list")
    values: list[int | str | bytes | None] = []
    for _ in range(count):
        kind = raw[at] if at < len(raw) else 255
        if kind == 0:
            values.append(None)
            at += 1
        elif kind == 1:
            values.append(int.from_bytes(_part(raw, at + 1, 8), "big", signed=True))
            at += _INT.size
        elif kind in {2, 3}:
            part = _part(raw, at + _HEAD.size, _head(raw, at)[1])
            values.append(part.decode() if kind == 2 else part)  # noqa: PLR2004  (as above)
            at += _HEAD.size + len(part)
        else:
            raise ValueError("not a value")
    if at != len(raw):
        raise ValueError("bytes after the list")
    return values


def _head(raw: bytes, at: int) -> tuple[int, int]:
    kind, length = _HEAD.unpack(_part(raw, at, _HEAD.size))
    return kind, length


def _part(raw: bytes, at: int, length: int) -> bytes:
    part = raw[at : at + length]
    if len(part) != length:
        raise ValueError("cut short")
    return part


def list_head(count: int) -> bytes:
    """The prefix of a list of `count` values, for writers that assemble an encoding from cached pieces."""
    return _HEAD.pack(4, count)


def decode_base64(text: str) -> bytes:
    """Standard base64 with padding, canonical only: decode, encode again, compare (RFC 4648, section 3.5)."""
    try:
        raw = binascii.a2b_base64(text, strict_mode=True) if text else b""
    except (ValueError, binascii.Error):
        raise InvalidRequest("not canonical standard base64") from None
    if base64.b64encode(raw) != text.encode("ascii", "replace"):
        raise InvalidRequest("not canonical standard base64")
    return raw


def encode_base64(raw: bytes) -> str:
    """Standard base64 with padding."""
    return binascii.b2a_base64(raw, newline=False).decode("ascii")


Context = Mapping[str, str]
MAX_CONTEXT_PAIRS: Final = 32
MAX_CONTEXT_BYTES: Final = 8 * 1024
NO_CONTEXT_DIGEST: Final = hashlib.sha256(pae("context")).digest()


def check_context(context: Context) -> None:
    """Refuse a context beyond 32 pairs or 8 KiB of UTF-8, and text that is not Unicode in form NFC.

    NFC is required and not silently applied: two spellings of one text must not open each other's ciphertexts
    by accident of a normalisation the other side does not know of.
    """
    if len(context) > MAX_CONTEXT_PAIRS:
        raise InvalidRequest("context has more than 32 pairs")
    size = 0
    for name, value in context.items():
        try:
            size += len(name.encode()) + len(value.encode())
        except UnicodeEncodeError:
            raise InvalidRequest("context is not Unicode text: it has a lone surrogate") from None
        if not (name.isascii() and value.isascii()) and not (
            unicodedata.is_normalized("NFC", name) and unicodedata.is_normalized("NFC", value)
        ):
            raise InvalidRequest("context is not in Unicode normalisation form NFC")
    if size > MAX_CONTEXT_BYTES:
        raise InvalidRequest("context is larger than 8 KiB")


def context_values(context: Context | None) -> tuple[str, ...]:
    """The pairs in the order of their names' code points, flattened: the canonical form of a context."""
    if not context:
        return ()
    return tuple(chain.from_iterable(sorted(context.items())))


def context_digest(context: Context | None) -> bytes:
    """SHA-256(PAE("context", k₁, v₁, …)); an empty context is the same as none."""
    if not context:
        return NO_CONTEXT_DIGEST
    return hashlib.sha256(pae("context", *context_values(context))).digest()
