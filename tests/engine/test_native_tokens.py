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
from tests.house import DAY, House, grant, idempotent

SECOND = 1_000_000
HOUR = 3600


@pytest.fixture
def wait(house: House) -> Callable[[float], None]:
    """Moves the clock that the engine judges by."""
    real, passed = house.ledger.now, [0]
    house.ledger.now = lambda: real() + passed[0]  # type: ignore[method-assign]

    def go(seconds: float) -> None:
        passed[0] += int(seconds * SECOND)

    return go


def acts(house: House, token: str) -> bool:
    try:
        house.ask(ListKeys(), token)
    except Unauthenticated:
        return False
    return True


def made(house: House, name: str = "worker", **more: object) -> NewService:
    result: NewService = house.ask(CreateService(name, Role.SERVICE, **more))  # type: ignore[arg-type]
    return result


@pytest.mark.parametrize("role", list(Role))
def test_every_caller_reads_what_it_is_and_may(house: House, role: Role) -> None:
    end = house.ledger.now() + DAY
    service = house.ask(CreateService("worker", role, (grant("orders-*", "sign"),), expires_at=end))
    caller: Caller = house.ask(ReadSelf(), service.token)
    entry = house.last.draft
    assert (entry.action, entry.subject, entry.service_id) == (Action.SELF_READ, service.service.id, service.service.id)
    assert caller.service == service.service
    assert (caller.token.kind, caller.expires_at, caller.renewable_until) == (TokenKind.NATIVE, end, end)
    assert f"kvl_{caller.token.id}_" in service.token
    house.refusal(ReadSelf(), Unauthenticated, None)


def test_a_leased_token_reads_its_own_end_and_authority(house: House) -> None:
    child = house.ask(CreateToken(ttl=HOUR, policies=("default",)))
    caller: Caller = house.ask(ReadSelf(), child.text)
    assert (caller.token.kind, caller.service.role, caller.service.grants) == (TokenKind.LEASED, Role.SERVICE, ())
    assert caller.expires_at == caller.token.expires_at == caller.token.created_at + HOUR * SECOND
    assert caller.renewable_until is not None


def test_a_renewal_extends_a_lifetime_up_to_its_maximum(house: House, wait: Callable[[float], None]) -> None:
    first = made(house, token_ttl=10 * HOUR, token_max_ttl=25 * HOUR)
    start = house.ask(ReadSelf(), first.token).token.created_at
    assert first.token_expires_at == start + 10 * HOUR * SECOND
    assert first.token_renewable_until == start + 25 * HOUR * SECOND
    wait(9 * HOUR)
    second = house.ask(RenewToken("self"), first.token)
    assert second.token_expires_at == pytest.approx(start + 19 * HOUR * SECOND, abs=60 * SECOND)
    wait(9 * HOUR)
    third = house.ask(RenewToken("worker"), second.token)
    assert third.token_expires_at == third.token_renewable_until == first.token_renewable_until
    wait(6.5 * HOUR)
    fourth = house.ask(RenewToken("worker"), third.token)
    assert fourth.token_expires_at == first.token_renewable_until, "no renewal goes beyond"
    wait(HOUR)
    house.refusal(RenewToken("worker"), Unauthenticated, fourth.token)
    again = house.ask(RenewToken("worker"))
    assert again.token_renewable_until == pytest.approx(house.ledger.now() + 25 * HOUR * SECOND, abs=60 * SECOND)
    assert acts(house, again.token), "an ADMIN starts the lifetime again"


def test_the_service_s_end_is_the_token_s(house: House) -> None:
    end = house.ledger.now() + HOUR * SECOND
    first = made(house, expires_at=end, token_ttl=10 * HOUR)
    assert (first.token_expires_at, first.token_renewable_until) == (end, end)
    assert house.ask(RenewToken("self"), first.token).token_expires_at == end


def test_without_a_lifetime_a_token_does_not_end(house: House) -> None:
    first = made(house)
    assert (first.token_expires_at, first.token_renewable_until) == (None, None)
    token = house.ledger.snapshot().native_tokens(first.service.id)[0]
    assert (token.expires_at, dict(token.attributes)) == (None, {}), "stored as it always was"
    ended = house.ask(RenewToken("worker", ttl=HOUR, max_ttl=2 * HOUR))
    assert ended.token_expires_at is not None
    assert house.ask(RenewToken("worker", ttl=0, max_ttl=0)).token_expires_at is None


