"""Executors for work that would hold the event loop up: one for each kind of cost, each with a bounded queue.

Slow work waits only for slow work of its kind: RSA keys being generated keep no caller from signing, and a check of the
whole log delays no revocation. An executor that is full refuses at once, before anything was done.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from keyvault_lite.engine.cooperative import CooperativeExecutor
from keyvault_lite.engine.handler import HandlerContext
from keyvault_lite.model.errors import AuditUnavailable, Overloaded
from keyvault_lite.model.identity import Role
from keyvault_lite.model.keys import SYMMETRIC, Key, KeySpec, KeyType
from keyvault_lite.model.operation import Cost
from keyvault_lite.model.requests import Batch, KeyRequest, Request, Verify
from keyvault_lite.observe.metrics import METRICS

T = TypeVar("T")

FEW_VERSIONS: Final = 8
"""With so many a signature is tried on the loop."""
_QUICK_TYPES: Final = SYMMETRIC | {KeyType.ED25519}


def _is_leaving() -> bool:
    """Whether the caller was cancelled, and not only the work."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class BoundedExecutor:
    """A few threads and the queue before them. Belongs to one event loop."""

    def __init__(self, name: str, *, threads: int, waiting: int) -> None:
        self.name = name
        self._limit = threads + waiting
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)
        self._counting = threading.Lock()
        self.busy = 0
        """How many are in it, waiting or at work."""

    async def run(self, work: Callable[[], T]) -> T:
        """Do blocking work off the loop. Raises Overloaded, having done nothing, if too much is waiting already."""
        if self.busy >= self._limit:
            raise Overloaded("too much work of this kind is waiting; nothing was done")
        try:
            future = self._pool.submit(work)
        except RuntimeError:
            raise AuditUnavailable("the server is shutting down") from None
        self._count(1)
        # In it until the thread is done, even if its caller has gone by then.
        future.add_done_callback(lambda _: self._count(-1))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if future.cancelled() and not _is_leaving():
                raise AuditUnavailable("the server is shutting down") from None
            raise

    def _count(self, change: int) -> None:
        with self._counting:
            self.busy += change

    def close(self) -> None:
        """Finish what has begun, and nothing that is waiting."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Executors:
    """All executors of an engine."""

    def __init__(self) -> None:
        self.costly = BoundedExecutor("costly", threads=2, waiting=512)
        """RSA, ML-DSA, large curves: milliseconds each."""
        self.making = BoundedExecutor("making", threads=1, waiting=256)
        """New RSA keys. One at a time: each takes a core for as long as it lasts."""
        self.bulk = CooperativeExecutor("bulk", waiting=256)
        """Batches under quick keys, on the loop."""
        self.parsing = CooperativeExecutor("parsing", waiting=256)
        """Large bodies, on the loop."""
        self.reading = BoundedExecutor("reading", threads=2, waiting=256)
        """Pages and proofs of the log."""
        self.checking = BoundedExecutor("checking", threads=32, waiting=0)
        """Checks of the whole log: one works, the others wait in their threads for the same result."""
        self.changing = BoundedExecutor("changing", threads=2, waiting=512)
        """Every other change: revocations wait for nothing slow."""
        self.background = BoundedExecutor("background", threads=1, waiting=8)
        """The vault's own work."""
        self._of_cost: Final[Mapping[Cost, BoundedExecutor | None]] = {
            Cost.QUICK: None,
            Cost.KEY_GENERATION: self.making,
            Cost.LOG_READ: self.reading,
            Cost.LOG_CHECK: self.checking,
            Cost.SHORT: self.changing,
        }
        METRICS.gauge("keyvault_lane_busy", "Requests in an executor, waiting or at work.", self._busy, label="lane")

    def _busy(self) -> dict[str, float]:
        return {executor.name: executor.busy for executor in self._all()}

    def _all(self) -> list[BoundedExecutor | CooperativeExecutor]:
        return [*self._threads(), self.bulk, self.parsing]

    def _threads(self) -> list[BoundedExecutor]:
        return [one for one in vars(self).values() if isinstance(one, BoundedExecutor)]

    def choose(self, request: Request, ctx: HandlerContext) -> BoundedExecutor | None:
        """The executor of a request that was admitted; None if it stays on the loop."""
        key = ctx.named_key
        if isinstance(request, KeyRequest) and (isinstance(request, Batch) or request.cost is Cost.PRIMITIVE):
            return self.costly if key is not None and _is_costly(request, key) else None
        cost = request.cost
        if cost is Cost.KEY_LIST:
            cost = Cost.LOG_READ if ctx.principal.role is Role.SERVICE else Cost.QUICK
        elif cost is Cost.KEY_GENERATION and not _may_take_long(request, key):
            cost = Cost.SHORT
        return self._of_cost[cost]

    def close(self) -> None:
        """Let go of all threads."""
        for executor in self._threads():
            executor.close()


def _is_costly(request: KeyRequest, key: Key) -> bool:
    """AES, ChaCha20, HMAC, Ed25519, P-256 take microseconds; RSA, ML-DSA and larger curves would hold the loop up.

    So would a signature that is tried with every version of a key.
    """
    if not _is_quick(key.spec):
        return True
    first = request.items[0] if isinstance(request, Batch) and request.items else request
    return isinstance(first, Verify) and first.key_version is None and len(key.versions) > FEW_VERSIONS


def _may_take_long(request: Request, key: Key | None) -> bool:
    """Whether an RSA key is generated."""
    kind = request.generated_type or (None if key is None else key.spec.type)
    return kind is KeyType.RSA


def _is_quick(spec: KeySpec) -> bool:
    return spec.type in _QUICK_TYPES or (spec.type is KeyType.EC and spec.size == 256)  # noqa: PLR2004
