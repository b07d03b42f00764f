"""The life of a key: made, read, changed, rotated, revoked, disabled, destroyed."""

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import structs

from keyvault_lite.access.authorize import may_know
from keyvault_lite.crypto.public import public_key
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.model.errors import Conflict, InvalidRequest, InvalidState, NotFound
from keyvault_lite.model.keys import MAY_DESTROY, MAY_PUBLISH, Key, KeyStatus, KeyVersion, Purpose, VersionStatus
from keyvault_lite.model.material import awaits_material, is_external, is_waiting
from keyvault_lite.model.names import KeyId, new_id
from keyvault_lite.model.replies import Page
from keyvault_lite.model.requests import (
    CreateKey,
    DestroyKey,
    DisableKey,
    EnableKey,
    EraseDueKey,
    ListKeys,
    ListVersions,
    ReadKey,
    ReadPublicKey,
    Request,
    RestoreKey,
    RevokeKey,
    RotateDueKey,
    RotateKey,
    UpdateKey,
)

DAY: Final = 24 * 3600 * 1_000_000
"""Microseconds."""


def require_active(key: Key, now: int) -> None:
    """Raise InvalidState unless the key may be used at all."""
    if key.status is not KeyStatus.ACTIVE:
        raise InvalidState(f"the key is {key.status}")
    if is_waiting(key):
        raise InvalidState("the key is to be destroyed once its replicas in other Regions are")
    if awaits_material(key, now):
        raise InvalidState("the key's imported material has expired or was deleted: import it again")


def refuse_transit(key: Key) -> None:
    """Raise InvalidRequest for a key of purpose TRANSIT: only its dialect knows the rules that it follows."""
    if key.spec.purpose is Purpose.TRANSIT:
        raise InvalidRequest("a key of purpose TRANSIT is used through the Vault dialect")


def version_of(key: Key, number: int) -> KeyVersion:
    """The version of that number. Raises NotFound."""
    version = key.version(number)
    if version is None:
        raise NotFound("the key has no such version")
    return version


def create(request: CreateKey, ctx: HandlerContext) -> HandlerResult:
    """A new key with its first version, ACTIVE."""
    if request.name is not None and ctx.state.find_key(request.name) is not None:
        raise Conflict("a key of this name exists")
    key_id = ctx.once("id", (), lambda: KeyId(new_id()))
    material = ctx.once("material", (), lambda: ctx.keyring.generate(request.spec))
    first = ctx.keyring.versions.wrap(material, request.spec, key_id=key_id, version=1, created_at=ctx.now)
    key = Key(
        id=key_id,
        name=request.name,
        spec=request.spec,
        status=KeyStatus.ACTIVE,
        created_at=ctx.now,
        description=request.description,
        tags=dict(request.tags),
        versions=(first,),
    )
    return HandlerResult(key, Change(keys=(key,)), key_id=key_id, key_version=1)


def read(_: ReadKey, ctx: HandlerContext) -> HandlerResult:
    """The key as it is."""
    return HandlerResult(ctx.key)


def page(request: ListKeys, ctx: HandlerContext) -> HandlerResult:
    """A page of the keys the caller may know of."""
    found: list[Key] = []
    place = None if request.after is None else parse_place(request.after)
    for key in ctx.state.keys_after(place):
        if may_know(ctx.principal, key):
            if len(found) == request.limit:
                return HandlerResult(Page(tuple(found), format_place(found[-1].created_at, found[-1].id)))
            found.append(key)
    return HandlerResult(Page(tuple(found), None))


def format_place(created_at: int, object_id: str) -> str:
    """The cursor behind an object of a list."""
    return f"{created_at}.{object_id}"


def parse_place(cursor: str) -> tuple[int, str]:
    """The place that `format_place` wrote. Raises InvalidRequest."""
    created, dot, object_id = cursor.partition(".")
    if not (dot and created.isascii() and created.isdigit() and len(created) <= 18):  # noqa: PLR2004
        raise InvalidRequest("after is not a cursor of this list")
    return int(created), object_id


