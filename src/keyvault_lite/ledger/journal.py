"""The log and the state as this process knows them, and the one transaction that moves both.

Everything that writes runs under the lock between processes: on the loop up to COMMIT if that takes no waiting, else in
the committer's thread. Nothing in memory changes until
COMMIT has succeeded, and nothing is signed before: what may be rolled back must never carry a signature.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from keyvault_lite.audit import checkpoint
from keyvault_lite.audit.chain import genesis
from keyvault_lite.audit.merkle import InvalidProof, TileReader, Tiles, consistency_proof
from keyvault_lite.ledger import driver, statements
from keyvault_lite.ledger.alarm import Alarm, entries, recheck
from keyvault_lite.ledger.anchor import Anchor, AnchorBusy, Mark
from keyvault_lite.ledger.head import Head, read_head
from keyvault_lite.ledger.log_index import CLEAR, FILL, PART
from keyvault_lite.ledger.outcome import Authority, Change, StoredReply
from keyvault_lite.ledger.pending import Item, Known, Pending
from keyvault_lite.ledger.records import read_reply
from keyvault_lite.ledger.retention import hashes_between, holds_entry
from keyvault_lite.ledger.rows import read_rows, row_is_genuine
from keyvault_lite.ledger.schema import FORMATS
from keyvault_lite.ledger.state import State
from keyvault_lite.ledger.store import BUSY_SECONDS, Database
from keyvault_lite.ledger.tree import StateTree, row_key
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, KeyVaultError, OutcomeUnknown
from keyvault_lite.model.names import ServiceId, TokenId

log = logging.getLogger("keyvault_lite.ledger")


class StoreFull(AuditUnavailable):
    """The disk is full; nothing was written."""


REFRESH_SECONDS: Final = 1.0
"""How long a look at what others wrote waits for another program's lock; whoever commits meanwhile waits behind it."""
MANY: Final = 2000
"""Entries of others that are not taken in on the loop."""
PUT_BACK: Final = "the database was put back: its log does not extend the one that the anchor remembers"


