"""The life of a key of the Vault dialect: made, read, configured, rotated, trimmed, deleted and restored."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from msgspec import structs

from keyvault_lite.access.authorize import may_know
from keyvault_lite.crypto.transit import public_text
from keyvault_lite.dialects.vault.mounts import deleted, require_mount, upserts
from keyvault_lite.dialects.vault.requests import (
    CERTIFICATES,
    SIGNING,
    ConfigureTransitKey,
    CreateTransitKey,
    DeleteTransitKey,
    DeletionKind,
    ExportCertificates,
    ExportPublicKeys,
    ExportRequest,
    ListTransitKeys,
    ReadTransitKey,
    RefuseExport,
    RestoreTransitKey,
    RotateDueTransitKey,
    RotateTransitKey,
    Rules,
    TransitKey,
    TrimTransitKey,
    UpsertTransitKey,
    key_ref,
    namespace,
)
from keyvault_lite.dialects.vault.rules import is_absent, present, usable
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.engine.keys import stepped_down
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.model.errors import Conflict, InvalidRequest, InvalidState, NotFound
from keyvault_lite.model.identity import Role
from keyvault_lite.model.keys import MAY_PROCESS, Key, KeyName, KeySpec, KeyStatus, KeyType, KeyVersion, VersionStatus
from keyvault_lite.model.names import KeyId, new_id
from keyvault_lite.model.requests import Request

_SECOND: Final = 1_000_000


def shown(key: Key, rules: Rules, warning: str | None = None) -> TransitKey:
    """The key as the dialect shows it: no versions below the minimum, and no own public key of a derived one."""
    versions = tuple(one for one in key.versions if one.version >= max(rules.min_decryption, rules.min_available, 1))
    public = dict.fromkeys((one.version for one in versions), "") if rules.derived else _public_texts(versions)
    return TransitKey(key, versions, public, warning)


def _public_texts(versions: tuple[KeyVersion, ...]) -> dict[int, str]:
    return {one.version: public_text(one.public_key) for one in versions if one.public_key is not None}


def replaced(key: Key, rules: Rules, **changes: object) -> Key:
    """The key with other rules."""
    return structs.replace(key, attributes={**key.attributes, **rules.attributes()}, **changes)


def _rotates_at(rules: Rules, now: int) -> int | None:
    return now + rules.rotate_seconds * _SECOND if rules.rotate_seconds and _may_rotate(rules) else None


def _may_rotate(rules: Rules) -> bool:
    return rules.imported_rotation or not rules.imported


def taken_name(ctx: HandlerContext, mount: str, name: str) -> tuple[Key | None, tuple[Key, ...]]:
    """The key of that name, if there is one; and a deleted key that has to give the name up."""
    require_mount(ctx.state, mount)
    found = ctx.state.find_key(key_ref(mount, name))
    if found is None:
        return None, ()
    if not is_absent(found):
        return found, ()
    text = key_ref(mount, name)
    return None, (structs.replace(found, names=tuple(one for one in found.names if one.text != text)),)


def begin(ctx: HandlerContext, name: KeyName, spec: KeySpec, rules: Rules, first: KeyVersion) -> Key:
    """A new key with its first version."""
    return Key(
        id=first.key_id,
        name=None,
        spec=spec,
        status=KeyStatus.ACTIVE,
        created_at=ctx.now,
        rotate_at=_rotates_at(rules, ctx.now),
        versions=(first,),
        names=(name,),
        attributes=rules.attributes(),
    )


def create(request: CreateTransitKey, ctx: HandlerContext) -> HandlerResult:
    """A new key, or the one of that name as it is."""
    found, losing = taken_name(ctx, request.mount, request.name)
    if found is not None:
        return HandlerResult(shown(found, Rules.of(found)), key_id=found.id)
    key_id = ctx.once("id", (), lambda: KeyId(new_id()))
    material = ctx.once("material", (), lambda: ctx.keyring.generate(request.spec))
    first = ctx.keyring.versions.wrap(material, request.spec, key_id=key_id, version=1, created_at=ctx.now)
    name = KeyName(namespace(request.mount), request.name, ctx.now, ctx.now)
    key = begin(ctx, name, request.spec, request.rules, first)
    return HandlerResult(shown(key, request.rules), Change(keys=(*losing, key)), key_id=key_id, key_version=1)


def upsert(request: UpsertTransitKey, ctx: HandlerContext) -> HandlerResult:
    """As `create`, where encrypting may make keys."""
    found, _ = taken_name(ctx, request.mount, request.name)
    if found is not None:
        return HandlerResult(shown(found, Rules.of(found)), key_id=found.id)
    if not upserts(ctx.state, request.mount):
        raise NotFound("no such key")
    return create(request.create(), ctx)


def read(request: ReadTransitKey, ctx: HandlerContext) -> HandlerResult:
    """The key as it is; of a derived Ed25519 key the public keys for the context."""
    key, rules = present(ctx)
    found = shown(key, rules)
    if request.context and rules.derived and key.spec.type is KeyType.ED25519:
        context = request.context
        public = {
            one.version: ctx.keyring.transit(key.spec, one).derived_public_text(context)
            for one in found.versions
            if one.status in MAY_PROCESS
        }
        found = replace(found, public_keys={**found.public_keys, **public})
    return HandlerResult(found)


def page(request: ListTransitKeys, ctx: HandlerContext) -> HandlerResult:
    """The names the caller may know of, sorted. To a SERVICE a missing mount looks the same."""
    if ctx.principal.role is not Role.SERVICE:
        require_mount(ctx.state, request.mount)
    space = namespace(request.mount)
    names = sorted(
        name.name
        for key in ctx.state.keys_after(None)
        for name in key.names
        if name.namespace == space and not is_absent(key) and may_know(ctx.principal, key)
    )
    later = tuple(name for name in names if name > request.after)
    return HandlerResult(later[: request.limit] if request.limit > 0 else later)


def configure(request: ConfigureTransitKey, ctx: HandlerContext) -> HandlerResult:
    """Change the rules: all that is given, or nothing."""
    key, rules = present(ctx)
    latest = len(key.versions)
    changed, warning = rules, None
    if request.min_decryption is not None:
        if request.min_decryption > latest:
            raise InvalidRequest(
                f"cannot set min decryption version of {request.min_decryption}, latest key version is {latest}"
            )
        warning = None if request.min_decryption else "key numbering starts at 1; forcing minimum to 1"
        changed = replace(changed, min_decryption=max(request.min_decryption, 1))
    if request.min_encryption is not None:
        if request.min_encryption > latest:
            raise InvalidRequest(
                f"cannot set min encryption version of {request.min_encryption}, latest key version is {latest}"
            )
        changed = replace(changed, min_encryption=request.min_encryption)
    if request.deletion_allowed is not None:
        changed = replace(changed, deletion_allowed=request.deletion_allowed)
    changed = replace(
        changed,
        exportable=rules.exportable or bool(request.exportable),
        plaintext_backup=rules.plaintext_backup or bool(request.plaintext_backup),
    )
    rotate_at = key.rotate_at
    if request.rotate_seconds is not None and request.rotate_seconds != rules.rotate_seconds:
        if request.rotate_seconds and key.revoked:
            raise InvalidState("the key is REVOKED: it does not rotate any more")
        changed = replace(changed, rotate_seconds=request.rotate_seconds)
        rotate_at = _rotates_at(changed, ctx.now)
    _check_minima(changed)
    if changed == rules:
        return HandlerResult(shown(key, rules, warning))
    after = replaced(key, changed, rotate_at=rotate_at)
    return HandlerResult(shown(after, changed, warning), Change(keys=(after,)))


def _check_minima(rules: Rules) -> None:
    if 0 < rules.min_encryption < rules.min_decryption:
        raise InvalidRequest(
            f"cannot set min encryption/decryption values; min encryption version of {rules.min_encryption} must be "
            f"greater than or equal to min decryption version of {rules.min_decryption}"
        )
    if rules.min_decryption < rules.min_available:
        raise InvalidRequest("min decryption version should not be less then min available version")
    if rules.min_encryption < rules.min_available:
        raise InvalidRequest("min encryption version should not be less then min available version")


def rotate(_: RotateTransitKey, ctx: HandlerContext) -> HandlerResult:
    """A new version, the newest from now on."""
    key, rules = usable(ctx)
    if not _may_rotate(rules):
        raise InvalidRequest("imported key does not allow rotation within the vault")
    return _rotated(key, rules, ctx)


def rotate_due(_: RotateDueTransitKey, ctx: HandlerContext) -> HandlerResult:
    """As `rotate`, if the key's period has passed."""
    key, rules = usable(ctx)
    if key.rotate_at is None or key.rotate_at > ctx.now or not _may_rotate(rules):
        raise Conflict("the key is not due")
    return _rotated(key, rules, ctx)


