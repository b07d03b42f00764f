"""Archiving: the oldest entries leave the database, the log stays one that verifies, and who changes it is found."""

import lzma
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import keyvault_lite
from keyvault_lite.audit.chain import Position, genesis
from keyvault_lite.audit.entry import ENTRY_COLUMNS, Row
from keyvault_lite.audit.receipt import verify_receipt
from keyvault_lite.audit.segment import write_entries
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.ledger import evidence
from keyvault_lite.ledger.archive import segment_files
from keyvault_lite.ledger.archive.archiver import boundary
from keyvault_lite.ledger.archive.segment_files import Shelf
from keyvault_lite.ledger.log.query import Filter, read_page
from keyvault_lite.ledger.log.retention import segments_of
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.ledger.storage.sqlite.schema_check import check_schema
from keyvault_lite.ledger.verify import startup
from keyvault_lite.ledger.verify.inspection import inspect
from keyvault_lite.ledger.verify.trust import Accepted
from keyvault_lite.model.archive import PREFIX
from keyvault_lite.model.encoding import decode_base64
from keyvault_lite.model.errors import AuditUnavailable, Conflict, IntegrityViolation, InvalidState, NotFound
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import Role
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import Verification
from keyvault_lite.model.requests import (
    ArchiveEntries,
    CreateKey,
    Encrypt,
    ListAudit,
    ReadCheckpoint,
    ReadConsistency,
    ReadReceipt,
    RevokeKey,
    RotateKey,
    UpdateKey,
    VerifyAudit,
)
from keyvault_lite.operator.anchor import trust_anchor
from keyvault_lite.operator.archive import Archiving, read_archive
from keyvault_lite.operator.archive import archive_entries as archive
from keyvault_lite.operator.repair import repair_vault
from keyvault_lite.operator.verify import verify_vault as verify
from tests.house import AES, House, chosen, furnish, idempotent, move_in
from tests.ledger.archiving import COMMITTED, PLACES
from tests.ledger.faults import failing
from tests.ledger.test_tampering import tamper

ROOT = Path(__file__).parents[2]
SOURCE = Path(keyvault_lite.__file__).parents[1]


