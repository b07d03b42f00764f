"""A batch is worked on in slices: others have their turns in between, and what changes meanwhile is met."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest

from keyvault_lite.engine import cooperative
from keyvault_lite.engine.cooperative import CooperativeExecutor, Steps, run_to_end
from keyvault_lite.model.errors import InvalidState, Overloaded
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import BatchReply
from keyvault_lite.model.requests import Batch, Encrypt, RevokeKey
from tests.support.harness import Harness


@pytest.fixture
def a_turn_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooperative, "SLICE_SECONDS", 0.0)


def counted(name: str, steps: int, taken: list[str]) -> Steps[str]:
    for _ in range(steps):
        taken.append(name)
        yield
    return name


def test_at_once_gives_the_result_of_all_steps() -> None:
    taken: list[str] = []
    assert run_to_end(counted("a", 3, taken)) == "a"
    assert taken == ["a"] * 3


@pytest.mark.usefixtures("a_turn_a_step")
def test_others_have_a_turn_between_two_slices_and_works_come_one_after_another() -> None:
    async def run() -> None:
        taken: list[str] = []
        executor = CooperativeExecutor("lane", waiting=1)

        async def other() -> None:
            while executor.busy:
                taken.append("other")
                await asyncio.sleep(0)

        works = [asyncio.create_task(executor.run(partial(counted, name, 20, taken))) for name in "ab"]
        await asyncio.sleep(0)
        assert executor.busy == 2
        await other()
        assert await asyncio.gather(*works) == ["a", "b"]
        assert [one for one in taken if one != "other"] == ["a"] * 20 + ["b"] * 20
        turns = "".join(one[0] for one in taken)
        assert "aa" not in turns
        assert "bb" not in turns

    asyncio.run(run())


def test_a_slice_is_more_than_a_step() -> None:
    async def run() -> None:
        taken: list[str] = []
        executor = CooperativeExecutor("lane", waiting=0)
        work = asyncio.create_task(executor.run(lambda: counted("a", 3, taken)))
        await asyncio.sleep(0)
        assert len(taken) == 3
        assert await work == "a"

    asyncio.run(run())


@pytest.mark.usefixtures("a_turn_a_step")
def test_beyond_its_end_it_turns_away_and_who_leaves_makes_room() -> None:
    async def run() -> None:
        taken: list[str] = []
        executor = CooperativeExecutor("lane", waiting=1)
        works = [asyncio.create_task(executor.run(partial(counted, name, 1000, taken))) for name in "ab"]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="nothing was done"):
            await executor.run(lambda: counted("c", 1, taken))
        for work in works:  # the one at work, then the one that waited
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
        assert executor.busy == 0
        assert await executor.run(lambda: counted("d", 1, taken)) == "d"
        assert len(taken) < 1000

    asyncio.run(run())


@pytest.mark.usefixtures("a_turn_a_step")
def test_a_work_that_fails_lets_the_next_one_in() -> None:
    def failing() -> Steps[str]:
        yield
        raise KeyError

    async def run() -> None:
        executor = CooperativeExecutor("lane", waiting=1)
        first = asyncio.create_task(executor.run(failing))
        second = asyncio.create_task(executor.run(lambda: counted("b", 2, [])))
        with pytest.raises(KeyError):
            await first
        assert await second == "b"
        assert executor.busy == 0

    asyncio.run(run())


@pytest.mark.usefixtures("a_turn_a_step")
def test_a_revocation_in_the_middle_of_a_batch_is_final_for_all_of_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The item that was encrypted before it is refused like those after it: it was on record first."""
    key = KeyRef(harness.key().id)
    batch = Batch(key, Action.ENCRYPT, (Encrypt(key, plaintext=b"x"),) * 3)

    async def run() -> BatchReply:
        reached, revoked = asyncio.Event(), asyncio.Event()

        async def turn() -> None:
            reached.set()
            await revoked.wait()

        monkeypatch.setattr(cooperative, "yield_now", turn)
        working = asyncio.ensure_future(harness.perform(batch))
        await reached.wait()
        await harness.perform(RevokeKey(key))
        revoked.set()
        result = (await working).result
        assert isinstance(result, BatchReply)
        return result

    items = harness.run(run()).items
    assert len(items) == 3
    assert all(isinstance(one, InvalidState) for one in items)
    drafts = [entry.draft for entry in harness.log(harness.size - 4)]
    assert [draft.action for draft in drafts] == [Action.REVOKE, *[Action.ENCRYPT] * 3]
    assert [draft.result for draft in drafts] == [Result.SUCCESS, *[Result.ERROR] * 3]


def test_a_defect_in_a_batch_is_recorded_once(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    key = KeyRef(harness.key().id)
    before = harness.size

    def broken(*_: object) -> Iterator[None]:
        raise RuntimeError

    monkeypatch.setattr("keyvault_lite.crypto.keyring.Keyring.encrypt", broken)
    answers = harness.together(harness.perform(Batch(key, Action.ENCRYPT, (Encrypt(key, plaintext=b"x"),) * 2)))
    assert [one.code for one in answers] == ["internal_error"]
    assert harness.size == before + 1
