"""The key of a witness, and the check of signatures that are made elsewhere: Ed25519 of RFC 8032."""

import os
import re
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from keyvault_lite.crypto.container import Rng
from keyvault_lite.crypto.secret import Secret
from keyvault_lite.model.encoding import decode_base64, encode_base64
from keyvault_lite.model.errors import IntegrityViolation, InvalidRequest

SEED_BYTES: Final = 32
_ALGORITHM: Final = b"\x04"
"""cosignature/v1, so that nobody takes the file for the key of a log."""
_PREFIX: Final = "PRIVATE+KEY+"
_NAME: Final = re.compile(r"[A-Za-z0-9._~/:-]{1,200}", re.ASCII)
_FILE: Final = re.compile(rf"{re.escape(_PREFIX)}({_NAME.pattern})\+([A-Za-z0-9+/=]{{1,100}})\n?", re.ASCII)


def verify_ed25519(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the signature holds; false for a key that is no point."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


class WitnessKey(Secret):
    """The name and key under which a witness confirms checkpoints. Made by `create` or `parse`."""

    __slots__ = ("_key", "_seed", "name", "public_key")

    def __init__(self, name: str, seed: bytes) -> None:
        if _NAME.fullmatch(name) is None:
            raise InvalidRequest("the name of a witness is 1 to 200 letters, digits and . _ ~ / : -, as in a URL")
        self.name: Final = name
        self._seed: Final = seed
        self._key: Final = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key: Final = self._key.public_key().public_bytes_raw()

    @classmethod
    def create(cls, name: str, rng: Rng = os.urandom) -> Self:
        """A new key. Raises InvalidRequest for a name that cannot be in a signature line."""
        return cls(name, rng(SEED_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key that `write` wrote. Raises IntegrityViolation, which never repeats the text."""
        match = _FILE.fullmatch(text)
        try:
            raw = decode_base64(match[2] if match else "")
        except InvalidRequest:
            raw = b""
        if match is None or raw[:1] != _ALGORITHM or len(raw) != 1 + SEED_BYTES:
            raise IntegrityViolation("the witness's key file does not hold a witness's key")
        return cls(match[1], raw[1:])

    def write(self) -> str:
        """The content of the key file. It is the key: keep it private."""
        return f"{_PREFIX}{self.name}+{encode_base64(_ALGORITHM + self._seed)}\n"

    def sign(self, message: bytes) -> bytes:
        """Sign a cosignature. MUST only be given one of a checkpoint that extends all that were confirmed before."""
        return self._key.sign(message)
