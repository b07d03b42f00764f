"""What a caller without grants can make grow: rows and records of tokens, kept replies. Each has its bound."""

from contextlib import closing

import pytest

from keyvault_lite.access import authenticate, ended_tokens
from keyvault_lite.access.ended_tokens import TOMBSTONES
from keyvault_lite.dialects.vault.credentials import AppRoleCredential
from keyvault_lite.dialects.vault.token_requests import (
    CreateSecretId,
    CreateToken,
    IssuedToken,
    ListTokens,
    Login,
    ReadRole,
    ReadToken,
    RevokeToken,
    WriteRole,
)
from keyvault_lite.engine import token_quota
from keyvault_lite.engine.token_quota import AT_ONCE
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
from tests.support.harness import DAY, Harness, idempotent
from tests.support.paths import ROOT

BOUND = 40
pytestmark = pytest.mark.both


@pytest.fixture(autouse=True)
def _small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_quota, "MAX_LEASED", BOUND)
    monkeypatch.setattr(token_quota, "MAX_CHILDREN", BOUND)


class Machine:
    """What logs in by AppRole."""

    def __init__(self, harness: Harness, role: str = "app") -> None:
        harness.ask(WriteRole(role))
        self.harness = harness
        secret = harness.ask(CreateSecretId(role))
        self.credential = AppRoleCredential(harness.ask(ReadRole(role))["role_id"], secret.secret_id)

    def log_in(self) -> IssuedToken:
        made: IssuedToken = self.harness.ask(Login(), credential=self.credential)
        return made


def rows(harness: Harness, kind: TokenKind = TokenKind.LEASED) -> int:
    with closing(harness.vault.database.reader()) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM tokens WHERE kind = ?", (kind.value,)).fetchall()
    return int(count)


def records(harness: Harness, kind: TokenKind = TokenKind.LEASED) -> int:
    return sum(one.kind is kind for one in harness.ledger.snapshot().tokens())


def children(harness: Harness, token: str, count: int = BOUND) -> list[str]:
    return [harness.ask(CreateToken(), token).text for _ in range(count)]


def test_children_are_refused_beyond_the_bound(harness: Harness) -> None:
    _, token = harness.service("worker")
    held = children(harness, token)
    refused = harness.refusal(CreateToken(), LimitExceeded, token)
    assert f"{BOUND} tokens" in refused.detail
    harness.refusal(CreateToken(), LimitExceeded, held[0]), "whichever of its tokens asks"
    harness.ask(CreateToken()), "nobody else is concerned"
    assert rows(harness) == records(harness) == BOUND + 1
    for one in held[:3]:
        harness.ask(RevokeToken(), one)
    for _ in range(3):
        harness.ask(CreateToken(), token)
        assert rows(harness) == records(harness) <= BOUND + 1, "what was revoked makes room at once"
    harness.refusal(CreateToken(), LimitExceeded, token)
    assert harness.ledger.verify().findings == ()
    harness.reopen()
    harness.refusal(CreateToken(), LimitExceeded, token)


def test_making_and_revoking_in_turn_leaves_no_more_than_the_bound(harness: Harness) -> None:
    _, token = harness.service("worker")
    for _ in range(2 * BOUND):
        harness.ask(RevokeToken(), harness.ask(CreateToken(), token).text)
    assert rows(harness) == records(harness) <= BOUND


def test_a_login_is_never_refused_and_ends_those_nearest_to_their_end(harness: Harness) -> None:
    machine = Machine(harness)
    made = [machine.log_in() for _ in range(BOUND)]
    first = harness.ask(ReadToken(), made[0].text)
    harness.ask(UpdateService("approle-app", grants=()))
    late = machine.log_in()
    comment = harness.last.draft.comment or ""
    assert comment.startswith(f"accessor {late.facts.token.id}; removed for room: {first.token.id}")
    assert rows(harness) == records(harness) == BOUND - AT_ONCE + 1
    harness.refusal(ReadToken(), Unauthenticated, made[0].text)
    harness.ask(ReadToken(), made[-1].text)
    for _ in range(3 * BOUND):
        machine.log_in()
        assert records(harness) <= BOUND
    assert rows(harness) == records(harness)
    assert harness.ledger.verify().findings == ()


def test_another_process_sees_what_made_room_go(harness: Harness) -> None:
    machine = Machine(harness)
    for _ in range(BOUND):
        machine.log_in()
    other = Harness(harness.settings, harness.admin)
    try:
        machine.log_in()
        other.ledger.refresh()
        assert records(other) == records(harness)
        assert other.ledger.fault is None
    finally:
        other.close()


