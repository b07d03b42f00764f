"""A repeat under the same Idempotency-Key: the same answer once, a conflict for another body, nothing done twice."""

import os
from collections.abc import Awaitable

import pytest

from keyvault_lite.ledger.state.outcome import Committed, Outcome, StoredReply
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.ledger.storage import driver
from keyvault_lite.model.errors import Conflict, Forbidden, IntegrityViolation, InvalidState, NotFound, Unauthenticated
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.identity import Role
from keyvault_lite.model.names import KeyRef, TokenId
from keyvault_lite.model.replies import Replayed
from keyvault_lite.model.requests import (
    CreateAccessKey,
    CreateKey,
    CreateService,
    DestroyKey,
    DisableKey,
    EnableKey,
    Encrypt,
    KeyRequest,
    ListServices,
    RenewToken,
    RestoreKey,
    RevokeAccessKey,
    RevokeKey,
    RotateKey,
    UpdateKey,
    UpdateService,
    VerifyAudit,
)
from tests.support.harness import AES, DAY, Harness, idempotent

pytestmark = pytest.mark.both


def test_a_repeat_gets_the_first_reply_and_an_entry_of_its_own(harness: Harness) -> None:
    first = harness.answer(CreateKey(AES, "orders"), idempotency=idempotent("a"))
    again = harness.answer(CreateKey(AES, "orders"), idempotency=idempotent("a"))
    assert again.result == Replayed(repr(first.result).encode())
    assert again.audit_id == first.audit_id + 1
    assert harness.last.draft.reason == "replayed"
    harness.reopen()
    assert harness.ask(CreateKey(AES, "orders"), idempotency=idempotent("a")) == again.result


def test_another_body_is_a_conflict(harness: Harness) -> None:
    harness.ask(CreateKey(AES, "orders"), idempotency=idempotent("a"))
    harness.refusal(CreateKey(AES, "bills"), Conflict, idempotency=idempotent("a", "other"))
    harness.ask(CreateKey(AES, "bills"), idempotency=idempotent("b"))


def test_keys_belong_to_their_service(harness: Harness) -> None:
    _, second = harness.service("second", role=Role.ADMIN)
    harness.ask(CreateKey(AES, "orders"), idempotency=idempotent("a"))
    harness.ask(CreateKey(AES, "bills"), second, idempotency=idempotent("a", "other"))


def test_only_successes_are_kept(harness: Harness) -> None:
    key = harness.key()
    harness.ask(DisableKey(KeyRef(key.id)))
    harness.refusal(RotateKey(KeyRef(key.id)), InvalidState, idempotency=idempotent("a"))
    harness.ask(EnableKey(KeyRef(key.id)))
    assert len(harness.ask(RotateKey(KeyRef(key.id)), idempotency=idempotent("a")).versions) == 2


def test_a_reply_is_kept_for_a_day(harness: Harness) -> None:
    key = KeyRef(harness.key().id)
    harness.ask(RotateKey(key), idempotency=idempotent("a"))
    real = harness.ledger.now
    harness.ledger.now = lambda: real() + DAY - 60_000_000  # type: ignore[method-assign]
    assert isinstance(harness.ask(RotateKey(key), idempotency=idempotent("a")), Replayed)
    harness.ledger.now = lambda: real() + DAY + 60_000_000  # type: ignore[method-assign]
    assert len(harness.ask(RotateKey(key), idempotency=idempotent("a", "other")).versions) == 3
    harness.ledger.now = lambda: real() + 3 * DAY  # type: ignore[method-assign]
    harness.ledger.forget_replies()
    with harness.ledger._readers.one() as connection:
        assert connection.execute("SELECT count(*) FROM idempotency_replies").fetchone() == (0,)


def test_what_can_be_repeated(harness: Harness) -> None:
    key = KeyRef(harness.key("orders").id)
    harness.ask(CreateService("worker", Role.SERVICE))
    access_key = TokenId(harness.ask(CreateAccessKey("worker")).access_key_id)
    requests = [
        CreateKey(AES, "new"),
        CreateService("another", Role.SERVICE),
        RenewToken("worker"),
        UpdateService("worker", active=False),
        UpdateKey(key, description="x"),
        RotateKey(key),
        DisableKey(key),
        EnableKey(key),
        RevokeKey(key, version=1),
        DestroyKey(key),
        RestoreKey(key),
        CreateAccessKey("worker"),
        RevokeAccessKey("worker", access_key_id=access_key),
    ]
    assert {type(request) for request in requests} == {
        kind for kind in harness.engine.operations.handlers if kind.idempotent
    }
    for number, request in enumerate(requests):
        harness.ask(request, idempotency=idempotent(f"{number}"))
        root = harness.ledger._writer.head.state_root
        assert isinstance(harness.ask(request, idempotency=idempotent(f"{number}")), Replayed), request
        assert harness.ledger._writer.head.state_root == root, "a repeat changes nothing"


def test_the_entry_of_a_repeat_names_what_the_first_one_names(harness: Harness) -> None:
    key = KeyRef(harness.key("orders").id)
    for number, request in enumerate(
        (CreateKey(AES, "new"), RotateKey(key), CreateService("worker", Role.SERVICE), RenewToken("worker"))
    ):
        drafts = []
        for _ in range(2):
            harness.ask(request, idempotency=idempotent(f"{number}"))
            drafts.append(harness.last.draft)
        first, again = drafts
        assert again.reason == "replayed"
        assert (again.action, again.key_id, again.key_version, again.subject) == (
            first.action,
            first.key_id,
            first.key_version,
            first.subject,
        )
        assert again.key_id or again.subject
    assert harness.ledger.verify().valid


