"""`kvl repair`: what does not verify is given up for good, on record, and nothing else with it."""

from contextlib import closing
from typing import Any

import pytest

from keyvault_lite import app
from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.model import AccountRegion
from keyvault_lite.dialects.vault.system_requests import EnableMount
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.model.errors import Forbidden, IntegrityViolation, NotFound, Unauthenticated
from keyvault_lite.model.evidence import Action, Entry
from keyvault_lite.model.keys import KeyStatus, VersionStatus
from keyvault_lite.model.names import KeyId, KeyRef, new_id
from keyvault_lite.model.replies import Finding
from keyvault_lite.model.requests import (
    AddSlot,
    CreateKey,
    Decrypt,
    Encrypt,
    ListKeys,
    ReadKey,
    ReadService,
    RenewToken,
    Repair,
    RevokeKey,
)
from keyvault_lite.operator.repair import repair_vault
from keyvault_lite.operator.verify import verify_vault as verify
from tests.support.harness import AES, Harness, grant, idempotent

HERE = AccountRegion("000000000000", "eu-central-1")


def tamper(harness: Harness, edit: str, *values: object) -> None:
    """Close the vault and change its file as somebody does who knows what guards it."""
    harness.vault.close()
    with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        assert connection.execute(edit, values).rowcount
        for _, sql in triggers:
            connection.execute(sql)


def repaired(harness: Harness, edit: str, *values: object) -> list[Entry]:
    """The entries of a repair after an edit that a start refuses."""
    size = harness.size
    tamper(harness, edit, *values)
    with pytest.raises(DamagedVault):
        harness.open()
    repair_vault(harness.settings)
    harness.open()
    assert not harness.ledger.degraded
    assert harness.ledger.verify().valid
    return [entry for entry in harness.log(size) if entry.draft.action is Action.REPAIR]


def only(entries: list[Entry]) -> Any:  # noqa: ANN401
    (entry,) = entries
    return entry.draft


@pytest.mark.sqlite_only
def test_a_repair_counts_up_to_no_planted_number(harness: Harness) -> None:
    lost = harness.rotated(harness.key("lost"))
    with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
        connection.execute("UPDATE key_versions SET version = 1 << 60 WHERE version = 2")
    assert harness.ledger.stored_versions(lost.id) == 1


def test_repairs_are_the_vaults_own(harness: Harness) -> None:
    harness.refusal(Repair(Finding("keys", new_id(), "lost")), Forbidden)


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE keys SET description = 'harmless' WHERE id = ?",
        "UPDATE key_versions SET encrypted_key = zeroblob(99) WHERE version = 2 AND key_id = ?",
    ],
)
def test_a_key_is_destroyed_whole_and_its_neighbours_are_not(harness: Harness, edit: str) -> None:
    lost, kept = harness.rotated(harness.key("lost")), KeyRef(harness.key("kept").id)
    assert [harness.ledger.stored_versions(one) for one in (lost.id, KeyId(kept), KeyId("absent"))] == [2, 1, 0]
    sealed = harness.ask(Encrypt(kept, plaintext=b"x"))
    draft = only(repaired(harness, edit, lost.id))
    assert (draft.key_id, draft.subject) == (lost.id, None)
    assert draft.comment.startswith(f"lost: key{'s' if 'keys' in edit else '_versions'} {lost.id}")
    after = harness.ask(ReadKey(KeyRef(lost.id)))
    assert (after.status, after.name) == (KeyStatus.DESTROYED, None)
    assert [(one.status, one.encrypted_key) for one in after.versions] == [(VersionStatus.DESTROYED, b"")] * 2
    assert harness.ask(Decrypt(kept, None, sealed.ciphertext, sealed.encrypted_dek)).plaintext == b"x"
    assert harness.key("lost").id != lost.id, "the name can be given again"


@pytest.mark.parametrize(("table", "name"), [("keys", "orders"), ("key_versions", "orders"), ("keys", None)])
def test_what_is_lost_is_told_by_its_name(harness: Harness, table: str, name: str | None) -> None:
    lost = harness.key(name)
    edit = {
        "keys": "UPDATE keys SET description = 'harmless' WHERE id = ?",
        "key_versions": "UPDATE key_versions SET encrypted_key = zeroblob(99) WHERE key_id = ?",
    }
    tamper(harness, edit[table], lost.id)
    (found,), _ = repair_vault(harness.settings)
    assert found.row.partition("/")[0] == lost.id
    assert (f"its row names it '{name}'" if name else "no name that can be read") in found.problem
    assert "what was encrypted under it cannot be read any more" in found.problem
    harness.open()