def _rotated(key: Key, rules: Rules, ctx: HandlerContext) -> HandlerResult:
    number = len(key.versions) + 1
    material = ctx.once("material", (), lambda: ctx.keyring.generate(key.spec))
    newest = ctx.keyring.versions.wrap(material, key.spec, key_id=key.id, version=number, created_at=ctx.now)
    # From here on its versions are made here: an imported key that was rotated takes no imported versions any more.
    own = replace(rules, imported=False)
    after = replaced(extended(key, own, newest, ctx), own)
    return HandlerResult(shown(after, own), Change(keys=(after,)), key_version=number)


def extended(key: Key, rules: Rules, newest: KeyVersion, ctx: HandlerContext) -> Key:
    """The key with one more version; the former newest steps down."""
    versions = (*stepped_down(key.versions), newest)
    return structs.replace(key, versions=versions, rotate_at=_rotates_at(rules, ctx.now))


def trim(request: TrimTransitKey, ctx: HandlerContext) -> HandlerResult:
    """Erase the material of every version below the one named. Final."""
    key, rules = usable(ctx)
    wanted = request.min_available
    if wanted < rules.min_available:
        raise InvalidRequest("minimum available version cannot be decremented")
    if rules.min_encryption == 0:
        raise InvalidRequest("minimum available version cannot be set when minimum encryption version is not set")
    if wanted > rules.min_encryption:
        raise InvalidRequest("minimum available version cannot be greater than minmum encryption version")
    if wanted > rules.min_decryption:
        raise InvalidRequest("minimum available version cannot be greater than minimum decryption version")
    if wanted < 1:
        raise InvalidRequest("minimum available version must be positive")
    changed = replace(rules, min_available=wanted)
    after = replaced(
        key, changed, versions=tuple(one if one.version >= wanted else _erased(one) for one in key.versions)
    )
    return HandlerResult(shown(after, changed), Change(keys=(after,)), key_version=wanted)


