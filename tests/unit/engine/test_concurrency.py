"""Many at once: one chain without a gap, and the order in the log is the order in which things took effect."""

import asyncio
import threading
from typing import Any

import pytest

from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.engine import engine
from keyvault_lite.engine.refresh_coalescer import RefreshCoalescer
from keyvault_lite.model.errors import AuditUnavailable, Conflict, InvalidState, KeyVaultError, LimitExceeded
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.keys import KeySpec, KeyType, Purpose, VersionStatus
from keyvault_lite.model.names import KeyId, KeyRef
from keyvault_lite.model.replies import Answer, Verification
from keyvault_lite.model.requests import (
    CreateKey,
    Decrypt,
    DisableKey,
    Encrypt,
    ListAudit,
    ListKeys,
    ReadCheckpoint,
    ReadConsistency,
    ReadKey,
    ReadLogKey,
    ReadReceipt,
    RevokeKey,
    RotateKey,
    Sign,
    VerifyAudit,
)
from tests.support.harness import AES, Harness

pytestmark = pytest.mark.both


def test_n_attempts_are_n_entries(harness: Harness) -> None:
    name = KeyRef(harness.key().id)
    before = harness.size
    requests = [
        request
        for number in range(30)
        for request in (
            Encrypt(name, plaintext=b"x"),
            Encrypt(KeyRef("absent"), plaintext=b"x"),
            ReadKey(name),
            CreateKey(AES, f"name-{number % 20}"),
            Decrypt(name, None, b"x", b"y"),
        )
    ]
    results = harness.together(*map(harness.perform, requests))
    ids = [one.audit_id for one in results]
    assert sorted(ids) == list(range(before + 1, before + len(requests) + 1)), "each has an entry of its own, no gap"
    entries = {entry.id: entry.draft for entry in harness.log(before)}
    for request, result in zip(requests, results, strict=True):
        draft = entries[result.audit_id]
        assert draft.action is request.action
        assert (draft.result is Result.SUCCESS) is isinstance(result, Answer)
    assert sum(isinstance(one, Conflict) for one in results) == 10, "one name is given once"
    assert harness.ask(VerifyAudit()).valid


def test_rotate_while_encrypting(harness: Harness) -> None:
    name = KeyRef(harness.key().id)
    work = [
        harness.perform(RotateKey(name) if number % 10 == 5 else Encrypt(name, plaintext=b"x")) for number in range(200)
    ]
    results = harness.together(*work)
    assert all(isinstance(one, Answer) for one in results), results
    active = 1
    for entry in harness.log(harness.size - 200):
        if entry.draft.action is Action.ROTATE:
            active += 1
        assert entry.draft.key_version == active, "the log says which version was ACTIVE when"
    for answer in results:
        if hasattr(answer.result, "ciphertext"):
            made = answer.result
            assert harness.ask(Decrypt(name, None, made.ciphertext, made.encrypted_dek)).plaintext == b"x"
    found = harness.ask(ReadKey(name))
    assert [one.status for one in found.versions] == [VersionStatus.DEPRECATED] * 20 + [VersionStatus.ACTIVE]


@pytest.mark.parametrize("how", [RevokeKey, DisableKey])
def test_revoke_while_decrypting(harness: Harness, how: Any) -> None:  # noqa: ANN401
    name = KeyRef(harness.key().id)
    made = harness.ask(Encrypt(name, plaintext=b"x"))
    request = Decrypt(name, None, made.ciphertext, made.encrypted_dek)
    late: list[Any] = []

    async def storm() -> list[Any]:
        async def keep_on() -> list[Any]:
            results: list[Any] = []
            for _ in range(30):
                try:
                    results.append(await harness.perform(request))
                except KeyVaultError as error:
                    results.append(error)
            return results

        callers = [asyncio.create_task(keep_on()) for _ in range(16)]
        await asyncio.sleep(0.02)
        revoked = await harness.perform(how(name))
        late.extend(await asyncio.gather(*(harness.perform(request) for _ in range(20)), return_exceptions=True))
        return [revoked, *(one for results in await asyncio.gather(*callers) for one in results)]

    revoked, *results = harness.run(storm())
    done = [one for one in results if isinstance(one, Answer)]
    assert done, "some were before"
    assert all(one.audit_id < revoked.audit_id for one in done), "no success after it"
    assert all(isinstance(one, InvalidState) for one in late), "nothing that begins afterwards succeeds"
    assert {one.draft.result for one in harness.log(revoked.audit_id)} == {Result.ERROR}