def test_a_name_of_a_dialect_goes_and_its_key_stays(harness: Harness) -> None:
    key = KeyRef(harness.ask(words.CreateKey(HERE)).id)
    harness.ask(words.CreateAlias(key, HERE, alias_name="alias/lost"))
    draft = only(repaired(harness, "UPDATE key_names SET created_at = created_at + 1 WHERE name = ?", "alias/lost"))
    assert draft.comment.startswith("lost: key_names aws:eu-central-1/alias/lost")
    assert harness.ask(ReadKey(key)).aliases == ()
    harness.ask(words.CreateAlias(key, HERE, alias_name="alias/lost"))


def test_a_name_whose_row_is_gone_by_then_is_on_record_all_the_same(harness: Harness) -> None:
    harness.system(Repair(Finding("key_names", "aws:eu-central-1/alias/gone", "row does not verify")))
    assert harness.last.draft.comment == "lost: key_names aws:eu-central-1/alias/gone: row does not verify"
    assert harness.ledger.verify().valid


def test_a_service_is_inactive_and_has_nothing_left(harness: Harness) -> None:
    service, token = harness.service("worker", grant("*"))
    draft = only(repaired(harness, "UPDATE services SET role = 'ADMIN' WHERE id = ?", service.id))
    assert (draft.subject, draft.key_id) == (service.id, None)
    after = harness.ask(ReadService(service.id))
    assert (after.name, after.active, after.role, after.grants) == (f"lost-{service.id[:8]}", False, "SERVICE", ())
    harness.refusal(ListKeys(), Unauthenticated, token)
    harness.service("worker")


def test_a_token_lets_nobody_in_and_its_service_gets_another(harness: Harness) -> None:
    service, token = harness.service("worker")
    assert repaired(harness, "UPDATE tokens SET digest = zeroblob(32) WHERE service_id = ?", service.id)
    harness.refusal(ListKeys(), Unauthenticated, token)
    harness.ask(ListKeys(), harness.ask(RenewToken("worker")).token)


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM tokens WHERE service_id = ?", "UPDATE tokens SET row_mac = zeroblob(32) WHERE service_id = ?"],
)
@pytest.mark.parametrize("beside", [False, True])
def test_where_a_row_is_missing_or_another_nothing_is_given_up(harness: Harness, damage: str, *, beside: bool) -> None:
    """Nothing could tell that no old row stands beside those that are named: what is edited is edited, and no more."""
    service, _ = harness.service("worker")
    harness.key("orders")
    tamper(harness, damage, service.id)
    if beside:
        tamper(harness, "UPDATE keys SET description = 'x'")
    with pytest.raises(DamagedVault):
        repair_vault(harness.settings)
    (last,) = [one.problem for one in verify(harness.settings).findings if one.table == "ledger_head"]
    assert "missing or old" in last


