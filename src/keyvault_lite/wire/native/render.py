"""Results as the native API writes them: from the words of the model to the shapes of replies."""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import UNSET, Struct, structs

from keyvault_lite.model.encoding import encode_base64
from keyvault_lite.model.errors import KeyVaultError
from keyvault_lite.model.evidence import Entry
from keyvault_lite.model.identity import Service, Token
from keyvault_lite.model.keys import Key, KeyVersion
from keyvault_lite.model.replies import (
    BatchReply,
    Caller,
    Consistency,
    DataKey,
    Decrypted,
    Encrypted,
    EntryReceipt,
    LogKey,
    LogPage,
    NewAccessKey,
    NewService,
    Page,
    PublicKey,
    Rewrapped,
    Signed,
    Verification,
    Verified,
)
from keyvault_lite.wire.native.cipher_bodies import Encoding
from keyvault_lite.wire.native.replies import (
    AccessKeyReply,
    AccessKeysReply,
    ConsistencyReply,
    DataKeyReply,
    DecryptReply,
    DisplayReply,
    EncryptReply,
    EntryReply,
    FindingReply,
    GrantReply,
    KeyReply,
    LogKeyReply,
    NewAccessKeyReply,
    NewServiceReply,
    OwnTokenReply,
    PublicKeyReply,
    RandomReply,
    ReceiptReply,
    RewrapReply,
    RotationReply,
    SealReply,
    SelfReply,
    ServiceReply,
    SignReply,
    VerificationReply,
    VerifyReply,
    VersionReply,
)
from keyvault_lite.wire.problems import problem
from keyvault_lite.wire.times import format_time


class Asked(Struct, frozen=True):
    """What a result answers: the request its writer is made for."""

    request: Any
    request_id: str


def _time(microseconds: int | None) -> str | None:
    return None if microseconds is None else format_time(microseconds)


# Keys


def key(key: Key, _: object) -> KeyReply:
    """Write a key."""
    return KeyReply(
        id=key.id,
        name=key.name,
        type=key.spec.type,
        size=key.spec.size,
        purpose=key.spec.purpose,
        status=key.status,
        active_version=None if key.active is None else key.active.version,
        created_at=format_time(key.created_at),
        description=key.description,
        tags=dict(key.tags),
        rotation=RotationReply(period_days=key.rotation_days, next_at=_time(key.rotate_at)),
        versions_count=len(key.versions),
        aliases=list(key.aliases),
        spec=key.spec.word,
        destroy_at=UNSET if key.destroy_at is None else format_time(key.destroy_at),
    )


def version(version: KeyVersion, _: object) -> VersionReply:
    """Write a version."""
    return VersionReply(version=version.version, status=version.status, created_at=format_time(version.created_at))


def public_key(result: PublicKey, _: object) -> PublicKeyReply:
    """Write a public key."""
    written = result.public_key
    if isinstance(written, bytes):
        written = encode_base64(written)
    elif isinstance(written, Mapping):
        written = dict(written)
    return PublicKeyReply(version=result.version, algorithm=result.algorithm, format=result.format, public_key=written)


# Encryption and signatures


def encrypted(result: Encrypted, _: object) -> EncryptReply:
    """Write an encrypted message."""
    return EncryptReply(result.ciphertext, result.encrypted_dek, result.key_version)


def decrypted(result: Decrypted, asked: Asked) -> DecryptReply:
    """Write an opened message; the engine has made sure that what was asked for as text is text."""
    if asked.request.as_text:
        return DecryptReply(result.plaintext.decode(), Encoding.TEXT, result.key_version)
    return DecryptReply(encode_base64(result.plaintext), Encoding.BASE64, result.key_version)


def rewrapped(result: Rewrapped, _: object) -> RewrapReply:
    """Write a wrapped key."""
    return RewrapReply(result.encrypted_dek, result.key_version)


def data_key(result: DataKey, _: object) -> DataKeyReply:
    """Write a data key: what there is of it."""
    return DataKeyReply(
        encrypted_key=UNSET if result.encrypted_key is None else result.encrypted_key,
        plaintext_key=UNSET if result.plaintext_key is None else result.plaintext_key,
        key_version=result.key_version,
    )


def signed(result: Signed, _: object) -> SignReply:
    """Write a signature."""
    return SignReply(result.signature, result.algorithm, result.key_version)


def verified(result: Verified, _: object) -> VerifyReply:
    """Write a verdict."""
    return VerifyReply(result.valid, result.key_version)


def batch(single: Callable[[Any, Asked], Any]) -> Callable[[BatchReply, Asked], object]:
    """How batches of that operation are written: each item as if alone, or its problem, and its entry's number."""

    def render(result: BatchReply, asked: Asked) -> object:
        items = []
        for item, request, audit_id in zip(result.items, asked.request.items, result.audit_ids, strict=True):
            if isinstance(item, KeyVaultError):
                written: dict[str, object] = {"error": problem(item, asked.request_id)}
            else:
                written = structs.asdict(single(item, Asked(request, asked.request_id)))
            written["audit_id"] = audit_id
            items.append(written)
        return {"items": items}

    return render


