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
from keyvault_lite.dialects.aws.model import Place
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
from tests.house import DAY, House, grant

HERE = Place("000000000000", "eu-central-1")
THERE = Place("000000000000", "us-east-1")
ELSEWHERE = Place("000000000000", "us-west-2")
DOES_NOT_EXPIRE = "KEY_MATERIAL_DOES_NOT_EXPIRE"


def refused(house: House, request: Any, kind: type[KeyVaultError], token: str | None = "") -> KeyVaultError:  # noqa: ANN401
    with pytest.raises(kind) as caught:
        house.ask(request, token)
    assert type(caught.value) is kind
    return caught.value


def made(house: House, spec: str = "SYMMETRIC_DEFAULT", usage: str = "ENCRYPT_DECRYPT", **more: object) -> View:
    view: View = house.ask(words.CreateKey(HERE, key_spec=spec, key_usage=usage, **more))  # type: ignore[arg-type]
    return view


def sealed(house: House, key: str, **more: object) -> bytes:
    reply: bytes = house.ask(words.Encrypt(KeyRef(key), HERE, plaintext=b"x", **more)).ciphertext_blob  # type: ignore[arg-type]
    return reply


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the vault believe that days have passed."""
    now = Ledger.now

    def shift(days: int) -> None:
        monkeypatch.setattr(Ledger, "now", lambda ledger: now(ledger) + days * DAY)

    return shift


def bring(house: House, key: str, raw: bytes, place: Place = HERE, **more: Any) -> Any:  # noqa: ANN401
    asked = words.GetParametersForImport(
        KeyRef(key), place, wrapping_algorithm="RSAES_OAEP_SHA_256", wrapping_key_spec="RSA_2048"
    )
    parameters = house.ask(asked)
    return house.ask(structs.replace(imported(key, parameters, raw, **more), place=place))


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


def test_a_version_that_is_not_there(house: House) -> None:
    key = made(house)
    encrypted_dek, ciphertext = blob.split(sealed(house, key.id))
    forged = encrypted_dek[:22] + (99).to_bytes(4, "big") + encrypted_dek[26:]
    refused(house, words.Decrypt(KeyRef(""), HERE, ciphertext_blob=blob.join(forged, ciphertext)), InvalidCiphertext)


def test_a_version_revoked_natively(house: House) -> None:
    key = made(house)
    old = sealed(house, key.id)
    house.ask(RotateKey(KeyRef(key.id)))
    house.ask(RevokeKey(KeyRef(key.id), version=1))
    refused(house, words.Decrypt(KeyRef(""), HERE, ciphertext_blob=old), errors.KeyUnavailable)
    house.ask(RevokeKey(KeyRef(key.id)))
    assert (
        "is unavailable"
        in refused(house, words.Encrypt(KeyRef(key.id), HERE, plaintext=b"x"), errors.KeyUnavailable).detail
    )


def test_modifiers_of_a_dry_run(house: House) -> None:
    key = made(house)
    ignoring = words.Decrypt(KeyRef(key.id), HERE, dry_run_modifiers=("IGNORE_CIPHERTEXT",))
    refused(house, ignoring, errors.Validation)
    request = words.Decrypt(
        KeyRef(""), HERE, ciphertext_blob=sealed(house, key.id), dry_run=True, dry_run_modifiers=("IGNORE_CIPHERTEXT",)
    )
    refused(house, request, errors.Validation)
    nameless = words.Decrypt(KeyRef(""), HERE, dry_run=True, dry_run_modifiers=("IGNORE_CIPHERTEXT",))
    refused(house, nameless, errors.Validation)
    refused(house, words.Decrypt(KeyRef(""), HERE), errors.Validation)
    refused(house, words.ReEncrypt(KeyRef(""), HERE, destination_key_id=key.id), errors.Validation)
    refused(house, words.Decrypt(KeyRef(""), HERE, ciphertext_blob=b"x"), InvalidCiphertext)


def test_message_types_of_curves(house: House) -> None:
    key = made(house, "ECC_NIST_P256", "SIGN_VERIFY")
    request = words.Sign(
        KeyRef(key.id), HERE, message=bytes(64), message_type="EXTERNAL_MU", signing_algorithm="ECDSA_SHA_256"
    )
    refused(house, request, errors.Validation)


# Names


@pytest.mark.parametrize("name", ["arn:aws:kms:eu-central-1:000000000000:thing/x", "arn:nonsense"])
def test_arns_that_are_none(house: House, name: str) -> None:
    refused(house, words.DescribeKey(KeyRef(name), HERE), errors.InvalidArn)
    _, token = house.service("nobody")
    refused(house, words.DescribeKey(KeyRef(name), HERE), Hidden, token)
    _, token = house.service("all", grant("*"))
    refused(house, words.DescribeKey(KeyRef(name), HERE), errors.InvalidArn, token)


def test_an_alias_moves_to_where_it_is(house: House) -> None:
    key = made(house)
    house.ask(words.CreateAlias(KeyRef(key.id), HERE, alias_name="alias/a"))
    house.ask(words.UpdateAlias(KeyRef(key.id), HERE, alias_name="alias/a"))
    assert house.ask(ReadKey(KeyRef("aws:eu-central-1/alias/a"))).aliases == ("aws:eu-central-1/alias/a",)
    refused(house, words.DeleteAlias(KeyRef(key.id), HERE), errors.Validation)
    refused(house, words.UntagResource(KeyRef(key.id), HERE, tag_keys=("a", "a")), errors.InvalidTag)


def test_names_of_aliases(house: House) -> None:
    key = made(house)
    asked = words.CreateAlias(KeyRef(key.id), HERE, alias_name="alias/a:b")
    refused(house, asked, errors.Validation)
    refused(house, words.UpdateAlias(KeyRef(key.id), HERE, alias_name="alias/none"), errors.AliasNotFound)


def test_an_alias_is_no_id(house: House) -> None:
    key = made(house)
    house.ask(words.CreateAlias(KeyRef(key.id), HERE, alias_name="alias/a"))
    alias = KeyRef("alias/a")
    refused(house, words.TagResource(alias, HERE, tags=(("a", "b"),)), errors.InvalidKeyId)
    _, token = house.service("stranger")
    for request in (
        words.GetKeyRotationStatus(alias, HERE),
        words.ListAliases(HERE, key="alias/a"),
        words.RetireGrant(HERE, key="alias/a", grant_id="none"),
    ):
        refused(house, request, errors.InvalidKeyId)
        refused(house, request, Hidden, token)


def test_pages_of_aliases(house: House) -> None:
    key = KeyRef(made(house).id)
    for number in range(51):
        house.ask(words.CreateAlias(key, HERE, alias_name=f"alias/{number:02}"))
    assert [len(house.ask(words.ListAliases(HERE, limit=limit)).items) for limit in (None, 100, 1)] == [50, 51, 1]
    refused(house, words.ListAliases(HERE, limit=101), errors.Validation)


def test_there_are_no_key_stores(house: House) -> None:
    assert house.ask(words.DescribeCustomKeyStores(HERE)).items == ()
    for named in ({"custom_key_store_id": "cks-1"}, {"custom_key_store_name": "store"}):
        refused(house, words.DescribeCustomKeyStores(HERE, **named), errors.CustomKeyStoreNotFound)  # type: ignore[arg-type]


def test_the_request_of_the_last_use_is_written_as_answers_write_it(house: House) -> None:
    key = made(house)
    sealed(house, key.id)
    request_id = house.last.draft.request_id
    usage = house.ask(words.GetKeyLastUsage(KeyRef(key.id), HERE)).key_last_usage
    assert usage.kms_request_id == str(UUID(bytes=request_id))


def test_a_policy_about_an_alias(house: House) -> None:
    policy = (
        '{"Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"},'
        '{"Effect":"Deny","Principal":"*","Action":"kms:Encrypt","Resource":"*",'
        '"Condition":{"StringNotEquals":{"kms:RequestAlias":"alias/only"}}}]}'
    )
    key = made(house, policy=policy)
    house.ask(words.CreateAlias(KeyRef(key.id), HERE, alias_name="alias/only"))
    refused(house, words.Encrypt(KeyRef(key.id), HERE, plaintext=b"x"), Forbidden)
    sealed(house, "alias/only")


def test_aliases_go_with_their_key(house: House, later: Callable[[int], None]) -> None:
    key = made(house)
    house.ask(words.CreateAlias(KeyRef(key.id), HERE, alias_name="alias/gone"))
    house.ask(words.ScheduleKeyDeletion(KeyRef(key.id), HERE, pending_window_in_days=7))
    later(8)
    refused(house, words.DescribeKey(KeyRef(key.id), HERE), errors.KeyNotFound)
    house.system(EraseDueKey(KeyRef(key.key.id)))
    refused(house, words.DescribeKey(KeyRef("alias/gone"), HERE), errors.KeyNotFound)
    house.ask(words.CreateAlias(KeyRef(made(house).id), HERE, alias_name="alias/gone"))
    assert house.ledger.verify().valid


# Grants


def test_grants_that_cannot_be(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    key = made(house)
    someone = "arn:aws:iam::000000000000:user/someone"
    both = words.CreateGrant(
        KeyRef(key.id),
        HERE,
        grantee_principal=someone,
        grantee_service_principal="s3.amazonaws.com",
        operations=("Encrypt",),
    )
    refused(house, both, errors.Validation)
    refused(house, words.CreateGrant(KeyRef(key.id), HERE, operations=("Encrypt",)), errors.Validation)
    refused(house, words.CreateGrant(KeyRef(key.id), HERE, grantee_principal=someone), errors.Validation)
    for operations in (("Sign",), ("Encrypt", "GenerateMac"), ("GetPublicKey",)):
        refused(
            house,
            words.CreateGrant(KeyRef(key.id), HERE, grantee_principal=someone, operations=operations),
            errors.Validation,
        )
    long = {"EncryptionContextSubset": {"a": "x" * 4000}}
    kept = words.CreateGrant(KeyRef(key.id), HERE, grantee_principal=someone, operations=("Encrypt",), constraints=long)
    with monkeypatch.context() as small:
        small.setattr(grants, "MAX_KEPT", 4000)
        refused(house, kept, LimitExceeded)
        small.setattr(grants, "MAX_KEPT", 5000)
        first = house.ask(kept)
        refused(house, kept, LimitExceeded)
        house.ask(words.RevokeGrant(KeyRef(key.id), HERE, grant_id=first.grant_id))
    monkeypatch.setattr(grants, "MAX_GRANTS", 1)
    good = words.CreateGrant(KeyRef(key.id), HERE, grantee_principal=someone, operations=("Encrypt",))
    made_grant = house.ask(good)
    refused(house, good, LimitExceeded)
    assert house.ask(words.ListGrants(KeyRef(key.id), HERE, grant_id=made_grant.grant_id)).items
    refused(house, words.ListRetirableGrants(HERE), errors.Validation)
    refused(house, words.RetireGrant(HERE, grant_token=made_grant.grant_token, key=key.id), errors.Validation)
    refused(house, words.RetireGrant(HERE, key=key.id, grant_id="none"), errors.InvalidGrantId)
    _, token = house.service("bystander", grant(key.id))
    refused(house, words.RetireGrant(HERE, key=key.id, grant_id=made_grant.grant_id), Forbidden, token)
    _, token = house.service("outsider")
    refused(house, words.RetireGrant(HERE, key=key.id, grant_id=made_grant.grant_id), Hidden, token)


def test_grantees_are_principals(house: House) -> None:
    key = made(house)
    asked = words.CreateGrant(KeyRef(key.id), HERE, operations=("Encrypt",))
    good = HERE.principal_arn("app")
    for bad in (
        "app",
        "000000000000",
        "arn:aws:s3:::bucket",
        "arn:aws-cn:iam::000000000000:user/app",
        "arn:aws:iam::1:x",
    ):
        refused(house, structs.replace(asked, grantee_principal=bad), errors.InvalidArn)
        refused(house, structs.replace(asked, grantee_principal=good, retiring_principal=bad), errors.InvalidArn)
    for one in (good, HERE.root_arn, "arn:aws:sts::000000000000:assumed-role/a/b"):
        house.ask(structs.replace(asked, grantee_principal=one, retiring_principal=one))


def test_grants_are_made_on_enabled_keys(house: House) -> None:
    asked = words.CreateGrant(KeyRef(""), HERE, grantee_principal=HERE.principal_arn("app"), operations=("Encrypt",))
    disabled, empty = KeyRef(made(house).id), KeyRef(made(house, origin="EXTERNAL").id)
    house.ask(words.DisableKey(disabled, HERE))
    refused(house, structs.replace(asked, key=disabled), errors.Disabled)
    refused(house, structs.replace(asked, key=empty), errors.KeyUnavailable)


def test_who_may_retire_a_grant_needs_no_other(house: House) -> None:
    key = made(house)
    _, retiring = house.service("retiring")
    _, grantee = house.service("grantee")
    _, stranger = house.service("stranger")
    app = HERE.principal_arn("grantee")
    asked = words.CreateGrant(KeyRef(key.id), HERE, grantee_principal=app, operations=("Encrypt",))
    for wanted, by in (
        (structs.replace(asked, retiring_principal=HERE.principal_arn("retiring")), retiring),
        (structs.replace(asked, operations=("RetireGrant", "Encrypt")), grantee),
    ):
        retire = words.RetireGrant(HERE, key=key.id, grant_id=house.ask(wanted).grant_id)
        refused(house, retire, Hidden, stranger)
        refused(house, structs.replace(retire, grant_id="none"), Hidden, by)
        other = grantee if by is retiring else retiring
        refused(house, retire, Hidden, other)
        refused(house, structs.replace(retire, dry_run=True), errors.DryRun, by)
        house.ask(retire, by)
        refused(house, retire, Hidden, by)
    assert not house.ask(words.ListGrants(KeyRef(key.id), HERE)).items


def test_a_grant_for_a_source_applies_to_nobody_here(house: House) -> None:
    key = made(house)
    _, token = house.service("app", grant(key.id))
    house.ask(
        words.CreateGrant(
            KeyRef(key.id),
            HERE,
            grantee_principal=HERE.principal_arn("app"),
            operations=("Encrypt",),
            constraints={"SourceArn": "arn:aws:s3:eu-central-1:000000000000:bucket"},
        )
    )
    refused(house, words.Encrypt(KeyRef(key.id), HERE, plaintext=b"x"), Forbidden, token)


def test_a_token_is_good_from_every_region(house: House) -> None:
    place = Place("000000000000", "cn-north-1")
    key = house.ask(words.CreateKey(place))
    _, token = house.service("app", grant(key.id))
    app = place.principal_arn("app")
    asked = words.CreateGrant(
        KeyRef(key.id), place, grantee_principal=app, retiring_principal=app, operations=("Decrypt",)
    )
    house.ask(words.RetireGrant(HERE, grant_token=house.ask(asked).grant_token), token)
    assert not house.ask(words.ListGrants(KeyRef(key.id), place)).items


def test_a_token_of_a_grant_that_never_was(house: House) -> None:
    note = house.vault.keyring.seal_note("GRANT", b'["0f8fad5b-d9cb-469f-a165-70867728950e","eu-central-1","x"]')
    token = b64encode(note).decode()
    refused(house, words.RetireGrant(HERE, grant_token=token), errors.InvalidGrantToken)


# Conditions of policies


def denying(**condition: object) -> str:
    """A policy that denies what is done with the key where a condition holds."""
    statements = (
        {"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"},
        {"Effect": "Deny", "Principal": "*", "Action": "kms:*", "Resource": "*", "Condition": condition},
    )
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def bound(house: House, key: str, **condition: object) -> None:
    bypass = {"bypass_policy_lockout_safety_check": True}
    house.ask(words.PutKeyPolicy(KeyRef(key), HERE, policy=denying(**condition), **bypass))  # type: ignore[arg-type]


def test_conditions_on_tags_and_aliases(house: House) -> None:
    key = made(house, tags=(("Stage", "prod"), ("stage", "test")))
    asked = words.Encrypt(KeyRef(key.id), HERE, plaintext=b"x")
    for stage in ("prod", "test"):
        bound(house, key.id, StringEquals={"aws:ResourceTag/Stage": stage})
        refused(house, asked, Forbidden)
    bound(house, key.id, StringEquals={"aws:ResourceTag/Stage": "other"})
    house.ask(asked)
    condition = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/b"}}
    bound(house, key.id, **condition)
    house.ask(asked)
    for name in ("alias/a", "alias/b"):
        house.ask(words.CreateAlias(KeyRef(key.id), HERE, alias_name=name))
    refused(house, asked, Forbidden)


def test_conditions_on_time_and_address(house: House, later: Callable[[int], None]) -> None:
    key = made(house)
    asked = words.Encrypt(KeyRef(key.id), HERE, plaintext=b"x")
    bound(house, key.id, NotIpAddress={"aws:SourceIp": "10.0.0.0/8"})
    for inside in ("10.1.2.3", "::ffff:10.1.2.3"):
        house.ask(asked, source=inside)
    for outside in ("11.1.2.3", "::1", None, "/run/socket"):
        with pytest.raises(Forbidden):
            house.ask(asked, source=outside)
    for name, write in (("CurrentTime", lambda at: at.isoformat()), ("EpochTime", lambda at: str(at.timestamp()))):
        bound(house, key.id, DateGreaterThan={f"aws:{name}": write(datetime.now(UTC) + timedelta(days=1))})
        house.ask(asked)
    later(2)
    refused(house, asked, Forbidden)


def test_a_condition_that_the_vault_cannot_evaluate_denies(house: House) -> None:
    key = made(house)
    bound(house, key.id, Bool={"aws:SecureTransport": "false"})
    refused(house, words.Encrypt(KeyRef(key.id), HERE, plaintext=b"x"), Forbidden)


def test_conditions_on_grants(house: House) -> None:
    key, app = made(house), HERE.principal_arn("app")
    asked = words.CreateGrant(
        KeyRef(key.id), HERE, grantee_principal=app, retiring_principal=app, operations=("Encrypt", "Decrypt")
    )
    for condition in (
        {"StringEquals": {"kms:GranteePrincipal": app}},
        {"StringEquals": {"kms:RetiringPrincipal": app}},
        {"ForAnyValue:StringEquals": {"kms:GrantOperations": "Decrypt"}},
    ):
        bound(house, key.id, **condition)
        refused(house, asked, Forbidden)
        house.ask(words.ListGrants(KeyRef(key.id), HERE, grantee_principal=app))
    bound(house, key.id, **{"ForAnyValue:StringEquals": {"kms:GrantOperations": "Sign"}})
    house.ask(asked)


def moved(house: House, source: str, to: str, **more: object) -> words.ReEncrypt:
    blob_of_source = sealed(house, source)
    return words.ReEncrypt(KeyRef(source), HERE, destination_key_id=to, ciphertext_blob=blob_of_source, **more)  # type: ignore[arg-type]


def test_each_key_of_a_re_encryption_is_judged_by_what_is_said_of_it(house: House) -> None:
    key, other = made(house), made(house, "RSA_2048")
    house.ask(words.CreateAlias(KeyRef(key.id), HERE, alias_name="alias/from"))
    house.ask(words.CreateAlias(KeyRef(other.id), HERE, alias_name="alias/to"))
    oaep = {"destination_encryption_algorithm": "RSAES_OAEP_SHA_256"}
    asked = moved(house, "alias/from", "alias/to", **oaep)
    for target, condition in (
        (key, {"kms:RequestAlias": "alias/from"}),
        (key, {"kms:EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}),
        (other, {"kms:RequestAlias": "alias/to"}),
        (other, {"kms:EncryptionAlgorithm": "RSAES_OAEP_SHA_256"}),
    ):
        bound(house, target.id, StringNotEquals=condition)
        house.ask(asked)
        bound(house, target.id, StringEquals=condition)
        refused(house, asked, Forbidden)
        bound(house, target.id, Null={"kms:KeySpec": "true"})


def test_whether_a_re_encryption_stays_with_its_key(house: House) -> None:
    key, other = made(house), made(house)
    house.ask(words.CreateAlias(KeyRef(key.id), HERE, alias_name="alias/same"))
    stays = [moved(house, key.id, name) for name in (key.id, "alias/same")]
    leaves = moved(house, key.id, other.id)
    bound(house, key.id, Bool={"kms:ReEncryptOnSameKey": False})
    for asked in stays:
        house.ask(asked)
    refused(house, leaves, Forbidden)
    bound(house, key.id, Bool={"kms:ReEncryptOnSameKey": True})
    house.ask(leaves)
    for asked in stays:
        refused(house, asked, Forbidden)
    bound(house, key.id, Null={"kms:KeySpec": "true"})
    bound(house, other.id, Bool={"kms:ReEncryptOnSameKey": False})
    refused(house, leaves, Forbidden)
    refused(house, structs.replace(leaves, destination_key_id="alias/none"), errors.DestinationNotFound)


# Partitions


@pytest.mark.parametrize(
    ("region", "partition"), [("us-gov-west-1", "aws-us-gov"), ("cn-north-1", "aws-cn"), ("us-west-2", "aws")]
)
def test_arns_are_of_their_regions_partition(house: House, region: str, partition: str) -> None:
    place = Place("000000000000", region)
    root = f"arn:{partition}:iam::000000000000:root"
    statement = {"Effect": "Allow", "Principal": {"AWS": root}, "Action": "kms:*", "Resource": "*"}
    policy = json.dumps({"Statement": statement})
    key = house.ask(words.CreateKey(place, multi_region=True, policy=policy))
    assert key.arn == f"arn:{partition}:kms:{region}:000000000000:key/{key.id}"
    house.ask(words.DescribeKey(KeyRef(key.arn), place))
    other = key.arn.replace(f"arn:{partition}:", "arn:aws-iso:")
    refused(house, words.DescribeKey(KeyRef(other), place), errors.InvalidArn)
    foreign = policy.replace(f"arn:{partition}:", "arn:aws-iso:")
    refused(house, words.PutKeyPolicy(KeyRef(key.id), place, policy=foreign), errors.MalformedPolicy)
    assert root in house.ask(words.GetKeyPolicy(KeyRef(house.key().id), place)).policy
    _, token = house.service("app", grant("*"))
    grantee = f"arn:{partition}:iam::000000000000:user/app"
    house.ask(words.CreateGrant(KeyRef(key.id), place, grantee_principal=grantee, operations=("Decrypt",)))
    refused(house, words.Encrypt(KeyRef(key.id), place, plaintext=b"x"), Forbidden, token)


def test_a_key_stays_in_its_partition(house: House) -> None:
    key = made(house, multi_region=True)
    asked = words.ReplicateKey(KeyRef(key.id), HERE, replica_region="cn-north-1")
    refused(house, asked, errors.UnsupportedOperation)
    house.ask(structs.replace(asked, replica_region="us-east-1"))
    regions = metadata(house.ask(words.DescribeKey(KeyRef(key.id), THERE)))["MultiRegionConfiguration"]
    assert regions["PrimaryKey"] == {"Arn": HERE.arn(f"key/{key.id}"), "Region": HERE.region}
    assert regions["ReplicaKeys"] == [{"Arn": THERE.arn(f"key/{key.id}"), "Region": THERE.region}]


# Imported material


def test_wrappings_that_are_not_offered(house: House) -> None:
    key = made(house, origin="EXTERNAL")
    for algorithm, size in (("RSAES_PKCS1_V1_5", "RSA_2048"), ("RSAES_OAEP_SHA_256", "SM2")):
        asked = words.GetParametersForImport(KeyRef(key.id), HERE, wrapping_algorithm=algorithm, wrapping_key_spec=size)
        refused(house, asked, errors.UnsupportedOperation)
    big = made(house, "RSA_2048", "SIGN_VERIFY", origin="EXTERNAL")
    asked = words.GetParametersForImport(
        KeyRef(big.id), HERE, wrapping_algorithm="RSAES_OAEP_SHA_256", wrapping_key_spec="RSA_2048"
    )
    refused(house, asked, errors.UnsupportedOperation)


def test_parameters_are_good_for_a_day(house: House, later: Callable[[int], None]) -> None:
    key = made(house, origin="EXTERNAL")
    asked = words.GetParametersForImport(
        KeyRef(key.id), HERE, wrapping_algorithm="RSAES_OAEP_SHA_256", wrapping_key_spec="RSA_2048"
    )
    parameters = house.ask(asked)
    later(2)
    refused(house, imported(key.id, parameters, bytes(range(32))), errors.ExpiredImportToken)


def test_times_of_material(house: House, later: Callable[[int], None]) -> None:
    key = made(house, origin="EXTERNAL")
    expiring: dict[str, Any] = {"expiration_model": "KEY_MATERIAL_EXPIRES"}
    for valid_to in (1, house.ledger.now() + 366 * DAY):
        with pytest.raises(errors.Validation):
            bring(house, key.id, bytes(range(32)), valid_to=valid_to, **expiring)
    with pytest.raises(errors.Validation):
        bring(house, key.id, bytes(range(32)), valid_to=house.ledger.now() + DAY)
    bring(house, key.id, bytes(range(32)), valid_to=house.ledger.now() + DAY, **expiring)
    old = sealed(house, key.id)
    later(2)
    refused(house, words.Decrypt(KeyRef(""), HERE, ciphertext_blob=old), errors.KeyUnavailable)
    assert house.ask(words.DescribeKey(KeyRef(key.id), HERE)).state == "PendingImport"
    bring(house, key.id, bytes(range(32)))
    assert house.ask(words.Decrypt(KeyRef(""), HERE, ciphertext_blob=old)).plaintext == b"x"


def test_material_that_is_another(house: House) -> None:
    key = made(house, origin="EXTERNAL")
    with pytest.raises(errors.IncorrectKeyMaterial):
        bring(house, key.id, bytes(range(32)), key_material_id="0" * 64)
    first = bring(house, key.id, bytes(range(32)))
    with pytest.raises(errors.IncorrectKeyMaterial):
        bring(house, key.id, bytes(range(32)), import_type="NEW_KEY_MATERIAL")
    refused(
        house,
        words.DeleteImportedKeyMaterial(KeyRef(key.id), HERE, key_material_id="0" * 64),
        errors.IncorrectKeyMaterial,
    )
    second = bring(house, key.id, bytes(range(1, 33)), import_type="NEW_KEY_MATERIAL")
    assert second.key_material_id != first.key_material_id
    bring(house, key.id, bytes(range(1, 33)))  # what waits, again
    waiting = words.DeleteImportedKeyMaterial(KeyRef(key.id), HERE, key_material_id=second.key_material_id)
    assert house.ask(waiting).key_material_id == second.key_material_id
    refused(house, words.RotateKeyOnDemand(KeyRef(key.id), HERE), errors.KeyUnavailable)
    for _ in range(2):
        house.ask(words.DeleteImportedKeyMaterial(KeyRef(key.id), HERE))
    mac = made(house, "HMAC_256", "GENERATE_VERIFY_MAC", origin="EXTERNAL")
    bring(house, mac.id, bytes(range(32)))
    with pytest.raises(errors.UnsupportedOperation):
        bring(house, mac.id, bytes(range(1, 33)), import_type="NEW_KEY_MATERIAL")


def test_the_native_api_makes_no_material_for_it(house: House) -> None:
    key = made(house, origin="EXTERNAL")
    for request in (RotateKey(KeyRef(key.id)), UpdateKey(KeyRef(key.id), rotation_days=90)):
        with pytest.raises(KeyVaultError, match="imported"):
            house.ask(request)


# Rotation and Regions


def test_automatic_rotation(house: House, later: Callable[[int], None]) -> None:
    key = made(house)
    for _ in range(2):
        house.ask(words.EnableKeyRotation(KeyRef(key.id), HERE, rotation_period_in_days=90))
    later(91)
    house.system(RotateDueKey(KeyRef(key.id)))
    (rotation,) = house.ask(words.ListKeyRotations(KeyRef(key.id), HERE)).items
    assert rotation.rotation_type == "AUTOMATIC"


def test_regions(house: House, later: Callable[[int], None]) -> None:
    key = made(house, multi_region=True)
    policy = '{"Statement":{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}}'
    asked = words.UpdatePrimaryRegion(KeyRef(key.id), HERE, primary_region="us-east-1")
    assert "has no replica in that Region" in refused(house, asked, errors.ReplicaNotFound).detail
    replica = house.ask(words.ReplicateKey(KeyRef(key.id), HERE, replica_region="us-east-1", policy=policy))
    assert replica.facet["policy"] == policy
    house.ask(words.CreateAlias(KeyRef(key.id), THERE, alias_name="alias/there"))
    house.ask(words.ScheduleKeyDeletion(KeyRef(key.id), HERE, pending_window_in_days=7))
    house.ask(words.ScheduleKeyDeletion(KeyRef(key.id), THERE, pending_window_in_days=7))
    house.ask(words.CancelKeyDeletion(KeyRef(key.id), THERE))
    assert house.ask(words.DescribeKey(KeyRef(key.id), HERE)).state == "PendingReplicaDeletion"
    house.ask(words.ScheduleKeyDeletion(KeyRef(key.id), THERE, pending_window_in_days=7))
    later(8)
    refused(house, words.DescribeKey(KeyRef(key.id), THERE), errors.KeyNotFound)
    assert house.ask(words.DescribeKey(KeyRef(key.id), HERE)).state == "PendingDeletion"
    house.ask(words.CreateAlias(KeyRef(house.key().id), THERE, alias_name="alias/there"))
    later(16)
    house.system(EraseDueKey(KeyRef(key.key.id)))
    refused(house, words.DescribeKey(KeyRef(key.id), HERE), errors.KeyNotFound)


def test_rotation_on_demand_leaves_the_schedule(house: House, later: Callable[[int], None]) -> None:
    key = KeyRef(made(house).id)
    house.ask(words.EnableKeyRotation(key, HERE, rotation_period_in_days=90))
    planned = house.ask(words.GetKeyRotationStatus(key, HERE)).next_rotation_date
    later(30)
    house.ask(words.RotateKeyOnDemand(key, HERE))
    assert house.ask(words.GetKeyRotationStatus(key, HERE)).next_rotation_date == planned


def test_material_is_the_primarys(house: House, later: Callable[[int], None]) -> None:
    key = made(house, origin="EXTERNAL", multi_region=True)
    raw, other = bytes(range(32)), bytes(range(1, 33))
    brought = bring(house, key.id, raw)
    house.ask(words.ReplicateKey(KeyRef(key.id), HERE, replica_region="us-east-1"))
    assert bring(house, key.id, raw, place=THERE).key_material_id == brought.key_material_id
    until = house.ledger.now() + DAY
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
            bring(house, key.id, material, place=THERE, **more)
    gone = words.DeleteImportedKeyMaterial(KeyRef(key.id), THERE)
    refused(house, gone, errors.UnsupportedOperation)
    sealed(house, key.id)
    house.ask(structs.replace(gone, place=HERE))
    with pytest.raises(errors.UnsupportedOperation):
        bring(house, key.id, raw, place=THERE)
    bring(house, key.id, raw, expiration_model="KEY_MATERIAL_EXPIRES", valid_to=until)
    bring(house, key.id, raw, place=THERE, expiration_model="KEY_MATERIAL_EXPIRES", valid_to=until)
    later(2)
    with pytest.raises(KeyVaultError):
        bring(house, key.id, raw, place=THERE, expiration_model="KEY_MATERIAL_EXPIRES", valid_to=until)


def test_a_key_without_material_waits_for_it_disabled_or_not(house: House) -> None:
    key = made(house, origin="EXTERNAL")

    def state() -> str:
        shown: str = house.ask(words.DescribeKey(KeyRef(key.id), HERE)).state
        return shown

    bring(house, key.id, bytes(range(32)))
    house.ask(words.DisableKey(KeyRef(key.id), HERE))
    assert state() == "Disabled"
    house.ask(words.DeleteImportedKeyMaterial(KeyRef(key.id), HERE))
    assert state() == "PendingImport"
    refused(house, words.EnableKey(KeyRef(key.id), HERE), errors.KeyUnavailable)
    house.ask(words.ScheduleKeyDeletion(KeyRef(key.id), HERE))
    assert state() == "PendingDeletion"
    house.ask(words.CancelKeyDeletion(KeyRef(key.id), HERE))
    assert state() == "PendingImport"
    bring(house, key.id, bytes(range(32)))
    assert state() == "Disabled"
    house.ask(RevokeKey(KeyRef(key.key.id)))
    assert state() == "Unavailable"


def test_the_primary_moves_if_both_policies_allow_it(house: House) -> None:
    key = made(house, multi_region=True)
    house.ask(words.ReplicateKey(KeyRef(key.id), HERE, replica_region="us-east-1"))
    asked = words.UpdatePrimaryRegion(KeyRef(key.id), HERE, primary_region="us-east-1")
    denial = denying(StringEquals={"kms:PrimaryRegion": "us-east-1"})
    house.ask(words.PutKeyPolicy(KeyRef(key.id), THERE, policy=denial))
    refused(house, asked, Forbidden)
    house.ask(words.PutKeyPolicy(KeyRef(key.id), THERE, policy=denying(StringEquals={"kms:PrimaryRegion": "x"})))
    house.ask(asked)
    assert house.ask(words.DescribeKey(KeyRef(key.id), HERE)).is_replica


def test_a_replica_is_answered_with_its_policy(house: House) -> None:
    key = made(house, multi_region=True)
    asked = words.ReplicateKey(KeyRef(key.id), HERE, replica_region="us-east-1")
    answer = write_result(asked, house.ask(asked))
    assert answer is not None
    assert answer["ReplicaPolicy"] == house.ask(words.GetKeyPolicy(KeyRef(key.id), THERE)).policy


@pytest.fixture
def replicated(house: House) -> View:
    """A multi-Region key with a replica in each of two other Regions."""
    key = made(house, multi_region=True)
    for place in (THERE, ELSEWHERE):
        house.ask(words.ReplicateKey(KeyRef(key.id), HERE, replica_region=place.region))
    return key


def shown(house: House, key: View, place: Place) -> str:
    state: str = house.ask(words.DescribeKey(KeyRef(key.id), place)).state
    return state


def used(house: House, key: View, place: Place) -> None:
    house.ask(words.Encrypt(KeyRef(key.id), place, plaintext=b"x"))


def test_replicas_outlive_the_wait_of_their_primary(house: House, replicated: View) -> None:
    key = KeyRef(replicated.id)
    old = sealed(house, replicated.id)
    house.ask(words.EnableKeyRotation(key, HERE, rotation_period_in_days=90))
    house.ask(words.ScheduleKeyDeletion(key, HERE, pending_window_in_days=7))
    assert shown(house, replicated, HERE) == "PendingReplicaDeletion"
    refused(house, words.Encrypt(key, HERE, plaintext=b"x"), errors.KeyUnavailable)
    used(house, replicated, THERE)
    assert house.ask(words.Decrypt(KeyRef(""), THERE, ciphertext_blob=old)).plaintext == b"x"
    # The vault's own interface goes by the record, which is the primary's.
    native = KeyRef(replicated.key.id)
    house.ask(UpdateKey(native, rotation_days=1))
    record = house.ledger.snapshot().find_key(native)
    assert record is not None
    assert record.rotate_at is not None
    assert not _rotation_due(record, record.rotate_at), "it would be refused, with an entry, again and again"
    for request in (EncryptNatively(native, plaintext=b"x"), RotateKey(native)):
        assert "replicas" in house.refusal(request, InvalidState).detail
    house.ask(words.CancelKeyDeletion(key, HERE))
    assert shown(house, replicated, HERE) == "Disabled"
    house.ask(words.EnableKey(key, HERE))
    used(house, replicated, HERE)
    assert house.ask(words.GetKeyRotationStatus(key, HERE)).next_rotation_date is not None


def test_what_stops_the_record_stops_the_replicas_of_a_primary_that_waits(house: House, replicated: View) -> None:
    key, native = KeyRef(replicated.id), KeyRef(replicated.key.id)
    house.ask(words.ScheduleKeyDeletion(key, HERE, pending_window_in_days=7))
    asked = words.Encrypt(key, THERE, plaintext=b"x")
    house.ask(DisableKey(native))
    refused(house, asked, errors.Disabled)
    house.ask(EnableKey(native))
    house.ask(asked)
    house.refusal(EncryptNatively(native, plaintext=b"x"), InvalidState)
    house.ask(DestroyKey(native, days=7))
    refused(house, asked, errors.KeyUnavailable)
    house.ask(RestoreKey(native))
    refused(house, asked, errors.Disabled)
    house.ask(RevokeKey(native))
    refused(house, asked, errors.KeyUnavailable)
    house.ask(words.CancelKeyDeletion(key, HERE))
    assert house.ask(ReadKey(native)).status == "REVOKED"


@pytest.mark.parametrize("status", ["ACTIVE", "DISABLED", "REVOKED"])
def test_a_primary_waits_again_as_it_did(house: House, replicated: View, status: str) -> None:
    key, native = KeyRef(replicated.id), KeyRef(replicated.key.id)
    if status != "ACTIVE":
        house.ask(DisableKey(native) if status == "DISABLED" else RevokeKey(native))
    for place in (HERE, THERE, ELSEWHERE):
        house.ask(words.ScheduleKeyDeletion(key, place, pending_window_in_days=7))
    assert shown(house, replicated, HERE) == "PendingDeletion"
    house.ask(words.CancelKeyDeletion(key, THERE))
    assert shown(house, replicated, HERE) == "PendingReplicaDeletion"
    assert house.ask(ReadKey(native)).status == status
    assert shown(house, replicated, THERE) == ("Unavailable" if status == "REVOKED" else "Disabled")
    if status == "ACTIVE":
        house.ask(words.EnableKey(key, THERE))
        used(house, replicated, THERE)


def test_a_replica_calls_no_other_destruction_off(house: House, replicated: View) -> None:
    key, native = KeyRef(replicated.id), KeyRef(replicated.key.id)
    for place in (HERE, THERE):
        house.ask(words.ScheduleKeyDeletion(key, place, pending_window_in_days=7))
    house.ask(DestroyKey(native, days=30))
    house.ask(words.CancelKeyDeletion(key, THERE))
    assert house.ask(ReadKey(native)).status == "PENDING_DESTRUCTION"


# Access keys


def test_access_keys(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_keys, "MAX_ACCESS_KEYS", 2)
    house.service("app")
    first, second = (house.ask(CreateAccessKey("app")) for _ in range(2))
    refused(house, CreateAccessKey("app"), LimitExceeded)
    refused(house, CreateAccessKey("nobody"), NotFound)
    refused(house, RevokeAccessKey("app", "AKIANOBODYNOBODYNOBO"), NotFound)
    assert [one.id for one in house.ask(ListAccessKeys("app")).items] == [first.access_key_id, second.access_key_id]
    (left,) = house.ask(RevokeAccessKey("app", first.access_key_id)).items
    assert left.id == second.access_key_id
    assert first.secret_access_key.encode() not in house.files()
    assert house.last.draft.result is Result.SUCCESS
    assert "secret" not in repr(replace(first))
    house.reopen()
    assert [one.id for one in house.ask(ListAccessKeys("app")).items] == [second.access_key_id]


def test_grants_are_for_what_the_key_can_do(house: House) -> None:
    someone = HERE.principal_arn("app")
    for spec, usage, fits, not_so in (
        ("HMAC_256", "GENERATE_VERIFY_MAC", "GenerateMac", "GetPublicKey"),
        ("ECC_NIST_P256", "SIGN_VERIFY", "GetPublicKey", "GenerateMac"),
        ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "GenerateDataKey", "GetPublicKey"),
    ):
        key = KeyRef(made(house, spec, usage).id)
        asked = words.CreateGrant(key, HERE, grantee_principal=someone, operations=(not_so,))
        refused(house, asked, errors.Validation)
        house.ask(structs.replace(asked, operations=(fits,)))


def test_a_grant_for_one_context_is_for_no_other(house: House) -> None:
    key = KeyRef(made(house).id)
    _, token = house.service("app", grant(key))
    bound = {"EncryptionContextEquals": {"file": "a"}}
    house.ask(
        words.CreateGrant(
            key, HERE, grantee_principal=HERE.principal_arn("app"), operations=("Encrypt",), constraints=bound
        )
    )
    asked = words.Encrypt(key, HERE, plaintext=b"x", context={"file": "a"})
    house.ask(asked, token)
    for other in ({"file": "b"}, {"file": "a", "more": "b"}, None):
        refused(house, structs.replace(asked, context=other), Forbidden, token)
