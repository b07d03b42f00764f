"""Queues have an end: beyond it one is turned away at once, having changed nothing, and what is quick stays quick."""

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from keyvault_lite.engine import executors, failed_logins
from keyvault_lite.engine.executors import BoundedExecutor, Executors
from keyvault_lite.engine.failed_logins import FailedLoginThrottle
from keyvault_lite.ledger.commit import queue
from keyvault_lite.ledger.commit.batch import Phase
from keyvault_lite.model.errors import AuditUnavailable, LimitExceeded, Overloaded, Unauthenticated
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import Role
from keyvault_lite.model.keys import KeySpec, KeyType, Purpose
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import Answer
from keyvault_lite.model.requests import (
    Batch,
    CreateKey,
    Encrypt,
    KeyRequest,
    ListAudit,
    ListKeys,
    Request,
    RevokeKey,
    Sign,
    VerifyAudit,
)
from tests.support.harness import AES, Harness

RSA = KeySpec(KeyType.RSA, 4096, Purpose.SIGN)


def test_a_lane_turns_away_beyond_its_end_and_takes_again_when_it_moves() -> None:
    release = threading.Event()

    async def run() -> None:
        lane = BoundedExecutor("narrow", threads=1, waiting=2)
        waiting = [asyncio.create_task(lane.run(release.wait)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await lane.run(release.wait)
        waiting[0].cancel()
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded, match="nothing was done"):
            await lane.run(release.wait)  # its caller has gone, the thread works on
        release.set()
        assert await asyncio.gather(*waiting[1:]) == [True, True]
        assert await lane.run(lambda: "again") == "again"
        assert lane.busy == 0
        lane.close()
        with pytest.raises(AuditUnavailable):
            await lane.run(release.wait)

    asyncio.run(run())


def test_each_kind_of_work_has_its_lane(harness: Harness) -> None:
    key, rsa = KeyRef(harness.key().id), KeyRef(harness.key("rsa", RSA).id)
    all_lanes = harness.engine._executors
    chosen: list[tuple[Request, BoundedExecutor | None]] = [
        (Encrypt(key, plaintext=b"x"), None),
        (Encrypt(KeyRef("absent"), plaintext=b"x"), None),
        (ListKeys(), None),
        (Sign(rsa), all_lanes.costly),
        (Batch(rsa, Action.SIGN, (Sign(rsa),)), all_lanes.costly),
        (Batch(key, Action.ENCRYPT, (Encrypt(key, plaintext=b"x"),)), None),
        (CreateKey(RSA), all_lanes.making),
        (RevokeKey(key), all_lanes.changing),
        (ListAudit(), all_lanes.reading),
        (VerifyAudit(), all_lanes.checking),
    ]
    state = harness.ledger.snapshot()
    for request, lane in chosen:
        named = state.find_key(request.key) if isinstance(request, KeyRequest) else None
        ctx: Any = SimpleNamespace(named_key=named, principal=SimpleNamespace(role=Role.ADMIN))
        assert all_lanes.choose(request, ctx) is lane, request


def test_costly_work_keeps_nobody_from_quick_work_or_from_revoking(harness: Harness) -> None:
    """With both threads of the costly lane and the one that makes keys taken, the rest goes on."""
    key, rsa = KeyRef(harness.key().id), KeyRef(harness.key("rsa", RSA).id)
    release = threading.Event()

    async def run() -> None:
        own = harness.engine._executors
        holding = [asyncio.create_task(one.run(release.wait)) for one in (own.costly, own.costly, own.making)]
        signing = asyncio.ensure_future(harness.perform(Sign(rsa, message=b"x")))
        making = asyncio.ensure_future(harness.perform(CreateKey(RSA)))
        began = time.monotonic()
        try:
            for _ in range(20):
                await harness.perform(Encrypt(key, plaintext=b"x"))
            await harness.perform(RevokeKey(rsa))
            assert time.monotonic() - began < 5
            assert not signing.done()
        finally:
            release.set()  # else the vault would not close, and a failure here would be a hang
        await asyncio.gather(*holding, making)
        with pytest.raises(Exception, match="REVOKED"):
            await signing  # judged on the state of its commit, not on that of its arrival

    harness.run(run())


def test_a_full_queue_of_the_log_turns_away_without_an_entry(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    key = KeyRef(harness.key().id)
    monkeypatch.setattr(queue, "MAX_WAITING", 40)
    before = harness.size
    results = harness.together(*(harness.perform(Encrypt(key, plaintext=b"x")) for _ in range(200)))
    done = [one for one in results if isinstance(one, Answer)]
    turned_away = [one for one in results if isinstance(one, Overloaded)]
    assert len(done) + len(turned_away) == 200
    assert turned_away
    assert len(done) >= 40
    assert all(one.audit_id is None for one in turned_away)
    assert harness.size == before + len(done)
    assert harness.ledger._group_commit.waiting == 0
    assert isinstance(harness.answer(Encrypt(key, plaintext=b"x")), Answer)


def test_a_transaction_has_an_end(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    key = KeyRef(harness.key().id)
    monkeypatch.setattr(queue, "MAX_ENTRIES", 100)
    sizes: list[int] = []
    harness.ledger._group_commit.observer = lambda batch: (
        sizes.append(batch.entries) if batch.phase is Phase.COMMITTED else None
    )
    batch = Batch(key, Action.ENCRYPT, (Encrypt(key, plaintext=b"x"),) * 60)
    harness.together(*(harness.perform(batch) for _ in range(10)))
    assert sum(sizes) == 600
    assert max(sizes) < 160


def test_a_flood_that_does_not_end_is_told_to_go_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_logins, "WINDOW", 0.02)
    monkeypatch.setattr(failed_logins, "STRIKES", 3)
    monkeypatch.setattr(failed_logins, "PAUSE", 0.0)
    counted: list[int] = []

    async def record(_: str | None, count: int) -> None:
        counted.append(count)

    async def fail(gate: FailedLoginThrottle, source: str) -> str:
        if gate.admit(source):
            return "own"
        try:
            await gate.counted(source)
        except LimitExceeded:
            return "away"
        return "counted"

    async def second(gate: FailedLoginThrottle, number: int, source: str = "a") -> set[str]:
        return set(await asyncio.gather(*(fail(gate, source) for _ in range(number))))

    async def run() -> None:
        gate = FailedLoginThrottle(record)
        assert [await second(gate, 60) for _ in range(4)] == [{"own", "counted"}] * 2 + [{"own", "away"}] * 2
        assert await second(gate, 20) == {"own", "counted"}, "not a flood any more"
        assert await second(gate, 60) == {"own", "counted"}
        assert sum(counted) == 5 * 50 + 10, "those who are sent away are on record too"
        for _ in range(4):
            await second(gate, 60)
        assert await second(gate, 60, "b") == {"own", "counted"}, "another address"
        await asyncio.sleep(0.1)
        assert await second(gate, 60) == {"own", "counted"}, "after a pause it begins anew"

    asyncio.run(run())


def test_only_so_many_wait_for_their_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_logins, "MAX_WAITING", 5)
    monkeypatch.setattr(failed_logins, "WINDOW", 0.05)
    counted: list[int] = []

    async def record(_: str | None, count: int) -> None:
        counted.append(count)

    async def run() -> None:
        gate = FailedLoginThrottle(record)
        refused = 0
        waiting = [asyncio.create_task(gate.counted("a")) for _ in range(30) if not gate.admit("a")]
        for one in asyncio.as_completed(waiting):
            try:
                await one
            except Overloaded:
                refused += 1
        assert (counted, refused) == ([5], 15)

    asyncio.run(run())


def test_floods_leave_the_loop_to_others(harness: Harness) -> None:
    """While hundreds wait to be refused, what a good caller waits for stays small, also when they are answered."""
    key = KeyRef(harness.key().id)

    async def run() -> float:
        flood = [asyncio.ensure_future(harness.perform(ListKeys(), None, source="10.0.0.9")) for _ in range(400)]
        waits: list[float] = []
        while not all(one.done() for one in flood):
            began = time.perf_counter()
            await harness.perform(Encrypt(key, plaintext=b"x"), source="10.0.0.9")
            waits.append(time.perf_counter() - began)
        results = await asyncio.gather(*flood, return_exceptions=True)
        assert all(isinstance(one, Unauthenticated) for one in results)
        return sorted(waits)[len(waits) * 9 // 10]

    assert harness.run(run()) < 0.25


def test_lanes_cover_what_they_say() -> None:
    assert AES.type in executors._QUICK_TYPES
    names = [one.name for one in Executors()._all()]
    assert len(names) == len(set(names))