def use(house: House, times: int) -> None:
    house.together(*(house.perform(Encrypt(KeyRef("orders"), plaintext=b"x")) for _ in range(times)))


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A vault with some 1 100 entries."""
    folder = tmp_path_factory.mktemp("lived")
    master, token = furnish(folder)
    house = House(chosen(folder, master), token)
    house.key("orders")
    house.service("auditor", role=Role.AUDITOR)
    house.rotated(house.key("rotated"), 3)
    use(house, 1100)
    house.close()
    return folder, master, token


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def house(lived: tuple[Path, str, str], tmp_path: Path) -> Iterator[House]:
    folder, master, token = lived
    opened = move_in(folder, tmp_path / "vault", master, token)
    yield opened
    opened.close()


def problems(found: Verification) -> list[str]:
    return [f"{one.table} {one.row}: {one.problem}" for one in found.findings]


def all_verifications(house: House, to: Path) -> list[Verification]:
    return [
        verify(house.chosen),
        verify(house.chosen, archive=to),
        verify(house.chosen, public=True),
        verify(house.chosen, public=True, archive=to),
    ]


def check_whole(house: House, to: Path) -> None:
    """Everything verifies, from the boundary and as one log; a restart takes it too."""
    size = house.size
    for found in all_verifications(house, to):
        assert problems(found) == []
    part, whole, _, public = all_verifications(house, to)
    assert (whole.entries, whole.archived) == (size, 0) == (public.entries, public.archived)
    assert part.entries + part.archived == size
    assert house.ask(VerifyAudit()).valid
    house.reopen()


# What it is for


def test_the_log_stays_one(house: House, to: Path) -> None:
    kept = house.ask(ReadCheckpoint())
    before = house.log()
    use(house, 1)
    done = archive(house.chosen, to, keep=300)
    assert [(one.first, one.last) for one in done.segments] == [(1, 768)]
    assert done.archived == 768
    file = to / done.segments[0].file
    assert (file.stat().st_mode & 0o777, to.stat().st_mode & 0o777) == (0o600, 0o700)
    assert file.stat().st_size < 768 * 150
    entry = house.log(after=768)[-1].draft
    assert (entry.action, entry.result.value) == (Action.AUDIT_ARCHIVE, "success")
    assert entry.comment is not None
    digest = sha256(file.read_bytes()).hexdigest()
    assert entry.comment.startswith(f"entries 1 to 768 archived as sha256 {digest}; slot ")
    assert house.log(after=768)[: len(before) - 768] == before[768:]
    # A checkpoint from before holds, and is consistent with what is there now.
    for public in (False, True):
        for files in (None, to):
            assert problems(verify(house.chosen, against=kept, public=public, archive=files)) == []
    house.ask(ReadConsistency(5, house.size))
    check_whole(house, to)
    use(house, 5)
    check_whole(house, to)


def test_archives_in_a_row(house: House, to: Path) -> None:
    archive(house.chosen, to, keep=800)
    use(house, 300)
    house.ask(RotateKey(KeyRef("rotated")))
    archive(house.chosen, to, keep=600)
    use(house, 300)
    done = archive(house.chosen, to, keep=1)
    assert (done.segments[0].first, done.archived) == (769, 1536)
    assert len(list(to.iterdir())) == 3
    assert archive(house.chosen, to, keep=1).segments == ()
    check_whole(house, to)
    use(house, 300)
    check_whole(house, to)


def test_segments_are_cut(house: House, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyvault_lite.operator.archive.SEGMENT", 512)
    steps: list[tuple[int, int]] = []
    done = archive(house.chosen, to, keep=1, progress=lambda one, of: steps.append((one, of)))
    assert [(one.first, one.last) for one in done.segments] == [(1, 512), (513, 1024)]
    assert steps == [(512, 1024), (1024, 1024)]
    check_whole(house, to)


def test_what_goes_is_older_than_a_moment(house: House, to: Path) -> None:
    moment = house.log()[600].timestamp
    assert archive(house.chosen, to, before=1).archived == 0
    assert archive(house.chosen, to, before=moment).archived <= 600
    assert archive(house.chosen, to, before=1 << 60, keep=10_000).segments == ()
    check_whole(house, to)


@pytest.mark.parametrize(
    ("size", "keep", "before", "archived", "last"),
    [
        (513, 1, None, 0, 512),
        (512, 1, None, 0, 256),
        (512, 0, None, 0, 256),
        (600, 88, None, 0, 512),
        (600, 89, None, 0, 256),
        (300, 300, None, 0, 0),
        (300, 300, None, 256, 256),
        # Entry n is of the moment 10 n.
        (600, 1, 5130, 0, 512),
        (600, 1, 5121, 0, 512),
        (600, 1, 5120, 0, 256),
        (600, 1, 1, 0, 0),
        (600, 300, 5130, 0, 256),
        (600, 1, 5130, 256, 512),
        (600, 1, 2565, 256, 256),
    ],
)
def test_whole_tiles_go(size: int, keep: int, before: int | None, archived: int, last: int) -> None:
    with closing(driver.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE audit_logs (id INTEGER PRIMARY KEY, timestamp)")
        for number in range(archived + 1, size + 1):
            connection.execute("INSERT INTO audit_logs VALUES (?, ?)", (number, 10 * number))
        assert boundary(connection, archived=archived, size=size, before=before, keep=keep) == last


def test_the_newest_entry_never_goes(house: House, to: Path) -> None:
    use(house, -house.size % 256)
    assert house.size % 256 == 0
    size = house.size
    assert archive(house.chosen, to).archived == size - 256
    check_whole(house, to)


def test_space_is_given_back(house: House, to: Path) -> None:
    use(house, 3000)
    house.ledger.empty_write_ahead_log()
    before = house.path.stat().st_size
    archive(house.chosen, to, keep=1, vacuum=True)
    assert house.path.stat().st_size < before / 2
    check_whole(house, to)


# Reading


def test_pages_end_at_the_boundary(house: House, to: Path) -> None:
    moment = house.log()[100].timestamp
    archive(house.chosen, to, keep=300)
    first = house.ask(ListAudit(limit=1000))
    assert (first.items[-1].id, first.next, first.archived) == (769, None, 768)
    assert house.ask(ListAudit(limit=1, ascending=True)).items[0].id == 769
    assert house.ask(ListAudit(limit=1, ascending=True, since=moment)).items[0].id == 769
    assert house.ask(ListAudit(limit=1, until=moment)).items == ()
    assert house.ask(ListAudit(limit=1, ascending=True, after="5")).items[0].id == 769
    assert house.ask(ListAudit(limit=1, of=Action.INITIALISE)).items == ()


def test_a_page_that_is_read_while_it_goes(house: House, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = read_page
    done: list[Archiving] = []

    def late(connection: driver.Connection, wanted: Filter, *, archived: int) -> object:
        if not done:
            done.append(archive(house.chosen, to, keep=300))
        return real(connection, wanted, archived=archived)

    monkeypatch.setattr(evidence, "read_page", late)
    # The search for the moment meets what is gone: no gap, the page is read again.
    page = house.ledger.evidence.entries(Filter(limit=1, ascending=True, since=2))
    assert (page.items[0].id, page.archived) == (769, 768)


def test_receipts(house: House, to: Path) -> None:
    archive(house.chosen, to, keep=300)
    refused = house.refusal(ReadReceipt(5), NotFound)
    assert refused.code == "not_found"
    assert "archived" in refused.detail
    assert house.refusal(ReadReceipt(10**9), NotFound).detail == "no such entry"
    for number in (1, 768):
        with pytest.raises(NotFound, match="the entries up to 768 are archived"):
            house.ledger.evidence.entry(number)
    assert house.ledger.evidence.entry(0) is None
    key = house.ledger.evidence.log_key().verifier_key
    text = house.ask(ReadReceipt(769))
    entry = house.log(after=768)[0]
    assert verify_receipt(text, entry.hash, vkey=key, verify=verify_ed25519).size >= 769


def test_a_kept_reply_may_name_an_archived_entry(house: House, to: Path) -> None:
    made = house.ask(CreateKey(AES, "once"), idempotency=idempotent("once"))
    use(house, 300)
    assert archive(house.chosen, to, keep=1).archived > 1024
    again = house.ask(CreateKey(AES, "once"), idempotency=idempotent("once"))
    assert again.body == repr(made).encode()
    check_whole(house, to)
    tamper(house.path, "DELETE FROM settings WHERE name LIKE 'audit/%'")
    house.refusal(CreateKey(AES, "once"), IntegrityViolation, idempotency=idempotent("once"))


def test_files_are_read_without_the_vault(house: House, to: Path, tmp_path: Path) -> None:
    before = house.log()
    key = house.ledger.evidence.log_key().verifier_key
    archive(house.chosen, to, keep=800)
    use(house, 300)
    archive(house.chosen, to, keep=300)
    nowhere = chosen(tmp_path, "")
    read = partial(read_archive, note=pytest.fail)
    assert list(read(nowhere, to, key=key)) == before[: house.ask(ListAudit(limit=1)).archived]
    for first, last in ((255, 258), (256, 257), (256, 256), (257, 257)):
        assert list(read(house.chosen, to, first=first, last=last)) == before[first - 1 : last]
    with pytest.raises(NotFound):
        next(read(nowhere, to))
    one, two = sorted(to.iterdir())
    older: dict[str, Any] = {"last": 256}
    newer: dict[str, Any] = {"first": 257}
    for file, its, others in ((one, older, newer), (two, newer, older)):
        whole, sound = file.read_bytes(), list(read(house.chosen, to, **others))
        data = lzma.decompress(whole)
        for spoiled in (data.replace(b"encrypt", b"decrypt", 1), data[:-1]):
            file.write_bytes(lzma.compress(spoiled))
            assert list(read(house.chosen, to, **others)) == sound
            with pytest.raises(IntegrityViolation, match=file.name):
                next(read(house.chosen, to, **its))  # before any entry of it
        file.write_bytes(whole)


# Beside others


def test_a_process_that_looked_away(house: House, to: Path) -> None:
    other = House(house.chosen, house.admin)
    try:
        use(house, 700)
        house.ask(RevokeKey(KeyRef("rotated")))
        use(house, 300)
        known = other.ledger._journal.head.size
        assert archive(house.chosen, to, keep=1).archived > known + 900
        # It knows neither the entries nor the revocation, and the entries between are gone.
        assert other.ask(ListAudit(limit=1)).archived
        use(other, 3)
        house.refusal(RotateKey(KeyRef("rotated")), InvalidState)
        other.refusal(RotateKey(KeyRef("rotated")), InvalidState)
        assert other.ask(VerifyAudit()).valid
    finally:
        other.close()
    check_whole(house, to)


def test_one_of_two_that_archive(house: House, to: Path, tmp_path: Path) -> None:
    other = House(house.chosen, house.admin)
    try:
        segment = other.ledger.make_segment(_made(tmp_path / "other"), verify_ed25519, last=512)
        archived = archive(house.chosen, to, keep=300).archived
        with pytest.raises(Conflict):
            other.system(ArchiveEntries(segment))
        for last in (512, archived):
            with pytest.raises(Conflict):
                other.ledger.make_segment(tmp_path / "other", verify_ed25519, last=last)
    finally:
        other.close()
    check_whole(house, to)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_servers_go_on_meanwhile(house: House, to: Path) -> None:
    """One that uses keys all the time, one that wakes up late, and one that archives in a process of its own."""
    other = House(house.chosen, house.admin)
    try:
        with child(house, to, "nowhere") as running:
            while running.poll() is None:
                use(house, 10)
            use(other, 2)
            assert running.wait() == 0
        assert other.ask(ListAudit(limit=1)).archived >= 768
    finally:
        other.close()
    check_whole(house, to)


def child(house: House, to: Path, place: str) -> subprocess.Popen[str]:
    assert house.chosen.master_key is not None
    master = house.chosen.master_key.get_secret_value()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KEYVAULT_")}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.ledger.archiving", str(house.path.parent), str(to), place, master],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": os.pathsep.join((str(SOURCE), str(ROOT)))},
        text=True,
    )


# What goes wrong


@pytest.mark.parametrize("place", PLACES)
def test_a_process_that_dies_has_lost_nothing(
    house: House, to: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [entry.hash for entry in house.log()]
    house.vault.close()
    with child(house, to, place) as running:
        assert running.wait() == 9
    house.open()
    gone = house.ask(ListAudit(limit=1)).archived
    assert gone == (512 if place in COMMITTED else 0)
    assert [entry.hash for entry in house.log(after=gone)][: len(before) - gone] == before[gone:]
    files = {path.name for path in to.glob("*.kvlseg")}
    assert len(files) == (place != "the file is half written")
    monkeypatch.setattr("keyvault_lite.operator.archive.SEGMENT", 512)
    assert archive(house.chosen, to, keep=300).archived == 768
    # What it had written is taken, not written again.
    made = {path.name for path in to.glob("*.kvlseg")}
    assert files <= made
    assert len(made) == 2
    check_whole(house, to)


def test_a_failed_deletion_leaves_everything(house: House, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget = SqliteDatabase.forget_entries

    def fail(database: SqliteDatabase, connection: driver.Connection, first: int, last: int) -> None:
        forget(database, connection, first, last)
        raise failing()

    monkeypatch.setattr(SqliteDatabase, "forget_entries", fail)
    with pytest.raises(AuditUnavailable):
        archive(house.chosen, to, keep=300)
    assert house.log()[0].id == 1
    monkeypatch.undo()
    assert archive(house.chosen, to, keep=300).archived == 768
    assert len(list(to.iterdir())) == 1
    check_whole(house, to)


def test_a_folder_that_is_full_costs_nothing(house: House, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        archive(house.chosen, to, keep=300)
    monkeypatch.undo()
    assert list(to.iterdir()) == []
    assert house.log()[0].id == 1


def test_a_folder_that_cannot_be_flushed_archives_nothing(
    house: House, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(segment_files, "_flush_folder", fail)
    with pytest.raises(OSError, match="Input/output"):
        archive(house.chosen, to, keep=300)
    monkeypatch.undo()
    assert house.log()[0].id == 1
    archive(house.chosen, to, keep=300)
    assert len(list(to.iterdir())) == 1, "what it has left is taken"
    check_whole(house, to)


def test_a_file_that_cannot_be_read_back_archives_nothing(
    house: House, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(rows: list[Row]) -> bytes:
        return write_entries(rows)[:-1] + b"\x00"

    monkeypatch.setattr(segment_files, "write_entries", forgetful)
    with pytest.raises(IntegrityViolation):
        archive(house.chosen, to, keep=300)
    assert list(to.iterdir()) == []
    assert house.log()[0].id == 1


def test_a_database_that_lies_is_not_archived(house: House, to: Path) -> None:
    """An entry changed under a server that opened before: the chain in the file would be another one."""
    tamper(house.path, "UPDATE audit_logs SET source = 'elsewhere' WHERE id = 5")
    with pytest.raises(IntegrityViolation):
        house.ledger.make_segment(_made(to), verify_ed25519, last=512)
    assert list(to.iterdir()) == []


def test_a_leftover_that_is_damaged_is_not_taken(house: House, to: Path) -> None:
    segment = house.ledger.make_segment(_made(to), verify_ed25519, last=512)
    file = to / segment.file
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    done = archive(house.chosen, to, keep=600)
    assert done.segments[0].file != segment.file
    assert any("on no record" in note for note in verify(house.chosen, archive=to).notes)
    check_whole(house, to)


def test_an_acknowledged_rollback_makes_another_archive(house: House, to: Path, tmp_path: Path) -> None:
    """The same range is archived in two histories: neither file takes the other's place."""
    house.vault.close()
    shutil.copytree(house.path.parent, tmp_path / "older")
    house.open()
    use(house, 5)
    first = archive(house.chosen, to, keep=300).segments[0]
    house.vault.close()
    for file in house.path.parent.glob("vault.db*"):
        if not file.name.endswith(".anchor"):
            file.unlink()
    for file in (tmp_path / "older").glob("vault.db*"):
        if not file.name.endswith(".anchor"):
            shutil.copy(file, house.path.parent / file.name)
    refusal = problems(verify(house.chosen))[0]
    size, root = re.findall(r"--size (\d+) --root (\S+?)`", refusal)[0]
    trust_anchor(house.chosen, Accepted(int(size), decode_base64(root)))
    house.open()
    second = archive(house.chosen, to, keep=300).segments[0]
    assert (first.first, first.last, first.head) == (second.first, second.last, second.head)
    check_whole(house, to)


