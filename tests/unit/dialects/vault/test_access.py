"""Tokens, logins and policies: whose they are, when they end, and what they come to."""

import string
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyvault_lite.crypto.credentials import new_token
from keyvault_lite.dialects.vault.policies import compile_rules
from keyvault_lite.dialects.vault.token_requests import CreateSecretId, CreateToken, PolicyRule, ReadToken
from keyvault_lite.ledger.state.outcome import Change, Outcome
from keyvault_lite.ledger.storage import driver
from keyvault_lite.model.encoding import encode_base64
from keyvault_lite.model.errors import Forbidden, InvalidRequest, NotFound
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.identity import Permission, Role, Setting
from keyvault_lite.model.names import ServiceId, TokenId, new_id
from keyvault_lite.model.requests import ReadReceipt, RenewToken, UpdateService
from keyvault_lite.operator.repair import repair_vault
from keyvault_lite.operator.verify import verify_vault as verify
from keyvault_lite.wire.vault.policies import read_policy
from tests.support.harness import Harness, grant
from tests.support.vault_client import Asker, b64

DAY = 24 * 3600


def child(ask: Asker, token: str = "", **how: object) -> str:
    text: str = ask.post("auth/token/create", how, token=token).json["auth"]["client_token"]
    return text


def alive(ask: Asker, token: str) -> bool:
    return ask("GET", "auth/token/lookup-self", token=token).status == 200


# Tokens


def test_no_token_that_was_made_with_another_gets_what_outlives_it(ask: Asker, harness: Harness) -> None:
    """Neither held to policies, nor of a service, nor of a login: renewing is for the service's own token."""
    ask.post("sys/policies/acl/p", {"policy": 'path "transit/encrypt/orders" { capabilities = ["update"] }'})
    service, own = harness.service("app")
    _, auditor = harness.service("watcher", role=Role.AUDITOR)
    role_id, secret_id = role(ask)
    (admin,) = harness.ledger.snapshot().active_admins()
    ask.post("sys/policies/acl/children", {"policy": 'path "auth/token/create" { capabilities = ["update"] }'})
    held = child(ask, policies=["p", "children"], ttl="1m")
    callers = {
        held: admin,
        child(ask, token=held): admin,
        child(ask, token=own, ttl="1m"): service,
        child(ask, token=auditor): harness.ledger.snapshot().find_service("watcher"),
        login(ask, role_id, secret_id)[1]: harness.ledger.snapshot().find_service("approle-web"),
    }
    for token, its in callers.items():
        assert its is not None
        assert alive(ask, token)
        for name in (its.id, its.name):
            harness.refusal(RenewToken(name), Forbidden, token)
    assert all(alive(ask, one) for one in (harness.admin, own, auditor))
    assert harness.ask(RenewToken(service.id), own).token != own


