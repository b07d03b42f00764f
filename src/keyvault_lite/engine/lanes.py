"""Where work goes that would hold the event loop up: a lane for each kind of cost, few threads and a bounded queue.

What is slow has to wait for what is slow alike: a batch of RSA keys being made keeps nobody from signing, a check of
the whole log keeps nobody from revoking. A lane that is full turns away at once, before anything was done.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from keyvault_lite.dialects.aws import handlers
from keyvault_lite.dialects.vault import handlers as transit
from keyvault_lite.dialects.vault.requests import CreateTransitKey, ListTransitKeys, RotateDueTransitKey
from keyvault_lite.engine.scene import Scene
from keyvault_lite.engine.slices import Slices
from keyvault_lite.model.errors import AuditUnavailable, Overloaded
from keyvault_lite.model.identity import Role
from keyvault_lite.model.keys import SYMMETRIC, Key, KeySpec, KeyType
from keyvault_lite.model.requests import (
    Batch,
    CreateKey,
    Decrypt,
    Encrypt,
    FollowAudit,
    GenerateDataKey,
    GenerateRandom,
    KeyRequest,
    ListAudit,
    ListKeys,
    ListReceipts,
    ListServices,
    ListVersions,
    OpenDataKey,
    ReadConsistency,
    ReadKey,
    ReadMetrics,
    ReadPublicKey,
    ReadReceipt,
    ReadSelf,
    ReadService,
    Rejected,
    Request,
    Rewrap,
    RotateDueKey,
    RotateKey,
    Sign,
    Verify,
    VerifyAudit,
)
from keyvault_lite.observe.metrics import METRICS

T = TypeVar("T")

_QUICK: Final[frozenset[type[Request]]] = frozenset(
    {
        FollowAudit,
        GenerateRandom,
        ListKeys,
        ListServices,
        ListVersions,
        ReadKey,
        ReadMetrics,
        ReadPublicKey,
        ReadSelf,
        ReadService,
        Rejected,
        *handlers.QUICK,
        *transit.QUICK,
    }
)
"""Requests that never do costly work."""
_CIPHERS: Final[frozenset[type[Request]]] = frozenset(
    {Decrypt, Encrypt, GenerateDataKey, OpenDataKey, Rewrap, Sign, Verify, *handlers.CIPHERS, *transit.CIPHERS}
)
"""Requests whose cost is that of their key's primitive."""
_MAKING: Final[frozenset[type[Request]]] = frozenset(
    {CreateKey, CreateTransitKey, RotateDueKey, RotateDueTransitKey, RotateKey, *handlers.MAKING}
)
"""Requests that make key material: an RSA-4096 key takes a second and more, all others less than a millisecond."""
_LISTS: Final[frozenset[type[Request]]] = frozenset({ListKeys, ListTransitKeys})
FEW_VERSIONS: Final = 8
"""With so many a signature is tried on the loop."""
_READING: Final[frozenset[type[Request]]] = frozenset({ListAudit, ListReceipts, ReadConsistency, ReadReceipt})
_QUICK_TYPES: Final = SYMMETRIC | {KeyType.ED25519}


def _is_leaving() -> bool:
    """Whether it is the caller who was cancelled, and not only the work."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Lane:
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


class Lanes:
    """All lanes of an engine."""

    def __init__(self) -> None:
        self.costly = Lane("costly", threads=2, waiting=512)
        """RSA, ML-DSA, large curves: milliseconds each."""
        self.making = Lane("making", threads=1, waiting=256)
        """New RSA keys. One at a time: each takes a core for as long as it lasts."""
        self.bulk = Slices("bulk", waiting=256)
        """Batches under quick keys, on the loop."""
        self.parsing = Slices("parsing", waiting=256)
        """Large bodies, on the loop."""
        self.reading = Lane("reading", threads=2, waiting=256)
        """Pages and proofs of the log."""
        self.checking = Lane("checking", threads=32, waiting=0)
        """Checks of the whole log: one works, the others wait in their threads for the same result."""
        self.changing = Lane("changing", threads=2, waiting=512)
        """Every other change: revocations wait for nothing slow."""
        self.background = Lane("background", threads=1, waiting=8)
        """The vault's own work."""
        METRICS.gauge("keyvault_lane_busy", "Requests in a lane, waiting or at work.", self._busy, label="lane")

    def _busy(self) -> dict[str, float]:
        return {lane.name: lane.busy for lane in self._all()}

    def _all(self) -> list[Lane | Slices]:
        return [*self._threads(), self.bulk, self.parsing]

    def _threads(self) -> list[Lane]:
        return [one for one in vars(self).values() if isinstance(one, Lane)]

    def choose(self, request: Request, scene: Scene) -> Lane | None:
        """The lane of a request that was admitted; None if it stays on the loop."""
        kind, key = type(request), scene.named_key
        if isinstance(request, KeyRequest) and (kind in _CIPHERS or isinstance(request, Batch)):
            return self.costly if key is not None and _is_costly(request, key) else None
        if kind in _LISTS and scene.principal.role is Role.SERVICE:
            return self.reading  # every key is held against every grant
        if kind in _QUICK:
            return None
        if kind in _MAKING and _may_take_long(request, key):
            return self.making
        if kind in _READING:
            return self.reading
        return self.checking if kind is VerifyAudit else self.changing

    def close(self) -> None:
        """Let go of all threads."""
        for lane in self._threads():
            lane.close()


def _is_costly(request: KeyRequest, key: Key) -> bool:
    """AES, ChaCha20, HMAC, Ed25519, P-256 take microseconds; RSA, ML-DSA and larger curves would hold the loop up.

    So would a signature that is tried with every version of a key.
    """
    if not _is_quick(key.spec):
        return True
    first = request.items[0] if isinstance(request, Batch) and request.items else request
    return isinstance(first, Verify) and first.key_version is None and len(key.versions) > FEW_VERSIONS


def _may_take_long(request: Request, key: Key | None) -> bool:
    """Whether what is made is an RSA key."""
    if isinstance(request, (CreateKey, CreateTransitKey)):
        return request.spec.type is KeyType.RSA
    if type(request) in handlers.MAKING:
        return handlers.makes_rsa(request)
    return key is not None and key.spec.type is KeyType.RSA


def _is_quick(spec: KeySpec) -> bool:
    return spec.type in _QUICK_TYPES or (spec.type is KeyType.EC and spec.size == 256)  # noqa: PLR2004
