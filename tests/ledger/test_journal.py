"""What a journal asks of a log that others have written to, piece by piece."""

import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from keyvault_lite import app
from keyvault_lite.audit.merkle import Edge, Tiles
from keyvault_lite.crypto.root import MasterKey
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.anchor.record import Mark
from keyvault_lite.ledger.commit import journal as module
from keyvault_lite.ledger.commit.journal import MANY, Journal
from keyvault_lite.ledger.commit.publisher import PUT_BACK, Announcer
from keyvault_lite.ledger.state.head import Head
from keyvault_lite.ledger.state.outcome import Authority
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.ledger.state.tip import LogTip
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.database import BUSY_SECONDS
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.model.errors import AuditUnavailable, IntegrityViolation, Unauthenticated
from keyvault_lite.model.identity import Permission, Role
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import CreateService, Encrypt, ListKeys, RevokeKey, VerifyAudit
from keyvault_lite.operator.initialise import initialise_vault
from tests.house import House, chosen, grant
from tests.ledger.faults import FaultyConnection
from tests.ledger.test_tampering import tamper

HEAD = Head(2, 5, b"5" * 32, 50, 4, bytes(32), Edge().to_bytes(), "")
MARK = Mark(2, 5, 4, HEAD.hash, bytes(32), "note", "key")
NEW = [b"6" * 32, b"7" * 32]


def announcing(anchor: Any) -> Announcer:  # noqa: ANN401
    """On an anchor of which nothing is known yet; signs nothing."""
    return Announcer(cast(Authority, None), anchor)


