import json
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyvault_lite.model.errors import InvalidRequest, MalformedRequest
from keyvault_lite.wire.reader import _STRINGS, MAX_DEPTH, MAX_PARTS, read_json, read_query

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_reads_what_json_writes(value: object, ascii_only: bool) -> None:
    assert read_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=60) | st.text('{}[]":,\\u0019eE.-+ \n"a', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        value = read_json(body)
    except MalformedRequest:
        return
    # Numbers are compared as the reader means them: an integer that no field can hold is a float.
    assert (
        json.loads(body.decode(), parse_int=lambda digits: float(digits) if len(digits) > 20 else int(digits)) == value
    )


def depth_of(text: str) -> int:
    """How deep a parser is at the most, character by character."""
    deepest, depth, within, escaped = 0, 0, False, False
    for one in text:
        if within:
            escaped, within = (one == "\\" and not escaped), (one != '"' or escaped)
        elif one == '"':
            within = True
        else:
            depth += (one in "[{") - (one in "]}")
            deepest = max(deepest, depth)
    return deepest


def slow(body: bytes) -> object:
    """What the reader means, in the plainest way; None if it is refused."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError
        return dict(pairs)

    try:
        text = body.decode()
        if depth_of(text) > MAX_DEPTH:
            return None
        value: object = json.loads(text, object_pairs_hook=unique, parse_constant=lambda _: 1 // 0)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, ZeroDivisionError):
        return None
    return [value]


NESTS = (
    ("[", "]"),
    ('{"a":', "}"),
    ('[{"a":', "}]"),
    ('{"":[', "]}"),
    ("[[],", "]"),
    ('["[\\"",', "]"),
    (' {"\\\\":', " }"),
)
CORES = ("1", '"["', '"\\"["', '""', "[]", "{}", '"\\ud800"', "", '"', "\\", '{"a":1,"a":1}', "[}", '"é"', '"\\u005d"')


@st.composite
def nested(draw: st.DrawFn) -> bytes:
    """Text around the bound, of brackets of both kinds, real ones and within strings; now and then with a flaw."""
    text = draw(st.sampled_from(CORES))
    for _ in range(draw(st.integers(1, 3))):
        before, after = draw(st.sampled_from(NESTS))
        times = draw(st.integers(1, MAX_DEPTH + 2))
        text = before * times + text + after * times
    place = draw(st.integers(0, len(text)))
    text = text[:place] + draw(st.sampled_from(["", "", "", " ", '"', "\\", "[", "}", ",", "\n"])) + text[place:]
    return (
        draw(st.sampled_from(["", "", " ", "\n"])).encode() + text.encode() + draw(st.sampled_from(["", " "])).encode()
    )


@given(nested())
def test_the_fast_ways_are_the_slow_one(body: bytes) -> None:
    try:
        found: object = [read_json(body)]
    except MalformedRequest:
        found = None
    assert found == slow(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{} x",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"a": 1, "\\u0061": 2}',
        b'{"b": {"a": 1, "a": 1}}',
        b"\xef\xbb\xbf{}",
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\udc00\\ud800"}',
        b'{"\\ud800": 1}',
        "{}".encode("utf-16"),
        b'{"a": "\x01"}',
        b"{'a': 1}",
        b'{"a": 1,}',
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b'{"a":[' * (MAX_DEPTH // 2) + b"[]" + b"]}" * (MAX_DEPTH // 2),
        b'[{"a":' * MAX_DEPTH + b"1" + b"}]" * MAX_DEPTH,
        b'{"a": 01}',
        b"]" * 40 + b"[" * 40,
    ],
    ids=lambda body: repr(body[:24]),
)
def test_refuses(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        read_json(body)


def test_depth_counts_levels_not_brackets() -> None:
    text = "[{" * 200
    wide = {"items": [{"text": text, "quote": '"[\\"'} for _ in range(200)]}
    assert read_json(json.dumps(wide).encode()) == wide
    deepest = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert read_json(b'["' + b"[" * 40 + b'"]') == ["[" * 40]
    assert read_json(deepest)


@pytest.mark.parametrize("digits", ["9" * 25, "-" + "9" * 25, "9" * 5000, "1e999"])
def test_numbers_out_of_bounds_are_no_integers(digits: str) -> None:
    assert isinstance(read_json(digits.encode()), float)


def test_pairs_of_surrogates_are_one_character() -> None:
    assert read_json(b'"\\ud83d\\ude00"') == "\U0001f600"
    assert read_json(b'"\\\\ud800"') == "\\ud800"


def test_query() -> None:
    assert read_query(b"") == {}
    assert read_query(b"limit=5&after=a%20b+c&key=") == {"limit": "5", "after": "a b c", "key": ""}


@pytest.mark.parametrize("query", [b"a=1&a=2", b"a", b"a=%ff", b"a=%ed%a0%80", "a=é".encode(), b"a=1&" * 40 + b"b=1"])
def test_query_refuses(query: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_query(query)


@pytest.mark.parametrize(
    "text",
    [
        lambda size: b'["' + b'\\"' * (size // 2) + b"[" * 40,  # a string without an end, of escaped quotes
        lambda size: b'["' + b"\\\\" * (size // 2) + b"[" * 40,
        lambda size: b"[" * 40 + b'"' * size,
        lambda size: b"[" * 40 + b'\\"' * (size // 2),
        lambda size: b'{"a":' + b"1" * size + b"}",
        lambda size: b'{"a":1' + b" " * size + b"x",
    ],
)
def test_reading_takes_no_longer_a_byte_when_the_text_is_longer(text: Callable[[int], bytes]) -> None:
    """Anybody may send it: were it the square, one request would hold up everybody for minutes."""

    def took(size: int) -> float:
        body, times = text(size), []
        for _ in range(5):
            began = time.perf_counter()
            with suppress(MalformedRequest):
                read_json(body)
            times.append(time.perf_counter() - began)
        return min(times)

    assert took(1 << 18) < 64 * took(1 << 14), "16 times the text; the square would be 256"


def test_a_text_has_a_bounded_number_of_parts() -> None:
    assert read_json(b"[" + b",".join([b"1"] * (MAX_PARTS - 2)) + b"]")
    for many in (b"[" + b",".join([b"1"] * (MAX_PARTS + 2)) + b"]", b'{"a":[' + b'{"":0},' * MAX_PARTS + b"0]}"):
        with pytest.raises(MalformedRequest, match="values"):
            read_json(many)
    assert read_json(b'"' + b"." * (2 * MAX_PARTS) + b'"')


@given(st.lists(st.sampled_from([b'"', b"\\", b"a", b"[", b"]", b'\\"', b'"a"', b'"\\\\"'])).map(b"".join))
def test_what_stands_in_strings_is_left_out(body: bytes) -> None:
    left, within, escaped = bytearray(), False, False
    for one in body:
        if within:
            within, escaped = escaped or one != ord('"'), not escaped and one == ord("\\")
        elif one == ord('"'):
            within = True
        else:
            left.append(one)
    assert _STRINGS.sub(b"", body) == bytes(left)
