"""Corners of the operations of the AWS dialect, on a vault in this process; and what only time brings."""

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from msgspec import structs

from keyvault_lite.crypto import blob
from keyvault_lite.dialects.aws import errors, grants
from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.model import AccountRegion
from keyvault_lite.dialects.aws.view import View
from keyvault_lite.engine import access_keys
from keyvault_lite.engine.jobs import _rotation_due
from keyvault_lite.ledger.ledger import Ledger
from keyvault_lite.model.errors import (
    Forbidden,
    Hidden,
    InvalidCiphertext,
    InvalidState,
    KeyVaultError,
    LimitExceeded,
    NotFound,
)
from keyvault_lite.model.evidence import Result
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import (
    CreateAccessKey,
    DestroyKey,
    DisableKey,
    EnableKey,
    EraseDueKey,
    ListAccessKeys,
    ReadKey,
    RestoreKey,
    RevokeAccessKey,
    RevokeKey,
    RotateDueKey,
    RotateKey,
    UpdateKey,
)
from keyvault_lite.model.requests import Encrypt as EncryptNatively
from keyvault_lite.wire.aws.render import metadata, write_result
from tests.support.harness import DAY, Harness, grant

HERE = AccountRegion("000000000000", "eu-central-1")
THERE = AccountRegion("000000000000", "us-east-1")
ELSEWHERE = AccountRegion("000000000000", "us-west-2")
DOES_NOT_EXPIRE = "KEY_MATERIAL_DOES_NOT_EXPIRE"


def refused(harness: Harness, request: Any, kind: type[KeyVaultError], token: str | None = "") -> KeyVaultError:  # noqa: ANN401
    with pytest.raises(kind) as caught:
        harness.ask(request, token)
    assert type(caught.value) is kind
    return caught.value


def made(harness: Harness, spec: str = "SYMMETRIC_DEFAULT", usage: str = "ENCRYPT_DECRYPT", **more: object) -> View:
    view: View = harness.ask(words.CreateKey(HERE, key_spec=spec, key_usage=usage, **more))  # type: ignore[arg-type]
    return view