def test_what_is_to_end_at_the_latest_ends_then(ask: Asker, harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a period too, which by itself goes on without end."""
    began = harness.ledger.now()
    token = child(ask, period="10m", explicit_max_ttl="25m")
    found = ask("GET", "auth/token/lookup-self", token=token).data
    assert (found["explicit_max_ttl"], found["period"], found["ttl"] > 590) == (1500, 600, True)
    for minutes, left in ((9, 600), (18, 420), (24, 60)):
        monkeypatch.setattr(harness.ledger, "now", lambda minutes=minutes: began + minutes * 60_000_000 + 5_000_000)
        answer = ask.post("auth/token/renew-self", token=token)
        assert abs(answer.json["auth"]["lease_duration"] - left) <= 6
    monkeypatch.setattr(harness.ledger, "now", lambda: began + 26 * 60_000_000)
    assert not alive(ask, token)
    made = ask.post("auth/token/create", {"period": "2h", "explicit_max_ttl": "1h"}).json["auth"]
    assert made["lease_duration"] in {3599, 3600}


def test_a_role_has_a_latest_end_of_its_tokens(ask: Asker) -> None:
    settings = {"token_max_ttl": "2h", "token_explicit_max_ttl": "1h", "token_ttl": "90m"}
    role_id, secret_id = role(ask, **settings)
    kept = ask("GET", "auth/approle/role/web").data
    assert (kept["token_max_ttl"], kept["token_explicit_max_ttl"]) == (7200, 3600)
    found = ask("GET", "auth/token/lookup-self", token=login(ask, role_id, secret_id)[1]).data
    assert (found["creation_ttl"], found["explicit_max_ttl"]) == (3600, 3600)


def test_a_role_gives_tokens_of_the_one_type_there_is(ask: Asker) -> None:
    for one in ("default", "service", "default-service", ""):
        assert ask.post("auth/approle/role/web", {"token_type": one}).status == 204
    for other in ("batch", "default-batch", "x"):
        assert ask.post("auth/approle/role/web", {"token_type": other}).status == 400


def test_policies_are_read_by_who_reads_roles(ask: Asker, harness: Harness) -> None:
    ask.post("sys/policies/acl/p", {"policy": 'path "transit/encrypt/orders" { capabilities = ["update"] }'})
    _, auditor = harness.service("watcher", role=Role.AUDITOR)
    _, service = harness.service("app")
    for method, path in (("GET", "sys/policies/acl/p"), ("GET", "sys/policy/p"), ("LIST", "sys/policies/acl")):
        assert ask(method, path, token=auditor).status == 200
        assert ask(method, path, token=service).status == 403
    listed = ask("GET", "sys/policies/acl?list=true").json
    assert (listed["warnings"], "p" in listed["data"]["keys"]) == (None, True)
    role(ask)
    for path in ("auth/approle/role", "auth/approle/role/web/secret-id"):
        assert ask("GET", f"{path}?list=true").json["warnings"] is None


def test_capabilities_tell_what_needs_no_permission(ask: Asker, harness: Harness) -> None:
    _, service = harness.service("app")
    _, auditor = harness.service("watcher", role=Role.AUDITOR)
    paths = ["transit/random", "transit/random/32", "transit/hash/sha2-256", "auth/token/create", "transit/keys"]
    for token, held in ((service, "update"), (auditor, "deny")):
        shown = ask.post("sys/capabilities-self", {"paths": paths}, token=token).data
        assert [shown[path] for path in paths] == [[held], [held], [held], ["update"], ["list"]]


def test_a_look_at_its_own_token_shows_no_other(ask: Asker) -> None:
    other = child(ask)
    token = child(ask)
    for asked in (
        ask.post("auth/token/lookup-self", {"token": other}, token=token),
        ask("GET", f"auth/token/lookup-self?token={other}", token=token),
    ):
        assert asked.data["id"] == token
    renewed = ask.post("auth/token/renew-self", {"token": other, "increment": "1h"}, token=token).json["auth"]
    assert renewed["client_token"] == token
    assert ask.post("auth/token/renew", {"token": other}).json["auth"]["client_token"] == other
    assert ask.post("auth/token/lookup", {"token": other}).data["id"] == other


def test_a_look_at_the_own_token(ask: Asker) -> None:
    shown = ask("GET", "auth/token/lookup-self").data
    assert (shown["policies"], shown["ttl"], shown["renewable"], shown["orphan"]) == (["root"], 0, False, True)
    assert shown["id"] == ask.harness.admin
    assert ask.last.draft.action is Action.TOKEN_READ
    assert ask.post("auth/token/lookup", {"token": ask.harness.admin}).data == shown
    by_accessor = ask.post("auth/token/lookup-accessor", {"accessor": shown["accessor"]}).data
    assert (by_accessor["id"], by_accessor["accessor"]) == ("", shown["accessor"])


def test_a_lease_ends_and_is_renewed_within_its_bounds(ask: Asker, harness: Harness) -> None:
    token = child(ask, ttl="1h", explicit_max_ttl="3h")
    assert ask("GET", "auth/token/lookup-self", token=token).data["ttl"] in range(3590, 3601)
    assert ask.post("auth/token/renew-self", {"increment": "2h"}, token=token).json["auth"]["lease_duration"] == 7200
    late = ask.post("auth/token/renew-self", {"increment": "99h"}, token=token).json
    assert late["auth"]["lease_duration"] in range(10790, 10801)
    assert late["warnings"]
    real = harness.ledger.now
    harness.ledger.now = lambda: real() + 4 * 3600 * 1_000_000  # type: ignore[method-assign]
    assert not alive(ask, token)
    del harness.ledger.now
    assert ask.post("auth/token/create", {"ttl": "9999h"}).json["auth"]["lease_duration"] == 32 * DAY
    assert ask.post("auth/token/renew-self").error == "lease is not renewable"
    fixed = child(ask, renewable=False)
    assert ask.post("auth/token/renew-self", token=fixed).status == 400


def test_a_periodic_token_is_renewed_without_end(ask: Asker) -> None:
    token = child(ask, period="24h")
    assert ask.post("auth/token/renew-self", token=token).json["auth"]["lease_duration"] == DAY
    assert ask("GET", "auth/token/lookup-self", token=token).data["period"] == DAY
    service = ask.service("app")
    assert ask.post("auth/token/create", {"period": "24h"}, token=service).status == 400
    assert ask.post("auth/token/create-orphan", token=service).status == 403


@pytest.mark.parametrize("end", ["revoke parent", "revoke by accessor", "renew service", "deactivate", "expire"])
def test_children_end_with_their_parent(ask: Asker, harness: Harness, end: str) -> None:
    service = ask.service("app")
    first = child(ask, service, ttl="2h")
    second = child(ask, first)
    third = child(ask, second)
    stranger = child(ask)
    assert all(alive(ask, one) for one in (first, second, third))
    if end == "revoke parent":
        assert ask.post("auth/token/revoke", {"token": first}).status == 204
    elif end == "revoke by accessor":
        accessor = ask("GET", "auth/token/lookup-self", token=first).data["accessor"]
        assert ask.post("auth/token/revoke-accessor", {"accessor": accessor}).status == 204
    elif end == "renew service":
        harness.ask(RenewToken("app"))
    elif end == "deactivate":
        harness.ask(UpdateService("app", active=False))
    else:
        real = harness.ledger.now
        harness.ledger.now = lambda: real() + 3 * 3600 * 1_000_000  # type: ignore[method-assign]
    assert [alive(ask, one) for one in (first, second, third)] == [False] * 3
    assert alive(ask, stranger)


def test_an_orphan_outlives_its_maker(ask: Asker) -> None:
    maker = child(ask)
    orphan = ask.post("auth/token/create-orphan", token=maker).json["auth"]
    assert orphan["orphan"] is True
    ask.post("auth/token/revoke-self", token=maker)
    assert alive(ask, orphan["client_token"])


def test_others_tokens_are_none_of_a_services_business(ask: Asker) -> None:
    one, other = ask.service("one"), ask.service("other")
    theirs = child(ask, other)
    accessor = ask("GET", "auth/token/lookup-self", token=theirs).data["accessor"]
    for operation in ("lookup", "renew", "revoke"):
        assert ask.post(f"auth/token/{operation}", {"token": theirs}, token=one).status == 403
        assert ask.post(f"auth/token/{operation}-accessor", {"accessor": accessor}, token=one).status == 403
    sibling = child(ask, one)
    assert ask.post("auth/token/revoke", {"token": child(ask, one)}, token=sibling).status == 403
    assert ask.post("auth/token/revoke", {"token": sibling}, token=one).status == 204
    assert ask.post("auth/token/revoke-self", token=one).status == 400  # a service's own token ends natively
    for bad in ("hvs.x", "kvl_" + "0" * 16 + "_" + "0" * 43):
        assert ask.post("auth/token/lookup", {"token": bad}).status == 403
        assert ask.post("auth/token/renew", {"token": bad}).status == 400
        # Whoever revokes at the end of its work is not told of a failure.
        assert ask.post("auth/token/revoke", {"token": bad}).status == 204
        assert ask.post("auth/token/revoke", {"token": bad}, token=one).status == 403
    assert ask.post("auth/token/lookup-accessor", {"accessor": "absent"}).status == 400
    assert ask.post("auth/token/revoke-accessor", {"accessor": "absent"}).status == 204
    assert ask.post("auth/token/revoke-accessor", {"accessor": "absent"}, token=one).status == 403
    assert ask.post("auth/token/lookup", token=one).data["id"] == one


def test_a_renewal_by_accessor_shows_no_token(ask: Asker) -> None:
    """Not the caller's own either, which a client would take for the one that it has renewed."""
    token = child(ask)
    accessor = ask("GET", "auth/token/lookup-self", token=token).data["accessor"]
    renewed = ask.post("auth/token/renew-accessor", {"accessor": accessor}).json["auth"]
    assert (renewed["accessor"], renewed["client_token"]) == (accessor, "")
    assert ask.post("auth/token/renew", {"token": token}).json["auth"]["client_token"] == token


def test_a_maximum_that_was_asked_for_is_shown(ask: Asker) -> None:
    for body, shown in (({"explicit_max_ttl": "1h"}, 3600), ({"ttl": "1h"}, 0), ({"period": "1h"}, 0)):
        token = ask.post("auth/token/create", body).json["auth"]["client_token"]
        assert ask("GET", "auth/token/lookup-self", token=token).data["explicit_max_ttl"] == shown


@pytest.mark.parametrize(
    "how",
    [{"num_uses": 3}, {"id": "chosen"}, {"type": "batch"}, {"ttl": "11y"}, {"ttl": -1}],
)
def test_what_a_token_is_not(ask: Asker, how: dict[str, object]) -> None:
    assert ask.post("auth/token/create", how).status == 400


def test_a_policy_of_one_mount_opens_no_other(ask: Asker) -> None:
    """Neither one whose path begins with its own, nor one that comes there later."""
    assert ask.post("sys/mounts/team/billing", {"type": "transit"}).status == 204
    for key in ("team/billing/keys/pay", "team/billing/keys/x"):
        ask.post(key)
    text = ask.post("team/billing/encrypt/pay", {"plaintext": b64("secret")}).data["ciphertext"]
    rules = "".join(
        f'path "team/{operation}/*" {{ capabilities = ["update"] }} ' for operation in ("encrypt", "decrypt", "sign")
    )
    assert write(ask, "team", rules) == 204
    token = child(ask, policies=["team"])
    assert ask.post("team/billing/decrypt/pay", {"ciphertext": text}, token=token).status == 403
    assert ask.post("team/billing/encrypt/pay", {"plaintext": b64("x")}, token=token).status == 403
    assert ask.post("team/billing/datakey/plaintext/pay", token=token).status == 403
    assert ask("GET", "team/billing/keys/pay", token=token).status == 403
    assert ask("LIST", "team/billing/keys", token=token).status == 404
    shown = ask.post("sys/capabilities-self", {"paths": ["team/billing/decrypt/pay", "team/decrypt/x"]}, token=token)
    assert (shown.data["team/billing/decrypt/pay"], shown.data["team/decrypt/x"]) == (["deny"], ["update"])
    native = ask.service("native", ("vault:team/*", "decrypt"))  # a glob of the vault's own has no segments
    assert ask.post("team/billing/decrypt/pay", {"ciphertext": text}, token=native).status == 200


def test_a_token_of_named_policies_has_nothing_of_its_service(ask: Asker) -> None:
    ask.key("orders")
    text = ask.encrypt("orders")
    service = ask.service("app", ("vault:transit/*", "encrypt decrypt"))
    auditor = ask.service("watcher", role=Role.AUDITOR)
    role_id, secret_id = role(ask)
    ask.harness.ask(UpdateService("approle-web", grants=(grant("vault:transit/*", "decrypt"),)))
    ask.post("sys/policies/acl/children", {"policy": 'path "auth/token/create" { capabilities = ["update"] }'})
    ask.post("auth/approle/role/web", {"token_policies": ["children"]})
    _, logged_in = login(ask, role_id, secret_id)
    body = {"ciphertext": text}
    for parent in (service, logged_in):
        assert ask.post("transit/decrypt/orders", body, token=parent).status == 200
        same = child(ask, parent)
        assert ask.post("transit/decrypt/orders", body, token=same).status == 200
        narrow = child(ask, parent, policies=["default"])
        assert ask.post("transit/decrypt/orders", body, token=narrow).status == 403
        assert ask("GET", "auth/token/lookup-self", token=narrow).data["policies"] == ["default"]
        assert ask.post("auth/token/create", token=narrow).status == 403
    narrow = child(ask, auditor, policies=["default"])
    assert ask("LIST", "sys/policies/acl", token=auditor).status == 200
    assert ask("LIST", "sys/policies/acl", token=narrow).status == 403


def test_what_a_service_did_is_not_what_its_narrow_token_did(ask: Asker, harness: Harness) -> None:
    ask.key("orders")
    made = harness.last.id
    narrow = child(ask, policies=["default"])
    harness.refusal(ReadReceipt(made), NotFound, narrow)
    assert harness.ask(ReadReceipt(made))
    service = ask.service("app", ("vault:transit/*", "encrypt"))
    ask.post("transit/encrypt/orders", {"plaintext": b64("x")}, token=service)
    done = harness.last.id
    assert harness.ask(ReadReceipt(done), child(ask, service))
    harness.refusal(ReadReceipt(done), NotFound, child(ask, service, policies=["default"]))


def test_children_are_made_by_who_may(ask: Asker) -> None:
    """A token without policies may; one with, if one of them says so; and none outlives the token above it."""
    assert write(ask, "none", 'path "transit/encrypt/a" { capabilities = ["update"] }') == 204
    role_id, secret_id = role(ask, token_policies=["none"], token_max_ttl="1m")
    _, logged_in = login(ask, role_id, secret_id)
    assert ask.post("auth/token/create", token=logged_in).status == 403
    asked = {"paths": ["auth/token/create"]}
    assert ask.post("sys/capabilities-self", asked, token=logged_in).data["auth/token/create"] == ["deny"]
    assert write(ask, "none", 'path "auth/token/create" { capabilities = ["update"] }') == 204
    assert ask.post("sys/capabilities-self", asked, token=logged_in).data["auth/token/create"] == ["update"]
    made = ask.post("auth/token/create", {"ttl": "1h"}, token=logged_in).json
    assert made["auth"]["lease_duration"] <= 60
    assert "exceeded" in made["warnings"][0]
    kept = ask.harness.ledger.snapshot().token(TokenId(made["auth"]["accessor"]))
    assert kept is not None
    assert kept.expires_at is not None
    assert kept.expires_at - kept.created_at <= 60_000_000
    orphan = ask.post("auth/token/create-orphan", {"ttl": "48h"}).json["auth"]
    assert orphan["lease_duration"] > DAY
    assert write(ask, "later", "") == 400
    assert ask.post("auth/token/create", {"policies": ["later"]}).json["warnings"]


def test_tokens_can_be_found_and_ended(ask: Asker, harness: Harness) -> None:
    """One without a parent outlives the token that made it: it is on record, and in a list."""
    token = ask.post("auth/token/create-orphan", {"policies": ["default"]}).json["auth"]
    assert harness.last.draft.comment == f"accessor {token['accessor']}"
    role_id, secret_id = role(ask)
    logged_in = login(ask, role_id, secret_id)[1]
    accessor = ask("GET", "auth/token/lookup-self", token=logged_in).data["accessor"]
    assert harness.last.draft.action is Action.TOKEN_READ
    native = ask("GET", "auth/token/lookup-self").data["accessor"]
    listed = ask("LIST", "auth/token/accessors").data["keys"]
    assert {token["accessor"], accessor, native} <= set(listed)
    for other in (token["client_token"], ask.service("app")):
        assert ask("LIST", "auth/token/accessors", token=other).status == 403
    assert ask.post("sys/capabilities-accessor", {"accessor": accessor, "path": "transit/random"}).data[
        "capabilities"
    ] == ["update"]
    assert ask.post("sys/capabilities", {"token": harness.admin, "path": "transit/random"}).data["capabilities"] == [
        "root"
    ]
    assert ask.post("sys/capabilities", {"token": harness.admin, "path": "x"}, token=logged_in).status == 403
    assert ask.post("sys/capabilities", {"path": "x"}).status == 400
    assert ask.post("auth/token/revoke-accessor", {"accessor": token["accessor"]}).status == 204
    assert not alive(ask, token["client_token"])
    assert token["accessor"] not in ask("LIST", "auth/token/accessors").data["keys"]


def test_which_mounts_there_are_is_told_to_who_has_keys_there(ask: Asker) -> None:
    assert ask.post("sys/mounts/secret/project", {"type": "transit"}).status == 204
    ask.key("orders")
    auditor = ask.service("watcher", role=Role.AUDITOR)
    some, none = ask.service("some", ("vault:transit/ord*", "encrypt")), ask.service("none")
    everything = ask.service("everything", ("vault:*", "encrypt"))
    for path in ("sys/mounts", "sys/mounts/transit", "sys/auth", "transit/config/keys", "nowhere/config/keys"):
        assert ask("GET", path, token=some).status == 403
    assert ask("GET", "sys/mounts", token=auditor).status == ask("GET", "sys/auth", token=auditor).status == 200
    seen = {
        token: sorted(ask("GET", "sys/internal/ui/mounts", token=token).data["secret"])
        for token in (some, none, everything, auditor)
    }
    both = ["secret/project/", "transit/"]
    assert list(seen.values()) == [["transit/"], [], both, both]
    assert ask("GET", "sys/internal/ui/mounts/transit", token=some).status == 200
    assert ask("GET", "sys/internal/ui/mounts/secret/project", token=some).status == 403
    for mount in ("nowhere", "secret/project"):
        assert ask("LIST", f"{mount}/keys", token=some).status == 404
    assert ask("LIST", "nowhere/keys", token=some).body == ask("LIST", "secret/project/keys", token=some).body


def test_a_mount_that_was_disabled_has_another_wrapping_key(ask: Asker) -> None:
    first = ask("GET", "transit/wrapping_key").data["public_key"]
    assert ask("GET", "transit/wrapping_key").data["public_key"] == first
    assert ask("DELETE", "sys/mounts/transit").status == 204
    assert ask.post("sys/mounts/transit", {"type": "transit"}).status == 204
    assert ask("GET", "transit/wrapping_key").data["public_key"] != first


# Policies


def write(ask: Asker, name: str, rules: str) -> int:
    return ask.post(f"sys/policies/acl/{name}", {"policy": rules}).status


def test_a_token_is_held_to_its_policies(ask: Asker) -> None:
    for key in ("a", "b"):
        ask.key(key)
    children = 'path "auth/token/create" { capabilities = ["update"] }'
    assert write(ask, "p", 'path "transit/encrypt/a" { capabilities = ["update"] }') == 204
    assert write(ask, "children", children) == 204
    token = child(ask, policies=["p", "children"])
    plain = {"plaintext": b64("x")}
    assert ask.post("transit/encrypt/a", plain, token=token).status == 200
    assert ask.post("transit/encrypt/b", plain, token=token).status == 403
    assert ask.post("transit/encrypt/missing", plain, token=token).status == 403
    for path in ("transit/keys/new", "sys/mounts/x", "sys/policies/acl/q", "auth/approle/role/r"):
        assert ask.post(path, {"type": "transit", "policy": "x"}, token=token).status == 403
    narrower = child(ask, token)  # children are held to the same
    assert ask.post("transit/encrypt/b", plain, token=narrower).status == 403
    assert ask.post("auth/token/create", {"policies": ["root"]}, token=token).status == 400
    assert ask.post("auth/token/create", {"no_parent": True}, token=token).status == 403
    assert write(ask, "p", 'path "transit/encrypt/b" { capabilities = ["update"] }') == 204
    assert ask.post("transit/encrypt/b", plain, token=token).status == 200  # a policy is read at each use
    assert ask("DELETE", "sys/policies/acl/p").status == 204
    assert ask.post("transit/encrypt/b", plain, token=token).status == 403


def test_policies_are_kept_listed_and_guarded(ask: Asker) -> None:
    rules = 'path "transit/sign/k" { capabilities = ["update"] } # why'
    assert write(ask, "p", rules) == 204
    assert ask("GET", "sys/policies/acl/p").data == {"name": "p", "policy": rules}
    assert ask("GET", "sys/policy/p").json["rules"] == rules
    assert ask("LIST", "sys/policies/acl").data["keys"] == ["default", "p", "root"]
    assert compile_rules(read_policy(ask("GET", "sys/policies/acl/default").data["policy"])) == {}
    assert ask("GET", "sys/policies/acl/none").status == 404
    for name in ("root", "default"):
        assert write(ask, name, rules) == 400
        assert ask("DELETE", f"sys/policies/acl/{name}").status == 400
    token = ask.service("app")
    assert ask.post("sys/policies/acl/q", {"policy": rules}, token=token).status == 403


GOOD = {
    'path "transit/encrypt/a" { capabilities = ["update"] }': {"vault:transit/a": {"encrypt"}},
    'path "team/x/decrypt/app-*" { capabilities = ["update"] }': {"vault:team/x/app-*": {"decrypt"}},
    'path "transit/sign/a/*" { capabilities = ["update"] }': {"vault:transit/a": {"sign"}},
    'path "auth/token/renew-self" { capabilities = ["update"] }': {},
    '{"path": {"transit/verify/a": {"capabilities": ["update"]}}}': {"vault:transit/a": {"verify"}},
    """
    path "transit/encrypt/a" { capabilities = ["update"] }   // both, so that
    path "transit/decrypt/a" { capabilities = ["update",] }  /* rewrap follows */
    path "transit/rewrap/a" { capabilities = ["update"] }
    path "transit/datakey/wrapped/a" { capabilities = ["update"] }
    path "transit/keys/a" { capabilities = ["read"] }
    """: {"vault:transit/a": {"encrypt", "decrypt"}},
    'path "transit/encrypt/a" { capabilities = ["create", "list", "read", "update"] }': {
        "vault:transit/a": {"encrypt"}
    },
    'path "transit/keys" { capabilities = ["list"] } path "transit/keys/" { capabilities = ["list"] }': {},
    'path "auth/token/create" { capabilities = ["update"] }': {},
    'path "auth/token/create" { capabilities = ["create", "update"] }': {},
    '"path" "transit/encrypt/a" { "capabilities" = ["update"], }': {"vault:transit/a": {"encrypt"}},
    '{"path": [{"transit/verify/a": {"capabilities": ["update"]}}]}': {"vault:transit/a": {"verify"}},
}
BAD = [
    'path "/transit/encrypt/a" { capabilities = ["update"] }',
    'path "transit/*" { capabilities = ["update"] }',
    'path "*" { capabilities = ["update"] }',
    'path "transit/encrypt/a" { capabilities = ["create"] }',
    'path "transit/encrypt/a" { capabilities = ["delete", "update"] }',
    'path "transit/encrypt/{{identity.entity.name}}" { capabilities = ["update"] }',
    'path "auth/token/create" { capabilities = ["sudo", "update"] }',
    'path "auth/token/create" { capabilities = ["create"] }',
    'path "auth/token/create-orphan" { capabilities = ["update"] }',
    'path "transit/encrypt/a" { capabilities = ["deny"] }',
    'path "transit/encrypt/a" { capabilities = ["fly"] }',
    'path "+/encrypt/a" { capabilities = ["update"] }',
    'path "transit/encrypt/+" { capabilities = ["update"] }',
    'path "transit/encrypt/a*b" { capabilities = ["update"] }',
    'path "transit/rewrap/a" { capabilities = ["update"] }',
    'path "transit/hmac/a" { capabilities = ["update"] }',
    'path "transit/keys/a" { capabilities = ["read"] }',
    'path "transit/keys/a" { capabilities = ["update"] }',
    'path "transit/keys/a/rotate" { capabilities = ["update"] }',
    'path "transit/keys" { capabilities = ["list", "read"] }',
    'path "sys/mounts" { capabilities = ["read"] }',
    'path "secret/data/x" { capabilities = ["read"] }',
]


@pytest.mark.parametrize("source", GOOD)
def test_policies_that_are_grants(source: str) -> None:
    expected = {key: frozenset(map(Permission, held)) for key, held in GOOD[source].items()}
    assert compile_rules(read_policy(source)) == expected


@pytest.mark.parametrize("source", BAD)
def test_policies_that_are_none_name_the_rule(source: str) -> None:
    path = source.split('"')[1]
    with pytest.raises(InvalidRequest) as refused:
        compile_rules(read_policy(source))
    assert f'"{path}"' in refused.value.detail


@pytest.mark.parametrize(
    "source",
    [
        "path",
        'path "a"',
        'path "a" {',
        'path "a" { capabilities = "update" }',
        'path "a" { capabilities = ["update"] min_wrapping_ttl = "1s" }',
        'path "a" { policy = "write" }',
        'path a { capabilities = ["update"] }',
        'name = "x"',
        '{"path": {"a": {"capabilities": ["update"], "denied_parameters": {}}}}',
        '{"path": []}',
        "{",
        "@",
    ],
)
def test_what_is_no_policy(source: str) -> None:
    with pytest.raises(InvalidRequest):
        compile_rules(read_policy(source))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.text(string.ascii_letters + "/*+-_.", max_size=20), st.sampled_from(["update", "read"]))))
