"""Leased tokens past their end: they do nothing any more, and in time they are removed, on record."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from types import ModuleType

import pytest

from keyvault_lite.engine import clock as clock_module
from keyvault_lite.engine import jobs as jobs_module
from keyvault_lite.ledger import ledger as ledger_module
from keyvault_lite.ledger.commit import write_set
from keyvault_lite.ledger.state.verified_rows import NOT_COMMITTED
from keyvault_lite.ledger.storage import driver, statements
from keyvault_lite.model.errors import Conflict, Forbidden
from keyvault_lite.model.evidence import Action, Entry, Result
from keyvault_lite.model.identity import SystemCredential, TokenKind
from keyvault_lite.model.names import SYSTEM, TokenId
from keyvault_lite.model.requests import RemoveTokens
from tests.support.faults import FaultyConnection
from tests.support.harness import Harness
from tests.support.vault_client import Asker

pytestmark = pytest.mark.both
Pass = Callable[[float], None]
HOUR = 1 / 24


@pytest.fixture
def pass_days(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> Pass:
    """Moves the vault's clocks; the time of the test itself stays."""
    moved, passed = clocks(monkeypatch), [0.0]
    monkeypatch.setattr(moved, "time_ns", lambda: time.time_ns() + int(passed[0] * 86400e9))

    def go(days: float) -> None:
        passed[0] += days

    return go


def clocks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What the vault's modules take for the module `time`."""
    moved = ModuleType("time")
    for name in ("time_ns", "time", "monotonic"):
        setattr(moved, name, getattr(time, name))
    for module in (clock_module, jobs_module, ledger_module, write_set):
        monkeypatch.setattr(module, "time", moved)
    return moved


def child(ask: Asker, ttl: str = "1h", *, token: str = "", **more: object) -> tuple[str, TokenId]:
    """A new token and its accessor, which is its id."""
    auth = ask.post("auth/token/create", {"ttl": ttl, **more}, token=token).json["auth"]
    return auth["client_token"], TokenId(auth["accessor"])


def may_act(ask: Asker, token: str) -> bool:
    return ask("GET", "auth/token/lookup-self", token=token).status == 200


def known(ask: Asker) -> set[TokenId]:
    """Every leased token in memory."""
    return {one.id for one in ask.harness.ledger.snapshot().tokens() if one.kind is TokenKind.LEASED}


def stored(ask: Asker) -> set[TokenId]:
    """Every leased token in the database."""
    with closing(ask.harness.vault.database.reader()) as connection:
        rows = connection.execute("SELECT id FROM tokens WHERE kind = 'leased'").fetchall()
    return {TokenId(row[0]) for row in rows}


def removals(ask: Asker) -> list[Entry]:
    return [one for one in ask.harness.log() if one.draft.action is Action.TOKEN_REMOVE]


def test_tokens_past_their_end_are_removed_and_no_others(ask: Asker, pass_days: Pass) -> None:
    short, short_id = child(ask)
    _, below_id = child(ask, token=short)
    orphan, orphan_id = child(ask, "20d", token=short, no_parent=True)
    long, long_id = child(ask, "20d")
    below_long, below_long_id = child(ask, "10d", token=long)
    periodic, periodic_id = child(ask, period="3d")
    revoked, revoked_id = child(ask, "20d")
    assert ask.post("auth/token/revoke", {"token": revoked}).status == 204
    jobs = ask.harness.jobs
    pass_days(0.5)
    size = ask.harness.size
    ask.harness.run(jobs.round())
    assert ask.harness.size == size, "past their end, and not for long enough"
    assert not may_act(ask, short)
    pass_days(1)
    ask.harness.run(jobs.round())
    kept = {orphan_id, long_id, below_long_id, periodic_id}
    assert known(ask) == stored(ask) == kept
    assert {short_id, below_id, revoked_id}.isdisjoint(kept)
    (entry,) = removals(ask)
    assert (entry.draft.service_id, entry.draft.result) == (SYSTEM, Result.SUCCESS)
    assert (entry.draft.comment, entry.state_root is not None) == ("3 tokens that are no longer valid", True)
    size = ask.harness.size
    ask.harness.run(jobs.round())
    assert ask.harness.size == size, "nothing is due, nothing is recorded"
    assert [may_act(ask, token) for token in (orphan, long, below_long, periodic)] == [True] * 4
    assert not may_act(ask, short)
    assert not may_act(ask, revoked)
    assert ask.harness.ledger.verify().findings == ()
    ask.harness.reopen()
    assert known(Asker(ask.harness)) == kept
    assert may_act(Asker(ask.harness), below_long)


