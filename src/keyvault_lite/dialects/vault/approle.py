"""AppRole: services that log in with a role id and a secret id. A role is a service of the vault, with policies beside.

Its tokens are leased tokens of that service; `kvl service` shows it, grants it more and deactivates it like any other.
"""

from collections.abc import Mapping
from itertools import count, islice
from typing import Any, Final

from keyvault_lite.access.lifetimes import is_past
from keyvault_lite.crypto.credentials import new_token
from keyvault_lite.dialects.vault.auth_methods import end_of_roles, require_login, roles_of
from keyvault_lite.dialects.vault.authority import PLACE, SEPARATOR, accessor_of, secret_of
from keyvault_lite.dialects.vault.role_requests import ChangeRole, TidySecretIds, WriteRoleAndId
from keyvault_lite.dialects.vault.token_requests import (
    DEFAULT_POLICY,
    ROOT_POLICY,
    CreateSecretId,
    DeleteRole,
    DestroySecretId,
    IssuedToken,
    ListRoles,
    ListSecretIds,
    Login,
    NewSecretId,
    ReadRole,
    ReadSecretId,
    RoleRequest,
    SecretFacts,
    SecretRequest,
    SetRoleId,
    WriteRole,
    check_word,
    role_ids_at,
    roles_at,
    secrets_at,
)
from keyvault_lite.dialects.vault.tokens import bounded, facts, issue, issued
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.engine.token_quota import make_room
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.model.encoding import decode_base64, encode_base64
from keyvault_lite.model.errors import InvalidRequest, NotFound
from keyvault_lite.model.identity import Role, Service, Setting
from keyvault_lite.model.leases import Lease
from keyvault_lite.model.names import ServiceId, TokenId, is_name, new_id
from keyvault_lite.model.requests import Request

_SECOND: Final = 1_000_000
MAX_ROLE_ID: Final = 128
MAX_TIDIED: Final = 1000
"""Secrets that one request forgets: what one entry of the log changes stays small."""
_DEFAULTS: Final[Mapping[str, Any]] = {
    "policies": [],
    "token_ttl": 0,
    "token_max_ttl": 0,
    "token_explicit_max_ttl": 0,
    "token_period": 0,
    "secret_id_ttl": 0,
    "secret_id_uses": 0,
}


def _found(mount: str, name: str, ctx: HandlerContext) -> Mapping[str, Any] | None:
    """What is kept of a role; None if there is none. Raises NoMount."""
    require_login(ctx.state, mount)
    found = ctx.state.setting(roles_at(mount) + name)
    return None if found is None else found.value


def _role(request: RoleRequest, ctx: HandlerContext) -> Mapping[str, Any]:
    found = _found(request.mount, request.role, ctx)
    if found is None:
        raise NotFound("no such role")
    return {**_DEFAULTS, **found}


def _given(request: WriteRole) -> Mapping[str, Any]:
    """What a request sets. Raises InvalidRequest for a policy that no role can have.

    A policy need not be there yet: until it is, it gives nothing.
    """
    for name in request.policies or ():
        if check_word(name, "policy") == ROOT_POLICY:
            raise InvalidRequest("a role cannot have the policy root: no login makes a token of an ADMIN")
    return {name: getattr(request, name) for name in _DEFAULTS if getattr(request, name) is not None}


