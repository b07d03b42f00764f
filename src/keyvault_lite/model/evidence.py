"""What the audit log records of one attempt: before it is sealed (Draft) and as stored in the log (Entry)."""

from dataclasses import dataclass
from enum import StrEnum

from msgspec import Struct

from keyvault_lite.model.names import KeyId, ServiceId


class Action(StrEnum):
    """What was attempted. The list is part of the contract; later features add to it."""

    AUTHENTICATE = "authenticate"
    INITIALISE = "initialise"
    GENERATE = "generate"
    KEY_READ = "key_read"
    KEY_UPDATE = "key_update"
    ROTATE = "rotate"
    REVOKE = "revoke"
    DISABLE = "disable"
    ENABLE = "enable"
    DESTROY = "destroy"
    RESTORE = "restore"
    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"
    REWRAP = "rewrap"
    DATA_KEY = "data_key"
    DATA_KEY_OPEN = "data_key_open"
    SIGN = "sign"
    VERIFY = "verify"
    RANDOM = "random"
    SELF_READ = "self_read"
    """A caller read its own role, grants and the end of its token."""
    SERVICE_CREATE = "service_create"
    SERVICE_READ = "service_read"
    SERVICE_UPDATE = "service_update"
    TOKEN_RENEW = "token_renew"  # noqa: S105  (the name of an action, not a secret)
    AUDIT_READ = "audit_read"
    AUDIT_VERIFY = "audit_verify"
    METRICS_READ = "metrics_read"
    RECEIPT_READ = "receipt_read"
    LOG_KEY_READ = "log_key_read"
    DERIVE = "derive"
    ENCAPSULATE = "encapsulate"
    DECAPSULATE = "decapsulate"
    IMPORT = "import"
    GRANT_RETIRE = "grant_retire"
    ACCESS_KEY_CREATE = "access_key_create"
    ACCESS_KEY_REVOKE = "access_key_revoke"
    INTEGRITY = "integrity"
    """The vault itself reports stored data that does not verify."""
    REPAIR = "repair"
    """What a quarantine has lost is given up, on record."""
    MASTER_KEY_ROTATE = "master_key_rotate"
    AUDIT_ARCHIVE = "audit_archive"
    """The oldest entries were archived in a file, and deleted from the database."""
    ANCHOR_TRUST = "anchor_trust"
    """The vault goes on from a state that its anchor does not confirm, by the operator's word."""
    MIGRATE = "migrate"
    """The vault was moved into another database."""
    HASH = "hash"
    LOGIN = "login"
    SETTING_READ = "setting_read"
    SETTING_UPDATE = "setting_update"
    TOKEN_CREATE = "token_create"  # noqa: S105  (as above)
    TOKEN_EXTEND = "token_extend"  # noqa: S105
    TOKEN_READ = "token_read"  # noqa: S105
    TOKEN_REMOVE = "token_remove"  # noqa: S105
    """Leased tokens past their end are removed, by the vault itself."""
    TOKEN_REVOKE = "token_revoke"  # noqa: S105
    SEAL = "seal"
    """The server ends and starts sealed."""
    UNSEAL = "unseal"
    """A server has opened the vault by a root of trust."""
    ROOT_CHECK = "root_check"
    """The roots of trust were asked whether they open their slots."""


class Result(StrEnum):
    """How the attempt ended."""

    SUCCESS = "success"
    DENIED = "denied"
    ERROR = "error"


class LoginFault(StrEnum):
    """Why a caller was not authenticated: for the entry alone, the answer to the caller is the same for all."""

    MISSING = "missing"
    """There was no credential, or nothing that could be one."""
    UNKNOWN = "unknown"
    """No such credential, or the secret is wrong."""
    EXPIRED = "expired"
    """Of the credential itself."""
    REPLACED = "replaced"
    """A token that was renewed, and whose grace period, if it had one, is over."""
    REVOKED = "revoked"
    PARENT_ENDED = "parent_ended"
    """A token above it is no longer valid."""
    INACTIVE = "inactive"
    """The service is deactivated."""
    SERVICE_EXPIRED = "service_expired"
    WRONG_SIGNATURE = "wrong_signature"
    STALE_SIGNATURE = "stale_signature"


class Draft(Struct, frozen=True, kw_only=True):
    """One attempt as the engine knows it. Never holds a plaintext, ciphertext, token, raw context or raw body.

    The order of its fields is that of the entry's bytes.
    """

    service_id: ServiceId | None = None
    action: Action
    key_id: KeyId | None = None
    key_version: int | None = None
    result: Result
    reason: str | None = None
    """An error code, a LoginFault, or `replayed` for an answer repeated from an Idempotency-Key."""
    request_id: bytes
    """128 random bits of the server; they also blind the leaf hash."""
    client_request_id: str | None = None
    source: str | None = None
    """The peer's address."""
    context_digest: bytes | None = None
    """Keyed digest of (key, context): equal contexts under one key are equal here, nothing more is revealed."""
    bytes_in: int | None = None
    bytes_out: int | None = None
    key_ref: str | None = None
    """What the caller called a key that does not exist: only if it could be a name, else a keyed digest."""
    subject: str | None = None
    """The service that was acted upon."""
    operation: str | None = None
    """The dialect's own name of the operation; None for the native API."""
    comment: str | None = None
    """What an ADMIN gave as the reason of a revocation."""
    count: int = 1
    """How many attempts this entry stands for (failed logins from one address beyond ten a second)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One sealed entry: a draft with its place in the log. `hash` is chain link and Merkle leaf at once."""

    id: int
    """Sequence number, from 1 without a gap. The leaf's index is id - 1."""
    epoch: int
    timestamp: int
    """Microseconds since 1970-01-01 UTC; never less than the entry before."""
    state_seq: int
    """The newest management entry at or before this one; 0 before the first."""
    state_root: bytes | None
    """The root of the state after this entry; management entries only."""
    draft: Draft
    prev_hash: bytes
    hash: bytes
