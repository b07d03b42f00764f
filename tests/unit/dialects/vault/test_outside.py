"""Material, certificates and ciphertexts that come from outside, without a server beside us."""

import base64
import os
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key

from keyvault_lite.crypto.imported_ciphertext import _hchacha
from keyvault_lite.crypto.transit import derive
from tests.support.vault_client import Asker, b64


def wrapped(ask: Asker, material: bytes) -> str:
    pem = ask("GET", "transit/wrapping_key").data["public_key"]
    public = load_pem_public_key(pem.encode())
    assert isinstance(public, rsa.RSAPublicKey)
    key = os.urandom(32)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    return b64(public.encrypt(key, oaep) + aes_key_wrap_with_padding(key, material))


def bring(ask: Asker, name: str, material: bytes, **rules: object) -> None:
    body = {"ciphertext": wrapped(ask, material), **rules}
    assert ask.post(f"transit/keys/{name}/import", body).status == 204


def test_hchacha20_of_the_draft() -> None:
    """draft-irtf-cfrg-xchacha, section 2.2.1."""
    nonce = bytes.fromhex("000000090000004a0000000031415927")
    assert _hchacha(bytes(range(32)), nonce).hex() == "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"


def test_bodies_of_another_product(ask: Asker) -> None:
    key = os.urandom(32)
    bring(ask, "aes", key)
    bring(ask, "chacha", key, type="chacha20-poly1305")
    bring(ask, "derived", key, derived=True)
    nonce = os.urandom(12)
    for name, aead in (("aes", AESGCM(key)), ("chacha", ChaCha20Poly1305(key))):
        body = nonce + aead.encrypt(nonce, b"hello", b"bound")
        how = {"associated_data": b64("bound")}
        assert ask.decrypt(name, "vault:v1:" + b64(body), **how) == b"hello"
        for wrong in (body[:-1], body[:20], b"", body[:30] + bytes([body[30] ^ 1]) + body[31:]):
            answer = ask.post(f"transit/decrypt/{name}", {"ciphertext": "vault:v1:" + b64(wrong), **how})
            assert (answer.status, answer.error) == (400, "cipher: message authentication failed")
    body = nonce + AESGCM(derive(key, b"ctx", 32)).encrypt(nonce, b"hello", None)
    assert ask.decrypt("derived", "vault:v1:" + b64(body), context=b64("ctx")) == b"hello"
    assert base64.b64decode(ask.encrypt("aes").split(":")[2]).startswith(b"KVL")  # what we write is ours


def test_an_imported_key_rotates_only_where_it_was_allowed(ask: Asker) -> None:
    bring(ask, "fixed", os.urandom(32))
    bring(ask, "free", os.urandom(32), allow_rotation=True)
    assert ask.read("fixed")["imported_key_allow_rotation"] is False
    assert ask.post("transit/keys/fixed/rotate").status == 400
    assert ask.post("transit/keys/free/rotate").status == 200
    body = {"ciphertext": wrapped(ask, os.urandom(32))}
    assert ask.post("transit/keys/fixed/import_version", body).status == 204
    assert ask.read("fixed")["latest_version"] == 2
    assert ask.post("transit/keys/fixed/import", body).status == 400
    ask.key("own")
    assert ask.post("transit/keys/own/import_version", body).status == 400
    assert ask.post("transit/keys/absent/import_version", body).status == 400


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ciphertext": b64(bytes(600)), "hash_function": "MD5"},
        {"ciphertext": b64(bytes(600))},
        {"public_key": "-----BEGIN PUBLIC KEY-----"},
    ],
)
def test_what_is_not_imported(ask: Asker, body: dict[str, object]) -> None:
    assert ask.post("transit/keys/bad/import", body).status == 400  # before and after there is a wrapping key
    ask("GET", "transit/wrapping_key")
    assert ask.post("transit/keys/bad/import", body).status == 400
    token = ask.service("app", ("*", "encrypt decrypt"))
    assert ask.post("transit/keys/bad/import", body, token=token).status == 403
    assert ask("GET", "transit/wrapping_key", token=token).status == 403


def issued(request: x509.CertificateSigningRequest, pair: ec.EllipticCurvePrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(name)
        .public_key(request.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2036, 1, 1, tzinfo=UTC))
        .sign(pair, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM).decode()


def own(pair: ec.EllipticCurvePrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    return issued(x509.CertificateSigningRequestBuilder().subject_name(name).sign(pair, hashes.SHA256()), pair)


def test_requests_and_chains(ask: Asker) -> None:
    ask.key("k", type="ecdsa-p256")
    ask.key("other", type="ecdsa-p256")
    issuer, stranger = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "orders")])
    names = x509.SubjectAlternativeName([x509.DNSName("orders.example")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(names, critical=False)
    template = builder.sign(stranger, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    made = x509.load_pem_x509_csr(ask.post("transit/keys/k/csr", {"csr": template}).data["csr"].encode())
    assert made.is_signature_valid
    assert (made.subject, made.extensions[0].value) == (subject, names)
    assert made.public_key() != stranger.public_key()
    leaf, root = issued(made, issuer), own(issuer)
    chain = f"# leaf\n{leaf}\n{root}"
    shown = ask.post("transit/keys/k/set-certificate", {"certificate_chain": chain}).data["keys"]["1"]
    assert shown["certificate_chain"].split("-----BEGIN")[1:] == (leaf + root).split("-----BEGIN")[1:]
    for length in (0, 9):  # the root has signed itself, and so may follow itself
        assert ask.post("transit/keys/k/set-certificate", {"certificate_chain": leaf + root * length}).status == 200
    for bad in (
        "",
        "no certificate",
        leaf + root * 10,
        leaf.replace("M", "N"),
        root,
        leaf + own(stranger),
        leaf + leaf,
        leaf + leaf.replace("MII", "MIJ", 1),
        leaf * 11,
        "x" * 70_000,
    ):
        assert ask.post("transit/keys/k/set-certificate", {"certificate_chain": bad}).status in {400, 413}
    assert ask.post("transit/keys/other/set-certificate", {"certificate_chain": leaf}).status == 400
    assert ask.post("transit/keys/k/csr", {"csr": "nothing"}).status == 400
    ask.key("aes")
    ask.key("derived", type="ed25519", derived=True)
    for name in ("aes", "derived"):
        assert ask.post(f"transit/keys/{name}/csr").status == 400


@pytest.mark.parametrize("kind", ["ecdsa-p256", "ed25519", "mldsa-44"])
def test_a_request_without_a_template_names_nobody(ask: Asker, kind: str) -> None:
    ask.key("k", type=kind)
    made = x509.load_pem_x509_csr(ask.post("transit/keys/k/csr").data["csr"].encode())
    assert made.is_signature_valid
    assert (len(made.subject.rdns), len(made.extensions)) == (0, 0)


@pytest.mark.parametrize(
    ("kind", "digest"),
    [("rsa-2048", "sha256"), ("ecdsa-p256", "sha256"), ("ecdsa-p384", "sha384"), ("ecdsa-p521", "sha512")],
)
def test_a_request_is_signed_with_the_digest_of_its_keys_strength(ask: Asker, kind: str, digest: str) -> None:
    ask.key("k", type=kind)
    made = x509.load_pem_x509_csr(ask.post("transit/keys/k/csr").data["csr"].encode())
    assert made.is_signature_valid
    assert made.signature_hash_algorithm is not None
    assert made.signature_hash_algorithm.name == digest
