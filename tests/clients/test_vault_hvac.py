"""hvac, as it comes, against our server: every method of its transit engine that this vault answers."""

import base64
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.clients.conftest import Served

hvac = pytest.importorskip("hvac")
_count = itertools.count()


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def show(served: Served, key: str) -> Any:  # noqa: ANN401
    return json.loads(served.kvl("key", "show", key, "-o", "json").stdout)


@pytest.fixture
def client(served: Served) -> Any:  # noqa: ANN401
    return hvac.Client(url=served.url, token=served.admin)


@pytest.fixture
def name() -> str:
    return f"hvac-{next(_count)}"


@pytest.fixture
def transit(client: Any) -> Any:  # noqa: ANN401
    return client.secrets.transit


def test_the_client_finds_a_vault_that_it_knows(client: Any) -> None:  # noqa: ANN401
    assert client.sys.is_initialized()
    assert not client.sys.is_sealed()
    assert client.is_authenticated()
    assert client.sys.read_health_status(method="GET")["sealed"] is False
    assert not hvac.Client(url=client.url, token="hvs.wrong").is_authenticated()
    assert not hvac.Client(url=client.url).is_authenticated()


@pytest.mark.parametrize("kind", ["aes256-gcm96", "chacha20-poly1305", "rsa-2048"])
def test_messages_there_and_back_over_a_rotation(transit: Any, name: str, kind: str) -> None:  # noqa: ANN401
    transit.create_key(name=name, key_type=kind)
    old = transit.encrypt_data(name, plaintext=b64("hello"))["data"]["ciphertext"]
    transit.rotate_key(name)
    new = transit.encrypt_data(name, plaintext=b64("hello"))["data"]["ciphertext"]
    assert (old[:9], new[:9]) == ("vault:v1:", "vault:v2:")
    for one in (old, new):
        assert transit.decrypt_data(name, ciphertext=one)["data"]["plaintext"] == b64("hello")
    again = transit.rewrap_data(name, ciphertext=old)["data"]["ciphertext"]
    assert again.startswith("vault:v2:")
    assert transit.decrypt_data(name, ciphertext=again)["data"]["plaintext"] == b64("hello")
    assert transit.decrypt_data(name, ciphertext=transit.encrypt_data(name, plaintext="")["data"]["ciphertext"])[
        "data"
    ] == {"plaintext": ""}


def test_batches(transit: Any, name: str) -> None:  # noqa: ANN401
    transit.create_key(name=name)
    sealed = transit.encrypt_data(name, batch_input=[{"plaintext": b64(str(n))} for n in range(5)])
    items = [{"ciphertext": one["ciphertext"]} for one in sealed["data"]["batch_results"]]
    opened = transit.decrypt_data(name, batch_input=items)["data"]["batch_results"]
    assert [one["plaintext"] for one in opened] == [b64(str(n)) for n in range(5)]


def test_derived_and_convergent_keys(transit: Any, name: str) -> None:  # noqa: ANN401
    transit.create_key(name=name, derived=True, convergent_encryption=True)
    key = transit.read_key(name)["data"]
    assert (key["kdf"], key["convergent_encryption"]) == ("hkdf_sha256", True)
    one, same, other = (
        transit.encrypt_data(name, plaintext=b64("hello"), context=b64(context))["data"]["ciphertext"]
        for context in ("a", "a", "b")
    )
    assert one == same != other
    assert transit.decrypt_data(name, ciphertext=one, context=b64("a"))["data"]["plaintext"] == b64("hello")
    with pytest.raises(hvac.exceptions.InvalidRequest):
        transit.decrypt_data(name, ciphertext=one, context=b64("b"))
    with pytest.raises(hvac.exceptions.InvalidRequest, match="context"):
        transit.encrypt_data(name, plaintext=b64("hello"))