def versions(request: ListVersions, ctx: HandlerContext) -> HandlerResult:
    """A page of the versions, oldest first."""
    start = int(request.after or 0)
    items = ctx.key.versions[start : start + request.limit]
    more = start + len(items) < len(ctx.key.versions)
    return HandlerResult(Page(items, str(start + len(items)) if more and items else None))


def read_public_key(request: ReadPublicKey, ctx: HandlerContext) -> HandlerResult:
    """The public key of a version that still has its material."""
    key = ctx.key
    refuse_transit(key)
    key.spec.check_native()
    if not key.spec.asymmetric:
        raise InvalidRequest(f"a key of type {key.spec.type} has no public key")
    version = key.versions[-1] if request.version is None else version_of(key, request.version)
    if version.status not in MAY_PUBLISH:
        raise InvalidState(f"the version is {version.status}")
    return HandlerResult(public_key(version, key.spec, request.format), key_version=version.version)


def update(request: UpdateKey, ctx: HandlerContext) -> HandlerResult:
    """Change what describes the key, and its rotation period."""
    key = ctx.key
    if key.status is KeyStatus.DESTROYED:
        raise InvalidState(f"the key is {key.status}")
    changed = key
    if request.description is not None:
        changed = structs.replace(changed, description=request.description)
    if request.tags is not None:
        changed = structs.replace(changed, tags=dict(request.tags))
    if request.rotation_days is not None:
        refuse_transit(key)
        _require_own_material(key)
        days = request.rotation_days or None
        if days is not None and key.revoked:
            raise InvalidState("the key is REVOKED: it does not rotate any more")
        changed = structs.replace(changed, rotation_days=days, rotate_at=None if days is None else ctx.now + days * DAY)
    return _changed(key, changed)


def rotate(_: RotateKey, ctx: HandlerContext) -> HandlerResult:
    """A new ACTIVE version; the former one is DEPRECATED."""
    refuse_transit(ctx.key)
    ctx.key.spec.check_native()
    return _rotated(ctx.key, ctx)


def rotate_due(_: RotateDueKey, ctx: HandlerContext) -> HandlerResult:
    """As `rotate`, if the key's period has passed."""
    if ctx.key.rotate_at is None or ctx.key.rotate_at > ctx.now:
        raise Conflict("the key is not due")
    return _rotated(ctx.key, ctx)


def _require_own_material(key: Key) -> None:
    """Refuse to make material for a key whose material comes from outside."""
    if is_external(key):
        raise InvalidState("the key's material is imported: new material is not made here")


def _rotated(key: Key, ctx: HandlerContext) -> HandlerResult:
    require_active(key, ctx.now)
    _require_own_material(key)
    number = len(key.versions) + 1
    material = ctx.once("material", (), lambda: ctx.keyring.generate(key.spec))
    newest = ctx.keyring.versions.wrap(material, key.spec, key_id=key.id, version=number, created_at=ctx.now)
    rotate_at = None if key.rotation_days is None else ctx.now + key.rotation_days * DAY
    rotated = structs.replace(key, versions=(*stepped_down(key.versions), newest), rotate_at=rotate_at)
    return HandlerResult(rotated, Change(keys=(rotated,)), key_version=number)


def stepped_down(versions: Iterable[KeyVersion]) -> tuple[KeyVersion, ...]:
    """The versions before a newer one becomes ACTIVE: the ACTIVE one is DEPRECATED."""
    return tuple(
        structs.replace(one, status=VersionStatus.DEPRECATED) if one.status is VersionStatus.ACTIVE else one
        for one in versions
    )


def exchanged(key: Key, old: KeyVersion, new: KeyVersion) -> Key:
    """The key with another version in the place of one of its own."""
    return structs.replace(key, versions=tuple(new if one is old else one for one in key.versions))