def test_an_anchor_from_before_still_fits(house: House, to: Path) -> None:
    anchor = house.path.with_name("vault.db.anchor")
    house.vault.close()
    older = anchor.read_bytes()
    house.open()
    use(house, 300)
    archive(house.chosen, to, keep=1)
    house.vault.close()
    anchor.write_bytes(older)
    assert problems(verify(house.chosen)) == []
    house.open()
    use(house, 1)
    check_whole(house, to)


# Who changes something


def test_nothing_else_may_be_deleted(house: House, to: Path) -> None:
    archive(house.chosen, to, keep=300)
    with closing(driver.connect(str(house.path), isolation_level=None)) as connection:
        assert check_schema(connection) == []
        for entry in (769, 800):
            with pytest.raises(driver.IntegrityError, match="never deleted"):
                connection.execute("DELETE FROM audit_logs WHERE id = ?", (entry,))


AGAIN = ", ".join(column for column in ENTRY_COLUMNS if column != "id")
EDITS: dict[str, tuple[str, ...]] = {
    "more is gone than was archived": ("DELETE FROM audit_logs WHERE id < 800",),
    "more is gone, and the record says so": (
        "DELETE FROM audit_logs WHERE id <= 1024",
        f"UPDATE settings SET name = '{PREFIX}0000000000000001024', value = replace(value, '768', '1024')",
    ),
    "the record says more": ("UPDATE settings SET value = replace(value, '768', '1024')",),
    "the record names another file": (
        "UPDATE settings SET value = replace(value, substr(value, instr(value, 'hash\":\"') + 7, 8), '00000000')",
    ),
    "the record is gone": (f"DELETE FROM settings WHERE name LIKE '{PREFIX}%'",),
    "the record is no record": ("UPDATE settings SET value = '{}'",),
    "the record is no text": ("UPDATE settings SET value = x'ff'",),
    "an archived entry is there again": (
        f"INSERT INTO audit_logs (id, {AGAIN}) SELECT 768, {AGAIN} FROM audit_logs WHERE id = 769",
    ),
    "a tile of archived entries is another": ("UPDATE tiles SET hashes = zeroblob(8192) WHERE level = 0 AND tile = 1",),
    "a tile of archived entries is short": ("UPDATE tiles SET hashes = zeroblob(8191) WHERE level = 0 AND tile = 1",),
    "a tile of archived entries is gone": ("DELETE FROM tiles WHERE level = 0 AND tile = 1",),
}


