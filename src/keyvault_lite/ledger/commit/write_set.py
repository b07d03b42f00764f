"""The write set of a transaction: the entries, rows and head that the outcomes of its requests come to."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from keyvault_lite.audit.entry import encode_draft, entry_hash, entry_row
from keyvault_lite.audit.merkle import Tile
from keyvault_lite.ledger.anchor.counter import CounterUse, use_of
from keyvault_lite.ledger.log.kept_replies import reply_row
from keyvault_lite.ledger.state.codec import changed_rows
from keyvault_lite.ledger.state.outcome import Authority, Change, Outcome, StoredReply
from keyvault_lite.ledger.state.root import StateTree, row_key
from keyvault_lite.ledger.state.snapshot import FindReply, Overlay, SnapshotVersion, State
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.database import Store
from keyvault_lite.ledger.storage.schema import FORMATS, Row
from keyvault_lite.model.actions import RULES
from keyvault_lite.model.errors import IntegrityViolation, KeyVaultError
from keyvault_lite.model.evidence import Result
from keyvault_lite.model.names import ServiceId


class CommitRequest:
    """One outcome on its way into the log."""

    __slots__ = ("encoded", "error", "first_id", "outcome", "redo", "since")

    def __init__(self, outcome: Outcome, since: SnapshotVersion, redo: Callable[[State], Outcome]) -> None:
        self.outcome = outcome
        self.since = since
        """The version of the state that it was computed on."""
        self.redo = redo
        """Evaluates the operation again, on another state."""
        self.encoded = [encode_draft(draft) for draft in outcome.drafts]
        self.first_id = 0
        """The number of its first entry, once it has one."""
        self.error: KeyVaultError | None = None
        """Why it was left out."""

    @property
    def uses_keys(self) -> bool:
        """Whether it is a successful use of a key, as opposed to management, reading the log and refusals."""
        return any(draft.result is Result.SUCCESS and RULES[draft.action].uses_key for draft in self.outcome.drafts)


class WouldBlock(Exception):
    """The step would wait, or take long: it is left to a thread that may block. Nothing was done."""


class WriteSet:
    """The entries and rows of one transaction, computed in memory before any of it is written."""

    def __init__(
        self,
        tip: LogTip,
        state: State,
        tree: StateTree,
        authority: Authority,
        find_reply: FindReply,
        *,
        overtaken: bool = False,
    ) -> None:
        """`overtaken`: the log has a later time than this process knew of, so all outcomes are stale."""
        self._overtaken = overtaken
        self._authority = authority
        self._tree = tree
        self._stored_reply = find_reply
        self._below = state
        self._entries: list[Row] = []
        self._leaves: list[bytes] = []
        self._rows: list[tuple[str, Row]] = []
        self._changes: list[Change] = []
        self._replies: dict[tuple[ServiceId, bytes], StoredReply] = {}
        self._state: State = state
        head = tip.head
        self._size, self._hash, self._epoch = head.size, head.hash, head.epoch
        self._state_seq, self._state_root = head.state_seq, head.state_root
        self._snapshot_version = state.snapshot_version
        self._now = max(time.time_ns() // 1000, head.timestamp)
        self._tiles = tip.tiles.copy()
        self._full_tiles: list[Tile] = []
        self.before: Final = tip
        """The tip of the log without it."""
        self.counter_use = CounterUse.NONE
        """What its changes ask of a hardware counter beside the anchor."""
        self.after = tip
        """The tip of the log with all of it."""

    @property
    def has_change(self) -> bool:
        """Whether any of its entries is one of management."""
        return bool(self._changes)

    def _close(self) -> LogTip:
        self._full_tiles = self._tiles.extend(self._leaves)
        head = replace(
            self.before.head,
            epoch=self._epoch,
            size=self._size,
            hash=self._hash,
            timestamp=self._now if self._entries else self.before.head.timestamp,
            state_seq=self._state_seq,
            state_root=self._state_root,
            edge=self._tiles.edge.to_bytes(),
            checkpoint=self.before.checkpoint,
        )
        return LogTip(head, self._authority.head_mac(*head.values()), self._tiles, self.before.checkpoint)

    def is_stale(self, request: CommitRequest) -> bool:
        """Whether something that decides may have changed since the outcome was computed."""
        return request.since != self._snapshot_version or self._overtaken or self._was_answered(request.outcome.reply)

    def add(self, request: CommitRequest, *, blocking: bool = True) -> None:
        """Give the outcome its place; a stale one is evaluated again, on exactly the state that its entry follows (R1).

        That may take long. Raises WouldBlock instead, unless `blocking`.
        """
        if self.is_stale(request):
            if not blocking:
                raise WouldBlock
            request.outcome = request.redo(self._upper())
            request.encoded = [encode_draft(draft) for draft in request.outcome.drafts]
        outcome, change = request.outcome, request.outcome.change
        if change is not None:
            self.counter_use = max(self.counter_use, use_of(draft.action for draft in outcome.drafts))
        size, root, previous = self._size, None, self._hash
        request.first_id = size + 1
        for draft, encoded in zip(outcome.drafts, request.encoded, strict=True):
            size += 1
            if change is not None:
                self._size = size  # it is the number of the entry that writes its rows
                self._epoch += change.new_epoch
                root = self._change(change)
            place = (size, self._epoch, self._now, self._state_seq, root)
            digest = entry_hash(*place, encoded, previous)
            self._entries.append(entry_row(*place, draft, previous, digest))
            self._leaves.append(digest)
            previous = digest
        self._size, self._hash = size, previous
        if outcome.reply is not None:
            first = self._leaves[-len(outcome.drafts)]
            self._keep(replace(outcome.reply, entry_id=request.first_id), first)

    def _was_answered(self, reply: StoredReply | None) -> bool:
        """Whether a request with the same Idempotency-Key came first. It may have changed nothing."""
        if reply is None:
            return False
        try:
            kept = self._find_reply(reply.service_id, reply.key_digest)
        except IntegrityViolation:
            return True  # evaluated again, it meets the same, as its own refusal
        return kept is not None and kept.expires_at > self._now

    def _upper(self) -> Overlay:
        """The state as this transaction sees it, replies included."""
        if not isinstance(self._state, Overlay):
            self._state = Overlay(self._below, self._find_reply)
        return self._state

    def _change(self, change: Change) -> bytes:
        self._upper()
        for table, values in changed_rows(change, self._state.key_record):
            form = FORMATS[table]
            key = form.key_of(values)
            mac = self._authority.row_mac(table, key, self._size, values)
            self._tree.put(row_key(table, key), mac)
            self._rows.append((table, (*values, self._size, mac)))
        self._tree.remove(row_key("tokens", (gone,)) for gone in change.gone_tokens)
        self._changes.append(change)
        self._state.apply(change)
        self._state.sequence = self._state_seq = self._size
        self._snapshot_version = self._state.snapshot_version
        self._state_root = self._tree.root()
        return self._state_root

    def _keep(self, reply: StoredReply, entry_hash: bytes) -> None:
        self._rows.append(("idempotency_replies", reply_row(self._authority, reply, entry_hash)))
        self._replies[reply.service_id, reply.key_digest] = reply

    def _find_reply(self, service_id: ServiceId, key_digest: bytes) -> StoredReply | None:
        kept = self._replies.get((service_id, key_digest))
        return self._stored_reply(service_id, key_digest) if kept is None else kept

    def store(self, connection: driver.Connection, store: Store) -> None:
        """After the last `add`: write it all into the open transaction, and read back that it was taken."""
        after = self.after = self._close()
        values = (*after.head.values(), after.mac)
        with store.pipelined(connection):
            for table, row in self._rows:
                connection.execute(statements.UPSERT[table], row)
            for change in self._changes:
                connection.executemany(statements.LOSE_REPLY, [(lost,) for lost in change.lost_replies])
                connection.executemany(statements.RELEASE_TOKEN, [(gone,) for gone in change.gone_tokens])
                connection.executemany(statements.FORGET_TOKEN, [(gone,) for gone in change.gone_tokens])
            appended = store.append(connection, self._entries)
            if self._full_tiles:
                connection.executemany(statements.PUT_TILE, self._full_tiles)
            if self.before.mac:
                written = connection.execute(statements.WRITE_HEAD, values)
            else:
                written = connection.execute(statements.FIRST_HEAD, (1, *values))
        if appended.rowcount != len(self._entries):
            raise IntegrityViolation("the log did not take every entry")
        for change in self._changes:
            if change.archived is not None:
                store.forget_entries(connection, change.archived.first, change.archived.last)
        if written.rowcount != 1:
            raise IntegrityViolation("the log did not take its head")

    def apply(self) -> None:
        """After COMMIT: the state is the one with every change."""
        self._tree.accept()
        for change in self._changes:
            self._below.apply(change)
        self._below.sequence = self._state_seq
