"""What people hand in to open a sealed vault, and what they are told of it."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Unseal:
    """One contribution of a person. At most one of share and passphrase is given."""

    share: str | None = field(default=None, repr=False)
    passphrase: str | None = field(default=None, repr=False)
    reset: bool = False
    """Drop what was handed in so far, first."""
    nonce: str | None = None
    """Of the attempt that this belongs to; None for whichever is under way."""


@dataclass(frozen=True, slots=True)
class SealStatus:
    """Whether the vault is open, and what is missing. Told to anyone."""

    sealed: bool
    root: str
    """The kind of root that has opened it, or that is awaited."""
    threshold: int = 1
    shares: int = 1
    progress: int = 0
    """How many shares are there."""
    nonce: str = ""
    """Names the attempt; empty before the first share."""
    passphrase: bool = False
    """Whether a passphrase is awaited."""
    reason: str | None = None
    """Why it is sealed."""
