"""The AWS dialect only narrows: policy, grants and what the vault allows, each by itself and in its order."""

import json
from typing import Any

import pytest

from keyvault_lite.dialects.aws.authorize import (
    RESCUE,
    KeyUse,
    allows,
    check_named_key,
    check_use,
    locks_out,
    may_list_retirable,
    may_retire,
)
from keyvault_lite.dialects.aws.errors import KeyNotFound
from keyvault_lite.dialects.aws.model import AccountRegion
from keyvault_lite.model.errors import Forbidden, Hidden, NotFound
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import Grant, Principal, Role
from keyvault_lite.model.keys import Key, KeyStatus
from keyvault_lite.model.names import KeyId, ServiceId, new_id
from tests.support.harness import AES, grant

HERE = AccountRegion("000000000000", "eu-central-1")
ARN = HERE.arn("key/k")
ME, YOU = HERE.principal_arn("me"), HERE.principal_arn("you")
ENCRYPT = KeyUse("Encrypt", {"Purpose": "test"}, {"kms:ViaService": ("s3",)})


def caller(role: Role = Role.SERVICE, *grants: Grant, name: str = "me") -> Principal:
    return Principal(ServiceId("0f8fad5b-d9cb-469f-a165-70867728950e"), name, role, grants)


def policy(effect: str = "Allow", principal: str = ME, action: str = "kms:*", **condition: Any) -> str:  # noqa: ANN401
    one = {"Effect": effect, "Principal": {"AWS": principal}, "Action": action, "Resource": "*"}
    return json.dumps({"Statement": [one | ({"Condition": condition} if condition else {})]})


def _with_denial(**condition: Any) -> str:  # noqa: ANN401
    statements = [json.loads(policy())["Statement"][0], json.loads(policy("Deny", **condition))["Statement"][0]]
    return json.dumps({"Statement": statements})


def given(grantee: str = ME, *operations: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"grantee": grantee, "operations": operations or ("Encrypt",), **more}


def refused(facet: dict[str, Any], who: Principal | None = None, use: KeyUse = ENCRYPT) -> bool:
    try:
        check_use(who or caller(), HERE, ARN, facet, use)
    except Forbidden:
        return True
    return False


class TestNames:
    KEY = Key(KeyId(new_id()), "orders", AES, KeyStatus.ACTIVE, 0)

    def test_a_key_that_is_there(self) -> None:
        assert check_named_key(caller(Role.ADMIN), self.KEY, "orders", Action.ENCRYPT) is self.KEY
        assert check_named_key(caller(Role.SERVICE, grant("orders")), self.KEY, "orders", Action.ENCRYPT) is self.KEY

    @pytest.mark.parametrize(
        ("who", "ref", "told"),
        [
            (caller(Role.ADMIN), "orders", KeyNotFound),
            (caller(Role.AUDITOR), None, KeyNotFound),
            (caller(Role.SERVICE, grant("ord*")), "orders", KeyNotFound),
            (caller(Role.SERVICE, grant("*")), None, KeyNotFound),
            (caller(Role.SERVICE, grant("other"), grant("orders")), "orders", KeyNotFound),
            (caller(Role.SERVICE, grant("other")), "orders", Hidden),
            (caller(Role.SERVICE, grant("ord*")), None, Hidden),
            (caller(), "orders", Hidden),
        ],
    )
    def test_only_who_is_granted_the_name_is_told_that_nothing_has_it(
        self, who: Principal, ref: str | None, told: type[NotFound]
    ) -> None:
        with pytest.raises(NotFound) as error:
            check_named_key(who, None, ref, Action.ENCRYPT)
        assert type(error.value) is told

    def test_a_key_without_a_grant_is_hidden_as_ever(self) -> None:
        for granted, ref in (("other", "orders"), ("nickname", "nickname")):
            with pytest.raises(Hidden) as error:
                check_named_key(caller(Role.SERVICE, grant(granted)), self.KEY, ref, Action.ENCRYPT)
            assert type(error.value) is Hidden


