"""Imported material of the AWS dialect: parameters for its owner, the import, and its end.

A key of origin EXTERNAL starts without material: its first version is as if destroyed. The import token carries the
private half of the wrapping key, sealed, so that nothing is stored for imports that never come.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from msgspec import structs

from keyvault_lite.crypto.versions import IMPORTED
from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.errors import (
    ExpiredImportToken,
    IncorrectKeyMaterial,
    InvalidImportToken,
    KeyUnavailable,
    UnsupportedOperation,
    Validation,
)
from keyvault_lite.dialects.aws.guard import guarded
from keyvault_lite.dialects.aws.model import ATTRIBUTE, facts, material
from keyvault_lite.dialects.aws.replies import ImportedMaterial, ImportParameters
from keyvault_lite.dialects.aws.requests import EraseExpiredMaterial
from keyvault_lite.dialects.aws.view import KeyState, View
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.engine.keys import exchanged, version_of
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.model.encoding import decode_base64, encode_base64
from keyvault_lite.model.errors import Conflict, InvalidCiphertext, InvalidRequest
from keyvault_lite.model.keys import Key, KeySpec, KeyType, KeyVersion, Purpose, VersionStatus
from keyvault_lite.model.material import EXTERNAL, is_expired, is_pending_expired, is_present, was_revoked
from keyvault_lite.model.requests import Request

LIFETIME: Final = 24 * 3600 * 1_000_000
"""Microseconds that parameters are good for."""
MAX_VALIDITY: Final = 365 * LIFETIME
NEW: Final = "NEW_KEY_MATERIAL"
_NOTE: Final = "IMPORT"
_WRAPPING: Final[Mapping[str, tuple[str, bool]]] = {
    # Hash of OAEP, and whether an AES key is between.
    "RSAES_OAEP_SHA_1": ("SHA1", False),
    "RSAES_OAEP_SHA_256": ("SHA256", False),
    "RSA_AES_KEY_WRAP_SHA_1": ("SHA1", True),
    "RSA_AES_KEY_WRAP_SHA_256": ("SHA256", True),
}
_OF_THE_PRIMARY: Final = "a replica shares its primary's material: it is imported and deleted there"
_SIZES: Final[Mapping[str, int]] = {"RSA_2048": 2048, "RSA_3072": 3072, "RSA_4096": 4096}


def _require_external(seen: View) -> None:
    if seen.origin != EXTERNAL:
        raise UnsupportedOperation(f"{seen.arn} origin is {seen.origin} which is not valid for this operation.")


def _require_importable(seen: View) -> None:
    """Raise unless material may come: to a key that is neither leaving nor revoked."""
    _require_external(seen)
    seen.require(KeyState.ENABLED, KeyState.DISABLED, KeyState.PENDING_IMPORT)


def parameters(request: words.GetParametersForImport, seen: View, ctx: HandlerContext) -> HandlerResult:
    """A public key to wrap material with, and the token to bring it back with."""
    _require_importable(seen)
    if request.wrapping_algorithm not in _WRAPPING or request.wrapping_key_spec not in _SIZES:
        raise UnsupportedOperation("this wrapping algorithm or key is not offered here")
    if seen.key.spec.type is KeyType.RSA and not _WRAPPING[request.wrapping_algorithm][1]:
        raise UnsupportedOperation("an RSA private key is larger than RSAES_OAEP can wrap: use RSA_AES_KEY_WRAP")
    kind = KeySpec(KeyType.RSA, _SIZES[request.wrapping_key_spec], Purpose.ENCRYPT)
    private, public = ctx.once("pair", (), lambda: ctx.keyring.import_pair(kind))
    until = ctx.now + LIFETIME
    note = json.dumps([seen.key.id, until, request.wrapping_algorithm, encode_base64(private)]).encode()
    return HandlerResult(ImportParameters(seen.arn, ctx.keyring.seal_note(_NOTE, note), public, until))


def _read_token(request: words.ImportKeyMaterial, seen: View, ctx: HandlerContext) -> tuple[bytes, str]:
    """The private wrapping key and the wrapping algorithm."""
    try:
        key_id, until, algorithm, private = json.loads(ctx.keyring.open_note(_NOTE, request.import_token))
    except InvalidCiphertext:
        raise InvalidImportToken from None
    if key_id != seen.key.id:
        raise InvalidImportToken
    if until <= ctx.now:
        raise ExpiredImportToken
    return decode_base64(private), algorithm


def _validity(request: words.ImportKeyMaterial, now: int) -> int | None:
    expires = request.expiration_model == "KEY_MATERIAL_EXPIRES"
    if expires is (request.valid_to is None):
        raise Validation(
            "A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES"
            if expires
            else "A validTo date is set only if the ExpirationModel is KEY_MATERIAL_EXPIRES"
        )
    if request.valid_to is not None and not now < request.valid_to <= now + MAX_VALIDITY:
        raise Validation("ValidTo is a time within the next 365 days")
    return request.valid_to


def bring(request: words.ImportKeyMaterial, seen: View, ctx: HandlerContext) -> HandlerResult:
    """Take material in: the first, the same again, or new material that waits for a rotation."""
    _require_external(seen)
    private, algorithm = _read_token(request, seen, ctx)
    facts: dict[str, Any] = {"valid_to": _validity(request, ctx.now)}
    if request.key_material_description is not None:
        facts["description"] = request.key_material_description
    digest, key_wrap = _WRAPPING[algorithm]
    raw = ctx.once(
        "unwrap",
        (),
        lambda: ctx.keyring.open_import(private, request.encrypted_key_material, digest=digest, key_wrap=key_wrap),
    )
    try:
        fresh = ctx.once("read", (), lambda: ctx.keyring.read_import(seen.key.spec, raw))
    except InvalidRequest as error:
        raise IncorrectKeyMaterial(error.detail) from None
    facts["material_id"] = ctx.keyring.material_digest(seen.key.id, raw).hex()
    if request.key_material_id not in {None, facts["material_id"]}:
        raise IncorrectKeyMaterial("the material is not the one of this id")
    if seen.is_replica:
        return _shared(request, seen, facts)
    number = _place(request, seen, facts["material_id"])
    if any(was_revoked(one) for one in seen.key.versions if one.version == number):
        raise KeyUnavailable(f"{seen.arn} has this key material revoked.")
    attributes = {"origin": IMPORTED, ATTRIBUTE: {name: one for name, one in facts.items() if one is not None}}
    version = ctx.keyring.versions.wrap(
        fresh, seen.key.spec, key_id=seen.key.id, version=number, created_at=ctx.now, attributes=attributes
    )
    after = _with_pending(seen, version) if number > len(seen.key.versions) else _with_version(seen, version)
    return HandlerResult(ImportedMaterial(seen.arn, facts["material_id"]), Change(keys=(after,)), key_version=number)


def _shared(request: words.ImportKeyMaterial, seen: View, facts: Mapping[str, Any]) -> HandlerResult:
    """An import into a replica: what changes nothing is accepted. Material and its expiry are the primary's."""
    for one in seen.key.versions:
        held = {name: material(one).get(name) for name in facts}
        if held == facts and is_present(one, seen.now) and request.import_type != NEW:
            return HandlerResult(ImportedMaterial(seen.arn, facts["material_id"]), key_version=one.version)
    raise UnsupportedOperation(_OF_THE_PRIMARY)


