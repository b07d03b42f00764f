"""The life of a key as the AWS dialect has it: made, described, listed, switched, deleted, last used."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from msgspec import structs

from keyvault_lite.access.authorize import may_know
from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.authorize import locks_out
from keyvault_lite.dialects.aws.errors import (
    InvalidMarker,
    InvalidTag,
    KeyUnavailable,
    MalformedPolicy,
    UnsupportedOperation,
    Validation,
)
from keyvault_lite.dialects.aws.guard import guarded
from keyvault_lite.dialects.aws.model import ATTRIBUTE, AccountRegion, key_spec
from keyvault_lite.dialects.aws.pagination import KEYS, read_marker, write_marker
from keyvault_lite.dialects.aws.policy import check_policy
from keyvault_lite.dialects.aws.replies import LastUsage, UsageData
from keyvault_lite.dialects.aws.view import KeyState, View, exists, view
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.engine.keys import DAY, format_place, parse_place
from keyvault_lite.ledger.log.query import Filter
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.model.actions import RULES
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.evidence import Action, Entry, Result
from keyvault_lite.model.keys import Key, KeySpec, KeyStatus, KeyType, KeyVersion, VersionStatus
from keyvault_lite.model.material import EXTERNAL
from keyvault_lite.model.names import KeyId, new_id
from keyvault_lite.model.replies import Page
from keyvault_lite.model.requests import MAX_TAG_NAME, MAX_TAG_VALUE, Request

MAX_TAGS: Final = 50
MIN_WINDOW: Final = 7
MAX_WINDOW: Final = 30
_NOT_IMPORTED: Final = frozenset({KeyType.ML_DSA, KeyType.ML_KEM})


def read_tags(tags: words.Tags, held: Mapping[str, str]) -> dict[str, str]:
    """The tags held with others put over them. Raises InvalidTag."""
    if len({name for name, _ in tags}) != len(tags):
        raise InvalidTag("Duplicate tag keys")
    if any(name.lower().startswith("aws:") for name, _ in tags):
        raise InvalidTag("Tag keys that begin with aws: are reserved")
    merged = {**held, **dict(tags)}
    if len(merged) > MAX_TAGS or any(len(name) > MAX_TAG_NAME or len(value) > MAX_TAG_VALUE for name, value in tags):
        raise InvalidTag("Too many tags")
    return merged


def read_policy(policy: str | None, arn: str, place: AccountRegion, ctx: HandlerContext, *, bypass: bool) -> str | None:
    """A policy that is one and does not lock its author out, unless that is what the author asks for."""
    if policy is None:
        return None
    check_policy(policy, place.partition)
    if locks_out(policy, ctx.principal, place, arn) and not bypass:
        raise MalformedPolicy("The new key policy will not allow you to update the key policy in the future.")
    return policy


def create(request: words.CreateKey, ctx: HandlerContext) -> HandlerResult:
    """A key with its first material; one for imported material has none yet."""
    if request.custom_key_store_id is not None or request.xks_key_id is not None:
        raise UnsupportedOperation("custom key stores are not offered here")
    if request.origin not in {"AWS_KMS", EXTERNAL}:
        raise UnsupportedOperation(f"keys of origin {request.origin} are not offered here")
    spec = key_spec(request.key_spec, request.key_usage)
    if request.origin == EXTERNAL and spec.type in _NOT_IMPORTED:
        raise UnsupportedOperation(f"keys of spec {request.key_spec} do not take imported material")
    place = request.place
    key_id = ctx.once("id", (), lambda: KeyId(new_id()))
    first = _first(spec, key_id, ctx, imports=request.origin == EXTERNAL)
    facts: dict[str, Any] = {"region": place.region, "origin": request.origin}
    if request.multi_region:
        facts["multi_region"] = True
    key = Key(
        id=key_id,
        name=None,
        spec=spec,
        status=KeyStatus.ACTIVE,
        created_at=ctx.now,
        description=request.description,
        tags=read_tags(request.tags, {}),
        versions=(first,),
        attributes={ATTRIBUTE: facts},
    )
    policy = read_policy(
        request.policy, place.key_arn(key), place, ctx, bypass=request.bypass_policy_lockout_safety_check
    )
    if policy is not None:
        facts["policy"] = policy
    return HandlerResult(view(key, place, ctx.now), Change(keys=(key,)), key_id=key_id, key_version=1)


def _first(spec: KeySpec, key_id: KeyId, ctx: HandlerContext, *, imports: bool) -> KeyVersion:
    if imports:
        # A place for the material to come; until then it is as if destroyed.
        return KeyVersion(key_id, 1, VersionStatus.DESTROYED, ctx.now, b"")
    material = ctx.once("material", (), lambda: ctx.keyring.generate(spec))
    return ctx.keyring.versions.wrap(material, spec, key_id=key_id, version=1, created_at=ctx.now)


def describe(_: words.DescribeKey, seen: View, _scene: HandlerContext) -> HandlerResult:
    """The key as it is."""
    return HandlerResult(seen)


def page(request: words.ListKeys, ctx: HandlerContext) -> HandlerResult:
    """A page of the keys of this Region that the caller may know of."""
    if "SELF" not in request.resource_owners:
        return HandlerResult(Page((), None))
    try:
        place = None if request.marker is None else parse_place(read_marker(request, request.marker))
    except InvalidRequest:
        raise InvalidMarker from None
    found: list[View] = []
    for key in ctx.state.keys_after(place):
        if exists(key, request.place, ctx.now) and may_know(ctx.principal, key):
            if len(found) == (request.limit or KEYS):
                last = found[-1].key
                return HandlerResult(Page(tuple(found), write_marker(request, format_place(last.created_at, last.id))))
            found.append(view(key, request.place, ctx.now))
    return HandlerResult(Page(tuple(found), None))


def enable(_: words.EnableKey, seen: View, _scene: HandlerContext) -> HandlerResult:
    """Allow use again."""
    seen.require(KeyState.ENABLED, KeyState.DISABLED)
    return _switched(seen, on=True)


def disable(_: words.DisableKey, seen: View, _scene: HandlerContext) -> HandlerResult:
    """Stop all use until enabled."""
    seen.require(KeyState.ENABLED, KeyState.DISABLED)
    return _switched(seen, on=False)


def _switched(seen: View, *, on: bool) -> HandlerResult:
    if seen.is_replica:
        return changed(seen, seen.with_facet(enabled=on))
    return changed(seen, structs.replace(seen.key, status=KeyStatus.ACTIVE if on else KeyStatus.DISABLED))


def changed(seen: View, after: Key, result: object = None) -> HandlerResult:
    """The key was changed, if it was."""
    return HandlerResult(result, None if after == seen.key else Change(keys=(after,)))


def update_description(request: words.UpdateKeyDescription, seen: View, _: HandlerContext) -> HandlerResult:
    """Say otherwise what the key is for."""
    require_not_leaving(seen)
    return changed(seen, seen.with_facet(description=request.description))


def require_not_leaving(seen: View) -> None:
    """Raise KeyUnavailable for a key that is pending deletion."""
    seen.require(*(state for state in KeyState if state not in _LEAVING))


def is_leaving(seen: View) -> bool:
    """Whether the key is pending deletion, or its replicas' deletion."""
    return seen.state in _LEAVING


