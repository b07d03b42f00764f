"""How long a token is valid: by itself, by the tokens above it and by its service. Pure functions.

A leased token lives no longer than its parent: renewing, revoking or expiring the parent, or deactivating its service,
ends it in that moment, because every use walks up to the token at the top.
"""

from typing import Final, Protocol

from keyvault_lite.model.identity import Service, Setting, Token
from keyvault_lite.model.leases import Lease
from keyvault_lite.model.names import TokenId

DEPTH: Final = 16
"""Generations of children."""


class Leases(Protocol):
    """What is read of the verified state."""

    def token(self, token_id: TokenId) -> Token | None:
        """The token of that id."""

    def setting(self, name: str) -> Setting | None:
        """The setting of that name."""

    def find_service(self, ref: str) -> Service | None:
        """The service of that id."""


def is_past(end: int | None, now: int) -> bool:
    """Whether what ends at that time, or never, has ended (microseconds)."""
    return end is not None and end <= now


def ancestors_live(token: Token, directory: Leases, now: int) -> bool:
    """Whether every token above this one still holds, up to the one that has no parent."""
    for _ in range(DEPTH):
        if token.parent is None:
            return True
        above = directory.token(token.parent)
        if above is None or above.ended_at is not None or above.service_id != token.service_id:
            return False
        if is_past(above.expires_at, now):
            return False
        token = above
    return False


def end_of(token: Token, service: Service, directory: Leases) -> int | None:
    """When a token ends: by itself, or with its service or a token above it (microseconds); None if it does not."""
    ends = [token.expires_at, service.expires_at]
    above: Token | None = token
    for _ in range(DEPTH):
        above = None if above is None or above.parent is None else directory.token(above.parent)
        ends.append(None if above is None else above.expires_at)
    return min((end for end in ends if end is not None), default=None)


def last_end(token: Token) -> int | None:
    """The latest end that any renewal can give a token (microseconds); None if there is none."""
    lease = Lease.of(token)
    if lease is None or not lease.renewable:
        return token.expires_at
    most = min(filter(None, (0 if lease.period else lease.max_ttl, lease.explicit_max_ttl)), default=None)
    return None if most is None else token.created_at + most * 1_000_000
