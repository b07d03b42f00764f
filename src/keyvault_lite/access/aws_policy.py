"""Key policies of the AWS dialect: read once, then judged by table. They only narrow what the vault itself allows.

A statement that allows says who may do what within the vault's own authorisation; one that denies always wins. What is
not understood here counts against the caller: an unknown condition holds in a statement that denies, and does not hold
in one that allows.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from keyvault_lite.model.aws_errors import MalformedPolicy
from keyvault_lite.model.names import matches

Context = Mapping[str, Sequence[str]]
"""Condition keys in lower case, with the values that the request has for them."""
ANYONE: Final = "*"
_MEMBERS: Final = frozenset(
    {"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"}
)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a policy."""

    principal: str
    """The caller's ARN."""
    root: str
    """The account's ARN: a statement for it leaves the decision to the vault."""
    action: str
    """`kms:` and the operation."""
    resource: str
    context: Context


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a policy says to a question."""

    denied: bool = False
    named: bool = False
    """A statement that names the caller allows it."""
    delegated: bool = False
    """A statement for the account, or for anyone, allows it."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, read."""

    allows: bool
    principals: frozenset[str]
    inverted_principals: bool
    actions: tuple[str, ...]
    inverted_actions: bool
    resources: tuple[str, ...]
    inverted_resources: bool
    conditions: tuple[tuple[str, str, tuple[str, ...]], ...]
    """Operator, key in lower case, values."""

    def applies(self, asked: Question) -> bool:
        """Whether it speaks of this action, resource and context; of whom is another matter."""
        action, resource = asked.action.lower(), asked.resource
        if any(_like(one.lower(), action) for one in self.actions) is self.inverted_actions:
            return False
        if any(_like(one, resource) for one in self.resources) is self.inverted_resources:
            return False
        return all(_holds(*condition, asked.context, unknown=not self.allows) for condition in self.conditions)

    def names(self, principal: str) -> bool:
        """Whether it speaks of exactly this principal."""
        return (principal in self.principals) is not self.inverted_principals

    def covers(self, asked: Question) -> bool:
        """Whether the caller is among those it speaks of."""
        everyone = {ANYONE, asked.root, asked.principal}
        return self.principals.isdisjoint(everyone) is self.inverted_principals


@dataclass(frozen=True, slots=True)
class Policy:
    """A key policy, read."""

    statements: tuple[Statement, ...]

    def judge(self, asked: Question) -> Judgement:
        """What it says."""
        found = Judgement()
        for statement in self.statements:
            if not (statement.covers(asked) and statement.applies(asked)):
                continue
            if not statement.allows:
                return Judgement(denied=True)
            named = statement.names(asked.principal) and not statement.inverted_principals
            found = Judgement(named=found.named or named, delegated=found.delegated or not named)
        return found


