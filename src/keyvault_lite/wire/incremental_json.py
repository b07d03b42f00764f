"""The reader of large JSON texts: the language of `reader.py`, read in short steps.

A parser in C holds the interpreter until it is done, tens of milliseconds for a megabyte of small values. This one
pauses after each value, so that its caller can let other requests run. No single step takes more than a few
milliseconds, whatever the text is.

A text of more than MAX_TEXT bytes has to be base64, with a short prefix at most: no operation takes any other of that
size. It is decoded as it is read, in pieces, and never becomes one long `str`.
"""

import binascii
import re
from collections.abc import Callable
from typing import Final

from keyvault_lite.engine.cooperative import Steps
from keyvault_lite.model.errors import MalformedRequest
from keyvault_lite.model.opaque import Opaque

MAX_TEXT: Final = 1024 * 1024
"""Bytes of a text, as written, that is read in one step."""
SMALL: Final = 2 * 1024
"""Bytes of an object or list that is parsed in one step."""
PIECE: Final = 192 * 1024
"""Bytes of base64 that are decoded in one step."""
_MAX_ATOM: Final = 1024
"""Bytes of a number: more digits than that fit no field."""
_MAX_PREFIX: Final = 32
_SPACE: Final = re.compile(rb"[ \t\n\r]*+")
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_ATOM: Final = re.compile(rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|true|false|null")
_PREFIX: Final = re.compile(rb"[0-9A-Za-z:]*:")
_QUOTE, _COMMA, _COLON, _OPEN_LIST, _CLOSE_LIST, _OPEN_OBJECT, _CLOSE_OBJECT = b'",:[]{}'
_END: Final = -1
_LAST_SPACE: Final = 0x20
_ESCAPE: Final = 6
"""Bytes of the longest escape."""

Parse = Callable[[str, int], tuple[object, int]]
"""Parses the value that begins at a place: a string, number or constant."""


class LongText(Opaque, frozen=True):
    """A text of more than MAX_TEXT bytes: base64, decoded."""

    prefix: str
    """What is before the base64, up to and with its last colon."""
    data: bytes


def invalid() -> MalformedRequest:
    """The refusal of what is not JSON."""
    return MalformedRequest("the body is not valid JSON")


class StepReader:
    """Reads one JSON text."""

    def __init__(self, body: bytes | bytearray, parse: Parse, *, max_depth: int, max_parts: int) -> None:
        self._body = body
        self._parse = parse
        self._max_depth = max_depth
        self._max_parts = max_parts
        self._at = 0
        self._parts = 0

    def read(self) -> Steps[object]:
        """Read all of the body. Raises MalformedRequest."""
        value = yield from self._value(0)
        if self._next() != _END:
            raise invalid()
        return value

    def _next(self) -> int:
        """The next byte that is not white space, without taking it; _END behind the last."""
        if self._at < len(self._body) and self._body[self._at] > _LAST_SPACE:
            return self._body[self._at]
        found = _SPACE.match(self._body, self._at, self._at + MAX_TEXT)
        self._at = self._at if found is None else found.end()
        return self._body[self._at] if self._at < len(self._body) else _END

    def _value(self, depth: int) -> Steps[object]:
        self._parts += 1
        if self._parts > self._max_parts:
            raise MalformedRequest(f"the body has more than {self._max_parts} values")
        first = self._next()
        if first == _QUOTE:
            return (yield from self._text())
        yield
        if first in {_OPEN_OBJECT, _OPEN_LIST}:
            if depth >= self._max_depth:
                raise MalformedRequest(f"the body is nested deeper than {self._max_depth} levels")
            small = self._small(depth)
            if small is not None:
                return small
            self._at += 1
            return (yield from (self._object(depth + 1) if first == _OPEN_OBJECT else self._list(depth + 1)))
        return self._atom()

    def _small(self, depth: int) -> object:
        """An object or list that ends within a few kilobytes, parsed at once; None if it has to be read in steps."""
        window = bytes(self._body[self._at : self._at + SMALL])
        if not window.isascii():
            return None  # places in text and bytes would differ
        try:
            value, length = self._parse(window.decode("ascii"), 0)
        except (StopIteration, ValueError, RecursionError):
            return None
        raw = window[:length]
        brackets = raw.count(b"{") + raw.count(b"[")
        if depth + brackets > self._max_depth or b"\\u" in raw:
            return None
        self._at += length
        self._parts += brackets + raw.count(b",") + raw.count(b":")
        return value

    def _object(self, depth: int) -> Steps[object]:
        members: dict[str, object] = {}
        if self._take(_CLOSE_OBJECT):
            return members
        while True:
            if self._next() != _QUOTE:
                raise invalid()
            name = yield from self._text()
            if not isinstance(name, str):
                raise MalformedRequest("the name of a member is too long")
            if name in members:
                raise MalformedRequest("an object has the same name twice")
            if not self._take(_COLON):
                raise invalid()
            members[name] = yield from self._value(depth)
            if self._take(_CLOSE_OBJECT):
                return members
            if not self._take(_COMMA):
                raise invalid()

    def _list(self, depth: int) -> Steps[object]:
        items: list[object] = []
        if self._take(_CLOSE_LIST):
            return items
        while True:
            items.append((yield from self._value(depth)))
            if self._take(_CLOSE_LIST):
                return items
            if not self._take(_COMMA):
                raise invalid()

    def _take(self, wanted: int) -> bool:
        taken = self._next() == wanted
        self._at += taken
        return taken

    def _atom(self) -> object:
        found = _ATOM.match(self._body, self._at, self._at + _MAX_ATOM)
        if found is None or found.end() == self._at + _MAX_ATOM:
            raise invalid()
        self._at = found.end()
        return self._parse(found[0].decode("ascii"), 0)[0]

    def _text(self) -> Steps[object]:
        found = _STRING.match(self._body, self._at, self._at + MAX_TEXT)
        yield
        if found is None:
            return (yield from self._long_text())
        self._at = found.end()
        return self._short_text(found[0])

    def _short_text(self, raw: bytes) -> str:
        try:
            text = self._parse(raw.decode(), 0)[0]
            if not isinstance(text, str):
                raise invalid()
            if b"\\u" in raw:
                text.encode()  # only an escape can bring in half a surrogate pair
        except (UnicodeDecodeError, UnicodeEncodeError):
            raise MalformedRequest("the body is not Unicode text in UTF-8") from None
        except ValueError:
            raise invalid() from None
        return text

    def _long_text(self) -> Steps[LongText]:
        start = self._at + 1
        end = yield from self._end_of_text(start)
        prefix = _PREFIX.match(self._body, start, start + _MAX_PREFIX)
        at = start if prefix is None else prefix.end()
        data, rest = bytearray(), b""
        while at < end:
            after = self._end_of_piece(at, end)
            piece = rest + self._unescaped(at, after)
            whole = len(piece) if after == end else len(piece) // 4 * 4
            piece, rest = piece[:whole], piece[whole:]
            if rest and b"=" in piece:
                raise _not_base64()
            data += _decoded(piece, last=after == end)
            at = after
            yield
        self._at = end + 1
        return LongText("" if prefix is None else prefix[0].decode("ascii"), bytes(data))

    def _end_of_text(self, start: int) -> Steps[int]:
        """Where the closing quote is. Base64 has none that is escaped, and no backslash at its end."""
        at = start
        while at < len(self._body):
            end = self._body.find(b'"', at, at + MAX_TEXT)
            if end >= 0:
                if self._body[end - 1 : end] == b"\\":
                    raise _not_base64()
                return end
            at += MAX_TEXT
            yield
        raise invalid()

    def _end_of_piece(self, at: int, end: int) -> int:
        """The end of a piece, within no escape."""
        after = min(at + PIECE, end)
        escape = self._body.rfind(b"\\", after - _ESCAPE + 1, after) if after < end else -1
        return after if escape <= at else escape

    def _unescaped(self, at: int, after: int) -> bytes:
        """A piece of base64 without escapes, and without line breaks."""
        raw = bytes(self._body[at:after])
        if not raw.isascii():
            raise _not_base64()
        if b"\\" not in raw:
            return raw
        return self._short_text(b'"%b"' % raw).encode().replace(b"\n", b"").replace(b"\r", b"")


def _not_base64() -> MalformedRequest:
    return MalformedRequest(f"a text of more than {MAX_TEXT} bytes is not base64")


def _decoded(piece: bytes, *, last: bool) -> bytes:
    """One piece. Only the last one may end with padding."""
    if not last and b"=" in piece:
        raise _not_base64()
    try:
        return binascii.a2b_base64(piece, strict_mode=True)
    except ValueError:
        raise _not_base64() from None
