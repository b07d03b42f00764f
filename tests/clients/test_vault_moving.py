"""Moving from Vault: its keys are brought in, and its ciphertexts open without being encrypted anew."""

import base64
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding

from tests.clients.conftest import Served
from tests.support.openbao import running

hvac = pytest.importorskip("hvac")


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running(tmp_path_factory.mktemp("openbao")) as openbao:
        client = hvac.Client(url=openbao.url, token=openbao.token)
        client.sys.enable_secrets_engine("transit")
        yield client


@pytest.fixture
def here(served: Served) -> Any:  # noqa: ANN401
    return hvac.Client(url=served.url, token=served.admin)


def wrapped(here: Any, material: bytes, digest: hashes.HashAlgorithm | None = None) -> str:  # noqa: ANN401
    pem = here.adapter.get("/v1/transit/wrapping_key")["data"]["public_key"]
    public = serialization.load_pem_public_key(pem.encode())
    assert isinstance(public, rsa.RSAPublicKey)
    assert public.key_size == 4096
    key, chosen = os.urandom(32), digest or hashes.SHA256()
    return b64(
        public.encrypt(key, padding.OAEP(padding.MGF1(chosen), chosen, None)) + aes_key_wrap_with_padding(key, material)
    )


def exported(there: Any, name: str, kind: str) -> dict[str, bytes]:  # noqa: ANN401
    keys = there.secrets.transit.export_key(name, key_type=kind)["data"]["keys"]
    found = {}
    for version, text in keys.items():
        if text.startswith("-----"):
            pair = serialization.load_pem_private_key(text.encode(), None)
            found[version] = pair.private_bytes(
                serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        else:
            found[version] = base64.b64decode(text)
    return found


@pytest.mark.parametrize(
    "kind", ["aes256-gcm96", "aes128-gcm96", "chacha20-poly1305", "xchacha20-poly1305", "rsa-2048", "rsa-4096"]
)
def test_ciphertexts_made_there_open_here_over_all_versions(there: Any, here: Any, kind: str) -> None:  # noqa: ANN401
    name = f"moved-{kind}"
    there.adapter.post(f"/v1/transit/keys/{name}", json={"type": kind, "exportable": True})
    old = there.secrets.transit.encrypt_data(name, plaintext=b64(b"first"))["data"]["ciphertext"]
    there.secrets.transit.rotate_key(name)
    new = there.secrets.transit.encrypt_data(name, plaintext=b64(b"second"))["data"]["ciphertext"]
    keys = exported(there, name, "encryption-key")
    here.adapter.post(f"/v1/transit/keys/{name}/import", json={"type": kind, "ciphertext": wrapped(here, keys["1"])})
    here.adapter.post(f"/v1/transit/keys/{name}/import_version", json={"ciphertext": wrapped(here, keys["2"])})
    shown = here.secrets.transit.read_key(name)["data"]
    assert (shown["imported_key"], shown["latest_version"]) == (True, 2)
    for ciphertext, plaintext in ((old, b"first"), (new, b"second")):
        opened = here.secrets.transit.decrypt_data(name, ciphertext=ciphertext)["data"]["plaintext"]
        assert base64.b64decode(opened) == plaintext
    with pytest.raises(hvac.exceptions.InvalidRequest):  # only under the version that its prefix names
        here.secrets.transit.decrypt_data(name, ciphertext=old.replace(":v1:", ":v2:"))
    again = here.secrets.transit.rewrap_data(name, ciphertext=old)["data"]["ciphertext"]
    assert here.secrets.transit.decrypt_data(name, ciphertext=again)["data"]["plaintext"] == b64(b"first")
    if not kind.startswith("rsa"):
        assert base64.b64decode(again.split(":")[2]).startswith(b"KVL")
    with pytest.raises(hvac.exceptions.InvalidRequest, match="rotation"):
        here.secrets.transit.rotate_key(name)


@pytest.mark.parametrize("convergent", [False, True])
def test_derived_and_associated_data(there: Any, here: Any, convergent: bool) -> None:  # noqa: ANN401
    name = f"derived-{convergent}".lower()
    rules = {"derived": True, "convergent_encryption": convergent}
    there.adapter.post(f"/v1/transit/keys/{name}", json={**rules, "exportable": True})
    asked = {"plaintext": b64(b"hello"), "context": b64(b"c"), "associated_data": b64(b"a")}
    sealed = there.adapter.post(f"/v1/transit/encrypt/{name}", json=asked)["data"]["ciphertext"]
    material = exported(there, name, "encryption-key")["1"]
    here.adapter.post(
        f"/v1/transit/keys/{name}/import",
        json={**rules, "ciphertext": wrapped(here, material, hashes.SHA1()), "hash_function": "SHA1"},
    )
    opened = here.adapter.post(
        f"/v1/transit/decrypt/{name}", json={"ciphertext": sealed, "context": b64(b"c"), "associated_data": b64(b"a")}
    )
    assert opened["data"]["plaintext"] == b64(b"hello")
    for wrong in ({"context": b64(b"d"), "associated_data": b64(b"a")}, {"context": b64(b"c")}):
        with pytest.raises(hvac.exceptions.InvalidRequest):
            here.adapter.post(f"/v1/transit/decrypt/{name}", json={"ciphertext": sealed, **wrong})


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048"])
def test_signatures_hold_in_both_directions(there: Any, here: Any, kind: str) -> None:  # noqa: ANN401
    name = f"signs-{kind}"
    there.adapter.post(f"/v1/transit/keys/{name}", json={"type": kind, "exportable": True})
    raw = exported(there, name, "signing-key")["1"]
    if kind == "ed25519":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        raw = Ed25519PrivateKey.from_private_bytes(raw[:32]).private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    here.adapter.post(f"/v1/transit/keys/{name}/import", json={"type": kind, "ciphertext": wrapped(here, raw)})
    for signs, checks in ((there, here), (here, there)):
        for how in ({}, {"marshaling_algorithm": "jws"}, {"hash_algorithm": "sha2-512"}):
            signature = signs.adapter.post(f"/v1/transit/sign/{name}", json={"input": b64(b"hello"), **how})
            body = {"input": b64(b"hello"), "signature": signature["data"]["signature"], **how}
            assert checks.adapter.post(f"/v1/transit/verify/{name}", json=body)["data"]["valid"] is True


def test_hmac_keys_move_with_their_macs(there: Any, here: Any) -> None:  # noqa: ANN401
    there.adapter.post("/v1/transit/keys/macs", json={"type": "hmac", "key_size": 64, "exportable": True})
    mac = there.secrets.transit.generate_hmac("macs", hash_input=b64(b"hello"))["data"]["hmac"]
    raw = exported(there, "macs", "hmac-key")["1"]
    body = {"type": "hmac", "key_size": 64, "ciphertext": wrapped(here, raw)}
    here.adapter.post("/v1/transit/keys/macs/import", json=body)
    assert here.secrets.transit.generate_hmac("macs", hash_input=b64(b"hello"))["data"]["hmac"] == mac


def test_a_blob_that_is_not_right_is_one_answer(here: Any) -> None:  # noqa: ANN401
    good = base64.b64decode(wrapped(here, os.urandom(32)))
    for bad in (good[:-1], good[:512], b"x" * 600, bytes([good[0] ^ 1]) + good[1:]):
        with pytest.raises(hvac.exceptions.InvalidRequest):
            here.adapter.post("/v1/transit/keys/bad-blob/import", json={"ciphertext": b64(bad)})
    with pytest.raises(hvac.exceptions.InvalidRequest, match="16 bytes"):
        here.adapter.post("/v1/transit/keys/bad-blob/import", json={"type": "aes128-gcm96", "ciphertext": b64(good)})
    with pytest.raises(hvac.exceptions.InvalidPath):
        here.secrets.transit.read_key("bad-blob")


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-p384", "rsa-2048"])
def test_certificates(here: Any, kind: str) -> None:  # noqa: ANN401
    name = f"certified-{kind}"
    here.adapter.post(f"/v1/transit/keys/{name}", json={"type": kind})
    pair = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "orders")])
    template = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(pair, hashes.SHA256())
    text = template.public_bytes(serialization.Encoding.PEM).decode()
    answer = here.adapter.post(f"/v1/transit/keys/{name}/csr", json={"csr": text})["data"]["csr"]
    request = x509.load_pem_x509_csr(answer.encode())
    assert request.is_signature_valid
    assert request.subject == subject
    certificate = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(subject)
        .public_key(request.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2036, 1, 1, tzinfo=UTC))
        .sign(pair, hashes.SHA256())
    )
    chain = certificate.public_bytes(serialization.Encoding.PEM).decode()
    here.adapter.post(f"/v1/transit/keys/{name}/set-certificate", json={"certificate_chain": chain})
    shown = here.secrets.transit.read_key(name)["data"]["keys"]["1"]["certificate_chain"]
    assert shown.strip() == chain.strip()
    other = here.adapter.post("/v1/transit/keys/other-cert", json={"type": kind})["data"]["name"]
    with pytest.raises(hvac.exceptions.InvalidRequest, match="another public key"):
        here.adapter.post(f"/v1/transit/keys/{other}/set-certificate", json={"certificate_chain": chain})
