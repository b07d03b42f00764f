"""Encryption as the AWS dialect has it: opaque blobs that name their key, bare RSA ciphertexts, data keys and pairs."""

import os
from collections.abc import Mapping
from typing import Final

from keyvault_lite.crypto import blob
from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.errors import (
    IncorrectKey,
    InvalidKeyUsage,
    KeyUnavailable,
    UnsupportedOperation,
    Validation,
)
from keyvault_lite.dialects.aws.guard import check, guarded, other_key, refuse_recipient
from keyvault_lite.dialects.aws.model import ENCRYPTION, PURPOSES, SPECS, SYMMETRIC, USAGE_OF, encryption_algorithms
from keyvault_lite.dialects.aws.replies import Decrypted, Encrypted, NewDataKey, NewPair, Random, ReEncrypted
from keyvault_lite.dialects.aws.view import View, material_id, view
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.model.encoding import Context
from keyvault_lite.model.errors import InvalidCiphertext
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.keys import MAY_PROCESS, KeySpec, KeyType, KeyVersion, Purpose
from keyvault_lite.model.requests import Request

IGNORE_CIPHERTEXT: Final = "IGNORE_CIPHERTEXT"
MAX_CONTEXT: Final = 8192
_INCORRECT: Final = "The key ID in the request does not identify a CMK that can perform this operation."
_DATA_KEYS: Final = {"AES_256": 32, "AES_128": 16}


def require_usage(seen: View, purpose: Purpose, operation: str) -> None:
    """Raise InvalidKeyUsage for a key of another usage."""
    if seen.key.spec.purpose is not purpose:
        usage = USAGE_OF[seen.key.spec.purpose]
        raise InvalidKeyUsage(f"{seen.arn} key usage is {usage} which is not valid for {operation}.")


def _require_opening(seen: View) -> None:
    """Raise IncorrectKey for a key of another usage: no ciphertext was made under it."""
    if seen.key.spec.purpose is not Purpose.ENCRYPT:
        raise IncorrectKey(_INCORRECT)


def _require_algorithm(seen: View, algorithm: str, context: Context | None) -> None:
    if algorithm not in encryption_algorithms(seen.key.spec):
        raise InvalidKeyUsage(f"Algorithm {algorithm} is incompatible with key spec {seen.spec}.")
    if context and sum(len(name) + len(value) for name, value in context.items()) > MAX_CONTEXT:
        raise Validation(f"EncryptionContext has more than {MAX_CONTEXT} characters.")
    if context and algorithm != SYMMETRIC:
        raise Validation("EncryptionContext is not supported with asymmetric KMS keys.")


def _seal(
    seen: View, plaintext: bytes, algorithm: str, context: Context | None, ctx: HandlerContext
) -> tuple[bytes, KeyVersion]:
    """The blob of a plaintext under the key's newest material."""
    require_usage(seen, Purpose.ENCRYPT, "Encrypt")
    _require_algorithm(seen, algorithm, context)
    version = seen.protecting()
    spec = seen.key.spec
    if algorithm == SYMMETRIC:

        def seal() -> bytes:
            ciphertext, encrypted_dek = ctx.keyring.encrypt(spec, version, plaintext, context)
            return blob.join(encrypted_dek, ciphertext)

    else:
        digest = ENCRYPTION[algorithm]
        largest = (spec.size or 0) // 8 - 2 * (20 if digest == "SHA1" else 32) - 2
        if len(plaintext) > largest:
            raise Validation(
                f"Algorithm {algorithm} and key spec {seen.spec} cannot encrypt data larger than {largest} bytes."
            )

        def seal() -> bytes:
            return ctx.keyring.seal_bare(spec, version, plaintext, digest)

    return ctx.once("seal", (version,), seal), version


