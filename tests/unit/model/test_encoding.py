"""The canonical encoding: golden values, injectivity, strict base64 and contexts."""

import base64
import hashlib
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keyvault_lite.model.encoding import (
    NO_CONTEXT_DIGEST,
    Value,
    check_context,
    context_digest,
    context_values,
    decode_base64,
    encode,
    encode_base64,
    list_head,
    pae,
)
from keyvault_lite.model.errors import InvalidRequest

GOLDEN: list[tuple[Value, str]] = [
    (None, "00"),
    (0, "010000000000000000"),
    (1, "010000000000000001"),
    (-1, "01ffffffffffffffff"),
    (2**63 - 1, "017fffffffffffffff"),
    (-(2**63), "018000000000000000"),
    ("", "0200000000"),
    ("a", "020000000161"),
    ("é", "0200000002c3a9"),
    (b"", "0300000000"),
    (b"a", "030000000161"),
    ([], "0400000000"),
    ((), "0400000000"),
    ([None, ""], "0400000002000200000000"),
    ([[b"\x00"], 5], "0400000002040000000103000000010001" + "0000000000000005"),
]
SCALARS = st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5) | st.binary(max_size=5)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4), max_leaves=10)


@pytest.mark.parametrize(("value", "expected"), GOLDEN)
def test_encode_golden(value: Value, expected: str) -> None:
    assert encode(value).hex() == expected


def test_pae_golden() -> None:
    assert pae("x").hex() == "0400000001" + "020000000178"
    assert pae("row", b"\x01", None, 7).hex() == (
        "0400000004" + "0200000003726f77" + "030000000101" + "00" + "010000000000000007"
    )
    assert pae("x", "y", [1]) == encode(["x", "y", [1]])


def test_list_head_starts_a_list() -> None:
    assert list_head(2) + encode(1) + encode("a") == encode([1, "a"])


@pytest.mark.parametrize("value", [True, False, 1.0, {"a": 1}, {1}, object(), bytearray(b"a"), [True], [[1.5]]])
def test_types_outside_the_grammar(value: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match="no canonical encoding"):
        encode(value)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_integers_beyond_64_bits(value: int) -> None:
    with pytest.raises(struct.error):
        encode(value)


def test_lone_surrogates() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode("\ud800")


@given(one=VALUES, other=VALUES)
@example(one=None, other="")
@example(one="", other=b"")
@example(one=0, other="")
@example(one=["a", "b"], other=["ab"])
@example(one=[["a"], "b"], other=["a", ["b"]])
def test_different_values_never_share_an_encoding(one: Value, other: Value) -> None:
    assert (encode(one) == encode(other)) == (one == other)


@given(values=st.lists(VALUES, max_size=4), others=st.lists(VALUES, max_size=4), label=st.text(max_size=3))
def test_pae_is_injective(values: list[Value], others: list[Value], label: str) -> None:
    assert (pae(label, *values) == pae(label, *others)) == (values == others)
    assert pae(label, *values) != pae(label + "x", *values)


@given(one=VALUES, other=VALUES)
def test_no_encoding_begins_another(one: Value, other: Value) -> None:
    if one != other:
        assert not encode(one).startswith(encode(other))


class TestBase64:
    @given(raw=st.binary(max_size=100))
    def test_round_trip(self, raw: bytes) -> None:
        text = encode_base64(raw)
        assert text == base64.b64encode(raw).decode()
        assert decode_base64(text) == raw

    @pytest.mark.parametrize(
        "text",
        [
            "YQ",
            "YQ=",
            "YQ===",
            "YR==",
            "YWI",
            "YWJ=",
            "YQ==\n",
            " YQ==",
            "Y Q==",
            "YQ==YQ==",
            "=",
            "====",
            "a",
            "-_-_",
            "é===",
            "\uff41\uff22==",
            "\ud800",
            "YQ==\x00",
        ],
    )
    def test_one_spelling_only(self, text: str) -> None:
        with pytest.raises(InvalidRequest, match="not canonical standard base64") as caught:
            decode_base64(text)
        assert caught.value.__cause__ is None

    @given(text=st.text(alphabet="AQgwYZ+/=\n é", max_size=12))
    def test_whatever_decodes_is_canonical(self, text: str) -> None:
        try:
            raw = decode_base64(text)
        except InvalidRequest:
            return
        assert encode_base64(raw) == text


class TestContext:
    def test_order_does_not_matter_and_empty_is_none(self) -> None:
        assert context_digest({"a": "1", "b": "2"}) == context_digest({"b": "2", "a": "1"})
        assert context_digest(None) == context_digest({}) == NO_CONTEXT_DIGEST
        assert context_values(None) == context_values({}) == ()
        assert context_values({"b": "2", "a": "1"}) == ("a", "1", "b", "2")

    def test_golden(self) -> None:
        assert context_digest({"b": "2", "a": "1"}) == hashlib.sha256(pae("context", "a", "1", "b", "2")).digest()
        assert NO_CONTEXT_DIGEST.hex() == hashlib.sha256(bytes.fromhex("04000000010200000007") + b"context").hexdigest()

    @given(
        one=st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3),
        other=st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3),
    )
    def test_different_contexts_have_different_digests(self, one: dict[str, str], other: dict[str, str]) -> None:
        assert (context_digest(one) == context_digest(other)) == (one == other)

    def test_limits(self) -> None:
        check_context({})
        check_context({str(i): "" for i in range(32)})
        check_context({"k": "v" * 8191})
        check_context({"é": "ü" * 4095})
        with pytest.raises(InvalidRequest, match="32 pairs"):
            check_context({str(i): "" for i in range(33)})
        with pytest.raises(InvalidRequest, match="8 KiB"):
            check_context({"k": "v" * 8192})
        with pytest.raises(InvalidRequest, match="8 KiB"):
            check_context({"é": "ü" * 4096})

    @pytest.mark.parametrize("context", [{"e\u0301": ""}, {"": "e\u0301"}, {"": "\u212b"}])
    def test_only_nfc(self, context: dict[str, str]) -> None:
        with pytest.raises(InvalidRequest, match="NFC"):
            check_context(context)

    @pytest.mark.parametrize("context", [{"\ud800": ""}, {"": "\udfff"}])
    def test_lone_surrogates_are_refused(self, context: dict[str, str]) -> None:
        with pytest.raises(InvalidRequest, match="Unicode"):
            check_context(context)
