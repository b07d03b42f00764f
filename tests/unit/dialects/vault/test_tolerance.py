"""What clients send beside what is meant: ignored where nothing comes of it, refused where something would."""

import pytest

from tests.support.vault_client import Asker, b64


@pytest.mark.parametrize("zero", ["0", "00", "0s", "0m", "0h0m", "0.0s", "-0s", "0d", ""])
def test_wrapping_for_no_time_is_none(ask: Asker, zero: str) -> None:
    headers = {"x-vault-token": ask.harness.admin, "x-vault-wrap-ttl": zero}
    assert ask.raw("GET", "auth/token/lookup-self", headers=headers).status == 200


@pytest.mark.parametrize("period", ["1", "60s", "500ms", "1ns", "-1s", "abc", "\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_wrapping_for_any_time_is_refused(ask: Asker, period: str) -> None:
    headers = {"x-vault-token": ask.harness.admin, "x-vault-wrap-ttl": period}
    assert ask.raw("GET", "auth/token/lookup-self", headers=headers).status == 400


def test_an_empty_token_leaves_the_other_header(ask: Asker) -> None:
    for empty, status in (("", 200), (" ", 200), ("wrong", 403), ("\x00", 403)):
        headers = {"x-vault-token": empty, "authorization": f"Bearer {ask.harness.admin}"}
        assert ask.raw("GET", "auth/token/lookup-self", headers=headers).status == status
    assert ask.raw("GET", "auth/token/lookup-self", headers={"x-vault-token": ""}).status == 403


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("foo", "foo"),
        ("foo=", "foo"),
        ("foo=1&foo=2", "foo"),
        ("foo&foo", "foo"),
        ("a&b=2&a", "a b"),
        ("list=false", "list"),
    ],
)
def test_unknown_parameters_are_ignored_and_named(ask: Asker, query: str, named: str) -> None:
    ask.key("k")
    warning = [f"Endpoint ignored these unrecognized parameters: [{named}]"]
    for method, path in (("GET", "transit/keys/k"), ("LIST", "transit/keys")):
        answer = ask(method, f"{path}?{query}")
        assert (answer.status, answer.json["warnings"]) == (200, warning)


@pytest.mark.parametrize(
    "query", ["limit=1&limit=2", "after=a&after=b", "limit=x", "limit=%ff", "&".join(f"a{one}=1" for one in range(33))]
)
def test_known_parameters_are_not_guessed_at(ask: Asker, query: str) -> None:
    ask.key("k")
    assert ask("LIST", f"transit/keys?{query}").status == 400


@pytest.mark.parametrize("truth", ["1", "t", "T", "true", "True", "TRUE"])
def test_every_way_to_say_that_a_list_is_meant(ask: Asker, truth: str) -> None:
    ask.key("k")
    answer = ask("GET", f"transit/keys?list={truth}")
    assert (answer.data, answer.json["warnings"]) == ({"keys": ["k"]}, None)
    assert ask("GET", f"transit/keys?limit=1&list={truth}&foo").json["warnings"] == [
        "Endpoint ignored these unrecognized parameters: [foo]"
    ]


def test_what_says_no_list(ask: Asker) -> None:
    ask.key("k")
    assert [ask("GET", f"transit/keys?list{one}").status for one in ("", "=", "=0", "=false")] == [405] * 4
    assert [ask("GET", f"transit/keys?list={one}").status for one in ("zz", "yes", "1&list=1")] == [400] * 3


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("sys/health", {"GET", "HEAD"}),
        ("sys/seal-status", {"GET"}),
        ("sys/init", {"GET"}),
        ("sys/leader", {"GET"}),
        ("sys/unseal", {"POST", "PUT"}),
    ],
)
def test_methods_of_what_is_open_to_all(ask: Asker, path: str, methods: set[str]) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "LIST"):
        answer = ask(method, path, token=None)
        assert (answer.status == 405) is (method not in methods)
        if answer.status == 405 and method != "HEAD":
            assert answer.json == {"errors": []}


def test_tools_without_a_mount(ask: Asker) -> None:
    token = ask.service("app")
    for path in ("hash", "hash/sha2-512"):
        body = {"input": b64("hi"), "format": "base64"}
        assert ask.post(f"sys/tools/{path}", body, token=token).data == ask.post(f"transit/{path}", body).data
    for path in ("random", "random/32", "random/platform/32", "random/seal"):
        assert len(ask.post(f"sys/tools/{path}", {"format": "hex"}, token=token).data["random_bytes"]) == 64
    assert ask.last.draft.operation == "sys.tools.random"
    assert ask.post("sys/tools/random", token=None).status == 403
    assert ask("GET", "sys/tools/random").status == 405