def test_a_maximum_alone_is_an_end_that_no_renewal_moves(house: House, wait: Callable[[float], None]) -> None:
    first = made(house, token_max_ttl=HOUR)
    assert first.token_expires_at == first.token_renewable_until
    wait(HOUR / 2)
    assert house.ask(RenewToken("self"), first.token).token_expires_at == first.token_expires_at


def test_a_service_can_ask_for_less_and_not_for_more(house: House) -> None:
    first = made(house, token_ttl=HOUR)
    more = house.ask(RenewToken("self", ttl=10 * HOUR), first.token)
    assert more.token_expires_at == pytest.approx(house.ledger.now() + HOUR * SECOND, abs=60 * SECOND)
    less = house.ask(RenewToken("self", ttl=60), more.token)
    assert less.token_expires_at == pytest.approx(house.ledger.now() + 60 * SECOND, abs=30 * SECOND)
    assert house.ask(RenewToken("self"), less.token).token_expires_at > house.ledger.now() + HOUR * SECOND / 2
    token = made(house, "second").token
    house.refusal(RenewToken("self", max_ttl=0), Forbidden, token)
    assert house.ask(RenewToken("self", ttl=60), token).token_expires_at is not None


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


def test_with_a_grace_period_the_old_token_stays_valid(house: House, wait: Callable[[float], None]) -> None:
    old = made(house).token
    new = house.ask(RenewToken("self", grace=600), old).token
    assert "stays valid for up to 600 s" in (house.last.draft.comment or "")
    house.reopen()
    assert acts(house, old)
    assert acts(house, new)
    wait_again = house.ledger.now
    house.ledger.now = lambda: wait_again() + 601 * SECOND  # type: ignore[method-assign]
    assert not acts(house, old)
    assert acts(house, new)


def test_a_lost_answer_locks_nobody_out_and_gives_no_more_time(house: House, wait: Callable[[float], None]) -> None:
    old = made(house).token
    lost = house.ask(RenewToken("self", grace=600), old).token
    end = house.ask(ReadSelf(), old).expires_at
    wait(300)
    new = house.ask(RenewToken("self", grace=600), old).token
    assert not acts(house, lost), "the token that nobody received has ended"
    assert house.ask(ReadSelf(), old).expires_at == end, "the period is not extended"
    assert acts(house, new)


def test_two_holders_of_one_token_cannot_both_renew_it_unseen(house: House) -> None:
    """A thief and the service renew in turn: whoever renews ends the other's."""
    stolen = made(house).token
    thief = house.ask(RenewToken("self", grace=MAX_GRACE), stolen).token
    service = house.ask(RenewToken("self", grace=MAX_GRACE), stolen).token
    assert (acts(house, thief), acts(house, service)) == (False, True)
    again = house.ask(RenewToken("self", grace=MAX_GRACE), stolen).token
    assert (acts(house, service), acts(house, again)) == (False, True)
    assert len(house.ledger.snapshot().native_tokens(house.ask(ReadSelf(), again).service.id)) == 2


def test_an_admin_ends_every_token_at_once(house: House) -> None:
    old = made(house).token
    new = house.ask(RenewToken("self", grace=600), old).token
    third = house.ask(RenewToken("worker")).token
    assert (acts(house, old), acts(house, new), acts(house, third)) == (False, False, True)
    fourth = house.ask(RenewToken("worker", grace=60)).token
    assert (acts(house, third), acts(house, fourth)) == (True, True)
    house.ask(UpdateService("worker", active=False))
    assert (acts(house, third), acts(house, fourth)) == (False, False)


def test_a_demoted_admin_loses_authority_with_both_tokens(house: House) -> None:
    _, old = house.service("second", role=Role.ADMIN)
    new = house.ask(RenewToken("second", grace=600), old).token
    house.ask(UpdateService("second", role=Role.SERVICE))
    for token in (old, new):
        house.refusal(ListServices(), Forbidden, token)
        house.refusal(RenewToken("second", max_ttl=0), Forbidden, token)


