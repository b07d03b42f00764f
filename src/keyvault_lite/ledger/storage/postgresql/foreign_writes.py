"""How often others have written: PostgreSQL has no counter for it, but each snapshot tells which transactions are over.

What has ended between two snapshots of this connection, and was not begun by it, may have written anything in the whole
server. Nothing that changes a row can do without such a transaction. So while nothing else has ended, nothing was
changed, and that costs nothing. If something has, counts and the sums of `xmin` (which transaction made each row) of
all tables that carry authority, and of the catalogue, say whether it was here: a row that is changed or added comes
from a newer transaction, so no change leaves both as they were. That reads the tables, and so is done once a
second at most; what is put off is not forgotten.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.postgresql.qualified import SCHEMA
from keyvault_lite.ledger.storage.schema import IN_ROOT

SIGN: Final = "SELECT pg_current_snapshot()::text, pg_current_xact_id_if_assigned()::text"
LOOK_SECONDS: Final = 1.0
SHARE: Final = 20
"""A look that takes long is followed by a pause of so many times its length."""
_MANY: Final = 10_000
_OURS: Final = f"(SELECT oid FROM pg_catalog.pg_class WHERE relnamespace = {SCHEMA})"
_CATALOGUE: Final = (
    f"pg_catalog.pg_class WHERE relnamespace = {SCHEMA}",
    f"pg_catalog.pg_attribute WHERE attrelid IN {_OURS}",
    f"pg_catalog.pg_trigger WHERE tgrelid IN {_OURS}",
    f"pg_catalog.pg_rewrite WHERE ev_class IN {_OURS}",
    f"pg_catalog.pg_policy WHERE polrelid IN {_OURS}",
    f"pg_catalog.pg_index WHERE indrelid IN {_OURS}",
    f"pg_catalog.pg_constraint WHERE connamespace = {SCHEMA}",
    f"pg_catalog.pg_proc WHERE pronamespace = {SCHEMA}",
)
_PRINT: Final = "SELECT " + ", ".join(
    f"(SELECT count(*) || ':' || coalesce(sum(xmin::text::bigint), 0) FROM {source})"
    for source in (*IN_ROOT, *_CATALOGUE)
)
_FORM: Final = re.compile(r"\d+:(\d+):([\d,]*)")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Which transactions of the server are over: those below `end` that are not `running`."""

    end: int
    running: frozenset[int]

    @classmethod
    def read(cls, text: object) -> "Snapshot | None":
        """From PostgreSQL's `xmin:xmax:xip,…`; None for anything else."""
        found = _FORM.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            return None
        running = frozenset(int(one) for one in found[2].split(",") if one)
        return cls(int(found[1]), running)

    def ended_since(self, before: "Snapshot") -> set[int] | None:
        """The transactions that were not over in an earlier snapshot and are in this one; None if they are many."""
        if self.end - before.end > _MANY:
            return None
        fresh = set(range(before.end, self.end)) | {one for one in before.running if one < self.end}
        return fresh - self.running


class Snapshots:
    """Compares the snapshots of one connection."""

    def __init__(self) -> None:
        self.count = 0
        """How often others may have written, as far as was looked."""
        self._first = True
        self._seen: Snapshot | None = None
        self._own: set[int] = set()
        """The transactions of this connection that the newest snapshot may not have known to be over."""
        self._moved = False
        self._print: object = None
        self._next_look = 0.0

    def look(self, connection: driver.Connection, sign: Sequence[object]) -> None:
        """Bring the count up to date, by what SIGN gave in the transaction that has just begun."""
        if self._has_moved(*sign):
            self._moved = True
        if not self._moved or time.monotonic() < self._next_look:
            return
        began = time.monotonic()
        before, self._print = self._print, connection.execute(_PRINT).fetchone()
        took = time.monotonic() - began
        self._next_look = time.monotonic() + max(LOOK_SECONDS, SHARE * took)
        self._moved = False
        self.count += before != self._print

    def _has_moved(self, text: object, own: object) -> bool:
        """Whether a transaction of somebody else has ended since the last call."""
        now = Snapshot.read(text)
        current = {int(own)} if isinstance(own, str) and own.isdecimal() else set()
        mine, self._own = self._own | current, current
        before, self._seen = self._seen, now
        first, self._first = self._first, False
        if now is None or before is None:
            return not first
        ended = now.ended_since(before)
        return ended is None or bool(ended - mine)
