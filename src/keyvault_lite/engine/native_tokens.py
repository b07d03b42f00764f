"""Native tokens of services: how one is issued, and how a renewal replaces the one before, with or without an overlap.

At most two are valid at a time: the newest, and for a grace period the one that asked for it. A renewal ends every
other one. So if two holders of one token both renew it, one of them is refused, and the theft is noticed.
"""

from dataclasses import replace
from typing import Final

from keyvault_lite.access.authorize import ROLE_REFUSAL
from keyvault_lite.crypto.credentials import format_token, new_token
from keyvault_lite.engine.handler import HandlerContext, HandlerResult
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.model.errors import Forbidden, LimitExceeded
from keyvault_lite.model.identity import Role, Service, Token, TokenKind
from keyvault_lite.model.native_tokens import MAX_RENEWALS, SECOND, WINDOW, Lifetime
from keyvault_lite.model.replies import NewService
from keyvault_lite.model.requests import RenewToken

MANAGERS: Final = frozenset({Role.ADMIN, None})
"""The callers that set the lifetime of tokens: an ADMIN, and the vault itself."""


def issue(
    service: Service, lifetime: Lifetime, ctx: HandlerContext, *, ttl: int | None = None
) -> tuple[Token, NewService]:
    """A new native token of a service. `ttl` makes it valid for less than its lifetime says."""
    token_id, secret = ctx.once("token", (), new_token)
    seconds = min(filter(None, (ttl, lifetime.ttl)), default=None)
    end = None if seconds is None else ctx.now + seconds * SECOND
    token = Token(
        id=token_id,
        service_id=service.id,
        kind=TokenKind.NATIVE,
        digest=ctx.keyring.token_digest(token_id, secret),
        created_at=ctx.now,
        expires_at=_earliest(end, lifetime.renewable_until),
        attributes=lifetime.attributes(),
    )
    expires_at = _earliest(token.expires_at, service.expires_at)
    until = None if expires_at is None else _earliest(lifetime.renewable_until, service.expires_at)
    return token, NewService(service, format_token(token_id, secret), expires_at, until)


def first_lifetime(ttl: int | None, max_ttl: int | None, now: int) -> Lifetime:
    """The lifetime that an ADMIN gives a token; with `max_ttl` alone, the token ends then and renewals do not help."""
    most = max_ttl or 0
    until = now + most * SECOND if most else None
    return Lifetime(ttl=min(filter(None, (ttl, most)), default=0), max_ttl=most, renewable_until=until)


def renew(service: Service, request: RenewToken, ctx: HandlerContext) -> HandlerResult:
    """A new native token in place of those there are."""
    live = ctx.state.native_tokens(service.id)
    kept = Lifetime.of(live[-1]) if live else Lifetime()
    if ctx.principal.role in MANAGERS:
        ttl = kept.ttl if request.ttl is None else request.ttl
        max_ttl = kept.max_ttl if request.max_ttl is None else request.max_ttl
        token, result = issue(service, first_lifetime(ttl, max_ttl, ctx.now), ctx)
    else:
        token, result = issue(service, _extended(kept, request, ctx), ctx, ttl=request.ttl)
    presented = next((one for one in live if one.id == ctx.principal.token_id), live[-1] if live else None)
    ended = [replace(one, ended_at=ctx.now) for one in live if one is not presented or not request.grace]
    overlapping = [_replaced(presented, request.grace, ctx.now)] if presented and request.grace else []
    said = [f"token {token.id}", *(f"{one.id} ended" for one in ended)]
    said += [f"{one.id} stays valid for up to {request.grace} s" for one in overlapping]
    return HandlerResult(
        result, Change(tokens=(*ended, *overlapping, token)), subject=service.id, comment="; ".join(said)
    )


def _extended(kept: Lifetime, request: RenewToken, ctx: HandlerContext) -> Lifetime:
    """The lifetime after a renewal by the service itself, which cannot have more than it was given."""
    if request.max_ttl is not None:
        raise Forbidden(ROLE_REFUSAL)
    recent = tuple(one for one in kept.renewals if one > ctx.now - WINDOW)
    if len(recent) >= MAX_RENEWALS:
        raise LimitExceeded(
            f"a service can renew its token {MAX_RENEWALS} times in {WINDOW // SECOND} seconds: repeat this later"
        )
    return replace(kept, renewals=(*recent, ctx.now), replaced_at=None)


def _replaced(token: Token, grace: int, now: int) -> Token:
    """A token that stays valid for a grace period. One that was replaced before is not given more time."""
    lifetime = Lifetime.of(token)
    return replace(
        token,
        expires_at=_earliest(token.expires_at, now + grace * SECOND),
        attributes=replace(lifetime, replaced_at=lifetime.replaced_at or now).attributes(),
    )


def _earliest(*moments: int | None) -> int | None:
    return min((one for one in moments if one is not None), default=None)
