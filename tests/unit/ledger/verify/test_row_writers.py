"""Which row is the old one: what the log tells of who wrote each row last, against the rows that are there."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from keyvault_lite.audit.entry import ENTRY_COLUMNS, Row
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.ledger.state.verified_rows import VerifiedRows
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.verify import row_writers
from keyvault_lite.ledger.verify.row_writers import RowWriters
from keyvault_lite.model.archive import Segment
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import Token, TokenKind
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.names import SYSTEM, ServiceId, TokenId
from keyvault_lite.model.replies import Finding

SLOT = Slot("0f8fad5b-d9cb-469f-a165-70867728950e", 1, b"i" * 16, "kdf", b"sealed", 1, None)
OTHER = Slot("7c9e6679-7425-40de-944b-e07fc1f90ae7", 1, b"i" * 16, "kdf", b"sealed", 1, None)


def entry(number: int, action: Action, **columns: Any) -> Row:  # noqa: ANN401
    """A management entry, of which only some columns are looked at."""
    known = {"id": number, "state_root": b"r" * 32, "action": action.value, **columns}
    return tuple(known.get(name) for name in ENTRY_COLUMNS)


@pytest.fixture
def stored() -> Iterator[driver.Connection]:
    with closing(driver.connect(":memory:", isolation_level=None)) as connection:
        for table in ("keys", "key_versions", "services", "tokens"):
            connection.execute(f"CREATE TABLE {table} (id, row_seq)")
        yield connection


def put(connection: driver.Connection, table: str, **writers: int) -> None:
    for name, writer in writers.items():
        connection.execute(f"INSERT INTO {table} VALUES (?, ?)", (name.replace("_", "/"), writer))


def explained(
    connection: driver.Connection, *entries: Row, rows: VerifiedRows | None = None
) -> list[tuple[str, str, str]]:
    told = RowWriters()
    told.feed(entries)
    return [(one.table, one.row, one.problem) for one in told.explain(connection, rows or VerifiedRows())]


def missing(table: str, row: str, number: int) -> tuple[str, str, str]:
    return table, row, f"is missing; entry {number} wrote it"


def old(table: str, row: str, writer: int, number: int) -> tuple[str, str, str]:
    return table, row, f"is the row of entry {writer}; entry {number} has replaced it"


class TestKeys:
    MADE = entry(5, Action.GENERATE, key_id="k", key_version=1)
    ROTATED = entry(7, Action.ROTATE, key_id="k", key_version=2)

    @pytest.mark.parametrize(
        ("then", "writers"),
        [
            ((), {"k": 5, "k_1": 5}),
            ((ROTATED,), {"k": 7, "k_1": 7, "k_2": 7}),
            ((ROTATED, entry(8, Action.ROTATE, key_id="k", key_version=3)), {"k": 8, "k_1": 7, "k_2": 8, "k_3": 8}),
            ((ROTATED, entry(8, Action.REVOKE, key_id="k", key_version=1)), {"k": 8, "k_1": 8, "k_2": 7}),
            ((ROTATED, entry(8, Action.REVOKE, key_id="k")), {"k": 8, "k_1": 8, "k_2": 8}),
            ((ROTATED, entry(8, Action.REPAIR, key_id="k")), {"k": 8, "k_1": 8, "k_2": 8}),
            ((ROTATED, entry(8, Action.DESTROY, key_id="k", service_id=SYSTEM)), {"k": 8, "k_1": 8, "k_2": 8}),
            ((ROTATED, entry(8, Action.DESTROY, key_id="k", service_id="s")), {"k": 8, "k_1": 7, "k_2": 7}),
            ((ROTATED, entry(8, Action.KEY_UPDATE, key_id="k", key_version=1)), {"k": 8, "k_1": 7, "k_2": 7}),
            ((ROTATED, entry(8, Action.KEY_UPDATE, key_id="k", service_id=SYSTEM)), {"k": 8, "k_1": 7, "k_2": 7}),
            ((entry(8, Action.GENERATE, key_id="l", key_version=1),), {"k": 5, "k_1": 5, "l": 8, "l_1": 8}),
            ((entry(8, Action.ROTATE, key_id="k"),), {"k": 8, "k_1": 5}),
            ((entry(6, Action.ENCRYPT, key_id="k", state_root=None), ROTATED), {"k": 7, "k_1": 7, "k_2": 7}),
        ],
    )
    def test_each_row_is_of_the_newest_entry_about_it(
        self, stored: driver.Connection, then: tuple[Row, ...], writers: dict[str, int]
    ) -> None:
        put(stored, "keys", **{name: writer for name, writer in writers.items() if "_" not in name})
        put(stored, "key_versions", **{name: writer for name, writer in writers.items() if "_" in name})
        assert explained(stored, self.MADE, *then) == []
        for name, writer in writers.items():
            table, row = "key_versions" if "_" in name else "keys", name.replace("_", "/")
            for seq, told in ((writer - 1, old(table, row, writer - 1, writer)), (writer + 1, None)):
                stored.execute(f"UPDATE {table} SET row_seq = ? WHERE id = ?", (seq, row))
                assert explained(stored, self.MADE, *then) == ([told] if told else [])
            stored.execute(f"DELETE FROM {table} WHERE id = ?", (row,))
            assert explained(stored, self.MADE, *then) == [missing(table, row, writer)]
            put(stored, table, **{name: writer})


class TestServices:
    MADE = entry(5, Action.SERVICE_CREATE, subject="s")

    def rows(self, *findings: Finding, **tokens: int) -> VerifiedRows:
        made = [Token(TokenId(name), ServiceId("s"), TokenKind.NATIVE, b"", 0) for name in tokens]
        return VerifiedRows(Change(tokens=tuple(made)), list(findings))

    @pytest.mark.parametrize(
        ("action", "service", "token"),
        [
            (Action.SERVICE_CREATE, 9, 9),
            (Action.INITIALISE, 9, 9),
            (Action.SERVICE_UPDATE, 9, 5),
            (Action.REPAIR, 9, 5),
            (Action.TOKEN_RENEW, 5, 9),
            (Action.SERVICE_READ, 5, 5),
        ],
    )
    def test_what_each_action_writes(self, stored: driver.Connection, action: Action, service: int, token: int) -> None:
        put(stored, "services", s=5)
        put(stored, "tokens", t=5)
        told = explained(stored, self.MADE, entry(9, action, subject="s"), rows=self.rows(t=5))
        late = ("tokens", "of service s", "is older than entry 9 or missing")
        assert told == [old("services", "s", 5, 9)] * (service == 9) + [late] * (token == 9)

    def test_the_newest_token_counts(self, stored: driver.Connection) -> None:
        put(stored, "services", s=5)
        put(stored, "tokens", a=3, b=5, c=4)
        assert explained(stored, self.MADE, rows=self.rows(a=3, b=5, c=4)) == []
        stored.execute("UPDATE tokens SET row_seq = 4 WHERE id = 'b'")
        late = [("tokens", "of service s", "is older than entry 5 or missing")]
        assert explained(stored, self.MADE, rows=self.rows(a=3, b=4, c=4)) == late
        assert explained(stored, self.MADE) == late, "there is none"

    def test_the_token_of_the_first_entry_is_looked_for_too(self, stored: driver.Connection) -> None:
        """Without the keyring a row can claim any entry, and none before the first wrote one."""
        first = entry(1, Action.INITIALISE, subject="s")
        put(stored, "services", s=1)
        late = [("tokens", "of service s", "is older than entry 1 or missing")]
        assert explained(stored, first) == late
        put(stored, "tokens", t=0)
        assert explained(stored, first, rows=self.rows(t=0)) == late
        put(stored, "tokens", u=1)
        assert explained(stored, first, rows=self.rows(t=0, u=1)) == []

    def test_a_token_that_does_not_verify_may_be_the_one(self, stored: driver.Connection) -> None:
        put(stored, "services", s=5, u=6)
        bad, other = Finding("tokens", "x", "row does not verify"), Finding("keys", "x", "row does not verify")
        second = entry(6, Action.SERVICE_CREATE, subject="u")
        late = [
            ("tokens", f"of service {who}", f"is older than entry {at} or missing") for who, at in (("s", 5), ("u", 6))
        ]
        assert explained(stored, self.MADE, rows=self.rows(bad)) == []
        assert explained(stored, self.MADE, rows=self.rows(other)) == late[:1]
        assert explained(stored, self.MADE, second, rows=self.rows(bad)) == late
        assert explained(stored, self.MADE, second, rows=self.rows(bad, bad)) == []


class TestSlots:
    @pytest.mark.parametrize(
        ("action", "names"),
        [
            (Action.INITIALISE, True),
            (Action.MASTER_KEY_ROTATE, True),
            (Action.REPAIR, True),
            (Action.AUDIT_ARCHIVE, True),
            (Action.KEY_UPDATE, False),
        ],
    )
    def test_some_entries_name_them(self, action: Action, *, names: bool) -> None:
        told = RowWriters()
        told.feed([entry(1, action, comment=f"for {SLOT.on_record}, {OTHER.on_record}"), entry(2, action)])
        assert told.check_slots([SLOT, OTHER]) == []
        changed = Slot(SLOT.id, 2, SLOT.instance_id, SLOT.kdf, SLOT.sealed, 1, None)
        wrong = Finding("keyring_slots", SLOT.id, "is not the one on record in the log")
        assert told.check_slots([OTHER, changed]) == [wrong] * names
        assert told.check_slots([]) == [Finding("keyring_slots", one.id, "is missing") for one in (SLOT, OTHER)] * names

    def test_the_newest_entry_counts(self) -> None:
        told, changed = RowWriters(), Slot(SLOT.id, 2, SLOT.instance_id, SLOT.kdf, SLOT.sealed, 1, None)
        told.feed([entry(number, Action.REPAIR, comment=one.on_record) for number, one in ((1, changed), (2, SLOT))])
        assert told.check_slots([SLOT]) == []
        assert len(told.check_slots([changed])) == 1


def test_what_was_archived_last() -> None:
    first, second = (Segment(1, last, f"{last}" * 64, bytes(32), 0, 0, 0) for last in (4, 8))
    told, known = RowWriters(), [None, (4, "4" * 64), (8, "8" * 64), (8, "8" * 64), (8, "8" * 64), None]
    found = [told.archived]
    for one in (
        entry(9, Action.AUDIT_ARCHIVE, comment=first.comment),
        entry(10, Action.AUDIT_ARCHIVE, comment=second.comment),
        entry(11, Action.REPAIR, comment=first.comment),
        entry(12, Action.AUDIT_ARCHIVE, state_root=None, comment=first.comment),  # a refusal has archived nothing
        entry(13, Action.AUDIT_ARCHIVE),
    ):
        told.feed([one])
        found.append(told.archived)
    assert found == known


@pytest.mark.parametrize("writer", ["x", b"x", 5.5, None])
def test_a_row_that_names_no_entry_is_not_the_one_that_was_written(writer: object) -> None:
    found: list[Finding] = []
    written: Any = {"keys": {"k": writer}}
    row_writers._compare(found, "keys", {"k": 7}, written)
    assert [(one.table, one.row) for one in found] == [("keys", "k")]