_LEAVING: Final = frozenset({KeyState.PENDING_DELETION, KeyState.PENDING_REPLICA_DELETION})


def schedule_deletion(request: words.ScheduleKeyDeletion, seen: View, ctx: HandlerContext) -> HandlerResult:
    """Let the key go after a number of days. A primary waits for its replicas."""
    if not MIN_WINDOW <= request.pending_window_in_days <= MAX_WINDOW:
        raise Validation(f"PendingWindowInDays is {MIN_WINDOW} to {MAX_WINDOW}.")
    require_not_leaving(seen)
    days = request.pending_window_in_days
    if seen.is_replica:
        after = seen.with_facet(deletion_at=ctx.now + days * DAY, window=days)
        return _left(seen, _promoted(after, seen, ctx), ctx)
    if _replicas(seen.facts, ctx.now):
        # The status stays, because it is the replicas' too; what else could use the key asks whether it waits.
        after = structs.replace(seen.with_facts(waits_days=days), rotate_at=None)
        return _left(seen, _promoted(after, seen, ctx), ctx)
    after = structs.replace(
        seen.with_facts(window=days),
        status=KeyStatus.PENDING_DESTRUCTION,
        was_revoked=seen.key.status is KeyStatus.REVOKED,
        destroy_at=ctx.now + days * DAY,
    )
    return _left(seen, after, ctx)


def _replicas(facts: Mapping[str, Any], now: int) -> list[Mapping[str, Any]]:
    return [one for one in facts.get("replicas", {}).values() if (one.get("deletion_at") or now + 1) > now]