class Catching:
    """A journal that knows HEAD and finds another row; what it would adopt is noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, found: Head | None, last: bytes | None = None) -> None:
        self.adopted: list[tuple[Head, bytes, bool]] = []
        self.journal = journal = object.__new__(Journal)
        row = None if found is None else (*found.values(), b"mac", found.size, found.hash if last is None else last)
        connection: Any = SimpleNamespace(execute=lambda _: SimpleNamespace(fetchone=lambda: row))
        database: Any = SimpleNamespace(count_of_others=lambda _: 1)
        journal._connection, journal._database, journal._data_version = connection, database, 0
        journal.announcer = announcing(None)
        journal.suspect = False
        journal.known = LogTip(HEAD, b"known", Tiles(), "")
        monkeypatch.setattr(journal, "_authority", None, raising=False)
        monkeypatch.setattr(journal, "_adopt", self._adopt)
        monkeypatch.setattr(module, "read_head", lambda row, _: Head(*row[:-1]))

    def _adopt(self, head: Head, mac: bytes, *, at_once: bool) -> list[bytes]:
        self.adopted.append((head, mac, at_once))
        return []


@pytest.mark.parametrize("changes", [{}, {"size": 6}, {"epoch": 3, "size": 6}])
def test_a_head_that_goes_on_is_adopted(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    """One of the same entries too: whoever closes stores a checkpoint in it."""
    head = replace(HEAD, **changes)
    catching = Catching(monkeypatch, head)
    catching.journal._catch_up()
    assert catching.adopted == [(head, b"mac", False)]


@pytest.mark.parametrize("changes", [{"size": 4}, {"epoch": 1}, {"size": 6, "epoch": 1}, {"size": 4, "epoch": 3}])
def test_a_head_that_goes_back_is_not(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    catching = Catching(monkeypatch, replace(HEAD, **changes))
    with pytest.raises(IntegrityViolation, match="the database was put back"):
        catching.journal._catch_up()
    assert catching.adopted == []


def test_a_head_that_names_another_entry_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    catching = Catching(monkeypatch, replace(HEAD, size=6), last=b"x" * 32)
    with pytest.raises(IntegrityViolation, match="not the one its head names"):
        catching.journal._catch_up()
    assert catching.adopted == []


@pytest.mark.parametrize(("new", "suspect", "short"), [(MANY, False, True), (MANY + 1, False, False), (1, True, False)])
def test_on_the_loop_only_what_is_short_is_begun(
    monkeypatch: pytest.MonkeyPatch, new: int, *, suspect: bool, short: bool
) -> None:
    catching = Catching(monkeypatch, replace(HEAD, size=HEAD.size + new))
    catching.journal.suspect = suspect
    if short:
        catching.journal._catch_up(at_once=True)
    else:
        with pytest.raises(AuditUnavailable, match="much has to be read first"):
            catching.journal._catch_up(at_once=True)
    assert len(catching.adopted) == short


@pytest.mark.parametrize("known", [b"", b"known"])
@pytest.mark.parametrize("seen", [None, MARK])
def test_a_log_without_a_head_has_begun_nowhere(
    monkeypatch: pytest.MonkeyPatch, known: bytes, seen: Mark | None
) -> None:
    """Neither here, nor in another process that the anchor has heard of."""
    journal, anchor = Catching(monkeypatch, None).journal, SimpleNamespace(read=lambda **_: seen)
    journal.known = replace(journal.known, mac=known)
    journal.announcer = announcing(anchor)
    if known or seen:
        with pytest.raises(IntegrityViolation, match=PUT_BACK):
            journal._catch_up()
    else:
        journal._catch_up()


@pytest.mark.parametrize(
    ("mark", "held"),
    [
        (MARK, True),
        (replace(MARK, hash=NEW[1]), False),
        (replace(MARK, size=6, hash=NEW[0]), True),
        (replace(MARK, size=7, hash=NEW[1]), True),
        (replace(MARK, size=7, hash=NEW[0]), False),
        (replace(MARK, size=8, hash=NEW[1]), False),
        (replace(MARK, size=4), False),
        (replace(MARK, size=4, hash=NEW[0]), False),
    ],
)
def test_what_the_anchor_remembers_is_in_the_log(mark: Mark, *, held: bool) -> None:
    known = announcing(None)
    if held:
        known.check(mark, HEAD, NEW)
        assert known.anchored is mark
    else:
        with pytest.raises(IntegrityViolation, match=PUT_BACK):
            known.check(mark, HEAD, NEW)
        assert known.anchored is None


@pytest.mark.parametrize("changes", [{"size": 1000}, {"edge": Edge().to_bytes()}])
def test_a_head_is_adopted_with_its_entries_and_their_tree_alone(house: House, changes: dict[str, Any]) -> None:
    journal = house.ledger._journal
    known = journal.known
    with pytest.raises(IntegrityViolation, match="does not extend the one this process knows"):
        journal._adopt(replace(known.head, **changes), b"mac", at_once=False)
    assert journal.known is known


def test_an_anchor_knows_a_log_before_its_first_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that never had an entry, because whoever was to begin it has died, leaves its place to another."""
    wanted = chosen(tmp_path, MasterKey.generate()[1])

    async def dies(*_: object) -> None:
        raise AuditUnavailable("gone")

    with monkeypatch.context() as dying:
        dying.setattr(app, "perform", dies)
        for _ in range(2):
            with pytest.raises(AuditUnavailable, match="gone"):
                initialise_vault(wanted)
            mark = FileAnchor(SqliteDatabase(tmp_path / "vault.db").anchor_path).peek()
            assert mark is not None
            assert mark.size == 0
    house = House(wanted, initialise_vault(wanted).token)
    assert house.ledger.mark().size == house.size == 1
    house.close()


def bare(**parts: Any) -> Any:  # noqa: ANN401
    """A journal of the parts that are needed alone."""
    journal: Any = object.__new__(Journal)
    for name, part in parts.items():
        setattr(journal, name, part)
    return journal


@pytest.mark.parametrize(("change", "waits"), [(False, False), (False, True), (True, False), (True, True)])
def test_only_what_takes_no_waiting_is_left_to_the_loop_to_settle(*, change: bool, waits: bool) -> None:
    done: list[str] = []
    database = SimpleNamespace(unlock=lambda: done.append("unlock"))
    journal = bare(_database=database, _anchor_waits=waits, _commit=lambda: done.append("commit"))
    journal._settle = lambda _: done.append("settle")
    filled = SimpleNamespace(has_change=change)
    assert journal._end(filled) is (None if change or waits else filled)
    assert done == (["commit", "settle", "unlock"] if change or waits else ["commit"])


@pytest.mark.parametrize("free", [True, False])
def test_the_lock_is_held_if_it_was_free(*, free: bool) -> None:
    assert bare(_database=SimpleNamespace(try_lock=lambda: free)).try_hold() is free


@pytest.mark.parametrize(("at_once", "patience"), [(True, 0.0), (False, BUSY_SECONDS)])
def test_a_loop_waits_for_no_other_program(*, at_once: bool, patience: float) -> None:
    waited: list[float] = []

    def begin(*, patience: float) -> None:
        waited.append(patience)
        raise AuditUnavailable("locked")

    with pytest.raises(AuditUnavailable):
        bare(_begin=begin)._fill(list, at_once=at_once)
    assert waited == [patience]


