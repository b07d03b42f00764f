"""Each route: which request it builds, and how its result is written."""

import base64

import pytest
from msgspec import structs

from keyvault_lite.model.errors import InvalidCiphertext, InvalidRequest, NotFound, TooLarge
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.identity import Grant, Permission, Role
from keyvault_lite.model.keys import Algorithm, KeySpec, KeyStatus, KeyType, PublicKeyFormat, Purpose, VersionStatus
from keyvault_lite.model.names import KeyId, KeyRef
from keyvault_lite.model.replies import Finding, Health, Page, PublicKey, Verification, Verified
from keyvault_lite.model.requests import (
    NEVER,
    Batch,
    CreateKey,
    CreateService,
    Decrypt,
    DestroyKey,
    DisableKey,
    EnableKey,
    Encrypt,
    FollowAudit,
    GenerateDataKey,
    GenerateRandom,
    ListAudit,
    ListKeys,
    ListReceipts,
    ListServices,
    ListVersions,
    OpenDataKey,
    ReadCheckpoint,
    ReadConsistency,
    ReadKey,
    ReadLogKey,
    ReadPublicKey,
    ReadReceipt,
    ReadService,
    Rejected,
    RenewToken,
    Request,
    RestoreKey,
    RevokeKey,
    Rewrap,
    RotateKey,
    Sign,
    UpdateKey,
    UpdateService,
    Verify,
    VerifyAudit,
)
from keyvault_lite.wire.application import Application
from keyvault_lite.wire.native import render
from keyvault_lite.wire.native.route import Operation
from keyvault_lite.wire.native.routes import ROUTES
from tests.support import fake_engine
from tests.support.fake_engine import KEY, KEY_ID, SERVICE, SERVICE_ID, TOKEN, FakeEngine, ask, build

