"""What a caller without grants can make grow: rows and records of tokens, kept replies. Each has its bound."""

from contextlib import closing
from pathlib import Path

import pytest

from keyvault_lite.access import authenticate, spent
from keyvault_lite.access.spent import TOMBSTONES
from keyvault_lite.dialects.vault.credentials import AppRoleCredential
from keyvault_lite.dialects.vault.token_requests import (
    CreateSecretId,
    CreateToken,
    Issued,
    ListTokens,
    Login,
    ReadRole,
    ReadToken,
    RevokeToken,
    WriteRole,
)
from keyvault_lite.engine import token_room
from keyvault_lite.engine.token_room import AT_ONCE
from keyvault_lite.ledger.state.verified_rows import NOT_COMMITTED
from keyvault_lite.model.errors import Conflict, Forbidden, InvalidRequest, LimitExceeded, Unauthenticated
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import BearerCredential, Role, TokenKind
from keyvault_lite.model.names import TokenId
from keyvault_lite.model.native_tokens import MAX_RENEWALS
from keyvault_lite.model.requests import (
    NEVER,
    CreateAccessKey,
    ListKeys,
    RemoveTokens,
    RenewToken,
    RevokeAccessKey,
    UpdateService,
)
from tests.house import DAY, House, idempotent

BOUND = 40
pytestmark = pytest.mark.both


@pytest.fixture(autouse=True)
def _small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_room, "MAX_LEASED", BOUND)
    monkeypatch.setattr(token_room, "MAX_CHILDREN", BOUND)


class Machine:
    """What logs in by AppRole."""

    def __init__(self, house: House, role: str = "app") -> None:
        house.ask(WriteRole(role))
        self.house = house
        secret = house.ask(CreateSecretId(role))
        self.credential = AppRoleCredential(house.ask(ReadRole(role))["role_id"], secret.secret_id)

    def log_in(self) -> Issued:
        made: Issued = self.house.ask(Login(), credential=self.credential)
        return made


def rows(house: House, kind: TokenKind = TokenKind.LEASED) -> int:
    with closing(house.vault.database.reader()) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM tokens WHERE kind = ?", (kind.value,)).fetchall()
    return int(count)


def records(house: House, kind: TokenKind = TokenKind.LEASED) -> int:
    return sum(one.kind is kind for one in house.ledger.snapshot().tokens())


def children(house: House, token: str, count: int = BOUND) -> list[str]:
    return [house.ask(CreateToken(), token).text for _ in range(count)]


def test_children_are_refused_beyond_the_bound(house: House) -> None:
    _, token = house.service("worker")
    held = children(house, token)
    refused = house.refusal(CreateToken(), LimitExceeded, token)
    assert f"{BOUND} tokens" in refused.detail
    house.refusal(CreateToken(), LimitExceeded, held[0]), "whichever of its tokens asks"
    house.ask(CreateToken()), "nobody else is concerned"
    assert rows(house) == records(house) == BOUND + 1
    for one in held[:3]:
        house.ask(RevokeToken(), one)
    for _ in range(3):
        house.ask(CreateToken(), token)
        assert rows(house) == records(house) <= BOUND + 1, "what was revoked makes room at once"
    house.refusal(CreateToken(), LimitExceeded, token)
    assert house.ledger.verify().findings == ()
    house.reopen()
    house.refusal(CreateToken(), LimitExceeded, token)


def test_making_and_revoking_in_turn_leaves_no_more_than_the_bound(house: House) -> None:
    _, token = house.service("worker")
    for _ in range(2 * BOUND):
        house.ask(RevokeToken(), house.ask(CreateToken(), token).text)
    assert rows(house) == records(house) <= BOUND


def test_a_login_is_never_refused_and_ends_those_nearest_to_their_end(house: House) -> None:
    machine = Machine(house)
    made = [machine.log_in() for _ in range(BOUND)]
    first = house.ask(ReadToken(), made[0].text)
    house.ask(UpdateService("approle-app", grants=()))
    late = machine.log_in()
    comment = house.last.draft.comment or ""
    assert comment.startswith(f"accessor {late.facts.token.id}; removed for room: {first.token.id}")
    assert rows(house) == records(house) == BOUND - AT_ONCE + 1
    house.refusal(ReadToken(), Unauthenticated, made[0].text)
    house.ask(ReadToken(), made[-1].text)
    for _ in range(3 * BOUND):
        machine.log_in()
        assert records(house) <= BOUND
    assert rows(house) == records(house)
    assert house.ledger.verify().findings == ()


def test_another_process_sees_what_made_room_go(house: House) -> None:
    machine = Machine(house)
    for _ in range(BOUND):
        machine.log_in()
    other = House(house.chosen, house.admin)
    try:
        machine.log_in()
        other.ledger.refresh()
        assert records(other) == records(house)
        assert other.ledger.fault is None
    finally:
        other.close()


