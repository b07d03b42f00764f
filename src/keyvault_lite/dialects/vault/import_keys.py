"""Keys of the Vault dialect that come from outside, and certificates for keys.

Material is wrapped for an RSA-4096 key of the mount: RSA-OAEP of an AES-256 key, then the material under AES key wrap
with padding. An imported version opens what its former owner encrypted with it, and is marked so in its container.
A public key can come alone: its version verifies and encrypts, and does the rest once its private key is brought in.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from msgspec import structs

from keyvault_lite.crypto.material import Material
from keyvault_lite.crypto.transit import public_text
from keyvault_lite.crypto.transit_certificate import check_chain
from keyvault_lite.crypto.versions import IMPORTED
from keyvault_lite.dialects.vault.cipher import ORIGIN
from keyvault_lite.dialects.vault.keys import begin, extended, shown, taken_name
from keyvault_lite.dialects.vault.mounts import WRAPPING, require_mount
from keyvault_lite.dialects.vault.requests import (
    CERTIFICATES,
    SIGNING,
    ImportTransitKey,
    ReadWrappingKey,
    RequestCertificate,
    Rules,
    SetCertificate,
    hmac_spec,
    namespace,
)
from keyvault_lite.dialects.vault.rules import protecting, sound, usable
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.engine.keys import exchanged
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.model.encoding import decode_base64, encode_base64
from keyvault_lite.model.errors import InvalidRequest, NotFound
from keyvault_lite.model.identity import Setting
from keyvault_lite.model.keys import MAY_PROCESS, Key, KeyName, KeySpec, KeyType, KeyVersion, Purpose
from keyvault_lite.model.names import KeyId, new_id
from keyvault_lite.model.requests import Request

NOTE: Final = "vault wrapping key"
_KIND: Final = KeySpec(KeyType.RSA, 4096, Purpose.ENCRYPT)


def wrapping_key(request: ReadWrappingKey, ctx: HandlerContext) -> HandlerResult:
    """The mount's public wrapping key; its private half is kept sealed."""
    require_mount(ctx.state, request.mount)
    found = ctx.state.setting(WRAPPING + request.mount)
    if found is not None and found.value is not None:
        return HandlerResult(public_text(decode_base64(found.value["public"])))
    private, public = ctx.once("pair", (), lambda: ctx.keyring.import_pair(_KIND))
    kept = {
        "private": encode_base64(ctx.keyring.seal_note(NOTE, private)),
        "public": encode_base64(public),
    }
    return HandlerResult(public_text(public), Change(settings=(Setting(WRAPPING + request.mount, kept),)))


def _unwrap(request: ImportTransitKey, ctx: HandlerContext) -> bytes:
    found = ctx.state.setting(WRAPPING + request.mount)
    if found is None or found.value is None:
        raise InvalidRequest("the mount has no wrapping key yet: read it first")
    private = ctx.keyring.open_note(NOTE, decode_base64(found.value["private"]))
    return ctx.keyring.open_import(private, request.wrapped, digest=request.digest, key_wrap=True)


def _first(request: ImportTransitKey, ctx: HandlerContext) -> tuple[KeySpec, Material]:
    """The kind of a new key and its material, which of an HMAC key says how long it is."""
    if not request.wrapped or request.spec.type is not KeyType.HMAC:
        return request.spec, _material(request, ctx, request.spec)
    raw = _unwrap(request, ctx)
    spec = hmac_spec(len(raw))
    return spec, ctx.keyring.read_import(spec, raw)


def _material(request: ImportTransitKey, ctx: HandlerContext, spec: KeySpec) -> Material:
    if not request.wrapped:
        return ctx.keyring.read_public(spec, request.public_key)
    return ctx.keyring.read_import(spec, _unwrap(request, ctx))


def _version(material: Material, ctx: HandlerContext, key_id: KeyId, number: int, spec: KeySpec) -> KeyVersion:
    return ctx.keyring.versions.wrap(
        material,
        spec,
        key_id=key_id,
        version=number,
        created_at=ctx.now,
        attributes={ORIGIN: IMPORTED},
    )


