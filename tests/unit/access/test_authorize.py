"""Who may do what: the table of the contract, role by role and action by action, and grants."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from keyvault_lite.access import authorize
from keyvault_lite.access.authorize import (
    check_key,
    check_role,
    may_know,
    may_read_entry,
    may_renew,
    permissions_on,
)
from keyvault_lite.dialects.vault.handlers import VAULT
from keyvault_lite.dialects.vault.token_requests import Login
from keyvault_lite.engine.native import NATIVE as NATIVE_API
from keyvault_lite.model import identity
from keyvault_lite.model.actions import RULES
from keyvault_lite.model.errors import Forbidden, NotFound
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.identity import Grant, Permission, Principal, Role
from keyvault_lite.model.keys import Key, KeyName, KeyStatus
from keyvault_lite.model.names import SYSTEM, KeyId, ServiceId, matches, new_id
from keyvault_lite.model.operation import Authority
from keyvault_lite.model.requests import (
    EraseDueKey,
    Initialise,
    ListKeys,
    RecoverAdmin,
    Rejected,
    RenewToken,
    Request,
    RotateDueKey,
)
from tests.support.harness import AES, grant

ROLES = {action: rule.roles for action, rule in RULES.items() if rule.roles}
PERMISSIONS = {action: rule.permissions for action, rule in RULES.items() if rule.permissions is not None}
SYSTEM_ONLY = {kind for kind in (*NATIVE_API.handlers, *VAULT.handlers) if kind.authority is Authority.VAULT}
SERVICE_USES = {
    Action.DATA_KEY,
    Action.DATA_KEY_OPEN,
    Action.DECRYPT,
    Action.ENCRYPT,
    Action.RANDOM,
    Action.REWRAP,
    Action.SIGN,
    Action.VERIFY,
}
EVERYBODY = {Action.KEY_READ, Action.LOG_KEY_READ, Action.RECEIPT_READ, Action.TOKEN_RENEW}
AUDITS = {Action.AUDIT_READ, Action.AUDIT_VERIFY, Action.SERVICE_READ}
MANAGEMENT = {
    Action.DESTROY,
    Action.DISABLE,
    Action.ENABLE,
    Action.GENERATE,
    Action.KEY_UPDATE,
    Action.RESTORE,
    Action.REVOKE,
    Action.ROTATE,
    Action.SERVICE_CREATE,
    Action.SERVICE_UPDATE,
}
NATIVE = SERVICE_USES | EVERYBODY | AUDITS | MANAGEMENT
MAY = {Role.ADMIN: NATIVE, Role.SERVICE: SERVICE_USES | EVERYBODY, Role.AUDITOR: AUDITS | EVERYBODY}
NOBODYS = {Action.AUTHENTICATE, Action.INITIALISE, Action.MASTER_KEY_ROTATE}


def principal(role: Role | None, *grants: Grant) -> Principal:
    return Principal(ServiceId(new_id()), "caller", role, grants)


def key(name: str | None = None, *aliases: str) -> Key:
    names = tuple(KeyName("vault:transit/", alias, 0, 0) for alias in aliases)
    return Key(KeyId(new_id()), name, AES, KeyStatus.ACTIVE, 0, names=names)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("action", sorted(NATIVE | NOBODYS))
def test_the_table_of_roles(action: Action, role: Role) -> None:
    request = Rejected(action, NotFound())
    if action in MAY[role]:
        check_role(principal(role), request, action)
    else:
        with pytest.raises(Forbidden):
            check_role(principal(role), request, action)


def test_no_action_of_the_native_api_is_missing_from_the_table() -> None:
    assert set(ROLES) >= NATIVE
    assert set(ROLES).isdisjoint(NOBODYS)


@pytest.mark.parametrize("kind", sorted(SYSTEM_ONLY, key=repr))
@pytest.mark.parametrize("role", Role)
def test_what_the_vault_does_by_itself_is_nobodys(kind: type[Request], role: Role) -> None:
    request: Request = kind(**dict.fromkeys(kind.__struct_fields__, "any"))
    with pytest.raises(Forbidden):
        check_role(principal(role), request, kind.action)
    check_role(principal(None), request, kind.action)


def test_the_requests_of_the_vault_itself() -> None:
    assert {EraseDueKey, Initialise, RecoverAdmin, RotateDueKey} <= SYSTEM_ONLY


@pytest.mark.parametrize("action", sorted(PERMISSIONS))
@pytest.mark.parametrize("held", [frozenset({one}) for one in Permission] + [frozenset(Permission)])
def test_grants_cover_the_actions_they_name(action: Action, held: frozenset[Permission]) -> None:
    one = key("orders-1")
    caller = principal(Role.SERVICE, Grant("orders-*", held))
    if held >= PERMISSIONS[action]:
        assert check_key(caller, one, action) is one
    else:
        with pytest.raises(Forbidden):
            check_key(caller, one, action)


def test_what_each_action_needs() -> None:
    assert {action: PERMISSIONS[action] for action in SERVICE_USES - {Action.RANDOM}} == {
        Action.DATA_KEY: {Permission.ENCRYPT},
        Action.DATA_KEY_OPEN: {Permission.DECRYPT},
        Action.DECRYPT: {Permission.DECRYPT},
        Action.ENCRYPT: {Permission.ENCRYPT},
        Action.REWRAP: {Permission.ENCRYPT, Permission.DECRYPT},
        Action.SIGN: {Permission.SIGN},
        Action.VERIFY: {Permission.VERIFY},
    }
    assert PERMISSIONS[Action.KEY_READ] == frozenset(), "any grant on the key"


@pytest.mark.parametrize("action", sorted(MANAGEMENT))
def test_a_grant_never_gives_management(action: Action) -> None:
    with pytest.raises(Forbidden):
        check_key(principal(Role.SERVICE, grant("*")), key("orders"), action)


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("orders-*", ["orders-1", "orders-", "orders-a.b_c"], ["orders", "my-orders-1", None]),
        ("*", ["orders", None, "x"], []),
        ("orders", ["orders"], ["orders-1", "order", None]),
        ("*-eu", ["a-eu"], ["a-eu-1", None]),
        ("a*c*e", ["ace", "abcde", "acce"], ["ae", "abde", None]),
        ("a.c", ["a.c"], ["abc"]),
    ],
)
def test_patterns_meet_names(pattern: str, matched: list[str | None], others: list[str | None]) -> None:
    caller = principal(Role.SERVICE, grant(pattern, "sign"))
    for name in matched:
        assert permissions_on(caller, key(name)) == {Permission.SIGN}
        assert may_know(caller, key(name))
    for name in others:
        assert permissions_on(caller, key(name)) == frozenset()
        assert not may_know(caller, key(name))


def test_ids_are_met_exactly() -> None:
    one, other = key("orders"), key()
    caller = principal(Role.SERVICE, grant(one.id, "sign"), grant(other.id[:8] + "*", "verify"))
    assert permissions_on(caller, one) == {Permission.SIGN}
    assert permissions_on(caller, other) == frozenset(), "a glob is over names, never over ids"


def test_names_of_dialects_are_met_too() -> None:
    one = key(None, "Orders")
    assert permissions_on(principal(Role.SERVICE, grant("vault:transit/*", "sign")), one) == {Permission.SIGN}
    assert permissions_on(principal(Role.SERVICE, grant("orders", "sign")), one) == frozenset()


def test_grants_add_up() -> None:
    caller = principal(Role.SERVICE, grant("orders-*", "encrypt"), grant("*", "decrypt"), grant("x", "sign"))
    assert permissions_on(caller, key("orders-1")) == {Permission.ENCRYPT, Permission.DECRYPT}


@pytest.mark.parametrize("space", ["vault:transit/", "aws:eu-central-1/alias/"])
def test_a_glob_without_a_colon_before_its_star_is_over_native_names(space: str) -> None:
    foreign = structs.replace(key(), names=(KeyName(space, "a", 0, 0),))
    narrow = principal(Role.SERVICE, *(grant(pattern) for pattern in ("a*", "v*", "*a", "va*", "*:*")))
    assert permissions_on(narrow, foreign) == frozenset()
    assert not authorize.may_know_space(narrow, space)
    for pattern in ("*", space + "*", space + "a", space.partition(":")[0] + ":*a"):
        assert permissions_on(principal(Role.SERVICE, grant(pattern, "sign")), foreign) == {Permission.SIGN}
    assert permissions_on(principal(Role.SERVICE, grant("v*", "sign")), key("va")) == {Permission.SIGN}
    assert not permissions_on(principal(Role.SERVICE, grant("aws:*"), grant("vault:*")), key("va"))


NAMES = st.text("ab*", min_size=1, max_size=4)


@given(
    st.lists(st.tuples(NAMES, st.sampled_from(Permission))),
    st.none() | st.text("ab", min_size=1, max_size=4),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=2),
)
def test_what_is_looked_up_is_what_each_grant_says(
    held: list[tuple[str, Permission]], name: str | None, aliases: list[str]
) -> None:
    one = key(name, *aliases)
    names = {*one.aliases} | ({name} if name else set())
    grants = [Grant(pattern, frozenset({what})) for pattern, what in [*held, (one.id, Permission.SIGN)]]
    said = {
        what
        for grant in grants
        for what in grant.actions
        if grant.key in {"*", one.id}
        or any(
            matches(grant.key, name) and (":" not in name or "*" not in grant.key or ":" in grant.key.partition("*")[0])
            for name in names
        )
    }
    assert permissions_on(principal(Role.SERVICE, *grants), one) == said


def test_grants_on_one_name_are_looked_up_and_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "matches", None)
    caller = principal(Role.SERVICE, *(grant(f"orders-{number}", "sign") for number in range(1000)))
    assert [bool(permissions_on(caller, key(f"orders-{number}"))) for number in (0, 999, 1000)] == [True, True, False]


def test_absent_and_hidden_keys_are_told_the_same() -> None:
    told = set()
    for found in (None, key("secret")):
        with pytest.raises(NotFound) as refused:
            check_key(principal(Role.SERVICE, grant("orders")), found, Action.ENCRYPT)
        told.add((refused.value.code, refused.value.detail))
    assert len(told) == 1


@pytest.mark.parametrize("role", [Role.ADMIN, Role.AUDITOR, None])
def test_roles_without_grants_reach_every_key(role: Role | None) -> None:
    one = key()
    assert check_key(principal(role), one, Action.KEY_READ) is one
    assert may_know(principal(role), one)
    with pytest.raises(NotFound):
        check_key(principal(role), None, Action.KEY_READ)


def test_who_may_renew_whose_token() -> None:
    for role in Role:
        caller = principal(role)
        for own in (caller.service_id, caller.name):
            assert may_renew(caller, own)
            check_role(caller, RenewToken(own), Action.TOKEN_RENEW)
        assert may_renew(caller, "other") is (role is Role.ADMIN)
        if role is not Role.ADMIN:
            with pytest.raises(Forbidden):
                check_role(caller, RenewToken("other"), Action.TOKEN_RENEW)
    assert may_renew(Principal(SYSTEM, "system", None), "anyone")


@pytest.mark.parametrize("role", [Role.SERVICE, Role.AUDITOR])
def test_who_came_with_less_than_the_services_own_token_does_not_renew_it(role: Role) -> None:
    caller = replace(principal(role), leased=True)
    for own in (caller.service_id, caller.name):
        assert not may_renew(caller, own)
        with pytest.raises(Forbidden):
            check_role(caller, RenewToken(own), Action.TOKEN_RENEW)


def test_whose_receipts_may_be_read() -> None:
    for role in (Role.ADMIN, Role.AUDITOR, None):
        assert all(may_read_entry(principal(role), "other", result) for result in Result)
    caller = principal(Role.SERVICE)
    for result in Result:
        assert may_read_entry(caller, caller.service_id, result) is (result is not Result.DENIED)
        assert not may_read_entry(caller, "other", result)
        assert not may_read_entry(caller, None, result)


def test_credentials_of_a_login_log_in_and_nothing_else_logs_in() -> None:
    caller = principal(Role.ADMIN)
    with pytest.raises(Forbidden):
        check_role(caller, Login(), Login.action)
    entering = replace(caller, login="role/accessor")
    check_role(entering, Login(), Login.action)
    with pytest.raises(Forbidden):
        check_role(entering, ListKeys(), ListKeys.action)
    check_role(caller, ListKeys(), ListKeys.action)


def test_what_is_remembered_of_grants_counts_for_the_same_record_of_the_key_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caller = principal(Role.SERVICE, grant("orders*", "sign"))
    before = key("orders")
    assert permissions_on(caller, before) == {Permission.SIGN}
    with monkeypatch.context() as nothing_is_matched:
        nothing_is_matched.setattr(identity, "matches", None)
        assert permissions_on(caller, before) == {Permission.SIGN}
    assert permissions_on(caller, structs.replace(before, name="other")) == frozenset()
    assert permissions_on(caller, before) == {Permission.SIGN}
    assert permissions_on(principal(Role.SERVICE), before) == frozenset()

    monkeypatch.setattr(authorize, "REMEMBERED", 2)
    for number in range(5):
        assert permissions_on(caller, key(f"orders-{number}"))
        assert len(caller.permission_cache.by_key) <= 2