def test_no_policy_gives_more_than_it_says(rules: list[tuple[str, str]]) -> None:
    given_rules = tuple(PolicyRule(path, frozenset({capability})) for path, capability in rules)
    try:
        grants = compile_rules(given_rules)
    except InvalidRequest:
        return
    for pattern, held in grants.items():
        mount, _, name = pattern.removeprefix("vault:").rpartition("/")
        for permission in held:
            assert any(path.removesuffix("/*") == f"{mount}/{permission}/{name}" for path, _ in rules)


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(source: str) -> None:
    try:
        read_policy(source)
    except InvalidRequest:
        return


def test_capabilities(ask: Asker) -> None:
    ask.key("a")
    token = ask.service("app", ("vault:transit/a", "encrypt sign"))
    asked = {
        "transit/encrypt/a": ["update"],
        "transit/decrypt/a": ["deny"],
        "transit/rewrap/a": ["deny"],
        "transit/datakey/wrapped/a": ["update"],
        "transit/hmac/a": ["update"],
        "transit/encrypt/none": ["deny"],
        "transit/keys/a": ["read"],
        "transit/keys": ["list"],
        "sys/mounts": ["deny"],
        "auth/token/lookup-self": ["read", "update"],
    }
    answer = ask.post("sys/capabilities-self", {"paths": list(asked)}, token=token)
    assert answer.data == asked
    assert ask.post("sys/capabilities-self", {"path": "sys/mounts"}).data["capabilities"] == ["root"]
    assert ask.post("sys/capabilities-self", {}).status == 400


