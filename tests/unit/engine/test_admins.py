"""No sequence of operations leaves the vault without an ADMIN that can act and does not expire."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from keyvault_lite.dialects.vault.token_requests import CreateToken, DeleteRole, WriteRole
from keyvault_lite.model.errors import Conflict, KeyVaultError, NotFound
from keyvault_lite.model.identity import Role
from keyvault_lite.model.requests import NEVER, CreateService, ListServices, RecoverAdmin, RenewToken, UpdateService
from tests.support.harness import DAY, Harness, open_copy

NAMES = ("admin", "second", "approle-ops", "approle-web")


def test_deleting_a_role_does_not_remove_the_last_admin(harness: Harness) -> None:
    """The role's service can hold the vault once it has a token of its own, and only then."""
    harness.ask(WriteRole("ops"))
    harness.ask(UpdateService("approle-ops", role=Role.ADMIN))
    harness.refusal(UpdateService("admin", active=False), Conflict)
    harness.refusal(UpdateService("admin", role=Role.SERVICE), Conflict)
    harness.refusal(UpdateService("admin", expires_at=harness.ledger.now() + DAY), Conflict)
    token = harness.ask(RenewToken("approle-ops")).token
    harness.ask(UpdateService("admin", active=False), token)
    harness.refusal(DeleteRole("ops"), Conflict, token)
    harness.ask(ListServices(), token)


class Vault(RuleBasedStateMachine):
    """An ADMIN tries everything that changes services and tokens."""

    template: tuple[Path, str, str]

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        template, master, token = self.template
        self.harness = open_copy(template, Path(self.folder.name) / "vault", master, token)
        self.tokens = {"admin": [token]}

    def teardown(self) -> None:
        self.harness.close()
        self.folder.cleanup()

    def attempt(self, request: Any) -> Any:  # noqa: ANN401
        """By whoever can act as an ADMIN: one of the tokens that were ever issued."""
        try:
            return self.harness.ask(request, self.working())
        except (Conflict, NotFound):
            return None

    def working(self) -> str | None:
        """A token of a lasting ADMIN that acts, if there is one."""
        for token in (one for tokens in self.tokens.values() for one in tokens):
            try:
                services = {one.id: one for one in self.harness.ask(ListServices(), token).items}
            except KeyVaultError:
                continue
            stored = self.harness.ledger.snapshot().token(token.split("_")[1])  # type: ignore[arg-type]
            assert stored is not None
            service = services[stored.service_id]
            if service.role is Role.ADMIN and stored.expires_at is None and service.expires_at is None:
                return token
        return None

    @invariant()
    def somebody_can_act(self) -> None:
        assert self.working() is not None

    @rule(ttl=st.sampled_from([None, 3600]), expires=st.booleans())
    def make(self, ttl: int | None, expires: bool) -> None:
        end = self.harness.ledger.now() + DAY if expires else None
        made = self.attempt(CreateService("second", Role.ADMIN, expires_at=end, token_ttl=ttl))
        if made is not None:
            self.tokens["second"] = [made.token]

    @rule(role=st.sampled_from(["ops", "web"]))
    def make_role(self, role: str) -> None:
        self.attempt(WriteRole(role))

    @rule(role=st.sampled_from(["ops", "web"]))
    def delete_role(self, role: str) -> None:
        self.attempt(DeleteRole(role))

    @rule(name=st.sampled_from(NAMES), role=st.sampled_from(list(Role)))
    def change_role(self, name: str, role: Role) -> None:
        self.attempt(UpdateService(name, role=role))

    @rule(name=st.sampled_from(NAMES), active=st.booleans())
    def switch(self, name: str, active: bool) -> None:
        self.attempt(UpdateService(name, active=active))

    @rule(name=st.sampled_from(NAMES), days=st.sampled_from([0, 1]))
    def expire(self, name: str, days: int) -> None:
        self.attempt(UpdateService(name, expires_at=self.harness.ledger.now() + DAY if days else NEVER))

    @rule(
        name=st.sampled_from((*NAMES, "self")),
        ttl=st.sampled_from([None, 0, 3600]),
        max_ttl=st.sampled_from([None, 0, 7200]),
        grace=st.sampled_from([0, 600]),
    )
    def renew(self, name: str, ttl: int | None, max_ttl: int | None, grace: int) -> None:
        made = self.attempt(RenewToken(name, ttl=ttl, max_ttl=max_ttl, grace=grace))
        if made is not None:
            self.tokens.setdefault(made.service.name, []).append(made.token)

    @rule()
    def child(self) -> None:
        self.attempt(CreateToken())

    @rule()
    def recover(self) -> None:
        made = self.harness.system(RecoverAdmin())
        self.tokens.setdefault(made.service.name, []).append(made.token)


def test_somebody_can_always_act(template: tuple[Path, str, str]) -> None:
    Vault.template = template
    run_state_machine_as_test(
        Vault,
        settings=settings(
            max_examples=8, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_a_vault_that_has_no_such_admin_is_not_kept_from_having_one(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vault can come from a release that did not ask: the check keeps what there is and demands no more."""
    from keyvault_lite.engine import attempt

    with monkeypatch.context() as without:
        without.setattr(attempt, "check_admins_left", lambda *_: None)
        harness.ask(UpdateService("admin", expires_at=harness.ledger.now() + DAY))
    harness.ask(CreateService("worker", Role.SERVICE))
    harness.ask(UpdateService("worker", grants=()))
    harness.ask(RenewToken("self"))
