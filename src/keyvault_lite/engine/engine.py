"""The one door: every front end, command and background job makes the product act through `Engine.perform`."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final, TypeVar

from keyvault_lite import __version__
from keyvault_lite.access.authenticate import Authenticator
from keyvault_lite.crypto.credentials import parse_token
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.engine import transit
from keyvault_lite.engine.attempt import Attempt
from keyvault_lite.engine.floods import FloodGate
from keyvault_lite.engine.freshness import Freshness
from keyvault_lite.ledger.ledger import Ledger
from keyvault_lite.ledger.outcome import Committed, Outcome
from keyvault_lite.ledger.state import State
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, KeyVaultError, NotFound, Unauthenticated
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.identity import Credential
from keyvault_lite.model.keys import SYMMETRIC, KeySpec, KeyType
from keyvault_lite.model.names import KeyId
from keyvault_lite.model.replies import Answer, BatchReply, Health
from keyvault_lite.model.requests import (
    Decrypt,
    Encrypt,
    GenerateDataKey,
    GenerateRandom,
    KeyRequest,
    ListKeys,
    ListServices,
    ListVersions,
    OpenDataKey,
    Origin,
    ReadKey,
    ReadPublicKey,
    ReadService,
    Rejected,
    Request,
    Rewrap,
    Sign,
    Verify,
    VerifyAudit,
)

T = TypeVar("T")

_QUICK: Final[frozenset[type[Request]]] = frozenset(
    {GenerateRandom, ListKeys, ListServices, ListVersions, ReadKey, ReadPublicKey, ReadService, Rejected}
    | transit.QUICK
)
"""Requests that never do costly work."""
_CIPHERS: Final[frozenset[type[Request]]] = frozenset(
    {Decrypt, Encrypt, GenerateDataKey, OpenDataKey, Rewrap, Sign, Verify} | transit.CIPHERS
)
"""Requests whose cost is that of their key's primitive."""
_QUICK_TYPES: Final = SYMMETRIC | {KeyType.ED25519}
_LONG: Final[frozenset[type[Request]]] = frozenset({VerifyAudit})
"""Requests that may take minutes, or wait for one that does: they must not keep the others from a thread."""


def _quick_primitive(spec: KeySpec) -> bool:
    """AES, ChaCha20, HMAC, Ed25519, P-256 take microseconds; RSA, ML-DSA and larger curves would hold the loop up."""
    return spec.type in _QUICK_TYPES or (spec.type is KeyType.EC and spec.size == 256)  # noqa: PLR2004


class Engine:
    """Operations on one vault. Belongs to one event loop; made by the composition root."""

    def __init__(self, ledger: Ledger, keyring: Keyring) -> None:
        self._ledger = ledger
        self._keyring = keyring
        self._authenticator = Authenticator(keyring, parse_token, keyring.access_keys)
        self._floods = FloodGate(self._record_flood)
        self._freshness = Freshness(ledger.refresh)
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="costly")
        self._long = ThreadPoolExecutor(max_workers=32, thread_name_prefix="long")

    async def perform(self, request: Request, credential: Credential, origin: Origin) -> Answer:
        """Do what is asked, if the caller may, and return once it is on record.

        Raises KeyVaultError for every refusal, with `audit_id` set if an entry tells of it to that caller.
        """
        attempt = Attempt(
            request,
            credential,
            origin,
            authenticator=self._authenticator,
            keyring=self._keyring,
            ledger=self._ledger,
        )
        since, outcome = await self._judge(request, attempt)
        if type(outcome.result) is NotFound and (missing := transit.key_to_make(request)) is not None:
            # Made by an entry of its own, and only for who may make keys; then the request is judged anew.
            await self.perform(missing, credential, origin)
            since, outcome = await self._judge(request, attempt)
        if isinstance(outcome.result, Unauthenticated):
            await self._freshness.renew()
            since, outcome = await self._judge(request, attempt)
            if isinstance(outcome.result, Unauthenticated) and not self._floods.admit(origin.source):
                await self._floods.counted(origin.source)
                raise outcome.result
        return _release(await self._ledger.commit(outcome, since, attempt))

    async def _judge(self, request: Request, attempt: Attempt) -> tuple[int, Outcome]:
        state = self._ledger.snapshot()
        # Before anything else of the state is read: see ledger/state.py.
        since = state.sequence
        if self._stays_on_loop(request, state):
            return since, attempt(state)
        pool = self._long if type(request) in _LONG else self._pool
        return since, await _off_loop(pool, lambda: attempt(state))

    def _stays_on_loop(self, request: Request, state: State) -> bool:
        kind = type(request)
        if kind in _CIPHERS and isinstance(request, KeyRequest):
            try:
                key = state.find_key(request.key)
            except IntegrityViolation:
                return True
            return key is None or _quick_primitive(key.spec)
        return kind in _QUICK

    async def _record_flood(self, source: str | None, count: int) -> None:
        draft = Draft(
            action=Action.AUTHENTICATE,
            result=Result.DENIED,
            request_id=os.urandom(16),
            reason=Unauthenticated.code,
            source=source,
            count=count,
        )
        outcome = Outcome((draft,), None)
        await self._ledger.commit(outcome, self._ledger.snapshot().sequence, lambda _: outcome)

    def health(self) -> Health:
        """Whether the vault can serve; told to anyone."""
        fault = self._ledger.fault
        return Health(
            status=fault.code if fault is not None else "degraded" if self._ledger.degraded else "ok",
            sealed=False,
            version=__version__,
            serving=fault is None,
            details=self._ledger.facts(),
        )

    def forget(self, key_id: KeyId) -> None:
        """Drop a key's unwrapped material from memory."""
        self._keyring.forget(key_id)

    async def in_background(self, work: Callable[[], T]) -> T:
        """Run blocking work of the engine's own off the loop."""
        return await _off_loop(self._long, work)

    def close(self) -> None:
        """Finish what is under way and let go of the ledger."""
        self._ledger.give_up_checks()
        self._freshness.close()
        self._pool.shutdown(wait=True)
        self._long.shutdown(wait=True)
        self._ledger.close()


async def _off_loop(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    try:
        running = asyncio.get_running_loop().run_in_executor(pool, work)
    except RuntimeError:
        raise AuditUnavailable("the server is shutting down") from None
    return await running


def _release(committed: Committed) -> Answer:
    result = committed.outcome.result
    if isinstance(result, Unauthenticated):
        raise result
    if isinstance(result, KeyVaultError):
        result.audit_id = committed.last_id
        raise result
    if isinstance(result, BatchReply):
        result = replace(result, audit_ids=tuple(range(committed.first_id, committed.last_id + 1)))
    return Answer(result, committed.last_id)
