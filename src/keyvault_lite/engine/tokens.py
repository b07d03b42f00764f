"""Tokens of every kind: the caller's own, and the removal of those that can never be used again."""

from collections.abc import Mapping
from typing import Final

from keyvault_lite.access.authorize import ROLE_REFUSAL
from keyvault_lite.access.spent import is_over
from keyvault_lite.engine.scene import Done, Handler, Scene
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.model.errors import Conflict, Forbidden
from keyvault_lite.model.identity import Token
from keyvault_lite.model.requests import RemoveTokens, Request


def own_token(scene: Scene) -> Token:
    """The token that the caller came with. Raises Forbidden for callers who have none."""
    token_id = scene.principal.token_id
    token = None if token_id is None else scene.state.token(token_id)
    if token is None:
        raise Forbidden(ROLE_REFUSAL)
    return token


def remove(request: RemoveTokens, scene: Scene) -> Done:
    """Delete what is left of tokens that can never be used again."""
    found = (scene.state.token(token_id) for token_id in request.tokens)
    gone = tuple(one.id for one in found if one is not None and is_over(one, scene.state, scene.now))
    if not gone:
        raise Conflict("none of these tokens can be removed")
    return Done(len(gone), Change(gone_tokens=gone), comment=f"{len(gone)} tokens that are no longer valid")


HANDLERS: Final[Mapping[type[Request], Handler]] = {RemoveTokens: remove}
