"""The error tree: stable codes, one class each."""

from keyvault_lite.model.errors import (
    AuditUnavailable,
    Hidden,
    InvalidRequest,
    KeyVaultError,
    LimitExceeded,
    MalformedRequest,
    NotFound,
    Overloaded,
    ShareExceeded,
    Unsupported,
)


def tree(root: type[KeyVaultError] = KeyVaultError) -> set[type[KeyVaultError]]:
    return {root}.union(*(tree(child) for child in root.__subclasses__()))


def test_codes_are_unique_but_for_cases_of_others() -> None:
    # Dialects' own cases of these errors share their codes.
    classes = {cls for cls in tree() if cls.__module__ == KeyVaultError.__module__} - {
        KeyVaultError,
        Hidden,
        MalformedRequest,
        Overloaded,
        ShareExceeded,
        Unsupported,
    }
    assert len({cls.code for cls in classes}) == len(classes)
    assert MalformedRequest.code == InvalidRequest.code == "invalid_request"
    assert Overloaded.code == AuditUnavailable.code  # nothing was recorded, nothing was done
    assert ShareExceeded.code == LimitExceeded.code
    assert Hidden.code == NotFound.code  # one answer, so that the caller cannot tell


def test_an_error_carries_its_detail_and_later_its_entry() -> None:
    error = InvalidRequest("no such thing")
    assert (str(error), error.detail, error.audit_id) == ("no such thing", "no such thing", None)
    assert InvalidRequest().detail == ""
