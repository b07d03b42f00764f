"""Roles of AppRole by their parts, their ids, and their secrets' end: as clients of both products manage them."""

from collections.abc import Mapping

import pytest

from keyvault_lite.dialects.vault import approle
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import Role
from tests.support.harness import Harness
from tests.support.vault_client import Asker, b64
from tests.unit.dialects.vault.test_access import alive, login, role

ROLE = "auth/approle/role/web"
POLICY = 'path "transit/encrypt/orders" { capabilities = ["update"] }'


@pytest.mark.parametrize(
    ("part", "body", "shown", "nothing"),
    [
        ("policies", {"token_policies": "a,b"}, {"token_policies": ["a", "b"]}, []),
        ("policies", {"policies": ["a"]}, {"token_policies": ["a"]}, []),
        ("policies", {"token_policies": None, "policies": ["a"]}, {"token_policies": ["a"]}, []),
        ("token-ttl", {"token_ttl": "20m"}, {"token_ttl": 1200}, 0),
        ("token-max-ttl", {"token_max_ttl": 3600}, {"token_max_ttl": 3600}, 0),
        ("secret-id-ttl", {"secret_id_ttl": "1.5h"}, {"secret_id_ttl": 5400}, 0),
        ("secret-id-num-uses", {"secret_id_num_uses": "5"}, {"secret_id_num_uses": 5}, 0),
        ("period", {"token_period": "24h"}, {"token_period": 86_400}, 0),
        ("period", {"period": "24h"}, {"token_period": 86_400}, 0),
    ],
)
def test_a_part_of_a_role(
    ask: Asker, part: str, body: Mapping[str, object], shown: Mapping[str, object], nothing: object
) -> None:
    path = f"{ROLE}/{part}"
    assert ask("GET", path).status == 404
    assert ask.post(path, body).error == "unsupported path"
    assert ask("DELETE", path).status == 204
    assert ask("GET", ROLE).status == 404, "none of it makes a role"
    role(ask)
    before = ask("GET", ROLE).data
    assert ask.post(path, body).status == 204
    assert ask.last.draft.action is Action.SERVICE_UPDATE
    assert ask("GET", path).data == shown
    assert ask("GET", ROLE).data == {**before, **shown}
    assert ask("DELETE", path).status == 204
    assert ask("GET", path).data == dict.fromkeys(shown, nothing)
    assert ask("GET", ROLE).data == before
    for missing in ({}, {"zz": 1}, dict.fromkeys(body)):
        assert ask.post(path, missing).error == f"missing {next(iter(shown))}"


def test_parts_are_for_who_manages_roles(ask: Asker) -> None:
    role(ask, token_ttl="20m")
    service, auditor = ask.service("app"), ask.service("watcher", role=Role.AUDITOR)
    path = f"{ROLE}/token-ttl"
    assert [ask("GET", path, token=one).status for one in (auditor, service)] == [200, 403]
    for token in (service, auditor):
        assert ask.post(path, {"token_ttl": 1}, token=token).status == 403
        assert ask("DELETE", path, token=token).status == 403
        assert ask.post("auth/approle/tidy/secret-id", token=token).status == 403
    assert ask("GET", path).data == {"token_ttl": 1200}


@pytest.mark.parametrize(
    ("part", "bad"),
    [
        ("token-ttl", {"token_ttl": "x"}),
        ("token-ttl", {"token_ttl": -1}),
        ("secret-id-num-uses", {"secret_id_num_uses": -1}),
        ("secret-id-ttl", {"secret_id_ttl": "3651d"}),
        ("policies", {"token_policies": [str(one) for one in range(65)]}),
        ("policies", {"token_policies": ["a b"]}),
        ("policies", {"token_policies": ["root"]}),
    ],
)
def test_a_part_is_checked_as_in_the_whole(ask: Asker, part: str, bad: Mapping[str, object]) -> None:
    role(ask)
    before = ask("GET", ROLE).data
    assert ask.post(f"{ROLE}/{part}", bad).status == 400
    assert ask.post(ROLE, bad).status == 400
    assert ask("GET", ROLE).data == before


def test_a_ttl_is_within_its_maximum(ask: Asker) -> None:
    refusal = "'token_ttl' cannot be greater than 'token_max_ttl'"
    assert ask.post(ROLE, {"token_ttl": "2h", "token_max_ttl": "1h"}).error == refusal
    assert ask("GET", ROLE).status == 404
    assert ask.post(ROLE, {"token_ttl": "2h"}).status == 204
    assert ask.post(ROLE, {"token_max_ttl": "1h"}).error == refusal
    assert ask.post(f"{ROLE}/token-max-ttl", {"token_max_ttl": "1h"}).error == refusal
    assert ask.post(ROLE, {"token_max_ttl": "2h"}).status == 204
    assert ask.post(f"{ROLE}/token-ttl", {"token_ttl": "7201s"}).error == refusal
    assert (ask("GET", ROLE).data["token_ttl"], ask("GET", ROLE).data["token_max_ttl"]) == (7200, 7200)


def test_a_role_that_was_written_before_its_bounds_were_checked_still_changes() -> None:
    kept = {"token_ttl": 7200, "token_max_ttl": 3600}
    assert approle._changed(kept, {"secret_id_uses": 1}).items() >= {**kept, "secret_id_uses": 1}.items()


