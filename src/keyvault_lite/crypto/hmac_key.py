"""HMAC under one key, many times (RFC 2104)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from keyvault_lite.crypto.secret import Secret

if TYPE_CHECKING:
    from hashlib import _Hash

_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))


class HmacKey(Secret):
    """A key whose two blocks have been hashed already: of the MAC of a short message they are half the work.

    `hmac.digest` hashes them at each call, looks its digest up by name, and lets go of the interpreter meanwhile.
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