K = KeyRef("orders")
NEW = {"type": "AES", "purpose": "ENCRYPT"}
AES = KeySpec(type=KeyType.AES, size=256, purpose=Purpose.ENCRYPT)
GRANTS = [{"key": "orders-*", "actions": ["encrypt", "encrypt", "decrypt"]}]
AUDIT_QUERY = (
    f"/audit?service_id=shop&key_id={KEY_ID}&action=encrypt&result=denied&order=asc&limit=7&after=c"
    "&since=1970-01-01T00:00:00Z&until=1970-01-01T00:00:00.000001Z"
)
GRANTED = (Grant("orders-*", frozenset({Permission.ENCRYPT, Permission.DECRYPT})),)


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def app(engine: FakeEngine) -> Application:
    return build(engine)


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/keys", {"type": "AES", "purpose": "ENCRYPT"}, CreateKey(spec=AES)),
        (
            "POST",
            "/keys",
            {"name": "a", "type": "AES", "size": 256, "purpose": "ENCRYPT", "description": "d", "tags": {"a": "b"}},
            CreateKey(spec=AES, name="a", description="d", tags={"a": "b"}),
        ),
        (
            "POST",
            "/keys",
            {"name": None, "type": "ED25519", "size": None, "purpose": "SIGN", "description": None, "tags": None},
            CreateKey(spec=KeySpec(type=KeyType.ED25519, size=None, purpose=Purpose.SIGN)),
        ),
        ("GET", "/keys", None, ListKeys()),
        ("GET", "/keys?limit=5&after=x", None, ListKeys(limit=5, after="x")),
        ("GET", "/keys/orders", None, ReadKey(key=K)),
        ("PATCH", "/keys/orders", {}, UpdateKey(key=K)),
        ("PATCH", "/keys/orders", None, UpdateKey(key=K)),
        (
            "PATCH",
            "/keys/orders",
            {"description": "", "tags": {}, "rotation_period_days": 0},
            UpdateKey(key=K, description="", tags={}, rotation_days=0),
        ),
        ("PATCH", "/keys/orders", {"rotation_period_days": None}, UpdateKey(key=K)),
        ("GET", "/keys/orders/versions?limit=1000", None, ListVersions(key=K, limit=1000)),
        ("GET", "/keys/orders/public-key", None, ReadPublicKey(key=K)),
        (
            "GET",
            "/keys/orders/public-key?version=3&format=jwk",
            None,
            ReadPublicKey(key=K, version=3, format=PublicKeyFormat.JWK),
        ),
        ("POST", "/keys/orders/rotate", None, RotateKey(key=K)),
        ("POST", "/keys/orders/rotate", {}, RotateKey(key=K)),
        ("POST", "/keys/orders/revoke", None, RevokeKey(key=K)),
        ("POST", "/keys/orders/revoke", {"version": 2, "reason": "r"}, RevokeKey(key=K, version=2, reason="r")),
        ("POST", "/keys/orders/disable", None, DisableKey(key=K)),
        ("POST", "/keys/orders/enable", None, EnableKey(key=K)),
        ("POST", "/keys/orders/destroy", None, DestroyKey(key=K, days=30)),
        ("POST", "/keys/orders/destroy", {"days": 7}, DestroyKey(key=K, days=7)),
        ("POST", "/keys/orders/restore", None, RestoreKey(key=K)),
        ("POST", "/keys/orders/encrypt", {"plaintext": "é"}, Encrypt(key=K, plaintext="é".encode())),
        ("POST", f"/keys/{KEY_ID}/encrypt", {"plaintext": ""}, Encrypt(key=KeyRef(KEY_ID))),
        (
            "POST",
            "/keys/orders/encrypt",
            {"plaintext": "AAE=", "encoding": "base64", "context": {"a": "b"}},
            Encrypt(key=K, plaintext=b"\x00\x01", context={"a": "b"}),
        ),
        (
            "POST",
            "/keys/orders/encrypt",
            {"plaintext": "AAE=", "encoding": None, "context": None},
            Encrypt(key=K, plaintext=b"AAE="),
        ),
        (
            "POST",
            "/keys/orders/decrypt",
            {"ciphertext": "YQ==", "encrypted_dek": "ZGVr"},
            Decrypt(key=K, ciphertext=b"a", encrypted_dek=b"dek", as_text=True),
        ),
        (
            "POST",
            "/keys/orders/decrypt",
            {"ciphertext": "", "encrypted_dek": "ZGVr", "key_version": 4, "encoding": "base64", "context": {}},
            Decrypt(key=K, encrypted_dek=b"dek", key_version=4, context={}),
        ),
        ("POST", "/keys/orders/rewrap", {"encrypted_dek": "ZGVr"}, Rewrap(key=K, encrypted_dek=b"dek")),
        ("POST", "/keys/orders/data-key", None, GenerateDataKey(key=K)),
        (
            "POST",
            "/keys/orders/data-key",
            {"context": {"a": "b"}, "bits": 128, "plaintext": False},
            GenerateDataKey(key=K, context={"a": "b"}, bits=128, reveal=False),
        ),
        ("POST", "/keys/orders/data-key", {"plaintext": True, "bits": None}, GenerateDataKey(key=K)),
        ("POST", "/keys/orders/data-key/open", {"encrypted_key": "ZGVr"}, OpenDataKey(key=K, encrypted_key=b"dek")),
        ("POST", "/keys/orders/sign", {"message": "m"}, Sign(key=K, message=b"m")),
        (
            "POST",
            "/keys/orders/sign",
            {"message": "AAE=", "encoding": "base64", "algorithm": "RSA_PSS_SHA384", "prehashed": True},
            Sign(key=K, message=b"\x00\x01", algorithm=Algorithm.RSA_PSS_SHA384, prehashed=True),
        ),
        (
            "POST",
            "/keys/orders/verify",
            {"message": "m", "signature": "YQ==", "algorithm": "ED25519", "prehashed": False, "key_version": 1},
            Verify(key=K, message=b"m", signature=b"a", algorithm=Algorithm.ED25519, key_version=1),
        ),
        ("POST", "/random", {"bytes": 1024}, GenerateRandom(count=1024)),
        ("POST", "/services", {"name": "s", "role": "AUDITOR"}, CreateService(name="s", role=Role.AUDITOR)),
        (
            "POST",
            "/services",
            {"name": "s", "role": "SERVICE", "grants": GRANTS, "expires_at": "2030-01-01T00:00:00Z"},
            CreateService(name="s", role=Role.SERVICE, grants=GRANTED, expires_at=1_893_456_000_000_000),
        ),
        ("GET", "/services", None, ListServices()),
        ("GET", "/services/shop", None, ReadService(service="shop")),
        ("PATCH", "/services/shop", {}, UpdateService(service="shop")),
        (
            "PATCH",
            "/services/shop",
            {"role": "ADMIN", "grants": [], "active": False, "expires_at": "never"},
            UpdateService(service="shop", role=Role.ADMIN, grants=(), active=False, expires_at=NEVER),
        ),
        (
            "PATCH",
            "/services/shop",
            {"expires_at": "1970-01-01T00:00:01+00:00"},
            UpdateService(service="shop", expires_at=1_000_000),
        ),
        ("POST", "/services/shop/token", None, RenewToken(service="shop")),
        ("GET", "/audit", None, ListAudit()),
        (
            "GET",
            AUDIT_QUERY,
            None,
            ListAudit(
                service_id="shop",
                key_id=KEY_ID,
                of=Action.ENCRYPT,
                result=Result.DENIED,
                ascending=True,
                limit=7,
                after="c",
                since=0,
                until=1,
            ),
        ),
        ("GET", "/audit?key_id=orders&order=desc", None, ListAudit(key_id=KeyId(K))),
        ("GET", "/audit?wait=30&after=17", None, FollowAudit(ListAudit(after="17", ascending=True), 30)),
        ("GET", "/audit?wait=0&order=asc", None, FollowAudit(ListAudit(ascending=True), 0)),
        (
            "GET",
            "/audit/receipts?from=3&to=9&limit=5&action=sign&service_id=shop",
            None,
            ListReceipts(ListAudit(limit=5, after="2", service_id="shop", of=Action.SIGN, ascending=True), 9),
        ),
        ("GET", "/audit/receipts?from=3&to=9&after=4", None, ListReceipts(ListAudit(after="4", ascending=True), 9)),
        ("GET", "/audit/verify", None, VerifyAudit()),
        ("GET", "/audit/checkpoint", None, ReadCheckpoint()),
        ("GET", "/audit/17/receipt", None, ReadReceipt(entry=17)),
        ("GET", "/audit/consistency?from=3&to=9", None, ReadConsistency(old=3, new=9)),
        ("GET", "/audit/public-key", None, ReadLogKey()),
    ],
)
def test_requests(method: str, path: str, body: object, expected: Request) -> None:
    engine = FakeEngine()
    app = build(engine)
    path, _, query = path.partition("?")
    reply = ask(app, method, path, body, query=query.encode())
    assert engine.request == expected
    assert reply.status in {200, 201}, reply.body


