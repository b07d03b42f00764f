"""AppRole at several paths: roles of their own at each, and an end that takes its roles and their tokens along."""

from collections.abc import Mapping
from typing import Any

import pytest

from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import Role
from tests.support.harness import Harness
from tests.support.vault_client import Answer, Asker
from tests.unit.dialects.vault.test_access import alive

DAYS_32 = 32 * 86_400


@pytest.fixture
def two(ask: Asker) -> Asker:
    for mount in ("ci", "team/ops"):
        assert ask.post(f"sys/auth/{mount}", {"type": "approle", "description": f"for {mount}"}).status == 204
    return ask


def role(ask: Asker, mount: str, name: str = "web", **how: object) -> tuple[str, str]:
    assert ask.post(f"auth/{mount}/role/{name}", how).status == 204
    role_id = ask("GET", f"auth/{mount}/role/{name}/role-id").data["role_id"]
    return role_id, ask.post(f"auth/{mount}/role/{name}/secret-id").data["secret_id"]


def login(ask: Asker, mount: str, role_id: str, secret_id: str) -> Answer:
    return ask.post(f"auth/{mount}/login", {"role_id": role_id, "secret_id": secret_id}, token=None)


def test_credentials_are_good_at_their_own_mount_alone(two: Asker) -> None:
    mounts = ("approle", "ci", "team/ops")
    held = {mount: role(two, mount, role_id="same") for mount in mounts}
    for mount in mounts:
        answers = {one: login(two, mount, *held[one]) for one in mounts}
        assert {one for one, answer in answers.items() if answer.status == 200} == {mount}
        auth = answers[mount].json["auth"]
        shown = two("GET", "auth/token/lookup-self", token=auth["client_token"]).data
        assert shown["path"] == f"auth/{mount}/login"
        assert shown["display_name"] == mount.replace("/", "-")
        assert {answers[one].error for one in mounts if one != mount} == {"invalid role or secret ID"}


def test_each_mount_has_roles_services_and_secrets_of_its_own(two: Asker, harness: Harness) -> None:
    for mount, ttl in (("approle", "1m"), ("ci", "2m"), ("team/ops", "3m")):
        role(two, mount, token_ttl=ttl)
    assert [two("GET", f"auth/{mount}/role/web").data["token_ttl"] for mount in ("approle", "ci", "team/ops")] == [
        60,
        120,
        180,
    ]
    state = harness.ledger.snapshot()
    assert all(state.find_service(name) for name in ("approle-web", "ci-web", "team-ops-web"))
    two.post("auth/ci/role/other")
    assert two("LIST", "auth/ci/role").data["keys"] == ["other", "web"]
    assert two("LIST", "auth/approle/role").data["keys"] == ["web"]
    assert two.post("auth/ci/role/web/token-ttl", {"token_ttl": "5m"}).status == 204
    assert two("GET", "auth/team/ops/role/web/token-ttl").data == {"token_ttl": 180}
    (accessor,) = two("LIST", "auth/ci/role/web/secret-id").data["keys"]
    named = {"secret_id_accessor": accessor}
    assert two.post("auth/team/ops/role/web/secret-id-accessor/destroy", named).status == 404
    assert two.post("auth/ci/role/web/secret-id-accessor/lookup", named).status == 200
    assert two.post("auth/ci/role/web/secret-id-accessor/destroy", named).status == 204
    assert two("DELETE", "auth/ci/role/web").status == 204
    assert two("GET", "auth/approle/role/web").status == 200


def test_disabling_a_mount_ends_its_roles_and_their_tokens(two: Asker, harness: Harness) -> None:
    held = {mount: role(two, mount) for mount in ("approle", "ci", "team/ops")}
    tokens = {mount: login(two, mount, *one).json["auth"]["client_token"] for mount, one in held.items()}
    assert two("DELETE", "sys/auth/ci").status == 204
    assert (harness.last.draft.action, harness.last.draft.comment) == (Action.SETTING_UPDATE, "auth/ci")
    assert [alive(two, tokens[mount]) for mount in held] == [True, False, True]
    assert login(two, "ci", *held["ci"]).error == "invalid role or secret ID"
    for method, path in (("GET", "role/web"), ("LIST", "role"), ("POST", "role/web"), ("POST", "tidy/secret-id")):
        answer = two(method, f"auth/ci/{path}")
        assert (answer.status, answer.error) == (404, 'no handler for route "auth/ci/". route entry not found.')
    assert "ci/" not in two("GET", "sys/auth").data
    # Enabled again, it begins without any role, and what was good before is good no more.
    assert two.post("sys/auth/ci", {"type": "approle"}).status == 204
    assert two("LIST", "auth/ci/role").status == 404
    assert login(two, "ci", *held["ci"]).status == 400
    assert not alive(two, tokens["ci"])
    assert login(two, "ci", *role(two, "ci")).status == 200
    assert harness.ledger.verify().findings == ()
    harness.reopen()
    assert [alive(Asker(harness), tokens[mount]) for mount in held] == [True, False, True]


