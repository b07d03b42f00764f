"""Memory for bodies: a bound for all, a part for each caller, and nobody who waits is forgotten or kept out."""

import asyncio
from collections.abc import Sequence

import pytest

from keyvault_lite.wire import body_memory
from keyvault_lite.wire.body_memory import HUGE, LARGE, MIB, SHARES, TOTALS, BodyPool, BodyPools, Reservation, cost


async def settled(*tasks: asyncio.Task[Reservation]) -> list[bool]:
    for _ in range(3):
        await asyncio.sleep(0)
    return [one.done() for one in tasks]


def test_a_caller_has_a_part_and_all_have_a_bound() -> None:
    async def run() -> None:
        room = BodyPool(total=100, share=60)
        first = await room.take("a", 10)
        second = asyncio.create_task(room.take("a", 5))
        small = asyncio.create_task(room.take("a", 1))
        other = asyncio.create_task(room.take("b", 10))
        third = asyncio.create_task(room.take("c", 1))
        assert await settled(second, small, other, third) == [False, False, True, False]
        assert room.held == 100
        first.give_back()
        assert await settled(second, small, third) == [True, True, True]
        for one in (await second, await small, await other, await third):
            one.give_back()
        assert room.held == 0
        assert room._held == room._turns == room._places == {}

    asyncio.run(run())


def test_one_caller_is_served_in_order_and_delays_no_other() -> None:
    async def run() -> None:
        room = BodyPool(total=1000, share=60)
        held = await room.take("a", 6)
        large = asyncio.create_task(room.take("a", 12))
        small = asyncio.create_task(room.take("a", 1))
        assert await settled(large, small) == [False, False]
        (await room.take("b", 6)).give_back()
        assert await settled(large, small) == [False, False]
        held.give_back()
        assert await settled(large, small) == [True, False]
        (await large).give_back()
        assert await settled(small) == [True]

    asyncio.run(run())


def test_whoever_was_served_longest_ago_is_next() -> None:
    async def run() -> None:
        room = BodyPool(total=60, share=60)
        held = await room.take("a", 12)
        queue = [asyncio.create_task(room.take("a", 12)) for _ in range(5)]
        await settled(*queue)
        late = asyncio.create_task(room.take("b", 12))
        await settled(late)
        held.give_back()
        assert await settled(late, *queue) == [True] + [False] * 5
        (await late).give_back()
        assert await settled(*queue) == [True] + [False] * 4
        for one in queue:
            (await one).give_back()
        assert room._turns == {}

    asyncio.run(run())


def test_who_gives_up_waiting_leaves_no_trace() -> None:
    async def run() -> None:
        room = BodyPool(total=50, share=50)
        held = await room.take("a", 10)
        leaving = asyncio.create_task(room.take("b", 10))
        late = asyncio.create_task(room.take("c", 10))
        staying = asyncio.create_task(room.take("d", 10))
        await settled(leaving)
        leaving.cancel()
        await settled(leaving)
        held.give_back()
        late.cancel()  # it was given its place in this very turn
        with pytest.raises(asyncio.CancelledError):
            await late
        assert await settled(leaving, staying) == [True, True]
        (await staying).give_back()
        assert room.held == 0
        assert room._turns == {}

    asyncio.run(run())


class Body:
    """A body that does not come, in a place; it gives the place back when it is told to leave."""

    def __init__(self, place: Reservation) -> None:
        self.left = False
        self._place = place
        self._arriving = place.arriving(self._leave)
        self._arriving.__enter__()

    def _leave(self) -> None:
        self.left = True
        asyncio.get_running_loop().call_soon(self._place.give_back)

    def come(self) -> None:
        """It has come, and is being worked on."""
        self._arriving.__exit__(None, None, None)


async def bodies(room: BodyPool, *owners: str) -> Sequence[Body]:
    return [Body(await room.take(owner, 12)) for owner in owners]


def test_late_bodies_leave_for_those_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_memory, "PATIENCE", -1.0)  # every body is late at once

    async def run() -> None:
        room = BodyPool(total=180, share=120)
        first, second, other = await bodies(room, "a", "a", "b")
        assert not any(one.left for one in (first, second, other)), "nobody waits"
        own = asyncio.create_task(room.take("a", 12))
        assert await settled(own) == [False]
        assert not any(one.left for one in (first, second, other)), "its own share is full: no other is the cause"
        good = asyncio.create_task(room.take("c", 12))
        assert await settled(good) == [True]
        assert [one.left for one in (first, second, other)] == [True, False, False], "of whoever holds the most"

    asyncio.run(run())


def test_one_leaves_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_memory, "PATIENCE", -1.0)

    async def run() -> None:
        room = BodyPool(total=180, share=180)
        slow = await bodies(room, "a", "a", "a")
        waiting = [asyncio.create_task(room.take("b", 4)) for _ in range(3)]
        assert await settled(*waiting) == [True, True, True]
        assert [one.left for one in slow] == [True, False, False]

    asyncio.run(run())


def test_a_body_that_has_come_or_is_in_time_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        room = BodyPool(total=120, share=60)
        monkeypatch.setattr(body_memory, "PATIENCE", -1.0)
        (whole,) = await bodies(room, "a")
        whole.come()
        monkeypatch.setattr(body_memory, "PATIENCE", 1000.0)
        (quick,) = await bodies(room, "b")
        waiting = asyncio.create_task(room.take("c", 12))
        assert await settled(waiting) == [False]
        assert not whole.left
        assert not quick.left
        waiting.cancel()
        await settled(waiting)

    asyncio.run(run())


def test_a_body_that_becomes_late_leaves_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_memory, "PATIENCE", 0.05)

    async def run() -> None:
        room = BodyPool(total=60, share=60)
        place = await room.take("a", 12)
        waiting = asyncio.create_task(room.take("b", 12))
        await settled(waiting)
        slow = Body(place)  # it begins to come after somebody waits already
        assert not slow.left
        await asyncio.wait_for(waiting, 20)
        assert slow.left

    asyncio.run(run())


def test_bodies_of_one_size_wait_for_none_of_another() -> None:
    async def run() -> None:
        rooms = BodyPools()
        for owner in "ab":
            await rooms.take(owner, 32 * MIB)
        for _ in range(2):
            for owner in "cde":
                await asyncio.wait_for(rooms.take(owner, LARGE), 20)
                await asyncio.wait_for(rooms.take(owner, LARGE + 1), 20)

    asyncio.run(run())


def test_the_largest_body_of_each_size_has_a_place_beside_others() -> None:
    assert cost(32 * MIB) <= SHARES[2] <= TOTALS[2] // 2
    assert cost(HUGE) <= SHARES[1] // 2
    assert cost(LARGE) <= SHARES[0] // 8
    assert all(total >= 2 * share for total, share in zip(TOTALS, SHARES, strict=True))
