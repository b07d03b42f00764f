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
from keyvault_lite.engine.keys import exchanged
from keyvault_lite.engine.scene import Done, Handler, Scene
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.model.encoding import decode_base64, encode_base64
from keyvault_lite.model.errors import InvalidRequest, NotFound
from keyvault_lite.model.identity import Setting
from keyvault_lite.model.keys import MAY_PROCESS, Key, KeyName, KeySpec, KeyType, KeyVersion, Purpose
from keyvault_lite.model.names import KeyId, new_id
from keyvault_lite.model.requests import Request

NOTE: Final = "vault wrapping key"
_KIND: Final = KeySpec(KeyType.RSA, 4096, Purpose.ENCRYPT)


def wrapping_key(request: ReadWrappingKey, scene: Scene) -> Done:
    """The mount's public wrapping key; its private half is kept sealed."""
    require_mount(scene.state, request.mount)
    found = scene.state.setting(WRAPPING + request.mount)
    if found is not None and found.value is not None:
        return Done(public_text(decode_base64(found.value["public"])))
    private, public = scene.once("pair", (), lambda: scene.keyring.import_pair(_KIND))
    kept = {
        "private": encode_base64(scene.keyring.seal_note(NOTE, private)),
        "public": encode_base64(public),
    }
    return Done(public_text(public), Change(settings=(Setting(WRAPPING + request.mount, kept),)))


def _unwrap(request: ImportTransitKey, scene: Scene) -> bytes:
    found = scene.state.setting(WRAPPING + request.mount)
    if found is None or found.value is None:
        raise InvalidRequest("the mount has no wrapping key yet: read it first")
    private = scene.keyring.open_note(NOTE, decode_base64(found.value["private"]))
    return scene.keyring.open_import(private, request.wrapped, digest=request.digest, key_wrap=True)


def _first(request: ImportTransitKey, scene: Scene) -> tuple[KeySpec, Material]:
    """The kind of a new key and its material, which of an HMAC key says how long it is."""
    if not request.wrapped or request.spec.type is not KeyType.HMAC:
        return request.spec, _material(request, scene, request.spec)
    raw = _unwrap(request, scene)
    spec = hmac_spec(len(raw))
    return spec, scene.keyring.read_import(spec, raw)


def _material(request: ImportTransitKey, scene: Scene, spec: KeySpec) -> Material:
    if not request.wrapped:
        return scene.keyring.read_public(spec, request.public_key)
    return scene.keyring.read_import(spec, _unwrap(request, scene))


def _version(material: Material, scene: Scene, key_id: KeyId, number: int, spec: KeySpec) -> KeyVersion:
    return scene.keyring.versions.wrap(
        material,
        spec,
        key_id=key_id,
        version=number,
        created_at=scene.now,
        attributes={ORIGIN: IMPORTED},
    )


def bring_in(request: ImportTransitKey, scene: Scene) -> Done:
    """A new key, or one more version of an imported one, of material that was wrapped for the mount."""
    found, losing = taken_name(scene, request.mount, request.name)
    if request.further:
        return _further(request, scene, found)
    if found is not None:
        raise InvalidRequest("a key of this name exists; a further version is brought in by import_version")
    key_id = scene.once("id", (), lambda: KeyId(new_id()))
    rules = replace(request.rules, imported=True)
    spec, material = scene.once("material", (), lambda: _first(request, scene))
    first = _version(material, scene, key_id, 1, spec)
    name = KeyName(namespace(request.mount), request.name, scene.now, scene.now)
    key = begin(scene, name, spec, rules, first)
    return Done(shown(key, rules), Change(keys=(*losing, key)), key_id=key_id, key_version=1)


def _further(request: ImportTransitKey, scene: Scene, found: Key | None) -> Done:
    if found is None:
        raise NotFound("no such key")
    key, rules = usable(structs.replace(scene, named_key=found))
    if not rules.imported:
        raise InvalidRequest("only an imported key takes imported versions")
    material = scene.once("material", (key.spec,), lambda: _material(request, scene, key.spec))
    waiting = _waiting(request, key, material, scene)
    if waiting is not None:
        return _completed(waiting, material, key, rules, scene)
    number = len(key.versions) + 1
    after = extended(key, rules, _version(material, scene, key.id, number, key.spec), scene)
    return Done(shown(after, rules), Change(keys=(after,)), key_id=key.id, key_version=number)


def _waiting(request: ImportTransitKey, key: Key, material: Material, scene: Scene) -> KeyVersion | None:
    """The version that the private key is for: the one named, or the newest if it is a public key alone and fits."""
    if request.version is None:
        newest = key.versions[-1]
        fits = request.wrapped and newest.status in MAY_PROCESS and newest.public_key == material.public_key
        return newest if fits and scene.keyring.transit(key.spec, newest).is_public_only else None
    if not key.spec.asymmetric:
        raise InvalidRequest("provided type does not support importing key versions")
    version = key.version(request.version)
    if version is None:
        raise InvalidRequest("no such key version")
    if not scene.keyring.transit(key.spec, sound(version)).is_public_only:
        raise InvalidRequest("private key imported, key version cannot be updated")
    if not request.wrapped:
        raise InvalidRequest("cannot add a public key to a key version that already has a public key set")
    if version.public_key != material.public_key:
        raise InvalidRequest("cannot import key, key pair does not match")
    return version


def _completed(waiting: KeyVersion, material: Material, key: Key, rules: Rules, scene: Scene) -> Done:
    """The version with its private key, in all else as it was."""
    sealed = scene.keyring.versions.wrap(
        scene.keyring.transit(key.spec, waiting).completed(material),
        key.spec,
        key_id=key.id,
        version=waiting.version,
        created_at=waiting.created_at,
        attributes=waiting.attributes,
    )
    version = structs.replace(sealed, status=waiting.status)
    after = exchanged(key, waiting, version)
    return Done(shown(after, rules), Change(keys=(after,)), key_id=key.id, key_version=version.version)


def signing_request(request: RequestCertificate, scene: Scene) -> Done:
    """A certificate signing request, signed by the newest version or the one named."""
    key, rules = usable(scene)
    version = _certified(key, rules, request.version)
    text = scene.once(
        "csr", (version,), lambda: scene.keyring.transit(key.spec, version).signing_request(request.template)
    )
    return Done((key.spec.word, text), key_version=version.version)


def set_certificate(request: SetCertificate, scene: Scene) -> Done:
    """Keep a chain with the version whose key it is for."""
    key, rules = usable(scene)
    version = _certified(key, rules, request.version)
    chain = check_chain(request.chain, version.public_key or b"")
    changed = structs.replace(version, attributes={**version.attributes, CERTIFICATES: chain})
    after = exchanged(key, version, changed)
    return Done(shown(after, rules), Change(keys=(after,)), key_version=version.version)


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
