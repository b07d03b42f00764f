"""Corners of the dialect that no client goes into on purpose."""

import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from keyvault_lite.crypto.imported_ciphertext import _hchacha
from keyvault_lite.dialects.vault import requests
from keyvault_lite.dialects.vault.requests import ReadTransitKey, RotateDueTransitKey
from keyvault_lite.dialects.vault.token_requests import ReadToken
from keyvault_lite.ledger.commit import group_commit, queue
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.model.errors import Conflict, Forbidden, InvalidRequest
from keyvault_lite.model.identity import SystemCredential
from keyvault_lite.model.keys import KeyStatus
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import CreateKey, EraseDueKey, RevokeKey
from tests.support.harness import AES, DAY, Harness
from tests.support.vault_client import Asker, b64
from tests.unit.dialects.vault.test_outside import bring


def test_generations_of_tokens_end_somewhere(ask: Asker) -> None:
    token = ask.harness.admin
    made: list[str] = []
    while (answer := ask.post("auth/token/create", token=token)).status == 200:
        token = answer.json["auth"]["client_token"]
        made.append(token)
    assert (len(made), answer.status) == (15, 400)
    assert ask("GET", "auth/token/lookup-self", token=made[-1]).status == 200, "whatever is made holds"
    assert ask.post("auth/token/create-orphan", token=made[-1]).status == 200
    service = ask.service("app")
    assert ask.post("auth/token/lookup", {"token": made[10]}, token=service).status == 403


@pytest.mark.sqlite_only
def test_who_may_try_again_is_told_when(ask: Asker, harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "LOCK_SECONDS", 0.2)
    monkeypatch.setattr(group_commit, "WATCH_SECONDS", 0.05)
    with SqliteDatabase(harness.path).lock():
        answer = ask.post("transit/random")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert "retry-after" not in ask.post("transit/random", {"bytes": -1}).headers


def test_children_of_a_service_without_policies(ask: Asker) -> None:
    service = ask.service("app")
    assert ask.post("auth/token/create", {"policies": ["default"]}, token=service).status == 200
    assert ask.post("auth/token/create", {"policies": ["other"]}, token=service).status == 400
    assert ask.post("auth/token/create", {"policies": ["root"]}).json["auth"]["policies"] == ["root"]
    for bad in ({"ttl": "99999999h"}, {"display_name": "x" * 300}, {"policies": [str(n) for n in range(99)]}):
        assert ask.post("auth/token/create", bad).status == 400


def test_requests_that_no_wire_makes(ask: Asker, harness: Harness) -> None:
    harness.refusal(ReadToken(), Forbidden, credential=SystemCredential())
    ask.key("k", auto_rotate_period="24h")
    harness.refusal(RotateDueTransitKey(KeyRef("vault:transit/k")), Conflict, credential=SystemCredential())
    harness.refusal(RotateDueTransitKey(KeyRef("vault:transit/k")), Forbidden)


def test_a_native_key_is_not_one_of_the_dialect(harness: Harness) -> None:
    harness.ask(CreateKey(AES, "orders"))
    harness.refusal(ReadTransitKey(KeyRef("orders")), InvalidRequest)


def test_minima_and_trims(ask: Asker) -> None:
    ask.key("k")
    for _ in range(2):
        ask.post("transit/keys/k/rotate")
    trim, config = "transit/keys/k/trim", "transit/keys/k/config"
    assert ask.post(trim, {"min_available_version": 1}).status == 400  # no minimum for encryption yet
    ask.post(config, {"min_encryption_version": 3})
    for bad in ({}, {"min_available_version": 0}, {"min_available_version": 2}, {"min_available_version": -1}):
        assert ask.post(trim, bad).status == 400  # versions that still decrypt are not trimmed
    for negative in ("min_decryption_version", "min_encryption_version"):
        assert ask.post(config, {negative: -1}).status == 400
    for late in ("min_decryption_version", "min_encryption_version"):
        assert ask.post(config, {late: 9}).status == 400
    assert ask.post(config, {"min_decryption_version": 0}).json["warnings"]
    assert ask.post(config, {}).status == 200


