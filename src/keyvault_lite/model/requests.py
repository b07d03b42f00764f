"""All operations: the product's table of contents. A request is what is asked for, well-formed, not yet allowed.

Every front end builds these and hands them to `Engine.perform`; each has exactly one handler in the engine.
A value that can never be right is refused here with InvalidRequest or TooLarge.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from msgspec import Struct, field

from keyvault_lite.model.archive import Segment
from keyvault_lite.model.encoding import Context, check_context
from keyvault_lite.model.errors import InvalidRequest, KeyVaultError, TooLarge
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.identity import Grant, Role
from keyvault_lite.model.intake import RequestConnection
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.keys import (
    MAX_DESCRIPTION,
    MAX_DESTROY_DAYS,
    MAX_PLAINTEXT,
    MAX_ROTATION_DAYS,
    MAX_TAGS,
    MIN_DESTROY_DAYS,
    Algorithm,
    KeySpec,
    KeyType,
    PublicKeyFormat,
)
from keyvault_lite.model.names import SELF, KeyId, KeyRef, TokenId, check_name, check_pattern
from keyvault_lite.model.native_tokens import check_lifetime
from keyvault_lite.model.opaque import Opaque
from keyvault_lite.model.operation import Authority, Cost
from keyvault_lite.model.replies import Finding

MAX_BATCH: Final = 1000
MAX_RANDOM: Final = 1024
MAX_PAGE: Final = 1000
MAX_IDEMPOTENCY_KEY: Final = 128
MAX_COMMENT: Final = 512
MAX_TAG_NAME: Final = 128
MAX_TAG_VALUE: Final = 256
MAX_GRANTS: Final = 1000
MAX_WAIT: Final = 60
"""Seconds that one request may wait for the next entry of the log."""
MAX_INT: Final = 2**63 - 1
_CURSOR: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_ENTRY_CURSOR: Final = re.compile(r"[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The caller's Idempotency-Key, what it was sent with, and how its dialect writes a reply down."""

    key: str
    body_digest: bytes
    """SHA-256 of method, path and body: another body under the same key is a conflict."""
    render: Callable[[object], bytes]
    """The reply as bytes to keep (encrypted) and repeat; without the token, if it has one."""

    def __post_init__(self) -> None:
        if not (1 <= len(self.key) <= MAX_IDEMPOTENCY_KEY and self.key.isascii() and self.key.isprintable()):
            raise InvalidRequest("an Idempotency-Key is 1 to 128 printable ASCII characters")


class Origin(Struct, frozen=True):
    """Where a request came from: what the audit entry says about the way in."""

    request_id: bytes
    """16 random bytes made by the server."""
    source: str | None = None
    client_request_id: str | None = None
    operation: str | None = None
    idempotency: Idempotency | None = None
    conn: RequestConnection | None = None
    """The connection, if there is one. No entry tells of it."""


class Request(Opaque, frozen=True):
    """Base of all requests."""

    action: ClassVar[Action]
    cost: ClassVar[Cost]
    authority: ClassVar[Authority] = Authority.CALLER
    idempotent: ClassVar[bool] = False
    """Whether its reply is kept for its Idempotency-Key and repeated."""

    @property
    def generated_type(self) -> KeyType | None:
        """The type of key that it generates; None if that is the type of the key it names."""
        return None

    @property
    def bound_context(self) -> Context | None:
        """What its result is bound to, and the caller must give again; a keyed digest of it is in the entry."""
        return None


class KeyRequest(Request, frozen=True):
    """Base of the requests that name one key."""

    key: KeyRef


class Rejected(Request, frozen=True):
    """A request its dialect could not build. It passes the one door like any other: authenticated, recorded, refused.

    `early` errors (size, media type, text that does not parse) win over the role check, the others do not.
    """

    cost = Cost.QUICK
    of: Action
    error: KeyVaultError
    early: bool = False
    key: KeyRef | None = None


def _bounded(value: int, low: int, high: int, what: str) -> None:
    if not low <= value <= high:
        raise InvalidRequest(f"{what} is {low} to {high}")