def test_logins_are_removed_too(ask: Asker, pass_days: Pass) -> None:
    ask.post("auth/approle/role/app", {"token_ttl": "1h"})
    role_id = ask("GET", "auth/approle/role/app/role-id").data["role_id"]
    secret_id = ask.post("auth/approle/role/app/secret-id").data["secret_id"]
    for _ in range(5):
        assert ask.post("auth/approle/login", {"role_id": role_id, "secret_id": secret_id}, token=None).status == 200
    pass_days(2)
    ask.harness.run(ask.harness.jobs.round())
    assert stored(ask) == set()
    assert ask.post("auth/approle/login", {"role_id": role_id, "secret_id": secret_id}, token=None).status == 200
    assert len(stored(ask)) == 1


def test_a_round_removes_so_many_at_most(ask: Asker, pass_days: Pass, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "TOKENS_AT_ONCE", 3)
    monkeypatch.setattr(jobs_module, "MAX_TOKENS", 6)
    for _ in range(8):
        child(ask)
    pass_days(2)
    jobs = ask.harness.jobs
    ask.harness.run(jobs.round())
    assert (len(known(ask)), len(stored(ask))) == (2, 2)
    ask.harness.run(jobs.round())
    assert known(ask) == stored(ask) == set()
    assert [one.draft.comment for one in removals(ask)] == [f"{n} tokens that are no longer valid" for n in (3, 3, 2)]
    assert ask.harness.ledger.verify().findings == ()


def test_nobody_else_removes_and_only_what_is_due_goes(ask: Asker, pass_days: Pass) -> None:
    _, short = child(ask)
    _, long = child(ask, "20d")
    native = ask.harness.service("app")[1].split("_")[1]
    ask.harness.refusal(RemoveTokens((short,)), Forbidden)
    pass_days(2)
    assert ask.harness.system(RemoveTokens((short, long, TokenId(native), TokenId("absent")))) == 1
    assert known(ask) == {long}


def test_another_process_sees_them_go(ask: Asker, pass_days: Pass) -> None:
    child(ask)
    long, long_id = child(ask, "20d")
    other = Harness(ask.harness.settings, ask.harness.admin)
    try:
        pass_days(2)
        # It leads, as the first that asks, and works in between.
        ask.harness.run(ask.harness.jobs.round())
        new, new_id = child(ask, "20d")
        assert known(ask) == {long_id, new_id}
        beside = Asker(other)
        assert may_act(beside, long)
        assert may_act(beside, new)
        assert known(beside) == {long_id, new_id}
        assert may_act(ask, long)
        assert other.ledger.verify().findings == ()
    finally:
        other.close()


@pytest.mark.sqlite_only
def test_tokens_are_not_compared_on_the_loop(ask: Asker, pass_days: Pass) -> None:
    child(ask)
    long, _ = child(ask, "20d")
    other = Harness(ask.harness.settings, ask.harness.admin)
    try:
        pass_days(2)
        ask.harness.run(ask.harness.jobs.round())
        writer, threads = other.ledger._writer, list[str]()
        writer.connection = watched = FaultyConnection(writer.connection)
        watched.after = lambda sql: (
            threads.append(threading.current_thread().name) if sql == statements.TOKEN_IDS else None
        )
        assert may_act(Asker(other), long)
        assert threads == ["committer"]
    finally:
        other.close()


def test_another_process_misses_a_shortened_lease_and_its_removal(ask: Asker, pass_days: Pass) -> None:
    """It last knew of an end that is yet to come: a host that slept for days, beside one that worked."""
    token, accessor = child(ask, "20d")
    other = Harness(ask.harness.settings, ask.harness.admin)
    try:
        assert ask.post("auth/token/renew", {"token": token, "increment": "1h"}).status == 200
        pass_days(2)
        ask.harness.run(ask.harness.jobs.round())
        assert accessor not in stored(ask)
        other.ledger.refresh()
        assert other.ledger.snapshot().token(accessor) is None
        assert other.ledger.fault is None
    finally:
        other.close()


