"""The ledger: a verified snapshot to decide on, and one way to change it or to be allowed to answer.

MUST: nothing is released before `commit` returns. MUST NOT: no other part of the product writes to the database.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from keyvault_lite.ledger import driver, statements
from keyvault_lite.ledger.committer import Committer
from keyvault_lite.ledger.journal import Journal, find_reply
from keyvault_lite.ledger.outcome import Authority, Committed, Outcome, StoredReply
from keyvault_lite.ledger.reader import Filter, read_entry, read_page
from keyvault_lite.ledger.records import read_slot
from keyvault_lite.ledger.sqlite import SqliteDatabase
from keyvault_lite.ledger.state import State
from keyvault_lite.ledger.upgrade import REVISION, revision_of, upgrade
from keyvault_lite.ledger.verify import SharedVerification, read_verified, verify_log
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, InvalidRequest, KeyVaultError
from keyvault_lite.model.evidence import Entry
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.names import ServiceId
from keyvault_lite.model.replies import Finding, Page, Verification


class DamagedVault(IntegrityViolation):
    """What start-up found; the server does not start on it."""

    def __init__(self, findings: list[Finding]) -> None:
        first = "; ".join(f"{one.table} {one.row}: {one.problem}" for one in findings[:5])
        more = f" (and {len(findings) - 5} more)" if len(findings) > 5 else ""  # noqa: PLR2004
        super().__init__(f"the database does not verify: {first}{more}")
        self.findings = tuple(findings)


def open_database(url: str) -> SqliteDatabase:
    """The database that KEYVAULT_DATABASE_URL names. Raises InvalidRequest for one this version cannot open."""
    parts = urlsplit(url)
    if parts.scheme != "sqlite" or parts.netloc or not parts.path.strip("/"):
        raise InvalidRequest("the database URL is sqlite:///relative/path or sqlite:////absolute/path")
    return SqliteDatabase(Path(unquote(parts.path.removeprefix("/"))).absolute())


def prepare(database: SqliteDatabase) -> tuple[Slot, ...]:
    """Bring the schema up to date, if there is anything to bring, and return the keyring's slots: none in an empty vault.

    Slots are not verified yet: they are needed to open the keyring that verifies, and their containers verify themselves.
    """
    try:
        with database.lock():
            connection = database.writer()
            try:
                if revision_of(connection) != REVISION:
                    upgrade(connection)
                return stored_slots(connection)
            finally:
                connection.close()
    except driver.Error as error:
        raise AuditUnavailable(
            f"the database cannot be opened: {database.path.name} is locked, read-only or damaged"
        ) from error


def stored_slots(connection: driver.Connection) -> tuple[Slot, ...]:
    """The slots that are not removed, unverified."""
    rows = connection.execute(statements.SELECT["keyring_slots"]).fetchall()
    slots = []
    for row in rows:
        with suppress(TypeError, ValueError):
            slots.append(read_slot(row[:-2]))
    return tuple(slot for slot in slots if slot.removed_at is None)


class Ledger:
    """Facts and evidence of one vault. Made by `open`."""

    def __init__(self, database: SqliteDatabase, authority: Authority) -> None:
        self._database = database
        self._authority = authority
        self._readers = threading.local()
        self._verification = SharedVerification()
        self._state = State(self._find_reply)
        self._journal = Journal(database, authority, self._state)
        self._committer = Committer(self._journal)

    @classmethod
    def open(cls, database: SqliteDatabase, authority: Authority) -> Self:
        """Verify what is stored and take it into memory. Raises DamagedVault with every finding."""
        try:
            ledger = cls(database, authority)
            with database.lock(), ledger._reading() as connection:
                opened = read_verified(connection, authority)
        except driver.Error as error:
            raise AuditUnavailable("the database cannot be read") from error
        if opened.findings:
            ledger.close()
            raise DamagedVault(opened.findings)
        if opened.head is not None:
            ledger._journal.load(opened.head, opened.mac, opened.tree, opened.rows.change)
        ledger._committer.start()
        return ledger

    def close(self) -> None:
        """Commit what is waiting and let go of the database."""
        self._committer.close()
        self._journal.close()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever recorded."""
        return self._journal.head.size == 0

    @property
    def fault(self) -> KeyVaultError | None:
        """Why nothing can be recorded at present; None when all is well."""
        return self._committer.fault

    def now(self) -> int:
        """The time in microseconds; never before the newest entry's, so that a clock set back revives nothing."""
        return max(time.time_ns() // 1000, self._journal.head.timestamp)

    def snapshot(self) -> State:
        """The verified state. Note its `sequence` before reading anything of it."""
        return self._state

    async def commit(self, outcome: Outcome, since: int, redo: Callable[[State], Outcome]) -> Committed:
        """Record an outcome that was computed on the state of `since`, and write its change, in one transaction.

        If a management entry came after `since`, earlier ones of the same transaction included, `redo` is called with the
        state after it and its outcome takes the place of the first. Returns once all of it is durable.
        Raises AuditUnavailable (nothing happened), OutcomeUnknown, IntegrityViolation.
        """
        return await self._committer.commit(outcome, since, redo)

    def refresh(self) -> None:
        """Adopt what other processes have committed. Blocks: call it off the event loop."""
        self._journal.refresh()

    def forget_replies(self) -> None:
        """Delete kept replies that have expired. Blocks."""
        self._journal.forget_replies(self.now())

    def entries(self, wanted: Filter) -> Page[Entry]:
        """A page of the log. Blocks for some hundred microseconds."""
        with self._reading() as connection:
            return read_page(connection, wanted)

    def entry(self, entry_id: int) -> Entry | None:
        """One entry of the log."""
        with self._reading() as connection:
            return read_entry(connection, entry_id)

    def verify(self) -> Verification:
        """Check the whole log and state as stored; who asks while a check runs gets its result. Blocks, as the log grows."""
        return self._verification.run(self._verify)

    def _verify(self) -> Verification:
        with self._reading() as connection:
            return verify_log(connection, self._authority)

    def _find_reply(self, service_id: ServiceId, key_digest: bytes) -> StoredReply | None:
        with self._reading() as connection:
            return find_reply(connection, self._authority, service_id, key_digest)

    @contextmanager
    def _reading(self) -> Iterator[driver.Connection]:
        connection = getattr(self._readers, "connection", None)
        try:
            if connection is None:
                connection = self._readers.connection = self._database.reader()
            yield connection
        except driver.Error as error:
            self._readers.connection = None
            raise AuditUnavailable("the database cannot be read") from error
