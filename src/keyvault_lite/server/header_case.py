"""Names of header fields as HTTP/1.1 has always written them: `Content-Length`.

Case means nothing in them (RFC 9110, section 5.1), but there are clients that compare it. ASGI has names in lower case,
so they are spelled on their way out. Names are the application's own, and few: each is spelled once.
"""

from typing import Any, Final

_OWN: Final = {b"etag": b"ETag", b"www-authenticate": b"WWW-Authenticate", b"x-amzn-requestid": b"X-Amzn-RequestId"}


class _Beginnings(dict[bytes, bytes]):
    def __missing__(self, name: bytes) -> bytes:
        lower = name.lower()
        self[name] = beginning = _OWN.get(lower, lower.title()) + b": "
        return beginning


BEGINNINGS: Final = _Beginnings()
"""How the line of a field begins, by its name."""


def spelled(message: bytes) -> bytes:
    """A message, or the head of one, with its names spelled. The head MUST be whole; what follows it stays."""
    head, blank, rest = message.partition(b"\r\n\r\n")
    status, *fields = head.split(b"\r\n")
    pairs = (field.partition(b": ") for field in fields)
    return b"\r\n".join([status, *(BEGINNINGS[name] + value for name, _, value in pairs)]) + blank + rest


class HeaderCase:
    """A transport for the head of one answer, written by what spells names in lower case."""

    def __init__(self, transport: object) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        """Send a head, or a message with its head whole."""
        self._transport.write(spelled(data))  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  (the rest is the transport's own)
        return getattr(self._transport, name)
