"""The one container: its layout, what its parser refuses, and that it opens in one place under one key only."""

import copy
import hashlib
import hmac
import os
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from keyvault_lite.crypto import container, shares, tpm_session
from keyvault_lite.crypto.container import (
    AES_GCM,
    SUITES,
    ContainerLayout,
    KeySealer,
    RsaSealer,
    Suite,
    expand,
    parse,
    prk,
)
from keyvault_lite.crypto.hmac_key import Hmac
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.material import Material, load_rsa
from keyvault_lite.crypto.root import MasterKey
from keyvault_lite.crypto.secret import Secret
from keyvault_lite.model.encoding import context_digest, pae
from keyvault_lite.model.errors import InvalidCiphertext

INSTANCE = bytes(range(16))
ID = bytes(range(16, 32))
KEY = b"\x07" * 32
WRAPPING = prk(KEY)
CONTEXT = context_digest({"a": "b"})
PLACE: dict[str, Any] = {"layer": "dek", "instance_id": INSTANCE, "id": ID, "version": 3, "purpose": "ENCRYPT"}


def frame(**changes: Any) -> ContainerLayout:  # noqa: ANN401
    place = {**PLACE, **changes}
    return ContainerLayout(place.pop("layer"), **place)


SEALED = frame().seal(WRAPPING, CONTEXT, b"plaintext", os.urandom)


def refused(sealed: bytes, *, key: Hmac = WRAPPING, context: bytes = CONTEXT, **changes: Any) -> bool:  # noqa: ANN401
    try:
        frame(**changes).open(key, context, sealed)
    except InvalidCiphertext as error:
        return error.detail == "it does not open with this key and context" and error.__cause__ is None
    return False


def test_layout_is_the_documented_one() -> None:
    salt = b"\x55" * 32
    sealed = frame().seal(WRAPPING, CONTEXT, b"plaintext", lambda size: salt[:size])
    header = b"KVL\x01\x01\x00" + ID + (3).to_bytes(4, "big")
    info = pae("kvl/v1/dek", header, INSTANCE, "ENCRYPT") + salt + CONTEXT
    okm = HKDFExpand(hashes.SHA512(), 64, info).derive(KEY)
    assert sealed == header + salt + okm[32:] + AESGCM(okm[:32]).encrypt(bytes(12), b"plaintext", header)


@given(key=st.binary(min_size=16, max_size=64), info=st.binary(max_size=200))
def test_expand_is_hkdf_expand(key: bytes, info: bytes) -> None:
    assert expand(prk(key), info) == HKDFExpand(hashes.SHA512(), 64, info).derive(key)


def test_expand_agrees_with_wycheproof(vectors: Callable[[str], Any]) -> None:
    seen = 0
    for group in vectors("wycheproof/hkdf_sha512_test.json")["testGroups"]:
        for case in group["tests"]:
            if case["size"] <= 64 and case["result"] == "valid":
                key = prk(hmac.digest(bytes.fromhex(case["salt"]), bytes.fromhex(case["ikm"]), "sha512"))
                assert expand(key, bytes.fromhex(case["info"]))[: case["size"]].hex() == case["okm"]
                seen += 1
    assert seen > 50


def test_the_gcm_underneath_agrees_with_wycheproof(vectors: Callable[[str], Any]) -> None:
    seen = 0
    for group in vectors("wycheproof/aes_gcm_test.json")["testGroups"]:
        for case in group["tests"]:
            key, iv, aad, msg, ct, tag = (bytes.fromhex(case[f]) for f in ("key", "iv", "aad", "msg", "ct", "tag"))
            if not 64 <= group["ivSize"] <= 1024:
                with pytest.raises(ValueError, match="Nonce must be between"):
                    AESGCM(key).decrypt(iv, ct + tag, aad)
            elif case["result"] == "valid":
                assert AESGCM(key).encrypt(iv, msg, aad) == ct + tag
                assert AESGCM(key).decrypt(iv, ct + tag, aad) == msg
            else:
                with pytest.raises(InvalidTag):
                    AESGCM(key).decrypt(iv, ct + tag, aad)
            seen += 1
    assert seen > 300


@given(plaintext=st.binary(max_size=300), key=st.binary(min_size=32, max_size=32), context=st.binary(max_size=32))
def test_round_trip(plaintext: bytes, key: bytes, context: bytes) -> None:
    digest = hashlib.sha256(context).digest()
    assert frame().open(prk(key), digest, frame().seal(prk(key), digest, plaintext, os.urandom)) == plaintext


