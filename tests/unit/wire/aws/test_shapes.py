"""The table of shapes: what it refuses and how; that it is what the service's model says."""

import base64
import json
from typing import Any

import botocore.loaders
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyvault_lite.dialects.aws.errors import Unserializable, UnsupportedOperation, Validation
from keyvault_lite.dialects.aws.model import AccountRegion
from keyvault_lite.model.errors import KeyVaultError
from keyvault_lite.model.requests import Rejected, Request
from keyvault_lite.wire.aws.operations import OPERATIONS
from keyvault_lite.wire.aws.shapes import TABLE, read_members
from tools.make_aws_shapes import table, written

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A loaded machine is no finding."""
PLACE = AccountRegion("000000000000", "eu-central-1")
B64 = base64.b64encode(b"x").decode()


def refusal(operation: str, body: object) -> str:
    with pytest.raises(Validation) as caught:
        read_members(operation, body)
    return caught.value.detail


def test_the_table_is_that_of_the_model() -> None:
    model = botocore.loaders.Loader().load_service_model("kms", "service-2")
    made = table(model)
    # A later botocore may know more; nothing that this table has may differ.
    assert made["operations"].items() >= TABLE["operations"].items()
    assert json.loads(written(TABLE)) == TABLE  # type: ignore[arg-type]
    assert made["target"] == "TrentService"


def test_every_operation_is_there() -> None:
    assert len(OPERATIONS) == 56
    missing = {name for name, one in OPERATIONS.items() if one.kind is None}
    assert missing == {f"{verb}CustomKeyStore" for verb in ("Create", "Delete", "Update", "Connect", "Disconnect")}


def test_members_fill_fields_that_exist() -> None:
    for name, one in OPERATIONS.items():
        known = TABLE["shapes"][TABLE["operations"][name]]["members"]
        assert {member for _, member in one.members} <= set(known), name


def test_broken_constraints_are_told_all_at_once() -> None:
    detail = refusal("Encrypt", {"KeyId": "", "GrantTokens": ["x"] * 11, "EncryptionAlgorithm": "ROT13"})
    assert detail.startswith("4 validation errors detected: ")
    rule = "failed to satisfy constraint: Member must"
    values = "[SYMMETRIC_DEFAULT, RSAES_OAEP_SHA_1, RSAES_OAEP_SHA_256, SM2PKE]"
    for part in (
        f"Value '' at 'keyId' {rule} have length greater than or equal to 1",
        f"Value null at 'plaintext' {rule} not be null",
        f"Value of 11 members at 'grantTokens' {rule} have length less than or equal to 10",
        f"Value 'ROT13' at 'encryptionAlgorithm' {rule} satisfy enum value set: {values}",
    ):
        assert part in detail


def test_places_and_patterns() -> None:
    detail = refusal("TagResource", {"KeyId": "k", "Tags": [{"TagKey": "", "TagValue": "v"}]})
    assert "at 'tags.1.member.tagKey'" in detail
    assert "regular expression pattern" in refusal("CreateAlias", {"AliasName": "alias/no space", "TargetKeyId": "k"})
    assert "value less than or equal to 1000" in refusal("ListKeys", {"Limit": 1001})
    assert "'***'" not in refusal("Encrypt", {"KeyId": "k"})
    detail = refusal("CreateCustomKeyStore", {"CustomKeyStoreName": "n", "KeyStorePassword": "short"})
    assert "short" not in detail


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("ListKeys", []),
        ("ListKeys", None),
        ("ListKeys", {"Limit": "1"}),
        ("ListKeys", {"Limit": 1.0}),
        ("ListKeys", {"Limit": True}),
        ("Encrypt", {"KeyId": 1, "Plaintext": B64}),
        ("Encrypt", {"KeyId": "k", "Plaintext": "no base64"}),
        ("Encrypt", {"KeyId": "k", "Plaintext": "eB=="}),
        ("Encrypt", {"KeyId": "k", "Plaintext": B64, "DryRun": "true"}),
        ("Encrypt", {"KeyId": "k", "Plaintext": B64, "EncryptionContext": {"a": 1}}),
        ("Encrypt", {"KeyId": "k", "Plaintext": B64, "EncryptionContext": []}),
        ("Encrypt", {"KeyId": "k", "Plaintext": B64, "GrantTokens": "x"}),
        ("ImportKeyMaterial", {"KeyId": "k", "ImportToken": B64, "EncryptedKeyMaterial": B64, "ValidTo": "now"}),
        ("ImportKeyMaterial", {"KeyId": "k", "ImportToken": B64, "EncryptedKeyMaterial": B64, "ValidTo": -1}),
        ("ImportKeyMaterial", {"KeyId": "k", "ImportToken": B64, "EncryptedKeyMaterial": B64, "ValidTo": 1e300}),
    ],
)
def test_members_of_another_type(operation: str, body: object) -> None:
    with pytest.raises(Unserializable):
        read_members(operation, body)


def test_a_member_that_is_null_is_absent() -> None:
    assert read_members("ListKeys", {"Unknown": None, "Limit": None}) == {}


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_a_member_that_the_model_does_not_have_is_refused_and_not_echoed(operation: str) -> None:
    with pytest.raises(Validation) as refused:
        read_members(operation, {"NarrowedTo": "a secret"})
    assert "unknown to this version" in refused.value.detail
    assert "a secret" not in refused.value.detail
    assert "NarrowedTo" not in refused.value.detail


def test_an_unknown_constraint_of_a_grant_is_refused() -> None:
    body = {"KeyId": "k", "GranteePrincipal": "arn:aws:iam::000000000000:user/a", "Operations": ["Decrypt"]}
    with pytest.raises(Validation, match="constraints"):
        read_members("CreateGrant", {**body, "Constraints": {"Newer": "x"}})


def test_requests_are_built() -> None:
    made: Any = OPERATIONS["Encrypt"].build({"KeyId": "k", "Plaintext": B64, "EncryptionContext": {"a": "b"}}, PLACE)
    assert (made.key, made.plaintext, made.context, made.dry_run) == ("k", b"x", {"a": "b"}, False)
    made = OPERATIONS["ReEncrypt"].build(
        {"DestinationKeyId": "d", "CiphertextBlob": B64, "SourceEncryptionContext": {"a": "b"}}, PLACE
    )
    assert (made.key, made.destination_key_id, made.context) == ("", "d", {"a": "b"})
    made = OPERATIONS["ImportKeyMaterial"].build(
        {"KeyId": "k", "ImportToken": B64, "EncryptedKeyMaterial": B64, "ValidTo": 1.5}, PLACE
    )
    assert made.valid_to == 1_500_000
    store = OPERATIONS["CreateCustomKeyStore"].build({"CustomKeyStoreName": "n"}, PLACE)
    assert isinstance(store, Rejected)
    assert isinstance(store.error, UnsupportedOperation)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@CALM
@given(data=st.data())
def test_no_body_is_a_defect(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(OPERATIONS)))
    members = TABLE["shapes"][TABLE["operations"][name]]["members"]
    body = data.draw(st.dictionaries(st.sampled_from(sorted(members) or ["none"]), JSON | st.just(B64), max_size=5))
    try:
        request = OPERATIONS[name].build(body, PLACE)
    except KeyVaultError as error:
        assert isinstance(error, (Validation, Unserializable))  # noqa: PT017
    else:
        assert isinstance(request, Request)
