"""Leased tokens hold no longer and for no more than what is above them; a role's credentials open one login."""

from dataclasses import replace
from typing import Any

import pytest

from keyvault_lite.access.authenticate import AuthenticationFailed, Authenticator
from keyvault_lite.access.lifetimes import DEPTH, ancestors_live
from keyvault_lite.dialects.vault.authority import SEPARATOR, AppRoleScheme, authority, policy_grants, role_login
from keyvault_lite.dialects.vault.credentials import AppRoleCredential
from keyvault_lite.dialects.vault.token_requests import GRANTS, POLICIES, role_ids_at, roles_at, secrets_at
from keyvault_lite.model.encoding import encode_base64
from keyvault_lite.model.identity import Grant, Role, Service, Setting, Token, TokenKind
from keyvault_lite.model.leases import Lease
from keyvault_lite.model.names import ServiceId, TokenId
from tests.support.harness import grant

ROLE_IDS, ROLES, SECRETS = role_ids_at("approle"), roles_at("approle"), secrets_at("approle")
NOW = 1_000_000
OWNER, OTHER = ServiceId("owner"), ServiceId("other")
DIGEST = b"digest"


def token(name: str, parent: str | None = None, **more: Any) -> Token:  # noqa: ANN401
    above = None if parent is None else TokenId(parent)
    return Token(TokenId(name), OWNER, TokenKind.LEASED, DIGEST, 0, parent=above, **more)


class State:
    """What is stored, and a check of secrets that counts."""

    def __init__(self, *tokens: Token) -> None:
        self.tokens = {one.id: one for one in tokens}
        self.settings: dict[str, Any] = {}
        self.service = Service(OWNER, "app", Role.SERVICE, active=True, created_at=0, grants=(grant("own"),))
        self.asked: list[tuple[str, str, bytes | None]] = []
        self.holds: bytes | None = DIGEST

    def token(self, token_id: TokenId) -> Token | None:
        return self.tokens.get(token_id)

    def setting(self, name: str) -> Setting | None:
        return Setting(name, self.settings[name]) if name in self.settings else None

    def find_service(self, ref: str) -> Service | None:
        return self.service if ref == OWNER else None

    def token_matches(self, token_id: TokenId, secret: str, stored: bytes | None) -> bool:
        self.asked.append((token_id, secret, stored))
        return stored == self.holds and secret == "secret"


class TestAncestors:
    def test_a_token_at_the_top_holds(self) -> None:
        assert ancestors_live(token("top"), State(), NOW)

    @pytest.mark.parametrize(
        ("change", "lives"),
        [
            ({}, True),
            ({"expires_at": NOW + 1}, True),
            ({"expires_at": NOW}, False),
            ({"ended_at": 0}, False),
            ({"service_id": OTHER}, False),
        ],
    )
    @pytest.mark.parametrize("generation", ["top", "middle"])
    def test_every_generation_has_to_hold(self, generation: str, change: dict[str, Any], *, lives: bool) -> None:
        state = State(token("top"), token("middle", "top"))
        state.tokens[TokenId(generation)] = replace(state.tokens[TokenId(generation)], **change)
        assert ancestors_live(token("child", "middle"), state, NOW) is lives

    def test_one_that_is_gone_holds_nobody(self) -> None:
        assert not ancestors_live(token("child", "gone"), State(), NOW)

    def test_generations_have_an_end(self) -> None:
        assert DEPTH == 16
        line = [token("0"), *(token(str(number), str(number - 1)) for number in range(1, DEPTH + 1))]
        state = State(*line)
        assert ancestors_live(line[DEPTH - 1], state, NOW)
        assert not ancestors_live(line[DEPTH], state, NOW)
        circle = token("a", "a")
        assert not ancestors_live(circle, State(circle), NOW)


