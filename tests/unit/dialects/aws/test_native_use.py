"""A key policy or an AWS grant binds a SERVICE that uses the key through the native API, too."""

import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from keyvault_lite.crypto import blob
from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.errors import KeyNotFound
from keyvault_lite.dialects.aws.model import AccountRegion
from keyvault_lite.dialects.aws.native_use import METADATA, OPERATIONS
from keyvault_lite.dialects.vault.requests import CreateTransitKey
from keyvault_lite.engine import native as native_dialect
from keyvault_lite.model import requests as native
from keyvault_lite.model.actions import RULES
from keyvault_lite.model.errors import Forbidden, KeyVaultError
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.keys import Algorithm, Key, KeySpec, KeyType, Purpose
from keyvault_lite.model.names import KeyRef
from tests.support.harness import AES, HMAC, P256, Harness, grant

HERE: Final = AccountRegion("000000000000", "eu-central-1")
RSA: Final = KeySpec(KeyType.RSA, 3072, Purpose.ENCRYPT)
EVERYBODY: Final = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
USES: Final[dict[str, tuple[KeySpec, Callable[[KeyRef], native.KeyRequest], tuple[str, ...]]]] = {
    # On a key of which kind, and what AWS calls it.
    "encrypt": (AES, lambda key: native.Encrypt(key, plaintext=b"x"), ("Encrypt",)),
    "decrypt": (AES, lambda key: native.Decrypt(key, ciphertext=b"x", encrypted_dek=b"x"), ("Decrypt",)),
    "rewrap": (AES, lambda key: native.Rewrap(key, encrypted_dek=b"x"), ("ReEncryptFrom", "ReEncryptTo")),
    "data key": (AES, native.GenerateDataKey, ("GenerateDataKey",)),
    "wrapped": (AES, lambda key: native.GenerateDataKey(key, reveal=False), ("GenerateDataKeyWithoutPlaintext",)),
    "open": (AES, lambda key: native.OpenDataKey(key, encrypted_key=b"x"), ("Decrypt",)),
    "sign": (P256, lambda key: native.Sign(key, message=b"x"), ("Sign",)),
    "verify": (P256, lambda key: native.Verify(key, message=b"x", signature=b"x"), ("Verify",)),
    "public key": (P256, native.ReadPublicKey, ("GetPublicKey",)),
    "MAC": (HMAC, lambda key: native.Sign(key, message=b"x"), ("GenerateMac",)),
    "verify MAC": (HMAC, lambda key: native.Verify(key, message=b"x", signature=b"x"), ("VerifyMac",)),
}


def put(harness: Harness, key: Key, *statements: dict[str, Any], place: AccountRegion = HERE) -> None:
    policy = json.dumps({"Statement": [EVERYBODY, *statements]})
    harness.ask(words.PutKeyPolicy(KeyRef(key.id), place, policy=policy, bypass_policy_lockout_safety_check=True))


def deny(action: str, **condition: dict[str, Any]) -> dict[str, Any]:
    shop = {"AWS": HERE.principal_arn("shop")}
    made = {"Effect": "Deny", "Principal": shop, "Action": f"kms:{action}", "Resource": "*"}
    return made | ({"Condition": condition} if condition else {})


def denied(harness: Harness, request: Any, token: str) -> bool:  # noqa: ANN401
    try:
        harness.ask(request, token)
    except Forbidden:
        return True
    except KeyVaultError:
        return False
    return False


@pytest.mark.parametrize("use", USES)
def test_a_denial_binds_each_native_use(harness: Harness, use: str) -> None:
    spec, make, operations = USES[use]
    key = harness.key("orders", spec)
    request = make(KeyRef("orders"))
    _, token = harness.service("shop", grant("orders"))
    _, other = harness.service("other", grant("orders"))
    assert not denied(harness, request, token)
    for operation in operations:
        put(harness, key, deny(operation))
        assert denied(harness, request, token)
        entry = harness.last
        assert (entry.draft.result, entry.draft.key_id) == (Result.DENIED, key.id)
        assert not denied(harness, request, other)
        assert not denied(harness, request, ""), "an ADMIN can replace the policy: nothing is kept from it"
    put(harness, key, deny("Nothing"))
    assert not denied(harness, request, token)
    harness.ask(native.ReadKey(KeyRef("orders")), token)


def test_every_native_use_is_decided_on() -> None:
    kinds = {
        kind
        for kind in native_dialect.NATIVE.handlers
        if issubclass(kind, native.KeyRequest)
        and kind.__module__ == native.__name__
        and RULES[kind.action].permissions is not None
    }
    assert kinds == OPERATIONS.keys() | METADATA
    assert kinds >= {native.Encrypt, native.Sign}


def test_a_ciphertext_of_an_aws_client_is_not_opened_around_its_policy(harness: Harness) -> None:
    made = harness.ask(words.CreateKey(HERE))
    key = KeyRef(made.key.id)
    _, token = harness.service("shop", grant(key))
    sealed = harness.ask(words.Encrypt(key, HERE, plaintext=b"x", context={"tenant": "b"})).ciphertext_blob
    encrypted_dek, ciphertext = blob.split(sealed)
    opening = native.Decrypt(key, ciphertext=ciphertext, encrypted_dek=encrypted_dek, context={"tenant": "b"})
    assert harness.ask(opening, token).plaintext == b"x"
    harness.ask(
        words.CreateGrant(
            key,
            HERE,
            grantee_principal=HERE.principal_arn("shop"),
            operations=("Decrypt", "Encrypt"),
            constraints={"EncryptionContextEquals": {"tenant": "a"}},
        )
    )
    harness.refusal(opening, Forbidden, token)
    items = tuple(native.Encrypt(key, plaintext=b"x", context={"tenant": one}) for one in "aba")
    results = harness.ask(native.Batch(key, of=Action.ENCRYPT, items=items), token).items
    assert [isinstance(one, Forbidden) for one in results] == [False, True, False]


