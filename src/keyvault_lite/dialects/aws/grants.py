"""Grants of the AWS dialect: made, listed, retired, revoked. They are evaluated in dialects/aws/authorize.py."""

from collections.abc import Mapping
from secrets import token_hex
from typing import Any, Final

from keyvault_lite.dialects.aws import requests as words
from keyvault_lite.dialects.aws.authorize import may_list_retirable, may_retire
from keyvault_lite.dialects.aws.errors import DryRun, InvalidArn, InvalidGrantId, Validation
from keyvault_lite.dialects.aws.guard import guarded, key_by_id, make_token, open_token
from keyvault_lite.dialects.aws.model import AccountRegion, comparable, parse_name
from keyvault_lite.dialects.aws.pagination import page
from keyvault_lite.dialects.aws.policy import is_principal
from keyvault_lite.dialects.aws.replies import NewGrant
from keyvault_lite.dialects.aws.view import View, exists, find, view
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.ledger.state.codec import key_values
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.model.errors import Forbidden, LimitExceeded
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.keys import KeyType, Purpose
from keyvault_lite.model.requests import Request

MAX_GRANTS: Final = 1000
MAX_KEPT: Final = 3 * 1024 * 1024
"""Characters that are kept of a key when a grant is added, of all Regions: a row is read no further than so far."""
"""Of one key in one Region."""
_DRY: Final = "The request would have succeeded, but the DryRun option is set."
Grant = Mapping[str, Any]


def _principal(named: str | None, service: str | None, what: str, place: AccountRegion) -> str | None:
    if named is not None and service is not None:
        raise Validation(f"{what}Principal and {what}ServicePrincipal exclude each other.")
    if named is not None and not is_principal(named, place.partition):
        raise InvalidArn(f"{what}Principal is not the ARN of a principal here")
    return named or service


def _constraints(request: words.CreateGrant, seen: View) -> Mapping[str, Any] | None:
    # An empty subset asks for nothing; an empty context to be equal to asks for none.
    given = request.constraints or {}
    found = {name: value for name, value in given.items() if value or name == "EncryptionContextEquals"}
    if found.keys() & {"EncryptionContextEquals", "EncryptionContextSubset"} and seen.key.spec.type is not KeyType.AES:
        raise Validation("Encryption context constraints are for symmetric encryption keys only.")
    return found or None


def create(request: words.CreateGrant, seen: View, ctx: HandlerContext) -> HandlerResult:
    """A grant; the same named one again is the same, with another token."""
    seen.require_usable()
    grantee = _principal(request.grantee_principal, request.grantee_service_principal, "Grantee", seen.place)
    if grantee is None:
        raise Validation("GranteePrincipal is required.")
    retiring = _principal(request.retiring_principal, request.retiring_service_principal, "Retiring", seen.place)
    constraints = _constraints(request, seen)
    if request.grantee_service_principal is not None and ("SourceArn" not in (constraints or {}) or retiring is None):
        raise Validation("A GranteeServicePrincipal needs a SourceArn constraint and a retiring principal.")
    facts = {
        "name": request.name,
        "grantee": grantee,
        "retiring": retiring,
        "operations": list(dict.fromkeys(request.operations)),
        "constraints": constraints,
    }
    if not request.operations:
        raise Validation("A grant is for at least one operation.")
    if not _ANY | _FITTING.get(seen.key.spec.purpose, frozenset()) | _of_kind(seen) >= {*request.operations}:
        raise Validation(f"{seen.arn} does not support an operation of the grant.")
    held: list[Grant] = list(seen.facet.get("grants", ()))
    same = next((one for one in held if request.name is not None and _is_same(one, facts)), None)
    if same is not None:
        return HandlerResult(NewGrant(make_token(seen, same["id"], ctx), same["id"]))
    if len(held) >= MAX_GRANTS:
        raise LimitExceeded(f"a key has at most {MAX_GRANTS} grants")
    grant_id = ctx.once("id", (), lambda: token_hex(32))
    made = {"id": grant_id, "created_at": ctx.now, **{name: one for name, one in facts.items() if one is not None}}
    grantees = sorted({*seen.facet.get("grantees", ()), grantee})
    after = seen.with_facet(grants=[*held, made], grantees=grantees)
    if max(len(value) for value in key_values(after) if isinstance(value, str)) > MAX_KEPT:
        raise LimitExceeded("the grants of a key, and their constraints, are too long together: revoke one first")
    return HandlerResult(NewGrant(make_token(seen, grant_id, ctx), grant_id), Change(keys=(after,)))


