"""Key policies: what they say, what they cannot be, and that what is not understood counts against the caller."""

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from keyvault_lite.dialects.aws.conditions import KEYS, PAIRS, like
from keyvault_lite.dialects.aws.errors import MalformedPolicy
from keyvault_lite.dialects.aws.policy import AuthorizationRequest, Decision, check_policy, read_policy
from tests.support import paths

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A loaded machine is no finding."""
ROOT = "arn:aws:iam::000000000000:root"
ME = "arn:aws:iam::000000000000:user/me"
KEY = "arn:aws:kms:eu-central-1:000000000000:key/k"


def statement(
    effect: str = "Allow", principal: object = None, action: object = "kms:*", **more: object
) -> dict[str, Any]:
    return {"Effect": effect, "Principal": principal or {"AWS": ROOT}, "Action": action, "Resource": "*", **more}


def judge(*statements: dict[str, Any], **context: list[str]) -> str:
    asked = AuthorizationRequest(
        ME, ROOT, "kms:Encrypt", KEY, {name.replace("__", ":"): values for name, values in context.items()}
    )
    told = read_policy(json.dumps({"Statement": list(statements)})).evaluate(asked)
    assert not (told.denied and (told.named or told.delegated))
    return "denied" if told.denied else "named" if told.named else "delegated" if told.delegated else ""


@pytest.mark.parametrize(
    ("principal", "says"),
    [
        ({"AWS": ROOT}, "delegated"),
        ({"AWS": "000000000000"}, "delegated"),
        ("*", "delegated"),
        ({"AWS": "*"}, "delegated"),
        ({"AWS": ME}, "named"),
        ({"AWS": [ME, "arn:aws:iam::000000000000:user/you"]}, "named"),
        ({"AWS": "arn:aws:iam::000000000000:user/you"}, ""),
        ({"AWS": "111111111111"}, ""),
        ({"Service": "s3.amazonaws.com"}, ""),
        ({"CanonicalUser": "000000000000"}, ""),
    ],
)
def test_principals(principal: object, says: str) -> None:
    assert judge(statement(principal=principal)) == says


def test_actions_and_resources() -> None:
    assert judge(statement(action=["kms:enc*", "kms:Decrypt"])) == "delegated"
    assert judge(statement(action="kms:Decrypt")) == ""
    assert judge(statement(action="*")) == "delegated"
    assert judge(statement(action="kms:?ncrypt")) == "delegated"
    assert judge(statement() | {"Resource": KEY}) == "delegated"
    assert judge(statement() | {"Resource": "arn:aws:kms:*:other"}) == ""
    inverted = {name: value for name, value in statement().items() if name != "Action"}
    assert judge({**inverted, "NotAction": "kms:Encrypt"}) == ""
    assert judge({**inverted, "NotAction": "kms:Decrypt"}) == "delegated"


def test_a_denial_wins_wherever_it_stands() -> None:
    deny = statement("Deny", "*", "kms:Encrypt")
    assert (
        judge(statement(), deny)
        == judge(deny, statement())
        == judge(statement(principal={"AWS": ME}), deny)
        == "denied"
    )
    assert judge(statement(principal={"AWS": "arn:aws:iam::000000000000:user/you"}), statement(), deny) == "denied"
    spared = {name: value for name, value in deny.items() if name != "Principal"}
    assert judge(statement(), {**spared, "NotPrincipal": {"AWS": ME}}) == "delegated"
    assert judge(statement(), {**spared, "NotPrincipal": {"AWS": "arn:aws:iam::000000000000:user/you"}}) == "denied"


def test_who_is_allowed_as_one_of_many_is_not_named() -> None:
    everybody_but = {name: value for name, value in statement().items() if name != "Principal"}
    assert judge({**everybody_but, "NotPrincipal": {"AWS": "arn:aws:iam::000000000000:user/you"}}) == "delegated"
    assert judge({**everybody_but, "NotPrincipal": {"AWS": ME}}) == ""


def test_what_one_statement_allows_no_other_takes_back() -> None:
    mine, ours = statement(principal={"AWS": ME}), statement()
    for statements in ([mine, ours], [ours, mine]):
        told = read_policy(json.dumps({"Statement": statements})).evaluate(
            AuthorizationRequest(ME, ROOT, "kms:Encrypt", KEY, {})
        )
        assert told == Decision(named=True, delegated=True)


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ({"StringEquals": {"kms:EncryptionContext:a": "1"}}, True),
        ({"StringEquals": {"KMS:encryptioncontext:A": ["0", "1"]}}, True),
        ({"StringEquals": {"kms:EncryptionContext:a": "2"}}, False),
        ({"StringEquals": {"kms:EncryptionContext:b": "1"}}, False),
        ({"StringEqualsIfExists": {"kms:EncryptionContext:b": "1"}}, True),
        ({"StringNotEquals": {"kms:EncryptionContext:a": "1"}}, False),
        ({"StringNotEquals": {"kms:EncryptionContext:b": "1"}}, True),
        ({"StringLike": {"kms:EncryptionContext:a": "?"}}, True),
        ({"StringNotLike": {"kms:EncryptionContext:a": "*"}}, False),
        ({"StringLike": {"kms:EncryptionContext:a": "2*"}}, False),
        ({"StringNotLike": {"kms:EncryptionContext:a": "2*"}}, True),
        ({"ArnLike": {"kms:EncryptionContext:a": "?"}}, True),
        ({"ArnEquals": {"kms:EncryptionContext:a": "2*"}}, False),
        ({"ArnNotLike": {"kms:EncryptionContext:a": "?"}}, False),
        ({"ArnNotEquals": {"kms:EncryptionContext:a": "2*"}}, True),
        ({"StringEqualsIgnoreCase": {"kms:EncryptionContext:c": "UPPER"}}, True),
        ({"StringEqualsIgnoreCase": {"kms:EncryptionContext:c": "OTHER"}}, False),
        ({"StringNotEqualsIgnoreCase": {"kms:EncryptionContext:c": "UPPER"}}, False),
        ({"StringNotEqualsIgnoreCase": {"kms:EncryptionContext:c": "OTHER"}}, True),
        ({"Null": {"kms:EncryptionContext:a": "true"}}, False),
        ({"Null": {"kms:EncryptionContext:b": True}}, True),
        ({"Bool": {"kms:MultiRegion": False}}, True),
        ({"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["a", "c", "d"]}}, True),
        ({"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["a"]}}, False),
        ({"ForAnyValue:StringEquals": {"kms:EncryptionContextKeys": "a"}}, True),
        ({"ForAllValues:StringEquals": {"kms:ResourceAliases": "alias/x"}}, True),
    ],
)
def test_conditions(condition: dict[str, Any], *, met: bool) -> None:
    context = {
        "kms__encryptioncontext__a": ["1"],
        "kms__encryptioncontext__c": ["upper"],
        "kms__encryptioncontextkeys": ["a", "c"],
        "kms__multiregion": ["false"],
    }
    assert judge(statement(Condition=condition), **context) == ("delegated" if met else "")
    assert judge(statement("Deny", "*", Condition=condition), **context) == ("denied" if met else "")


@pytest.mark.parametrize(
    "operator",
    ["BinaryEquals", "ForSome:StringEquals", ":StringEquals", "ForAllValues:Null", "NullIfExists", "Made:Up", ""],
)
def test_what_is_not_understood_counts_against_the_caller(operator: str) -> None:
    for wanted in ("1", "true", "false"):
        condition = {operator: {"kms:EncryptionContext:a": wanted}}
        for context in ({}, {"kms__encryptioncontext__a": ["1"]}):
            assert judge(statement(Condition=condition), **context) == ""
            assert judge(statement(), statement("Deny", "*", Condition=condition), **context) == "denied"


@pytest.mark.parametrize("operator", ["StringEquals", "StringNotEquals", "StringLikeIfExists", "Bool", "Null"])
@pytest.mark.parametrize("key", ["aws:SecureTransport", "aws:MultiFactorAuthPresent", "aws:ResourceTag", "x:Made-Up"])
def test_a_key_that_is_not_evaluated_counts_against_the_caller(operator: str, key: str) -> None:
    for value in ("true", "false"):
        condition = {operator: {key: value}}
        for context in ({}, {key.lower(): ["true"]}):
            assert judge(statement(Condition=condition), **context) == ""
            assert judge(statement(), statement("Deny", "*", Condition=condition), **context) == "denied"


@pytest.mark.parametrize("operator", ["StringEquals", "StringNotEquals", "StringLikeIfExists", "ArnNotLike", "Null"])
def test_a_variable_is_not_what_a_caller_says(operator: str) -> None:
    condition = {operator: {"kms:EncryptionContext:user": ["x", "${aws:username}"]}}
    for context in ({}, {"kms__encryptioncontext__user": ["${aws:username}"]}):
        assert judge(statement(Condition=condition), **context) == ""
        assert judge(statement(), statement("Deny", "*", Condition=condition), **context) == "denied"
    where = {"Resource": "arn:aws:kms:*:*:key/${aws:username}"}
    assert judge(statement(**where)) == ""
    assert judge(statement(), statement("Deny", "*", **where)) == "denied"
    never = {"StringEquals": {"kms:EncryptionContext:user": "y"}}
    assert judge(statement(), statement("Deny", "*", **where, Condition=never)) == "delegated"


@pytest.mark.parametrize(
    "operator",
    ["NotIpAddress", "NumericNotEquals", "DateLessThanIfExists", "ForAllValues:NumericEquals", "IpAddress"],
)
def test_what_cannot_be_read_counts_also_where_there_is_nothing_to_compare_it_with(operator: str) -> None:
    condition = {operator: {"kms:EncryptionContext:word": "rubbish"}}
    assert judge(statement(Condition=condition)) == ""
    assert judge(statement(), statement("Deny", "*", Condition=condition)) == "denied"


@pytest.mark.parametrize(
    ("operator", "key", "wanted"),
    [
        ("NumericEquals", "aws:EpochTime", "soon"),
        ("NumericNotEquals", "aws:EpochTime", "1e3"),
        ("NumericLessThan", "kms:EncryptionContext:word", "1"),
        ("DateLessThan", "aws:CurrentTime", "tomorrow"),
        ("DateNotEquals", "aws:CurrentTime", "2026"),
        ("DateGreaterThan", "kms:EncryptionContext:word", "2026-01-01"),
        ("IpAddress", "aws:SourceIp", "10.0.0.0/33"),
        ("IpAddress", "aws:SourceIp", ["10.0.0.0/8", "10.0.0"]),
        ("NotIpAddress", "aws:SourceIp", ["10.0.0.0/8", "here"]),
        ("IpAddress", "kms:EncryptionContext:word", "10.0.0.0/8"),
        ("StringEquals", "kms:EncryptionContext:word", []),
        ("Null", "kms:EncryptionContext:word", "maybe"),
    ],
)
def test_what_cannot_be_read_counts_against_the_caller(operator: str, key: str, wanted: object) -> None:
    context = {
        "aws__epochtime": ["1795924800"],
        "aws__currenttime": ["2026-11-29T04:00:00+00:00"],
        "aws__sourceip": ["10.1.2.3"],
        "kms__encryptioncontext__word": ["word"],
    }
    condition = {operator: {key: wanted}}
    assert judge(statement(Condition=condition), **context) == ""
    assert judge(statement(), statement("Deny", "*", Condition=condition), **context) == "denied"


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ({"NumericEquals": {"aws:EpochTime": 1795924800}}, True),
        ({"NumericNotEquals": {"aws:EpochTime": "1795924800.0"}}, False),
        ({"NumericLessThan": {"kms:ScheduleKeyDeletionPendingWindowInDays": "8"}}, True),
        ({"NumericLessThan": {"kms:ScheduleKeyDeletionPendingWindowInDays": "7"}}, False),
        ({"NumericLessThanEquals": {"kms:ScheduleKeyDeletionPendingWindowInDays": "7"}}, True),
        ({"NumericGreaterThan": {"kms:ScheduleKeyDeletionPendingWindowInDays": "10"}}, False),
        ({"NumericGreaterThanEquals": {"kms:ScheduleKeyDeletionPendingWindowInDays": 7}}, True),
        ({"DateLessThan": {"aws:CurrentTime": "2026-11-29T04:00:01Z"}}, True),
        ({"DateLessThan": {"aws:CurrentTime": "2026-11-29T04:00:00Z"}}, False),
        ({"DateLessThan": {"aws:CurrentTime": "2026-11-29"}}, False),
        ({"DateGreaterThan": {"aws:CurrentTime": "20261129"}}, True),
        ({"DateEquals": {"aws:CurrentTime": "2026-11-29T06:00:00+02:00"}}, True),
        ({"DateLessThanEquals": {"aws:EpochTime": "2026-11-29T04:00:00Z"}}, True),
        ({"DateGreaterThan": {"aws:CurrentTime": "1795924799"}}, True),
        ({"IpAddress": {"aws:SourceIp": ["192.168.0.0/16", "10.0.0.0/8"]}}, True),
        ({"IpAddress": {"aws:SourceIp": "10.1.2.3"}}, True),
        ({"IpAddress": {"aws:SourceIp": "10.1.2.4"}}, False),
        ({"IpAddress": {"aws:SourceIp": "10.1.2.4/24"}}, True),
        ({"IpAddress": {"aws:SourceIp": "fe80::/10"}}, False),
        ({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, False),
        ({"NotIpAddress": {"aws:SourceIp": "fe80::/10"}}, True),
    ],
)
def test_numbers_dates_and_addresses(condition: dict[str, Any], *, met: bool) -> None:
    context = {
        "aws__epochtime": ["1795924800"],
        "aws__currenttime": ["2026-11-29T04:00:00+00:00"],
        "aws__sourceip": ["10.1.2.3"],
        "kms__schedulekeydeletionpendingwindowindays": ["7"],
    }
    assert judge(statement(Condition=condition), **context) == ("delegated" if met else "")
    assert judge(statement("Deny", "*", Condition=condition), **context) == ("denied" if met else "")


@pytest.mark.parametrize("operator", ["StringEquals", "StringNotEquals", "StringNotLikeIfExists", "StringLikeIfExists"])
def test_no_value_is_any_value(operator: str) -> None:
    condition = {f"ForAnyValue:{operator}": {"kms:ResourceAliases": "alias/a"}}
    assert judge(statement(Condition=condition)) == ""
    assert judge(statement(), statement("Deny", "*", Condition=condition)) == "delegated"


@pytest.mark.parametrize("scope", ["", "ForAnyValue:", "ForAllValues:"])
@pytest.mark.parametrize("key", ["kms:EncryptionContext:Who", "aws:ResourceTag/Who"])
def test_of_names_that_differ_in_case_one_denies_and_all_allow(scope: str, key: str) -> None:
    values = {key.lower(): ["good", "bad"]}
    for operator, wanted in (("StringEquals", "good"), ("StringNotEquals", "bad"), ("StringLike", "b*")):
        condition = {scope + operator: {key: wanted}}
        assert judge(statement(Condition=condition), **values) == ""
        assert judge(statement("Deny", "*", Condition=condition), **values) == "denied"
    both = {scope + "StringEquals": {key: ["good", "bad"]}}
    assert judge(statement(Condition=both), **values) == "delegated"


def test_of_many_values_without_a_word_on_them_one_denies_and_all_allow() -> None:
    condition = {"StringEquals": {"kms:ResourceAliases": "alias/a"}}
    assert judge(statement(Condition=condition), kms__resourcealiases=["alias/a", "alias/b"]) == ""
    deny = statement("Deny", "*", Condition=condition)
    assert judge(statement(), deny, kms__resourcealiases=["alias/a", "alias/b"]) == "denied"


def test_who_is_no_caller_here() -> None:
    for kind in ("Service", "Federated", "CanonicalUser"):
        for name in ("*", ME, ROOT):
            assert judge(statement(principal={kind: name})) == ""
            assert judge(statement(), statement("Deny", {kind: name})) == "delegated"
    but = {name: value for name, value in statement("Deny").items() if name != "Principal"}
    assert judge(statement(), {**but, "NotPrincipal": {"Service": "*"}}) == "denied"


def test_who_allows_nothing_in_particular_allows_nothing() -> None:
    for member in ("Action", "Resource"):
        lacking = {name: value for name, value in statement().items() if name != member}
        assert judge(lacking) == ""
        assert judge(lacking, statement()) == "delegated"
        with pytest.raises(MalformedPolicy):
            judge({**lacking, "Effect": "Deny"})


GOOD = statement(principal={"AWS": [ME, ROOT, "*", "111122223333", "arn:aws:sts::000000000000:assumed-role/a/b"]})


def test_what_may_be_kept() -> None:
    for more in ({}, {"Version": "2012-10-17"}, {"Version": "2008-10-17", "Id": "x"}):
        check_policy(json.dumps({"Statement": [{**GOOD, "Sid": "a"}, {**GOOD, "Sid": "b"}, GOOD], **more}), "aws")
    chinese = statement(principal={"AWS": "arn:aws-cn:iam::000000000000:root"})
    check_policy(json.dumps({"Statement": chinese}), "aws-cn")


@pytest.mark.parametrize(
    "document",
    [
        {"Version": "2012-10-18", "Statement": GOOD},
        {"Version": 1, "Statement": GOOD},
        {"Version": None, "Statement": GOOD},
        {"Version": ["2012-10-17"], "Statement": GOOD},
        {"Statement": [{**GOOD, "Sid": "a"}, {**GOOD, "Sid": "a"}]},
        {"Statement": {**GOOD, "Sid": 1}},
        {"Statement": ["x"]},
        *(
            {"Statement": statement(effect, {"AWS": name})}
            for effect in ("Allow", "Deny")
            for name in (
                "",
                "me",
                "user/me",
                "1111",
                "AIDACKCEVSQ6C2EXAMPLE",
                "arn:aws:iam::000000000000:user/*",
                "arn:aws:iam::1:user/me",
                "arn:aws:s3:::bucket",
                "arn:aws-cn:iam::000000000000:root",
                "arn:aws:iam::000000000000:",
                "\u0661" * 12,
            )
        ),
        {"Statement": {"NotPrincipal": {"AWS": "me"}, "Effect": "Deny", "Action": "*", "Resource": "*"}},
    ],
)
def test_what_is_not_kept(document: dict[str, Any]) -> None:
    with pytest.raises(MalformedPolicy):
        check_policy(json.dumps(document), "aws")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"Statement":[]}',
        '{"Statement":["x"]}',
        '{"Statement":5}',
        *(
            json.dumps({"Statement": bad})
            for bad in (
                {"Effect": ["Allow"], "Principal": "*", "Action": "*", "Resource": "*"},
                {"Effect": "Maybe", "Principal": "*", "Action": "*", "Resource": "*"},
                {"Effect": "Allow", "Action": "*", "Resource": "*"},
                {"Effect": "Allow", "Principal": "*", "NotPrincipal": "*", "Action": "*", "Resource": "*"},
                {"Effect": "Allow", "Principal": "me", "Action": "*", "Resource": "*"},
                {"Effect": "Allow", "Principal": {}, "Action": "*", "Resource": "*"},
                {"Effect": "Allow", "Principal": {"Other": "x"}, "Action": "*", "Resource": "*"},
                {"Effect": "Allow", "Principal": "*", "Action": [], "Resource": "*"},
                {"Effect": "Allow", "Principal": "*", "Action": 1, "Resource": "*"},
                {"Effect": "Allow", "Principal": "*", "Action": ["*", 1], "Resource": "*"},
                {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*", "Extra": 1},
                {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*", "Condition": []},
                {
                    "Effect": "Allow",
                    "Principal": "*",
                    "Action": "*",
                    "Resource": "*",
                    "Condition": {"StringEquals": []},
                },
                {
                    "Effect": "Allow",
                    "Principal": "*",
                    "Action": "*",
                    "Resource": "*",
                    "Condition": {"Bool": {"a": None}},
                },
            )
        ),
        "[" * 100_000,
    ],
)
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(MalformedPolicy):
        read_policy(text)


@CALM
@given(pattern=st.text("ab*?", max_size=8), text=st.text("ab*?", max_size=8))
@example(pattern="?*", text="a")
@example(pattern="*?", text="*aa")
@example(pattern="?*ab", text="bb")
@example(pattern="*a?", text="bbb")
def test_patterns(pattern: str, text: str) -> None:
    def simple(pattern: str, text: str) -> bool:
        if not pattern:
            return not text
        if pattern[0] == "*":
            return simple(pattern[1:], text) or (bool(text) and simple(pattern, text[1:]))
        return bool(text) and pattern[0] in {"?", text[0]} and simple(pattern[1:], text[1:])

    assert like(pattern, text) is simple(pattern, text)


def test_no_pattern_takes_for_ever() -> None:
    assert not like("a*?" * 200 + "c", "ab" * 2000)


def test_the_keys_that_are_evaluated_are_in_the_documentation() -> None:
    table = (paths.ROOT / "docs" / "aws.md").read_text().partition("| condition keys |")[2]
    written = set(re.findall(r"`((?:aws|kms):[\w/:…]+)`", table.partition("\n\n")[0]))
    assert {one.removesuffix("…").lower() for one in written} == KEYS | set(PAIRS)
