"""The ASGI extension by which an application takes and answers a request whole, without messages."""

from collections.abc import Sequence
from typing import Final, Protocol

from keyvault_lite.model.intake import RequestConnection

DIRECT_EXCHANGE: Final = "keyvault.whole"
"""The name of the extension; what is under it in a scope is a DirectExchange."""


class DirectExchange(Protocol):
    """A request that need not be taken and answered by messages."""

    conn: RequestConnection | None
    """The connection that it came on."""

    def read_whole(self) -> bytes | None:
        """The body, once. None if not all of it is here, or some was taken: then it comes by messages."""
        ...

    def write_whole(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bool:
        """Send status, headers and body. False, with nothing sent, if it has to be done by messages.

        `headers` have lower-case names, `content-length` among them. Raises ValueError, having sent nothing, if a name
        or a value has a line of its own.
        """
        ...
