"""ACL policies, as far as they are grants: one is taken if what it allows is what a set of grants allows, else refused.

What every caller has (a look at its own token, the names of the keys it has grants on) may be in a policy and adds
nothing; what follows from a permission (a MAC from `sign`, a data key from `encrypt`) is given with it, and may stand
beside it.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from keyvault_lite.access.authorize import check_reader, permissions_on, permissions_under
from keyvault_lite.dialects.vault.authority import authority, makes_tokens
from keyvault_lite.dialects.vault.requests import key_ref
from keyvault_lite.dialects.vault.rules import is_absent
from keyvault_lite.dialects.vault.system_requests import OPERATIONS
from keyvault_lite.dialects.vault.token_requests import (
    DEFAULT_POLICY,
    GRANTS,
    MAKES_TOKENS,
    MAX_POLICY,
    POLICIES,
    ROOT_POLICY,
    DeletePolicy,
    ListPolicies,
    PolicyRule,
    ReadCapabilities,
    ReadPolicy,
    WritePolicy,
)
from keyvault_lite.dialects.vault.tokens import BAD_TOKEN, named_token
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.model.errors import InvalidRequest, NotFound
from keyvault_lite.model.identity import Permission, Principal, Role, Setting
from keyvault_lite.model.leases import MADE, Lease
from keyvault_lite.model.requests import Request

UPDATE: Final = "update"
VOID: Final = frozenset({"create", "list", "read"})
"""What may be beside it and gives nothing: keys are made by an ADMIN, and there is nothing to read or to list."""
KNOWN: Final = frozenset({"create", "delete", "deny", "list", "patch", "read", "sudo", "update"})
EVERYONE: Final[Mapping[str, frozenset[str]]] = {
    "auth/token/lookup-self": frozenset({"read", "update"}),
    "auth/token/renew-self": frozenset({"update"}),
    "auth/token/revoke-self": frozenset({"update"}),
    "sys/capabilities-self": frozenset({"update"}),
}
"""What any caller may do."""
DEFAULT_TEXT: Final = "".join(
    f'path "{path}" {{\n  capabilities = {json.dumps(sorted(held))}\n}}\n' for path, held in EVERYONE.items()
)
"""The policy that says so, and that cannot be changed."""
GIVES: Final[Mapping[str, frozenset[Permission]]] = {
    "encrypt": frozenset({Permission.ENCRYPT}),
    "decrypt": frozenset({Permission.DECRYPT}),
    "sign": frozenset({Permission.SIGN}),
    "verify": frozenset({Permission.VERIFY}),
}
"""Operations that are a permission."""
FOLLOWS: Final[Mapping[str, frozenset[Permission]]] = {
    "datakey": frozenset({Permission.ENCRYPT}),
    "hmac": frozenset({Permission.SIGN}),
    "rewrap": frozenset({Permission.ENCRYPT, Permission.DECRYPT}),
}
"""Operations that follow from permissions and are none of their own."""
KEYLESS: Final = frozenset({"hash", "random"})
"""Operations that need no permission."""
LISTED: Final = "list"
"""The names of the keys: every caller sees those that it has grants on, with a rule or without."""
OPTIONAL_TAIL: Final = frozenset({"hmac", "sign", "verify"})
"""Operations whose path may go on with an algorithm."""
Pattern = str
"""A key's name in its mount, or a glob over such names."""


def compile_rules(rules: tuple[PolicyRule, ...]) -> dict[Pattern, frozenset[Permission]]:
    """The grants that a policy comes to, MADE aside. Raises InvalidRequest naming the first rule that comes to none."""
    granted: dict[Pattern, frozenset[Permission]] = {}
    wanted: list[tuple[PolicyRule, Pattern, frozenset[Permission]]] = []
    for rule in rules:
        if rule.capabilities - KNOWN:
            raise _refusal(rule, "it names an unknown capability")
        if rule.capabilities <= EVERYONE.get(rule.path, frozenset()) or lets_make_tokens(rule):
            continue
        operation, pattern = _target(rule)
        if operation == LISTED:
            continue
        if operation == "keys":
            wanted.append((rule, pattern, frozenset()))
            continue
        if UPDATE not in rule.capabilities or rule.capabilities - {UPDATE} - VOID:
            raise _refusal(rule, "using a key is the capability update")
        if operation in GIVES:
            granted[pattern] = granted.get(pattern, frozenset()) | GIVES[operation]
        else:
            wanted.append((rule, pattern, FOLLOWS[operation]))
    for rule, pattern, needed in wanted:
        if pattern not in granted or not granted[pattern] >= needed:
            raise _refusal(rule, "it follows from permissions that the policy does not give on the same keys")
    return granted


def lets_make_tokens(rule: PolicyRule) -> bool:
    """Whether the rule is the one that lets a token make children."""
    return rule.path == MADE and UPDATE in rule.capabilities <= {UPDATE, "create"}


def _refusal(rule: PolicyRule, why: str) -> InvalidRequest:
    return InvalidRequest(f'the rule for path "{rule.path}" does not come to grants exactly: {why}')


