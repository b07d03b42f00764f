"""`kvl repair`: what does not verify is given up for good, on record, and nothing else with it."""

from contextlib import closing
from typing import Any

import pytest

from keyvault_lite import app
from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.model import Place
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
from tests.house import AES, House, grant, idempotent

HERE = Place("000000000000", "eu-central-1")


def tamper(house: House, edit: str, *values: object) -> None:
    """Close the vault and change its file as somebody does who knows what guards it."""
    house.vault.close()
    with closing(driver.connect(str(house.path), isolation_level=None)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        assert connection.execute(edit, values).rowcount
        for _, sql in triggers:
            connection.execute(sql)


def repaired(house: House, edit: str, *values: object) -> list[Entry]:
    """The entries of a repair after an edit that a start refuses."""
    size = house.size
    tamper(house, edit, *values)
    with pytest.raises(DamagedVault):
        house.open()
    repair_vault(house.chosen)
    house.open()
    assert not house.ledger.degraded
    assert house.ledger.verify().valid
    return [entry for entry in house.log(size) if entry.draft.action is Action.REPAIR]


def only(entries: list[Entry]) -> Any:  # noqa: ANN401
    (entry,) = entries
    return entry.draft


@pytest.mark.sqlite_only
def test_a_repair_counts_up_to_no_planted_number(house: House) -> None:
    lost = house.rotated(house.key("lost"))
    with closing(driver.connect(str(house.path), isolation_level=None)) as connection:
        connection.execute("UPDATE key_versions SET version = 1 << 60 WHERE version = 2")
    assert house.ledger.stored_versions(lost.id) == 1


def test_repairs_are_the_vaults_own(house: House) -> None:
    house.refusal(Repair(Finding("keys", new_id(), "lost")), Forbidden)


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE keys SET description = 'harmless' WHERE id = ?",
        "UPDATE key_versions SET encrypted_key = zeroblob(99) WHERE version = 2 AND key_id = ?",
    ],
)
def test_a_key_is_destroyed_whole_and_its_neighbours_are_not(house: House, edit: str) -> None:
    lost, kept = house.rotated(house.key("lost")), KeyRef(house.key("kept").id)
    assert [house.ledger.stored_versions(one) for one in (lost.id, KeyId(kept), KeyId("absent"))] == [2, 1, 0]
    sealed = house.ask(Encrypt(kept, plaintext=b"x"))
    draft = only(repaired(house, edit, lost.id))
    assert (draft.key_id, draft.subject) == (lost.id, None)
    assert draft.comment.startswith(f"lost: key{'s' if 'keys' in edit else '_versions'} {lost.id}")
    after = house.ask(ReadKey(KeyRef(lost.id)))
    assert (after.status, after.name) == (KeyStatus.DESTROYED, None)
    assert [(one.status, one.encrypted_key) for one in after.versions] == [(VersionStatus.DESTROYED, b"")] * 2
    assert house.ask(Decrypt(kept, None, sealed.ciphertext, sealed.encrypted_dek)).plaintext == b"x"
    assert house.key("lost").id != lost.id, "the name can be given again"


@pytest.mark.parametrize(("table", "name"), [("keys", "orders"), ("key_versions", "orders"), ("keys", None)])
def test_what_is_lost_is_told_by_its_name(house: House, table: str, name: str | None) -> None:
    lost = house.key(name)
    edit = {
        "keys": "UPDATE keys SET description = 'harmless' WHERE id = ?",
        "key_versions": "UPDATE key_versions SET encrypted_key = zeroblob(99) WHERE key_id = ?",
    }
    tamper(house, edit[table], lost.id)
    (found,), _ = repair_vault(house.chosen)
    assert found.row.partition("/")[0] == lost.id
    assert (f"its row names it '{name}'" if name else "no name that can be read") in found.problem
    assert "what was encrypted under it cannot be read any more" in found.problem
    house.open()


