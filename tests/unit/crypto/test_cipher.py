"""Envelope encryption: what opens, and everything that must not."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key
from hypothesis import given, settings
from hypothesis import strategies as st

from keyvault_lite.crypto.cipher import Cipher
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.model.errors import InvalidCiphertext
from keyvault_lite.model.keys import KeySpec, KeyType, KeyVersion, Purpose
from keyvault_lite.model.names import KeyId
from tests.unit.crypto.conftest import AES, KEY, Made
from tests.vectors.make_golden import uuid

AES128 = KeySpec(KeyType.AES, 128, Purpose.ENCRYPT)
CONTEXTS = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4)
CIPHERS = [(KeyType.AES, 128), (KeyType.AES, 256), (KeyType.RSA, 3072), (KeyType.RSA, 4096)]
ONE_MESSAGE = "it does not open with this key and context"


@pytest.fixture(scope="module")
def second(ring: Keyring) -> KeyVersion:
    return ring.versions.wrap(ring.generate(AES), AES, key_id=KEY, version=2, created_at=0)


def flips(raw: bytes) -> Iterator[bytes]:
    """Every byte with one bit flipped."""
    for at in range(len(raw)):
        damaged = bytearray(raw)
        damaged[at] ^= 1 << at % 8
        yield bytes(damaged)


def refuses(call: Any, *args: object) -> bool:  # noqa: ANN401
    with pytest.raises(InvalidCiphertext) as caught:
        call(*args)
    return (caught.value.detail, caught.value.__cause__) == (ONE_MESSAGE, None)


@given(plaintext=st.binary(max_size=2000), context=CONTEXTS)
def test_round_trip(ring: Keyring, aes: KeyVersion, plaintext: bytes, context: dict[str, str]) -> None:
    ciphertext, dek = ring.encrypt(AES, aes, plaintext, context)
    assert ring.version_in(KEY, dek) == 1
    assert ring.decrypt(AES, aes, ciphertext, dek, dict(reversed(context.items()))) == plaintext
    assert len(ciphertext) == 26 + 64 + len(plaintext) + 16
    assert len(dek) == 26 + 64 + 32 + 16


@given(context=CONTEXTS, other=CONTEXTS)
def test_another_context_is_refused(
    ring: Keyring, aes: KeyVersion, context: dict[str, str], other: dict[str, str]
) -> None:
    ciphertext, dek = ring.encrypt(AES, aes, b"p", context)
    key, wrapped = ring.data_key(AES, aes, 256, context)
    if context == other:
        assert ring.decrypt(AES, aes, ciphertext, dek, other) == b"p"
        assert ring.open_data_key(AES, aes, wrapped, other) == key
    else:
        assert refuses(ring.decrypt, AES, aes, ciphertext, dek, other)
        assert refuses(ring.open_data_key, AES, aes, wrapped, other)


@pytest.mark.parametrize(("kind", "size"), CIPHERS)
def test_every_kind_of_key(ring: Keyring, made: Made, kind: KeyType, size: int) -> None:
    spec, version = made[kind, size, Purpose.ENCRYPT]
    ciphertext, dek = ring.encrypt(spec, version, b"plaintext", {"a": "b"})
    assert ring.decrypt(spec, version, ciphertext, dek, {"a": "b"}) == b"plaintext"
    assert refuses(ring.decrypt, spec, version, ciphertext, dek, None)
    assert dek[4] == (2 if kind is KeyType.RSA else 1)
    for bits in (128, 256, 512):
        key, wrapped = ring.data_key(spec, version, bits, None)
        assert len(key) * 8 == bits
        assert ring.open_data_key(spec, version, wrapped, {}) == key


def test_a_pair_for_use_outside_opens_with_its_context_alone(ring: Keyring, aes: KeyVersion) -> None:
    spec = KeySpec(KeyType.EC, 256, Purpose.SIGN)
    secret, public, (ciphertext, dek) = ring.data_key_pair(AES, aes, spec, {"a": "1"})
    assert ring.decrypt(AES, aes, ciphertext, dek, {"a": "1"}) == secret
    assert refuses(ring.decrypt, AES, aes, ciphertext, dek, None)
    assert load_der_private_key(secret, None).public_key() == load_der_public_key(public)


def test_no_context_and_an_empty_one_are_the_same(ring: Keyring, aes: KeyVersion) -> None:
    ciphertext, dek = ring.encrypt(AES, aes, b"p", None)
    assert ring.decrypt(AES, aes, ciphertext, dek, {}) == b"p"


def test_equal_messages_share_nothing(ring: Keyring, aes: KeyVersion) -> None:
    (c1, d1), (c2, d2) = (ring.encrypt(AES, aes, b"same", None) for _ in range(2))
    assert c1[26:58] != c2[26:58]
    assert c1[90:] != c2[90:]
    assert d1[26:] != d2[26:]


def test_any_changed_byte_is_refused(ring: Keyring, aes: KeyVersion) -> None:
    ciphertext, dek = ring.encrypt(AES, aes, b"plaintext", {"a": "b"})
    for damaged in flips(ciphertext):
        assert refuses(ring.decrypt, AES, aes, damaged, dek, {"a": "b"})
    for damaged in flips(dek):
        assert refuses(ring.decrypt, AES, aes, ciphertext, damaged, {"a": "b"})


@settings(max_examples=50)
@given(junk=st.binary(max_size=400))
def test_junk_is_refused(ring: Keyring, aes: KeyVersion, junk: bytes) -> None:
    ciphertext, dek = ring.encrypt(AES, aes, b"p", None)
    assert refuses(ring.decrypt, AES, aes, junk, dek, None)
    assert refuses(ring.decrypt, AES, aes, ciphertext, junk, None)
    assert refuses(ring.open_data_key, AES, aes, junk, None)
    assert refuses(ring.version_in, KEY, junk)
    assert refuses(ring.version_in, KEY, b"KVL\x01\x01\x00" + junk)


class TestLayers:
    """A container opens in the layer it was made for, and in no other."""

    @pytest.mark.parametrize(("kind", "size"), CIPHERS)
    def test_a_dek_is_not_handed_out_as_a_data_key(self, ring: Keyring, made: Made, kind: KeyType, size: int) -> None:
        spec, version = made[kind, size, Purpose.ENCRYPT]
        ciphertext, dek = ring.encrypt(spec, version, b"p", None)
        _, wrapped = ring.data_key(spec, version, 256, None)
        assert refuses(ring.open_data_key, spec, version, dek, None)
        assert refuses(ring.decrypt, spec, version, ciphertext, wrapped, None)
        assert refuses(ring.rewrap, spec, version, version, wrapped, None)

    def test_the_two_parts_are_not_interchangeable(self, ring: Keyring, aes: KeyVersion) -> None:
        ciphertext, dek = ring.encrypt(AES, aes, b"p", None)
        assert refuses(ring.decrypt, AES, aes, dek, ciphertext, None)
        assert refuses(ring.decrypt, AES, aes, dek, dek, None)
        assert refuses(ring.version_in, KEY, ciphertext)

    def test_parts_of_two_messages_do_not_mix(self, ring: Keyring, aes: KeyVersion) -> None:
        (c1, d1), (c2, d2) = (ring.encrypt(AES, aes, b"p", None) for _ in range(2))
        assert refuses(ring.decrypt, AES, aes, c1, d2, None)
        assert refuses(ring.decrypt, AES, aes, c2, d1, None)

    def test_stored_material_is_no_message(self, ring: Keyring, aes: KeyVersion) -> None:
        assert refuses(ring.open_data_key, AES, aes, aes.encrypted_key, None)


class TestPlaces:
    """A container opens under its own key, version and installation only, even where the material is the same."""

    def test_other_version(self, ring: Keyring, aes: KeyVersion, second: KeyVersion) -> None:
        ciphertext, dek = ring.encrypt(AES, aes, b"p", None)
        assert refuses(ring.decrypt, AES, second, ciphertext, dek, None)

    @pytest.mark.parametrize(
        "place", [{"key_id": KeyId(uuid(0xC)), "version": 1}, {"key_id": KEY, "version": 3}], ids=str
    )
    def test_same_material_elsewhere(self, ring: Keyring, place: dict[str, Any]) -> None:
        material = ring.generate(AES)
        here = ring.versions.wrap(material, AES, key_id=KEY, version=1, created_at=0)
        there = ring.versions.wrap(material, AES, **place, created_at=0)
        ciphertext, dek = ring.encrypt(AES, here, b"p", None)
        assert ring.decrypt(AES, here, ciphertext, dek, None) == b"p"
        assert refuses(ring.decrypt, AES, there, ciphertext, dek, None)

    def test_same_material_in_another_installation(self, ring: Keyring) -> None:
        material, other = ring.generate(AES), Keyring.create()
        here, there = (k.versions.wrap(material, AES, key_id=KEY, version=1, created_at=0) for k in (ring, other))
        ciphertext, dek = ring.encrypt(AES, here, b"p", None)
        assert refuses(other.decrypt, AES, there, ciphertext, dek, None)

    def test_version_in_refuses_another_key(self, ring: Keyring, aes: KeyVersion) -> None:
        _, dek = ring.encrypt(AES, aes, b"p", None)
        assert refuses(ring.version_in, KeyId(uuid(0xC)), dek)


class TestRewrap:
    def test_opens_under_the_new_version_and_the_ciphertext_stays(
        self, ring: Keyring, aes: KeyVersion, second: KeyVersion
    ) -> None:
        ciphertext, dek = ring.encrypt(AES, aes, b"p", {"a": "b"})
        again = ring.rewrap(AES, aes, second, dek, {"a": "b"})
        assert ring.version_in(KEY, again) == 2
        assert ring.decrypt(AES, second, ciphertext, again, {"a": "b"}) == b"p"
        assert refuses(ring.decrypt, AES, aes, ciphertext, again, {"a": "b"})
        assert refuses(ring.rewrap, AES, aes, second, dek, None)
        assert refuses(ring.rewrap, AES, second, aes, dek, {"a": "b"})


class TestForeignRsa:
    """Whoever has an RSA public key can wrap what he likes: only secrets of the right length are taken."""

    @pytest.mark.parametrize("size", [0, 1, 16, 31, 33, 64])
    def test_a_dek_of_another_length_is_refused(self, ring: Keyring, made: Made, size: int) -> None:
        spec, version = made[KeyType.RSA, 3072, Purpose.ENCRYPT]
        cipher = ring._load(spec, version)
        assert isinstance(cipher, Cipher)
        assert refuses(cipher.open_dek, cipher.seal_dek(bytes(size), bytes(32), ring._rng), bytes(32))

    @pytest.mark.parametrize("size", [0, 15, 33])
    def test_a_data_key_of_another_length_is_refused(self, ring: Keyring, made: Made, size: int) -> None:
        spec, version = made[KeyType.RSA, 3072, Purpose.ENCRYPT]
        cipher = ring._load(spec, version)
        assert isinstance(cipher, Cipher)
        _, wrapped = cipher.data_key(size, bytes(32), ring._rng)
        assert refuses(cipher.open_data_key, wrapped, bytes(32))


def test_threads_share_a_keyring() -> None:
    ring, failures = Keyring.create(), []
    rows = [ring.versions.wrap(ring.generate(AES), AES, key_id=KEY, version=n, created_at=0) for n in range(1, 6)]

    def work() -> None:
        try:
            for row in rows * 20:
                ciphertext, dek = ring.encrypt(AES, row, b"p", {"n": str(row.version)})
                assert ring.decrypt(AES, row, ciphertext, dek, {"n": str(row.version)}) == b"p"
                ring.versions.forget(KEY)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
