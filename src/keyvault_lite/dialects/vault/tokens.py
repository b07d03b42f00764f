"""Tokens of the Vault dialect: children of the caller's token, their renewal and their end."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from keyvault_lite.access.authorize import ROLE_REFUSAL
from keyvault_lite.access.ended_tokens import is_over, is_valid
from keyvault_lite.access.lifetimes import DEPTH, end_of, last_end
from keyvault_lite.crypto.credentials import format_token, new_token, parse_token
from keyvault_lite.dialects.vault.authority import makes_tokens
from keyvault_lite.dialects.vault.token_requests import (
    DEFAULT_POLICY,
    POLICIES,
    ROOT_POLICY,
    CreateToken,
    ExtendToken,
    IssuedToken,
    ListTokens,
    ReadToken,
    RevokeToken,
    TokenFacts,
    TokenRequest,
)
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.engine.token_quota import make_room, told
from keyvault_lite.engine.tokens import own_token
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.model.errors import Forbidden, InvalidRequest
from keyvault_lite.model.identity import Role, Service, Token, TokenKind
from keyvault_lite.model.leases import DEFAULT_TTL, Lease
from keyvault_lite.model.names import ServiceId, TokenId
from keyvault_lite.model.requests import Request

_SECOND: Final = 1_000_000
BAD_TOKEN: Final = "bad token"  # noqa: S105  (a message)


def named_token(request: TokenRequest, ctx: HandlerContext) -> Token:
    """The token that a request is about, if the caller may know of it: its own and their children, for an ADMIN any."""
    token = _live_token(request, ctx)
    if token is None:
        raise InvalidRequest(BAD_TOKEN)
    return token


def _live_token(request: TokenRequest, ctx: HandlerContext) -> Token | None:
    """As `named_token`; None for one that is not valid or never was."""
    token = _stored_token(request, ctx)
    return None if token is None or not _is_live(token, ctx) else token


def _stored_token(request: TokenRequest, ctx: HandlerContext) -> Token | None:
    """As `named_token`, valid or not; None for one that is not stored."""
    if request.token is not None:
        parsed = parse_token(request.token)
        token = None if parsed is None else ctx.state.token(parsed[0])
        stored = None if token is None else token.digest
        if parsed is None or not ctx.keyring.token_matches(parsed[0], parsed[1], stored):
            token = None
    elif request.accessor is not None:
        token = ctx.state.token(TokenId(request.accessor))
    else:
        return own_token(ctx)
    mine = token is not None and _descends(token, ctx)
    if ctx.principal.role is not Role.ADMIN and not mine:
        raise Forbidden(ROLE_REFUSAL)
    return None if token is None or token.kind is TokenKind.ACCESS_KEY else token


def _is_live(token: Token, ctx: HandlerContext) -> bool:
    """Whether a token is valid: nobody shows or renews one that is not."""
    return is_valid(token, ctx.state.find_service(token.service_id), ctx.state, ctx.now)


def _descends(token: Token, ctx: HandlerContext) -> bool:
    """Whether a token is the caller's own, or was made with it or with one that was."""
    found: Token | None = token
    while found is not None and found.id != ctx.principal.token_id:
        found = None if found.parent is None else ctx.state.token(found.parent)
    return found is not None


def _service(token: Token, ctx: HandlerContext) -> Service:
    service = ctx.state.find_service(token.service_id)
    if service is None:
        raise InvalidRequest(BAD_TOKEN)
    return service


def facts(token: Token, ctx: HandlerContext) -> TokenFacts:
    """A token as the dialect shows it. It ends when it says, or when its service or a token above it does."""
    service, lease = _service(token, ctx), Lease.of(token)
    policies: tuple[str, ...] = (DEFAULT_POLICY,)
    if lease is not None and lease.policies is not None:
        policies = lease.policies
    elif service.role is Role.ADMIN:
        policies = (ROOT_POLICY,)
    return TokenFacts(token, lease, policies, service.name, end_of(token, service, ctx.state), ctx.now)


def read(request: ReadToken, ctx: HandlerContext) -> HandlerResult:
    """A token's facts."""
    token = _live_token(request, ctx)
    if token is None:
        raise InvalidRequest(BAD_TOKEN) if request.token is None else Forbidden(BAD_TOKEN)
    return HandlerResult(facts(token, ctx), subject=token.service_id)


def issue(service_id: ServiceId, lease: Lease, ctx: HandlerContext, *, parent: TokenId | None) -> tuple[Token, str]:
    """A new token of a service, and its text."""
    token_id, secret = ctx.once("token", (), new_token)
    token = Token(
        id=token_id,
        service_id=service_id,
        kind=TokenKind.LEASED,
        digest=ctx.keyring.token_digest(token_id, secret),
        created_at=ctx.now,
        expires_at=ctx.now + lease.ttl * _SECOND,
        parent=parent,
        attributes=lease.attributes(),
    )
    return token, format_token(token_id, secret)


def bounded(ttl: int | None, *, max_ttl: int, period: int, explicit: int) -> tuple[int, int, tuple[str, ...]]:
    """Seconds a lease begins with, the most it can come to, and what to tell the caller."""
    if period:
        return min(period, explicit or period), 0, ()
    most = min(max_ttl or DEFAULT_TTL, explicit or DEFAULT_TTL, DEFAULT_TTL)
    if ttl is not None and ttl > most:
        return (
            most,
            most,
            (f"TTL of {ttl}s exceeded the effective max_ttl of {most}s; TTL value is capped accordingly",),
        )
    return ttl or most, most, ()