def _open(
    seen: View, sealed: bytes, algorithm: str, context: Context | None, ctx: HandlerContext
) -> tuple[bytes, KeyVersion | None]:
    """The plaintext of a blob, and the version that opened it; None for a bare RSA ciphertext."""
    _require_opening(seen)
    _require_algorithm(seen, algorithm, context)
    seen.require_usable()
    spec = seen.key.spec
    if algorithm != SYMMETRIC:
        return _open_bare(seen, sealed, ENCRYPTION[algorithm], ctx), None
    head = blob.header(sealed)
    if head.id.hex() != seen.key.id.replace("-", ""):
        raise IncorrectKey(_INCORRECT)
    version = seen.key.version(head.version)
    if version is None:
        raise InvalidCiphertext
    if version.status not in MAY_PROCESS:
        raise KeyUnavailable(f"{seen.arn} is unavailable.")

    def open_blob() -> bytes:
        encrypted_dek, ciphertext = blob.split(sealed)
        return ctx.keyring.decrypt(spec, version, ciphertext, encrypted_dek, context)

    return ctx.once("open", (version,), open_blob), version


def _open_bare(seen: View, sealed: bytes, digest: str, ctx: HandlerContext) -> bytes:
    """With the newest material that opens it: the ciphertext says nothing of itself, and others can make one."""
    versions = tuple(one for one in reversed(seen.key.versions) if one.status in MAY_PROCESS)

    def open_with_any() -> bytes:
        for version in versions:
            try:
                return ctx.keyring.open_bare(seen.key.spec, version, sealed, digest)
            except InvalidCiphertext:
                continue
        raise InvalidCiphertext

    return ctx.once("open", versions, open_with_any)


def encrypt(request: words.Encrypt, seen: View, ctx: HandlerContext) -> HandlerResult:
    """Encrypt a small plaintext."""
    sealed, version = _seal(seen, request.plaintext, request.encryption_algorithm, request.context, ctx)
    return HandlerResult(
        Encrypted(sealed, seen.arn, request.encryption_algorithm),
        key_version=version.version,
        bytes_in=len(request.plaintext),
        bytes_out=len(sealed),
    )


def decrypt(request: words.Decrypt, seen: View, ctx: HandlerContext) -> HandlerResult:
    """Open a blob of whatever version, or a bare RSA ciphertext."""
    refuse_recipient(request.recipient)
    sealed = _ciphertext(request, request.ciphertext_blob)
    if sealed is None:
        _require_opening(seen)
        _require_algorithm(seen, request.encryption_algorithm, request.context)
        seen.require_usable()
        return HandlerResult(None)
    plaintext, version = _open(seen, sealed, request.encryption_algorithm, request.context, ctx)
    return HandlerResult(
        Decrypted(seen.arn, plaintext, request.encryption_algorithm, None if version is None else material_id(version)),
        key_version=None if version is None else version.version,
        bytes_in=len(sealed),
        bytes_out=len(plaintext),
    )


def _ciphertext(request: words.Decrypt | words.ReEncrypt, sealed: bytes | None) -> bytes | None:
    """The ciphertext; None in a dry run that is to ignore it."""
    ignored = IGNORE_CIPHERTEXT in request.dry_run_modifiers
    if ignored and not request.dry_run:
        raise Validation("DryRunModifiers can be specified only when DryRun is true.")
    if ignored and not request.key:
        raise Validation("KeyId is required when the ciphertext is ignored.")
    if sealed is None and not ignored:
        raise Validation("CiphertextBlob is required.")
    return None if ignored else sealed


def re_encrypt(request: words.ReEncrypt, seen: View, ctx: HandlerContext) -> HandlerResult:
    """Open under one key and encrypt under another, each with its own context; the plaintext never leaves."""
    key = other_key(request.destination_key_id, request.place, Action.ENCRYPT, ctx)
    target = view(key, request.place, ctx.now)
    context, algorithm = request.destination_encryption_context, request.destination_encryption_algorithm
    check(target, "ReEncryptTo", request, context, ctx)
    sealed = _ciphertext(request, request.ciphertext_blob)
    if sealed is None:
        _require_opening(seen)
        seen.require_usable()
        plaintext, source = b"", None
    else:
        plaintext, source = _open(seen, sealed, request.source_encryption_algorithm, request.context, ctx)
    result, version = _seal(target, plaintext, algorithm, context, ctx)
    return HandlerResult(
        ReEncrypted(
            result,
            seen.arn,
            target.arn,
            request.source_encryption_algorithm,
            algorithm,
            None if source is None else material_id(source),
            material_id(version) if algorithm == SYMMETRIC else None,
        ),
        key_version=None if source is None else source.version,
        bytes_in=len(sealed or b""),
        bytes_out=len(result),
        comment=f"to {key.id}",
    )