@pytest.mark.parametrize("low", [True, False])
def test_on_a_disk_that_is_nearly_full_keys_are_managed_and_not_used(
    monkeypatch: pytest.MonkeyPatch, *, low: bool
) -> None:
    added: list[Any] = []
    pending = SimpleNamespace(add=lambda item, **_: added.append(item), store=lambda *_: None)
    monkeypatch.setattr(module, "Pending", lambda *_, **__: pending)
    nothing: Any = lambda *_, **__: None  # noqa: E731
    journal = bare(
        _begin=nothing,
        _catch_up=nothing,
        known=None,
        _overtaken=False,
        state=None,
        tree=None,
        _authority=None,
        _alarms=[],
    )
    journal._connection, journal._database = None, SimpleNamespace(space_is_low=lambda: low)
    journal.state = SimpleNamespace(moment=(0, 0))
    use, change, refusal = (
        SimpleNamespace(error=None, outcome=SimpleNamespace(change=change), uses_keys=uses)
        for change, uses in ((None, True), ("change", True), (None, False))
    )
    journal._fill(lambda: [use, change, refusal])
    assert added == ([change, refusal] if low else [use, change, refusal])
    assert isinstance(use.error, AuditUnavailable) is low


@pytest.mark.parametrize(("mark", "scrubbed"), [(None, 0), (replace(MARK, scrubbed=3), 3)])
def test_a_background_check_goes_on_from_what_the_anchor_says(mark: Mark | None, scrubbed: int) -> None:
    journal = bare(state=SimpleNamespace(apply=lambda _: None), announcer=announcing(None))
    journal.load(LogTip(HEAD, b"", Tiles(), ""), None, None, mark)
    assert (journal.announcer.scrubbed, journal.announcer.anchored) == (scrubbed, mark)


def test_a_head_that_an_anchor_refuses_is_not_signed() -> None:
    def refuse(*_: object, **__: object) -> None:
        raise IntegrityViolation("forked")

    known = announcing(SimpleNamespace(write=refuse))
    known.anchored = replace(MARK, hash=NEW[0])
    with pytest.raises(IntegrityViolation, match="forked"):
        known.publish(LogTip(HEAD, b"", Tiles(), ""), lambda _: [])  # without a key to sign with


def test_what_others_wrote_is_read_in_a_transaction() -> None:
    done: list[str] = []
    journal = bare(known=LogTip(HEAD, b"", Tiles(), ""), _database=SimpleNamespace(lock=nullcontext))
    journal._begin = lambda *, patience: done.append(f"begin {patience < BUSY_SECONDS}")
    for name in ("_catch_up", "_abort"):
        setattr(journal, name, lambda name=name: done.append(name))
    journal._publish = lambda _: done.append("publish")
    journal.refresh()
    assert done == ["begin True", "_catch_up", "_abort", "publish"]


def test_whoever_closes_stores_its_checkpoint_in_the_newest_head(house: House) -> None:
    other = House(house.chosen, house.admin)
    other.ask(ListKeys())
    house.ask(ListKeys())
    note = other.ledger.evidence.signed_head()
    journal, anchor = other.ledger._journal, other.ledger._anchor
    journal._connection = faulty = FaultyConnection(journal._connection)
    other.close()
    assert [one.split()[0] for one in faulty.statements if one.startswith(("BEGIN", "UPDATE", "COMMIT"))] == [
        "BEGIN",
        "UPDATE",
        "COMMIT",
    ]
    assert isinstance(anchor, FileAnchor)
    assert anchor._descriptor is None, "nor is the anchor left open"
    with house.ledger._readers.one() as connection:
        (stored,) = connection.execute("SELECT size, checkpoint FROM ledger_head").fetchall()
    assert tuple(stored) == (house.ledger.mark().size, note)
    house.ask(ListKeys())
    assert house.ask(VerifyAudit()).valid


def test_a_head_that_stayed_names_the_newest_entry_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Catching(monkeypatch, HEAD, last=b"x" * 32).journal
    journal.known = replace(journal.known, mac=b"mac")
    with pytest.raises(IntegrityViolation, match="not the one its head names"):
        journal._catch_up()


