"""The same contract over a real vault and a real socket: what the fake engine promised holds of the true one."""

import time

import pytest

from keyvault_lite.wire.native.route import Operation
from keyvault_lite.wire.native.routes import ROUTES
from tests.support.fake_engine import Response
from tests.unit.wire.conftest import Client
from tests.unit.wire.test_bad_input import BODIES, CANARY, FIELDS, MALFORMED, name, refused, spoiled


def caller(admin: Client, role: str, grants: list[dict[str, object]] | None = None) -> Client:
    name = f"s{time.monotonic_ns()}"
    made = admin.ask("POST", "/services", {"name": name, "role": role, "grants": grants or []})
    assert made.status == 201, made.body
    return Client(admin.port, made.json["token"])


def path(route: Operation) -> str:
    key = "signer" if route.path.endswith(("/sign", "/verify")) else "orders"
    if route.path.startswith("/services"):
        return route.path.replace("{id}", "admin")
    return route.path.replace("{key_id}", key).replace("{id}", "1")


@pytest.mark.parametrize("route", FIELDS, ids=name)
def test_wrong_fields(admin: Client, route: Operation) -> None:
    for _, body in spoiled(route):
        refused(admin.ask(route.method, path(route), body), 422)


@pytest.mark.parametrize("route", BODIES, ids=name)
def test_early_refusals(admin: Client, route: Operation) -> None:
    for body in MALFORMED.values():
        refused(admin.ask(route.method, path(route), body), 400)
    refused(admin.ask(route.method, path(route), {}, Content_Type=CANARY), 415)
    refused(Client(admin.port, None).ask(route.method, path(route), b"{"), 401)


@pytest.mark.parametrize("route", ROUTES, ids=name)
def test_order_of_checks(admin: Client, route: Operation) -> None:
    body = dict(route.example) or None
    refused(Client(admin.port, None).ask(route.method, path(route), body), 401)
    refused(Client(admin.port, "kvl_" + CANARY).ask(route.method, path(route), body), 401)
    refused(admin.ask(route.method, path(route) + f"?{CANARY}=1", body), 422)
    if route.method != "GET":
        auditor = caller(admin, "AUDITOR")
        wrong = auditor.ask(route.method, path(route), {CANARY: 1})
        refused(wrong, 422 if route.path.endswith("/token") else 403)
        refused(auditor.ask(route.method, path(route), b"{"), 400)


def test_a_service_without_a_grant_sees_no_key(admin: Client) -> None:
    stranger = caller(admin, "SERVICE", [{"key": "other-*", "actions": ["encrypt"]}])
    for key in ("orders", "absent", CANARY, "a" * 3000, "ORDERS"):
        reply = stranger.ask("POST", f"/keys/{key}/encrypt", {"plaintext": "x"})
        refused(reply, 404)
        assert reply.json["detail"] == stranger.ask("GET", "/keys/absent").json["detail"]
    friend = caller(admin, "SERVICE", [{"key": "ord*", "actions": ["encrypt"]}])
    sealed = friend.ask("POST", "/keys/orders/encrypt", {"plaintext": "x"})
    assert sealed.status == 200
    opened = {"ciphertext": sealed.json["ciphertext"], "encrypted_dek": sealed.json["encrypted_dek"]}
    refused(friend.ask("POST", "/keys/orders/decrypt", opened), 403)
    assert admin.ask("POST", "/keys/orders/decrypt", opened).json["plaintext"] == "x"


def test_every_attempt_is_an_entry(admin: Client) -> None:
    first = int(admin.ask("GET", "/keys/orders").headers["audit-id"])
    attempts: list[tuple[str, object, str]] = [
        ("/keys/orders/encrypt", {"plaintext": "x"}, "success"),
        ("/keys/orders/encrypt", {"x": 1}, "error"),
        ("/keys/orders/encrypt", b"{", "error"),
        ("/keys/absent/encrypt", {"plaintext": "x"}, "error"),
        ("/keys/signer/encrypt", {"plaintext": "x"}, "error"),
    ]
    for place, (where, body, _) in enumerate(attempts, 1):
        assert int(admin.ask("POST", where, body).headers["audit-id"]) == first + place
    log = admin.ask("GET", f"/audit?limit={len(attempts)}&action=encrypt").json["items"]
    assert [entry["result"] for entry in reversed(log)] == [result for _, _, result in attempts]
    verified = admin.ask("GET", "/audit/verify")
    assert verified.json["valid"] is True


def test_batches_and_their_entries(admin: Client) -> None:
    items: list[object] = [{"plaintext": "a"}, {"plaintext": 1}, {"plaintext": "c", "context": {"k": "v"}}]
    sealed = admin.ask("POST", "/keys/orders/batch/encrypt", {"items": items})
    first, wrong, third = sealed.json["items"]
    assert wrong["error"]["status"] == 422
    ids = [item["audit_id"] for item in (first, wrong, third)]
    assert ids == list(range(ids[0], ids[0] + 3))
    assert int(sealed.headers["audit-id"]) == ids[-1]
    wanted = [{name: item[name] for name in ("ciphertext", "encrypted_dek")} for item in (first, third)]
    opened = admin.ask("POST", "/keys/orders/batch/decrypt", {"items": wanted}).json["items"]
    assert opened[0]["plaintext"] == "a"
    assert opened[1]["error"]["code"] == "invalid_ciphertext"


def test_idempotent_replies(admin: Client) -> None:
    def create(name: str) -> Response:
        return admin.ask("POST", "/services", {"name": name, "role": "AUDITOR"}, Idempotency_Key="once")

    first, again, other = create("idem"), create("idem"), create("idem2")
    assert (first.status, again.status, other.status) == (201, 201, 409)
    assert again.json == first.json | {"token": None}
    assert first.headers["audit-id"] != again.headers["audit-id"]
