"""Names, ids and globs: the grammar, and that one spelling exists for each."""

import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.names import SYSTEM, check_name, check_pattern, is_id, is_name, matches, new_id

ID = "0f8fad5b-d9cb-469f-a165-70867728950e"


def test_new_ids_are_random_uuids() -> None:
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(is_id(text) and uuid.UUID(text).version == 4 for text in ids)


def test_the_vault_itself_has_an_id() -> None:
    assert is_id(SYSTEM)


@pytest.mark.parametrize(
    "text",
    ["", ID.upper(), ID.replace("-", ""), f"{{{ID}}}", ID + "\n", " " + ID, ID[:-1], ID[:-1] + "g", "\u0660" + ID[1:]],
)
def test_ids_have_one_spelling(text: str) -> None:
    assert is_id(ID)
    assert not is_id(text)


@pytest.mark.parametrize("text", ["a", "0", "a" * 63, "orders-2026.eu_1", "a-", "a..b", "9_"])
def test_names(text: str) -> None:
    assert check_name(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a" * 64,
        "A",
        "-a",
        ".a",
        "_a",
        "a b",
        "a/b",
        "a*",
        "é",
        "\uff41",
        "a\n",
        "a\x00",
        ID,
        ID.replace("-", ""),
        "a:b",
    ],
)
def test_no_names(text: str) -> None:
    assert not is_name(text)
    with pytest.raises(InvalidRequest, match="a name is 1 to 63"):
        check_name(text)


def test_half_dashed_ids_are_no_names() -> None:
    assert not is_name(ID.replace("-", "", 2))
    assert is_name(ID[:-1])


@pytest.mark.parametrize("text", ["*", "orders-*", ID, "vault:transit/Foo", "aws:eu-west-1/alias*", "a" * 256])
def test_patterns(text: str) -> None:
    assert check_pattern(text) == text


@pytest.mark.parametrize("text", ["", "a" * 257, "é", "a\n", "a?b[c]", "a\x00", "{a}"])
def test_no_patterns(text: str) -> None:
    with pytest.raises(InvalidRequest, match="a grant's key"):
        check_pattern(text)


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("orders", "orders", True),
        ("orders", "orders2", False),
        ("*", "", True),
        ("*", "anything.at-all", True),
        ("orders-*", "orders-", True),
        ("orders-*", "orders-eu", True),
        ("orders-*", "orders", False),
        ("orders-*", "my-orders-eu", False),
        ("*-eu", "orders-eu", True),
        ("*-eu", "orders-eu2", False),
        ("a*b*c", "abc", True),
        ("a*b*c", "aXbYbZc", True),
        ("a*b*c", "aXcYb", False),
        ("a**b", "aXb", True),
        ("a.b", "aXb", False),
        ("a.*", "aXb", False),
        ("a*", "a\nb", True),
        ("a*", "A", False),
        ("a+*", "aab", False),
    ],
)
def test_globs(pattern: str, name: str, covered: bool) -> None:
    assert matches(pattern, name) is covered


@given(pattern=st.text(alphabet="ab*.", max_size=8), name=st.text(alphabet="ab.", max_size=8))
def test_globs_agree_with_a_plain_definition(pattern: str, name: str) -> None:
    def covers(p: str, n: str) -> bool:
        if not p:
            return not n
        if p[0] == "*":
            return any(covers(p[1:], n[i:]) for i in range(len(n) + 1))
        return bool(n) and p[0] == n[0] and covers(p[1:], n[1:])

    assert matches(pattern, name) == covers(pattern, name)


def test_a_hostile_glob_is_quick() -> None:
    start = time.perf_counter()
    assert not matches("*a" * 16 + "*b", "a" * 63)
    assert not matches("a*" * 127 + "b", "a" * 63)
    assert not matches("*a" * 128, "a" * 63)
    assert time.perf_counter() - start < 0.1
