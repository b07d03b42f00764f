"""Key policies: what they say, what they cannot be, and that what is not understood counts against the caller."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from keyvault_lite.access.aws_policy import Judgement, Question, _like, read_policy
from keyvault_lite.model.aws_errors import MalformedPolicy

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
    asked = Question(
        ME, ROOT, "kms:Encrypt", KEY, {name.replace("__", ":"): values for name, values in context.items()}
    )
    told = read_policy(json.dumps({"Statement": list(statements)})).judge(asked)
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
        told = read_policy(json.dumps({"Statement": statements})).judge(Question(ME, ROOT, "kms:Encrypt", KEY, {}))
        assert told == Judgement(named=True, delegated=True)


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
    "operator", ["NumericLessThan", "DateGreaterThan", "ForSome:StringEquals", "IpAddress", "Made:Up"]
)
def test_what_is_not_understood_counts_against_the_caller(operator: str) -> None:
    condition = {operator: {"kms:EncryptionContext:a": "1"}}
    assert judge(statement(Condition=condition), kms__encryptioncontext__a=["1"]) == ""
    assert judge(statement(), statement("Deny", "*", Condition=condition)) == "denied"


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

    assert _like(pattern, text) is simple(pattern, text)


def test_no_pattern_takes_for_ever() -> None:
    assert not _like("a*?" * 200 + "c", "ab" * 2000)
