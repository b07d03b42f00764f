"""What one run of an operation hands to the ledger: entries to append, rows to change, the result to release."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from keyvault_lite.ledger.storage.record_types import RecordType
from keyvault_lite.model.archive import Segment
from keyvault_lite.model.encoding import Value
from keyvault_lite.model.evidence import Draft
from keyvault_lite.model.identity import Service, Setting, Token
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.keys import Key, KeyName
from keyvault_lite.model.names import ServiceId, TokenId
from keyvault_lite.model.opaque import Opaque

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Change:
    """Records as they shall be after a management operation. The ledger writes the rows that differ."""

    keys: tuple[Key, ...] = ()
    services: tuple[Service, ...] = ()
    tokens: tuple[Token, ...] = ()
    slots: tuple[Slot, ...] = ()
    settings: tuple[Setting, ...] = ()
    records: tuple[object, ...] = ()
    """Records of other declared types (`storage.record_types`)."""
    gone_names: tuple[KeyName, ...] = ()
    """Names whose rows become tombstones although no key is known to have them."""
    gone_tokens: tuple[TokenId, ...] = ()
    """Leased tokens past their end, whose rows are deleted."""
    lost_replies: tuple[str, ...] = ()
    """Kept replies that do not verify and are deleted, by `service id/key digest in hexadecimal`."""
    archived: Segment | None = None
    """A segment whose entries are deleted from the log; its record is among `settings`."""
    new_epoch: bool = False
    """Whether the log goes on under a new origin: an acknowledged rollback."""

    def records_of(self, kind: RecordType[R]) -> Sequence[R]:
        """The records of a declared type."""
        if kind.field is None:
            return [record for record in self.records if isinstance(record, kind.kind)]
        found: Sequence[R] = getattr(self, kind.field)
        return found


@dataclass(frozen=True, slots=True)
class StoredReply:
    """The kept reply of a mutating request with an Idempotency-Key."""

    service_id: ServiceId
    key_digest: bytes
    body_digest: bytes
    expires_at: int
    sealed: bytes = field(repr=False)
    entry_id: int = 0
    """The entry that recorded the first request; known once it is appended."""


class Outcome(Opaque, frozen=True):
    """One run of an operation on one state. Nothing of it may leave before the ledger has committed it."""

    drafts: Sequence[Draft]
    """One a recorded attempt: one, or one for each item of a batch. A change has exactly one."""
    result: object
    change: Change | None = None
    reply: StoredReply | None = None


class Committed(Opaque, frozen=True):
    """An outcome that is durable. `first_id` is the number of the entry of its first draft."""

    outcome: Outcome
    first_id: int

    @property
    def last_id(self) -> int:
        """The number of the entry of its last draft."""
        return self.first_id + len(self.outcome.drafts) - 1


class Authority(Protocol):
    """The small object that can MAC and sign for the ledger, which never sees a key."""

    @property
    def instance_id(self) -> bytes:
        """16 bytes that name this vault."""

    @property
    def log_public_key(self) -> bytes:
        """The raw Ed25519 public key of the log."""

    def row_mac(
        self, table: str, key: tuple[Value, ...], row_seq: int, values: tuple[Value, ...], *, schema: int = 1
    ) -> bytes:
        """Authenticate a row."""

    def head_mac(self, *values: Value) -> bytes:
        """Authenticate the head of the log."""

    def sign_log(self, message: bytes) -> bytes:
        """Sign a checkpoint."""


@dataclass(frozen=True, slots=True)
class PublicAuthority:
    """What everybody can check without the keyring: which log it is, and the key it is signed with."""

    instance_id: bytes
    log_public_key: bytes
