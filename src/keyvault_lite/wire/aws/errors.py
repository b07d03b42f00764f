"""Errors as the AWS dialect writes them: one table from the classes of the error tree to names, statuses and messages.

An empty message means that the service gives none: it says nothing of a ciphertext, signature or MAC that fails.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from keyvault_lite.dialects.aws import errors as aws
from keyvault_lite.dialects.aws.model import ALIAS, AccountRegion
from keyvault_lite.model import errors

BAD: Final = 400
BROKEN: Final = 500
_MISMATCH: Final = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)
_EXPIRED: Final = "Signature expired: the time of the request is not within 5 minutes of now, or its lifetime is over."
_UNKNOWN: Final = "The security token included in the request is invalid."


def _not_found(named: str, place: AccountRegion) -> str:
    """In the words of the service, which name what was asked for."""
    parts = named.split(":", 5)
    if named.startswith("arn:") and len(parts) == 6:  # noqa: PLR2004  (the parts of an ARN)
        if parts[3] != place.region or parts[4] != place.account:
            return f"Invalid arn {parts[3]}"
        return f"Alias {named} is not found." if parts[5].startswith(ALIAS) else f"Key '{named}' does not exist"
    if named.startswith(ALIAS):
        return f"Alias {place.arn(named)} is not found."
    if named.count("-") in {1, 4}:  # a UUID, or mrk- and digits
        return f"Key '{place.arn('key/' + named)}' does not exist"
    return _no_id(named, place)


def _no_id(named: str, _: AccountRegion) -> str:
    return f"Invalid keyId '{named}'"


@dataclass(frozen=True, slots=True)
class ErrorFormat:
    """How a class of errors is written."""

    name: str
    status: int = BAD
    message: str | None = None
    """Instead of the error's own detail; None takes that."""
    about: Callable[[str, AccountRegion], str] | None = None
    """What is said instead of a name that the request has for something."""


