"""Rotation as the AWS dialect has it: by period, on demand, and what was rotated when. Id, ARN and aliases stay."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from msgspec import structs

from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.errors import KeyUnavailable, RotationLimit, UnsupportedOperation
from keyvault_lite.dialects.aws.guard import guarded
from keyvault_lite.dialects.aws.import_material import pending_version
from keyvault_lite.dialects.aws.keys import changed, is_leaving
from keyvault_lite.dialects.aws.model import ATTRIBUTE, material
from keyvault_lite.dialects.aws.pagination import page
from keyvault_lite.dialects.aws.replies import Rotation, RotationStatus
from keyvault_lite.dialects.aws.view import View, material_id
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.engine.keys import DAY, stepped_down
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.model.keys import KeyType, KeyVersion
from keyvault_lite.model.material import EXTERNAL, is_present
from keyvault_lite.model.requests import Request

DEFAULT_PERIOD: Final = 365
MAX_ON_DEMAND: Final = 25
ON_DEMAND: Final = "ON_DEMAND"
AUTOMATIC: Final = "AUTOMATIC"
ALL_MATERIAL: Final = "ALL_KEY_MATERIAL"


def _require_symmetric(seen: View) -> None:
    if seen.key.spec.type is not KeyType.AES:
        raise UnsupportedOperation(f"{seen.arn} is not a symmetric encryption key: it is not rotated.")


def _require_own(seen: View) -> None:
    """Refuse a key whose rotation is not for this Region or this vault to decide."""
    _require_symmetric(seen)
    if seen.is_replica:
        raise UnsupportedOperation(f"{seen.arn} is a replica: its primary is rotated.")


def _require_made_here(seen: View) -> None:
    """Refuse a key whose material is imported: it does not rotate by itself."""
    if seen.origin == EXTERNAL:
        raise UnsupportedOperation(f"{seen.arn} origin is EXTERNAL which is not valid for this operation.")


def enable(request: words.EnableKeyRotation, seen: View, ctx: HandlerContext) -> HandlerResult:
    """Rotate by itself after so many days."""
    _require_own(seen)
    _require_made_here(seen)
    seen.require_usable()
    days = request.rotation_period_in_days or seen.key.rotation_days or DEFAULT_PERIOD
    if days == seen.key.rotation_days:
        return HandlerResult(None)  # asked again: the next date stays
    return changed(seen, structs.replace(seen.key, rotation_days=days, rotate_at=ctx.now + days * DAY))


def disable(_: words.DisableKeyRotation, seen: View, _scene: HandlerContext) -> HandlerResult:
    """Rotate no more by itself."""
    _require_own(seen)
    _require_made_here(seen)
    seen.require_usable()
    return changed(seen, structs.replace(seen.key, rotation_days=None, rotate_at=None))


def status(_: words.GetKeyRotationStatus, seen: View, _scene: HandlerContext) -> HandlerResult:
    """Whether and when."""
    _require_symmetric(seen)
    # A key that waits for deletion does not rotate; if the deletion is cancelled, it does as before.
    enabled = seen.key.rotation_days is not None and not is_leaving(seen)
    period = seen.key.rotation_days or (None if seen.origin == EXTERNAL else DEFAULT_PERIOD)
    return HandlerResult(
        RotationStatus(enabled, seen.arn, period if enabled else None, seen.key.rotate_at if enabled else None)
    )


def on_demand(_: words.RotateKeyOnDemand, seen: View, ctx: HandlerContext) -> HandlerResult:
    """Make new material the current one; with imported material the one that waits. The automatic schedule stays."""
    seen.require_usable()
    _require_own(seen)
    done = sum(material(one).get("rotation") == ON_DEMAND for one in seen.key.versions)
    if done >= MAX_ON_DEMAND:
        raise RotationLimit(f"A key is rotated on demand at most {MAX_ON_DEMAND} times.")
    number = len(seen.key.versions) + 1
    if seen.origin == EXTERNAL:
        newest = pending_version(seen)
        if newest is None:
            raise KeyUnavailable(f"No available key material pending rotation for the key: {seen.arn}.")
        newest = _marked(structs.replace(newest, created_at=ctx.now))
        after = seen.with_facts(pending=None)
    else:
        fresh = ctx.once("material", (), lambda: ctx.keyring.generate(seen.key.spec))
        newest = _marked(
            ctx.keyring.versions.wrap(fresh, seen.key.spec, key_id=seen.key.id, version=number, created_at=ctx.now)
        )
        after = seen.key
    rotated = structs.replace(after, versions=(*stepped_down(seen.key.versions), newest))
    return HandlerResult(seen, Change(keys=(rotated,)), key_version=number)


def _marked(version: KeyVersion) -> KeyVersion:
    facts = {**material(version), "rotation": ON_DEMAND}
    return structs.replace(version, attributes={**version.attributes, ATTRIBUTE: facts})


def list_rotations(request: words.ListKeyRotations, seen: View, ctx: HandlerContext) -> HandlerResult:
    """The rotations, or all materials, oldest first."""
    _require_symmetric(seen)
    whole = request.include_key_material == ALL_MATERIAL
    versions = [*seen.key.versions]
    waiting = pending_version(seen)
    if waiting is not None:
        versions.append(waiting)
    rows = [
        (f"{one.version:010}", _row(one, seen, ctx, whole=whole))
        for one in versions
        if whole or (one.version > 1 and one is not waiting)
    ]
    return HandlerResult(page(rows, request, default=100))


def _row(version: KeyVersion, seen: View, ctx: HandlerContext, *, whole: bool) -> Rotation:
    facts: Mapping[str, Any] = material(version)
    imported = seen.origin == EXTERNAL
    known = "material_id" in facts or not imported
    row = Rotation(key_id=seen.arn, key_material_id=material_id(version) if known else None)
    if version.version > 1 and version.version <= len(seen.key.versions):
        row = replace(row, rotation_date=version.created_at, rotation_type=facts.get("rotation", AUTOMATIC))
    if whole:
        waits = version.version > len(seen.key.versions)
        state = "CURRENT" if version.version == len(seen.key.versions) else "NON_CURRENT"
        row = replace(row, key_material_state="PENDING_ROTATION" if waits else state)
    if imported:
        valid_to = facts.get("valid_to")
        row = replace(
            row,
            import_state="IMPORTED" if is_present(version, ctx.now) else "PENDING_IMPORT",
            key_material_description=facts.get("description"),
            expiration_model=f"KEY_MATERIAL_{'DOES_NOT_EXPIRE' if valid_to is None else 'EXPIRES'}",
            valid_to=valid_to,
        )
    return row


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    words.DisableKeyRotation: guarded(disable),
    words.EnableKeyRotation: guarded(enable),
    words.GetKeyRotationStatus: guarded(status),
    words.ListKeyRotations: guarded(list_rotations),
    words.RotateKeyOnDemand: guarded(on_demand),
}
