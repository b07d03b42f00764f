"""What a session has to be like, whatever the server, the database or the role were set to."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg

from keyvault_lite.ledger.storage.database import BUSY_SECONDS

LOCK_SECONDS: Final = BUSY_SECONDS
"""The longest that a lock on a table delays a check or a due operation."""
_TRANSACTION_TIMEOUT_SINCE: Final = 170000
_SETTINGS: Final = (
    # First, as any other may end the statement that sets the rest.
    "SET statement_timeout = 0",
    "SET exit_on_error = off",
    "SET idle_session_timeout = 0",
    "SET client_encoding = 'UTF8'",
    "SET row_security = off",  # a policy is an error, never a silent omission
    "SET standard_conforming_strings = on",
    "SET quote_all_identifiers = off",  # the catalogue's definitions are compared as text
    "SET default_transaction_deferrable = off",
    "SET jit = off",
    # A process that stands still, or whose host is gone, must not keep the writers' lock.
    "SET tcp_keepalives_idle = 5",
    "SET tcp_keepalives_interval = 2",
    "SET tcp_keepalives_count = 3",
)
WRITER: Final = (
    "SET default_transaction_isolation = 'read committed'",
    "SET default_transaction_read_only = off",
    "SET idle_in_transaction_session_timeout = '60s'",
)
READER: Final = ("SET default_transaction_read_only = on", "SET idle_in_transaction_session_timeout = 0")
NEEDED: Final[Mapping[str, frozenset[str]]] = {
    # Without these, what was acknowledged can be lost.
    "fsync": frozenset({"on"}),
    "full_page_writes": frozenset({"on"}),
    "synchronous_commit": frozenset({"on", "remote_apply"}),
    "server_encoding": frozenset({"UTF8"}),
    # With `replica`, triggers and foreign keys do nothing.
    "session_replication_role": frozenset({"origin"}),
}
FACTS: Final = ", ".join(f"current_setting('{name}')" for name in NEEDED)
"""What `missing` checks: columns of a statement."""


def prepare(raw: psycopg.Connection[Any], more: tuple[str, ...]) -> None:
    """Configure a session that was just opened. Raises psycopg.Error."""
    timeouts = [f"SET lock_timeout = {int(LOCK_SECONDS * 1000)}"]
    if raw.info.server_version >= _TRANSACTION_TIMEOUT_SINCE:
        timeouts.append("SET transaction_timeout = 0")
    raw.execute("; ".join((*_SETTINGS, *timeouts, *more)).encode())


def make_durable(raw: psycopg.Connection[Any]) -> None:
    """Have COMMIT wait for the disk, and for what else the server waits for: whatever is set there later."""
    (found,) = raw.execute(b"SELECT current_setting('synchronous_commit')").fetchone() or ("",)
    raw.execute(b"SET synchronous_commit = remote_apply" if found == "remote_apply" else b"SET synchronous_commit = on")


def missing(facts: Sequence[str]) -> str | None:
    """What keeps COMMIT from being durable, by the values of FACTS; None if nothing does."""
    said = dict(zip(NEEDED, facts, strict=False))
    for name, allowed in NEEDED.items():
        if said.get(name) not in allowed:
            return f"the database server has {name} = {said.get(name)}: a vault needs {' or '.join(sorted(allowed))}"
    return None
