"""What can be read of the log, and proven of it: pages, entries, receipts, checkpoints.

Whatever is given out is under the authenticated head: an entry that is not stops all service.
"""

from collections.abc import Callable

from keyvault_lite.audit import checkpoint
from keyvault_lite.audit.entry import encode_entry
from keyvault_lite.audit.merkle import InvalidProof, consistency_proof, inclusion_proof, verify_inclusion
from keyvault_lite.audit.receipt import format_receipt
from keyvault_lite.ledger.anchor.confirmation import Confirmation, Witness
from keyvault_lite.ledger.commit.writer import Writer
from keyvault_lite.ledger.log.query import Filter, read_entry, read_page
from keyvault_lite.ledger.log.retention import archived_up_to
from keyvault_lite.ledger.log.tiles import tile_reader
from keyvault_lite.ledger.state.outcome import Authority
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.read_pool import Readers
from keyvault_lite.model.errors import IntegrityViolation, InvalidRequest, NotFound
from keyvault_lite.model.evidence import Entry
from keyvault_lite.model.replies import Consistency, EntryReceipt, LogKey, Page


class Evidence:
    """The log of one vault, for who reads it. All of it blocks."""

    def __init__(
        self, readers: Readers, writer: Writer, authority: Authority, halt: Callable[[IntegrityViolation], None]
    ) -> None:
        self._readers = readers
        self._writer = writer
        self._authority = authority
        self._halt = halt
        """Stops all service."""
        self.witnesses: tuple[Witness, ...] = ()
        """Who confirms the log; set by the composition root before anything is served."""

    @property
    def size(self) -> int:
        """How many entries the log has, as far as this process knows."""
        return self._writer.head.size

    def entries(self, wanted: Filter) -> Page[Entry]:
        """A page of the log, each entry proven to be under the authenticated head."""
        with self._readers.one() as connection:
            page = self._page(connection, wanted)
            self._prove(connection, page.items)
            return page

    def _page(self, connection: driver.Connection, wanted: Filter) -> Page[Entry]:
        """A page behind what is archived. Each statement has its own snapshot: what goes meanwhile is no gap."""
        while True:
            archived = archived_up_to(connection, self._authority)
            try:
                page = read_page(connection, wanted, archived=archived)
            except IntegrityViolation:
                if archived_up_to(connection, self._authority) == archived:
                    raise
            else:
                if archived_up_to(connection, self._authority) == archived:
                    return page

    def entry(self, entry_id: int) -> Entry | None:
        """One entry of the log, proven as well. Raises NotFound, which says so, for one that was archived."""
        size = self._writer.head.size  # before it is read: what comes meanwhile is no gap
        with self._readers.one() as connection:
            entry = read_entry(connection, entry_id)
            if entry is not None:
                self._prove(connection, (entry,))
            elif 0 < entry_id <= (last := archived_up_to(connection, self._authority)):
                raise NotFound(f"the entries up to {last} are archived: this one is in a file, not in the vault")
            elif 0 < entry_id <= size:
                raise IntegrityViolation("the log has a gap: this entry was removed from it")
            return entry

    def refresh(self) -> None:
        """Adopt what other processes have committed. Raises IntegrityViolation, which stops all service."""
        try:
            self._writer.refresh()
        except IntegrityViolation as error:
            self._halt(error)
            raise

    def signed_head(self) -> str:
        """The newest signed checkpoint of this process; empty before the first entry."""
        return self._writer.tip.checkpoint

    def checkpoint(self) -> str:
        """The newest signed checkpoint of this process, with the lines of the witnesses that have confirmed it."""
        return self._with_confirmations(self.signed_head())

    def receipt(self, entry: Entry) -> str:
        """The proof that an entry is under a signed checkpoint: the newest confirmed by a witness, else the newest."""
        return self._receipts((entry,))[0].receipt

    def receipts(self, wanted: Filter) -> Page[EntryReceipt]:
        """A page of proofs, all under one checkpoint."""
        page = self.entries(wanted)
        return Page(self._receipts(page.items), page.next, page.archived)

    def _receipts(self, entries: tuple[Entry, ...]) -> tuple[EntryReceipt, ...]:
        newest = max((entry.id for entry in entries), default=0)
        tip = self._known_up_to(newest)
        if _size_of(tip.checkpoint) < newest:
            self.refresh()  # read between a commit and its signature
            tip = self._writer.tip
        confirmed = self._newest_confirmation()
        note = tip.checkpoint
        if confirmed is not None and newest <= confirmed.size <= tip.head.size:
            note = confirmed.text
        size, signed = _size_of(note), self._with_confirmations(note)
        with self._readers.one() as connection:
            node = tile_reader(connection, tip).node
            return tuple(
                EntryReceipt(
                    entry.id,
                    format_receipt(
                        entry.id - 1, inclusion_proof(node, entry.id - 1, size), signed, encode_entry(entry)
                    ),
                )
                for entry in entries
            )

    def _newest_confirmation(self) -> Confirmation | None:
        epoch = self._writer.head.epoch
        found = [newest for witness in self.witnesses if (newest := witness.newest) and newest.epoch == epoch]
        return max(found, key=lambda one: one.size, default=None)

    def _with_confirmations(self, note: str) -> str:
        for witness in self.witnesses:
            newest = witness.newest
            if newest is not None and (lines := newest.lines_for(note)) and lines not in note:
                note += lines
        return note

    def consistency(self, old: int, new: int) -> Consistency:
        """The proof that the log of `new` entries extends the log of `old`. Raises InvalidRequest beyond its size."""
        tip = self._writer.tip
        if not 0 < old <= new <= tip.head.size:
            raise InvalidRequest(f"sizes are 1 to {tip.head.size}, `from` not above `to`")
        with self._readers.one() as connection:
            return Consistency(old, new, tuple(consistency_proof(tile_reader(connection, tip).node, old, new)))

    def log_key(self) -> LogKey:
        """With which key the log's checkpoints verify, in its present epoch."""
        origin = checkpoint.origin(self._authority.instance_id, self._writer.head.epoch)
        public_key = self._authority.log_public_key
        return LogKey(checkpoint.verifier_key(origin, public_key), public_key)

    def _prove(self, connection: driver.Connection, entries: tuple[Entry, ...]) -> None:
        tip = self._known_up_to(max((entry.id for entry in entries), default=0))
        reader, edge = tile_reader(connection, tip), tip.tiles.edge
        root = edge.root()
        try:
            for entry in entries:
                index = entry.id - 1
                proof = inclusion_proof(reader.node, index, edge.size)
                verify_inclusion(entry.hash, proof, index=index, size=edge.size, root=root)
        except InvalidProof as error:
            self._halt(IntegrityViolation("an entry of the log is not under its head"))
            raise IntegrityViolation("an entry of the log is not under its head") from error

    def _known_up_to(self, size: int) -> LogTip:
        if self._writer.head.size < size:
            self.refresh()  # another process wrote it
        tip = self._writer.tip
        if tip.head.size < size:
            raise IntegrityViolation("the log has entries that its head does not know")
        return tip


def _size_of(note: str) -> int:
    """The size that a checkpoint of our own states; 0 for none."""
    return int(note.split("\n", 2)[1]) if note else 0
