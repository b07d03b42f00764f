"""Live edits: what another connection has changed in the stored rows is found before any of it can be used.

Memory is the authority while the vault runs, and every commit looks whether somebody else has written to the file. If
so, all rows are read again and compared with memory, row by row, which names every row that was edited, put back or
removed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import urandom

from keyvault_lite.ledger import driver
from keyvault_lite.ledger.outcome import Authority, Outcome
from keyvault_lite.ledger.pending import Item
from keyvault_lite.ledger.rows import NOT_COMMITTED, read_rows
from keyvault_lite.ledger.state import Moment, State
from keyvault_lite.ledger.tree import StateTree, row_of
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.names import SYSTEM, KeyId, TokenId, is_id
from keyvault_lite.model.replies import Finding

KEY_TABLES = frozenset({"keys", "key_versions", "key_names"})
SERVICE_TABLES = frozenset({"services", "tokens"})
MAX_ENTRIES = 100
"""Alarms that are entries of their own; beyond, one entry counts the rest."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A row that does not verify, and the key or service that is set aside for it."""

    finding: Finding
    object_id: str | None


def recheck(
    connection: driver.Connection, authority: Authority, state: State, tree: StateTree, schema: Sequence[Finding]
) -> list[Alarm]:
    """Compare all stored rows with memory, set aside what differs, and return what is new of it.

    `schema` is what is wrong with the schema or the database's files. Raises IntegrityViolation if anything is: then
    nothing that is written can be relied on.
    """
    if schema:
        raise IntegrityViolation(f"the database was changed: {schema[0].table} {schema[0].row} {schema[0].problem}")
    compared = tree.comparison()
    stored = read_rows(connection, authority, newer_than=0, note=compared.add, keep=False)
    problems = {(one.table, one.row): one.problem for one in stored.findings}
    for key in compared.differences():
        problems.setdefault(row_of(key), NOT_COMMITTED)
    alarms = []
    for (table, row), problem in sorted(problems.items()):
        object_id = owner(state, table, row)
        mark = object_id or f"{table}:{row}"
        if not state.is_quarantined(mark):
            state.quarantine(mark)
            alarms.append(Alarm(Finding(table, row, problem), object_id))
    return alarms


def owner(state: State, table: str, row: str) -> str | None:
    """The key or service that a row belongs to, as far as memory knows it."""
    if table in {"keys", "key_versions"}:
        return row.partition("/")[0]
    if table == "key_names":
        return state.id_of_name(row)
    if table == "tokens":
        token = state.token(TokenId(row))
        return None if token is None else token.service_id
    return row if table == "services" else None


def entries(alarms: Sequence[Alarm], since: Moment) -> Iterable[Item]:
    """The alarms as items of the log."""
    for alarm in alarms[:MAX_ENTRIES]:
        yield _item(_draft(alarm), since)
    if len(alarms) > MAX_ENTRIES:
        rest = Draft(
            action=Action.INTEGRITY,
            result=Result.ERROR,
            request_id=urandom(16),
            service_id=SYSTEM,
            reason=IntegrityViolation.code,
            count=len(alarms) - MAX_ENTRIES,
        )
        yield _item(rest, since)


def _draft(alarm: Alarm) -> Draft:
    found, object_id = alarm.finding, alarm.object_id
    named = object_id if object_id is not None and is_id(object_id) else None
    return Draft(
        action=Action.INTEGRITY,
        result=Result.ERROR,
        request_id=urandom(16),
        service_id=SYSTEM,
        key_id=KeyId(named) if named is not None and found.table in KEY_TABLES else None,
        reason=IntegrityViolation.code,
        subject=named if found.table in SERVICE_TABLES else None,
        comment=f"{found.table}: {found.problem}",
    )


def _item(draft: Draft, since: Moment) -> Item:
    outcome = Outcome((draft,), None)
    return Item(outcome, since, lambda _: outcome)
