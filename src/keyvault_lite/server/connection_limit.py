"""Which connections are closed when one more comes than there is room for.

Those go first that cost their client least, and of those the ones of the caller with the most connections: a caller
that takes all there are makes room for the others. A request that is being done is never given up.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final, Protocol, TypeVar

from keyvault_lite.model.intake import RequestConnection

SHARES: Final = 16
"""A caller with more than one part in so many of all connections makes room before others do."""
AT_ONCE: Final = 16
"""Connections of such a caller that are closed together, so that connecting in a loop costs few scans."""


class Connection(Protocol):
    """What is asked of a connection."""

    conn: RequestConnection
    deadline: float
    idle_since: float

    def is_silent(self, now: float) -> bool:
        """Whether it never asked anything, and is not new."""
        ...

    def is_seated(self) -> bool:
        """Whether it has asked something, and counts for its owner."""
        ...

    def is_waiting(self) -> bool:
        """Whether its request waits for its client or its turn, so that nothing of it has been done."""
        ...

    def give_way(self) -> None:
        """Close it."""
        ...


C = TypeVar("C", bound=Connection)


def leaving(connections: Iterable[C], limit: int, now: float) -> list[C]:
    """The connections to close, so that one more can be taken in; empty if all are at work."""
    everyone = list(connections)
    silent = [one for one in everyone if one.is_silent(now)]
    if silent:
        return [min(silent, key=lambda one: one.deadline)]
    seated = [one for one in everyone if one.is_seated()]
    largest = Counter(one.conn.owner for one in seated).most_common(1)
    if largest and largest[0][1] > limit // SHARES:
        owner, held = largest[0]
        most = [one for one in seated if one.conn.owner == owner]
        if (idle := _longest_idle(most)) or (waiting := [one for one in most if one.is_waiting()]):
            spare = min(AT_ONCE, held - limit // SHARES)
            return idle or sorted(waiting, key=lambda one: one.deadline)[:spare]
    return _longest_idle(everyone)


def _longest_idle(connections: Iterable[C]) -> list[C]:
    idle = [one for one in connections if one.idle_since != math.inf]
    return [min(idle, key=lambda one: one.idle_since)] if idle else []