def _place(request: words.ImportKeyMaterial, seen: View, material_id: str) -> int:
    """The version that this material is or becomes."""
    for one in seen.key.versions:
        if material(one).get("material_id") == material_id:
            if request.import_type == NEW:
                raise IncorrectKeyMaterial("the material was imported before")
            return one.version
    if "material_id" not in material(seen.key.versions[0]):
        return 1
    waiting = seen.facts.get("pending")
    if request.import_type != NEW and (waiting is None or waiting["facts"]["material_id"] != material_id):
        raise IncorrectKeyMaterial("the material is not the one that was imported before")
    if seen.key.spec.type is not KeyType.AES:
        raise UnsupportedOperation("only symmetric encryption keys take more than one material")
    if waiting is not None and waiting["facts"]["material_id"] != material_id:
        raise KeyUnavailable(f"{seen.arn} already has key material pending rotation.")
    return len(seen.key.versions) + 1


def _with_version(seen: View, version: KeyVersion) -> Key:
    old = seen.key.versions[version.version - 1]
    newest = version.version == len(seen.key.versions)
    kept = {name: material(old)[name] for name in ("rotation",) if name in material(old)}
    facts = {**kept, **material(version)}
    brought = structs.replace(
        version,
        status=VersionStatus.ACTIVE if newest else VersionStatus.DEPRECATED,
        created_at=old.created_at,
        attributes={**version.attributes, ATTRIBUTE: facts},
    )
    return exchanged(seen.key, old, brought)


