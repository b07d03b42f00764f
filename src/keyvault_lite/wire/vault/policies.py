"""ACL policies: the language they are written in, bodies to requests, results to data.

The language is the part of HCL that policies use: `path "…" { capabilities = ["…"] }`, comments, and the same in JSON.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from keyvault_lite.dialects.vault.token_requests import (
    MAX_POLICY,
    DeletePolicy,
    ListPolicies,
    PolicyRule,
    ReadPolicy,
    WritePolicy,
)
from keyvault_lite.model.errors import InvalidRequest, KeyVaultError
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.requests import Request
from keyvault_lite.wire.reader import read_json
from keyvault_lite.wire.vault.route import NO_CONTENT, Operation, RawReply, VaultCall
from keyvault_lite.wire.vault.values import text, texts

_TOKEN: Final = re.compile(
    r'\s+|#[^\n]*|//[^\n]*|/\*.*?\*/|(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<word>[A-Za-z_]\w*)|(?P<mark>[{}\[\]=,])',
    re.DOTALL | re.ASCII,
)
MAX_RULES: Final = 1000
_NOT_CLEAR: Final = 'failed to parse policy: the rules are path "..." { capabilities = ["..."] }'


def _tokens(source: str) -> Iterator[str]:
    at = 0
    while at < len(source):
        found = _TOKEN.match(source, at)
        if found is None:
            raise InvalidRequest(_NOT_CLEAR)
        at = found.end()
        if found.lastgroup is not None:
            yield found[0]


def read_policy(source: str) -> tuple[PolicyRule, ...]:
    """The rules of a policy. Raises InvalidRequest for anything but paths with capabilities."""
    if len(source) > MAX_POLICY:
        raise InvalidRequest("a policy has at most 64 KiB")
    if source.lstrip().startswith("{"):
        return _read_json(source)
    tokens = _tokens(source)
    rules: list[PolicyRule] = []
    for first in tokens:
        path, brace = next(tokens, ""), next(tokens, "")
        body = _until_closed(tokens)
        if first.strip('"') != "path" or brace != "{":
            raise InvalidRequest(_NOT_CLEAR)
        rules.append(_rule(path, body))
    return _bounded(rules)


def _until_closed(tokens: Iterator[str]) -> list[str]:
    body: list[str] = []
    for one in tokens:
        if one == "}":
            return body
        body.append(one)
    raise InvalidRequest(_NOT_CLEAR)


def _bounded(rules: list[PolicyRule]) -> tuple[PolicyRule, ...]:
    if len(rules) > MAX_RULES:
        raise InvalidRequest("a policy has at most 1000 rules")
    return tuple(rules)


def _rule(path: str, body: list[str]) -> PolicyRule:
    if body[-1:] == [","]:
        body = body[:-1]
    if [body[0].strip('"') if body else "", *body[1:3]] != ["capabilities", "=", "["] or body[-1:] != ["]"]:
        raise InvalidRequest(f"{_NOT_CLEAR}; there are no other conditions here")
    listed = [one for one in body[3:-1] if one != ","]
    return PolicyRule(_string(path), frozenset(map(_string, listed)))


def _string(token: str) -> str:
    if not token.startswith('"') or "\\" in token:
        raise InvalidRequest(_NOT_CLEAR)
    return token[1:-1]


def _read_json(source: str) -> tuple[PolicyRule, ...]:
    try:
        document: Any = read_json(source.encode())
    except KeyVaultError:
        raise InvalidRequest(_NOT_CLEAR) from None
    paths = document.get("path") if isinstance(document, dict) and set(document) == {"path"} else None
    rules = []
    for part in paths if isinstance(paths, list) and paths else [paths]:
        if not isinstance(part, dict):
            raise InvalidRequest(_NOT_CLEAR)
        for path, body in part.items():
            if not isinstance(body, dict) or set(body) != {"capabilities"}:
                raise InvalidRequest(f"{_NOT_CLEAR}; there are no other conditions here")
            rules.append(PolicyRule(path, frozenset(texts(body, "capabilities"))))
    return _bounded(rules)


def _write(call: VaultCall) -> Request:
    source = text(call.fields, "policy") or text(call.fields, "rules")
    if not source:
        raise InvalidRequest("'policy' parameter not supplied or empty")
    return WritePolicy(name=call.path["name"], text=source, rules=read_policy(source))


def _read(found: str, request: Any, _: VaultCall) -> RawReply:  # noqa: ANN401
    return RawReply({"name": request.name, "policy": found})


def _read_old(found: str, request: Any, _: VaultCall) -> RawReply:  # noqa: ANN401
    return RawReply({"name": request.name, "rules": found}, merged=True)


def _names(found: tuple[str, ...], _: Request, __: VaultCall) -> RawReply:
    return RawReply({"keys": list(found), "policies": list(found)}, merged=True)


def _no_content(*_: object) -> RawReply:
    return NO_CONTENT


_FIELDS: Final = frozenset({"policy", "rules", "name"})
LIST: Final = Operation(
    operation="sys.policies.list",
    action=Action.SETTING_READ,
    build=lambda _: ListPolicies(),
    render=_names,
    fields=frozenset({"list"}),
)
WRITE: Final = Operation(
    operation="sys.policies.write",
    action=Action.SETTING_UPDATE,
    build=_write,
    render=_no_content,
    fields=_FIELDS,
)
READ: Final = Operation(
    operation="sys.policies.read",
    action=Action.SETTING_READ,
    build=lambda call: ReadPolicy(name=call.path["name"]),
    render=_read,
)
READ_OLD: Final = Operation(
    operation="sys.policy.read",
    action=Action.SETTING_READ,
    build=lambda call: ReadPolicy(name=call.path["name"]),
    render=_read_old,
)
DELETE: Final = Operation(
    operation="sys.policies.delete",
    action=Action.SETTING_UPDATE,
    build=lambda call: DeletePolicy(name=call.path["name"]),
    render=_no_content,
)