def test_other_requests_ignore_the_key(harness: Harness) -> None:
    key = KeyRef(harness.key().id)
    asked = [harness.ask(Encrypt(key, plaintext=b"x"), idempotency=idempotent("a")) for _ in range(2)]
    assert asked[0] != asked[1]


@pytest.mark.parametrize("count", [2, 8])
def test_twins_at_the_same_time_are_done_once(harness: Harness, count: int) -> None:
    key = KeyRef(harness.key().id)
    answers = harness.together(*(harness.perform(RotateKey(key), idempotency=idempotent("a")) for _ in range(count)))
    done = [one.result for one in answers if not isinstance(one.result, Replayed)]
    assert len(done) == 1
    assert {one.result.body for one in answers if isinstance(one.result, Replayed)} == {repr(done[0]).encode()}
    assert len(done[0].versions) == 2


def test_twins_of_which_none_changes_anything_are_seen(harness: Harness) -> None:
    # The first changes nothing, so no newer state tells the second to look again.
    key = KeyRef(harness.key().id)
    answers = harness.together(
        harness.perform(EnableKey(key), idempotency=idempotent("a", "enable")),
        harness.perform(RotateKey(key), idempotency=idempotent("a", "rotate")),
        harness.perform(EnableKey(key), idempotency=idempotent("a", "enable")),
    )
    kinds = [type(one.result) for one in answers if not isinstance(one, Conflict)]
    # Whoever is first decides what the key stands for; they wait in different executors.
    enabling_was_first = isinstance(answers[1], Conflict)
    assert len(kinds) == (2 if enabling_was_first else 1)
    assert kinds.count(Replayed) == (1 if enabling_was_first else 0)


def test_other_bodies_at_the_same_time_are_a_conflict(harness: Harness) -> None:
    answers = harness.together(
        *(harness.perform(CreateKey(AES, f"n-{n}"), idempotency=idempotent("a", f"body {n}")) for n in range(6))
    )
    assert sorted(type(one).__name__ for one in answers) == ["Answer"] + ["Conflict"] * 5


def test_the_caller_is_judged_anew(harness: Harness) -> None:
    second, token = harness.service("second", role=Role.ADMIN)
    key: KeyRequest = RotateKey(KeyRef(harness.key().id))
    harness.ask(key, token, idempotency=idempotent("a"))
    harness.ask(UpdateService("second", role=Role.SERVICE))
    harness.refusal(key, Forbidden, token, idempotency=idempotent("a"))
    harness.ask(UpdateService("second", active=False))
    harness.refusal(key, Unauthenticated, token, idempotency=idempotent("a"))
    assert harness.last.draft.service_id == second.id
    harness.refusal(RotateKey(KeyRef("absent")), NotFound, idempotency=idempotent("a"))


@pytest.mark.sqlite_only
def test_a_kept_reply_that_was_edited_is_not_served(harness: Harness) -> None:
    harness.ask(CreateKey(AES, "orders"), idempotency=idempotent("a"))
    forger = driver.connect(str(harness.path), isolation_level=None)
    forger.execute("UPDATE idempotency_replies SET expires_at = expires_at + 1")
    harness.refusal(CreateKey(AES, "orders"), IntegrityViolation, idempotency=idempotent("a"))
    harness.ask(ListServices())
    forger.execute("UPDATE idempotency_replies SET expires_at = expires_at - 1, row_seq = 99999")
    harness.refusal(CreateKey(AES, "orders"), IntegrityViolation, idempotency=idempotent("a"))
    forger.close()
    assert [one.table for one in harness.ask(VerifyAudit()).findings] == ["idempotency_replies"]


def test_a_kept_reply_is_sealed(harness: Harness) -> None:
    harness.ask(UpdateKey(KeyRef(harness.key().id), description="not in the clear twice"), idempotency=idempotent("a"))
    with harness.ledger._readers.one() as connection:
        (sealed,) = connection.execute("SELECT sealed FROM idempotency_replies").fetchone()
    assert b"clear" not in sealed


def test_a_twin_that_changes_nothing_is_judged_again(harness: Harness) -> None:
    """No newer management entry tells of the first one: the kept reply does, in the same transaction and later."""
    ledger, who = harness.ledger, harness.ledger.snapshot().active_admins()[0].id
    redone: list[str] = []

    def outcome(name: str, key: str, days: int) -> Outcome:
        draft = Draft(action=Action.RANDOM, result=Result.SUCCESS, request_id=os.urandom(16), service_id=who)
        reply = StoredReply(who, key.encode() * 32, b"b" * 32, ledger.now() + days * DAY, b"sealed")
        return Outcome((draft,), name, reply=reply)

    def commit(name: str, key: str = "k", days: int = 1) -> Awaitable[Committed]:
        def redo(_: State) -> Outcome:
            redone.append(name)
            return outcome(f"{name} again", key, days)

        return ledger.commit(outcome(name, key, days), ledger.snapshot().snapshot_version, redo)

    results = harness.together(commit("first"), commit("second"), commit("other", "o"))
    assert redone == ["second"]
    assert [one.outcome.result for one in results] == ["first", "second again", "other"]
    harness.together(commit("third"))
    assert redone == ["second", "third"]
    kept = ledger.snapshot().reply(who, b"k" * 32)
    assert kept is not None
    assert (kept.entry_id, kept.body_digest, kept.sealed) == (harness.size, b"b" * 32, b"sealed")
    for name in ("expired", "new"):
        harness.together(commit(name, "e", -1))
    assert redone == ["second", "third"], "one that has expired is none"
