"""Roots that are services: what is sent, what is believed of an answer, and what is never repeated."""

import base64
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from keyvault_lite.crypto.root import RootError
from keyvault_lite.crypto.slot_parameters import SlotParameters, SlotPlace
from keyvault_lite.roots.root import RootRefused, RootUnavailable, Wanted
from keyvault_lite.roots.services import aws, gcp, web
from keyvault_lite.roots.services.gcp import GcpKmsRoot, crc32c
from keyvault_lite.roots.services.vault import VaultRoot

PLACE = SlotPlace(b"i" * 16, "00000000-0000-4000-8000-000000000001")
OTHER = SlotPlace(b"j" * 16, PLACE.slot_id)
KEY = "projects/p/locations/europe-west3/keyRings/r/cryptoKeys/kvl"
Answer = Callable[[str, Any, Any], tuple[int, object]]


@contextmanager
def service(answer: Answer) -> Iterator[str]:
    """A service that answers as it is told: from path, body and headers to status and body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, said = answer(self.path, json.loads(body), self.headers)
            raw = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            if 300 <= status < 400:
                self.send_header("Location", "http://127.0.0.1:9/")
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


class CloudKms:
    """As Google documents encrypt and decrypt, with the data it has to authenticate kept beside the plaintext."""

    def __init__(self, **changed: object) -> None:
        self.changed = changed
        self.headers: list[str] = []

    def __call__(self, path: str, body: Any, headers: Any) -> tuple[int, object]:  # noqa: ANN401
        self.headers.append(headers["Authorization"])
        name, _, operation = path.removeprefix("/v1/").partition(":")
        data = body["additionalAuthenticatedData"]
        if operation == "encrypt":
            assert body["plaintextCrc32c"] == str(crc32c(base64.b64decode(body["plaintext"])))
            sealed = json.dumps([body["plaintext"], data]).encode()
            answer: dict[str, object] = {
                "name": f"{name}/cryptoKeyVersions/1",
                "ciphertext": b64(sealed),
                "ciphertextCrc32c": str(crc32c(sealed)),
                "verifiedPlaintextCrc32c": True,
            }
            return 200, answer | self.changed
        plaintext, bound = json.loads(base64.b64decode(body["ciphertext"]))
        if bound != data:
            return 400, {"error": {"message": "canary"}}
        answer = {"plaintext": plaintext, "plaintextCrc32c": str(crc32c(base64.b64decode(plaintext)))}
        return 200, answer | self.changed


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> rsa.RSAPrivateKey:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    file = tmp_path / "account.json"
    file.write_text(json.dumps({"client_email": "kvl@p", "private_key_id": "7", "private_key": pem}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    return key


def test_a_key_of_google_opens_its_slot(account: rsa.RSAPrivateKey) -> None:
    kms = CloudKms()
    with service(kms) as endpoint:
        root = GcpKmsRoot(KEY, endpoint=endpoint)
        made = root.enroll(PLACE, os.urandom)
        assert root.unlock_one(Wanted(made.parameters, PLACE)).reveal() == made.key.reveal()
        with pytest.raises(RootRefused) as caught:
            root.unlock_one(Wanted(made.parameters, OTHER))
        assert "canary" not in caught.value.detail
        with pytest.raises(RootRefused, match="another key"):
            GcpKmsRoot(KEY + "2", endpoint=endpoint).unlock_one(Wanted(made.parameters, PLACE))
    head, claims, signature = kms.headers[0].removeprefix("Bearer ").split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    account.public_key().verify(raw, f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256())
    told = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert told["aud"] == "https://cloudkms.googleapis.com/"
    assert 0 < told["exp"] - time.time() <= 3600


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    "changed",
    [
        {"name": KEY + "2/cryptoKeyVersions/1"},
        {"ciphertextCrc32c": "1"},
        {"verifiedPlaintextCrc32c": False},
        {"ciphertext": "****"},
        {"ciphertext": 7},
        {"plaintextCrc32c": "1"},
        {"plaintext": "AAAA", "plaintextCrc32c": str(crc32c(bytes(3)))},
    ],
)
def test_an_answer_that_does_not_fit_makes_no_slot(changed: dict[str, object]) -> None:
    with service(CloudKms(**changed)) as endpoint, pytest.raises(RootError):
        GcpKmsRoot(KEY, endpoint=endpoint).enroll(PLACE, os.urandom)


def test_the_checksum_is_castagnoli() -> None:
    """RFC 3720, appendix B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_service_that_is_busy_may_be_asked_again(status: int, tmp_path: Path) -> None:
    root_of = vault_root(tmp_path)
    with service(lambda *_: (status, {"errors": ["canary"]})) as url, pytest.raises(RootUnavailable) as caught:
        root_of(url).enroll(PLACE, os.urandom)
    assert "canary" not in caught.value.detail


