"""The life of keys: versions and their minima, deletion and its ways back, and that other dialects leave them alone."""

import pytest

from keyvault_lite.dialects.vault.requests import ReadTransitKey, RestoreTransitKey, RotateDueTransitKey
from keyvault_lite.ledger.ledger import Ledger
from keyvault_lite.model.errors import InvalidRequest, NotFound
from keyvault_lite.model.identity import SystemCredential
from keyvault_lite.model.keys import KeyStatus, VersionStatus
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import (
    Decrypt,
    DestroyKey,
    EnableKey,
    Encrypt,
    EraseDueKey,
    GenerateDataKey,
    ReadKey,
    ReadPublicKey,
    RestoreKey,
    RevokeKey,
    Rewrap,
    RotateKey,
    Sign,
    UpdateKey,
    Verify,
)
from tests.support.harness import DAY, Harness
from tests.support.vault_client import Asker, b64

KINDS = [
    "aes256-gcm96",
    "aes128-gcm96",
    "chacha20-poly1305",
    "xchacha20-poly1305",
    "ed25519",
    "ecdsa-p256",
    "ecdsa-p384",
    "ecdsa-p521",
    "rsa-2048",
    "mldsa-44",
    "mldsa-65",
    "mldsa-87",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_is_shown_here_and_natively(ask: Asker, kind: str) -> None:
    made = ask.key("one", type=kind)
    assert (made["type"], made["latest_version"], made["soft_deleted"]) == (kind, 1, False)
    assert ask.read("one") == made == ask.key("one", type="rsa-4096")  # an existing key stays as it is
    key = ask.harness.ask(ReadKey(KeyRef("vault:transit/one")))
    assert (key.spec.word, key.spec.purpose, key.name, key.aliases) == (kind, "TRANSIT", None, ("vault:transit/one",))


def test_ml_dsa_under_both_spellings_and_hmac_sizes(ask: Asker) -> None:
    assert ask.key("a", type="ml-dsa", parameter_set="65")["type"] == "mldsa-65"
    assert ask.key("b", type="hmac")["key_size"] == 32
    assert ask.key("c", type="hmac", key_size=512)["key_size"] == 512
    for bad in (
        {"type": "hmac", "key_size": 31},
        {"type": "hmac", "key_size": 513},
        {"type": "aes256-gcm96", "key_size": 32},
        {"type": "ml-dsa"},
        {"type": "aes256-cmac"},
        {"derived": True, "type": "rsa-2048"},
        {"convergent_encryption": True},
        {"derived": True, "convergent_encryption": True, "type": "ed25519"},
        {"auto_rotate_period": "10m"},
        {"auto_rotate_period": "soon"},
        {"derived": "perhaps"},
    ):
        assert ask.post("transit/keys/bad", bad).status == 400
    assert ask("GET", "transit/keys/bad").status == 404


def test_the_rules_of_versions(ask: Asker) -> None:
    ask.key("k")
    old = ask.encrypt("k")
    for _ in range(2):
        ask.post("transit/keys/k/rotate")
    middle = ask.encrypt("k", key_version=2)
    assert (old[:9], middle[:9], ask.encrypt("k")[:9]) == ("vault:v1:", "vault:v2:", "vault:v3:")
    assert ask.decrypt("k", old.replace(":v1:", ":v0:")) == b"hello"
    for bad in (4, -1):
        assert ask.post("transit/encrypt/k", {"plaintext": "", "key_version": bad}).status == 400
    config = "transit/keys/k/config"
    assert ask.post(config, {"min_encryption_version": 2}).status == 200
    assert ask.post("transit/encrypt/k", {"plaintext": "", "key_version": 1}).status == 400
    assert ask.decrypt("k", old) == b"hello"
    before = ask.read("k")
    for refused in ({"min_decryption_version": 3, "deletion_allowed": True}, {"min_decryption_version": 4}):
        assert ask.post(config, refused).status == 400
        assert ask.read("k") == before  # all of it or nothing
    assert ask.post(config, {"min_decryption_version": 2}).data["keys"].keys() == {"2", "3"}
    assert "too old" in ask.post("transit/decrypt/k", {"ciphertext": old}).error
    ask.post(config, {"min_decryption_version": 1})
    assert ask.decrypt("k", old) == b"hello"
    ask.post(config, {"min_decryption_version": 2})
    assert ask.post("transit/keys/k/trim", {"min_available_version": 3}).status == 400
    assert ask.post("transit/keys/k/trim", {"min_available_version": 2}).data["min_available_version"] == 2
    key = ask.harness.ask(ReadKey(KeyRef("vault:transit/k")))
    assert [one.status for one in key.versions] == ["DESTROYED", "DEPRECATED", "ACTIVE"]
    assert key.versions[0].encrypted_key == b""
    for trimmed in ({"min_decryption_version": 1}, {"min_encryption_version": 1}, {"min_encryption_version": 0}):
        assert ask.post(config, trimmed).status == 400
    assert ask.post("transit/keys/k/trim", {"min_available_version": 1}).status == 400
    assert ask.decrypt("k", middle) == b"hello"


def test_deletion_and_its_ways_back(ask: Asker, harness: Harness) -> None:
    made = ask.key("k")
    sealed = ask.encrypt("k")
    ref = KeyRef("vault:transit/k")
    assert "not allowed" in ask("DELETE", "transit/keys/k").error
    ask.post("transit/keys/k/config", {"deletion_allowed": True})
    soft = ask("DELETE", "transit/keys/k/soft-delete").data
    assert soft["soft_deleted"] is True
    assert ask.read("k")["soft_deleted"] is True
    assert ask.post("transit/decrypt/k", {"ciphertext": sealed}).error == "refusing to use soft-deleted key"
    assert ask.post("transit/keys/k/soft-delete-restore").data["soft_deleted"] is False
    assert ask.decrypt("k", sealed) == b"hello"
    assert ask("DELETE", "transit/keys/k").status == 204
    assert ask("GET", "transit/keys/k").status == ask("LIST", "transit/keys").status == 404
    assert ask.post("transit/decrypt/k", {"ciphertext": sealed}).error == "encryption key not found"
    key = harness.ask(ReadKey(ref))
    assert key.status is KeyStatus.PENDING_DESTRUCTION
    harness.ask(RestoreKey(ref))  # as `kvl key restore` does
    assert ask.read("k")["soft_deleted"] is True
    harness.ask(EnableKey(ref))
    assert ask.decrypt("k", sealed) == b"hello"
    ask("DELETE", "transit/keys/k")
    assert ask.key("k")["keys"].keys() == made["keys"].keys()  # the name is free for a new key
    assert ask.post("transit/decrypt/k", {"ciphertext": sealed}).status == 400
    assert harness.ask(ReadKey(KeyRef(key.id))).aliases == ()
    harness.ask(RestoreKey(KeyRef(key.id)))


def test_a_key_that_is_destroyed_natively_is_soft_deleted_here(ask: Asker, harness: Harness) -> None:
    ask.key("k")
    harness.ask(DestroyKey(KeyRef("vault:transit/k"), days=7))
    assert ask.read("k")["soft_deleted"] is True
    assert ask.post("transit/keys/k/soft-delete-restore").data["soft_deleted"] is False


def test_native_operations_leave_them_alone(ask: Asker, harness: Harness) -> None:
    ask.key("aes")
    ask.key("rsa", type="rsa-2048")
    for name in ("aes", "rsa"):
        ref = KeyRef(f"vault:transit/{name}")
        for request in (
            Encrypt(ref, plaintext=b"x"),
            Decrypt(ref, ciphertext=b"x", encrypted_dek=b"y"),
            Rewrap(ref, encrypted_dek=b"y"),
            GenerateDataKey(ref),
            Sign(ref, message=b"x"),
            Verify(ref, message=b"x", signature=b"y"),
            RotateKey(ref),
            ReadPublicKey(ref),
            UpdateKey(ref, rotation_days=30),
        ):
            harness.refusal(request, InvalidRequest)
        assert harness.ask(UpdateKey(ref, description="moved")).description == "moved"


def test_rotation_by_itself(ask: Asker, harness: Harness) -> None:
    assert ask.key("k", auto_rotate_period="24h")["auto_rotate_period"] == 86400
    real = harness.ledger.now
    harness.ledger.now = lambda: real() + 25 * 3600 * 1_000_000  # type: ignore[method-assign]
    harness.ask(RotateDueTransitKey(KeyRef("vault:transit/k")), credential=SystemCredential())
    del harness.ledger.now
    assert ask.read("k")["latest_version"] == 2
    assert ask.post("transit/keys/k/config", {"auto_rotate_period": 0}).data["auto_rotate_period"] == 0
    assert harness.ask(ReadKey(KeyRef("vault:transit/k"))).rotate_at is None


def test_a_revoked_key_takes_no_period(ask: Asker, harness: Harness) -> None:
    ask.key("k", auto_rotate_period="24h")
    ref = KeyRef("vault:transit/k")
    harness.ask(RevokeKey(ref))
    assert "REVOKED" in ask.post("transit/keys/k/config", {"auto_rotate_period": "48h"}).error
    assert harness.ask(ReadKey(ref)).rotate_at is None
    assert ask.post("transit/keys/k/config", {"auto_rotate_period": 0}).status == 200
    assert harness.ask(ReadKey(ref)).rotate_at is None


def test_rotation_is_atomic_whoever_else_rotates(ask: Asker, harness: Harness) -> None:
    ask.key("k")
    answers = harness.together(*(ask.asking("POST", "transit/keys/k/rotate", b"{}") for _ in range(20)))
    assert [one.status for one in answers] == [200] * 20
    assert sorted(one.data["latest_version"] for one in answers) == list(range(2, 22))
    key = harness.ask(ReadKey(KeyRef("vault:transit/k")))
    assert [one.version for one in key.versions] == list(range(1, 22))
    assert [one.status for one in key.versions].count(VersionStatus.ACTIVE) == 1


def test_secrets_never_leave(ask: Asker) -> None:
    ask.key("aes", exportable=True, allow_plaintext_backup=True)
    ask.key("ec", type="ecdsa-p256", exportable=True)
    for path in ("export/encryption-key/aes", "export/hmac-key/aes", "export/signing-key/ec/1", "backup/aes"):
        assert ask("GET", f"transit/{path}").status == 400
    assert ask("GET", "transit/export/zz/aes").status == 400
    for path in ("export/public-key/ec", "export/public-key/ec/1", "export/public-key/ec/latest"):
        assert ask("GET", f"transit/{path}").data["keys"]["1"].startswith("-----BEGIN PUBLIC KEY-----")
    assert ask("GET", "transit/export/public-key/ec?format=der").data["keys"]["1"].startswith("M")
    assert ask("GET", "transit/export/public-key/ec/7").status == 400
    assert ask("GET", "transit/export/public-key/aes").status == 400


def test_who_may_make_a_key_by_encrypting(ask: Asker) -> None:
    plain = {"plaintext": b64("x")}
    assert ask.post("transit/encrypt/made", {**plain, "context": b64("c"), "type": "chacha20-poly1305"}).status == 200
    assert ask.read("made")["derived"] is True
    assert ask.read("made")["type"] == "chacha20-poly1305"
    assert ask("GET", "transit/config/keys").data == {"disable_upsert": False}
    assert ask.post("transit/config/keys", {"disable_upsert": True}).data == {"disable_upsert": True}
    assert ask.post("transit/encrypt/typo", plain).error == "encryption key not found"
    token = ask.service("app", ("vault:transit/*", "encrypt"))
    ask.post("transit/config/keys", {"disable_upsert": False})
    assert ask.post("transit/encrypt/typo", plain, token=token).status == 403
    assert ask.post("transit/config/keys", {"disable_upsert": True}, token=token).status == 403


def test_what_was_destroyed_is_absent_by_its_id_too_and_has_no_way_back(
    ask: Asker, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask.key("k")
    ref = KeyRef(harness.ask(DestroyKey(KeyRef("vault:transit/k"), days=7)).id)
    now = Ledger.now
    monkeypatch.setattr(Ledger, "now", lambda ledger: now(ledger) + 8 * DAY)
    harness.system(EraseDueKey(ref))
    for request in (ReadTransitKey(ref), RestoreTransitKey(ref)):
        harness.refusal(request, NotFound)
    assert harness.ask(ReadKey(ref)).status is KeyStatus.DESTROYED


def test_encrypting_makes_keys_that_encrypt_and_no_others(ask: Asker) -> None:
    for kind in ("rsa-2048", "ecdsa-p256", "ed25519", "mldsa-44", "hmac"):
        answer = ask.post(f"transit/encrypt/new-{kind}", {"plaintext": b64("x"), "type": kind})
        assert answer.status == 400
        assert ask("GET", f"transit/keys/new-{kind}").status == 404
    # What is said of a key that is there already does not count.
    ask.key("there", type="rsa-2048")
    assert ask.encrypt("there", type="rsa-2048")


def test_public_keys_of_a_soft_deleted_key_are_not_exported(ask: Asker) -> None:
    ask.key("k", type="ecdsa-p256")
    assert ask("GET", "transit/export/public-key/k?format=raw").status == 400
    assert ask("GET", "transit/export/public-key/absent?format=zz").status == 400
    assert ask("DELETE", "transit/keys/k/soft-delete").status == 200
    assert ask("GET", "transit/export/public-key/k").error == "refusing to use soft-deleted key"
    assert ask.post("transit/keys/k/soft-delete-restore").status == 200
    assert ask("GET", "transit/export/public-key/k").status == 200
