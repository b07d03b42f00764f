"""The log and the state as this process knows them, and the one transaction that moves both.

Everything that writes runs under the lock between processes: on the loop up to COMMIT if that takes no waiting, else in
the committer's thread. Nothing in memory changes until COMMIT has succeeded, and nothing is signed before: what may be
rolled back must never carry a signature.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from keyvault_lite.audit.merkle import consistency_proof
from keyvault_lite.ledger.anchor.files import Anchor, AnchorBusy
from keyvault_lite.ledger.anchor.record import Mark
from keyvault_lite.ledger.commit.catch_up import new_entries, take_in
from keyvault_lite.ledger.commit.edit_detection import Alarm, entries, recheck
from keyvault_lite.ledger.commit.publisher import PUT_BACK, Announcer
from keyvault_lite.ledger.commit.transaction import Item, Pending
from keyvault_lite.ledger.log.kept_replies import find_reply
from keyvault_lite.ledger.log.tiles import tile_reader
from keyvault_lite.ledger.state.head import Head, check_unchanged, read_head
from keyvault_lite.ledger.state.outcome import Authority, Change, StoredReply
from keyvault_lite.ledger.state.root import StateTree
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.database import BUSY_SECONDS, Database
from keyvault_lite.ledger.storage.log_index import CLEAR, FILL, PART
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, KeyVaultError, OutcomeUnknown
from keyvault_lite.model.names import ServiceId

log = logging.getLogger("keyvault_lite.ledger")


class StoreFull(AuditUnavailable):
    """The disk is full; nothing was written."""


class StoreBusy(AuditUnavailable):
    """Another program holds a lock on the database; nothing was written."""


REFRESH_SECONDS: Final = 1.0
"""How long a look at what others wrote waits for another program's lock; whoever commits meanwhile waits behind it."""
MANY: Final = 2000
"""Entries of others that are not taken in on the loop."""


