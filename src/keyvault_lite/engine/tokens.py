"""Tokens of every kind: the caller's own, and the removal of those that can never be used again."""

from collections.abc import Mapping
from typing import Final

from keyvault_lite.access.authorize import ROLE_REFUSAL
from keyvault_lite.access.ended_tokens import is_over
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.model.errors import Conflict, Forbidden
from keyvault_lite.model.identity import Token
from keyvault_lite.model.requests import RemoveTokens, Request


def own_token(ctx: HandlerContext) -> Token:
    """The token that the caller presented. Raises Forbidden for callers without one."""
    token_id = ctx.principal.token_id
    token = None if token_id is None else ctx.state.token(token_id)
    if token is None:
        raise Forbidden(ROLE_REFUSAL)
    return token


def remove(request: RemoveTokens, ctx: HandlerContext) -> HandlerResult:
    """Delete what is left of tokens that can never be used again."""
    found = (ctx.state.token(token_id) for token_id in request.tokens)
    gone = tuple(one.id for one in found if one is not None and is_over(one, ctx.state, ctx.now))
    if not gone:
        raise Conflict("none of these tokens can be removed")
    return HandlerResult(len(gone), Change(gone_tokens=gone), comment=f"{len(gone)} tokens that are no longer valid")


HANDLERS: Final[Mapping[type[Request], Handler]] = {RemoveTokens: remove}
