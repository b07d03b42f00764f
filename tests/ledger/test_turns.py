"""The lock that another process has: the thread waits for it, and a loop fills what is waiting by then."""

import asyncio
import threading
from collections.abc import Awaitable, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.commit.journal import Journal
from keyvault_lite.ledger.commit.transaction import Item, Pending
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.model.errors import AuditUnavailable
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt, VerifyAudit
from tests.house import House


def taken(house: House, *, seconds: float) -> threading.Timer:
    """The lock, as another process has it for that long."""
    other = SqliteDatabase(house.path)
    other.acquire()
    timer = threading.Timer(seconds, other.unlock)
    timer.start()
    return timer


async def late(work: Awaitable[Any], seconds: float) -> Any:  # noqa: ANN401
    await asyncio.sleep(seconds)
    return await work


def check_sound(house: House) -> None:
    assert house.ask(VerifyAudit()).findings == ()
    house.reopen()
    assert house.ask(VerifyAudit()).findings == ()


def test_who_comes_while_the_lock_is_waited_for_comes_into_one_transaction_filled_on_the_loop(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = KeyRef(house.key().id)
    filled: list[tuple[str, int]] = []
    fill = Journal.fill_held

    def watched(self: Journal, items: Sequence[Item]) -> Pending | None:
        filled.append((threading.current_thread().name, len(items)))
        return fill(self, items)

    monkeypatch.setattr(Journal, "fill_held", watched)
    before = house.size
    other = taken(house, seconds=0.3)
    results = house.together(
        house.perform(Encrypt(name, plaintext=b"x")),
        *(late(house.perform(Encrypt(name, plaintext=b"x")), 0.05) for _ in range(5)),
    )
    other.join()
    assert not [one for one in results if isinstance(one, Exception)]
    assert house.size == before + 6
    assert filled == [(threading.main_thread().name, 6)]
    check_sound(house)


def test_where_no_loop_comes_to_fill_the_thread_does(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    name = KeyRef(house.key().id)
    committer = house.ledger._committer
    call, fill = committer._call, committer._fill_in_turn
    monkeypatch.setattr(
        committer, "_call", lambda loops, function, *rest: None if function == fill else call(loops, function, *rest)
    )
    before = house.size
    other = taken(house, seconds=0.1)
    house.ask(Encrypt(name, plaintext=b"x"))
    other.join()
    assert house.size == before + 1
    house.ask(Encrypt(name, plaintext=b"x"))
    check_sound(house)


def test_a_lock_that_cannot_be_had_is_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    name = KeyRef(house.key().id)
    database = house.ledger._journal._database
    monkeypatch.setattr(database, "try_lock", lambda: False)

    def broken() -> None:
        raise AuditUnavailable("the lock file beside the database cannot be used")

    monkeypatch.setattr(database, "acquire", broken)
    before = house.size
    house.refusal(Encrypt(name, plaintext=b"x"), AuditUnavailable)
    monkeypatch.undo()
    house.ask(Encrypt(name, plaintext=b"x"))
    assert house.size == before + 1
    check_sound(house)


def test_closing_while_the_lock_is_waited_for_answers_everyone(house: House) -> None:
    name = KeyRef(house.key().id)
    before = house.size
    other = taken(house, seconds=0.2)

    async def leave() -> object:
        asked = asyncio.ensure_future(house.perform(Encrypt(name, plaintext=b"x")))
        await asyncio.sleep(0.05)
        house.ledger._committer.close()  # the loop stands still in it, and cannot fill
        return await asked

    house.run(leave())
    other.join()
    house.reopen()
    assert house.size == before + 1


def test_an_anchor_that_is_in_use_is_waited_for_by_the_thread(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    name = KeyRef(house.key().id)
    before = house.size
    settled: list[str] = []
    settle = Journal.settle

    def watched(self: Journal, filled: Pending, *, at_once: bool) -> bool:
        done = settle(self, filled, at_once=at_once)
        settled.append(f"{threading.current_thread().name} {done}")
        return done

    monkeypatch.setattr(Journal, "settle", watched)
    anchor = FileAnchor(SqliteDatabase(house.path).anchor_path)

    async def ask() -> object:
        # The anchor is free while the transaction is filled, and taken from before COMMIT on.
        fill = Journal.fill_held

        def take(self: Journal, items: Sequence[Item]) -> Pending | None:
            filled = fill(self, items)
            held.enter_context(anchor._locked())
            return filled

        monkeypatch.setattr(Journal, "fill_held", take)
        asked = asyncio.ensure_future(house.perform(Encrypt(name, plaintext=b"x")))
        await asyncio.sleep(0.2)
        assert settled == [f"{threading.main_thread().name} False"]
        assert not asked.done()
        monkeypatch.setattr(Journal, "fill_held", fill)
        held.close()
        return await asked

    held = ExitStack()
    house.run(ask())
    assert settled == [f"{threading.main_thread().name} False", "committer True"]
    assert house.size == before + 1
    check_sound(house)
