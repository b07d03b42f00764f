"""C2SP tlog-witness over HTTP: `POST /add-checkpoint`, and `GET /checkpoint/<origin>` for the last one confirmed.

There is nothing to authenticate but the checkpoints themselves, which their logs have signed.
"""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from starlette.types import Receive, Scope, Send

from keyvault_lite.model.errors import MalformedRequest, MethodNotAllowed, NotFound, TooLarge
from keyvault_lite.wire.http import Exchange, Reply
from keyvault_lite.witness.register import (
    Inconsistent,
    MalformedSubmission,
    OtherSize,
    Refused,
    Submission,
    UnknownLog,
    Untrusted,
    parse_submission,
)

MAX_SUBMISSION: Final = 64 * 1024
TEXT: Final = b"text/plain; charset=utf-8"
SIZE: Final = b"text/x.tlog.size"
ADD: Final = b"/add-checkpoint"
READ: Final = b"/checkpoint/"
STATUS: Final[Mapping[type[Refused], int]] = {
    MalformedSubmission: 400,
    Untrusted: 403,
    UnknownLog: 404,
    OtherSize: 409,
    Inconsistent: 422,
}


class Register(Protocol):
    """What decides (witness.register.Register)."""

    def add(self, submission: Submission) -> str:
        """Confirm a checkpoint; raises a Refused."""

    def newest(self, origin: str) -> str | None:
        """The newest checkpoint confirmed of a log; None before the first. Answers at once, from any thread."""


class WitnessApplication:
    """The ASGI application of a witness. It confirms one thing at a time, off the loop: each waits for the disk."""

    def __init__(self, register: Register) -> None:
        self._register = register
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="register")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or take part in the lifespan."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            exchange = Exchange(scope, receive)
            try:
                reply = await self._answer(exchange)
            except Refused as refusal:
                reply = _refusal(exchange, refusal)
            except (MalformedRequest, TooLarge, NotFound) as error:
                reply = exchange.problem(error)
            except MethodNotAllowed as error:
                reply = exchange.problem(error, allow="POST" if scope["raw_path"] == ADD else "GET")
            except Exception as error:  # noqa: BLE001  (answered, and its message never shown)
                reply = exchange.problem(exchange.defect(error))
            await reply.send(scope, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, exchange: Exchange) -> Reply:
        path, method = exchange.scope["raw_path"], exchange.scope["method"]
        if path == ADD:
            _expect(method, "POST")
            text = _text(await exchange.body(MAX_SUBMISSION))
            submission = parse_submission(text)
            loop = asyncio.get_running_loop()
            line = await loop.run_in_executor(self._pool, lambda: self._register.add(submission))
            return exchange.reply(200, line.encode(), content_type=TEXT)
        if path.startswith(READ):
            _expect(method, "GET")
            origin = _text(path.removeprefix(READ))
            note = self._register.newest(origin)
            return exchange.reply(204 if note is None else 200, (note or "").encode(), content_type=TEXT)
        raise NotFound


def _expect(method: str, wanted: str) -> None:
    if method != wanted:
        raise MethodNotAllowed


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise MalformedRequest("the request is not UTF-8") from None


def _refusal(exchange: Exchange, refusal: Refused) -> Reply:
    status = STATUS[type(refusal)]
    if isinstance(refusal, OtherSize):
        return exchange.reply(status, b"%d\n" % refusal.size, content_type=SIZE)
    return exchange.reply(status, f"{refusal.detail}\n".encode(), content_type=TEXT)


async def _live(receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