ERRORS: Final[Mapping[type[errors.KeyVaultError], ErrorFormat]] = {
    aws.MissingSignature: ErrorFormat("MissingAuthenticationTokenException", message="Missing Authentication Token"),
    aws.IncompleteSignature: ErrorFormat(
        "IncompleteSignatureException",
        message="The Authorization header or query lacks a part of the signature, or leaves a header unsigned.",
    ),
    aws.UnknownAccessKey: ErrorFormat("UnrecognizedClientException", message=_UNKNOWN),
    aws.SignatureMismatch: ErrorFormat("InvalidSignatureException", message=_MISMATCH),
    aws.SignatureExpired: ErrorFormat("InvalidSignatureException", message=_EXPIRED),
    errors.Unauthenticated: ErrorFormat("UnrecognizedClientException", message=_UNKNOWN),
    aws.UnknownOperation: ErrorFormat("UnknownOperationException", message=""),
    aws.Unserializable: ErrorFormat("SerializationException"),
    errors.MalformedRequest: ErrorFormat("SerializationException"),
    errors.UnsupportedMediaType: ErrorFormat("SerializationException"),
    errors.MethodNotAllowed: ErrorFormat("UnknownOperationException", message=""),
    errors.TooLarge: ErrorFormat("RequestEntityTooLargeException", status=413),
    aws.Validation: ErrorFormat("ValidationException"),
    errors.InvalidRequest: ErrorFormat("ValidationException"),
    aws.UnsupportedOperation: ErrorFormat("UnsupportedOperationException"),
    errors.Unsupported: ErrorFormat("UnsupportedOperationException"),
    aws.InvalidKeyUsage: ErrorFormat("InvalidKeyUsageException"),
    aws.MalformedPolicy: ErrorFormat("MalformedPolicyDocumentException"),
    aws.InvalidTag: ErrorFormat("TagException"),
    aws.InvalidArn: ErrorFormat("InvalidArnException"),
    aws.ReservedAlias: ErrorFormat("NotAuthorizedException", message=""),
    aws.InvalidMarker: ErrorFormat("InvalidMarkerException", message="Invalid marker"),
    aws.InvalidGrantToken: ErrorFormat("InvalidGrantTokenException", message="Invalid grant token"),
    aws.InvalidGrantId: ErrorFormat("InvalidGrantIdException", message="Invalid grant id"),
    aws.KeyNotFound: ErrorFormat("NotFoundException", about=_not_found),
    aws.AliasNotFound: ErrorFormat("NotFoundException", about=_not_found),
    aws.DestinationNotFound: ErrorFormat("NotFoundException", about=_not_found),
    aws.InvalidKeyId: ErrorFormat("NotFoundException", about=_no_id),
    aws.ReplicaNotFound: ErrorFormat("NotFoundException"),
    aws.CustomKeyStoreNotFound: ErrorFormat("CustomKeyStoreNotFoundException"),
    aws.PolicyNotFound: ErrorFormat("NotFoundException", message="No such policy exists"),
    errors.NotFound: ErrorFormat("NotFoundException", about=_not_found),
    errors.Hidden: ErrorFormat("AccessDeniedException"),
    errors.Forbidden: ErrorFormat("AccessDeniedException"),
    aws.AlreadyExists: ErrorFormat("AlreadyExistsException"),
    errors.Conflict: ErrorFormat("ConflictException"),
    aws.Disabled: ErrorFormat("DisabledException"),
    aws.KeyUnavailable: ErrorFormat("KMSInvalidStateException"),
    errors.InvalidState: ErrorFormat("KMSInvalidStateException"),
    aws.RotationLimit: ErrorFormat("LimitExceededException"),
    errors.LimitExceeded: ErrorFormat("ThrottlingException", message="Rate exceeded"),
    errors.ShareExceeded: ErrorFormat("ThrottlingException", message="Rate exceeded"),
    aws.IncorrectKey: ErrorFormat("IncorrectKeyException"),
    aws.InvalidSignature: ErrorFormat("KMSInvalidSignatureException", message=""),
    aws.InvalidMac: ErrorFormat("KMSInvalidMacException", message=""),
    errors.InvalidCiphertext: ErrorFormat("InvalidCiphertextException", message=""),
    aws.IncorrectKeyMaterial: ErrorFormat("IncorrectKeyMaterialException"),
    aws.InvalidImportToken: ErrorFormat("InvalidImportTokenException"),
    aws.ExpiredImportToken: ErrorFormat("ExpiredImportTokenException"),
    aws.DryRun: ErrorFormat("DryRunOperationException"),
    errors.Overloaded: ErrorFormat("ThrottlingException", message="Rate exceeded"),
    errors.AuditUnavailable: ErrorFormat("DependencyTimeoutException", status=BROKEN),
    errors.IntegrityViolation: ErrorFormat("KMSInternalException", status=BROKEN),
    errors.InternalError: ErrorFormat("KMSInternalException", status=BROKEN),
    errors.OutcomeUnknown: ErrorFormat("KMSInternalException", status=BROKEN),
    errors.Sealed: ErrorFormat("KeyUnavailableException", status=BROKEN),
}
"""Every class of the error tree (a test holds the table to it)."""


def write_error(
    error: errors.KeyVaultError, operation: str, place: AccountRegion, named: str
) -> tuple[int, dict[str, str]]:
    """Status and body. `named` is what the request called its key."""
    kind = next((one for one in type(error).__mro__ if one in ERRORS), errors.InternalError)
    written = ERRORS[kind]
    message = error.shown if written.message is None else written.message
    if written.about is not None and named:
        message = written.about(named, place)
    elif written.name == "AccessDeniedException":
        message = f"The caller is not authorized to perform: kms:{operation} on this resource"
    elif written.name == "AlreadyExistsException" and not message:
        message = "An alias with this name already exists"
    body = {"__type": written.name}
    return written.status, {**body, "message": message} if message else body
