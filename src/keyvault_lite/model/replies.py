"""What operations answer with. Bytes are bytes here; each dialect writes them its own way."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from msgspec import Struct

from keyvault_lite.model.errors import KeyVaultError
from keyvault_lite.model.evidence import Entry
from keyvault_lite.model.identity import Service, Token
from keyvault_lite.model.keys import Algorithm, PublicKeyFormat
from keyvault_lite.model.opaque import Opaque

T = TypeVar("T")


class Answer(Opaque, frozen=True):
    """A result and the number of the audit entry that records it. It exists only once that entry is durable."""

    result: object
    audit_id: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """The stored reply of an earlier request with the same Idempotency-Key, as its dialect wrote it."""

    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list; `next` is the cursor of the part after it, None at the end."""

    items: tuple[T, ...]
    next: str | None
    archived: int = 0
    """Of the log: how many of the oldest entries are in an archive, and not listed."""


@dataclass(frozen=True, slots=True)
class LogPage(Page[Entry]):
    """A page of the log. `names` are for display: no part of the entries, and none of it is under their hashes."""

    names: Mapping[str, str] = field(default_factory=dict)
    """What the services and keys of these entries are called now, by id; some have no name."""


@dataclass(frozen=True, slots=True)
class EntryReceipt:
    """The proof of one entry, in tlog-proof form."""

    entry: int
    receipt: str


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key: text for PEM, an object for JWK, bytes for DER and raw."""

    version: int
    algorithm: Algorithm
    format: PublicKeyFormat
    public_key: str | bytes | Mapping[str, str]


class Encrypted(Struct, frozen=True):
    """A message under a fresh DEK, and that DEK under the key version."""

    ciphertext: bytes
    encrypted_dek: bytes
    key_version: int


@dataclass(frozen=True, slots=True)
class Decrypted:
    """The opened message."""

    plaintext: bytes = field(repr=False)
    key_version: int


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """The DEK under the ACTIVE version."""

    encrypted_dek: bytes
    key_version: int


@dataclass(frozen=True, slots=True)
class DataKey:
    """A data key; what the caller did not ask for or already has is None."""

    plaintext_key: bytes | None = field(repr=False)
    encrypted_key: bytes | None
    key_version: int


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature or MAC."""

    signature: bytes
    algorithm: Algorithm
    key_version: int


@dataclass(frozen=True, slots=True)
class Verified:
    """Whether a signature holds, and the version it holds under (None if under none)."""

    valid: bool
    key_version: int | None


@dataclass(frozen=True, slots=True)
class BatchReply:
    """Per item its reply or its error, in order, and the audit entry of each."""

    items: tuple[object, ...] = field(repr=False)
    """Encrypted, Decrypted, … or KeyVaultError."""
    audit_ids: tuple[int, ...] = ()

    def error(self, index: int) -> KeyVaultError | None:
        """The error in that place, if it is one."""
        item = self.items[index]
        return item if isinstance(item, KeyVaultError) else None


@dataclass(frozen=True, slots=True)
class NewService:
    """A service with a token that is shown this once."""

    service: Service
    token: str = field(repr=False)
    token_expires_at: int | None = None
    """When the token ends; None if it does not."""
    token_renewable_until: int | None = None
    """The latest end that a renewal by the service can reach; None if there is no limit."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The service that asks: its role and grants are those of the token that it asks with."""

    service: Service
    token: Token
    expires_at: int | None
    """When the token ends: by itself, or with its service or a token above it."""
    renewable_until: int | None
    """The latest end that a renewal by the service can reach."""


@dataclass(frozen=True, slots=True)
class NewAccessKey:
    """Credentials for signed requests; the secret is shown this once."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something stored that does not verify."""

    table: str
    row: str
    problem: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of the log and state found."""

    valid: bool
    entries: int
    head: bytes
    """Hash of the newest entry."""
    first_invalid: int | None = None
    reason: str | None = None
    findings: tuple[Finding, ...] = ()
    more: int = 0
    """Findings beyond those that are listed."""
    notes: tuple[str, ...] = ()
    """What a reader should know and is no finding."""
    archived: int = 0
    """How many of the oldest entries are in an archive that was not read; `entries` does not count them."""


@dataclass(frozen=True, slots=True)
class Consistency:
    """A proof that the log of `old` entries is a prefix of the log of `new` entries (RFC 9162, section 2.1.4)."""

    old: int
    new: int
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LogKey:
    """What a stranger needs to check the log's signatures."""

    verifier_key: str
    """The key in signed-note form: name, key hash and key in one line."""
    public_key: bytes
    """The Ed25519 public key, 32 bytes."""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the vault can serve. Told to anyone, hence nothing in it is a secret."""

    status: str
    """`ok`, or the reason why not, in a word."""
    sealed: bool
    version: str
    serving: bool
    details: Mapping[str, object] = field(default_factory=dict)
