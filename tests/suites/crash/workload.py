"""What the processes of the campaign ask of a vault: requests and results as lines that outlive a process."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

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
    KeyRequest,
    ReadKey,
    RenewToken,
    Request,
    RevokeKey,
    RotateKey,
    Sign,
    UpdateService,
)
from tests.support.harness import AES, grant

Told = dict[str, Any]
"""A line of a process."""
ORDERS, SIGNER = "orders", "signer"
"""Keys that all callers share."""
ITEMS = 3
IDEMPOTENT = frozenset({"create", "rotate", "revoke", "hire", "dismiss", "renew"})
"""What is asked with an Idempotency-Key."""


def text_of(op: str, place: int = 0) -> bytes:
    """The plaintext of an operation: known to whoever knows its id."""
    return f"{op}.{place}".encode()


def _items(one: Callable[[int], KeyRequest]) -> tuple[KeyRequest, ...]:
    return tuple(map(one, range(ITEMS)))


_REQUESTS: Final[Mapping[str, Callable[[str, KeyRef, Told], Request]]] = {
    "encrypt": lambda op, key, _: Encrypt(key, {"op": op}, text_of(op)),
    "decrypt": lambda _, key, asked: Decrypt(
        key, {"op": asked["of"]}, decoded(asked["ciphertext"]), decoded(asked["dek"])
    ),
    "sign": lambda op, key, _: Sign(key, text_of(op), Algorithm.ED25519),
    "encrypt many": lambda op, key, _: Batch(
        key, Action.ENCRYPT, _items(lambda place: Encrypt(key, {"op": op}, text_of(op, place)))
    ),
    "sign many": lambda op, key, _: Batch(key, Action.SIGN, _items(lambda place: Sign(key, text_of(op, place)))),
    "create": lambda op, _, __: CreateKey(AES, f"key-{op}"),
    "rotate": lambda _, key, __: RotateKey(key),
    "revoke": lambda _, key, __: RevokeKey(key),
    "read": lambda _, key, __: ReadKey(key),
    "hire": lambda op, _, __: CreateService(f"service-{op}", Role.SERVICE, (grant(ORDERS),)),
    "dismiss": lambda _, __, asked: UpdateService(asked["service"], active=False),
    "renew": lambda _, __, asked: RenewToken(asked["service"]),
}


def request_of(asked: Told) -> Request:
    """The request that a line tells of."""
    return _REQUESTS[asked["kind"]](asked["op"], KeyRef(asked.get("key", "")), asked)


def action_of(request: Request) -> Action:
    """The action that its entries have."""
    return request.of if isinstance(request, Batch) else request.action


def items_of(request: Request) -> int:
    """How many entries it has."""
    return len(request.items) if isinstance(request, Batch) else 1


_RESULTS: Final[Mapping[type[Any], Callable[[Any], dict[str, Any]]]] = {
    Encrypted: lambda one: {
        "ciphertext": encoded(one.ciphertext),
        "dek": encoded(one.encrypted_dek),
        "version": one.key_version,
    },
    Decrypted: lambda one: {"plaintext": one.plaintext.decode(), "version": one.key_version},
    Signed: lambda one: {"signature": encoded(one.signature), "version": one.key_version},
    Key: lambda one: {"id": one.id, "versions": len(one.versions)},
    NewService: lambda one: {"service": one.service.id, "token": one.token},
    Service: lambda one: {"service": one.id},
    BatchReply: lambda one: {"items": [result_of(item) for item in one.items]},
    KeyVaultError: lambda one: {"code": one.code},
}


def result_of(result: object) -> dict[str, Any]:
    """What a line tells of a result."""
    kind = KeyVaultError if isinstance(result, KeyVaultError) else type(result)
    return _RESULTS[kind](result)


def digest_of(written: bytes) -> str:
    """Of a reply as it is kept."""
    return hashlib.sha256(written).hexdigest()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def decoded(text: str) -> bytes:
    return base64.b64decode(text)
