"""HMAC (RFC 2104) under a key that stays, and under one that is used once."""

import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from keyvault_lite.crypto.secret import Secret

if TYPE_CHECKING:
    from hashlib import _Hash

_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))


class Hmac(Protocol):
    """A key with its digest."""

    def mac(self, message: bytes) -> bytes:
        """The MAC of the message."""


class OneUseKey(Secret):
    """A key for one message or two: there is nothing to prepare."""

    __slots__ = ("_digest", "_key")

    def __init__(self, key: bytes, digest: str) -> None:
        self._key: Final = key
        self._digest: Final = digest

    def mac(self, message: bytes) -> bytes:
        """The MAC of the message."""
        return hmac.digest(self._key, message, self._digest)


class HmacKey(Secret):
    """A key that stays. Its two blocks are hashed once: of the MAC of a short message they are half the work.

    The two states held here are as secret as the key.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes, digest: "Callable[[bytes], _Hash]") -> None:
        """`digest` is `hashlib.sha256` or `hashlib.sha512`."""
        size = digest(b"").block_size
        block = (key if len(key) <= size else digest(key).digest()).ljust(size, b"\x00")
        self._inner = digest(block.translate(_INNER))
        self._outer = digest(block.translate(_OUTER))

    def mac(self, message: bytes) -> bytes:
        """The MAC of the message."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()

    def begun(self, beginning: bytes) -> "HmacKey":
        """The same key for messages that all begin so: its `mac` is given what follows."""
        other = object.__new__(HmacKey)
        other._inner, other._outer = self._inner.copy(), self._outer
        other._inner.update(beginning)
        return other