def test_a_child_ends_with_the_grace_period_of_its_parent(house: House, wait: Callable[[float], None]) -> None:
    old = made(house).token
    child = house.ask(CreateToken(ttl=10 * HOUR), old).text
    house.ask(RenewToken("self", grace=600), old)
    assert acts(house, child)
    assert house.ask(ReadSelf(), child).expires_at <= house.ledger.now() + 600 * SECOND
    wait(601)
    assert not acts(house, child)


def test_two_renewals_at_once_leave_one_new_token(house: House) -> None:
    old = made(house).token
    results = house.together(*(house.perform(RenewToken("self", grace=60), old) for _ in range(3)))
    tokens = [one.result.token for one in results]
    assert [acts(house, one) for one in tokens].count(True) == 1
    assert acts(house, old)
    results = house.together(*(house.perform(RenewToken("self"), old) for _ in range(3)))
    assert sum(not isinstance(one, KeyVaultError) for one in results) <= 1 + MAX_RENEWALS
    assert not acts(house, old)


def test_renewals_by_a_service_are_limited_in_rate(house: House, wait: Callable[[float], None]) -> None:
    token = made(house).token
    for number in range(MAX_RENEWALS):
        token = house.ask(RenewToken("self"), token, idempotency=idempotent(f"{number}")).token
    house.refusal(RenewToken("self"), LimitExceeded, token, idempotency=idempotent("one more"))
    assert acts(house, token), "the token that asked is still there"
    house.reopen()
    house.refusal(RenewToken("self"), LimitExceeded, token)
    house.ask(RenewToken("worker", grace=60))
    house.ask(RenewToken("self"), token), "an ADMIN's renewal counts for none"


def test_the_limit_ends(house: House, wait: Callable[[float], None]) -> None:
    token = made(house).token
    for _ in range(MAX_RENEWALS):
        token = house.ask(RenewToken("self"), token).token
    wait(WINDOW / SECOND + 1)
    assert acts(house, house.ask(RenewToken("self"), token).token)
    for _ in range(3 * MAX_RENEWALS):
        house.ask(RenewToken("admin", grace=60)), "an ADMIN is not limited"


def test_the_name_self_is_no_service_s(house: House) -> None:
    with pytest.raises(InvalidRequest, match="self"):
        CreateService("self", Role.SERVICE)
    house.refusal(UpdateService("self", grants=()), NotFound)


def test_the_last_admin_s_token_is_given_no_end(house: House) -> None:
    house.refusal(RenewToken("self", ttl=HOUR), Conflict)
    house.ask(CreateService("second", Role.ADMIN, token_ttl=HOUR))
    house.refusal(RenewToken("self", max_ttl=HOUR), Conflict)
    house.refusal(UpdateService("admin", expires_at=house.ledger.now() + DAY), Conflict)
    house.ask(RenewToken("second", ttl=0, max_ttl=0))
    house.ask(RenewToken("self", ttl=HOUR))


def test_recovery_gives_a_token_without_end(house: House, wait: Callable[[float], None]) -> None:
    house.service("second", role=Role.ADMIN)
    token = house.ask(RenewToken("self", ttl=HOUR)).token
    wait(2 * HOUR)
    assert not acts(house, token)
    found = house.system(RecoverAdmin())
    assert (found.service.name, found.token_expires_at) == ("admin", None)
    assert house.ask(UpdateService("admin", expires_at=NEVER), found.token).name == "admin"


def test_the_entry_of_a_failed_login_says_why(house: House, wait: Callable[[float], None]) -> None:
    def reason(token: str | None) -> str | None:
        error = house.refusal(ListKeys(), Unauthenticated, token)
        assert (error.detail, error.audit_id) == ("a valid bearer token is required", None)
        return house.last.draft.reason

    old = made(house).token
    house.ask(RenewToken("self", grace=60), old)
    assert acts(house, old)
    wait(61)
    assert reason(old) == "replaced"
    ending = house.ask(RenewToken("worker", ttl=60)).token
    wait(61)
    assert reason(ending) == "expired"
    child = house.ask(CreateToken()).text
    house.ask(RevokeToken(), child)
    assert reason(child) == "revoked"
    assert reason(None) == "missing"
    assert reason(f"kvl_{'0' * 16}_{'0' * 43}") == "unknown"
    token = house.ask(RenewToken("worker", ttl=0)).token
    house.ask(UpdateService("worker", active=False))
    assert reason(token) == "inactive"
    house.reopen()
    assert house.ledger.verify().valid
