"""Errors as the native API writes them: RFC 9457 problem documents, from one table of classes to statuses."""

from collections.abc import Mapping
from typing import Final

import msgspec

from keyvault_lite.model.errors import (
    AuditUnavailable,
    Conflict,
    Forbidden,
    IntegrityViolation,
    InternalError,
    InvalidCiphertext,
    InvalidRequest,
    InvalidState,
    KeyVaultError,
    LimitExceeded,
    MalformedRequest,
    MethodNotAllowed,
    NotFound,
    OutcomeUnknown,
    Sealed,
    TooLarge,
    Unauthenticated,
    UnsupportedMediaType,
)

STATUS: Final[Mapping[type[KeyVaultError], tuple[int, str]]] = {
    MalformedRequest: (400, "The body does not parse"),
    InvalidCiphertext: (400, "The ciphertext does not open"),
    Unauthenticated: (401, "A valid bearer token is required"),
    Forbidden: (403, "This is not allowed"),
    NotFound: (404, "There is no such object"),
    MethodNotAllowed: (405, "The path exists, the method does not"),
    Conflict: (409, "The request contradicts what is there"),
    InvalidState: (409, "The state of the key forbids this"),
    TooLarge: (413, "A size limit is exceeded"),
    UnsupportedMediaType: (415, "The body is not plain application/json"),
    InvalidRequest: (422, "The request has a field that makes no sense"),
    LimitExceeded: (429, "Too many requests"),
    InternalError: (500, "The server failed"),
    AuditUnavailable: (503, "The attempt could not be recorded"),
    IntegrityViolation: (503, "Stored data does not verify"),
    OutcomeUnknown: (503, "The change may or may not have happened"),
    Sealed: (503, "The vault is sealed"),
}
"""Every class of the error tree, with its status and title (a test holds the table to the tree)."""


class Problem(msgspec.Struct, frozen=True):
    """A refusal. `code` is for programs, `detail` for people; neither repeats what was submitted."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


def problem(error: KeyVaultError, request_id: str) -> Problem:
    """Write an error down. A class that is neither in the table nor a subclass of one is a defect."""
    kind = next((one for one in type(error).__mro__ if one in STATUS), None)
    if kind is None:
        kind, error = InternalError, InternalError()
    status, title = STATUS[kind]
    return Problem(
        type=f"urn:keyvault-lite:problem:{error.code}",
        title=title,
        status=status,
        detail=error.shown or title,
        code=error.code,
        request_id=request_id,
    )