def _check_tags(tags: Mapping[str, str]) -> None:
    if len(tags) > MAX_TAGS:
        raise InvalidRequest(f"at most {MAX_TAGS} tags")
    if any(not 1 <= len(name) <= MAX_TAG_NAME or len(value) > MAX_TAG_VALUE for name, value in tags.items()):
        raise InvalidRequest(f"a tag's name has 1 to {MAX_TAG_NAME} characters, its value at most {MAX_TAG_VALUE}")


def _check_description(text: str) -> None:
    if len(text) > MAX_DESCRIPTION:
        raise InvalidRequest(f"a description has at most {MAX_DESCRIPTION} characters")
    if "\x00" in text:
        raise InvalidRequest("a description has no NUL characters")  # not every database could hold it


def _check_size(data: bytes, what: str) -> None:
    if len(data) > MAX_PLAINTEXT:
        raise TooLarge(f"{what} is larger than {MAX_PLAINTEXT // 1024} KiB")


def _check_version(version: int | None) -> None:
    if version is not None:
        _bounded(version, 1, 2**31 - 1, "a version")


# Keys


class CreateKey(Request, frozen=True):
    """Generate a key with its first version. Answers Key."""

    action = Action.GENERATE
    cost = Cost.KEY_GENERATION
    idempotent = True
    spec: KeySpec
    name: str | None = None
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def generated_type(self) -> KeyType:
        """As asked for."""
        return self.spec.type

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name)
        self.spec.check_native()
        _check_description(self.description)
        _check_tags(self.tags)


class ListKeys(Request, frozen=True):
    """A page of the keys the caller may know of, oldest first. Answers Page[Key]."""

    action = Action.KEY_READ
    cost = Cost.KEY_LIST
    limit: int = 100
    after: str | None = None

    def __post_init__(self) -> None:
        _bounded(self.limit, 1, MAX_PAGE, "limit")


class ReadKey(KeyRequest, frozen=True):
    """One key. Answers Key."""

    action = Action.KEY_READ
    cost = Cost.QUICK


class ListVersions(KeyRequest, frozen=True):
    """A page of a key's versions, oldest first. Answers Page[KeyVersion]."""

    action = Action.KEY_READ
    cost = Cost.QUICK
    limit: int = 100
    after: str | None = None
    """The number of the version before the page."""

    def __post_init__(self) -> None:
        _bounded(self.limit, 1, MAX_PAGE, "limit")
        if self.after is not None and _CURSOR.fullmatch(self.after) is None:
            raise InvalidRequest("after is not a cursor of this list")


class ReadPublicKey(KeyRequest, frozen=True):
    """The public key of one version, by default the newest. Answers PublicKey."""

    action = Action.KEY_READ
    cost = Cost.QUICK
    format: PublicKeyFormat = PublicKeyFormat.PEM
    version: int | None = None

    def __post_init__(self) -> None:
        _check_version(self.version)


class UpdateKey(KeyRequest, frozen=True):
    """Change description, tags or rotation period; None leaves as it is, 0 days end automatic rotation. Answers Key."""

    action = Action.KEY_UPDATE
    cost = Cost.SHORT
    idempotent = True
    description: str | None = None
    tags: Mapping[str, str] | None = None
    rotation_days: int | None = None

    def __post_init__(self) -> None:
        if self.description is not None:
            _check_description(self.description)
        if self.tags is not None:
            _check_tags(self.tags)
        if self.rotation_days is not None:
            _bounded(self.rotation_days, 0, MAX_ROTATION_DAYS, "rotation_period_days")


class RotateKey(KeyRequest, frozen=True):
    """Make a new ACTIVE version; the former one is DEPRECATED. Answers Key."""

    action = Action.ROTATE
    cost = Cost.KEY_GENERATION
    idempotent = True


class RevokeKey(KeyRequest, frozen=True):
    """Revoke the whole key, or one version that is not ACTIVE; final. Answers Key."""

    action = Action.REVOKE
    cost = Cost.SHORT
    idempotent = True
    version: int | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        _check_version(self.version)
        if self.reason is not None and len(self.reason) > MAX_COMMENT:
            raise InvalidRequest(f"a reason has at most {MAX_COMMENT} characters")


