"""Live edits: what another connection has changed in the stored rows is found before any of it can be used.

Memory is the authority while the vault runs, and every commit looks whether somebody else has written to the file. If
so, all rows are read again and compared with memory, row by row, which names every row that was edited, put back or
removed. An object whose rows are again those of memory is released. Both are logged, and are entries.
"""

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from os import urandom

from keyvault_lite.ledger.commit.write_set import CommitRequest
from keyvault_lite.ledger.state.outcome import Authority, Outcome
from keyvault_lite.ledger.state.root import StateTree, row_of
from keyvault_lite.ledger.state.snapshot import SnapshotVersion, State
from keyvault_lite.ledger.state.verified_rows import NOT_COMMITTED, read_rows
from keyvault_lite.ledger.storage import driver
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.names import SYSTEM, KeyId, ServiceId, TokenId, is_id
from keyvault_lite.model.replies import Finding

KEY_TABLES = frozenset({"keys", "key_versions", "key_names"})
SERVICE_TABLES = frozenset({"services", "tokens"})
MAX_ENTRIES = 100
"""Alarms that are entries of their own; beyond, one entry counts the rest."""


MAX_ROW = 200
"""Characters of a row's name that are logged: the editor of a row may have chosen it."""
RESTORED = "verifies again"
log = logging.getLogger("keyvault_lite.ledger")


@dataclass(frozen=True, slots=True)
class Alarm:
    """A row that does not verify, and the key or service that is set aside for it; or one that verifies again."""

    finding: Finding
    object_id: str | None

    @property
    def is_over(self) -> bool:
        """Whether what was set aside was released."""
        return self.finding.problem == RESTORED


def compare_rows(
    connection: driver.Connection, authority: Authority, state: State, tree: StateTree, schema: Sequence[Finding]
) -> list[Alarm]:
    """Compare all stored rows with memory, set aside what differs, release what no longer does; what is new of both.

    `schema` is what is wrong with the schema or the database's files. Raises IntegrityViolation if anything is: then
    nothing that is written can be relied on.
    """
    if schema:
        raise IntegrityViolation(
            f"the database was changed: {schema[0].table} {schema[0].row} {schema[0].problem}",
            shown="the database was changed",
        )
    compared = tree.comparison()
    stored = read_rows(connection, authority, newer_than=0, note=compared.add, keep=False)
    problems = {(one.table, one.row): one.problem for one in stored.findings}
    for key in compared.differences():
        problems.setdefault(row_of(key), NOT_COMMITTED)
    alarms = []
    marks = set()
    for (table, row), problem in sorted(problems.items()):
        object_id = owner(state, table, row)
        mark = object_id or f"{table}:{row}"
        marks.add(mark)
        if not state.is_quarantined(mark):
            state.quarantine(mark)
            alarms.append(Alarm(Finding(table, row, problem), object_id))
    alarms += _release(state, state.quarantined - marks)
    _tell(alarms)
    return alarms


def _release(state: State, marks: Collection[str]) -> list[Alarm]:
    """Release what was set aside, as everything stored of it is again what memory has."""
    if not marks:
        return []
    state.release(marks)
    return [Alarm(Finding(*_place_of(state, mark), RESTORED), None if ":" in mark else mark) for mark in sorted(marks)]


def _place_of(state: State, mark: str) -> tuple[str, str]:
    """Table and row of what was set aside under a mark."""
    table, _, row = mark.partition(":")
    if row:
        return table, row
    return ("services" if state.service_record(ServiceId(mark)) is not None else "keys"), mark


def _tell(alarms: Sequence[Alarm]) -> None:
    """A line of the server's log for each, up to a number."""
    for alarm in alarms[:MAX_ENTRIES]:
        found = alarm.finding
        if alarm.is_over:
            log.warning("%s %s: %s and is in use again", found.table, found.row[:MAX_ROW], found.problem)
        else:
            _tell_set_aside(found)
    if len(alarms) > MAX_ENTRIES:
        log.error("%d more rows were set aside or released", len(alarms) - MAX_ENTRIES)


def _tell_set_aside(found: Finding) -> None:
    log.error("%s %s: %s: set aside, see `kvl verify`", found.table, found.row[:MAX_ROW], found.problem)


def tell_quarantine(lost: Sequence[Finding]) -> None:
    """Lines of the server's log at a start without the objects that do not verify."""
    for one in lost[:MAX_ENTRIES]:
        _tell_set_aside(one)
    if lost:
        log.error("served in quarantine without %d rows: nothing can be changed until `kvl repair`", len(lost))


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


def entries(alarms: Sequence[Alarm], since: SnapshotVersion) -> Iterable[CommitRequest]:
    """The alarms as items of the log."""
    for alarm in alarms[:MAX_ENTRIES]:
        yield _request(_draft(alarm), since)
    if len(alarms) > MAX_ENTRIES:
        rest = Draft(
            action=Action.INTEGRITY,
            result=Result.ERROR,
            request_id=urandom(16),
            service_id=SYSTEM,
            reason=IntegrityViolation.code,
            count=len(alarms) - MAX_ENTRIES,
        )
        yield _request(rest, since)


def _draft(alarm: Alarm) -> Draft:
    found, object_id = alarm.finding, alarm.object_id
    named = object_id if object_id is not None and is_id(object_id) else None
    return Draft(
        action=Action.INTEGRITY,
        result=Result.SUCCESS if alarm.is_over else Result.ERROR,
        request_id=urandom(16),
        service_id=SYSTEM,
        key_id=KeyId(named) if named is not None and found.table in KEY_TABLES else None,
        reason=None if alarm.is_over else IntegrityViolation.code,
        subject=named if found.table in SERVICE_TABLES else None,
        comment=f"{found.table}: {found.problem}",
    )


def _request(draft: Draft, since: SnapshotVersion) -> CommitRequest:
    outcome = Outcome((draft,), None)
    return CommitRequest(outcome, since, lambda _: outcome)
