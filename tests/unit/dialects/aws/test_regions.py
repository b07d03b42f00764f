"""One home for all judgement: no Region or partition that a caller signs for lifts a policy or a grant of a key."""

import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.errors import MalformedPolicy
from keyvault_lite.dialects.aws.model import AccountRegion
from keyvault_lite.model.errors import Forbidden, KeyVaultError
from keyvault_lite.model.keys import Key, KeySpec
from keyvault_lite.model.names import KeyRef
from tests.support.harness import AES, HMAC, P256, Harness, grant

ACCOUNT: Final = "000000000000"
REGIONS: Final = ("eu-central-1", "us-east-1", "cn-north-1", "us-gov-west-1")
EVERYBODY: Final = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
Call = Callable[[KeyRef, AccountRegion], Any]

USES: Final[dict[str, tuple[KeySpec, Call]]] = {
    # Each on a key of its kind; what is wrong with the members is told only to whoever may.
    "DescribeKey": (AES, words.DescribeKey),
    "Encrypt": (AES, lambda key, at: words.Encrypt(key, at, plaintext=b"x")),
    "Decrypt": (AES, lambda key, at: words.Decrypt(key, at, ciphertext_blob=b"x")),
    "ReEncryptFrom": (AES, lambda key, at: words.ReEncrypt(key, at, destination_key_id=key, ciphertext_blob=b"x")),
    "ReEncryptTo": (AES, lambda key, at: words.ReEncrypt(key, at, destination_key_id=key, ciphertext_blob=b"x")),
    "GenerateDataKey": (AES, lambda key, at: words.GenerateDataKey(key, at, key_spec="AES_256")),
    "GenerateDataKeyWithoutPlaintext": (AES, words.GenerateDataKeyWithoutPlaintext),
    "GenerateDataKeyPair": (AES, lambda key, at: words.GenerateDataKeyPair(key, at, key_pair_spec="x")),
    "GenerateDataKeyPairWithoutPlaintext": (AES, words.GenerateDataKeyPairWithoutPlaintext),
    "GenerateMac": (HMAC, lambda key, at: words.GenerateMac(key, at, message=b"x", mac_algorithm="HMAC_SHA_256")),
    "VerifyMac": (HMAC, lambda key, at: words.VerifyMac(key, at, message=b"x", mac=b"x", mac_algorithm="x")),
    "Sign": (P256, lambda key, at: words.Sign(key, at, message=b"x", signing_algorithm="ECDSA_SHA_256")),
    "Verify": (P256, lambda key, at: words.Verify(key, at, message=b"x", signature=b"x", signing_algorithm="x")),
    "GetPublicKey": (P256, words.GetPublicKey),
    "GetKeyPolicy": (AES, words.GetKeyPolicy),
    "ListGrants": (AES, words.ListGrants),
    "ListKeyRotations": (AES, words.ListKeyRotations),
    "GetKeyRotationStatus": (AES, words.GetKeyRotationStatus),
}


def home(region: str) -> AccountRegion:
    return AccountRegion(ACCOUNT, region)


def put(harness: Harness, key: Key, place: AccountRegion, *statements: dict[str, Any]) -> None:
    policy = json.dumps({"Statement": [EVERYBODY, *statements]})
    harness.ask(words.PutKeyPolicy(KeyRef(key.id), place, policy=policy, bypass_policy_lockout_safety_check=True))


def denied(harness: Harness, request: Any, token: str) -> bool:  # noqa: ANN401
    try:
        harness.ask(request, token)
    except Forbidden:
        return True
    except KeyVaultError:
        return False
    return False


def forms(place: AccountRegion, key: Key, operation: str) -> dict[str, dict[str, Any]]:
    """Ways to deny `shop` an operation, as an operator in that Region writes them."""
    deny = {"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": f"kms:{operation}", "Resource": "*"}
    shop, admin = place.principal_arn("shop"), place.principal_arn("admin")
    but = {name: value for name, value in deny.items() if name != "Principal"}
    return {
        "by name": deny | {"Principal": {"AWS": shop}},
        "by the key's ARN": deny | {"Resource": place.key_arn(key)},
        "by the ARN of all keys here": deny | {"Resource": place.arn("key/*")},
        "aws:PrincipalArn": deny | {"Condition": {"ArnLike": {"aws:PrincipalArn": shop.replace(ACCOUNT, "*")}}},
        "not aws:PrincipalArn": deny | {"Condition": {"StringNotEquals": {"aws:PrincipalArn": admin}}},
        "aws:username": deny | {"Condition": {"StringEquals": {"aws:username": "shop"}}},
        "all but the admin": but | {"NotPrincipal": {"AWS": [admin]}},
        "all but the admin and the account": but | {"NotPrincipal": {"AWS": [admin, place.root_arn]}},
        "all but the admin and the account's id": but | {"NotPrincipal": {"AWS": [admin, ACCOUNT]}},
        "all but the account": but | {"NotPrincipal": {"AWS": [place.root_arn]}},
        "an alias": deny | {"Condition": {"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/orders"}}},
    }


