"""What only dialects use: bare OAEP, shared secrets, imported material, notes, blobs, and the extra `aws-full`."""

import hashlib
import json
import os
import sys
from base64 import b64decode
from typing import Final

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from keyvault_lite.crypto import blob, pycryptodome_backend
from keyvault_lite.crypto.agreement import Agreement
from keyvault_lite.crypto.importing import imported
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.transit import binding
from keyvault_lite.crypto.versions import IMPORTED
from keyvault_lite.model.encoding import pae
from keyvault_lite.model.errors import IntegrityViolation, InvalidCiphertext, InvalidRequest, Unsupported
from keyvault_lite.model.keys import DialectAlgorithm, KeySpec, KeyType, KeyVersion, Purpose
from keyvault_lite.model.names import KeyId
from tests.support.paths import ROOT

ID = KeyId("0f8fad5b-d9cb-469f-a165-70867728950e")
AES = KeySpec(KeyType.AES, 256, Purpose.ENCRYPT)
VECTOR = json.loads((ROOT / "tests" / "vectors" / "ml_kem_512.json").read_text())
ABSENT = ("Crypto", "Crypto.Signature.eddsa", "Crypto.Hash.SHA512", "Crypto.PublicKey.MLKEM")


@pytest.fixture(scope="module")
def ring() -> Keyring:
    return Keyring.create()


def version(ring: Keyring, spec: KeySpec) -> KeyVersion:
    return ring.versions.wrap(ring.generate(spec), spec, key_id=ID, version=1, created_at=0)


def der(private: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> bytes:
    return private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


class TestBlob:
    def test_parts_come_back(self, ring: Keyring) -> None:
        made = version(ring, AES)
        ciphertext, encrypted_dek = ring.encrypt(AES, made, b"message", None)
        joined = blob.join(encrypted_dek, ciphertext)
        assert blob.split(joined) == (encrypted_dek, ciphertext)
        assert blob.header(joined).id.hex() == ID.replace("-", "")
        assert len(joined) == len(b"message") + 247
        assert joined == b"\x01" + len(encrypted_dek).to_bytes(2, "big") + encrypted_dek + ciphertext

    @pytest.mark.parametrize("raw", [b"", b"\x01\x00", b"\x02\x00\x01ab", b"\x01\x00\x01a", b"\x01\xff\xffab"])
    def test_what_cannot_be_one(self, raw: bytes) -> None:
        with pytest.raises(InvalidCiphertext):
            blob.split(raw)

    def test_a_header_must_be_that_of_a_container(self) -> None:
        with pytest.raises(InvalidCiphertext):
            blob.header(b"\x01\x00\x01" + b"x" * 300)


def test_what_a_message_of_the_vault_dialect_is_bound_to() -> None:
    assert binding(None, None) == binding(b"", b"") == binding(None, b"")
    assert binding(b"c", b"") == binding(b"c", None) == hashlib.sha256(pae("transit", b"c", None)).digest()
    assert binding(b"", b"a") == binding(None, b"a") == hashlib.sha256(pae("transit", None, b"a")).digest()


class TestBareOaep:
    def test_an_aes_key_has_none(self, ring: Keyring) -> None:
        with pytest.raises(InvalidRequest, match="not an RSA key"):
            ring.seal_bare(AES, version(ring, AES), b"x", "SHA256")

    def test_there_and_back(self, ring: Keyring) -> None:
        spec = KeySpec(KeyType.RSA, 2048, Purpose.ENCRYPT)
        made = version(ring, spec)
        for digest, largest in (("SHA1", 214), ("SHA256", 190)):
            sealed = ring.seal_bare(spec, made, b"x" * largest, digest)
            assert ring.open_bare(spec, made, sealed, digest) == b"x" * largest
            with pytest.raises(InvalidRequest, match="larger"):
                ring.seal_bare(spec, made, b"x" * (largest + 1), digest)
        with pytest.raises(InvalidCiphertext):
            ring.open_bare(spec, made, ring.seal_bare(spec, made, b"x", "SHA256"), "SHA1")


class TestSharedSecrets:
    def test_other_keys_have_none(self, ring: Keyring) -> None:
        made = version(ring, AES)
        with pytest.raises(InvalidRequest, match="agree"):
            ring.derive_secret(AES, made, b"")
        with pytest.raises(InvalidRequest, match="encapsulate"):
            ring.encapsulate(AES, made)

    def test_only_points_of_the_curve(self, ring: Keyring) -> None:
        spec = KeySpec(KeyType.EC, 256, Purpose.AGREE)
        made = version(ring, spec)
        for curve, fits in ((ec.SECP256R1(), True), (ec.SECP384R1(), False), (ec.SECP256K1(), False)):
            peer = ec.generate_private_key(curve).public_key()
            raw = peer.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            if fits:
                assert len(ring.derive_secret(spec, made, raw)) == 32
            else:
                with pytest.raises(InvalidRequest):
                    ring.derive_secret(spec, made, raw)

    def test_only_keys_of_a_curve(self, ring: Keyring) -> None:
        spec = KeySpec(KeyType.EC, 256, Purpose.AGREE)
        made = version(ring, spec)
        other = ed25519.Ed25519PrivateKey.generate().public_key()
        for raw in (b"", b"no key", other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)):
            with pytest.raises(InvalidRequest, match="curve"):
                ring.derive_secret(spec, made, raw)

    def test_an_agreement_is_of_a_curve(self) -> None:
        with pytest.raises(TypeError):
            Agreement(KeySpec(KeyType.EC, 256, Purpose.AGREE), der(ed25519.Ed25519PrivateKey.generate()))

    @pytest.mark.parametrize("size", [512, 768, 1024])
    def test_encapsulation(self, ring: Keyring, size: int) -> None:
        spec = KeySpec(KeyType.ML_KEM, size, Purpose.ENCAPSULATE)
        made = version(ring, spec)
        secret, sealed = ring.encapsulate(spec, made)
        assert ring.decapsulate(spec, made, sealed) == secret
        with pytest.raises(InvalidCiphertext):
            ring.decapsulate(spec, made, sealed + b"x")