def random(result: bytes, _: object) -> RandomReply:
    """Write random bytes."""
    return RandomReply(result)


# Services


def _service(service: Service) -> dict[str, Any]:
    return {
        "id": service.id,
        "name": service.name,
        "role": service.role,
        "active": service.active,
        "grants": [GrantReply(grant.key, sorted(grant.actions)) for grant in service.grants],
        "created_at": format_time(service.created_at),
        "expires_at": _time(service.expires_at),
    }


def service(service: Service, _: object) -> ServiceReply:
    """Write a service."""
    return ServiceReply(**_service(service))


def new_access_key(result: NewAccessKey, _: object) -> NewAccessKeyReply:
    """Write credentials."""
    return NewAccessKeyReply(result.access_key_id, result.secret_access_key)


def kept_access_key(result: NewAccessKey, _: object) -> NewAccessKeyReply:
    """Write credentials as an Idempotency-Key keeps them: without the secret."""
    return NewAccessKeyReply(result.access_key_id, None)


def access_keys(result: Page[Token], _: object) -> AccessKeysReply:
    """Write the access keys of a service."""
    return AccessKeysReply([AccessKeyReply(one.id, format_time(one.created_at)) for one in result.items])


def new_service(result: NewService, _: object) -> NewServiceReply:
    """Write a service and its token."""
    return _new_service(result, result.token)


def kept_service(result: NewService, _: object) -> NewServiceReply:
    """Write a service as an Idempotency-Key keeps it: without the token."""
    return _new_service(result, None)


def _new_service(result: NewService, token: str | None) -> NewServiceReply:
    return NewServiceReply(
        **_service(result.service),
        token=token,
        token_expires_at=_time(result.token_expires_at),
        token_renewable_until=_time(result.token_renewable_until),
    )


def caller(result: Caller, _: object) -> SelfReply:
    """Write the service that calls."""
    token = OwnTokenReply(
        result.token.id,
        result.token.kind,
        format_time(result.token.created_at),
        _time(result.expires_at),
        _time(result.renewable_until),
    )
    return SelfReply(**_service(result.service), token=token)


# Audit


def _hex(raw: bytes | None) -> str | None:
    return None if raw is None else raw.hex()


def log_page(result: LogPage, asked: Asked) -> object:
    """Write a page of the log, with what its services and keys are called."""
    return page(lambda one, _: entry(one, result.names))(result, asked)


def receipt(result: EntryReceipt, _: object) -> ReceiptReply:
    """Write a receipt among others."""
    return ReceiptReply(result.entry, result.receipt)


def entry(entry: Entry, names: Mapping[str, str] | None) -> EntryReply:
    """Write an entry; `names` are of services and keys by id, for display."""
    draft = entry.draft
    return EntryReply(
        id=entry.id,
        service_id=draft.service_id,
        action=draft.action,
        key_id=draft.key_id,
        key_version=draft.key_version,
        timestamp=format_time(entry.timestamp),
        result=draft.result,
        reason=draft.reason,
        prev_hash=entry.prev_hash.hex(),
        hash=entry.hash.hex(),
        epoch=entry.epoch,
        state_seq=entry.state_seq,
        state_root=_hex(entry.state_root),
        request_id=draft.request_id.hex(),
        client_request_id=draft.client_request_id,
        source=draft.source,
        context_digest=_hex(draft.context_digest),
        bytes_in=draft.bytes_in,
        bytes_out=draft.bytes_out,
        key_ref=draft.key_ref,
        subject=draft.subject,
        operation=draft.operation,
        comment=draft.comment,
        count=draft.count,
        display=UNSET
        if names is None
        else DisplayReply(*(names.get(one or "") for one in (draft.service_id, draft.key_id, draft.subject))),
    )


def verification(result: Verification, _: object) -> VerificationReply:
    """Write a verdict over the log."""
    findings = [FindingReply(found.table, found.row, found.problem) for found in result.findings]
    return VerificationReply(
        valid=result.valid,
        entries=result.entries,
        head=result.head.hex(),
        first_invalid=UNSET if result.first_invalid is None else result.first_invalid,
        reason=UNSET if result.reason is None else result.reason,
        findings=findings or UNSET,
        archived=result.archived or UNSET,
    )


def consistency(result: Consistency, _: object) -> ConsistencyReply:
    """Write a consistency proof."""
    return ConsistencyReply(old=result.old, new=result.new, hashes=list(result.hashes))


def log_key(result: LogKey, _: object) -> LogKeyReply:
    """Write the log's key."""
    return LogKeyReply(result.verifier_key, result.public_key)


def sealed(_: None, __: object) -> SealReply:
    """That the vault was sealed."""
    return SealReply(sealed=True)


def text(result: str, _: object) -> str:
    """Text as it is."""
    return result


def page(item: Callable[[Any, Asked], object]) -> Callable[[Page[Any], Asked], object]:
    """How pages of such items are written."""

    def render(result: Page[Any], asked: Asked) -> object:
        written = {"items": [item(found, asked) for found in result.items], "next": result.next}
        return {**written, "archived": result.archived} if result.archived else written

    return render
