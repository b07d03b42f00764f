"""Unmodified clients of AWS KMS against a served vault: the command line, the Encryption SDK, Tink, SOPS."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clients.aws_clients import ACCOUNT, REGION, client, issue
from tests.clients.conftest import Served

Kms = Any


@pytest.fixture(scope="module")
def credentials(served: Served) -> dict[str, str]:
    return issue(served, "admin")


@pytest.fixture(scope="module")
def kms(served: Served, credentials: dict[str, str]) -> Kms:
    return client(served, credentials)


@pytest.fixture(scope="module")
def key(kms: Kms) -> str:
    arn: str = kms.create_key(Description="of clients")["KeyMetadata"]["Arn"]
    return arn


@pytest.fixture
def aws(served: Served, credentials: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What points a client at the vault: the environment alone."""
    settings = {
        "AWS_ACCESS_KEY_ID": credentials["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": credentials["secret_access_key"],
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL_KMS": served.url,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return settings


def run(*command: str, stdin: bytes = b"", cwd: Path | None = None) -> bytes:
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=100, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def binary(name: str) -> str:
    """A command of this interpreter's environment."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


# The AWS command line


def awscli(*arguments: str) -> dict[str, Any]:
    pytest.importorskip("awscli")
    text = run(sys.executable, "-m", "awscli", "kms", *arguments, "--output", "json")
    answer: dict[str, Any] = json.loads(text) if text.strip() else {}
    return answer


def test_awscli(aws: dict[str, str], tmp_path: Path) -> None:
    made = awscli("create-key", "--description", "from the command line", "--tags", "TagKey=a,TagValue=b")[
        "KeyMetadata"
    ]
    awscli("create-alias", "--alias-name", "alias/command-line", "--target-key-id", made["KeyId"])
    plain = tmp_path / "plain"
    plain.write_bytes(b"attack at dawn")
    sealed = awscli(
        *("encrypt", "--key-id", "alias/command-line", "--plaintext", f"fileb://{plain}"),
        *("--encryption-context", "tenant=a"),
    )
    (tmp_path / "sealed").write_bytes(base64.b64decode(sealed["CiphertextBlob"]))
    opened = awscli(
        *("decrypt", "--ciphertext-blob", f"fileb://{tmp_path / 'sealed'}", "--encryption-context", "tenant=a"),
    )
    assert base64.b64decode(opened["Plaintext"]) == b"attack at dawn"
    assert made["KeyId"] in json.dumps(awscli("list-keys"))


# The AWS Encryption SDK


def test_encryption_sdk_files_and_streams(aws: dict[str, str], key: str, kms: Kms) -> None:
    sdk = pytest.importorskip("aws_encryption_sdk")
    from aws_encryption_sdk.identifiers import CommitmentPolicy

    engine = sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
    other = kms.create_key()["KeyMetadata"]["Arn"]
    strict = sdk.StrictAwsKmsMasterKeyProvider(key_ids=[key, other])
    context = {"tenant": "a", "purpose": "test"}
    sealed, header = engine.encrypt(source=b"small", key_provider=strict, encryption_context=context)
    assert len(header.encrypted_data_keys) == 2
    for provider in (
        strict,
        sdk.StrictAwsKmsMasterKeyProvider(key_ids=[other]),
        sdk.DiscoveryAwsKmsMasterKeyProvider(),
    ):
        opened, header = engine.decrypt(source=sealed, key_provider=provider)
        assert opened == b"small"
        assert context.items() <= header.encryption_context.items()
    large = os.urandom(200_000)
    with engine.stream(mode="e", source=io.BytesIO(large), key_provider=strict, frame_length=4096) as encryptor:
        framed = encryptor.read()
    with engine.stream(mode="d", source=io.BytesIO(framed), key_provider=strict) as decryptor:
        assert b"".join(decryptor) == large
    kms.disable_key(KeyId=key)
    opened, _ = engine.decrypt(source=sealed, key_provider=sdk.DiscoveryAwsKmsMasterKeyProvider())
    assert opened == b"small"
    kms.enable_key(KeyId=key)


def test_encryption_sdk_keyrings(aws: dict[str, str], key: str, kms: Kms) -> None:
    sdk = pytest.importorskip("aws_encryption_sdk")
    pytest.importorskip("aws_cryptographic_material_providers")
    from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
    from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
    from aws_cryptographic_material_providers.mpl.models import (
        CreateAwsKmsDiscoveryKeyringInput,
        CreateAwsKmsKeyringInput,
        CreateMultiKeyringInput,
        DiscoveryFilter,
    )

    engine = sdk.EncryptionSDKClient()
    providers: Any = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())
    other = kms.create_key()["KeyMetadata"]["Arn"]
    mine, second = (
        providers.create_aws_kms_keyring(CreateAwsKmsKeyringInput(kms_key_id=one, kms_client=kms))
        for one in (key, other)
    )
    both = providers.create_multi_keyring(CreateMultiKeyringInput(generator=mine, child_keyrings=[second]))
    discovery = providers.create_aws_kms_discovery_keyring(
        CreateAwsKmsDiscoveryKeyringInput(
            kms_client=kms, discovery_filter=DiscoveryFilter(account_ids=[ACCOUNT], partition="aws")
        )
    )
    context = {"tenant": "a"}
    sealed, _ = engine.encrypt(source=b"message", keyring=both, encryption_context=context)
    for keyring in (both, mine, second, discovery):
        opened, _ = engine.decrypt(source=sealed, keyring=keyring, encryption_context=context)
        assert opened == b"message"


# Tink


def test_tink_envelopes(aws: dict[str, str], key: str, served: Served, tmp_path: Path) -> None:
    tink = pytest.importorskip("tink")
    awskms = pytest.importorskip("tink.integration.awskms")
    aead = pytest.importorskip("tink.aead")

    aead.register()
    credentials = tmp_path / "credentials.ini"
    credentials.write_text(
        f"[default]\naws_access_key_id={aws['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key={aws['AWS_SECRET_ACCESS_KEY']}\n"
    )
    uri = f"aws-kms://{key}"
    remote = awskms.AwsKmsClient(uri, str(credentials)).get_aead(uri)
    sealed = remote.encrypt(b"plaintext", b"associated")
    assert remote.decrypt(sealed, b"associated") == b"plaintext"
    with pytest.raises(tink.TinkError):
        remote.decrypt(sealed, b"other")
    envelope = aead.KmsEnvelopeAead(aead.aead_key_templates.AES256_GCM, remote)
    large = os.urandom(100_000)
    assert envelope.decrypt(envelope.encrypt(large, b"a"), b"a") == large


# SOPS


def test_sops(aws: dict[str, str], key: str, tmp_path: Path) -> None:
    sops = binary("sops")
    (tmp_path / "secrets.yaml").write_text("password: hunter2\nlist:\n  - one\n")
    sealed = run(sops, "encrypt", "--kms", key, "secrets.yaml", cwd=tmp_path)
    assert b"hunter2" not in sealed
    (tmp_path / "sealed.yaml").write_bytes(sealed)
    assert b"password: hunter2" in run(sops, "decrypt", "sealed.yaml", cwd=tmp_path)
