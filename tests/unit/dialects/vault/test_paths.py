"""A slash in a mount may come escaped, as some clients write it; nothing else is decoded."""

import pytest

from tests.support.vault_client import Asker, b64

PLAIN = {"plaintext": b64("hello")}


@pytest.fixture
def billing(ask: Asker) -> Asker:
    for mount in ("team/billing", "a/b/c"):
        assert ask.post(f"sys/mounts/{mount}", {"type": "transit"}).status == 204
        assert ask.post(f"{mount}/keys/pay").status == 200
    return ask


@pytest.mark.parametrize("mount", ["team%2Fbilling", "team%2fbilling", "a%2Fb%2Fc", "a/b%2Fc", "a%2fb/c"])
def test_a_mount_with_an_escaped_slash_is_that_mount(billing: Asker, mount: str) -> None:
    plain = mount.replace("%2F", "/").replace("%2f", "/")
    sealed = billing.post(f"{mount}/encrypt/pay", PLAIN).data["ciphertext"]
    key_id = billing.last.draft.key_id
    assert billing.post(f"{plain}/decrypt/pay", {"ciphertext": sealed}).data == PLAIN
    assert billing.last.draft.key_id == key_id
    assert billing("LIST", f"{mount}/keys").data == {"keys": ["pay"]}
    assert billing("GET", f"{mount}/keys/pay").data["name"] == "pay"


def test_grants_hold_however_the_mount_is_written(billing: Asker) -> None:
    token = billing.service("app", ("vault:a/b/c/pay", "encrypt"))
    paths = ("a/b/c/encrypt/pay", "a%2Fb%2fc/encrypt/pay", "team/billing/encrypt/pay", "team%2Fbilling/encrypt/pay")
    assert [billing.post(path, PLAIN, token=token).status for path in paths] == [200, 200, 403, 403]


@pytest.mark.parametrize(
    "path",
    [
        "team%252Fbilling/encrypt/pay",
        "team%5Cbilling/encrypt/pay",
        "t%65am/billing/encrypt/pay",
        "team/billing%2Fencrypt/pay",
        "team/billing/encrypt%2Fpay",
        "team/billing/encrypt/p%61y",
        "team%2F/billing/encrypt/pay",
        "%2Fteam/billing/encrypt/pay",
        "team/billing%2F/encrypt/pay",
        "team%2F%2Fbilling/encrypt/pay",
        "team%2F..%2Fteam%2Fbilling/encrypt/pay",
        "team%2Fkeys/encrypt/pay",
        "keys%2Fteam/encrypt/pay",
        "x%2Fteam%2Fbilling/encrypt/pay",
    ],
)
def test_nothing_else_is_decoded(billing: Asker, path: str) -> None:
    assert billing.post(path, PLAIN).status == 404


@pytest.mark.parametrize("first", ["sys", "auth", "projects", "identity", "cubbyhole"])
def test_a_reserved_first_segment_stays_unknown(billing: Asker, first: str) -> None:
    for path in (f"{first}%2Fx/encrypt/pay", f"{first}%2fx%2Fy/encrypt/pay"):
        answer = billing.post(path, PLAIN)
        assert (answer.status, answer.error) == (404, "unsupported path")
    for path in ("sys%2Fmounts", "auth%2Ftoken/lookup-self", "sys/mounts%2Fteam", "auth/approle%2Frole/x"):
        assert billing("GET", path).status == 404