class DisableKey(KeyRequest, frozen=True):
    """Stop all use of a key until it is enabled. Answers Key."""

    action = Action.DISABLE
    cost = Cost.SHORT
    idempotent = True


class EnableKey(KeyRequest, frozen=True):
    """Allow use of a DISABLED key again. Answers Key."""

    action = Action.ENABLE
    cost = Cost.SHORT
    idempotent = True


class DestroyKey(KeyRequest, frozen=True):
    """Schedule the destruction of all material of a key. Answers Key."""

    action = Action.DESTROY
    cost = Cost.SHORT
    idempotent = True
    days: int = MAX_DESTROY_DAYS

    def __post_init__(self) -> None:
        _bounded(self.days, MIN_DESTROY_DAYS, MAX_DESTROY_DAYS, "days")


class RestoreKey(KeyRequest, frozen=True):
    """Call a scheduled destruction off. Answers Key."""

    action = Action.RESTORE
    cost = Cost.SHORT
    idempotent = True


class RotateDueKey(KeyRequest, frozen=True):
    """Rotate a key whose rotation period has passed; the vault itself asks. Answers Key."""

    action = Action.ROTATE
    cost = Cost.KEY_GENERATION
    authority = Authority.VAULT


class EraseDueKey(KeyRequest, frozen=True):
    """Erase the material of a key whose waiting period has passed; the vault itself asks. Answers Key."""

    action = Action.DESTROY
    cost = Cost.SHORT
    authority = Authority.VAULT


class RemoveTokens(Request, frozen=True):
    """Remove those of these leased tokens that have been past their end long enough; the vault itself asks.

    Answers how many.
    """

    action = Action.TOKEN_REMOVE
    cost = Cost.SHORT
    authority = Authority.VAULT
    tokens: tuple[TokenId, ...] = ()


# Cipher


class CipherRequest(KeyRequest, frozen=True):
    """Base of the requests that carry a context."""

    context: Context | None = None

    @property
    def bound_context(self) -> Context | None:
        """The context."""
        return self.context

    def check_context(self) -> None:
        """Apply the limits of a context."""
        if self.context:
            check_context(self.context)


class Encrypt(CipherRequest, frozen=True):
    """Encrypt under a fresh DEK, wrapped by the ACTIVE version. Answers Encrypted."""

    action = Action.ENCRYPT
    cost = Cost.PRIMITIVE
    plaintext: bytes = b""

    def __post_init__(self) -> None:
        _check_size(self.plaintext, "plaintext")
        self.check_context()


class Decrypt(CipherRequest, frozen=True):
    """Open a message. `as_text` refuses (before anything is released) what is not UTF-8. Answers Decrypted."""

    action = Action.DECRYPT
    cost = Cost.PRIMITIVE
    ciphertext: bytes = b""
    encrypted_dek: bytes = b""
    key_version: int | None = None
    as_text: bool = False

    def __post_init__(self) -> None:
        self.check_context()


class Rewrap(CipherRequest, frozen=True):
    """Wrap a message's DEK under the ACTIVE version; its ciphertext stays as it is. Answers Rewrapped."""

    action = Action.REWRAP
    cost = Cost.PRIMITIVE
    encrypted_dek: bytes = b""

    def __post_init__(self) -> None:
        self.check_context()


class GenerateDataKey(CipherRequest, frozen=True):
    """Make a data key for the caller's own use, wrapped by the ACTIVE version. Answers DataKey."""

    action = Action.DATA_KEY
    cost = Cost.PRIMITIVE
    bits: int = 256
    reveal: bool = True

    def __post_init__(self) -> None:
        if self.bits not in {128, 256, 512}:
            raise InvalidRequest("bits is 128, 256 or 512")
        self.check_context()


class OpenDataKey(CipherRequest, frozen=True):
    """Open a wrapped data key. Answers DataKey."""

    action = Action.DATA_KEY_OPEN
    cost = Cost.PRIMITIVE
    encrypted_key: bytes = b""

    def __post_init__(self) -> None:
        self.check_context()


