"""Key policies against a model of how AWS evaluates them, written from the IAM User Guide and sharing no code.

The model: an explicit Deny wins, then an Allow is needed, else the answer is no. A key that no Region owns is one key,
wherever a request for it was signed; the partition of an ARN tells callers of one account no more apart than a Region.
"""

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyvault_lite.dialects.aws.authorize import KeyUse, allows, check_use, may_list_retirable, may_retire
from keyvault_lite.dialects.aws.conditions import covers_arn
from keyvault_lite.dialects.aws.model import AccountRegion, judged_arn
from keyvault_lite.model.errors import Forbidden
from keyvault_lite.model.identity import Principal, Role
from keyvault_lite.model.keys import Key, KeyStatus
from keyvault_lite.model.names import KeyId, ServiceId, new_id
from tests.support.harness import AES

CALM: Final = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
ACCOUNT: Final = "000000000000"
REGIONS: Final[Mapping[str, str]] = {
    "eu-central-1": "aws",
    "us-east-1": "aws",
    "cn-north-1": "aws-cn",
    "us-gov-west-1": "aws-us-gov",
}
PARTITIONS: Final = ("aws", "aws-cn", "aws-us-gov")
CALLERS: Final = ("shop", "other", "admin")
ACTIONS: Final = ("Encrypt", "Decrypt", "DescribeKey", "Sign")
NATIVE: Final = Key(KeyId("0f8fad5b-d9cb-469f-a165-70867728950e"), "orders", AES, KeyStatus.ACTIVE, 0)


# The model


def _user(arn: str) -> tuple[str, str]:
    """Account and user of a principal's ARN."""
    _, _, _, _, account, resource = arn.split(":")
    return account, resource


def _is_listed(names: list[str], caller: str) -> bool:
    return any(
        name == "*" or (name.startswith("arn:") and _user(name) == (ACCOUNT, f"user/{caller}")) for name in names
    )


def _has_account(names: list[str]) -> bool:
    return any(name == ACCOUNT or (name.startswith("arn:") and _user(name) == (ACCOUNT, "root")) for name in names)


def _speaks_of(statement: Mapping[str, Any], caller: str) -> bool:
    if "Principal" in statement:
        names = statement["Principal"]["AWS"]
        return _is_listed(names, caller) or _has_account(names)
    names = statement["NotPrincipal"]["AWS"]
    if statement["Effect"] == "Deny":  # the account beside the user is asked for, and exempts no other user
        return not _is_listed(names, caller)
    return not (_is_listed(names, caller) or _has_account(names))


def _fits(statement: Mapping[str, Any], member: str, texts: list[str]) -> bool:
    if member in statement:
        return any(fnmatchcase(text, pattern) for pattern in statement[member] for text in texts)
    return not any(fnmatchcase(text, pattern) for pattern in statement[f"Not{member}"] for text in texts)


def _condition(statement: Mapping[str, Any], caller: str) -> bool:
    for operator, pairs in statement.get("Condition", {}).items():
        for wanted in pairs.values():
            spelt = [f"arn:{partition}:iam::{ACCOUNT}:user/{caller}" for partition in PARTITIONS]
            met = any(fnmatchcase(one, wanted) if "Like" in operator else one == wanted for one in spelt)
            if met is ("Not" in operator):
                return False
    return True


def expected(statements: Sequence[Mapping[str, Any]], caller: str, action: str, arns: list[str]) -> bool:
    """Whether AWS allows it, if identity policies do."""
    applying = [
        one
        for one in statements
        if _speaks_of(one, caller)
        and _fits(one, "Action", [f"kms:{action}"])
        and _fits(one, "Resource", arns)
        and _condition(one, caller)
    ]
    return bool(applying) and all(one["Effect"] == "Allow" for one in applying)


# What is drawn

partitions = st.sampled_from(PARTITIONS)
users = st.builds(
    lambda partition, name: f"arn:{partition}:iam::{ACCOUNT}:user/{name}", partitions, st.sampled_from(CALLERS)
)
roots = st.builds(lambda partition: f"arn:{partition}:iam::{ACCOUNT}:root", partitions)
strangers = st.just("arn:aws:iam::111111111111:user/shop")
principals = st.lists(users | roots | strangers | st.sampled_from([ACCOUNT, "*"]), min_size=1, max_size=3)
own_arns = st.builds(
    lambda region: f"arn:{REGIONS[region]}:kms:{region}:{ACCOUNT}:key/{NATIVE.id}", st.sampled_from(sorted(REGIONS))
)
resources = st.lists(
    own_arns
    | st.sampled_from(
        [
            "*",
            "arn:*",
            "arn:aws:kms:eu-*",
            "arn:aws-cn:kms:*",
            f"arn:aws:kms:eu-central-1:{ACCOUNT}:*",
            f"arn:*:kms:us-????-1:{ACCOUNT}:key/*",
            f"*{NATIVE.id}",
            f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/other",
            "arn:aws:kms:eu-central-1:111111111111:key/*",
            "arn:aws:s3:*",
        ]
    ),
    min_size=1,
    max_size=2,
)
actions = st.lists(st.sampled_from(["kms:*", *(f"kms:{one}" for one in ACTIONS), "kms:De*"]), min_size=1, max_size=2)
wanted_arns = users | st.sampled_from(
    [f"arn:*:iam::{ACCOUNT}:user/shop", "arn:aws:iam::*:user/sh*", "arn:aws-cn:iam::*:user/?hop"]
)
conditions = (
    st.none()
    | st.builds(
        lambda operator, wanted: {operator: {"aws:PrincipalArn": wanted}},
        st.sampled_from(["ArnLike", "StringLike", "StringNotLike", "ArnNotLike"]),
        wanted_arns,
    )
    | st.builds(
        lambda operator, wanted: {operator: {"aws:PrincipalArn": wanted}},
        st.sampled_from(["StringEquals", "StringNotEquals"]),
        users,
    )
)


