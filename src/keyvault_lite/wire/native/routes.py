"""The table of the native API: every route there is."""

from collections.abc import Callable
from typing import Any, Final

from keyvault_lite.model.evidence import Action
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import (
    CreateAccessKey,
    DisableKey,
    EnableKey,
    ListAccessKeys,
    ReadCheckpoint,
    ReadKey,
    ReadLogKey,
    ReadMetrics,
    ReadSelf,
    ReadService,
    Request,
    RestoreKey,
    RotateKey,
    VerifyAudit,
)
from keyvault_lite.wire.native import cipher_bodies, models, render, replies, service_bodies
from keyvault_lite.wire.native.route import Build, Operation, Render, Tag

BATCH: Final = "One request for up to 1 000 of them; each is decided and recorded by itself, all take effect together."
B64: Final = "AAECAwQFBgc="


def _of_key(make: Callable[[KeyRef], Request]) -> Build:
    return lambda key, _: make(KeyRef(key))


def _of_service(make: Callable[[str], Request]) -> Build:
    return lambda service, _: make(service)


def _plain(make: Callable[[], Request]) -> Build:
    return lambda _, __: make()


def _manage(path: str, action: Action, summary: str, build: Build, **more: Any) -> Operation:  # noqa: ANN401
    """A change of one key that answers the key."""
    return Operation(
        method="POST",
        path=f"/keys/{{key_id}}/{path}",
        action=action,
        tag=Tag.KEYS,
        summary=summary,
        build=build,
        render=render.key,
        reply=replies.KeyReply,
        mutating=True,
        **more,
    )


KEYS: Final = (
    Operation(
        method="POST",
        path="/keys",
        action=Action.GENERATE,
        tag=Tag.KEYS,
        summary="Create a key",
        description="For ADMIN. A type, size and purpose that do not fit are 422, with a detail that says which do.",
        shape=models.NewKey,
        build=models.create_key,
        render=render.key,
        reply=replies.KeyReply,
        status=201,
        mutating=True,
        example={"name": "orders", "type": "AES", "size": 256, "purpose": "ENCRYPT", "tags": {"team": "payments"}},
    ),
    Operation(
        method="GET",
        path="/keys",
        action=Action.KEY_READ,
        tag=Tag.KEYS,
        summary="List keys",
        description="For all roles; a SERVICE sees the keys it has a grant on.",
        shape=models.PageQuery,
        build=models.list_keys,
        render=render.page(render.key),
        reply=replies.KeyPage,
    ),
    Operation(
        method="GET",
        path="/keys/{key_id}",
        action=Action.KEY_READ,
        tag=Tag.KEYS,
        summary="Read a key",
        build=_of_key(ReadKey),
        render=render.key,
        reply=replies.KeyReply,
    ),
    Operation(
        method="PATCH",
        path="/keys/{key_id}",
        action=Action.KEY_UPDATE,
        tag=Tag.KEYS,
        summary="Change description, tags or automatic rotation",
        shape=models.KeyChange,
        build=models.update_key,
        render=render.key,
        reply=replies.KeyReply,
        mutating=True,
        example={"description": "card numbers of the shop", "rotation_period_days": 90},
    ),
    Operation(
        method="GET",
        path="/keys/{key_id}/versions",
        action=Action.KEY_READ,
        tag=Tag.KEYS,
        summary="List a key's versions",
        shape=models.PageQuery,
        build=models.list_versions,
        render=render.page(render.version),
        reply=replies.VersionPage,
    ),
    Operation(
        method="GET",
        path="/keys/{key_id}/public-key",
        action=Action.KEY_READ,
        tag=Tag.KEYS,
        summary="Read a public key",
        shape=models.PublicKeyQuery,
        build=models.read_public_key,
        render=render.public_key,
        reply=replies.PublicKeyReply,
    ),
    _manage("rotate", Action.ROTATE, "Make a new ACTIVE version", _of_key(RotateKey)),
    _manage(
        "revoke",
        Action.REVOKE,
        "Revoke a key or one version, for good",
        models.revoke_key,
        shape=models.Revocation,
        example={"reason": "laptop stolen"},
    ),
    _manage("disable", Action.DISABLE, "Stop all use of a key", _of_key(DisableKey)),
    _manage("enable", Action.ENABLE, "Allow use of a disabled key again", _of_key(EnableKey)),
    _manage(
        "destroy",
        Action.DESTROY,
        "Schedule a key's destruction",
        models.destroy_key,
        shape=models.Destruction,
        example={"days": 30},
    ),
    _manage("restore", Action.RESTORE, "Call a scheduled destruction off", _of_key(RestoreKey)),
)


