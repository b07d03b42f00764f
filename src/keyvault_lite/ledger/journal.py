"""One transaction: catch up with the log, judge each outcome on the state it meets, append entries and rows, move the head.

Everything here runs in the committer's thread, under the lock between processes. Nothing in memory changes until
COMMIT has succeeded: an aborted transaction leaves the head, the state and the tree as they were.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from keyvault_lite.audit.chain import BrokenChain, ChainCheck, Position, genesis
from keyvault_lite.audit.entry import encode_draft, entry_hash, entry_row
from keyvault_lite.audit.merkle import Edge
from keyvault_lite.ledger import driver, statements
from keyvault_lite.ledger.head import Head, read_head
from keyvault_lite.ledger.outcome import Authority, Change, Outcome, StoredReply
from keyvault_lite.ledger.records import changed_rows, read_reply, reply_values
from keyvault_lite.ledger.rows import read_rows, row_is_genuine
from keyvault_lite.ledger.schema import FORMATS, Row
from keyvault_lite.ledger.sqlite import SqliteDatabase
from keyvault_lite.ledger.state import Overlay, State, StateTree, row_key
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, OutcomeUnknown
from keyvault_lite.model.names import ServiceId

CHUNK: Final = 2000
"""Entries read at a time when another process has written."""


class Item:
    """One outcome on its way into the log."""

    __slots__ = ("error", "first_id", "middles", "outcome", "redo", "since")

    def __init__(self, outcome: Outcome, since: int, redo: Callable[[State], Outcome]) -> None:
        self.outcome = outcome
        self.since = since
        """The newest management entry of the state it was computed on."""
        self.redo = redo
        self.middles = [encode_draft(draft) for draft in outcome.drafts]
        self.first_id = 0
        self.error: Exception | None = None


class Journal:
    """The log and the state, as the database has them and as this process knows them."""

    def __init__(self, database: SqliteDatabase, authority: Authority, state: State) -> None:
        self._database = database
        self._authority = authority
        self._connection = database.writer()
        self.state = state
        self.tree = StateTree()
        self.edge = Edge()
        self.head = Head(
            epoch=0,
            size=0,
            hash=genesis(authority.instance_id, authority.log_public_key),
            timestamp=0,
            state_seq=0,
            state_root=self.tree.root(),
            edge=self.edge.to_bytes(),
            checkpoint="",
        )
        self._head_mac = b""
        """Of the head as last seen in the database; empty while there is none."""

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def reopen(self) -> None:
        """Leave a connection behind that may hold a broken transaction."""
        with self._database.lock():
            try:
                self._connection.close()
            finally:
                self._connection = self._database.writer()

    def write(self, claim: Callable[[], Sequence[Item]]) -> None:
        """Commit the outcomes of all items, in order, in one transaction. `claim` is called for them once it is open.

        MUST be called without the file lock held. On return every item has its place in the log and its final outcome.
        Raises AuditUnavailable if nothing was written, OutcomeUnknown if COMMIT failed, IntegrityViolation if the
        database is not the one this process knows.
        """
        with self._database.lock():
            self._begin()
            try:
                self._catch_up()
                pending = _Pending(self, claim())
                pending.store(self._connection)
                self._database.check_same_file()
            except driver.IntegrityError as error:
                self._abort()
                raise IntegrityViolation("the log or state holds a row that nobody should have written") from error
            except driver.Error as error:
                self._abort()
                raise AuditUnavailable("the audit log cannot be written") from error
            except BaseException:
                self._abort()
                raise
            try:
                self._connection.execute("COMMIT")
            except driver.Error as error:
                self.tree.rollback()
                raise OutcomeUnknown("the store failed while committing") from error
            self._database.check_same_file()
            pending.adopt()

    def refresh(self) -> None:
        """Adopt what other processes have committed."""
        with self._database.lock():
            self._begin()
            try:
                self._catch_up()
            except driver.Error as error:
                raise AuditUnavailable("the database cannot be read") from error
            finally:
                self._abort()

    def probe(self) -> None:
        """Try whether the store takes writes again. Raises AuditUnavailable if not."""
        with self._database.lock():
            self._begin()
            try:
                self._connection.execute(statements.PROBE)
                self._connection.execute("COMMIT")
            except driver.Error as error:
                self._abort()
                raise AuditUnavailable("the audit log cannot be written") from error

    def forget_replies(self, now: int) -> None:
        """Delete the kept replies that have expired."""
        with self._database.lock():
            self._begin()
            try:
                self._connection.execute(statements.FORGET_REPLIES, (now,))
                self._connection.execute("COMMIT")
            except driver.Error as error:
                self._abort()
                raise AuditUnavailable("the database cannot be written") from error

    def _begin(self) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except driver.Error as error:
            raise AuditUnavailable("the database is locked, read-only or gone") from error

    def _abort(self) -> None:
        self.tree.rollback()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _catch_up(self) -> None:
        """Make memory what the database is, if that extends what memory was; else raise IntegrityViolation."""
        row = self._connection.execute(statements.READ_HEAD).fetchone()
        if row is None:
            if self._head_mac:
                raise IntegrityViolation("the head of the log is gone")
            return
        last = self._connection.execute(statements.LAST_ENTRY).fetchone() or (0, None)
        if row[-1] == self._head_mac:
            if last[0] != self.head.size or (last[0] and last[1] != self.head.hash):
                raise IntegrityViolation("the log is not the one its head names")
            return
        head = read_head(row, self._authority)
        if last[0] != head.size or (last[0] and last[1] != head.hash):
            raise IntegrityViolation("the log is not the one its head names")
        if head.size < self.head.size or head.epoch < self.head.epoch:
            raise IntegrityViolation("the log is shorter than the one this process knows: the database was put back")
        self._adopt(head, row[-1])

    def _adopt(self, head: Head, mac: bytes) -> None:
        edge = self.edge.copy()
        check = ChainCheck(
            Position(self.head.size, self.head.hash, self.head.epoch, self.head.timestamp, self.head.state_seq, None),
            edge,
        )
        rows = self._connection.execute(f"{statements.ENTRIES} WHERE id > ? ORDER BY id", (self.head.size,))
        try:
            while chunk := rows.fetchmany(CHUNK):
                check.feed(chunk)
        except BrokenChain as error:
            raise IntegrityViolation("the log does not extend the one this process knows") from error
        found = check.position
        if (found.size, found.head, found.state_seq) != (
            head.size,
            head.hash,
            head.state_seq,
        ) or edge.to_bytes() != head.edge:
            raise IntegrityViolation("the log does not extend the one this process knows")
        if head.state_seq != self.head.state_seq:
            news = read_rows(
                self._connection, self._authority, newer_than=self.head.state_seq, known=self.state.find_key
            )
            for key, row_mac in news.macs.items():
                self.tree.put(key, row_mac)
            # The root decides: an old row put back, or a new one left out, is not the state the log commits to.
            if news.findings or self.tree.root() != head.state_root or found.state_root != head.state_root:
                self.tree.rollback()
                raise IntegrityViolation("the stored state is not the one the log commits to")
            self.tree.accept()
            self.state.apply(news.change)
        self.edge, self.head, self._head_mac = edge, head, mac
        self.state.sequence = head.state_seq

    def load(self, head: Head, mac: bytes, tree: StateTree, change: Change) -> None:
        """Start from a head, tree and state that were verified together."""
        self.edge, self.tree, self.head, self._head_mac = Edge.from_bytes(head.edge), tree, head, mac
        self.state.apply(change)
        self.state.sequence = head.state_seq

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
    if connection.execute(statements.ENTRY_HASH, (row[-2],)).fetchone() is None:
        raise IntegrityViolation("the kept reply names an entry that the log does not have")
    return read_reply(row[:-2], row[-2])


class _Pending:
    """A transaction's worth of entries and rows, computed in memory before any of it is written."""

    def __init__(self, journal: Journal, items: Sequence[Item]) -> None:
        self._journal = journal
        self._entries: list[Row] = []
        self._leaves: list[bytes] = []
        self._rows: list[tuple[str, Row]] = []
        self._changes: list[Change] = []
        self._replies: dict[tuple[ServiceId, bytes], StoredReply] = {}
        self._state: State = journal.state
        head = journal.head
        self._size, self._hash, self._epoch = head.size, head.hash, head.epoch
        self._state_seq, self._state_root = head.state_seq, head.state_root
        self._now = max(time.time_ns() // 1000, head.timestamp)
        for item in items:
            self._add(item)
        edge = journal.edge.copy()
        edge.extend(self._leaves)
        self._edge = edge
        self._head = replace(
            head,
            size=self._size,
            hash=self._hash,
            timestamp=self._now,
            state_seq=self._state_seq,
            state_root=self._state_root,
            edge=edge.to_bytes(),
        )
        self._mac = journal._authority.head_mac(*self._head.values())

    def _add(self, item: Item) -> None:
        if item.since != self._state_seq:
            # Something that decides may have changed since: judge again, on exactly the state this entry will follow.
            item.outcome = item.redo(self._state)
            item.middles = [encode_draft(draft) for draft in item.outcome.drafts]
        outcome = item.outcome
        item.first_id = self._size + 1
        for draft, middle in zip(outcome.drafts, item.middles, strict=True):
            self._size += 1
            root = None if outcome.change is None else self._change(outcome.change)
            digest = entry_hash(self._size, self._epoch, self._now, self._state_seq, root, middle, self._hash)
            self._entries.append(
                entry_row(self._size, self._epoch, self._now, self._state_seq, root, draft, self._hash, digest)
            )
            self._leaves.append(digest)
            self._hash = digest
        if outcome.reply is not None:
            self._keep(replace(outcome.reply, entry_id=item.first_id))

    def _change(self, change: Change) -> bytes:
        journal = self._journal
        if not self._changes:
            self._state = Overlay(journal.state, self._find_reply)
        for table, values in changed_rows(change, self._state.find_key):
            form = FORMATS[table]
            key = form.key_of(values)
            mac = journal._authority.row_mac(table, key, self._size, values)
            journal.tree.put(row_key(table, key), mac)
            self._rows.append((table, (*values, self._size, mac)))
        self._changes.append(change)
        self._state.apply(change)
        self._state.sequence = self._state_seq = self._size
        self._state_root = journal.tree.root()
        return self._state_root

    def _keep(self, reply: StoredReply) -> None:
        values = reply_values(reply)
        form = FORMATS["idempotency_replies"]
        mac = self._journal._authority.row_mac(form.name, form.key_of(values), reply.entry_id, values)
        self._rows.append((form.name, (*values, reply.entry_id, mac)))
        self._replies[reply.service_id, reply.key_digest] = reply

    def _find_reply(self, service_id: ServiceId, key_digest: bytes) -> StoredReply | None:
        kept = self._replies.get((service_id, key_digest))
        return self._journal.find_reply(service_id, key_digest) if kept is None else kept

    def store(self, connection: driver.Connection) -> None:
        """Write it all into the open transaction, and read back that it was taken."""
        for table, row in self._rows:
            connection.execute(statements.UPSERT[table], row)
        written = connection.executemany(statements.APPEND, self._entries).rowcount
        if written != len(self._entries):
            raise IntegrityViolation("the log did not take every entry")
        values = (*self._head.values(), self._mac)
        if self._journal._head_mac:
            written = connection.execute(statements.WRITE_HEAD, values).rowcount
        else:
            written = connection.execute(statements.FIRST_HEAD, (1, *values)).rowcount
        if written != 1:
            raise IntegrityViolation("the log did not take its head")

    def adopt(self) -> None:
        """After COMMIT: what was pending is what is."""
        journal = self._journal
        journal.tree.accept()
        journal.edge, journal.head, journal._head_mac = self._edge, self._head, self._mac
        for change in self._changes:
            journal.state.apply(change)
        journal.state.sequence = self._state_seq
