"""Every route against every kind of bad input: the documented refusal, never a 5xx, never an echo of what was sent."""

import base64
import json
import logging
from collections.abc import Iterator

import pytest

from keyvault_lite.model.requests import Rejected
from keyvault_lite.wire.application import Application
from keyvault_lite.wire.native.route import NoFields, Operation
from keyvault_lite.wire.native.routes import ROUTES
from tests.support.fake_engine import AUDITOR, TOKEN, FakeEngine, Response, ask, build

CANARY = "canary8c1f"
BODIES = [route for route in ROUTES if route.method != "GET"]
FIELDS = [route for route in BODIES if route.example]


def path(route: Operation) -> str:
    return route.path.replace("{key_id}", "orders").replace("{id}", "7")


def name(route: Operation) -> str:
    return f"{route.method} {route.path}"


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def app(engine: FakeEngine) -> Application:
    return build(engine)


@pytest.fixture(autouse=True)
def silent_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG):
        yield
    assert CANARY not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def refused(reply: Response, *statuses: int) -> None:
    assert reply.status in statuses, (reply.status, reply.body)
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["status"] == reply.status
    assert CANARY.encode() not in reply.body
    assert CANARY not in str(reply.headers)


def spoiled(route: Operation) -> Iterator[tuple[str, object]]:
    """The route's example with one thing wrong at a time."""
    example = dict(route.example)
    yield "unknown field", {**example, CANARY: 1}
    yield "unknown field named like a method", {**example, "__class__": CANARY}
    for field, value in example.items():
        for wrong in (5, 1.5, True, CANARY, [CANARY], {CANARY: [CANARY]}, 2**63, 10**30, -1, ""):
            if type(wrong) is type(value) and not isinstance(value, int):
                continue
            if isinstance(value, bool) and isinstance(wrong, bool):
                continue
            if isinstance(value, int) and value >= 7 and wrong == 5 and field != "days":
                continue  # a smaller number that is valid too
            yield f"{field} is {wrong!r}", {**example, field: wrong}


@pytest.mark.parametrize("route", FIELDS, ids=name)
def test_wrong_fields(app: Application, engine: FakeEngine, route: Operation) -> None:
    for what, body in spoiled(route):
        reply = ask(app, route.method, path(route), body)
        assert reply.status == 422, (what, reply.status, reply.body)
        refused(reply, 422)
        assert isinstance(engine.request, Rejected)


@pytest.mark.parametrize("route", FIELDS, ids=name)
def test_the_example_is_right(app: Application, route: Operation) -> None:
    reply = ask(app, route.method, path(route), dict(route.example))
    assert reply.status in {route.status, 400}, reply.body  # a made-up ciphertext does not open


@pytest.mark.parametrize("route", [route for route in BODIES if route.shape is NoFields], ids=name)
def test_no_fields_at_all(app: Application, route: Operation) -> None:
    refused(ask(app, route.method, path(route), {CANARY: 1}), 422)
    bodies: list[object] = [None, {}, b"null"]
    for body in bodies:
        assert ask(app, route.method, path(route), body).status == route.status


MALFORMED = {
    "cut off": b'{"a": "' + CANARY.encode(),
    "not JSON": CANARY.encode(),
    "NaN": b'{"plaintext": NaN, "canary8c1f": 1}',
    "Infinity": b'{"plaintext": -Infinity}',
    "duplicate": b'{"canary8c1f": 1, "canary8c1f": 2}',
    "deep list": b"[" * 200_000,
    "deep object": b'{"canary8c1f":' * 50_000,
    "deep and closed": b"[" * 100_000 + b"]" * 100_000,
    "bom": b"\xef\xbb\xbf{}",
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "bad utf-8": b'{"a": "\xff\xfe"}',
    "surrogate": b'{"a": "\\ud800canary8c1f"}',
    "trailing": b"{} canary8c1f",
    "control": b'{"a": "\x00"}',
}


@pytest.mark.parametrize("what", MALFORMED)
@pytest.mark.parametrize("route", BODIES, ids=name)
def test_text_that_does_not_parse(app: Application, route: Operation, what: str) -> None:
    refused(ask(app, route.method, path(route), MALFORMED[what]), 400)
    # It wins over the role check, and authentication over it.
    too_large = what.startswith("deep")  # a body of that size is read of nobody whose role does not allow it
    refused(ask(app, route.method, path(route), MALFORMED[what], token=AUDITOR), 413 if too_large else 400)
    refused(ask(app, route.method, path(route), MALFORMED[what], token=None), 401)