def test_data_keys(transit: Any, name: str) -> None:  # noqa: ANN401
    transit.create_key(name=name)
    for bits in (128, 256, 512):
        made = transit.generate_data_key(name, key_type="plaintext", bits=bits)["data"]
        assert len(base64.b64decode(made["plaintext"])) == bits // 8
        assert transit.decrypt_data(name, ciphertext=made["ciphertext"])["data"]["plaintext"] == made["plaintext"]
    assert "plaintext" not in transit.generate_data_key(name, key_type="wrapped")["data"]


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "rsa-3072"])
@pytest.mark.parametrize("marshaling", ["asn1", "jws"])
def test_signatures(transit: Any, name: str, kind: str, marshaling: str) -> None:  # noqa: ANN401
    transit.create_key(name=name, key_type=kind)
    how = {"hash_algorithm": "sha2-256", "marshaling_algorithm": marshaling}
    signature = transit.sign_data(name, hash_input=b64("hello"), **how)["data"]["signature"]
    for text, valid in (("hello", True), ("hellO", False)):
        checked = transit.verify_signed_data(name, hash_input=b64(text), signature=signature, **how)
        assert checked["data"]["valid"] is valid


def test_hmac_hash_and_random(transit: Any, name: str) -> None:  # noqa: ANN401
    transit.create_key(name=name)
    tag = transit.generate_hmac(name, hash_input=b64("hello"), algorithm="sha2-512")["data"]["hmac"]
    for text, valid in (("hello", True), ("hellO", False)):
        checked = transit.verify_signed_data(name, hash_input=b64(text), hmac=tag, hash_algorithm="sha2-512")
        assert checked["data"]["valid"] is valid
    assert transit.hash_data(hash_input=b64("abc"), algorithm="sha2-256")["data"]["sum"].startswith("ba7816bf8f01cfea")
    assert len(transit.generate_random_bytes(n_bytes=24)["data"]["random_bytes"]) == 32


def test_the_life_of_a_key(transit: Any, client: Any, name: str, served: Served) -> None:  # noqa: ANN401
    transit.create_key(name=name)
    transit.rotate_key(name)
    transit.update_key_configuration(name, min_decryption_version=2, deletion_allowed=True)
    transit.update_key_configuration(name, min_encryption_version=2)
    assert list(transit.read_key(name)["data"]["keys"]) == ["2"]
    transit.trim_key(name, min_version=2)
    with pytest.raises(hvac.exceptions.InvalidRequest):
        transit.update_key_configuration(name, min_decryption_version=1)
    assert name in transit.list_keys()["data"]["keys"]
    with pytest.raises(hvac.exceptions.InvalidRequest, match="exportable"):
        transit.export_key(name, key_type="encryption-key")
    with pytest.raises(hvac.exceptions.InvalidRequest):
        transit.backup_key(name)
    found = show(served, f"vault:transit/{name}")
    assert (found["purpose"], found["spec"], found["aliases"]) == ("TRANSIT", "aes256-gcm96", [f"vault:transit/{name}"])
    transit.delete_key(name)
    with pytest.raises(hvac.exceptions.InvalidPath):
        transit.read_key(name)
    assert show(served, found["id"])["status"] == "PENDING_DESTRUCTION"
    client.adapter.post(f"/v1/transit/keys/{name}/soft-delete-restore")
    assert transit.read_key(name)["data"]["soft_deleted"] is False


def test_a_mount_for_each_test(client: Any, name: str) -> None:  # noqa: ANN401
    path = f"team/{name}"
    client.sys.enable_secrets_engine("transit", path=path)
    with pytest.raises(hvac.exceptions.InvalidRequest, match="already in use"):
        client.sys.enable_secrets_engine("transit", path=path)
    assert f"{path}/" in client.sys.list_mounted_secrets_engines()["data"]
    transit = client.secrets.transit
    transit.create_key(name="k", mount_point=path)
    assert transit.list_keys(mount_point=path)["data"]["keys"] == ["k"]
    client.sys.disable_secrets_engine(path)
    with pytest.raises(hvac.exceptions.InvalidPath):
        transit.list_keys(mount_point=path)
    client.sys.enable_secrets_engine("transit", path=path)
    with pytest.raises(hvac.exceptions.InvalidPath):
        transit.read_key("k", mount_point=path)
    client.sys.disable_secrets_engine(path)


