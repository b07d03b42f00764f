"""A transaction's worth of entries and rows, before any of it is written."""

import os
import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from keyvault_lite.audit.chain import genesis
from keyvault_lite.audit.entry import ENTRY_COLUMNS
from keyvault_lite.audit.merkle import Tiles
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.ledger.commit.write_set import CommitRequest, WouldBlock, WriteSet
from keyvault_lite.ledger.state.head import Head
from keyvault_lite.ledger.state.outcome import Change, Outcome
from keyvault_lite.ledger.state.root import StateTree, row_key
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.identity import Role, Service
from keyvault_lite.model.names import ServiceId, TokenId, new_id

RING = Keyring.create()


class Watched(StateTree):
    """A tree that notes what is taken out of it."""

    def __init__(self) -> None:
        super().__init__()
        self.removed: list[bytes] = []

    def remove(self, keys: Any) -> None:  # noqa: ANN401
        self.removed += keys


class Recording:
    """A connection and a store that take everything and note it."""

    def __init__(self) -> None:
        self.executed: list[tuple[str, Any]] = []

    def execute(self, sql: str, values: Any = ()) -> SimpleNamespace:  # noqa: ANN401
        self.executed.append((sql, values))
        return SimpleNamespace(rowcount=1)

    executemany = execute

    def pipelined(self, _: driver.Connection) -> nullcontext[None]:
        return nullcontext()

    def append(self, _: driver.Connection, entries: list[Any]) -> SimpleNamespace:
        self.entries = [dict(zip(ENTRY_COLUMNS, entry, strict=True)) for entry in entries]
        return SimpleNamespace(rowcount=len(entries))


def begun(tree: StateTree | None = None) -> WriteSet:
    start, tiles, tree = genesis(RING.instance_id, RING.log_public_key), Tiles(), StateTree() if tree is None else tree
    head = Head(3, 0, start, 0, 0, tree.root(), tiles.edge.to_bytes(), "")
    return WriteSet(LogTip(head, b"", tiles, ""), State(lambda *_: None), tree, RING, lambda *_: None)


def item(change: Change | None = None) -> CommitRequest:
    draft = Draft(action=Action.SERVICE_CREATE, result=Result.SUCCESS, request_id=os.urandom(16))
    outcome = Outcome((draft,), None, change)
    return CommitRequest(outcome, State(lambda *_: None).snapshot_version, lambda _: outcome)


def test_what_is_deleted_is_deleted_with_its_row_of_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 7_999_999)
    gone, recording = TokenId("gone"), Recording()
    made: Any = begun(tree := Watched())
    made.add(item(Change(gone_tokens=(gone,), lost_replies=("service/00",), new_epoch=True)))
    made.add(item(Change()), blocking=True)
    made.store(recording, recording)
    assert tree.removed == [row_key("tokens", (gone,))]
    assert recording.executed[:3] == [
        (statements.LOSE_REPLY, [("service/00",)]),
        (statements.RELEASE_TOKEN, [(gone,)]),
        (statements.FORGET_TOKEN, [(gone,)]),
    ]
    assert [(one["id"], one["epoch"], one["timestamp"]) for one in recording.entries] == [(1, 4, 7999), (2, 4, 7999)]
    assert made.after.head.epoch == 4


def test_who_comes_after_a_change_is_judged_on_the_state_with_it() -> None:
    service = Service(ServiceId(new_id()), "worker", Role.SERVICE, active=True, created_at=1)
    made, judged = begun(), list[Any]()
    first, second, third = (item(Change(services=(service,))), item(), item())
    assert not made.is_stale(first)
    made.add(first)
    outcome = second.outcome

    def redo(state: State) -> Outcome:
        judged.append(state.find_service("worker"))
        return outcome

    second.redo = redo
    with pytest.raises(WouldBlock):
        made.add(second, blocking=False)
    assert judged == []
    made.add(second)
    assert judged == [service]
    made.add(third)
    assert [one.first_id for one in (first, second, third)] == [1, 2, 3]


def test_the_tree_of_the_log_is_in_no_text() -> None:
    assert "tiles" not in repr(begun().after)