def _erased(version: KeyVersion) -> KeyVersion:
    return structs.replace(version, status=VersionStatus.DESTROYED, encrypted_key=b"", public_key=None)


def delete(request: DeleteTransitKey, ctx: HandlerContext) -> HandlerResult:
    """Schedule the end of all material, and until then answer as absent or, softly, refuse all use."""
    key, rules = present(ctx)
    if request.soft:
        if rules.deleted is DeletionKind.SOFT and key.status is KeyStatus.PENDING_DESTRUCTION:
            return HandlerResult(shown(key, rules, "key was already marked as soft deleted"))
        how = DeletionKind.SOFT
    else:
        if not rules.deletion_allowed:
            raise InvalidRequest("deletion is not allowed for this key")
        how = DeletionKind.HARD
    after = deleted(key, how, ctx.now)
    return HandlerResult(shown(after, Rules.of(after)), Change(keys=(after,)))


def restore(_: RestoreTransitKey, ctx: HandlerContext) -> HandlerResult:
    """Call the destruction off: also for a key that answers as absent, as long as it has its material and its name."""
    key, rules = ctx.key, Rules.of(ctx.key)
    if key.status is KeyStatus.DESTROYED:
        raise NotFound("no such key")
    if key.status is KeyStatus.ACTIVE:
        return HandlerResult(shown(key, rules, "key was already restored"))
    if key.revoked:
        raise InvalidState("the key is REVOKED")
    changed = replace(rules, deleted=DeletionKind.NO)
    after = replaced(key, changed, status=KeyStatus.ACTIVE, destroy_at=None, rotate_at=_rotates_at(changed, ctx.now))
    return HandlerResult(shown(after, changed), Change(keys=(after,)))


def export(request: ExportPublicKeys, ctx: HandlerContext) -> HandlerResult:
    """The public keys of all versions shown, of the newest, or of the one named."""
    key, rules = usable(ctx)
    if not key.spec.asymmetric:
        raise InvalidRequest(f"unknown key type {key.spec.word} for export type public-key")
    found = shown(key, rules)
    return HandlerResult(_chosen(found, _public_texts(found.versions), request))


def export_certificates(request: ExportCertificates, ctx: HandlerContext) -> HandlerResult:
    """The certificate chains of all versions shown, of the newest, or of the one named: none of them may be without."""
    key, rules = usable(ctx)
    if key.spec.type not in SIGNING:
        raise InvalidRequest("certificate chain not supported for keys that do not support signing")
    found = shown(key, rules)
    chains = {one.version: str(one.attributes.get(CERTIFICATES, "")) for one in found.versions}
    found = _chosen(found, chains, request)
    if not all(found.public_keys.values()):
        raise InvalidRequest("selected key version does not have a certificate chain imported")
    return HandlerResult(found)


def _chosen(found: TransitKey, written: Mapping[int, str], request: ExportRequest) -> TransitKey:
    """The key with the exported versions. Raises InvalidRequest if there is nothing to export."""
    if request.version is None:
        return replace(found, public_keys=written)
    if request.version < 0:
        raise InvalidRequest("version for export is below minimum decryption version")
    number = request.version or len(found.key.versions)
    if number not in written:
        raise InvalidRequest("version does not exist or cannot be found")
    versions = tuple(one for one in found.versions if one.version == number)
    return replace(found, versions=versions, public_keys={number: written[number]})


def refuse_export(request: RefuseExport, ctx: HandlerContext) -> HandlerResult:
    """Keys never leave."""
    present(ctx)
    raise InvalidRequest(request.detail)


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    ConfigureTransitKey: configure,
    CreateTransitKey: create,
    DeleteTransitKey: delete,
    ExportCertificates: export_certificates,
    ExportPublicKeys: export,
    ListTransitKeys: page,
    ReadTransitKey: read,
    RefuseExport: refuse_export,
    RestoreTransitKey: restore,
    RotateDueTransitKey: rotate_due,
    RotateTransitKey: rotate,
    TrimTransitKey: trim,
    UpsertTransitKey: upsert,
}
