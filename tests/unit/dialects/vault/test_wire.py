"""The rules of the wire that every client depends on."""

import pytest

from keyvault_lite.dialects.vault import requests
from keyvault_lite.model import errors
from keyvault_lite.model.evidence import Result
from keyvault_lite.model.identity import Role
from keyvault_lite.wire.vault.errors import ERRORS
from keyvault_lite.wire.vault.routes import APPROLE, SYSTEM, TRANSIT
from tests.support.vault_client import Asker, b64

PLAIN = {"plaintext": b64("hello")}


def tree(root: type[errors.KeyVaultError]) -> set[type[errors.KeyVaultError]]:
    return {root}.union(*(tree(child) for child in root.__subclasses__()))


def test_every_error_has_a_row() -> None:
    ours = {kind for kind in tree(errors.KeyVaultError) if kind.__module__ in {errors.__name__, requests.__name__}}
    assert ours - {errors.KeyVaultError} == ERRORS.keys()


def test_the_envelope_and_its_content_type(ask: Asker) -> None:
    answer = ask.post("transit/keys/one")
    assert answer.headers["content-type"] == "application/json"
    document = answer.json
    assert len(document.pop("request_id")) == 36
    assert document.pop("data")["name"] == "one"
    assert document == {
        "lease_id": "",
        "renewable": False,
        "lease_duration": 0,
        "wrap_info": None,
        "warnings": None,
        "auth": None,
    }
    refused = ask.post("transit/encrypt/one")
    assert (refused.headers["content-type"], refused.json) == (
        "application/json",
        {"errors": ["missing plaintext to encrypt"]},
    )


def test_missing_and_wrong_tokens_and_keys_out_of_reach_are_one_answer(ask: Asker) -> None:
    ask.key("there")
    service = ask.service("app", ("vault:transit/other", "encrypt"))
    answers = [
        ask.post(f"transit/encrypt/{key}", PLAIN, token=token)
        for key in ("there", "absent")
        for token in (None, "hvs.wrong", "kvl_" + "0" * 16 + "_" + "0" * 43, service)
    ]
    assert {(one.status, one.body) for one in answers} == {(403, b'{"errors":["permission denied"]}')}
    assert all("audit-id" not in one.headers for one in answers)
    assert ask.last.draft.result is Result.DENIED
    assert ask.last.draft.operation == "transit.encrypt"
    headers = {"x-vault-token": service}
    assert ask.raw("POST", "transit/encrypt/there", b"{bad", headers=headers).status == 400
    assert ask.raw("POST", "transit/encrypt/there", b"{bad", headers={}).status == 403  # before the body is looked at


@pytest.mark.parametrize("header", ["x-vault-token", "authorization"])
def test_the_token_comes_in_either_header(ask: Asker, header: str) -> None:
    prefix = "Bearer " if header == "authorization" else ""
    headers = {header: prefix + ask.harness.admin, "x-vault-request": "true"}
    assert ask.raw("GET", "auth/token/lookup-self", headers=headers).status == 200


def test_put_is_post_and_both_ways_to_list(ask: Asker) -> None:
    assert ask("PUT", "transit/keys/one", {}).status == 200
    assert ask("PUT", "transit/encrypt/one", PLAIN).status == 200
    assert ask("LIST", "transit/keys").data == ask("GET", "transit/keys?list=true").data == {"keys": ["one"]}
    assert ask("GET", "transit/keys").status == 405
    ask.key("two")
    ask.key("three")
    assert ask("LIST", "transit/keys?after=one&limit=1").data == {"keys": ["three"]}


def test_absent_things(ask: Asker) -> None:
    for method, path in (("GET", "transit/keys/none"), ("LIST", "transit/keys")):
        answer = ask(method, path)
        assert (answer.status, answer.json) == (404, {"errors": []})
    assert ask("GET", "nowhere/keys/none").status == 404
    assert ask("LIST", "nowhere/keys").error.startswith("no handler for route")
    for path in ("transit/nothing", "transit/keys/a!b", "sys/nothing", "transit/encrypt/a%2fb"):
        assert ask.post(path).status == 404
    assert ask("DELETE", "transit/encrypt/one").status == 405
    assert ask("PATCH", "transit/keys/one").status == 405


def test_bodies(ask: Asker) -> None:
    ask.key("one")
    answer = ask.post("transit/encrypt/one", {**PLAIN, "zebra": 1, "ape": 2})
    assert answer.json["warnings"] == ["Endpoint ignored these unrecognized parameters: [ape zebra]"]
    form = {"x-vault-token": ask.harness.admin, "content-type": "application/x-www-form-urlencoded"}
    assert ask.raw("POST", "transit/encrypt/one", b'{"plaintext":"aGk="}', headers=form).status == 200
    assert ask.raw("POST", "transit/encrypt/one", b"plaintext=aGk%3D", headers=form).status == 200
    assert ask.raw("POST", "transit/keys/two", b"").status == 200
    for bad in (b"{bad", b"[]", b'"x"', b'{"a":NaN}', b'{"a":1,"a":2}', b"\xff"):
        assert ask.raw("POST", "transit/encrypt/one", bad).status == 400