_ANY: Final = frozenset({"CreateGrant", "DescribeKey", "RetireGrant"})
_FITTING: Final[Mapping[Purpose, frozenset[str]]] = {
    Purpose.ENCRYPT: frozenset({"Decrypt", "Encrypt", "ReEncryptFrom", "ReEncryptTo"}),
    Purpose.SIGN: frozenset({"Sign", "Verify"}),
    Purpose.MAC: frozenset({"GenerateMac", "VerifyMac"}),
    Purpose.AGREE: frozenset({"DeriveSharedSecret"}),
    Purpose.ENCAPSULATE: frozenset({"Decapsulate", "Encapsulate"}),
}
"""The operations that a grant on a key can be for, by its usage."""
_DATA_KEYS: Final = frozenset(
    {
        "GenerateDataKey",
        "GenerateDataKeyPair",
        "GenerateDataKeyPairWithoutPlaintext",
        "GenerateDataKeyWithoutPlaintext",
    }
)


def _of_kind(seen: View) -> frozenset[str]:
    if seen.key.spec.type is KeyType.AES:
        return _DATA_KEYS
    return frozenset() if seen.key.spec.purpose is Purpose.MAC else frozenset({"GetPublicKey"})


def _is_same(grant: Grant, facts: Grant) -> bool:
    return all(grant.get(name) == value for name, value in facts.items())


def list_grants(request: words.ListGrants, seen: View, _: HandlerContext) -> HandlerResult:
    """The grants of a key."""
    grants: list[Grant] = list(seen.facet.get("grants", ()))
    if request.grant_id is not None:
        grants = [one for one in grants if one["id"] == request.grant_id]
        if not grants:
            raise InvalidGrantId
    grantee = request.grantee_principal or request.grantee_service_principal
    rows = [
        (_place(one), (one, seen))
        for one in grants
        if grantee is None or comparable(grantee) == comparable(one["grantee"])
    ]
    return HandlerResult(page(rows, request))


def _place(grant: Grant) -> str:
    return f"{grant['created_at']:020}{grant['id']}"


def list_retirable(request: words.ListRetirableGrants, ctx: HandlerContext) -> HandlerResult:
    """The grants of this Region that a principal can retire."""
    retiring = request.retiring_principal or request.retiring_service_principal
    if retiring is None:
        raise Validation("RetiringPrincipal is required.")
    if not may_list_retirable(ctx.principal, request.place, retiring):
        raise Forbidden("the caller may list what it can retire itself")
    rows = [
        (_place(grant), (grant, seen))
        for key in ctx.state.keys_after(None)
        if exists(key, request.place, ctx.now)
        for seen in (view(key, request.place, ctx.now),)
        for grant in seen.facet.get("grants", ())
        if comparable(grant.get("retiring", "")) == comparable(retiring)
    ]
    return HandlerResult(page(rows, request))


def _without(seen: View, grant_id: str) -> Change:
    left = [one for one in seen.facet["grants"] if one["id"] != grant_id]
    return Change(keys=(seen.with_facet(grants=left),))


def revoke(request: words.RevokeGrant, seen: View, _: HandlerContext) -> HandlerResult:
    """End a grant; what it allowed is over with this entry."""
    if not any(one["id"] == request.grant_id for one in seen.facet.get("grants", ())):
        raise InvalidGrantId
    return HandlerResult(None, _without(seen, request.grant_id))


def retire(request: words.RetireGrant, ctx: HandlerContext) -> HandlerResult:
    """End a grant, by its token or by key and id, as one of those that it lets do so."""
    if request.grant_token is not None:
        if request.key is not None or request.grant_id is not None:
            raise Validation("A grant is named by its token, or by key and id.")
        key, grant, place = open_token(request.grant_token, ctx)
        seen = view(key, type(request.place)(request.place.account, place.region), ctx.now)
    else:
        if request.key is None or request.grant_id is None:
            raise Validation("A grant is named by its token, or by key and id.")
        seen, grant = _named(request.key, request.grant_id, request.place, ctx)
    if not may_retire(ctx.principal, seen.place, grant):
        raise Forbidden("the grant does not let the caller retire it")
    if request.dry_run:
        raise DryRun(_DRY)
    return HandlerResult(None, _without(seen, grant["id"]), key_id=seen.key.id)


def _named(name: str, grant_id: str, place: AccountRegion, ctx: HandlerContext) -> tuple[View, Grant]:
    """A key and its grant. The grant alone decides which callers may retire it."""
    named = parse_name(name, place)
    key = None if named.alias else find(named, place, ctx.state, ctx.now)
    grants = () if key is None else view(key, place, ctx.now).facet.get("grants", ())
    grant = next((one for one in grants if one["id"] == grant_id), None)
    if key is None or grant is None or not may_retire(ctx.principal, place, grant):
        key = key_by_id(name, place, Action.KEY_READ, ctx)
    if grant is None:
        raise InvalidGrantId
    return view(key, place, ctx.now), grant


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    words.CreateGrant: guarded(create),
    words.ListGrants: guarded(list_grants),
    words.ListRetirableGrants: list_retirable,
    words.RetireGrant: retire,
    words.RevokeGrant: guarded(revoke),
}