def revoke(request: RevokeKey, ctx: HandlerContext) -> HandlerResult:
    """Revoke the whole key, or one version that is not ACTIVE. Final."""
    key = ctx.key
    version = None if request.version is None else version_of(key, request.version)
    if key.status not in {KeyStatus.ACTIVE, KeyStatus.DISABLED}:
        raise InvalidState(f"the key is {key.status}")
    if version is None:
        revoked = structs.replace(
            key,
            status=KeyStatus.REVOKED,
            rotate_at=None,
            versions=tuple(_revoked(one) for one in key.versions),
        )
        return HandlerResult(revoked, Change(keys=(revoked,)), comment=request.reason)
    if version.status is not VersionStatus.DEPRECATED:
        rule = "rotate first" if version.status is VersionStatus.ACTIVE else "nothing is left to revoke"
        raise InvalidState(f"the version is {version.status}: {rule}")
    revoked = exchanged(key, version, _revoked(version))
    return HandlerResult(revoked, Change(keys=(revoked,)), key_version=version.version, comment=request.reason)


def _revoked(version: KeyVersion) -> KeyVersion:
    if version.status is VersionStatus.DESTROYED:
        return version
    return structs.replace(version, status=VersionStatus.REVOKED)


def disable(_: DisableKey, ctx: HandlerContext) -> HandlerResult:
    """Stop all use until enabled."""
    return _switched(ctx.key, KeyStatus.ACTIVE, KeyStatus.DISABLED)


def enable(_: EnableKey, ctx: HandlerContext) -> HandlerResult:
    """Allow use again."""
    return _switched(ctx.key, KeyStatus.DISABLED, KeyStatus.ACTIVE)


def _switched(key: Key, off: KeyStatus, on: KeyStatus) -> HandlerResult:
    if key.status not in {off, on}:
        raise InvalidState(f"the key is {key.status}")
    return _changed(key, structs.replace(key, status=on))


def destroy(request: DestroyKey, ctx: HandlerContext) -> HandlerResult:
    """Schedule the end of all material."""
    key = ctx.key
    if key.status not in MAY_DESTROY:
        raise InvalidState(f"the key is {key.status}")
    return _changed(
        key,
        structs.replace(
            key,
            status=KeyStatus.PENDING_DESTRUCTION,
            was_revoked=key.status is KeyStatus.REVOKED,
            destroy_at=ctx.now + request.days * DAY,
        ),
    )


def restore(_: RestoreKey, ctx: HandlerContext) -> HandlerResult:
    """Call the destruction off; the key is as unusable as before, until enabled if it was not revoked."""
    key = ctx.key
    if key.status is not KeyStatus.PENDING_DESTRUCTION:
        raise InvalidState(f"the key is {key.status}")
    status = KeyStatus.REVOKED if key.was_revoked else KeyStatus.DISABLED
    return _changed(key, structs.replace(key, status=status, was_revoked=False, destroy_at=None))


def erase_due(_: EraseDueKey, ctx: HandlerContext) -> HandlerResult:
    """Erase the material of a key whose waiting period has passed; its metadata stays."""
    key = ctx.key
    if key.status is not KeyStatus.PENDING_DESTRUCTION or key.destroy_at is None or key.destroy_at > ctx.now:
        raise Conflict("the key is not due")
    gone = tuple(
        structs.replace(one, status=VersionStatus.DESTROYED, encrypted_key=b"", public_key=None) for one in key.versions
    )
    # The names that dialects know it by go with it, and can be given again.
    return _changed(key, structs.replace(key, status=KeyStatus.DESTROYED, rotate_at=None, versions=gone, names=()))


def _changed(before: Key, after: Key) -> HandlerResult:
    return HandlerResult(after, None if after == before else Change(keys=(after,)))


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    CreateKey: create,
    DestroyKey: destroy,
    DisableKey: disable,
    EnableKey: enable,
    EraseDueKey: erase_due,
    ListKeys: page,
    ListVersions: versions,
    ReadKey: read,
    ReadPublicKey: read_public_key,
    RestoreKey: restore,
    RevokeKey: revoke,
    RotateDueKey: rotate_due,
    RotateKey: rotate,
    UpdateKey: update,
}