# Signing


class Sign(KeyRequest, frozen=True):
    """Sign or MAC with the ACTIVE version. Answers Signed."""

    action = Action.SIGN
    cost = Cost.PRIMITIVE
    message: bytes = b""
    algorithm: Algorithm | None = None
    prehashed: bool = False

    def __post_init__(self) -> None:
        _check_size(self.message, "message")


class Verify(KeyRequest, frozen=True):
    """Check a signature or MAC against one version, or against each that may verify, newest first. Answers Verified."""

    action = Action.VERIFY
    cost = Cost.PRIMITIVE
    message: bytes = b""
    signature: bytes = b""
    algorithm: Algorithm | None = None
    prehashed: bool = False
    key_version: int | None = None

    def __post_init__(self) -> None:
        _check_size(self.message, "message")
        _check_version(self.key_version)


BatchItem = Encrypt | Decrypt | Rewrap | Sign | Verify


class Batch(KeyRequest, frozen=True):
    """Up to 1 000 requests of one kind on one key, decided and recorded one by one, committed together.

    An item that could not be built is its error in the same place. Answers BatchReply.
    """

    max_items: ClassVar[int] = MAX_BATCH
    of: Action = Action.ENCRYPT
    items: tuple[KeyRequest | KeyVaultError, ...] = ()

    def __post_init__(self) -> None:
        if not self.items:
            raise InvalidRequest("a batch has at least one item")
        if len(self.items) > self.max_items:
            raise TooLarge(f"a batch has at most {self.max_items} items")
        if any(isinstance(item, Request) and item.action is not self.of for item in self.items):
            # Roles and grants are evaluated once, on `of`: an item of another kind would pass unchecked.
            raise InvalidRequest("a batch holds one kind of request")


class GenerateRandom(Request, frozen=True):
    """Random bytes from the operating system's generator. Answers bytes."""

    action = Action.RANDOM
    cost = Cost.QUICK
    count: int

    def __post_init__(self) -> None:
        _bounded(self.count, 1, MAX_RANDOM, "bytes")


# Services


def _check_grants(grants: tuple[Grant, ...]) -> None:
    if len(grants) > MAX_GRANTS:
        raise InvalidRequest(f"at most {MAX_GRANTS} grants")
    for grant in grants:
        check_pattern(grant.key)
        if not grant.actions:
            raise InvalidRequest("a grant allows at least one action")


class CreateService(Request, frozen=True):
    """Make a service and its token. Answers NewService."""

    action = Action.SERVICE_CREATE
    cost = Cost.SHORT
    idempotent = True
    name: str
    role: Role
    grants: tuple[Grant, ...] = ()
    expires_at: int | None = None
    token_ttl: int | None = None
    token_max_ttl: int | None = None

    def __post_init__(self) -> None:
        if check_name(self.name) == SELF:
            raise InvalidRequest("the name self stands for the service that calls: choose another")
        _check_grants(self.grants)
        check_lifetime(self.token_ttl, self.token_max_ttl)


class ListServices(Request, frozen=True):
    """A page of the services, oldest first. Answers Page[Service]."""

    action = Action.SERVICE_READ
    cost = Cost.QUICK
    limit: int = 100
    after: str | None = None

    def __post_init__(self) -> None:
        _bounded(self.limit, 1, MAX_PAGE, "limit")


class ServiceRequest(Request, frozen=True):
    """Base of the requests that name one service, by id or name."""

    service: str


class ReadService(ServiceRequest, frozen=True):
    """One service. Answers Service."""

    action = Action.SERVICE_READ
    cost = Cost.QUICK


class ReadSelf(Request, frozen=True):
    """The caller's own service, and the token it calls with. Answers Caller."""

    action = Action.SELF_READ
    cost = Cost.QUICK


NEVER: Final = 0
"""`expires_at` of a service that is to expire no more."""


