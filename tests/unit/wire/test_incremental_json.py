"""Large texts are read in short steps, and mean what they mean to the quick reader."""

import base64
import gc
import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keyvault_lite.engine.cooperative import run_to_end
from keyvault_lite.model.errors import MalformedRequest
from keyvault_lite.wire import incremental_json, reader
from keyvault_lite.wire.incremental_json import MAX_TEXT, LongText
from keyvault_lite.wire.reader import MAX_DEPTH, MAX_PARTS, read_in_steps, read_json
from tests.unit.wire.test_reader import VALUES, nested

MIB = 1024 * 1024


def outcome(read: object, body: bytes) -> object:
    assert callable(read)
    try:
        return [read(body)]
    except MalformedRequest:
        return None


def stepped(body: bytes) -> object:
    return outcome(lambda text: run_to_end(read_in_steps(text)), body)


@given(VALUES, st.booleans(), st.sampled_from([None, 1, 4]))
def test_reads_what_json_writes(value: object, ascii_only: bool, indent: int | None) -> None:
    assert stepped(json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()) == [value]


@given(nested() | st.binary(max_size=60) | st.text('{}[]":,\\u0019eE.-+ \n"adtrufalsn', max_size=60).map(str.encode))
@example(b'{"a": 1, "\\u0061": 2}')
@example(b'"\\ud800"')
@example(b'"\\ud83d\\ude00"')
@example(b"[NaN]")
@example(b"-")
@example(b'{"":1}{')
def test_means_the_same_as_the_quick_reader(body: bytes) -> None:
    assert stepped(body) == outcome(reader._read_quick, body)


@given(VALUES, st.sampled_from([1, 7, 30]))
def test_sizes_of_steps_change_nothing(value: object, size: int) -> None:
    body = json.dumps(value).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(incremental_json, "SMALL", size)
        assert stepped(body) == [value]


@pytest.mark.parametrize("prefix", ["", "vault:v1:", "vault:v123456789:"])
@pytest.mark.parametrize("escape", [{}, {"/": "\\/"}, {"+": "\\u002B", "/": "\\u002f"}, {"=": "\\u003d"}])
@pytest.mark.parametrize("length", [3 * MIB, 3 * MIB + 1, 3 * MIB + 2])
def test_a_long_text_is_decoded_as_it_is_read(prefix: str, escape: dict[str, str], length: int) -> None:
    data = bytes(range(256)) * (length // 256) + b"\xfb\xff\xfe"[: length % 256]
    text = prefix + base64.b64encode(data).decode()
    for plain, written in escape.items():
        text = text.replace(plain, written)
    assert read_json(b'{"a": [1, {"plaintext": "%b"}], "b": 2}' % text.encode()) == {
        "a": [1, {"plaintext": LongText(prefix, data)}],
        "b": 2,
    }


def test_line_breaks_in_a_long_text_do_not_count() -> None:
    data = bytes(range(256)) * 8192
    lines = base64.encodebytes(data).decode()
    assert read_json(json.dumps(lines).encode()) == LongText("", data)
    assert read_json(json.dumps(lines.replace("\n", "\r\n")).encode()) == LongText("", data)


LONG = b"A" * (2 * MAX_TEXT)


@pytest.mark.parametrize(
    "text",
    [
        LONG + "é".encode(),
        "😀".encode() * MAX_TEXT,
        LONG + b"A",
        LONG + b"AA=",
        LONG + b"====",
        LONG[:300_000] + b"AA==" + LONG,
        LONG + b"\\\\",
        LONG + b"\\",
        LONG[:200_001] + b"\\\\" + LONG,
        LONG + b'\\"' + LONG,
        LONG + b"\x00AAA",
        LONG + b"\nAAA",
        LONG + b"*AAA",
        LONG + b"\\u00e9AA",
        b"x" * 40 + b":" + LONG,
        b"\\n" * MAX_TEXT + b"!",
    ],
    ids=lambda text: repr(text[-12:]),
)
def test_a_long_text_that_is_not_base64_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedRequest) as refused:
        read_json(b'{"a": "%b"}' % text)
    assert "AAA" not in refused.value.detail


@pytest.mark.parametrize(
    "body",
    [
        b'{"' + LONG + b'": 1}',
        b'{"a": "' + LONG,
        b'"' + LONG + b'" x',
        b"[" * MIB,
        b'{"a":' * MIB,
        b"[" + b"[]," * MAX_PARTS + b"[]]",
        b"[" + b"[[[[]]]]," * (MAX_PARTS // 4) + b"[]]",
        b"[" + b"{}," * MAX_PARTS + b"{}]",
        b"[" + b"1," * MAX_PARTS + b"1]",
        b"9" * MIB,
        b" " * (3 * MIB),
    ],
    ids=lambda body: repr(body[:6] + body[-6:]),
)
def test_what_is_large_without_need_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        read_json(body)


SHAPES = {
    "objects": b"[" + b"{}," * 60_000 + b"{}]",
    "lists": b"[" + b"[]," * 60_000 + b"[]]",
    "numbers": b"[" + b"1," * 90_000 + b"1]",
    "nested": b"[" + b"[[[[[[[[1]]]]]]]]," * 10_000 + b"1]",
    "members": b"{" + b",".join(b'"%d":1' % number for number in range(60_000)) + b"}",
    "opened": b"[" * (2 * MIB),
    "escaped brackets": b'{"a":"' + b'\\"[' * 300_000 + b'"}',
    "base64": b'{"a":"' + LONG * 4 + b'"}',
    "escaped base64": b'{"a":"' + b"\\u0041" * (2 * MIB) + b'"}',
    "spaces": b" " * (4 * MIB) + b"1",
    "four bytes a character": b'{"a":"' + "😀".encode() * 200_000 + b'"}',
    "escapes": b'{"a":"' + b"\\n" * 400_000 + b'"}',
    "a long number": b"9" * (4 * MIB),
    "batch": json.dumps({"batch_input": [{"plaintext": "A" * 400} for _ in range(9_000)]}).encode(),
}


@pytest.mark.parametrize("name", SHAPES)
def test_no_step_is_long(name: str) -> None:
    """The longest single step, in processor time of this thread, so that other work on the machine does not count."""
    longest, began = 0.0, time.thread_time()
    gc.collect()
    gc.disable()  # a collection takes as long as everything that the process has made
    steps = read_in_steps(SHAPES[name])
    try:
        while True:
            began = time.thread_time()
            next(steps)
            longest = max(longest, time.thread_time() - began)
    except (StopIteration, MalformedRequest):
        longest = max(longest, time.thread_time() - began)
    finally:
        gc.enable()
    assert longest < 0.03


def test_depth_is_that_of_the_quick_reader() -> None:
    deepest = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert stepped(deepest) is not None
    assert stepped(b"[" + deepest + b"]") is None
    assert stepped(b'{"a":' + deepest + b"}") is None
    small = b"[" * 20 + b"1" + b"]" * 20
    assert stepped(b"[" * 12 + small + b"]" * 12) is not None
    assert stepped(b"[" * 13 + small + b"]" * 13) is None
