"""Signed requests (AWS Signature Version 4): what a request brings, and how it is verified."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from keyvault_lite.access.authenticate import AuthenticationFailed, Directory, token_fault
from keyvault_lite.crypto.access_keys import ChainedMac
from keyvault_lite.dialects.aws.errors import (
    IncompleteSignature,
    MissingSignature,
    SignatureExpired,
    SignatureMismatch,
    UnknownAccessKey,
)
from keyvault_lite.model.errors import InvalidCiphertext, Unauthenticated
from keyvault_lite.model.evidence import LoginFault
from keyvault_lite.model.identity import Credential, Service, TokenKind
from keyvault_lite.model.names import ServiceId, TokenId

SKEW: Final = 5 * 60 * 1_000_000
"""Microseconds that a signer's clock may be off, and for which a signed request can be repeated."""
_SECOND: Final = 1_000_000


class SignatureFault(StrEnum):
    """Why a request that should be signed cannot be verified at all."""

    MISSING = "missing"
    INCOMPLETE = "incomplete"
    OTHER_SERVICE = "other service"
    SESSION = "session"


class AwsCredential(Credential, frozen=True):
    """A request signed with an access key (AWS Signature Version 4), unverified; nothing to verify if at fault."""

    access_key_id: TokenId
    date: str
    """The day of the credential scope, YYYYMMDD."""
    region: str
    service: str
    string_to_sign: bytes
    """Made by us from the request as it came, its body's hash included."""
    signature: str
    signed_at: int
    """Microseconds since 1970."""
    lifetime: int | None = None
    """Seconds, of a presigned request; others are good for a few minutes."""
    fault: SignatureFault | None = None

    @property
    def mac(self) -> ChainedMac:
        """The signature as a MAC (Signature Version 4): its key is derived by date, Region and service."""
        steps = (self.date, self.region, self.service, "aws4_request")
        return ChainedMac(self.access_key_id, b"AWS4", steps, self.string_to_sign, self.signature)


FAULTS: Final[Mapping[SignatureFault, tuple[LoginFault, type[Unauthenticated]]]] = {
    SignatureFault.MISSING: (LoginFault.MISSING, MissingSignature),
    SignatureFault.INCOMPLETE: (LoginFault.MISSING, IncompleteSignature),
    SignatureFault.OTHER_SERVICE: (LoginFault.WRONG_SIGNATURE, SignatureMismatch),
    SignatureFault.SESSION: (LoginFault.UNKNOWN, UnknownAccessKey),
}


class SignatureVerifier(Protocol):
    """What is asked of the keyring about signed requests."""

    def holds(self, signed: ChainedMac, service_id: ServiceId, sealed: bytes) -> bool:
        """Whether the signature is that of the request; raises InvalidCiphertext for a secret of another access key."""

    def refuse(self, signed: ChainedMac) -> None:
        """The work of `holds` where there is no secret."""


@dataclass(frozen=True, slots=True)
class SignatureScheme:
    """Verifies signed requests. Causes are told apart, as clients of that product need it."""

    access_keys: SignatureVerifier
    wall_clock: Callable[[], int] | None = None
    """By which signatures are fresh, in microseconds; None: by the time of the call. The log's time is never before its
    newest entry: after one start with a clock ahead, no signature of a right clock would be fresh by it."""

    def verify(self, credential: AwsCredential, directory: Directory, now: int) -> tuple[Service, None]:
        """The service that signed the request. Raises AuthenticationFailed with the cause."""
        if credential.fault is not None:
            fault, cause = FAULTS[credential.fault]
            raise AuthenticationFailed(None, fault, cause())
        token = directory.token(credential.access_key_id)
        if token is None or token.kind is not TokenKind.ACCESS_KEY or token.ended_at is not None:
            self.access_keys.refuse(credential.mac)
            revoked = token is not None and token.kind is TokenKind.ACCESS_KEY
            raise AuthenticationFailed(None, LoginFault.REVOKED if revoked else LoginFault.UNKNOWN, UnknownAccessKey())
        service = directory.find_service(token.service_id)
        try:
            genuine = self.access_keys.holds(credential.mac, token.service_id, token.digest)
        except InvalidCiphertext:
            genuine = False
        if service is None or not genuine:
            raise AuthenticationFailed(None, LoginFault.WRONG_SIGNATURE, SignatureMismatch())
        found = token_fault(token, service, directory, now)
        if found is not None:
            raise AuthenticationFailed(service.id, found, UnknownAccessKey())
        if not _is_fresh(credential, now if self.wall_clock is None else self.wall_clock()):
            stale = SignatureExpired("the signature is of another time")
            raise AuthenticationFailed(service.id, LoginFault.STALE_SIGNATURE, stale)
        return service, None


def _is_fresh(credential: AwsCredential, now: int) -> bool:
    last = SKEW if credential.lifetime is None else credential.lifetime * _SECOND
    return credential.signed_at - SKEW <= now <= credential.signed_at + last