def test_a_database_that_deletes_nothing_refuses_instead(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(harness)
    for _ in range(BOUND):
        machine.log_in()
    monkeypatch.setattr(harness.ledger, "may_forget_tokens", lambda: False)
    harness.refusal(Login(), LimitExceeded, credential=machine.credential)


def test_tokens_of_a_deactivated_service_are_removed_and_stay_ended(harness: Harness) -> None:
    _, token = harness.service("worker")
    held = children(harness, token, 3)
    harness.ask(UpdateService("worker", active=False))
    listed = harness.ask(ListTokens())
    assert set(listed).isdisjoint(one.split("_")[1] for one in (token, *held)), "only what is valid is listed"
    harness.ask(UpdateService("worker", active=True))
    harness.refusal(ListKeys(), Unauthenticated, held[0])
    harness.ask(ListKeys(), token)
    held = children(harness, token, 3)
    harness.ask(UpdateService("worker", active=False))
    harness.run(harness.jobs.round())
    assert rows(harness) == records(harness) == 0
    assert harness.last.draft.action is Action.TOKEN_REMOVE
    assert harness.ledger.verify().findings == ()


def test_too_many_tokens_are_not_ended_in_one_entry(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    from keyvault_lite.engine import services

    monkeypatch.setattr(services, "MAX_ENDED", 2)
    _, token = harness.service("worker")
    children(harness, token, 3)
    harness.ask(UpdateService("worker", active=False))
    harness.refusal(UpdateService("worker", active=True), Conflict)
    harness.run(harness.jobs.round())
    harness.ask(UpdateService("worker", active=True))


def test_revoked_tokens_are_kept_for_a_day_only_if_they_are_few(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ended_tokens, "CROWD", 3)
    _, token = harness.service("worker")
    held = children(harness, token, 4)
    harness.ask(RevokeToken(), held[0])
    harness.run(harness.jobs.round())
    assert records(harness) == 3
    harness.ask(RevokeToken(), held[1])
    harness.run(harness.jobs.round())
    assert records(harness) == 3


def test_children_of_a_token_that_ended_are_removed(harness: Harness) -> None:
    _, token = harness.service("worker")
    children(harness, token, 3)
    harness.ask(RenewToken("worker"))
    harness.run(harness.jobs.round())
    assert rows(harness) == records(harness) == 0


def test_renewals_leave_few_tombstones(harness: Harness) -> None:
    _, token = harness.service("worker")
    for _ in range(3 * TOMBSTONES):
        token = harness.ask(RenewToken("worker", grace=60)).token
    before = records(harness, TokenKind.NATIVE)
    harness.run(harness.jobs.round())
    assert before > TOMBSTONES + 3
    assert rows(harness, TokenKind.NATIVE) == records(harness, TokenKind.NATIVE) == TOMBSTONES + 2 + 1
    harness.ask(ListKeys(), token)
    harness.reopen()
    harness.ask(ListKeys(), token)
    assert harness.ledger.verify().findings == ()
    size = harness.size
    harness.run(harness.jobs.round())
    assert harness.size == size


def test_access_keys_leave_few_tombstones(harness: Harness) -> None:
    for _ in range(TOMBSTONES + 3):
        made = harness.ask(CreateAccessKey("admin"))
        harness.ask(RevokeAccessKey("admin", access_key_id=made.access_key_id))
    harness.ask(CreateAccessKey("admin"))
    harness.run(harness.jobs.round())
    assert rows(harness, TokenKind.ACCESS_KEY) == records(harness, TokenKind.ACCESS_KEY) == TOMBSTONES + 1


def test_another_process_learns_that_tombstones_went(harness: Harness) -> None:
    """Also one that knew of a token as valid which was replaced and removed since."""
    _, token = harness.service("worker")
    other = Harness(harness.settings, harness.admin)
    try:
        for _ in range(TOMBSTONES + 2):
            token = harness.ask(RenewToken("worker")).token
        harness.run(harness.jobs.round())
        other.ledger.refresh()
        assert records(other, TokenKind.NATIVE) == records(harness, TokenKind.NATIVE)
        other.ask(ListKeys(), token)
        assert other.ledger.verify().findings == ()
    finally:
        other.close()


def test_a_tombstone_that_is_put_back_is_found(harness: Harness) -> None:
    """As what it was before it ended, too."""
    service, _ = harness.service("worker")
    columns = "id, service_id, kind, digest, created_at, expires_at, parent, ended_at, attributes, row_seq, row_mac"
    with closing(harness.vault.database.reader()) as connection:
        valid = connection.execute(f"SELECT {columns} FROM tokens WHERE service_id = ?", (service.id,)).fetchone()
    for _ in range(TOMBSTONES + 1):
        harness.ask(RenewToken("worker"))
    harness.run(harness.jobs.round())
    assert harness.ledger.snapshot().token(valid[0]) is None
    with closing(harness.vault.database.writer()) as connection:
        connection.execute(f"INSERT INTO tokens ({columns}) VALUES ({', '.join('?' * 11)})", tuple(valid))
    found = harness.ledger.verify().findings
    assert [(one.table, one.row, one.problem) for one in found] == [("tokens", valid[0], NOT_COMMITTED)]


def test_no_valid_token_of_a_service_is_removed_whoever_asks(harness: Harness) -> None:
    token = TokenId(harness.admin.split("_")[1])
    harness.refusal(RemoveTokens((token,)), Forbidden)
    with pytest.raises(Conflict):
        harness.system(RemoveTokens((token,)))


def test_renewals_leave_few_kept_replies(harness: Harness) -> None:
    """Only successes are kept, and these are limited."""
    _, token = harness.service("worker")
    for number in range(3 * MAX_RENEWALS):
        try:
            token = harness.ask(RenewToken("self"), token, idempotency=idempotent(f"{number}")).token
        except LimitExceeded:
            harness.refusal(RenewToken("self"), LimitExceeded, token, idempotency=idempotent(f"{number}"))
    with closing(harness.vault.database.reader()) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM idempotency_replies").fetchall()
    assert count == MAX_RENEWALS


@pytest.mark.sqlite_only
def test_proofs_that_are_remembered_are_few(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    assert authenticate.REMEMBERED <= 8_192
    monkeypatch.setattr(authenticate, "REMEMBERED", 5)
    _, token = harness.service("worker", role=Role.AUDITOR)
    for one in children(harness, token, 12):
        harness.ask(ListKeys(), credential=BearerCredential(one))
        assert len(harness.engine._authenticator._proven) <= 5


def test_the_bounds_are_those_that_are_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    page = (ROOT / "docs" / "deployment.md").read_text()
    for figure in (token_quota.MAX_LEASED, token_quota.MAX_CHILDREN):
        assert f"{figure:,}".replace(",", " ") in page


def test_processes_that_have_not_heard_of_each_other_keep_the_bounds(harness: Harness) -> None:
    """Each judges on what it knows, and again on what is stored: no race adds a token or keeps one valid."""
    service, token = harness.service("worker")
    other = Harness(harness.settings, harness.admin)
    try:
        other.ask(ListKeys(), token)
        children(harness, token)
        other.refusal(CreateToken(), LimitExceeded, token)
        harness.refusal(CreateToken(), LimitExceeded, token)
        lost = harness.ask(RenewToken("self", grace=600), token).token
        new = other.ask(RenewToken("self", grace=600), token).token
        harness.refusal(ListKeys(), Unauthenticated, lost)
        assert len(harness.ledger.snapshot().native_tokens(service.id)) == 2
        ended = harness.ask(RenewToken("self"), new).token
        for stale in (token, new):
            other.refusal(RenewToken("self"), Unauthenticated, stale)
        for _ in range(MAX_RENEWALS - 3):
            ended = other.ask(RenewToken("self"), ended).token
        harness.refusal(RenewToken("self"), LimitExceeded, ended)
        harness.ask(UpdateService("worker", active=False))
        other.refusal(ListKeys(), Unauthenticated, ended)
        assert other.ledger.verify().findings == ()
    finally:
        other.close()


def test_a_valid_row_from_before_a_grace_period_is_found(harness: Harness) -> None:
    """Whoever writes the database puts back the row without the end, to keep a replaced token valid."""
    service, token = harness.service("worker")
    with closing(harness.vault.database.reader()) as connection:
        before = connection.execute(
            "SELECT expires_at, attributes, row_seq, row_mac FROM tokens WHERE service_id = ?", (service.id,)
        ).fetchone()
    harness.ask(RenewToken("self", grace=600), token)
    with closing(harness.vault.database.writer()) as connection:
        connection.execute(
            "UPDATE tokens SET expires_at = ?, attributes = ?, row_seq = ?, row_mac = ? WHERE id = ?",
            (*before, token.split("_")[1]),
        )
    found = harness.ledger.verify().findings
    assert [(one.table, one.row) for one in found] == [("tokens", token.split("_")[1])]
    kept = harness.ledger.snapshot().token(TokenId(token.split("_")[1]))
    assert kept is not None
    assert kept.expires_at is not None, "memory decides"


def test_a_token_of_an_expired_service_can_be_revoked(harness: Harness) -> None:
    """Else it would be valid again when the service is given more time."""
    now = harness.ledger.now()
    _, token = harness.service("worker")
    held = children(harness, token, 2)
    harness.ask(UpdateService("worker", expires_at=now + DAY))
    real = harness.ledger.now
    harness.ledger.now = lambda: real() + 2 * DAY  # type: ignore[method-assign]
    harness.refusal(ListKeys(), Unauthenticated, held[0])
    accessor = held[0].split("_")[1]
    assert accessor not in harness.ask(ListTokens())
    harness.refusal(ReadToken(accessor=accessor), InvalidRequest)
    harness.ask(RevokeToken(accessor=accessor))
    harness.ask(UpdateService("worker", expires_at=NEVER))
    harness.refusal(ListKeys(), Unauthenticated, held[0])
    harness.ask(ListKeys(), held[1])


def test_a_service_that_is_set_aside_keeps_no_other_token_from_being_listed(harness: Harness) -> None:
    service, token = harness.service("worker")
    children(harness, token, 2)
    harness.ledger.snapshot().quarantine(service.id)
    assert harness.ask(ListTokens()) == (harness.admin.split("_")[1],)
    harness.run(harness.jobs.round())
    assert records(harness) == 2
