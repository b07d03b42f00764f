"""How `kvl` talks: to whom, with what, how often, and what it says when it goes wrong."""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from keyvault_lite.client.connection import from_environment
from keyvault_lite.client.errors import Misconfigured
from tests.support.fake_vault import ACCESS_KEY, TOKEN, FakeVault, Problem
from tests.unit.cli.conftest import Kvl


def drop(handler: BaseHTTPRequestHandler) -> bool:
    """The connection breaks and no answer comes."""
    handler.close_connection = True
    return True


def fail(status: int, code: str) -> Callable[[BaseHTTPRequestHandler], bool]:
    def answer(handler: BaseHTTPRequestHandler) -> bool:
        handler.problem(Problem(status, code, "it failed"))  # type: ignore[attr-defined]
        return True

    return answer


def test_a_token_is_needed(kvl: Kvl, vault: FakeVault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEYVAULT_TOKEN")
    ran = kvl("key", "ls")
    assert (ran.code, ran.out) == (2, "")
    assert "KEYVAULT_TOKEN_FILE" in ran.err
    assert vault.seen == []


def test_a_token_may_come_from_a_file(
    kvl: Kvl, vault: FakeVault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    monkeypatch.delenv("KEYVAULT_TOKEN")
    monkeypatch.setenv("KEYVAULT_TOKEN_FILE", str(file))
    assert kvl("key", "ls").code == 0
    assert vault.seen[0].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("content", [None, "", "two words", "ünïcode"])
def test_a_token_file_that_is_none_is_refused_without_showing_it(
    kvl: Kvl, vault: FakeVault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    monkeypatch.delenv("KEYVAULT_TOKEN")
    monkeypatch.setenv("KEYVAULT_TOKEN_FILE", str(file))
    ran = kvl("key", "ls")
    assert ran.code == 2
    assert "KEYVAULT_TOKEN_FILE" in ran.err
    assert not content or content not in ran.err
    assert vault.seen == []


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("http://127.0.0.1:1", True),
        ("http://[::1]:1", True),
        ("http://localhost:1", True),
        ("https://vault.example", True),
        ("http://vault.example", False),
        ("http://10.0.0.7:8000", False),
        ("http://127.0.0.1.example:80", False),
        ("http://user@127.0.0.1", False),
        ("ftp://127.0.0.1", False),
        ("127.0.0.1:8000", False),
        ("http://127.0.0.1:99999", False),
        ("http://127.0.0.1/?x=1", False),
        ("http://[", False),
    ],
)
def test_a_token_never_travels_in_the_clear(address: str, allowed: bool) -> None:
    environment = {"KEYVAULT_ADDR": address, "KEYVAULT_TOKEN": TOKEN}
    if allowed:
        assert from_environment(environment).address == address
    else:
        with pytest.raises(Misconfigured):
            from_environment(environment)


def test_plain_http_can_be_allowed() -> None:
    environment = {"KEYVAULT_ADDR": "http://vault.example/", "KEYVAULT_TOKEN": TOKEN, "KEYVAULT_ALLOW_PLAIN_HTTP": "1"}
    connection = from_environment(environment)
    assert connection.address == "http://vault.example"
    assert TOKEN not in repr(connection)


@pytest.mark.parametrize("address", ["https://exa mple", "https://\u00ad", "https://[::1", "https://a..b", "https://-"])
def test_an_odd_address_is_no_traceback(
    kvl: Kvl, vault: FakeVault, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("KEYVAULT_ADDR", address)
    ran = kvl("key", "ls")
    assert (ran.code, ran.err.count("\n")) == (2, 1)


def test_an_unreadable_ca_file_is_named(kvl: Kvl, vault: FakeVault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYVAULT_CACERT", "/nonexistent")
    ran = kvl("key", "ls")
    assert ran.code == 2
    assert "KEYVAULT_CACERT" in ran.err


def test_no_answer_is_said_in_one_sentence(kvl: Kvl, vault: FakeVault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYVAULT_ADDR", "http://127.0.0.1:1")
    ran = kvl("key", "ls")
    assert ran.code == 2
    assert ran.err.startswith("kvl: no answer from http://127.0.0.1:1: ")
    assert ran.err.count("\n") == 1


def test_a_refusal_shows_detail_code_and_request(kvl: Kvl, vault: FakeVault) -> None:
    ran = kvl("key", "show", "absent")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "kvl: no such object; `kvl key ls` lists them (not_found, request req-1)\n"


def test_a_wrong_token_is_a_refusal_with_a_hint(kvl: Kvl, vault: FakeVault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYVAULT_TOKEN", "kvl_wrong")
    ran = kvl("key", "ls")
    assert ran.code == 1
    assert "unauthenticated" in ran.err
    assert "kvl_wrong" not in ran.err


def test_a_lost_answer_is_asked_for_again_under_the_same_idempotency_key(kvl: Kvl, vault: FakeVault) -> None:
    vault.faults = [drop, fail(503, "outcome_unknown")]
    assert kvl("key", "rotate", "orders").code == 0
    keys = [seen.headers["idempotency-key"] for seen in vault.seen]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert vault.cipher.version == 2


def test_attempts_end(kvl: Kvl, vault: FakeVault) -> None:
    vault.faults = [drop] * 9
    assert kvl("key", "rotate", "orders").code == 2
    assert len(vault.seen) == 3
    vault.faults = [fail(503, "outcome_unknown")] * 9
    ran = kvl("key", "rotate", "orders")
    assert ran.code == 1
    assert "outcome_unknown" in ran.err


def test_a_refusal_is_not_asked_for_again(kvl: Kvl, vault: FakeVault) -> None:
    vault.faults = [fail(503, "audit_unavailable")] * 3
    assert kvl("key", "rotate", "orders").code == 1
    assert len(vault.seen) == 1


def test_every_change_has_its_own_idempotency_key_and_reading_has_none(kvl: Kvl, vault: FakeVault) -> None:
    kvl("key", "disable", "orders")
    kvl("key", "enable", "orders")
    kvl("key", "show", "orders")
    keys = [seen.headers.get("idempotency-key") for seen in vault.seen]
    assert keys[0] != keys[1]
    assert keys[2] is None


def test_a_token_lost_with_its_answer_is_explained(kvl: Kvl, vault: FakeVault) -> None:
    def lose(handler: BaseHTTPRequestHandler) -> bool:
        vault.answer(vault.seen[-1])  # done, but the answer is lost
        return drop(handler)

    vault.faults = [lose]
    ran = kvl("service", "create", "new")
    assert ran.code == 1
    assert "kvl service token new" in ran.err


def test_a_secret_lost_with_its_answer_is_explained(kvl: Kvl, vault: FakeVault) -> None:
    """The key that was made is named, so that it can be revoked; it is not made twice."""

    def lose(handler: BaseHTTPRequestHandler) -> bool:
        vault.answer(vault.seen[-1])
        return drop(handler)

    vault.faults = [lose]
    ran = kvl("service", "aws-credentials", "app")
    assert ran.code == 1
    assert f"revoke {ACCESS_KEY}" in ran.err
    keys = {seen.headers["idempotency-key"] for seen in vault.seen}
    assert (len(vault.seen), len(keys)) == (2, 1)
    assert kvl("service", "aws-credentials", "app", "--revoke", ACCESS_KEY).code == 0
    assert vault.seen[-1].headers["idempotency-key"] not in keys


def test_redirects_are_not_followed(kvl: Kvl, vault: FakeVault) -> None:
    def redirect(handler: BaseHTTPRequestHandler) -> bool:
        handler.text(302, "", Location="http://127.0.0.1:1/steal")  # type: ignore[attr-defined]
        return True

    vault.faults = [redirect]
    ran = kvl("key", "ls")
    assert ran.code == 2
    assert "redirect" in ran.err
    assert len(vault.seen) == 1


@pytest.mark.parametrize(("status", "body"), [(200, "<html>"), (502, "bad gateway"), (200, "[]")])
def test_another_server_is_noticed(kvl: Kvl, vault: FakeVault, status: int, body: str) -> None:
    def other(handler: BaseHTTPRequestHandler) -> bool:
        handler.text(status, body)  # type: ignore[attr-defined]
        return True

    vault.faults = [other]
    ran = kvl("key", "ls")
    assert ran.code == 2
    assert "KeyVault Lite server" in ran.err


def test_proxies_of_the_environment_get_nothing(kvl: Kvl, vault: FakeVault, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert kvl("key", "ls").code == 0


def test_pages_are_joined(kvl: Kvl, vault: FakeVault) -> None:
    vault.keys = [{**vault.keys[0], "name": f"key-{n}"} for n in range(25)]
    vault.page = 10
    ran = kvl("key", "ls", "-o", "json")
    assert [item["name"] for item in json.loads(ran.out)["items"]] == [f"key-{n}" for n in range(25)]
    assert json.loads(ran.out)["next"] is None
    assert len(vault.seen) == 3


def test_a_limit_ends_the_pages_and_says_so(kvl: Kvl, vault: FakeVault) -> None:
    vault.keys = [{**vault.keys[0], "name": f"key-{n}"} for n in range(25)]
    vault.page = 10
    ran = kvl("key", "ls", "--limit", "15", "-o", "json")
    assert len(json.loads(ran.out)["items"]) == 15
    assert json.loads(ran.out)["next"] == "15"
    assert "there are more" in ran.err


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_would_be_another_path_is_refused(kvl: Kvl, vault: FakeVault, name: str) -> None:
    assert kvl("key", "show", name).code == 2
    assert vault.seen == []


def test_a_name_is_one_segment(kvl: Kvl, vault: FakeVault) -> None:
    kvl("service", "show", "a/../b?c#d")
    assert vault.seen[0].path == "/services/a%2F..%2Fb%3Fc%23d"


def test_what_is_not_utf8_is_refused(kvl: Kvl, vault: FakeVault) -> None:
    assert kvl("key", "show", "\udcff").code == 2
    assert kvl("key", "create", "\udcff").code == 2
    assert vault.seen == []
