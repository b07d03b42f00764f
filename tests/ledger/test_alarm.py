"""What is recorded of rows that do not verify while the vault runs: whose they are, once, and not without end."""

from collections.abc import Sequence
from contextlib import closing

import pytest

from keyvault_lite.ledger import driver
from keyvault_lite.ledger.alarm import MAX_ENTRIES, Alarm, entries
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.names import SYSTEM
from keyvault_lite.model.replies import Finding
from keyvault_lite.model.requests import ListKeys
from keyvault_lite.model.transit_system import EnableMount
from tests.house import House

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


def test_each_is_on_record_once(house: House) -> None:
    house.key("orders")
    house.ask(EnableMount("orders"))
    before = house.size
    for edit in ("UPDATE settings SET value = '{}'", "UPDATE keys SET description = 'x'", "UPDATE keys SET size = 1"):
        with closing(driver.connect(str(house.path), isolation_level=None)) as connection:
            connection.execute(edit)
        house.ask(ListKeys())
    told = [(one.id, one.draft.comment) for one in house.log(before) if one.draft.action is Action.INTEGRITY]
    assert told == [(before + 1, "settings: row does not verify"), (before + 3, "keys: row does not verify")]
