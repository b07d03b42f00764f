"""Errors of the AWS dialect: every class has a row, every name is one that clients know."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import botocore.loaders
import pytest

from keyvault_lite.dialects.aws import errors
from keyvault_lite.dialects.aws.model import AccountRegion
from keyvault_lite.model.errors import Hidden, InternalError, KeyVaultError, NotFound
from keyvault_lite.model.replies import Answer
from keyvault_lite.wire.aws.application import AwsApi
from keyvault_lite.wire.aws.errors import ERRORS, write_error
from tests.support.aws_requests import exchange

PLACE = AccountRegion("000000000000", "eu-central-1")
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
        if child.__module__ in {KeyVaultError.__module__, errors.__name__}:
            yield child
            yield from tree(child)


def test_every_error_has_a_row() -> None:
    assert set(ERRORS) == set(tree(KeyVaultError))


def test_every_name_is_known() -> None:
    model = botocore.loaders.Loader().load_service_model("kms", "service-2")
    known = {name for name, shape in model["shapes"].items() if shape.get("exception")}
    assert {row.name for row in ERRORS.values()} <= known | OF_EVERY_SERVICE


@dataclass
class Refusing:
    """An engine that refuses everything so."""

    error: KeyVaultError

    async def perform(self, *_: object) -> Answer:
        raise self.error


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (errors.AliasNotFound(), "Alias arn:aws:kms::000000000000:alias/moves is not found."),
        (errors.KeyNotFound(), "Key 'arn:aws:kms::000000000000:key/mrk-0' does not exist"),
    ],
)
def test_what_is_said_to_be_missing_is_what_is(error: KeyVaultError, named: str) -> None:
    engine: Any = Refusing(error)
    aws = AwsApi(engine)
    body = b'{"AliasName":"alias/moves","TargetKeyId":"mrk-0"}'
    headers = [(b"x-amz-target", b"TrentService.UpdateAlias"), (b"content-type", b"application/x-amz-json-1.1")]
    reply = asyncio.run(aws.answer(exchange(headers, body=body)))
    assert json.loads(reply.body) == {"__type": "NotFoundException", "message": named}


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


@pytest.mark.parametrize("named", ["alias/a", "arn:aws:kms:eu-central-1:000000000000:alias/a"])
def test_an_alias_where_only_an_id_is_one(named: str) -> None:
    _, body = write_error(errors.InvalidKeyId(), "GetKeyRotationStatus", PLACE, named)
    assert body == {"__type": "NotFoundException", "message": f"Invalid keyId '{named}'"}


def test_a_replica_that_is_not_there_says_so_itself() -> None:
    _, body = write_error(errors.ReplicaNotFound("there is none"), "UpdatePrimaryRegion", PLACE, "mrk-0")
    assert body == {"__type": "NotFoundException", "message": "there is none"}


def test_only_a_genuine_signature_is_told_that_its_time_is_over() -> None:
    _, late = write_error(errors.SignatureExpired(), "ListKeys", PLACE, "")
    _, false = write_error(errors.SignatureMismatch(), "ListKeys", PLACE, "")
    assert late["__type"] == false["__type"] == "InvalidSignatureException"
    assert late["message"].startswith("Signature expired")
    assert "expired" not in false["message"]


def test_what_is_hidden_is_denied() -> None:
    status, body = write_error(Hidden("no such key"), "Encrypt", PLACE, "nonsense")
    assert (status, body["__type"]) == (400, "AccessDeniedException")
    assert "kms:Encrypt" in body["message"]
    assert "nonsense" not in body["message"]
