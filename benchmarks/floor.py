"""The floor: what uvicorn and a JSON parser cost when nothing is done. A share of this is what a product can reach.

Run as `python -m benchmarks.floor PORT [echo|canned]`. `echo` is a raw ASGI application that parses the body that
`encrypt` gets and writes an answer of the size that `encrypt` gives. `canned` is a bare protocol that answers fixed
bytes to anything: no server can be faster, so what the client reaches on it is the client's own ceiling.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, cast

import msgspec
import uvicorn
import uvloop

Message = MutableMapping[str, Any]


class Asked(msgspec.Struct):
    """What `encrypt` takes."""

    plaintext: str
    encoding: str
    context: dict[str, str]


class Answered(msgspec.Struct):
    """What it answers."""

    ciphertext: str
    encrypted_dek: str
    key_version: int


_decode: Final = msgspec.json.Decoder(Asked).decode
_encode: Final = msgspec.json.Encoder().encode
_HEADERS: Final = [(b"content-type", b"application/json")]
_DEK: Final = "d" * 184
_HEAD: Final = "c" * 141


async def echo(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Parse, and answer as many bytes as an encryption would."""
    if scope["type"] != "http":
        return
    asked = _decode((await receive())["body"])
    body = _encode(Answered(_HEAD + asked.plaintext, _DEK, 1))
    headers = [*_HEADERS, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Canned(asyncio.Protocol):
    """Fixed bytes for each read: one request in flight is one read."""

    _ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 460\r\n\r\n" + b"c" * 460
    _transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to write."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer."""
        self._transport.write(self._ANSWER)


async def _serve_canned(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Canned, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    port, kind = int(sys.argv[1]), sys.argv[2]
    if kind == "canned":
        uvloop.run(_serve_canned(port))
    else:
        uvicorn.run(
            echo,
            host="127.0.0.1",
            port=port,
            http="httptools",
            loop="uvloop",
            lifespan="off",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            log_level="error",
        )


if __name__ == "__main__":
    main()
