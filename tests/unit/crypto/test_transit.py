"""Versions of keys of the Vault dialect: digests by name, and whose ciphertexts a version opens."""

import hashlib
import hmac
import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from keyvault_lite.crypto import transit
from keyvault_lite.crypto.transit import TransitVersion
from keyvault_lite.model.errors import InvalidCiphertext
from keyvault_lite.model.keys import KeySpec, KeyType, Purpose
from keyvault_lite.model.signature_schemes import DIGESTS

KEY = os.urandom(32)
NONCE = os.urandom(12)
STANDARD = {name: name.replace("sha2-", "sha").replace("sha3-", "sha3_") for name in DIGESTS}


def version(kind: KeyType, size: int = 256) -> TransitVersion:
    spec = KeySpec(kind, size, Purpose.TRANSIT)
    place = {"instance_id": bytes(16), "key_id": bytes(16)}
    return TransitVersion(spec, bytes(32) + KEY, None, version=1, rng=os.urandom, **place)


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_every_digest_is_the_one_of_its_name(name: str) -> None:
    assert transit.digest(name, b"m") == hashlib.new(STANDARD[name], b"m").digest()
    assert version(KeyType.AES).mac(b"m", name) == hmac.digest(bytes(32), b"m", STANDARD[name])


def test_all_of_an_hmac_key_is_its_key() -> None:
    made = version(KeyType.HMAC, 512).mac(b"m", "sha2-256")
    assert made == hmac.digest(bytes(32) + KEY, b"m", "sha256")


@pytest.mark.parametrize(("kind", "aead"), [(KeyType.AES, AESGCM), (KeyType.CHACHA20, ChaCha20Poly1305)])
@pytest.mark.parametrize("plaintext", [b"", b"message"])
def test_a_bare_ciphertext_opens_under_imported_material_alone(
    kind: KeyType, aead: type[AESGCM | ChaCha20Poly1305], plaintext: bytes
) -> None:
    body = NONCE + aead(KEY).encrypt(NONCE, plaintext, None)
    own = version(kind)
    assert own.decrypt(body, None, None, convergent=False, foreign=True) == plaintext
    assert own.decrypt(body, b"", b"", convergent=False, foreign=True) == plaintext
    with pytest.raises(InvalidCiphertext):
        own.decrypt(body, None, None, convergent=False, foreign=False)
    for wrong in (body[: 12 + 15], body[:12], b""):
        with pytest.raises(InvalidCiphertext):
            own.decrypt(wrong, None, None, convergent=False, foreign=True)