def test_a_database_that_deletes_nothing_refuses_instead(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(house)
    for _ in range(BOUND):
        machine.log_in()
    monkeypatch.setattr(house.ledger, "may_forget_tokens", lambda: False)
    house.refusal(Login(), LimitExceeded, credential=machine.credential)


def test_tokens_of_a_deactivated_service_are_removed_and_stay_ended(house: House) -> None:
    _, token = house.service("worker")
    held = children(house, token, 3)
    house.ask(UpdateService("worker", active=False))
    listed = house.ask(ListTokens())
    assert set(listed).isdisjoint(one.split("_")[1] for one in (token, *held)), "only what is valid is listed"
    house.ask(UpdateService("worker", active=True))
    house.refusal(ListKeys(), Unauthenticated, held[0])
    house.ask(ListKeys(), token)
    held = children(house, token, 3)
    house.ask(UpdateService("worker", active=False))
    house.run(house.jobs.round())
    assert rows(house) == records(house) == 0
    assert house.last.draft.action is Action.TOKEN_REMOVE
    assert house.ledger.verify().findings == ()


def test_too_many_tokens_are_not_ended_in_one_entry(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from keyvault_lite.engine import services

    monkeypatch.setattr(services, "MAX_ENDED", 2)
    _, token = house.service("worker")
    children(house, token, 3)
    house.ask(UpdateService("worker", active=False))
    house.refusal(UpdateService("worker", active=True), Conflict)
    house.run(house.jobs.round())
    house.ask(UpdateService("worker", active=True))


def test_revoked_tokens_are_kept_for_a_day_only_if_they_are_few(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spent, "CROWD", 3)
    _, token = house.service("worker")
    held = children(house, token, 4)
    house.ask(RevokeToken(), held[0])
    house.run(house.jobs.round())
    assert records(house) == 3
    house.ask(RevokeToken(), held[1])
    house.run(house.jobs.round())
    assert records(house) == 3


def test_children_of_a_token_that_ended_are_removed(house: House) -> None:
    _, token = house.service("worker")
    children(house, token, 3)
    house.ask(RenewToken("worker"))
    house.run(house.jobs.round())
    assert rows(house) == records(house) == 0


def test_renewals_leave_few_tombstones(house: House) -> None:
    _, token = house.service("worker")
    for _ in range(3 * TOMBSTONES):
        token = house.ask(RenewToken("worker", grace=60)).token
    before = records(house, TokenKind.NATIVE)
    house.run(house.jobs.round())
    assert before > TOMBSTONES + 3
    assert rows(house, TokenKind.NATIVE) == records(house, TokenKind.NATIVE) == TOMBSTONES + 2 + 1
    house.ask(ListKeys(), token)
    house.reopen()
    house.ask(ListKeys(), token)
    assert house.ledger.verify().findings == ()
    size = house.size
    house.run(house.jobs.round())
    assert house.size == size


def test_access_keys_leave_few_tombstones(house: House) -> None:
    for _ in range(TOMBSTONES + 3):
        made = house.ask(CreateAccessKey("admin"))
        house.ask(RevokeAccessKey("admin", access_key_id=made.access_key_id))
    house.ask(CreateAccessKey("admin"))
    house.run(house.jobs.round())
    assert rows(house, TokenKind.ACCESS_KEY) == records(house, TokenKind.ACCESS_KEY) == TOMBSTONES + 1


def test_another_process_learns_that_tombstones_went(house: House) -> None:
    """Also one that knew of a token as valid which was replaced and removed since."""
    _, token = house.service("worker")
    other = House(house.chosen, house.admin)
    try:
        for _ in range(TOMBSTONES + 2):
            token = house.ask(RenewToken("worker")).token
        house.run(house.jobs.round())
        other.ledger.refresh()
        assert records(other, TokenKind.NATIVE) == records(house, TokenKind.NATIVE)
        other.ask(ListKeys(), token)
        assert other.ledger.verify().findings == ()
    finally:
        other.close()


def test_a_tombstone_that_is_put_back_is_found(house: House) -> None:
    """As what it was before it ended, too."""
    service, _ = house.service("worker")
    columns = "id, service_id, kind, digest, created_at, expires_at, parent, ended_at, attributes, row_seq, row_mac"
    with closing(house.vault.database.reader()) as connection:
        valid = connection.execute(f"SELECT {columns} FROM tokens WHERE service_id = ?", (service.id,)).fetchone()
    for _ in range(TOMBSTONES + 1):
        house.ask(RenewToken("worker"))
    house.run(house.jobs.round())
    assert house.ledger.snapshot().token(valid[0]) is None
    with closing(house.vault.database.writer()) as connection:
        connection.execute(f"INSERT INTO tokens ({columns}) VALUES ({', '.join('?' * 11)})", tuple(valid))
    found = house.ledger.verify().findings
    assert [(one.table, one.row, one.problem) for one in found] == [("tokens", valid[0], NOT_COMMITTED)]


def test_no_valid_token_of_a_service_is_removed_whoever_asks(house: House) -> None:
    token = TokenId(house.admin.split("_")[1])
    house.refusal(RemoveTokens((token,)), Forbidden)
    with pytest.raises(Conflict):
        house.system(RemoveTokens((token,)))


def test_renewals_leave_few_kept_replies(house: House) -> None:
    """Only successes are kept, and these are limited."""
    _, token = house.service("worker")
    for number in range(3 * MAX_RENEWALS):
        try:
            token = house.ask(RenewToken("self"), token, idempotency=idempotent(f"{number}")).token
        except LimitExceeded:
            house.refusal(RenewToken("self"), LimitExceeded, token, idempotency=idempotent(f"{number}"))
    with closing(house.vault.database.reader()) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM idempotency_replies").fetchall()
    assert count == MAX_RENEWALS


@pytest.mark.sqlite_only
def test_proofs_that_are_remembered_are_few(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    assert authenticate.REMEMBERED <= 8_192
    monkeypatch.setattr(authenticate, "REMEMBERED", 5)
    _, token = house.service("worker", role=Role.AUDITOR)
    for one in children(house, token, 12):
        house.ask(ListKeys(), credential=BearerCredential(one))
        assert len(house.engine._authenticator._proven) <= 5


def test_the_bounds_are_those_that_are_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    page = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()
    for figure in (token_room.MAX_LEASED, token_room.MAX_CHILDREN):
        assert f"{figure:,}".replace(",", " ") in page


def test_processes_that_have_not_heard_of_each_other_keep_the_bounds(house: House) -> None:
    """Each judges on what it knows, and again on what is stored: no race adds a token or keeps one valid."""
    service, token = house.service("worker")
    other = House(house.chosen, house.admin)
    try:
        other.ask(ListKeys(), token)
        children(house, token)
        other.refusal(CreateToken(), LimitExceeded, token)
        house.refusal(CreateToken(), LimitExceeded, token)
        lost = house.ask(RenewToken("self", grace=600), token).token
        new = other.ask(RenewToken("self", grace=600), token).token
        house.refusal(ListKeys(), Unauthenticated, lost)
        assert len(house.ledger.snapshot().native_tokens(service.id)) == 2
        ended = house.ask(RenewToken("self"), new).token
        for stale in (token, new):
            other.refusal(RenewToken("self"), Unauthenticated, stale)
        for _ in range(MAX_RENEWALS - 3):
            ended = other.ask(RenewToken("self"), ended).token
        house.refusal(RenewToken("self"), LimitExceeded, ended)
        house.ask(UpdateService("worker", active=False))
        other.refusal(ListKeys(), Unauthenticated, ended)
        assert other.ledger.verify().findings == ()
    finally:
        other.close()


def test_a_valid_row_from_before_a_grace_period_is_found(house: House) -> None:
    """Whoever writes the database puts back the row without the end, to keep a replaced token valid."""
    service, token = house.service("worker")
    with closing(house.vault.database.reader()) as connection:
        before = connection.execute(
            "SELECT expires_at, attributes, row_seq, row_mac FROM tokens WHERE service_id = ?", (service.id,)
        ).fetchone()
    house.ask(RenewToken("self", grace=600), token)
    with closing(house.vault.database.writer()) as connection:
        connection.execute(
            "UPDATE tokens SET expires_at = ?, attributes = ?, row_seq = ?, row_mac = ? WHERE id = ?",
            (*before, token.split("_")[1]),
        )
    found = house.ledger.verify().findings
    assert [(one.table, one.row) for one in found] == [("tokens", token.split("_")[1])]
    kept = house.ledger.snapshot().token(TokenId(token.split("_")[1]))
    assert kept is not None
    assert kept.expires_at is not None, "memory decides"


def test_a_token_of_an_expired_service_can_be_revoked(house: House) -> None:
    """Else it would be valid again when the service is given more time."""
    now = house.ledger.now()
    _, token = house.service("worker")
    held = children(house, token, 2)
    house.ask(UpdateService("worker", expires_at=now + DAY))
    real = house.ledger.now
    house.ledger.now = lambda: real() + 2 * DAY  # type: ignore[method-assign]
    house.refusal(ListKeys(), Unauthenticated, held[0])
    accessor = held[0].split("_")[1]
    assert accessor not in house.ask(ListTokens())
    house.refusal(ReadToken(accessor=accessor), InvalidRequest)
    house.ask(RevokeToken(accessor=accessor))
    house.ask(UpdateService("worker", expires_at=NEVER))
    house.refusal(ListKeys(), Unauthenticated, held[0])
    house.ask(ListKeys(), held[1])


def test_a_service_that_is_set_aside_keeps_no_other_token_from_being_listed(house: House) -> None:
    service, token = house.service("worker")
    children(house, token, 2)
    house.ledger.snapshot().quarantine(service.id)
    assert house.ask(ListTokens()) == (house.admin.split("_")[1],)
    house.run(house.jobs.round())
    assert records(house) == 2
