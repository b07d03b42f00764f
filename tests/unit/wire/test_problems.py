from collections.abc import Iterator

import msgspec

from keyvault_lite.model.errors import InvalidState, KeyVaultError, NotFound
from keyvault_lite.wire.problems import STATUS, problem

# api.md, section 1: codes and their statuses.
CODES = {
    "invalid_request": {400, 422},
    "unauthenticated": {401},
    "forbidden": {403},
    "not_found": {404},
    "method_not_allowed": {405},
    "conflict": {409},
    "too_large": {413},
    "unsupported_media_type": {415},
    "invalid_ciphertext": {400},
    "invalid_state": {409},
    "limit_exceeded": {429},
    "integrity_violation": {503},
    "audit_unavailable": {503},
    "outcome_unknown": {503},
    "sealed": {503},
    "internal_error": {500},
}


def _tree(root: type[KeyVaultError]) -> Iterator[type[KeyVaultError]]:
    for child in root.__subclasses__():
        if child.__module__.startswith("keyvault_lite."):
            yield child
            yield from _tree(child)


def test_every_error_has_a_row() -> None:
    """Its own if it has a code of its own, else (as the cases that a layer tells apart) that of its kind."""
    # A dialect's own errors never come this way: it asked, it is answered.
    tree = {error for error in _tree(KeyVaultError) if ".dialects." not in error.__module__}
    assert {error for error in tree if "code" in vars(error)} <= STATUS.keys() <= tree
    assert [error for error in tree if not STATUS.keys() & set(error.__mro__)] == []


def test_codes_have_their_statuses() -> None:
    told: dict[str, set[int]] = {}
    for error, (status, _) in STATUS.items():
        told.setdefault(error.code, set()).add(status)
    assert told == CODES


def test_members() -> None:
    written = msgspec.to_builtins(problem(InvalidState("the key is DISABLED"), "ab"))
    assert written == {
        "type": "urn:keyvault-lite:problem:invalid_state",
        "title": "The state of the key forbids this",
        "status": 409,
        "detail": "the key is DISABLED",
        "code": "invalid_state",
        "request_id": "ab",
    }
    assert problem(NotFound(), "").detail


def test_an_unknown_class_is_a_defect() -> None:
    class Stranger(KeyVaultError):
        code = "stranger"

    assert problem(Stranger("secret"), "").status == 500
    assert "secret" not in problem(Stranger("secret"), "").detail
