"""TLS is judged before anything is served or said: each wrong file is one sentence that names the settings."""

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from keyvault_lite import settings
from keyvault_lite.server.listeners import check_address
from keyvault_lite.settings import InvalidSettings
from tests.support.harness import create_vault
from tests.support.paths import SOURCE

WRONG = [
    ("cert.pem", "other.key", "KEYVAULT_TLS_KEY is not the key of the certificate in KEYVAULT_TLS_CERT"),
    ("cert.pem", "locked.key", "KEYVAULT_TLS_KEY is encrypted"),
    ("text", "text", "KEYVAULT_TLS_CERT and KEYVAULT_TLS_KEY are not a PEM certificate"),
    ("cert.pem", "text", "KEYVAULT_TLS_CERT and KEYVAULT_TLS_KEY are not a PEM certificate"),
    (".", ".", "KEYVAULT_TLS_CERT"),
    ("absent", "cert.key", "KEYVAULT_TLS_CERT does not name a readable file"),
]


@pytest.fixture(autouse=True)
def _folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default database is in the working directory, and may not be where these tests are imported from."""
    monkeypatch.chdir(tmp_path)


def pem(key: ec.EllipticCurvePrivateKey, encryption: KeySerializationEncryption) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key, that key behind a passphrase, another key, and a file of text."""
    made = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vault")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, SHA256())
    )
    (made / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (made / "cert.key").write_bytes(pem(key, NoEncryption()))
    (made / "locked.key").write_bytes(pem(key, BestAvailableEncryption(b"passphrase")))
    (made / "other.key").write_bytes(pem(ec.generate_private_key(ec.SECP256R1()), NoEncryption()))
    (made / "text").write_text("hello")
    return made


def test_a_certificate_and_its_key(folder: Path) -> None:
    assert check_address(settings.load(tls_cert=folder / "cert.pem", tls_key=folder / "cert.key")) is not None
    assert check_address(settings.load()) is None


@pytest.mark.parametrize(("certificate", "key", "sentence"), WRONG)
def test_a_wrong_pair_is_one_sentence(folder: Path, certificate: str, key: str, sentence: str) -> None:
    chosen = settings.load(tls_cert=folder / certificate, tls_key=folder / key)
    with pytest.raises(InvalidSettings, match=sentence) as refused:
        check_address(chosen)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "command",
    [("serve", "--port", "0"), ("serve", "--port", "0", "--workers", "2"), ("witness", "serve", "--port", "0")],
)
@pytest.mark.parametrize("wrong", WRONG[:3])
def test_nothing_is_served_or_said_before(
    folder: Path, tmp_path: Path, command: tuple[str, ...], wrong: tuple[str, str, str]
) -> None:
    certificate, key, sentence = wrong
    master, _ = create_vault(tmp_path)
    given = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(SOURCE),
        "KEYVAULT_MASTER_KEY": master,
        "KEYVAULT_TLS_CERT": str(folder / certificate),
        "KEYVAULT_TLS_KEY": str(folder / key),
    }
    done = subprocess.run(
        [sys.executable, "-P", "-m", "keyvault_lite", *command],
        cwd=tmp_path,
        env=given,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"kvl: {sentence}")
    assert done.stderr.count("\n") == 1
