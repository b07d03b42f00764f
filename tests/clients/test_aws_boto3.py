"""boto3 over every operation of the AWS dialect, on a real server; results verified outside with `cryptography`."""

import hashlib
import hmac
import json
import os
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, padding, rsa, utils
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from tests.clients.aws_clients import ACCOUNT, REGION, client, code, error, issue, user
from tests.clients.conftest import Served

Kms = Any
_numbers = count()
ABSENT = "11111111-2222-3333-4444-555555555555"


@pytest.fixture(scope="module")
def kms(served: Served) -> Kms:
    return client(served, issue(served, "admin"))


@pytest.fixture(scope="module")
def aes(kms: Kms) -> str:
    key: str = kms.create_key(Description="shared")["KeyMetadata"]["KeyId"]
    return key


def fresh(kms: Kms, spec: str = "SYMMETRIC_DEFAULT", usage: str = "ENCRYPT_DECRYPT", **more: object) -> str:
    made: str = kms.create_key(KeySpec=spec, KeyUsage=usage, **more)["KeyMetadata"]["KeyId"]
    return made


def arn(key: str, region: str = REGION) -> str:
    return f"arn:aws:kms:{region}:{ACCOUNT}:key/{key}"


def alias_name() -> str:
    return f"alias/test-{next(_numbers)}"


# Keys


def test_a_key_as_it_is_described(kms: Kms) -> None:
    made = kms.create_key(Description="orders", Tags=[{"TagKey": "team", "TagValue": "shop"}])["KeyMetadata"]
    assert (
        made
        == kms.describe_key(KeyId=made["KeyId"])["KeyMetadata"]
        == kms.describe_key(KeyId=made["Arn"])["KeyMetadata"]
    )
    assert made["Arn"] == arn(made["KeyId"])
    assert (made["AWSAccountId"], made["Description"], made["Enabled"]) == (ACCOUNT, "orders", True)
    assert (made["KeyState"], made["KeyUsage"], made["KeySpec"]) == ("Enabled", "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT")
    assert (made["Origin"], made["KeyManager"], made["MultiRegion"]) == ("AWS_KMS", "CUSTOMER", False)
    assert made["EncryptionAlgorithms"] == ["SYMMETRIC_DEFAULT"]
    assert len(made["CurrentKeyMaterialId"]) == 64


def test_kinds_that_make_no_sense(kms: Kms) -> None:
    assert code(kms.create_key, KeySpec="RSA_2048") == "ValidationException"
    assert code(kms.create_key, KeySpec="RSA_2048", KeyUsage="GENERATE_VERIFY_MAC") == "ValidationException"
    assert code(kms.create_key, KeySpec="SM2", KeyUsage="SIGN_VERIFY") == "UnsupportedOperationException"
    assert code(kms.create_key, Origin="AWS_CLOUDHSM") == "UnsupportedOperationException"
    assert code(kms.create_key, CustomKeyStoreId="cks-1") == "UnsupportedOperationException"
    assert code(kms.create_key, KeySpec="ML_DSA_44", KeyUsage="SIGN_VERIFY", Origin="EXTERNAL") == (
        "UnsupportedOperationException"
    )


def test_the_old_name_of_the_spec(kms: Kms) -> None:
    made = kms.create_key(CustomerMasterKeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]
    assert made["KeySpec"] == made["CustomerMasterKeySpec"] == "ECC_NIST_P256"


def test_lists_in_pages(kms: Kms) -> None:
    made = {fresh(kms) for _ in range(3)}
    pages = list(kms.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 2}))
    assert len(pages) > 1
    listed = [one for page in pages for one in page["Keys"]]
    assert made <= {one["KeyId"] for one in listed}
    assert len(listed) == len({one["KeyId"] for one in listed})
    assert all(one["KeyArn"] == arn(one["KeyId"]) for one in listed)
    assert code(kms.list_keys, Marker="no such") == "InvalidMarkerException"
    assert code(kms.list_aliases, Marker=pages[0]["NextMarker"]) == "InvalidMarkerException"  # of another list
    assert kms.list_keys(ResourceOwners=["OTHER_ACCOUNTS_VIA_RAM"])["Keys"] == []


def test_enable_disable_and_description(kms: Kms) -> None:
    key = fresh(kms)
    kms.disable_key(KeyId=key)
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Disabled"
    assert error(kms.encrypt, KeyId=key, Plaintext=b"x") == ("DisabledException", f"{arn(key)} is disabled.", 400)
    kms.enable_key(KeyId=key)
    kms.enable_key(KeyId=key)
    kms.encrypt(KeyId=key, Plaintext=b"x")
    kms.update_key_description(KeyId=key, Description="other")
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["Description"] == "other"


def test_deletion_and_its_end(kms: Kms) -> None:
    key = fresh(kms)
    gone = kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    assert (gone["KeyId"], gone["KeyState"], gone["PendingWindowInDays"]) == (arn(key), "PendingDeletion", 7)
    assert abs(gone["DeletionDate"] - datetime.now(UTC) - timedelta(days=7)) < timedelta(minutes=1)
    pending = f"{arn(key)} is pending deletion."
    assert error(kms.encrypt, KeyId=key, Plaintext=b"x") == ("KMSInvalidStateException", pending, 400)
    assert code(kms.tag_resource, KeyId=key, Tags=[{"TagKey": "a", "TagValue": "b"}]) == "KMSInvalidStateException"
    assert code(kms.schedule_key_deletion, KeyId=key) == "KMSInvalidStateException"
    assert code(kms.enable_key, KeyId=key) == "KMSInvalidStateException"
    assert kms.cancel_key_deletion(KeyId=key)["KeyId"] == arn(key)
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Disabled"
    not_pending = ("KMSInvalidStateException", f"{arn(key)} is not pending deletion.", 400)
    assert error(kms.cancel_key_deletion, KeyId=key) == not_pending
    assert code(kms.schedule_key_deletion, KeyId=key, PendingWindowInDays=31) == "ValidationException"


def as_ansible_reads(kms: Kms, key: str) -> dict[str, Any]:
    """What amazon.aws.kms_key asks of a key each time that it runs, by the same calls."""
    found: dict[str, Any] = kms.describe_key(KeyId=key)["KeyMetadata"]
    key_id = found["KeyId"]
    aliases = [one for page in kms.get_paginator("list_aliases").paginate() for one in page["Aliases"]]
    found["aliases"] = [one["AliasName"] for one in aliases if one.get("TargetKeyId") == key_id]
    found["rotates"] = kms.get_key_rotation_status(KeyId=key_id)["KeyRotationEnabled"]
    pages = kms.get_paginator("list_grants").paginate(KeyId=found["Arn"])
    found["grants"] = [one["Name"] for page in pages for one in page["Grants"]]
    pages = kms.get_paginator("list_resource_tags").paginate(KeyId=key_id)
    found["tags"] = {one["TagKey"]: one["TagValue"] for page in pages for one in page["Tags"]}
    names = kms.list_key_policies(KeyId=key_id)["PolicyNames"]
    found["policies"] = [json.loads(kms.get_key_policy(KeyId=key_id, PolicyName=one)["Policy"]) for one in names]
    return found