@pytest.mark.parametrize(
    ("method", "path", "body", "error"),
    [
        ("POST", "/keys", {"type": "AES", "purpose": "SIGN"}, InvalidRequest),
        ("POST", "/keys", {"type": "AES", "purpose": "ENCRYPT", "name": "A"}, InvalidRequest),
        ("POST", "/keys", {"type": "AES", "purpose": "ENCRYPT", "name": str(KEY_ID)}, InvalidRequest),
        ("POST", "/keys", {"type": "AES", "purpose": "ENCRYPT", "description": "a\x00b"}, InvalidRequest),
        ("POST", "/keys", {"type": "AES", "purpose": "ENCRYPT", "tags": {"a\x00": "b"}}, InvalidRequest),
        ("PATCH", "/keys/orders", {"tags": {"": "b"}}, InvalidRequest),
        ("PATCH", "/keys/orders", {"rotation_period_days": -1}, InvalidRequest),
        ("POST", "/keys/orders/revoke", {"version": 0}, InvalidRequest),
        ("POST", "/keys/orders/revoke", {"reason": "a" * 513}, InvalidRequest),
        ("POST", "/keys/orders/destroy", {"days": 6}, InvalidRequest),
        ("POST", "/keys/orders/encrypt", {"plaintext": "a" * 65_537}, TooLarge),
        ("POST", "/keys/orders/encrypt", {"plaintext": "a", "context": {"a": "b" * 9000}}, InvalidRequest),
        ("POST", "/keys/orders/encrypt", {"plaintext": "AAF=", "encoding": "base64"}, InvalidRequest),
        ("POST", "/keys/orders/decrypt", {"ciphertext": "", "encrypted_dek": "", "key_version": 0}, InvalidRequest),
        ("POST", "/keys/orders/decrypt", {"ciphertext": "", "encrypted_dek": "", "key_version": 2**70}, InvalidRequest),
        ("POST", "/keys/orders/data-key", {"bits": 257}, InvalidRequest),
        ("POST", "/random", {"bytes": 1025}, InvalidRequest),
        (
            "POST",
            "/services",
            {"name": "s", "role": "SERVICE", "grants": [{"key": "a", "actions": []}]},
            InvalidRequest,
        ),
        ("POST", "/services", {"name": "s", "role": "SERVICE", "expires_at": "1970-01-01T00:00:00Z"}, InvalidRequest),
        ("POST", "/services", {"name": "s", "role": "SERVICE", "expires_at": "never"}, InvalidRequest),
        ("POST", "/keys/orders/batch/encrypt", {"items": []}, InvalidRequest),
        ("POST", "/keys/orders/batch/encrypt", {"items": [{}] * 1001}, TooLarge),
        ("GET", "/audit?key_id=Orders", None, InvalidRequest),
        ("GET", "/audit?since=yesterday", None, InvalidRequest),
        ("GET", "/audit?order=up", None, InvalidRequest),
        ("GET", "/audit?limit=0", None, InvalidRequest),
        ("GET", "/audit?limit=+5", None, InvalidRequest),
        ("GET", "/audit?limit=5.0", None, InvalidRequest),
        ("GET", "/audit?limit=05", None, InvalidRequest),
        ("GET", "/audit?limit=1001", None, InvalidRequest),
        ("GET", "/audit?limit=" + "9" * 30, None, InvalidRequest),
        ("GET", "/audit?after=%00", None, InvalidRequest),
        ("GET", "/audit/consistency?from=9&to=3", None, InvalidRequest),
        ("GET", "/audit/consistency?from=9", None, InvalidRequest),
        ("GET", "/keys/orders?x=1", None, InvalidRequest),
        ("GET", "/audit/x/receipt", None, NotFound),
        ("GET", "/audit/0/receipt", None, NotFound),
        ("GET", "/audit/007/receipt", None, NotFound),
        ("GET", "/audit/9999999999999999999/receipt", None, NotFound),
    ],
)
def test_refusals_pass_the_door(method: str, path: str, body: object, error: type[Exception]) -> None:
    engine = FakeEngine()
    app = build(engine)
    path, _, query = path.partition("?")
    reply = ask(app, method, path, body, query=query.encode())
    assert isinstance(engine.request, Rejected)
    assert type(engine.request.error) is error
    assert engine.request.early == (error is TooLarge)
    assert engine.request.key == ("orders" if path.startswith("/keys/") else None)
    assert reply.status in {404, 413, 422}
    assert "audit-id" in reply.headers


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_refusal_is_recorded_as_what_it_would_have_been(
    app: Application, engine: FakeEngine, route: Operation
) -> None:
    path = route.path.replace("{key_id}", "orders").replace("{id}", "7")
    query = b"from=1&to=2" if path in {"/audit/consistency", "/audit/receipts"} else b""
    ask(app, route.method, path, dict(route.example) or None, query=query)
    request = engine.request
    assert route.action is (request.of if isinstance(request, Batch) else request.action)
    ask(app, route.method, path, dict(route.example) or None, query=b"unknown=1")
    assert engine.request.of is route.action


