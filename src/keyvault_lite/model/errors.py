"""The one error tree: every refusal the product can utter, with a stable code and no secret.

An error carries no HTTP status: each dialect owns one table from these classes to its own wire form.
`detail` is written by us, for the caller; it never repeats a submitted value.
"""

from typing import ClassVar, Self


class KeyVaultError(Exception):
    """Base of all refusals. `code` is stable API; `audit_id` is the entry that recorded the refusal, if one did."""

    code: ClassVar[str]

    def __init__(self, detail: str = "", *, shown: str | None = None) -> None:
        """`detail` goes to the server's log and to commands; callers are told `shown`, if that is given.

        It is given wherever the detail may name a host, a path or a row, or holds the text of a library.
        """
        super().__init__(detail)
        self.detail = detail
        self.shown = detail if shown is None else shown
        self.audit_id: int | None = None

    def again(self) -> Self:
        """An equal error of its own, for another task: each raise writes to the object that is raised."""
        fresh = type(self).__new__(type(self), *self.args)
        fresh.__dict__.update(vars(self))
        fresh.audit_id = None
        return fresh


class InvalidRequest(KeyVaultError):
    """The request parses, but a field has a wrong type, an unknown name or a value that makes no sense."""

    code = "invalid_request"


class MalformedRequest(InvalidRequest):
    """The body is not the kind of text it claims to be (JSON that does not parse, duplicate names, NaN)."""


class Unsupported(InvalidRequest):
    """This installation lacks what the request needs; the message says how to add it."""


class Unauthenticated(KeyVaultError):
    """No valid credential. One answer for missing, unknown, wrong, expired and deactivated."""

    code = "unauthenticated"


class Forbidden(KeyVaultError):
    """The caller is known, and may not do this."""

    code = "forbidden"


class NotFound(KeyVaultError):
    """No such object, or none this caller may know of."""

    code = "not_found"


class Hidden(NotFound):
    """No object that this caller may know of; whether there is one is not told. A dialect may say forbidden instead."""


class MethodNotAllowed(KeyVaultError):
    """The path exists, the method does not."""

    code = "method_not_allowed"


class Conflict(KeyVaultError):
    """The request contradicts what is there: a taken name, the last ADMIN, an idempotency key used otherwise."""

    code = "conflict"


class TooLarge(KeyVaultError):
    """A documented size limit is exceeded."""

    code = "too_large"


class UnsupportedMediaType(KeyVaultError):
    """The body is not of the media type the operation takes."""

    code = "unsupported_media_type"


class InvalidCiphertext(KeyVaultError):
    """The one answer for every failure to decrypt: damaged, foreign, other context, other version."""

    code = "invalid_ciphertext"


class InvalidState(KeyVaultError):
    """The key or version is in a state that forbids the operation; `detail` names the state."""

    code = "invalid_state"


class LimitExceeded(KeyVaultError):
    """Too many requests or too many objects; try later or with less."""

    code = "limit_exceeded"


class ShareExceeded(LimitExceeded):
    """One caller asks for more than its share. Nothing was done, and nothing was recorded.

    The answer is given after so many seconds, so that asking again and again costs little.
    """

    def __init__(self, detail: str = "", *, after: float = 0.0) -> None:
        super().__init__(detail)
        self.after = after


class IntegrityViolation(KeyVaultError):
    """Stored data does not verify. Nothing unverified is ever served."""

    code = "integrity_violation"


class AuditUnavailable(KeyVaultError):
    """The attempt could not be recorded, hence there is no result (no record, no result)."""

    code = "audit_unavailable"


class Overloaded(AuditUnavailable):
    """Too much is waiting already: nothing was done, and the same request may succeed in a moment."""


class OutcomeUnknown(KeyVaultError):
    """The store failed while committing: the change may or may not have happened. Repeat with the Idempotency-Key."""

    code = "outcome_unknown"


class Sealed(KeyVaultError):
    """The keyring is not open."""

    code = "sealed"


class InternalError(KeyVaultError):
    """A defect of the product. The caller gets only the request id; the log has the place, not the data."""

    code = "internal_error"