class TestPolicies:
    def test_without_a_policy_the_vault_decides(self) -> None:
        assert not refused({})

    def test_a_policy_that_names_nobody_here_is_a_refusal(self) -> None:
        assert refused({"policy": policy(principal=YOU)})
        assert not refused({"policy": policy(principal=ME)})
        assert not refused({"policy": policy(principal=HERE.root_arn)})

    def test_a_denial_holds_against_names_and_grants(self) -> None:
        facet = {"policy": policy("Deny"), "grants": [given()]}
        assert refused(facet)
        assert refused(facet, caller(Role.ADMIN))

    @pytest.mark.parametrize("operation", sorted(RESCUE))
    def test_no_policy_locks_an_admin_out(self, operation: str) -> None:
        assert not refused({"policy": policy("Deny")}, caller(Role.ADMIN), KeyUse(operation))
        assert refused({"policy": policy("Deny")}, caller(Role.SERVICE), KeyUse(operation))

    def test_the_operation_is_the_action(self) -> None:
        assert refused({"policy": policy(action="kms:Decrypt")})
        assert not refused({"policy": policy(action="kms:Encrypt")})

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("aws:PrincipalArn", ME),
            ("aws:PrincipalAccount", HERE.account),
            ("aws:PrincipalType", "User"),
            ("aws:username", "me"),
            ("aws:userid", "0f8fad5b-d9cb-469f-a165-70867728950e"),
            ("aws:RequestedRegion", HERE.region),
            ("kms:CallerAccount", HERE.account),
            ("kms:ViaService", "s3"),
            ("kms:EncryptionContext:Purpose", "test"),
            ("kms:EncryptionContextKeys", "Purpose"),
        ],
    )
    def test_conditions_see_the_request(self, key: str, value: str) -> None:
        assert not refused({"policy": policy(StringEquals={key: value})})
        assert refused({"policy": policy(StringEquals={key: f"{value}-"})})

    def test_without_a_context_there_is_no_key_of_it(self) -> None:
        facet = {"policy": policy(Null={"kms:EncryptionContextKeys": "true"})}
        assert not refused(facet, use=KeyUse("Encrypt"))
        assert not refused(facet, use=KeyUse("Encrypt", {}))
        assert refused(facet)

    def test_names_of_a_context_that_differ_in_case_are_one(self) -> None:
        twins = KeyUse("Encrypt", {"Who": "good", "who": "bad"})
        good = {"kms:EncryptionContext:Who": "good"}
        assert refused({"policy": policy(StringEquals=good)}, use=twins)
        assert refused({"policy": _with_denial(StringEquals=good)}, use=twins)
        assert refused({"policy": _with_denial(StringEquals={"kms:EncryptionContext:who": "bad"})}, use=twins)
        assert not refused({"policy": policy(StringEquals=good)}, use=KeyUse("Encrypt", {"who": "good"}))

    def test_a_context_is_used_and_not_shown(self) -> None:
        assert not refused({"policy": policy(StringEquals={"kms:EncryptionContext:Purpose": "test"})})
        assert "Purpose" not in repr(ENCRYPT)


