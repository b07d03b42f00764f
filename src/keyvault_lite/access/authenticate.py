"""Who is calling: the only place that makes a Principal. Every failure is the same answer at the same cost."""

from dataclasses import dataclass
from typing import Protocol

from keyvault_lite.model.errors import Unauthenticated
from keyvault_lite.model.identity import BearerCredential, Credential, Principal, Service, SystemCredential, Token
from keyvault_lite.model.names import SYSTEM, ServiceId, TokenId

REFUSAL = "a valid bearer token is required"


class Directory(Protocol):
    """What authentication reads of the verified state."""

    def token(self, token_id: TokenId) -> Token | None:
        """The token of that id."""

    def find_service(self, ref: str) -> Service | None:
        """The service of that id."""


class Verifier(Protocol):
    """What authentication asks of the keyring."""

    def token_matches(self, token_id: TokenId, secret: str, stored: bytes | None) -> bool:
        """Whether a secret is the one whose keyed digest is stored; None costs the same and is false."""


class ParseToken(Protocol):
    """How a token's text falls into id and secret."""

    def __call__(self, text: str) -> tuple[TokenId, str] | None:
        """Id and secret, None for what is no token."""


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Checks credentials against the state it is given."""

    verifier: Verifier
    parse_token: ParseToken

    def authenticate(self, credential: Credential, directory: Directory, now: int) -> Principal:
        """The principal behind a credential at time `now` (microseconds).

        Raises Refused, which knows the service of a genuine token that is expired or whose service may not act any more.
        """
        if isinstance(credential, SystemCredential):
            return Principal(SYSTEM, "system", None)
        token = self._genuine(credential, directory)
        if token is None:
            raise Refused(None)
        service = directory.find_service(token.service_id)
        if service is None:
            raise Refused(None)
        expired = any(end is not None and end <= now for end in (token.expires_at, service.expires_at))
        if not service.active or expired:
            raise Refused(service.id)
        return Principal(service.id, service.name, service.role, service.grants, token.id)

    def _genuine(self, credential: BearerCredential, directory: Directory) -> Token | None:
        parsed = None if credential.token is None else self.parse_token(credential.token)
        if parsed is None:
            return None
        token_id, secret = parsed
        token = directory.token(token_id)
        # The digest is computed for unknown ids too, so that the time taken does not tell which ids exist.
        if not self.verifier.token_matches(token_id, secret, None if token is None else token.digest):
            return None
        return None if token is None or token.ended_at is not None else token


class Refused(Unauthenticated):
    """Not authenticated. `service_id` is for the audit log only and is known if the token was genuine."""

    def __init__(self, service_id: ServiceId | None) -> None:
        super().__init__(REFUSAL)
        self.service_id = service_id
