"""That somebody can always manage the vault: no change takes away the last ADMIN that can act and does not expire."""

from typing import Final

from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.ledger.state.snapshot import Overlay, State
from keyvault_lite.model.errors import Conflict
from keyvault_lite.model.identity import Role, Service, TokenKind

REFUSAL: Final = (
    "the vault would be left without an ADMIN that does not expire and has a token that does not expire: "
    "make another one first"
)


def is_lasting(service: Service) -> bool:
    """Whether the service is an ADMIN today and stays one: an ADMIN that expires does not keep the vault governed."""
    return service.role is Role.ADMIN and service.active and service.expires_at is None


def can_always_act(service: Service, state: State) -> bool:
    """Whether it is a lasting ADMIN with a native token that does not expire.

    Only a native token counts: a token of a login is never an ADMIN, and an access key manages no services.
    """
    if not is_lasting(service) or state.is_quarantined(service.id):
        return False
    return any(token.expires_at is None for token in state.native_tokens(service.id))


def check_admins_left(change: Change, state: State) -> None:
    """Raise Conflict if the change takes from the vault the last ADMIN that can always act. Called for every change."""
    touched = {one.id for one in change.services}
    touched |= {one.service_id for one in change.tokens if one.kind is TokenKind.NATIVE}
    gone = (state.token(one) for one in change.gone_tokens)
    touched |= {one.service_id for one in gone if one is not None and one.kind is TokenKind.NATIVE}
    before = [one for one in state.active_admins() if one.id in touched] if touched else []
    if not any(can_always_act(one, state) for one in before):
        return
    after = Overlay(state, state.reply)
    after.apply(change)
    if not any(can_always_act(one, after) for one in after.active_admins()):
        raise Conflict(REFUSAL)