def test_states_that_native_operations_bring(ask: Asker, harness: Harness) -> None:
    ask.key("k")
    sealed = ask.encrypt("k")
    ask.post("transit/keys/k/rotate")
    harness.ask(RevokeKey(KeyRef("vault:transit/k"), version=1))
    assert "REVOKED" in ask.post("transit/decrypt/k", {"ciphertext": sealed}).error
    assert ask.post("transit/keys/k/soft-delete-restore").json["warnings"]
    assert ask("DELETE", "transit/keys/k/soft-delete").status == 200
    assert ask("DELETE", "transit/keys/k/soft-delete").json["warnings"]
    ask.post("transit/keys/k/soft-delete-restore")
    harness.ask(RevokeKey(KeyRef("vault:transit/k")))
    assert "REVOKED" in ask.post("transit/encrypt/k", {"plaintext": ""}).error
    assert ask.post("transit/keys/k/soft-delete-restore").status == 400
    ask.post("transit/keys/k/config", {"deletion_allowed": True})
    assert ask("DELETE", "transit/keys/k").status == 204
    real = harness.ledger.now
    harness.ledger.now = lambda: real() + 31 * DAY  # type: ignore[method-assign]
    gone = harness.ask(EraseDueKey(KeyRef("vault:transit/k")), credential=SystemCredential())
    del harness.ledger.now
    assert gone.status is KeyStatus.DESTROYED
    assert ask("GET", "transit/keys/k").status == 404
    assert ask.post("transit/keys/k/soft-delete-restore").status == 400


def test_a_mount_that_goes_takes_deleted_keys_along(ask: Asker, harness: Harness) -> None:
    ask.post("sys/mounts/m", {"type": "transit"})
    for name in ("a", "b"):
        ask.post(f"m/keys/{name}")
    ask.post("m/keys/a/config", {"deletion_allowed": True})
    ask("DELETE", "m/keys/a")
    before = harness.ask(ReadTransitKey(KeyRef("vault:m/b"))).key
    assert ask("DELETE", "sys/mounts/m").status == 204
    found = harness.ledger.snapshot().find_key(before.id)
    assert found is not None
    assert (found.status, found.aliases) == (KeyStatus.PENDING_DESTRUCTION, ())
    ask.post("sys/mounts/m", {"type": "transit"})
    assert ask.post("sys/mounts/m/tune", {}).status == 204
    assert ask("GET", "sys/mounts/none").status == 400


def test_roles_and_policies_with_odd_names(ask: Asker, harness: Harness) -> None:
    for name in ("Web_1", "web"):
        assert ask.post(f"auth/approle/role/{name}").status == 204
    assert harness.ledger.snapshot().find_service("approle-web") is not None
    for path in ("auth/approle/role/a!b", "sys/policies/acl/a!b"):
        assert ask.post(path, {"policy": 'path "a/encrypt/b" { capabilities = ["update"] }'}).status == 400
    ask.post("auth/approle/role/web/role-id", {"role_id": "taken"})
    for bad in ("taken", "", "a/b", "x" * 200):
        assert ask.post("auth/approle/role/Web_1/role-id", {"role_id": bad}).status == 400
    assert ask.post("auth/approle/role/web/role-id", {"role_id": "taken"}).status == 204
    assert ask("GET", "auth/approle/role/none").status == 404
    assert ask("GET", "sys/policies/acl/root").data["policy"] == ""
    assert ask("DELETE", "sys/policies/acl/none").status == 204
    long = 'path "a/encrypt/b" { capabilities = ["update"] }' + " " * 70_000
    assert ask.post("sys/policies/acl/p", {"policy": long}).status == 400


def test_a_role_whose_name_is_taken_by_a_service(ask: Asker) -> None:
    ask.service("approle-web")
    assert ask.post("auth/approle/role/web").status == 204
    assert ask("GET", "auth/approle/role/web").status == 200


def test_xchacha_and_rsa_refuse_what_is_not_theirs(ask: Asker) -> None:
    key, nonce = os.urandom(32), os.urandom(24)
    bring(ask, "x", key, type="xchacha20-poly1305")
    inner = ChaCha20Poly1305(_hchacha(key, nonce[:16])).encrypt(bytes(4) + nonce[16:], b"hello", None)
    assert ask.decrypt("x", "vault:v1:" + b64(nonce + inner)) == b"hello"
    ask.key("rsa", type="rsa-2048")
    assert ask.post("transit/decrypt/rsa", {"ciphertext": "vault:v1:" + b64(bytes(256))}).status == 400


def test_rules_are_read_once_and_the_memory_is_bounded(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_READ", 1)
    for name in ("a", "b", "a"):
        ask.key(name)
        ask.encrypt(name)
    assert len(requests._READ) <= 1


def test_capabilities_of_an_auditor_and_without_a_key(ask: Asker) -> None:
    ask.key("k")
    token = ask.service("app")
    paths = ["transit/keys/k", "transit/encrypt", "nothing", "transit/datakey/plaintext"]
    held = ask.post("sys/capabilities-self", {"paths": paths}, token=token).data
    assert set(map(tuple, held.values())) == {("deny",)}
