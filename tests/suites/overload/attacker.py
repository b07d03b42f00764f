"""A process of its own that asks a server for as much as one token can: `attacker.py PORT TOKEN KIND CONNECTIONS`."""

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from typing import Final

MIB: Final = 1024 * 1024


def _request(method: str, path: str, token: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {token}\r\nAuthorization: Bearer {token}\r\n"
    return head.encode() + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def requests(kind: str, token: str) -> list[bytes]:
    """What is sent on a connection, again and again."""
    emoji = b'{"plaintext": "' + "\N{GRINNING FACE}".encode() * (8 * MIB - 64) + b'"}'
    kinds: Mapping[str, list[tuple[str, str, bytes]]] = {
        "large": [
            ("POST", "/v1/transit/encrypt/nosuch", emoji),
            ("POST", "/v1/transit/hash", b'{"input": "' + b"A" * 31 * MIB + b'"}'),
            ("POST", "/keys/orders/encrypt", b'{"plaintext":' + b"[" * (MIB - 64)),
        ],
        "medium": [
            ("POST", "/v1/transit/sign/nosuch", b"[" + b"{}," * 21_000 + b"{}]"),
            ("POST", "/keys/orders/batch/encrypt", b'{"items": [' + b"1," * 30_000 + b"1]}"),
        ],
        "small": [
            ("POST", "/keys/nosuch/encrypt", b'{"plaintext": "hi"}'),
            ("GET", "/keys", b""),
            ("POST", "/random", b'{"bytes": 1024}'),
            ("POST", "/v1/transit/hash", b'{"input": "aGk="}'),
        ],
    }
    return [_request(method, path, token, body) for method, path, body in kinds[kind]]


async def _repeat(port: int, sent: list[bytes], first: int) -> None:
    """One connection that asks again as soon as it is answered, and is made again when it is closed."""
    turn = first
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(writer):
                while True:
                    turn += 1
                    writer.write(sent[turn % len(sent)])
                    head = await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r", 1)[0]))
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(writer.drain(), 5)
        await asyncio.sleep(0.01)


async def _attack(port: int, token: str, kind: str, connections: int) -> None:
    sent = requests(kind, token)
    await asyncio.gather(*(_repeat(port, sent, number) for number in range(connections)))


if __name__ == "__main__":
    asyncio.run(_attack(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