@lru_cache(maxsize=1024)
def read_policy(text: str) -> Policy:
    """Read a policy document. Raises MalformedPolicy."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedPolicy("the policy is not JSON") from None
    statements = document.get("Statement") if isinstance(document, dict) else None
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not statements:
        raise MalformedPolicy("the policy has no statement")
    return Policy(tuple(_statement(one) for one in statements))


def _statement(raw: object) -> Statement:
    if not isinstance(raw, dict) or not raw.keys() <= _MEMBERS or raw.get("Effect") not in {"Allow", "Deny"}:
        raise MalformedPolicy("a statement has unknown members or no effect")
    who, who_not = _either(raw, "Principal")
    what, what_not = _either(raw, "Action")
    where, where_not = _either(raw, "Resource")
    return Statement(
        allows=raw["Effect"] == "Allow",
        principals=_principals(who),
        inverted_principals=who_not,
        actions=_texts(what),
        inverted_actions=what_not,
        resources=_texts(where),
        inverted_resources=where_not,
        conditions=tuple(_conditions(raw.get("Condition", {}))),
    )


def _either(raw: Mapping[str, Any], name: str) -> tuple[Any, bool]:
    if (name in raw) is (f"Not{name}" in raw):
        raise MalformedPolicy(f"a statement has either {name} or Not{name}")
    return (raw[name], False) if name in raw else (raw[f"Not{name}"], True)


def _texts(value: object) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise MalformedPolicy("a member of a statement is neither text nor a list of texts")
    return tuple(found)


def _principals(value: object) -> frozenset[str]:
    if value == ANYONE:
        return frozenset({ANYONE})
    if not isinstance(value, dict) or not value:
        raise MalformedPolicy("a principal is `*` or an object")
    found: set[str] = set()
    for kind, names in value.items():
        if kind not in {"AWS", "Service", "Federated", "CanonicalUser"}:
            raise MalformedPolicy("a principal is of an unknown kind")
        for name in _texts(names):
            digits = kind == "AWS" and name.isdigit()
            found.add(f"arn:aws:iam::{name}:root" if digits else name)
    return frozenset(found)


def _conditions(raw: object) -> list[tuple[str, str, tuple[str, ...]]]:
    if not isinstance(raw, dict):
        raise MalformedPolicy("a condition is an object")
    found = []
    for operator, keys in raw.items():
        if not isinstance(keys, dict):
            raise MalformedPolicy("a condition is an object of objects")
        for key, values in keys.items():
            listed = values if isinstance(values, list) else [values]
            found.append((operator, key.lower(), tuple(_scalar(one) for one in listed)))
    return found


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise MalformedPolicy("a condition's value is neither text, number nor truth value")


# Conditions


def _like(pattern: str, text: str) -> bool:
    """Whether a pattern with `*` and `?` covers the text."""
    if "?" not in pattern:
        return matches(pattern, text)
    # At most one of the two ways forward is tried again for each position: no pattern takes exponential time.
    place = mark = 0
    star = -1
    index = 0
    while place < len(text):
        if index < len(pattern) and pattern[index] != "*" and pattern[index] in {"?", text[place]}:
            place, index = place + 1, index + 1
        elif index < len(pattern) and pattern[index] == "*":
            star, mark, index = index, place, index + 1
        elif star >= 0:
            mark += 1
            place, index = mark, star + 1
        else:
            return False
    return set(pattern[index:]) <= {"*"}


_Compare = Callable[[str, str], bool]
_OPERATORS: Final[Mapping[str, tuple[_Compare, bool]]] = {
    # How a pattern and a value are compared, and whether no match is what is asked for.
    "StringEquals": (lambda pattern, value: pattern == value, False),
    "StringNotEquals": (lambda pattern, value: pattern == value, True),
    "StringEqualsIgnoreCase": (lambda pattern, value: pattern.lower() == value.lower(), False),
    "StringNotEqualsIgnoreCase": (lambda pattern, value: pattern.lower() == value.lower(), True),
    "StringLike": (_like, False),
    "StringNotLike": (_like, True),
    "ArnEquals": (_like, False),
    "ArnLike": (_like, False),
    "ArnNotEquals": (_like, True),
    "ArnNotLike": (_like, True),
    "Bool": (lambda pattern, value: pattern.lower() == value.lower(), False),
}


def _holds(operator: str, key: str, wanted: tuple[str, ...], context: Context, *, unknown: bool) -> bool:
    values = context.get(key)
    if operator == "Null":
        return (values is None) is ("true" in wanted)
    scope, colon, name = operator.rpartition(":")
    optional = name.endswith("IfExists")
    known = _OPERATORS.get(name.removesuffix("IfExists"))
    if known is None or (colon and scope not in {"ForAllValues", "ForAnyValue"}):
        return unknown
    compare, negated = known
    if values is None:
        return optional or negated or scope == "ForAllValues"
    met = [any(compare(pattern, value) for pattern in wanted) is not negated for value in values]
    return all(met) if scope == "ForAllValues" else any(met)
