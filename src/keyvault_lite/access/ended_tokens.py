"""Tokens that are no longer valid: which are so for good, and how long their rows are kept. Pure functions."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Final, Protocol

from keyvault_lite.access.lifetimes import Leases, ancestors_live, is_past
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.identity import Service, Token, TokenKind
from keyvault_lite.model.names import ServiceId

KEPT_SECONDS: Final = 24 * 3600
"""For how long a token past its end is kept, so that a caller that presents it is still named in the log."""
CROWD: Final = 256
"""Leased tokens of a service beyond which those that were revoked are not kept."""
TOMBSTONES: Final = 8
"""Native tokens that have ended, and access keys, that are kept of a service: the newest."""


class Tokens(Leases, Protocol):
    """What is read of the verified state."""

    def count_leased(self, service_id: ServiceId, *, children: bool) -> int:
        """How many leased tokens of a service are stored."""


def is_valid(token: Token, service: Service | None, directory: Leases, now: int) -> bool:
    """Whether a token can be used at this moment."""
    if service is None or not service.active or is_past(service.expires_at, now):
        return False
    return token.ended_at is None and not is_past(token.expires_at, now) and ancestors_live(token, directory, now)


def is_over(token: Token, directory: Leases, now: int) -> bool:
    """Whether a token can never be used again, so that its row can be removed.

    Safe because nothing depends on it: a row that is put back is not in the state that the log commits to. Leased
    tokens of a service that is deactivated are over too: if it is activated again, they are ended.
    """
    if token.ended_at is not None:
        return True
    if token.kind is not TokenKind.LEASED:
        return False
    past = is_past(token.expires_at, now) or not ancestors_live(token, directory, now)
    return past or _is_deactivated(token, directory)


def _is_deactivated(token: Token, directory: Leases) -> bool:
    try:
        service = directory.find_service(token.service_id)
    except IntegrityViolation:
        return False  # nothing is concluded from what does not verify
    return service is None or not service.active


def removable(tokens: Iterable[Token], directory: Tokens, now: int) -> list[Token]:
    """The tokens that are over and need not be kept, the earliest end first.

    A leased one is kept for a day, so that the log can name a caller that presents it. It is not kept if its service is
    deactivated or its parent gone, or if it was revoked and the service has many.
    """
    found: list[Token] = []
    tombstones: dict[tuple[ServiceId, TokenKind], list[Token]] = defaultdict(list)
    for token in tokens:
        if token.kind is not TokenKind.LEASED:
            if token.ended_at is not None:
                tombstones[token.service_id, token.kind].append(token)
        elif is_over(token, directory, now) and not _is_kept(token, directory, now):
            found.append(token)
    for ended in tombstones.values():
        found += sorted(ended, key=_end)[:-TOMBSTONES]
    return sorted(found, key=_end)


def _is_kept(token: Token, directory: Tokens, now: int) -> bool:
    end, _ = _end(token)
    if end > now or end <= now - KEPT_SECONDS * 1_000_000 or _is_deactivated(token, directory):
        return False
    crowded = directory.count_leased(token.service_id, children=token.parent is not None) > CROWD
    return token.ended_at is None or not crowded


def _end(token: Token) -> tuple[int, str]:
    """When a token was ended or its lifetime was over, whichever came first; and its id."""
    ends = [end for end in (token.ended_at, token.expires_at) if end is not None]
    return min(ends, default=token.created_at), token.id
