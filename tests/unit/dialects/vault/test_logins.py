"""The auth methods that are there from the beginning, as `sys/auth` tells of them."""

from collections.abc import Mapping

import pytest

from keyvault_lite.model.identity import Role
from tests.support.vault_client import Asker

TUNED = {
    "default_lease_ttl": 32 * 86_400,
    "description": "",
    "force_no_cache": False,
    "max_lease_ttl": 32 * 86_400,
    "token_type": "default-service",
}


@pytest.mark.parametrize("kind", ["approle", "token"])
def test_a_way_to_log_in(ask: Asker, kind: str) -> None:
    for path in (f"sys/auth/{kind}", f"sys/mounts/auth/{kind}"):
        answer = ask("GET", path)
        assert answer.data == ask("GET", "sys/auth").data[f"{kind}/"]
        assert answer.data["type"] == answer.json["type"] == kind
    for path in (f"sys/auth/{kind}/tune", f"sys/mounts/auth/{kind}/tune"):
        answer = ask("GET", path)
        assert answer.data == TUNED
        assert answer.json["max_lease_ttl"] == 32 * 86_400


def test_ways_to_log_in_are_for_who_may_know_the_services(ask: Asker) -> None:
    service, auditor = ask.service("app"), ask.service("watcher", role=Role.AUDITOR)
    for path in ("sys/auth/approle", "sys/auth/approle/tune", "sys/mounts/auth/approle/tune"):
        assert [ask("GET", path, token=one).status for one in (auditor, service, None)] == [200, 403, 403]
    for token in (service, auditor, None):
        assert ask.post("sys/auth/approle/tune", token=token).status == 403
        assert ask.post("sys/mounts/auth/approle/tune", token=token).status == 403
        assert ask("DELETE", "sys/auth/nowhere", token=token).status == 403


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"description": ""},
        {"default_lease_ttl": "768h", "max_lease_ttl": 32 * 86_400},
        {"default_lease_ttl": 0, "max_lease_ttl": ""},
        {"token_type": "default-service", "force_no_cache": False, "listing_visibility": "hidden"},
        {"passthrough_request_headers": [], "audit_non_hmac_request_keys": ""},
    ],
)
def test_tuning_to_what_is_so_anyway(ask: Asker, asked: Mapping[str, object]) -> None:
    for path in ("sys/auth/approle/tune", "sys/auth/token/tune", "sys/mounts/auth/approle/tune"):
        assert ask.post(path, asked).status == 204


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token_type", "batch"),
        ("force_no_cache", True),
        ("listing_visibility", "unauth"),
        ("passthrough_request_headers", ["x"]),
        ("audit_non_hmac_request_keys", "x"),
        ("user_lockout_config", {"lockout_disable": True}),
    ],
)
def test_tuning_to_what_would_not_hold(ask: Asker, name: str, value: object) -> None:
    assert ask.post("sys/auth/approle/tune", {name: value}).error == f"{name} is fixed here"
    assert ask("GET", "sys/auth/approle/tune").data == TUNED


def test_tokens_are_fixed(ask: Asker) -> None:
    for body in ({"default_lease_ttl": "1h"}, {"max_lease_ttl": "20h"}, {"description": "mine"}):
        assert ask.post("sys/auth/token/tune", body).error == "the auth method of tokens is fixed here"
    assert ask.post("sys/auth/approle/tune", {"max_lease_ttl": "800h"}).status == 400
    assert ask("GET", "sys/auth/token/tune").data == ask("GET", "sys/auth/approle/tune").data == TUNED


def test_a_way_to_log_in_that_is_not_there(ask: Asker) -> None:
    for path in ("sys/auth/nowhere", "sys/auth/nowhere/tune", "sys/auth/approle/tune/tune", "sys/mounts/auth/nowhere"):
        assert ask("GET", path).error == "there is no auth method at that path"
    for path in ("sys/auth/nowhere/tune", "sys/mounts/auth/nowhere/tune"):
        assert ask.post(path).error == "there is no auth method at that path"
    assert ask("DELETE", "sys/auth/nowhere").status == 204
    assert ask("DELETE", "sys/auth/token").error == "token credential backend cannot be disabled"


def test_no_key_space_is_among_the_ways_to_log_in(ask: Asker) -> None:
    ask.post("sys/mounts/x", {"type": "transit"})
    assert ask.post("sys/mounts/auth/x", {"type": "transit"}).status == 400
    assert ask("DELETE", "sys/mounts/auth/x").status == 405
    assert "x/" in ask("GET", "sys/mounts").data