def test_absent_and_present_again_as_ansible_does_it(kms: Kms) -> None:
    alias, tags = alias_name(), [{"TagKey": "team", "TagValue": "shop"}]
    key = fresh(kms, Tags=tags)
    kms.create_alias(AliasName=alias, TargetKeyId=key)
    kms.enable_key_rotation(KeyId=key)
    kms.create_grant(KeyId=key, GranteePrincipal=user("shop"), Operations=["Encrypt"], Name="orders")
    before = as_ansible_reads(kms, alias)
    assert (before["KeyState"], before["rotates"], before["grants"]) == ("Enabled", True, ["orders"])
    # `state: absent`, twice
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    for _ in range(2):
        gone = as_ansible_reads(kms, alias)
        assert (gone["KeyState"], gone["rotates"], gone["aliases"]) == ("PendingDeletion", False, [alias])
        assert (gone["grants"], gone["tags"], gone["policies"]) == (["orders"], before["tags"], before["policies"])
    # `state: present`
    kms.cancel_key_deletion(KeyId=key)
    assert as_ansible_reads(kms, alias)["KeyState"] == "Disabled"
    kms.enable_key(KeyId=key)
    kms.update_key_description(KeyId=key, Description="again")
    kms.tag_resource(KeyId=key, Tags=tags)
    after = as_ansible_reads(kms, alias)
    assert after == before | {"Description": "again"}
    blob = kms.encrypt(KeyId=alias, Plaintext=b"x")["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == b"x"


def test_what_is_not_there(kms: Kms) -> None:
    missing = f"Key '{arn(ABSENT)}' does not exist"
    assert error(kms.describe_key, KeyId=ABSENT) == ("NotFoundException", missing, 400)
    assert error(kms.describe_key, KeyId="nonsense") == ("NotFoundException", "Invalid keyId 'nonsense'", 400)
    elsewhere = arn(ABSENT, "us-east-1")
    assert error(kms.describe_key, KeyId=elsewhere) == ("NotFoundException", "Invalid arn us-east-1", 400)
    absent = f"Alias arn:aws:kms:{REGION}:{ACCOUNT}:alias/none is not found."
    assert error(kms.describe_key, KeyId="alias/none") == ("NotFoundException", absent, 400)
    assert code(kms.describe_key, KeyId="arn:aws:s3:::bucket") == "InvalidArnException"


def test_a_region_is_a_namespace(kms: Kms, served: Served) -> None:
    key, name = fresh(kms), alias_name()
    kms.create_alias(AliasName=name, TargetKeyId=key)
    other = client(served, issue(served, "admin"), "ap-southeast-2")
    assert code(other.describe_key, KeyId=key) == "NotFoundException"
    assert code(other.describe_key, KeyId=name) == "NotFoundException"
    assert key not in {one["KeyId"] for one in other.list_keys()["Keys"]}
    made = other.create_key()["KeyMetadata"]
    other.create_alias(AliasName=name, TargetKeyId=made["KeyId"])
    assert other.describe_key(KeyId=name)["KeyMetadata"]["Arn"] == arn(made["KeyId"], "ap-southeast-2")
    sealed = kms.encrypt(KeyId=name, Plaintext=b"x")["CiphertextBlob"]
    assert code(other.decrypt, CiphertextBlob=sealed) == "InvalidCiphertextException"


def test_keys_of_the_native_api_are_in_every_region(kms: Kms, served: Served) -> None:
    made = served.ask("POST", "/keys", {"name": "native-for-aws", "type": "AES", "purpose": "ENCRYPT"}).body
    name = alias_name()
    kms.create_alias(AliasName=name, TargetKeyId=made["id"])
    sealed = kms.encrypt(KeyId=name, Plaintext=b"x")["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"x"
    shown = served.ask("GET", "/keys/native-for-aws").body
    assert shown["aliases"] == [f"aws:{REGION}/{name}"]
    assert shown["spec"] is None


def test_the_native_api_shows_what_it_does_not_make(kms: Kms, served: Served) -> None:
    key = fresh(kms, "ECC_SECG_P256K1", "SIGN_VERIFY")
    shown = served.ask("GET", f"/keys/{key}").body
    assert (shown["name"], shown["spec"], shown["purpose"]) == (None, "ECC_SECG_P256K1", "SIGN")
    assert served.ask("POST", f"/keys/{key}/sign", {"message": "x"}).status == 422
    assert served.ask("GET", f"/keys/{key}/public-key").status == 422
    small = fresh(kms, "RSA_2048")
    assert served.ask("POST", f"/keys/{small}/encrypt", {"plaintext": "x"}).status == 422
    assert served.ask("POST", f"/keys/{small}/rotate").status == 422
    assert served.ask("POST", "/keys", {"type": "RSA", "size": 2048, "purpose": "SIGN"}).status == 422
    assert served.ask("POST", "/keys", {"type": "SECP256K1", "purpose": "SIGN"}).status == 422


# Aliases, tags, policies


def test_aliases(kms: Kms) -> None:
    one, two, name = fresh(kms), fresh(kms), alias_name()
    kms.create_alias(AliasName=name, TargetKeyId=one)
    assert code(kms.create_alias, AliasName=name, TargetKeyId=two) == "AlreadyExistsException"
    sealed = kms.encrypt(KeyId=name, Plaintext=b"before")
    assert sealed["KeyId"] == arn(one)
    kms.update_alias(AliasName=name, TargetKeyId=two)
    assert kms.encrypt(KeyId=f"arn:aws:kms:{REGION}:{ACCOUNT}:{name}", Plaintext=b"x")["KeyId"] == arn(two)
    assert kms.decrypt(CiphertextBlob=sealed["CiphertextBlob"])["Plaintext"] == b"before"
    entry = kms.list_aliases(KeyId=two)["Aliases"][0]
    assert (entry["AliasName"], entry["TargetKeyId"]) == (name, two)
    assert entry["LastUpdatedDate"] > entry["CreationDate"]
    assert kms.list_aliases(KeyId=one)["Aliases"] == []
    assert name in {
        one["AliasName"] for page in kms.get_paginator("list_aliases").paginate() for one in page["Aliases"]
    }
    kms.delete_alias(AliasName=name)
    assert code(kms.delete_alias, AliasName=name) == "NotFoundException"
    assert code(kms.encrypt, KeyId=name, Plaintext=b"x") == "NotFoundException"
    kms.create_alias(AliasName=name, TargetKeyId=one)
    kms.delete_alias(AliasName=name)


def test_aliases_that_cannot_be(kms: Kms, aes: str) -> None:
    assert code(kms.create_alias, AliasName="alias/aws/s3", TargetKeyId=aes) == "NotAuthorizedException"
    assert code(kms.create_alias, AliasName="noprefix", TargetKeyId=aes) == "ValidationException"
    assert code(kms.create_alias, AliasName="alias/no space", TargetKeyId=aes) == "ValidationException"
    for target in ("alias/other", "arn:aws:kms:eu-central-1:000000000000:alias/other"):
        assert error(kms.create_alias, AliasName=alias_name(), TargetKeyId=target) == (
            "ValidationException",
            "Aliases must refer to keys. Not aliases",
            400,
        )
    assert code(kms.delete_alias, AliasName="alias/aws/s3") == "NotAuthorizedException"
    assert code(kms.update_alias, AliasName="alias/absent", TargetKeyId=aes) == "NotFoundException"
    name = alias_name()
    kms.create_alias(AliasName=name, TargetKeyId=aes)
    mac = fresh(kms, "HMAC_256", "GENERATE_VERIFY_MAC")
    assert code(kms.update_alias, AliasName=name, TargetKeyId=mac) == "ValidationException"


def test_what_takes_no_alias(kms: Kms, aes: str) -> None:
    name = alias_name()
    kms.create_alias(AliasName=name, TargetKeyId=aes)
    for call, more in {
        kms.get_key_rotation_status: {},
        kms.list_resource_tags: {},
        kms.get_key_policy: {},
        kms.disable_key: {},
        kms.get_key_last_usage: {},
        kms.untag_resource: {"TagKeys": ["a"]},
    }.items():
        assert code(call, KeyId=name, **more) == "NotFoundException"


def test_tags(kms: Kms) -> None:
    key = fresh(kms, Tags=[{"TagKey": "a", "TagValue": "1"}])
    kms.tag_resource(KeyId=key, Tags=[{"TagKey": "a", "TagValue": "2"}, {"TagKey": "b", "TagValue": ""}])
    listed = kms.list_resource_tags(KeyId=key)
    assert listed["Tags"] == [{"TagKey": "a", "TagValue": "2"}, {"TagKey": "b", "TagValue": ""}]
    assert listed["Truncated"] is False
    first = kms.list_resource_tags(KeyId=key, Limit=1)
    assert first["Truncated"] is True
    rest = kms.list_resource_tags(KeyId=key, Limit=1, Marker=first["NextMarker"])
    assert [tag["TagKey"] for tag in rest["Tags"]] == ["b"]
    kms.untag_resource(KeyId=key, TagKeys=["a", "absent"])
    assert [tag["TagKey"] for tag in kms.list_resource_tags(KeyId=key)["Tags"]] == ["b"]
    assert code(kms.tag_resource, KeyId=key, Tags=[{"TagKey": "aws:x", "TagValue": ""}]) == "TagException"
    double = [{"TagKey": "a", "TagValue": "1"}, {"TagKey": "a", "TagValue": "2"}]
    assert code(kms.tag_resource, KeyId=key, Tags=double) == "TagException"
    many = [{"TagKey": f"k{number}", "TagValue": ""} for number in range(51)]
    assert code(kms.tag_resource, KeyId=key, Tags=many) == "TagException"


def allow(principal: str | dict[str, Any], action: str | list[str] = "kms:*", **more: object) -> dict[str, Any]:
    return {"Effect": "Allow", "Principal": principal, "Action": action, "Resource": "*", **more}


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


ROOT = {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}


def test_policies_are_kept_and_checked(kms: Kms) -> None:
    key = fresh(kms)
    default = json.loads(kms.get_key_policy(KeyId=key)["Policy"])
    assert (default["Id"], default["Statement"][0]["Principal"]) == ("key-default-1", ROOT)
    kms.put_key_policy(KeyId=key, Policy=policy(allow(ROOT)))
    assert kms.get_key_policy(KeyId=key, PolicyName="default") | {"ResponseMetadata": None} == {
        "Policy": policy(allow(ROOT)),
        "PolicyName": "default",
        "ResponseMetadata": None,
    }
    assert kms.list_key_policies(KeyId=key)["PolicyNames"] == ["default"]
    for bad in ("nonsense", "{}", policy({"Effect": "Allow", "Action": "kms:*", "Resource": "*"})):
        assert code(kms.put_key_policy, KeyId=key, Policy=bad) == "MalformedPolicyDocumentException"
    locked = policy(allow({"AWS": user("somebody-else")}))
    assert code(kms.put_key_policy, KeyId=key, Policy=locked) == "MalformedPolicyDocumentException"
    kms.put_key_policy(KeyId=key, Policy=locked, BypassPolicyLockoutSafetyCheck=True)
    assert code(kms.encrypt, KeyId=key, Plaintext=b"x") == "AccessDeniedException"
    kms.put_key_policy(KeyId=key, Policy=policy(allow(ROOT)))
    kms.encrypt(KeyId=key, Plaintext=b"x")
    none = ("NotFoundException", "No such policy exists", 400)
    assert error(kms.get_key_policy, KeyId=key, PolicyName="other") == none
    assert error(kms.put_key_policy, KeyId=key, PolicyName="other", Policy="{}") == none


def test_a_denial_wins(kms: Kms) -> None:
    deny = {
        **allow("*", "kms:Decrypt"),
        "Effect": "Deny",
        "Condition": {"StringEquals": {"kms:EncryptionContext:a": "1"}},
    }
    key = fresh(kms, Policy=policy(allow(ROOT), deny))
    for context in ({"a": "1"}, {"a": "2"}):
        sealed = kms.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext=context)["CiphertextBlob"]
        if context["a"] == "1":
            assert code(kms.decrypt, CiphertextBlob=sealed, EncryptionContext=context) == "AccessDeniedException"
        else:
            assert kms.decrypt(CiphertextBlob=sealed, EncryptionContext=context)["Plaintext"] == b"x"


# Encryption


def test_encryption_and_its_context(kms: Kms, aes: str) -> None:
    context = {"tenant": "Ärzte", "a": ""}
    sealed = kms.encrypt(KeyId=aes, Plaintext=b"attack at dawn", EncryptionContext=context)
    assert (sealed["KeyId"], sealed["EncryptionAlgorithm"]) == (arn(aes), "SYMMETRIC_DEFAULT")
    opened = kms.decrypt(CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext=dict(reversed(context.items())))
    assert (opened["Plaintext"], opened["KeyId"]) == (b"attack at dawn", arn(aes))
    assert opened["KeyMaterialId"] == kms.describe_key(KeyId=aes)["KeyMetadata"]["CurrentKeyMaterialId"]
    for wrong in ({}, {"tenant": "ärzte", "a": ""}, {"tenant": "Ärzte"}, {"tenant": "Ärzte", "a": "", "b": ""}):
        name, message, status = error(kms.decrypt, CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext=wrong)
        assert (name, message, status) == ("InvalidCiphertextException", "", 400)


def test_contexts_that_a_sloppy_encoding_mixes_up(kms: Kms, aes: str) -> None:
    sealed = kms.encrypt(KeyId=aes, Plaintext=b"x", EncryptionContext={"ab": "c"})["CiphertextBlob"]
    for other in ({"a": "bc"}, {"a": "b", "c": ""}, {"abc": ""}, {"": "abc"}):
        assert code(kms.decrypt, CiphertextBlob=sealed, EncryptionContext=other) == "InvalidCiphertextException"
    empty = kms.encrypt(KeyId=aes, Plaintext=b"x", EncryptionContext={})["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=empty)["Plaintext"] == b"x"


def test_damaged_and_foreign_ciphertexts(kms: Kms, aes: str) -> None:
    sealed = kms.encrypt(KeyId=aes, Plaintext=b"x")["CiphertextBlob"]
    for place in (0, 1, 2, 5, 40, 100, len(sealed) // 2, len(sealed) - 1):
        damaged = bytearray(sealed)
        damaged[place] ^= 1
        assert code(kms.decrypt, CiphertextBlob=bytes(damaged), KeyId=aes) in {
            "InvalidCiphertextException",
            "IncorrectKeyException",
        }
    assert code(kms.decrypt, CiphertextBlob=sealed[:-1]) == "InvalidCiphertextException"
    assert code(kms.decrypt, CiphertextBlob=b"foreign") == "InvalidCiphertextException"
    assert code(kms.decrypt, CiphertextBlob=sealed, KeyId=fresh(kms)) == "IncorrectKeyException"
    assert kms.decrypt(CiphertextBlob=sealed, KeyId=aes)["Plaintext"] == b"x"
    assert code(kms.decrypt, CiphertextBlob=sealed, KeyId=ABSENT) == "NotFoundException"


def test_limits(kms: Kms, aes: str) -> None:
    kms.encrypt(KeyId=aes, Plaintext=b"x", EncryptionContext={"a": "x" * 8191})
    assert code(kms.encrypt, KeyId=aes, Plaintext=b"x", EncryptionContext={"a": "x" * 8192}) == "ValidationException"
    largest = os.urandom(4096)
    assert (
        kms.decrypt(CiphertextBlob=kms.encrypt(KeyId=aes, Plaintext=largest)["CiphertextBlob"])["Plaintext"] == largest
    )
    name, message, _ = error(kms.encrypt, KeyId=aes, Plaintext=largest + b"x")
    assert name == "ValidationException"
    assert message == (
        "1 validation error detected: Value 'java.nio.HeapByteBuffer[pos=0 lim=4097 cap=4097]' at 'plaintext' failed "
        "to satisfy constraint: Member must have length less than or equal to 4096"
    )


@pytest.mark.parametrize(("size", "sha1", "sha256"), [(2048, 214, 190), (3072, 342, 318), (4096, 470, 446)])
def test_rsa_encryption(kms: Kms, size: int, sha1: int, sha256: int) -> None:
    key = fresh(kms, f"RSA_{size}")
    public = load_der_public_key(kms.get_public_key(KeyId=key)["PublicKey"])
    assert isinstance(public, rsa.RSAPublicKey)
    for algorithm, digest, largest in (
        ("RSAES_OAEP_SHA_1", hashes.SHA1(), sha1),
        ("RSAES_OAEP_SHA_256", hashes.SHA256(), sha256),
    ):
        plain = os.urandom(largest)
        sealed = kms.encrypt(KeyId=key, Plaintext=plain, EncryptionAlgorithm=algorithm)
        assert len(sealed["CiphertextBlob"]) == size // 8
        opened = kms.decrypt(KeyId=key, CiphertextBlob=sealed["CiphertextBlob"], EncryptionAlgorithm=algorithm)
        assert opened["Plaintext"] == plain
        assert "KeyMaterialId" not in opened
        foreign = public.encrypt(b"made outside", padding.OAEP(padding.MGF1(digest), digest, None))
        assert (
            kms.decrypt(KeyId=key, CiphertextBlob=foreign, EncryptionAlgorithm=algorithm)["Plaintext"]
            == b"made outside"
        )
        refused = error(kms.encrypt, KeyId=key, Plaintext=plain + b"x", EncryptionAlgorithm=algorithm)
        assert refused[0] == "ValidationException"
        assert f"cannot encrypt data larger than {largest} bytes" in refused[1]
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    outside = public.encrypt(b"x", oaep)
    assert code(kms.encrypt, KeyId=key, Plaintext=b"x") == "InvalidKeyUsageException"
    assert code(kms.decrypt, KeyId=key, CiphertextBlob=outside) == "InvalidKeyUsageException"
    wrong = {"KeyId": key, "CiphertextBlob": outside, "EncryptionAlgorithm": "RSAES_OAEP_SHA_1"}
    assert code(kms.decrypt, **wrong) == "InvalidCiphertextException"
    bound = {
        "KeyId": key,
        "Plaintext": b"x",
        "EncryptionAlgorithm": "RSAES_OAEP_SHA_256",
        "EncryptionContext": {"a": "b"},
    }
    assert code(kms.encrypt, **bound) == "ValidationException"


def test_re_encryption(kms: Kms, aes: str) -> None:
    other = fresh(kms)
    sealed = kms.encrypt(KeyId=aes, Plaintext=b"x", EncryptionContext={"a": "1"})["CiphertextBlob"]
    moved = kms.re_encrypt(
        CiphertextBlob=sealed,
        SourceEncryptionContext={"a": "1"},
        DestinationKeyId=other,
        DestinationEncryptionContext={"b": "2"},
    )
    assert (moved["SourceKeyId"], moved["KeyId"]) == (arn(aes), arn(other))
    assert moved["SourceKeyMaterialId"] != moved["DestinationKeyMaterialId"]
    assert kms.decrypt(CiphertextBlob=moved["CiphertextBlob"], EncryptionContext={"b": "2"})["Plaintext"] == b"x"
    assert code(kms.re_encrypt, CiphertextBlob=sealed, DestinationKeyId=other) == "InvalidCiphertextException"
    wrong = {
        "CiphertextBlob": sealed,
        "SourceKeyId": other,
        "DestinationKeyId": aes,
        "SourceEncryptionContext": {"a": "1"},
    }
    assert code(kms.re_encrypt, **wrong) == "IncorrectKeyException"
    absent = ("NotFoundException", f"Key '{arn(ABSENT)}' does not exist", 400)
    assert error(kms.re_encrypt, CiphertextBlob=sealed, DestinationKeyId=ABSENT) == absent
    rsa_key = fresh(kms, "RSA_2048")
    out = kms.re_encrypt(
        CiphertextBlob=sealed,
        SourceEncryptionContext={"a": "1"},
        DestinationKeyId=rsa_key,
        DestinationEncryptionAlgorithm="RSAES_OAEP_SHA_256",
    )
    assert "DestinationKeyMaterialId" not in out
    back = kms.re_encrypt(
        CiphertextBlob=out["CiphertextBlob"],
        SourceKeyId=rsa_key,
        SourceEncryptionAlgorithm="RSAES_OAEP_SHA_256",
        DestinationKeyId=aes,
    )
    assert kms.decrypt(CiphertextBlob=back["CiphertextBlob"])["Plaintext"] == b"x"


def test_data_keys(kms: Kms, aes: str) -> None:
    for members, size in (({"KeySpec": "AES_256"}, 32), ({"KeySpec": "AES_128"}, 16), ({"NumberOfBytes": 1024}, 1024)):
        made = kms.generate_data_key(KeyId=aes, EncryptionContext={"a": "1"}, **members)
        assert len(made["Plaintext"]) == size
        assert made["KeyId"] == arn(aes)
        opened = kms.decrypt(CiphertextBlob=made["CiphertextBlob"], EncryptionContext={"a": "1"})
        assert (opened["Plaintext"], opened["KeyMaterialId"]) == (made["Plaintext"], made["KeyMaterialId"])
    hidden = kms.generate_data_key_without_plaintext(KeyId=aes, KeySpec="AES_256")
    assert "Plaintext" not in hidden
    assert len(kms.decrypt(CiphertextBlob=hidden["CiphertextBlob"])["Plaintext"]) == 32
    assert code(kms.generate_data_key, KeyId=aes) == "ValidationException"
    assert code(kms.generate_data_key, KeyId=aes, KeySpec="AES_256", NumberOfBytes=1) == "ValidationException"
    assert code(kms.generate_data_key, KeyId=aes, NumberOfBytes=1025) == "ValidationException"
    assert code(kms.generate_data_key, KeyId=fresh(kms, "RSA_2048"), KeySpec="AES_256") == "InvalidKeyUsageException"


@pytest.mark.parametrize(
    "spec",
    [
        "RSA_2048",
        "ECC_NIST_P256",
        "ECC_NIST_P521",
        "ECC_SECG_P256K1",
        "ECC_NIST_EDWARDS25519",
        "ML_KEM_768",
        "ML_KEM_512",
    ],
)
def test_data_key_pairs(kms: Kms, aes: str, spec: str) -> None:
    made = kms.generate_data_key_pair(KeyId=aes, KeyPairSpec=spec, EncryptionContext={"a": "1"})
    assert made["KeyPairSpec"] == spec
    opened = kms.decrypt(CiphertextBlob=made["PrivateKeyCiphertextBlob"], EncryptionContext={"a": "1"})
    assert opened["Plaintext"] == made["PrivateKeyPlaintext"]
    if spec != "ML_KEM_512":  # the library has it not
        public = load_der_private_key(made["PrivateKeyPlaintext"], None).public_key()
        assert public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == made["PublicKey"]
    hidden = kms.generate_data_key_pair_without_plaintext(KeyId=aes, KeyPairSpec=spec)
    assert "PrivateKeyPlaintext" not in hidden
    assert code(kms.generate_data_key_pair, KeyId=aes, KeyPairSpec="SM2") == "UnsupportedOperationException"


def test_random(kms: Kms) -> None:
    assert len(kms.generate_random(NumberOfBytes=1024)["Plaintext"]) == 1024
    assert kms.generate_random(NumberOfBytes=32)["Plaintext"] != kms.generate_random(NumberOfBytes=32)["Plaintext"]
    assert code(kms.generate_random) == "ValidationException"
    assert code(kms.generate_random, NumberOfBytes=1, CustomKeyStoreId="cks-1") == "UnsupportedOperationException"


def test_an_enclave_is_refused(kms: Kms, aes: str) -> None:
    recipient = {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": b"document"}
    sealed = kms.encrypt(KeyId=aes, Plaintext=b"x")["CiphertextBlob"]
    agreed = fresh(kms, "ECC_NIST_P256", "KEY_AGREEMENT")
    peer = kms.get_public_key(KeyId=agreed)["PublicKey"]
    for call, members in (
        (kms.decrypt, {"CiphertextBlob": sealed}),
        (kms.generate_data_key, {"KeyId": aes, "KeySpec": "AES_256"}),
        (kms.generate_data_key_pair, {"KeyId": aes, "KeyPairSpec": "ECC_NIST_P256"}),
        (kms.generate_random, {"NumberOfBytes": 1}),
        (kms.derive_shared_secret, {"KeyId": agreed, "KeyAgreementAlgorithm": "ECDH", "PublicKey": peer}),
    ):
        assert code(call, Recipient=recipient, **members) == "UnsupportedOperationException"


# Signatures, MACs, shared secrets


HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


def verify_outside(public: Any, algorithm: str, message: bytes, signature: bytes) -> None:  # noqa: ANN401
    """Verify with the library what the service signed. Raises InvalidSignature."""
    digest = HASHES.get(algorithm[-3:], hashes.SHA256())
    if algorithm.startswith("RSASSA_PSS"):
        public.verify(signature, message, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    elif algorithm.startswith("RSASSA_PKCS1"):
        public.verify(signature, message, padding.PKCS1v15(), digest)
    elif algorithm.startswith("ECDSA"):
        public.verify(signature, message, ec.ECDSA(digest))
    else:
        public.verify(signature, message)


@pytest.mark.parametrize(
    "spec",
    [
        "RSA_2048",
        "RSA_3072",
        "ECC_NIST_P256",
        "ECC_NIST_P384",
        "ECC_NIST_P521",
        "ECC_SECG_P256K1",
        "ECC_NIST_EDWARDS25519",
        "ML_DSA_44",
        "ML_DSA_65",
        "ML_DSA_87",
    ],
)
def test_signatures_hold_outside(kms: Kms, spec: str) -> None:
    key = fresh(kms, spec, "SIGN_VERIFY")
    published = kms.get_public_key(KeyId=key)
    assert (published["KeyId"], published["KeySpec"], published["KeyUsage"]) == (arn(key), spec, "SIGN_VERIFY")
    public = load_der_public_key(published["PublicKey"])
    for algorithm in published["SigningAlgorithms"]:
        if algorithm == "ED25519_PH_SHA_512":
            continue
        message = os.urandom(100)
        made = kms.sign(KeyId=key, Message=message, SigningAlgorithm=algorithm)
        assert (made["KeyId"], made["SigningAlgorithm"]) == (arn(key), algorithm)
        verify_outside(public, algorithm, message, made["Signature"])
        asked = {"KeyId": key, "SigningAlgorithm": algorithm, "Signature": made["Signature"]}
        assert kms.verify(Message=message, **asked)["SignatureValid"] is True
        assert error(kms.verify, Message=b"other", **asked) == ("KMSInvalidSignatureException", "", 400)
        if "SHA_" in algorithm and "ED25519" not in algorithm:
            digest = hashlib.new(f"sha{algorithm[-3:]}", message).digest()
            assert kms.verify(Message=digest, MessageType="DIGEST", **asked)["SignatureValid"]
            again = kms.sign(KeyId=key, Message=digest, MessageType="DIGEST", SigningAlgorithm=algorithm)["Signature"]
            verify_outside(public, algorithm, message, again)
            short = {"Message": digest[:-1], "MessageType": "DIGEST"}
            assert code(kms.sign, KeyId=key, SigningAlgorithm=algorithm, **short) == "ValidationException"
    other = "ECDSA_SHA_256" if spec not in {"ECC_NIST_P256", "ECC_SECG_P256K1"} else "ECDSA_SHA_384"
    assert code(kms.sign, KeyId=key, Message=b"x", SigningAlgorithm=other) == "InvalidKeyUsageException"


def test_ed25519ph_hashes_once_more(kms: Kms) -> None:
    key = fresh(kms, "ECC_NIST_EDWARDS25519", "SIGN_VERIFY")
    digest = hashlib.sha512(b"message").digest()
    asked = {"KeyId": key, "Message": digest, "MessageType": "DIGEST", "SigningAlgorithm": "ED25519_PH_SHA_512"}
    signature = kms.sign(**asked)["Signature"]
    assert kms.verify(Signature=signature, **asked)["SignatureValid"]
    eddsa = pytest.importorskip("Crypto.Signature.eddsa")
    sha512 = pytest.importorskip("Crypto.Hash.SHA512")
    raw = load_der_public_key(kms.get_public_key(KeyId=key)["PublicKey"])
    assert isinstance(raw, ed25519.Ed25519PublicKey)
    eddsa.new(eddsa.import_public_key(raw.public_bytes_raw()), "rfc8032").verify(sha512.new(digest), signature)
    assert code(kms.sign, **{**asked, "MessageType": "RAW"}) == "ValidationException"
    assert code(kms.sign, **{**asked, "SigningAlgorithm": "ED25519_SHA_512"}) == "ValidationException"
    assert code(kms.sign, **{**asked, "Message": digest[:32]}) == "ValidationException"


def test_an_external_mu(kms: Kms) -> None:
    key = fresh(kms, "ML_DSA_65", "SIGN_VERIFY")
    public = load_der_public_key(kms.get_public_key(KeyId=key)["PublicKey"])
    assert isinstance(public, mldsa.MLDSA65PublicKey)
    # mu = SHAKE256(SHAKE256(pk, 64) | 00 | len(context) | context | message, 64): FIPS 204, algorithms 2 and 7
    tr = hashlib.shake_256(public.public_bytes_raw()).digest(64)
    mu = hashlib.shake_256(tr + b"\x00\x00" + b"message").digest(64)
    asked = {"KeyId": key, "SigningAlgorithm": "ML_DSA_SHAKE_256"}
    signature = kms.sign(Message=mu, MessageType="EXTERNAL_MU", **asked)["Signature"]
    public.verify(signature, b"message")
    assert kms.verify(Message=b"message", Signature=signature, **asked)["SignatureValid"]
    assert kms.verify(Message=mu, MessageType="EXTERNAL_MU", Signature=signature, **asked)["SignatureValid"]
    assert code(kms.sign, Message=mu[:-1], MessageType="EXTERNAL_MU", **asked) == "ValidationException"
    assert code(kms.sign, Message=mu, MessageType="DIGEST", **asked) == "ValidationException"


@pytest.mark.parametrize("size", [224, 256, 384, 512])
def test_macs(kms: Kms, size: int) -> None:
    key = fresh(kms, f"HMAC_{size}", "GENERATE_VERIFY_MAC")
    algorithm = f"HMAC_SHA_{size}"
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["MacAlgorithms"] == [algorithm]
    made = kms.generate_mac(KeyId=key, Message=b"message", MacAlgorithm=algorithm)
    assert len(made["Mac"]) == size // 8
    asked = {"KeyId": key, "MacAlgorithm": algorithm, "Mac": made["Mac"]}
    assert kms.verify_mac(Message=b"message", **asked)["MacValid"] is True
    assert error(kms.verify_mac, Message=b"other", **asked) == ("KMSInvalidMacException", "", 400)
    wrong = "HMAC_SHA_256" if size != 256 else "HMAC_SHA_512"
    assert code(kms.generate_mac, KeyId=key, Message=b"x", MacAlgorithm=wrong) == "InvalidKeyUsageException"
    name, message, _ = error(kms.generate_mac, KeyId=key, Message=b"x", MacAlgorithm="HMAC_SHA_1")
    assert name == "ValidationException"
    assert "enum value set: [HMAC_SHA_384, HMAC_SHA_256, HMAC_SHA_224, HMAC_SHA_512]" in message


def test_usages_do_not_mix(kms: Kms, aes: str) -> None:
    name, message, _ = error(kms.sign, KeyId=aes, Message=b"x", SigningAlgorithm="ECDSA_SHA_256")
    assert name == "InvalidKeyUsageException"
    assert message == f"{arn(aes)} key usage is ENCRYPT_DECRYPT which is not valid for Sign."
    assert code(kms.get_public_key, KeyId=aes) == "UnsupportedOperationException"
    assert code(kms.generate_mac, KeyId=aes, Message=b"x", MacAlgorithm="HMAC_SHA_256") == "InvalidKeyUsageException"
    signing = fresh(kms, "ECC_NIST_P256", "SIGN_VERIFY")
    assert code(kms.encrypt, KeyId=signing, Plaintext=b"x") == "InvalidKeyUsageException"


@pytest.mark.parametrize(("size", "curve"), [(256, ec.SECP256R1()), (384, ec.SECP384R1()), (521, ec.SECP521R1())])
def test_shared_secrets(kms: Kms, size: int, curve: ec.EllipticCurve) -> None:
    key = fresh(kms, f"ECC_NIST_P{size}", "KEY_AGREEMENT")
    published = kms.get_public_key(KeyId=key)
    assert published["KeyAgreementAlgorithms"] == ["ECDH"]
    public = load_der_public_key(published["PublicKey"])
    assert isinstance(public, ec.EllipticCurvePublicKey)
    mine = ec.generate_private_key(curve)
    peer = mine.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    derived = kms.derive_shared_secret(KeyId=key, KeyAgreementAlgorithm="ECDH", PublicKey=peer)
    assert derived["SharedSecret"] == mine.exchange(ec.ECDH(), public)
    assert derived["KeyOrigin"] == "AWS_KMS"
    for bad in (
        b"nonsense",
        ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    ):
        assert (
            code(kms.derive_shared_secret, KeyId=key, KeyAgreementAlgorithm="ECDH", PublicKey=bad)
            == "ValidationException"
        )
    assert code(kms.sign, KeyId=key, Message=b"x", SigningAlgorithm="ECDSA_SHA_256") == "InvalidKeyUsageException"


@pytest.mark.parametrize(("size", "length"), [(512, 768), (768, 1088), (1024, 1568)])
def test_encapsulation(kms: Kms, size: int, length: int) -> None:
    key = fresh(kms, f"ML_KEM_{size}", "ENCAPSULATE_DECAPSULATE")
    made = kms.encapsulate(KeyId=key, EncapsulationAlgorithm="ML_KEM")
    sealed = made["SharedSecretCiphertextBlob"]
    assert (len(sealed), len(made["SharedSecret"])) == (length, 32)
    asked = {"KeyId": key, "EncapsulationAlgorithm": "ML_KEM"}
    assert kms.decapsulate(SharedSecretCiphertextBlob=sealed, **asked)["SharedSecret"] == made["SharedSecret"]
    rejected = kms.decapsulate(SharedSecretCiphertextBlob=bytes(length), **asked)["SharedSecret"]
    assert (len(rejected), rejected == made["SharedSecret"]) == (32, False)
    assert code(kms.decapsulate, SharedSecretCiphertextBlob=sealed[:-1], **asked) == "InvalidCiphertextException"
    published = kms.get_public_key(KeyId=key)
    assert published["EncapsulationAlgorithms"] == ["ML_KEM"]
    if size != 512:
        public = load_der_public_key(published["PublicKey"])
        assert isinstance(public, (mlkem.MLKEM768PublicKey, mlkem.MLKEM1024PublicKey))
        secret, sealed = public.encapsulate()
        assert kms.decapsulate(SharedSecretCiphertextBlob=sealed, **asked)["SharedSecret"] == secret


# Rotation


def test_rotation_keeps_old_ciphertexts(kms: Kms) -> None:
    key = fresh(kms)
    before = kms.encrypt(KeyId=key, Plaintext=b"before")["CiphertextBlob"]
    first = kms.describe_key(KeyId=key)["KeyMetadata"]["CurrentKeyMaterialId"]
    assert kms.rotate_key_on_demand(KeyId=key)["KeyId"] == arn(key)
    second = kms.describe_key(KeyId=key)["KeyMetadata"]["CurrentKeyMaterialId"]
    after = kms.encrypt(KeyId=key, Plaintext=b"after")["CiphertextBlob"]
    opened = kms.decrypt(CiphertextBlob=before)
    assert (opened["Plaintext"], opened["KeyMaterialId"]) == (b"before", first)
    assert kms.decrypt(CiphertextBlob=after)["KeyMaterialId"] == second != first
    rotations = kms.list_key_rotations(KeyId=key)["Rotations"]
    assert [(one["RotationType"], one["KeyMaterialId"]) for one in rotations] == [("ON_DEMAND", second)]
    everything = kms.list_key_rotations(KeyId=key, IncludeKeyMaterial="ALL_KEY_MATERIAL")["Rotations"]
    assert [one["KeyMaterialState"] for one in everything] == ["NON_CURRENT", "CURRENT"]


def test_rotation_by_period(kms: Kms, aes: str) -> None:
    assert kms.get_key_rotation_status(KeyId=aes)["KeyRotationEnabled"] is False
    kms.enable_key_rotation(KeyId=aes)
    assert kms.get_key_rotation_status(KeyId=aes)["RotationPeriodInDays"] == 365
    kms.enable_key_rotation(KeyId=aes, RotationPeriodInDays=90)
    status = kms.get_key_rotation_status(KeyId=aes)
    assert (status["KeyRotationEnabled"], status["RotationPeriodInDays"]) == (True, 90)
    assert abs(status["NextRotationDate"] - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=1)
    kms.disable_key_rotation(KeyId=aes)
    assert "NextRotationDate" not in kms.get_key_rotation_status(KeyId=aes)
    assert code(kms.enable_key_rotation, KeyId=aes, RotationPeriodInDays=2561) == "ValidationException"
    assert code(kms.enable_key_rotation, KeyId=fresh(kms, "RSA_2048")) == "UnsupportedOperationException"
    assert code(kms.rotate_key_on_demand, KeyId=fresh(kms, "HMAC_256", "GENERATE_VERIFY_MAC")) == (
        "UnsupportedOperationException"
    )


def test_rotation_on_demand_has_an_end(kms: Kms) -> None:
    key = fresh(kms)
    for _ in range(25):
        kms.rotate_key_on_demand(KeyId=key)
    assert code(kms.rotate_key_on_demand, KeyId=key) == "LimitExceededException"


# Imported material


def wrap(parameters: dict[str, Any], raw: bytes, algorithm: str) -> bytes:
    public = load_der_public_key(parameters["PublicKey"])
    assert isinstance(public, rsa.RSAPublicKey)
    digest = hashes.SHA1() if algorithm.endswith("SHA_1") else hashes.SHA256()
    oaep = padding.OAEP(padding.MGF1(digest), digest, None)
    if algorithm.startswith("RSAES"):
        return public.encrypt(raw, oaep)
    key = os.urandom(32)
    return public.encrypt(key, oaep) + aes_key_wrap_with_padding(key, raw)


def bring(kms: Kms, key: str, raw: bytes, algorithm: str = "RSAES_OAEP_SHA_256", **more: object) -> dict[str, Any]:
    parameters = kms.get_parameters_for_import(KeyId=key, WrappingAlgorithm=algorithm, WrappingKeySpec="RSA_2048")
    more.setdefault("ExpirationModel", "KEY_MATERIAL_DOES_NOT_EXPIRE")
    brought: dict[str, Any] = kms.import_key_material(
        KeyId=key,
        ImportToken=parameters["ImportToken"],
        EncryptedKeyMaterial=wrap(parameters, raw, algorithm),
        **more,
    )
    return brought


def test_imported_symmetric_material(kms: Kms) -> None:
    made = kms.create_key(Origin="EXTERNAL")["KeyMetadata"]
    key, raw = made["KeyId"], os.urandom(32)
    assert (made["KeyState"], made["Enabled"]) == ("PendingImport", False)
    waiting = f"{arn(key)} is pending import."
    assert error(kms.encrypt, KeyId=key, Plaintext=b"x") == ("KMSInvalidStateException", waiting, 400)
    first = bring(kms, key, raw, "RSAES_OAEP_SHA_1")
    shown = kms.describe_key(KeyId=key)["KeyMetadata"]
    assert (shown["KeyState"], shown["ExpirationModel"]) == ("Enabled", "KEY_MATERIAL_DOES_NOT_EXPIRE")
    assert shown["CurrentKeyMaterialId"] == first["KeyMaterialId"]
    sealed = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    assert kms.delete_imported_key_material(KeyId=key)["KeyMaterialId"] == first["KeyMaterialId"]
    assert code(kms.decrypt, CiphertextBlob=sealed) == "KMSInvalidStateException"
    with pytest.raises(kms.exceptions.IncorrectKeyMaterialException):
        bring(kms, key, os.urandom(32))
    assert bring(kms, key, raw)["KeyMaterialId"] == first["KeyMaterialId"]
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"x"
    assert code(kms.enable_key_rotation, KeyId=key) == "UnsupportedOperationException"


def test_new_material_waits_for_a_rotation(kms: Kms) -> None:
    key = kms.create_key(Origin="EXTERNAL")["KeyMetadata"]["KeyId"]
    first = bring(kms, key, os.urandom(32))["KeyMaterialId"]
    sealed = kms.encrypt(KeyId=key, Plaintext=b"old")["CiphertextBlob"]
    assert code(kms.rotate_key_on_demand, KeyId=key) == "KMSInvalidStateException"
    second = bring(kms, key, os.urandom(32), ImportType="NEW_KEY_MATERIAL", KeyMaterialDescription="next")[
        "KeyMaterialId"
    ]
    with pytest.raises(kms.exceptions.KMSInvalidStateException):
        bring(kms, key, os.urandom(32), ImportType="NEW_KEY_MATERIAL")
    listed = kms.list_key_rotations(KeyId=key, IncludeKeyMaterial="ALL_KEY_MATERIAL")["Rotations"]
    assert [(one["KeyMaterialId"], one["KeyMaterialState"]) for one in listed] == [
        (first, "CURRENT"),
        (second, "PENDING_ROTATION"),
    ]
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["CurrentKeyMaterialId"] == first
    kms.rotate_key_on_demand(KeyId=key)
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["CurrentKeyMaterialId"] == second
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"old"
    kms.delete_imported_key_material(KeyId=key, KeyMaterialId=first)
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "PendingImport"


def test_material_that_expires(kms: Kms) -> None:
    key = kms.create_key(Origin="EXTERNAL")["KeyMetadata"]["KeyId"]
    with pytest.raises(kms.exceptions.ClientError, match="validTo"):
        bring(kms, key, os.urandom(32), ExpirationModel="KEY_MATERIAL_EXPIRES")
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    bring(kms, key, os.urandom(32), ExpirationModel="KEY_MATERIAL_EXPIRES", ValidTo=until)
    shown = kms.describe_key(KeyId=key)["KeyMetadata"]
    assert (shown["ExpirationModel"], shown["ValidTo"]) == ("KEY_MATERIAL_EXPIRES", until)


def test_imported_pairs_and_macs(kms: Kms) -> None:
    mine = ec.generate_private_key(ec.SECP256K1())
    der = mine.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    key = fresh(kms, "ECC_SECG_P256K1", "SIGN_VERIFY", Origin="EXTERNAL")
    bring(kms, key, der)
    signature = kms.sign(KeyId=key, Message=b"x", SigningAlgorithm="ECDSA_SHA_256")["Signature"]
    mine.public_key().verify(signature, b"x", ec.ECDSA(hashes.SHA256()))
    big = rsa.generate_private_key(65537, 2048)
    key = fresh(kms, "RSA_2048", "SIGN_VERIFY", Origin="EXTERNAL")
    bring(kms, key, big.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), "RSA_AES_KEY_WRAP_SHA_256")
    digest = hashlib.sha256(b"x").digest()
    asked = {"KeyId": key, "Message": digest, "MessageType": "DIGEST", "SigningAlgorithm": "RSASSA_PSS_SHA_256"}
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    big.public_key().verify(kms.sign(**asked)["Signature"], digest, pss, utils.Prehashed(hashes.SHA256()))
    raw = os.urandom(32)
    key = fresh(kms, "HMAC_256", "GENERATE_VERIFY_MAC", Origin="EXTERNAL")
    bring(kms, key, raw, "RSA_AES_KEY_WRAP_SHA_1")
    mac = kms.generate_mac(KeyId=key, Message=b"x", MacAlgorithm="HMAC_SHA_256")["Mac"]
    assert mac == hmac.digest(raw, b"x", "sha256")


def test_imports_that_do_not_fit(kms: Kms, aes: str) -> None:
    asked = {"WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"}
    assert code(kms.get_parameters_for_import, KeyId=aes, **asked) == "UnsupportedOperationException"
    key, other = (kms.create_key(Origin="EXTERNAL")["KeyMetadata"]["KeyId"] for _ in range(2))
    parameters = kms.get_parameters_for_import(KeyId=key, **asked)
    wrapped = wrap(parameters, os.urandom(32), "RSAES_OAEP_SHA_256")
    members = {
        "ImportToken": parameters["ImportToken"],
        "EncryptedKeyMaterial": wrapped,
        "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE",
    }
    assert code(kms.import_key_material, KeyId=other, **members) == "InvalidImportTokenException"
    assert (
        code(kms.import_key_material, KeyId=key, **{**members, "ImportToken": b"made up"})
        == "InvalidImportTokenException"
    )
    damaged = {**members, "EncryptedKeyMaterial": bytes(256)}
    assert code(kms.import_key_material, KeyId=key, **damaged) == "InvalidCiphertextException"
    short = {**members, "EncryptedKeyMaterial": wrap(parameters, os.urandom(16), "RSAES_OAEP_SHA_256")}
    assert code(kms.import_key_material, KeyId=key, **short) == "IncorrectKeyMaterialException"
    assert code(kms.delete_imported_key_material, KeyId=aes) == "UnsupportedOperationException"


# Regions


def test_replicas(kms: Kms, served: Served) -> None:
    made = kms.create_key(MultiRegion=True, Description="primary")["KeyMetadata"]
    key = made["KeyId"]
    assert key.startswith("mrk-")
    assert len(key) == 36
    assert made["MultiRegionConfiguration"]["MultiRegionKeyType"] == "PRIMARY"
    there = client(served, issue(served, "admin"), "us-east-1")
    assert code(there.describe_key, KeyId=key) == "NotFoundException"
    replica = kms.replicate_key(
        KeyId=key, ReplicaRegion="us-east-1", Description="replica", Tags=[{"TagKey": "a", "TagValue": "b"}]
    )["ReplicaKeyMetadata"]
    assert (replica["KeyId"], replica["Arn"]) == (key, arn(key, "us-east-1"))
    assert replica["MultiRegionConfiguration"]["PrimaryKey"]["Region"] == REGION
    assert code(kms.replicate_key, KeyId=key, ReplicaRegion="us-east-1") == "AlreadyExistsException"
    sealed = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    opened = there.decrypt(CiphertextBlob=sealed)
    assert (opened["Plaintext"], opened["KeyId"]) == (b"x", arn(key, "us-east-1"))
    assert there.list_resource_tags(KeyId=key)["Tags"] == [{"TagKey": "a", "TagValue": "b"}]
    assert kms.list_resource_tags(KeyId=key)["Tags"] == []
    there.disable_key(KeyId=key)
    assert code(there.encrypt, KeyId=key, Plaintext=b"x") == "DisabledException"
    kms.encrypt(KeyId=key, Plaintext=b"x")
    there.enable_key(KeyId=key)
    assert code(there.enable_key_rotation, KeyId=key) == "UnsupportedOperationException"
    kms.update_primary_region(KeyId=key, PrimaryRegion="us-east-1")
    assert there.describe_key(KeyId=key)["KeyMetadata"]["MultiRegionConfiguration"]["MultiRegionKeyType"] == "PRIMARY"
    assert there.describe_key(KeyId=key)["KeyMetadata"]["Description"] == "replica"
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["Description"] == "primary"
    assert code(kms.replicate_key, KeyId=key, ReplicaRegion="eu-west-1") == "UnsupportedOperationException"


def test_a_primary_waits_for_its_replicas(kms: Kms, served: Served) -> None:
    key = kms.create_key(MultiRegion=True)["KeyMetadata"]["KeyId"]
    kms.replicate_key(KeyId=key, ReplicaRegion="us-east-1")
    there = client(served, issue(served, "admin"), "us-east-1")
    asked = kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    assert (asked["KeyState"], "DeletionDate" in asked) == ("PendingReplicaDeletion", False)
    assert there.schedule_key_deletion(KeyId=key, PendingWindowInDays=8)["KeyState"] == "PendingDeletion"
    shown = kms.describe_key(KeyId=key)["KeyMetadata"]
    assert shown["KeyState"] == "PendingDeletion"
    assert abs(shown["DeletionDate"] - datetime.now(UTC) - timedelta(days=15)) < timedelta(minutes=1)
    kms.cancel_key_deletion(KeyId=key)
    there.cancel_key_deletion(KeyId=key)
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Disabled"
    kms.enable_key(KeyId=key)
    there.enable_key(KeyId=key)
    there.encrypt(KeyId=key, Plaintext=b"x")


def test_only_multi_region_keys_are_replicated(kms: Kms, aes: str) -> None:
    assert code(kms.replicate_key, KeyId=aes, ReplicaRegion="us-east-1") == "UnsupportedOperationException"
    assert code(kms.update_primary_region, KeyId=aes, PrimaryRegion="us-east-1") == "UnsupportedOperationException"
    digits = aes.replace("-", "")
    assert code(kms.describe_key, KeyId=f"mrk-{digits}") == "NotFoundException"


# Dry runs, last use, key stores


def test_dry_runs_do_nothing(kms: Kms, aes: str) -> None:
    sealed = kms.encrypt(KeyId=aes, Plaintext=b"x")["CiphertextBlob"]
    signing = fresh(kms, "ECC_NIST_P256", "SIGN_VERIFY")
    signature = kms.sign(KeyId=signing, Message=b"x", SigningAlgorithm="ECDSA_SHA_256")["Signature"]
    mac = fresh(kms, "HMAC_256", "GENERATE_VERIFY_MAC")
    tag = kms.generate_mac(KeyId=mac, Message=b"x", MacAlgorithm="HMAC_SHA_256")["Mac"]
    agreed = fresh(kms, "ECC_NIST_P256", "KEY_AGREEMENT")
    kem = fresh(kms, "ML_KEM_768", "ENCAPSULATE_DECAPSULATE")
    encapsulated = kms.encapsulate(KeyId=kem, EncapsulationAlgorithm="ML_KEM")["SharedSecretCiphertextBlob"]
    grant = kms.create_grant(KeyId=aes, GranteePrincipal=user("nobody"), Operations=["Encrypt"])
    for call, members in (
        (kms.encrypt, {"KeyId": aes, "Plaintext": b"x"}),
        (kms.decrypt, {"CiphertextBlob": sealed}),
        (kms.re_encrypt, {"CiphertextBlob": sealed, "DestinationKeyId": aes}),
        (kms.generate_data_key, {"KeyId": aes, "KeySpec": "AES_256"}),
        (kms.generate_data_key_without_plaintext, {"KeyId": aes, "KeySpec": "AES_256"}),
        (kms.generate_data_key_pair, {"KeyId": aes, "KeyPairSpec": "ECC_NIST_P256"}),
        (kms.generate_data_key_pair_without_plaintext, {"KeyId": aes, "KeyPairSpec": "ECC_NIST_P256"}),
        (kms.sign, {"KeyId": signing, "Message": b"x", "SigningAlgorithm": "ECDSA_SHA_256"}),
        (kms.verify, {"KeyId": signing, "Message": b"x", "SigningAlgorithm": "ECDSA_SHA_256", "Signature": signature}),
        (kms.generate_mac, {"KeyId": mac, "Message": b"x", "MacAlgorithm": "HMAC_SHA_256"}),
        (kms.verify_mac, {"KeyId": mac, "Message": b"x", "MacAlgorithm": "HMAC_SHA_256", "Mac": tag}),
        (
            kms.derive_shared_secret,
            {
                "KeyId": agreed,
                "KeyAgreementAlgorithm": "ECDH",
                "PublicKey": kms.get_public_key(KeyId=agreed)["PublicKey"],
            },
        ),
        (kms.encapsulate, {"KeyId": kem, "EncapsulationAlgorithm": "ML_KEM"}),
        (
            kms.decapsulate,
            {"KeyId": kem, "EncapsulationAlgorithm": "ML_KEM", "SharedSecretCiphertextBlob": encapsulated},
        ),
        (kms.create_grant, {"KeyId": aes, "GranteePrincipal": user("nobody"), "Operations": ["Encrypt"]}),
        (kms.revoke_grant, {"KeyId": aes, "GrantId": grant["GrantId"]}),
        (kms.retire_grant, {"GrantToken": grant["GrantToken"]}),
    ):
        name, message, status = error(call, DryRun=True, **members)
        assert (name, status) == ("DryRunOperationException", 400), call
        assert message == "The request would have succeeded, but the DryRun option is set."
    assert [one["GrantId"] for one in kms.list_grants(KeyId=aes)["Grants"]] == [grant["GrantId"]]
    assert code(kms.encrypt, KeyId=ABSENT, Plaintext=b"x", DryRun=True) == "NotFoundException"
    ignoring = {"DryRun": True, "DryRunModifiers": ["IGNORE_CIPHERTEXT"]}
    assert code(kms.decrypt, KeyId=aes, **ignoring) == "DryRunOperationException"
    assert code(kms.re_encrypt, SourceKeyId=aes, DestinationKeyId=aes, **ignoring) == "DryRunOperationException"
    assert code(kms.decrypt, KeyId=aes) == "ValidationException"


def test_last_usage(kms: Kms) -> None:
    key = fresh(kms)
    unused = kms.get_key_last_usage(KeyId=key)
    assert "KeyLastUsage" not in unused
    assert unused["TrackingStartDate"] <= unused["KeyCreationDate"]
    reply = kms.encrypt(KeyId=key, Plaintext=b"x")
    used = kms.get_key_last_usage(KeyId=key)["KeyLastUsage"]
    assert used["Operation"] == "Encrypt"
    assert used["CloudTrailEventId"] == reply["ResponseMetadata"]["HTTPHeaders"]["audit-id"]


def test_key_stores_of_others(kms: Kms) -> None:
    assert kms.describe_custom_key_stores()["CustomKeyStores"] == []
    for call, members in (
        (kms.create_custom_key_store, {"CustomKeyStoreName": "x"}),
        (kms.delete_custom_key_store, {"CustomKeyStoreId": "x"}),
        (kms.update_custom_key_store, {"CustomKeyStoreId": "x"}),
        (kms.connect_custom_key_store, {"CustomKeyStoreId": "x"}),
        (kms.disconnect_custom_key_store, {"CustomKeyStoreId": "x"}),
    ):
        assert code(call, **members) == "UnsupportedOperationException"