def sealed(harness: Harness, key: str, **more: object) -> bytes:
    reply: bytes = harness.ask(words.Encrypt(KeyRef(key), HERE, plaintext=b"x", **more)).ciphertext_blob  # type: ignore[arg-type]
    return reply


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the vault believe that days have passed."""
    now = Ledger.now

    def shift(days: int) -> None:
        monkeypatch.setattr(Ledger, "now", lambda ledger: now(ledger) + days * DAY)

    return shift


def bring(harness: Harness, key: str, raw: bytes, place: AccountRegion = HERE, **more: Any) -> Any:  # noqa: ANN401
    asked = words.GetParametersForImport(
        KeyRef(key), place, wrapping_algorithm="RSAES_OAEP_SHA_256", wrapping_key_spec="RSA_2048"
    )
    parameters = harness.ask(asked)
    return harness.ask(structs.replace(imported(key, parameters, raw, **more), place=place))


def imported(key: str, parameters: Any, raw: bytes, **more: Any) -> words.ImportKeyMaterial:  # noqa: ANN401
    public = load_der_public_key(parameters.public_key)
    assert isinstance(public, rsa.RSAPublicKey)
    digest = hashes.SHA256()
    wrapped = public.encrypt(raw, padding.OAEP(padding.MGF1(digest), digest, None))
    more = {"expiration_model": DOES_NOT_EXPIRE, **more}
    return words.ImportKeyMaterial(
        KeyRef(key), HERE, import_token=parameters.import_token, encrypted_key_material=wrapped, **more
    )


# Ciphertexts


def test_a_version_that_is_not_there(harness: Harness) -> None:
    key = made(harness)
    encrypted_dek, ciphertext = blob.split(sealed(harness, key.id))
    forged = encrypted_dek[:22] + (99).to_bytes(4, "big") + encrypted_dek[26:]
    refused(harness, words.Decrypt(KeyRef(""), HERE, ciphertext_blob=blob.join(forged, ciphertext)), InvalidCiphertext)


def test_a_version_revoked_natively(harness: Harness) -> None:
    key = made(harness)
    old = sealed(harness, key.id)
    harness.ask(RotateKey(KeyRef(key.id)))
    harness.ask(RevokeKey(KeyRef(key.id), version=1))
    refused(harness, words.Decrypt(KeyRef(""), HERE, ciphertext_blob=old), errors.KeyUnavailable)
    harness.ask(RevokeKey(KeyRef(key.id)))
    assert (
        "is unavailable"
        in refused(harness, words.Encrypt(KeyRef(key.id), HERE, plaintext=b"x"), errors.KeyUnavailable).detail
    )


def test_modifiers_of_a_dry_run(harness: Harness) -> None:
    key = made(harness)
    ignoring = words.Decrypt(KeyRef(key.id), HERE, dry_run_modifiers=("IGNORE_CIPHERTEXT",))
    refused(harness, ignoring, errors.Validation)
    request = words.Decrypt(
        KeyRef(""),
        HERE,
        ciphertext_blob=sealed(harness, key.id),
        dry_run=True,
        dry_run_modifiers=("IGNORE_CIPHERTEXT",),
    )
    refused(harness, request, errors.Validation)
    nameless = words.Decrypt(KeyRef(""), HERE, dry_run=True, dry_run_modifiers=("IGNORE_CIPHERTEXT",))
    refused(harness, nameless, errors.Validation)
    refused(harness, words.Decrypt(KeyRef(""), HERE), errors.Validation)
    refused(harness, words.ReEncrypt(KeyRef(""), HERE, destination_key_id=key.id), errors.Validation)
    refused(harness, words.Decrypt(KeyRef(""), HERE, ciphertext_blob=b"x"), InvalidCiphertext)


def test_message_types_of_curves(harness: Harness) -> None:
    key = made(harness, "ECC_NIST_P256", "SIGN_VERIFY")
    request = words.Sign(
        KeyRef(key.id), HERE, message=bytes(64), message_type="EXTERNAL_MU", signing_algorithm="ECDSA_SHA_256"
    )
    refused(harness, request, errors.Validation)


# Names


@pytest.mark.parametrize("name", ["arn:aws:kms:eu-central-1:000000000000:thing/x", "arn:nonsense"])
def test_arns_that_are_none(harness: Harness, name: str) -> None:
    refused(harness, words.DescribeKey(KeyRef(name), HERE), errors.InvalidArn)
    _, token = harness.service("nobody")
    refused(harness, words.DescribeKey(KeyRef(name), HERE), Hidden, token)
    _, token = harness.service("all", grant("*"))
    refused(harness, words.DescribeKey(KeyRef(name), HERE), errors.InvalidArn, token)


def test_an_alias_moves_to_where_it_is(harness: Harness) -> None:
    key = made(harness)
    harness.ask(words.CreateAlias(KeyRef(key.id), HERE, alias_name="alias/a"))
    harness.ask(words.UpdateAlias(KeyRef(key.id), HERE, alias_name="alias/a"))
    assert harness.ask(ReadKey(KeyRef("aws:eu-central-1/alias/a"))).aliases == ("aws:eu-central-1/alias/a",)
    refused(harness, words.DeleteAlias(KeyRef(key.id), HERE), errors.Validation)
    refused(harness, words.UntagResource(KeyRef(key.id), HERE, tag_keys=("a", "a")), errors.InvalidTag)


def test_names_of_aliases(harness: Harness) -> None:
    key = made(harness)
    asked = words.CreateAlias(KeyRef(key.id), HERE, alias_name="alias/a:b")
    refused(harness, asked, errors.Validation)
    refused(harness, words.UpdateAlias(KeyRef(key.id), HERE, alias_name="alias/none"), errors.AliasNotFound)


def test_an_alias_is_no_id(harness: Harness) -> None:
    key = made(harness)
    harness.ask(words.CreateAlias(KeyRef(key.id), HERE, alias_name="alias/a"))
    alias = KeyRef("alias/a")
    refused(harness, words.TagResource(alias, HERE, tags=(("a", "b"),)), errors.InvalidKeyId)
    _, token = harness.service("stranger")
    for request in (
        words.GetKeyRotationStatus(alias, HERE),
        words.ListAliases(HERE, key="alias/a"),
        words.RetireGrant(HERE, key="alias/a", grant_id="none"),
    ):
        refused(harness, request, errors.InvalidKeyId)
        refused(harness, request, Hidden, token)


def test_pages_of_aliases(harness: Harness) -> None:
    key = KeyRef(made(harness).id)
    for number in range(51):
        harness.ask(words.CreateAlias(key, HERE, alias_name=f"alias/{number:02}"))
    assert [len(harness.ask(words.ListAliases(HERE, limit=limit)).items) for limit in (None, 100, 1)] == [50, 51, 1]
    refused(harness, words.ListAliases(HERE, limit=101), errors.Validation)


def test_there_are_no_key_stores(harness: Harness) -> None:
    assert harness.ask(words.DescribeCustomKeyStores(HERE)).items == ()
    for named in ({"custom_key_store_id": "cks-1"}, {"custom_key_store_name": "store"}):
        refused(harness, words.DescribeCustomKeyStores(HERE, **named), errors.CustomKeyStoreNotFound)  # type: ignore[arg-type]


def test_the_request_of_the_last_use_is_written_as_answers_write_it(harness: Harness) -> None:
    key = made(harness)
    sealed(harness, key.id)
    request_id = harness.last.draft.request_id
    usage = harness.ask(words.GetKeyLastUsage(KeyRef(key.id), HERE)).key_last_usage
    assert usage.kms_request_id == str(UUID(bytes=request_id))


def test_a_policy_about_an_alias(harness: Harness) -> None:
    policy = (
        '{"Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"},'
        '{"Effect":"Deny","Principal":"*","Action":"kms:Encrypt","Resource":"*",'
        '"Condition":{"StringNotEquals":{"kms:RequestAlias":"alias/only"}}}]}'
    )
    key = made(harness, policy=policy)
    harness.ask(words.CreateAlias(KeyRef(key.id), HERE, alias_name="alias/only"))
    refused(harness, words.Encrypt(KeyRef(key.id), HERE, plaintext=b"x"), Forbidden)
    sealed(harness, "alias/only")


def test_aliases_go_with_their_key(harness: Harness, later: Callable[[int], None]) -> None:
    key = made(harness)
    harness.ask(words.CreateAlias(KeyRef(key.id), HERE, alias_name="alias/gone"))
    harness.ask(words.ScheduleKeyDeletion(KeyRef(key.id), HERE, pending_window_in_days=7))
    later(8)
    refused(harness, words.DescribeKey(KeyRef(key.id), HERE), errors.KeyNotFound)
    harness.system(EraseDueKey(KeyRef(key.key.id)))
    refused(harness, words.DescribeKey(KeyRef("alias/gone"), HERE), errors.KeyNotFound)
    harness.ask(words.CreateAlias(KeyRef(made(harness).id), HERE, alias_name="alias/gone"))
    assert harness.ledger.verify().valid


# Grants


def test_grants_that_cannot_be(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    key = made(harness)
    someone = "arn:aws:iam::000000000000:user/someone"
    both = words.CreateGrant(
        KeyRef(key.id),
        HERE,
        grantee_principal=someone,
        grantee_service_principal="s3.amazonaws.com",
        operations=("Encrypt",),
    )
    refused(harness, both, errors.Validation)
    refused(harness, words.CreateGrant(KeyRef(key.id), HERE, operations=("Encrypt",)), errors.Validation)
    refused(harness, words.CreateGrant(KeyRef(key.id), HERE, grantee_principal=someone), errors.Validation)
    for operations in (("Sign",), ("Encrypt", "GenerateMac"), ("GetPublicKey",)):
        refused(
            harness,
            words.CreateGrant(KeyRef(key.id), HERE, grantee_principal=someone, operations=operations),
            errors.Validation,
        )
    long = {"EncryptionContextSubset": {"a": "x" * 4000}}
    kept = words.CreateGrant(KeyRef(key.id), HERE, grantee_principal=someone, operations=("Encrypt",), constraints=long)
    with monkeypatch.context() as small:
        small.setattr(grants, "MAX_KEPT", 4000)
        refused(harness, kept, LimitExceeded)
        small.setattr(grants, "MAX_KEPT", 5000)
        first = harness.ask(kept)
        refused(harness, kept, LimitExceeded)
        harness.ask(words.RevokeGrant(KeyRef(key.id), HERE, grant_id=first.grant_id))
    monkeypatch.setattr(grants, "MAX_GRANTS", 1)
    good = words.CreateGrant(KeyRef(key.id), HERE, grantee_principal=someone, operations=("Encrypt",))
    made_grant = harness.ask(good)
    refused(harness, good, LimitExceeded)
    assert harness.ask(words.ListGrants(KeyRef(key.id), HERE, grant_id=made_grant.grant_id)).items
    refused(harness, words.ListRetirableGrants(HERE), errors.Validation)
    refused(harness, words.RetireGrant(HERE, grant_token=made_grant.grant_token, key=key.id), errors.Validation)
    refused(harness, words.RetireGrant(HERE, key=key.id, grant_id="none"), errors.InvalidGrantId)
    _, token = harness.service("bystander", grant(key.id))
    refused(harness, words.RetireGrant(HERE, key=key.id, grant_id=made_grant.grant_id), Forbidden, token)
    _, token = harness.service("outsider")
    refused(harness, words.RetireGrant(HERE, key=key.id, grant_id=made_grant.grant_id), Hidden, token)


def test_grantees_are_principals(harness: Harness) -> None:
    key = made(harness)
    asked = words.CreateGrant(KeyRef(key.id), HERE, operations=("Encrypt",))
    good = HERE.principal_arn("app")
    for bad in (
        "app",
        "000000000000",
        "arn:aws:s3:::bucket",
        "arn:aws-cn:iam::000000000000:user/app",
        "arn:aws:iam::1:x",
    ):
        refused(harness, structs.replace(asked, grantee_principal=bad), errors.InvalidArn)
        refused(harness, structs.replace(asked, grantee_principal=good, retiring_principal=bad), errors.InvalidArn)
    for one in (good, HERE.root_arn, "arn:aws:sts::000000000000:assumed-role/a/b"):
        harness.ask(structs.replace(asked, grantee_principal=one, retiring_principal=one))


def test_grants_are_made_on_enabled_keys(harness: Harness) -> None:
    asked = words.CreateGrant(KeyRef(""), HERE, grantee_principal=HERE.principal_arn("app"), operations=("Encrypt",))
    disabled, empty = KeyRef(made(harness).id), KeyRef(made(harness, origin="EXTERNAL").id)
    harness.ask(words.DisableKey(disabled, HERE))
    refused(harness, structs.replace(asked, key=disabled), errors.Disabled)
    refused(harness, structs.replace(asked, key=empty), errors.KeyUnavailable)


def test_who_may_retire_a_grant_needs_no_other(harness: Harness) -> None:
    key = made(harness)
    _, retiring = harness.service("retiring")
    _, grantee = harness.service("grantee")
    _, stranger = harness.service("stranger")
    app = HERE.principal_arn("grantee")
    asked = words.CreateGrant(KeyRef(key.id), HERE, grantee_principal=app, operations=("Encrypt",))
    for wanted, by in (
        (structs.replace(asked, retiring_principal=HERE.principal_arn("retiring")), retiring),
        (structs.replace(asked, operations=("RetireGrant", "Encrypt")), grantee),
    ):
        retire = words.RetireGrant(HERE, key=key.id, grant_id=harness.ask(wanted).grant_id)
        refused(harness, retire, Hidden, stranger)
        refused(harness, structs.replace(retire, grant_id="none"), Hidden, by)
        other = grantee if by is retiring else retiring
        refused(harness, retire, Hidden, other)
        refused(harness, structs.replace(retire, dry_run=True), errors.DryRun, by)
        harness.ask(retire, by)
        refused(harness, retire, Hidden, by)
    assert not harness.ask(words.ListGrants(KeyRef(key.id), HERE)).items


def test_a_grant_for_a_source_applies_to_nobody_here(harness: Harness) -> None:
    key = made(harness)
    _, token = harness.service("app", grant(key.id))
    harness.ask(
        words.CreateGrant(
            KeyRef(key.id),
            HERE,
            grantee_principal=HERE.principal_arn("app"),
            operations=("Encrypt",),
            constraints={"SourceArn": "arn:aws:s3:eu-central-1:000000000000:bucket"},
        )
    )
    refused(harness, words.Encrypt(KeyRef(key.id), HERE, plaintext=b"x"), Forbidden, token)


def test_a_token_is_good_from_every_region(harness: Harness) -> None:
    place = AccountRegion("000000000000", "cn-north-1")
    key = harness.ask(words.CreateKey(place))
    _, token = harness.service("app", grant(key.id))
    app = place.principal_arn("app")
    asked = words.CreateGrant(
        KeyRef(key.id), place, grantee_principal=app, retiring_principal=app, operations=("Decrypt",)
    )
    harness.ask(words.RetireGrant(HERE, grant_token=harness.ask(asked).grant_token), token)
    assert not harness.ask(words.ListGrants(KeyRef(key.id), place)).items


def test_a_token_of_a_grant_that_never_was(harness: Harness) -> None:
    note = harness.vault.keyring.seal_note("GRANT", b'["0f8fad5b-d9cb-469f-a165-70867728950e","eu-central-1","x"]')
    token = b64encode(note).decode()
    refused(harness, words.RetireGrant(HERE, grant_token=token), errors.InvalidGrantToken)


# Conditions of policies


def denying(**condition: object) -> str:
    """A policy that denies what is done with the key where a condition holds."""
    statements = (
        {"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"},
        {"Effect": "Deny", "Principal": "*", "Action": "kms:*", "Resource": "*", "Condition": condition},
    )
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def bound(harness: Harness, key: str, **condition: object) -> None:
    bypass = {"bypass_policy_lockout_safety_check": True}
    harness.ask(words.PutKeyPolicy(KeyRef(key), HERE, policy=denying(**condition), **bypass))  # type: ignore[arg-type]


def test_conditions_on_tags_and_aliases(harness: Harness) -> None:
    key = made(harness, tags=(("Stage", "prod"), ("stage", "test")))
    asked = words.Encrypt(KeyRef(key.id), HERE, plaintext=b"x")
    for stage in ("prod", "test"):
        bound(harness, key.id, StringEquals={"aws:ResourceTag/Stage": stage})
        refused(harness, asked, Forbidden)
    bound(harness, key.id, StringEquals={"aws:ResourceTag/Stage": "other"})
    harness.ask(asked)
    condition = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/b"}}
    bound(harness, key.id, **condition)
    harness.ask(asked)
    for name in ("alias/a", "alias/b"):
        harness.ask(words.CreateAlias(KeyRef(key.id), HERE, alias_name=name))
    refused(harness, asked, Forbidden)


def test_conditions_on_time_and_address(harness: Harness, later: Callable[[int], None]) -> None:
    key = made(harness)
    asked = words.Encrypt(KeyRef(key.id), HERE, plaintext=b"x")
    bound(harness, key.id, NotIpAddress={"aws:SourceIp": "10.0.0.0/8"})
    for inside in ("10.1.2.3", "::ffff:10.1.2.3"):
        harness.ask(asked, source=inside)
    for outside in ("11.1.2.3", "::1", None, "/run/socket"):
        with pytest.raises(Forbidden):
            harness.ask(asked, source=outside)
    for name, write in (("CurrentTime", lambda at: at.isoformat()), ("EpochTime", lambda at: str(at.timestamp()))):
        bound(harness, key.id, DateGreaterThan={f"aws:{name}": write(datetime.now(UTC) + timedelta(days=1))})
        harness.ask(asked)
    later(2)
    refused(harness, asked, Forbidden)


def test_a_condition_that_the_vault_cannot_evaluate_denies(harness: Harness) -> None:
    key = made(harness)
    bound(harness, key.id, Bool={"aws:SecureTransport": "false"})
    refused(harness, words.Encrypt(KeyRef(key.id), HERE, plaintext=b"x"), Forbidden)


def test_conditions_on_grants(harness: Harness) -> None:
    key, app = made(harness), HERE.principal_arn("app")
    asked = words.CreateGrant(
        KeyRef(key.id), HERE, grantee_principal=app, retiring_principal=app, operations=("Encrypt", "Decrypt")
    )
    for condition in (
        {"StringEquals": {"kms:GranteePrincipal": app}},
        {"StringEquals": {"kms:RetiringPrincipal": app}},
        {"ForAnyValue:StringEquals": {"kms:GrantOperations": "Decrypt"}},
    ):
        bound(harness, key.id, **condition)
        refused(harness, asked, Forbidden)
        harness.ask(words.ListGrants(KeyRef(key.id), HERE, grantee_principal=app))
    bound(harness, key.id, **{"ForAnyValue:StringEquals": {"kms:GrantOperations": "Sign"}})
    harness.ask(asked)


def moved(harness: Harness, source: str, to: str, **more: object) -> words.ReEncrypt:
    blob_of_source = sealed(harness, source)
    return words.ReEncrypt(KeyRef(source), HERE, destination_key_id=to, ciphertext_blob=blob_of_source, **more)  # type: ignore[arg-type]


def test_each_key_of_a_re_encryption_is_judged_by_what_is_said_of_it(harness: Harness) -> None:
    key, other = made(harness), made(harness, "RSA_2048")
    harness.ask(words.CreateAlias(KeyRef(key.id), HERE, alias_name="alias/from"))
    harness.ask(words.CreateAlias(KeyRef(other.id), HERE, alias_name="alias/to"))
    oaep = {"destination_encryption_algorithm": "RSAES_OAEP_SHA_256"}
    asked = moved(harness, "alias/from", "alias/to", **oaep)
    for target, condition in (
        (key, {"kms:RequestAlias": "alias/from"}),
        (key, {"kms:EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}),
        (other, {"kms:RequestAlias": "alias/to"}),
        (other, {"kms:EncryptionAlgorithm": "RSAES_OAEP_SHA_256"}),
    ):
        bound(harness, target.id, StringNotEquals=condition)
        harness.ask(asked)
        bound(harness, target.id, StringEquals=condition)
        refused(harness, asked, Forbidden)
        bound(harness, target.id, Null={"kms:KeySpec": "true"})


def test_whether_a_re_encryption_stays_with_its_key(harness: Harness) -> None:
    key, other = made(harness), made(harness)
    harness.ask(words.CreateAlias(KeyRef(key.id), HERE, alias_name="alias/same"))
    stays = [moved(harness, key.id, name) for name in (key.id, "alias/same")]
    leaves = moved(harness, key.id, other.id)
    bound(harness, key.id, Bool={"kms:ReEncryptOnSameKey": False})
    for asked in stays:
        harness.ask(asked)
    refused(harness, leaves, Forbidden)
    bound(harness, key.id, Bool={"kms:ReEncryptOnSameKey": True})
    harness.ask(leaves)
    for asked in stays:
        refused(harness, asked, Forbidden)
    bound(harness, key.id, Null={"kms:KeySpec": "true"})
    bound(harness, other.id, Bool={"kms:ReEncryptOnSameKey": False})
    refused(harness, leaves, Forbidden)
    refused(harness, structs.replace(leaves, destination_key_id="alias/none"), errors.DestinationNotFound)


# Partitions


@pytest.mark.parametrize(
    ("region", "partition"), [("us-gov-west-1", "aws-us-gov"), ("cn-north-1", "aws-cn"), ("us-west-2", "aws")]
)
def test_arns_are_of_their_regions_partition(harness: Harness, region: str, partition: str) -> None:
    place = AccountRegion("000000000000", region)
    root = f"arn:{partition}:iam::000000000000:root"
    statement = {"Effect": "Allow", "Principal": {"AWS": root}, "Action": "kms:*", "Resource": "*"}
    policy = json.dumps({"Statement": statement})
    key = harness.ask(words.CreateKey(place, multi_region=True, policy=policy))
    assert key.arn == f"arn:{partition}:kms:{region}:000000000000:key/{key.id}"
    harness.ask(words.DescribeKey(KeyRef(key.arn), place))
    other = key.arn.replace(f"arn:{partition}:", "arn:aws-iso:")
    refused(harness, words.DescribeKey(KeyRef(other), place), errors.InvalidArn)
    foreign = policy.replace(f"arn:{partition}:", "arn:aws-iso:")
    refused(harness, words.PutKeyPolicy(KeyRef(key.id), place, policy=foreign), errors.MalformedPolicy)
    assert root in harness.ask(words.GetKeyPolicy(KeyRef(harness.key().id), place)).policy
    _, token = harness.service("app", grant("*"))
    grantee = f"arn:{partition}:iam::000000000000:user/app"
    harness.ask(words.CreateGrant(KeyRef(key.id), place, grantee_principal=grantee, operations=("Decrypt",)))
    refused(harness, words.Encrypt(KeyRef(key.id), place, plaintext=b"x"), Forbidden, token)


def test_a_key_stays_in_its_partition(harness: Harness) -> None:
    key = made(harness, multi_region=True)
    asked = words.ReplicateKey(KeyRef(key.id), HERE, replica_region="cn-north-1")
    refused(harness, asked, errors.UnsupportedOperation)
    harness.ask(structs.replace(asked, replica_region="us-east-1"))
    regions = metadata(harness.ask(words.DescribeKey(KeyRef(key.id), THERE)))["MultiRegionConfiguration"]
    assert regions["PrimaryKey"] == {"Arn": HERE.arn(f"key/{key.id}"), "Region": HERE.region}
    assert regions["ReplicaKeys"] == [{"Arn": THERE.arn(f"key/{key.id}"), "Region": THERE.region}]


# Imported material


def test_wrappings_that_are_not_offered(harness: Harness) -> None:
    key = made(harness, origin="EXTERNAL")
    for algorithm, size in (("RSAES_PKCS1_V1_5", "RSA_2048"), ("RSAES_OAEP_SHA_256", "SM2")):
        asked = words.GetParametersForImport(KeyRef(key.id), HERE, wrapping_algorithm=algorithm, wrapping_key_spec=size)
        refused(harness, asked, errors.UnsupportedOperation)
    big = made(harness, "RSA_2048", "SIGN_VERIFY", origin="EXTERNAL")
    asked = words.GetParametersForImport(
        KeyRef(big.id), HERE, wrapping_algorithm="RSAES_OAEP_SHA_256", wrapping_key_spec="RSA_2048"
    )
    refused(harness, asked, errors.UnsupportedOperation)


def test_parameters_are_good_for_a_day(harness: Harness, later: Callable[[int], None]) -> None:
    key = made(harness, origin="EXTERNAL")
    asked = words.GetParametersForImport(
        KeyRef(key.id), HERE, wrapping_algorithm="RSAES_OAEP_SHA_256", wrapping_key_spec="RSA_2048"
    )
    parameters = harness.ask(asked)
    later(2)
    refused(harness, imported(key.id, parameters, bytes(range(32))), errors.ExpiredImportToken)


def test_times_of_material(harness: Harness, later: Callable[[int], None]) -> None:
    key = made(harness, origin="EXTERNAL")
    expiring: dict[str, Any] = {"expiration_model": "KEY_MATERIAL_EXPIRES"}
    for valid_to in (1, harness.ledger.now() + 366 * DAY):
        with pytest.raises(errors.Validation):
            bring(harness, key.id, bytes(range(32)), valid_to=valid_to, **expiring)
    with pytest.raises(errors.Validation):
        bring(harness, key.id, bytes(range(32)), valid_to=harness.ledger.now() + DAY)
    bring(harness, key.id, bytes(range(32)), valid_to=harness.ledger.now() + DAY, **expiring)
    old = sealed(harness, key.id)
    later(2)
    refused(harness, words.Decrypt(KeyRef(""), HERE, ciphertext_blob=old), errors.KeyUnavailable)
    assert harness.ask(words.DescribeKey(KeyRef(key.id), HERE)).state == "PendingImport"
    bring(harness, key.id, bytes(range(32)))
    assert harness.ask(words.Decrypt(KeyRef(""), HERE, ciphertext_blob=old)).plaintext == b"x"


def test_material_that_is_another(harness: Harness) -> None:
    key = made(harness, origin="EXTERNAL")
    with pytest.raises(errors.IncorrectKeyMaterial):
        bring(harness, key.id, bytes(range(32)), key_material_id="0" * 64)
    first = bring(harness, key.id, bytes(range(32)))
    with pytest.raises(errors.IncorrectKeyMaterial):
        bring(harness, key.id, bytes(range(32)), import_type="NEW_KEY_MATERIAL")
    refused(
        harness,
        words.DeleteImportedKeyMaterial(KeyRef(key.id), HERE, key_material_id="0" * 64),
        errors.IncorrectKeyMaterial,
    )
    second = bring(harness, key.id, bytes(range(1, 33)), import_type="NEW_KEY_MATERIAL")
    assert second.key_material_id != first.key_material_id
    bring(harness, key.id, bytes(range(1, 33)))  # what waits, again
    waiting = words.DeleteImportedKeyMaterial(KeyRef(key.id), HERE, key_material_id=second.key_material_id)
    assert harness.ask(waiting).key_material_id == second.key_material_id
    refused(harness, words.RotateKeyOnDemand(KeyRef(key.id), HERE), errors.KeyUnavailable)
    for _ in range(2):
        harness.ask(words.DeleteImportedKeyMaterial(KeyRef(key.id), HERE))
    mac = made(harness, "HMAC_256", "GENERATE_VERIFY_MAC", origin="EXTERNAL")
    bring(harness, mac.id, bytes(range(32)))
    with pytest.raises(errors.UnsupportedOperation):
        bring(harness, mac.id, bytes(range(1, 33)), import_type="NEW_KEY_MATERIAL")


def test_the_native_api_makes_no_material_for_it(harness: Harness) -> None:
    key = made(harness, origin="EXTERNAL")
    for request in (RotateKey(KeyRef(key.id)), UpdateKey(KeyRef(key.id), rotation_days=90)):
        with pytest.raises(KeyVaultError, match="imported"):
            harness.ask(request)


# Rotation and Regions


def test_automatic_rotation(harness: Harness, later: Callable[[int], None]) -> None:
    key = made(harness)
    for _ in range(2):
        harness.ask(words.EnableKeyRotation(KeyRef(key.id), HERE, rotation_period_in_days=90))
    later(91)
    harness.system(RotateDueKey(KeyRef(key.id)))
    (rotation,) = harness.ask(words.ListKeyRotations(KeyRef(key.id), HERE)).items
    assert rotation.rotation_type == "AUTOMATIC"


def test_regions(harness: Harness, later: Callable[[int], None]) -> None:
    key = made(harness, multi_region=True)
    policy = '{"Statement":{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}}'
    asked = words.UpdatePrimaryRegion(KeyRef(key.id), HERE, primary_region="us-east-1")
    assert "has no replica in that Region" in refused(harness, asked, errors.ReplicaNotFound).detail
    replica = harness.ask(words.ReplicateKey(KeyRef(key.id), HERE, replica_region="us-east-1", policy=policy))
    assert replica.facet["policy"] == policy
    harness.ask(words.CreateAlias(KeyRef(key.id), THERE, alias_name="alias/there"))
    harness.ask(words.ScheduleKeyDeletion(KeyRef(key.id), HERE, pending_window_in_days=7))
    harness.ask(words.ScheduleKeyDeletion(KeyRef(key.id), THERE, pending_window_in_days=7))
    harness.ask(words.CancelKeyDeletion(KeyRef(key.id), THERE))
    assert harness.ask(words.DescribeKey(KeyRef(key.id), HERE)).state == "PendingReplicaDeletion"
    harness.ask(words.ScheduleKeyDeletion(KeyRef(key.id), THERE, pending_window_in_days=7))
    later(8)
    refused(harness, words.DescribeKey(KeyRef(key.id), THERE), errors.KeyNotFound)
    assert harness.ask(words.DescribeKey(KeyRef(key.id), HERE)).state == "PendingDeletion"
    harness.ask(words.CreateAlias(KeyRef(harness.key().id), THERE, alias_name="alias/there"))
    later(16)
    harness.system(EraseDueKey(KeyRef(key.key.id)))
    refused(harness, words.DescribeKey(KeyRef(key.id), HERE), errors.KeyNotFound)


def test_rotation_on_demand_leaves_the_schedule(harness: Harness, later: Callable[[int], None]) -> None:
    key = KeyRef(made(harness).id)
    harness.ask(words.EnableKeyRotation(key, HERE, rotation_period_in_days=90))
    planned = harness.ask(words.GetKeyRotationStatus(key, HERE)).next_rotation_date
    later(30)
    harness.ask(words.RotateKeyOnDemand(key, HERE))
    assert harness.ask(words.GetKeyRotationStatus(key, HERE)).next_rotation_date == planned


def test_material_is_the_primarys(harness: Harness, later: Callable[[int], None]) -> None:
    key = made(harness, origin="EXTERNAL", multi_region=True)
    raw, other = bytes(range(32)), bytes(range(1, 33))
    brought = bring(harness, key.id, raw)
    harness.ask(words.ReplicateKey(KeyRef(key.id), HERE, replica_region="us-east-1"))
    assert bring(harness, key.id, raw, place=THERE).key_material_id == brought.key_material_id
    until = harness.ledger.now() + DAY
    material: bytes
    more: dict[str, Any]
    for material, more in (
        (other, {}),
        (other, {"import_type": "NEW_KEY_MATERIAL"}),
        (raw, {"import_type": "NEW_KEY_MATERIAL"}),
        (raw, {"expiration_model": "KEY_MATERIAL_EXPIRES", "valid_to": until}),
        (raw, {"key_material_description": "mine"}),
    ):
        with pytest.raises(errors.UnsupportedOperation):
            bring(harness, key.id, material, place=THERE, **more)
    gone = words.DeleteImportedKeyMaterial(KeyRef(key.id), THERE)
    refused(harness, gone, errors.UnsupportedOperation)
    sealed(harness, key.id)
    harness.ask(structs.replace(gone, place=HERE))
    with pytest.raises(errors.UnsupportedOperation):
        bring(harness, key.id, raw, place=THERE)
    bring(harness, key.id, raw, expiration_model="KEY_MATERIAL_EXPIRES", valid_to=until)
    bring(harness, key.id, raw, place=THERE, expiration_model="KEY_MATERIAL_EXPIRES", valid_to=until)
    later(2)
    with pytest.raises(KeyVaultError):
        bring(harness, key.id, raw, place=THERE, expiration_model="KEY_MATERIAL_EXPIRES", valid_to=until)


def test_a_key_without_material_waits_for_it_disabled_or_not(harness: Harness) -> None:
    key = made(harness, origin="EXTERNAL")

    def state() -> str:
        shown: str = harness.ask(words.DescribeKey(KeyRef(key.id), HERE)).state
        return shown

    bring(harness, key.id, bytes(range(32)))
    harness.ask(words.DisableKey(KeyRef(key.id), HERE))
    assert state() == "Disabled"
    harness.ask(words.DeleteImportedKeyMaterial(KeyRef(key.id), HERE))
    assert state() == "PendingImport"
    refused(harness, words.EnableKey(KeyRef(key.id), HERE), errors.KeyUnavailable)
    harness.ask(words.ScheduleKeyDeletion(KeyRef(key.id), HERE))
    assert state() == "PendingDeletion"
    harness.ask(words.CancelKeyDeletion(KeyRef(key.id), HERE))
    assert state() == "PendingImport"
    bring(harness, key.id, bytes(range(32)))
    assert state() == "Disabled"
    harness.ask(RevokeKey(KeyRef(key.key.id)))
    assert state() == "Unavailable"


def test_the_primary_moves_if_both_policies_allow_it(harness: Harness) -> None:
    key = made(harness, multi_region=True)
    harness.ask(words.ReplicateKey(KeyRef(key.id), HERE, replica_region="us-east-1"))
    asked = words.UpdatePrimaryRegion(KeyRef(key.id), HERE, primary_region="us-east-1")
    denial = denying(StringEquals={"kms:PrimaryRegion": "us-east-1"})
    harness.ask(words.PutKeyPolicy(KeyRef(key.id), THERE, policy=denial))
    refused(harness, asked, Forbidden)
    harness.ask(words.PutKeyPolicy(KeyRef(key.id), THERE, policy=denying(StringEquals={"kms:PrimaryRegion": "x"})))
    harness.ask(asked)
    assert harness.ask(words.DescribeKey(KeyRef(key.id), HERE)).is_replica


def test_a_replica_is_answered_with_its_policy(harness: Harness) -> None:
    key = made(harness, multi_region=True)
    asked = words.ReplicateKey(KeyRef(key.id), HERE, replica_region="us-east-1")
    answer = write_result(asked, harness.ask(asked))
    assert answer is not None
    assert answer["ReplicaPolicy"] == harness.ask(words.GetKeyPolicy(KeyRef(key.id), THERE)).policy


@pytest.fixture
def replicated(harness: Harness) -> View:
    """A multi-Region key with a replica in each of two other Regions."""
    key = made(harness, multi_region=True)
    for place in (THERE, ELSEWHERE):
        harness.ask(words.ReplicateKey(KeyRef(key.id), HERE, replica_region=place.region))
    return key


def shown(harness: Harness, key: View, place: AccountRegion) -> str:
    state: str = harness.ask(words.DescribeKey(KeyRef(key.id), place)).state
    return state


def used(harness: Harness, key: View, place: AccountRegion) -> None:
    harness.ask(words.Encrypt(KeyRef(key.id), place, plaintext=b"x"))


def test_replicas_outlive_the_wait_of_their_primary(harness: Harness, replicated: View) -> None:
    key = KeyRef(replicated.id)
    old = sealed(harness, replicated.id)
    harness.ask(words.EnableKeyRotation(key, HERE, rotation_period_in_days=90))
    harness.ask(words.ScheduleKeyDeletion(key, HERE, pending_window_in_days=7))
    assert shown(harness, replicated, HERE) == "PendingReplicaDeletion"
    refused(harness, words.Encrypt(key, HERE, plaintext=b"x"), errors.KeyUnavailable)
    used(harness, replicated, THERE)
    assert harness.ask(words.Decrypt(KeyRef(""), THERE, ciphertext_blob=old)).plaintext == b"x"
    # The vault's own interface goes by the record, which is the primary's.
    native = KeyRef(replicated.key.id)
    harness.ask(UpdateKey(native, rotation_days=1))
    record = harness.ledger.snapshot().find_key(native)
    assert record is not None
    assert record.rotate_at is not None
    assert not _rotation_due(record, record.rotate_at), "it would be refused, with an entry, again and again"
    for request in (EncryptNatively(native, plaintext=b"x"), RotateKey(native)):
        assert "replicas" in harness.refusal(request, InvalidState).detail
    harness.ask(words.CancelKeyDeletion(key, HERE))
    assert shown(harness, replicated, HERE) == "Disabled"
    harness.ask(words.EnableKey(key, HERE))
    used(harness, replicated, HERE)
    assert harness.ask(words.GetKeyRotationStatus(key, HERE)).next_rotation_date is not None


def test_what_stops_the_record_stops_the_replicas_of_a_primary_that_waits(harness: Harness, replicated: View) -> None:
    key, native = KeyRef(replicated.id), KeyRef(replicated.key.id)
    harness.ask(words.ScheduleKeyDeletion(key, HERE, pending_window_in_days=7))
    asked = words.Encrypt(key, THERE, plaintext=b"x")
    harness.ask(DisableKey(native))
    refused(harness, asked, errors.Disabled)
    harness.ask(EnableKey(native))
    harness.ask(asked)
    harness.refusal(EncryptNatively(native, plaintext=b"x"), InvalidState)
    harness.ask(DestroyKey(native, days=7))
    refused(harness, asked, errors.KeyUnavailable)
    harness.ask(RestoreKey(native))
    refused(harness, asked, errors.Disabled)
    harness.ask(RevokeKey(native))
    refused(harness, asked, errors.KeyUnavailable)
    harness.ask(words.CancelKeyDeletion(key, HERE))
    assert harness.ask(ReadKey(native)).status == "REVOKED"


@pytest.mark.parametrize("status", ["ACTIVE", "DISABLED", "REVOKED"])
def test_a_primary_waits_again_as_it_did(harness: Harness, replicated: View, status: str) -> None:
    key, native = KeyRef(replicated.id), KeyRef(replicated.key.id)
    if status != "ACTIVE":
        harness.ask(DisableKey(native) if status == "DISABLED" else RevokeKey(native))
    for place in (HERE, THERE, ELSEWHERE):
        harness.ask(words.ScheduleKeyDeletion(key, place, pending_window_in_days=7))
    assert shown(harness, replicated, HERE) == "PendingDeletion"
    harness.ask(words.CancelKeyDeletion(key, THERE))
    assert shown(harness, replicated, HERE) == "PendingReplicaDeletion"
    assert harness.ask(ReadKey(native)).status == status
    assert shown(harness, replicated, THERE) == ("Unavailable" if status == "REVOKED" else "Disabled")
    if status == "ACTIVE":
        harness.ask(words.EnableKey(key, THERE))
        used(harness, replicated, THERE)


def test_a_replica_calls_no_other_destruction_off(harness: Harness, replicated: View) -> None:
    key, native = KeyRef(replicated.id), KeyRef(replicated.key.id)
    for place in (HERE, THERE):
        harness.ask(words.ScheduleKeyDeletion(key, place, pending_window_in_days=7))
    harness.ask(DestroyKey(native, days=30))
    harness.ask(words.CancelKeyDeletion(key, THERE))
    assert harness.ask(ReadKey(native)).status == "PENDING_DESTRUCTION"


# Access keys


def test_access_keys(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_keys, "MAX_ACCESS_KEYS", 2)
    harness.service("app")
    first, second = (harness.ask(CreateAccessKey("app")) for _ in range(2))
    refused(harness, CreateAccessKey("app"), LimitExceeded)
    refused(harness, CreateAccessKey("nobody"), NotFound)
    refused(harness, RevokeAccessKey("app", "AKIANOBODYNOBODYNOBO"), NotFound)
    assert [one.id for one in harness.ask(ListAccessKeys("app")).items] == [first.access_key_id, second.access_key_id]
    (left,) = harness.ask(RevokeAccessKey("app", first.access_key_id)).items
    assert left.id == second.access_key_id
    assert first.secret_access_key.encode() not in harness.files()
    assert harness.last.draft.result is Result.SUCCESS
    assert "secret" not in repr(replace(first))
    harness.reopen()
    assert [one.id for one in harness.ask(ListAccessKeys("app")).items] == [second.access_key_id]


def test_grants_are_for_what_the_key_can_do(harness: Harness) -> None:
    someone = HERE.principal_arn("app")
    for spec, usage, fits, not_so in (
        ("HMAC_256", "GENERATE_VERIFY_MAC", "GenerateMac", "GetPublicKey"),
        ("ECC_NIST_P256", "SIGN_VERIFY", "GetPublicKey", "GenerateMac"),
        ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "GenerateDataKey", "GetPublicKey"),
    ):
        key = KeyRef(made(harness, spec, usage).id)
        asked = words.CreateGrant(key, HERE, grantee_principal=someone, operations=(not_so,))
        refused(harness, asked, errors.Validation)
        harness.ask(structs.replace(asked, operations=(fits,)))


def test_a_grant_for_one_context_is_for_no_other(harness: Harness) -> None:
    key = KeyRef(made(harness).id)
    _, token = harness.service("app", grant(key))
    bound = {"EncryptionContextEquals": {"file": "a"}}
    harness.ask(
        words.CreateGrant(
            key, HERE, grantee_principal=HERE.principal_arn("app"), operations=("Encrypt",), constraints=bound
        )
    )
    asked = words.Encrypt(key, HERE, plaintext=b"x", context={"file": "a"})
    harness.ask(asked, token)
    for other in ({"file": "b"}, {"file": "a", "more": "b"}, None):
        refused(harness, structs.replace(asked, context=other), Forbidden, token)