class UpdateService(ServiceRequest, frozen=True):
    """Change role, grants, active or expiry; None leaves as it is. Answers Service."""

    action = Action.SERVICE_UPDATE
    cost = Cost.SHORT
    idempotent = True
    role: Role | None = None
    grants: tuple[Grant, ...] | None = None
    expected_grants: tuple[Grant, ...] | None = None
    """The grants that it has to have for anything to change: a caller that changes grants has read them before."""
    active: bool | None = None
    expires_at: int | None = None

    def __post_init__(self) -> None:
        if self.grants is not None:
            _check_grants(self.grants)


class RenewToken(ServiceRequest, frozen=True):
    """Replace a service's native token. Answers NewService."""

    action = Action.TOKEN_RENEW
    cost = Cost.SHORT
    idempotent = True
    ttl: int | None = None
    """Seconds that the token is valid. From an ADMIN also what later renewals give, 0 for no limit; None leaves it."""
    max_ttl: int | None = None
    """Seconds from now beyond which no renewal by the service extends it, 0 for no limit; for an ADMIN alone."""
    grace: int = 0
    """Seconds that the token which asks, or the newest of the service, stays valid; with 0 it ends at once."""

    def __post_init__(self) -> None:
        check_lifetime(self.ttl, self.max_ttl, self.grace)


class CreateAccessKey(ServiceRequest, frozen=True):
    """Give a service credentials to sign requests with. Answers NewAccessKey."""

    action = Action.ACCESS_KEY_CREATE
    cost = Cost.SHORT
    idempotent = True


class ListAccessKeys(ServiceRequest, frozen=True):
    """The access keys of a service that are not revoked, oldest first. Answers Page[Token]."""

    action = Action.SERVICE_READ
    cost = Cost.SHORT


class RevokeAccessKey(ServiceRequest, frozen=True):
    """End an access key at once. Answers Page[Token] of those left."""

    action = Action.ACCESS_KEY_REVOKE
    cost = Cost.SHORT
    idempotent = True
    access_key_id: str


class Initialise(Request, frozen=True):
    """Begin an empty vault: its keyring's first slot and its first ADMIN. Answers NewService."""

    action = Action.INITIALISE
    cost = Cost.SHORT
    authority = Authority.VAULT
    slot: Slot
    name: str = "admin"
    recovery: Slot | None = None
    """A second slot, for the case that the root of the first is lost."""

    def __post_init__(self) -> None:
        check_name(self.name)


class RecoverAdmin(Request, frozen=True):
    """Give the oldest active ADMIN a new token, or make an ADMIN if none is left; the old dies. Answers NewService."""

    action = Action.TOKEN_RENEW
    cost = Cost.SHORT
    authority = Authority.VAULT


class AddSlot(Request, frozen=True):
    """Let another master key open the keyring too. Answers None."""

    action = Action.MASTER_KEY_ROTATE
    cost = Cost.SHORT
    authority = Authority.VAULT
    slot: Slot


class RemoveSlots(Request, frozen=True):
    """Let the master keys of these slots open the keyring no more. Answers the number of slots removed."""

    action = Action.MASTER_KEY_ROTATE
    cost = Cost.SHORT
    authority = Authority.VAULT
    slot_ids: tuple[str, ...]


class SealVault(Request, frozen=True):
    """Have the server end, and start again with the keyring closed. Answers None."""

    action = Action.SEAL
    cost = Cost.SHORT


class RecordUnseal(Request, frozen=True):
    """Put on record which root has opened the vault, and what failed before. Answers None."""

    action = Action.UNSEAL
    cost = Cost.SHORT
    authority = Authority.VAULT
    comment: str


class RecordRootCheck(Request, frozen=True):
    """Put on record which slots their roots open. Answers None."""

    action = Action.ROOT_CHECK
    cost = Cost.SHORT
    authority = Authority.VAULT
    comment: str


class TrustAnchor(Request, frozen=True):
    """Put on record that the log goes on from `size` entries although no anchor confirms it. Answers None."""

    action = Action.ANCHOR_TRUST
    cost = Cost.SHORT
    authority = Authority.VAULT
    size: int
    lost: str | None = None
    """What an acknowledged rollback loses, in words; None if the anchor was only missing."""


