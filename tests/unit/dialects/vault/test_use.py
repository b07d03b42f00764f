"""Encrypting, signing and MACs, over generated messages and every option."""

import base64
import hashlib
import hmac
import itertools

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.vault_client import Asker, b64

AEADS = ["aes256-gcm96", "aes128-gcm96", "chacha20-poly1305", "xchacha20-poly1305"]
MANY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_names = itertools.count()


def fresh(ask: Asker, **rules: object) -> str:
    name = f"k{next(_names)}"
    ask.key(name, **rules)
    return name


@MANY
@given(
    kind=st.sampled_from(AEADS),
    plaintext=st.binary(max_size=500),
    context=st.binary(min_size=1, max_size=40) | st.none(),
    associated=st.binary(max_size=40),
    convergent=st.booleans(),
    turns=st.integers(0, 2),
)
def test_what_was_encrypted_opens_and_only_so(  # noqa: PLR0917
    ask: Asker, kind: str, plaintext: bytes, context: bytes | None, associated: bytes, convergent: bool, turns: int
) -> None:
    derived = context is not None
    name = fresh(ask, type=kind, derived=derived, convergent_encryption=convergent and derived)
    how = {"context": b64(context or b""), "associated_data": b64(associated)}
    sealed = ask.encrypt(name, plaintext, **how)
    for _ in range(turns):
        ask.post(f"transit/keys/{name}/rotate")
    assert ask.decrypt(name, sealed, **how) == plaintext
    again = ask.post(f"transit/rewrap/{name}", {"ciphertext": sealed, **how}).data
    assert again["key_version"] == turns + 1
    assert ask.decrypt(name, again["ciphertext"], **how) == plaintext
    assert (ask.encrypt(name, plaintext, **how, key_version=1) == sealed) is (convergent and derived)
    raw = bytearray(base64.b64decode(sealed.split(":")[2]))
    raw[len(plaintext) % len(raw)] ^= 1
    wrong = [
        {"ciphertext": f"vault:v1:{b64(bytes(raw))}", **how},
        {"ciphertext": sealed, **how, "associated_data": b64(associated + b"x")},
        {"ciphertext": f"vault:v1:{b64(bytes(raw[:-1]))}", **how},
    ]
    if derived:
        wrong.append({"ciphertext": sealed, **how, "context": b64((context or b"") + b"x")})
    errors = {(one.status, one.error) for one in (ask.post(f"transit/decrypt/{name}", body) for body in wrong)}
    assert errors == {(400, "cipher: message authentication failed")}


def test_a_ciphertext_is_a_committing_container_of_its_key(ask: Asker) -> None:
    one, other = fresh(ask), fresh(ask)
    sealed = ask.encrypt(one)
    assert base64.b64decode(sealed.split(":")[2]).startswith(b"KVL\x01\x01\x00")
    assert ask.post(f"transit/decrypt/{other}", {"ciphertext": sealed}).status == 400
    convergent = fresh(ask, derived=True, convergent_encryption=True)
    assert base64.b64decode(ask.encrypt(convergent, context=b64("c")).split(":")[2]).startswith(b"KVL\x01\x04\x00")


def test_a_ciphertext_of_vault_opens_under_imported_material_only(ask: Asker) -> None:
    name = fresh(ask)
    assert ask.post(f"transit/decrypt/{name}", {"ciphertext": "vault:v1:" + b64(bytes(60))}).status == 400


def test_an_empty_context_is_none(ask: Asker) -> None:
    name, derived = fresh(ask), fresh(ask, derived=True)
    assert ask.decrypt(name, ask.encrypt(name, context=""), context="") == b"hello"
    assert ask.decrypt(name, ask.encrypt(name, context=b64("ignored"))) == b"hello"
    assert "context" in ask.post(f"transit/encrypt/{derived}", {"plaintext": "", "context": ""}).error


@pytest.mark.parametrize(
    "text", ["", "x", "vault:v1", "vault:1:AAAA", "vault:v1:!!", "vault:v-1:AAAA", "vault:v9:AAAA"]
)
def test_what_is_no_ciphertext(ask: Asker, text: str) -> None:
    name = fresh(ask)
    assert ask.post(f"transit/decrypt/{name}", {"ciphertext": text}).status == 400
    assert ask.post(f"transit/rewrap/{name}", {"ciphertext": text}).status == 400