@pytest.mark.parametrize("wrote", [True, False])
def test_on_the_loop_rows_are_not_compared(monkeypatch: pytest.MonkeyPatch, *, wrote: bool) -> None:
    """Which has to be if somebody has written, and not to the log."""
    journal = Catching(monkeypatch, HEAD).journal
    journal.known = replace(journal.known, mac=b"mac")
    journal._data_version = 0 if wrote else 1
    if wrote:
        with pytest.raises(AuditUnavailable, match="all stored rows have to be compared first"):
            journal._catch_up(at_once=True)
    else:
        journal._catch_up(at_once=True)
    assert journal.suspect is wrote


@pytest.mark.parametrize(("stuck", "alive"), [(False, True), (True, True), (False, False)])
def test_a_connection_that_is_stuck_or_dead_is_replaced_and_all_rows_are_compared(*, stuck: bool, alive: bool) -> None:
    begun: list[tuple[object, float]] = []
    old, new = SimpleNamespace(in_transaction=stuck, close=lambda: None), SimpleNamespace(in_transaction=False)
    database = SimpleNamespace(
        is_alive=lambda one: alive or one is new,
        writer=lambda *, patient: None if patient else new,
        count_of_others=lambda one: 5 if one is new else 0,
        begin=lambda one, *, patience: begun.append((one, patience)),
        check_there=lambda: None,
    )
    journal = bare(_connection=old, _database=database, _data_version=0, suspect=False)
    journal._begin()
    replaced = stuck or not alive
    assert begun == [(new if replaced else old, BUSY_SECONDS)]
    assert (journal.suspect, journal._data_version) == ((True, 5) if replaced else (False, 0))


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize(("anchor", "waits"), [(None, False), (True, False), (False, True), (True, True)])
def test_a_transaction_is_filled_on_the_loop_where_nobody_elsewhere_is_waited_for(
    *, local: bool, anchor: bool | None, waits: bool
) -> None:
    """And the connection waits for nobody of itself: how long is said each time."""
    database: Any = SimpleNamespace(
        is_local=local, writer=lambda *, patient: f"patient {patient}", count_of_others=lambda _: 0
    )
    authority: Any = SimpleNamespace(instance_id=bytes(16), log_public_key=bytes(32))
    beside: Any = None if anchor is None else SimpleNamespace(is_local=anchor, waits=waits)
    journal: Any = Journal(database, authority, cast(State, None), beside)
    assert journal.fills_at_once is (local and anchor is not False)
    assert journal._anchor_waits is waits
    assert journal._connection == "patient False"


def test_an_anchor_in_use_is_waited_for_unless_it_is_said_otherwise() -> None:
    asked: list[bool] = []
    anchor = SimpleNamespace(write=lambda *_, at_once, **__: asked.append(at_once))
    database = SimpleNamespace(check_same_file=lambda: None)
    journal = bare(announcer=announcing(anchor), _prove=None, _alarms=[], _database=database)
    known = LogTip(HEAD, b"", Tiles(), "")
    pending = SimpleNamespace(apply=lambda: None, after=known)
    journal._publish(known)
    journal._settle(pending)
    journal._settle(pending, at_once=True)
    assert asked == [False, False, True]


def test_who_opened_a_vault_before_it_began_takes_in_its_first_entry(house: House) -> None:
    state = State(lambda *_: None)
    journal = Journal(house.vault.database, house.vault.keyring, state, None)
    journal.refresh()
    known = house.ledger._journal
    assert (journal.head, journal.tree.root()) == (known.head, known.tree.root())
    assert state.sequence == house.size == 1
    journal.close()


def adopt(house: House, *, at_once: bool = False) -> None:
    """Take in what another process has written, as every transaction does first."""
    journal = house.ledger._journal
    with journal._database.lock():
        journal._begin()
        try:
            journal._catch_up(at_once=at_once)
        finally:
            journal._abort()


@pytest.fixture
def other(house: House) -> Iterator[House]:
    """The same vault, as another process has it."""
    opened = House(house.chosen, house.admin)
    yield opened
    opened.close()


def test_what_others_changed_is_taken_in_on_the_loop(house: House, other: House) -> None:
    other.key("orders")
    adopt(house, at_once=True)
    assert house.ledger._journal.tree.root() == other.ledger._journal.tree.root()


OTHER_STATE = "the stored state is not the one the log commits to"


def test_a_row_of_another_process_that_was_edited_is_not_taken_in(house: House, other: House) -> None:
    other.key("orders")
    with closing(driver.connect(str(house.path), isolation_level=None)) as connection:
        connection.execute("UPDATE keys SET description = 'edited' WHERE name = 'orders'")
    with pytest.raises(IntegrityViolation, match=OTHER_STATE):
        adopt(house)