def test_a_service_has_its_grants_and_nothing_else(served: Served, transit: Any, name: str) -> None:  # noqa: ANN401
    for key in (name, f"{name}-other"):
        transit.create_key(name=key)
    token = served.service(name, grants=[{"key": f"vault:transit/{name}", "actions": ["encrypt"]}])
    own = hvac.Client(url=served.url, token=token).secrets.transit
    sealed = own.encrypt_data(name, plaintext=b64("hello"))["data"]["ciphertext"]
    refused: list[Callable[[], object]] = [
        lambda: own.decrypt_data(name, ciphertext=sealed),
        lambda: own.encrypt_data(f"{name}-other", plaintext=b64("hello")),
        lambda: own.encrypt_data(f"{name}-typo", plaintext=b64("hello")),
        lambda: own.rewrap_data(name, ciphertext=sealed),
        lambda: own.sign_data(name, hash_input=b64("hello")),
        lambda: own.create_key(name=f"{name}-new"),
        lambda: own.rotate_key(name),
        lambda: own.delete_key(name),
        lambda: own.read_key(f"{name}-other"),
    ]
    for attempt in refused:
        with pytest.raises(hvac.exceptions.Forbidden, match="permission denied"):
            attempt()
    assert own.list_keys()["data"]["keys"] == [name]
    assert own.read_key(name)["data"]["name"] == name
    assert f"{name}-typo" not in transit.list_keys()["data"]["keys"]
    entries = served.ask("GET", "/audit?action=encrypt&limit=20").body["items"]
    assert {one["operation"] for one in entries} == {"transit.encrypt"}
    assert {one["result"] for one in entries} >= {"success", "denied"}


def test_an_admins_typo_makes_a_key_unless_switched_off(client: Any, name: str) -> None:  # noqa: ANN401
    path = f"upsert/{name}"
    client.sys.enable_secrets_engine("transit", path=path)
    transit = client.secrets.transit
    assert transit.encrypt_data(name, plaintext=b64("x"), mount_point=path)["data"]["key_version"] == 1
    client.adapter.post(f"/v1/{path}/config/keys", json={"disable_upsert": True})
    with pytest.raises(hvac.exceptions.InvalidRequest, match="not found"):
        transit.encrypt_data(f"{name}-typo", plaintext=b64("x"), mount_point=path)
    assert transit.list_keys(mount_point=path)["data"]["keys"] == [name]


def test_child_tokens_die_with_their_parent(client: Any, served: Served) -> None:  # noqa: ANN401
    def child(of: Any, **how: Any) -> Any:  # noqa: ANN401
        return hvac.Client(url=served.url, token=of.auth.token.create(**how)["auth"]["client_token"])

    first = child(client, ttl="1h")
    second = child(first)
    assert first.lookup_token()["data"]["ttl"] <= 3600
    assert second.lookup_token()["data"]["expire_time"] == first.lookup_token()["data"]["expire_time"]
    assert first.auth.token.renew_self(increment="2h")["auth"]["lease_duration"] == 7200
    assert first.is_authenticated()
    assert second.is_authenticated()
    first.auth.token.revoke_self()
    assert not first.is_authenticated()
    assert not second.is_authenticated()


def test_a_child_of_a_renewed_token_is_dead(client: Any, served: Served, name: str) -> None:  # noqa: ANN401
    parent = hvac.Client(url=served.url, token=served.service(name))
    child = hvac.Client(url=served.url, token=parent.auth.token.create()["auth"]["client_token"])
    assert child.is_authenticated()
    served.ask("POST", f"/services/{name}/token")
    assert not parent.is_authenticated()
    assert not child.is_authenticated()


