"""`awskms:` — a symmetric key of AWS KMS, or of another KeyVault Lite by its AWS dialect."""

import hashlib
import hmac
import json
import os
import re
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from keyvault_lite.crypto.root import RootError
from keyvault_lite.model.encoding import encode_base64
from keyvault_lite.roots.root import RootRefused
from keyvault_lite.roots.services.web import Address, text_of
from keyvault_lite.roots.services.wrapping import WrappingRoot, bytes_of

_ARN: Final = re.compile(r"arn:aws[a-z-]*:kms:([a-z0-9-]+):[0-9]{12}:key/[A-Za-z0-9-]+")
_CONTEXT: Final = "kvl-slot"
"""The name of the one pair in the encryption context."""


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What requests are signed with."""

    access_key: str
    secret_key: str
    session_token: str | None


class AwsKmsRoot(WrappingRoot):
    """A key by its ARN. Its policy has to allow kms:Decrypt, for new slots kms:Encrypt too."""

    kind: ClassVar = "awskms"

    def __init__(self, arn: str, *, endpoint: str | None = None, ca_file: str | None = None) -> None:
        """Raises RootError."""
        match = _ARN.fullmatch(arn)
        if match is None:
            raise RootError("An awskms: root is the ARN of a key: awskms:arn:aws:kms:REGION:ACCOUNT:key/ID.")
        self._region = match[1]
        suffix = ".cn" if self._region.startswith("cn-") else ""
        self._address = Address.parse(endpoint or f"https://kms.{self._region}.amazonaws.com{suffix}", ca_file=ca_file)
        super().__init__(arn)

    @property
    def name(self) -> str:
        """See Root."""
        return f"awskms:{self._key}"

    def wrap(self, raw: bytes, associated: bytes) -> str:
        """See WrappingRoot."""
        return text_of(self._ask("Encrypt", Plaintext=encode_base64(raw), associated=associated), "CiphertextBlob")

    def unwrap(self, wrapped: str, associated: bytes) -> bytes:
        """See WrappingRoot."""
        return bytes_of(text_of(self._ask("Decrypt", CiphertextBlob=wrapped, associated=associated), "Plaintext"))

    def _ask(self, operation: str, *, associated: bytes, **fields: str) -> dict[str, Any]:
        body = {**fields, "KeyId": self._key, "EncryptionContext": {_CONTEXT: encode_base64(associated)}}
        raw = json.dumps(body).encode()
        target = f"TrentService.{operation}"
        headers = sign(
            credentials(), region=self._region, host=self._address.host, target=target, body=raw, now=time.gmtime()
        )
        answer = self._address.post("/", raw, headers)
        if text_of(answer, "KeyId") != self._key:
            raise RootRefused("AWS KMS has used another key than the one that the root names.")
        return answer


def credentials() -> Credentials:
    """From the environment, else whatever boto3 finds, if it is installed. Raises RootRefused."""
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if access and secret:
        return Credentials(access, secret, os.environ.get("AWS_SESSION_TOKEN"))
    try:
        import boto3
    except ImportError:
        raise RootRefused(
            "There are no credentials for AWS: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or install boto3 "
            "(the extra `aws`) for the other sources."
        ) from None
    found = boto3.Session().get_credentials()
    if found is None:
        raise RootRefused("There are no credentials for AWS where boto3 looks for them.")
    frozen = found.get_frozen_credentials()
    return Credentials(frozen.access_key, frozen.secret_key, frozen.token)


def sign(by: Credentials, *, region: str, host: str, target: str, body: bytes, now: time.struct_time) -> dict[str, str]:
    """The headers of a POST to `/` (Signature Version 4, AWS General Reference)."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", now)
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "host": host,
        "x-amz-date": moment,
        **({"x-amz-security-token": by.session_token} if by.session_token else {}),
        "x-amz-target": target,
    }
    names = ";".join(headers)
    lines = "".join(f"{name}:{text}\n" for name, text in headers.items())
    canonical = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    scope = f"{moment[:8]}/{region}/kms/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{by.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return {
        **headers,
        "authorization": f"AWS4-HMAC-SHA256 Credential={by.access_key}/{scope}, SignedHeaders={names}, "
        f"Signature={signature}",
    }
