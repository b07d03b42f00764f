"""Signatures and MACs through our own table, against external vectors and against misuse."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keyvault_lite.crypto.algorithms import SCHEMES
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.material import load
from keyvault_lite.model.errors import IntegrityViolation, InvalidRequest
from keyvault_lite.model.keys import ALGORITHMS, DIGEST_SIZES, Algorithm, KeySpec, KeyType, Purpose
from tests.unit.crypto.conftest import Made

Vectors = Callable[[str], Any]
SIGNING = [row for row in ALGORITHMS if row[2] is not Purpose.ENCRYPT]
SIGNATURES = [(row, algorithm) for row in SIGNING for algorithm in ALGORITHMS[row]]


def holds(algorithm: Algorithm, key: object, message: bytes, signature: bytes) -> bool:
    try:
        SCHEMES[algorithm].verify(key, message, signature, False)
    except InvalidSignature:
        return False
    return True


def cases(document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for group in document["testGroups"]:
        for case in group["tests"]:
            yield group, case


class TestVectors:
    @pytest.mark.parametrize(
        ("file", "algorithm"),
        [
            ("ecdsa_secp256r1_sha256", Algorithm.ECDSA_SHA256),
            ("ecdsa_secp384r1_sha384", Algorithm.ECDSA_SHA384),
            ("ecdsa_secp521r1_sha512", Algorithm.ECDSA_SHA512),
            ("ed25519", Algorithm.ED25519),
            ("rsa_pss_3072_sha256_mgf1_32", Algorithm.RSA_PSS_SHA256),
            ("rsa_pss_4096_sha256_mgf1_32", Algorithm.RSA_PSS_SHA256),
            ("rsa_pss_4096_sha512_mgf1_64", Algorithm.RSA_PSS_SHA512),
            ("rsa_signature_3072_sha256", Algorithm.RSA_PKCS1_SHA256),
            ("rsa_signature_3072_sha384", Algorithm.RSA_PKCS1_SHA384),
            ("rsa_signature_4096_sha512", Algorithm.RSA_PKCS1_SHA512),
        ],
    )
    def test_wycheproof_verify(self, vectors: Vectors, file: str, algorithm: Algorithm) -> None:
        keys: dict[str, Any] = {}
        for group, case in cases(vectors(f"wycheproof/{file}_test.json")):
            der = group["publicKeyDer"]
            key = keys.setdefault(der, None) or load_der_public_key(bytes.fromhex(der))
            keys[der] = key
            valid = holds(algorithm, key, bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"]))
            # "acceptable" are RSA signatures whose DigestInfo has no NULL; either answer is allowed.
            assert case["result"] == "acceptable" or valid == (case["result"] == "valid"), case["tcId"]

    @pytest.mark.parametrize("bits", [256, 384, 512])
    def test_wycheproof_hmac(self, vectors: Vectors, bits: int) -> None:
        algorithm, full = Algorithm(f"HMAC_SHA{bits}"), 0
        for group, case in cases(vectors(f"wycheproof/hmac_sha{bits}_test.json")):
            key, message, tag = (bytes.fromhex(case[field]) for field in ("key", "msg", "tag"))
            valid = case["result"] == "valid" and group["tagSize"] == bits
            assert holds(algorithm, key, message, tag) == valid, case["tcId"]
            full += valid
            if valid:
                assert SCHEMES[algorithm].sign(key, message, False) == tag
        assert full > 20

    def test_wycheproof_ml_dsa_verify(self, vectors: Vectors) -> None:
        for group, case in cases(vectors("wycheproof/mldsa_65_verify_test.json")):
            raw = bytes.fromhex(group["publicKey"])
            if case.get("ctx") is not None:
                continue  # contexts are not offered
            try:
                key = MLDSA65PublicKey.from_public_bytes(raw)
            except ValueError:
                assert case["result"] == "invalid"
                continue
            valid = holds(Algorithm.ML_DSA_65, key, bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"]))
            assert valid == (case["result"] == "valid"), case["tcId"]

    def test_wycheproof_ml_dsa_seeds(self, vectors: Vectors) -> None:
        loaded = 0
        for group, case in cases(vectors("wycheproof/mldsa_65_sign_seed_test.json")):
            if case["result"] != "valid" or "msg" not in case or case.get("ctx") or "privateKeyPkcs8" not in group:
                continue  # invalid, external mu, context, or a private key that is expanded and not a seed
            private = load(bytes.fromhex(group["privateKeyPkcs8"]))
            public = private.public_key()
            assert isinstance(public, MLDSA65PublicKey)
            assert public.public_bytes_raw().hex() == group["publicKey"]
            message = bytes.fromhex(case["msg"])
            assert holds(Algorithm.ML_DSA_65, public, message, bytes.fromhex(case["sig"]))
            assert holds(
                Algorithm.ML_DSA_65, public, message, SCHEMES[Algorithm.ML_DSA_65].sign(private, message, False)
            )
            loaded += 1
        assert loaded > 30

    def test_cctv_ed25519(self, vectors: Vectors) -> None:
        # RFC 8032 without cofactor, as OpenSSL has it: R is compared as bytes, so a residue or another spelling fails.
        for case in vectors("cctv/ed25519vectors.json"):
            flags = set(case["flags"] or [])
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(case["key"]))
            valid = holds(Algorithm.ED25519, key, case["msg"].encode(), bytes.fromhex(case["sig"]))
            assert valid == (not flags & {"low_order_residue", "non_canonical_R"}), case["number"]


def test_every_algorithm_has_a_scheme() -> None:
    native = {a for a in SCHEMES if isinstance(a, Algorithm)}
    assert native == {a for row in SIGNING for a in ALGORITHMS[row]}


@pytest.mark.parametrize(("row", "algorithm"), SIGNATURES)
class TestKeyring:
    def test_round_trip_and_refusal(self, ring: Keyring, made: Made, row: Any, algorithm: Algorithm) -> None:  # noqa: ANN401
        spec, version = made[row]
        signature = ring.sign(spec, version, b"message", algorithm, prehashed=False)
        assert ring.verify(spec, version, b"message", signature, algorithm, prehashed=False)
        assert not ring.verify(spec, version, b"messagE", signature, algorithm, prehashed=False)
        for bad in (b"", signature[:-1], signature + b"\x00", signature[:-1] + bytes([signature[-1] ^ 1])):
            assert not ring.verify(spec, version, b"message", bad, algorithm, prehashed=False)

    def test_prehashed(self, ring: Keyring, made: Made, row: Any, algorithm: Algorithm) -> None:  # noqa: ANN401
        spec, version = made[row]
        size = DIGEST_SIZES.get(algorithm)
        if size is None:
            with pytest.raises(InvalidRequest, match="takes the message itself"):
                ring.sign(spec, version, bytes(32), algorithm, prehashed=True)
            with pytest.raises(InvalidRequest, match="takes the message itself"):
                ring.verify(spec, version, bytes(32), b"", algorithm, prehashed=True)
            return
        digest = hashlib.new(f"sha{size * 8}", b"message").digest()
        signature = ring.sign(spec, version, digest, algorithm, prehashed=True)
        assert ring.verify(spec, version, b"message", signature, algorithm, prehashed=False)
        assert ring.verify(spec, version, digest, signature, algorithm, prehashed=True)
        assert not ring.verify(spec, version, digest, signature, algorithm, prehashed=False)
        for length in (0, size - 1, size + 1):
            with pytest.raises(InvalidRequest, match=f"has {size} bytes"):
                ring.sign(spec, version, bytes(length), algorithm, prehashed=True)
            with pytest.raises(InvalidRequest, match=f"has {size} bytes"):
                ring.verify(spec, version, bytes(length), signature, algorithm, prehashed=True)


@pytest.mark.parametrize("row", SIGNING)
def test_no_key_takes_the_algorithm_of_another(ring: Keyring, made: Made, row: Any) -> None:  # noqa: ANN401
    spec, version = made[row]
    for algorithm in set(Algorithm) - set(spec.algorithms):
        with pytest.raises(InvalidRequest, match="this key does not do"):
            ring.sign(spec, version, b"m", algorithm, prehashed=False)
        with pytest.raises(InvalidRequest, match="this key does not do"):
            ring.verify(spec, version, b"m", b"s", algorithm, prehashed=False)


def test_rsa_algorithms_do_not_verify_each_other(ring: Keyring, made: Made) -> None:
    spec, version = made[KeyType.RSA, 3072, Purpose.SIGN]
    signatures = {a: ring.sign(spec, version, b"m", a, prehashed=False) for a in spec.algorithms}
    for signed, signature in signatures.items():
        for asked in spec.algorithms:
            assert ring.verify(spec, version, b"m", signature, asked, prehashed=False) == (signed is asked)


def test_pss_salt_is_as_long_as_the_hash(made: Made, ring: Keyring) -> None:
    spec, version = made[KeyType.RSA, 3072, Purpose.SIGN]
    key = load_der_public_key(version.public_key or b"")
    assert isinstance(key, RSAPublicKey)
    signature = ring.sign(spec, version, b"m", Algorithm.RSA_PSS_SHA384, prehashed=False)
    key.verify(signature, b"m", padding.PSS(padding.MGF1(hashes.SHA384()), 48), hashes.SHA384())


def test_deterministic_schemes_repeat_and_others_do_not(ring: Keyring, made: Made) -> None:
    for row, algorithm in SIGNATURES:
        spec, version = made[row]
        same = ring.sign(spec, version, b"m", algorithm, prehashed=False) == ring.sign(
            spec, version, b"m", algorithm, prehashed=False
        )
        assert same == (algorithm.startswith(("RSA_PKCS1", "HMAC", "ED25519"))), algorithm


def test_purposes_are_kept_apart(ring: Keyring, made: Made) -> None:
    for spec, version in made.values():
        if spec.purpose is Purpose.ENCRYPT:
            with pytest.raises(InvalidRequest, match="does not sign"):
                ring.sign(spec, version, b"", spec.algorithms[0], prehashed=False)
            with pytest.raises(InvalidRequest, match="does not sign or verify"):
                ring.verify(spec, version, b"", b"", spec.algorithms[0], prehashed=False)
        else:
            with pytest.raises(InvalidRequest, match="does not encrypt or decrypt"):
                ring.encrypt(spec, version, b"", None)


def test_a_spec_of_another_purpose_does_not_load(ring: Keyring, made: Made) -> None:
    _, version = made[KeyType.RSA, 3072, Purpose.SIGN]
    with pytest.raises(IntegrityViolation):
        ring.encrypt(KeySpec(KeyType.RSA, 3072, Purpose.ENCRYPT), version, b"", None)
