"""ML-DSA and ML-KEM where they are easily used wrongly: forms of private keys, hedging, implicit rejection, lengths."""

import os
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import mldsa, mlkem
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keyvault_lite.crypto.agreement import CIPHERTEXTS, Encapsulation
from keyvault_lite.crypto.algorithms import Signer
from keyvault_lite.crypto.importing import imported
from keyvault_lite.crypto.material import generate
from keyvault_lite.model.errors import InvalidCiphertext, InvalidRequest
from keyvault_lite.model.keys import Algorithm, KeySpec, KeyType, Purpose

ML_DSA = KeySpec(KeyType.ML_DSA, 65, Purpose.SIGN)
SEED = bytes(range(32))
EXPANDED_BYTES = 4032
"""Of an ML-DSA-65 private key as FIPS 204 expands it (table 2)."""
OID = bytes.fromhex("0609608648016503040312")


def der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 128:
        return bytes([tag, length]) + content
    raw = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(raw)]) + raw + content


def pkcs8(key: bytes) -> bytes:
    """RFC 9881: the seed [0], the expanded key, or a sequence of both."""
    return der(0x30, b"\x02\x01\x00" + der(0x30, OID) + der(4, key))


def test_a_seed_is_taken() -> None:
    made = imported(ML_DSA, pkcs8(der(0x80, SEED)))
    signature = Signer(ML_DSA, made.secret).sign(b"x", Algorithm.ML_DSA_65, prehashed=False)
    mldsa.MLDSA65PrivateKey.from_seed_bytes(SEED).public_key().verify(signature, b"x")


@pytest.mark.parametrize(
    "key",
    [
        der(0x80, SEED + b"x"),
        der(0x80, SEED[1:]),
        der(4, bytes(EXPANDED_BYTES)),
        # Which of two keys is meant would depend on who reads it.
        der(0x30, der(4, SEED) + der(4, bytes(EXPANDED_BYTES))),
        der(0x30, der(4, SEED) + der(4, bytes(40))),
        der(0x30, der(4, SEED)),
        b"",
    ],
)
def test_a_key_in_any_other_form_than_its_seed_is_refused(key: bytes) -> None:
    with pytest.raises(InvalidRequest):
        imported(ML_DSA, pkcs8(key))


def test_bytes_behind_a_key_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        imported(ML_DSA, pkcs8(der(0x80, SEED)) + b"x")


def test_signatures_are_hedged_and_of_one_length() -> None:
    signer = Signer(ML_DSA, generate(ML_DSA, os.urandom).secret)
    one, other = (signer.sign(b"x", Algorithm.ML_DSA_65, prehashed=False) for _ in range(2))
    assert one != other
    for wrong in (b"", one[:-1], one + b"\0", bytes(len(one)), b"\xff" * len(one)):
        assert not signer.verify(b"x", wrong, Algorithm.ML_DSA_65, prehashed=False)


@pytest.mark.parametrize("size", CIPHERTEXTS)
def test_an_altered_ciphertext_gives_another_secret_and_no_error(size: int) -> None:
    spec = KeySpec(KeyType.ML_KEM, size, Purpose.ENCAPSULATE)
    made = generate(spec, os.urandom)
    loaded = Encapsulation(spec, made.secret, made.public_key or b"")
    secret, ciphertext = loaded.encapsulate()
    assert loaded.decapsulate(ciphertext) == secret
    for place in (0, len(ciphertext) // 2, -1):
        altered = bytearray(ciphertext)
        altered[place] ^= 1
        rejected = loaded.decapsulate(bytes(altered))
        assert len(rejected) == 32
        assert rejected != secret
        assert loaded.decapsulate(bytes(altered)) == rejected, "the same each time, or it would tell"
    for wrong in (b"", ciphertext[:-1], ciphertext + b"\0"):
        with pytest.raises(InvalidCiphertext):
            loaded.decapsulate(wrong)


def test_wycheproof_ml_kem(vectors: Any) -> None:  # noqa: ANN401
    spec = KeySpec(KeyType.ML_KEM, 768, Purpose.ENCAPSULATE)
    checked = 0
    for group in vectors("wycheproof/mlkem_768_test.json")["testGroups"]:
        for case in group["tests"]:
            seed, ciphertext = bytes.fromhex(case["seed"]), bytes.fromhex(case["c"])
            try:
                pair = mlkem.MLKEM768PrivateKey.from_seed_bytes(seed)
                secret = pair.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
                shared = Encapsulation(spec, secret, b"").decapsulate(ciphertext).hex()
            except (ValueError, InvalidCiphertext):
                shared = None
            assert (shared == case["K"]) is (case["result"] == "valid"), case["tcId"]
            checked += 1
    assert checked > 100
