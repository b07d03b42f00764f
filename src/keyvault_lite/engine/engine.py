"""The one door: every front end, command and background job makes the product act through `Engine.perform`."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from time import perf_counter, thread_time
from typing import Final, TypeVar

from keyvault_lite import __version__
from keyvault_lite.access.authenticate import Authenticator
from keyvault_lite.access.authorize import may_send
from keyvault_lite.crypto.credentials import parse_token
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.engine.attempt import Attempt
from keyvault_lite.engine.clock import ClockTrust
from keyvault_lite.engine.cooperative import Steps
from keyvault_lite.engine.dialect import Dialect, Operations
from keyvault_lite.engine.executors import BoundedExecutor, Executors
from keyvault_lite.engine.failed_logins import FailedLoginThrottle
from keyvault_lite.engine.handler import HandlerContext
from keyvault_lite.engine.pacing import ServicePacing
from keyvault_lite.engine.reading import Reading, Repeated
from keyvault_lite.engine.refresh_coalescer import RefreshCoalescer
from keyvault_lite.engine.yielding import yield_now
from keyvault_lite.ledger.ledger import Ledger
from keyvault_lite.ledger.state.outcome import Committed, Outcome
from keyvault_lite.ledger.state.snapshot import SnapshotVersion
from keyvault_lite.model.errors import (
    AuditUnavailable,
    IntegrityViolation,
    KeyVaultError,
    NotFound,
    OutcomeUnknown,
    ShareExceeded,
    Unauthenticated,
)
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.identity import Credential, Principal, Role
from keyvault_lite.model.intake import Intake, RequestConnection, Upload
from keyvault_lite.model.names import KeyId, ServiceId
from keyvault_lite.model.replies import Answer, BatchReply, Health
from keyvault_lite.model.requests import Batch, Origin, Request, SealVault
from keyvault_lite.model.unseal import SealStatus, Unseal
from keyvault_lite.observe.metrics import METRICS

T = TypeVar("T")
BY_MASTER_KEY: Final = SealStatus(sealed=False, root="file")
_UNRECORDED = (AuditUnavailable, IntegrityViolation, OutcomeUnknown, ShareExceeded)
"""What is raised where nothing could be recorded; the second may also be the result of a recorded attempt."""


class Engine:
    """Operations on one vault. Belongs to one event loop; made by the composition root."""

    def __init__(
        self,
        ledger: Ledger,
        keyring: Keyring,
        dialects: Sequence[Dialect],
        *,
        seal_status: SealStatus = BY_MASTER_KEY,
    ) -> None:
        """`seal_status` says what has opened the vault."""
        self._seal_status = seal_status
        self._has_ended = False
        self.operations = Operations(dialects)
        self._ledger = ledger
        self._keyring = keyring
        operations = self.operations
        self._authenticator = Authenticator(keyring, parse_token, operations.schemes(keyring), operations.authority)
        self.clock = ClockTrust(ledger)
        self._floods = FailedLoginThrottle(self._record_flood)
        self._freshness = RefreshCoalescer(ledger.refresh)
        self._executors = Executors()
        self._reading = Reading(
            ledger,
            self._freshness,
            self._executors.reading,
            record=self._perform,
            admit=self._admit_now,
            identify=self._identify,
        )
        self._shares = ServicePacing()

    async def perform(self, request: Request, credential: Credential, origin: Origin) -> Answer:
        """Do what is asked, if the caller may, and return once it is on record.

        Raises KeyVaultError for every refusal, with `audit_id` set if an entry tells of it to that caller.
        """
        if isinstance(request, Repeated):
            return await self._reading.perform(request, credential, origin)
        answer = await self._perform(request, credential, origin)
        if isinstance(request, SealVault):
            self._has_ended = True
        return answer

    async def _perform(self, request: Request, credential: Credential, origin: Origin) -> Answer:
        began = perf_counter()
        await yield_now()
        attempt = self._attempt(request, credential, origin)
        try:
            committed = await self._record(request, credential, origin, attempt)
        except _UNRECORDED as error:
            METRICS.count_unrecorded(error.code)
            raise
        draft = committed.outcome.drafts[0]
        METRICS.count_request(draft.action, draft.result, perf_counter() - began)
        return _release(committed)

    def _attempt(self, request: Request, credential: Credential, origin: Origin) -> Attempt:
        return Attempt(
            request,
            credential,
            origin,
            authenticator=self._authenticator,
            keyring=self._keyring,
            ledger=self._ledger,
            operations=self.operations,
        )

    def _admit_now(self, request: Request, credential: Credential, origin: Origin) -> HandlerContext | Outcome:
        return self._attempt(request, credential, origin).admit(self._ledger.snapshot())

    async def intake(self, credential: Credential, upload: Upload, conn: RequestConnection) -> Intake:
        """Whose body it is and whether it may be large, before any of it is read. Nothing else rests on it.

        Waits for the caller's turn where it is paced. Raises ShareExceeded.
        """
        principal = self._identify(credential)
        if principal is None:
            with suppress(KeyVaultError):  # a credential that another process has made
                await self._freshness.renew()
            principal = self._identify(credential)
        if principal is None:
            return Intake()
        conn.owner = principal.service_id
        if self._may_send(principal, upload):
            return Intake(principal.service_id, may_be_large=True)
        if principal.role is Role.SERVICE:
            await self._shares.pace(principal.service_id, conn)
        return Intake(principal.service_id)

    def _identify(self, credential: Credential) -> Principal | None:
        try:
            return self._authenticator.authenticate(credential, self._ledger.snapshot(), self._ledger.now())
        except KeyVaultError:
            return None

    def _may_send(self, principal: Principal, upload: Upload) -> bool:
        try:
            key = None if upload.key is None else self._ledger.snapshot().find_key(upload.key)
        except IntegrityViolation:
            return False
        return may_send(principal, upload.action, key, upload.space)

    async def in_steps(self, begin: Callable[[], Steps[T]]) -> T:
        """Take the steps of reading a large body, one body at a time, and let everybody else have turns in between."""
        return await self._executors.parsing.run(begin)

    async def _record(self, request: Request, credential: Credential, origin: Origin, attempt: Attempt) -> Committed:
        conn = origin.conn or RequestConnection()
        since, outcome = await self._evaluate(request, attempt, conn)
        if type(outcome.result) is NotFound and (missing := self.operations.prerequisite(request)) is not None:
            # Made by an entry of its own, and only for who may make keys; then the request is evaluated again.
            await self.perform(missing, credential, origin)
            since, outcome = await self._evaluate(request, attempt, conn)
        if isinstance(outcome.result, Unauthenticated):
            await self._freshness.renew()
            since, outcome = await self._evaluate(request, attempt, conn)
            if isinstance(outcome.result, Unauthenticated) and not self._floods.admit(origin.source):
                with conn.waiting(lambda: None):  # what is counted stays counted, answered or not
                    await self._floods.counted(origin.source)
                raise outcome.result
        return await self._ledger.commit(outcome, since, attempt)

    async def _evaluate(
        self, request: Request, attempt: Attempt, conn: RequestConnection
    ) -> tuple[SnapshotVersion, Outcome]:
        since, admitted = self._admit(attempt)
        principal = admitted.principal if isinstance(admitted, HandlerContext) else attempt.refused
        conn.owner = None if principal is None else principal.service_id
        paced = _paced(principal, admitted)
        if paced is not None:
            await self._shares.pace(paced, conn)
            since, admitted = self._admit(attempt)  # it may have waited
        if isinstance(admitted, Outcome):
            # The same for every key: refused callers enter no queue, and take no place in one.
            return since, admitted
        executor = self._executors.choose(request, admitted)
        if executor is not None:
            return await self._in_executor(executor, attempt, paced)
        if isinstance(request, Batch):
            return await self._executors.bulk.run(lambda: self._evaluate_in_steps(request, attempt))
        await yield_now()
        return since, attempt.act(admitted)

    def _admit(self, attempt: Attempt) -> tuple[SnapshotVersion, HandlerContext | Outcome]:
        state = self._ledger.snapshot()
        # Before anything of the state is evaluated: see ledger/state/snapshot.py.
        since = state.snapshot_version
        return since, attempt.admit(state)

    async def _in_executor(
        self, executor: BoundedExecutor, attempt: Attempt, paced: ServiceId | None
    ) -> tuple[SnapshotVersion, Outcome]:
        if paced is None:
            return await executor.run(lambda: self._evaluate_again(attempt))

        def metered() -> tuple[tuple[SnapshotVersion, Outcome], float]:
            began = thread_time()
            return self._evaluate_again(attempt), thread_time() - began

        judged, seconds = await executor.run(metered)
        self._shares.charge(paced, seconds)
        return judged

    def _evaluate_again(self, attempt: Attempt) -> tuple[SnapshotVersion, Outcome]:
        """What waited is evaluated on the state there is by then."""
        state = self._ledger.snapshot()
        since = state.snapshot_version
        return since, attempt(state)

    def _evaluate_in_steps(self, batch: Batch, attempt: Attempt) -> Steps[tuple[SnapshotVersion, Outcome]]:
        state = self._ledger.snapshot()
        since = state.snapshot_version  # as above: whatever changes between two steps is newer
        return since, (yield from attempt.in_steps(batch, state))

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
        await self._ledger.commit(outcome, self._ledger.snapshot().snapshot_version, lambda _: outcome)

    def has_ended(self) -> bool:
        """Whether the vault was sealed: the server has to end, and start again without the keyring."""
        return self._has_ended

    def seal_status(self) -> SealStatus:
        """That the vault is open, and by what; told to anyone."""
        return self._seal_status

    async def unseal(self, given: Unseal, source: str | None) -> SealStatus:
        """Nothing is missing: what is handed in is dropped."""
        return self._seal_status

    def health(self) -> Health:
        """Whether the vault can serve; told to anyone."""
        fault = self._ledger.fault
        return Health(
            status=self._status(fault),
            sealed=False,
            version=__version__,
            serving=fault is None and not self._ledger.space_is_low,
            details={**self._ledger.facts(), "clock": self.clock.state},
        )

    def _status(self, fault: KeyVaultError | None) -> str:
        if fault is not None:
            return fault.code
        states = {
            "no_space": self._ledger.space_is_low,
            "degraded": self._ledger.degraded,
            "low_space": self._ledger.space_is_scarce,
            "unchecked": self._ledger.maintenance.is_late,
            "wrong_clock": self.clock.is_wrong,
        }
        return next((name for name, holds in states.items() if holds), "ok")

    def forget(self, key_id: KeyId) -> None:
        """Drop a key's unwrapped material from memory."""
        self._keyring.versions.forget(key_id)

    async def in_background(self, work: Callable[[], T]) -> T:
        """Run blocking work of the engine's own off the loop."""
        return await self._executors.background.run(work)

    async def stop_waiting(self) -> None:
        """Answer the requests that wait for the log to grow: the server is about to end."""
        await self._reading.stop()

    def close(self) -> None:
        """Finish what is under way and let go of the ledger."""
        self._ledger.give_up_checks()
        self._freshness.close()
        self._executors.close()
        self._ledger.close()


def _paced(principal: Principal | None, admitted: HandlerContext | Outcome) -> ServiceId | None:
    """The SERVICE that a request is counted for, unless it is admitted to the use of a key."""
    if isinstance(admitted, HandlerContext) and admitted.named_key is not None:
        return None
    return principal.service_id if principal is not None and principal.role is Role.SERVICE else None


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
