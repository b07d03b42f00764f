"""Leased tokens: what is stored with a token that has an end of its own, how it is renewed and what it is held to."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from keyvault_lite.model.identity import Token

ATTRIBUTE: Final = "vault"
"""Under which a lease is stored in a token's attributes. Stored tokens have it: it never changes."""
DEFAULT_TTL: Final = 32 * 24 * 3600
"""Seconds; also the longest, as both products have it."""
MADE: Final = "auth/token/create"
"""How a token came to be that was made with another."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What the dialect keeps of a token it made."""

    ttl: int
    """Seconds that a renewal gives, if it does not say."""
    max_ttl: int = DEFAULT_TTL
    """Seconds from its making that no renewal goes beyond; 0 with a period."""
    period: int = 0
    """If not 0, every renewal gives so many seconds, without end."""
    explicit_max_ttl: int = 0
    """If not 0, seconds from its making that nothing goes beyond, with a period neither."""
    renewable: bool = True
    display_name: str = "token"
    path: str = MADE
    policies: tuple[str, ...] | None = None
    """What the token is held to; None is all its service may do."""
    alone: bool = False
    """Whether its service's grants count for nothing beside the policies: they were asked for by name."""
    meta: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, token: Token) -> Self | None:
        """The lease of a token; None for one that the dialect did not make."""
        kept = token.attributes.get(ATTRIBUTE)
        if kept is None:
            return None
        policies = kept["policies"]
        return cls(**{**kept, "policies": None if policies is None else tuple(policies)})

    def attributes(self) -> Mapping[str, Any]:
        """As it is in the token."""
        return {ATTRIBUTE: asdict(self)}