def test_a_name_of_a_dialect_goes_and_its_key_stays(house: House) -> None:
    key = KeyRef(house.ask(words.CreateKey(HERE)).id)
    house.ask(words.CreateAlias(key, HERE, alias_name="alias/lost"))
    draft = only(repaired(house, "UPDATE key_names SET created_at = created_at + 1 WHERE name = ?", "alias/lost"))
    assert draft.comment.startswith("lost: key_names aws:eu-central-1/alias/lost")
    assert house.ask(ReadKey(key)).aliases == ()
    house.ask(words.CreateAlias(key, HERE, alias_name="alias/lost"))


def test_a_name_whose_row_is_gone_by_then_is_on_record_all_the_same(house: House) -> None:
    house.system(Repair(Finding("key_names", "aws:eu-central-1/alias/gone", "row does not verify")))
    assert house.last.draft.comment == "lost: key_names aws:eu-central-1/alias/gone: row does not verify"
    assert house.ledger.verify().valid


def test_a_service_is_inactive_and_has_nothing_left(house: House) -> None:
    service, token = house.service("worker", grant("*"))
    draft = only(repaired(house, "UPDATE services SET role = 'ADMIN' WHERE id = ?", service.id))
    assert (draft.subject, draft.key_id) == (service.id, None)
    after = house.ask(ReadService(service.id))
    assert (after.name, after.active, after.role, after.grants) == (f"lost-{service.id[:8]}", False, "SERVICE", ())
    house.refusal(ListKeys(), Unauthenticated, token)
    house.service("worker")


def test_a_token_lets_nobody_in_and_its_service_gets_another(house: House) -> None:
    service, token = house.service("worker")
    assert repaired(house, "UPDATE tokens SET digest = zeroblob(32) WHERE service_id = ?", service.id)
    house.refusal(ListKeys(), Unauthenticated, token)
    house.ask(ListKeys(), house.ask(RenewToken("worker")).token)


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM tokens WHERE service_id = ?", "UPDATE tokens SET row_mac = zeroblob(32) WHERE service_id = ?"],
)
@pytest.mark.parametrize("beside", [False, True])
def test_where_a_row_is_missing_or_another_nothing_is_given_up(house: House, damage: str, *, beside: bool) -> None:
    """Nothing could tell that no old row stands beside those that are named: what is edited is edited, and no more."""
    service, _ = house.service("worker")
    house.key("orders")
    tamper(house, damage, service.id)
    if beside:
        tamper(house, "UPDATE keys SET description = 'x'")
    with pytest.raises(DamagedVault):
        repair_vault(house.chosen)
    (last,) = [one.problem for one in verify(house.chosen).findings if one.table == "ledger_head"]
    assert "missing or old" in last


