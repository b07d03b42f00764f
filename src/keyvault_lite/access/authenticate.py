"""Authentication: the only place that makes a Principal. Every failure is the same answer at the same cost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Final, Protocol

from keyvault_lite.access.lifetimes import ancestors_live, is_past
from keyvault_lite.model.errors import Unauthenticated
from keyvault_lite.model.evidence import LoginFault
from keyvault_lite.model.identity import (
    BearerCredential,
    Credential,
    Grant,
    Principal,
    Role,
    Service,
    Setting,
    SystemCredential,
    Token,
    TokenKind,
)
from keyvault_lite.model.names import SYSTEM, ServiceId, TokenId
from keyvault_lite.model.native_tokens import Lifetime

REFUSAL = "a valid bearer token is required"
REMEMBERED: Final = 8_192
"""How many proven tokens are remembered before all are forgotten: each keeps its record, metadata included."""


class Proof:
    """A token's record, the SHA-256 of the secret that was proven against it, and the principal."""

    __slots__ = ("digest", "principal", "service", "token")

    def __init__(self, token: Token, digest: bytes) -> None:
        self.token = token
        self.digest = digest
        self.service: Service | None = None
        self.principal: Principal | None = None
        """Made from these very records of token and service."""


_NO_DIGEST: Final = bytes(32)


class Directory(Protocol):
    """What authentication reads of the verified state."""

    def token(self, token_id: TokenId) -> Token | None:
        """The token of that id."""

    def find_service(self, ref: str) -> Service | None:
        """The service of that id."""

    def setting(self, name: str) -> Setting | None:
        """The setting of that name."""


class Verifier(Protocol):
    """What authentication asks of the keyring."""

    def token_matches(self, token_id: TokenId, secret: str, stored: bytes | None) -> bool:
        """Whether a secret is the one whose keyed digest is stored; None costs the same and is false."""


class Scheme(Protocol):
    """How one kind of credential is verified."""

    def verify(self, credential: Any, directory: Directory, now: int) -> tuple[Service, str | None]:  # noqa: ANN401
        """The service whose credential it is, and the login that it is good for alone. Raises AuthenticationFailed.

        Every failure MUST cost the same as far as a caller could learn from the time which ids exist.
        """


TokenAuthority = Callable[[Token, Service, Directory], tuple[Role, tuple[Grant, ...], bool]]
"""The role and grants that a token acts with, and whether that is less than its service's."""


def of_service(_token: Token, service: Service, _directory: Directory) -> tuple[Role, tuple[Grant, ...], bool]:
    """All that the service may do."""
    return service.role, service.grants, False


class ParseToken(Protocol):
    """How a token's text falls into id and secret."""

    def __call__(self, text: str) -> tuple[TokenId, str] | None:
        """Id and secret, None for what is no token."""


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Checks credentials against the state it is given."""

    verifier: Verifier
    parse_token: ParseToken
    schemes: Mapping[type[Credential], Scheme] = field(default_factory=dict)
    """How credentials other than bearer tokens are verified."""
    authority: TokenAuthority = of_service
    _proven: dict[TokenId, Proof] = field(default_factory=dict, init=False, repr=False)

    def authenticate(self, credential: Credential, directory: Directory, now: int) -> Principal:
        """The principal behind a credential at time `now` (microseconds).

        Raises AuthenticationFailed, with the service of a genuine token that is expired or whose service may not act.
        """
        if isinstance(credential, SystemCredential):
            return Principal(SYSTEM, "system", None)
        if not isinstance(credential, BearerCredential):
            return self._by_scheme(credential, directory, now)
        proof = self._genuine(credential, directory)
        token = proof.token
        service = directory.find_service(token.service_id)
        if service is None:
            raise AuthenticationFailed(None)
        fault = token_fault(token, service, directory, now)
        if fault is not None:
            raise AuthenticationFailed(service.id, fault)
        if proof.service is service and proof.principal is not None:
            return proof.principal
        role, grants, narrowed = self.authority(token, service, directory)
        leased = token.kind is TokenKind.LEASED
        principal = Principal(service.id, service.name, role, grants, token.id, narrowed=narrowed, leased=leased)
        if token.kind is TokenKind.NATIVE:  # what a leased one may do follows from other records too
            proof.service, proof.principal = service, principal
        return principal

    def _by_scheme(self, credential: Credential, directory: Directory, now: int) -> Principal:
        scheme = self.schemes.get(type(credential))
        if scheme is None:
            raise AuthenticationFailed(None)
        service, login = scheme.verify(credential, directory, now)
        # Credentials of a login are good for that login and nothing else, so that it has no grants.
        return Principal(service.id, service.name, service.role, service.grants if login is None else (), login=login)

    def _genuine(self, credential: BearerCredential, directory: Directory) -> Proof:
        if credential.token is None:
            raise AuthenticationFailed(None, LoginFault.MISSING)
        parsed = self.parse_token(credential.token)
        proof = None if parsed is None else self._prove(*parsed, directory.token(parsed[0]))
        if proof is None:
            raise AuthenticationFailed(None)
        return proof

    def _prove(self, token_id: TokenId, secret: str, token: Token | None) -> Proof | None:
        """That the secret is that of the record; a secret proven before is not proven again.

        Safe because records are immutable: a token that was renewed, revoked or read again is another object, and proof
        against the old one counts for nothing. What is kept is no way in: the hash of 256 random bits.
        """
        digest = sha256(secret.encode()).digest()
        known = self._proven.get(token_id)
        proven = compare_digest(_NO_DIGEST if known is None else known.digest, digest)
        if proven and known is not None and known.token is token:
            return known
        # Comparison and digest cost unknown ids the same, so that the time taken does not tell which ids exist.
        matches = self.verifier.token_matches(token_id, secret, None if token is None else token.digest)
        if token is None or not matches:
            return None
        if len(self._proven) >= REMEMBERED:
            self._proven.clear()
        proof = self._proven[token_id] = Proof(token, digest)
        return proof


def token_fault(token: Token, service: Service, directory: Directory, now: int) -> LoginFault | None:
    """Why a genuine token is not valid at this moment; None if it is."""
    native = token.kind is TokenKind.NATIVE
    if token.ended_at is not None:
        return LoginFault.REPLACED if native else LoginFault.REVOKED
    if is_past(token.expires_at, now):
        replaced = native and Lifetime.of(token).replaced_at is not None
        return LoginFault.REPLACED if replaced else LoginFault.EXPIRED
    fault = service_fault(service, now)
    if fault is None and not ancestors_live(token, directory, now):
        return LoginFault.PARENT_ENDED
    return fault


def service_fault(service: Service, now: int) -> LoginFault | None:
    """Why a service may not act at this moment; None if it may."""
    if not service.active:
        return LoginFault.INACTIVE
    return LoginFault.SERVICE_EXPIRED if is_past(service.expires_at, now) else None


class AuthenticationFailed(Unauthenticated):
    """Not authenticated. `service_id` is for the audit log only and is known if the credential was genuine.

    So is `fault`. `cause` is what a dialect that tells causes apart answers.
    """

    def __init__(
        self,
        service_id: ServiceId | None,
        fault: LoginFault = LoginFault.UNKNOWN,
        cause: Unauthenticated | None = None,
    ) -> None:
        super().__init__(REFUSAL)
        self.service_id = service_id
        self.fault = fault
        self.cause = cause