class TestNotes:
    def test_of_one_kind_only(self, ring: Keyring) -> None:
        note = ring.seal_note("GRANT", b"payload")
        assert ring.open_note("GRANT", note) == b"payload"
        for kind, raw in (("IMPORT", note), ("GRANT", note[:-1]), ("GRANT", b"")):
            with pytest.raises(InvalidCiphertext):
                ring.open_note(kind, raw)
        with pytest.raises(InvalidCiphertext):
            Keyring.create().open_note("GRANT", note)


class TestImports:
    def test_every_way_of_wrapping(self, ring: Keyring) -> None:
        private, public_der = ring.import_pair(KeySpec(KeyType.RSA, 2048, Purpose.ENCRYPT))
        public = rsa_public(public_der)
        for digest, name in ((hashes.SHA1(), "SHA1"), (hashes.SHA256(), "SHA256")):
            oaep = padding.OAEP(padding.MGF1(digest), digest, None)
            raw, key = os.urandom(32), os.urandom(32)
            for short in (key[:16], key[:24]):
                wrapped = public.encrypt(short, oaep) + aes_key_wrap_with_padding(short, raw)
                assert ring.open_import(private, wrapped, digest=name, key_wrap=True) == raw
            assert ring.open_import(private, public.encrypt(raw, oaep), digest=name, key_wrap=False) == raw
            wrapped = public.encrypt(key, oaep) + aes_key_wrap_with_padding(key, raw)
            assert ring.open_import(private, wrapped, digest=name, key_wrap=True) == raw
            for bad in (wrapped[:-1], wrapped[:256], public.encrypt(b"x", oaep) + wrapped[256:], bytes(300), b""):
                with pytest.raises(InvalidCiphertext):
                    ring.open_import(private, bad, digest=name, key_wrap=True)

    def test_material_is_of_the_kind(self, ring: Keyring) -> None:
        ed = KeySpec(KeyType.ED25519, None, Purpose.SIGN)
        made = ring.read_import(ed, der(ed25519.Ed25519PrivateKey.generate()))
        assert made.public_key is not None
        curve = der(ec.generate_private_key(ec.SECP256R1()))
        for spec, raw in (
            (AES, b"short"),
            (ed, b"nonsense"),
            (ed, curve),
            (KeySpec(KeyType.EC, 384, Purpose.SIGN), curve),
            (KeySpec(KeyType.SECP256K1, None, Purpose.SIGN), curve),
            (KeySpec(KeyType.RSA, 3072, Purpose.SIGN), der(rsa.generate_private_key(65537, 2048))),
            (KeySpec(KeyType.ML_DSA, 65, Purpose.SIGN), curve),
            (KeySpec(KeyType.ML_KEM, 768, Purpose.ENCAPSULATE), curve),
        ):
            with pytest.raises(InvalidRequest):
                ring.read_import(spec, raw)
        assert ring.read_import(KeySpec(KeyType.EC, 256, Purpose.SIGN), curve).public_key

    @pytest.mark.parametrize(
        ("spec", "pem", "told"),
        [
            (AES, "-----BEGIN PUBLIC KEY-----", "does not support public_key import"),
            (KeySpec(KeyType.RSA, 2048, Purpose.TRANSIT), "nonsense", "not SubjectPublicKeyInfo in PEM"),
            (KeySpec(KeyType.RSA, 2048, Purpose.TRANSIT), "-----BEGIN PUBLIC KEY-----", "not SubjectPublicKeyInfo in"),
        ],
    )
    def test_why_a_public_key_is_not_taken(self, ring: Keyring, spec: KeySpec, pem: str, told: str) -> None:
        with pytest.raises(InvalidRequest, match=told):
            ring.read_public(spec, pem)

    def test_a_public_key_says_of_what_kind_it_is(self, ring: Keyring) -> None:
        spec = KeySpec(KeyType.RSA, 2048, Purpose.TRANSIT)
        public = rsa.generate_private_key(65537, 2048).public_key()
        made = ring.read_public(spec, public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())
        assert made.public_key == public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(InvalidRequest, match="not SubjectPublicKeyInfo in PEM"):
            ring.read_public(spec, public.public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode())

    def test_origin_is_bound(self, ring: Keyring) -> None:
        material = ring.read_import(AES, os.urandom(32))
        made = ring.versions.wrap(material, AES, key_id=ID, version=1, created_at=0, attributes={"origin": IMPORTED})
        lying = KeyVersion(ID, 1, made.status, 0, made.encrypted_key, attributes={})
        with pytest.raises(IntegrityViolation):
            ring.encrypt(AES, lying, b"x", None)
        assert ring.encrypt(AES, made, b"x", None)

    def test_digests_tell_the_same_material(self, ring: Keyring) -> None:
        raw = os.urandom(32)
        assert ring.material_digest(ID, raw) == ring.material_digest(ID, raw)
        other = KeyId("0f8fad5b-d9cb-469f-a165-70867728950f")
        digests = {ring.material_digest(*each) for each in ((ID, raw), (other, raw), (ID, b""))}
        assert len(digests) == 3


