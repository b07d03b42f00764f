"""The shapes of the native API's replies: what is written, and the schema that documents it."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.identity import Permission, Role, TokenKind
from keyvault_lite.model.keys import Algorithm, KeyStatus, KeyType, PublicKeyFormat, Purpose, VersionStatus
from keyvault_lite.model.opaque import Opaque
from keyvault_lite.wire.native.cipher_bodies import Encoding

Id = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Hash = Annotated[str, Meta(extra_json_schema={"pattern": "^[0-9a-f]{64}$"})]
Hex = Annotated[str, Meta(description="Lower-case hexadecimal digits.")]


# Keys


class RotationReply(Struct):
    """Automatic rotation."""

    period_days: int | None
    next_at: Time | None


class KeyReply(Struct):
    """A key. There is no way to its material."""

    id: Id
    name: str | None
    type: KeyType
    size: int | None
    purpose: Purpose
    status: KeyStatus
    active_version: int | None
    created_at: Time
    description: str
    tags: dict[str, str]
    rotation: RotationReply
    versions_count: int
    aliases: Annotated[list[str], Meta(description="The names that dialects know it by.")]
    spec: Annotated[
        str | None, Meta(description="The kind in the word of the dialect that made it; native kinds have none.")
    ]
    destroy_at: Time | UnsetType = UNSET


class VersionReply(Struct):
    """One version of a key."""

    version: int
    status: VersionStatus
    created_at: Time


class PublicKeyReply(Struct):
    """A public key: PEM text, a JWK object, or base64 of DER or raw bytes."""

    version: int
    algorithm: Algorithm
    format: PublicKeyFormat
    public_key: str | dict[str, str]


# Encryption and signatures


class EncryptReply(Struct):
    """The message under a key of its own, and that key under the key's version. Keep both."""

    ciphertext: bytes
    encrypted_dek: bytes
    key_version: int


class DecryptReply(Opaque, frozen=True):
    """The message, written as `encoding` says."""

    plaintext: str
    encoding: Encoding
    key_version: int


class RewrapReply(Struct):
    """The message's key under the ACTIVE version."""

    encrypted_dek: bytes
    key_version: int


class DataKeyReply(Opaque, frozen=True):
    """A data key, in the clear and wrapped."""

    encrypted_key: bytes | UnsetType
    key_version: int
    plaintext_key: bytes | UnsetType = UNSET


class OpenedKeyReply(Opaque, frozen=True):
    """A data key in the clear."""

    plaintext_key: bytes
    key_version: int


class SignReply(Struct):
    """A signature or MAC."""

    signature: bytes
    algorithm: Algorithm
    key_version: int


class VerifyReply(Struct):
    """Whether the signature holds, and under which version."""

    valid: bool
    key_version: int | None


class RandomReply(Opaque, frozen=True):
    """Random bytes."""

    bytes: bytes


# Services


class GrantReply(Struct):
    """Permission to use the keys that `key` covers."""

    key: str
    actions: list[Permission]


class ServiceReply(Opaque, frozen=True, kw_only=True):
    """A service. Its token is not kept and cannot be shown."""

    id: Id
    name: str
    role: Role
    active: bool
    grants: list[GrantReply]
    created_at: Time
    expires_at: Time | None


class OwnTokenReply(Struct):
    """The token that a caller calls with; never its secret."""

    id: str
    kind: TokenKind
    created_at: Time
    expires_at: Annotated[Time | None, Meta(description="By itself, with its service, or with a token above it.")]
    renewable_until: Annotated[
        Time | None, Meta(description="The latest end that a renewal can reach; null if there is no limit.")
    ]


class SelfReply(ServiceReply, frozen=True, kw_only=True):
    """The service that calls. Role and grants are those of the token that it calls with."""

    token: OwnTokenReply


class NewAccessKeyReply(Opaque, frozen=True):
    """Credentials of the AWS dialect. The secret is shown this once; null when an Idempotency-Key repeats the reply."""

    access_key_id: str
    secret_access_key: str | None


class AccessKeyReply(Struct):
    """An access key of the AWS dialect; its secret cannot be shown."""

    access_key_id: str
    created_at: Time


class AccessKeysReply(Struct):
    """The access keys of a service that are not revoked, oldest first."""

    items: list[AccessKeyReply]


class NewServiceReply(ServiceReply, frozen=True, kw_only=True):
    """A service with its token, shown this once; null when an Idempotency-Key repeats the reply."""

    token: str | None
    token_expires_at: Time | None
    token_renewable_until: Annotated[
        Time | None, Meta(description="The latest end that a renewal by the service reaches; null if no limit.")
    ]


# Audit


class DisplayReply(Struct):
    """What the ids of an entry are called at the time of reading. No part of the entry: neither hashed nor signed."""

    service_name: str | None
    key_name: str | None
    subject_name: str | None


class EntryReply(Struct):
    """One entry of the audit log."""

    id: int
    service_id: str | None
    action: Action
    key_id: str | None
    key_version: int | None
    timestamp: Time
    result: Result
    reason: str | None
    prev_hash: Hash
    hash: Hash
    epoch: int
    state_seq: int
    state_root: Hash | None
    request_id: Hex
    client_request_id: str | None
    source: str | None
    context_digest: Hex | None
    bytes_in: int | None
    bytes_out: int | None
    key_ref: str | None
    subject: str | None
    operation: str | None
    comment: str | None
    count: int
    display: DisplayReply | UnsetType = UNSET


class ReceiptReply(Struct):
    """The proof that an entry is in the log (C2SP tlog-proof)."""

    id: int
    receipt: str


class FindingReply(Struct):
    """Something stored that does not verify."""

    table: str
    row: str
    problem: str


class VerificationReply(Struct):
    """What the check of log and state found."""

    valid: bool
    entries: int
    head: Hash
    first_invalid: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    findings: list[FindingReply] | UnsetType = UNSET
    archived: int | UnsetType = UNSET


class SealReply(Struct):
    """The server ends now."""

    sealed: bool


class ConsistencyReply(Struct):
    """The hashes that lead from the smaller tree to the larger (RFC 9162, section 2.1.4)."""

    old: int = msgspec.field(name="from")
    new: int = msgspec.field(name="to")
    hashes: list[bytes]


class LogKeyReply(Struct):
    """The log's verifier key in signed-note form, and the Ed25519 public key in it."""

    verifier_key: str
    public_key: bytes


# Pages


class KeyPage(Struct):
    """Some of the keys, oldest first."""

    items: list[KeyReply]
    next: str | None


class VersionPage(Struct):
    """Some of a key's versions, oldest first."""

    items: list[VersionReply]
    next: str | None


class ServicePage(Struct):
    """Some of the services, oldest first."""

    items: list[ServiceReply]
    next: str | None


class EntryPage(Struct):
    """Some of the entries."""

    items: list[EntryReply]
    next: str | None
    archived: int | UnsetType = UNSET


class ReceiptPage(Struct):
    """Some of the receipts, oldest first."""

    items: list[ReceiptReply]
    next: str | None
    archived: int | UnsetType = UNSET
