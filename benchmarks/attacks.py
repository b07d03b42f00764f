"""Attacks on a server, run as a process of its own: `python -m benchmarks.attacks`, an order in JSON on standard input.

Each case names its connections and what each of them does without a pause. `SERVICE` stands for a good token whose
service has no grants, `GRANTED` for one that may use the keys.
"""

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.servers import http_request

LEAD: Final = 1.5
"""Seconds that an attack goes on before it is measured: the good callers meet it in full."""
KIB: Final = 1024
MIB: Final = 1024 * KIB
_ENCRYPT: Final = {"plaintext": "aGVsbG8=", "encoding": "base64"}
_BAD: Final = "kvl_" + "A" * 16 + "_" + "b" * 43


@dataclass(frozen=True, slots=True)
class Tokens:
    """Credentials that attacks are made with."""

    admin: str
    granted: tuple[str, ...]
    """Services that may use the keys named bench-*, in both dialects."""
    nobody: str
    """A service without grants."""
    renewer: str
    """Another one, which asks for new tokens."""


Request = Callable[[Tokens], bytes]
Attacker = Callable[[int, Sequence[bytes]], Awaitable[None]]


def _post(path: str, body: object, token: str) -> bytes:
    """A POST that both dialects take."""
    lines = http_request(path, body, token=token).split("\r\n")
    return "\r\n".join([lines[0], f"X-Vault-Token: {token}", *lines[1:]]).encode()


