"""What is exported of a key is public: public keys, and the certificate chains that were set."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from keyvault_lite.model.identity import Role
from tests.support.vault_client import Asker
from tests.unit.dialects.vault.test_outside import issued, own


def certified(ask: Asker, name: str) -> str:
    """A key with a chain; the chain as it was set."""
    ask.key(name, type="ecdsa-p256")
    issuer = ec.generate_private_key(ec.SECP256R1())
    made = x509.load_pem_x509_csr(ask.post(f"transit/keys/{name}/csr").data["csr"].encode())
    chain = issued(made, issuer) + own(issuer)
    assert ask.post(f"transit/keys/{name}/set-certificate", {"certificate_chain": chain}).status == 200
    return chain


@pytest.mark.parametrize("path", ["", "/1", "/v1", "/latest", "?format=der", "?format=pem"])
def test_a_certificate_chain(ask: Asker, path: str) -> None:
    chain = certified(ask, "k")
    found = ask("GET", f"transit/export/certificate-chain/k{path}").data
    assert found == {"name": "k", "type": "ecdsa-p256", "keys": {"1": chain.rstrip("\n")}}


def test_every_version_that_is_asked_for_has_a_chain(ask: Asker) -> None:
    chain = certified(ask, "k")
    ask.post("transit/keys/k/rotate")
    for path in ("", "/2", "/latest"):
        assert ask("GET", f"transit/export/certificate-chain/k{path}").error == (
            "selected key version does not have a certificate chain imported"
        )
    assert ask("GET", "transit/export/certificate-chain/k/1").data["keys"] == {"1": chain.rstrip("\n")}
    assert ask("GET", "transit/export/certificate-chain/k/1?format=zz").status == 400
    ask.post("transit/keys/k/config", {"min_decryption_version": 2})
    assert ask("GET", "transit/export/certificate-chain/k/1").status == 400


def test_a_chain_is_for_who_may_know_the_key(ask: Asker) -> None:
    certified(ask, "k")
    path = "transit/export/certificate-chain/k"
    known, other = ask.service("known", ("vault:transit/k", "verify")), ask.service("other")
    auditor = ask.service("watcher", role=Role.AUDITOR)
    assert [ask("GET", path, token=one).status for one in (known, auditor, other, None)] == [200, 200, 403, 403]


@pytest.mark.parametrize("kind", ["aes256-gcm96", "hmac"])
def test_keys_that_do_not_sign_have_no_chain(ask: Asker, kind: str) -> None:
    ask.key("k", type=kind)
    assert ask("GET", "transit/export/certificate-chain/k").error == (
        "certificate chain not supported for keys that do not support signing"
    )


@pytest.mark.parametrize("kind", ["public-key", "certificate-chain"])
def test_versions_that_cannot_be(ask: Asker, kind: str) -> None:
    certified(ask, "k")
    for version in ("0", "v0", "-1", "v"):
        assert ask("GET", f"transit/export/{kind}/k/{version}").error == (
            "version for export is below minimum decryption version"
        )
        assert ask("GET", f"transit/export/{kind}/absent/{version}").status == 404
    assert ask("GET", f"transit/export/{kind}/k/2").error == "version does not exist or cannot be found"
    assert ask("GET", f"transit/export/{kind}/k/1x").status == 400


@pytest.mark.parametrize(
    ("kind", "chosen", "end"),
    [
        ("rsa-2048", "", "-----END PUBLIC KEY-----\n"),
        ("rsa-2048", "pem", "-----END PUBLIC KEY-----\n"),
        ("ecdsa-p256", "", "-----END PUBLIC KEY-----"),
        ("ecdsa-p256", "pem", "-----END PUBLIC KEY-----"),
        ("ed25519", "pem", "-----END PUBLIC KEY-----"),
        ("mldsa-44", "pem", "-----END PUBLIC KEY-----"),
    ],
)
def test_the_end_of_a_public_key_in_pem(ask: Asker, kind: str, chosen: str, end: str) -> None:
    ask.key("k", type=kind)
    found: str = ask("GET", f"transit/export/public-key/k?format={chosen}").data["keys"]["1"]
    assert found.startswith("-----BEGIN PUBLIC KEY-----\n")
    assert found.rpartition("\n-----E")[2] == end.removeprefix("-----E")
