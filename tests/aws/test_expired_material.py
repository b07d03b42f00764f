"""Imported material that has expired or was deleted is used by no dialect, and is erased."""

from collections.abc import Callable
from typing import Any

import pytest

from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.errors import KeyUnavailable
from keyvault_lite.model import requests as native
from keyvault_lite.model.errors import InvalidState
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.keys import VersionStatus
from keyvault_lite.model.names import SYSTEM, KeyRef
from tests.aws.test_handlers import HERE, bring, later, made, refused, sealed
from tests.engine.test_jobs import Clock, clock
from tests.house import DAY, House

__all__ = ["clock", "later"]
EXPIRES: dict[str, Any] = {"expiration_model": "KEY_MATERIAL_EXPIRES"}


def expiring(house: House, *kind: str) -> tuple[KeyRef, bytes]:
    """A key whose material expires in a day."""
    ref = KeyRef(made(house, *kind, origin="EXTERNAL").id)
    raw = bytes(range(32))
    bring(house, ref, raw, valid_to=house.ledger.now() + DAY, **EXPIRES)
    return ref, raw


@pytest.mark.parametrize("how", ["expired", "deleted"])
def test_no_native_use_of_material_that_is_gone(house: House, later: Callable[[int], None], how: str) -> None:
    ref, raw = expiring(house)
    message = house.ask(native.Encrypt(ref, plaintext=b"x"))
    data_key = house.ask(native.GenerateDataKey(ref))
    uses = (
        native.Encrypt(ref, plaintext=b"x"),
        native.Decrypt(ref, ciphertext=message.ciphertext, encrypted_dek=message.encrypted_dek),
        native.Rewrap(ref, encrypted_dek=message.encrypted_dek),
        native.GenerateDataKey(ref),
        native.OpenDataKey(ref, encrypted_key=data_key.encrypted_key),
    )
    for use in uses:
        house.ask(use)
    if how == "deleted":
        house.ask(words.DeleteImportedKeyMaterial(ref, HERE))
    else:
        later(2)
    for use in uses:
        refused(house, use, InvalidState)
    bring(house, ref, raw)
    for use in uses:
        house.ask(use)


def test_no_native_mac_by_material_that_has_expired(house: House, later: Callable[[int], None]) -> None:
    ref, _ = expiring(house, "HMAC_256", "GENERATE_VERIFY_MAC")
    mac = house.ask(native.Sign(ref, message=b"x")).signature
    later(2)
    refused(house, native.Sign(ref, message=b"x"), InvalidState)
    refused(house, native.Verify(ref, message=b"x", signature=mac), InvalidState)


def test_expired_material_is_erased_once_and_recorded(house: House, clock: Clock) -> None:
    ref, raw = expiring(house)
    old = sealed(house, ref)
    stored = house.ask(native.ReadKey(ref)).versions[0].encrypted_key
    jobs = house.jobs
    house.run(jobs.round())
    assert house.ask(native.ReadKey(ref)).versions[0].encrypted_key == stored
    clock.pass_days(2)
    house.run(jobs.round())
    gone = house.ask(native.ReadKey(ref)).versions[0]
    assert (gone.status, gone.encrypted_key) == (VersionStatus.DESTROYED, b"")
    assert stored not in house.files()
    entry = next(one.draft for one in reversed(house.log()) if one.draft.action is Action.DESTROY)
    assert (entry.service_id, entry.result, entry.key_id, entry.key_version) == (SYSTEM, Result.SUCCESS, str(ref), 1)
    size = house.size
    house.run(jobs.round())
    assert house.size == size
    bring(house, ref, raw)
    assert house.ask(words.Decrypt(KeyRef(""), HERE, ciphertext_blob=old)).plaintext == b"x"
    house.reopen()
    assert house.ask(words.Decrypt(KeyRef(""), HERE, ciphertext_blob=old)).plaintext == b"x"


def test_material_that_waits_for_its_rotation_is_erased_when_it_expires(house: House, clock: Clock) -> None:
    ref = KeyRef(made(house, origin="EXTERNAL").id)
    bring(house, ref, bytes(range(32)))
    new: dict[str, Any] = {"import_type": "NEW_KEY_MATERIAL", "valid_to": house.ledger.now() + DAY, **EXPIRES}
    bring(house, ref, bytes(range(1, 33)), **new)
    jobs = house.jobs
    clock.pass_days(2)
    house.run(jobs.round())
    key = house.ask(native.ReadKey(ref))
    assert "pending" not in key.attributes["aws"]
    assert [one.status for one in key.versions] == [VersionStatus.ACTIVE]
    assert house.ask(native.Encrypt(ref, plaintext=b"x")).ciphertext


def test_revoked_material_does_not_come_back_by_expiring(house: House, clock: Clock) -> None:
    ref, raw = expiring(house)
    old = sealed(house, ref)
    house.ask(native.RevokeKey(ref))
    jobs = house.jobs
    clock.pass_days(2)
    house.run(jobs.round())
    assert house.ask(native.ReadKey(ref)).versions[0].status is VersionStatus.DESTROYED
    with pytest.raises(KeyUnavailable):
        bring(house, ref, raw)
    with pytest.raises(KeyUnavailable):
        house.ask(words.Decrypt(KeyRef(""), HERE, ciphertext_blob=old))