def _cipher(
    name: str, tag: Tag, summary: str, *, write: tuple[Render, type], example: dict[str, object]
) -> list[Operation]:
    """An operation and its batch."""
    single = cipher_bodies.SINGLES[name]
    item, reply = write
    return [
        Operation(
            method="POST",
            path=f"/keys/{{key_id}}/{name}",
            action=single.action,
            tag=tag,
            summary=summary,
            shape=single.shape,
            build=single.build,
            render=item,
            reply=reply,
            example=example,
        ),
        Operation(
            method="POST",
            path=f"/keys/{{key_id}}/batch/{name}",
            action=single.action,
            tag=tag,
            summary=f"{summary}, many at once",
            description=BATCH,
            shape=cipher_bodies.BatchBody,
            build=cipher_bodies.batch(single),
            render=render.batch(item),
            reply=reply,
            item=single.shape,
            example={"items": [example]},
        ),
    ]


CIPHER: Final = (
    *_cipher(
        "encrypt",
        Tag.CIPHER,
        "Encrypt",
        write=(render.encrypted, replies.EncryptReply),
        example={"plaintext": "4111 1111 1111 1111", "context": {"order": "1042"}},
    ),
    *_cipher(
        "decrypt",
        Tag.CIPHER,
        "Decrypt",
        write=(render.decrypted, replies.DecryptReply),
        example={"ciphertext": B64, "encrypted_dek": B64, "context": {"order": "1042"}},
    ),
    *_cipher(
        "rewrap",
        Tag.CIPHER,
        "Wrap a message's key under the ACTIVE version",
        write=(render.rewrapped, replies.RewrapReply),
        example={"encrypted_dek": B64, "context": {"order": "1042"}},
    ),
    Operation(
        method="POST",
        path="/keys/{key_id}/data-key",
        action=Action.DATA_KEY,
        tag=Tag.CIPHER,
        summary="Make a data key for use outside",
        shape=models.NewDataKey,
        build=models.generate_data_key,
        render=render.data_key,
        reply=replies.DataKeyReply,
        example={"bits": 256},
    ),
    Operation(
        method="POST",
        path="/keys/{key_id}/data-key/open",
        action=Action.DATA_KEY_OPEN,
        tag=Tag.CIPHER,
        summary="Open a wrapped data key",
        shape=models.WrappedDataKey,
        build=models.open_data_key,
        render=render.data_key,
        reply=replies.OpenedKeyReply,
        example={"encrypted_key": B64},
    ),
    Operation(
        method="POST",
        path="/random",
        action=Action.RANDOM,
        tag=Tag.CIPHER,
        summary="Random bytes",
        shape=models.RandomBody,
        build=models.generate_random,
        render=render.random,
        reply=replies.RandomReply,
        example={"bytes": 32},
    ),
)
SIGNING: Final = (
    *_cipher(
        "sign",
        Tag.SIGNING,
        "Sign or MAC",
        write=(render.signed, replies.SignReply),
        example={"message": "release 1.4.2"},
    ),
    *_cipher(
        "verify",
        Tag.SIGNING,
        "Verify a signature or MAC",
        write=(render.verified, replies.VerifyReply),
        example={"message": "release 1.4.2", "signature": B64},
    ),
)
SERVICES: Final = (
    Operation(
        method="POST",
        path="/services",
        action=Action.SERVICE_CREATE,
        tag=Tag.SERVICES,
        summary="Create a service and its token",
        description="For ADMIN. The token is shown in this reply and never again.",
        shape=service_bodies.NewServiceBody,
        build=service_bodies.create_service,
        render=render.new_service,
        keep=render.kept_service,
        reply=replies.NewServiceReply,
        status=201,
        mutating=True,
        example={"name": "shop", "role": "SERVICE", "grants": [{"key": "orders-*", "actions": ["encrypt", "decrypt"]}]},
    ),
    Operation(
        method="GET",
        path="/services",
        action=Action.SERVICE_READ,
        tag=Tag.SERVICES,
        summary="List services",
        shape=models.PageQuery,
        build=models.list_services,
        render=render.page(render.service),
        reply=replies.ServicePage,
    ),
    Operation(
        method="GET",
        path="/services/self",
        action=Action.SELF_READ,
        tag=Tag.SERVICES,
        summary="Read the calling service",
        description="For every role: its role and grants, and when its token ends.",
        build=_plain(ReadSelf),
        render=render.caller,
        reply=replies.SelfReply,
    ),
    Operation(
        method="GET",
        path="/services/{id}",
        action=Action.SERVICE_READ,
        tag=Tag.SERVICES,
        summary="Read a service",
        build=_of_service(ReadService),
        render=render.service,
        reply=replies.ServiceReply,
    ),
    Operation(
        method="PATCH",
        path="/services/{id}",
        action=Action.SERVICE_UPDATE,
        tag=Tag.SERVICES,
        summary="Change role, grants, expiry, or deactivate",
        shape=service_bodies.ServiceChange,
        build=service_bodies.update_service,
        render=render.service,
        reply=replies.ServiceReply,
        mutating=True,
        example={"active": False},
    ),
    Operation(
        method="POST",
        path="/services/{id}/token",
        action=Action.TOKEN_RENEW,
        tag=Tag.SERVICES,
        summary="Renew a token; the old one ends at once, or after a grace period",
        description="For ADMIN and the service itself, which can be named `self`.",
        shape=service_bodies.RenewalBody,
        build=service_bodies.renew_token,
        render=render.new_service,
        keep=render.kept_service,
        reply=replies.NewServiceReply,
        mutating=True,
        example={"grace": 600},
    ),
    Operation(
        method="POST",
        path="/services/{id}/aws-credentials",
        action=Action.ACCESS_KEY_CREATE,
        tag=Tag.SERVICES,
        summary="Give a service credentials for the AWS dialect",
        description="For ADMIN. The secret is shown in this reply and never again.",
        build=_of_service(CreateAccessKey),
        render=render.new_access_key,
        keep=render.kept_access_key,
        reply=replies.NewAccessKeyReply,
        status=201,
        mutating=True,
    ),
    Operation(
        method="GET",
        path="/services/{id}/aws-credentials",
        action=Action.SERVICE_READ,
        tag=Tag.SERVICES,
        summary="List a service's credentials for the AWS dialect",
        build=_of_service(ListAccessKeys),
        render=render.access_keys,
        reply=replies.AccessKeysReply,
    ),
    Operation(
        method="POST",
        path="/services/{id}/aws-credentials/revoke",
        action=Action.ACCESS_KEY_REVOKE,
        tag=Tag.SERVICES,
        summary="Revoke credentials for the AWS dialect; they die at once",
        description="For ADMIN. Answers the ones left.",
        shape=service_bodies.AccessKeyRevocation,
        build=service_bodies.revoke_access_key,
        render=render.access_keys,
        reply=replies.AccessKeysReply,
        mutating=True,
        example={"access_key_id": "AKIAQWERTZUIOPASDFGH"},
    ),
)
AUDIT: Final = (
    Operation(
        method="GET",
        path="/audit",
        action=Action.AUDIT_READ,
        tag=Tag.AUDIT,
        summary="Read the audit log",
        description="For ADMIN and AUDITOR. Newest first, unless `order=asc`. `display` of an entry is no part of it.",
        shape=models.AuditQuery,
        build=models.list_audit,
        render=render.log_page,
        reply=replies.EntryPage,
    ),
    Operation(
        method="GET",
        path="/audit/receipts",
        action=Action.AUDIT_READ,
        tag=Tag.AUDIT,
        summary="The proofs of many entries",
        description="For ADMIN and AUDITOR. Oldest first; all proofs of a page are under one checkpoint.",
        shape=models.ReceiptsQuery,
        build=models.list_receipts,
        render=render.page(render.receipt),
        reply=replies.ReceiptPage,
    ),
    Operation(
        method="GET",
        path="/audit/verify",
        action=Action.AUDIT_VERIFY,
        tag=Tag.AUDIT,
        summary="Verify the whole log",
        build=_plain(VerifyAudit),
        render=render.verification,
        reply=replies.VerificationReply,
    ),
    Operation(
        method="GET",
        path="/audit/checkpoint",
        action=Action.AUDIT_READ,
        tag=Tag.AUDIT,
        summary="The newest signed checkpoint",
        build=_plain(ReadCheckpoint),
        render=render.text,
    ),
    Operation(
        method="GET",
        path="/audit/{id}/receipt",
        action=Action.RECEIPT_READ,
        tag=Tag.AUDIT,
        summary="The proof that an entry is in the log",
        build=models.read_receipt,
        render=render.text,
    ),
    Operation(
        method="GET",
        path="/audit/consistency",
        action=Action.AUDIT_READ,
        tag=Tag.AUDIT,
        summary="The proof that the log only grew",
        shape=models.ConsistencyQuery,
        build=models.read_consistency,
        render=render.consistency,
        reply=replies.ConsistencyReply,
    ),
    Operation(
        method="GET",
        path="/audit/public-key",
        action=Action.LOG_KEY_READ,
        tag=Tag.AUDIT,
        summary="The key that verifies checkpoints",
        build=_plain(ReadLogKey),
        render=render.log_key,
        reply=replies.LogKeyReply,
    ),
)
SERVER: Final = (
    Operation(
        method="GET",
        path="/metrics",
        action=Action.METRICS_READ,
        tag=Tag.SERVER,
        summary="Metrics for Prometheus",
        description="For ADMIN and AUDITOR. Of all workers, told apart by the label `worker`.",
        build=_plain(ReadMetrics),
        render=render.text,
    ),
)
ROUTES: Final = (*KEYS, *CIPHER, *SIGNING, *SERVICES, *AUDIT, *SERVER)