@st.composite
def statements(draw: st.DrawFn) -> dict[str, Any]:
    inverted = st.sampled_from(["", "", "Not"])
    made: dict[str, Any] = {
        "Effect": draw(st.sampled_from(["Allow", "Allow", "Deny"])),
        draw(inverted) + "Principal": {"AWS": draw(principals)},
        draw(inverted) + "Action": draw(actions),
        draw(inverted) + "Resource": draw(resources),
    }
    condition = draw(conditions)
    return made if condition is None else made | {"Condition": condition}


def _is_allowed(facet: Mapping[str, Any], caller: str, use: KeyUse, place: AccountRegion, key: Key = NATIVE) -> bool:
    principal = Principal(ServiceId(new_id()), caller, Role.SERVICE)
    try:
        check_use(principal, place, judged_arn(key, place), facet, use)
    except Forbidden:
        return False
    return True


@given(st.lists(statements(), min_size=1, max_size=4), st.sampled_from(CALLERS), st.sampled_from(ACTIONS))
@CALM
def test_a_policy_says_what_aws_says_wherever_a_request_is_signed(
    drawn: list[dict[str, Any]], caller: str, action: str
) -> None:
    facet = {"policy": json.dumps({"Statement": drawn})}
    arns = [f"arn:{partition}:kms:{region}:{ACCOUNT}:key/{NATIVE.id}" for region in REGIONS for partition in PARTITIONS]
    wanted = expected(drawn, caller, action, arns)
    for region in REGIONS:
        assert _is_allowed(facet, caller, KeyUse(action), AccountRegion(ACCOUNT, region)) is wanted, region


@given(st.lists(statements(), min_size=1, max_size=4), st.sampled_from(CALLERS), st.sampled_from(sorted(REGIONS)))
@CALM
def test_a_key_of_one_region_is_judged_by_its_own_arn(drawn: list[dict[str, Any]], caller: str, region: str) -> None:
    key = Key(NATIVE.id, None, AES, KeyStatus.ACTIVE, 0, attributes={"aws": {"region": region}})
    place = AccountRegion(ACCOUNT, region)
    facet = {"policy": json.dumps({"Statement": drawn})}
    wanted = expected(drawn, caller, "Encrypt", [place.key_arn(key)])
    assert _is_allowed(facet, caller, KeyUse("Encrypt"), place, key) is wanted


@pytest.mark.parametrize("made_in", PARTITIONS)
@pytest.mark.parametrize("region", sorted(REGIONS))
def test_grants_know_their_grantee_in_every_partition(made_in: str, region: str) -> None:
    me, place = f"arn:{made_in}:iam::{ACCOUNT}:user/shop", AccountRegion(ACCOUNT, region)
    principal = Principal(ServiceId(new_id()), "shop", Role.SERVICE)
    bound = {
        "grantee": me,
        "retiring": me,
        "operations": ["Decrypt"],
        "constraints": {"EncryptionContextEquals": {"tenant": "a"}},
    }
    facet = {"grantees": [me], "grants": [bound]}
    assert _is_allowed(facet, "shop", KeyUse("Decrypt", {"tenant": "a"}), place)
    assert not _is_allowed(facet, "shop", KeyUse("Decrypt", {"tenant": "b"}), place)
    assert not _is_allowed({"grantees": [me]}, "shop", KeyUse("Decrypt"), place)
    assert _is_allowed(facet, "other", KeyUse("Decrypt", {"tenant": "b"}), place)
    assert allows(bound, place.principal_arn("shop"), KeyUse("Decrypt", {"tenant": "a"}))
    assert may_retire(principal, place, bound)
    assert may_list_retirable(principal, place, me)


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [
        ("*", True),
        ("?" * 27, False),
        (f"arn:*:{ACCOUNT}:key/k", True),
        ("arn:aws:kms:eu-central-1:*/k", True),
        ("arn:aws:kms:*:key/k", True),
        ("*:kms:*", True),
        ("*:s3:::*", False),
        (f"arn:aws:kms:a:b:{ACCOUNT}:key/k", False),
        (f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/", False),
        (f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/k*", True),
        (f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/k?", False),
        ("", False),
        ("arn:", False),
        ("a" * 600 + "*", False),
        ("*" * 20_000, True),
        ("*a" * 20_000, False),
    ],
)
def test_patterns_over_the_arns_of_a_key_in_all_regions(pattern: str, *, covered: bool) -> None:
    assert covers_arn(pattern, f"arn:*:kms:*:{ACCOUNT}:key/k") is covered
