"""The ledger: a verified snapshot to decide on, and one way to change it or to be allowed to answer.

MUST: nothing is released before `commit` returns. MUST NOT: no other part of the product writes to the database.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from keyvault_lite.audit import checkpoint
from keyvault_lite.ledger.anchor.files import FileAnchor, where_it_stands
from keyvault_lite.ledger.anchor.flusher import AnchorFlusher
from keyvault_lite.ledger.anchor.interface import Anchor
from keyvault_lite.ledger.anchor.record import AnchorRecord
from keyvault_lite.ledger.archive.archiver import boundary, make_segment
from keyvault_lite.ledger.archive.segment_files import SegmentStore
from keyvault_lite.ledger.commit.edit_detection import owner
from keyvault_lite.ledger.commit.group_commit import GroupCommit
from keyvault_lite.ledger.commit.maintenance_writes import forget_replies, rebuild_index
from keyvault_lite.ledger.commit.write_probe import StoreProof
from keyvault_lite.ledger.commit.writer import Writer
from keyvault_lite.ledger.evidence import Evidence
from keyvault_lite.ledger.log.kept_replies import find_reply
from keyvault_lite.ledger.log.retention import archived_up_to, newest_segment
from keyvault_lite.ledger.maintenance import Maintenance
from keyvault_lite.ledger.opening import cannot_open
from keyvault_lite.ledger.state.outcome import Authority, Committed, Outcome, StoredReply
from keyvault_lite.ledger.state.snapshot import SnapshotVersion, State
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.ledger.storage.bulk_memory import give_back
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.database import Database
from keyvault_lite.ledger.storage.log_index import IndexCheck
from keyvault_lite.ledger.storage.read_pool import Readers
from keyvault_lite.ledger.storage.schema import CAN_BE_MADE_ANEW, MAY_BE_LOST
from keyvault_lite.ledger.verify.inspection import Inspection, Progress, inspect, verification
from keyvault_lite.ledger.verify.single_flight import SharedVerification
from keyvault_lite.ledger.verify.startup import read_mark, resumed_tiles, unproven
from keyvault_lite.model.archive import Segment
from keyvault_lite.model.errors import AuditUnavailable, Conflict, IntegrityViolation, KeyVaultError
from keyvault_lite.model.keys import KeyName
from keyvault_lite.model.names import KeyId, ServiceId
from keyvault_lite.model.replies import Finding, Verification
from keyvault_lite.observe.metrics import METRICS

MOST_VERSIONS: Final = 100_000
log = logging.getLogger("keyvault_lite.ledger")


class Ledger:
    """Facts and evidence of one vault. Made by `open`."""

    def __init__(self, database: Database, authority: Authority, anchor: Anchor | None) -> None:
        self._database = database
        self._authority = authority
        self._anchor = anchor
        self._readers = Readers(database)
        self._verification = SharedVerification()
        self._state = State(self._find_reply)
        self._writer = Writer(database, authority, self._state, anchor)
        self._group_commit = GroupCommit(self._writer)
        self._proof = StoreProof(
            self._writer, self._group_commit.report, lambda: self._group_commit.availability.fault is not None
        )
        self._anchor_stands = where_it_stands(anchor, database.folder)
        self.evidence = Evidence(self._readers, self._writer, authority, self._group_commit.halt)
        self.lost: tuple[Finding, ...] = ()
        """What was set aside at start."""
        self.maintenance = Maintenance(database)
        self._closing = threading.Event()
        self._flusher = AnchorFlusher(
            anchor, self._group_commit.halt, database.space_is_low, self._closing, publish=self._writer.refresh
        )
        self._measure()

    @classmethod
    def open(
        cls,
        database: Database,
        authority: Authority,
        anchor: Anchor | None,
        *,
        quarantine: bool = False,
        segment_store: SegmentStore | None = None,
    ) -> Self:
        """Verify what is stored and take it into memory. Raises DamagedVault with every finding.

        With `quarantine`, objects whose rows do not verify are set aside instead, and no change is possible until
        `repair` has recorded their loss; damage to the log, its head, the schema or the anchor is raised all the same.
        `segment_store` has the files of what was archived: what they tell may be needed to name the damaged object.
        """
        try:
            ledger = cls(database, authority, anchor)
            try:
                ledger._load(quarantine=quarantine, segment_store=segment_store)
            except BaseException:
                ledger._readers.close()
                ledger._writer.close()
                raise
        except driver.Error as error:
            raise cannot_open(database) from error
        ledger._group_commit.start()
        ledger._proof.start()
        ledger._flusher.start()
        return ledger

    def _load(self, *, quarantine: bool, segment_store: SegmentStore | None) -> None:
        with self._database.lock(), self._readers.one() as connection:
            findings: list[Finding] = []
            mark = read_mark(self._anchor, findings)
            seen = inspect(
                connection,
                self._authority,
                self._database,
                anchor=None if findings else self._anchor,
                mark=mark,
                log_from=0 if quarantine else unproven(connection, 0 if mark is None else mark.scrubbed),
                segment_store=segment_store,
                load=True,
            )
            findings += seen.findings
            if findings:
                self._set_aside(findings, seen.rows.quarantined, quarantine=quarantine and not seen.schema_is_other)
            if seen.head is None:
                return
            tiles = resumed_tiles(connection, seen.head)
            tip = LogTip(seen.head, seen.mac, tiles, seen.head.checkpoint)
            self._writer.load(tip, seen.tree, seen.rows.change, mark)
        self._database.make_reserve()
        # Signs the head and flushes the anchor before anything is served.
        self._writer.refresh()
        if self._anchor is not None:
            self._anchor.flush()

    def _set_aside(self, findings: list[Finding], refs: set[str], *, quarantine: bool) -> None:
        """Start without the objects that do not verify, if that is wanted and all that is wrong."""
        if not quarantine or any(one.table not in MAY_BE_LOST for one in findings):
            raise DamagedVault(findings)
        for ref in refs:
            self._state.quarantine(ref)
        for one in findings:
            self._state.quarantine(owner(self._state, one.table, one.row) or f"{one.table}:{one.row}")
        self.lost = tuple(findings)
        self._writer.replica.read_only = True

    def begin(self) -> None:
        """Before the first entry, once it is certain that there was none: have the anchor know this log."""
        self._writer.begin()

    @property
    def degraded(self) -> bool:
        """Whether anything is set aside because it does not verify."""
        return bool(self._state.quarantined)

    @property
    def frozen(self) -> bool:
        """Whether nothing may be changed until a repair."""
        return self._writer.replica.read_only

    def give_up_checks(self) -> None:
        """Let checks of the whole log end early: the vault is about to be closed."""
        self._closing.set()
        self._readers.keep_no_more()

    def close(self) -> None:
        """Commit what is waiting and let go of the database."""
        self.give_up_checks()
        self._proof.close()
        self._group_commit.close()
        self._flusher.join()
        self._database.resign_leadership()
        # Before the writer: the last connection that closes takes the write-ahead log with it.
        self._readers.close()
        self._writer.close()
        self._database.close()

    def _measure(self) -> None:
        METRICS.gauge("keyvault_log_entries", "Entries of the log.", lambda: self._writer.head.size)
        METRICS.gauge("keyvault_quarantined", "Objects set aside.", lambda: len(self._state.quarantined))
        about = "Whether space is kept for management: keys are not used."
        METRICS.gauge("keyvault_low_space", about, lambda: float(self.space_is_low))
        METRICS.gauge("keyvault_store_up", "Whether records can be written.", lambda: float(self.fault is None))
        METRICS.gauge("keyvault_fault", "What keeps the vault from serving.", self._measure_fault, label="code")
        if self._anchor is not None:
            about = "Seconds since the anchor was last flushed."
            METRICS.gauge("keyvault_anchor_age_seconds", about, lambda: self._flusher.age)

    def _measure_fault(self) -> dict[str, float]:
        fault = self.fault
        return {} if fault is None else {fault.code: 1.0}

    @property
    def space_is_low(self) -> bool:
        """Whether so little space is left that keys are managed and not used."""
        return self._database.space_is_low()

    @property
    def space_is_scarce(self) -> bool:
        """Whether space will soon be low."""
        return self._database.space_is_scarce()

    @property
    def fault(self) -> KeyVaultError | None:
        """Why nothing can be recorded at present, or may be; None when all is well."""
        witnesses = (witness.fault for witness in self.evidence.witnesses)
        faults = (self._group_commit.availability.fault, self._group_commit.stuck, self._proof.fault, *witnesses)
        return next((fault for fault in faults if fault is not None), None)

    def facts(self) -> dict[str, object]:
        """What anyone may know of how the log is kept, for `/health`: no path, no secret, not how long the log is."""
        anchor = self._anchor
        found = {"epoch": self._writer.head.epoch, "anchor": self._anchor_stands, **self.maintenance.facts()}
        if isinstance(anchor, FileAnchor):
            found |= anchor.facts()
        return found | {name: fact for witness in self.evidence.witnesses for name, fact in witness.facts().items()}

    def mark(self, count: int | None = None) -> AnchorRecord:
        """The newest signed head as an anchor keeps it; with `count`, signed again with that value of a counter."""
        return self._writer.mark(count)

    def now(self) -> int:
        """The time in microseconds; never before the newest entry's, so that a clock set back revives nothing."""
        return max(time.time_ns() // 1000, self._writer.head.timestamp)

    def newest_entry_at(self) -> float:
        """The time of the newest entry, in seconds as `time.time()` has them."""
        return self._writer.head.timestamp / 1e6

    def snapshot(self) -> State:
        """The verified state. Note its `moment` before reading anything of it."""
        return self._state

    async def commit(self, outcome: Outcome, since: SnapshotVersion, redo: Callable[[State], Outcome]) -> Committed:
        """Record an outcome that was computed on the state of `since`, and write its change, in one transaction.

        If a management entry came after `since`, earlier ones of the same transaction included, or an object was set
        aside, `redo` is called with the state after it and its outcome takes the place of the first. Returns once all
        of it is durable.
        Raises AuditUnavailable (nothing happened), OutcomeUnknown, IntegrityViolation.
        """
        for witness in self.evidence.witnesses:
            if (fault := witness.fault) is not None:
                raise fault
        return await self._group_commit.commit(outcome, since, redo)

    def refresh(self) -> None:
        """Adopt what other processes have committed. Blocks: call it off the event loop."""
        self.evidence.refresh()

    def empty_write_ahead_log(self) -> bool:
        """Have what was overwritten removed from the database's files; false if it has to be tried again."""
        return self._database.forget_overwritten()

    @property
    def is_leader(self) -> bool:
        """Whether this process does the timed work: one of all on this database, if that one can. Blocks."""
        return self.maintenance.is_leader()

    def may_forget_tokens(self) -> bool:
        """Whether the database lets this process delete the rows of tokens past their end."""
        with self._readers.one() as connection:
            return self._database.may_forget_tokens(connection)

    def mend_index(self) -> bool:
        """Rebuild the index of the log if it does not match the log; whether it did not. Blocks."""
        with self._readers.one() as connection:
            connection.execute("BEGIN")
            try:
                archived = archived_up_to(connection, self._authority)
                ((size,),) = connection.execute(statements.SIZE).fetchall()
                damaged = IndexCheck(connection, archived + 1).finish(size, most=1)
            finally:
                connection.execute("ROLLBACK")
        if damaged:
            rebuild_index(self._writer, archived + 1)
        return bool(damaged)

    def forget_replies(self) -> None:
        """Delete kept replies that have expired. Blocks."""
        forget_replies(self._writer, self.now())

    # Retention

    def archivable(self, *, before: int | None, keep: int) -> tuple[int, int]:
        """Up to which entry the log is archived, and up to which it can be: see `archiver.boundary`.

        The anchor is flushed first, so that no anchor of this log remembers less than what may be archived.
        """
        if self._anchor is not None:
            self._anchor.flush()
        with self._readers.one() as connection:
            archived = archived_up_to(connection, self._authority)
            size = self._writer.head.size
            return archived, boundary(connection, archived=archived, size=size, before=before, keep=keep)

    def make_segment(self, folder: Path, verify: checkpoint.Verify, *, last: int) -> Segment:
        """Write what follows what is archived, up to entry `last`, to a file in the folder; checked whole."""
        segment_store, tip = SegmentStore(folder, self._authority, verify), self._writer.tip
        with self._readers.one() as connection:
            after = newest_segment(connection, self._authority)
            try:
                if after is None or after.last < last:
                    return make_segment(connection, tip, segment_store, after=after, last=last)
            except IntegrityViolation:
                if newest_segment(connection, self._authority) == after:
                    raise
        raise Conflict("other entries were archived meanwhile; nothing was done")

    def give_space_back(self) -> None:
        """Free the space that deleted entries have left. Everybody may have to wait for it."""
        try:
            self._database.give_space_back()
        except driver.Error as error:
            raise AuditUnavailable(
                f"the space could not be given back: {error}", shown="the space could not be given back"
            ) from error

    # What is in the tables, genuine or not

    def stored_versions(self, key_id: KeyId) -> int:
        """How many versions of a key the database has rows of, genuine or not."""
        with self._readers.one() as connection:
            rows = connection.execute("SELECT version FROM key_versions WHERE key_id = ?", (key_id,)).fetchall()
            # A planted row may have any number: one beyond what any key has is not for a repair to count up to.
            return max((one for (one,) in rows if type(one) is int and one <= MOST_VERSIONS), default=0)

    def stored_name(self, text: str) -> KeyName | None:
        """The dialect's name whose row is called so, genuine or not."""
        with self._readers.one() as connection:
            sql = "SELECT namespace, name FROM key_names WHERE namespace || name = ?"
            row = connection.execute(sql, (text,)).fetchone()
            return None if row is None else KeyName(row[0], row[1], self.now(), self.now())

    # Checks

    def scrub(self) -> None:
        """Read all rows again and compare; the next commit sets aside what is found. Blocks, off the loop."""
        try:
            with self._readers.one() as connection:
                memory = self._writer.replica.tree
                findings = inspect(connection, self._authority, self._database, memory=memory).findings
        except IntegrityViolation:
            self._writer.replica.suspect = True
            raise
        self._writer.replica.suspect |= bool(findings) or self.degraded
        self.maintenance.rows_were_checked()
        give_back()
        self._database.make_reserve()

    def scrub_log(self) -> None:
        """Read the whole log again, and note in the anchor how far it is proven. Blocks, as the log grows.

        Raises IntegrityViolation, and stops all service, if it is not the log that the head names.
        """
        seen = self.inspect(self._go_on)
        for one in seen.findings:
            if one.table == CAN_BE_MADE_ANEW:
                log.error("%s %s: %s: `kvl repair` makes it anew", one.table, one.row, one.problem)
        damage = [one for one in seen.findings if one.table not in {*MAY_BE_LOST, CAN_BE_MADE_ANEW}]
        if damage:
            error = IntegrityViolation(
                f"{damage[0].table} {damage[0].row}: {damage[0].problem}", shown="the log is damaged"
            )
            self._group_commit.halt(error)
            raise error
        self._writer.publisher.scrubbed = seen.read_to

    def verify(self) -> Verification:
        """Check log and state as stored. Callers that ask meanwhile share the result. Blocks, as the log grows."""
        return self._verification.run(lambda: verification(self.inspect(self._go_on)))

    def _go_on(self, _done: int, _all: int) -> None:
        if self._closing.is_set():
            raise AuditUnavailable("the server is shutting down")

    def inspect(self, progress: Progress | None = None) -> Inspection:
        """Everything that can be checked. Blocks, in proportion to the log."""
        findings: list[Finding] = []
        mark = read_mark(self._anchor, findings)
        with self._readers.one() as connection:
            seen = inspect(
                connection,
                self._authority,
                self._database,
                anchor=None if findings else self._anchor,
                mark=mark,
                log_from=0,
                progress=progress,
                memory=self._writer.replica.tree,
            )
        seen.findings[:0] = findings
        return seen

    def _find_reply(self, service_id: ServiceId, key_digest: bytes) -> StoredReply | None:
        with self._readers.one() as connection:
            return find_reply(connection, self._authority, service_id, key_digest)