class TestAuthority:
    GIVEN = Grant("shared-*", grant("x", "encrypt").actions, in_mount=True)

    def held(
        self, role: Role, policies: tuple[str, ...] | None, *, alone: bool = False
    ) -> tuple[Role, tuple[Grant, ...], bool]:
        state = State()
        state.settings = {f"{POLICIES}p": {GRANTS: [["shared-*", ["encrypt"]]]}, f"{POLICIES}gone": None}
        leased = token("t", attributes=Lease(ttl=60, policies=policies, alone=alone).attributes())
        return authority(leased, replace(state.service, role=role), state)

    def test_a_token_without_policies_is_its_service(self) -> None:
        state = State()
        assert authority(token("t"), state.service, state) == (Role.SERVICE, state.service.grants, False)
        assert self.held(Role.ADMIN, None) == (Role.ADMIN, state.service.grants, False)

    def test_one_with_policies_is_never_more_than_a_service(self) -> None:
        assert self.held(Role.ADMIN, ("p",)) == (Role.SERVICE, (self.GIVEN,), True)
        assert self.held(Role.AUDITOR, ("p",)) == (Role.SERVICE, (), True)
        assert self.held(Role.SERVICE, ("p",)) == (Role.SERVICE, (grant("own"), self.GIVEN), False)
        assert self.held(Role.SERVICE, ("p",), alone=True) == (Role.SERVICE, (self.GIVEN,), True)
        assert self.held(Role.ADMIN, ()) == (Role.SERVICE, (), True)

    def test_a_policy_that_is_not_there_gives_nothing(self) -> None:
        assert self.held(Role.ADMIN, ("gone", "never")) == (Role.SERVICE, (), True)
        assert policy_grants("never", State()) == ()


class TestLogins:
    @pytest.fixture
    def state(self) -> State:
        state = State()
        state.settings = {
            f"{ROLE_IDS}id": {"role": "r"},
            f"{SECRETS}r/acc": {"digest": encode_base64(DIGEST), "expires_at": None},
            f"{ROLES}r": {"service": OWNER},
        }
        return state

    @staticmethod
    def login(state: State, role_id: str = "id", secret: str = f"acc{SEPARATOR}secret") -> tuple[Service, str] | None:
        found = role_login(AppRoleCredential(role_id, secret), state, state, NOW)
        assert len(state.asked) == 1, "every fault costs one check"
        return found

    def test_credentials_of_a_role_are_its_service(self, state: State) -> None:
        assert self.login(state) == (state.service, "approle/r/acc")
        assert state.asked == [("acc", "secret", DIGEST)]

    @pytest.mark.parametrize(
        ("role_id", "secret"),
        [("other", "acc.secret"), ("id", "other.secret"), ("id", "acc.wrong"), ("id", "acc"), ("", "")],
    )
    def test_wrong_ones_are_nobody(self, state: State, role_id: str, secret: str) -> None:
        assert self.login(state, role_id, secret) is None

    @pytest.mark.parametrize("name", [f"{ROLE_IDS}id", f"{SECRETS}r/acc", f"{ROLES}r"])
    @pytest.mark.parametrize("tombstone", [True, False])
    def test_what_was_deleted_is_nobody(self, state: State, name: str, *, tombstone: bool) -> None:
        del state.settings[name]
        if tombstone:
            state.settings[name] = None
        assert self.login(state) is None

    @pytest.mark.parametrize(("end", "good"), [(NOW + 1, True), (NOW, False)])
    def test_secrets_end(self, state: State, end: int, *, good: bool) -> None:
        state.settings[f"{SECRETS}r/acc"]["expires_at"] = end
        assert (self.login(state) is not None) is good

    def test_a_role_of_a_service_that_is_gone(self, state: State) -> None:
        state.settings[f"{ROLES}r"]["service"] = OTHER
        assert self.login(state) is None

    def test_a_check_that_holds_for_nothing_stored_is_still_nobody(self, state: State) -> None:
        del state.settings[f"{SECRETS}r/acc"]
        state.holds = None
        assert self.login(state) is None

    def test_a_service_that_may_not_act_does_not_log_in(self, state: State) -> None:
        authenticator = Authenticator(state, lambda _: None, {AppRoleCredential: AppRoleScheme(state)})
        credential = AppRoleCredential("id", f"acc{SEPARATOR}secret")
        assert authenticator.authenticate(credential, state, NOW).login == "approle/r/acc"
        whole = state.service
        for change in ({"expires_at": NOW}, {"active": False}):
            state.service = replace(whole, **change)
            with pytest.raises(AuthenticationFailed):
                authenticator.authenticate(credential, state, NOW)
