"""ACL policies, as far as they are grants: one is taken if what it allows is what a set of grants allows, else refused.

What every caller has (a look at its own token, the names of the keys it has grants on) may stand in a policy and adds
nothing; what follows from a permission (a MAC from `sign`, a data key from `encrypt`) may stand beside it.
"""

from collections.abc import Mapping
from typing import Final

from keyvault_lite.access.authorize import ROLE_REFUSAL, permissions_on
from keyvault_lite.engine.scene import Done, Handler, Scene
from keyvault_lite.engine.transit_rules import is_absent
from keyvault_lite.ledger.outcome import Change
from keyvault_lite.model.errors import Forbidden, InvalidRequest, NotFound
from keyvault_lite.model.identity import Permission, Role, Setting
from keyvault_lite.model.requests import Request
from keyvault_lite.model.transit import key_ref
from keyvault_lite.model.transit_system import OPERATIONS
from keyvault_lite.model.transit_tokens import (
    DEFAULT_POLICY,
    GRANTS,
    MADE,
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

UPDATE: Final = "update"
KNOWN: Final = frozenset({"create", "delete", "deny", "list", "patch", "read", "sudo", "update"})
EVERYONE: Final[Mapping[str, frozenset[str]]] = {
    "auth/token/lookup-self": frozenset({"read", "update"}),
    "auth/token/renew-self": frozenset({"update"}),
    "auth/token/revoke-self": frozenset({"update"}),
    "sys/capabilities-self": frozenset({"update"}),
}
"""What any caller may do."""
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
OPTIONAL_TAIL: Final = frozenset({"hmac", "sign", "verify"})
"""Operations whose path may go on with an algorithm."""
Pattern = str
"""A key's name in its mount, or a glob over such names."""


def compile_rules(rules: tuple[PolicyRule, ...]) -> dict[Pattern, frozenset[Permission]]:
    """The grants that a policy comes to. Raises InvalidRequest naming the first rule that comes to none exactly."""
    granted: dict[Pattern, frozenset[Permission]] = {}
    wanted: list[tuple[PolicyRule, Pattern, frozenset[Permission]]] = []
    for rule in rules:
        if rule.capabilities - KNOWN:
            raise _refusal(rule, "it names an unknown capability")
        if rule.capabilities <= EVERYONE.get(rule.path, frozenset()):
            continue
        operation, pattern = _target(rule)
        if operation == "keys":
            wanted.append((rule, pattern, frozenset()))
            continue
        if rule.capabilities != {UPDATE}:
            raise _refusal(rule, "using a key is the capability update and no other")
        if operation in GIVES:
            granted[pattern] = granted.get(pattern, frozenset()) | GIVES[operation]
        else:
            wanted.append((rule, pattern, FOLLOWS[operation]))
    for rule, pattern, needed in wanted:
        if pattern not in granted or not granted[pattern] >= needed:
            raise _refusal(rule, "it follows from permissions that the policy does not give on the same keys")
    return granted


def _refusal(rule: PolicyRule, why: str) -> InvalidRequest:
    return InvalidRequest(f'the rule for path "{rule.path}" does not come to grants exactly: {why}')


def _target(rule: PolicyRule) -> tuple[str, Pattern]:
    """The operation and the keys that a rule is about."""
    if "+" in rule.path:
        raise _refusal(rule, "a '+' segment may stand for things that no glob over key names tells apart")
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
    if operation == "keys" and (not rest or rest == [""]) and rule.capabilities <= {"list"}:
        raise _refusal(rule, "the list of keys has what the caller has grants on, without a rule")
    readable = operation == "keys" and rule.capabilities <= {"read"}
    if len(rest) != 1 or not rest[0] or not (readable or operation in GIVES or operation in FOLLOWS):
        raise _refusal(rule, "managing keys is for an ADMIN")
    return operation, key_ref(mount, rest[0])


def write(request: WritePolicy, scene: Scene) -> Done:
    """Keep a policy with the grants it comes to."""
    if request.name in {ROOT_POLICY, DEFAULT_POLICY}:
        raise InvalidRequest(f"the policy {request.name} cannot be changed")
    if len(request.text) > MAX_POLICY:
        raise InvalidRequest("a policy has at most 64 KiB")
    grants = [[pattern, sorted(held)] for pattern, held in sorted(compile_rules(request.rules).items())]
    kept = Setting(POLICIES + request.name, {"policy": request.text, GRANTS: grants})
    return Done(None, Change(settings=(kept,)))


def read(request: ReadPolicy, scene: Scene) -> Done:
    """The text of a policy."""
    _check_reader(scene)
    found = scene.state.setting(POLICIES + request.name)
    if found is not None and found.value is not None:
        return Done(found.value["policy"])
    if request.name in {ROOT_POLICY, DEFAULT_POLICY}:
        return Done("")
    raise NotFound("no such policy")


def delete(request: DeletePolicy, scene: Scene) -> Done:
    """Forget a policy."""
    if request.name in {ROOT_POLICY, DEFAULT_POLICY}:
        raise InvalidRequest(f"the policy {request.name} cannot be deleted")
    if scene.state.setting(POLICIES + request.name) is None:
        return Done(None)
    return Done(None, Change(settings=(Setting(POLICIES + request.name, None),)))


def _check_reader(scene: Scene) -> None:
    if scene.principal.role is Role.SERVICE:
        raise Forbidden(ROLE_REFUSAL)


def page(_: ListPolicies, scene: Scene) -> Done:
    """The names of all policies."""
    _check_reader(scene)
    kept = {one.name.removeprefix(POLICIES) for one in scene.state.settings_under(POLICIES)}
    return Done(tuple(sorted(kept | {DEFAULT_POLICY, ROOT_POLICY})))


def capabilities(request: ReadCapabilities, scene: Scene) -> Done:
    """What the caller may do at each path."""
    return Done({path: _capabilities(path, scene) for path in request.paths})


def _capabilities(path: str, scene: Scene) -> tuple[str, ...]:
    if scene.principal.role is Role.ADMIN:
        return (ROOT_POLICY,)
    segments = path.strip("/").split("/")
    at = next((index for index, one in enumerate(segments) if index and one in OPERATIONS), None)
    if path in EVERYONE or path == MADE:
        return tuple(sorted(EVERYONE.get(path, {UPDATE})))
    if at is None:
        return ("deny",)
    held = _held(segments[at], segments[at + 1 :], "/".join(segments[:at]), scene)
    return held or ("deny",)


def _held(operation: str, rest: list[str], mount: str, scene: Scene) -> tuple[str, ...]:
    """What the caller may do with an operation of a mount, on the key that its path names."""
    if operation in KEYLESS:
        return (UPDATE,) if scene.principal.role is Role.SERVICE else ()
    if not rest:
        return ("list",) if operation == "keys" else ()
    name = rest[1:2] if operation == "datakey" else rest[:1]
    key = scene.state.find_key(key_ref(mount, name[0])) if name else None
    if key is None or is_absent(key):
        return ()
    held = permissions_on(scene.principal, key)
    if operation == "keys":
        return ("read",) if held or scene.principal.role is Role.AUDITOR else ()
    needed = GIVES.get(operation) or FOLLOWS.get(operation)
    return (UPDATE,) if needed and held >= needed else ()


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    DeletePolicy: delete,
    ListPolicies: page,
    ReadCapabilities: capabilities,
    ReadPolicy: read,
    WritePolicy: write,
}
