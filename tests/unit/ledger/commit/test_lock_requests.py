"""The lock that another process has: the thread waits for it, and a loop fills what is waiting by then."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.commit import group_commit
from keyvault_lite.ledger.commit import loops as loops_module
from keyvault_lite.ledger.commit.batch import Batch, Phase, unobserved
from keyvault_lite.ledger.commit.write_set import CommitRequest, WriteSet
from keyvault_lite.ledger.commit.writer import Writer
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.model.errors import AuditUnavailable
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt, VerifyAudit
from tests.support.harness import Harness


def taken(harness: Harness, *, seconds: float) -> threading.Timer:
    """The lock, as another process has it for that long."""
    other = SqliteDatabase(harness.path)
    other.acquire()
    timer = threading.Timer(seconds, other.unlock)
    timer.start()
    return timer


async def late(work: Awaitable[Any], seconds: float) -> Any:  # noqa: ANN401
    await asyncio.sleep(seconds)
    return await work


def check_sound(harness: Harness) -> None:
    assert harness.ask(VerifyAudit()).findings == ()
    harness.reopen()
    assert harness.ask(VerifyAudit()).findings == ()


def test_who_comes_while_the_lock_is_waited_for_comes_into_one_transaction_filled_on_the_loop(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = KeyRef(harness.key().id)
    filled: list[tuple[str, int]] = []
    fill = Writer.try_prepare

    def watched(self: Writer, items: Sequence[CommitRequest]) -> WriteSet | None:
        filled.append((threading.current_thread().name, len(items)))
        return fill(self, items)

    monkeypatch.setattr(Writer, "try_prepare", watched)
    before = harness.size
    other = taken(harness, seconds=0.3)
    results = harness.together(
        harness.perform(Encrypt(name, plaintext=b"x")),
        *(late(harness.perform(Encrypt(name, plaintext=b"x")), 0.05) for _ in range(5)),
    )
    other.join()
    assert not [one for one in results if isinstance(one, Exception)]
    assert harness.size == before + 6
    assert filled == [(threading.main_thread().name, 6)]
    check_sound(harness)


def test_where_no_loop_comes_to_fill_the_thread_does(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    name = KeyRef(harness.key().id)
    call, prepare = loops_module.call_soon, harness.ledger._group_commit._prepare_locked
    monkeypatch.setattr(
        group_commit,
        "call_soon",
        lambda loops, function, *rest: None if function == prepare else call(loops, function, *rest),
    )
    before = harness.size
    other = taken(harness, seconds=0.1)
    harness.ask(Encrypt(name, plaintext=b"x"))
    other.join()
    assert harness.size == before + 1
    harness.ask(Encrypt(name, plaintext=b"x"))
    check_sound(harness)


def test_a_lock_that_cannot_be_had_is_told(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    name = KeyRef(harness.key().id)
    database = harness.ledger._writer._database
    monkeypatch.setattr(database, "try_lock", lambda: False)

    def broken() -> None:
        raise AuditUnavailable("the lock file beside the database cannot be used")

    monkeypatch.setattr(database, "acquire", broken)
    before = harness.size
    harness.refusal(Encrypt(name, plaintext=b"x"), AuditUnavailable)
    monkeypatch.undo()
    harness.ask(Encrypt(name, plaintext=b"x"))
    assert harness.size == before + 1
    check_sound(harness)


def test_closing_while_the_lock_is_waited_for_answers_everyone(harness: Harness) -> None:
    name = KeyRef(harness.key().id)
    before = harness.size
    other = taken(harness, seconds=0.2)

    async def leave() -> object:
        asked = asyncio.ensure_future(harness.perform(Encrypt(name, plaintext=b"x")))
        await asyncio.sleep(0.05)
        harness.ledger._group_commit.close()  # the loop stands still in it, and cannot fill
        return await asked

    harness.run(leave())
    other.join()
    harness.reopen()
    assert harness.size == before + 1


def test_an_anchor_that_is_in_use_is_waited_for_by_the_thread(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_of_key = KeyRef(harness.key().id)
    before = harness.size
    published: list[str] = []
    for name in ("publish", "try_publish"):
        monkeypatch.setattr(Writer, name, noted(getattr(Writer, name), published))
    anchor = FileAnchor(SqliteDatabase(harness.path).anchor_path)
    held = ExitStack()

    def take(batch: Batch) -> None:
        """The anchor is free while the transaction is prepared, and in use from before COMMIT on."""
        if batch.phase is Phase.PREPARED:
            held.enter_context(anchor._locked())

    async def ask() -> object:
        harness.ledger._group_commit.observer = take
        asked = asyncio.ensure_future(harness.perform(Encrypt(name_of_key, plaintext=b"x")))
        await asyncio.sleep(0.2)
        assert published == [f"try_publish {threading.main_thread().name} False"]
        assert not asked.done()
        harness.ledger._group_commit.observer = unobserved
        held.close()
        return await asked

    harness.run(ask())
    assert published == [f"try_publish {threading.main_thread().name} False", "publish committer None"]
    assert harness.size == before + 1
    check_sound(harness)


def noted(step: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    """A step of the writer, whose thread and result are noted."""

    def call(writer: Writer, write_set: WriteSet) -> Any:  # noqa: ANN401
        result = step(writer, write_set)
        calls.append(f"{step.__name__} {threading.current_thread().name} {result}")
        return result

    return call