def rsa_public(raw: bytes) -> rsa.RSAPublicKey:
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    public = load_der_public_key(raw)
    assert isinstance(public, rsa.RSAPublicKey)
    return public


class TestSignatures:
    def test_an_external_mu(self, ring: Keyring) -> None:
        spec = KeySpec(KeyType.ML_DSA, 44, Purpose.SIGN)
        made = version(ring, spec)
        signature = ring.sign(spec, made, bytes(64), DialectAlgorithm.ML_DSA_MU, prehashed=False)
        assert ring.verify(spec, made, bytes(64), signature, DialectAlgorithm.ML_DSA_MU, prehashed=False)
        assert not ring.verify(spec, made, b"x" * 64, signature, DialectAlgorithm.ML_DSA_MU, prehashed=False)

    def test_an_algorithm_of_another_type(self, ring: Keyring) -> None:
        spec = KeySpec(KeyType.ED25519, None, Purpose.SIGN)
        with pytest.raises(InvalidRequest):
            ring.sign(spec, version(ring, spec), b"x", DialectAlgorithm.HMAC_SHA224, prehashed=False)

    def test_ed25519ph_holds_for_its_message_alone(self, ring: Keyring) -> None:
        spec = KeySpec(KeyType.ED25519, None, Purpose.SIGN)
        made, algorithm = version(ring, spec), DialectAlgorithm.ED25519PH
        signature = ring.sign(spec, made, bytes(64), algorithm, prehashed=False)
        assert ring.verify(spec, made, bytes(64), signature, algorithm, prehashed=False)
        for digest, other in ((b"x" * 64, signature), (bytes(64), signature[::-1])):
            assert not ring.verify(spec, made, digest, other, algorithm, prehashed=False)


