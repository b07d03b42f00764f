"""Errors as the AWS dialect writes them: one table from the classes of the error tree to names, statuses and messages.

An empty message means that the service gives none: it says nothing of a ciphertext, signature or MAC that fails.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from keyvault_lite.dialects.aws import errors as aws
from keyvault_lite.dialects.aws.model import ALIAS, Place
from keyvault_lite.model import errors

BAD: Final = 400
BROKEN: Final = 500
_MISMATCH: Final = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)
_EXPIRED: Final = "Signature expired: the time of the request is not within 5 minutes of now, or its lifetime is over."
_UNKNOWN: Final = "The security token included in the request is invalid."


def _not_found(named: str, place: Place) -> str:
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


def _no_id(named: str, _: Place) -> str:
    return f"Invalid keyId '{named}'"


@dataclass(frozen=True, slots=True)
class Written:
    """How a class of errors is written."""

    name: str
    status: int = BAD
    message: str | None = None
    """Instead of the error's own detail; None takes that."""
    about: Callable[[str, Place], str] | None = None
    """What is said instead of a name that the request has for something."""


ERRORS: Final[Mapping[type[errors.KeyVaultError], Written]] = {
    aws.MissingSignature: Written("MissingAuthenticationTokenException", message="Missing Authentication Token"),
    aws.IncompleteSignature: Written(
        "IncompleteSignatureException",
        message="The Authorization header or query lacks a part of the signature, or leaves a header unsigned.",
    ),
    aws.UnknownAccessKey: Written("UnrecognizedClientException", message=_UNKNOWN),
    aws.SignatureMismatch: Written("InvalidSignatureException", message=_MISMATCH),
    aws.SignatureExpired: Written("InvalidSignatureException", message=_EXPIRED),
    errors.Unauthenticated: Written("UnrecognizedClientException", message=_UNKNOWN),
    aws.UnknownOperation: Written("UnknownOperationException", message=""),
    aws.Unserializable: Written("SerializationException"),
    errors.MalformedRequest: Written("SerializationException"),
    errors.UnsupportedMediaType: Written("SerializationException"),
    errors.MethodNotAllowed: Written("UnknownOperationException", message=""),
    errors.TooLarge: Written("RequestEntityTooLargeException", status=413),
    aws.Validation: Written("ValidationException"),
    errors.InvalidRequest: Written("ValidationException"),
    aws.UnsupportedOperation: Written("UnsupportedOperationException"),
    errors.Unsupported: Written("UnsupportedOperationException"),
    aws.InvalidKeyUsage: Written("InvalidKeyUsageException"),
    aws.MalformedPolicy: Written("MalformedPolicyDocumentException"),
    aws.InvalidTag: Written("TagException"),
    aws.InvalidArn: Written("InvalidArnException"),
    aws.ReservedAlias: Written("NotAuthorizedException", message=""),
    aws.InvalidMarker: Written("InvalidMarkerException", message="Invalid marker"),
    aws.InvalidGrantToken: Written("InvalidGrantTokenException", message="Invalid grant token"),
    aws.InvalidGrantId: Written("InvalidGrantIdException", message="Invalid grant id"),
    aws.KeyNotFound: Written("NotFoundException", about=_not_found),
    aws.AliasNotFound: Written("NotFoundException", about=_not_found),
    aws.DestinationNotFound: Written("NotFoundException", about=_not_found),
    aws.InvalidKeyId: Written("NotFoundException", about=_no_id),
    aws.ReplicaNotFound: Written("NotFoundException"),
    aws.CustomKeyStoreNotFound: Written("CustomKeyStoreNotFoundException"),
    aws.PolicyNotFound: Written("NotFoundException", message="No such policy exists"),
    errors.NotFound: Written("NotFoundException", about=_not_found),
    errors.Hidden: Written("AccessDeniedException"),
    errors.Forbidden: Written("AccessDeniedException"),
    aws.AlreadyExists: Written("AlreadyExistsException"),
    errors.Conflict: Written("ConflictException"),
    aws.Disabled: Written("DisabledException"),
    aws.KeyUnavailable: Written("KMSInvalidStateException"),
    errors.InvalidState: Written("KMSInvalidStateException"),
    aws.RotationLimit: Written("LimitExceededException"),
    errors.LimitExceeded: Written("ThrottlingException", message="Rate exceeded"),
    errors.ShareExceeded: Written("ThrottlingException", message="Rate exceeded"),
    aws.IncorrectKey: Written("IncorrectKeyException"),
    aws.InvalidSignature: Written("KMSInvalidSignatureException", message=""),
    aws.InvalidMac: Written("KMSInvalidMacException", message=""),
    errors.InvalidCiphertext: Written("InvalidCiphertextException", message=""),
    aws.IncorrectKeyMaterial: Written("IncorrectKeyMaterialException"),
    aws.InvalidImportToken: Written("InvalidImportTokenException"),
    aws.ExpiredImportToken: Written("ExpiredImportTokenException"),
    aws.DryRun: Written("DryRunOperationException"),
    errors.Overloaded: Written("ThrottlingException", message="Rate exceeded"),
    errors.AuditUnavailable: Written("DependencyTimeoutException", status=BROKEN),
    errors.IntegrityViolation: Written("KMSInternalException", status=BROKEN),
    errors.InternalError: Written("KMSInternalException", status=BROKEN),
    errors.OutcomeUnknown: Written("KMSInternalException", status=BROKEN),
    errors.Sealed: Written("KeyUnavailableException", status=BROKEN),
}
"""Every class of the error tree (a test holds the table to it)."""


def write_error(error: errors.KeyVaultError, operation: str, place: Place, named: str) -> tuple[int, dict[str, str]]:
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