def test_actions_of_refusals(app: Application, engine: FakeEngine) -> None:
    for path, action in (
        ("/keys/a/batch/sign", Action.SIGN),
        ("/keys/a/data-key/open", Action.DATA_KEY_OPEN),
        ("/services/a/token", Action.TOKEN_RENEW),
    ):
        ask(app, "POST", path, {"x": 1})
        assert (engine.request.of, isinstance(engine.request, Rejected)) == (action, True)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "the field plaintext is missing"),
        ({"plaintext": 5}, "plaintext takes text"),
        ({"plaintext": "", "context": []}, "context takes an object"),
        ({"plaintext": "", "context": {"plaintext": 5}}, "context[...] takes text"),
        ({"plaintext": "", "encoding": "canary"}, "encoding is one of utf-8, base64"),
        ({"plaintext": "", "canary": 1}, "an unknown field; the fields are context, encoding, plaintext"),
        ([], "the body takes an object"),
        ("canary", "the body takes an object"),
        ({"plaintext": "!", "encoding": "base64"}, "plaintext is not canonical standard base64"),
    ],
)
def test_details_of_the_hot_road(app: Application, body: object, detail: str) -> None:
    assert ask(app, "POST", "/keys/orders/encrypt", body).json["detail"] == detail


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"role": "SERVICE"}, "the field name is missing"),
        ({"name": 5, "role": "SERVICE"}, "name takes text"),
        ({"name": "s", "role": "canary"}, "role is one of ADMIN, SERVICE, AUDITOR"),
        ({"name": "s", "role": "SERVICE", "grants": {}}, "grants takes a list"),
        ({"name": "s", "role": "SERVICE", "grants": [{}]}, "grants[0] lacks a field"),
        ({"name": "s", "role": "SERVICE", "grants": [{"key": 1, "actions": ["sign"]}]}, "grants[0] takes text"),
        (
            {"name": "s", "role": "SERVICE", "canary": 1},
            "an unknown field; the fields are expires_at, grants, name, role, token_max_ttl, token_ttl",
        ),
        (
            {"name": "s", "role": "SERVICE", "grants": [{"key": "a", "actions": ["sign"], "canary": 1}]},
            "an unknown field within a field of the body",
        ),
        ([], "the body takes an object"),
    ],
)
def test_details_of_the_other_road(app: Application, body: object, detail: str) -> None:
    assert ask(app, "POST", "/services", body).json["detail"] == detail


