"""A session of reading, and what the log says of it: an entry when it begins, and one when it has ended.

The first is durable before anything is read. It names the reader, its first entry and its longest duration, so
that nothing is read beyond what it says, also if the process ends before the second can be written.
"""

from typing import Final

from keyvault_lite.model.evidence import Action
from keyvault_lite.model.names import ServiceId

MAX_SECONDS: Final = 3600
"""How long a session lasts at the most."""
IDLE_SECONDS: Final = 120.0
"""How long it stays open without a request."""


def opening(what: str) -> str:
    """What the entry of its beginning says."""
    return f"session: {what}, for at most {MAX_SECONDS} s"


class Session:
    """One session of reading. Times are those of the monotonic clock."""

    __slots__ = ("action", "active", "audit_id", "first", "last", "looks", "service_id", "source", "until", "used")

    def __init__(  # noqa: PLR0917  (facts of one entry)
        self, action: Action, service_id: ServiceId, source: str | None, audit_id: int, first: int, now: float
    ) -> None:
        self.action = action
        self.service_id = service_id
        self.source = source
        self.audit_id = audit_id
        """The entry of its beginning."""
        self.first = first
        """The first entry that may be read in it; 0 where it is not about entries."""
        self.last = 0
        """Up to which entry it was read."""
        self.looks = 0
        """How many requests were answered in it."""
        self.active = 0
        """How many are under way."""
        self.until = now + MAX_SECONDS
        self.used = now
        """When the last one was answered."""

    def is_over(self, now: float) -> bool:
        """Whether nothing is to be read in it any more."""
        return now >= self.until or (not self.active and now >= self.used + IDLE_SECONDS)

    def closing(self) -> str:
        """What the entry of its end says."""
        if not self.first:
            read = f"read {self.looks} times"
        else:
            read = f"entries {self.first} to {self.last} were read" if self.last >= self.first else "nothing was read"
        return f"end of the session of entry {self.audit_id}: {read}"
