"""The key of a witness, and the verification of others' signatures."""

import copy

import pytest

from keyvault_lite.crypto.witness import WitnessKey, verify_ed25519
from keyvault_lite.model.errors import IntegrityViolation, InvalidRequest

KEY = WitnessKey("witness.example/1", bytes(range(32)))


def test_it_signs_what_verifies() -> None:
    signature = KEY.sign(b"message")
    assert verify_ed25519(KEY.public_key, b"message", signature)
    assert not verify_ed25519(KEY.public_key, b"Message", signature)
    assert not verify_ed25519(KEY.public_key, b"message", signature[:-1])
    assert not verify_ed25519(WitnessKey.create("other").public_key, b"message", signature)
    assert not verify_ed25519(b"short", b"message", signature)


def test_the_file_is_the_key() -> None:
    text = KEY.write()
    assert text == "PRIVATE+KEY+witness.example/1+BAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n"
    assert WitnessKey.parse(text).public_key == KEY.public_key
    assert WitnessKey.parse(text.strip()).name == "witness.example/1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        KEY.write() * 2,
        KEY.write().replace("PRIVATE", "PUBLIC"),
        KEY.write().replace("+BAAB", "+AQAB"),  # the key of a log
        KEY.write().replace("+BAABAgME", "+BAAB"),
        KEY.write().replace("witness.example/1+", "witness example+"),
        KEY.write().replace("+BAAB", "BAAB"),
        KEY.write().replace("4f\n", "4f=\n"),
    ],
)
def test_files_that_hold_no_key(text: str) -> None:
    with pytest.raises(IntegrityViolation, match="does not hold a witness's key"):
        WitnessKey.parse(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "ä", "a\n", "x" * 201])
def test_names_that_cannot_stand_in_a_signature_line(name: str) -> None:
    with pytest.raises(InvalidRequest):
        WitnessKey.create(name)


def test_it_is_kept_secret() -> None:
    assert repr(KEY) == "<WitnessKey>"
    with pytest.raises(TypeError):
        copy.copy(KEY)