@pytest.mark.parametrize("step", [1, 2])
def test_a_revocation_between_two_steps_of_a_request_counts(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Before it is judged, and between admitting and acting."""
    name = KeyRef(harness.key().id)
    steps = 0

    async def between() -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            await harness.perform(RevokeKey(name))

    monkeypatch.setattr(engine, "yield_now", between)
    harness.refusal(Encrypt(name, plaintext=b"x"), InvalidState)
    told = [(one.draft.action, one.draft.result) for one in harness.log()[-2:]]
    assert told == [(Action.REVOKE, Result.SUCCESS), (Action.ENCRYPT, Result.ERROR)]


def test_batch_mates_meet_what_comes_before_them(harness: Harness) -> None:
    first, second, third = (KeyRef(harness.key().id) for _ in range(3))
    signer = KeyRef(harness.key(spec=KeySpec(KeyType.RSA, 3072, Purpose.SIGN)).id)
    before = harness.size
    results = harness.together(
        harness.perform(RevokeKey(first)),
        harness.perform(Encrypt(first, plaintext=b"x")),
        harness.perform(RotateKey(second)),
        harness.perform(RotateKey(second)),
        harness.perform(Encrypt(second, plaintext=b"x")),
        harness.perform(Encrypt(third, plaintext=b"x")),
        harness.perform(Sign(signer, b"x")),
    )
    order = sorted(range(7), key=lambda place: results[place].audit_id)
    assert sorted(one.audit_id for one in results) == list(range(before + 1, before + 8))
    revoked_first = order.index(0) < order.index(1)
    assert isinstance(results[1], InvalidState) is revoked_first
    assert {one.result.versions[-1].version for one in results[2:4]} == {2, 3}
    rotations = sum(order.index(place) < order.index(4) for place in (2, 3))
    assert results[4].result.key_version == 1 + rotations
    assert all(isinstance(one, Answer) for one in results[5:])


def test_a_caller_who_goes_away_leaves_an_entry(harness: Harness) -> None:
    name = KeyRef(harness.key().id)
    before = harness.size

    async def leave() -> None:
        tasks = [asyncio.create_task(harness.perform(Encrypt(name, plaintext=b"x"))) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    harness.run(leave())
    harness.ask(ReadKey(name))
    assert before + 10 <= harness.size - 1 <= before + 20
    assert harness.ask(VerifyAudit()).valid


def test_checks_of_the_log_are_shared_and_keep_nobody_waiting(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = []
    release = asyncio.Event()
    loop: list[asyncio.AbstractEventLoop] = []

    def slow() -> Verification:
        checks.append(1)
        asyncio.run_coroutine_threadsafe(release.wait(), loop[0]).result(20)
        if len(checks) > 1:
            raise AuditUnavailable("the disk is gone")
        return Verification(valid=True, entries=1, head=bytes(32))

    run = harness.ledger._verification.run
    monkeypatch.setattr(harness.ledger._verification, "run", lambda _: run(slow))

    async def many() -> list[Any]:
        loop.append(asyncio.get_running_loop())
        release.clear()
        asked = [asyncio.create_task(harness.perform(VerifyAudit())) for _ in range(12)]
        await asyncio.sleep(0.1)
        # Each of these needs a thread of its own.
        for number in range(3):
            await asyncio.wait_for(harness.perform(CreateKey(AES, f"meanwhile-{len(checks)}-{number}")), 2)
        await asyncio.gather(*(harness.perform(ListKeys(), None) for _ in range(3)), return_exceptions=True)
        release.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    assert {one.result.valid for one in harness.run(many())} == {True}
    assert len(checks) == 1
    errors = harness.run(many())
    assert {type(one) for one in errors} == {AuditUnavailable}
    assert len({one.audit_id for one in errors}) == 12, "each hears of its own entry"


def test_evidence_through_the_one_door(harness: Harness) -> None:
    name = KeyRef(harness.key().id)
    service, token = harness.service("worker")
    from keyvault_lite.model.errors import Forbidden, InvalidRequest, NotFound

    harness.refusal(Encrypt(name, plaintext=b"x"), NotFound, token)
    own = harness.size
    assert harness.ask(ReadReceipt(own)).startswith("c2sp.org/tlog-proof@v1\nextra ")
    harness.refusal(ReadReceipt(own), NotFound, token)
    harness.ask(ReadLogKey(), token)
    assert harness.ask(ReadReceipt(harness.size), token).startswith("c2sp.org/tlog-proof@v1\nextra ")
    harness.refusal(ReadReceipt(1), NotFound, token)
    harness.refusal(ReadReceipt(10**9), NotFound)
    harness.refusal(ListAudit(), Forbidden, token)
    assert harness.ask(ReadLogKey(), token).public_key == harness.vault.keyring.log_public_key
    assert harness.ask(ReadCheckpoint()).startswith("keyvault-lite/")
    assert harness.ask(ReadConsistency(1, own)).new == own
    harness.refusal(ReadConsistency(1, 10**9), InvalidRequest)
    page = harness.ask(ListAudit(service_id="worker", key_id=KeyId(name), limit=5))
    assert [one.id for one in page.items] == [own]
    assert harness.ask(ListAudit(service_id="nobody")).items == ()
    harness.ledger.snapshot().quarantine(name)
    assert harness.ask(ListAudit(service_id=service.id, key_id=KeyId(name))).items[0].id == own
    assert harness.ask(ListAudit(key_id=KeyId("absent"))).items == ()


def test_what_the_vault_is_told_of_its_health(harness: Harness) -> None:
    assert (harness.engine.health().status, harness.engine.health().serving) == ("ok", True)
    harness.ledger._group_commit.availability.fault = LimitExceeded("x")
    assert (harness.engine.health().status, harness.engine.health().serving) == ("limit_exceeded", False)
    harness.ledger._group_commit.availability.fault = None


# RefreshCoalescer


def test_refreshes_are_shared_and_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[float] = []

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        fresh = RefreshCoalescer(lambda: began.append(loop.time()))
        await asyncio.gather(*(fresh.renew() for _ in range(50)))
        await asyncio.gather(*(fresh.renew() for _ in range(50)))
        fresh.close()

    asyncio.run(ask())
    assert len(began) == 2
    assert began[1] - began[0] > 0.045


def test_who_asks_during_a_refresh_gets_the_next_one() -> None:
    count = 0

    async def ask() -> None:
        gate = asyncio.Event()
        loop = asyncio.get_running_loop()

        def refresh() -> None:
            nonlocal count
            count += 1
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(5)

        fresh = RefreshCoalescer(refresh)
        first = asyncio.create_task(fresh.renew())
        await asyncio.sleep(0.05)
        assert count == 1
        second = asyncio.create_task(fresh.renew())
        await asyncio.sleep(0.08)
        assert count == 1
        assert not second.done()
        gate.set()
        await asyncio.gather(first, second)
        fresh.close()

    asyncio.run(ask())
    assert count == 2


def test_a_refresh_that_fails_or_takes_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from keyvault_lite.engine import refresh_coalescer

    monkeypatch.setattr(refresh_coalescer, "PATIENCE_SECONDS", 0.05)

    async def ask() -> list[Any]:
        gate = asyncio.Event()
        loop = asyncio.get_running_loop()

        def refresh() -> None:
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(5)
            raise AuditUnavailable("gone")

        fresh = RefreshCoalescer(refresh)
        results = await asyncio.gather(*(fresh.renew() for _ in range(3)), return_exceptions=True)
        gate.set()
        results += await asyncio.gather(*(fresh.renew() for _ in range(3)), return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(None, fresh.close)
        return results

    errors = asyncio.run(ask())
    assert [one.code for one in errors] == ["audit_unavailable"] * 6
    assert len(set(map(id, errors))) == 6


def test_costly_primitives_leave_the_loop(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    where: list[tuple[str, bool]] = []
    sign, encrypt = Keyring.sign, Keyring.encrypt

    def watch(name: str, real: Any) -> Any:  # noqa: ANN401
        def called(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
            where.append((name, threading.current_thread().name.startswith("costly")))
            return real(*arguments, **named)

        return called

    monkeypatch.setattr(Keyring, "sign", watch("sign", sign))
    monkeypatch.setattr(Keyring, "encrypt", watch("encrypt", encrypt))
    rsa = harness.key("rsa", KeySpec(KeyType.RSA, 3072, Purpose.SIGN))
    p521 = harness.key("p521", KeySpec(KeyType.EC, 521, Purpose.SIGN))
    p256 = harness.key("p256", KeySpec(KeyType.EC, 256, Purpose.SIGN))
    for key in (rsa, p521, p256):
        harness.ask(Sign(KeyRef(key.id), b"x"))
    harness.ask(Encrypt(KeyRef(harness.key().id), plaintext=b"x"))
    assert where == [("sign", True), ("sign", True), ("sign", False), ("encrypt", False)]
    harness.ledger.snapshot().quarantine("p256")
    from keyvault_lite.model.errors import IntegrityViolation

    harness.refusal(Sign(KeyRef("p256"), b"x"), IntegrityViolation)


def test_who_waits_when_the_vault_closes_is_told(harness: Harness) -> None:
    from keyvault_lite.engine.executors import BoundedExecutor

    async def close_on() -> list[Any]:
        gate = threading.Event()
        executor = BoundedExecutor("test", threads=1, waiting=8)

        def refresh() -> None:
            gate.wait(5)

        fresh = RefreshCoalescer(refresh)
        work = [asyncio.create_task(executor.run(lambda: gate.wait(5))) for _ in range(4)]
        leaving = asyncio.create_task(executor.run(lambda: gate.wait(5)))
        asked = [asyncio.create_task(fresh.renew())]
        await asyncio.sleep(0.05)
        asked.append(asyncio.create_task(fresh.renew()))
        await asyncio.sleep(0.1)
        leaving.cancel()
        closing = [asyncio.get_running_loop().run_in_executor(None, one.close) for one in (executor, fresh)]
        await asyncio.sleep(0.05)
        gate.set()
        results = await asyncio.wait_for(asyncio.gather(*work, *asked, leaving, return_exceptions=True), 3)
        await asyncio.gather(*closing)
        with pytest.raises(AuditUnavailable):
            await executor.run(lambda: None)
        return results

    *results, left = harness.run(close_on())
    assert isinstance(left, asyncio.CancelledError)
    kinds = [type(one) for one in results]
    assert kinds[0] is bool
    assert kinds[1:4] == [AuditUnavailable] * 3
    assert kinds[4] is type(None)
    assert kinds[5] is AuditUnavailable
