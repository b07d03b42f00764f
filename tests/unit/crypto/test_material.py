"""Making, writing and loading key material, and writing public keys out."""

import base64
import json
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_public_key,
)

from keyvault_lite.crypto import material
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.public import public_key
from keyvault_lite.model.errors import IntegrityViolation, InvalidRequest
from keyvault_lite.model.keys import (
    ALGORITHMS,
    Algorithm,
    KeySpec,
    KeyType,
    KeyVersion,
    PublicKeyFormat,
    Purpose,
    VersionStatus,
)
from tests.unit.crypto.conftest import KEY, Made

QUICK = [row for row in ALGORITHMS if row[0] is not KeyType.RSA]
ASYMMETRIC = [row for row in ALGORITHMS if row[0] not in {KeyType.AES, KeyType.HMAC}]


@pytest.mark.parametrize("row", [*QUICK, (KeyType.RSA, 3072, Purpose.SIGN)])
def test_generate(ring: Keyring, row: Any) -> None:  # noqa: ANN401
    spec = KeySpec(*row)
    made, other = ring.generate(spec), ring.generate(spec) if spec.type is not KeyType.RSA else None
    assert other is None or made.secret != other.secret
    if not spec.asymmetric:
        assert (len(made.secret) * 8, made.public_key) == (spec.size, None)
        return
    key = material.load(made.secret)
    assert made.public_key == key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    expected: dict[KeyType, type] = {
        KeyType.RSA: rsa.RSAPrivateKey,
        KeyType.EC: ec.EllipticCurvePrivateKey,
        KeyType.ED25519: ed25519.Ed25519PrivateKey,
        KeyType.ML_DSA: getattr(mldsa, f"MLDSA{spec.size}PrivateKey", object),
    }
    assert isinstance(key, expected[spec.type])
    assert getattr(key, "key_size", spec.size) == spec.size


def test_generated_bytes_come_from_the_given_source() -> None:
    spec = KeySpec(KeyType.HMAC, 512, Purpose.MAC)
    assert material.generate(spec, lambda size: b"\x11" * size).secret == b"\x11" * 64


def test_a_new_pair_has_to_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    material._check_pair(one, one.public_key())
    with pytest.raises(InvalidSignature):
        material._check_pair(one, other.public_key())
    checked = []
    monkeypatch.setattr(material, "_check_pair", lambda *pair: checked.append(pair))
    made = material.adopt(one)
    [(private, public)] = checked
    assert private.private_numbers() == material.load_rsa(made.secret).private_numbers() == one.private_numbers()
    assert public.public_numbers() == one.public_key().public_numbers()


def test_what_comes_from_outside_is_validated_and_then_trusted(
    monkeypatch: pytest.MonkeyPatch, golden: dict[str, Any]
) -> None:
    asked = []
    real = load_der_private_key

    def spy(data: bytes, password: None, *, unsafe_skip_rsa_key_validation: bool) -> object:
        asked.append(unsafe_skip_rsa_key_validation)
        return real(data, password, unsafe_skip_rsa_key_validation=unsafe_skip_rsa_key_validation)

    monkeypatch.setattr(material, "load_der_private_key", spy)
    made = material.generate(KeySpec(KeyType.ED25519, None, Purpose.SIGN), lambda size: b"\x11" * size)
    material.load(made.secret)
    material.parse_pair(made.secret)
    assert asked == [True, True, False]


def test_other_key_types_are_not_loaded(ring: Keyring) -> None:
    foreign = x25519.X25519PrivateKey.generate()
    secret = foreign.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(TypeError, match="not a key pair of a known type"):
        material.load(secret)
    with pytest.raises(TypeError, match="not an RSA key"):
        material.load_rsa(ring.generate(KeySpec(KeyType.EC, 256, Purpose.SIGN)).secret)
    spki = foreign.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    version = KeyVersion(KEY, 1, VersionStatus.ACTIVE, 0, b"", spki)
    with pytest.raises(IntegrityViolation):
        public_key(version, KeySpec(KeyType.ED25519, None, Purpose.SIGN), PublicKeyFormat.PEM)


