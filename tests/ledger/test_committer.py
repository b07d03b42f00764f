"""The queue of the group commit: who is in the next transaction, and what a failure leaves behind."""

import asyncio
import os
from types import SimpleNamespace
from typing import Any

import pytest

from keyvault_lite.ledger import committer as module
from keyvault_lite.ledger.committer import QUIET, Committer
from keyvault_lite.ledger.outcome import Outcome
from keyvault_lite.ledger.pending import Item
from keyvault_lite.ledger.waiting import Transaction, Waiting
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.observe.metrics import METRICS


@pytest.fixture
def committer(monkeypatch: pytest.MonkeyPatch) -> Committer:
    """One whose thread was not started: what it hands over stays to be looked at."""
    monkeypatch.setattr(METRICS, "gauge", lambda *_: None)
    journal: Any = SimpleNamespace(fills_at_once=False)
    return Committer(journal)


def waiting() -> Waiting:
    draft = Draft(action=Action.RANDOM, result=Result.SUCCESS, request_id=os.urandom(16))
    outcome = Outcome((draft,), None)
    return Waiting(Item(outcome, (0, 0), lambda _: outcome), asyncio.get_running_loop())


@pytest.mark.parametrize(("company", "rounds"), [(False, 0), (True, QUIET)])
def test_who_came_during_a_transaction_is_in_the_next(
    committer: Committer, monkeypatch: pytest.MonkeyPatch, *, company: bool, rounds: int
) -> None:
    """At once if the last one was of one request, else when so many rounds of the loop have brought nobody else."""
    monkeypatch.setattr(module, "LINGER_SECONDS", 60)

    async def answer() -> int:
        answered, next_one = waiting(), waiting()
        committer._company = company
        committer._queue.append(next_one)
        committer._resolve([answered], None)
        assert answered.future.done()
        waited = 0
        while committer._handed.empty() and waited <= QUIET:
            await asyncio.sleep(0)
            waited += 1
        transaction = committer._handed.get_nowait()
        assert isinstance(transaction, Transaction)
        assert transaction.batch == [next_one]
        return waited

    assert asyncio.run(answer()) == rounds


def test_every_failure_is_counted_and_what_halts_is_for_good(committer: Committer) -> None:
    before, halted = METRICS.commit_failures, list[bool]()
    for refusal in (AuditUnavailable("the disk is full"), IntegrityViolation("damaged"), AuditUnavailable("gone")):
        assert committer._fail(refusal) is committer.fault is refusal
        halted.append(committer.halted)
    assert halted == [False, True, True]
    assert METRICS.commit_failures == before + 3