class Journal:
    """The log and the state, as the database has them and as this process knows them."""

    def __init__(self, database: Database, authority: Authority, state: State, anchor: Anchor | None) -> None:
        self._database = database
        self._authority = authority
        self.announcer = Announcer(authority, anchor)
        self._connection = database.writer(patient=False)
        self.state = state
        self.tree = StateTree()
        self.known = LogTip.before_any_entry(authority, self.tree.root())
        self._data_version = self._database.count_of_others(self._connection)
        """The database's count of what others have written, from before anything of it is read."""
        self._alarms: list[Alarm] = []
        """Found, and not yet on record."""
        self.suspect = False
        """Whether the next transaction has to compare all stored rows with memory."""
        self._overtaken = False
        """Whether others' entries have a later time than the clock, since the last transaction."""
        self.frozen = False
        """Whether rows are missing from memory, so that no new state can be computed."""
        self.proven_at = time.monotonic()
        """When the store last took a record, or was shown to be able to."""
        self._anchor_waits = anchor is not None and anchor.waits
        self.fills_at_once = database.is_local and (anchor is None or anchor.is_local)
        """Whether a transaction can be filled without waiting for anyone, once the lock is held."""

    @property
    def head(self) -> Head:
        """The newest head."""
        return self.known.head

    def load(self, known: LogTip, tree: StateTree, change: Change, mark: Mark | None) -> None:
        """Start from a head, tree and state that were verified together, and from the anchor they extend."""
        self.tree, self.known = tree, known
        self.announcer.load(mark)
        self.state.apply(change)
        self.state.sequence = known.head.state_seq

    def begin(self) -> None:
        """Before the first entry: have the anchor know the log that begins, in place of one that never had an entry.

        So the first COMMIT is no moment after which a vault stands there without its anchor, and does not start.
        """
        empty = self.known
        self.announcer.load(self.announcer.read())
        self._publish(empty)
        self.known = empty  # the first head is from before any checkpoint of entries

    def close(self) -> None:
        """Store the newest checkpoint, flush the anchor, close the connection."""
        try:
            if self.known.checkpoint != self.head.checkpoint:
                with self._database.lock():
                    self._begin()
                    try:
                        self._catch_up()
                        self._store_checkpoint()
                    finally:
                        self._abort()
        except (driver.Error, AuditUnavailable, IntegrityViolation, OutcomeUnknown):
            pass  # the checkpoint is in the anchor, and the next start signs one anyway
        finally:
            self._connection.close()
            self.announcer.close()

    def _store_checkpoint(self) -> None:
        pending = Pending(self.known, self.state, self.tree, self._authority, self.find_reply)
        pending.store(self._connection, self._database)
        self._connection.execute("COMMIT")

    def reopen(self) -> None:
        """Leave a connection behind that may hold a broken transaction."""
        with self._database.lock():
            self._database.check_there()
            self._database.check_same_file()
            try:
                self._connection.close()
            finally:
                self._connection = self._database.writer(patient=False)
                self._data_version = self._database.count_of_others(self._connection)
                self.suspect = True

    def try_hold(self) -> bool:
        """Take the lock for `fill_held`, if nobody has it."""
        return self._database.try_lock()

    def hold(self) -> None:
        """Take the lock for `fill_held`; waits for whoever has it. Raises AuditUnavailable."""
        self._database.acquire()

    def release(self) -> None:
        """Give back the lock that was not used."""
        self._database.unlock()

    def fill_held(self, items: Sequence[Item]) -> Pending | None:
        """With the lock held, begin a transaction and write all of it but COMMIT, for `write` to end.

        None if anything has to be waited for or is wrong. Then nothing has happened, and the lock is given back:
        `write` meets it again where it can be waited for and told.
        """
        try:
            return self._fill(lambda: items, at_once=True)
        except BaseException as error:
            self._database.unlock()
            if isinstance(error, Exception):
                return None
            raise

    def give_up(self) -> None:
        """Undo what `fill_held` has begun."""
        self._abort()
        self._database.unlock()

    def write(self, claim: Callable[[], Sequence[Item]], filled: Pending | None = None) -> Pending | None:
        """Commit the outcomes of all items, in order, in one transaction. `claim` is called for them once it is open.

        MUST be called without the file lock held, except with what `fill_held` has made of the same items: the
        lock is held then. On return every item has its place in the log and its final outcome; what is returned, if
        anything, is durable and still has to be settled, by `settle`, which takes no waiting.
        Raises AuditUnavailable if nothing was written, OutcomeUnknown if it may have been, IntegrityViolation if the
        database is not the one this process knows.
        """
        claimed: Sequence[Item] | None = None

        def items() -> Sequence[Item]:
            nonlocal claimed
            claimed = claim() if claimed is None else claimed
            return claimed

        try:
            if filled is not None:
                return self._end(filled)
            self._write(items)
        except StoreFull as error:
            # What is kept in reserve is for this: the record of a denial and a revocation still fit.
            if not self._database.release_reserve():
                raise AuditUnavailable(error.detail, shown=error.shown) from error
            self._write(items)
        return None

    def _write(self, items: Callable[[], Sequence[Item]]) -> None:
        with self._database.lock():
            filled = self._fill(items)
            self._commit()
            self._settle(filled)

    def _end(self, filled: Pending) -> Pending | None:
        try:
            self._commit()
            if not filled.has_change and not self._anchor_waits:
                return filled
            self._settle(filled)
        except BaseException:
            self._database.unlock()
            raise
        self._database.unlock()
        return None

    def settle(self, filled: Pending, *, at_once: bool) -> bool:
        """What comes after COMMIT and before an answer. Raises IntegrityViolation or OutcomeUnknown.

        With `at_once`, False if somebody has to be waited for: it is to be called again then, where that is no harm.
        """
        try:
            self._settle(filled, at_once=at_once)
        except AnchorBusy:
            if at_once:
                return False
            self._database.unlock()
            raise
        except BaseException:
            self._database.unlock()
            raise
        self._database.unlock()
        return True

    def _fill(self, items: Callable[[], Sequence[Item]], *, at_once: bool = False) -> Pending:
        """Everything up to COMMIT. On an error the transaction is rolled back."""
        self._begin(patience=0.0 if at_once else BUSY_SECONDS)
        try:
            self._catch_up(at_once=at_once)
            pending = Pending(
                self.known, self.state, self.tree, self._authority, self.find_reply, overtaken=self._overtaken
            )
            for alarm in entries(self._alarms, self.state.moment):
                pending.add(alarm)
            space_is_low = self._database.space_is_low()
            for item in items():
                item.error = None
                if space_is_low and item.outcome.change is None and item.uses_keys:
                    # Management and denials always have their place.
                    item.error = AuditUnavailable("the disk is nearly full: keys can be managed, not used")
                else:
                    pending.add(item, at_once=at_once)
            pending.store(self._connection, self._database)
        except driver.IntegrityError as error:
            self._abort()
            raise IntegrityViolation("the log or state holds a row that nobody should have written") from error
        except driver.Error as error:
            self._abort()
            if driver.is_text_error(error):
                raise IntegrityViolation("the log or state holds a text that is none") from error
            kind = StoreFull if driver.is_full(error) else AuditUnavailable
            raise kind("the audit log cannot be written") from error
        except BaseException:
            self._abort()
            raise
        self._overtaken = False
        return pending

    def _commit(self) -> None:
        try:
            self._connection.execute("COMMIT")
        except driver.Error as error:
            self.tree.rollback()
            if driver.is_full(error) and self._nothing_was_written():
                raise StoreFull("the audit log cannot be written: the disk is full") from error
            raise OutcomeUnknown("the store failed while committing") from error

    def _settle(self, pending: Pending, *, at_once: bool = False) -> None:
        try:
            self._database.check_same_file()
            pending.apply()
            self._alarms.clear()
            self._publish(pending.after, at_once=at_once)
            self.proven_at = time.monotonic()
        except Exception as error:
            self.tree.rollback()  # of what was not applied
            if isinstance(error, KeyVaultError):
                raise
            # A defect or a fault, after COMMIT: the entries are there, and nobody can be told that they are proven.
            log.exception("what follows a commit failed")
            raise OutcomeUnknown("the log was written and its head could not be told") from error

    def _nothing_was_written(self) -> bool:
        """Whether the database still has the head from before, after a write into a full disk has failed.

        Unlike a failed flush, a failed write leaves no whole commit record behind: SQLite has rolled back for good.
        """
        try:
            self._abort()
            row = self._connection.execute(statements.READ_HEAD).fetchone()
        except (driver.Error, AuditUnavailable):
            return False
        return (row[-1] if row else b"") == self.known.mac

    def refresh(self) -> None:
        """Adopt what other processes have committed, and say so to the anchor."""
        with self._database.lock():
            self._begin(patience=REFRESH_SECONDS)
            try:
                self._catch_up()
            except driver.Error as error:
                raise AuditUnavailable("the database cannot be read") from error
            finally:
                self._abort()
            if self.head.size:
                self._publish(self.known)

    def prove(self, *, flush: bool) -> None:
        """Show that an entry could be committed now, without committing one; with `flush`, that the disk takes it too.

        Raises StoreBusy, AuditUnavailable or OutcomeUnknown if it could not, IntegrityViolation for another file.
        """
        with self._database.lock():
            self._begin(patience=REFRESH_SECONDS)
            try:
                # The whole of what a commit asks first: PostgreSQL counts its own transactions by it.
                self._connection.execute(statements.CATCH_UP).fetchone()
                self._database.check_writable(self._connection, flush=flush)
            except driver.Error as error:
                raise AuditUnavailable("the database cannot be read") from error
            finally:
                self._abort()
            self._database.check_same_file()
        self.announcer.prove()
        self.proven_at = time.monotonic()

    def prove_by_writing(self) -> None:
        """As `prove`, by a transaction that changes nothing. A full disk is none if space is kept in reserve for it."""
        try:
            self._write_apart(*statements.PROBE)
        except StoreFull:
            if not self._database.has_reserve():
                raise
        self.proven_at = time.monotonic()

    def probe(self) -> None:
        """Try whether the store takes writes again, with the reserve if need be. Raises AuditUnavailable if not."""
        try:
            self._write_apart(*statements.PROBE)
        except StoreFull:
            if not self._database.release_reserve():
                raise
            self._write_apart(*statements.PROBE)
        self.proven_at = time.monotonic()

    def forget_replies(self, now: int) -> None:
        """Delete the kept replies that have expired."""
        self._write_apart(statements.FORGET_REPLIES, values=(now,))

    def renew_index(self, first: int) -> None:
        """Make the index of the log from `first` on anew, a part at a time: nobody waits long for the lock."""
        self._write_apart(CLEAR)
        for low in range(first, self.head.size + 1, PART):
            self._write_apart(FILL, values=(low, low + PART - 1) * 2)

    def _write_apart(self, *steps: str, values: tuple[int, ...] = ()) -> None:
        with self._database.lock():
            self._begin()
            try:
                # As a commit begins: PostgreSQL knows this connection's own transactions from those of others by it.
                self._connection.execute(statements.CATCH_UP).fetchone()
                for sql in steps:
                    self._connection.execute(sql, values)
                self._connection.execute("COMMIT")
            except driver.Error as error:
                self._abort()
                kind = StoreFull if driver.is_full(error) else AuditUnavailable
                raise kind("the database cannot be written") from error
            except AuditUnavailable:
                self._abort()
                raise

    def _begin(self, *, patience: float = BUSY_SECONDS) -> None:
        self._database.check_there()
        try:
            if self._connection.in_transaction or not self._database.is_alive(self._connection):
                # A rollback has failed, or the server was restarted while nothing was under way.
                self._connection.close()
                self._connection = self._database.writer(patient=False)
                self._data_version = self._database.count_of_others(self._connection)
                self.suspect = True
            self._database.begin(self._connection, patience=patience)
        except driver.Error as error:
            kind = StoreBusy if driver.is_busy(error) else AuditUnavailable
            raise kind("the database is locked, read-only or gone") from error

    def _abort(self) -> None:
        self.tree.rollback()
        if self._connection.in_transaction:
            with suppress(driver.Error):  # a connection that is stuck is replaced before it is used again
                self._connection.execute("ROLLBACK")

    # Reading what others wrote

    def _catch_up(self, *, at_once: bool = False) -> None:
        """Make memory what the database is, if that extends memory and the anchor; else raise IntegrityViolation.

        With `at_once`, long work is not begun but left to the next call, by raising AuditUnavailable.
        """
        # The anchor is read first: whatever it says was in the log by then, so it is in what is read now.
        mark = self.announcer.read(at_once=at_once)
        old = self.head
        hashes: list[bytes] = []
        row = self._connection.execute(statements.CATCH_UP).fetchone()
        if row is None:
            if self.known.mac or mark != self.announcer.anchored:
                raise IntegrityViolation(PUT_BACK)
            return
        *head_row, last_id, last_hash = row
        count_of_others = self._database.count_of_others(self._connection)
        wrote, self._data_version = count_of_others != self._data_version, count_of_others
        if head_row[-1] == self.known.mac:
            check_unchanged(head_row, old)
            self._check_last(last_id, last_hash, old)
            # Whoever has written since, and not to the log, has edited.
            self.suspect = self.suspect or wrote
            if at_once and self.suspect:
                raise AuditUnavailable("all stored rows have to be compared first")
        else:
            head = read_head(tuple(head_row), self._authority)
            self._check_last(last_id, last_hash, head)
            if head.size < old.size or head.epoch < old.epoch:
                raise IntegrityViolation(
                    "the log is shorter than the one this process knows: the database was put back"
                )
            if at_once and (self.suspect or head.size - old.size > MANY):
                raise AuditUnavailable("much has to be read first")
            hashes = self._adopt(head, head_row[-1], at_once=at_once)
        self.announcer.check(mark, old, hashes)
        if self.suspect and not self.frozen:
            schema = self._database.check_schema(self._connection)
            self._alarms += recheck(self._connection, self._authority, self.state, self.tree, schema)
        self.suspect = False

    @staticmethod
    def _check_last(last_id: int | None, last_hash: bytes | None, head: Head) -> None:
        if (last_id or 0) != head.size or (head.size and last_hash != head.hash):
            raise IntegrityViolation("the log is not the one its head names")

    def _adopt(self, head: Head, mac: bytes, *, at_once: bool) -> list[bytes]:
        """Take in a head that another process has written. Returns the hashes of the entries that are new here."""
        known = self.known
        tiles, hashes, alarmed = new_entries(self._connection, self._authority, known, head)
        # What one process has found to be edited, all are to find: see `alarm.recheck`.
        self.suspect = self.suspect or alarmed
        if at_once and alarmed:
            raise AuditUnavailable("all stored rows have to be compared first")
        if head.state_seq != known.head.state_seq:
            take_in(self._connection, self._authority, self.state, self.tree, head, at_once=at_once)
        self.known = LogTip(head, mac, tiles, known.checkpoint)
        self._overtaken = self._overtaken or head.timestamp > time.time_ns() // 1000
        return hashes

    # Telling the world

    def _publish(self, known: LogTip, *, at_once: bool = False) -> None:
        """After COMMIT: put the head in the anchor, signed, before anybody is answered."""
        self.known = known
        self.known = self.announcer.publish(known, self._prove, at_once=at_once)

    def mark(self) -> Mark:
        """The newest signed head as an anchor keeps it."""
        return self.announcer.mark(self.known)

    def _prove(self, old: int) -> list[bytes]:
        """The consistency proof from an older size to the newest, for an anchor that judges."""
        try:
            return consistency_proof(tile_reader(self._connection, self.known).node, old, self.head.size)
        except (driver.Error, AuditUnavailable) as error:
            # After COMMIT: nobody may be told that nothing was done.
            raise OutcomeUnknown("the tree of the log cannot be read") from error

    def find_reply(self, service_id: ServiceId, key_digest: bytes) -> StoredReply | None:
        """The kept reply in the transaction under way."""
        return find_reply(self._connection, self._authority, service_id, key_digest)
