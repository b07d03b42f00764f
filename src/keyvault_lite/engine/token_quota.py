"""How many leased tokens a service can have, and how one more finds its place."""

from heapq import nsmallest
from typing import Final

from keyvault_lite.access.ended_tokens import is_over
from keyvault_lite.engine.handler import HandlerContext
from keyvault_lite.model.errors import LimitExceeded
from keyvault_lite.model.identity import Role, Service, Token, TokenKind
from keyvault_lite.model.names import TokenId

MAX_LEASED: Final = 10_000
"""Leased tokens of a service without a parent (of logins), and of an ADMIN those with one."""
MAX_CHILDREN: Final = 1_000
"""Leased tokens of any other service that were made with another token."""
AT_ONCE: Final = 32
"""How many make room at a time: all tokens are looked at for it, and few entries of the log tell of it."""


def make_room(service: Service, ctx: HandlerContext, *, children: bool, login: bool = False) -> tuple[TokenId, ...]:
    """The tokens that go so that one more has room: none, as long as there is room.

    Those that are over go first. If all are valid, a login ends those nearest to their end; else LimitExceeded.
    """
    most = MAX_CHILDREN if children and service.role is not Role.ADMIN else MAX_LEASED
    if ctx.state.count_leased(service.id, children=children) < most:
        return ()
    held = [one for one in ctx.state.tokens() if _belongs(one, service, children=children)]
    over = [one for one in held if is_over(one, ctx.state, ctx.now)]
    if not (over or login):
        raise LimitExceeded(f"the service has {most} tokens of this kind: revoke some, or give them a shorter ttl")
    if not ctx.log.may_forget_tokens():
        raise LimitExceeded(
            f"the service has {most} tokens of this kind, and the role of the database may not remove any"
        )
    return tuple(one.id for one in nsmallest(AT_ONCE, over or held, key=lambda one: (one.expires_at or 0, one.id)))


def _belongs(token: Token, service: Service, *, children: bool) -> bool:
    mine = token.kind is TokenKind.LEASED and token.service_id == service.id
    return mine and (token.parent is not None) is children


def told(gone: tuple[TokenId, ...]) -> str:
    """What the entry says of the tokens that made room."""
    return f"; removed for room: {' '.join(gone)}" if gone else ""
