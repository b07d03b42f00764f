"""A vault that release 0.1.0 made: it opens, verifies, and every key, credential, message and proof of it still holds.

tests/vectors/vault_0_1_0 holds the closed vault, its published master key, and in made.json what its callers kept.
"""

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.aws_clients import client, error
from tests.clients.conftest import Served, environment_of, serving
from tests.support.paths import ROOT

hvac = pytest.importorskip("hvac")
MADE = ROOT / "tests" / "vectors" / "vault_0_1_0"
KEPT: dict[str, Any] = json.loads((MADE / "made.json").read_text())
VERIFIER = ROOT / "tools" / "verify_receipt.py"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("old") / "vault"
    shutil.copytree(MADE, folder)
    (folder / "master.key").chmod(0o600)
    with serving(folder, environment_of("keyvault.db"), (MADE / "admin.token").read_text().strip()) as running:
        yield running


def text(raw: str) -> str:
    return base64.b64encode(raw.encode()).decode()


def test_it_verifies_before_and_after_it_is_served(old: Served, tmp_path: Path) -> None:
    # A copy is checked: the running one has entries of this release by now.
    untouched = tmp_path / "vault"
    shutil.copytree(MADE, untouched)
    (untouched / "master.key").chmod(0o600)
    for folder in (untouched, old.folder):
        found = subprocess.run(
            [sys.executable, "-P", "-m", "keyvault_lite", "verify"],
            cwd=folder,
            env=old.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (found.returncode, found.stdout.startswith("clean")) == (0, True), found


@pytest.mark.parametrize("message", KEPT["native"], ids=lambda one: f"{one['key']}-{one['key_version']}")
def test_messages_decrypt(old: Served, message: dict[str, Any]) -> None:
    asked = {name: message[name] for name in ("ciphertext", "encrypted_dek", "context") if name in message}
    for token in (old.admin, KEPT["shop"]) if message["key"] == "orders" else (old.admin,):
        answer = old.ask("POST", f"/keys/{message['key']}/decrypt", asked, token=token)
        assert (answer.status, answer.body.get("plaintext")) == (200, message["plaintext"]), answer


def test_data_keys_open(old: Served) -> None:
    wrapped = KEPT["data_key"]
    asked = {"encrypted_key": wrapped["encrypted_key"], "context": {"f": "1"}}
    answer = old.ask("POST", "/keys/orders/data-key/open", asked)
    assert answer.body["plaintext_key"] == wrapped["plaintext_key"]


@pytest.mark.parametrize("made", KEPT["signatures"], ids=lambda one: one["key"])
def test_signatures_verify(old: Served, made: dict[str, Any]) -> None:
    asked = {"message": made["message"], "signature": made["signature"]}
    assert old.ask("POST", f"/keys/{made['key']}/verify", asked).body["valid"] is True
    forged = {**asked, "message": "another"}
    assert old.ask("POST", f"/keys/{made['key']}/verify", forged).body["valid"] is False


@pytest.mark.parametrize(
    ("name", "status"), [("gone", "REVOKED"), ("off", "DISABLED"), ("waiting", "PENDING_DESTRUCTION")]
)
def test_states_stay(old: Served, name: str, status: str) -> None:
    found = old.ask("GET", f"/keys/{name}").body["status"]
    assert found == status or (name, found) == ("waiting", "DESTROYED")  # 30 days after the vault was made
    assert old.ask("POST", f"/keys/{name}/encrypt", {"plaintext": "x"}).status == 409


def test_services_keep_their_authority_and_no_more(old: Served) -> None:
    shop, auditor = KEPT["shop"], KEPT["auditor"]
    assert old.ask("POST", "/keys/orders/encrypt", {"plaintext": "x"}, token=shop).status == 200
    assert old.ask("POST", "/keys/mac/sign", {"message": "x"}, token=shop).status == 404
    assert old.ask("GET", "/audit?limit=1", token=auditor).status == 200
    assert old.ask("POST", "/keys/orders/encrypt", {"plaintext": "x"}, token=auditor).status == 403


def test_the_aws_dialect(old: Served) -> None:
    shop = client(old, KEPT["aws_key"])
    opened = shop.decrypt(CiphertextBlob=base64.b64decode(KEPT["aws_blob"]), EncryptionContext={"t": "1"})
    assert opened["Plaintext"] == b"of aws"
    assert error(shop.generate_data_key, KeyId="alias/shop", KeySpec="AES_256")[0] == "AccessDeniedException"
    admin = client(old, KEPT["aws_admin"])
    assert [one["GrantId"] for one in admin.list_grants(KeyId=KEPT["aws_id"])["Grants"]] == [KEPT["aws_grant"]]
    assert len(admin.list_key_rotations(KeyId=KEPT["aws_id"])["Rotations"]) == 1
    signed = KEPT["aws_signature"]
    assert admin.verify(
        KeyId=signed["id"],
        Message=b"m",
        Signature=base64.b64decode(signed["signature"]),
        SigningAlgorithm="ECDSA_SHA_256",
    )["SignatureValid"]


def test_the_vault_dialect(old: Served) -> None:
    vault = hvac.Client(url=old.url, token=old.admin)
    transit = vault.secrets.transit
    assert transit.decrypt_data("app", KEPT["vault"])["data"]["plaintext"] == text("of vault")
    again = transit.encrypt_data("conv", plaintext=text("conv"), context=text("ctx"))["data"]["ciphertext"]
    assert again == KEPT["vault_conv"]
    assert {"transit/", "team/billing/"} <= set(vault.sys.list_mounted_secrets_engines()["data"])
    login = vault.auth.approle.login(KEPT["role_id"], KEPT["secret_id"], use_token=False)
    web = hvac.Client(url=old.url, token=login["auth"]["client_token"])
    assert web.secrets.transit.decrypt_data("app", KEPT["vault"])["data"]["plaintext"] == text("of vault")
    with pytest.raises(hvac.exceptions.Forbidden):
        web.secrets.transit.encrypt_data("conv", plaintext=text("x"), context=text("ctx"))


def test_proofs_hold(old: Served, tmp_path: Path) -> None:
    (tmp_path / "receipt.txt").write_text(KEPT["receipt"])
    (tmp_path / "entry.json").write_text(json.dumps(KEPT["entry"]))
    command = [sys.executable, str(VERIFIER), "--key", KEPT["log_key"], "receipt.txt", "--entry", "entry.json"]
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    assert old.ask("GET", "/audit/public-key").body["verifier_key"] == KEPT["log_key"]
    number = KEPT["entry"]["id"]
    assert old.log(f"after={number + 1}&order=desc&limit=1")[0]["hash"] == KEPT["entry"]["hash"]