def test_a_word_that_is_none_is_told_the_words_that_are(app: Application) -> None:
    detail = ask(app, "POST", "/keys", {"type": "DES", "purpose": "ENCRYPT"}).json["detail"]
    assert detail == "type is one of AES, RSA, EC, ED25519, HMAC, ML-DSA"
    detail = ask(app, "POST", "/keys", {"type": "AES", "purpose": "canary"}).json["detail"]
    assert detail == "purpose is one of ENCRYPT, MAC, SIGN"
    detail = ask(app, "PATCH", "/services/app", {"role": "canary"}).json["detail"]
    assert detail == "role is one of ADMIN, SERVICE, AUDITOR"


@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [
        ("/keys/a/decrypt", {"ciphertext": "", "encrypted_dek": "", "key_version": 0}, "key_version is at least 1"),
        (
            "/keys/a/decrypt",
            {"ciphertext": "", "encrypted_dek": "", "key_version": 2**31},
            "key_version is at most 2147483647",
        ),
        ("/keys/a/destroy", {"days": 6}, "days is at least 7"),
        ("/keys/a/destroy", {"days": 31}, "days is at most 30"),
        ("/random", {"bytes": 1025}, "bytes is at most 1024"),
        ("/keys", NEW | {"description": "canary" * 9999}, "description has a length of at most 8192"),
        ("/keys", NEW | {"description": "\x00"}, "description takes no NUL character"),
        ("/keys", NEW | {"tags": {str(n): "" for n in range(51)}}, "tags has a length of at most 50"),
        ("/keys", NEW | {"tags": {"canary" * 99: ""}}, "a name in tags has a length of at most 128"),
        ("/keys", NEW | {"tags": {"": ""}}, "a name in tags has a length of at least 1"),
        ("/keys", NEW | {"tags": {"canary": "x" * 9999}}, "a value in tags has a length of at most 256"),
        (
            "/services",
            {"name": "s", "role": "SERVICE", "grants": [{"key": "a", "actions": ["canary"]}]},
            "grants[0] is one of encrypt, decrypt, sign, verify",
        ),
        (
            "/services",
            {"name": "s", "role": "SERVICE", "grants": [{"key": "a", "actions": []}]},
            "grants[0] has a length of at least 1",
        ),
    ],
)
def test_limits_and_choices_are_said_with_their_own_numbers(
    app: Application, path: str, body: object, detail: str
) -> None:
    assert ask(app, "POST", path, body).json["detail"] == detail


