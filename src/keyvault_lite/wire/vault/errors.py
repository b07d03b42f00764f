"""Errors as this dialect writes them: `{"errors": [...]}`, from one table of classes to statuses.

A caller learns the same of a missing token, a wrong one, a key that is not there and a key it has no grant on.
"""

from collections.abc import Mapping
from typing import Final

from keyvault_lite.dialects.vault.requests import NoMount
from keyvault_lite.model.errors import (
    AuditUnavailable,
    Conflict,
    Forbidden,
    Hidden,
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
    Overloaded,
    Sealed,
    ShareExceeded,
    TooLarge,
    Unauthenticated,
    Unsupported,
    UnsupportedMediaType,
)

DENIED: Final = "permission denied"
ERRORS: Final[Mapping[type[KeyVaultError], tuple[int, str | None]]] = {
    MalformedRequest: (400, None),
    InvalidCiphertext: (400, "cipher: message authentication failed"),
    InvalidRequest: (400, None),
    Unsupported: (400, None),
    InvalidState: (400, None),
    Conflict: (400, None),
    UnsupportedMediaType: (400, None),
    Unauthenticated: (403, DENIED),
    Forbidden: (403, DENIED),
    Hidden: (403, DENIED),
    NotFound: (404, ""),
    NoMount: (404, None),
    MethodNotAllowed: (405, "unsupported operation"),
    TooLarge: (413, None),
    LimitExceeded: (429, None),
    ShareExceeded: (429, None),
    InternalError: (500, "internal error"),
    AuditUnavailable: (503, "the attempt could not be recorded, so there is no result"),
    IntegrityViolation: (503, "stored data does not verify"),
    OutcomeUnknown: (503, "the store failed while committing: the change may or may not have happened"),
    Overloaded: (503, None),
    Sealed: (503, "Vault is sealed"),
}
"""Every class of the error tree, with its status and message. None is the error's own detail, "" no message at all."""
_ROUTES_OWN: Final = frozenset({NotFound, Unauthenticated})


def describe(error: KeyVaultError, own: tuple[int, str] | None = None) -> tuple[int, str]:
    """Status and message. `own` is what the route answers for a missing key, or to an unauthenticated caller."""
    kind = next((one for one in type(error).__mro__ if one in ERRORS), InternalError)
    if kind in _ROUTES_OWN and own is not None:
        return own
    status, message = ERRORS[kind]
    return status, error.shown if message is None else message
