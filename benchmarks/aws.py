"""The AWS dialect, signature verified and recorded, beside moto_server, the usual emulator, in the same run.

The vault verifies the signature of each request and has its entry on disk before it answers. moto does neither; it is
here because it is what a developer would run instead. Its row needs moto installed: `pip install 'moto[server]'`.
"""

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Final, Self
from urllib.request import Request, urlopen

from benchmarks.servers import CONTEXT, PLAINTEXT, Row, Server, Vault

REGION: Final = "eu-central-1"
TARGET: Final = "TrentService."
_TYPE: Final = "application/x-amz-json-1.1"
_HOST: Final = "127.0.0.1"
_AHEAD: Final = timedelta(minutes=4)
"""A signature is good for five minutes either way: made ahead of time it lasts for a run of nine."""


def signed(operation: str, body: str, *, access_key: str, secret: str) -> str:
    """A whole HTTP request with its signature (AWS Signature Version 4)."""
    time = (datetime.now(UTC) + _AHEAD).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{time[:8]}/{REGION}/kms/aws4_request"
    fields = {"content-type": _TYPE, "host": _HOST, "x-amz-date": time, "x-amz-target": TARGET + operation}
    names = ";".join(fields)
    headers = "".join(f"{name}:{value}\n" for name, value in fields.items())
    canonical = "\n".join(("POST", "/", "", headers, names, hashlib.sha256(body.encode()).hexdigest()))
    key = b"AWS4" + secret.encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    authorization = f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    lines = [f"{name}: {value}" for name, value in fields.items()]
    sent = ("POST / HTTP/1.1", *lines, f"authorization: {authorization}", f"content-length: {len(body)}", "", body)
    return "\r\n".join(sent)


def _body(key: str) -> str:
    return json.dumps({"KeyId": key, "Plaintext": PLAINTEXT, "EncryptionContext": CONTEXT}, separators=(",", ":"))


class Moto(Server):
    """moto_server: an emulator for tests."""

    key = ""

    def start(self) -> Self:
        """Start it and make a key."""
        self._spawn("-m", "moto.server", "-H", _HOST, "-p", str(self.port))
        request = Request(
            f"http://{_HOST}:{self.port}/",
            data=b"{}",
            headers={
                "Content-Type": _TYPE,
                "X-Amz-Target": f"{TARGET}CreateKey",
                "Authorization": f"AWS4-HMAC-SHA256 Credential=x/20260101/{REGION}/kms/aws4_request",
            },
        )
        with urlopen(request, timeout=30) as answer:  # noqa: S310
            self.key = json.load(answer)["KeyMetadata"]["KeyId"]
        return self


def encrypt(vault: Vault) -> str:
    """Encrypt, as a SERVICE with credentials of its own."""
    issued = vault.call("/services/bench/aws-credentials", {}, vault.admin)
    key = vault.call("/keys", {"name": "bench-aws", "type": "AES", "purpose": "ENCRYPT"}, vault.admin)["id"]
    access_key, secret = issued["access_key_id"], issued["secret_access_key"]
    return signed("Encrypt", _body(key), access_key=access_key, secret=secret)


def _moto_encrypt(moto: Moto) -> str:
    return signed("Encrypt", _body(moto.key), access_key="x", secret="x")  # noqa: S106


ROWS: Final = (
    Row("aws-encrypt", "AWS dialect: encrypt, signature verified", Vault, encrypt),
    *((Row("moto-encrypt", "(moto_server: encrypt)", Moto, _moto_encrypt),) if find_spec("moto") else ()),
)