def test_a_compressed_body_is_refused_as_such(app: Application) -> None:
    for encoding, status in ((b"gzip", 415), (b"br", 415), (b"identity", 200), (b"Identity", 200)):
        reply = ask(app, "POST", "/random", {"bytes": 1}, headers=[(b"content-encoding", encoding)])
        assert reply.status == status
        assert status == 200 or "no Content-Encoding but identity" in reply.json["detail"]


def test_details_of_queries(app: Application) -> None:
    assert ask(app, "GET", "/audit/consistency", query=b"from=0&to=1").json["detail"] == "from is at least 1"
    assert ask(app, "GET", "/audit", query=b"order=canary").json["detail"] == "order is one of asc, desc"
    assert ask(app, "GET", "/audit", query=b"limit=1001").json["detail"] == "limit is at most 1000"
    assert ask(app, "GET", "/audit/consistency", query=b"from=x&to=1").json["detail"] == "from takes an integer"
    assert ask(app, "GET", "/audit/consistency", query=b"to=1").json["detail"] == "the field from is missing"


def test_batches_keep_their_order(app: Application, engine: FakeEngine) -> None:
    items: list[object] = [
        {"ciphertext": "aWg=", "encrypted_dek": "ZGVr"},
        {"ciphertext": "canary"},
        5,
        {"ciphertext": "aWg=", "encrypted_dek": "ZGVr", "encoding": "base64"},
        {"ciphertext": "aWg=", "encrypted_dek": ""},
    ]
    reply = ask(app, "POST", "/keys/orders/batch/decrypt", {"items": items})
    assert reply.status == 200
    assert isinstance(engine.request, Batch)
    assert engine.request.of is Action.DECRYPT
    first, second, third, fourth, fifth = reply.json["items"]
    assert first == {"plaintext": "hi", "encoding": "utf-8", "key_version": 1, "audit_id": 100}
    assert fourth == {"plaintext": "aGk=", "encoding": "base64", "key_version": 1, "audit_id": 103}
    assert [item["error"]["status"] for item in (second, third, fifth)] == [422, 422, 400]
    assert fifth["error"]["code"] == InvalidCiphertext.code
    assert {item["error"]["request_id"] for item in (second, third, fifth)} == {reply.headers["request-id"]}
    assert b"canary" not in reply.body


def test_a_batch_of_the_largest_size(app: Application, engine: FakeEngine) -> None:
    reply = ask(app, "POST", "/keys/orders/batch/encrypt", {"items": [{"plaintext": "x"}] * 1000})
    assert len(reply.json["items"]) == 1000


def test_idempotency_keeps_and_repeats(app: Application, engine: FakeEngine) -> None:
    headers = [(b"idempotency-key", b"once")]
    first = ask(app, "POST", "/services", {"name": "s", "role": "SERVICE"}, headers=headers)
    digest = engine.origin.idempotency.body_digest if engine.origin.idempotency else b""
    again = ask(app, "POST", "/services", {"name": "s", "role": "SERVICE"}, headers=headers)
    assert engine.origin.idempotency is not None
    assert engine.origin.idempotency.body_digest == digest
    assert (first.status, again.status) == (201, 201)
    assert first.json == again.json | {"token": TOKEN}
    assert again.json["token"] is None
    assert ask(app, "POST", "/services", {"name": "t", "role": "SERVICE"}, headers=headers).status == 409
    assert engine.origin.idempotency.body_digest != digest
    ask(app, "POST", "/keys/orders/rotate", headers=[(b"idempotency-key", b"two")])
    assert engine.origin.idempotency.key == "two"


