"""What the vault does by itself: rotate keys whose period has passed, erase what is due, forget what has expired.

Everything that changes anything passes `Engine.perform` like any other request, and is recorded.
"""

import asyncio
import os
import time
from collections.abc import Iterable
from typing import Final

from keyvault_lite.access.ended_tokens import removable
from keyvault_lite.engine.engine import Engine
from keyvault_lite.ledger.ledger import Ledger
from keyvault_lite.model.errors import KeyVaultError
from keyvault_lite.model.identity import SystemCredential
from keyvault_lite.model.keys import Key, KeyStatus, VersionStatus
from keyvault_lite.model.material import is_waiting
from keyvault_lite.model.names import KeyId, KeyRef
from keyvault_lite.model.requests import EraseDueKey, Origin, RemoveTokens, Request
from keyvault_lite.observe import logger

PERIOD_SECONDS: Final = 30.0
ROWS_SECONDS: Final = 60.0
LOG_SECONDS: Final = 24 * 3600.0
OTHERS: Final = 3
"""How many times as long the other processes wait before they check: should the leader hang, all is checked
nevertheless."""
TOKENS_AT_ONCE: Final = 128
"""How many tokens one entry removes: commits wait for it."""
MAX_TOKENS: Final = 32 * TOKENS_AT_ONCE
"""How many a round removes: what is left comes with the next, and more than a hundred can be made each second."""

log = logger("jobs")


class Jobs:
    """The background work of one process."""

    def __init__(self, engine: Engine, ledger: Ledger) -> None:
        self._engine = engine
        self._ledger = ledger
        self._forgotten: set[tuple[KeyId, int]] = set()
        self._warned = False
        self._made = self._rows_read = time.monotonic()
        self._log_read = float("-inf")
        self._clock = engine.clock

    async def run(self) -> None:
        """Work until cancelled. A failure is logged and tried again in the next round."""
        while True:
            try:
                await self.round()
            except KeyVaultError as error:
                log.warning("background work failed: %s", error.detail, extra={"operation": error.code})
            except Exception:
                # A defect in one round must not end all later ones: keys have to be rotated and
                # erased.
                log.exception("background work failed")
            await asyncio.sleep(PERIOD_SECONDS)

    async def round(self) -> None:
        """Do what is due now. What fails keeps nothing else from being done; the first failure is raised at the end."""
        leads = await self._engine.in_background(lambda: self._ledger.is_leader)
        failures: list[KeyVaultError] = []
        for step in (self._scrub, self._keep_terms, self._forget_replies, self._forget_erased):
            try:
                await step(leads)
            except KeyVaultError as error:
                failures.append(error)
        for failure in failures[1:]:
            log.warning("background work failed: %s", failure.detail, extra={"operation": failure.code})
        if failures:
            raise failures[0]

    async def _scrub(self, leads: bool) -> None:  # noqa: FBT001  (passed to each step)
        """Read rows again each minute, the log at start and each day; what is found is acted on by the ledger."""
        now, patience = time.monotonic(), 1 if leads else OTHERS
        log_read = self._log_read if leads else max(self._log_read, self._made)
        if now - self._rows_read >= ROWS_SECONDS * patience:
            self._rows_read = now
            await self._engine.in_background(self._ledger.scrub)
        if now - log_read >= LOG_SECONDS * patience:
            self._log_read = now
            await self._engine.in_background(self._ledger.scrub_log)

    async def _keep_terms(self, leads: bool) -> None:  # noqa: FBT001
        # What another process has done is not due here any more.
        await self._engine.in_background(self._ledger.refresh)
        if leads and not self._ledger.frozen:  # else every change would be refused, with an entry for each
            await self._change()

    async def _forget_replies(self, leads: bool) -> None:  # noqa: FBT001
        if leads:
            await self._engine.in_background(self._ledger.forget_replies)

    async def _change(self) -> None:
        """The rotations, destructions and removals that are due."""
        now = time.time_ns() // 1000
        keys = list(self._ledger.snapshot().keys_after(None))
        await self._perform_each(self._engine.operations.rotation(key) for key in keys if _rotation_due(key, now))
        due: list[Request] = [EraseDueKey(KeyRef(key.id)) for key in keys if _erasure_due(key, now)]
        due += (one for key in keys for one in self._engine.operations.erasures(key, now))
        allowed = bool(due) and await self._engine.in_background(self._clock.allows_destruction)
        if allowed:
            await self._perform_each(due)
        if self._clock.is_steady():
            await self._perform_each(await self._engine.in_background(lambda: self._removals(now)))

    def _removals(self, now: int) -> list[RemoveTokens]:
        """Requests that remove tokens that are no longer valid, the oldest first and not too many."""
        state = self._ledger.snapshot()
        due = [one.id for one in removable(state.tokens(), state, now)[:MAX_TOKENS]]
        if due and not self._ledger.may_forget_tokens():
            if not self._warned:
                log.warning("ended tokens stay stored: this role may not delete from tokens (docs/postgresql.md)")
            self._warned, due = True, []
        return [RemoveTokens(tuple(due[at : at + TOKENS_AT_ONCE])) for at in range(0, len(due), TOKENS_AT_ONCE)]

    async def _forget_erased(self, _leads: bool) -> None:  # noqa: FBT001
        """What was erased, by whichever process, goes from this one's memory and from the write-ahead log."""
        erased = _erased(self._ledger.snapshot().keys_after(None))
        self._forgotten &= erased
        for key_id, _ in erased - self._forgotten:
            self._engine.forget(key_id)
        if erased - self._forgotten:
            emptied = await self._engine.in_background(self._ledger.empty_write_ahead_log)
            self._forgotten |= erased if emptied else set()

    async def _perform_each(self, requests: Iterable[Request]) -> None:
        for request in requests:
            try:
                await self._engine.perform(request, SystemCredential(), Origin(request_id=os.urandom(16)))
            except KeyVaultError as error:
                # Another process may have been first; what is still due comes again.
                log.info("not done: %s", error.detail, extra={"operation": request.action.value})


def _rotation_due(key: Key, now: int) -> bool:
    due = key.rotate_at is not None and key.rotate_at <= now
    return due and key.status is KeyStatus.ACTIVE and not is_waiting(key)


def _erased(keys: Iterable[Key]) -> set[tuple[KeyId, int]]:
    """Keys with versions whose material is gone, and how many of them."""
    counted = ((key.id, sum(one.status is VersionStatus.DESTROYED for one in key.versions)) for key in keys)
    return {(key_id, gone) for key_id, gone in counted if gone}


def _erasure_due(key: Key, now: int) -> bool:
    return key.status is KeyStatus.PENDING_DESTRUCTION and key.destroy_at is not None and key.destroy_at <= now
