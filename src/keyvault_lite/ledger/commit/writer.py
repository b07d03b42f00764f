"""The one transaction that moves log and state: its steps, each of which leaves the lock as its contract says.

    acquire, prepare, commit, publish

`prepare` begins the transaction and writes all of it; `commit` is COMMIT alone; `publish` signs the head, puts it in
the anchor and gives the lock back. Nothing in memory changes before COMMIT, and nothing is signed before: what may be
rolled back must never carry a signature. `try_acquire`, `try_prepare` and `try_publish` never block: they are for an
event loop.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from keyvault_lite.audit.merkle import consistency_proof
from keyvault_lite.ledger.anchor.counter import CounterUse
from keyvault_lite.ledger.anchor.interface import Anchor, AnchorBusy
from keyvault_lite.ledger.anchor.record import AnchorRecord
from keyvault_lite.ledger.commit.availability import StoreBusy, StoreFull
from keyvault_lite.ledger.commit.edit_detection import entries
from keyvault_lite.ledger.commit.publisher import CheckpointPublisher
from keyvault_lite.ledger.commit.replica import Replica
from keyvault_lite.ledger.commit.write_set import CommitRequest, WriteSet
from keyvault_lite.ledger.log.kept_replies import find_reply
from keyvault_lite.ledger.log.tiles import tile_reader
from keyvault_lite.ledger.state.head import Head
from keyvault_lite.ledger.state.outcome import Authority, Change, StoredReply
from keyvault_lite.ledger.state.root import StateTree
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.database import BUSY_SECONDS, Database
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, KeyVaultError, OutcomeUnknown
from keyvault_lite.model.names import ServiceId

REFRESH_SECONDS: Final = 1.0
"""How long a look at what others wrote waits for another program's lock; a commit of this process waits behind it."""
log = logging.getLogger("keyvault_lite.ledger")


