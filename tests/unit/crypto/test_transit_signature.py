"""Signatures of the Vault dialect: which salts are taken, and which are made."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from keyvault_lite.crypto.transit_signature import sign, verify
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.signature_schemes import Marshaling, Scheme

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


def test_a_fixed_signature_has_one_length() -> None:
    pair, scheme = ec.generate_private_key(ec.SECP256R1()), Scheme(marshaling=Marshaling.JWS)
    signature = sign(pair, b"message", scheme)
    r, s = signature[:32], signature[32:]
    assert verify(pair.public_key(), b"message", signature, scheme)
    for other in (r + b"\x00" + s, b"\x00" + signature, signature + b"\x00", signature[:-1], b""):
        assert not verify(pair.public_key(), b"message", other, scheme)


def test_sha_1_signs_nothing_new_where_it_would_be_used(key: rsa.RSAPrivateKey) -> None:
    scheme, pure = Scheme(digest="sha1"), ed25519.Ed25519PrivateKey.generate()
    for pair in (key, ec.generate_private_key(ec.SECP256R1())):
        with pytest.raises(InvalidRequest, match="SHA-1"):
            sign(pair, b"message", scheme)
    assert verify(pure.public_key(), b"message", sign(pure, b"message", scheme), scheme)