class TestTransit:
    def test_a_key_of_another_purpose_is_none_of_that_dialect(self, ring: Keyring) -> None:
        with pytest.raises(InvalidRequest):
            ring.transit(AES, version(ring, AES))


class TestExtra:
    def test_ed25519ph_is_that_of_the_standard(self) -> None:
        # RFC 8032, section 7.3
        seed = bytes.fromhex("833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42")
        expected = bytes.fromhex(
            "98a70222f0b8121aa9d30f813d683f809e462b469c7ff87639499bb94e6dae41"
            "31f85042463c2a355a2003d062adf5aaa10b8c61e636062aaad11c2a26083406"
        )
        public = ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        assert pycryptodome_backend.ed25519ph_sign(seed, b"abc") == expected
        assert pycryptodome_backend.ed25519ph_verify(public, b"abc", expected)
        for message, signature in ((b"abd", expected), (b"abc", expected[:-1]), (b"abc", bytes(64))):
            assert not pycryptodome_backend.ed25519ph_verify(public, message, signature)

    def test_ml_kem_512_is_that_of_openssl(self) -> None:
        seed = bytes.fromhex(VECTOR["seed"])
        public = pycryptodome_backend.ml_kem_512_public(seed)
        assert hashlib.sha256(public).hexdigest() == VECTOR["public key, SHA-256 of its SubjectPublicKeyInfo"]
        private = pycryptodome_backend.ml_kem_512_private(seed)
        assert (
            pycryptodome_backend.ml_kem_512_decapsulate(private, b64decode(VECTOR["ciphertext"])).hex()
            == VECTOR["secret"]
        )
        secret, sealed = pycryptodome_backend.ml_kem_512_encapsulate(public)
        assert pycryptodome_backend.ml_kem_512_decapsulate(private, sealed) == secret

    def test_without_it_the_error_names_it(self, monkeypatch: pytest.MonkeyPatch, ring: Keyring) -> None:
        for name in ABSENT:
            monkeypatch.setitem(sys.modules, name, None)
        ed = KeySpec(KeyType.ED25519, None, Purpose.SIGN)
        made = version(ring, ed)
        for call in (
            lambda: ring.sign(ed, made, bytes(64), DialectAlgorithm.ED25519PH, prehashed=False),
            lambda: ring.verify(ed, made, bytes(64), bytes(64), DialectAlgorithm.ED25519PH, prehashed=False),
            lambda: ring.generate(KeySpec(KeyType.ML_KEM, 512, Purpose.ENCAPSULATE)),
        ):
            with pytest.raises(Unsupported, match="pip install 'pycryptodome"):
                call()
        spec = KeySpec(KeyType.ML_KEM, 768, Purpose.ENCAPSULATE)
        made = version(ring, spec)
        secret, sealed = ring.encapsulate(spec, made)
        assert ring.decapsulate(spec, made, sealed) == secret


class TestImportedPairs:
    PAIRS: Final = {
        KeySpec(KeyType.RSA, 2048, Purpose.SIGN): der(rsa.generate_private_key(65537, 2048)),
        KeySpec(KeyType.EC, 256, Purpose.SIGN): der(ec.generate_private_key(ec.SECP256R1())),
        KeySpec(KeyType.EC, 384, Purpose.SIGN): der(ec.generate_private_key(ec.SECP384R1())),
        KeySpec(KeyType.SECP256K1, None, Purpose.SIGN): der(ec.generate_private_key(ec.SECP256K1())),
        KeySpec(KeyType.ED25519, None, Purpose.SIGN): der(ed25519.Ed25519PrivateKey.generate()),
    }

    @pytest.mark.parametrize("spec", PAIRS)
    def test_a_pair_is_taken_for_its_kind_alone(self, spec: KeySpec) -> None:
        for other, raw in self.PAIRS.items():
            if other == spec:
                assert imported(spec, raw).public_key is not None
            else:
                with pytest.raises(InvalidRequest, match="another kind"):
                    imported(spec, raw)
