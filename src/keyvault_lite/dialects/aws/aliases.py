"""Aliases, tags and policies in the AWS dialect. An alias is a name of the vault, in its Region's namespace."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from msgspec import structs

from keyvault_lite.access.authorize import may_know
from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.errors import (
    AliasNotFound,
    AlreadyExists,
    InvalidTag,
    PolicyNotFound,
    ReservedAlias,
    Validation,
)
from keyvault_lite.dialects.aws.guard import check, guarded, key_by_id
from keyvault_lite.dialects.aws.keys import changed, read_policy, read_tags, require_not_leaving
from keyvault_lite.dialects.aws.model import ALIAS, RESERVED_ALIAS, AccountRegion, KeyReference, judged_arn, parse_name
from keyvault_lite.dialects.aws.pagination import page
from keyvault_lite.dialects.aws.replies import KeyPolicy
from keyvault_lite.dialects.aws.view import View, exists, find, view
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.model.keys import Key, KeyName
from keyvault_lite.model.requests import Request

POLICY: Final = "default"
MAX_LISTED: Final = 100
"""Aliases of one page."""


def _check_alias(name: str) -> None:
    if name.startswith(RESERVED_ALIAS):
        raise ReservedAlias("Aliases under alias/aws/ are reserved.")
    if not name.startswith(ALIAS) or len(name) == len(ALIAS):
        raise Validation('Alias must start with the prefix "alias/". Please see the documentation.')


def create(request: words.CreateAlias, seen: View, ctx: HandlerContext) -> HandlerResult:
    """One more name for a key."""
    _check_alias(request.alias_name)
    if ":" in request.alias_name:
        raise Validation("Alias contains invalid characters for alias creation")
    require_not_leaving(seen)
    place = request.place
    if find(KeyReference(place.namespace + request.alias_name, alias=True), place, ctx.state, ctx.now) is not None:
        raise AlreadyExists
    name = KeyName(place.namespace, request.alias_name, ctx.now, ctx.now)
    # A key that is past its deletion here, in a replica's Region, may still hold the name.
    before = ctx.state.find_key(name.text)
    freed = () if before is None or before.id == seen.key.id else (_without(before, name),)
    own = _without(seen.key, name)
    return HandlerResult(None, Change(keys=(*freed, structs.replace(own, names=(*own.names, name)))))


def _without(key: Key, name: KeyName) -> Key:
    return structs.replace(key, names=tuple(one for one in key.names if one.text != name.text))


def update(request: words.UpdateAlias, seen: View, ctx: HandlerContext) -> HandlerResult:
    """Move a name to another key of the same kind."""
    _check_alias(request.alias_name)
    require_not_leaving(seen)
    text = request.place.namespace + request.alias_name
    before = find(KeyReference(text, alias=True), request.place, ctx.state, ctx.now)
    if before is None:
        raise AliasNotFound
    check(view(before, request.place, ctx.now), "UpdateAlias", request, None, ctx)
    if (before.spec.type is not seen.key.spec.type) or before.spec.purpose is not seen.key.spec.purpose:
        raise Validation("An alias moves only between keys of the same type and usage.")
    old = next(one for one in before.names if one.text == text)
    name = replace(old, updated_at=ctx.now)
    if before.id == seen.key.id:
        return HandlerResult(
            None, Change(keys=(structs.replace(seen.key, names=(*_without(seen.key, old).names, name)),))
        )
    return HandlerResult(
        None, Change(keys=(_without(before, old), structs.replace(seen.key, names=(*seen.key.names, name))))
    )


def delete(request: words.DeleteAlias, seen: View, _: HandlerContext) -> HandlerResult:
    """Take a name away."""
    named = parse_name(request.key, request.place)
    if not named.alias:
        raise Validation('Alias must start with the prefix "alias/". Please see the documentation.')
    name = next(one for one in seen.key.names if one.text == named.ref)
    _check_alias(name.name)
    return HandlerResult(None, Change(keys=(_without(seen.key, name),)))


def list_aliases(request: words.ListAliases, ctx: HandlerContext) -> HandlerResult:
    """The aliases of this Region, of one key or of all the caller may know of."""
    place = request.place
    if (request.limit or 0) > MAX_LISTED:
        raise Validation(f"Limit is 1 to {MAX_LISTED}.")
    if request.key is not None:
        keys = [key_by_id(request.key, place, request.action, ctx)]
    else:
        keys = [
            key for key in ctx.state.keys_after(None) if exists(key, place, ctx.now) and may_know(ctx.principal, key)
        ]
    found = [
        (name.name, (name, view(key, place, ctx.now)))
        for key in keys
        for name in key.names
        if name.namespace == place.namespace
    ]
    return HandlerResult(page(found, request))


# Tags


def tag(request: words.TagResource, seen: View, _: HandlerContext) -> HandlerResult:
    """Put tags over those there are."""
    require_not_leaving(seen)
    return changed(seen, seen.with_facet(tags=read_tags(request.tags, seen.tags)))


def untag(request: words.UntagResource, seen: View, _: HandlerContext) -> HandlerResult:
    """Take tags away."""
    require_not_leaving(seen)
    if len(set(request.tag_keys)) != len(request.tag_keys):
        raise InvalidTag("Duplicate tag keys")
    left = {name: value for name, value in seen.tags.items() if name not in request.tag_keys}
    return changed(seen, seen.with_facet(tags=left))


def list_tags(request: words.ListResourceTags, seen: View, _: HandlerContext) -> HandlerResult:
    """A page of the tags, by name."""
    return HandlerResult(page(((name, (name, value)) for name, value in seen.tags.items()), request))


# Policies


def default_policy(place: AccountRegion) -> str:
    """The policy of a key that was given none: the account may do all, so the vault's own authorisation decides."""
    statement = {
        "Sid": "Enable IAM User Permissions",
        "Effect": "Allow",
        "Principal": {"AWS": place.root_arn},
        "Action": "kms:*",
        "Resource": "*",
    }
    return json.dumps({"Version": "2012-10-17", "Id": "key-default-1", "Statement": [statement]}, indent=2)


def _check_policy_name(name: str) -> None:
    if name != POLICY:
        raise PolicyNotFound


def get_policy(request: words.GetKeyPolicy, seen: View, _: HandlerContext) -> HandlerResult:
    """The one policy."""
    _check_policy_name(request.policy_name)
    return HandlerResult(KeyPolicy(seen.facet.get("policy") or default_policy(seen.place)))


def put_policy(request: words.PutKeyPolicy, seen: View, ctx: HandlerContext) -> HandlerResult:
    """Replace the one policy."""
    _check_policy_name(request.policy_name)
    bypass = request.bypass_policy_lockout_safety_check
    policy = read_policy(request.policy, judged_arn(seen.key, seen.place), seen.place, ctx, bypass=bypass)
    return changed(seen, seen.with_facet(policy=policy))


def list_policies(request: words.ListKeyPolicies, _seen: View, _: HandlerContext) -> HandlerResult:
    """The name of the one policy."""
    return HandlerResult(page([(POLICY, POLICY)], request))


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    words.CreateAlias: guarded(create),
    words.DeleteAlias: guarded(delete),
    words.GetKeyPolicy: guarded(get_policy),
    words.ListAliases: list_aliases,
    words.ListKeyPolicies: guarded(list_policies),
    words.ListResourceTags: guarded(list_tags),
    words.PutKeyPolicy: guarded(put_policy),
    words.TagResource: guarded(tag),
    words.UntagResource: guarded(untag),
    words.UpdateAlias: guarded(update),
}