@pytest.mark.sqlite_only
def test_an_old_row_does_not_hide_behind_one_that_was_edited(harness: Harness) -> None:
    """A token that was renewed, and a key that was revoked, come back with nothing."""
    service, _ = harness.service("worker")
    key = harness.key("orders")
    harness.ask(EnableMount("mount"))
    with closing(driver.connect(str(harness.path))) as connection:
        old = {
            "tokens": connection.execute("SELECT * FROM tokens WHERE service_id = ?", (service.id,)).fetchall(),
            "keys": connection.execute("SELECT * FROM keys WHERE id = ?", (key.id,)).fetchall(),
        }
    harness.ask(RenewToken(service.id))
    harness.ask(RevokeKey(KeyRef(key.id)))
    harness.vault.close()
    with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
        for table, rows in old.items():
            for row in rows:
                connection.execute(f"REPLACE INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        connection.execute("UPDATE settings SET value = '{}' WHERE name LIKE '%mount%'")
    for quarantine in (False, True):
        with pytest.raises(DamagedVault):
            app.open_vault(harness.settings, quarantine=quarantine)
    with pytest.raises(DamagedVault):
        repair_vault(harness.settings)
    assert any("missing or old" in one.problem for one in verify(harness.settings).findings)


def test_a_mount_is_gone_and_can_be_made_again(harness: Harness) -> None:
    harness.ask(EnableMount("orders"))
    (name,) = [one.name for one in harness.ledger.snapshot().settings_under("") if "orders" in one.name]
    draft = only(repaired(harness, "UPDATE settings SET value = '{}' WHERE name = ?", name))
    assert draft.comment.startswith(f"lost: settings {name}")
    assert harness.ledger.snapshot().setting(name) is None
    harness.ask(EnableMount("orders"))


def test_a_slot_is_sealed_anew_for_the_master_key_that_repairs(harness: Harness) -> None:
    second = harness.vault.keyring.seal(harness.vault.opened.key, slot_id=new_id(), created_at=1)
    harness.system(AddSlot(second))
    draft = only(repaired(harness, "UPDATE keyring_slots SET created_at = created_at + 1 WHERE id = ?", second.id))
    assert f"slot {second.id} " in draft.comment
    (anew,) = [slot for slot in harness.ledger.snapshot().slots() if slot.id == second.id]
    assert anew.sealed != second.sealed
    assert harness.vault.keyring.opens(anew, harness.vault.opened.key)


def test_without_a_slot_in_its_place_a_lost_one_is_on_record_only(harness: Harness) -> None:
    before = harness.ledger.snapshot().slots()
    harness.system(Repair(Finding("keyring_slots", new_id(), "row does not verify")))
    assert harness.last.draft.action is Action.REPAIR
    assert harness.ledger.snapshot().slots() == before


def test_a_kept_reply_is_forgotten(harness: Harness) -> None:
    key = harness.ask(CreateKey(AES), idempotency=idempotent("again"))
    draft = only(repaired(harness, "UPDATE idempotency_replies SET expires_at = expires_at + 1"))
    assert draft.comment.startswith("lost: idempotency_replies ")
    assert harness.ask(CreateKey(AES), idempotency=idempotent("again")).id != key.id


def test_every_loss_is_an_entry_and_a_key_with_many_is_one(harness: Harness) -> None:
    many, other = harness.rotated(harness.key(), 3), harness.key()
    size = harness.size
    tamper(harness, "UPDATE key_versions SET created_at = created_at + 1")
    found, _ = repair_vault(harness.settings)
    assert len(found) == 5
    harness.open()
    entries = [entry.draft for entry in harness.log(size) if entry.draft.action is Action.REPAIR]
    assert sorted(str(draft.key_id) for draft in entries) == sorted((many.id, other.id))


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE keys SET description = 'harmless'",
        "UPDATE key_versions SET encrypted_key = zeroblob(99)",
        "UPDATE services SET role = 'ADMIN' WHERE name = 'worker'",
        "UPDATE tokens SET digest = zeroblob(32) WHERE service_id = (SELECT id FROM services WHERE name = 'worker')",
        "UPDATE settings SET value = '{}'",
        "UPDATE idempotency_replies SET expires_at = expires_at + 1",
    ],
)
def test_whatever_is_set_aside_the_vault_is_degraded(harness: Harness, edit: str) -> None:
    worker, token = harness.service("worker")
    harness.ask(EnableMount("orders"))
    harness.ask(CreateKey(AES), idempotency=idempotent("once"))
    assert [harness.ledger.degraded, harness.ledger.frozen] == [False, False]
    tamper(harness, edit)
    harness.vault = app.open_vault(harness.settings, quarantine=True)
    assert [harness.ledger.degraded, harness.ledger.frozen] == [True, True]
    assert {one.table for one in harness.ledger.lost} == {edit.split()[1]}
    if "UPDATE services" in edit:
        harness.refusal(ReadService(worker.id), IntegrityViolation)
        harness.refusal(ListKeys(), IntegrityViolation, token)
    if "UPDATE tokens" in edit:
        harness.refusal(ListKeys(), Unauthenticated, token)
    harness.ask(ListKeys())


def test_until_a_repair_nothing_that_is_set_aside_is_used_or_changed(harness: Harness) -> None:
    lost, kept = harness.key("lost"), KeyRef(harness.key("kept").id)
    tamper(harness, "UPDATE keys SET description = 'harmless' WHERE id = ?", lost.id)
    harness.vault = app.open_vault(harness.settings, quarantine=True)
    for ref in (lost.id, "lost"):
        harness.refusal(Encrypt(KeyRef(ref), plaintext=b"x"), IntegrityViolation)
    harness.ask(Encrypt(kept, plaintext=b"x"))
    harness.refusal(CreateKey(AES), IntegrityViolation)
    harness.refusal(ReadKey(KeyRef("absent")), NotFound)
    assert [key.name for key in harness.ask(ListKeys()).items] == ["kept"]
