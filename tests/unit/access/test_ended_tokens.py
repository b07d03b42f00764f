"""Which tokens are no longer valid, and how long their rows are kept, to the microsecond."""

from dataclasses import replace

import pytest

from keyvault_lite.access.ended_tokens import CROWD, TOMBSTONES, is_over, is_valid, removable
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.model.identity import Role, Service, Token, TokenKind
from keyvault_lite.model.names import ServiceId, TokenId, new_id

DAY = 24 * 3600 * 1_000_000
NOW = 10 * DAY
SERVICE = Service(ServiceId(new_id()), "worker", Role.SERVICE, active=True, created_at=0)
LEASED = Token(TokenId("l"), SERVICE.id, TokenKind.LEASED, b"", created_at=0, expires_at=NOW + DAY)
NATIVE = replace(LEASED, id=TokenId("n"), kind=TokenKind.NATIVE, expires_at=None)
AWS = replace(NATIVE, id=TokenId("a"), kind=TokenKind.ACCESS_KEY)


def vault(*tokens: Token, service: Service = SERVICE) -> State:
    state = State(lambda *_: None)
    state.apply(Change(services=(service,), tokens=tokens))
    return state


def gone(state: State) -> list[TokenId]:
    return [one.id for one in removable(state.tokens(), state, NOW)]


@pytest.mark.parametrize("token", [LEASED, NATIVE, AWS])
def test_a_token_is_valid_with_its_service(token: Token) -> None:
    state = vault(token)
    assert is_valid(token, SERVICE, state, NOW)
    assert not is_over(token, state, NOW)
    for service in (None, replace(SERVICE, active=False), replace(SERVICE, expires_at=NOW)):
        assert not is_valid(token, service, state, NOW)
    assert is_valid(token, replace(SERVICE, expires_at=NOW + 1), state, NOW)
    for change in ({"ended_at": 1}, {"expires_at": NOW}, {"parent": TokenId("absent")}):
        assert not is_valid(replace(token, **change), SERVICE, state, NOW)


def test_what_is_over_is_never_valid_again() -> None:
    parent = replace(LEASED, id=TokenId("p"))
    child = replace(LEASED, id=TokenId("c"), parent=parent.id)
    state = vault(parent, child)
    assert not is_over(child, state, NOW)
    assert is_over(replace(LEASED, expires_at=NOW), state, NOW)
    assert is_over(child, vault(replace(parent, ended_at=1), child), NOW)
    assert is_over(child, vault(child), NOW)
    assert is_over(LEASED, vault(LEASED, service=replace(SERVICE, active=False)), NOW)
    expired = vault(LEASED, service=replace(SERVICE, expires_at=1))
    assert not is_over(LEASED, expired, NOW), "the service can be given more time"
    for token in (NATIVE, AWS):
        assert is_over(replace(token, ended_at=1), state, NOW)
        assert not is_over(replace(token, expires_at=1), state, NOW)
        assert not is_over(token, vault(token, service=replace(SERVICE, active=False)), NOW)


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"expires_at": NOW + 1}, True),
        ({"expires_at": NOW}, True),
        ({"expires_at": NOW - DAY + 1}, True),
        ({"expires_at": NOW - DAY}, False),
        ({"ended_at": NOW - DAY + 1}, True),
        ({"ended_at": NOW - DAY}, False),
        ({"ended_at": NOW, "expires_at": NOW - DAY}, False),
        ({"parent": TokenId("absent")}, False),
        ({"parent": TokenId("absent"), "expires_at": NOW}, True),
    ],
)
def test_a_leased_token_that_is_over_is_kept_for_a_day(change: dict[str, int], kept: bool) -> None:
    state = vault(replace(LEASED, **change))  # type: ignore[arg-type]
    assert gone(state) == ([] if kept else [LEASED.id])
    inactive = vault(replace(LEASED, **change), service=replace(SERVICE, active=False))  # type: ignore[arg-type]
    assert gone(inactive) == [LEASED.id]


@pytest.mark.parametrize("parent", [None, TokenId("n")])
def test_in_a_crowd_revoked_tokens_are_not_kept(parent: TokenId | None) -> None:
    crowd = [replace(LEASED, id=TokenId(f"{number}"), parent=parent) for number in range(CROWD)]
    ended = [replace(crowd[0], ended_at=NOW), replace(crowd[1], expires_at=NOW)]
    others = [replace(LEASED, id=TokenId(f"o{number}"), parent=None if parent else NATIVE.id) for number in range(9)]
    state = vault(NATIVE, *ended, *crowd[2:], *others)
    assert gone(state) == []
    state.apply(Change(tokens=(replace(LEASED, id=TokenId("one more"), parent=parent),)))
    assert gone(state) == [ended[0].id], "what has expired is known for its day"


@pytest.mark.parametrize("token", [NATIVE, AWS])
def test_the_newest_that_ended_are_kept_of_others(token: Token) -> None:
    ended = [replace(token, id=TokenId(f"{at:02}"), ended_at=100 - at) for at in range(TOMBSTONES + 2)]
    another = replace(token, id=TokenId("another"), service_id=ServiceId(new_id()), ended_at=1)
    assert gone(vault(token, *ended, another)) == [ended[-1].id, ended[-2].id], "the earliest end first"
    assert gone(vault(token, *ended[:TOMBSTONES])) == []