def test_rsa_opens_what_the_public_key_made_outside(ask: Asker) -> None:
    name = fresh(ask, type="rsa-2048")
    pem = ask.read(name)["keys"]["1"]["public_key"]
    public = serialization.load_pem_public_key(pem.encode())
    assert isinstance(public, rsa.RSAPublicKey)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    assert ask.decrypt(name, "vault:v1:" + b64(public.encrypt(b"outside", oaep))) == b"outside"
    assert ask.decrypt(name, ask.encrypt(name, b"x" * 190)) == b"x" * 190
    assert ask.post(f"transit/encrypt/{name}", {"plaintext": b64(b"x" * 191)}).status == 400
    assert ask.post(f"transit/encrypt/{name}", {"plaintext": "", "associated_data": b64("a")}).status == 400


def test_what_a_key_does_not_do(ask: Asker) -> None:
    aes, signs = fresh(ask), fresh(ask, type="ed25519")
    assert ask.post(f"transit/sign/{aes}", {"input": ""}).error.endswith("does not support signing")
    assert ask.post(f"transit/verify/{aes}", {"input": "", "signature": "vault:v1:AAAA"}).status == 400
    assert ask.post(f"transit/encrypt/{signs}", {"plaintext": ""}).status == 400
    assert ask.post(f"transit/datakey/plaintext/{signs}").status == 400
    assert ask.post(f"transit/datakey/other/{aes}").status == 400
    assert ask.post(f"transit/datakey/plaintext/{aes}", {"bits": 100}).status == 400


SCHEMES: list[dict[str, object]] = [
    {},
    {"marshaling_algorithm": "jws"},
    {"hash_algorithm": "sha2-512"},
    {"algorithm": "sha2-384"},
    {"hash_algorithm": "sha3-256"},
    {"prehashed": True},
    {"signature_algorithm": "pkcs1v15"},
    {"salt_length": "hash"},
    {"salt_length": "auto"},
    {"salt_length": 20},
    {"salt_length": "0"},
    {"signature_algorithm": "pkcs1v15", "hash_algorithm": "none", "prehashed": True},
]


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "mldsa-65"])
def test_signatures_with_every_option(ask: Asker, kind: str) -> None:
    name = fresh(ask, type=kind)
    digest = hashlib.sha256(b"hello").digest()
    for scheme in SCHEMES:
        if scheme.get("hash_algorithm") == "none" and kind.startswith("ecdsa"):
            continue
        given = b64(digest if scheme.get("prehashed") else b"hello")
        answer = ask.post(f"transit/sign/{name}", {"input": given, **scheme})
        signature = answer.data["signature"]
        for text, valid in ((given, True), (b64(bytes(32)), False)):
            body = {"input": text, "signature": signature, **scheme}
            assert ask.post(f"transit/verify/{name}", body).data == {"valid": valid}, scheme


def test_formats_of_signatures_and_public_keys(ask: Asker) -> None:
    name = fresh(ask, type="ecdsa-p256")
    pem = ask.read(name)["keys"]["1"]["public_key"]
    public = serialization.load_pem_public_key(pem.encode())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    text = ask.post(f"transit/sign/{name}/sha2-384", {"input": b64("hello")}).data["signature"]
    public.verify(base64.b64decode(text.split(":")[2]), b"hello", ec.ECDSA(hashes.SHA384()))
    jws = ask.post(f"transit/sign/{name}", {"input": b64("hello"), "marshaling_algorithm": "jws"}).data["signature"]
    assert len(jws.split(":")[2]) == 86
    name = fresh(ask, type="ed25519")
    raw = base64.b64decode(ask.read(name)["keys"]["1"]["public_key"])
    text = ask.post(f"transit/sign/{name}", {"input": b64("hello"), "prehashed": True}).data["signature"]
    ed25519.Ed25519PublicKey.from_public_bytes(raw).verify(base64.b64decode(text.split(":")[2]), b"hello")


