"""Memory for bodies and for what is made of them: how much all requests may hold, and each caller a part of it.

A place is taken before a body is read and given back when its request is answered. A request that finds none waits, and
what it sends stays with the network meanwhile. While somebody waits, a body that comes too slowly loses its place.
"""

import asyncio
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final

MIB: Final = 1024 * 1024
FACTOR: Final = 5
"""Bytes that a request holds for each byte of its body: text, decoded, result, and the answer in two forms."""
STRUCTURE: Final = 16 * MIB
"""Bytes that the values of a large body may take beside: names, numbers, lists."""
LARGE: Final = 64 * 1024
"""Bytes of a body that may have so many values."""
HUGE: Final = MIB
"""Bytes of a body beyond which it shares no memory with smaller ones."""
SHARES: Final = (8 * MIB, 42 * MIB, 176 * MIB)
"""Of one caller: for bodies up to LARGE, up to HUGE, and beyond; all strangers together are one caller.

BodyPool for two of the largest bodies that have HUGE bytes, and for one of the largest of all.
"""
TOTALS: Final = (32 * MIB, 105 * MIB, 352 * MIB)
"""Of all callers."""
PATIENCE: Final = 2.0
"""Seconds that every body may take to arrive while others wait, ..."""
RATE: Final = 8 * MIB
"""... and one more for so many bytes."""


def cost(body: int) -> int:
    """The memory that a body of so many bytes takes until its request is answered."""
    return FACTOR * body + (STRUCTURE if body > LARGE else 0)


class Reservation:
    """Memory that a request holds."""

    __slots__ = ("_room", "due", "leave", "leaving", "owner", "size")

    def __init__(self, room: "BodyPool", owner: Hashable, size: int, due: float) -> None:
        self._room, self.owner, self.size, self.due = room, owner, size, due
        self.leave: Callable[[], None] | None = None
        """Gives up a body that is on its way; None if none is."""
        self.leaving = False
        """Whether it has to leave, and has not given its memory back yet."""

    @contextmanager
    def arriving(self, leave: Callable[[], None]) -> Iterator[None]:
        """While the body is on its way, and can be given up by `leave`."""
        self.leave = leave
        self._room.look()
        try:
            yield
        finally:
            self.leave = None

    def give_back(self) -> None:
        """The request has been answered."""
        self._room.give_back(self)


class _Waiting:
    __slots__ = ("body", "future", "owner", "size")

    def __init__(self, owner: Hashable, size: int, body: int) -> None:
        self.owner, self.size, self.body = owner, size, body
        self.future: asyncio.Future[Reservation] = asyncio.get_running_loop().create_future()


class BodyPool:
    """All places for bodies of about a size. Belongs to one event loop at a time."""

    def __init__(self, total: int, share: int) -> None:
        self._total, self._share = total, share
        self._held: dict[Hashable, int] = {}
        self._places: dict[Reservation, None] = {}
        self._waiting: list[_Waiting] = []
        self._turns: dict[Hashable, int] = {}
        """When each of the owners that hold or wait was given a place: the number of the last one."""
        self._given = 0
        self._timer: asyncio.TimerHandle | None = None
        self.held = 0
        """Bytes that all hold together."""

    async def take(self, owner: Hashable, body: int) -> Reservation:
        """Wait for a place for a body of so many bytes.

        Those of one owner are given in order, those of several owners to the one that was given one longest ago.
        """
        size = min(cost(body), self._share)
        if self._fits(owner, size) and not any(one.owner == owner for one in self._waiting):
            return self._give(owner, size, body)
        mine = _Waiting(owner, size, body)
        self._waiting.append(mine)
        self.look()
        try:
            return await mine.future
        except asyncio.CancelledError:
            if mine in self._waiting:
                self._waiting.remove(mine)
                self._forget(owner)
            else:
                self.give_back(mine.future.result())
            raise

    def give_back(self, place: Reservation) -> None:
        """Free memory, and give it to the requests that wait."""
        del self._places[place]
        self.held -= place.size
        self._held[place.owner] -= place.size
        if not self._held[place.owner]:
            del self._held[place.owner]
        self._forget(place.owner)
        while (one := self._next()) is not None:
            self._waiting.remove(one)
            one.future.set_result(self._give(one.owner, one.size, one.body))
        self.look()

    def _next(self) -> _Waiting | None:
        """The request that is given a place now."""
        first: dict[Hashable, _Waiting] = {}
        for one in self._waiting:
            first.setdefault(one.owner, one)
        fitting = [one for one in first.values() if self._fits(one.owner, one.size)]
        return min(fitting, key=lambda one: self._turns.get(one.owner, 0), default=None)

    def _fits(self, owner: Hashable, size: int) -> bool:
        return self.held + size <= self._total and self._has_share(owner, size)

    def _has_share(self, owner: Hashable, size: int) -> bool:
        return self._held.get(owner, 0) + size <= self._share

    def _give(self, owner: Hashable, size: int, body: int) -> Reservation:
        self._given += 1
        self._turns[owner] = self._given
        self.held += size
        self._held[owner] = self._held.get(owner, 0) + size
        place = Reservation(self, owner, size, asyncio.get_running_loop().time() + PATIENCE + body / RATE)
        self._places[place] = None
        return place

    def _forget(self, owner: Hashable) -> None:
        if owner not in self._held and not any(one.owner == owner for one in self._waiting):
            self._turns.pop(owner, None)

    def look(self) -> None:
        """Have a late body leave for a request that waits and whose owner holds less. Look again when one more is late.

        A request that waits for its own share alone makes no other leave.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        holding = [self._held.get(one.owner, 0) for one in self._waiting if self._has_share(one.owner, one.size)]
        if not holding or any(one.leaving for one in self._places):
            return  # what leaves gives its memory back, and the requests that still wait look again
        loop = asyncio.get_running_loop()
        now = loop.time()
        arriving = [one for one in self._places if one.leave is not None and self._held[one.owner] > min(holding)]
        late = [one for one in arriving if one.due <= now]
        if late:
            least = max(late, key=lambda one: (self._held[one.owner], -one.due))
            least.leaving = True
            if least.leave is not None:
                least.leave()
        elif arriving:
            self._timer = loop.call_at(min(one.due for one in arriving), self.look)


class BodyPools:
    """The memory of a process: bodies of three sizes, so that small ones do not wait for large ones."""

    def __init__(self) -> None:
        self._rooms = tuple(BodyPool(total, share) for total, share in zip(TOTALS, SHARES, strict=True))

    @property
    def held(self) -> int:
        """Bytes that all hold together."""
        return sum(one.held for one in self._rooms)

    async def take(self, owner: Hashable, body: int) -> Reservation:
        """As of the room for bodies of that size."""
        return await self._rooms[(body > LARGE) + (body > HUGE)].take(owner, body)