def test_who_was_made_a_grantee_has_nothing_left_after_the_grant(harness: Harness) -> None:
    key = harness.key("orders")
    _, token = harness.service("shop", grant("orders"))
    asked = words.CreateGrant(
        KeyRef(key.id), HERE, grantee_principal=HERE.principal_arn("shop"), operations=("Encrypt",)
    )
    made = harness.ask(asked)
    harness.ask(native.Encrypt(KeyRef("orders"), plaintext=b"x"), token)
    harness.ask(words.RevokeGrant(KeyRef(key.id), HERE, grant_id=made.grant_id))
    harness.refusal(native.Encrypt(KeyRef("orders"), plaintext=b"x"), Forbidden, token)


def test_an_allow_list_without_the_service_closes_the_native_api(harness: Harness) -> None:
    key = harness.key("orders")
    _, token = harness.service("shop", grant("orders"))
    admin = {"Effect": "Allow", "Principal": {"AWS": HERE.principal_arn("admin")}, "Action": "kms:*", "Resource": "*"}
    harness.ask(words.PutKeyPolicy(KeyRef(key.id), HERE, policy=json.dumps({"Statement": [admin]})))
    harness.refusal(native.Encrypt(KeyRef("orders"), plaintext=b"x"), Forbidden, token)


@pytest.mark.parametrize(
    ("spec", "request_", "name", "value"),
    [
        (AES, native.Encrypt(KeyRef("k"), plaintext=b"x"), "kms:EncryptionAlgorithm", "SYMMETRIC_DEFAULT"),
        (RSA, native.Encrypt(KeyRef("k"), plaintext=b"x"), "kms:EncryptionAlgorithm", "RSAES_OAEP_SHA_256"),
        (AES, native.Rewrap(KeyRef("k"), encrypted_dek=b"x"), "kms:ReEncryptOnSameKey", "true"),
        (P256, native.Sign(KeyRef("k"), message=b"x"), "kms:SigningAlgorithm", "ECDSA_SHA_256"),
        (P256, native.Sign(KeyRef("k"), message=b"x"), "kms:MessageType", "RAW"),
        (P256, native.Sign(KeyRef("k"), message=bytes(32), prehashed=True), "kms:MessageType", "DIGEST"),
        (HMAC, native.Sign(KeyRef("k"), message=b"x"), "kms:MacAlgorithm", "HMAC_SHA_256"),
        (P256, native.Verify(KeyRef("k"), message=b"x", signature=b"x"), "kms:KeySpec", "ECC_NIST_P256"),
        (
            KeySpec(KeyType.RSA, 3072, Purpose.SIGN),
            native.Verify(KeyRef("k"), message=b"x", signature=b"x", algorithm=Algorithm.RSA_PKCS1_SHA384),
            "kms:SigningAlgorithm",
            "RSASSA_PKCS1_V1_5_SHA_384",
        ),
        (AES, native.Encrypt(KeyRef("k"), plaintext=b"x", context={"a": "b"}), "kms:EncryptionContext:a", "b"),
        (AES, native.Encrypt(KeyRef("k"), plaintext=b"x"), "aws:username", "shop"),
    ],
)
def test_conditions_see_a_native_request(
    harness: Harness, spec: KeySpec, request_: native.KeyRequest, name: str, value: str
) -> None:
    key = harness.key("k", spec)
    _, token = harness.service("shop", grant("k"))
    put(harness, key, deny("*", StringEquals={name: value}))
    assert denied(harness, request_, token)
    put(harness, key, deny("*", StringEquals={name: f"{value}-"}))
    assert not denied(harness, request_, token)


@pytest.mark.parametrize("operator", ["StringEquals", "StringNotEquals"])
def test_a_condition_on_the_region_is_not_understood_where_there_is_none(harness: Harness, operator: str) -> None:
    """The native API has no Region: of a key that is in all of them it counts against the caller."""
    _, token = harness.service("shop", grant("*"))
    condition = {operator: {"aws:RequestedRegion": "eu-central-1"}}
    put(harness, harness.key("everywhere"), deny("*", **condition))
    assert denied(harness, native.Encrypt(KeyRef("everywhere"), plaintext=b"x"), token)
    regional = harness.ask(words.CreateKey(HERE)).key
    put(harness, regional, deny("*", **condition))
    here = denied(harness, native.Encrypt(KeyRef(regional.id), plaintext=b"x"), token)
    assert here is (operator == "StringEquals")


def test_a_key_of_the_vault_dialect_cannot_carry_a_policy(harness: Harness) -> None:
    spec = KeySpec(KeyType.AES, 256, Purpose.TRANSIT)
    harness.ask(CreateTransitKey("transit", "ledger", spec))
    key = harness.ask(native.ReadKey(KeyRef("vault:transit/ledger")))
    for request in (
        words.PutKeyPolicy(KeyRef(key.id), HERE, policy=json.dumps({"Statement": [EVERYBODY]})),
        words.CreateGrant(KeyRef(key.id), HERE, grantee_principal=HERE.principal_arn("x"), operations=("Encrypt",)),
    ):
        with pytest.raises(KeyNotFound):
            harness.ask(request)