def test_the_mount_from_the_beginning_can_be_disabled_and_enabled_again(ask: Asker) -> None:
    held = role(ask, "approle")
    assert ask.post("sys/auth/approle", {"type": "approle"}).status == 204, "for the first time"
    assert ask.post("sys/auth/approle", {"type": "approle"}).error == "path is already in use at approle/"
    assert login(ask, "approle", *held).status == 200, "enabling it has changed nothing"
    assert ask("DELETE", "sys/auth/approle").status == 204
    assert login(ask, "approle", *held).status == 400
    assert ask("GET", "sys/auth/approle").status == 400
    assert ask.post("sys/auth/approle", {"type": "approle"}).status == 204
    assert ask("LIST", "auth/approle/role").status == 404


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("ci", {"type": "approle"}, "path is already in use at ci/"),
        ("team", {"type": "approle"}, "path is already in use at team/ops/"),
        ("ci/deeper", {"type": "approle"}, "path is already in use at ci/"),
        ("token", {"type": "approle"}, "path is already in use at token/"),
        ("token/x", {"type": "approle"}, "path is already in use at token/"),
        ("x", {"type": "token"}, "token credential backend cannot be instantiated"),
        ("x", {"type": "userpass"}, "the only auth method that can be enabled here is approle"),
        ("x", {}, "backend type must be specified as a string"),
        ("x/login", {"type": "approle"}, "a mount path has no segment that is an operation of an auth method"),
        ("role/x", {"type": "approle"}, "a mount path has no segment that is an operation of an auth method"),
        ("x", {"type": "approle", "config": {"max_lease_ttl": "800h"}}, f"at most {DAYS_32} seconds"),
        ("x", {"type": "approle", "config": {"token_type": "batch"}}, "token_type is fixed here"),
        ("x", {"type": "approle", "config": {"max_lease_ttl": "1h", "default_lease_ttl": "2h"}}, "would be less than"),
        ("a" * 129, {"type": "approle"}, "128 characters"),
    ],
)
def test_what_cannot_be_enabled(two: Asker, path: str, body: Mapping[str, Any], said: str) -> None:
    before = two("GET", "sys/auth").data
    answer = two.post(f"sys/auth/{path}", body)
    assert (answer.status, said in answer.error) == (400, True), answer.error
    assert two("GET", "sys/auth").data == before


def test_limits_of_a_mount_hold_for_its_logins(ask: Asker) -> None:
    limits = {"default_lease_ttl": "10m", "max_lease_ttl": "1h"}
    assert ask.post("sys/auth/ci", {"type": "approle", "config": limits}).status == 204
    held = role(ask, "ci")

    def lease() -> int:
        seconds: int = login(ask, "ci", *held).json["auth"]["lease_duration"]
        return seconds

    assert lease() == 600
    ask.post("auth/ci/role/web", {"token_ttl": "2h"})
    assert lease() == 3600, "no role has more than its mount"
    assert ask.post("sys/auth/ci/tune", {"default_lease_ttl": "2h"}).status == 400
    assert ask.post("sys/mounts/auth/ci/tune", {"max_lease_ttl": "3h", "description": "other"}).status == 204
    assert lease() == 7200
    shown = ask("GET", "sys/auth/ci/tune").data
    assert (shown["default_lease_ttl"], shown["max_lease_ttl"], shown["description"]) == (600, 10_800, "other")
    assert ask.post("sys/auth/ci/tune", {"max_lease_ttl": 0, "default_lease_ttl": 0}).status == 204
    ask.post("auth/ci/role/web", {"token_ttl": 0})
    assert lease() == DAYS_32


def test_who_may_do_what_with_mounts(two: Asker) -> None:
    service, auditor = two.service("app"), two.service("watcher", role=Role.AUDITOR)
    for token, reads in ((service, 403), (auditor, 200), (None, 403)):
        for path in ("sys/auth", "sys/auth/ci", "sys/auth/ci/tune", "sys/mounts/auth/ci"):
            assert two("GET", path, token=token).status == reads
        assert two.post("sys/auth/new", {"type": "approle"}, token=token).status == 403
        assert two.post("sys/auth/ci/tune", {"description": "x"}, token=token).status == 403
        assert two("DELETE", "sys/auth/ci", token=token).status == 403
        assert two.post("auth/ci/role/web", token=token).status == 403
    # Whether a mount is there is told to nobody who may not know.
    for mount in ("ci", "nowhere"):
        assert two("LIST", f"auth/{mount}/role", token=service).status == 403
        assert login(two, mount, "x", "y").error == "invalid role or secret ID"