# AppRole


def role(ask: Asker, name: str = "web", **how: object) -> tuple[str, str]:
    assert ask.post(f"auth/approle/role/{name}", how).status == 204
    role_id = ask("GET", f"auth/approle/role/{name}/role-id").data["role_id"]
    return role_id, ask.post(f"auth/approle/role/{name}/secret-id").data["secret_id"]


def login(ask: Asker, role_id: str, secret_id: str) -> tuple[int, str]:
    answer = ask.post("auth/approle/login", {"role_id": role_id, "secret_id": secret_id}, token=None)
    return answer.status, answer.json["auth"]["client_token"] if answer.status == 200 else answer.error


def test_a_login_is_a_service_with_its_policies(ask: Asker, harness: Harness) -> None:
    ask.key("a")
    ask.key("b")
    write(ask, "p", 'path "transit/encrypt/a" { capabilities = ["update"] }')
    role_id, secret_id = role(ask, token_policies=["p"], token_ttl="10m")
    status, token = login(ask, role_id, secret_id)
    assert status == 200
    assert harness.last.draft.action is Action.LOGIN
    plain = {"plaintext": b64("x")}
    assert ask.post("transit/encrypt/a", plain, token=token).status == 200
    assert ask.post("transit/encrypt/b", plain, token=token).status == 403
    shown = ask("GET", "auth/token/lookup-self", token=token).data
    assert (shown["path"], shown["meta"]) == ("auth/approle/login", {"role_name": "web"})
    found = harness.ledger.snapshot().find_service("approle-web")
    assert found is not None
    assert found.role is Role.SERVICE
    harness.ask(UpdateService("approle-web", active=False))
    assert not alive(ask, token)
    assert login(ask, role_id, secret_id)[0] == 400