def test_a_row_that_an_attacker_removes_meanwhile_stops_nobody_else(ask: Asker, pass_days: Pass) -> None:
    """It is missed for its object, and does not make the whole state another one."""
    child(ask)
    _, long = child(ask, "20d")
    other = Harness(ask.harness.settings, ask.harness.admin)
    jobs = ask.harness.jobs
    try:
        ask.harness.run(jobs.round())  # reads the whole log, which it does once a day
        pass_days(2)
        edit(ask.harness, f"DELETE FROM tokens WHERE id = '{long}'")
        ask.harness.run(jobs.round())
        assert stored(ask) == set()
        other.ledger.refresh()
        assert known(Asker(other)) == {long}
        assert other.ledger.fault is None
    finally:
        other.close()


def test_a_clock_that_jumped_removes_nothing(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    _, token = child(ask)
    jobs = ask.harness.jobs
    moved = clocks(monkeypatch)
    monkeypatch.setattr(moved, "time_ns", lambda: time.time_ns() + int(9 * 86400e9))
    monkeypatch.setattr(moved, "time", lambda: time.time() + 9 * 86400)
    ask.harness.run(jobs.round())
    assert known(ask) == {token}


def test_a_role_that_may_not_delete_keeps_them(
    ask: Asker, pass_days: Pass, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, token = child(ask)
    jobs = ask.harness.jobs
    monkeypatch.setattr(ask.harness.ledger, "may_forget_tokens", lambda: False)
    pass_days(2)
    size = ask.harness.size
    with caplog.at_level("WARNING"):
        for _ in range(3):
            ask.harness.run(jobs.round())
    assert (known(ask), ask.harness.size) == ({token}, size)
    assert sum("ended tokens stay stored" in one.message for one in caplog.records) == 1, "said once"


def test_what_is_not_past_its_end_is_not_removed_whoever_asks(ask: Asker) -> None:
    _, token = child(ask)
    native = TokenId(ask.harness.admin.split("_")[1])
    request = RemoveTokens((token, native, TokenId("unknown")))
    ask.harness.refusal(request, Conflict, credential=SystemCredential())
    assert known(ask) == {token}


def edit(harness: Harness, statement: str) -> None:
    with closing(harness.vault.database.writer()) as connection:
        connection.execute(statement)


def test_a_row_removed_by_somebody_else_is_missed(ask: Asker, pass_days: Pass) -> None:
    """The trigger lets leased tokens go; that one went without an entry is found all the same."""
    _, token = child(ask)
    pass_days(2)
    edit(ask.harness, f"DELETE FROM tokens WHERE id = '{token}'")
    found = ask.harness.ledger.verify()
    assert [(one.table, one.row, one.problem) for one in found.findings] == [("tokens", token, NOT_COMMITTED)]


def test_the_row_of_a_service_is_not_deleted_by_mistake(ask: Asker) -> None:
    kind = TokenKind.NATIVE.value
    with pytest.raises(driver.Error):
        edit(ask.harness, f"DELETE FROM tokens WHERE kind = '{kind}'")


def test_a_removed_row_that_is_put_back_is_found(ask: Asker, pass_days: Pass) -> None:
    _, token = child(ask)
    columns = "id, service_id, kind, digest, created_at, expires_at, parent, ended_at, attributes, row_seq, row_mac"
    with closing(ask.harness.vault.database.reader()) as connection:
        row = connection.execute(f"SELECT {columns} FROM tokens WHERE id = ?", (token,)).fetchone()
    pass_days(2)
    ask.harness.run(ask.harness.jobs.round())
    assert stored(ask) == set()
    with closing(ask.harness.vault.database.writer()) as connection:
        connection.execute(
            f"INSERT INTO tokens ({columns}) VALUES ({', '.join('?' * 11)})",
            tuple(row),
        )
    assert not ask.harness.ledger.verify().valid
    assert known(ask) == set()


def test_a_token_past_its_end_is_not_brought_back(ask: Asker, pass_days: Pass) -> None:
    """Not by an ADMIN either, and not by the token that made it."""
    token, accessor = child(ask)
    periodic, periodic_id = child(ask, period="1h")
    pass_days(2 * HOUR)
    for text, named in ((token, accessor), (periodic, periodic_id)):
        for path, body in (
            ("renew", {"token": text}),
            ("renew-accessor", {"accessor": named}),
            ("lookup", {"token": text}),
            ("lookup-accessor", {"accessor": named}),
        ):
            answer = ask.post(f"auth/token/{path}", body)
            assert answer.status in {400, 403}, path
        assert ask.post("auth/token/revoke-accessor", {"accessor": named}).status == 204
        assert not may_act(ask, text)
