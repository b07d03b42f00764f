"""Access keys: what a service signs requests with. Its role and grants decide what it may."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from keyvault_lite.crypto.access_keys import new_access_key
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.model.errors import LimitExceeded, NotFound
from keyvault_lite.model.identity import Service, Token, TokenKind
from keyvault_lite.model.replies import NewAccessKey, Page
from keyvault_lite.model.requests import CreateAccessKey, ListAccessKeys, Request, RevokeAccessKey

MAX_ACCESS_KEYS: Final = 100
"""Of one service at one time."""


def _service(ctx: HandlerContext, ref: str) -> Service:
    service = ctx.state.find_service(ref)
    if service is None:
        raise NotFound("no such service")
    return service


def _held(service: Service, ctx: HandlerContext) -> list[Token]:
    held = [one for one in ctx.state.tokens_of(service.id) if one.kind is TokenKind.ACCESS_KEY]
    return sorted(held, key=lambda one: (one.created_at, one.id))


def create(request: CreateAccessKey, ctx: HandlerContext) -> HandlerResult:
    """Fresh credentials; the secret is kept sealed, because a signature needs it again."""
    service = _service(ctx, request.service)
    if len(_held(service, ctx)) >= MAX_ACCESS_KEYS:
        raise LimitExceeded(f"a service has at most {MAX_ACCESS_KEYS} access keys: revoke one first")
    key_id, secret = ctx.once("access key", (), new_access_key)
    token = Token(
        id=key_id,
        service_id=service.id,
        kind=TokenKind.ACCESS_KEY,
        digest=ctx.keyring.access_keys.seal(key_id, service.id, secret),
        created_at=ctx.now,
    )
    return HandlerResult(NewAccessKey(key_id, secret), Change(tokens=(token,)), subject=service.id)


def page(request: ListAccessKeys, ctx: HandlerContext) -> HandlerResult:
    """The access keys that are not revoked; never a secret."""
    service = _service(ctx, request.service)
    return HandlerResult(Page(tuple(_held(service, ctx)), None), subject=service.id)


def revoke(request: RevokeAccessKey, ctx: HandlerContext) -> HandlerResult:
    """End one; with this entry it signs nothing any more."""
    service = _service(ctx, request.service)
    held = _held(service, ctx)
    ended = next((one for one in held if one.id == request.access_key_id), None)
    if ended is None:
        raise NotFound("the service has no such access key")
    left = tuple(one for one in held if one is not ended)
    gone = replace(ended, digest=b"", ended_at=ctx.now)
    return HandlerResult(Page(left, None), Change(tokens=(gone,)), subject=service.id)


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    CreateAccessKey: create,
    ListAccessKeys: page,
    RevokeAccessKey: revoke,
}
