"""The bodies of cryptographic operations: what encrypt, decrypt, rewrap, sign and verify take, alone and in batches."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from keyvault_lite.model.encoding import MAX_CONTEXT_PAIRS
from keyvault_lite.model.errors import KeyVaultError, TooLarge
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.keys import MAX_PLAINTEXT, Algorithm
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.opaque import Opaque
from keyvault_lite.model.requests import (
    MAX_BATCH,
    Batch,
    BatchItem,
    Decrypt,
    Encrypt,
    Rewrap,
    Sign,
    Verify,
)
from keyvault_lite.wire.fields import convert, field_bytes


class Encoding(StrEnum):
    """How `plaintext` and `message` are written."""

    TEXT = "utf-8"
    BASE64 = "base64"


_BASE64: Final = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
Base64 = Annotated[
    str,
    Meta(
        description="Standard base64 with padding, canonical.",
        extra_json_schema={"pattern": _BASE64, "contentEncoding": "base64"},
    ),
]
Content = Annotated[
    str, Meta(description=f"Text, or base64 as `encoding` says; at most {MAX_PLAINTEXT // 1024} KiB of bytes.")
]
ContextField = Annotated[
    dict[str, str] | None,
    Meta(
        description="Bound to the ciphertext and needed to open it, but not kept in it. At most 8 KiB, NFC.",
        extra_json_schema={"maxProperties": MAX_CONTEXT_PAIRS},
    ),
]
EncodingField = Annotated[Encoding | None, Meta(description="How the text is written; `utf-8` by default.")]
AlgorithmField = Annotated[Algorithm | None, Meta(description="By default the key's first.")]
VersionField = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Prehashed = Annotated[bool | None, Meta(description="Whether `message` is the digest already.")]


class EncryptBody(Opaque, frozen=True, forbid_unknown_fields=True):
    """What to encrypt."""

    plaintext: Content
    encoding: EncodingField = None
    context: ContextField = None


class DecryptBody(Opaque, frozen=True, forbid_unknown_fields=True):
    """What encrypt answered."""

    ciphertext: Base64
    encrypted_dek: Base64
    key_version: VersionField | None = None
    encoding: EncodingField = None
    context: ContextField = None


class RewrapBody(Opaque, frozen=True, forbid_unknown_fields=True):
    """The wrapped key of a message; the ciphertext is not needed."""

    encrypted_dek: Base64
    context: ContextField = None


class SignBody(Opaque, frozen=True, forbid_unknown_fields=True):
    """What to sign."""

    message: Content
    encoding: EncodingField = None
    algorithm: AlgorithmField = None
    prehashed: Prehashed = None


class VerifyBody(Opaque, frozen=True, forbid_unknown_fields=True):
    """A message and its signature."""

    message: Content
    signature: Base64
    encoding: EncodingField = None
    algorithm: AlgorithmField = None
    prehashed: Prehashed = None
    key_version: VersionField | None = None


class BatchBody(Opaque, frozen=True, forbid_unknown_fields=True):
    """Up to 1 000 bodies of the single operation. Each is read, decided and recorded by itself."""

    items: list[Any]


def _content(name: str, text: str, encoding: Encoding | None) -> bytes:
    return field_bytes(name, text) if encoding is Encoding.BASE64 else text.encode()


def encrypt(key: str, body: EncryptBody) -> Encrypt:
    """Build Encrypt."""
    plaintext = _content("plaintext", body.plaintext, body.encoding)
    return Encrypt(key=KeyRef(key), context=body.context, plaintext=plaintext)


def decrypt(key: str, body: DecryptBody) -> Decrypt:
    """Build Decrypt."""
    return Decrypt(
        key=KeyRef(key),
        context=body.context,
        ciphertext=field_bytes("ciphertext", body.ciphertext),
        encrypted_dek=field_bytes("encrypted_dek", body.encrypted_dek),
        key_version=body.key_version,
        as_text=body.encoding is not Encoding.BASE64,
    )


def rewrap(key: str, body: RewrapBody) -> Rewrap:
    """Build Rewrap."""
    dek = field_bytes("encrypted_dek", body.encrypted_dek)
    return Rewrap(key=KeyRef(key), context=body.context, encrypted_dek=dek)


def sign(key: str, body: SignBody) -> Sign:
    """Build Sign."""
    return Sign(
        key=KeyRef(key),
        message=_content("message", body.message, body.encoding),
        algorithm=body.algorithm,
        prehashed=bool(body.prehashed),
    )


def verify(key: str, body: VerifyBody) -> Verify:
    """Build Verify."""
    return Verify(
        key=KeyRef(key),
        message=_content("message", body.message, body.encoding),
        signature=field_bytes("signature", body.signature),
        algorithm=body.algorithm,
        prehashed=bool(body.prehashed),
        key_version=body.key_version,
    )


@dataclass(frozen=True, slots=True)
class Single:
    """What makes one request of a kind that also comes in batches."""

    action: Action
    shape: type[Struct]
    build: Callable[[str, Any], BatchItem]


SINGLES: Final[Mapping[str, Single]] = {
    "encrypt": Single(Action.ENCRYPT, EncryptBody, encrypt),
    "decrypt": Single(Action.DECRYPT, DecryptBody, decrypt),
    "sign": Single(Action.SIGN, SignBody, sign),
    "verify": Single(Action.VERIFY, VerifyBody, verify),
    "rewrap": Single(Action.REWRAP, RewrapBody, rewrap),
}


def batch(single: Single) -> Callable[[str, BatchBody], Batch]:
    """The builder of batches of that kind. An item that cannot be built is its error in the same place."""

    def build(key: str, body: BatchBody) -> Batch:
        if len(body.items) > MAX_BATCH:  # before any work is done on them
            raise TooLarge(f"a batch has at most {MAX_BATCH} items")
        return Batch(key=KeyRef(key), of=single.action, items=tuple(_item(single, key, item) for item in body.items))

    return build


def _item(single: Single, key: str, item: object) -> BatchItem | KeyVaultError:
    try:
        return single.build(key, convert(item, single.shape))
    except KeyVaultError as error:
        return error
