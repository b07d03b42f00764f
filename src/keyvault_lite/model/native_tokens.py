"""The lifetime of a service's native token: what is kept of it in the token's attributes, and how it is asked for.

A token from before there were lifetimes has no such attribute and reads as one without end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.identity import Token

ATTRIBUTE: Final = "native"
SECOND: Final = 1_000_000
MAX_TTL: Final = 10 * 365 * 24 * 3600
"""Seconds."""
MAX_GRACE: Final = 24 * 3600
"""Seconds that a replaced token can stay valid."""
WINDOW: Final = 5 * 60 * SECOND
MAX_RENEWALS: Final = 5
"""How often a service other than an ADMIN can renew its own token in one WINDOW (microseconds)."""


def check_lifetime(ttl: int | None, max_ttl: int | None, grace: int = 0) -> None:
    """Raise InvalidRequest for values out of range. 0 is no limit, None leaves as it is."""
    if any(not 0 <= (one or 0) <= MAX_TTL for one in (ttl, max_ttl)):
        raise InvalidRequest(f"ttl and max_ttl are 0 to {MAX_TTL} seconds")
    if max_ttl and ttl and ttl > max_ttl:
        raise InvalidRequest("ttl is not greater than max_ttl")
    if not 0 <= grace <= MAX_GRACE:
        raise InvalidRequest(f"grace is 0 to {MAX_GRACE} seconds")


@dataclass(frozen=True, slots=True)
class Lifetime:
    """What an ADMIN set for a service's token, and what its renewals have made of it. All zero: without end."""

    ttl: int = 0
    """Seconds that a token is valid after each renewal; 0 is no limit."""
    max_ttl: int = 0
    """Seconds after an ADMIN issued the token beyond which no renewal extends it; 0 is no limit."""
    renewable_until: int | None = None
    """The moment that `max_ttl` leads to."""
    renewals: tuple[int, ...] = ()
    """When the service itself renewed it, as far as that limits the next renewal."""
    replaced_at: int | None = None
    """When another token took its place while it stays valid for a grace period."""

    @classmethod
    def of(cls, token: Token) -> Self:
        """The lifetime of a native token."""
        kept = token.attributes.get(ATTRIBUTE, {})
        return cls(**{**kept, "renewals": tuple(kept.get("renewals", ()))})

    def attributes(self) -> Mapping[str, Any]:
        """The attributes of a token of this lifetime: nothing for one without any limit."""
        kept = {
            "ttl": self.ttl,
            "max_ttl": self.max_ttl,
            "renewable_until": self.renewable_until,
            "renewals": list(self.renewals),
            "replaced_at": self.replaced_at,
        }
        set_values = {name: value for name, value in kept.items() if value}
        return {ATTRIBUTE: set_values} if set_values else {}