def test_credentials_that_are_wrong_are_one_answer(ask: Asker) -> None:
    role_id, secret_id = role(ask)
    accessor, _, secret = secret_id.partition(".")
    answers = {
        login(ask, role_id, "wrong"),
        login(ask, role_id, ""),
        login(ask, role_id, accessor + "." + secret[::-1]),
        login(ask, role_id, "." + secret),
        login(ask, "wrong", secret_id),
        login(ask, "", ""),
        login(ask, role(ask, "other")[0], secret_id),
    }
    assert answers == {(400, "invalid role or secret ID")}
    assert ask.last.draft.action is not Action.LOGIN


def test_secrets_are_counted_and_end(ask: Asker, harness: Harness) -> None:
    role_id, secret_id = role(ask, secret_id_num_uses=2, secret_id_ttl="1h")
    assert [login(ask, role_id, secret_id)[0] for _ in range(3)] == [200, 200, 400]
    made = ask.post("auth/approle/role/web/secret-id").data
    assert ask("LIST", "auth/approle/role/web/secret-id").data["keys"] == [made["secret_id_accessor"]]
    real = harness.ledger.now
    harness.ledger.now = lambda: real() + 2 * 3600 * 1_000_000  # type: ignore[method-assign]
    assert login(ask, role_id, made["secret_id"])[0] == 400
    del harness.ledger.now
    destroy = "auth/approle/role/web/secret-id-accessor/destroy"
    assert ask.post(destroy, {"secret_id_accessor": made["secret_id_accessor"]}).status == 204
    assert login(ask, role_id, made["secret_id"])[0] == 400
    assert ask.post(destroy, {"secret_id_accessor": made["secret_id_accessor"]}).status == 404