class Journal:
    """The log and the state, as the database has them and as this process knows them."""

    def __init__(self, database: Database, authority: Authority, state: State, anchor: Anchor | None) -> None:
        self._database = database
        self._authority = authority
        self._anchor = anchor
        self._anchored: Mark | None = None
        """The mark of the anchor as last seen there."""
        self._connection = database.writer(patient=False)
        self.state = state
        self.tree = StateTree()
        start = genesis(authority.instance_id, authority.log_public_key)
        tiles = Tiles()
        head = Head(
            epoch=0,
            size=0,
            hash=start,
            timestamp=0,
            state_seq=0,
            state_root=self.tree.root(),
            edge=tiles.edge.to_bytes(),
            checkpoint="",
        )
        self.known = Known(head, b"", tiles, "")
        self._data_version = self._database.count_of_others(self._connection)
        """The database's count of what others have written, from before anything of it is read."""
        self._alarms: list[Alarm] = []
        """Found, and not yet on record."""
        self.suspect = False
        """Whether the next transaction has to compare all stored rows with memory."""
        self.frozen = False
        """Whether rows are missing from memory, so that no new state can be computed."""
        self.scrubbed = 0
        """How many entries a background check has read and proven; goes into the anchor."""
        self._anchor_waits = anchor is not None and anchor.waits
        self.fills_at_once = database.is_local and (anchor is None or anchor.is_local)
        """Whether a transaction can be filled without waiting for anyone, once the lock is held."""

    @property
    def head(self) -> Head:
        """The newest head."""
        return self.known.head

    def load(self, known: Known, tree: StateTree, change: Change, mark: Mark | None) -> None:
        """Start from a head, tree and state that were verified together, and from the anchor they extend."""
        self.tree, self.known, self._anchored = tree, known, mark
        self.scrubbed = 0 if mark is None else mark.scrubbed
        self.state.apply(change)
        self.state.sequence = known.head.state_seq

    def begin(self) -> None:
        """Before the first entry: have the anchor know the log that begins, in place of one that never had an entry.

        So the first COMMIT is no moment after which a vault stands there without its anchor, and does not start.
        """
        empty = self.known
        self._anchored = None if self._anchor is None else self._anchor.read()
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
            if self._anchor is not None:
                self._anchor.close()

    def _store_checkpoint(self) -> None:
        pending = Pending(self.known, self.state, self.tree, self._authority, self.find_reply)
        pending.store(self._connection, self._database)
        self._connection.execute("COMMIT")

    def reopen(self) -> None:
        """Leave a connection behind that may hold a broken transaction."""
        with self._database.lock():
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
                raise AuditUnavailable(error.detail) from error
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
            pending = Pending(self.known, self.state, self.tree, self._authority, self.find_reply)
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
            kind = StoreFull if driver.is_full(error) else AuditUnavailable
            raise kind("the audit log cannot be written") from error
        except BaseException:
            self._abort()
            raise
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
        except driver.Error:
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

    def probe(self) -> None:
        """Try whether the store takes writes again, with the reserve if need be. Raises AuditUnavailable if not."""
        try:
            self._write_apart(*statements.PROBE)
        except StoreFull:
            if not self._database.release_reserve():
                raise
            self._write_apart(*statements.PROBE)

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
                for sql in steps:
                    self._connection.execute(sql, values)
                self._connection.execute("COMMIT")
            except driver.Error as error:
                self._abort()
                kind = StoreFull if driver.is_full(error) else AuditUnavailable
                raise kind("the database cannot be written") from error

    def _begin(self, *, patience: float = BUSY_SECONDS) -> None:
        try:
            if self._connection.in_transaction or not self._database.is_alive(self._connection):
                # A rollback has failed, or the server was restarted while nothing was under way.
                self._connection.close()
                self._connection = self._database.writer(patient=False)
                self._data_version = self._database.count_of_others(self._connection)
                self.suspect = True
            self._database.begin(self._connection, patience=patience)
        except driver.Error as error:
            raise AuditUnavailable("the database is locked, read-only or gone") from error

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
        mark = None if self._anchor is None else self._anchor.read(at_once=at_once)
        old = self.head
        hashes: list[bytes] = []
        row = self._connection.execute(statements.CATCH_UP).fetchone()
        if row is None:
            if self.known.mac or mark != self._anchored:
                raise IntegrityViolation(PUT_BACK)
            return
        *head_row, last_id, last_hash = row
        count_of_others = self._database.count_of_others(self._connection)
        wrote, self._data_version = count_of_others != self._data_version, count_of_others
        if head_row[-1] == self.known.mac:
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
        if mark != self._anchored:
            self._check_extends(mark, old, hashes)
            self._anchored = mark
        if self.suspect and not self.frozen:
            schema = self._database.check_schema(self._connection)
            self._alarms += recheck(self._connection, self._authority, self.state, self.tree, schema)
        self.suspect = False

    @staticmethod
    def _check_last(last_id: int | None, last_hash: bytes | None, head: Head) -> None:
        if (last_id or 0) != head.size or (head.size and last_hash != head.hash):
            raise IntegrityViolation("the log is not the one its head names")

    @staticmethod
    def _check_extends(mark: Mark | None, old: Head, hashes: Sequence[bytes]) -> None:
        """The log must hold what the anchor remembers: at what this process knew, or within what it has just read."""
        if mark is None:
            raise IntegrityViolation("the anchor is gone")
        newer = mark.size - old.size
        held = old.hash if newer == 0 else hashes[newer - 1] if 0 < newer <= len(hashes) else None
        if held != mark.hash:
            raise IntegrityViolation(PUT_BACK)

    def _adopt(self, head: Head, mac: bytes, *, at_once: bool) -> list[bytes]:
        """Take in a head that another process has written. Returns the hashes of the entries that are new here.

        The head is authenticated, and the tree over the new hashes has to be its tree: so they are those of the entries
        that were written. What stands in their columns is the background check's, as it is for entries of our own.
        """
        old, tiles = self.head, self.known.tiles.copy()
        hashes = hashes_between(self._connection, self._authority, old.size, head.size)
        tiles.extend(hashes)
        if (tiles.edge.size, tiles.edge.to_bytes()) != (head.size, head.edge):
            raise IntegrityViolation("the log does not extend the one this process knows")
        if head.state_seq != old.state_seq:
            macs: dict[bytes, bytes] = {}
            news = read_rows(
                self._connection,
                self._authority,
                newer_than=old.state_seq,
                known=self.state.key_record,
                note=macs.__setitem__,
            )
            for key, row_mac in macs.items():
                self.tree.put(key, row_mac)
            gone: list[TokenId] = []
            for lost in self._deleted(head.timestamp, at_once=at_once) if self.tree.root() != head.state_root else ():
                self.tree.remove(row_key("tokens", (one,)) for one in lost)
                gone += lost
                if self.tree.root() == head.state_root:
                    break
            # The root decides: an old row put back, or a new one left out, is not the state the log commits to.
            if news.findings or self.tree.root() != head.state_root:
                self.tree.rollback()
                raise IntegrityViolation("the stored state is not the one the log commits to")
            self.tree.accept()
            self.state.apply(replace(news.change, gone_tokens=tuple(gone)))
        self.known = Known(head, mac, tiles, self.known.checkpoint)
        self.state.sequence = head.state_seq
        return hashes

    def _deleted(self, now: int, *, at_once: bool) -> tuple[list[TokenId], list[TokenId]]:
        """The leased tokens whose rows are there no more: those past their end, and the others.

        This process may have missed that an end was made an earlier one. Any other row that is missing stays missed.
        """
        if at_once:
            raise AuditUnavailable("all tokens have to be compared first")
        stored = {row[0] for row in self._connection.execute(statements.TOKEN_IDS)}
        ended = [one.id for one in self.state.leased_until(now) if one.id not in stored]
        stored.update(ended)
        return ended, [one.id for one in self.state.leased() if one.id not in stored]

    # Telling the world

    def _publish(self, known: Known, *, at_once: bool = False) -> None:
        """After COMMIT: put the head in the anchor, signed, before anybody is answered.

        It is signed once the anchor has nothing against it: of a log that was forked, one branch alone is.
        """
        self.known = known
        anchored = self._anchored
        if self._anchor is None:
            self._sign()
        elif anchored is None or anchored.hash != known.head.hash or self._sign() != anchored:
            self._anchored = self._anchor.write(self._sign, before=anchored, prove=self._prove, at_once=at_once)

    def _sign(self) -> Mark:
        """Sign the newest head; the mark that says so."""
        known, head = self.known, self.head
        origin, root = checkpoint.origin(self._authority.instance_id, head.epoch), known.tiles.edge.root()
        lines = checkpoint.fact_lines(head.state_seq, head.hash)
        body = checkpoint.checkpoint_body(origin, head.size, root, lines)
        note = checkpoint.sign_note(body, origin, self._authority.log_public_key, self._authority.sign_log)
        self.known = Known(head, known.mac, known.tiles, note)
        return self._mark(origin, root)

    def mark(self) -> Mark:
        """The newest signed head as an anchor keeps it."""
        origin = checkpoint.origin(self._authority.instance_id, self.head.epoch)
        return self._mark(origin, self.known.tiles.edge.root())

    def _mark(self, origin: str, root: bytes) -> Mark:
        head = self.head
        return Mark(
            epoch=head.epoch,
            size=head.size,
            state_seq=head.state_seq,
            hash=head.hash,
            root=root,
            checkpoint=self.known.checkpoint,
            verifier_key=checkpoint.verifier_key(origin, self._authority.log_public_key),
            scrubbed=self.scrubbed,
        )

    def _prove(self, old: int) -> list[bytes]:
        """The consistency proof from an older size to the newest, for an anchor that judges."""
        try:
            return consistency_proof(tile_reader(self._connection, self.known).node, old, self.head.size)
        except driver.Error as error:
            raise OutcomeUnknown("the tree of the log cannot be read") from error

    def find_reply(self, service_id: ServiceId, key_digest: bytes) -> StoredReply | None:
        """The kept reply in the transaction under way."""
        return find_reply(self._connection, self._authority, service_id, key_digest)