@pytest.mark.parametrize("status", [302, 307, 400, 401, 403, 404])
def test_a_service_that_refuses_is_not(status: int, tmp_path: Path) -> None:
    root_of = vault_root(tmp_path)
    with service(lambda *_: (status, {"errors": ["canary"]})) as url, pytest.raises(RootRefused) as caught:
        root_of(url).enroll(PLACE, os.urandom)
    assert "canary" not in caught.value.detail


@pytest.mark.parametrize("said", [b"", b"no json", b"[]", b"{}", b'{"data":{}}', b"[" * 70_000, b"x" * 70_000])
def test_an_answer_without_sense_is_an_error(said: bytes, tmp_path: Path) -> None:
    root_of = vault_root(tmp_path)
    with service(lambda *_: (200, said)) as url, pytest.raises(RootError):
        root_of(url).enroll(PLACE, os.urandom)


def vault_root(folder: Path) -> Callable[[str], VaultRoot]:
    token = folder / "token"
    token.write_text("canary-token\n")
    token.chmod(0o600)
    return lambda url: VaultRoot(f"{url}/transit/keys/kvl", token_file=str(token))


def test_a_service_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "TIMEOUT_SECONDS", 0.3)
    over = threading.Event()
    root_of = vault_root(tmp_path)

    def hang(*_: object) -> tuple[int, object]:
        over.wait(10)
        return 200, {}

    try:
        with service(hang) as url, pytest.raises(RootUnavailable):
            root_of(url).enroll(PLACE, os.urandom)
    finally:
        over.set()


@pytest.mark.parametrize(
    "url", ["http://vault.example:8200/transit/keys/k", "ftp://127.0.0.1/transit/keys/k", "https://u@h/transit/keys/k"]
)
def test_an_address_that_would_show_the_key_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(RootError):
        VaultRoot(url, token_file=str(tmp_path / "token"))


@pytest.mark.parametrize("session", [None, "session-token"])
def test_the_signature_is_the_one_that_botocore_makes(session: str | None) -> None:
    body = b'{"KeyId":"k"}'
    made = aws.sign(
        aws.Credentials("AKIDEXAMPLE", "secret", session),
        region="eu-west-1",
        host="kms.eu-west-1.amazonaws.com",
        target="TrentService.Decrypt",
        body=body,
        now=time.gmtime(1_700_000_000),
    )
    sent = {name: made[name] for name in ("content-type", "x-amz-date", "x-amz-target")}
    request = AWSRequest("POST", "https://kms.eu-west-1.amazonaws.com/", data=body, headers=sent)
    request.context["timestamp"] = made["x-amz-date"]
    by = SigV4Auth(BotoCredentials("AKIDEXAMPLE", "secret", session), "kms", "eu-west-1")
    if session:
        request.headers["x-amz-security-token"] = session
    canonical = by.canonical_request(request)
    signature = by.signature(by.string_to_sign(request, canonical), request)
    assert made["authorization"].endswith(f"Signature={signature}")


@pytest.mark.parametrize(
    "arn",
    [
        "",
        "alias/kvl",
        "arn:aws:kms:eu-west-1:111122223333:alias/kvl",
        "arn:aws:s3:::bucket",
        "arn:aws:kms:evil.example/:111122223333:key/k",
    ],
)
def test_a_root_is_the_arn_of_a_key(arn: str) -> None:
    with pytest.raises(RootError, match="ARN"):
        aws.AwsKmsRoot(arn)


def test_without_credentials_it_says_where_they_are_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [one for one in os.environ if one.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with pytest.raises(RootRefused, match="AWS_ACCESS_KEY_ID"):
        aws.credentials()
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent"))
    with pytest.raises(RootRefused, match="service account"):
        gcp._bearer()


def test_a_slot_of_another_key_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    root = vault_root(tmp_path)("https://127.0.0.1:9")
    planted = SlotParameters("vault", {"key": "https://evil.example/transit/keys/kvl", "wrapped": "vault:v1:AAAA"})
    with pytest.raises(RootRefused, match="another key"):
        root.unlock_one(Wanted(planted, PLACE))