SECRETS = "auth/approle/role/web/secret-id"


def test_a_secret_may_have_less_than_its_role(ask: Asker) -> None:
    role_id, _ = role(ask, secret_id_num_uses=5, secret_id_ttl="2h")
    made = ask.post(SECRETS, {"ttl": "1h", "num_uses": 1, "metadata": '{"host": "a", "role_name": "other"}'}).data
    assert (made["secret_id_ttl"], made["secret_id_num_uses"]) == (3600, 1)
    answer = ask.post("auth/approle/login", {"role_id": role_id, "secret_id": made["secret_id"]}, token=None)
    assert answer.json["auth"]["metadata"] == {"host": "a", "role_name": "web"}
    assert login(ask, role_id, made["secret_id"])[0] == 400
    for more in (
        {"ttl": "3h"},
        {"ttl": 0},
        {"num_uses": 6},
        {"num_uses": 0},
        {"num_uses": -1},
        {"metadata": "x"},
        {"metadata": '{"a": 1}'},
        {"metadata": "[]"},
        {"cidr_list": "10.0.0.0/8"},
        {"token_bound_cidrs": ["10.0.0.0/8"]},
    ):
        assert ask.post(SECRETS, more).status == 400, more
    role(ask, "free")
    made = ask.post("auth/approle/role/free/secret-id", {"ttl": "9h", "num_uses": 7}).data
    assert (made["secret_id_ttl"], made["secret_id_num_uses"]) == (9 * 3600, 7)


