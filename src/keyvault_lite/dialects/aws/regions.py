"""Multi-Region keys of the AWS dialect: replicas, and which Region is the primary. One record with many facets."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import structs

from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.errors import (
    AlreadyExists,
    CustomKeyStoreNotFound,
    ReplicaNotFound,
    UnsupportedOperation,
)
from keyvault_lite.dialects.aws.guard import check, guarded
from keyvault_lite.dialects.aws.keys import read_policy, read_tags
from keyvault_lite.dialects.aws.model import AccountRegion
from keyvault_lite.dialects.aws.view import View, exists, view
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.model.replies import Page
from keyvault_lite.model.requests import Request

_OWN: Final = ("policy", "grants", "grantees", "window")
"""Facts of a facet that stand among the record's own for the primary."""


def _require_primary(seen: View) -> None:
    if not seen.facts.get("multi_region") or seen.is_replica:
        raise UnsupportedOperation(f"{seen.arn} is not a multi-Region primary key.")


def replicate(request: words.ReplicateKey, seen: View, ctx: HandlerContext) -> HandlerResult:
    """The same key in another Region, with description, tags and policy of its own there."""
    _require_primary(seen)
    seen.require_usable()
    there = AccountRegion(request.place.account, request.replica_region)
    if there.partition != request.place.partition:
        raise UnsupportedOperation("a key is replicated within its partition")
    if exists(seen.key, there, ctx.now):
        raise AlreadyExists(f"{there.key_arn(seen.key)} already exists.")
    policy = read_policy(
        request.policy,
        there.key_arn(seen.key),
        there,
        ctx,
        bypass=request.bypass_policy_lockout_safety_check,
    )
    facet: dict[str, Any] = {
        "created_at": ctx.now,
        "description": request.description,
        "enabled": True,
        "tags": read_tags(request.tags, {}),
    }
    if policy is not None:
        facet["policy"] = policy
    after = seen.with_facts(replicas={**seen.facts.get("replicas", {}), there.region: facet})
    return HandlerResult(view(after, there, ctx.now), Change(keys=(after,)))


def update_primary(request: words.UpdatePrimaryRegion, seen: View, ctx: HandlerContext) -> HandlerResult:
    """Make a replica the primary, and the primary a replica, if the policies of both allow it."""
    _require_primary(seen)
    seen.require_usable()
    replicas = dict(seen.facts.get("replicas", {}))
    there = AccountRegion(request.place.account, request.primary_region)
    if request.primary_region not in replicas or not exists(seen.key, there, ctx.now):
        raise ReplicaNotFound(f"{seen.arn} has no replica in that Region.")
    replica = view(seen.key, there, ctx.now)
    check(replica, "UpdatePrimaryRegion", request, None, ctx)
    replica.require_usable()
    risen = replicas.pop(request.primary_region)
    replicas[request.place.region] = {
        "created_at": seen.key.created_at,
        "description": seen.key.description,
        "enabled": True,
        "tags": dict(seen.key.tags),
        **{name: seen.facts[name] for name in _OWN if name in seen.facts},
    }
    own = {name: risen.get(name) for name in _OWN}
    changed = seen.with_facts(region=request.primary_region, replicas=replicas, **own)
    after = structs.replace(changed, description=risen["description"], tags=risen["tags"])
    return HandlerResult(None, Change(keys=(after,)))


def no_stores(request: words.DescribeCustomKeyStores, _: HandlerContext) -> HandlerResult:
    """There are no key stores of others."""
    if request.custom_key_store_id is not None or request.custom_key_store_name is not None:
        raise CustomKeyStoreNotFound
    return HandlerResult(Page((), None))


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    words.DescribeCustomKeyStores: no_stores,
    words.ReplicateKey: guarded(replicate),
    words.UpdatePrimaryRegion: guarded(update_primary),
}