def _target(rule: PolicyRule) -> tuple[str, Pattern]:
    """The operation and the keys that a rule is about."""
    if "+" in rule.path:
        raise _refusal(rule, "a '+' segment may stand for things that no glob over key names tells apart")
    if "{{" in rule.path:
        raise _refusal(rule, "there are no identities here that a template could name")
    segments = rule.path.split("/")
    if not segments[0]:
        raise _refusal(rule, "a path begins without a slash")
    at = next((index for index, one in enumerate(segments) if index and one in OPERATIONS), None)
    if at is None or "*" in rule.path[:-1]:
        raise _refusal(rule, "it is not about the use of keys in one mount")
    mount, operation, rest = "/".join(segments[:at]), segments[at], segments[at + 1 :]
    if operation == "datakey" and rest and rest[0] in {"plaintext", "wrapped"}:
        rest = rest[1:]
    if operation in OPTIONAL_TAIL and rest[1:] == ["*"]:
        rest = rest[:1]
    if operation == "keys" and not any(rest) and rule.capabilities <= {"list"}:
        return LISTED, ""
    readable = operation == "keys" and rule.capabilities <= {"read"}
    if len(rest) != 1 or not rest[0] or not (readable or operation in GIVES or operation in FOLLOWS):
        raise _refusal(rule, "managing keys is for an ADMIN")
    return operation, key_ref(mount, rest[0])


def write(request: WritePolicy, ctx: HandlerContext) -> HandlerResult:
    """Keep a policy with the grants it comes to."""
    if request.name in {ROOT_POLICY, DEFAULT_POLICY}:
        raise InvalidRequest(f"the policy {request.name} cannot be changed")
    if len(request.text) > MAX_POLICY:
        raise InvalidRequest("a policy has at most 64 KiB")
    grants = [[pattern, sorted(held)] for pattern, held in sorted(compile_rules(request.rules).items())]
    makes_tokens = any(map(lets_make_tokens, request.rules))
    value = {"policy": request.text, GRANTS: grants, MAKES_TOKENS: makes_tokens}
    kept = Setting(POLICIES + request.name, value)
    return HandlerResult(None, Change(settings=(kept,)))


def read(request: ReadPolicy, ctx: HandlerContext) -> HandlerResult:
    """The text of a policy."""
    check_reader(ctx.principal)
    found = ctx.state.setting(POLICIES + request.name)
    if found is not None and found.value is not None:
        return HandlerResult(found.value["policy"])
    if request.name in {ROOT_POLICY, DEFAULT_POLICY}:
        return HandlerResult(DEFAULT_TEXT if request.name == DEFAULT_POLICY else "")
    raise NotFound("no such policy")


def delete(request: DeletePolicy, ctx: HandlerContext) -> HandlerResult:
    """Forget a policy."""
    if request.name in {ROOT_POLICY, DEFAULT_POLICY}:
        raise InvalidRequest(f"the policy {request.name} cannot be deleted")
    if ctx.state.setting(POLICIES + request.name) is None:
        return HandlerResult(None)
    return HandlerResult(None, Change(settings=(Setting(POLICIES + request.name, None),)))


def page(_: ListPolicies, ctx: HandlerContext) -> HandlerResult:
    """The names of all policies."""
    check_reader(ctx.principal)
    kept = {one.name.removeprefix(POLICIES) for one in ctx.state.settings_under(POLICIES)}
    return HandlerResult(tuple(sorted(kept | {DEFAULT_POLICY, ROOT_POLICY})))


def capabilities(request: ReadCapabilities, ctx: HandlerContext) -> HandlerResult:
    """What a token may do at each path: the caller's own, or another that it may look at."""
    token = named_token(request, ctx)
    principal, lease = ctx.principal, Lease.of(token)
    if token.id != principal.token_id:
        service = ctx.state.find_service(token.service_id)
        if service is None:
            raise InvalidRequest(BAD_TOKEN)
        role, grants, narrowed = authority(token, service, ctx.state)
        principal = replace(principal, role=role, grants=grants, narrowed=narrowed)
    mine = {**EVERYONE, MADE: {UPDATE}} if makes_tokens(lease, ctx.state) else EVERYONE
    return HandlerResult({path: _capabilities(path.strip("/"), principal, mine, ctx.state) for path in request.paths})


def _capabilities(
    path: str, principal: Principal, mine: Mapping[str, Collection[str]], state: State
) -> tuple[str, ...]:
    if principal.role is Role.ADMIN:
        return (ROOT_POLICY,)
    if path in mine:
        return tuple(sorted(mine[path]))
    segments = path.split("/")
    at = next((index for index, one in enumerate(segments) if index and one in OPERATIONS), None)
    held = () if at is None else _held(segments[at], segments[at + 1 :], "/".join(segments[:at]), principal, state)
    return held or ("deny",)


def _held(operation: str, rest: list[str], mount: str, principal: Principal, state: State) -> tuple[str, ...]:
    """What the principal may do with an operation of a mount, on the key that its path names, there or not."""
    if operation in KEYLESS:
        return (UPDATE,) if principal.role is Role.SERVICE else ()
    if not rest:
        return ("list",) if operation == "keys" else ()
    name = rest[1:2] if operation == "datakey" else rest[:1]
    if not name or not name[0]:
        return ()
    ref = key_ref(mount, name[0])
    key = state.find_key(ref)
    held = permissions_under(principal, ref) if key is None or is_absent(key) else permissions_on(principal, key)
    if operation == "keys":
        return ("read",) if held or principal.role is Role.AUDITOR else ()
    needed = GIVES.get(operation) or FOLLOWS.get(operation)
    return (UPDATE,) if needed and held >= needed else ()


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    DeletePolicy: delete,
    ListPolicies: page,
    ReadCapabilities: capabilities,
    ReadPolicy: read,
    WritePolicy: write,
}
