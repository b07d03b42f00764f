"""How many refused submissions a second one address may send to a witness before it gets 429.

What is refused costs the verification of a signature, and anybody may send it. An IPv6 network of 64 bits counts as one
address. What is confirmed is not counted, so a vault may submit as often as it commits.
"""

import time
from collections import Counter
from typing import Final

from keyvault_lite.engine.failed_logins import network

REFUSALS: Final = 10
"""Refused submissions from one address, a second; the rest of the second is not read."""
WINDOW: Final = 1.0
"""Seconds."""
MAX_ADDRESSES: Final = 10_000
"""Addresses that are counted at once; further ones are counted together."""


class RefusalLimit:
    """Counts refusals by address. Belongs to one event loop."""

    def __init__(self) -> None:
        self._counts: Counter[str | None] = Counter()
        self._began = time.monotonic()

    def is_reached(self, source: str | None) -> bool:
        """Whether this address has to wait for the next second."""
        if time.monotonic() - self._began >= WINDOW:
            self._counts.clear()
            self._began = time.monotonic()
        return self._counts[self._key(source)] >= REFUSALS

    def count(self, source: str | None) -> None:
        """Note a refusal."""
        self._counts[self._key(source)] += 1

    def _key(self, source: str | None) -> str | None:
        key = network(source)
        return key if key in self._counts or len(self._counts) < MAX_ADDRESSES else None