def test_idempotency_is_for_changes_only(app: Application, engine: FakeEngine) -> None:
    for path, body in (("/keys/orders/encrypt", {"plaintext": "a"}), ("/random", {"bytes": 1})):
        assert ask(app, "POST", path, body, headers=[(b"idempotency-key", b"k" * 500)]).status == 200
        assert engine.origin.idempotency is None


@pytest.mark.parametrize("value", [b"", b"k" * 129, b"\xff", b"a\tb"])
def test_idempotency_keys_that_are_none(app: Application, value: bytes) -> None:
    assert ask(app, "POST", "/keys/orders/rotate", headers=[(b"idempotency-key", value)]).status == 422
    twice = [(b"idempotency-key", b"a"), (b"idempotency-key", b"a")]
    assert ask(app, "POST", "/keys/orders/rotate", headers=twice).status == 422


def test_keys_as_written(app: Application) -> None:
    assert ask(app, "GET", "/keys/orders").json == {
        "id": KEY_ID,
        "name": "orders",
        "type": "AES",
        "size": 256,
        "purpose": "ENCRYPT",
        "status": "ACTIVE",
        "active_version": 1,
        "created_at": "2026-09-21T14:13:20.123456Z",
        "description": "",
        "tags": {"team": "payments"},
        "rotation": {"period_days": None, "next_at": None},
        "versions_count": 1,
        "aliases": [],
        "spec": None,
    }
    assert ask(app, "GET", "/keys").json["next"] == "cursor"
    assert ask(app, "GET", "/keys/orders/versions").json == {
        "items": [{"version": 1, "status": "ACTIVE", "created_at": "2026-09-21T14:13:20.123456Z"}],
        "next": None,
    }


def test_a_key_on_its_way_out() -> None:
    revoked = structs.replace(fake_engine.VERSION, status=VersionStatus.REVOKED)
    key = structs.replace(
        KEY,
        name=None,
        status=KeyStatus.PENDING_DESTRUCTION,
        versions=(revoked,),
        destroy_at=1,
        rotation_days=90,
        rotate_at=2,
    )
    written = render.key(key, None)
    assert (written.active_version, written.destroy_at) == (None, "1970-01-01T00:00:00.000001Z")
    assert written.rotation.next_at == "1970-01-01T00:00:00.000002Z"


def test_public_keys_in_their_formats(app: Application) -> None:
    def written(public_key: str | bytes | dict[str, str]) -> object:
        result = PublicKey(1, Algorithm.ED25519, PublicKeyFormat.PEM, public_key)
        return render.public_key(result, None).public_key

    assert written("-----BEGIN") == "-----BEGIN"
    assert written({"kty": "OKP"}) == {"kty": "OKP"}
    assert written(b"\x01\x02") == "AQI="


def test_operations_as_written(app: Application) -> None:
    def reply(operation: str, body: object) -> object:
        return ask(app, "POST", f"/keys/orders/{operation}", body).json

    sealed = {"ciphertext": "aWg=", "encrypted_dek": "ZGVr"}
    assert reply("encrypt", {"plaintext": "hi"}) == {**sealed, "key_version": 1}
    assert reply("decrypt", sealed) == {"plaintext": "hi", "encoding": "utf-8", "key_version": 1}
    assert reply("rewrap", {"encrypted_dek": "ZGVr"}) == {"encrypted_dek": "ZGVr", "key_version": 2}
    assert reply("data-key", None) == {
        "plaintext_key": b64(b"k" * 32),
        "encrypted_key": b64(b"wrapped"),
        "key_version": 1,
    }
    assert reply("data-key", {"plaintext": False}) == {"encrypted_key": b64(b"wrapped"), "key_version": 1}
    assert reply("data-key/open", {"encrypted_key": ""}) == {"plaintext_key": b64(b"k" * 32), "key_version": 1}
    assert reply("sign", {"message": "ab"}) == {"signature": "YmE=", "algorithm": "ED25519", "key_version": 1}
    assert reply("verify", {"message": "ab", "signature": "YmE="}) == {"valid": True, "key_version": 1}
    assert ask(app, "POST", "/random", {"bytes": 3}).json == {"bytes": "BAQE"}


def test_a_signature_under_no_version() -> None:
    assert render.verified(Verified(valid=False, key_version=None), None).key_version is None


