"""Each operation in each state of a key, as AWS publishes it ("Key states of AWS KMS keys")."""

from collections.abc import Callable
from typing import Any, Final

import pytest

from keyvault_lite.dialects.aws import errors
from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.view import View
from keyvault_lite.model.errors import KeyVaultError
from keyvault_lite.model.names import KeyRef
from keyvault_lite.wire.aws.render import metadata
from tests.support.harness import Harness
from tests.unit.dialects.aws.test_handlers import HERE, bring, made

STATES: Final = ("Enabled", "Disabled", "PendingImport", "PendingDeletion")
OK: Final = None
OFF: Final = errors.Disabled
BAD: Final = errors.KeyUnavailable
NO: Final = errors.UnsupportedOperation
Outcome = type[KeyVaultError] | None
EVERYWHERE: Final = (OK, OK, OK, OK)
NOT_LEAVING: Final = (OK, OK, OK, BAD)
USE: Final = (OK, OFF, BAD, BAD)
CASES: Final[dict[str, tuple[Callable[[KeyRef], Any], tuple[Outcome, ...]]]] = {
    "CancelKeyDeletion": (lambda key: words.CancelKeyDeletion(key, HERE), (BAD, BAD, BAD, OK)),
    "CreateAlias": (lambda key: words.CreateAlias(key, HERE, alias_name="alias/new"), NOT_LEAVING),
    "CreateGrant": (
        lambda key: words.CreateGrant(key, HERE, grantee_principal=HERE.principal_arn("app"), operations=("Decrypt",)),
        USE,
    ),
    "DeleteAlias": (lambda _: words.DeleteAlias(KeyRef("alias/held"), HERE), EVERYWHERE),
    "DeleteImportedKeyMaterial": (lambda key: words.DeleteImportedKeyMaterial(key, HERE), (NO, NO, OK, NO)),
    "DescribeKey": (lambda key: words.DescribeKey(key, HERE), EVERYWHERE),
    "DisableKey": (lambda key: words.DisableKey(key, HERE), (OK, OK, BAD, BAD)),
    "DisableKeyRotation": (lambda key: words.DisableKeyRotation(key, HERE), (OK, OFF, NO, BAD)),
    "EnableKey": (lambda key: words.EnableKey(key, HERE), (OK, OK, BAD, BAD)),
    "EnableKeyRotation": (lambda key: words.EnableKeyRotation(key, HERE), (OK, OFF, NO, BAD)),
    "Encrypt": (lambda key: words.Encrypt(key, HERE, plaintext=b"x"), USE),
    "GenerateDataKey": (lambda key: words.GenerateDataKey(key, HERE, key_spec="AES_256"), USE),
    "GetKeyPolicy": (lambda key: words.GetKeyPolicy(key, HERE), EVERYWHERE),
    "GetKeyRotationStatus": (lambda key: words.GetKeyRotationStatus(key, HERE), EVERYWHERE),
    "GetParametersForImport": (
        lambda key: words.GetParametersForImport(
            key, HERE, wrapping_algorithm="RSAES_OAEP_SHA_256", wrapping_key_spec="RSA_2048"
        ),
        (NO, NO, OK, NO),
    ),
    "ListAliases": (lambda key: words.ListAliases(HERE, key=key), EVERYWHERE),
    "ListGrants": (lambda key: words.ListGrants(key, HERE), EVERYWHERE),
    "ListKeyPolicies": (lambda key: words.ListKeyPolicies(key, HERE), EVERYWHERE),
    "ListKeyRotations": (lambda key: words.ListKeyRotations(key, HERE), EVERYWHERE),
    "ListResourceTags": (lambda key: words.ListResourceTags(key, HERE), EVERYWHERE),
    "PutKeyPolicy": (lambda key: words.PutKeyPolicy(key, HERE, policy=ALLOWS), EVERYWHERE),
    "RotateKeyOnDemand": (lambda key: words.RotateKeyOnDemand(key, HERE), USE),
    "ScheduleKeyDeletion": (lambda key: words.ScheduleKeyDeletion(key, HERE), NOT_LEAVING),
    "TagResource": (lambda key: words.TagResource(key, HERE, tags=(("a", "b"),)), NOT_LEAVING),
    "UntagResource": (lambda key: words.UntagResource(key, HERE, tag_keys=("a",)), NOT_LEAVING),
    "UpdateKeyDescription": (lambda key: words.UpdateKeyDescription(key, HERE, description="x"), NOT_LEAVING),
}
ALLOWS: Final = '{"Statement": {"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"}}'


def key_in(harness: Harness, state: str) -> View:
    """A key in that state, with an alias."""
    external = {"origin": "EXTERNAL"} if state == "PendingImport" else {}
    key = made(harness, **external)
    ref = KeyRef(key.id)
    harness.ask(words.CreateAlias(ref, HERE, alias_name="alias/held"))
    if state == "Disabled":
        harness.ask(words.DisableKey(ref, HERE))
    if state == "PendingDeletion":
        harness.ask(words.ScheduleKeyDeletion(ref, HERE))
    found: View = harness.ask(words.DescribeKey(ref, HERE))
    assert found.state == state
    return found


