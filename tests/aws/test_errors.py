"""Errors of the AWS dialect: every class has a row, every name is one that clients know."""

from collections.abc import Iterator

import botocore.loaders
import pytest

from keyvault_lite.model import aws_errors
from keyvault_lite.model.aws import Place
from keyvault_lite.model.errors import Hidden, InternalError, KeyVaultError, NotFound
from keyvault_lite.wire.aws.errors import ERRORS, write_error

PLACE = Place("000000000000", "eu-central-1")
OF_EVERY_SERVICE = {
    # Not in the service's own model, known to all clients.
    "AccessDeniedException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "NotAuthorizedException",
    "RequestEntityTooLargeException",
    "SerializationException",
    "ThrottlingException",
    "UnknownOperationException",
    "UnrecognizedClientException",
    "ValidationException",
}


def tree(root: type[KeyVaultError]) -> Iterator[type[KeyVaultError]]:
    for child in root.__subclasses__():
        if child.__module__ in {KeyVaultError.__module__, aws_errors.__name__}:
            yield child
            yield from tree(child)


def test_every_error_has_a_row() -> None:
    assert set(ERRORS) == set(tree(KeyVaultError))


def test_every_name_is_known() -> None:
    model = botocore.loaders.Loader().load_service_model("kms", "service-2")
    known = {name for name, shape in model["shapes"].items() if shape.get("exception")}
    assert {row.name for row in ERRORS.values()} <= known | OF_EVERY_SERVICE


def test_an_unknown_class_is_a_defect_of_ours() -> None:
    class Stranger(KeyVaultError):
        code = "stranger"

    assert write_error(Stranger(), "Encrypt", PLACE, "")[0] == 500
    assert write_error(InternalError("x"), "Encrypt", PLACE, "")[1]["__type"] == "KMSInternalException"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("", "no such key"),
        ("nonsense", "Invalid keyId 'nonsense'"),
        ("alias/a", "Alias arn:aws:kms:eu-central-1:000000000000:alias/a is not found."),
        (
            "arn:aws:kms:eu-central-1:000000000000:alias/a",
            "Alias arn:aws:kms:eu-central-1:000000000000:alias/a is not found.",
        ),
        ("arn:aws:kms:us-east-1:000000000000:key/k", "Invalid arn us-east-1"),
        ("mrk-0", "Key 'arn:aws:kms:eu-central-1:000000000000:key/mrk-0' does not exist"),
    ],
)
def test_what_is_not_found_is_named(named: str, message: str) -> None:
    assert write_error(NotFound("no such key"), "Encrypt", PLACE, named) == (
        400,
        {"__type": "NotFoundException", "message": message},
    )


def test_only_a_genuine_signature_is_told_that_its_time_is_over() -> None:
    _, late = write_error(aws_errors.SignatureExpired(), "ListKeys", PLACE, "")
    _, false = write_error(aws_errors.SignatureMismatch(), "ListKeys", PLACE, "")
    assert late["__type"] == false["__type"] == "InvalidSignatureException"
    assert late["message"].startswith("Signature expired")
    assert "expired" not in false["message"]


def test_what_is_hidden_is_denied() -> None:
    status, body = write_error(Hidden("no such key"), "Encrypt", PLACE, "nonsense")
    assert (status, body["__type"]) == (400, "AccessDeniedException")
    assert "kms:Encrypt" in body["message"]
    assert "nonsense" not in body["message"]
