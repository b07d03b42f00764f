"""Sessions of reading: one entry when they begin and one when they end, and nothing is read beyond what these say."""

import asyncio
import base64
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from keyvault_lite import app
from keyvault_lite.engine import reading, session
from keyvault_lite.model.errors import AuditUnavailable, Forbidden, InvalidRequest, LimitExceeded, Unauthenticated
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.identity import BearerCredential, Role
from keyvault_lite.model.names import KeyId, KeyRef
from keyvault_lite.model.replies import Answer, LogPage
from keyvault_lite.model.requests import (
    Encrypt,
    FollowAudit,
    ListAudit,
    ListKeys,
    ListReceipts,
    Origin,
    ReadMetrics,
    ReadReceipt,
    RenewToken,
    UpdateService,
)
from tests.support.harness import Harness, grant

SOON = 1_000_000
"""Microseconds."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PERIOD_SECONDS", 0.1)


def follow(after: int = 0, wait: int = 0, **wanted: Any) -> FollowAudit:  # noqa: ANN401
    return FollowAudit(ListAudit(after=str(after), ascending=True, **wanted), wait)


def page(answer: Answer) -> LogPage:
    assert isinstance(answer.result, LogPage)
    return answer.result


def readings(harness: Harness, after: int = 0) -> list[Draft]:
    return [one.draft for one in harness.log(after) if one.draft.action in {Action.AUDIT_READ, Action.METRICS_READ}]


@pytest.fixture
def auditor(harness: Harness) -> str:
    return harness.service("watcher", role=Role.AUDITOR)[1]


def test_a_session_has_one_entry_however_often_it_is_read(harness: Harness, auditor: str) -> None:
    before = harness.size
    first = harness.answer(follow(before), auditor, source="10.0.0.1")
    looks = [first, *(harness.answer(follow(before + n % 2), auditor, source="10.0.0.1") for n in range(20))]
    assert {one.audit_id for one in looks} == {before + 1}
    (only,) = readings(harness, before)
    assert (only.action, only.result, only.source) == (Action.AUDIT_READ, Result.SUCCESS, "10.0.0.1")
    assert only.comment == f"session: entries from {before + 1} on, for at most 3600 s"
    assert [entry.id for entry in page(first).items] == [before + 1], "its own entry is the news"


def test_next_leads_through_the_log_and_is_always_there(harness: Harness, auditor: str) -> None:
    for _ in range(5):
        harness.ask(ListKeys())
    seen: list[int] = []
    after = "0"
    while found := harness.ask(follow(int(after), limit=3), auditor).items:
        seen += [entry.id for entry in found]
        after = harness.ask(follow(int(after), limit=3), auditor).next
    assert seen == list(range(1, harness.size + 1))
    assert after == str(seen[-1])
    # What a filter leaves out is not looked through again.
    assert harness.ask(follow(of=Action.DECRYPT), auditor).next == str(harness.size)


def test_waiting_ends_with_the_next_entry(harness: Harness, auditor: str) -> None:
    start = int(harness.ask(follow(), auditor).next)

    async def waiting() -> tuple[Answer, float]:
        began = time.monotonic()
        task = asyncio.ensure_future(harness.perform(follow(start, 30), auditor))
        await asyncio.sleep(0.3)
        assert not task.done()
        await harness.perform(ListKeys())
        return await task, time.monotonic() - began

    answer, took = harness.run(waiting())
    assert [entry.draft.action for entry in page(answer).items] == [Action.KEY_READ]
    assert took < 10


def test_waiting_for_what_does_not_come_ends_empty(harness: Harness, auditor: str) -> None:
    start = int(harness.ask(follow(of=Action.DECRYPT), auditor).next)
    found = harness.ask(follow(start, 1, of=Action.DECRYPT), auditor)
    assert (found.items, found.next) == ((), str(start))


def test_what_another_process_writes_is_news(harness: Harness, auditor: str) -> None:
    other = app.open_vault(harness.settings)
    try:
        start = int(harness.ask(follow(), auditor).next)

        async def waiting() -> Answer:
            task = asyncio.ensure_future(harness.perform(follow(start, 30), auditor))
            await asyncio.sleep(0.2)
            await other.engine.perform(ListKeys(), BearerCredential(harness.admin), Origin(b"\x01" * 16))
            return await task

        assert [one.draft.action for one in page(harness.run(waiting())).items] == [Action.KEY_READ]
    finally:
        other.close()


@pytest.mark.parametrize("change", [{"active": False}, {"expires_at": SOON}, {"role": Role.SERVICE}])
def test_who_may_not_read_any_more_is_told_so_while_waiting(
    harness: Harness, auditor: str, change: dict[str, Any]
) -> None:
    start = int(harness.ask(follow(), auditor).next)
    kind = Forbidden if "role" in change else Unauthenticated
    if "expires_at" in change:
        change = {"expires_at": harness.ledger.now() + SOON}

    async def waiting() -> None:
        task = asyncio.ensure_future(harness.perform(follow(start, 60, of=Action.DECRYPT), auditor))
        await asyncio.sleep(0.2)
        await harness.perform(UpdateService("watcher", **change))
        began = time.monotonic()
        with pytest.raises(kind):
            await task
        assert time.monotonic() - began < 10

    harness.run(waiting())
    assert harness.last.draft.result is Result.DENIED
    assert harness.last.draft.service_id == next(one.draft.subject for one in harness.log(start) if one.draft.subject)
    harness.refusal(follow(start), kind, auditor)


def test_a_token_that_was_renewed_reads_no_more(harness: Harness, auditor: str) -> None:
    harness.ask(follow(), auditor)
    renewed = harness.ask(RenewToken("watcher"), auditor).token
    harness.refusal(follow(), Unauthenticated, auditor)
    before = harness.size
    assert harness.answer(follow(), renewed).audit_id == before + 1, "another token has a session of its own"


def test_who_may_not_read_has_no_session(harness: Harness) -> None:
    _, token = harness.service("app", grant("*", "encrypt"))
    for request in (follow(), ReadMetrics(), ListReceipts(ListAudit(ascending=True), 5)):
        before = harness.size
        harness.refusal(request, Forbidden, token)
        harness.refusal(request, Unauthenticated, None)
        assert [one.draft.result for one in harness.log(before)] == [Result.DENIED] * 2


def test_what_the_entry_does_not_say_is_another_session(harness: Harness, auditor: str) -> None:
    start = harness.size
    harness.ask(follow(start), auditor, source="10.0.0.1")
    for request, source in (
        (follow(start - 1), "10.0.0.1"),
        (follow(start), "10.0.0.2"),
        (follow(start, of=Action.ENCRYPT), "10.0.0.1"),
        (follow(start, result=Result.DENIED), "10.0.0.1"),
        (follow(start, key_id=KeyId("orders")), "10.0.0.1"),
        (follow(start, service_id="watcher"), "10.0.0.1"),
        (follow(start, since=1), "10.0.0.1"),
        (ReadMetrics(), "10.0.0.1"),
    ):
        before = harness.size
        assert harness.answer(request, auditor, source=source).audit_id == before + 1
        assert harness.answer(request, auditor, source=source).audit_id == before + 1
        assert harness.size == before + 1


def test_a_session_ends_and_says_what_was_read(harness: Harness, auditor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(session, "IDLE_SECONDS", 0.3)
    start = harness.size
    opened = harness.answer(follow(start), auditor, source="10.0.0.1").audit_id
    harness.ask(ListKeys())
    newest = harness.ask(follow(start + 1), auditor, source="10.0.0.1").items[-1].id
    metrics = harness.answer(ReadMetrics(), auditor).audit_id
    harness.answer(ReadMetrics(), auditor)
    empty = harness.answer(follow(of=Action.DECRYPT), auditor).audit_id
    harness.run(asyncio.sleep(1.0))
    ends = [one for one in readings(harness, start) if (one.comment or "").startswith("end of")]
    assert sorted(one.comment or "" for one in ends) == sorted(
        [
            f"end of the session of entry {opened}: entries {start + 1} to {newest} were read",
            f"end of the session of entry {metrics}: read 2 times",
            f"end of the session of entry {empty}: nothing was read",
        ]
    )
    assert {(one.service_id, one.result) for one in ends} == {(readings(harness, start)[0].service_id, Result.SUCCESS)}
    assert "10.0.0.1" in {one.source for one in ends}
    assert harness.ledger.verify().valid
    before = harness.size
    assert harness.answer(follow(start), auditor, source="10.0.0.1").audit_id == before + 1


def test_a_session_lasts_no_longer_than_it_says(
    harness: Harness, auditor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MAX_SECONDS", 1)
    start = int(harness.ask(follow(of=Action.DECRYPT), auditor).next)
    began = time.monotonic()
    assert harness.ask(follow(start, 30, of=Action.DECRYPT), auditor).items == ()
    assert time.monotonic() - began < 10, "nor does anybody wait in it"
    before = harness.size
    assert harness.answer(follow(start, of=Action.DECRYPT), auditor).audit_id == before + 1


def test_waiting_is_bounded(harness: Harness, auditor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start = int(harness.ask(follow(of=Action.DECRYPT), auditor).next)
    other = harness.service("second", role=Role.AUDITOR)[1]
    monkeypatch.setattr(reading, "MAX_WAITING", 6)

    def waits(token: str) -> Coroutine[Any, Any, Answer]:
        return harness.perform(follow(start, 2, of=Action.DECRYPT), token)

    results = harness.together(*(waits(auditor) for _ in range(6)))
    refused = [one for one in results if isinstance(one, LimitExceeded)]
    assert len(refused) == 2
    assert refused[0].audit_id is not None
    results = harness.together(*(waits(token) for token in (auditor,) * 4 + (other,) * 4))
    assert sum(isinstance(one, LimitExceeded) for one in results) == 2
    assert harness.ask(follow(start, 0, of=Action.DECRYPT), auditor).items == (), "who does not wait needs no place"
    assert harness.ask(follow(start, 1, of=Action.DECRYPT), auditor).items == (), "places come back"


def test_sessions_are_bounded(harness: Harness, auditor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_SESSIONS", 3)
    monkeypatch.setattr(reading, "SWEEP_SECONDS", 0.05)
    for number in range(5):
        harness.ask(follow(), auditor, source=f"10.0.0.{number}")
    harness.run(asyncio.sleep(0.3))
    assert sum((one.comment or "").startswith("end of") for one in readings(harness)) == 2


def test_whoever_waits_is_answered_when_the_server_ends(harness: Harness, auditor: str) -> None:
    start = int(harness.ask(follow(of=Action.DECRYPT), auditor).next)

    async def ending() -> float:
        task = asyncio.ensure_future(harness.perform(follow(start, 60, of=Action.DECRYPT), auditor))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await harness.engine.stop_waiting()
        assert page(await task).items == ()
        return time.monotonic() - began

    assert harness.run(ending()) < 2
    assert (harness.last.draft.comment or "").startswith("end of the session of entry")


def test_a_fault_ends_the_reading(harness: Harness, auditor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start = int(harness.ask(follow(), auditor).next)
    monkeypatch.setattr(type(harness.ledger), "fault", property(lambda _: AuditUnavailable("no disk")))
    harness.refusal(follow(start), AuditUnavailable, auditor)
    harness.refusal(ReadMetrics(), AuditUnavailable, auditor)


@pytest.mark.parametrize(
    ("wanted", "wait"),
    [
        (ListAudit(ascending=True), -1),
        (ListAudit(ascending=True), 61),
        (ListAudit(), 1),
        (ListAudit(ascending=True, until=5), 1),
        (ListAudit(ascending=True, after="x"), 1),
        (ListAudit(ascending=True, after="1" * 19), 1),
    ],
)
def test_what_cannot_be_followed(wanted: ListAudit, wait: int) -> None:
    with pytest.raises(InvalidRequest):
        FollowAudit(wanted, wait)


# A page that is read by itself, and many receipts


def test_a_page_says_what_was_read(harness: Harness, auditor: str) -> None:
    size = harness.size
    harness.ask(ListAudit(limit=2), auditor)
    assert harness.last.draft.comment == f"entries {size - 1} to {size}"
    harness.ask(ListAudit(of=Action.DECRYPT), auditor)
    assert harness.last.draft.comment == "no entries"


def test_names_stand_beside_entries_and_never_in_what_proves_them(harness: Harness, auditor: str) -> None:
    key = harness.key("orders")
    service, token = harness.service("app", grant("orders", "encrypt"))
    entry = harness.answer(Encrypt(KeyRef(key.id), plaintext=b"x"), token).audit_id
    found = harness.ask(ListAudit(), auditor)
    assert found.names.items() >= {(key.id, "orders"), (service.id, "app")}
    assert set(found.names) <= {
        one for e in found.items for one in (e.draft.service_id, e.draft.key_id, e.draft.subject)
    }
    for text in (harness.ask(ReadReceipt(entry), token), harness.ask(ReadReceipt(entry), auditor)):
        held = base64.b64decode(text.splitlines()[1].removeprefix("extra "))
        assert key.id.encode() in held
        assert b"orders" not in held
        assert b"app" not in held
    harness.refusal(ListAudit(), Forbidden, token)


def test_no_name_is_taken_from_a_record_that_does_not_verify(harness: Harness, auditor: str) -> None:
    key = harness.key("orders")
    harness.ledger.snapshot().quarantine(key.id)
    service_id = harness.last.draft.service_id
    harness.ask(ListAudit(), auditor)
    watcher = harness.last.draft.service_id
    assert watcher not in {None, service_id}
    harness.ledger.snapshot().quarantine(str(watcher))
    assert {"orders", "watcher"}.isdisjoint(harness.ask(ListAudit(), harness.admin).names.values())


def test_many_receipts_are_one_entry(harness: Harness, auditor: str) -> None:
    name = KeyRef(harness.key("orders").id)
    for _ in range(4):
        harness.ask(Encrypt(name, plaintext=b"x"))
    size = harness.size
    found = harness.ask(ListReceipts(ListAudit(after="1", ascending=True), size - 1), auditor)
    assert [one.entry for one in found.items] == list(range(2, size))
    assert harness.size == size + 1
    assert harness.last.draft.action is Action.AUDIT_READ
    assert harness.last.draft.comment == f"receipts 2 to {size - 1}"
    for one in found.items:
        alone = harness.ask(ReadReceipt(one.entry), auditor)
        assert alone.splitlines()[:3] == one.receipt.splitlines()[:3], "format, entry and index"
    wanted = ListAudit(of=Action.ENCRYPT, limit=3, ascending=True)
    first = harness.ask(ListReceipts(wanted, 10**9), auditor)
    assert [one.entry for one in first.items] == list(range(size - 3, size))
    rest = harness.ask(ListReceipts(ListAudit(of=Action.ENCRYPT, after=first.next, ascending=True), 10**9), auditor)
    assert [one.entry for one in rest.items] == [size]
    assert harness.ask(ListReceipts(ListAudit(of=Action.DECRYPT, ascending=True), 10**9), auditor).items == ()


def test_receipts_are_listed_forwards() -> None:
    with pytest.raises(InvalidRequest):
        ListReceipts(ListAudit(), 5)
    with pytest.raises(InvalidRequest):
        ListReceipts(ListAudit(ascending=True), 0)