def outcome(harness: Harness, request: Any) -> Outcome:  # noqa: ANN401
    try:
        harness.ask(request)
    except KeyVaultError as error:
        return type(error)
    return None


@pytest.mark.parametrize("state", STATES)
def test_the_published_table_of_key_states(harness: Harness, state: str) -> None:
    found: dict[str, Outcome] = {}
    for name, (make, _) in CASES.items():
        key = key_in(harness, state)
        found[name] = outcome(harness, make(KeyRef(key.id)))
        outcome(harness, words.DeleteAlias(KeyRef("alias/held"), HERE))
        outcome(harness, words.DeleteAlias(KeyRef("alias/new"), HERE))
    assert found == {name: expected[STATES.index(state)] for name, (_, expected) in CASES.items()}


def test_rotation_of_a_key_that_waits_for_deletion_is_off_and_comes_back(harness: Harness) -> None:
    ref = KeyRef(made(harness).id)
    harness.ask(words.EnableKeyRotation(ref, HERE, rotation_period_in_days=100))
    before = harness.ask(words.GetKeyRotationStatus(ref, HERE))
    harness.ask(words.ScheduleKeyDeletion(ref, HERE))
    waiting = harness.ask(words.GetKeyRotationStatus(ref, HERE))
    assert (waiting.key_rotation_enabled, waiting.next_rotation_date) == (False, None)
    harness.ask(words.CancelKeyDeletion(ref, HERE))
    after = harness.ask(words.GetKeyRotationStatus(ref, HERE))
    assert (after.key_rotation_enabled, after.rotation_period_in_days) == (True, before.rotation_period_in_days)


def test_a_disabled_key_of_another_type_is_disabled_first(harness: Harness) -> None:
    ref = KeyRef(made(harness, "RSA_2048", "SIGN_VERIFY").id)
    assert outcome(harness, words.RotateKeyOnDemand(ref, HERE)) is NO
    harness.ask(words.DisableKey(ref, HERE))
    assert outcome(harness, words.RotateKeyOnDemand(ref, HERE)) is OFF


def test_opening_under_a_key_of_another_usage_is_an_incorrect_key(harness: Harness) -> None:
    right, wrong = made(harness), made(harness, "HMAC_256", "GENERATE_VERIFY_MAC")
    sealed = harness.ask(words.Encrypt(KeyRef(right.id), HERE, plaintext=b"x")).ciphertext_blob
    assert outcome(harness, words.Decrypt(KeyRef(wrong.id), HERE, ciphertext_blob=sealed)) is errors.IncorrectKey
    moved = words.ReEncrypt(KeyRef(wrong.id), HERE, ciphertext_blob=sealed, destination_key_id=KeyRef(right.id))
    assert outcome(harness, moved) is errors.IncorrectKey
    assert outcome(harness, words.Encrypt(KeyRef(wrong.id), HERE, plaintext=b"x")) is errors.InvalidKeyUsage


@pytest.mark.parametrize("name", ["aws:a", "AWS:a", "aWs:a"])
def test_tags_of_the_service_are_reserved_in_any_case(harness: Harness, name: str) -> None:
    ref = KeyRef(made(harness).id)
    assert outcome(harness, words.TagResource(ref, HERE, tags=((name, "b"),))) is errors.InvalidTag
    assert outcome(harness, words.CreateKey(HERE, tags=((name, "b"),))) is errors.InvalidTag


@pytest.mark.parametrize("name", ["held", "alias/", "alias/a:b", "arn:aws:kms:eu-central-1:000000000000:alias/a"])
def test_a_malformed_alias_is_a_validation_error(harness: Harness, name: str) -> None:
    ref = KeyRef(made(harness).id)
    assert outcome(harness, words.CreateAlias(ref, HERE, alias_name=name)) is errors.Validation


def test_deleted_material_is_still_named(harness: Harness) -> None:
    ref = KeyRef(made(harness, origin="EXTERNAL").id)
    assert "CurrentKeyMaterialId" not in metadata(harness.ask(words.DescribeKey(ref, HERE)))
    brought = bring(harness, ref, bytes(range(32)))
    harness.ask(words.DeleteImportedKeyMaterial(ref, HERE))
    shown = metadata(harness.ask(words.DescribeKey(ref, HERE)))
    assert (shown["KeyState"], shown["CurrentKeyMaterialId"]) == ("PendingImport", brought.key_material_id)
    assert "ValidTo" not in shown


def test_a_service_as_grantee_needs_a_source_and_who_retires(harness: Harness) -> None:
    ref = KeyRef(made(harness).id)
    asked = words.CreateGrant(ref, HERE, grantee_service_principal="s3.amazonaws.com", operations=("Decrypt",))
    assert outcome(harness, asked) is errors.Validation
