"""Signature Version 4: what botocore signs is accepted, and nothing else; the time, the scope, what must be signed."""

import hashlib
import hmac
import itertools
import os
from typing import Any
from urllib.parse import quote

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyvault_lite.crypto import access_keys
from keyvault_lite.crypto.access_keys import REMEMBERED, AccessKeys, new_access_key
from keyvault_lite.dialects.aws.credentials import AwsCredential, SignatureFault
from keyvault_lite.model.encoding import pae
from keyvault_lite.model.errors import InvalidCiphertext
from keyvault_lite.model.names import ServiceId, TokenId
from keyvault_lite.wire.aws import AwsApi
from keyvault_lite.wire.aws.sigv4 import read_credential
from tests.support.aws_requests import exchange
from tests.support.fake_engine import FakeEngine

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A loaded machine is no finding."""
SERVICE = ServiceId("0f8fad5b-d9cb-469f-a165-70867728950e")
KEYS = AccessKeys(os.urandom(32), os.urandom(16), os.urandom)
KEY_ID, SECRET = new_access_key()
SEALED = KEYS.seal(KEY_ID, SERVICE, SECRET)
TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
NAMES = st.from_regex(r"x-(custom|amz)-[a-z0-9-]{1,8}", fullmatch=True).filter(
    lambda name: name not in {"x-amz-date", "x-amz-security-token", "x-amz-content-sha256"}
)
EXTRA = st.dictionaries(NAMES, st.lists(TEXT, min_size=1, max_size=3).map(" ".join), max_size=3)
REGIONS = st.sampled_from(["eu-central-1", "us-gov-west-1", "xx-any-9"])


def headers_of(request: AWSRequest) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in request.headers.items()]


def signed(
    body: bytes = b"{}",
    *,
    region: str = "eu-central-1",
    service: str = "kms",
    extra: dict[str, str] | None = None,
    query: dict[str, str] | None = None,
    presign: int | None = None,
) -> AWSRequest:
    text = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in (query or {}).items())
    request = AWSRequest(
        method="POST",
        url="http://127.0.0.1:8000/" + (f"?{text}" if text else ""),
        data=body,
        headers={"host": "127.0.0.1:8000", "x-amz-target": "TrentService.ListKeys", **(extra or {})},
    )
    key = Credentials(KEY_ID, SECRET)
    signer: Any = (
        SigV4Auth(key, service, region) if presign is None else SigV4QueryAuth(key, service, region, expires=presign)
    )
    signer.add_auth(request)
    return request


def read(request: AWSRequest, body: bytes = b"{}") -> AwsCredential:
    query = request.url.partition("?")[2].encode()
    return read_credential(exchange(headers_of(request), query=query), body)


def holds(credential: AwsCredential) -> bool:
    return credential.fault is None and KEYS.holds(credential.mac, SERVICE, SEALED)


@CALM
@given(
    body=st.binary(max_size=200),
    region=REGIONS,
    extra=EXTRA,
    query=st.dictionaries(TEXT.filter(bool), TEXT, max_size=3),
)
def test_what_botocore_signs_holds(body: bytes, region: str, extra: dict[str, str], query: dict[str, str]) -> None:
    credential = read(signed(body, region=region, extra=extra, query=query), body)
    assert holds(credential)
    assert (credential.access_key_id, credential.region, credential.service) == (KEY_ID, region, "kms")


@CALM
@given(region=REGIONS, extra=EXTRA, seconds=st.integers(1, 604800))
def test_what_botocore_presigns_holds(region: str, extra: dict[str, str], seconds: int) -> None:
    credential = read(signed(b"", region=region, extra=extra, presign=seconds), b"")
    assert holds(credential)
    assert credential.lifetime == seconds


@CALM
@given(data=st.data())
def test_nothing_that_was_changed_holds(data: st.DataObject) -> None:
    body = data.draw(st.binary(min_size=1, max_size=50))
    request = signed(body, extra={"x-custom-a": "one two"})
    headers = headers_of(request)
    part = data.draw(st.sampled_from(["body", "header", "query", "method", "path"]))
    if part == "body":
        place = data.draw(st.integers(0, len(body) - 1))
        changed = bytearray(body)
        changed[place] ^= data.draw(st.integers(1, 255))
        credential = read_credential(exchange(headers), bytes(changed))
    elif part == "header":
        number = data.draw(st.integers(0, len(headers) - 1))
        name, value = headers[number]
        place = data.draw(st.integers(0, len(value) - 1))
        other = data.draw(st.integers(33, 126).filter(lambda one: one != value[place] and not chr(one).isspace()))
        headers[number] = (name, value[:place] + bytes([other]) + value[place + 1 :])
        credential = read_credential(exchange(headers), body)
        if name == b"authorization" and credential.access_key_id != KEY_ID:
            return  # another access key: judged by its own secret
    elif part == "query":
        credential = read_credential(exchange(headers, query=b"a=b"), body)
    elif part == "method":
        credential = read_credential(exchange(headers, method="PUT"), body)
    else:
        credential = read_credential(exchange(headers, path=b"/x"), body)
    assert not holds(credential)


def fault(headers: list[tuple[bytes, bytes]], *, query: bytes = b"", body: bytes = b"{}") -> SignatureFault | None:
    return read_credential(exchange(headers, query=query), body).fault


def without(name: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> list[tuple[bytes, bytes]]:
    return [pair for pair in headers or headers_of(signed()) if pair[0] != name]


def test_what_must_be_there() -> None:
    assert fault([]) is SignatureFault.MISSING
    assert fault([(b"authorization", b"Bearer kvl_x")]) is SignatureFault.INCOMPLETE
    assert fault([(b"authorization", b"AWS4-HMAC-SHA256 nonsense")]) is SignatureFault.INCOMPLETE
    assert fault([(b"authorization", b"AWS4-HMAC-SHA256 " + b"x" * 5000)]) is SignatureFault.INCOMPLETE
    for name in (b"x-amz-date", b"host", b"x-amz-target"):
        assert fault(without(name)) is SignatureFault.INCOMPLETE
    good = headers_of(signed())
    payload = hashlib.sha256(b"{}").hexdigest().encode()
    for name, value in (
        (b"x-amz-target", b"TrentService.CreateKey"),
        (b"x-amz-date", b"20260101T000000Z"),
        (b"x-amz-content-sha256", payload),
        (b"x-amz-security-token", b""),
    ):
        unsigned = [(one, text.replace(b";" + name, b"")) for one, text in [*without(name), (name, value)]]
        assert fault(unsigned) is SignatureFault.INCOMPLETE, name
    assert fault([*good, (b"x-amz-target", b"TrentService.CreateKey")]) is SignatureFault.INCOMPLETE
    assert fault([*good, (b"host", b"other")]) is SignatureFault.INCOMPLETE
    assert fault([*good, (b"user-agent", b"unsigned and free")]) is None


def test_what_a_proxy_adds_is_passed_over() -> None:
    for name in (b"x-amz-cf-id", b"x-amzn-trace-id", b"x-amz-more"):
        added = [*headers_of(signed()), (name, b"unsigned")]
        assert holds(read_credential(exchange(added), b"{}"))
        assert holds(read_credential(exchange([*added, (name, b"twice")]), b"{}"))


def authorized(*parts: str, between: str = ", ", start: str = "AWS4-HMAC-SHA256 ") -> list[tuple[bytes, bytes]]:
    """A signed request whose parts of the signature stand in another order, or not all."""
    given = dict(headers_of(signed()))
    named = {
        one.partition(b"=")[0].decode(): one.decode() for one in given[b"authorization"].split(b" ", 1)[1].split(b", ")
    }
    text = start + between.join(named.get(part, part) for part in parts)
    return [*without(b"authorization", list(given.items())), (b"authorization", text.encode())]


def test_the_parts_of_a_signature_come_in_any_order() -> None:
    for parts in itertools.permutations(("Credential", "SignedHeaders", "Signature")):
        for between in (", ", ",", " , "):
            assert holds(read_credential(exchange(authorized(*parts, between=between)), b"{}"))


@pytest.mark.parametrize(
    "parts",
    [
        ("Credential", "SignedHeaders"),
        ("Credential", "SignedHeaders", "Signature", "Signature"),
        ("Credential", "SignedHeaders", "Signature", "More=1"),
        ("Credential", "Credential", "Signature"),
        ("Credential", "SignedHeaders", "signature=" + "0" * 64),
        ("Credential", "SignedHeaders", "Signature=" + "0" * 63),
        ("Credential", "SignedHeaders", "Signature=" + "A" * 64),
        ("Credential", "SignedHeaders", "Signature", ""),
    ],
)
def test_parts_that_are_not_each_there_once(parts: tuple[str, ...]) -> None:
    assert fault(authorized(*parts)) is SignatureFault.INCOMPLETE


def test_the_algorithm_is_a_word() -> None:
    parts = ("Credential", "SignedHeaders", "Signature")
    assert fault(authorized(*parts, start="AWS4-HMAC-SHA256")) is SignatureFault.INCOMPLETE
    assert fault(authorized(*parts, start="AWS4-HMAC-SHA256-PAYLOAD ")) is SignatureFault.INCOMPLETE


def by_date(date: str, time: str, *, names: bytes = b"date;host;x-amz-target") -> list[tuple[bytes, bytes]]:
    """A request signed at a time that only its Date header has."""
    headers = [(b"date", date.encode()), (b"host", b"h"), (b"x-amz-target", b"TrentService.ListKeys")]
    scope = f"{time[:8]}/eu-central-1/kms/aws4_request"
    shown = b"".join(b"%b:%b\n" % pair for pair in headers if pair[0] in names.split(b";"))
    payload = hashlib.sha256(b"{}").hexdigest().encode()
    canonical = hashlib.sha256(b"\n".join((b"POST", b"/", b"", shown, names, payload))).hexdigest()
    key = b"AWS4" + SECRET.encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    to_sign = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{canonical}".encode()
    signature = hmac.digest(key, to_sign, "sha256").hex()
    value = f"AWS4-HMAC-SHA256 Credential={KEY_ID}/{scope}, SignedHeaders={names.decode()}, Signature={signature}"
    return [*headers, (b"authorization", value.encode())]


def test_a_date_header_is_the_time_if_there_is_no_other() -> None:
    time, http = "20260203T040506Z", "Tue, 03 Feb 2026 04:05:06 GMT"
    for date in (http, time):
        credential = read_credential(exchange(by_date(date, time)), b"{}")
        assert holds(credential)
        assert credential.signed_at == 1_770_091_506_000_000
    assert fault(by_date(http, time, names=b"host;x-amz-target")) is SignatureFault.INCOMPLETE
    assert fault([*by_date(http, time), (b"date", b"again")]) is SignatureFault.INCOMPLETE
    assert fault([*by_date(http, time), (b"x-amz-date", time.encode())]) is SignatureFault.INCOMPLETE
    assert fault(by_date(http, "20260204T040506Z")) is SignatureFault.INCOMPLETE
    for wrong in (
        "Tue, 3 Feb 2026 04:05:06 GMT",
        "Tue, 03 Feb 2026 04:05:06 +0000",
        "Tue, 33 Feb 2026 04:05:06 GMT",
        "",
    ):
        assert fault(by_date(wrong, time)) is SignatureFault.INCOMPLETE


def altered(find: bytes, other: bytes) -> list[tuple[bytes, bytes]]:
    return [(name, value.replace(find, other)) for name, value in headers_of(signed())]


@pytest.mark.parametrize(
    ("find", "other"),
    [
        (b"aws4_request", b"aws4_reply"),
        (b"SignedHeaders=host", b"SignedHeaders=HOST"),
        (b"host;x-amz-date", b"x-amz-date;host"),
        (b"host;", b""),
        (b"x-amz-date;", b""),
        (b"/20", b"/19"),
        (b"T", b"X"),
    ],
)
def test_what_is_out_of_form(find: bytes, other: bytes) -> None:
    assert fault(altered(find, other)) is SignatureFault.INCOMPLETE


def test_scope_and_sessions() -> None:
    assert read(signed(service="s3")).fault is SignatureFault.OTHER_SERVICE
    assert read(signed(extra={"x-amz-security-token": "session"})).fault is SignatureFault.SESSION
    assert read(signed(extra={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})).fault is SignatureFault.INCOMPLETE
    right = hashlib.sha256(b"{}").hexdigest()
    assert holds(read(signed(extra={"x-amz-content-sha256": right})))


@pytest.mark.parametrize(
    ("find", "other"),
    [
        ("X-Amz-Expires=60", "X-Amz-Expires=0"),
        ("X-Amz-Expires=60", "X-Amz-Expires=604801"),
        ("X-Amz-Expires=60", "X-Amz-Expires=-1"),
        ("X-Amz-Expires=60", "X-Amz-Expires=60&X-Amz-Expires=600"),
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256"),
        ("X-Amz-Signature=", "X-Amz-Signature=z"),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=hosts"),
        ("X-Amz-Date=2", "X-Amz-Date=x"),
        ("X-Amz-Date=20", "X-Amz-Date=2099&was=20"),
    ],
)
def test_presigned_requests_out_of_form(find: str, other: str) -> None:
    request = signed(presign=60)
    assert find in request.url
    query = request.url.partition("?")[2].replace(find, other).encode()
    assert fault(headers_of(request), query=query) is SignatureFault.INCOMPLETE


def test_an_impossible_date_is_refused() -> None:
    impossible = [
        (name, b"20261345T010101Z" if name == b"x-amz-date" else value) for name, value in headers_of(signed())
    ]
    assert fault(impossible) is SignatureFault.INCOMPLETE


def test_what_belongs_to_the_dialect() -> None:
    api = AwsApi(FakeEngine())

    def is_ours(method: str, path: str, query: bytes = b"", *headers: tuple[bytes, bytes]) -> bool:
        return api.matches(path.encode(), {"method": method, "query_string": query, "headers": list(headers)})

    target, token = (b"x-amz-target", b"TrentService.Encrypt"), (b"authorization", b"Bearer kvl_x")
    assert is_ours("POST", "/", b"", target)
    assert is_ours("POST", "/", b"", (b"authorization", b"AWS4-HMAC-SHA256 x"))
    assert is_ours("POST", "/", b"X-Amz-Algorithm=AWS4-HMAC-SHA256")
    assert not is_ours("POST", "/", b"", token)
    assert not is_ours("GET", "/", b"", target)
    assert not is_ours("POST", "/keys", b"", target)


class TestAccessKeys:
    def test_ids_and_secrets(self) -> None:
        made = {new_access_key() for _ in range(50)}
        assert len(made) == 50
        assert all(len(key_id) == 20 and key_id.startswith("AKIA") and len(secret) == 40 for key_id, secret in made)

    def test_every_letter_is_as_likely(self) -> None:
        key_id, secret = new_access_key(lambda count: bytes(range(250 - count, 250)))
        assert key_id == "AKIAKLMNOPQRSTUVWXYZ"
        assert secret == "stuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ012345"

    def test_the_place_of_a_sealed_secret_is_in_its_header(self) -> None:
        place = hashlib.sha256(pae("access-key", KEY_ID)).digest()[:16]
        assert KEYS.seal(KEY_ID, SERVICE, SECRET)[:26] == b"KVL\x01\x01\x00" + place + bytes(4)

    def test_a_sealed_secret_is_bound_to_its_place(self) -> None:
        credential = read(signed())
        other = ServiceId("00000000-0000-0000-0000-000000000001")
        fresh = AccessKeys(os.urandom(32), os.urandom(16), os.urandom)
        with pytest.raises(InvalidCiphertext):
            KEYS.holds(credential.mac, other, KEYS.seal(TokenId("AKIAOTHER"), other, SECRET))
        with pytest.raises(InvalidCiphertext):
            fresh.holds(credential.mac, SERVICE, SEALED)

    def test_a_replaced_secret_is_not_remembered(self) -> None:
        credential = read(signed())
        assert KEYS.holds(credential.mac, SERVICE, SEALED)
        assert not KEYS.holds(credential.mac, SERVICE, KEYS.seal(KEY_ID, SERVICE, "x" * 40))

    def test_memory_is_bounded(self) -> None:
        keys = AccessKeys(os.urandom(32), os.urandom(16), os.urandom)
        sealed = keys.seal(KEY_ID, SERVICE, SECRET)
        for number in range(REMEMBERED + 10):
            credential = AwsCredential(KEY_ID, "20260101", f"r-{number}", "kms", b"text", "0" * 64, 0)
            assert not keys.holds(credential.mac, SERVICE, sealed)
        assert len(keys._derived) == REMEMBERED

    def test_what_was_used_last_is_forgotten_last(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(access_keys, "REMEMBERED", 2)
        keys = AccessKeys(os.urandom(32), os.urandom(16), os.urandom)
        sealed = keys.seal(KEY_ID, SERVICE, SECRET)
        for region in ("a", "b", "a", "c"):
            keys.holds(AwsCredential(KEY_ID, "20260101", region, "kms", b"text", "0" * 64, 0).mac, SERVICE, sealed)
        assert [steps[1] for _, _, steps in keys._derived] == ["a", "c"]

    def test_nobody_costs_the_same_work_each_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        keys, credential, done = AccessKeys(os.urandom(32), os.urandom(16), os.urandom), read(signed()), list[bytes]()
        digest = hmac.digest

        def noted(key: bytes, message: bytes, name: str) -> bytes:
            done.append(message)
            return digest(key, message, name)

        monkeypatch.setattr(hmac, "digest", noted)
        for _ in range(2):  # nothing is remembered of nobody: the second time would be quicker
            keys.refuse(credential.mac)
        steps = [credential.date, credential.region, credential.service, "aws4_request"]
        assert done == [*map(str.encode, steps), credential.string_to_sign] * 2