def test_base64(ask: Asker) -> None:
    ask.key("one")
    for plaintext in ("aGVs\nbG8=", "aGVsbG8=\r\n"):
        sealed = ask.post("transit/encrypt/one", {"plaintext": plaintext}).data["ciphertext"]
        assert ask.decrypt("one", sealed) == b"hello"
    for bad in ("aGVsbG8", "a-_=", "!!", 5, True, {"a": 1}, ["aGk="], "aGk=aGk="):
        assert ask.post("transit/encrypt/one", {"plaintext": bad}).status == 400
    assert ask.decrypt("one", ask.encrypt("one", b"")) == b""


def test_what_would_silently_be_something_else_is_refused(ask: Asker) -> None:
    for name, value in (("x-vault-namespace", "team"), ("x-vault-wrap-ttl", "60s")):
        headers = {"x-vault-token": ask.harness.admin, name: value}
        assert ask.raw("POST", "transit/keys/one", b"{}", headers=headers).status == 400
    headers = {"x-vault-token": ask.harness.admin, "x-vault-namespace": "root"}
    assert ask.raw("POST", "transit/keys/one", b"{}", headers=headers).status == 200


def test_mounts(ask: Asker) -> None:
    for path in ("team/a", "x", "y/keyring/z"):
        assert ask.post(f"sys/mounts/{path}", {"type": "transit", "description": path}).status == 204
        assert ask.post(f"sys/mounts/{path}", {"type": "transit"}).error == f"path is already in use at {path}/"
        assert ask.post(f"{path}/keys/k").data["name"] == "k"
    for path in ("projects", "projects/a", "sys", "auth", "team", "team/a/b", "a/encrypt", "a//b", "a/../b", ""):
        assert ask.post(f"sys/mounts/{path}", {"type": "transit"}).status in {400, 404, 405}
    assert ask.post("sys/mounts/kv", {"type": "kv"}).status == 400
    mounts = ask("GET", "sys/mounts").json
    assert mounts["team/a/"] == mounts["data"]["team/a/"]
    assert mounts["data"].keys() == {"transit/", "team/a/", "x/", "y/keyring/z/"}
    assert ask("GET", "sys/mounts/x/tune").data["default_lease_ttl"] == 32 * 86400
    assert ask.post("sys/mounts/x/tune", {"description": "new", "max_lease_ttl": "2h"}).status == 204
    tuned = ask("GET", "sys/mounts/x/tune").data
    assert (tuned["max_lease_ttl"], tuned["default_lease_ttl"], tuned["force_no_cache"]) == (7200, 32 * 86400, False)
    assert ask("GET", "sys/mounts/x").data["description"] == "new"
    assert ask("GET", "sys/internal/ui/mounts/team/a/keys/k").data["path"] == "team/a/"
    assert ask("DELETE", "sys/mounts/x").status == ask("DELETE", "sys/mounts/x").status == 204
    assert ask.post("x/encrypt/k", PLAIN).status == 404
    assert ask("LIST", "x/keys").status == 404
    assert ask.post("sys/mounts/transit", {"type": "transit"}).status == 204
    assert ask.post("sys/mounts/transit", {"type": "transit"}).status == 400
    assert ask("DELETE", "sys/mounts/transit").status == 204
    assert "transit/" not in ask("GET", "sys/mounts").data
    assert ask.post("transit/keys/k").status == 404
    token = ask.service("app")
    assert ask.post("sys/mounts/z", {"type": "transit"}, token=token).status == 403


def test_status_without_a_token(ask: Asker) -> None:
    for method in ("GET", "HEAD"):
        answer = ask(method, "sys/health", token=None)
        assert answer.status == 200
        assert bool(answer.body) is (method == "GET")
    for code, status in (("299", 299), ("205", 200), ("304", 200), ("199", 200), ("600", 200), ("-1", 200)):
        answer = ask("GET", f"sys/health?activecode={code}", token=None)
        assert (answer.status, answer.headers["content-length"]) == (status, str(len(answer.body)))
    answer = ask("GET", "sys/health?activecode=204", token=None)
    assert (answer.status, answer.body) == (204, b"")
    assert not {"content-length", "content-type"} & set(answer.headers)
    assert ask("GET", "sys/seal-status", token=None).json["sealed"] is False
    assert ask("GET", "sys/init", token=None).json == {"initialized": True}
    assert ask("PUT", "sys/unseal", {"key": "x"}, token=None).status == 400
    assert ask("PUT", "sys/unseal", {"key": "00"}, token=None).json["sealed"] is False
    assert ask("PUT", "sys/seal", token=None).status == 403


def test_every_operation_is_named_in_its_entry_and_an_auditor_only_reads(ask: Asker) -> None:
    ask.key("one")
    auditor = ask.service("auditor", role=Role.AUDITOR)
    assert ask("GET", "transit/keys/one", token=auditor).status == 200
    for path in ("encrypt/one", "decrypt/one", "sign/one", "hmac/one", "random", "keys/two", "keys/one/rotate"):
        assert ask.post(f"transit/{path}", PLAIN, token=auditor).status == 403
    operations = {route.operation for table in (APPROLE, SYSTEM, TRANSIT) for route in table.routes()}
    assert all(name.split(".")[0] in {"auth", "sys", "transit"} for name in operations)
    assert {entry.draft.operation for entry in ask.harness.log()} - {None} <= operations