def test_a_secret_takes_the_place_of_one_that_has_ended(
    ask: Asker, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a role whose secrets are used once has as many rows as secrets that hold."""

    def rows() -> int:
        (count,) = harness.ledger._writer.connection.execute("SELECT count(*) FROM settings").fetchone()
        return int(count)

    role_id, kept = role(ask)
    before, ended = rows(), []
    for _ in range(3):
        made = ask.post(SECRETS, {"num_uses": 1}).data
        assert login(ask, role_id, made["secret_id"])[0] == 200
        ended.append(made)
    short = ask.post(SECRETS, {"ttl": "1h"}).data
    late = harness.ledger.now() + 3601 * 1_000_000
    monkeypatch.setattr(harness.ledger, "now", lambda: late)
    holding = [ask.post(SECRETS).data for _ in range(2)]
    assert rows() == before + 2
    ended.append(short)
    assert [login(ask, role_id, one["secret_id"])[0] for one in ended] == [400] * 4
    for one in ended:
        body = {"secret_id_accessor": one["secret_id_accessor"]}
        assert ask.post("auth/approle/role/web/secret-id-accessor/lookup", body).status == 404
        assert ask.post("auth/approle/role/web/secret-id-accessor/destroy", body).status == 404
        assert ask.post(f"{SECRETS}/lookup", {"secret_id": one["secret_id"]}).status == 204
    assert all(login(ask, role_id, one)[0] == 200 for one in (kept, *(one["secret_id"] for one in holding)))
    listed = ask("LIST", SECRETS).data["keys"]
    assert sorted(listed) == sorted([kept.partition(".")[0], *(one["secret_id_accessor"] for one in holding)])


def test_secrets_made_at_once_have_places_of_their_own(harness: Harness, ask: Asker) -> None:
    role(ask)
    made = harness.together(*(harness.perform(CreateSecretId("web")) for _ in range(20)))
    assert len({one.result.accessor.partition("-")[2] for one in made}) == 20


def test_a_secret_of_a_row_of_its_own_holds(harness: Harness, ask: Asker) -> None:
    """As the first ones were kept."""
    role_id, _ = role(ask)
    accessor, secret = new_token()
    digest = encode_base64(harness.vault.keyring.token_digest(accessor, secret))
    value: dict[str, object] = {
        "digest": digest,
        "expires_at": None,
        "uses": 2,
        "created_at": harness.ledger.now(),
        "meta": {},
    }
    change = Change(settings=(Setting(f"vault/approle/secrets/web/{accessor}", value),))
    outcome = Outcome((Draft(action=Action.SERVICE_UPDATE, result=Result.SUCCESS, request_id=bytes(16)),), None, change)
    harness.run(harness.ledger.commit(outcome, harness.ledger.snapshot().snapshot_version, lambda _: outcome))
    assert login(ask, role_id, f"{accessor}.{secret}")[0] == 200
    assert accessor in ask("LIST", SECRETS).data["keys"]
    found = ask.post(f"{SECRETS}/lookup", {"secret_id": f"{accessor}.{secret}"}).data
    assert (found["secret_id_accessor"], found["secret_id_num_uses"]) == (accessor, 1)
    assert [login(ask, role_id, f"{accessor}.{secret}")[0] for _ in range(2)] == [200, 400]


def test_a_secret_is_looked_up_by_itself_and_by_its_accessor(ask: Asker, harness: Harness) -> None:
    role_id, secret_id = role(ask, secret_id_num_uses=5)
    made = ask.post(SECRETS, {"ttl": "1h", "metadata": '{"host": "a"}'}).data
    by_itself = {"secret_id": made["secret_id"]}
    by_accessor = {"secret_id_accessor": made["secret_id_accessor"]}
    found = ask.post(f"{SECRETS}/lookup", by_itself).data
    assert found == ask.post(f"{SECRETS}-accessor/lookup", by_accessor).data
    assert (found["secret_id_ttl"], found["secret_id_num_uses"], found["metadata"]) == (3600, 5, {"host": "a"})
    assert (found["creation_time"] < found["expiration_time"], "secret_id" in found) == (True, False)
    endless = ask.post(f"{SECRETS}/lookup", {"secret_id": secret_id}).data
    assert (endless["expiration_time"], endless["secret_id_ttl"]) == ("0001-01-01T00:00:00Z", 0)
    login(ask, role_id, made["secret_id"])
    assert ask.post(f"{SECRETS}/lookup", by_itself).data["secret_id_num_uses"] == 4
    # Not as another role's, not with a wrong secret, not by who may not read roles.
    role(ask, "other")
    assert ask.post("auth/approle/role/other/secret-id/lookup", by_itself).status == 204
    assert ask.post("auth/approle/role/other/secret-id-accessor/lookup", by_accessor).status == 404
    assert ask.post(f"{SECRETS}/lookup", {"secret_id": made["secret_id"][:-1]}).status == 204
    assert ask.post(f"{SECRETS}/lookup", by_itself, token=ask.service("app")).status == 403
    for body in ({}, {"secret_id": ""}):
        assert ask.post(f"{SECRETS}/lookup", body).status == 400
    assert ask.post("auth/approle/role/none/secret-id/lookup", by_itself).status == 404
    assert ask.post(f"{SECRETS}/destroy", {"secret_id": made["secret_id"][:-1]}).status == 204
    assert login(ask, role_id, made["secret_id"])[0] == 200
    assert [ask.post(f"{SECRETS}/destroy", by_itself).status for _ in range(2)] == [204, 204]
    assert login(ask, role_id, made["secret_id"])[0] == 400
    assert ask.post(f"{SECRETS}/lookup", by_itself).status == 204
    assert harness.ledger.verify().findings == ()


def test_the_life_of_a_role(ask: Asker) -> None:
    role_id, secret_id = role(ask)
    assert ask("GET", "auth/approle/role/web").data["token_policies"] == []
    assert ask.post("auth/approle/role/web", {"token_ttl": "5m"}).status == 204
    assert ask("GET", "auth/approle/role/web").data["token_ttl"] == 300
    assert ask.post("auth/approle/role/web/role-id", {"role_id": "chosen"}).status == 204
    assert login(ask, role_id, secret_id)[0] == 400
    status, token = login(ask, "chosen", secret_id)
    assert status == 200
    assert ask("LIST", "auth/approle/role").data["keys"] == ["web"]
    assert ask("DELETE", "auth/approle/role/web").status == ask("DELETE", "auth/approle/role/web").status == 204
    assert not alive(ask, token)
    assert ask("LIST", "auth/approle/role").status == 404
    for bad in ({"bind_secret_id": False}, {"token_bound_cidrs": ["10.0.0.0/8"]}, {"token_policies": ["root"]}):
        assert ask.post("auth/approle/role/other", bad).status == 400
    assert {one.rstrip("/") for one in ask("GET", "sys/auth").data} == {"approle", "token"}
    assert ask.post("sys/auth/approle", {"type": "approle"}).status == 204
    assert ask.post("sys/auth/userpass", {"type": "userpass"}).status == 400
    service = ask.service("app")
    assert ask.post("sys/auth/approle", {"type": "approle"}, token=service).status == 403
    for path in ("role/x", "role/web/secret-id", "role/web/role-id"):
        assert ask.post(f"auth/approle/{path}", {}, token=service).status == 403


def test_a_token_whose_service_is_not_there_is_no_token(harness: Harness) -> None:
    made = harness.ask(CreateToken(orphan=True)).facts.token
    state = harness.ledger.snapshot()
    state.apply(Change(tokens=(replace(made, service_id=ServiceId(new_id())),)))
    harness.refusal(ReadToken(accessor=made.id), InvalidRequest)


@pytest.mark.sqlite_only
def test_a_row_that_was_edited_is_blamed_alone(ask: Asker, harness: Harness) -> None:
    """Making and using a role names its service in the log, and writes no row of it."""
    role(ask)
    ask.post(SECRETS)
    ask.post("auth/approle/role/web/role-id", {"role_id": "chosen"})
    ask.post("sys/policies/acl/p", {"policy": 'path "transit/encrypt/orders" { capabilities = ["update"] }'})
    harness.vault.close()
    with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
        connection.execute("UPDATE settings SET value = '{}' WHERE name = 'vault/policies/p'")
    found = verify(harness.settings).findings
    assert [(one.table, one.row) for one in found] == [("settings", "vault/policies/p")]
    repair_vault(harness.settings)
    harness.open()
    assert harness.ledger.snapshot().find_service("approle-web") is not None