def bring_in(request: ImportTransitKey, ctx: HandlerContext) -> HandlerResult:
    """A new key, or one more version of an imported one, of material that was wrapped for the mount."""
    found, losing = taken_name(ctx, request.mount, request.name)
    if request.further:
        return _further(request, ctx, found)
    if found is not None:
        raise InvalidRequest("a key of this name exists; a further version is brought in by import_version")
    key_id = ctx.once("id", (), lambda: KeyId(new_id()))
    rules = replace(request.rules, imported=True)
    spec, material = ctx.once("material", (), lambda: _first(request, ctx))
    first = _version(material, ctx, key_id, 1, spec)
    name = KeyName(namespace(request.mount), request.name, ctx.now, ctx.now)
    key = begin(ctx, name, spec, rules, first)
    return HandlerResult(shown(key, rules), Change(keys=(*losing, key)), key_id=key_id, key_version=1)


def _further(request: ImportTransitKey, ctx: HandlerContext, found: Key | None) -> HandlerResult:
    if found is None:
        raise NotFound("no such key")
    key, rules = usable(structs.replace(ctx, named_key=found))
    if not rules.imported:
        raise InvalidRequest("only an imported key takes imported versions")
    material = ctx.once("material", (key.spec,), lambda: _material(request, ctx, key.spec))
    waiting = _waiting(request, key, material, ctx)
    if waiting is not None:
        return _completed(waiting, material, key, rules, ctx)
    number = len(key.versions) + 1
    after = extended(key, rules, _version(material, ctx, key.id, number, key.spec), ctx)
    return HandlerResult(shown(after, rules), Change(keys=(after,)), key_id=key.id, key_version=number)


def _waiting(request: ImportTransitKey, key: Key, material: Material, ctx: HandlerContext) -> KeyVersion | None:
    """The version that the private key is for: the one named, or the newest if it is a public key alone and fits."""
    if request.version is None:
        newest = key.versions[-1]
        fits = request.wrapped and newest.status in MAY_PROCESS and newest.public_key == material.public_key
        return newest if fits and ctx.keyring.transit(key.spec, newest).is_public_only else None
    if not key.spec.asymmetric:
        raise InvalidRequest("provided type does not support importing key versions")
    version = key.version(request.version)
    if version is None:
        raise InvalidRequest("no such key version")
    if not ctx.keyring.transit(key.spec, sound(version)).is_public_only:
        raise InvalidRequest("private key imported, key version cannot be updated")
    if not request.wrapped:
        raise InvalidRequest("cannot add a public key to a key version that already has a public key set")
    if version.public_key != material.public_key:
        raise InvalidRequest("cannot import key, key pair does not match")
    return version


def _completed(waiting: KeyVersion, material: Material, key: Key, rules: Rules, ctx: HandlerContext) -> HandlerResult:
    """The version with its private key, in all else as it was."""
    sealed = ctx.keyring.versions.wrap(
        ctx.keyring.transit(key.spec, waiting).completed(material),
        key.spec,
        key_id=key.id,
        version=waiting.version,
        created_at=waiting.created_at,
        attributes=waiting.attributes,
    )
    version = structs.replace(sealed, status=waiting.status)
    after = exchanged(key, waiting, version)
    return HandlerResult(shown(after, rules), Change(keys=(after,)), key_id=key.id, key_version=version.version)


def signing_request(request: RequestCertificate, ctx: HandlerContext) -> HandlerResult:
    """A certificate signing request, signed by the newest version or the one named."""
    key, rules = usable(ctx)
    version = _certified(key, rules, request.version)
    text = ctx.once("csr", (version,), lambda: ctx.keyring.transit(key.spec, version).signing_request(request.template))
    return HandlerResult((key.spec.word, text), key_version=version.version)


def set_certificate(request: SetCertificate, ctx: HandlerContext) -> HandlerResult:
    """Keep a chain with the version whose key it is for."""
    key, rules = usable(ctx)
    version = _certified(key, rules, request.version)
    chain = check_chain(request.chain, version.public_key or b"")
    changed = structs.replace(version, attributes={**version.attributes, CERTIFICATES: chain})
    after = exchanged(key, version, changed)
    return HandlerResult(shown(after, rules), Change(keys=(after,)), key_version=version.version)


def _certified(key: Key, rules: Rules, number: int) -> KeyVersion:
    if key.spec.type not in SIGNING or rules.derived:
        raise InvalidRequest("certificates are for signing keys that are not derived")
    return protecting(key, rules, number, what="certificates")


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    ImportTransitKey: bring_in,
    ReadWrappingKey: wrapping_key,
    RequestCertificate: signing_request,
    SetCertificate: set_certificate,
}