class TestGrants:
    def test_a_grant_allows_what_the_policy_leaves_open(self) -> None:
        facet = {"policy": policy(principal=YOU), "grants": [given(YOU), given()]}
        assert not refused(facet)
        assert refused(facet | {"grants": [given(YOU)]})

    def test_a_grantee_is_out_of_the_general_permission(self) -> None:
        assert refused({"grantees": [ME]})
        assert refused({"grantees": [ME], "grants": [given(ME, "Decrypt")]})
        assert not refused({"grantees": [YOU]})
        assert not refused({"grantees": [ME], "grants": [given()]})
        assert not refused({"grantees": [ME], "policy": policy()}), "who is named needs no grant"
        assert not refused({"grantees": [ME]}, caller(Role.ADMIN))

    def test_it_is_for_one_caller_and_its_operations(self) -> None:
        assert allows(given(), ME, ENCRYPT)
        assert not allows(given(), YOU, ENCRYPT)
        assert not allows(given(ME, "Decrypt"), ME, ENCRYPT)

    @pytest.mark.parametrize(
        ("constraints", "context", "met"),
        [
            (None, {}, True),
            ({"EncryptionContextEquals": {"a": "1"}}, {"a": "1"}, True),
            ({"EncryptionContextEquals": {"a": "1"}}, {"a": "1", "b": "2"}, False),
            ({"EncryptionContextEquals": {"a": "1"}}, {}, False),
            ({"EncryptionContextEquals": {"a": "1"}}, None, False),
            ({"EncryptionContextEquals": {}}, {"a": "1"}, False),
            ({"EncryptionContextSubset": {"a": "1"}}, {"a": "1", "b": "2"}, True),
            ({"EncryptionContextSubset": {"a": "1", "b": "2"}}, {"a": "1"}, False),
            ({"EncryptionContextSubset": {"a": "1"}}, {"a": "2"}, False),
            ({"EncryptionContextSubset": {"Team": "a"}}, {"team": "a"}, True),
            ({"EncryptionContextSubset": {"Team": "a"}}, {"team": "A"}, False),
            ({"EncryptionContextSubset": {"Team": "a"}}, {"team": "a", "TEAM": "a"}, True),
            ({"EncryptionContextSubset": {"Team": "a"}}, {"Team": "a", "TEAM": "b"}, False),
            ({"EncryptionContextSubset": {"Team": "a", "TEAM": "b"}}, {"team": "a"}, False),
            ({"EncryptionContextEquals": {"Team": "a"}}, {"TEAM": "a"}, True),
            ({"EncryptionContextEquals": {"Team": "a"}}, {"Team": "a", "TEAM": "b"}, False),
            ({"EncryptionContextEquals": {"Team": "a"}}, {"TEAM": "a", "x": "a"}, False),
            ({"SourceArn": "arn:aws:s3:::here"}, {}, False),
        ],
    )
    def test_constraints(
        self, constraints: dict[str, Any] | None, context: dict[str, str] | None, *, met: bool
    ) -> None:
        made = given(ME, "Encrypt", "Sign", constraints=constraints)
        assert allows(made, ME, KeyUse("Encrypt", context)) is met
        # What has no context is not judged by one.
        assert allows(made, ME, KeyUse("Sign")) is ("SourceArn" not in (constraints or {}))

    def test_who_may_retire(self) -> None:
        assert may_retire(caller(Role.ADMIN), HERE, given(YOU))
        assert may_retire(caller(), HERE, given(YOU, retiring=ME))
        assert may_retire(caller(), HERE, given(ME, "RetireGrant"))
        assert not may_retire(caller(), HERE, given(ME))
        assert not may_retire(caller(), HERE, given(YOU, "RetireGrant"))
        assert not may_retire(caller(), HERE, given(YOU, retiring=YOU))

    def test_who_may_see_what_can_be_retired(self) -> None:
        assert may_list_retirable(caller(Role.ADMIN), HERE, YOU)
        assert may_list_retirable(caller(Role.AUDITOR), HERE, YOU)
        assert may_list_retirable(caller(), HERE, ME)
        assert not may_list_retirable(caller(), HERE, YOU)
        assert not may_list_retirable(caller(), HERE, None)


@pytest.mark.parametrize(
    ("text", "out"),
    [
        (policy(), False),
        (policy(principal=HERE.root_arn), False),
        (policy(principal=YOU), True),
        (policy("Deny"), True),
        (policy(action="kms:Encrypt"), True),
        (policy(action="kms:PutKeyPolicy"), False),
        (policy(StringEquals={"kms:CallerAccount": HERE.account}), False),
        (policy(StringEquals={"kms:CallerAccount": "1"}), True),
        (policy(principal="*", ArnEquals={"aws:PrincipalArn": ME}), False),
        (policy(principal="*", ArnEquals={"aws:PrincipalArn": YOU}), True),
        (policy(principal="*", StringEquals={"aws:PrincipalAccount": HERE.account}), False),
        (_with_denial(StringNotEquals={"aws:PrincipalAccount": HERE.account}), False),
    ],
)
def test_a_policy_that_its_author_could_not_change_again(text: str, *, out: bool) -> None:
    assert locks_out(text, caller(Role.ADMIN), HERE, ARN) is out
