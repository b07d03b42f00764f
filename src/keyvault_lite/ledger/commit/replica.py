"""The log and the state in memory, and how they follow what other processes commit.

Memory is the authority while the vault runs: what is stored has to extend it, or service halts.
"""

import time
from typing import Final

from keyvault_lite.ledger.commit.catch_up import apply_changes, new_entries
from keyvault_lite.ledger.commit.edit_detection import Alarm, compare_rows
from keyvault_lite.ledger.commit.publisher import PUT_BACK, CheckpointPublisher
from keyvault_lite.ledger.commit.write_set import WouldBlock, WriteSet
from keyvault_lite.ledger.state.head import Head, check_unchanged, read_head
from keyvault_lite.ledger.state.outcome import Authority, Change
from keyvault_lite.ledger.state.root import StateTree
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.database import Database
from keyvault_lite.model.errors import IntegrityViolation

MANY: Final = 2000
"""Entries of other processes that are read by a thread, not on the loop."""


class Replica:
    """What this process holds of the ledger. It changes after COMMIT alone, its own or another process's."""

    def __init__(
        self, database: Database, authority: Authority, state: State, publisher: CheckpointPublisher, others: int
    ) -> None:
        """`others` is the database's count of what other connections have written, from before anything is read."""
        self._database = database
        self._authority = authority
        self._publisher = publisher
        self._others = others
        self.state = state
        self.tree = StateTree()
        self.tip = LogTip.before_any_entry(authority, self.tree.root())
        self.alarms: list[Alarm] = []
        """Edits that were found and are not in the log yet."""
        self.suspect = False
        """Whether the next transaction has to compare all stored rows with memory."""
        self.overtaken = False
        """Whether entries of other processes have a later time than the clock, since the last transaction."""
        self.read_only = False
        """Whether rows are missing from memory, so that no new state can be computed."""

    def load(self, tip: LogTip, tree: StateTree, change: Change) -> None:
        """Start from a tip, tree and state that were verified together."""
        self.tree, self.tip = tree, tip
        self.state.apply(change)
        self.state.sequence = tip.head.state_seq

    def reconnected(self, others: int) -> None:
        """The connection is a new one, and `others` its count: what was written by then is compared row by row."""
        self._others = others
        self.suspect = True

    def apply(self, write_set: WriteSet) -> None:
        """After COMMIT of a transaction of this process."""
        write_set.apply()
        self.alarms.clear()

    def catch_up(self, connection: driver.Connection, *, blocking: bool = True) -> None:
        """In an open transaction: take in what other processes have committed, and find what was edited.

        Raises IntegrityViolation unless the database extends memory and the anchor. Raises WouldBlock before anything
        that takes long, unless `blocking`.
        """
        # The anchor is read first: what it names was in the log by then, so it is in what is read now.
        mark = self._publisher.read(blocking=blocking)
        old = self.tip.head
        hashes: list[bytes] = []
        row = connection.execute(statements.CATCH_UP).fetchone()
        if row is None:
            if self.tip.mac or mark != self._publisher.anchored:
                raise IntegrityViolation(PUT_BACK)
            return
        *head_row, last_id, last_hash = row
        others = self._database.count_of_others(connection)
        wrote, self._others = others != self._others, others
        if head_row[-1] == self.tip.mac:
            check_unchanged(head_row, old)
            self._check_last(last_id, last_hash, old)
            # A connection that has written since, and not to the log, has edited.
            self.suspect = self.suspect or wrote
            if not blocking and self.suspect:
                raise WouldBlock
        else:
            head = read_head(tuple(head_row), self._authority)
            self._check_last(last_id, last_hash, head)
            if head.size < old.size or head.epoch < old.epoch:
                raise IntegrityViolation(
                    "the log is shorter than the one this process knows: the database was put back"
                )
            if not blocking and (self.suspect or head.size - old.size > MANY):
                raise WouldBlock
            hashes = self._follow(connection, head, head_row[-1], blocking=blocking)
        self._publisher.check(mark, old, hashes)
        if self.suspect and not self.read_only:
            schema = self._database.check_schema(connection)
            self.alarms += compare_rows(connection, self._authority, self.state, self.tree, schema)
        self.suspect = False

    @staticmethod
    def _check_last(last_id: int | None, last_hash: bytes | None, head: Head) -> None:
        if (last_id or 0) != head.size or (head.size and last_hash != head.hash):
            raise IntegrityViolation("the log is not the one its head names")

    def _follow(self, connection: driver.Connection, head: Head, mac: bytes, *, blocking: bool) -> list[bytes]:
        """Move the tip to a head that another process has written. Returns the hashes of the entries up to it."""
        tip = self.tip
        tiles, hashes, alarmed = new_entries(connection, self._authority, tip, head)
        # What one process has found to be edited, all are to find: see `compare_rows`.
        self.suspect = self.suspect or alarmed
        if not blocking and self.suspect:
            raise WouldBlock
        if head.state_seq != tip.head.state_seq:
            apply_changes(connection, self._authority, self.state, self.tree, head, blocking=blocking)
        self.tip = LogTip(head, mac, tiles, tip.checkpoint)
        self.overtaken = self.overtaken or head.timestamp > time.time_ns() // 1000
        return hashes