# Material that waits for RotateKeyOnDemand. It is no version yet, because the newest version is the one that protects.


def _with_pending(seen: View, version: KeyVersion) -> Key:
    return seen.with_facts(
        pending={
            "created_at": version.created_at,
            "encrypted_key": encode_base64(version.encrypted_key),
            "generation": version.generation,
            "facts": dict(material(version)),
        }
    )


def pending_version(seen: View) -> KeyVersion | None:
    """The version that waiting material will be, if there is some that has not expired."""
    waiting = seen.facts.get("pending")
    if waiting is None:
        return None
    version = KeyVersion(
        key_id=seen.key.id,
        version=len(seen.key.versions) + 1,
        status=VersionStatus.ACTIVE,
        created_at=waiting["created_at"],
        encrypted_key=decode_base64(waiting["encrypted_key"]),
        generation=waiting["generation"],
        attributes={"origin": IMPORTED, ATTRIBUTE: waiting["facts"]},
    )
    return None if is_expired(version, seen.now) else version


def remove(request: words.DeleteImportedKeyMaterial, seen: View, ctx: HandlerContext) -> HandlerResult:
    """Let material go; it can be brought back. The key is pending import until all it needs is there again."""
    _require_external(seen)
    if seen.is_replica:
        raise UnsupportedOperation(_OF_THE_PRIMARY)
    waiting = seen.facts.get("pending")
    if request.key_material_id is not None and waiting and waiting["facts"]["material_id"] == request.key_material_id:
        return HandlerResult(
            ImportedMaterial(seen.arn, request.key_material_id), Change(keys=(seen.with_facts(pending=None),))
        )
    versions = seen.key.versions
    wanted = versions[-1]
    if request.key_material_id is not None:
        named = [one for one in versions if material(one).get("material_id") == request.key_material_id]
        if not named:
            raise IncorrectKeyMaterial("the key has no such material")
        wanted = named[0]
    result = ImportedMaterial(seen.arn, material(wanted).get("material_id"))
    if not is_present(wanted, ctx.now) and wanted.status is VersionStatus.DESTROYED:
        return HandlerResult(result)
    return HandlerResult(result, Change(keys=(_without(seen.key, wanted),)), key_version=wanted.version)


def _without(key: Key, version: KeyVersion) -> Key:
    """The key without the material of a version. Revoked material stays so, whether it is imported again or not."""
    attributes = version.attributes
    if version.status is VersionStatus.REVOKED:
        attributes = {**attributes, ATTRIBUTE: {**material(version), "revoked": True}}
    gone = structs.replace(version, status=VersionStatus.DESTROYED, encrypted_key=b"", attributes=attributes)
    return exchanged(key, version, gone)


def erase_expired(request: EraseExpiredMaterial, ctx: HandlerContext) -> HandlerResult:
    """Erase imported material that has expired; it can be imported again."""
    key = ctx.key
    if request.version is None:
        if not is_pending_expired(key, ctx.now):
            raise Conflict("the material has not expired")
        kept = {name: one for name, one in facts(key).items() if name != "pending"}
        after = structs.replace(key, attributes={**key.attributes, ATTRIBUTE: kept})
        return HandlerResult(None, Change(keys=(after,)), comment="expired before its rotation")
    version = version_of(key, request.version)
    if version.status is VersionStatus.DESTROYED or not is_expired(version, ctx.now):
        raise Conflict("the material has not expired")
    return HandlerResult(None, Change(keys=(_without(key, version),)), key_version=version.version, comment="expired")


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    EraseExpiredMaterial: erase_expired,
    words.DeleteImportedKeyMaterial: guarded(remove),
    words.GetParametersForImport: guarded(parameters),
    words.ImportKeyMaterial: guarded(bring),
}
