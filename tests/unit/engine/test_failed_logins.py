"""Failed logins by the thousand: each is on record, most of them as a count, and nobody else is slowed."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from keyvault_lite.engine import failed_logins
from keyvault_lite.engine.failed_logins import ALL_ENTRIES, OWN_ENTRIES, FailedLoginThrottle
from keyvault_lite.model.errors import AuditUnavailable, Overloaded, Unauthenticated
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.identity import BearerCredential
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import Answer
from keyvault_lite.model.requests import Encrypt, ListKeys, Origin
from tests.support.harness import Harness


def test_ten_a_second_have_entries_of_their_own_the_rest_share_one(harness: Harness) -> None:
    before = harness.size
    results = harness.together(*(harness.perform(ListKeys(), None, source="10.0.0.1") for _ in range(300)))
    assert {type(one).__name__ for one in results} == {"AuthenticationFailed"}
    assert all(isinstance(one, Unauthenticated) and one.audit_id is None for one in results)
    drafts = [entry.draft for entry in harness.log(before)]
    assert {(one.action, one.result, one.source, one.service_id) for one in drafts} == {
        (Action.AUTHENTICATE, Result.DENIED, "10.0.0.1", None)
    }
    assert sorted(one.count for one in drafts) == [1] * OWN_ENTRIES + [300 - OWN_ENTRIES]


def test_addresses_are_counted_apart(harness: Harness) -> None:
    before = harness.size
    harness.together(
        *(harness.perform(ListKeys(), None, source=f"10.0.0.{host}") for host in range(5) for _ in range(OWN_ENTRIES))
    )
    assert [entry.draft.count for entry in harness.log(before)] == [1] * 5 * OWN_ENTRIES


def test_a_network_of_ipv6_is_one_address_and_all_addresses_have_a_bound(harness: Harness) -> None:
    before = harness.size
    asked = [harness.perform(ListKeys(), None, source=f"2001:db8:1:2::{host:x}") for host in range(1, 101)]
    harness.together(*asked)
    drafts = [entry.draft for entry in harness.log(before)]
    assert sorted(one.count for one in drafts) == [1] * OWN_ENTRIES + [100 - OWN_ENTRIES]
    assert "2001:db8:1:2::/64" in {one.source for one in drafts}

    before = harness.size
    harness.together(*(harness.perform(ListKeys(), None, source=f"10.0.{host}.1") for host in range(ALL_ENTRIES + 40)))
    drafts = [entry.draft for entry in harness.log(before)]
    assert len(drafts) <= ALL_ENTRIES + 3, "one shared entry a second, and a second may end meanwhile"
    assert sum(one.count for one in drafts) == ALL_ENTRIES + 40


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        (None, None),
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no:address", "no:address"),
    ],
)
def test_what_an_address_is_counted_as(address: str | None, counted: str | None) -> None:
    assert failed_logins.network(address) == counted


def test_nothing_that_a_stranger_chose_is_kept(harness: Harness) -> None:
    before = harness.size
    origin = Origin(request_id=bytes(16), client_request_id="chosen")
    with pytest.raises(Unauthenticated):
        harness.run(harness.engine.perform(ListKeys(), BearerCredential("kvl_unknown"), origin))
    (entry,) = harness.log(before)
    assert entry.draft.client_request_id is None


def test_a_flood_slows_nobody_else(harness: Harness) -> None:
    name = KeyRef(harness.key().id)

    async def serve() -> tuple[list[Any], float]:
        began = time.monotonic()
        served = [await harness.perform(Encrypt(name, plaintext=b"x"), source="10.0.0.1") for _ in range(20)]
        return served, time.monotonic() - began

    async def everything() -> tuple[list[Any], float, float]:
        _, alone = await serve()
        flood = [asyncio.ensure_future(harness.perform(ListKeys(), None, source="10.0.0.1")) for _ in range(500)]
        await asyncio.sleep(0)
        served, beside = await serve()
        await asyncio.gather(*flood, return_exceptions=True)
        return served, alone, beside

    served, alone, beside = harness.run(everything())
    assert all(isinstance(one, Answer) for one in served)
    # Each of the twenty would else wait for the end of a second.
    assert beside < 10 * alone + 2


def test_the_next_second_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_logins, "WINDOW", 0.05)
    recorded: list[int] = []

    async def record(_: str | None, count: int) -> None:
        recorded.append(count)

    async def two_seconds() -> None:
        gate = FailedLoginThrottle(record)
        for _ in range(2):
            admitted = [gate.admit("a") for _ in range(OWN_ENTRIES + 3)]
            assert admitted == [True] * OWN_ENTRIES + [False] * 3
            await asyncio.gather(*(gate.counted("a") for _ in range(3)))
        assert gate.admit("b")
        await asyncio.sleep(0.06)
        assert [gate.admit("b") for _ in range(OWN_ENTRIES)] == [True] * OWN_ENTRIES

    asyncio.run(two_seconds())
    assert recorded == [3, 3]


def test_who_is_counted_waits_for_the_record_and_hears_of_its_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_logins, "WINDOW", 0.02)

    async def record(_: str | None, __: int) -> None:
        raise AuditUnavailable("full")

    async def flood() -> list[Any]:
        gate = FailedLoginThrottle(record)
        for _ in range(OWN_ENTRIES + 1):
            gate.admit(None)
        return await asyncio.gather(*(gate.counted(None) for _ in range(4)), return_exceptions=True)

    errors = asyncio.run(flood())
    assert [type(one) for one in errors] == [AuditUnavailable] * 4
    assert len(set(map(id, errors))) == 4, "an error is raised in one task only"


def test_a_flood_from_everywhere_does_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(failed_logins, "time", SimpleNamespace(monotonic=lambda: now))

    async def record(_: str | None, __: int) -> None:
        """Nothing."""

    async def everywhere() -> int:
        nonlocal now
        gate = FailedLoginThrottle(record)
        for address in range(60_000):
            now = address / 10_000
            gate.admit(str(address))
        return len(gate._windows)

    assert asyncio.run(everywhere()) <= 20_000, "two seconds of them at most"


def test_a_flood_that_does_not_end_is_told_to_go_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_logins, "WINDOW", 0.3)
    monkeypatch.setattr(failed_logins, "STRIKES", 2)
    monkeypatch.setattr(failed_logins, "PAUSE", 0)
    recorded: list[int] = []

    async def record(_: str | None, count: int) -> None:
        recorded.append(count)

    async def flood() -> list[set[str]]:
        gate = FailedLoginThrottle(record)
        told = []
        for size in (60, 60, 20, 60):
            counted = [gate.counted("a") for _ in range(size) if not gate.admit("a")]
            told.append({getattr(one, "code", "-") for one in await asyncio.gather(*counted, return_exceptions=True)})
        return told

    assert asyncio.run(flood()) == [{"-"}, {"limit_exceeded"}, {"-"}, {"-"}]
    assert recorded == [50, 50, 10, 50], "each of them is on record"


def test_no_more_wait_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_logins, "WINDOW", 0.02)
    monkeypatch.setattr(failed_logins, "MAX_WAITING", 3)
    recorded: list[int] = []

    async def record(_: str | None, count: int) -> None:
        recorded.append(count)

    async def flood() -> list[Any]:
        gate = FailedLoginThrottle(record)
        counted = [asyncio.create_task(gate.counted("a")) for _ in range(30) if not gate.admit("a")]
        await asyncio.sleep(0)
        counted[0].cancel()
        return await asyncio.gather(*counted, return_exceptions=True)

    results = asyncio.run(flood())
    assert [type(one) for one in results[:3]] == [asyncio.CancelledError, type(None), type(None)]
    assert {type(one) for one in results[3:]} == {Overloaded}
    assert recorded == [3], "who was turned away was not counted"


def test_who_leaves_before_being_answered_keeps_nobody_from_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_logins, "WINDOW", 0.02)
    monkeypatch.setattr(failed_logins, "SLICE", 2)

    async def record(_: str | None, __: int) -> None:
        """Nothing."""

    async def flood() -> list[Any]:
        gate = FailedLoginThrottle(record)
        asked = [asyncio.create_task(gate.counted("a")) for _ in range(OWN_ENTRIES + 9) if not gate.admit("a")]
        asked[0].add_done_callback(lambda _: asked[-2].cancel())
        return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)

    told = asyncio.run(flood())
    assert [type(one) for one in told] == [type(None)] * 7 + [asyncio.CancelledError, type(None)]
