"""What the processes of the campaign ask of a vault: requests and results as lines that outlive a process."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from keyvault_lite.model.errors import KeyVaultError
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import Role, Service
from keyvault_lite.model.keys import Algorithm, Key
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import BatchReply, Decrypted, Encrypted, NewService, Signed
from keyvault_lite.model.requests import (
    Batch,
    CreateKey,
    CreateService,
    Decrypt,
    Encrypt,
    ReadKey,
    RenewToken,
    Request,
    RevokeKey,
    RotateKey,
    Sign,
    UpdateService,
)
from tests.house import AES, grant

Told = Mapping[str, Any]
"""A line of a process."""
ORDERS, SIGNER = "orders", "signer"
"""Keys that all callers share."""
ITEMS = 3
IDEMPOTENT = frozenset({"create", "rotate", "revoke", "hire", "dismiss", "renew"})
"""What is asked with an Idempotency-Key."""


def text_of(op: str, place: int = 0) -> bytes:
    """The plaintext of an operation: known to whoever knows its id."""
    return f"{op}.{place}".encode()


def request_of(asked: Told) -> Request:
    """The request that a line tells of."""
    op, key = asked["op"], KeyRef(asked.get("key", ""))
    match asked["kind"]:
        case "encrypt":
            return Encrypt(key, {"op": op}, text_of(op))
        case "decrypt":
            return Decrypt(key, {"op": asked["of"]}, decoded(asked["ciphertext"]), decoded(asked["dek"]))
        case "sign":
            return Sign(key, text_of(op), Algorithm.ED25519)
        case "encrypt many":
            items = tuple(Encrypt(key, {"op": op}, text_of(op, place)) for place in range(ITEMS))
            return Batch(key, Action.ENCRYPT, items)
        case "sign many":
            return Batch(key, Action.SIGN, tuple(Sign(key, text_of(op, place)) for place in range(ITEMS)))
        case "create":
            return CreateKey(AES, f"key-{op}")
        case "rotate":
            return RotateKey(key)
        case "revoke":
            return RevokeKey(key)
        case "read":
            return ReadKey(key)
        case "hire":
            return CreateService(f"service-{op}", Role.SERVICE, (grant(ORDERS),))
        case "dismiss":
            return UpdateService(asked["service"], active=False)
        case "renew":
            return RenewToken(asked["service"])
    raise LookupError(asked["kind"])


def action_of(request: Request) -> Action:
    """The action that its entries have."""
    return request.of if isinstance(request, Batch) else request.action


def items_of(request: Request) -> int:
    """How many entries it has."""
    return len(request.items) if isinstance(request, Batch) else 1


def result_of(result: object) -> dict[str, Any]:
    """What a line tells of a result."""
    match result:
        case Encrypted():
            made = {"ciphertext": encoded(result.ciphertext), "dek": encoded(result.encrypted_dek)}
            return {**made, "version": result.key_version}
        case Decrypted():
            return {"plaintext": result.plaintext.decode(), "version": result.key_version}
        case Signed():
            return {"signature": encoded(result.signature), "version": result.key_version}
        case Key():
            return {"id": result.id, "versions": len(result.versions)}
        case NewService():
            return {"service": result.service.id, "token": result.token}
        case Service():
            return {"service": result.id}
        case BatchReply():
            return {"items": [result_of(one) for one in result.items]}
        case KeyVaultError():
            return {"code": result.code}
    raise TypeError(type(result))


def digest_of(written: bytes) -> str:
    """Of a reply as it is kept."""
    return hashlib.sha256(written).hexdigest()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def decoded(text: str) -> bytes:
    return base64.b64decode(text)
