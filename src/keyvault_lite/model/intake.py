"""What the wire and the engine tell each other of a request beside the request: its connection, and its body."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from keyvault_lite.model.evidence import Action
from keyvault_lite.model.names import KeyRef, ServiceId


class Seat:
    """The connection that a request came on: whose it is, and whether its request can be given up."""

    __slots__ = ("leave", "owner")

    def __init__(self) -> None:
        self.owner: ServiceId | None = None
        """Who was authenticated for its newest request; None is a stranger."""
        self.leave: Callable[[], None] | None = None
        """Ends the wait of a request for which nothing has been done yet. None if its request does not wait so."""

    @contextmanager
    def waiting(self, leave: Callable[[], None]) -> Iterator[None]:
        """While the request waits, and can be given up by `leave`."""
        self.leave = leave
        try:
            yield
        finally:
            self.leave = None


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
