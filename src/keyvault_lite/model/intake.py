"""What is asked before a body is taken in: of whom, and for what."""

from msgspec import Struct

from keyvault_lite.model.evidence import Action
from keyvault_lite.model.names import KeyRef, ServiceId


class Upload(Struct, frozen=True):
    """A body that somebody wants to send, by what is known of its request without it."""

    action: Action
    key: KeyRef | None = None
    """The key that the path names."""
    space: str | None = None
    """What the names of keys begin with that the request is about, where it is about no single key."""


class Intake(Struct, frozen=True):
    """Whose body it is, and whether it may be large."""

    owner: ServiceId | None = None
    """None is a stranger: the credential is not good at this moment."""
    may_be_large: bool = False
    """Whether roles and grants allow the operation at all, so that its body is worth the memory and the time."""