class Writer:
    """Writes to the database, under the lock between processes; nothing else does while a vault runs."""

    def __init__(self, database: Database, authority: Authority, state: State, anchor: Anchor | None) -> None:
        self._database = database
        self._authority = authority
        self.publisher = CheckpointPublisher(authority, anchor)
        self.connection = database.writer(patient=False)
        others = database.count_of_others(self.connection)
        self.replica = Replica(database, authority, state, self.publisher, others)
        self.proven_at = time.monotonic()
        """When the store last took a record, or was shown to be able to."""
        self._anchor_waits = anchor is not None and anchor.waits
        self.is_local = database.is_local and (anchor is None or anchor.is_local)
        """Whether a transaction can be prepared without waiting for another host, once the lock is held."""

    @property
    def head(self) -> Head:
        """The newest head."""
        return self.replica.tip.head

    @property
    def tip(self) -> LogTip:
        """The log up to the newest head."""
        return self.replica.tip

    # The life of the vault

    def load(self, tip: LogTip, tree: StateTree, change: Change, mark: AnchorRecord | None) -> None:
        """Start from a tip, tree and state that were verified together, and from the anchor they extend."""
        self.publisher.load(mark)
        self.replica.load(tip, tree, change)

    def begin(self) -> None:
        """Before the first entry: have the anchor name the log that begins, in place of one that never had an entry.

        So there is no moment after the first COMMIT at which the vault lacks its anchor, and does not start.
        """
        empty = self.tip
        self.publisher.load(self.publisher.read())
        self._publish(empty)
        self.replica.tip = empty  # the first head is from before any checkpoint of entries

    def close(self) -> None:
        """Store the newest checkpoint, flush the anchor, close the connection."""
        try:
            if self.tip.checkpoint != self.head.checkpoint:
                with self._database.lock():
                    self._begin()
                    try:
                        self.replica.catch_up(self.connection)
                        self._store_checkpoint()
                    finally:
                        self._abort()
        except (driver.Error, AuditUnavailable, IntegrityViolation, OutcomeUnknown):
            pass  # the checkpoint is in the anchor, and the next start signs one anyway
        finally:
            self.connection.close()
            self.publisher.close()

    def _store_checkpoint(self) -> None:
        self._new_write_set().store(self.connection, self._database)
        self.connection.execute("COMMIT")

    # Steps of a transaction

    def try_acquire(self) -> bool:
        """Take the lock, if nobody has it or waits for it."""
        return self._database.try_lock()

    def acquire(self) -> None:
        """Take the lock; waits for the process that has it. Raises AuditUnavailable."""
        self._database.acquire()

    def release(self) -> None:
        """Give back a lock that was not used."""
        self._database.unlock()

    def try_prepare(self, requests: Sequence[CommitRequest]) -> WriteSet | None:
        """With the lock held: `prepare`, without blocking.

        None if anything has to be waited for or is wrong. Nothing has happened then, and the lock is given back:
        `prepare` meets the fault again, in a thread that can wait for it and report it.
        """
        try:
            return self._prepare(lambda: requests, blocking=False)
        except Exception:  # noqa: BLE001  # `prepare` meets it again, and reports it
            return None

    def prepare(self, claim: Callable[[], Sequence[CommitRequest]]) -> WriteSet:
        """With the lock held: begin a transaction, catch up, and write the outcomes of all requests, in order.

        `claim` gives the requests, once the transaction is open. Afterwards each has its place in the log and its final
        outcome. On an error the transaction is rolled back and the lock given back. Raises StoreBusy or
        AuditUnavailable if the database cannot be written, IntegrityViolation if it is not the one this process knows.
        """
        return self._prepare(claim, blocking=True)

    def give_up(self) -> None:
        """Undo what was prepared, and give back the lock."""
        self._abort()
        self._database.unlock()

    def commit(self, write_set: WriteSet) -> None:
        """COMMIT what was prepared; the lock stays held. On an error it is given back.

        Raises StoreFull if nothing was written, OutcomeUnknown if it may have been.
        """
        try:
            self._commit()
        except BaseException:
            self._database.unlock()
            raise

    def publishing_blocks(self, write_set: WriteSet) -> bool:
        """Whether `publish` waits for the disk or another host: a management entry is flushed in the anchor."""
        return write_set.has_change or self._anchor_waits

    def try_publish(self, write_set: WriteSet) -> bool:
        """As `publish`; false, with the lock still held, if another process uses the anchor at this moment."""
        try:
            self._publish_committed(write_set, blocking=False)
        except AnchorBusy:
            return False
        except BaseException:
            self._database.unlock()
            raise
        self._database.unlock()
        return True

    def publish(self, write_set: WriteSet) -> None:
        """After COMMIT and before an answer: apply to memory, sign, put in the anchor, and give back the lock.

        Raises IntegrityViolation or OutcomeUnknown: the entries are stored, and no caller may be told otherwise.
        """
        try:
            self._publish_committed(write_set, blocking=True)
        finally:
            self._database.unlock()

    def make_room(self, full: StoreFull) -> None:
        """Give the database the space that was kept in reserve. Raises AuditUnavailable if there is none."""
        if not self._database.release_reserve():
            raise AuditUnavailable(full.detail, shown=full.shown) from full

    # What the steps do

    def _prepare(self, claim: Callable[[], Sequence[CommitRequest]], *, blocking: bool) -> WriteSet:
        try:
            self._begin(patience=BUSY_SECONDS if blocking else 0.0)
            try:
                return self._fill(claim, blocking=blocking)
            except BaseException:
                self._abort()
                raise
        except BaseException:
            self._database.unlock()
            raise

    def _fill(self, claim: Callable[[], Sequence[CommitRequest]], *, blocking: bool) -> WriteSet:
        """Everything between BEGIN and COMMIT."""
        try:
            self.replica.catch_up(self.connection, blocking=blocking)
            write_set = self._new_write_set()
            for alarm in entries(self.replica.alarms, self.replica.state.snapshot_version):
                write_set.add(alarm)
            space_is_low = self._database.space_is_low()
            for request in claim():
                request.error = None
                if space_is_low and request.outcome.change is None and request.uses_keys:
                    # Management and denials always have their place.
                    request.error = AuditUnavailable("the disk is nearly full: keys can be managed, not used")
                else:
                    write_set.add(request, blocking=blocking)
            write_set.store(self.connection, self._database)
        except driver.IntegrityError as error:
            raise IntegrityViolation("the log or state holds a row that the vault has not written") from error
        except driver.Error as error:
            if driver.is_text_error(error):
                raise IntegrityViolation("the log or state holds a text that is not valid UTF-8") from error
            kind = StoreFull if driver.is_full(error) else AuditUnavailable
            raise kind("the audit log cannot be written") from error
        self.replica.overtaken = False
        return write_set

    def _new_write_set(self) -> WriteSet:
        replica = self.replica
        return WriteSet(
            replica.tip, replica.state, replica.tree, self._authority, self._find_reply, overtaken=replica.overtaken
        )

    def _find_reply(self, service_id: ServiceId, key_digest: bytes) -> StoredReply | None:
        """The kept reply in the open transaction."""
        return find_reply(self.connection, self._authority, service_id, key_digest)

    def _commit(self) -> None:
        try:
            self.connection.execute("COMMIT")
        except driver.Error as error:
            self.replica.tree.rollback()
            if driver.is_full(error) and self._nothing_was_written():
                raise StoreFull("the audit log cannot be written: the disk is full") from error
            raise OutcomeUnknown("the store failed while committing") from error

    def _nothing_was_written(self) -> bool:
        """Whether the database still has the head from before, after a write into a full disk has failed.

        Unlike a failed flush, a failed write leaves no whole commit record behind: SQLite has rolled back for good.
        """
        try:
            self._abort()
            row = self.connection.execute(statements.READ_HEAD).fetchone()
        except (driver.Error, AuditUnavailable):
            return False
        return (row[-1] if row else b"") == self.tip.mac

    def _publish_committed(self, write_set: WriteSet, *, blocking: bool) -> None:
        try:
            self._database.check_same_file()
            self.replica.apply(write_set)
            # A management entry that the anchor lacks came before: nothing may follow from it that is not counted.
            use = CounterUse.MANAGEMENT if self.publisher.lags(write_set.before.head) else write_set.counter_use
            self._publish(write_set.after, use=use, blocking=blocking)
            self.proven_at = time.monotonic()
        except Exception as error:
            self.replica.tree.rollback()  # of what was not applied
            if isinstance(error, KeyVaultError):
                raise
            # A defect or a fault after COMMIT: the entries are stored, and nothing proves them yet.
            log.exception("what follows a commit failed")
            raise OutcomeUnknown("the log was written and its head could not be published") from error

    def _publish(self, tip: LogTip, *, use: CounterUse = CounterUse.NONE, blocking: bool = True) -> None:
        """After COMMIT, and before an answer: put the head in the anchor, signed."""
        self.replica.tip = tip
        self.replica.tip = self.publisher.publish(tip, self._consistency, use=use, blocking=blocking)

    def _consistency(self, old: int) -> list[bytes]:
        """The consistency proof from an older size to the newest, for an anchor that verifies it."""
        try:
            return consistency_proof(tile_reader(self.connection, self.tip).node, old, self.head.size)
        except (driver.Error, AuditUnavailable) as error:
            # After COMMIT: no caller may be told that nothing was done.
            raise OutcomeUnknown("the tree of the log cannot be read") from error

    def mark(self, count: int | None = None) -> AnchorRecord:
        """The newest signed head as an anchor keeps it; with `count`, signed again with that value of a counter."""
        return self.publisher.mark(self.tip if count is None else self.publisher.sign(self.tip, count))

    # Transactions without entries

    def refresh(self) -> None:
        """Take in what other processes have committed, and publish it to the anchor."""
        with self._database.lock():
            with self._rolled_back():
                self.replica.catch_up(self.connection)
            if self.head.size:
                self._publish(self.tip)

    def prove(self, *, flush: bool) -> None:
        """Show that an entry could be committed now, without committing one; with `flush`, that the disk takes it too.

        Raises StoreBusy, AuditUnavailable or OutcomeUnknown if it could not, IntegrityViolation for another file.
        """
        with self._database.lock():
            with self._rolled_back():
                # The whole of what a commit asks first: PostgreSQL counts its own transactions by it.
                self.connection.execute(statements.CATCH_UP).fetchone()
                self._database.check_writable(self.connection, flush=flush)
            self._database.check_same_file()
        self.publisher.prove()
        self.proven_at = time.monotonic()

    def prove_by_writing(self) -> None:
        """As `prove`, by a transaction that changes nothing. A full disk is no fault while there is a reserve."""
        try:
            self.write_apart(*statements.PROBE)
        except StoreFull:
            if not self._database.has_reserve():
                raise
        self.proven_at = time.monotonic()

    def recover(self) -> None:
        """After a fault: a new connection, the catch-up, and a flushed write, with the reserve if need be."""
        self.reopen()
        self.refresh()
        try:
            self.write_apart(*statements.PROBE)
        except StoreFull:
            if not self._database.release_reserve():
                raise
            self.write_apart(*statements.PROBE)
        self.proven_at = time.monotonic()

    def write_apart(self, *steps: str, values: tuple[int, ...] = ()) -> None:
        """Commit statements that belong to no entry. Raises StoreFull, StoreBusy or AuditUnavailable."""
        with self._database.lock():
            self._begin()
            try:
                # As a commit begins: PostgreSQL knows this connection's own transactions from those of others by it.
                self.connection.execute(statements.CATCH_UP).fetchone()
                for sql in steps:
                    self.connection.execute(sql, values)
                self.connection.execute("COMMIT")
            except driver.Error as error:
                self._abort()
                kind = StoreFull if driver.is_full(error) else AuditUnavailable
                raise kind("the database cannot be written") from error
            except AuditUnavailable:
                self._abort()
                raise

    # The connection

    @contextmanager
    def _rolled_back(self) -> Iterator[None]:
        """With the lock held: a transaction that is rolled back, whatever is read in it."""
        self._begin(patience=REFRESH_SECONDS)
        try:
            yield
        except driver.Error as error:
            raise AuditUnavailable("the database cannot be read") from error
        finally:
            self._abort()

    def reopen(self) -> None:
        """Leave a connection behind that may hold a broken transaction."""
        with self._database.lock():
            self._database.check_there()
            self._database.check_same_file()
            try:
                self.connection.close()
            finally:
                self._connect()

    def _connect(self) -> None:
        self.connection = self._database.writer(patient=False)
        self.replica.reconnected(self._database.count_of_others(self.connection))

    def _begin(self, *, patience: float = BUSY_SECONDS) -> None:
        self._database.check_there()
        try:
            if self.connection.in_transaction or not self._database.is_alive(self.connection):
                # A rollback has failed, or the server was restarted while nothing was under way.
                self.connection.close()
                self._connect()
            self._database.begin(self.connection, patience=patience)
        except driver.Error as error:
            kind = StoreBusy if driver.is_busy(error) else AuditUnavailable
            raise kind("the database is locked, read-only or gone") from error

    def _abort(self) -> None:
        self.replica.tree.rollback()
        if self.connection.in_transaction:
            with suppress(driver.Error):  # a connection that is stuck is replaced before it is used again
                self.connection.execute("ROLLBACK")