@given(bit=st.integers(0, len(SEALED) * 8 - 1))
def test_any_flipped_bit_is_refused(bit: int) -> None:
    damaged = bytearray(SEALED)
    damaged[bit // 8] ^= 1 << bit % 8
    assert refused(bytes(damaged))


@given(length=st.integers(0, len(SEALED) - 1), tail=st.binary(min_size=1, max_size=40))
def test_other_lengths_are_refused(length: int, tail: bytes) -> None:
    assert refused(SEALED[:length])
    assert refused(SEALED + tail)


@pytest.mark.parametrize(
    "change",
    [
        {"layer": "data-key"},
        {"layer": "data"},
        {"instance_id": bytes(16)},
        {"id": bytes(16)},
        {"version": 4},
        {"purpose": "SIGN"},
        {"suite": SUITES[2]},
        {"key": prk(b"\x08" * 32)},
        {"context": context_digest(None)},
        {"context": context_digest({"a": "c"})},
    ],
    ids=str,
)
def test_opens_in_its_own_place_only(change: dict[str, Any]) -> None:
    assert not refused(SEALED)
    assert refused(SEALED, **change)


class TestParse:
    def test_reads_what_was_written(self) -> None:
        header = parse(SEALED)
        assert (header.suite, header.id, header.version) == (AES_GCM, ID, 3)

    @pytest.mark.parametrize(
        ("at", "value"), [(0, 0), (1, 0), (2, 0), (3, 0), (3, 2), (4, 0), (4, 6), (4, 255), (5, 1)]
    )
    def test_refuses_unknown_magic_format_suite_and_flags(self, at: int, value: int) -> None:
        damaged = bytearray(SEALED)
        damaged[at] = value
        with pytest.raises(InvalidCiphertext):
            parse(bytes(damaged))

    @pytest.mark.parametrize("length", [0, 1, 25, 26, 105])
    def test_refuses_what_is_too_short(self, length: int) -> None:
        with pytest.raises(InvalidCiphertext):
            parse(SEALED[:length])

    def test_shortest_container(self) -> None:
        assert parse(frame().seal(WRAPPING, CONTEXT, b"", os.urandom)).version == 3

    def test_refuses_a_suite_that_may_not_decrypt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(container, "SUITES", {1: Suite(1, smallest=106, may_decrypt=False)})
        with pytest.raises(InvalidCiphertext):
            parse(SEALED)


def test_a_retired_suite_reads_and_does_not_write() -> None:
    retired = frame(suite=Suite(1, smallest=106, may_encrypt=False))
    assert retired.open(WRAPPING, CONTEXT, SEALED) == b"plaintext"
    with pytest.raises(ValueError, match="no longer written"):
        retired.seal(WRAPPING, CONTEXT, b"", os.urandom)


def test_a_retired_suite_of_key_pairs_does_not_write(box: Callable[..., RsaSealer]) -> None:
    with pytest.raises(ValueError, match="no longer written"):
        box(suite=Suite(2, smallest=314, may_encrypt=False)).seal(CONTEXT, KEY, os.urandom)


def test_a_forbidden_suite_does_not_read() -> None:
    assert refused(SEALED, suite=Suite(1, smallest=106, may_decrypt=False))


class TestCommitment:
    """AES-GCM alone lets one ciphertext open under two keys; the container does not."""

    def test_is_compared_before_gcm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def never(_key: bytes) -> AESGCM:
            raise AssertionError("GCM was reached")

        monkeypatch.setattr(container, "AESGCM", never)
        assert refused(SEALED, key=prk(b"\x08" * 32))
        with pytest.raises(AssertionError, match="reached"):
            refused(SEALED)

    def test_two_key_collision_opens_under_one_key_only(
        self, vectors: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        case = vectors("c2sp/aes256gcm_two_key_collision.json")
        body, nonce = bytes.fromhex(case["ct_and_tag"]), bytes.fromhex(case["nonce"])
        keys = [bytes.fromhex(case[name]) for name in ("key1", "key2")]
        texts = [bytes.fromhex(case[name]) for name in ("pt1", "pt2")]
        assert [AESGCM(key).decrypt(nonce, body, b"") for key in keys] == texts

        # The best an attacker could hope for: derived keys that are the colliding ones, and no associated data.
        class WithoutHeader:
            def __init__(self, key: bytes) -> None:
                self.gcm = AESGCM(key)

            def decrypt(self, nonce: bytes, body: bytes, _header: bytes) -> bytes:
                return self.gcm.decrypt(nonce, body, b"")

        wrapping: list[Hmac] = [*map(prk, keys)]

        def committing(key: Hmac, _info: bytes) -> bytes:
            derived = keys[wrapping.index(key)]
            return derived + hashlib.sha256(derived).digest()

        def careless(key: Hmac, _info: bytes) -> bytes:
            return keys[wrapping.index(key)] + bytes(32)

        monkeypatch.setattr(container, "AESGCM", WithoutHeader)
        monkeypatch.setattr(container, "expand", committing)
        forged = frame().header + bytes(32) + hashlib.sha256(keys[0]).digest() + body
        assert frame().open(wrapping[0], CONTEXT, forged) == texts[0]
        assert refused(forged, key=wrapping[1])
        # It is the commitment that refuses: without it, the second key opens the second text.
        monkeypatch.setattr(container, "expand", careless)
        forged = frame().header + bytes(32) + bytes(32) + body
        assert frame().open(wrapping[1], CONTEXT, forged) == texts[1]


@pytest.fixture(scope="module")
def box(golden: dict[str, Any]) -> Callable[..., RsaSealer]:
    rows = [row for row in golden["material"] if row["spec"] == ["RSA", 3072, "ENCRYPT"]]
    key = load_rsa(bytes.fromhex(rows[0]["secret"]))
    return lambda **changes: RsaSealer(frame(**{"suite": SUITES[2], **changes}), key)


class TestRsa:
    def test_round_trip_and_layout(self, box: Callable[..., RsaSealer]) -> None:
        sealed = box().seal(CONTEXT, KEY, os.urandom)
        assert len(sealed) == 26 + 32 + 384
        assert sealed[:6] == b"KVL\x01\x02\x00"
        fields = pae("kvl/v1/dek", sealed[:26], INSTANCE, "ENCRYPT") + CONTEXT
        assert sealed[26:58] == expand(prk(KEY), fields)[32:]
        assert box().open(CONTEXT, sealed) == KEY

    @pytest.mark.parametrize("at", [0, 4, 5, 6, 22, 26, 57, 58, 300, 441])
    def test_a_flipped_bit_is_refused(self, box: Callable[..., RsaSealer], at: int) -> None:
        damaged = bytearray(box().seal(CONTEXT, KEY, os.urandom))
        damaged[at] ^= 1
        with pytest.raises(InvalidCiphertext, match="does not open"):
            box().open(CONTEXT, bytes(damaged))

    @pytest.mark.parametrize("change", [{"layer": "data-key"}, {"instance_id": bytes(16)}, {"purpose": "SIGN"}])
    def test_opens_in_its_own_place_only(self, box: Callable[..., RsaSealer], change: dict[str, Any]) -> None:
        sealed = box().seal(CONTEXT, KEY, os.urandom)
        with pytest.raises(InvalidCiphertext):
            box(**change).open(CONTEXT, sealed)
        with pytest.raises(InvalidCiphertext):
            box().open(context_digest(None), sealed)

    @pytest.mark.parametrize("size", [3072, 4096])
    def test_oaep_agrees_with_wycheproof(self, vectors: Callable[[str], Any], size: int) -> None:
        for group in vectors(f"wycheproof/rsa_oaep_{size}_sha256_mgf1sha256_test.json")["testGroups"]:
            key = load_rsa(bytes.fromhex(group["privateKeyPkcs8"]))
            for case in group["tests"]:
                ciphertext, oaep = bytes.fromhex(case["ct"]), container.oaep(bytes.fromhex(case["label"]))
                if case["result"] == "valid":
                    assert key.decrypt(ciphertext, oaep).hex() == case["msg"]
                else:
                    with pytest.raises(ValueError, match=r".*"):
                        key.decrypt(ciphertext, oaep)


SECRETS = [
    KeySealer(frame(), KEY),
    Material(KEY),
    MasterKey.generate()[0],
    Keyring.create(),
    Keyring.create().versions,
]


@pytest.mark.parametrize("secret", SECRETS, ids=repr)
class TestSecret:
    def test_shows_nothing(self, secret: Secret) -> None:
        assert repr(secret) == str(secret) == f"<{type(secret).__name__}>"
        assert not hasattr(secret, "__dict__")

    @pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
    def test_is_neither_copied_nor_pickled(self, secret: Secret, take: Callable[[object], object]) -> None:
        with pytest.raises(TypeError, match="holds secrets"):
            take(secret)


def test_every_holder_of_key_bytes_is_a_secret() -> None:
    assert shares.Share in Secret.__subclasses__()
    assert tpm_session.Session in Secret.__subclasses__()
    names = {cls.__name__ for cls in Secret.__subclasses__()}
    assert names == {
        "AccessKeys",
        "Agreement",
        "KeyringSecrets",
        "Cipher",
        "Encapsulation",
        "HmacKey",
        "KeySealer",
        "Keyring",
        "Session",
        "Share",
        "SlotKey",
        "TpmCounter",
        "Material",
        "OneUseKey",
        "RsaSealer",
        "Signer",
        "TransitVersion",
        "WitnessKey",
        "Versions",
    }
