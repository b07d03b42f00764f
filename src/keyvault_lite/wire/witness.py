"""C2SP tlog-witness over HTTP: `POST /add-checkpoint`, and `GET /checkpoint/<origin>` for the last one confirmed.

There is nothing to authenticate but the checkpoints themselves, which their logs have signed. `/health` and `/metrics`
are for anybody too: they name no log, and tell of none how long it is.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Protocol

import msgspec

from keyvault_lite import __version__
from keyvault_lite.model.errors import LimitExceeded, MalformedRequest, MethodNotAllowed, NotFound, TooLarge
from keyvault_lite.observe.metrics import METRICS
from keyvault_lite.wire.asgi import Receive, Scope, Send
from keyvault_lite.wire.http import Exchange, Response
from keyvault_lite.wire.refusal_limit import RefusalLimit
from keyvault_lite.witness.register import (
    Inconsistent,
    MalformedSubmission,
    SizeConflict,
    Submission,
    SubmissionRefused,
    UnknownLog,
    Untrusted,
    parse_submission,
)

MAX_SUBMISSION: Final = 64 * 1024
TEXT: Final = b"text/plain; charset=utf-8"
SIZE: Final = b"text/x.tlog.size"
ADD: Final = b"/add-checkpoint"
READ: Final = b"/checkpoint/"
HEALTH: Final = b"/health"
METRICS_PAGE: Final = b"/metrics"
STATUS: Final[Mapping[type[SubmissionRefused], int]] = {
    MalformedSubmission: 400,
    Untrusted: 403,
    UnknownLog: 404,
    SizeConflict: 409,
    Inconsistent: 422,
}


class Register(Protocol):
    """What decides (witness.register.Register)."""

    def add(self, submission: Submission) -> str:
        """Confirm a checkpoint; raises a SubmissionRefused."""

    def newest(self, origin: str) -> str | None:
        """The newest checkpoint confirmed of a log; None before the first. Answers at once, from any thread."""

    @property
    def trusted(self) -> int:
        """How many logs it confirms."""


class WitnessApplication:
    """The ASGI application of a witness. It confirms one thing at a time, off the loop: each waits for the disk."""

    def __init__(self, register: Register) -> None:
        self._register = register
        self._watch = SubmissionOutcomes()
        self._limit = RefusalLimit()
        self._measure()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="register")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or take part in the lifespan."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            exchange = Exchange(scope, receive)
            try:
                reply = await self._answer(exchange)
            except SubmissionRefused as refusal:
                reply = _refusal(exchange, refusal)
            except (MalformedRequest, TooLarge, NotFound, LimitExceeded) as error:
                reply = exchange.problem(error)
            except MethodNotAllowed as error:
                reply = exchange.problem(error, allow="POST" if scope["raw_path"] == ADD else "GET")
            except Exception as error:  # noqa: BLE001  (answered, and its message never shown)
                reply = exchange.problem(exchange.defect(error))
            await reply.send(scope, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, exchange: Exchange) -> Response:
        path, method = exchange.scope["raw_path"], exchange.scope["method"]
        if path == ADD:
            _expect(method, "POST")
            source = exchange.origin().source
            if self._limit.is_reached(source):
                raise LimitExceeded("too many refused submissions from this address")
            return await self._add(exchange, source)
        if path.startswith(READ):
            _expect(method, "GET")
            origin = _text(path.removeprefix(READ))
            note = self._register.newest(origin)
            return exchange.reply(204 if note is None else 200, (note or "").encode(), content_type=TEXT)
        if path == HEALTH:
            _expect(method, "GET", "HEAD")
            return self._health(exchange)
        if path == METRICS_PAGE:
            _expect(method, "GET", "HEAD")
            return exchange.reply(200, METRICS.page().encode(), content_type=TEXT)
        raise NotFound

    async def _add(self, exchange: Exchange, source: str | None) -> Response:
        try:
            submission = parse_submission(_text(await exchange.body(MAX_SUBMISSION)))
            loop = asyncio.get_running_loop()
            with self._watch:
                line = await loop.run_in_executor(self._pool, lambda: self._register.add(submission))
        except SizeConflict:
            raise  # the log has signed it
        except (SubmissionRefused, MalformedRequest, TooLarge):
            self._limit.count(source)
            raise
        return exchange.reply(200, line.encode(), content_type=TEXT)

    def _health(self, exchange: Exchange) -> Response:
        failing = self._watch.failing
        body = {"status": "cannot_record" if failing else "ok", "version": __version__, "logs": self._register.trusted}
        return exchange.reply(503 if failing else 200, msgspec.json.encode(body))

    def _measure(self) -> None:
        watch = self._watch
        METRICS.gauge("keyvault_witness_logs", "Logs that the witness confirms.", lambda: self._register.trusted)
        METRICS.gauge(
            "keyvault_witness_submissions", "Submissions since the start.", lambda: dict(watch.counts), label="outcome"
        )
        about = "Seconds since any log was last confirmed; none before the first."
        METRICS.gauge("keyvault_witness_confirmed_seconds_ago", about, lambda: watch.age)
        about = "Whether the newest confirmation could not be recorded."
        METRICS.gauge("keyvault_witness_failing", about, lambda: float(watch.failing))


class SubmissionOutcomes:
    """How the submissions end: confirmed, refused, or failed because nothing could be recorded."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failing = False
        """Whether the last one that was to be recorded failed."""
        self._confirmed_at: float | None = None

    @property
    def age(self) -> float | dict[str, float]:
        """Seconds since the last confirmation; nothing before the first."""
        return {} if self._confirmed_at is None else time.monotonic() - self._confirmed_at

    def __enter__(self) -> None:
        """Begin with a submission."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Count how it ended."""
        if kind is None:
            self.failing, self._confirmed_at = False, time.monotonic()
        elif not isinstance(error, SubmissionRefused):
            self.failing = True
        outcome = "confirmed" if kind is None else "refused" if isinstance(error, SubmissionRefused) else "failed"
        self.counts[outcome] += 1


def _expect(method: str, *wanted: str) -> None:
    if method not in wanted:
        raise MethodNotAllowed


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise MalformedRequest("the request is not UTF-8") from None


def _refusal(exchange: Exchange, refusal: SubmissionRefused) -> Response:
    status = STATUS[type(refusal)]
    if isinstance(refusal, SizeConflict):
        return exchange.reply(status, b"%d\n" % refusal.size, content_type=SIZE)
    return exchange.reply(status, f"{refusal.detail}\n".encode(), content_type=TEXT)


async def _live(receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
