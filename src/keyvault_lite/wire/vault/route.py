"""An operation of the protocol as data, and what its builders and renderers work on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec import Struct

from keyvault_lite.dialects.vault.requests import key_ref
from keyvault_lite.engine.cooperative import Steps
from keyvault_lite.model.identity import Credential
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Request
from keyvault_lite.wire.routing import Route

READ, WRITE, LIST, DELETE = "GET", "POST", "LIST", "DELETE"
MAX_DATA: Final = 32 * 1024 * 1024
"""Bytes of a body with data to encrypt, sign and so on."""
WHOLE_PATH: Final = "path"
"""The named part that is a mount's path, with its slashes."""


class VaultCall:
    """What a request says: where it goes, and its fields from path, query and body."""

    __slots__ = ("fields", "mount", "path", "token")

    def __init__(
        self, mount: str, path: Mapping[str, str], fields: Mapping[str, Any], token: str | None = None
    ) -> None:
        self.token = token
        """The caller's own token, which a look at it shows again."""
        self.mount = mount
        self.path = path
        """The parts of the path that have names."""
        self.fields = fields

    @property
    def key(self) -> KeyRef:
        """The key the path names."""
        return key_ref(self.mount, self.path["name"])


class RawReply(Struct, frozen=True):
    """A successful reply: the data of the envelope, or what is in its place."""

    data: object = None
    status: int = 200
    """204 has no body."""
    warnings: tuple[str, ...] = ()
    auth: object = None
    bare: bool = False
    """Whether the data is alone, without the envelope."""
    merged: bool = False
    """Whether the data is in the envelope and beside it."""


NO_CONTENT: Final = RawReply(status=204)
NOT_FOUND: Final = RawReply(status=404)
Build = Callable[[VaultCall], Request | Steps[Request]]
"""The request, or the steps of building it where that takes long."""
Render = Callable[[Any, Request, VaultCall], RawReply]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Route):
    """One operation of the protocol."""

    operation: str
    build: Build
    render: Render
    fields: frozenset[str] = frozenset()
    """Known fields of the body; others are ignored, with a warning that names them."""
    credential: Callable[[VaultCall], Credential] | None = None
    """Reads the caller from the body, where that is not a token in a header."""
    missing: tuple[int, str] | None = None
    """Status and message for a key that is not there; by default 404 without a message."""
    unauthenticated: tuple[int, str] | None = None
    """Status and message for an unauthenticated caller, where they are not the usual ones."""
