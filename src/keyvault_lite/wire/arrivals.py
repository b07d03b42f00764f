"""Memory for bodies and for what is made of them: how much all requests may hold, and each caller a part of it.

A place is taken before a body is read and given back when its request is answered. Who finds none waits, and what it
sends stays with the network meanwhile.
"""

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Final

MIB: Final = 1024 * 1024
FACTOR: Final = 5
"""Bytes that a request holds for each byte of its body: text, decoded, result, and the answer in two forms."""
STRUCTURE: Final = 16 * MIB
"""Bytes that the values of a large body may take beside: names, numbers, lists."""
LARGE: Final = 64 * 1024
"""Bytes of a body that may have so many values."""
SHARE: Final = 176 * MIB
"""Of one caller; room for one of the largest bodies there are. All strangers together are one caller."""
TOTAL: Final = 2 * SHARE + 16 * MIB
"""Two of the largest leave room for small ones."""


class Place:
    """Memory that a request holds."""

    __slots__ = ("_owner", "_room", "_size")

    def __init__(self, room: "Room", owner: Hashable, size: int) -> None:
        self._room, self._owner, self._size = room, owner, size

    def give_back(self) -> None:
        """The request has been answered."""
        self._room.give_back(self._owner, self._size)


class Room:
    """All places of a process. Belongs to one event loop at a time."""

    def __init__(self, total: int = TOTAL, share: int = SHARE) -> None:
        self._total, self._share = total, share
        self._held: dict[Hashable, int] = {}
        self._waiting: deque[tuple[Hashable, int, asyncio.Future[None]]] = deque()
        self.held = 0
        """Bytes that all hold together."""

    async def take(self, owner: Hashable, body: int) -> Place:
        """Wait for a place for a body of so many bytes; those of one owner are given in order."""
        size = min(FACTOR * body + (STRUCTURE if body > LARGE else 0), self._share)
        if self._fits(owner, size) and not any(one[0] == owner for one in self._waiting):
            self._give(owner, size)
            return Place(self, owner, size)
        mine = (owner, size, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        try:
            await mine[2]
        except asyncio.CancelledError:
            if mine in self._waiting:
                self._waiting.remove(mine)
            else:
                self.give_back(owner, size)
            raise
        return Place(self, owner, size)

    def give_back(self, owner: Hashable, size: int) -> None:
        """Let go of memory, and give it to those who wait."""
        self.held -= size
        self._held[owner] -= size
        if not self._held[owner]:
            del self._held[owner]
        passed: set[Hashable] = set()
        """Owners whose first in line does not fit."""
        for one in tuple(self._waiting):
            waiting, wanted, future = one
            if waiting in passed:
                continue
            if not self._fits(waiting, wanted):
                passed.add(waiting)
                continue
            self._waiting.remove(one)
            self._give(waiting, wanted)
            future.set_result(None)

    def _fits(self, owner: Hashable, size: int) -> bool:
        return self.held + size <= self._total and self._held.get(owner, 0) + size <= self._share

    def _give(self, owner: Hashable, size: int) -> None:
        self.held += size
        self._held[owner] = self._held.get(owner, 0) + size
