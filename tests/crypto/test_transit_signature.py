"""Signatures of the Vault dialect: which salts are taken, and which are made."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from keyvault_lite.crypto.transit_signature import sign, verify
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.transit import Scheme

SALT_OF_DIGEST = 32
LONGEST = 256 - 32 - 2
"""Bytes of salt that 2048 bits and SHA-256 leave room for."""


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def pss(salt: int) -> padding.PSS:
    return padding.PSS(padding.MGF1(hashes.SHA256()), salt)


@pytest.mark.parametrize("salt", [0, 1, SALT_OF_DIGEST, LONGEST])
def test_a_scheme_that_leaves_the_salt_open_takes_any(key: rsa.RSAPrivateKey, salt: int) -> None:
    signature = key.sign(b"message", pss(salt), hashes.SHA256())
    assert verify(key.public_key(), b"message", signature, Scheme())
    assert not verify(key.public_key(), b"another", signature, Scheme())


def test_it_makes_the_longest(key: rsa.RSAPrivateKey) -> None:
    key.public_key().verify(sign(key, b"message", Scheme()), b"message", pss(LONGEST), hashes.SHA256())


def test_a_salt_has_room_or_is_refused(key: rsa.RSAPrivateKey) -> None:
    longest, longer = Scheme(salt=LONGEST), Scheme(salt=LONGEST + 1)
    signature = sign(key, b"message", longest)
    assert verify(key.public_key(), b"message", signature, longest)
    with pytest.raises(InvalidRequest, match="longer"):
        sign(key, b"message", longer)
    with pytest.raises(InvalidRequest, match="longer"):
        verify(key.public_key(), b"message", signature, longer)