def test_derived_ed25519_is_one_key_a_context(ask: Asker) -> None:
    name = fresh(ask, type="ed25519", derived=True)
    body = {"input": b64("hello"), "context": b64("c")}
    signed = ask.post(f"transit/sign/{name}", body).data
    shown = ask("GET", f"transit/keys/{name}?context={b64('c').replace('=', '%3D')}").data
    assert shown["keys"]["1"]["public_key"] == signed["public_key"]
    for context, valid in (("c", True), ("d", False)):
        checked = {**body, "context": b64(context), "signature": signed["signature"]}
        assert ask.post(f"transit/verify/{name}", checked).data == {"valid": valid}
    assert ask.post(f"transit/sign/{name}", {"input": b64("hello")}).status == 400


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ecdsa-p256", {"hash_algorithm": "none"}),
        ("ecdsa-p256", {"hash_algorithm": "none", "prehashed": True, "signature_algorithm": "pkcs1v15"}),
        ("ecdsa-p256", {"hash_algorithm": "md5"}),
        ("ecdsa-p256", {"marshaling_algorithm": "xml"}),
        ("ecdsa-p256", {"prehashed": True}),
        ("ecdsa-p256", {"hash_algorithm": "sha1"}),
        ("rsa-2048", {"hash_algorithm": "sha1"}),
        ("rsa-2048", {"signature_algorithm": "raw"}),
        ("rsa-2048", {"salt_length": "much"}),
        ("rsa-2048", {"salt_length": 10_000}),
        ("rsa-2048", {"salt_length": -2}),
        ("rsa-2048", {"key_version": 9}),
        ("rsa-2048", {"hash_algorithm": "none", "prehashed": True}),
    ],
)
def test_signatures_that_are_not_made(ask: Asker, kind: str, options: dict[str, object]) -> None:
    name = fresh(ask, type=kind)
    assert ask.post(f"transit/sign/{name}", {"input": b64("hello"), **options}).status == 400


@pytest.mark.parametrize("signature", ["zz", "vault:v9:AAAA", "vault:v1:!!", "vault:v1:AAAA", "vault:v1:"])
def test_malformed_signatures_are_400_and_wrong_ones_are_false(ask: Asker, signature: str) -> None:
    name = fresh(ask, type="ecdsa-p256")
    assert ask.post(f"transit/verify/{name}", {"input": "", "signature": signature}).status == 400
    assert ask.post(f"transit/verify/{name}", {"input": ""}).status == 400
    body = {"input": "", "signature": "vault:v1:AAAA", "marshaling_algorithm": "jws"}
    assert ask.post(f"transit/verify/{name}", body).data == {"valid": False}


def test_old_sha1_signatures_verify(ask: Asker) -> None:
    name = fresh(ask, type="ecdsa-p256")
    body = {"input": b64("x"), "hash_algorithm": "sha1", "signature": "vault:v1:MAYCAQECAQE="}
    assert ask.post(f"transit/verify/{name}", body).data == {"valid": False}


def test_macs(ask: Asker) -> None:
    name = fresh(ask)
    one = ask.post(f"transit/hmac/{name}", {"input": b64("hello")}).data["hmac"]
    ask.post(f"transit/keys/{name}/rotate")
    two = ask.post(f"transit/hmac/{name}", {"input": b64("hello")}).data["hmac"]
    assert one.split(":")[2] != two.split(":")[2]  # each version has a key of its own
    for tag in (one, two):
        for text, valid in (("hello", True), ("hellO", False)):
            assert ask.post(f"transit/verify/{name}", {"input": b64(text), "hmac": tag}).data == {"valid": valid}
    for path in ("/sha2-512", "/sha3-224", "/sha1"):
        tag = ask.post(f"transit/hmac/{name}{path}", {"input": b64("hello")}).data["hmac"]
        assert ask.post(f"transit/verify/{name}{path}", {"input": b64("hello"), "hmac": tag}).data == {"valid": True}
    assert ask.post(f"transit/hmac/{name}/md5", {"input": ""}).status == 400
    assert ask.post(f"transit/hmac/{name}", {}).status == 400
    assert ask.post(f"transit/hmac/{name}", {"input": "", "key_version": 7}).status == 400
    assert ask.post(f"transit/verify/{name}", {"input": "", "hmac": "vault:v7:AAAA"}).status == 400


