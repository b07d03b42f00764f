"""What is recorded of rows that do not verify while the vault runs: whose they are, once, and not without end."""

from collections.abc import Sequence
from contextlib import closing

import psycopg
import pytest

from keyvault_lite.dialects.vault.system_requests import EnableMount
from keyvault_lite.ledger.commit.edit_detection import MAX_ENTRIES, Alarm, _tell, entries
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.postgresql import foreign_writes
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.names import SYSTEM, KeyRef
from keyvault_lite.model.replies import Finding
from keyvault_lite.model.requests import ListKeys, ReadKey, ReadService
from keyvault_lite.server.serve import open_to_serve
from tests.support.harness import Harness

ID = "0f8fad5b-d9cb-469f-a165-70867728950e"


def drafts(alarms: Sequence[Alarm]) -> list[Draft]:
    items = list(entries(alarms, (7, 0)))
    assert {(item.since, item.outcome.change, item.outcome.reply) for item in items} <= {((7, 0), None, None)}
    return [draft for item in items for draft in item.outcome.drafts]


@pytest.mark.parametrize(
    ("table", "row", "owner", "key_id", "subject"),
    [
        ("keys", ID, ID, ID, None),
        ("key_versions", f"{ID}/2", ID, ID, None),
        ("key_names", "aws:eu/alias/a", ID, ID, None),
        ("key_names", "aws:eu/alias/a", None, None, None),
        ("keys", "forged", "forged", None, None),
        ("services", ID, ID, None, ID),
        ("services", "forged", "forged", None, None),
        ("tokens", "t", ID, None, ID),
        ("tokens", "t", None, None, None),
        ("settings", ID, None, None, None),
    ],
)
def test_whose_it_is(table: str, row: str, owner: str | None, key_id: str | None, subject: str | None) -> None:
    (draft,) = drafts([Alarm(Finding(table, row, "is old"), owner)])
    assert (draft.key_id, draft.subject, draft.comment) == (key_id, subject, f"{table}: is old")
    assert (draft.action, draft.result, draft.service_id) == (Action.INTEGRITY, Result.ERROR, SYSTEM)
    assert (draft.reason, draft.count, len(draft.request_id)) == ("integrity_violation", 1, 16)


@pytest.mark.parametrize("beyond", [0, 1, 5])
def test_so_many_are_entries_and_the_rest_is_one(beyond: int) -> None:
    found = drafts([Alarm(Finding("keys", f"{n}", "is old"), None) for n in range(MAX_ENTRIES + beyond)])
    assert MAX_ENTRIES == 100
    assert [one.comment for one in found[:MAX_ENTRIES]] == ["keys: is old"] * MAX_ENTRIES
    rest = found[MAX_ENTRIES:]
    assert [(one.count, one.comment, len(one.request_id)) for one in rest] == ([(beyond, None, 16)] if beyond else [])
    assert {(one.action, one.result, one.service_id, one.reason) for one in found} == {
        (Action.INTEGRITY, Result.ERROR, SYSTEM, "integrity_violation")
    }
    assert len({one.request_id for one in found}) == len(found)


def edit(harness: Harness, *statements: str) -> None:
    """Change rows as somebody else who may write the database."""
    url = harness.settings.database_url
    if url.startswith("sqlite"):
        with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
            for sql in statements:
                connection.execute(sql)
    else:
        with psycopg.connect(url, autocommit=True) as server:
            for sql in statements:
                server.execute(sql.encode())


EDITS = {
    # What is edited, how that is undone, and what is refused meanwhile.
    "key": (
        "UPDATE keys SET description = 'x' WHERE name = 'orders'",
        "UPDATE keys SET description = '' WHERE name = 'orders'",
        ReadKey(KeyRef("orders")),
    ),
    "version": (
        "UPDATE key_versions SET created_at = created_at + 1",
        "UPDATE key_versions SET created_at = created_at - 1",
        ReadKey(KeyRef("orders")),
    ),
    "service": (
        "UPDATE services SET created_at = created_at + 1 WHERE name = 'worker'",
        "UPDATE services SET created_at = created_at - 1 WHERE name = 'worker'",
        ReadService("worker"),
    ),
    "setting": (
        "UPDATE settings SET value = value || ' ' WHERE name LIKE '%orders%'",
        "UPDATE settings SET value = rtrim(value) WHERE name LIKE '%orders%'",
        None,
    ),
}


