"""The life of a service's own token: its lifetime, its renewal, and the overlap of two."""

from collections.abc import Callable

import pytest

from keyvault_lite.dialects.vault.token_requests import CreateToken, RevokeToken
from keyvault_lite.model.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    KeyVaultError,
    LimitExceeded,
    NotFound,
    Unauthenticated,
)
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import Role, TokenKind
from keyvault_lite.model.native_tokens import MAX_GRACE, MAX_RENEWALS, MAX_TTL, WINDOW
from keyvault_lite.model.replies import Caller, NewService
from keyvault_lite.model.requests import (
    NEVER,
    CreateService,
    ListKeys,
    ListServices,
    ReadSelf,
    RecoverAdmin,
    RenewToken,
    UpdateService,
)
from tests.support.harness import DAY, Harness, grant, idempotent

SECOND = 1_000_000
HOUR = 3600


@pytest.fixture
def wait(harness: Harness) -> Callable[[float], None]:
    """Moves the clock that the engine judges by."""
    real, passed = harness.ledger.now, [0]
    harness.ledger.now = lambda: real() + passed[0]  # type: ignore[method-assign]

    def go(seconds: float) -> None:
        passed[0] += int(seconds * SECOND)

    return go


def acts(harness: Harness, token: str) -> bool:
    try:
        harness.ask(ListKeys(), token)
    except Unauthenticated:
        return False
    return True


def made(harness: Harness, name: str = "worker", **more: object) -> NewService:
    result: NewService = harness.ask(CreateService(name, Role.SERVICE, **more))  # type: ignore[arg-type]
    return result


@pytest.mark.parametrize("role", list(Role))
def test_every_caller_reads_what_it_is_and_may(harness: Harness, role: Role) -> None:
    end = harness.ledger.now() + DAY
    service = harness.ask(CreateService("worker", role, (grant("orders-*", "sign"),), expires_at=end))
    caller: Caller = harness.ask(ReadSelf(), service.token)
    entry = harness.last.draft
    assert (entry.action, entry.subject, entry.service_id) == (Action.SELF_READ, service.service.id, service.service.id)
    assert caller.service == service.service
    assert (caller.token.kind, caller.expires_at, caller.renewable_until) == (TokenKind.NATIVE, end, end)
    assert f"kvl_{caller.token.id}_" in service.token
    harness.refusal(ReadSelf(), Unauthenticated, None)


def test_a_leased_token_reads_its_own_end_and_authority(harness: Harness) -> None:
    child = harness.ask(CreateToken(ttl=HOUR, policies=("default",)))
    caller: Caller = harness.ask(ReadSelf(), child.text)
    assert (caller.token.kind, caller.service.role, caller.service.grants) == (TokenKind.LEASED, Role.SERVICE, ())
    assert caller.expires_at == caller.token.expires_at == caller.token.created_at + HOUR * SECOND
    assert caller.renewable_until is not None


def test_a_renewal_extends_a_lifetime_up_to_its_maximum(harness: Harness, wait: Callable[[float], None]) -> None:
    first = made(harness, token_ttl=10 * HOUR, token_max_ttl=25 * HOUR)
    start = harness.ask(ReadSelf(), first.token).token.created_at
    assert first.token_expires_at == start + 10 * HOUR * SECOND
    assert first.token_renewable_until == start + 25 * HOUR * SECOND
    wait(9 * HOUR)
    second = harness.ask(RenewToken("self"), first.token)
    assert second.token_expires_at == pytest.approx(start + 19 * HOUR * SECOND, abs=60 * SECOND)
    wait(9 * HOUR)
    third = harness.ask(RenewToken("worker"), second.token)
    assert third.token_expires_at == third.token_renewable_until == first.token_renewable_until
    wait(6.5 * HOUR)
    fourth = harness.ask(RenewToken("worker"), third.token)
    assert fourth.token_expires_at == first.token_renewable_until, "no renewal goes beyond"
    wait(HOUR)
    harness.refusal(RenewToken("worker"), Unauthenticated, fourth.token)
    again = harness.ask(RenewToken("worker"))
    assert again.token_renewable_until == pytest.approx(harness.ledger.now() + 25 * HOUR * SECOND, abs=60 * SECOND)
    assert acts(harness, again.token), "an ADMIN starts the lifetime again"


def test_the_service_s_end_is_the_token_s(harness: Harness) -> None:
    end = harness.ledger.now() + HOUR * SECOND
    first = made(harness, expires_at=end, token_ttl=10 * HOUR)
    assert (first.token_expires_at, first.token_renewable_until) == (end, end)
    assert harness.ask(RenewToken("self"), first.token).token_expires_at == end