@pytest.mark.parametrize("route", BODIES, ids=name)
def test_bodies_that_are_no_object(app: Application, route: Operation) -> None:
    for body in (b"[]", b"5", b'"canary8c1f"', b"true", b"1e999", b"9" * 5000, b'[["canary8c1f"]]'):
        refused(ask(app, route.method, path(route), body), 422)


@pytest.mark.parametrize("route", BODIES, ids=name)
def test_size_and_type(app: Application, route: Operation) -> None:
    large = b'{"' + CANARY.encode() * (route.limit // len(CANARY) + 1) + b'": 1}'
    refused(ask(app, route.method, path(route), large), 413)
    refused(ask(app, route.method, path(route), {}, content_type=CANARY.encode()), 415)
    refused(ask(app, route.method, path(route), {}, content_type=None), 415)


@pytest.mark.parametrize("route", ROUTES, ids=name)
def test_queries_tokens_and_methods(app: Application, route: Operation) -> None:
    body = dict(route.example) if route.example else None
    where = path(route)
    refused(ask(app, route.method, where, body, query=f"{CANARY}=1".encode()), 422)
    refused(ask(app, route.method, where, body, query=b"limit=1&limit=2"), 422)
    refused(ask(app, route.method, where, body, query=b"limit"), 422)
    refused(ask(app, route.method, where, body, query=b"after=%ff"), 422)
    refused(ask(app, route.method, where, body, token=None), 401)
    refused(ask(app, route.method, where, body, token=CANARY), 401)
    refused(ask(app, "DELETE", where, body), 405)
    refused(ask(app, "PUT", where), 405)
    if route.method != "GET":
        refused(ask(app, route.method, where, {CANARY: 1}, token=AUDITOR), 403)


@pytest.mark.parametrize("route", [route for route in ROUTES if route.parameter], ids=name)
def test_odd_names(app: Application, route: Operation) -> None:
    body = dict(route.example) if route.example else None
    before, _, after = path(route).partition("orders" if "{key_id}" in route.path else "7")
    for odd in ("%00", "a%2fb", "..", ".", "", "a b", "é", "%F0%9F%92%A9", "a?b%20", '"', "<a>", "a\x00b"):
        where = f"{before}{odd}{after}".encode().split(b"?")[0] if "?" not in odd else f"{before}a%3Fb{after}".encode()
        reply = ask(app, route.method, where, body)
        if where.decode(errors="replace").rstrip("/") in {"/keys", "/services"}:
            continue
        refused(reply, 404)


@pytest.mark.parametrize(
    "text", ["!", "A", "AA", "AA=", "AAF=", "AAE", "AAE==", "AA=E", "A A=", "AAE=\n", "_-8=", "=", "é"], ids=repr
)
@pytest.mark.parametrize(
    ("operation", "body", "field"),
    [
        ("encrypt", {"encoding": "base64"}, "plaintext"),
        ("decrypt", {"encrypted_dek": ""}, "ciphertext"),
        ("decrypt", {"ciphertext": ""}, "encrypted_dek"),
        ("rewrap", {}, "encrypted_dek"),
        ("data-key/open", {}, "encrypted_key"),
        ("sign", {"encoding": "base64"}, "message"),
        ("verify", {"encoding": "base64", "signature": ""}, "message"),
        ("verify", {"message": ""}, "signature"),
    ],
)
def test_base64_that_is_not_canonical(
    app: Application, operation: str, body: dict[str, str], field: str, text: str
) -> None:
    item = {**body, field: text}
    refused(ask(app, "POST", f"/keys/orders/{operation}", item), 422)
    if "/" not in operation:
        [error] = ask(app, "POST", f"/keys/orders/batch/{operation}", {"items": [item]}).json["items"]
        assert error["error"]["status"] == 422


def test_nothing_that_was_sent_comes_back(app: Application) -> None:
    """A secret in each place of an encryption that fails."""
    secret = base64.b64encode(CANARY.encode() * 20).decode()
    encoded = [CANARY, secret, base64.b64encode(CANARY.encode()).decode()]
    for body in (
        {"plaintext": secret, "encoding": "base64", "context": {CANARY: 5}},
        {"plaintext": secret, "encoding": CANARY},
        {"plaintext": secret + "!", "encoding": "base64"},
        {"plaintext": CANARY, "context": {CANARY: "e\u0301"}},
        {"plaintext": [CANARY]},
        {"plaintext": CANARY * 10_000},
        {"plaintext": CANARY, "key_version": 1},
    ):
        reply = ask(app, "POST", f"/keys/{CANARY}/encrypt", body)
        assert reply.status in {413, 422}
        for text in encoded:
            assert text not in reply.body.decode()
            assert text not in json.dumps(reply.headers)
    absent = ask(app, "GET", "/keys/absent")
    assert absent.status == 404
    assert TOKEN not in absent.body.decode()