def test_the_role_id_in_the_roles_own_body(ask: Asker) -> None:
    _, secret_id = role(ask, role_id="chosen")
    assert ask("GET", f"{ROLE}/role-id").data == {"role_id": "chosen"}
    assert login(ask, "chosen", secret_id)[0] == 200
    assert ask.post("auth/approle/role/other", {"role_id": "chosen"}).error == "this role id is another role's"
    assert ask("GET", "auth/approle/role/other").status == 404
    assert ask.post(ROLE, {"role_id": "next", "token_ttl": "5m"}).status == 204
    assert ask("GET", ROLE).data["token_ttl"] == 300
    assert [login(ask, one, secret_id)[0] for one in ("chosen", "next")] == [400, 200]
    assert ask.post(ROLE, {"role_id": "next", "token_ttl": "6m"}).status == 204
    assert ask.post("auth/approle/role/other", {"role_id": "chosen"}).status == 204, "it was given up"
    for bad in ("", None, "a/b", "a\x00b", "x" * 129):
        assert ask.post(ROLE, {"role_id": bad, "token_ttl": "1m"}).status == 400
        assert ask.post("auth/approle/role/third", {"role_id": bad}).status == 400
    assert ask("GET", "auth/approle/role/third").status == 404
    assert (ask("GET", ROLE).data["token_ttl"], login(ask, "next", secret_id)[0]) == (360, 200)


def test_a_policy_that_is_not_there_yet_gives_nothing(ask: Asker) -> None:
    ask.key("orders")
    role_id, secret_id = role(ask, token_policies=["later"])
    _, token = login(ask, role_id, secret_id)
    plain = {"plaintext": b64("x")}
    assert alive(ask, token)
    assert ask.post("transit/encrypt/orders", plain, token=token).status == 403
    assert ask.post("sys/policies/acl/later", {"policy": POLICY}).status == 204
    assert ask.post("transit/encrypt/orders", plain, token=token).status == 200
    assert ask("DELETE", "sys/policies/acl/later").status == 204
    assert ask.post("transit/encrypt/orders", plain, token=token).status == 403


@pytest.mark.parametrize("name", ["token_strictly_bind_ip", "bound_cidr_list", "token_num_uses"])
def test_what_would_silently_not_hold_is_refused(ask: Asker, name: str) -> None:
    assert ask.post(ROLE, {name: "1"}).error == f"{name} is not offered here"
    assert ask("GET", ROLE).status == 404


@pytest.mark.parametrize("nothing", [None, "", 0, "0", False, "false", []])
def test_not_asking_for_what_is_not_offered(ask: Asker, nothing: object) -> None:
    for name in ("token_num_uses", "token_no_default_policy", "token_bound_cidrs"):
        assert ask.post(ROLE, {name: nothing}).status == 204


def test_secrets_are_destroyed_by_delete_too(ask: Asker) -> None:
    role_id, secret_id = role(ask)
    other = ask.post(f"{ROLE}/secret-id").data
    assert ask("DELETE", f"{ROLE}/secret-id/destroy?secret_id={secret_id}").status == 204
    assert ask("DELETE", f"{ROLE}/secret-id/destroy?secret_id={secret_id}").status == 204
    by_accessor = f"{ROLE}/secret-id-accessor/destroy?secret_id_accessor={other['secret_id_accessor']}"
    service = ask.service("app")
    assert ask("DELETE", by_accessor, token=service).status == 403
    assert ask("DELETE", by_accessor).status == 204
    assert ask("DELETE", by_accessor).status == 404
    assert [login(ask, role_id, one)[0] for one in (secret_id, other["secret_id"])] == [400, 400]
    for path in ("secret-id", "secret-id-accessor"):
        assert ask("DELETE", f"{ROLE}/{path}/destroy").error.startswith("missing secret_id")
        assert ask("GET", f"{ROLE}/{path}/destroy").status == 405


def test_tidying_forgets_what_is_past_its_end_and_nothing_else(
    ask: Asker, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    role_id, kept = role(ask)
    for _ in range(3):
        ask.post(f"{ROLE}/secret-id", {"ttl": "1h"})
    late = harness.ledger.now() + 3601 * 1_000_000
    monkeypatch.setattr(harness.ledger, "now", lambda: late)
    assert len(ask("LIST", f"{ROLE}/secret-id").data["keys"]) == 4
    monkeypatch.setattr(approle, "MAX_TIDIED", 2)
    for left in (2, 1, 1):
        answer = ask.post("auth/approle/tidy/secret-id")
        assert (answer.status, answer.json["data"]) == (202, None)
        assert answer.json["warnings"] == ["Tidy operation successfully started."]
        assert len(ask("LIST", f"{ROLE}/secret-id").data["keys"]) == left
    assert login(ask, role_id, kept)[0] == 200
    assert ask("GET", "auth/approle/tidy/secret-id").status == 405
    assert harness.ledger.verify().findings == ()


def test_names_are_listed_by_pages(ask: Asker) -> None:
    for name in ("a", "b", "c"):
        role(ask, name)
    for query, names in (
        ("limit=2", ["a", "b"]),
        ("after=a&limit=1", ["b"]),
        ("after=b", ["c"]),
        ("limit=0", ["a", "b", "c"]),
        ("limit=-1", ["a", "b", "c"]),
    ):
        answer = ask("LIST", f"auth/approle/role?{query}")
        assert (answer.data["keys"], answer.json["warnings"]) == (names, None)
    assert ask("LIST", "auth/approle/role?after=c").status == 404
    assert ask("LIST", "auth/approle/role?limit=x").status == 400
    ask.post("auth/approle/role/a/secret-id")
    first, second = ask("LIST", "auth/approle/role/a/secret-id").data["keys"]
    assert ask("LIST", "auth/approle/role/a/secret-id?limit=1").data["keys"] == [first]
    assert ask("LIST", f"auth/approle/role/a/secret-id?after={first}").data["keys"] == [second]
    assert ask("LIST", "auth/approle/role/a/secret-id?limit=x").status == 400