@pytest.mark.sqlite_only
def test_an_old_row_does_not_hide_behind_one_that_was_edited(house: House) -> None:
    """A token that was renewed, and a key that was revoked, come back with nothing."""
    service, _ = house.service("worker")
    key = house.key("orders")
    house.ask(EnableMount("mount"))
    with closing(driver.connect(str(house.path))) as connection:
        old = {
            "tokens": connection.execute("SELECT * FROM tokens WHERE service_id = ?", (service.id,)).fetchall(),
            "keys": connection.execute("SELECT * FROM keys WHERE id = ?", (key.id,)).fetchall(),
        }
    house.ask(RenewToken(service.id))
    house.ask(RevokeKey(KeyRef(key.id)))
    house.vault.close()
    with closing(driver.connect(str(house.path), isolation_level=None)) as connection:
        for table, rows in old.items():
            for row in rows:
                connection.execute(f"REPLACE INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        connection.execute("UPDATE settings SET value = '{}' WHERE name LIKE '%mount%'")
    for quarantine in (False, True):
        with pytest.raises(DamagedVault):
            app.open_vault(house.chosen, quarantine=quarantine)
    with pytest.raises(DamagedVault):
        repair_vault(house.chosen)
    assert any("missing or old" in one.problem for one in verify(house.chosen).findings)


def test_a_mount_is_gone_and_can_be_made_again(house: House) -> None:
    house.ask(EnableMount("orders"))
    (name,) = [one.name for one in house.ledger.snapshot().settings_under("") if "orders" in one.name]
    draft = only(repaired(house, "UPDATE settings SET value = '{}' WHERE name = ?", name))
    assert draft.comment.startswith(f"lost: settings {name}")
    assert house.ledger.snapshot().setting(name) is None
    house.ask(EnableMount("orders"))


def test_a_slot_is_sealed_anew_for_the_master_key_that_repairs(house: House) -> None:
    second = house.vault.keyring.seal(house.vault.master, slot_id=new_id(), created_at=1)
    house.system(AddSlot(second))
    draft = only(repaired(house, "UPDATE keyring_slots SET created_at = created_at + 1 WHERE id = ?", second.id))
    assert f"slot {second.id} " in draft.comment
    (anew,) = [slot for slot in house.ledger.snapshot().slots() if slot.id == second.id]
    assert anew.sealed != second.sealed
    assert house.vault.keyring.opens(anew, house.vault.master)


def test_without_a_slot_in_its_place_a_lost_one_is_on_record_only(house: House) -> None:
    before = house.ledger.snapshot().slots()
    house.system(Repair(Finding("keyring_slots", new_id(), "row does not verify")))
    assert house.last.draft.action is Action.REPAIR
    assert house.ledger.snapshot().slots() == before


def test_a_kept_reply_is_forgotten(house: House) -> None:
    key = house.ask(CreateKey(AES), idempotency=idempotent("again"))
    draft = only(repaired(house, "UPDATE idempotency_replies SET expires_at = expires_at + 1"))
    assert draft.comment.startswith("lost: idempotency_replies ")
    assert house.ask(CreateKey(AES), idempotency=idempotent("again")).id != key.id


def test_every_loss_is_an_entry_and_a_key_with_many_is_one(house: House) -> None:
    many, other = house.rotated(house.key(), 3), house.key()
    size = house.size
    tamper(house, "UPDATE key_versions SET created_at = created_at + 1")
    found, _ = repair_vault(house.chosen)
    assert len(found) == 5
    house.open()
    entries = [entry.draft for entry in house.log(size) if entry.draft.action is Action.REPAIR]
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
def test_whatever_is_set_aside_the_vault_is_degraded(house: House, edit: str) -> None:
    worker, token = house.service("worker")
    house.ask(EnableMount("orders"))
    house.ask(CreateKey(AES), idempotency=idempotent("once"))
    assert [house.ledger.degraded, house.ledger.frozen] == [False, False]
    tamper(house, edit)
    house.vault = app.open_vault(house.chosen, quarantine=True)
    assert [house.ledger.degraded, house.ledger.frozen] == [True, True]
    assert {one.table for one in house.ledger.lost} == {edit.split()[1]}
    if "UPDATE services" in edit:
        house.refusal(ReadService(worker.id), IntegrityViolation)
        house.refusal(ListKeys(), IntegrityViolation, token)
    if "UPDATE tokens" in edit:
        house.refusal(ListKeys(), Unauthenticated, token)
    house.ask(ListKeys())


def test_until_a_repair_nothing_that_is_set_aside_is_used_or_changed(house: House) -> None:
    lost, kept = house.key("lost"), KeyRef(house.key("kept").id)
    tamper(house, "UPDATE keys SET description = 'harmless' WHERE id = ?", lost.id)
    house.vault = app.open_vault(house.chosen, quarantine=True)
    for ref in (lost.id, "lost"):
        house.refusal(Encrypt(KeyRef(ref), plaintext=b"x"), IntegrityViolation)
    house.ask(Encrypt(kept, plaintext=b"x"))
    house.refusal(CreateKey(AES), IntegrityViolation)
    house.refusal(ReadKey(KeyRef("absent")), NotFound)
    assert [key.name for key in house.ask(ListKeys()).items] == ["kept"]