def create(request: CreateToken, ctx: HandlerContext) -> HandlerResult:
    """A child of the caller's token, with what its parent may do or less."""
    parent = own_token(ctx)
    unrestricted = ctx.principal.role is Role.ADMIN
    if request.orphan and not unrestricted:
        raise Forbidden(ROLE_REFUSAL)
    above = Lease.of(parent)
    if not makes_tokens(above, ctx.state):
        raise Forbidden(ROLE_REFUSAL)
    if request.period and not unrestricted:
        raise InvalidRequest("root or sudo privileges required to create periodic token")
    if not request.orphan and _generation(parent, ctx) >= DEPTH:
        raise InvalidRequest("this token is too many generations from one that has no parent")
    explicit = request.explicit_max_ttl
    end = None if request.orphan else last_end(parent)
    left = 0 if end is None else max(1, (end - ctx.now) // _SECOND)
    ttl, most, warnings = bounded(request.ttl, max_ttl=left, period=request.period, explicit=explicit)
    policies, unknown = _policies(request.policies, above, ctx)
    lease = Lease(
        ttl=ttl,
        max_ttl=most,
        explicit_max_ttl=explicit,
        period=request.period,
        renewable=request.renewable,
        display_name="-".join(filter(None, ("token", request.display_name))),
        policies=policies,
        alone=bool(request.policies) or (above is not None and above.alone),
        meta=request.meta,
    )
    gone = make_room(_service(parent, ctx), ctx, children=not request.orphan)
    token, text = issue(parent.service_id, lease, ctx, parent=None if request.orphan else parent.id)
    return issued(
        IssuedToken(facts(token, ctx), text, (*warnings, *unknown)), Change(tokens=(token,), gone_tokens=gone)
    )


def _generation(token: Token, ctx: HandlerContext) -> int:
    """How many tokens there are from this one to the one that has no parent, both counted."""
    count, above = 1, token.parent
    while above is not None and count < DEPTH:
        found = ctx.state.token(above)
        count, above = count + 1, None if found is None else found.parent
    return count


def issued(result: IssuedToken, change: Change) -> HandlerResult:
    """A token that was made: the entry says which, by its accessor, so that it can be found and revoked."""
    token = result.facts.token
    comment = f"accessor {token.id}{told(change.gone_tokens)}"
    return HandlerResult(result, change, subject=token.service_id, comment=comment)


def _policies(
    asked: tuple[str, ...], parent: Lease | None, ctx: HandlerContext
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """What the child is held to, and warnings: what was asked for, within what the parent is held to, or the same."""
    parents = None if parent is None else parent.policies
    if not asked:
        return parents, ()
    if parents is None and ctx.principal.role is not Role.ADMIN and set(asked) - {DEFAULT_POLICY}:
        raise InvalidRequest("child policies must be subset of parent")
    if parents is None and ROOT_POLICY in asked:
        return None, ()
    wanted = tuple(sorted({DEFAULT_POLICY, *asked}))
    if parents is not None and not set(wanted) <= {DEFAULT_POLICY, *parents}:
        raise InvalidRequest("child policies must be subset of parent")
    unknown = [name for name in wanted if name != DEFAULT_POLICY and ctx.state.setting(POLICIES + name) is None]
    # As in the products, one may come later; until then it gives nothing.
    return wanted, ("a policy that was asked for does not exist",) if unknown else ()


def page(_: ListTokens, ctx: HandlerContext) -> HandlerResult:
    """The accessors of the tokens that hold, those of services included."""
    kinds = {TokenKind.LEASED, TokenKind.NATIVE}
    shown = (one for one in ctx.state.tokens() if one.kind in kinds)
    known = (one for one in shown if not ctx.state.is_quarantined(one.service_id))
    return HandlerResult(tuple(one.id for one in known if _is_live(one, ctx)))


def extend(request: ExtendToken, ctx: HandlerContext) -> HandlerResult:
    """A later end, within the lease."""
    token = named_token(request, ctx)
    lease = Lease.of(token)
    if lease is None or not lease.renewable:
        raise InvalidRequest("lease is not renewable")
    seconds = lease.period or request.increment or lease.ttl
    expires_at = ctx.now + seconds * _SECOND
    warnings: tuple[str, ...] = ()
    if (last := last_end(token)) is not None and expires_at > last:
        expires_at, warnings = last, ("TTL capped by the token's maximum",)
    changed = replace(token, expires_at=expires_at)
    return HandlerResult(
        IssuedToken(facts(changed, ctx), None, warnings), Change(tokens=(changed,)), subject=token.service_id
    )


def revoke(request: RevokeToken, ctx: HandlerContext) -> HandlerResult:
    """The end of a token; its children end with it, as every use of them asks for their parents."""
    token = _stored_token(request, ctx)
    # One that is not valid at present, because its service has expired, would be when the service is given more time.
    if token is None or is_over(token, ctx.state, ctx.now):
        return HandlerResult(None)  # as was asked for, and a client that revokes at the end of its work gets no failure
    if token.kind is TokenKind.NATIVE:
        raise InvalidRequest("the token of a service ends when the service is given a new one, or deactivated")
    ended = replace(token, ended_at=ctx.now)
    return HandlerResult(None, Change(tokens=(ended,)), subject=token.service_id)


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    CreateToken: create,
    ExtendToken: extend,
    ListTokens: page,
    ReadToken: read,
    RevokeToken: revoke,
}
