"""Access keys: secrets that requests are signed with, by a chain of HMACs.

    k₁ = HMAC(prefix secret, step 1)   k₂ = HMAC(k₁, step 2)   …   mac = hex HMAC(kₙ, message)     all HMAC-SHA256

A signature needs the secret again, so it is stored: in a container under a key of its own, bound to its access key and
service. A bounded number of derived keys is cached.
"""

import hashlib
import hmac
import os
import string
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Final, NamedTuple

from keyvault_lite.crypto.container import ContainerLayout, KeySealer, Rng
from keyvault_lite.crypto.secret import Secret
from keyvault_lite.model.encoding import pae
from keyvault_lite.model.names import ServiceId, TokenId

REMEMBERED: Final = 1024
"""Derived signing keys."""
_BASE32: Final = string.ascii_uppercase + "234567"
_BASE64: Final = string.ascii_letters + string.digits + "+/"
_NOBODY: Final = bytes(30)


def new_access_key(rng: Rng = os.urandom) -> tuple[TokenId, str]:
    """A fresh access key id (`AKIA` and 16 base32 characters) and secret (40 base64 characters, 240 bits)."""
    key_id = "AKIA" + "".join(_BASE32[byte % 32] for byte in rng(16))
    return TokenId(key_id), "".join(_BASE64[byte % 64] for byte in rng(40))


class ChainedMac(NamedTuple):
    """A MAC as a request brings it, unverified, and what its key is derived by."""

    access_key_id: TokenId
    prefix: bytes
    steps: tuple[str, ...]
    message: bytes
    mac: str
    """64 hexadecimal digits."""


def _chain(secret: bytes, *steps: str) -> bytes:
    key = secret
    for step in steps:
        key = hmac.digest(key, step.encode(), "sha256")
    return key


class AccessKeys(Secret):
    """Seals the secrets of access keys, and verifies signatures made with them."""

    __slots__ = ("_derived", "_instance_id", "_key", "_lock", "_rng")

    def __init__(self, key: bytes, instance_id: bytes, rng: Rng) -> None:
        self._key: Final = key
        self._instance_id: Final = instance_id
        self._rng: Final = rng
        self._derived: Final[OrderedDict[tuple[bytes, bytes, tuple[str, ...]], bytes]] = OrderedDict()
        self._lock: Final = Lock()

    def seal(self, token_id: TokenId, service_id: ServiceId, secret: str) -> bytes:
        """The secret as it is stored."""
        box, context = self._box(token_id, service_id)
        return box.seal(context, secret.encode(), self._rng)

    def holds(self, signed: ChainedMac, service_id: ServiceId, sealed: bytes) -> bool:
        """Whether the MAC is that of the message under the sealed secret.

        Raises InvalidCiphertext if `sealed` was made for another access key or service. Compared in constant time.
        """
        return self._compare(signed, sealed, lambda: self._open(signed.access_key_id, service_id, sealed))

    def refuse(self, signed: ChainedMac) -> None:
        """The work of `holds` for an access key that nobody has."""
        self._compare(signed, b"", lambda: _NOBODY)

    def _compare(self, signed: ChainedMac, sealed: bytes, secret: Callable[[], bytes]) -> bool:
        # The sealed secret is part of the name: what replaced another never meets the keys derived from it.
        name = (sealed, signed.prefix, signed.steps)
        with self._lock:
            key = self._derived.get(name)
            if key is not None:
                self._derived.move_to_end(name)
        if key is None:
            key = _chain(signed.prefix + secret(), *signed.steps)
            if sealed:
                with self._lock:
                    self._derived[name] = key
                    while len(self._derived) > REMEMBERED:
                        self._derived.popitem(last=False)
        expected = hmac.digest(key, signed.message, "sha256").hex()
        return hmac.compare_digest(expected.encode(), signed.mac.encode())

    def _open(self, token_id: TokenId, service_id: ServiceId, sealed: bytes) -> bytes:
        box, context = self._box(token_id, service_id)
        return box.open(context, sealed)

    def _box(self, token_id: TokenId, service_id: ServiceId) -> tuple[KeySealer, bytes]:
        place = hashlib.sha256(pae("access-key", token_id)).digest()
        frame = ContainerLayout("access-key", instance_id=self._instance_id, id=place[:16], version=0, purpose="AWS")
        return KeySealer(frame, self._key), hashlib.sha256(pae("access-key", token_id, service_id)).digest()