def _get(path: str, token: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def _by(token: Callable[[Tokens], str], path: str, body: object) -> Request:
    return lambda tokens: _post(path, body, token(tokens))


def _nobody(path: str, body: object = None) -> Request:
    return lambda tokens: _get(path, tokens.nobody) if body is None else _post(path, body, tokens.nobody)


async def _repeat(port: int, requests: Sequence[bytes]) -> None:
    """One connection that asks again as soon as it was answered; a new one where it is closed."""
    turn = random.randrange(len(requests))  # noqa: S311
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(writer):
                while True:
                    turn += 1
                    writer.write(requests[turn % len(requests)])
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r", 1)[0])
                    await reader.readexactly(length)
                    await writer.drain()
        await asyncio.sleep(0.01)


async def _trickle_head(port: int, _: Sequence[bytes]) -> None:
    """One connection that sends its head byte by byte."""
    await _trickle(port, b"POST /keys/bench-aes/encrypt HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"a" * 100)


async def _trickle_body(port: int, requests: Sequence[bytes]) -> None:
    """One connection that sends all but the last hundred bytes of a request, and these byte by byte."""
    await _trickle(port, requests[0][:-100], requests[0][-100:])


async def _trickle(port: int, first: bytes, rest: bytes) -> None:
    while True:
        with contextlib.suppress(OSError):
            writer = (await asyncio.open_connection("127.0.0.1", port))[1]
            with contextlib.closing(writer):
                writer.write(first)
                for byte in rest:
                    if writer.is_closing():
                        break
                    writer.write(bytes([byte]))
                    await asyncio.sleep(random.uniform(0.2, 1.0))  # noqa: S311
        await asyncio.sleep(0.01)


async def _reconnect(port: int, requests: Sequence[bytes]) -> None:
    """A new connection for each request."""
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(writer):
                writer.write(requests[0])
                await reader.read(4096)


@dataclass(frozen=True, slots=True)
class Part:
    """What a number of connections do."""

    run: Attacker
    connections: int
    requests: Sequence[Request]


@dataclass(frozen=True, slots=True)
class Attack:
    """One case."""

    title: str
    parts: Sequence[Part]
    by_service: bool = False
    """Whether it is made with the token of a service without grants: what G12 is about."""
    large: bool = False
    """Whether it is about the memory for bodies, so that the good callers send large ones."""


_BAD_ENCRYPT: Final = _by(lambda _: _BAD, "/keys/bench-aes/encrypt", _ENCRYPT)
_DENIED: Final = _nobody("/keys/bench-aes/encrypt", _ENCRYPT)
_SIGN: Final = _by(lambda tokens: tokens.granted[0], "/keys/bench-rsa/sign", {"message": "x"})
_MAKE: Final = _by(lambda tokens: tokens.admin, "/keys", {"type": "RSA", "size": 4096, "purpose": "SIGN"})
_FULL: Final = "A" * (32 * MIB - 64)
_BODIES: Final = (
    _nobody("/v1/transit/encrypt/bench-transit", {"plaintext": _FULL}),
    _nobody("/v1/transit/hash", {"input": _FULL}),
    _nobody("/keys/bench-aes/encrypt", {"plaintext": "A" * (MIB - 64)}),
)
_SHORT_BODIES: Final = (
    _nobody("/v1/transit/encrypt/bench-transit", {"plaintext": "A" * (64 * KIB - 64)}),
    _nobody("/v1/transit/hash", {"input": "A" * (64 * KIB - 64)}),
)
_BATCHES: Final = (
    _nobody("/keys/bench-aes/batch/encrypt", {"items": [_ENCRYPT] * 1000}),
    _nobody("/v1/transit/encrypt/bench-transit", {"batch_input": [{"plaintext": "aGVsbG8="}] * 2000}),
)
_READS: Final = (_nobody("/keys"), _nobody("/services/self"), _nobody("/v1/auth/token/lookup-self"))
_RENEWALS: Final = tuple(
    _by(lambda tokens: tokens.renewer, path, body)
    for path, body in (("/services/self/token", {"grace": 3600}), ("/v1/auth/token/create", {}))
)
_RANDOM: Final = (_nobody("/random", {"bytes": 1024}), _nobody("/v1/transit/hash", {"input": "aGk="}))


def _slow_granted(number: int) -> Request:
    return _by(lambda tokens: tokens.granted[number], "/v1/transit/encrypt/bench-transit", {"plaintext": _FULL})


ATTACKS: Final[Mapping[str, Attack]] = {
    "tokens": Attack("bad tokens on 256 connections", (Part(_repeat, 256, (_BAD_ENCRYPT,)),)),
    "connects": Attack("bad tokens, 64 at a time, a connection each", (Part(_reconnect, 64, (_BAD_ENCRYPT,)),)),
    "slow": Attack("heads byte by byte on 900 connections", (Part(_trickle_head, 900, ()),)),
    "rsa": Attack(
        "RSA-4096 signatures on 16 connections, new keys on 2",
        (Part(_repeat, 16, (_SIGN,)), Part(_repeat, 2, (_MAKE,))),
    ),
    "denied-64": Attack("denied encrypts on 64 connections", (Part(_repeat, 64, (_DENIED,)),), by_service=True),
    "denied-256": Attack("denied encrypts on 256 connections", (Part(_repeat, 256, (_DENIED,)),), by_service=True),
    "denied-all": Attack("denied encrypts on 1,100 connections", (Part(_repeat, 1100, (_DENIED,)),), by_service=True),
    "denied-connects": Attack(
        "denied encrypts, 64 at a time, a connection each", (Part(_reconnect, 64, (_DENIED,)),), by_service=True
    ),
    "bodies": Attack("bodies of 32 MiB and 1 MiB on 16 connections", (Part(_repeat, 16, _BODIES),), by_service=True),
    "short-bodies": Attack("bodies of 64 KiB on 64 connections", (Part(_repeat, 64, _SHORT_BODIES),), by_service=True),
    "slow-bodies": Attack(
        "bodies of 64 KiB byte by byte on 256 connections",
        (Part(_trickle_body, 256, _SHORT_BODIES[:1]),),
        by_service=True,
    ),
    "batches": Attack("batches on 64 connections", (Part(_repeat, 64, _BATCHES),), by_service=True),
    "reads": Attack("lists, and reading itself, on 64 connections", (Part(_repeat, 64, _READS),), by_service=True),
    "renewals": Attack("renewals and new tokens on 64 connections", (Part(_repeat, 64, _RENEWALS),), by_service=True),
    "random": Attack("random bytes and digests on 64 connections", (Part(_repeat, 64, _RANDOM),), by_service=True),
    "slow-granted": Attack(
        "two callers with grants, each sending 32 MiB slowly on 8 connections",
        tuple(Part(_trickle_body, 8, (_slow_granted(number),)) for number in (1, 2)),
        large=True,
    ),
}


async def _attack(port: int, name: str, tokens: Tokens) -> None:
    parts = [(part, [make(tokens) for make in part.requests]) for part in ATTACKS[name].parts]
    await asyncio.gather(*(part.run(port, made) for part, made in parts for _ in range(part.connections)))


@contextlib.contextmanager
def under(name: str | None, port: int, tokens: Tokens) -> Iterator[None]:
    """While one attack goes on, or none."""
    if name is None:
        yield
        return
    order = json.dumps({"port": port, "name": name, "tokens": asdict(tokens)})
    command = [sys.executable, "-m", "benchmarks.attacks"]
    root = Path(__file__).resolve().parents[1]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, text=True) as attacker:  # noqa: S603  (ourselves)
        if attacker.stdin is None:
            raise RuntimeError("the attacker has no pipe")
        attacker.stdin.write(order + "\n")
        attacker.stdin.flush()
        try:
            time.sleep(LEAD)
            yield
        finally:
            attacker.kill()


def main() -> None:
    """Attack until killed."""
    order = json.loads(sys.stdin.readline())
    granted = tuple(order["tokens"].pop("granted"))
    asyncio.run(_attack(order["port"], order["name"], Tokens(granted=granted, **order["tokens"])))


if __name__ == "__main__":
    main()