class Repair(Request, frozen=True):
    """Give up, on record, an object that a quarantine has set aside. Answers None."""

    action = Action.REPAIR
    cost = Cost.SHORT
    authority = Authority.VAULT
    finding: Finding
    slot: Slot | None = None
    """What takes the place of a slot that does not verify."""


# Audit


class ArchiveEntries(Request, frozen=True):
    """Put on record that a file holds the oldest entries, whole and checked, and delete them here. Answers None."""

    action = Action.AUDIT_ARCHIVE
    cost = Cost.SHORT
    authority = Authority.VAULT
    segment: Segment


class ListAudit(Request, frozen=True):
    """A page of the log, newest first or `ascending`. Answers Page[Entry]. Times: microseconds, `until` exclusive."""

    action = Action.AUDIT_READ
    cost = Cost.LOG_READ
    limit: int = 100
    after: str | None = None
    service_id: str | None = None
    key_id: KeyId | None = None
    of: Action | None = None
    result: Result | None = None
    since: int | None = None
    until: int | None = None
    ascending: bool = False

    def __post_init__(self) -> None:
        _bounded(self.limit, 1, MAX_PAGE, "limit")


class FollowAudit(Request, frozen=True):
    """The entries behind a cursor, in a session of reading; waits for one if there is none. Answers LogPage.

    Its `next` is never None: it is where the next request goes on.
    """

    action = Action.AUDIT_READ
    cost = Cost.QUICK
    wanted: ListAudit
    wait: int = 0
    """Seconds; 0 answers at once."""

    def __post_init__(self) -> None:
        _bounded(self.wait, 0, MAX_WAIT, "wait")
        if not self.wanted.ascending:
            raise InvalidRequest("wait reads the log oldest first: order is asc, or absent")
        if self.wanted.until is not None:
            raise InvalidRequest("wait reads what comes next: there is no until")
        if self.wanted.after is not None and _ENTRY_CURSOR.fullmatch(self.wanted.after) is None:
            raise InvalidRequest("after is not a cursor of this list")

    @property
    def first(self) -> int:
        """The first entry that it may read."""
        return int(self.wanted.after or 0) + 1


class ReadMetrics(Request, frozen=True):
    """The numbers of the serving processes, in a session of reading.

    Answers text in the exposition format of Prometheus.
    """

    action = Action.METRICS_READ
    cost = Cost.QUICK


class VerifyAudit(Request, frozen=True):
    """Check the whole log and state. Answers Verification."""

    action = Action.AUDIT_VERIFY
    cost = Cost.LOG_CHECK


class ReadCheckpoint(Request, frozen=True):
    """The newest signed checkpoint. Answers text in signed-note form."""

    action = Action.AUDIT_READ
    cost = Cost.SHORT


class ReadReceipt(Request, frozen=True):
    """The proof that an entry is in the log, up to a signed checkpoint. Answers text in tlog-proof form."""

    action = Action.RECEIPT_READ
    cost = Cost.LOG_READ
    entry: int


class ListReceipts(Request, frozen=True):
    """The proofs of the entries that match, oldest first, up to entry `last`. Answers Page[EntryReceipt]."""

    action = Action.AUDIT_READ
    cost = Cost.LOG_READ
    wanted: ListAudit
    last: int

    def __post_init__(self) -> None:
        _bounded(self.last, 1, MAX_INT, "to")
        if not self.wanted.ascending:
            raise InvalidRequest("receipts are listed oldest first")


class ReadConsistency(Request, frozen=True):
    """The proof that the log only grew from `old` to `new` entries. Answers Consistency."""

    action = Action.AUDIT_READ
    cost = Cost.LOG_READ
    old: int
    new: int

    def __post_init__(self) -> None:
        if not 0 <= self.old <= self.new <= MAX_INT:
            raise InvalidRequest("sizes of the log are 0 or more, `from` not above `to`")


class ReadLogKey(Request, frozen=True):
    """The key that verifies the log's checkpoints. Answers LogKey."""

    action = Action.LOG_KEY_READ
    cost = Cost.SHORT
