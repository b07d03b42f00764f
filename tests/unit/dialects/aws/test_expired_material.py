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
from tests.support.harness import DAY, Harness
from tests.unit.dialects.aws.test_handlers import HERE, bring, later, made, refused, sealed
from tests.unit.engine.test_jobs import Clock, clock

__all__ = ["clock", "later"]
EXPIRES: dict[str, Any] = {"expiration_model": "KEY_MATERIAL_EXPIRES"}


def expiring(harness: Harness, *kind: str) -> tuple[KeyRef, bytes]:
    """A key whose material expires in a day."""
    ref = KeyRef(made(harness, *kind, origin="EXTERNAL").id)
    raw = bytes(range(32))
    bring(harness, ref, raw, valid_to=harness.ledger.now() + DAY, **EXPIRES)
    return ref, raw


@pytest.mark.parametrize("how", ["expired", "deleted"])
def test_no_native_use_of_material_that_is_gone(harness: Harness, later: Callable[[int], None], how: str) -> None:
    ref, raw = expiring(harness)
    message = harness.ask(native.Encrypt(ref, plaintext=b"x"))
    data_key = harness.ask(native.GenerateDataKey(ref))
    uses = (
        native.Encrypt(ref, plaintext=b"x"),
        native.Decrypt(ref, ciphertext=message.ciphertext, encrypted_dek=message.encrypted_dek),
        native.Rewrap(ref, encrypted_dek=message.encrypted_dek),
        native.GenerateDataKey(ref),
        native.OpenDataKey(ref, encrypted_key=data_key.encrypted_key),
    )
    for use in uses:
        harness.ask(use)
    if how == "deleted":
        harness.ask(words.DeleteImportedKeyMaterial(ref, HERE))
    else:
        later(2)
    for use in uses:
        refused(harness, use, InvalidState)
    bring(harness, ref, raw)
    for use in uses:
        harness.ask(use)


def test_no_native_mac_by_material_that_has_expired(harness: Harness, later: Callable[[int], None]) -> None:
    ref, _ = expiring(harness, "HMAC_256", "GENERATE_VERIFY_MAC")
    mac = harness.ask(native.Sign(ref, message=b"x")).signature
    later(2)
    refused(harness, native.Sign(ref, message=b"x"), InvalidState)
    refused(harness, native.Verify(ref, message=b"x", signature=mac), InvalidState)


def test_expired_material_is_erased_once_and_recorded(harness: Harness, clock: Clock) -> None:
    ref, raw = expiring(harness)
    old = sealed(harness, ref)
    stored = harness.ask(native.ReadKey(ref)).versions[0].encrypted_key
    jobs = harness.jobs
    harness.run(jobs.round())
    assert harness.ask(native.ReadKey(ref)).versions[0].encrypted_key == stored
    clock.pass_days(2)
    harness.run(jobs.round())
    gone = harness.ask(native.ReadKey(ref)).versions[0]
    assert (gone.status, gone.encrypted_key) == (VersionStatus.DESTROYED, b"")
    assert stored not in harness.files()
    entry = next(one.draft for one in reversed(harness.log()) if one.draft.action is Action.DESTROY)
    assert (entry.service_id, entry.result, entry.key_id, entry.key_version) == (SYSTEM, Result.SUCCESS, str(ref), 1)
    size = harness.size
    harness.run(jobs.round())
    assert harness.size == size
    bring(harness, ref, raw)
    assert harness.ask(words.Decrypt(KeyRef(""), HERE, ciphertext_blob=old)).plaintext == b"x"
    harness.reopen()
    assert harness.ask(words.Decrypt(KeyRef(""), HERE, ciphertext_blob=old)).plaintext == b"x"


def test_material_that_waits_for_its_rotation_is_erased_when_it_expires(harness: Harness, clock: Clock) -> None:
    ref = KeyRef(made(harness, origin="EXTERNAL").id)
    bring(harness, ref, bytes(range(32)))
    new: dict[str, Any] = {"import_type": "NEW_KEY_MATERIAL", "valid_to": harness.ledger.now() + DAY, **EXPIRES}
    bring(harness, ref, bytes(range(1, 33)), **new)
    jobs = harness.jobs
    clock.pass_days(2)
    harness.run(jobs.round())
    key = harness.ask(native.ReadKey(ref))
    assert "pending" not in key.attributes["aws"]
    assert [one.status for one in key.versions] == [VersionStatus.ACTIVE]
    assert harness.ask(native.Encrypt(ref, plaintext=b"x")).ciphertext


def test_revoked_material_does_not_come_back_by_expiring(harness: Harness, clock: Clock) -> None:
    ref, raw = expiring(harness)
    old = sealed(harness, ref)
    harness.ask(native.RevokeKey(ref))
    jobs = harness.jobs
    clock.pass_days(2)
    harness.run(jobs.round())
    assert harness.ask(native.ReadKey(ref)).versions[0].status is VersionStatus.DESTROYED
    with pytest.raises(KeyUnavailable):
        bring(harness, ref, raw)
    with pytest.raises(KeyUnavailable):
        harness.ask(words.Decrypt(KeyRef(""), HERE, ciphertext_blob=old))