def _promoted(key: Key, seen: View, ctx: HandlerContext) -> Key:
    """A primary that waits begins its own days when the last replica is gone, once all of them have a date."""
    facts = key.attributes[ATTRIBUTE]
    days = facts.get("waits_days")
    dates = [one.get("deletion_at") for one in _replicas(facts, ctx.now)]
    if days is None or None in dates or not dates:
        return key
    destroy_at = max(date for date in dates if date) + days * DAY
    return structs.replace(
        key,
        status=KeyStatus.PENDING_DESTRUCTION,
        was_revoked=key.revoked,
        destroy_at=destroy_at,
        attributes={**key.attributes, ATTRIBUTE: {**facts, "promoted": [key.status.value, destroy_at]}},
    )


def _waiting(key: Key) -> Key:
    """A primary that waits again as it did, because the deletion of a replica was called off.

    Its date is that which `_promoted` gave: a destruction that was scheduled by other means is not called off here.
    """
    facts = dict(key.attributes[ATTRIBUTE])
    status, destroy_at = facts.pop("promoted", (None, None))
    if key.status is not KeyStatus.PENDING_DESTRUCTION or key.destroy_at != destroy_at:
        return key
    return structs.replace(
        key,
        status=KeyStatus(status),
        was_revoked=False,
        destroy_at=None,
        attributes={**key.attributes, ATTRIBUTE: facts},
    )


def _left(seen: View, after: Key, ctx: HandlerContext) -> HandlerResult:
    return changed(seen, after, view(after, seen.place, ctx.now))


def cancel_deletion(_: words.CancelKeyDeletion, seen: View, ctx: HandlerContext) -> HandlerResult:
    """Call it off: the key is disabled, as the service has it."""
    if seen.state not in {KeyState.PENDING_DELETION, KeyState.PENDING_REPLICA_DELETION}:
        raise KeyUnavailable(f"{seen.arn} is not pending deletion.")
    if seen.is_replica:
        return _left(seen, _waiting(seen.with_facet(deletion_at=None, window=None, enabled=False)), ctx)
    key = seen.key
    days = None if key.revoked else key.rotation_days
    after = structs.replace(
        seen.with_facts(waits_days=None, window=None, promoted=None),
        status=KeyStatus.REVOKED if key.revoked else KeyStatus.DISABLED,
        was_revoked=False,
        destroy_at=None,
        rotate_at=key.rotate_at or (None if days is None else ctx.now + days * DAY),
    )
    return _left(seen, after, ctx)


# Last use

_WORDS: Final[Mapping[Action, str]] = {
    # What the service calls a use that came through another dialect.
    Action.DATA_KEY: "GenerateDataKey",
    Action.DECRYPT: "Decrypt",
    Action.ENCRYPT: "Encrypt",
    Action.REWRAP: "ReEncrypt",
    Action.SIGN: "Sign",
    Action.VERIFY: "Verify",
}


def last_usage(_: words.GetKeyLastUsage, seen: View, ctx: HandlerContext) -> HandlerResult:
    """The newest successful use in the audit log, through whatever dialect."""
    newest = ctx.once("usage", (), lambda: _newest(seen.key, ctx))
    data = None
    if newest is not None:
        operation = newest.draft.operation or ""
        data = UsageData(
            operation=operation if operation.isalnum() else _WORDS.get(newest.draft.action, "Decrypt"),
            timestamp=newest.timestamp,
            cloud_trail_event_id=str(newest.id),
            kms_request_id=str(UUID(bytes=newest.draft.request_id)),
        )
    return HandlerResult(LastUsage(seen.arn, data, seen.key.created_at, seen.key.created_at))


def _newest(key: Key, ctx: HandlerContext) -> Entry | None:
    found: list[Entry] = []
    for action in (one for one, rule in RULES.items() if rule.uses_key and rule.permissions is not None):
        wanted = Filter(limit=1, key_id=key.id, action=action, result=Result.SUCCESS)
        found.extend(ctx.log.evidence.entries(wanted).items)
    return max(found, key=lambda entry: entry.id, default=None)


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    words.CancelKeyDeletion: guarded(cancel_deletion),
    words.CreateKey: create,
    words.DescribeKey: guarded(describe),
    words.DisableKey: guarded(disable),
    words.EnableKey: guarded(enable),
    words.GetKeyLastUsage: guarded(last_usage),
    words.ListKeys: page,
    words.ScheduleKeyDeletion: guarded(schedule_deletion),
    words.UpdateKeyDescription: guarded(update_description),
}
