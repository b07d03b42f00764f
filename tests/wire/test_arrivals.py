"""Memory for bodies: a bound for all, a part for each caller, and nobody who waits is forgotten."""

import asyncio

import pytest

from keyvault_lite.wire.arrivals import FACTOR, LARGE, MIB, SHARE, STRUCTURE, TOTAL, Place, Room


async def settled(*tasks: asyncio.Task[Place]) -> list[bool]:
    await asyncio.sleep(0)
    return [one.done() for one in tasks]


def test_a_caller_has_a_part_and_all_have_a_bound() -> None:
    async def run() -> None:
        room = Room(total=100, share=60)
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
        assert room._held == {}

    asyncio.run(run())


def test_one_caller_is_served_in_order_and_delays_no_other() -> None:
    async def run() -> None:
        room = Room(total=1000, share=60)
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


def test_who_gives_up_waiting_leaves_no_trace() -> None:
    async def run() -> None:
        room = Room(total=50, share=50)
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

    asyncio.run(run())


def test_the_largest_body_has_a_place_beside_another_and_small_ones() -> None:
    assert FACTOR * 32 * MIB + STRUCTURE <= SHARE
    assert 2 * SHARE + FACTOR * LARGE < TOTAL