class TestPublicKey:
    @pytest.mark.parametrize("row", ASYMMETRIC)
    def test_pem_and_der_are_the_same_key(self, made: Made, row: Any) -> None:  # noqa: ANN401
        spec, version = made[row]
        pem, der = (public_key(version, spec, f) for f in (PublicKeyFormat.PEM, PublicKeyFormat.DER))
        assert (pem.version, pem.algorithm, pem.format) == (1, spec.algorithms[0], PublicKeyFormat.PEM)
        assert isinstance(pem.public_key, str)
        assert pem.public_key.startswith("-----BEGIN PUBLIC KEY-----\n")
        assert load_pem_public_key(pem.public_key.encode()) == load_der_public_key(version.public_key or b"")
        assert der.public_key == version.public_key

    @pytest.mark.parametrize("row", ASYMMETRIC)
    def test_raw(self, made: Made, row: Any) -> None:  # noqa: ANN401
        spec, version = made[row]
        raw = public_key(version, spec, PublicKeyFormat.RAW).public_key
        key = load_der_public_key(version.public_key or b"")
        assert isinstance(raw, bytes)
        if isinstance(key, ec.EllipticCurvePublicKey):
            assert raw[0] == 4
            assert ec.EllipticCurvePublicKey.from_encoded_point(key.curve, raw) == key
        elif isinstance(key, rsa.RSAPublicKey):
            assert load_der_public_key(raw) == key
        else:
            assert {KeyType.ED25519: 32, KeyType.ML_DSA: {44: 1312, 65: 1952, 87: 2592}.get(spec.size or 0)}[
                spec.type
            ] == len(raw)
            assert (version.public_key or b"").endswith(raw)

    @pytest.mark.parametrize("row", ASYMMETRIC)
    def test_jwk(self, made: Made, row: Any) -> None:  # noqa: ANN401
        spec, version = made[row]
        jwk = public_key(version, spec, PublicKeyFormat.JWK).public_key
        assert isinstance(jwk, dict)
        assert json.loads(json.dumps(jwk)) == jwk
        assert jwk.pop("use") == ("enc" if spec.purpose is Purpose.ENCRYPT else "sig")
        assert jwk.pop("kid") == f"{version.key_id}/1"
        key = load_der_public_key(version.public_key or b"")

        def number(name: str, length: int | None = None) -> int:
            raw = base64.urlsafe_b64decode(jwk[name] + "==")
            assert "=" not in jwk[name]
            assert len(raw) == length or (length is None and raw[0] != 0)
            return int.from_bytes(raw, "big")

        if isinstance(key, rsa.RSAPublicKey):
            assert jwk.keys() == {"kty", "n", "e"}
            assert rsa.RSAPublicNumbers(number("e"), number("n")) == key.public_numbers()
            assert jwk["e"] == "AQAB"
        elif isinstance(key, ec.EllipticCurvePublicKey):
            length = {256: 32, 384: 48, 521: 66}[key.key_size]
            assert (jwk["kty"], jwk["crv"]) == ("EC", f"P-{key.key_size}")
            numbers = ec.EllipticCurvePublicNumbers(number("x", length), number("y", length), key.curve)
            assert numbers == key.public_numbers()
        elif spec.type is KeyType.ED25519:
            assert (jwk["kty"], jwk["crv"]) == ("OKP", "Ed25519")
            number("x", 32)
        else:
            assert jwk.keys() == {"kty", "alg", "pub"}
            assert (jwk["kty"], jwk["alg"]) == ("AKP", f"ML-DSA-{spec.size}")

    def test_coordinates_keep_their_leading_zeros(self) -> None:
        scalar = next(s for s in range(1, 5000) if point(s).x.bit_length() <= 248)
        key = ec.derive_private_key(scalar, ec.SECP256R1())
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        version = KeyVersion(KEY, 1, VersionStatus.ACTIVE, 0, b"", spki)
        jwk = public_key(version, KeySpec(KeyType.EC, 256, Purpose.SIGN), PublicKeyFormat.JWK).public_key
        assert isinstance(jwk, dict)
        assert jwk["x"].startswith("A")
        assert len(jwk["x"]) == len(jwk["y"]) == 43

    @pytest.mark.parametrize("row", [row for row in ALGORITHMS if row not in ASYMMETRIC])
    def test_symmetric_keys_have_none(self, made: Made, row: Any) -> None:  # noqa: ANN401
        spec, version = made[row]
        for form in PublicKeyFormat:
            with pytest.raises(InvalidRequest, match="has no public key"):
                public_key(version, spec, form)

    def test_agrees_with_the_jwk_of_wycheproof(self, vectors: Any) -> None:  # noqa: ANN401
        sources = [("ed25519", Algorithm.ED25519), ("rsa_pss_3072_sha256_mgf1_32", Algorithm.RSA_PSS_SHA256)]
        for name, algorithm in sources:
            group = vectors(f"wycheproof/{name}_test.json")["testGroups"][0]
            version = KeyVersion(KEY, 1, VersionStatus.ACTIVE, 0, b"", bytes.fromhex(group["publicKeyDer"]))
            row = next(row for row, algorithms in ALGORITHMS.items() if algorithm in algorithms)
            jwk = public_key(version, KeySpec(*row), PublicKeyFormat.JWK).public_key
            assert isinstance(jwk, dict)
            for field in jwk.keys() - {"use", "kid"}:
                assert jwk[field] == group["publicKeyJwk"][field]


def point(scalar: int) -> ec.EllipticCurvePublicNumbers:
    return ec.derive_private_key(scalar, ec.SECP256R1()).public_key().public_numbers()
