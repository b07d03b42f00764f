"""What a dialect gives the engine: its handlers, and the few places where its rules differ from the vault's own.

The engine is built with a list of dialects and knows none of them. A dialect narrows what the vault allows and never
widens it: roles and grants are checked first, for every request.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from keyvault_lite.access.authenticate import Scheme, TokenAuthority, of_service
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.engine.handler import Handler, HandlerContext
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.model.errors import KeyVaultError
from keyvault_lite.model.identity import Credential, Principal
from keyvault_lite.model.keys import Key
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Request, RotateDueKey


class Located(Struct, frozen=True):
    """What a request's own way to name a key leads to."""

    key: Key | None = None
    ref: str | None = None
    """As grants write it."""
    error: KeyVaultError | None = None
    """Why the name is not valid; shown only to callers that may know what is there."""


@dataclass(frozen=True, slots=True)
class KeyNames:
    """How a dialect names keys, where `KeyRequest.key` is not a name or id of the vault."""

    requests: tuple[type[Request], ...]
    """The bases of the requests whose keys are named so."""
    locate: Callable[[Any, State, int], Located]
    """The key that a request is about. Time in microseconds."""
    admit: Callable[[Any, Located, Principal], Key]
    """The key, if roles and grants let the principal use it so. Raises as `check_key` or with the dialect's errors."""
    denied: Callable[[Any, State, int], Key | None]
    """The key that the entry of a denied request names."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The operations of one product on the vault's keys."""

    name: str
    handlers: Mapping[type[Request], Handler]
    key_names: KeyNames | None = None
    narrow: Callable[[Request, HandlerContext], None] | None = None
    """Raises Forbidden for a request on a key, of whatever dialect, that this dialect's rules for the key do not allow.

    Called after roles and grants have allowed it."""
    prerequisite: Callable[[Request], Request | None] | None = None
    """What has to be made first for a request whose key is missing."""
    rotation: Callable[[Key], Request | None] | None = None
    """How a key that is due is rotated; None for a key that is not this dialect's."""
    erasures: Callable[[Key, int], Iterable[Request]] | None = None
    """What erases material of a key that is due to be erased at that time (microseconds)."""
    schemes: Callable[[Keyring], Mapping[type[Credential], Scheme]] | None = None
    """How the dialect's credentials are verified."""
    authority: TokenAuthority | None = None
    """What tokens may do that this dialect has made."""


@dataclass(frozen=True, slots=True)
class Operations:
    """The operations of all dialects together."""

    dialects: Sequence[Dialect]
    handlers: dict[type[Request], Handler] = field(default_factory=dict, init=False)
    _key_names: dict[type[Request], KeyNames] = field(default_factory=dict, init=False)
    _narrowing: list[Callable[[Request, HandlerContext], None]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        for dialect in self.dialects:
            if twice := self.handlers.keys() & dialect.handlers.keys():
                raise ValueError(f"{dialect.name}: another dialect has a handler of {sorted(map(repr, twice))}")
            self.handlers.update(dialect.handlers)
            if dialect.narrow is not None:
                self._narrowing.append(dialect.narrow)
            names = dialect.key_names
            if names is not None:
                self._key_names.update({kind: names for kind in dialect.handlers if issubclass(kind, names.requests)})

    def key_names(self, request: Request) -> KeyNames | None:
        """How the request's dialect names keys; None if as the vault does."""
        return self._key_names.get(type(request))

    def narrow(self, request: Request, ctx: HandlerContext) -> None:
        """Raise Forbidden unless every dialect's rules for the key allow what roles and grants allow."""
        for narrow in self._narrowing:
            narrow(request, ctx)

    def prerequisite(self, request: Request) -> Request | None:
        """What has to be made first for a request whose key is missing."""
        asked = (one.prerequisite(request) for one in self.dialects if one.prerequisite is not None)
        return next((found for found in asked if found is not None), None)

    def rotation(self, key: Key) -> Request:
        """What rotates a key that is due: as its dialect does it, else as the vault does."""
        asked = (one.rotation(key) for one in self.dialects if one.rotation is not None)
        return next((found for found in asked if found is not None), RotateDueKey(KeyRef(key.id)))

    def erasures(self, key: Key, now: int) -> Iterable[Request]:
        """What erases material of a key that is due at that time (microseconds)."""
        return [request for one in self.dialects if one.erasures is not None for request in one.erasures(key, now)]

    def schemes(self, keyring: Keyring) -> dict[type[Credential], Scheme]:
        """How credentials other than bearer tokens are verified."""
        given = (one.schemes(keyring) for one in self.dialects if one.schemes is not None)
        return {kind: scheme for schemes in given for kind, scheme in schemes.items()}

    @property
    def authority(self) -> TokenAuthority:
        """What tokens may do; at most one dialect makes tokens that do not act with all that their service may do."""
        return next((one.authority for one in self.dialects if one.authority is not None), of_service)