@pytest.mark.both
@pytest.mark.parametrize("what", sorted(EDITS))
def test_an_object_is_in_use_again_once_its_rows_are_right(
    harness: Harness, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    for pause in ("LOOK_SECONDS", "SHARE"):
        monkeypatch.setattr(foreign_writes, pause, 0)
    harness.key("orders")
    harness.service("worker")
    harness.ask(EnableMount("orders"))
    before = harness.size
    wrong, right, asked = EDITS[what]
    edit(harness, wrong)
    if asked is None:
        harness.ask(ListKeys())
    else:
        harness.refusal(asked, IntegrityViolation)
    assert harness.ledger.degraded
    moment = harness.ledger.snapshot().snapshot_version
    edit(harness, right)
    for _ in range(2):
        harness.ask(asked or ListKeys())
        assert not harness.ledger.degraded
    assert harness.ledger.snapshot().snapshot_version != moment
    told = [one.draft for one in harness.log(before) if one.draft.action is Action.INTEGRITY]
    assert [(one.result, one.reason) for one in told] == [
        (Result.ERROR, "integrity_violation"),
        (Result.SUCCESS, None),
    ]
    assert (told[0].key_id, told[0].subject) == (told[1].key_id, told[1].subject)
    assert told[1].comment is not None
    assert told[1].comment.endswith(": verifies again")
    lines = [(one.levelname, one.getMessage()) for one in caplog.records if "verif" in one.getMessage()]
    assert [level for level, _ in lines] == ["ERROR", "WARNING"]
    assert lines[1][1].endswith("verifies again and is in use again")
    harness.reopen()
    assert not harness.ledger.degraded


def test_of_two_only_the_one_that_is_right_again_is_released(harness: Harness) -> None:
    for name in ("orders", "invoices"):
        harness.key(name)
    edit(harness, "UPDATE keys SET description = 'x'")
    for name in ("orders", "invoices"):
        harness.refusal(ReadKey(KeyRef(name)), IntegrityViolation)
    edit(harness, "UPDATE keys SET description = '' WHERE name = 'orders'")
    assert harness.ask(ReadKey(KeyRef("orders"))).name == "orders"
    harness.refusal(ReadKey(KeyRef("invoices")), IntegrityViolation)
    assert harness.ledger.degraded


def test_one_that_is_released_while_another_is_set_aside_is_judged_again() -> None:
    """The number of objects set aside is the same before and after; what was judged between is old all the same."""
    state = State(lambda *_: None)
    state.quarantine("one")
    moment = state.snapshot_version
    state.release(["one"])
    state.quarantine("two")
    assert state.snapshot_version != moment


@pytest.mark.both
def test_the_check_of_each_minute_releases_what_was_put_right_unseen(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("LOOK_SECONDS", "SHARE"):
        monkeypatch.setattr(foreign_writes, pause, 0)
    harness.key("orders")
    edit(harness, "UPDATE keys SET description = 'x'")
    harness.refusal(ReadKey(KeyRef("orders")), IntegrityViolation)
    edit(harness, "UPDATE keys SET description = ''")
    writer = harness.ledger._writer
    writer.replica._others = harness.vault.database.count_of_others(writer.connection)  # nothing tells of the edit
    harness.ledger.scrub()
    harness.ledger.refresh()
    assert not harness.ledger.degraded


def test_a_line_for_each_in_the_servers_log(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    key = harness.key("orders")
    edit(harness, "UPDATE keys SET description = 'x'")
    harness.ledger.refresh()
    harness.refusal(ReadKey(KeyRef("orders")), IntegrityViolation)
    lines = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert lines == [f"keys {key.id}: row does not verify: set aside, see `kvl verify`"]


def test_so_many_lines_and_what_a_forger_chose_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    _tell([Alarm(Finding("keys", "x" * 5000, "is old"), None) for _ in range(MAX_ENTRIES + 7)])
    lines = [one.getMessage() for one in caplog.records]
    assert len(lines) == MAX_ENTRIES + 1
    assert len(lines[0]) < 300
    assert lines[-1].startswith("7 more rows")


def test_a_start_in_quarantine_says_so(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    key = harness.key("orders")
    harness.vault.close()
    edit(harness, "UPDATE keys SET description = 'x'")
    for _ in range(2):
        caplog.clear()
        open_to_serve(harness.settings, quarantine=True).close()
        lines = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
        assert lines[0].startswith(f"keys {key.id}: row does not verify")
        assert lines[1].startswith("served in quarantine")


def test_each_is_on_record_once(harness: Harness) -> None:
    harness.key("orders")
    harness.ask(EnableMount("orders"))
    before = harness.size
    for edit in ("UPDATE settings SET value = '{}'", "UPDATE keys SET description = 'x'", "UPDATE keys SET size = 1"):
        with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
            connection.execute(edit)
        harness.ask(ListKeys())
    told = [(one.id, one.draft.comment) for one in harness.log(before) if one.draft.action is Action.INTEGRITY]
    assert told == [(before + 1, "settings: row does not verify"), (before + 3, "keys: row does not verify")]