def find_reply(
    connection: driver.Connection, authority: Authority, service_id: ServiceId, key_digest: bytes
) -> StoredReply | None:
    """A kept reply, if its row is genuine and the log has the entry it names."""
    row = connection.execute(statements.FIND_REPLY, (service_id, key_digest)).fetchone()
    if row is None:
        return None
    if not row_is_genuine(authority, FORMATS["idempotency_replies"], row):
        raise IntegrityViolation("the kept reply does not verify")
    if not holds_entry(connection, authority, row[-2]):
        raise IntegrityViolation("the kept reply names an entry that the log does not have")
    return read_reply(row[:-2], row[-2])


def tile_reader(connection: driver.Connection, known: Known) -> TileReader:
    """The Merkle tree of a known log, from stored tiles, tiles in memory and leaves. Nothing read here is trusted."""
    size = known.tiles.edge.size

    def tile(level: int, index: int) -> bytes | None:
        filling = known.tiles.tile(level, index)
        if filling is not None:
            return filling
        row = connection.execute(statements.TILE, (level, index)).fetchone()
        if row is None:
            return None
        if not isinstance(row[0], bytes):
            raise InvalidProof("a stored tile is damaged")
        return row[0]

    def leaves(start: int, end: int) -> list[bytes]:
        return [row[0] for row in connection.execute(statements.LEAVES, (start, end))]

    return TileReader(size=size, tile=tile, leaves=leaves)