def test_an_old_row_put_back_over_that_of_another_process_is_not_taken_in(house: House, other: House) -> None:
    key = house.key("orders")
    with closing(driver.connect(str(house.path), isolation_level=None)) as connection:
        for table in ("keys", "key_versions"):
            connection.execute(f"CREATE TEMP TABLE old_{table} AS SELECT * FROM {table}")
        other.ask(RevokeKey(KeyRef(key.id)))
        for table in ("keys", "key_versions"):
            connection.execute(f"REPLACE INTO {table} SELECT * FROM old_{table}")
    with pytest.raises(IntegrityViolation, match=OTHER_STATE):
        adopt(house)


def test_a_forged_row_beside_those_of_another_process_does_not_hide_a_revocation(house: House, other: House) -> None:
    """Its key is set aside with it, and the root, which knows of genuine rows alone, is the one the log commits to."""
    key = house.key("orders")
    other.ask(RevokeKey(KeyRef(key.id)))
    with closing(driver.connect(str(house.path), isolation_level=None)) as connection:
        connection.execute("CREATE TEMP TABLE forged AS SELECT * FROM key_versions WHERE key_id = ?", (key.id,))
        connection.execute("UPDATE forged SET id = 'forged', version = 2, row_seq = row_seq + 1")
        connection.execute("INSERT INTO key_versions SELECT * FROM forged")
    with pytest.raises(IntegrityViolation, match=OTHER_STATE):
        adopt(house)


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("first", "second"),
    [
        # Of other lengths, but one after another the same bytes: and so is what the tree makes of them.
        ("CAST(first || substr(second, 1, 1) AS BLOB)", "substr(second, 2)"),
        ("substr(first, 1, 31)", "CAST(substr(first, 32) || second AS BLOB)"),
        ("second", "first"),
        ("first", "x''"),
        ("'text'", "second"),
        ("1", "second"),
    ],
)
def test_entries_of_another_process_are_taken_in_by_their_hashes(
    house: House, other: House, first: str, second: str
) -> None:
    key = KeyRef(other.key().id)
    if other.size % 2:  # the next two have a parent of their own
        other.ask(Encrypt(key, plaintext=b"x"))
    adopt(house)
    size, known = other.size, house.ledger._journal.known
    for _ in range(3):
        other.ask(Encrypt(key, plaintext=b"x"))
    tamper(
        house.path,
        "CREATE TABLE two AS SELECT a.hash AS first, b.hash AS second FROM audit_logs a, audit_logs b "
        f"WHERE a.id = {size + 1} AND b.id = {size + 2}",
        f"UPDATE audit_logs SET hash = (SELECT {first} FROM two) WHERE id = {size + 1}",
        f"UPDATE audit_logs SET hash = (SELECT {second} FROM two) WHERE id = {size + 2}",
        "DROP TABLE two",
    )
    with pytest.raises(IntegrityViolation):
        adopt(house)
    assert house.ledger._journal.known is known


@pytest.mark.sqlite_only
def test_what_an_entry_of_another_process_says_is_checked_with_the_rest_of_the_log(house: House, other: House) -> None:
    key = KeyRef(other.key().id)
    other.ask(Encrypt(key, plaintext=b"x"))
    number = other.size
    tamper(house.path, f"UPDATE audit_logs SET action = 'decrypt' WHERE id = {number}")
    house.ask(Encrypt(key, plaintext=b"x"))
    found = house.ask(VerifyAudit())
    assert (found.valid, found.first_invalid) == (False, number)


@pytest.mark.sqlite_only
def test_what_ends_by_time_is_judged_by_the_latest_time_of_the_log(
    house: House, other: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the clock was set back, and this process has not heard yet how late it was for another."""
    key = KeyRef(other.key().id)
    adopt(house)
    ends = time.time_ns() // 1000 + 3_600_000_000
    made = other.ask(CreateService("brief", Role.SERVICE, (grant("*", Permission.ENCRYPT),), expires_at=ends))
    adopt(house)
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 7_200_000_000_000)
    other.refusal(Encrypt(key, plaintext=b"x"), Unauthenticated, made.token)
    monkeypatch.setattr(time, "time_ns", real)
    house.refusal(Encrypt(key, plaintext=b"x"), Unauthenticated, made.token)
