"""Who may do what through the AWS dialect, and what the audit log says of it: signatures, roles, grants, policies."""

import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.clients.aws_clients import ACCOUNT, REGION, client, code, issue, user
from tests.clients.conftest import Served

Kms = Any
ABSENT = "11111111-2222-3333-4444-555555555555"
_names = (f"app-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def admin(served: Served) -> Kms:
    return client(served, issue(served, "admin"))


@pytest.fixture(scope="module")
def key(admin: Kms) -> str:
    made: str = admin.create_key()["KeyMetadata"]["KeyId"]
    return made


def caller(served: Served, *grants: tuple[str, list[str]], role: str = "SERVICE") -> tuple[str, Kms]:
    """A new service with grants of the vault, and its client."""
    name = next(_names)
    served.service(name, role, [{"key": pattern, "actions": actions} for pattern, actions in grants])
    return name, client(served, issue(served, name))


# Signatures


def signed(
    served: Served,
    credentials: dict[str, str],
    *,
    operation: str = "ListKeys",
    body: bytes = b"{}",
    service: str = "kms",
    when: datetime | None = None,
    headers: dict[str, str] | None = None,
    presign: int | None = None,
) -> AWSRequest:
    """A request signed by botocore, as it would be at another time or for another service if so asked."""
    request = AWSRequest(
        method="POST",
        url=served.url + "/",
        data=body,
        headers={
            "x-amz-target": f"TrentService.{operation}",
            "content-type": "application/x-amz-json-1.1",
            "host": urlsplit(served.url).netloc,
            **(headers or {}),
        },
    )
    key = Credentials(credentials["access_key_id"], credentials["secret_access_key"])
    signer: Any = (
        SigV4Auth(key, service, REGION) if presign is None else SigV4QueryAuth(key, service, REGION, expires=presign)
    )
    if when is None:
        signer.add_auth(request)
        return request
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.auth.get_current_datetime", lambda: when.replace(tzinfo=None))
        signer.add_auth(request)
    return request


_http = urllib3.PoolManager()


def send(request: AWSRequest, *, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[str, int]:
    """Name of the error ("" for none) and status."""
    sent = {**dict(request.headers.items()), **(headers or {})}
    data = request.data if body is None else body
    reply = _http.request("POST", request.url, body=data, headers=sent, retries=False, redirect=False)
    return json.loads(reply.data or b"{}").get("__type", ""), reply.status


def newest(served: Served) -> dict[str, Any]:
    return served.log("limit=1&action=authenticate")[0]


def test_what_boto_signs_is_accepted(served: Served) -> None:
    credentials = issue(served, "admin")
    assert send(signed(served, credentials)) == ("", 200)
    assert send(signed(served, credentials, presign=60)) == ("", 200)


def test_refusals_and_their_entries(served: Served) -> None:
    credentials = issue(served, "admin")
    good = signed(served, credentials)
    unsigned = {"x-amz-target": "TrentService.ListKeys", "content-type": "application/x-amz-json-1.1"}
    reply = _http.request("POST", served.url + "/", body=b"{}", headers=unsigned)
    assert json.loads(reply.data)["__type"] == "MissingAuthenticationTokenException"
    assert reply.status == 400
    assert "audit-id" not in reply.headers
    entry = newest(served)
    assert (entry["result"], entry["operation"], entry["service_id"]) == ("denied", "ListKeys", None)
    wrong = {**credentials, "secret_access_key": "x" * 40}
    unknown = {**credentials, "access_key_id": "AKIANOBODYNOBODYNOBO"}
    for request, changes, name in (
        (signed(served, wrong), {}, "InvalidSignatureException"),
        (signed(served, unknown), {}, "UnrecognizedClientException"),
        (good, {"body": b'{"Limit":1}'}, "InvalidSignatureException"),
        (good, {"headers": {"x-amz-target": "TrentService.CreateKey"}}, "InvalidSignatureException"),
        (good, {"headers": {"x-amz-date": "20300101T000000Z"}}, "IncompleteSignatureException"),
        (good, {"headers": {"x-amz-content-sha256": "unsigned"}}, "IncompleteSignatureException"),
        (signed(served, credentials, service="s3"), {}, "InvalidSignatureException"),
        (
            signed(served, credentials, headers={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}),
            {},
            "IncompleteSignatureException",
        ),
        (signed(served, credentials, headers={"x-amz-security-token": "session"}), {}, "UnrecognizedClientException"),
        (signed(served, wrong, presign=60), {}, "InvalidSignatureException"),
    ):
        before = newest(served)["id"]
        assert send(request, **changes) == (name, 400), (name, changes)
        entry = newest(served)
        assert entry["id"] > before
        assert (entry["action"], entry["result"]) == ("authenticate", "denied")


@pytest.mark.parametrize(
    ("minutes", "presign", "accepted"),
    [
        (-4, None, True),
        (4, None, True),
        (-6, None, False),
        (6, None, False),
        (-2, 60, False),
        (-2, 300, True),
    ],
)
def test_the_time_of_a_signature(served: Served, minutes: int, presign: int | None, *, accepted: bool) -> None:
    when = datetime.now(UTC) + timedelta(minutes=minutes)
    request = signed(served, issue(served, "admin"), when=when, presign=presign)
    assert send(request) == (("", 200) if accepted else ("InvalidSignatureException", 400))


def test_a_repeated_signed_header_is_refused(served: Served) -> None:
    request = signed(served, issue(served, "admin"))
    headers = urllib3.HTTPHeaderDict(dict(request.headers.items()))
    headers.add("x-amz-target", "TrentService.CreateKey")
    reply = _http.request("POST", request.url, body=request.data, headers=headers)
    assert reply.status == 400
    assert json.loads(reply.data)["__type"] != ""


def test_operations_and_bodies_that_are_none(served: Served) -> None:
    credentials = issue(served, "admin")
    assert send(signed(served, credentials, operation="Frobnicate")) == ("UnknownOperationException", 400)
    for body in (b"{", b"[]", b'{"Limit":"1"}', b'{"Limit":true}', b'{"Limit":1,"Limit":2}', b"\xff"):
        assert send(signed(served, credentials, body=body)) == ("SerializationException", 400)
    assert send(signed(served, credentials, body=b'{"Limit":0,"Unknown":1}')) == ("ValidationException", 400)
    assert send(signed(served, credentials, body=b'{"Unknown":1}')) == ("ValidationException", 400)
    assert send(signed(served, credentials, body=b'{"Unknown":null}')) == ("", 200)
    assert send(signed(served, credentials, body=b"")) == ("", 200)
    text = signed(served, credentials, headers={"content-type": "text/plain"})
    assert send(text) == ("SerializationException", 400)
    huge = b'{"Description":"' + b"x" * 1024 * 1024 + b'"}'
    assert send(signed(served, credentials, operation="CreateKey", body=huge)) == (
        "RequestEntityTooLargeException",
        413,
    )


def test_revoked_credentials_die_at_once(served: Served) -> None:
    credentials = issue(served, "admin")
    kms = client(served, credentials)
    kms.list_keys()
    held = served.ask("GET", "/services/admin/aws-credentials").body["items"]
    assert credentials["access_key_id"] in {one["access_key_id"] for one in held}
    assert "secret" not in json.dumps(held)
    path = "/services/admin/aws-credentials/revoke"
    left = served.ask("POST", path, {"access_key_id": credentials["access_key_id"]}).body["items"]
    assert credentials["access_key_id"] not in {one["access_key_id"] for one in left}
    assert code(kms.list_keys) == "UnrecognizedClientException"
    assert served.ask("POST", path, {"access_key_id": credentials["access_key_id"]}).status == 404


def test_a_deactivated_service_signs_nothing(served: Served) -> None:
    name, kms = caller(served, ("*", ["encrypt"]))
    kms.list_keys()
    served.ask("PATCH", f"/services/{name}", {"active": False})
    assert code(kms.list_keys) == "UnrecognizedClientException"


def test_who_may_have_credentials(served: Served) -> None:
    token = served.service(next(_names), "AUDITOR")
    assert served.ask("POST", "/services/admin/aws-credentials", token=token).status == 403
    assert served.ask("POST", "/services/nobody-there/aws-credentials").status == 404


# Roles and the vault's grants


def test_without_a_grant_nothing_is_told(served: Served, admin: Kms, key: str) -> None:
    admin.create_alias(AliasName="alias/hidden", TargetKeyId=key)
    _, kms = caller(served)
    for name in (key, ABSENT, "nonsense", "alias/hidden", "alias/absent", "arn:aws:kms:us-east-1:1:key/x"):
        assert code(kms.describe_key, KeyId=name) == "AccessDeniedException"
        assert code(kms.encrypt, KeyId=name, Plaintext=b"x") == "AccessDeniedException"
    sealed = admin.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    assert code(kms.decrypt, CiphertextBlob=sealed) == "AccessDeniedException"
    assert kms.list_keys()["Keys"] == []
    assert kms.list_aliases()["Aliases"] == []


def test_grants_of_the_vault_decide(served: Served, admin: Kms, key: str) -> None:
    admin.create_alias(AliasName="alias/orders/eu", TargetKeyId=key)
    name, kms = caller(served, (f"aws:{REGION}/alias/orders/*", ["encrypt"]), (ABSENT, ["encrypt"]))
    sealed = kms.encrypt(KeyId="alias/orders/eu", Plaintext=b"x")["CiphertextBlob"]
    kms.encrypt(KeyId=key, Plaintext=b"x")
    assert code(kms.decrypt, CiphertextBlob=sealed) == "AccessDeniedException"
    assert code(kms.describe_key, KeyId="alias/orders/none") == "NotFoundException"  # covered: it may know
    assert code(kms.describe_key, KeyId=ABSENT) == "NotFoundException"
    assert code(kms.describe_key, KeyId="alias/other") == "AccessDeniedException"
    assert [one["KeyId"] for one in kms.list_keys()["Keys"]] == [key]
    entry = served.log(f"limit=1&service_id={name}&result=success&action=encrypt")[0]
    assert (entry["operation"], entry["key_id"], entry["action"]) == ("Encrypt", key, "encrypt")
    denied = served.log(f"limit=1&service_id={name}&action=decrypt")[0]
    assert (denied["operation"], denied["key_id"], denied["result"]) == ("Decrypt", key, "denied")


def test_a_service_does_not_manage(served: Served, key: str) -> None:
    _, kms = caller(served, ("*", ["encrypt", "decrypt", "sign", "verify"]))
    for call, members in (
        (kms.create_key, {}),
        (kms.disable_key, {"KeyId": key}),
        (kms.schedule_key_deletion, {"KeyId": key}),
        (kms.create_alias, {"AliasName": "alias/mine", "TargetKeyId": key}),
        (kms.put_key_policy, {"KeyId": key, "Policy": "{}"}),
        (kms.create_grant, {"KeyId": key, "GranteePrincipal": user("x"), "Operations": ["Encrypt"]}),
        (kms.rotate_key_on_demand, {"KeyId": key}),
    ):
        assert code(call, **members) == "AccessDeniedException"
    kms.generate_random(NumberOfBytes=8)
    kms.describe_key(KeyId=key)


def test_an_auditor_reads_metadata(served: Served, admin: Kms, key: str) -> None:
    _, kms = caller(served, role="AUDITOR")
    assert key in {one["KeyId"] for page in kms.get_paginator("list_keys").paginate() for one in page["Keys"]}
    kms.describe_key(KeyId=key)
    kms.list_grants(KeyId=key)
    assert code(kms.encrypt, KeyId=key, Plaintext=b"x") == "AccessDeniedException"
    assert code(kms.generate_random, NumberOfBytes=1) == "AccessDeniedException"
    assert code(kms.describe_key, KeyId=ABSENT) == "NotFoundException"


def test_re_encryption_needs_both_keys(served: Served, admin: Kms, key: str) -> None:
    other = admin.create_key()["KeyMetadata"]["KeyId"]
    sealed = admin.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    _, from_only = caller(served, (key, ["decrypt"]))
    _, both = caller(served, (key, ["decrypt"]), (other, ["encrypt"]))
    assert code(from_only.re_encrypt, CiphertextBlob=sealed, DestinationKeyId=other) == "AccessDeniedException"
    both.re_encrypt(CiphertextBlob=sealed, DestinationKeyId=other)
    assert code(both.re_encrypt, CiphertextBlob=sealed, DestinationKeyId=key) == "AccessDeniedException"


# Grants of the dialect


def test_a_grant_is_enforced_with_its_constraints(served: Served, admin: Kms) -> None:
    key = admin.create_key()["KeyMetadata"]["KeyId"]
    name, kms = caller(served, (key, ["encrypt", "decrypt"]))
    kms.encrypt(KeyId=key, Plaintext=b"x")  # the default policy leaves it to the vault
    grant = admin.create_grant(
        KeyId=key,
        GranteePrincipal=user(name),
        Operations=["Encrypt", "DescribeKey", "ReEncryptFrom"],
        Constraints={"EncryptionContextSubset": {"tenant": "a"}},
    )
    sealed = kms.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext={"tenant": "a", "more": "b"})["CiphertextBlob"]
    assert code(kms.encrypt, KeyId=key, Plaintext=b"x", EncryptionContext={"tenant": "b"}) == "AccessDeniedException"
    assert code(kms.encrypt, KeyId=key, Plaintext=b"x") == "AccessDeniedException"
    opening = {"CiphertextBlob": sealed, "EncryptionContext": {"tenant": "a", "more": "b"}}
    assert code(kms.decrypt, **opening) == "AccessDeniedException"
    kms.describe_key(KeyId=key)
    admin.create_grant(
        KeyId=key,
        GranteePrincipal=user(name),
        Operations=["Decrypt"],
        Constraints={"EncryptionContextEquals": {"tenant": "a", "more": "b"}},
    )
    assert kms.decrypt(GrantTokens=[grant["GrantToken"]], **opening)["Plaintext"] == b"x"
    admin.revoke_grant(KeyId=key, GrantId=grant["GrantId"])
    assert code(kms.encrypt, KeyId=key, Plaintext=b"x", EncryptionContext={"tenant": "a"}) == "AccessDeniedException"
    assert code(kms.decrypt, GrantTokens=[grant["GrantToken"]], **opening) == "InvalidGrantTokenException"


def test_a_grant_gives_nothing_that_the_vault_does_not(served: Served, admin: Kms, key: str) -> None:
    name, kms = caller(served)
    grant = admin.create_grant(KeyId=key, GranteePrincipal=user(name), Operations=["Encrypt"])
    asked = {"KeyId": key, "Plaintext": b"x", "GrantTokens": [grant["GrantToken"]]}
    assert code(kms.encrypt, **asked) == "AccessDeniedException"


def test_a_grant_opens_a_narrow_policy(served: Served, admin: Kms) -> None:
    name, kms = caller(served, ("*", ["encrypt", "decrypt"]))
    mine = {"Effect": "Allow", "Principal": {"AWS": user("admin")}, "Action": "kms:*", "Resource": "*"}
    key = admin.create_key(Policy=json.dumps({"Statement": [mine]}))["KeyMetadata"]["KeyId"]
    assert code(kms.encrypt, KeyId=key, Plaintext=b"x") == "AccessDeniedException"
    grant = admin.create_grant(KeyId=key, GranteePrincipal=user(name), Operations=["Encrypt", "RetireGrant"])
    kms.encrypt(KeyId=key, Plaintext=b"x")
    kms.retire_grant(GrantToken=grant["GrantToken"])
    assert code(kms.encrypt, KeyId=key, Plaintext=b"x") == "AccessDeniedException"


def test_a_policy_that_names_a_service_takes_it_out_of_grants(served: Served, admin: Kms) -> None:
    name, kms = caller(served, ("*", ["encrypt", "decrypt"]))
    root = {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    every = {"Effect": "Allow", "Principal": root, "Action": "kms:*", "Resource": "*"}
    named = {"Effect": "Allow", "Principal": {"AWS": user(name)}, "Action": ["kms:Encrypt"], "Resource": "*"}
    key = admin.create_key(Policy=json.dumps({"Statement": [every, named]}))["KeyMetadata"]["KeyId"]
    grant = admin.create_grant(KeyId=key, GranteePrincipal=user(name), Operations=["DescribeKey"])
    kms.encrypt(KeyId=key, Plaintext=b"x")
    admin.revoke_grant(KeyId=key, GrantId=grant["GrantId"])
    kms.encrypt(KeyId=key, Plaintext=b"x")
    assert code(kms.describe_key, KeyId=key) == "AccessDeniedException"


def test_the_life_of_grants(served: Served, admin: Kms) -> None:
    key = admin.create_key()["KeyMetadata"]["KeyId"]
    name, kms = caller(served, (key, ["encrypt"]))
    members = {
        "KeyId": key,
        "GranteePrincipal": user("someone"),
        "RetiringPrincipal": user(name),
        "Operations": ["Encrypt", "Decrypt"],
        "Name": "nightly",
    }
    first, again = admin.create_grant(**members), admin.create_grant(**members)
    assert first["GrantId"] == again["GrantId"]
    assert first["GrantToken"] != again["GrantToken"]
    other = admin.create_grant(**{**members, "Operations": ["Encrypt"]})
    assert other["GrantId"] != first["GrantId"]
    listed = admin.list_grants(KeyId=key, GranteePrincipal=user("someone"))["Grants"]
    assert {one["GrantId"] for one in listed} == {first["GrantId"], other["GrantId"]}
    assert (listed[0]["Name"], listed[0]["RetiringPrincipal"]) == ("nightly", user(name))
    assert listed[0]["KeyId"].endswith(key)
    assert len(admin.list_grants(KeyId=key, Limit=1)["Grants"]) == 1
    assert code(admin.list_grants, KeyId=key, GrantId="none") == "InvalidGrantIdException"
    retirable = kms.list_retirable_grants(RetiringPrincipal=user(name))["Grants"]
    assert {one["GrantId"] for one in retirable} == {first["GrantId"], other["GrantId"]}
    assert code(kms.list_retirable_grants, RetiringPrincipal=user("other")) == "AccessDeniedException"
    kms.retire_grant(KeyId=key, GrantId=first["GrantId"])
    kms.retire_grant(GrantToken=other["GrantToken"])
    assert admin.list_grants(KeyId=key)["Grants"] == []
    assert code(admin.retire_grant, GrantToken="made up") == "InvalidGrantTokenException"
    assert code(admin.retire_grant, KeyId=key) == "ValidationException"
    assert code(admin.revoke_grant, KeyId=key, GrantId="none") == "InvalidGrantIdException"
    assert code(admin.create_grant, KeyId=key, GranteePrincipal="someone", Operations=["Encrypt"]) == (
        "InvalidArnException"
    )
    mac = admin.create_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")["KeyMetadata"]["KeyId"]
    bound = {"Operations": ["GenerateMac"], "Constraints": {"EncryptionContextEquals": {"a": "b"}}}
    assert code(admin.create_grant, KeyId=mac, GranteePrincipal=user("x"), **bound) == "ValidationException"


def test_a_service_principal_can_be_grantee(admin: Kms, key: str) -> None:
    asked: dict[str, Any] = {"KeyId": key, "GranteeServicePrincipal": "s3.amazonaws.com", "Operations": ["Encrypt"]}
    assert code(admin.create_grant, **asked) == "ValidationException", "without a source it would be for all of them"
    asked["Constraints"] = {"SourceArn": "arn:aws:rds:eu-central-1:000000000000:db:orders"}
    asked["RetiringPrincipal"] = "arn:aws:iam::000000000000:user/admin"
    grant = admin.create_grant(**asked)
    listed = admin.list_grants(KeyId=key, GranteeServicePrincipal="s3.amazonaws.com")["Grants"]
    assert [one["GrantId"] for one in listed] == [grant["GrantId"]]
    assert listed[0]["GranteeServicePrincipal"] == "s3.amazonaws.com"
    assert listed[0]["Constraints"] == asked["Constraints"]


def test_secrets_stay_out_of_the_log(served: Served, admin: Kms, key: str) -> None:
    admin.encrypt(KeyId=key, Plaintext=b"canary-plaintext", EncryptionContext={"canary": "context"})
    text = json.dumps(served.log("limit=200"))
    assert "canary" not in text
    assert "secret_access_key" not in text
    assert "canary" not in (served.folder / "serve.log").read_text()


def test_kvl_issues_credentials(served: Served) -> None:
    name = next(_names)
    served.service(name, grants=[{"key": "*", "actions": ["encrypt"]}])
    done = served.kvl("service", "aws-credentials", name, "-o", "json")
    assert done.returncode == 0, done.stderr
    issued = json.loads(done.stdout)
    assert set(issued) == {"access_key_id", "secret_access_key"}
    client(served, issued).list_keys()
    listed = served.kvl("service", "aws-credentials", name, "--list")
    assert issued["access_key_id"] in listed.stdout
    gone = served.kvl("service", "aws-credentials", name, "--revoke", issued["access_key_id"])
    assert gone.returncode == 0, gone.stderr
    assert code(client(served, issued).list_keys) == "UnrecognizedClientException"