def test_without_a_lifetime_a_token_does_not_end(harness: Harness) -> None:
    first = made(harness)
    assert (first.token_expires_at, first.token_renewable_until) == (None, None)
    token = harness.ledger.snapshot().native_tokens(first.service.id)[0]
    assert (token.expires_at, dict(token.attributes)) == (None, {}), "stored as it always was"
    ended = harness.ask(RenewToken("worker", ttl=HOUR, max_ttl=2 * HOUR))
    assert ended.token_expires_at is not None
    assert harness.ask(RenewToken("worker", ttl=0, max_ttl=0)).token_expires_at is None


def test_a_maximum_alone_is_an_end_that_no_renewal_moves(harness: Harness, wait: Callable[[float], None]) -> None:
    first = made(harness, token_max_ttl=HOUR)
    assert first.token_expires_at == first.token_renewable_until
    wait(HOUR / 2)
    assert harness.ask(RenewToken("self"), first.token).token_expires_at == first.token_expires_at


def test_a_service_can_ask_for_less_and_not_for_more(harness: Harness) -> None:
    first = made(harness, token_ttl=HOUR)
    more = harness.ask(RenewToken("self", ttl=10 * HOUR), first.token)
    assert more.token_expires_at == pytest.approx(harness.ledger.now() + HOUR * SECOND, abs=60 * SECOND)
    less = harness.ask(RenewToken("self", ttl=60), more.token)
    assert less.token_expires_at == pytest.approx(harness.ledger.now() + 60 * SECOND, abs=30 * SECOND)
    assert harness.ask(RenewToken("self"), less.token).token_expires_at > harness.ledger.now() + HOUR * SECOND / 2
    token = made(harness, "second").token
    harness.refusal(RenewToken("self", max_ttl=0), Forbidden, token)
    assert harness.ask(RenewToken("self", ttl=60), token).token_expires_at is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"ttl": -1},
        {"ttl": MAX_TTL + 1},
        {"max_ttl": MAX_TTL + 1},
        {"ttl": 2, "max_ttl": 1},
        {"grace": -1},
        {"grace": MAX_GRACE + 1},
    ],
)
def test_a_lifetime_that_makes_no_sense(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest):
        RenewToken("worker", **wrong)


def test_with_a_grace_period_the_old_token_stays_valid(harness: Harness, wait: Callable[[float], None]) -> None:
    old = made(harness).token
    new = harness.ask(RenewToken("self", grace=600), old).token
    assert "stays valid for up to 600 s" in (harness.last.draft.comment or "")
    harness.reopen()
    assert acts(harness, old)
    assert acts(harness, new)
    wait_again = harness.ledger.now
    harness.ledger.now = lambda: wait_again() + 601 * SECOND  # type: ignore[method-assign]
    assert not acts(harness, old)
    assert acts(harness, new)


def test_a_lost_answer_locks_nobody_out_and_gives_no_more_time(harness: Harness, wait: Callable[[float], None]) -> None:
    old = made(harness).token
    lost = harness.ask(RenewToken("self", grace=600), old).token
    end = harness.ask(ReadSelf(), old).expires_at
    wait(300)
    new = harness.ask(RenewToken("self", grace=600), old).token
    assert not acts(harness, lost), "the token that nobody received has ended"
    assert harness.ask(ReadSelf(), old).expires_at == end, "the period is not extended"
    assert acts(harness, new)


def test_two_holders_of_one_token_cannot_both_renew_it_unseen(harness: Harness) -> None:
    """A thief and the service renew in turn: whoever renews ends the other's."""
    stolen = made(harness).token
    thief = harness.ask(RenewToken("self", grace=MAX_GRACE), stolen).token
    service = harness.ask(RenewToken("self", grace=MAX_GRACE), stolen).token
    assert (acts(harness, thief), acts(harness, service)) == (False, True)
    again = harness.ask(RenewToken("self", grace=MAX_GRACE), stolen).token
    assert (acts(harness, service), acts(harness, again)) == (False, True)
    assert len(harness.ledger.snapshot().native_tokens(harness.ask(ReadSelf(), again).service.id)) == 2


def test_an_admin_ends_every_token_at_once(harness: Harness) -> None:
    old = made(harness).token
    new = harness.ask(RenewToken("self", grace=600), old).token
    third = harness.ask(RenewToken("worker")).token
    assert (acts(harness, old), acts(harness, new), acts(harness, third)) == (False, False, True)
    fourth = harness.ask(RenewToken("worker", grace=60)).token
    assert (acts(harness, third), acts(harness, fourth)) == (True, True)
    harness.ask(UpdateService("worker", active=False))
    assert (acts(harness, third), acts(harness, fourth)) == (False, False)


def test_a_demoted_admin_loses_authority_with_both_tokens(harness: Harness) -> None:
    _, old = harness.service("second", role=Role.ADMIN)
    new = harness.ask(RenewToken("second", grace=600), old).token
    harness.ask(UpdateService("second", role=Role.SERVICE))
    for token in (old, new):
        harness.refusal(ListServices(), Forbidden, token)
        harness.refusal(RenewToken("second", max_ttl=0), Forbidden, token)


