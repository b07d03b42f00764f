"""Key policies of the AWS dialect: read once, then evaluated by table. They only narrow what the vault itself allows.

A statement that allows says who may do what within the vault's own authorisation; one that denies always wins. What is
not understood counts against the caller: of conditions see dialects/aws/conditions.py.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from keyvault_lite.dialects.aws.conditions import VARIABLE, Context, covers_arn, holds, like
from keyvault_lite.dialects.aws.errors import MalformedPolicy
from keyvault_lite.dialects.aws.model import comparable
from keyvault_lite.model.errors import MalformedRequest
from keyvault_lite.model.strict_json import read_text

ANYONE: Final = "*"
_MEMBERS: Final = frozenset(
    {"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"}
)
_VERSIONS: Final = frozenset({"2008-10-17", "2012-10-17"})
_ACCOUNT: Final = re.compile(r"\d{12}", re.ASCII)
_PRINCIPAL: Final = re.compile(r"arn:([a-z-]+):(?:iam|sts)::\d{12}:[\w+=,.@:/-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """What is asked of a policy."""

    principal: str
    """The caller's ARN, comparable."""
    root: str
    """The account's ARN, comparable: a statement for it leaves the decision to the vault."""
    action: str
    """`kms:` and the operation."""
    resource: str
    """The key's ARN, with `*` where it is in every partition and Region."""
    context: Context

    @property
    def account(self) -> str:
        """The account's id, which is another name of `root`."""
        return self.root.split(":")[4]


@dataclass(frozen=True, slots=True)
class Decision:
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
    """Comparable ARNs, account ids and `*`."""
    inverted_principals: bool
    actions: tuple[str, ...]
    inverted_actions: bool
    resources: tuple[str, ...]
    inverted_resources: bool
    conditions: tuple[tuple[str, str, tuple[str, ...]], ...]
    """Operator, key in lower case, values."""

    def applies(self, asked: AuthorizationRequest) -> bool:
        """Whether it speaks of this action, resource and context; of whom is another matter."""
        action, resource = asked.action.lower(), asked.resource
        if any(like(one.lower(), action) for one in self.actions) is self.inverted_actions:
            return False
        if any(VARIABLE in one for one in self.resources):
            if self.allows:
                return False  # as of conditions
        elif any(covers_arn(one, resource) for one in self.resources) is self.inverted_resources:
            return False
        return all(holds(*condition, asked.context, denies=not self.allows) for condition in self.conditions)

    def names(self, principal: str) -> bool:
        """Whether it speaks of exactly this principal."""
        return (principal in self.principals) is not self.inverted_principals

    def covers(self, asked: AuthorizationRequest) -> bool:
        """Whether the caller is among those it speaks of."""
        names = {ANYONE, asked.principal}
        if self.allows or not self.inverted_principals:
            names |= {asked.root, asked.account}
        # A Deny with NotPrincipal names the account beside the principal that it spares: AWS asks for that, and it
        # spares nobody else of the account. An Allow with NotPrincipal leaves out everybody of an account it names.
        return self.principals.isdisjoint(names) is self.inverted_principals


@dataclass(frozen=True, slots=True)
class Policy:
    """A key policy, read."""

    statements: tuple[Statement, ...]

    def evaluate(self, asked: AuthorizationRequest) -> Decision:
        """What it says."""
        found = Decision()
        for statement in self.statements:
            if not (statement.covers(asked) and statement.applies(asked)):
                continue
            if not statement.allows:
                return Decision(denied=True)
            named = statement.names(asked.principal) and not statement.inverted_principals
            found = Decision(named=found.named or named, delegated=found.delegated or not named)
        return found


@lru_cache(maxsize=1024)
def read_policy(text: str) -> Policy:
    """Read a policy document. Raises MalformedPolicy."""
    return Policy(tuple(_statement(one) for one in _statements(_document(text))))


def check_policy(text: str, partition: str) -> None:
    """Raise MalformedPolicy for a document that is not to be kept: it would be read, and not say what it seems to.

    A principal that can be nobody, above all: a statement that denies it something would deny nothing.
    """
    read_policy(text)
    document = _document(text)
    if str(document.get("Version", "2012-10-17")) not in _VERSIONS:
        raise MalformedPolicy("the policy is of an unknown version")
    statements = _statements(document)
    sids = [one["Sid"] for one in statements if "Sid" in one]
    if not all(isinstance(one, str) for one in sids) or len(set(sids)) != len(sids):
        raise MalformedPolicy("the Sid of a statement is not text, or stands twice")
    for one in statements:
        for name in _aws_principals(one.get("Principal", one.get("NotPrincipal"))):
            if name != ANYONE and _ACCOUNT.fullmatch(name) is None and not is_principal(name, partition):
                raise MalformedPolicy("a principal is neither `*`, an account, nor an ARN of IAM or STS here")


def is_principal(name: str, partition: str) -> bool:
    """Whether a name is the ARN of an account, user, role or session in this partition."""
    found = _PRINCIPAL.fullmatch(name)
    return found is not None and found.group(1) == partition


def _document(text: str) -> Mapping[str, Any]:
    try:
        document = read_text(text)
    except MalformedRequest as error:
        raise MalformedPolicy(f"the policy is not strict JSON: {error.detail}") from None
    if not isinstance(document, dict):
        raise MalformedPolicy("the policy is not an object")
    return document


def _statements(document: Mapping[str, Any]) -> list[Any]:
    statements = document.get("Statement")
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not statements:
        raise MalformedPolicy("the policy has no statement")
    return statements


def _statement(raw: object) -> Statement:
    if not isinstance(raw, dict) or not raw.keys() <= _MEMBERS or raw.get("Effect") not in ("Allow", "Deny"):
        raise MalformedPolicy("a statement has unknown members or no effect")
    allows = raw["Effect"] == "Allow"
    who, who_not = _either(raw, "Principal")
    # A statement without principals that allows, allows nothing. One that denies was meant to deny something: refused.
    what, what_not = _either(raw, "Action", optional=allows)
    where, where_not = _either(raw, "Resource", optional=allows)
    return Statement(
        allows=allows,
        principals=frozenset(map(comparable, _aws_principals(who))),
        inverted_principals=who_not,
        actions=() if what == () else _texts(what),
        inverted_actions=what_not,
        resources=() if where == () else _texts(where),
        inverted_resources=where_not,
        conditions=tuple(_conditions(raw.get("Condition", {}))),
    )


def _either(raw: Mapping[str, Any], name: str, *, optional: bool = False) -> tuple[Any, bool]:
    given = [one for one in (name, f"Not{name}") if one in raw]
    if optional and not given:
        return (), False
    if len(given) != 1:
        raise MalformedPolicy(f"a statement has either {name} or Not{name}")
    return raw[given[0]], given[0] != name


def _texts(value: object) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise MalformedPolicy("a member of a statement is neither text nor a list of texts")
    return tuple(found)


def _aws_principals(value: object) -> Iterator[str]:
    """The principals that callers of the vault can be; services and identities of others are none of them."""
    if value == ANYONE:
        yield ANYONE
        return
    if not isinstance(value, dict) or not value:
        raise MalformedPolicy("a principal is `*` or an object")
    for kind, names in value.items():
        if kind not in {"AWS", "Service", "Federated", "CanonicalUser"}:
            raise MalformedPolicy("a principal is of an unknown kind")
        found = _texts(names)
        if kind == "AWS":
            yield from found


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