# Data keys


def _wrapping(seen: View, operation: str) -> KeyVersion:
    require_usage(seen, Purpose.ENCRYPT, operation)
    if seen.key.spec.type is not KeyType.AES:
        raise InvalidKeyUsage(f"{seen.arn} is not a symmetric encryption key, which {operation} needs.")
    return seen.protecting()


def _data_key(
    request: words.GenerateDataKey | words.GenerateDataKeyWithoutPlaintext,
    seen: View,
    ctx: HandlerContext,
    *,
    reveal: bool,
) -> HandlerResult:
    version = _wrapping(seen, type(request).__name__)
    if (request.key_spec is None) is (request.number_of_bytes is None):
        raise Validation("Please specify either number of bytes or key spec.")
    size = request.number_of_bytes or _DATA_KEYS[request.key_spec or ""]
    plaintext = ctx.once("key", (), lambda: os.urandom(size))
    sealed, _ = _seal(seen, plaintext, SYMMETRIC, request.context, ctx)
    result = NewDataKey(sealed, plaintext if reveal else None, seen.arn, material_id(version))
    return HandlerResult(result, key_version=version.version, bytes_out=size)


def generate_data_key(request: words.GenerateDataKey, seen: View, ctx: HandlerContext) -> HandlerResult:
    """A data key for the caller's own use, plain and wrapped."""
    refuse_recipient(request.recipient)
    return _data_key(request, seen, ctx, reveal=True)


def generate_wrapped_data_key(
    request: words.GenerateDataKeyWithoutPlaintext, seen: View, ctx: HandlerContext
) -> HandlerResult:
    """A data key, wrapped alone."""
    return _data_key(request, seen, ctx, reveal=False)


def _pair(
    request: words.GenerateDataKeyPair | words.GenerateDataKeyPairWithoutPlaintext,
    seen: View,
    ctx: HandlerContext,
    *,
    reveal: bool,
) -> HandlerResult:
    version = _wrapping(seen, type(request).__name__)
    kind = SPECS.get(request.key_pair_spec)
    if kind is None:
        raise UnsupportedOperation(f"pairs of spec {request.key_pair_spec} are not offered in this Region")
    spec = KeySpec(*kind, PURPOSES[kind[0]][0])
    private, public, (ciphertext, encrypted_dek) = ctx.once(
        "pair", (version,), lambda: ctx.keyring.data_key_pair(seen.key.spec, version, spec, request.context)
    )
    sealed = blob.join(encrypted_dek, ciphertext)
    result = NewPair(sealed, private if reveal else None, public, seen.arn, request.key_pair_spec, material_id(version))
    return HandlerResult(result, key_version=version.version, bytes_out=len(private))


def generate_pair(request: words.GenerateDataKeyPair, seen: View, ctx: HandlerContext) -> HandlerResult:
    """A pair for the caller's own use, its private half plain and wrapped."""
    refuse_recipient(request.recipient)
    return _pair(request, seen, ctx, reveal=True)


def generate_wrapped_pair(
    request: words.GenerateDataKeyPairWithoutPlaintext, seen: View, ctx: HandlerContext
) -> HandlerResult:
    """A pair, its private half wrapped alone."""
    return _pair(request, seen, ctx, reveal=False)


def random_bytes(request: words.GenerateRandom, ctx: HandlerContext) -> HandlerResult:
    """Bytes of the operating system's generator."""
    refuse_recipient(request.recipient)
    if request.custom_key_store_id is not None:
        raise UnsupportedOperation("custom key stores are not offered here")
    count = request.number_of_bytes
    if count is None:
        raise Validation("NumberOfBytes is required.")
    return HandlerResult(Random(ctx.once("random", (), lambda: os.urandom(count))), bytes_out=count)


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    words.Decrypt: guarded(decrypt),
    words.Encrypt: guarded(encrypt),
    words.GenerateDataKey: guarded(generate_data_key),
    words.GenerateDataKeyPair: guarded(generate_pair),
    words.GenerateDataKeyPairWithoutPlaintext: guarded(generate_wrapped_pair),
    words.GenerateDataKeyWithoutPlaintext: guarded(generate_wrapped_data_key),
    words.GenerateRandom: random_bytes,
    words.ReEncrypt: guarded(re_encrypt),
}
