"""What the wire and the engine tell each other of a request beside the request: its connection, and its body."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from msgspec import Struct

from keyvault_lite.model.evidence import Action
from keyvault_lite.model.names import KeyRef, ServiceId
from keyvault_lite.model.opaque import Opaque


class Peer(Opaque, frozen=True):
    """The other end of a connection, as the transport knows it. Nothing of it is an authenticated caller yet."""

    certificate: bytes | None = None
    """DER of the certificate that a TLS client presented; its chain was verified if the listener asked for one."""
    uid: int | None = None
    """User of the process at the other end of a Unix socket."""
    gid: int | None = None
    pid: int | None = None


UNKNOWN_PEER: Final = Peer()


class RequestConnection:
    """The connection that a request came on: whose it is, and whether its request can be given up."""

    __slots__ = ("leave", "owner", "peer")

    def __init__(self, peer: Peer = UNKNOWN_PEER) -> None:
        self.peer = peer
        """What a credential scheme may authenticate beside headers."""
        self.owner: ServiceId | None = None
        """The service authenticated for its newest request; None if it is unknown."""
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