@pytest.mark.parametrize("what", EDITS)
def test_a_changed_database_is_found(house: House, to: Path, what: str) -> None:
    archive(house.chosen, to, keep=300)
    house.vault.close()
    tamper(house.path, *EDITS[what])
    for found in all_verifications(house, to):
        assert problems(found) != []
    with pytest.raises((DamagedVault, IntegrityViolation)):
        house.open()


def test_a_tile_over_archived_entries_that_is_gone_is_the_one_finding(house: House, to: Path) -> None:
    """What follows is in doubt with it: nothing is said of the head, nor by who remembers another tree."""
    archive(house.chosen, to, keep=300)
    tamper(house.path, *EDITS["a tile of archived entries is gone"])
    for public in (False, True):
        (found,) = verify(house.chosen, public=public).findings
        assert (found.table, found.row) == ("tiles", "0/1")


def test_without_the_keyring_an_entry_tells_which_file_has_what_was_archived(house: House, to: Path) -> None:
    archive(house.chosen, to, keep=300)
    tamper(house.path, *EDITS["the record names another file"])
    (found,) = verify(house.chosen, public=True).findings
    assert (found.table, found.row) == ("settings", PREFIX)
    assert found.problem.endswith("the newest entry about it names another file")


def test_a_check_from_an_entry_that_was_archived_begins_at_the_boundary(house: House, to: Path) -> None:
    archive(house.chosen, to, keep=300)
    house.ledger.refresh()
    size = house.size
    for number in (1, 767, 768, 769, size):
        with house.ledger._readers.one() as connection:
            seen = inspect(connection, house.vault.keyring, house.vault.database, log_from=number)
        assert (seen.findings, seen.read_to, seen.entries) == ([], size, size - max(number, 768))