def test_policies_and_approle(client: Any, served: Served, name: str) -> None:  # noqa: ANN401
    client.secrets.transit.create_key(name=f"{name}-a")
    client.secrets.transit.create_key(name="other")
    rules = f'path "transit/encrypt/{name}-*" {{ capabilities = ["update"] }}'
    client.sys.create_or_update_policy(name, rules)
    assert client.sys.read_policy(name)["data"]["rules"] == rules
    client.auth.approle.create_or_update_approle(name, token_policies=[name], token_ttl="10m")
    role_id = client.auth.approle.read_role_id(name)["data"]["role_id"]
    secret_id = client.auth.approle.generate_secret_id(name)["data"]["secret_id"]
    service = hvac.Client(url=served.url)
    granted = service.auth.approle.login(role_id=role_id, secret_id=secret_id)["auth"]
    assert (granted["lease_duration"], granted["policies"]) == (600, sorted(["default", name]))
    service.secrets.transit.encrypt_data(f"{name}-a", plaintext=b64("x"))
    for refused in (f"{name}-missing", "other"):
        with pytest.raises(hvac.exceptions.Forbidden):
            service.secrets.transit.encrypt_data(refused, plaintext=b64("x"))
    with pytest.raises(hvac.exceptions.InvalidRequest, match="invalid role or secret"):
        hvac.Client(url=served.url).auth.approle.login(role_id=role_id, secret_id="wrong")
    client.sys.delete_policy(name)
    with pytest.raises(hvac.exceptions.Forbidden):
        service.secrets.transit.encrypt_data(f"{name}-a", plaintext=b64("x"))
    client.auth.approle.delete_role(name)
    assert not service.is_authenticated()


def test_a_way_to_log_in_is_read_and_tuned_to_what_it_is(client: Any) -> None:  # noqa: ANN401
    for path in ("approle", "token"):
        found = client.sys.read_auth_method_tuning(path)["data"]
        assert (found["max_lease_ttl"], found["token_type"]) == (32 * 86_400, "default-service")
        given = {name: found[name] for name in ("default_lease_ttl", "max_lease_ttl", "description")}
        assert client.sys.tune_auth_method(path, **given).status_code == 204
        with pytest.raises(hvac.exceptions.InvalidRequest):
            client.sys.tune_auth_method(path, token_type="batch")
    assert client.sys.disable_auth_method("nowhere").status_code == 204


def test_approle_at_a_path_of_its_own(client: Any, served: Served, name: str) -> None:  # noqa: ANN401
    path = f"{name}/ci"
    client.sys.enable_auth_method("approle", description="pipelines", path=path)
    with pytest.raises(hvac.exceptions.InvalidRequest, match="already in use"):
        client.sys.enable_auth_method("approle", path=path)
    listed = client.sys.list_auth_methods()["data"]
    assert (listed[f"{path}/"]["type"], listed[f"{path}/"]["description"]) == ("approle", "pipelines")
    assert client.sys.tune_auth_method(path, default_lease_ttl="15m").status_code == 204
    assert client.sys.read_auth_method_tuning(path)["data"]["default_lease_ttl"] == 900
    client.auth.approle.create_or_update_approle("web", mount_point=path)
    assert client.auth.approle.list_roles(mount_point=path)["data"]["keys"] == ["web"]
    role_id = client.auth.approle.read_role_id("web", mount_point=path)["data"]["role_id"]
    secret_id = client.auth.approle.generate_secret_id("web", mount_point=path)["data"]["secret_id"]
    caller = hvac.Client(url=served.url)
    granted = caller.auth.approle.login(role_id=role_id, secret_id=secret_id, mount_point=path)["auth"]
    assert granted["lease_duration"] == 900
    assert caller.is_authenticated()
    with pytest.raises(hvac.exceptions.InvalidRequest):
        hvac.Client(url=served.url).auth.approle.login(role_id=role_id, secret_id=secret_id)
    assert client.sys.disable_auth_method(path).status_code == 204
    assert not caller.is_authenticated()
    assert f"{path}/" not in client.sys.list_auth_methods()["data"]