def test_services_as_written(app: Application) -> None:
    service = {
        "id": SERVICE_ID,
        "name": SERVICE.name,
        "role": "SERVICE",
        "active": True,
        "grants": [{"key": "orders-*", "actions": ["decrypt", "encrypt"]}],
        "created_at": "2026-09-21T14:13:20.123456Z",
        "expires_at": None,
    }
    issued = service | {"token": TOKEN, "token_expires_at": None, "token_renewable_until": None}
    lifetime = {"token_ttl": 60, "token_max_ttl": 600}
    created = ask(app, "POST", "/services", {"name": "shop", "role": "SERVICE", **lifetime})
    assert (created.status, created.json) == (201, issued)
    for body in (None, {}, {"grace": 600}, {"ttl": 60, "max_ttl": 600, "grace": 0}):
        renewed = ask(app, "POST", "/services/shop/token", body)
        assert (renewed.status, renewed.json) == (200, issued)
    assert ask(app, "POST", "/services/shop/token", {"grace": "600"}).status == 422
    own = {"kind": "native", "created_at": "2023-11-14T22:13:20.000000Z", "expires_at": None, "renewable_until": None}
    assert ask(app, "GET", "/services/self").json == service | {"token": {"id": "AKIAQWERTZUIOPASDFGH", **own}}
    assert ask(app, "DELETE", "/services/self").headers["allow"] == "GET, HEAD"
    assert ask(app, "GET", "/services/shop").json == service
    assert ask(app, "GET", "/services").json == {"items": [service], "next": None}


def test_the_log_as_written(app: Application) -> None:
    [entry] = ask(app, "GET", "/audit").json["items"]
    assert (entry["id"], entry["hash"], entry["prev_hash"]) == (7, "03" * 32, "02" * 32)
    assert entry["timestamp"] == "2026-09-21T14:13:20.123456Z"
    assert (entry["service_id"], entry["key_id"], entry["key_version"]) == (None, KEY_ID, 1)
    assert (entry["request_id"], entry["context_digest"], entry["state_root"]) == ("01" * 16, None, None)
    assert ask(app, "GET", "/audit/verify").json == {"valid": True, "entries": 7, "head": "03" * 32}
    assert ask(app, "GET", "/audit/consistency", query=b"from=1&to=2").json == {
        "from": 1,
        "to": 2,
        "hashes": [b64(b"\x05" * 32)],
    }
    assert ask(app, "GET", "/audit/public-key").json == {
        "verifier_key": "log+0+A",
        "public_key": b64(b"\x06" * 32),
    }
    for path in ("/audit/checkpoint", "/audit/7/receipt"):
        assert ask(app, "GET", path).headers["content-type"] == "text/plain; charset=utf-8"


def test_findings_as_written() -> None:
    found = Verification(
        valid=False,
        entries=7,
        head=b"\x03" * 32,
        first_invalid=4,
        reason="hash",
        findings=(Finding("audit_logs", "4", "hash does not match"),),
    )
    written = render.verification(found, None)
    assert (written.first_invalid, written.reason) == (4, "hash")
    assert written.findings


def test_what_is_archived_as_written() -> None:
    written = render.page(lambda found, _: found)(Page((1,), None, 512), None)  # type: ignore[arg-type]
    assert written == {"items": [1], "next": None, "archived": 512}
    assert render.verification(Verification(valid=True, entries=7, head=bytes(32), archived=512), None).archived == 512


def test_health(app: Application, engine: FakeEngine) -> None:
    healthy = ask(app, "GET", "/health", token=None)
    assert (healthy.status, healthy.json) == (200, {"status": "ok", "sealed": False, "version": "0.1.0"})
    assert "audit-id" not in healthy.headers
    engine.state = Health(status="sealed", sealed=True, version="0.1.0", serving=False, details={"since": 5})
    sealed = ask(app, "GET", "/health", token=None)
    assert sealed.status == 503
    assert sealed.json == {"since": 5, "status": "sealed", "sealed": True, "version": "0.1.0"}
    assert ask(app, "GET", "/health", query=b"x=1").status == 422
    assert not engine.seen
