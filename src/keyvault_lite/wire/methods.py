"""LIST, a method of the Vault dialect that the HTTP parser does not know.

The parser reads a method of the same length in its place, and the application sees the right one. A real LINK stays
what it is. Only a message that begins with the bytes that came in is looked at: clients send LIST without a body, so
none follows another in one read unless it is pipelined.
"""

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LIST: Final = b"LIST "
STAND_IN: Final = b"LINK "


class ListProtocol(HttpToolsProtocol):
    """Lets LIST through."""

    _lists = False

    def is_between(self) -> bool:
        """Whether the next byte begins a message."""
        raise NotImplementedError

    def on_headers_complete(self) -> None:
        """Give the method its name back, before the application runs."""
        super().on_headers_complete()
        if self._lists:
            self._lists = False
            self.scope["method"] = "LIST"

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        if data.startswith(LIST) and self.is_between():
            self._lists = True
            data = STAND_IN + data[len(LIST) :]
        super().data_received(data)
