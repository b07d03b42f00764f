"""Read sessions: a caller that follows the log, or scrapes metrics, gets one entry for the session, not for each read.

Each look is evaluated like any other request, on what all processes have committed by then: a token that was revoked or
has expired, a role that was changed, a fault that stops service end it within a second. A request that waits for the
next entry holds no thread and no executor.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

from msgspec import structs

from keyvault_lite.engine import audit
from keyvault_lite.engine.executors import BoundedExecutor
from keyvault_lite.engine.handler import HandlerContext
from keyvault_lite.engine.refresh_coalescer import RefreshCoalescer
from keyvault_lite.engine.session import Session
from keyvault_lite.ledger.ledger import Ledger
from keyvault_lite.ledger.state.outcome import Outcome
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.model.errors import KeyVaultError, LimitExceeded
from keyvault_lite.model.evidence import Draft, Result
from keyvault_lite.model.identity import Credential, Principal
from keyvault_lite.model.names import ServiceId
from keyvault_lite.model.replies import Answer, LogPage
from keyvault_lite.model.requests import FollowAudit, Origin, ReadMetrics, Request
from keyvault_lite.observe import logger
from keyvault_lite.observe.metrics import METRICS

Repeated = FollowAudit | ReadMetrics
"""What is read in sessions."""
PERIOD_SECONDS: Final = 1.0
"""How often a waiting request looks whether there is anything new, and whether its caller may still read."""
SWEEP_SECONDS: Final = 5.0
"""How often sessions are looked through for those that are over."""
MAX_SESSIONS: Final = 256
MAX_WAITING: Final = 64
"""How many requests may wait at the same time, ..."""
MAX_WAITING_EACH: Final = 4
"""... and how many of one service."""
STOP_SECONDS: Final = 3.0
"""How long the end of the server waits for sessions to be closed."""

NOTHING: Final = LogPage((), None)

log = logger("reading")
_Key = tuple[object, ...]


class Reading:
    """The open sessions of one process. Belongs to one event loop at a time."""

    def __init__(
        self,
        ledger: Ledger,
        freshness: RefreshCoalescer,
        executor: BoundedExecutor,
        *,
        record: Callable[[Request, Credential, Origin], Awaitable[Answer]],
        admit: Callable[[Request, Credential, Origin], HandlerContext | Outcome],
        identify: Callable[[Credential], Principal | None],
    ) -> None:
        self._ledger = ledger
        self._freshness = freshness
        self._executor = executor
        self._record = record
        """Performs a request as any other: evaluated, recorded, raised if it is refused."""
        self._admit = admit
        """Evaluates a request on the present state and records nothing."""
        self._identify = identify
        """The principal of a credential; None if it is not valid."""
        self._open: dict[_Key, Session] = {}
        self._ended: list[Session] = []
        """Those whose end is not on record yet."""
        self._waiting: Counter[ServiceId] = Counter()
        self._sweeper: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._nobody_waits = asyncio.Event()
        self._nobody_waits.set()
        METRICS.gauge("keyvault_audit_readers_waiting", "Requests that wait for the log to grow.", self._waiting.total)

    async def perform(self, request: Repeated, credential: Credential, origin: Origin) -> Answer:
        """Answer in the session that the caller has open for this, or in a new one.

        Raises as Engine.perform; LimitExceeded if too many are waiting.
        """
        session = self._find(request, credential, origin) or await self._begin(request, credential, origin)
        session.active += 1
        try:
            if isinstance(request, FollowAudit):
                result: object = await self._follow(session, request, credential, origin)
            else:
                ctx = await self._admitted(session, request, credential, origin)
                result = audit.read_metrics(request, ctx)
            session.looks += 1
        finally:
            session.active -= 1
            session.used = time.monotonic()
        return Answer(result, session.audit_id)

    # Sessions

    def _find(self, request: Repeated, credential: Credential, origin: Origin) -> Session | None:
        principal = self._identify(credential)
        session = None if principal is None else self._open.get(_key(request, principal, origin))
        if session is None or session.is_over(time.monotonic()) or _first(request) < session.first:
            return None
        return session

    async def _begin(self, request: Repeated, credential: Credential, origin: Origin) -> Session:
        """A new session, once its entry is durable. Another one for the same is over then."""
        answer = await self._record(request, credential, origin)
        principal = self._identify(credential)
        if principal is None:  # it was good when it was recorded: what is read will be refused
            return Session(request.action, ServiceId(""), origin.source, answer.audit_id, 0, time.monotonic())
        key = _key(request, principal, origin)
        self._end(key)
        while len(self._open) >= MAX_SESSIONS:
            self._end(min(self._open, key=lambda one: self._open[one].used))
        session = self._open[key] = Session(
            request.action, principal.service_id, origin.source, answer.audit_id, _first(request), time.monotonic()
        )
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.create_task(self._sweep())
        return session

    def _end(self, key: _Key) -> None:
        session = self._open.pop(key, None)
        if session is not None:
            self._ended.append(session)

    async def _sweep(self) -> None:
        while self._open or self._ended:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            for key in [key for key, session in self._open.items() if session.is_over(now)]:
                self._end(key)
            await self._close_ended()

    async def _close_ended(self) -> None:
        """Record the end of each session in which nothing is under way any more."""
        over, self._ended = self._ended, [one for one in self._ended if one.active]
        for session in over:
            if session.active:
                continue
            draft = Draft(
                action=session.action,
                result=Result.SUCCESS,
                request_id=os.urandom(16),
                service_id=session.service_id,
                source=session.source,
                comment=session.closing(),
            )
            outcome = Outcome((draft,), None)
            try:
                await self._ledger.commit(outcome, self._ledger.snapshot().snapshot_version, partial(_same, outcome))
            except KeyVaultError as error:
                # The entry of its beginning says what it was good for.
                log.warning("the end of a session of reading is not on record: %s", error.detail)

    async def stop(self) -> None:
        """Answer the callers that wait, and record the end of all sessions."""
        self._stopping.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._nobody_waits.wait(), STOP_SECONDS)
        for key in list(self._open):
            self._end(key)
        await self._close_ended()

    # Reading

    async def _follow(self, session: Session, request: FollowAudit, credential: Credential, origin: Origin) -> LogPage:
        """The entries behind the cursor, as soon as there are any, or none when the time to wait is over."""
        until = min(time.monotonic() + request.wait, session.until)
        with self._place(session, request.wait):
            page, size = await self._look(session, request, credential, origin, -1)
            while not page.items and (left := until - time.monotonic()) > 0 and not self._stopping.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), min(left, PERIOD_SECONDS))
                # What was looked through has nothing for this caller: it goes on behind that.
                request = structs.replace(request, wanted=structs.replace(request.wanted, after=page.next))
                page, size = await self._look(session, request, credential, origin, size, page)
        return page

    async def _look(  # noqa: PLR0917  (a step of the loop above)
        self,
        session: Session,
        request: FollowAudit,
        credential: Credential,
        origin: Origin,
        size: int,
        page: LogPage = NOTHING,
    ) -> tuple[LogPage, int]:
        """The page behind the cursor and the size of the log; the page from before if it has not grown since."""
        ctx = await self._admitted(session, request, credential, origin)
        now = ctx.log.evidence.size
        if now != size:
            page = await self._executor.run(partial(audit.next_page, request, ctx))
            session.last = max(session.last, page.items[-1].id if page.items else 0)
        return page, now

    async def _admitted(
        self, session: Session, request: Repeated, credential: Credential, origin: Origin
    ) -> HandlerContext:
        """The context of one read. A caller that may not read any more is refused, on record, and its session ends."""
        while True:
            await self._freshness.renew()
            if (fault := self._ledger.fault) is not None:
                raise fault.again()
            admitted = self._admit(request, credential, origin)
            if isinstance(admitted, HandlerContext):
                return admitted
            session.until = 0.0
            await self._record(request, credential, origin)

    @contextmanager
    def _place(self, session: Session, wait: int) -> Iterator[None]:
        """A place among the callers that wait. Raises LimitExceeded if there is none."""
        if not wait:
            yield
            return
        mine = session.service_id
        if self._waiting[mine] >= MAX_WAITING_EACH or self._waiting.total() >= MAX_WAITING:
            refusal = LimitExceeded("too many requests wait for the log to grow: close some, or ask without wait")
            refusal.audit_id = session.audit_id
            raise refusal
        self._waiting[mine] += 1
        self._nobody_waits.clear()
        try:
            yield
        finally:
            self._waiting[mine] -= 1
            if not self._waiting[mine]:
                del self._waiting[mine]
            if not self._waiting:
                self._nobody_waits.set()


def _same(outcome: Outcome, _: State) -> Outcome:
    return outcome


def _first(request: Repeated) -> int:
    return request.first if isinstance(request, FollowAudit) else 0


def _key(request: Repeated, principal: Principal, origin: Origin) -> _Key:
    """What makes two requests of one session: the caller, its token, its address, and what it reads."""
    who = (principal.service_id, principal.token_id, origin.source, type(request))
    if isinstance(request, ReadMetrics):
        return who
    wanted = request.wanted
    return (*who, wanted.service_id, wanted.key_id, wanted.of, wanted.result, wanted.since)