def test_a_child_ends_with_the_grace_period_of_its_parent(harness: Harness, wait: Callable[[float], None]) -> None:
    old = made(harness).token
    child = harness.ask(CreateToken(ttl=10 * HOUR), old).text
    harness.ask(RenewToken("self", grace=600), old)
    assert acts(harness, child)
    assert harness.ask(ReadSelf(), child).expires_at <= harness.ledger.now() + 600 * SECOND
    wait(601)
    assert not acts(harness, child)


def test_two_renewals_at_once_leave_one_new_token(harness: Harness) -> None:
    old = made(harness).token
    results = harness.together(*(harness.perform(RenewToken("self", grace=60), old) for _ in range(3)))
    tokens = [one.result.token for one in results]
    assert [acts(harness, one) for one in tokens].count(True) == 1
    assert acts(harness, old)
    results = harness.together(*(harness.perform(RenewToken("self"), old) for _ in range(3)))
    assert sum(not isinstance(one, KeyVaultError) for one in results) <= 1 + MAX_RENEWALS
    assert not acts(harness, old)


def test_renewals_by_a_service_are_limited_in_rate(harness: Harness, wait: Callable[[float], None]) -> None:
    token = made(harness).token
    for number in range(MAX_RENEWALS):
        token = harness.ask(RenewToken("self"), token, idempotency=idempotent(f"{number}")).token
    harness.refusal(RenewToken("self"), LimitExceeded, token, idempotency=idempotent("one more"))
    assert acts(harness, token), "the token that asked is still there"
    harness.reopen()
    harness.refusal(RenewToken("self"), LimitExceeded, token)
    harness.ask(RenewToken("worker", grace=60))
    harness.ask(RenewToken("self"), token), "an ADMIN's renewal counts for none"


def test_the_limit_ends(harness: Harness, wait: Callable[[float], None]) -> None:
    token = made(harness).token
    for _ in range(MAX_RENEWALS):
        token = harness.ask(RenewToken("self"), token).token
    wait(WINDOW / SECOND + 1)
    assert acts(harness, harness.ask(RenewToken("self"), token).token)
    for _ in range(3 * MAX_RENEWALS):
        harness.ask(RenewToken("admin", grace=60)), "an ADMIN is not limited"


def test_the_name_self_is_no_service_s(harness: Harness) -> None:
    with pytest.raises(InvalidRequest, match="self"):
        CreateService("self", Role.SERVICE)
    harness.refusal(UpdateService("self", grants=()), NotFound)


def test_the_last_admin_s_token_is_given_no_end(harness: Harness) -> None:
    harness.refusal(RenewToken("self", ttl=HOUR), Conflict)
    harness.ask(CreateService("second", Role.ADMIN, token_ttl=HOUR))
    harness.refusal(RenewToken("self", max_ttl=HOUR), Conflict)
    harness.refusal(UpdateService("admin", expires_at=harness.ledger.now() + DAY), Conflict)
    harness.ask(RenewToken("second", ttl=0, max_ttl=0))
    harness.ask(RenewToken("self", ttl=HOUR))


def test_recovery_gives_a_token_without_end(harness: Harness, wait: Callable[[float], None]) -> None:
    harness.service("second", role=Role.ADMIN)
    token = harness.ask(RenewToken("self", ttl=HOUR)).token
    wait(2 * HOUR)
    assert not acts(harness, token)
    found = harness.system(RecoverAdmin())
    assert (found.service.name, found.token_expires_at) == ("admin", None)
    assert harness.ask(UpdateService("admin", expires_at=NEVER), found.token).name == "admin"


def test_the_entry_of_a_failed_login_says_why(harness: Harness, wait: Callable[[float], None]) -> None:
    def reason(token: str | None) -> str | None:
        error = harness.refusal(ListKeys(), Unauthenticated, token)
        assert (error.detail, error.audit_id) == ("a valid bearer token is required", None)
        return harness.last.draft.reason

    old = made(harness).token
    harness.ask(RenewToken("self", grace=60), old)
    assert acts(harness, old)
    wait(61)
    assert reason(old) == "replaced"
    ending = harness.ask(RenewToken("worker", ttl=60)).token
    wait(61)
    assert reason(ending) == "expired"
    child = harness.ask(CreateToken()).text
    harness.ask(RevokeToken(), child)
    assert reason(child) == "revoked"
    assert reason(None) == "missing"
    assert reason(f"kvl_{'0' * 16}_{'0' * 43}") == "unknown"
    token = harness.ask(RenewToken("worker", ttl=0)).token
    harness.ask(UpdateService("worker", active=False))
    assert reason(token) == "inactive"
    harness.reopen()
    assert harness.ledger.verify().valid
