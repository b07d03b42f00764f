"""Remainders of bodies that were answered before they had come: how fast all connections together may send them.

They are read only so that the client comes to read its answer. Beyond the rate they stay with the network for a while.
"""

from typing import Final

RATE: Final = 16 * 1024 * 1024
"""Bytes a second of all connections of a process."""
BURST: Final = 1.0
"""Seconds' worth that may come at once."""


class DiscardedBodies:
    """The bytes that are read and thrown away. Belongs to one event loop."""

    def __init__(self, rate: int = RATE) -> None:
        self._rate = rate
        self._due = 0.0
        """By when all that was read would have come at the rate."""

    def read(self, size: int, now: float) -> float:
        """Count bytes that were read; for how many seconds their connection is not read again."""
        self._due = max(self._due, now - BURST) + size / self._rate
        return max(0.0, self._due - now)