@pytest.mark.parametrize("put_in", ["eu-central-1", "cn-north-1", "us-gov-west-1"])
def test_a_denial_binds_wherever_the_request_is_signed(harness: Harness, put_in: str) -> None:
    _, token = harness.service("shop", grant("*"))
    keys = {spec: harness.key(spec=spec) for spec in (AES, HMAC, P256)}
    place = home(put_in)
    for key in keys.values():
        harness.ask(words.CreateAlias(KeyRef(key.id), place, alias_name="alias/orders"))
        for form in forms(place, key, "*"):
            put(harness, key, place, forms(place, key, "*")[form])
            calls = [call for spec, call in USES.values() if keys[spec] is key]
            assert all(denied(harness, call(KeyRef(key.id), home(at)), token) for at in REGIONS for call in calls), form
        put(harness, key, place)
        harness.ask(words.DeleteAlias(KeyRef("alias/orders"), place))


@pytest.mark.parametrize("operation", sorted(USES))
def test_each_operation_by_itself(harness: Harness, operation: str) -> None:
    spec, call = USES[operation]
    key = harness.key(spec=spec)
    _, token = harness.service("shop", grant("*"))
    place = home("eu-central-1")
    for form in ("by name", "by the key's ARN", "aws:PrincipalArn", "all but the admin and the account"):
        put(harness, key, place, forms(place, key, operation)[form])
        assert all(denied(harness, call(KeyRef(key.id), home(at)), token) for at in REGIONS), form
    put(harness, key, place, forms(place, key, "Nothing")["by name"])
    assert not any(denied(harness, call(KeyRef(key.id), home(at)), token) for at in REGIONS)


@pytest.mark.parametrize("made_in", ["eu-central-1", "cn-north-1"])
def test_a_constraint_binds_wherever_the_request_is_signed(harness: Harness, made_in: str) -> None:
    key, place = harness.key("orders"), home(made_in)
    _, token = harness.service("shop", grant("orders"))
    grantee = place.principal_arn("shop")
    made = harness.ask(
        words.CreateGrant(
            KeyRef(key.id),
            place,
            grantee_principal=grantee,
            retiring_principal=grantee,
            operations=("Encrypt",),
            constraints={"EncryptionContextEquals": {"tenant": "a"}},
        )
    )
    for at in map(home, REGIONS):
        harness.ask(words.Encrypt(KeyRef(key.id), at, plaintext=b"x", context={"tenant": "a"}), token)
        assert denied(harness, words.Encrypt(KeyRef(key.id), at, plaintext=b"x", context={"tenant": "b"}), token)
        assert denied(harness, words.Decrypt(KeyRef(key.id), at, ciphertext_blob=b"x", context={"tenant": "a"}), token)
        named = harness.ask(words.ListGrants(KeyRef(key.id), at, grantee_principal=at.principal_arn("shop"))).items
        assert len(named) == 1
        retirable = harness.ask(words.ListRetirableGrants(at, retiring_principal=at.principal_arn("shop")), token).items
        assert len(retirable) == 1
    harness.ask(words.RetireGrant(home("us-east-1"), key=key.id, grant_id=made.grant_id), token)


def test_who_may_be_made_a_grantee_is_judged_without_the_partition(harness: Harness) -> None:
    key = harness.key("orders")
    place = home("eu-central-1")
    shop = {"kms:GranteePrincipal": place.principal_arn("shop")}
    deny = {"Effect": "Deny", "Principal": "*", "Action": "kms:CreateGrant", "Resource": "*"}
    put(harness, key, place, deny | {"Condition": {"StringEquals": shop}})
    for at in map(home, REGIONS):
        request = words.CreateGrant(
            KeyRef(key.id), at, grantee_principal=at.principal_arn("shop"), operations=("Encrypt",)
        )
        harness.refusal(request, Forbidden)


def test_an_allow_with_not_principal_lets_nobody_in_from_elsewhere(harness: Harness) -> None:
    key = harness.key("orders")
    _, token = harness.service("shop", grant("*"))
    place = home("eu-central-1")
    but = {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}
    for excluded in (place.principal_arn("shop"), place.root_arn, ACCOUNT, "*"):
        policy = {"Statement": [but | {"NotPrincipal": {"AWS": excluded}}]}
        request = words.PutKeyPolicy(
            KeyRef(key.id), place, policy=json.dumps(policy), bypass_policy_lockout_safety_check=True
        )
        harness.ask(request)
        assert all(denied(harness, words.DescribeKey(KeyRef(key.id), home(at)), token) for at in REGIONS), excluded


ALLOW: Final = json.dumps(EVERYBODY)
DENY: Final = '{"Effect":"Deny","Principal":"*","Action":"kms:*","Resource":"*"'
TWICE: Final = {
    "statement": f'{{"Statement":[{DENY}}}],"Statement":[{ALLOW}]}}',
    "condition": f'{{"Statement":[{ALLOW},{DENY},"Condition":{{}},"Condition":{{"Bool":{{"x":"true"}}}}}}]}}',
    "condition key": f'{{"Statement":[{ALLOW},{DENY},"Condition":{{"Bool":{{"x":"true","x":"false"}}}}}}]}}',
    "NaN": f'{{"Version":NaN,"Statement":[{ALLOW}]}}',
    "surrogate": f'{{"Id":"\\ud800","Statement":[{ALLOW}]}}',
    "nesting": "[" * 100_000,
}


@pytest.mark.parametrize("text", TWICE.values(), ids=TWICE)
def test_a_document_that_two_parsers_read_differently_is_refused(harness: Harness, text: str) -> None:
    key, place = harness.key("orders"), home("eu-central-1")
    with pytest.raises(MalformedPolicy):
        harness.ask(words.PutKeyPolicy(KeyRef(key.id), place, policy=text))
    with pytest.raises(MalformedPolicy):
        harness.ask(words.CreateKey(place, policy=text))
