"""Who is calling: the only place that makes a Principal. Every failure is the same answer at the same cost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from typing import Final, Protocol

from keyvault_lite.access.lifetimes import ancestors_live, is_past
from keyvault_lite.dialects.aws.errors import (
    IncompleteSignature,
    MissingSignature,
    SignatureExpired,
    SignatureMismatch,
    UnknownAccessKey,
)
from keyvault_lite.dialects.vault.authority import authority, role_login
from keyvault_lite.model.errors import InvalidCiphertext, Unauthenticated
from keyvault_lite.model.evidence import LoginFault
from keyvault_lite.model.identity import (
    AppRoleCredential,
    AwsCredential,
    BearerCredential,
    Credential,
    Principal,
    Service,
    Setting,
    SignatureFault,
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
    """A token's record, the SHA-256 of the secret that was proven against it, and who it turned out to be."""

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


class SignatureVerifier(Protocol):
    """What authentication asks of the keyring about signed requests."""

    def holds(self, credential: AwsCredential, service_id: ServiceId, sealed: bytes) -> bool:
        """Whether the signature is that of the request; raises InvalidCiphertext for a secret of another access key."""

    def refuse(self, credential: AwsCredential) -> None:
        """The work of `holds` where there is no secret."""


class ParseToken(Protocol):
    """How a token's text falls into id and secret."""

    def __call__(self, text: str) -> tuple[TokenId, str] | None:
        """Id and secret, None for what is no token."""


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Checks credentials against the state it is given."""

    verifier: Verifier
    parse_token: ParseToken
    access_keys: SignatureVerifier
    wall_clock: Callable[[], int] | None = None
    """By which signatures are fresh, in microseconds; None: by the time of the call. The log's time is never before its
    newest entry: after one start with a clock ahead, no signature of a right clock would be fresh by it."""
    _proven: dict[TokenId, Proof] = field(default_factory=dict, init=False, repr=False)

    def authenticate(self, credential: Credential, directory: Directory, now: int) -> Principal:
        """The principal behind a credential at time `now` (microseconds).

        Raises Refused, which knows the service of a genuine token that is expired or whose service may no longer act.
        """
        if isinstance(credential, SystemCredential):
            return Principal(SYSTEM, "system", None)
        if isinstance(credential, AwsCredential):
            return self._signer(credential, directory, now)
        if isinstance(credential, AppRoleCredential):
            return self._role(credential, directory, now)
        proof = self._genuine(credential, directory)
        token = proof.token
        service = directory.find_service(token.service_id)
        if service is None:
            raise Refused(None)
        fault = _fault(token, service, directory, now)
        if fault is not None:
            raise Refused(service.id, fault)
        if proof.service is service and proof.principal is not None:
            return proof.principal
        role, grants, narrowed = authority(token, service, directory)
        leased = token.kind is TokenKind.LEASED
        principal = Principal(service.id, service.name, role, grants, token.id, narrowed=narrowed, leased=leased)
        if token.kind is TokenKind.NATIVE:  # what a leased one may do follows from other records too
            proof.service, proof.principal = service, principal
        return principal

    def _role(self, credential: AppRoleCredential, directory: Directory, now: int) -> Principal:
        """The service that logs in with a role's credentials; the principal may do that and nothing else."""
        found = role_login(credential, directory, self.verifier, now)
        if found is None:
            raise Refused(None)
        fault = _fault_of_service(found[0], now)
        if fault is not None:
            raise Refused(found[0].id, fault)
        service, login = found
        return Principal(service.id, service.name, service.role, (), login=login)

    def _signer(self, credential: AwsCredential, directory: Directory, now: int) -> Principal:
        """The principal who signed a request. Causes are told apart, as clients of that product need it."""
        if credential.fault is not None:
            fault, cause = FAULTS[credential.fault]
            raise Refused(None, fault, cause())
        token = directory.token(credential.access_key_id)
        if token is None or token.kind is not TokenKind.AWS or token.ended_at is not None:
            self.access_keys.refuse(credential)
            revoked = token is not None and token.kind is TokenKind.AWS
            raise Refused(None, LoginFault.REVOKED if revoked else LoginFault.UNKNOWN, UnknownAccessKey())
        service = directory.find_service(token.service_id)
        try:
            genuine = self.access_keys.holds(credential, token.service_id, token.digest)
        except InvalidCiphertext:
            genuine = False
        if service is None or not genuine:
            raise Refused(None, LoginFault.WRONG_SIGNATURE, SignatureMismatch())
        found = _fault(token, service, directory, now)
        if found is not None:
            raise Refused(service.id, found, UnknownAccessKey())
        if not _is_fresh(credential, now if self.wall_clock is None else self.wall_clock()):
            stale = SignatureExpired("the signature is of another time")
            raise Refused(service.id, LoginFault.STALE_SIGNATURE, stale)
        return Principal(service.id, service.name, service.role, service.grants)

    def _genuine(self, credential: BearerCredential, directory: Directory) -> Proof:
        if credential.token is None:
            raise Refused(None, LoginFault.MISSING)
        parsed = self.parse_token(credential.token)
        proof = None if parsed is None else self._prove(*parsed, directory.token(parsed[0]))
        if proof is None:
            raise Refused(None)
        return proof

    def _prove(self, token_id: TokenId, secret: str, token: Token | None) -> Proof | None:
        """That the secret is that of the record; a secret proven before is not proven again.

        Safe because records are immutable: a token that was renewed, revoked or read anew is another object, and proof
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


def _fault(token: Token, service: Service, directory: Directory, now: int) -> LoginFault | None:
    """Why a genuine token is not valid at this moment; None if it is."""
    native = token.kind is TokenKind.NATIVE
    if token.ended_at is not None:
        return LoginFault.REPLACED if native else LoginFault.REVOKED
    if is_past(token.expires_at, now):
        replaced = native and Lifetime.of(token).replaced_at is not None
        return LoginFault.REPLACED if replaced else LoginFault.EXPIRED
    fault = _fault_of_service(service, now)
    if fault is None and not ancestors_live(token, directory, now):
        return LoginFault.PARENT_ENDED
    return fault


def _fault_of_service(service: Service, now: int) -> LoginFault | None:
    if not service.active:
        return LoginFault.INACTIVE
    return LoginFault.SERVICE_EXPIRED if is_past(service.expires_at, now) else None


SKEW: Final = 5 * 60 * 1_000_000
"""Microseconds that a signer's clock may be off, and for which a signed request can be repeated."""
_SECOND: Final = 1_000_000


def _is_fresh(credential: AwsCredential, now: int) -> bool:
    last = SKEW if credential.lifetime is None else credential.lifetime * _SECOND
    return credential.signed_at - SKEW <= now <= credential.signed_at + last


FAULTS: Final[Mapping[SignatureFault, tuple[LoginFault, type[Unauthenticated]]]] = {
    SignatureFault.MISSING: (LoginFault.MISSING, MissingSignature),
    SignatureFault.INCOMPLETE: (LoginFault.MISSING, IncompleteSignature),
    SignatureFault.OTHER_SERVICE: (LoginFault.WRONG_SIGNATURE, SignatureMismatch),
    SignatureFault.SESSION: (LoginFault.UNKNOWN, UnknownAccessKey),
}


class Refused(Unauthenticated):
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