def _changed(before: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The role with what is given. What was kept before its bounds were checked stays as it is until it is touched."""
    after = {**_DEFAULTS, **before, **given}
    if not given.keys().isdisjoint({"token_ttl", "token_max_ttl"}) and 0 < after["token_max_ttl"] < after["token_ttl"]:
        raise InvalidRequest("'token_ttl' cannot be greater than 'token_max_ttl'")
    return after


def write(request: WriteRole, ctx: HandlerContext) -> HandlerResult:
    """A role and its service, or a change of the role."""
    return _written(request, None, ctx)


def write_with_id(request: WriteRoleAndId, ctx: HandlerContext) -> HandlerResult:
    """As `write`, under an id that was chosen."""
    return _written(request.parts, request.role_id, ctx)


def _written(request: WriteRole, chosen: str | None, ctx: HandlerContext) -> HandlerResult:
    given = _given(request)
    found = _found(request.mount, request.role, ctx)
    if found is not None:
        role_id = found["role_id"] if chosen is None else chosen
        settings = _kept(request, _changed(found, given), role_id, ctx)
        return HandlerResult(None, Change(settings=settings), subject=found["service"])
    service = _new_service(request, ctx)
    role_id = ctx.once("role_id", (), new_id) if chosen is None else chosen
    settings = _kept(request, {**_changed({}, given), "service": service.id}, role_id, ctx)
    return HandlerResult(None, Change(services=(service,), settings=settings), subject=service.id)


def change(request: ChangeRole, ctx: HandlerContext) -> HandlerResult:
    """A change of a role that is there."""
    parts = request.parts
    if request.lenient and _found(parts.mount, parts.role, ctx) is None:
        return HandlerResult(None)
    role = _role(parts, ctx)
    changed = Setting(roles_at(parts.mount) + parts.role, _changed(role, _given(parts)))
    return HandlerResult(None, Change(settings=(changed,)), subject=role["service"])


def _kept(request: RoleRequest, value: Mapping[str, Any], role_id: str, ctx: HandlerContext) -> tuple[Setting, ...]:
    """A role under its id; a former id names it no more. Raises InvalidRequest for an id that cannot be."""
    former = value.get("role_id")
    ids = role_ids_at(request.mount)
    kept = Setting(roles_at(request.mount) + request.role, {**value, "role_id": role_id})
    if role_id == former:
        return (kept,)
    if not 0 < len(role_id) <= MAX_ROLE_ID or "/" in role_id or not role_id.isprintable():
        raise InvalidRequest(f"a role id has 1 to {MAX_ROLE_ID} printable characters and no slash")
    taken = ctx.state.setting(ids + role_id)
    if taken is not None and taken.value is not None:
        raise InvalidRequest("this role id is another role's")
    ended = () if former is None else (Setting(ids + former, None),)
    return (*ended, Setting(ids + role_id, {"role": request.role}), kept)


def _new_service(request: RoleRequest, ctx: HandlerContext) -> Service:
    service_id = ctx.once("id", (), lambda: ServiceId(new_id()))
    name = f"{request.mount.replace('/', '-')}-{request.role}".lower()
    if not is_name(name) or ctx.state.find_service(name) is not None:
        name = f"approle-{service_id[:8]}"
    return Service(id=service_id, name=name, role=Role.SERVICE, active=True, created_at=ctx.now)


def read(request: ReadRole, ctx: HandlerContext) -> HandlerResult:
    """The role as it is kept."""
    found = _role(request, ctx)
    return HandlerResult(found, subject=found["service"])


def page(request: ListRoles, ctx: HandlerContext) -> HandlerResult:
    """The names of the roles."""
    require_login(ctx.state, request.mount)
    return HandlerResult(tuple(roles_of(request.mount, ctx.state)))


def set_role_id(request: SetRoleId, ctx: HandlerContext) -> HandlerResult:
    """Another id for the role; the former one names it no more."""
    found = _role(request, ctx)
    settings = _kept(request, found, request.role_id, ctx)
    return HandlerResult(None, Change(settings=settings), subject=found["service"])


def delete(request: DeleteRole, ctx: HandlerContext) -> HandlerResult:
    """The end of a role: its service is deactivated, which ends all its tokens."""
    found = _found(request.mount, request.role, ctx)
    if found is None:
        return HandlerResult(None)
    return HandlerResult(None, end_of_roles(request.mount, [request.role], ctx.state), subject=found["service"])


def create_secret(request: CreateSecretId, ctx: HandlerContext) -> HandlerResult:
    """A secret of the role; its keyed digest is kept, in the row of one that has ended if there is any."""
    role = _role(request, ctx)
    random, secret = ctx.once("secret", (), new_token)
    place = _free_place(request, ctx)
    accessor = TokenId(f"{random}{PLACE}{place}")
    ttl = _within(request.ttl, role["secret_id_ttl"], "ttl cannot be longer than the role's secret_id_ttl")
    uses = _within(request.uses, role["secret_id_uses"], "num_uses cannot be higher than the role's secret_id_num_uses")
    kept = Setting(
        f"{secrets_at(request.mount)}{request.role}/{place}",
        {
            "accessor": accessor,
            "digest": encode_base64(ctx.keyring.token_digest(accessor, secret)),
            "expires_at": ctx.now + ttl * _SECOND if ttl else None,
            "uses": uses,
            "created_at": ctx.now,
            "meta": dict(request.meta),
        },
    )
    result = NewSecretId(f"{accessor}{SEPARATOR}{secret}", accessor, ttl, uses)
    return HandlerResult(result, Change(settings=(kept,)), subject=role["service"])


def _free_place(request: RoleRequest, ctx: HandlerContext) -> int:
    """The first place of the role at which no secret is kept that still holds."""

    def is_free(kept: Setting | None) -> bool:
        return kept is None or kept.value is None or is_past(kept.value["expires_at"], ctx.now)

    prefix = f"{secrets_at(request.mount)}{request.role}/"
    return next(place for place in count() if is_free(ctx.state.setting(f"{prefix}{place}")))


def _within(asked: int | None, most: int, refusal: str) -> int:
    """What was asked for, or what the role has; 0 is without end."""
    if asked is None:
        return most
    if most and not 0 < asked <= most:
        raise InvalidRequest(refusal)
    return asked


def _secret(request: SecretRequest, ctx: HandlerContext) -> Setting | None:
    """The setting of the secret that a request names, also of one past its end."""
    accessor, secret = request.accessor, ""
    if request.secret_id:
        accessor, _, secret = request.secret_id.partition(SEPARATOR)
    found = secret_of(request.mount, request.role, accessor, ctx.state)
    value = None if found is None else found.value
    if request.secret_id:
        digest = None if value is None else decode_base64(value["digest"])
        if not ctx.keyring.token_matches(TokenId(accessor), secret, digest):
            return None
    return None if value is None else found


def read_secret(request: ReadSecretId, ctx: HandlerContext) -> HandlerResult:
    """What is kept of a secret: never the secret."""
    role = _role(request, ctx)
    found = _secret(request, ctx)
    kept = None if found is None else found.value
    if found is None or kept is None or is_past(kept["expires_at"], ctx.now):
        return HandlerResult(None, subject=role["service"])
    facts = SecretFacts(accessor_of(found), kept["created_at"], kept["expires_at"], kept["uses"], kept.get("meta", {}))
    return HandlerResult(facts, subject=role["service"])


def list_secrets(request: ListSecretIds, ctx: HandlerContext) -> HandlerResult:
    """The accessors of the role's secrets."""
    role = _role(request, ctx)
    accessors = tuple(map(accessor_of, ctx.state.settings_under(f"{secrets_at(request.mount)}{request.role}/")))
    return HandlerResult(accessors, subject=role["service"])


def destroy_secret(request: DestroySecretId, ctx: HandlerContext) -> HandlerResult:
    """The end of a secret; one that is named by itself and is no more is none either."""
    role = _role(request, ctx)
    found = _secret(request, ctx)
    if found is None:
        if request.secret_id:
            return HandlerResult(None, subject=role["service"])
        raise NotFound("no such secret")
    return HandlerResult(None, Change(settings=(Setting(found.name, None),)), subject=role["service"])


def tidy(request: TidySecretIds, ctx: HandlerContext) -> HandlerResult:
    """Forget secrets past their end, MAX_TIDIED at a time; the rest is there for the next time, and opens nothing."""
    require_login(ctx.state, request.mount)
    kept = ctx.state.settings_under(secrets_at(request.mount))
    ended = (one for one in kept if one.value is not None and is_past(one.value["expires_at"], ctx.now))
    gone = tuple(Setting(one.name, None) for one in islice(ended, MAX_TIDIED))
    return HandlerResult(len(gone), Change(settings=gone))


def login(_request: Login, ctx: HandlerContext) -> HandlerResult:
    """A token for the service whose role the caller has the credentials of."""
    mount, role_name, accessor = (ctx.principal.login or "//").rsplit("/", 2)
    role = _role(ReadRole(role_name, mount), ctx)
    limits = require_login(ctx.state, mount).config
    explicit, period = role["token_explicit_max_ttl"], role["token_period"]
    longest = min(filter(None, (role["token_max_ttl"], limits.get("max_lease_ttl"))), default=0)
    asked = role["token_ttl"] or limits.get("default_lease_ttl") or None
    ttl, most, warnings = bounded(asked, max_ttl=longest, period=period, explicit=explicit)
    kept = secret_of(mount, role_name, accessor, ctx.state)
    meta = {} if kept is None or kept.value is None else kept.value.get("meta", {})
    lease = Lease(
        ttl=ttl,
        max_ttl=most,
        explicit_max_ttl=explicit,
        period=period,
        display_name=mount.replace("/", "-"),
        path=f"auth/{mount}/login",
        policies=tuple(sorted({DEFAULT_POLICY, *role["policies"]})),
        meta={**meta, "role_name": role_name},
    )
    service = ctx.state.find_service(ctx.principal.service_id)
    gone = () if service is None else make_room(service, ctx, children=False, login=True)
    token, text = issue(ctx.principal.service_id, lease, ctx, parent=None)
    change = Change(tokens=(token,), gone_tokens=gone, settings=_used(kept))
    return issued(IssuedToken(facts(token, ctx), text, warnings), change)


def _used(found: Setting | None) -> tuple[Setting, ...]:
    """The secret with one use less, if its uses are counted: gone after the last."""
    if found is None or found.value is None or not found.value["uses"]:
        return ()
    left = found.value["uses"] - 1
    return (Setting(found.name, {**found.value, "uses": left} if left else None),)


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    ChangeRole: change,
    CreateSecretId: create_secret,
    DeleteRole: delete,
    DestroySecretId: destroy_secret,
    ListRoles: page,
    ListSecretIds: list_secrets,
    Login: login,
    ReadRole: read,
    ReadSecretId: read_secret,
    SetRoleId: set_role_id,
    TidySecretIds: tidy,
    WriteRole: write,
    WriteRoleAndId: write_with_id,
}