def rewritten(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """A change of what is in a file, compressed again."""
    return lambda data: lzma.compress(change(lzma.decompress(data)))


FILES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda data: data[:-100],
    "empty": lambda _: b"",
    "longer": lambda data: data + b"\x00",
    "a byte changed": lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
    "another compression": rewritten(lambda data: data),
    "another source": rewritten(lambda data: data.replace(b"encrypt", b"decrypt", 1)),
    "without its last entry": rewritten(lambda data: data[:-9000]),
    "of another vault": rewritten(lambda data: data[:40] + bytes(16) + data[56:]),
    "not compressed": lzma.decompress,
    "two files in one": lambda data: data + data,
    "nothing but zeros": lambda _: lzma.compress(bytes(1 << 24)),
}


@pytest.mark.parametrize("on_record", [False, True], ids=["other hash", "same hash on record"])
def test_a_changed_file_is_found_and_named(
    house: House, to: Path, on_record: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if its hash were that of the record, as without the keyring it may be."""
    done = archive(house.chosen, to, keep=300)
    file = to / done.segments[0].file
    whole = file.read_bytes()
    if on_record:
        monkeypatch.setattr(segment_files, "_digest", lambda _: done.segments[0].file_hash)
    for what, change in FILES.items():
        file.write_bytes(change(whole))
        if on_record and what == "another compression":
            continue  # the same segment, by another road
        for public in (False, True):
            found = verify(house.chosen, public=public, archive=to)
            assert [(one.table, one.row) for one in found.findings] == [("archive", file.name)], what
            assert found.archived == 768
    assert problems(verify(house.chosen)) == []
    file.write_bytes(whole)
    check_whole(house, to)


def test_files_that_are_missing_or_swapped(house: House, to: Path) -> None:
    archive(house.chosen, to, keep=800)
    use(house, 300)
    archive(house.chosen, to, keep=1)
    first, second = sorted(to.iterdir())
    swapped = first.read_bytes()
    first.write_bytes(second.read_bytes())
    found = verify(house.chosen, archive=to)
    assert [one.row for one in found.findings] == [first.name]
    first.unlink()
    found = verify(house.chosen, archive=to)
    assert [one.row for one in found.findings] == [first.name]
    assert "is missing" in found.findings[0].problem
    assert any(sha256(swapped).hexdigest() in note for note in found.notes)
    first.write_bytes(swapped)
    check_whole(house, to)


def test_a_signature_in_a_file_counts(house: House, to: Path) -> None:
    """A file of another log that uses our name: everything in it is consistent, but it was not signed by our key."""
    archive(house.chosen, to, keep=300)
    house.ledger.refresh()
    keyring = house.vault.keyring
    start = Position.start(genesis(keyring.instance_id, keyring.log_public_key))
    assert Shelf(to, keyring, verify_ed25519).find(1, 768, start) is not None
    assert Shelf(to, keyring, lambda *_: False).find(1, 768, start) is None
    # So does what comes before it, and that its name is the one its bytes give it.
    assert Shelf(to, keyring, verify_ed25519).find(1, 768, replace(start, timestamp=1)) is None
    (segment,) = segments_of(house.ledger.snapshot().settings_under(PREFIX), [])
    assert list(Shelf(to, keyring, verify_ed25519).entries(segment, start))
    for other in (replace(segment, timestamp=1), replace(segment, head=bytes(32)), replace(segment, state_seq=0)):
        with pytest.raises(IntegrityViolation, match="does not end where the record says"):
            list(Shelf(to, keyring, verify_ed25519).entries(other, start))
    (file,) = to.iterdir()
    renamed = file.rename(file.with_name(file.name.replace(file.stem[-16:], "0" * 16)))
    assert renamed.name != file.name
    assert Shelf(to, keyring, verify_ed25519).find(1, 768, start) is None


def test_what_only_the_archive_can_tell(house: House, to: Path, tmp_path: Path) -> None:
    """A row is put back whose newest entry was archived: that it is old is seen without the archive, which with it."""
    with closing(driver.connect(str(house.path))) as connection:
        old = connection.execute("SELECT * FROM keys WHERE name = 'rotated'").fetchone()
    house.ask(UpdateKey(KeyRef("rotated"), description="newer"))
    use(house, 300)
    archive(house.chosen, to, keep=1)
    house.vault.close()
    with closing(driver.connect(str(house.path), isolation_level=None)) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(keys)")]
        connection.execute(f"UPDATE keys SET {', '.join(f'{name} = ?' for name in names)} WHERE id = ?", (*old, old[0]))
    found = verify(house.chosen, archive=to).findings
    assert [(one.table, one.row) for one in found] == [("keys", old[0]), ("ledger_head", "1")]
    without = verify(house.chosen)
    assert [one.table for one in without.findings] == ["ledger_head"]
    assert "or before" in without.findings[0].problem
    for known in (None, to):
        with pytest.raises(DamagedVault):
            repair_vault(house.chosen, archive=known)


def test_who_checks_without_the_keyring_sees_the_boundary_in_the_log(house: House, to: Path) -> None:
    """The slots are named again by the entry of the archiving: that they are the ones on record stays public."""
    archive(house.chosen, to, keep=300)
    tamper(house.path, "UPDATE keyring_slots SET generation = generation + 1")
    assert any("keyring_slots" in one for one in problems(verify(house.chosen, public=True)))


def test_the_background_check_goes_on(house: House, to: Path) -> None:
    archive(house.chosen, to, keep=300)
    house.ledger.refresh()
    house.ledger.scrub()
    house.ledger.scrub_log()
    assert house.ledger._journal.announcer.scrubbed == house.size
    use(house, 1)
    assert house.ledger.mark().scrubbed == house.size - 1
    assert house.ledger.fault is None


def test_a_long_log_is_checked_from_the_boundary(house: House, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(house.chosen, to, keep=300)
    monkeypatch.setattr(startup, "CHECKED_AT_START", 400)
    house.reopen()
    house.ledger.scrub_log()
    use(house, 1)
    house.reopen()
    assert house.ask(VerifyAudit()).valid


def test_a_segment_ends_with_an_entry_that_is_there(house: House, to: Path) -> None:
    with pytest.raises(IntegrityViolation, match="the log has a gap"):
        house.ledger.make_segment(_made(to), verify_ed25519, last=house.size + 1)
    assert not list(to.iterdir())
