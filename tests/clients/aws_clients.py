"""boto3 against a served vault."""

from collections.abc import Callable
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.clients.conftest import Served

REGION = "eu-central-1"
ACCOUNT = "000000000000"


def issue(served: Served, service: str) -> dict[str, str]:
    """Fresh credentials of a service."""
    issued = served.ask("POST", f"/services/{service}/aws-credentials")
    assert issued.status == 201, issued
    body: dict[str, str] = issued.body
    return body


def client(served: Served, credentials: dict[str, str], region: str = REGION) -> Any:  # noqa: ANN401  (made at run time)
    return boto3.client(
        "kms",
        endpoint_url=served.url,
        region_name=region,
        aws_access_key_id=credentials["access_key_id"],
        aws_secret_access_key=credentials["secret_access_key"],
        config=Config(retries={"max_attempts": 1, "mode": "standard"}),
    )


def code(call: Callable[..., Any], **members: object) -> str:
    """The name of the error that a call raises."""
    return error(call, **members)[0]


def error(call: Callable[..., Any], **members: object) -> tuple[str, str, int]:
    """Name, message and status of the error that a call raises."""
    try:
        answer = call(**members)
    except ClientError as refused:
        body = refused.response
        return body["Error"]["Code"], body["Error"]["Message"], body["ResponseMetadata"]["HTTPStatusCode"]
    raise AssertionError(f"allowed: {answer!r}")


def user(name: str) -> str:
    """The ARN of a service."""
    return f"arn:aws:iam::{ACCOUNT}:user/{name}"
