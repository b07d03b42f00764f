"""Envelope encryption under one key version: messages, their DEKs, and data keys for the caller's own use.

A message is two containers: `ciphertext`, under a fresh DEK and without a version, and `encrypted_dek`, the DEK under
the version. So re-wrapping replaces the second alone. A data key has a layer of its own: `open_data_key` never opens a
DEK.
"""

from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from keyvault_lite.crypto.container import (
    AES_GCM,
    RSA_OAEP,
    ContainerLayout,
    KeySealer,
    Rng,
    RsaSealer,
    Sealer,
    prk,
    refusal,
)
from keyvault_lite.crypto.importing import open_oaep, seal_oaep
from keyvault_lite.crypto.material import load_rsa
from keyvault_lite.crypto.secret import Secret
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.keys import KeySpec, KeyType

DATA_KEYS: Final = frozenset({16, 32, 64})
"""Sizes of a data key in bytes."""
_DEK: Final = 32
_NO_VERSION: Final = 0


class Cipher(Secret):
    """The loaded material of one version of an ENCRYPT key. Contexts are digests of 32 bytes."""

    __slots__ = ("_data", "_data_key", "_dek", "_rsa")

    def __init__(self, spec: KeySpec, secret: bytes, *, instance_id: bytes, key_id: bytes, version: int) -> None:
        key = load_rsa(secret) if spec.type is KeyType.RSA else None
        self._rsa: Final = key

        def box(layer: str) -> Sealer:
            suite = AES_GCM if key is None else RSA_OAEP
            frame = ContainerLayout(
                layer, instance_id=instance_id, id=key_id, version=version, purpose=spec.purpose, suite=suite
            )
            return KeySealer(frame, secret) if key is None else RsaSealer(frame, key)

        self._dek: Final = box("dek")
        self._data_key: Final = box("data-key")
        self._data: Final = ContainerLayout(
            "data", instance_id=instance_id, id=key_id, version=_NO_VERSION, purpose=spec.purpose
        )

    def encrypt(self, plaintext: bytes, context: bytes, rng: Rng) -> tuple[bytes, bytes]:
        """Ciphertext and encrypted_dek."""
        dek = rng(_DEK)
        return self._data.seal(prk(dek), context, plaintext, rng), self._dek.seal(context, dek, rng)

    def decrypt(self, ciphertext: bytes, encrypted_dek: bytes, context: bytes) -> bytes:
        """The plaintext. Raises InvalidCiphertext, one and the same whatever the cause."""
        return self._data.open(prk(self.open_dek(encrypted_dek, context)), context, ciphertext)

    def open_dek(self, encrypted_dek: bytes, context: bytes) -> bytes:
        """The DEK, to be used or sealed under another version at once. Raises InvalidCiphertext."""
        dek = self._dek.open(context, encrypted_dek)
        if len(dek) != _DEK:  # any holder of an RSA public key can wrap any bytes
            raise refusal()
        return dek

    def seal_dek(self, dek: bytes, context: bytes, rng: Rng) -> bytes:
        """The DEK under this version."""
        return self._dek.seal(context, dek, rng)

    def data_key(self, size: int, context: bytes, rng: Rng) -> tuple[bytes, bytes]:
        """A fresh data key of `size` bytes, plain and wrapped."""
        key = rng(size)
        return key, self._data_key.seal(context, key, rng)

    def open_data_key(self, encrypted_key: bytes, context: bytes) -> bytes:
        """The data key. Raises InvalidCiphertext, for a message's DEK too."""
        key = self._data_key.open(context, encrypted_key)
        if len(key) not in DATA_KEYS:
            raise refusal()
        return key

    # Bare RSAES-OAEP, as dialects have it: no container, no context, made by anyone who has the public key.

    def seal_bare(self, plaintext: bytes, digest: str) -> bytes:
        """The RSA ciphertext alone. Raises InvalidRequest for more than the modulus holds."""
        return seal_oaep(self._pair().public_key(), plaintext, digest)

    def open_bare(self, ciphertext: bytes, digest: str) -> bytes:
        """What was encrypted to the public key. Raises InvalidCiphertext."""
        return open_oaep(self._pair(), ciphertext, digest)

    def _pair(self) -> RSAPrivateKey:
        if self._rsa is None:
            raise InvalidRequest("this key is not an RSA key")
        return self._rsa