@MANY
@given(data=st.binary(max_size=200), bits=st.sampled_from([224, 256, 384, 512]))
def test_hash_is_the_digest(ask: Asker, data: bytes, bits: int) -> None:
    answer = ask.post(f"transit/hash/sha2-{bits}", {"input": b64(data)}).data["sum"]
    assert answer == hashlib.new(f"sha{bits}", data).hexdigest()


def test_hash_and_random(ask: Asker) -> None:
    answer = ask.post("transit/hash", {"input": b64("abc"), "algorithm": "sha3-256", "format": "base64"}).data["sum"]
    assert answer == b64(hashlib.sha3_256(b"abc").digest())
    for path, length in (("random", 32), ("random/16", 16), ("random/seal/8", 8), ("random/all/131072", 131072)):
        assert len(base64.b64decode(ask.post(f"transit/{path}").data["random_bytes"])) == length
    assert len(ask.post("transit/random", {"bytes": 4, "format": "hex"}).data["random_bytes"]) == 8
    for path, body in (
        ("random/0", {}),
        ("random/131073", {}),
        ("random/moon/8", {}),
        ("random", {"format": "octal"}),
        ("hash", {}),
        ("hash/md5", {"input": ""}),
        ("hash", {"input": "", "format": "octal"}),
    ):
        assert ask.post(f"transit/{path}", body).status == 400
    token = ask.service("app")
    assert ask.post("transit/random", token=token).status == 200
    assert ask.post("transit/hash", {"input": ""}, token=token).status == 200


def test_data_keys_open_and_stay_inside_when_wrapped(ask: Asker) -> None:
    name = fresh(ask)
    made = ask.post(f"transit/datakey/plaintext/{name}", {"bits": 512}).data
    assert ask.decrypt(name, made["ciphertext"]) == base64.b64decode(made["plaintext"])
    assert "plaintext" not in ask.post(f"transit/datakey/wrapped/{name}").data


def test_what_each_permission_gives(ask: Asker) -> None:
    name, signs = fresh(ask), fresh(ask, type="ed25519")
    sealed = ask.encrypt(name)
    signature = ask.post(f"transit/sign/{signs}", {"input": ""}).data["signature"]
    tag = ask.post(f"transit/hmac/{name}", {"input": ""}).data["hmac"]
    uses = {
        f"encrypt/{name}": {"plaintext": ""},
        f"decrypt/{name}": {"ciphertext": sealed},
        f"rewrap/{name}": {"ciphertext": sealed},
        f"datakey/plaintext/{name}": {},
        f"hmac/{name}": {"input": ""},
        f"verify/{name}": {"input": "", "hmac": tag},
        f"sign/{signs}": {"input": ""},
        f"verify/{signs}": {"input": "", "signature": signature},
    }
    allowed = {
        "encrypt": {f"encrypt/{name}", f"datakey/plaintext/{name}"},
        "decrypt": {f"decrypt/{name}"},
        "encrypt decrypt": {f"encrypt/{name}", f"decrypt/{name}", f"rewrap/{name}", f"datakey/plaintext/{name}"},
        "sign": {f"hmac/{name}", f"sign/{signs}"},
        "verify": {f"verify/{name}", f"verify/{signs}"},
    }
    for number, (actions, may) in enumerate(allowed.items()):
        token = ask.service(f"app-{number}", ("vault:transit/k*", actions))
        for path, body in uses.items():
            status = ask.post(f"transit/{path}", body, token=token).status
            assert status == (200 if path in may else 403), (actions, path)


def test_the_log_tells_nothing_of_what_was_said(ask: Asker) -> None:
    name = fresh(ask, derived=True)
    ask.encrypt(name, b"plaintext-marker", context=b64("context-marker"))
    draft = ask.last.draft
    assert draft.context_digest is not None
    assert (draft.bytes_in, draft.key_version) == (16, 1)
    stored = ask.harness.files()
    for secret in (b"plaintext-marker", b"context-marker", b64("context-marker").encode()):
        assert secret not in stored
    assert hmac.compare_digest(draft.context_digest, draft.context_digest)
