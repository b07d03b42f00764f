"""What handlers see of the ledger: reading, and nothing that writes. The ledger itself satisfies it."""

from typing import Protocol

from keyvault_lite.ledger.log.query import Filter
from keyvault_lite.model.evidence import Entry
from keyvault_lite.model.keys import KeyName
from keyvault_lite.model.names import KeyId
from keyvault_lite.model.replies import Consistency, EntryReceipt, LogKey, Page, Verification


class EvidenceReader(Protocol):
    """Entries of the log and the proofs of them. See `ledger.evidence.Evidence`."""

    @property
    def size(self) -> int:
        """How many entries the log has, as far as this process knows."""

    def entries(self, wanted: Filter) -> Page[Entry]:
        """A page of the log, each entry proven to be under the authenticated head."""

    def entry(self, entry_id: int) -> Entry | None:
        """One entry, proven likewise; None if there is none of that number."""

    def checkpoint(self) -> str:
        """The newest signed checkpoint."""

    def receipt(self, entry: Entry) -> str:
        """The proof that an entry is under a signed checkpoint."""

    def receipts(self, wanted: Filter) -> Page[EntryReceipt]:
        """A page of proofs, all under one checkpoint."""

    def consistency(self, old: int, new: int) -> Consistency:
        """The proof that the log of size `new` extends that of size `old`. Raises InvalidRequest."""

    def log_key(self) -> LogKey:
        """The key that verifies checkpoints."""


class LogReader(Protocol):
    """The log and what the tables hold, for handlers."""

    @property
    def evidence(self) -> EvidenceReader:
        """Entries and proofs."""

    def verify(self) -> Verification:
        """Check log and state as stored. Blocks, as the log grows."""

    def stored_versions(self, key_id: KeyId) -> int:
        """How many versions of a key the database has rows of, genuine or not: for a repair."""

    def stored_name(self, text: str) -> KeyName | None:
        """The dialect's name of a row, genuine or not: for a repair."""

    def may_forget_tokens(self) -> bool:
        """Whether the database lets this process delete the rows of tokens past their end."""