@pytest.mark.parametrize("written", ["team/ops", "team%2Fops", "team%2fops"])
def test_a_slash_of_a_mount_may_come_escaped(two: Asker, written: str) -> None:
    held = role(two, "team/ops")
    assert login(two, written, *held).status == 200
    assert two("GET", f"auth/{written}/role/web").status == 200
    assert two.post(f"auth/{written}%2Flogin", {}, token=None).status == 404
    assert two("GET", "auth%2Fteam/ops/role/web").status == 404
    assert two("GET", "auth/token%2Fx/role/web").status == 404


def test_no_mount_reads_what_is_kept_of_another(ask: Asker, harness: Harness) -> None:
    """Paths that begin like others, or like what the vault keeps of others."""
    mounts = ("a", "a.roles", "roles", "ids/roles", "approle.x", "b/c", "b-c")
    for mount in mounts:
        assert ask.post(f"sys/auth/{mount}", {"type": "approle"}).status == 204
        role(ask, mount, mount.replace("/", "_"))
    for mount in mounts:
        assert ask("LIST", f"auth/{mount}/role").data["keys"] == [mount.replace("/", "_")]
    assert ask("DELETE", "sys/auth/a").status == 204
    assert {f"{mount}/" for mount in mounts} - {"a/"} <= set(ask("GET", "sys/auth").data)
    for mount in mounts[1:]:
        assert ask("LIST", f"auth/{mount}/role").data["keys"] == [mount.replace("/", "_")]
    harness.reopen()
    assert len(Asker(harness)("GET", "sys/auth").data) == len(mounts) - 1 + 2


def test_what_terraform_does_with_an_auth_backend(ask: Asker) -> None:
    """The calls of `vault_auth_backend` and `vault_approle_auth_backend_role` and what hangs on it, in their order."""

    def write(path: str, body: object) -> Answer:
        return ask("PUT", path, body)

    child = ask.post("auth/token/create", {"ttl": "20m", "display_name": "terraform", "explicit_max_ttl": "20m"})
    token = child.json["auth"]["client_token"]
    config = {"default_lease_ttl": "", "max_lease_ttl": "", "force_no_cache": False, "options": None}
    made = {"type": "approle", "description": "pipelines", "config": config, "local": False, "seal_wrap": False}
    assert ask.post("sys/auth/pipelines", made, token=token).status == 204
    listed = ask("GET", "sys/auth").data["pipelines/"]
    assert (listed["type"], listed["description"], listed["local"]) == ("approle", "pipelines", False)
    assert listed["accessor"].startswith("auth_approle_")
    tuned = {"default_lease_ttl": "3600s", "max_lease_ttl": "7200s", "description": "pipelines", "token_type": ""}
    assert write("sys/mounts/auth/pipelines/tune", tuned).status == 204
    assert ask("GET", "sys/mounts/auth/pipelines/tune").data["default_lease_ttl"] == 3600
    wanted = {"bind_secret_id": True, "token_policies": ["ci"], "token_ttl": 600, "secret_id_num_uses": 0}
    assert write("auth/pipelines/role/build", wanted).status == 204
    assert write("auth/pipelines/role/build/role-id", {"role_id": "build-id"}).status == 204
    assert ask("GET", "auth/pipelines/role/build").data["token_policies"] == ["ci"]
    assert ask("GET", "auth/pipelines/role/build/role-id").data == {"role_id": "build-id"}
    secret = write("auth/pipelines/role/build/secret-id", {"metadata": "{}"}).data
    named = {"secret_id_accessor": secret["secret_id_accessor"]}
    assert write("auth/pipelines/role/build/secret-id-accessor/lookup", named).data["metadata"] == {}
    got = write("auth/pipelines/login", {"role_id": "build-id", "secret_id": secret["secret_id"]})
    assert got.json["auth"]["lease_duration"] == 600
    # Destroyed in the other order; what is gone already is no error.
    assert write("auth/pipelines/role/build/secret-id-accessor/destroy", named).status == 204
    assert ask("DELETE", "auth/pipelines/role/build").status == 204
    assert ask("DELETE", "sys/auth/pipelines").status == 204
    assert ask("DELETE", "sys/auth/pipelines").status == 204
