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

from keyvault_lite.audit.chain import ChainState, genesis
from keyvault_lite.audit.entry import ENTRY_COLUMNS, Row
from keyvault_lite.audit.receipt import verify_receipt
from keyvault_lite.audit.segment import write_entries
from keyvault_lite.crypto.witness import verify_ed25519
from keyvault_lite.ledger import evidence
from keyvault_lite.ledger.archive import segment_files
from keyvault_lite.ledger.archive.archiver import boundary
from keyvault_lite.ledger.archive.segment_files import SegmentStore
from keyvault_lite.ledger.log.query import Filter, read_page
from keyvault_lite.ledger.log.retention import segments_of
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.damage import DamagedVault
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.ledger.storage.sqlite.schema_check import check_schema
from keyvault_lite.ledger.verify import startup
from keyvault_lite.ledger.verify.inspection import inspect
from keyvault_lite.ledger.verify.trust import AcceptedHead
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
from tests.support.faults import failing
from tests.support.harness import AES, Harness, create_vault, idempotent, open_copy, settings_for
from tests.support.paths import ROOT, SOURCE
from tests.unit.ledger.archive.archiving_child import COMMITTED, PLACES
from tests.unit.ledger.verify.test_tampering import tamper


def use(harness: Harness, times: int) -> None:
    harness.together(*(harness.perform(Encrypt(KeyRef("orders"), plaintext=b"x")) for _ in range(times)))


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A vault with some 1 100 entries."""
    folder = tmp_path_factory.mktemp("lived")
    master, token = create_vault(folder)
    harness = Harness(settings_for(folder, master), token)
    harness.key("orders")
    harness.service("auditor", role=Role.AUDITOR)
    harness.rotated(harness.key("rotated"), 3)
    use(harness, 1100)
    harness.close()
    return folder, master, token


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def harness(lived: tuple[Path, str, str], tmp_path: Path) -> Iterator[Harness]:
    folder, master, token = lived
    opened = open_copy(folder, tmp_path / "vault", master, token)
    yield opened
    opened.close()


def problems(found: Verification) -> list[str]:
    return [f"{one.table} {one.row}: {one.problem}" for one in found.findings]


def all_verifications(harness: Harness, to: Path) -> list[Verification]:
    return [
        verify(harness.settings),
        verify(harness.settings, archive=to),
        verify(harness.settings, public=True),
        verify(harness.settings, public=True, archive=to),
    ]


def check_whole(harness: Harness, to: Path) -> None:
    """Everything verifies, from the boundary and as one log; a restart takes it too."""
    size = harness.size
    for found in all_verifications(harness, to):
        assert problems(found) == []
    part, whole, _, public = all_verifications(harness, to)
    assert (whole.entries, whole.archived) == (size, 0) == (public.entries, public.archived)
    assert part.entries + part.archived == size
    assert harness.ask(VerifyAudit()).valid
    harness.reopen()


# What it is for


def test_the_log_stays_one(harness: Harness, to: Path) -> None:
    kept = harness.ask(ReadCheckpoint())
    before = harness.log()
    use(harness, 1)
    done = archive(harness.settings, to, keep=300)
    assert [(one.first, one.last) for one in done.segments] == [(1, 768)]
    assert done.archived == 768
    file = to / done.segments[0].file
    assert (file.stat().st_mode & 0o777, to.stat().st_mode & 0o777) == (0o600, 0o700)
    assert file.stat().st_size < 768 * 150
    entry = harness.log(after=768)[-1].draft
    assert (entry.action, entry.result.value) == (Action.AUDIT_ARCHIVE, "success")
    assert entry.comment is not None
    digest = sha256(file.read_bytes()).hexdigest()
    assert entry.comment.startswith(f"entries 1 to 768 archived as sha256 {digest}; slot ")
    assert harness.log(after=768)[: len(before) - 768] == before[768:]
    # A checkpoint from before holds, and is consistent with what is there now.
    for public in (False, True):
        for files in (None, to):
            assert problems(verify(harness.settings, against=kept, public=public, archive=files)) == []
    harness.ask(ReadConsistency(5, harness.size))
    check_whole(harness, to)
    use(harness, 5)
    check_whole(harness, to)


def test_archives_in_a_row(harness: Harness, to: Path) -> None:
    archive(harness.settings, to, keep=800)
    use(harness, 300)
    harness.ask(RotateKey(KeyRef("rotated")))
    archive(harness.settings, to, keep=600)
    use(harness, 300)
    done = archive(harness.settings, to, keep=1)
    assert (done.segments[0].first, done.archived) == (769, 1536)
    assert len(list(to.iterdir())) == 3
    assert archive(harness.settings, to, keep=1).segments == ()
    check_whole(harness, to)
    use(harness, 300)
    check_whole(harness, to)


def test_segments_are_cut(harness: Harness, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyvault_lite.operator.archive.SEGMENT", 512)
    steps: list[tuple[int, int]] = []
    done = archive(harness.settings, to, keep=1, progress=lambda one, of: steps.append((one, of)))
    assert [(one.first, one.last) for one in done.segments] == [(1, 512), (513, 1024)]
    assert steps == [(512, 1024), (1024, 1024)]
    check_whole(harness, to)


def test_what_goes_is_older_than_a_moment(harness: Harness, to: Path) -> None:
    moment = harness.log()[600].timestamp
    assert archive(harness.settings, to, before=1).archived == 0
    assert archive(harness.settings, to, before=moment).archived <= 600
    assert archive(harness.settings, to, before=1 << 60, keep=10_000).segments == ()
    check_whole(harness, to)


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


def test_the_newest_entry_never_goes(harness: Harness, to: Path) -> None:
    use(harness, -harness.size % 256)
    assert harness.size % 256 == 0
    size = harness.size
    assert archive(harness.settings, to).archived == size - 256
    check_whole(harness, to)


def test_space_is_given_back(harness: Harness, to: Path) -> None:
    use(harness, 3000)
    harness.ledger.empty_write_ahead_log()
    before = harness.path.stat().st_size
    archive(harness.settings, to, keep=1, vacuum=True)
    assert harness.path.stat().st_size < before / 2
    check_whole(harness, to)


# Reading


def test_pages_end_at_the_boundary(harness: Harness, to: Path) -> None:
    moment = harness.log()[100].timestamp
    archive(harness.settings, to, keep=300)
    first = harness.ask(ListAudit(limit=1000))
    assert (first.items[-1].id, first.next, first.archived) == (769, None, 768)
    assert harness.ask(ListAudit(limit=1, ascending=True)).items[0].id == 769
    assert harness.ask(ListAudit(limit=1, ascending=True, since=moment)).items[0].id == 769
    assert harness.ask(ListAudit(limit=1, until=moment)).items == ()
    assert harness.ask(ListAudit(limit=1, ascending=True, after="5")).items[0].id == 769
    assert harness.ask(ListAudit(limit=1, of=Action.INITIALISE)).items == ()


def test_a_page_that_is_read_while_it_goes(harness: Harness, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = read_page
    done: list[Archiving] = []

    def late(connection: driver.Connection, wanted: Filter, *, archived: int) -> object:
        if not done:
            done.append(archive(harness.settings, to, keep=300))
        return real(connection, wanted, archived=archived)

    monkeypatch.setattr(evidence, "read_page", late)
    # The search for the moment meets what is gone: no gap, the page is read again.
    page = harness.ledger.evidence.entries(Filter(limit=1, ascending=True, since=2))
    assert (page.items[0].id, page.archived) == (769, 768)


def test_receipts(harness: Harness, to: Path) -> None:
    archive(harness.settings, to, keep=300)
    refused = harness.refusal(ReadReceipt(5), NotFound)
    assert refused.code == "not_found"
    assert "archived" in refused.detail
    assert harness.refusal(ReadReceipt(10**9), NotFound).detail == "no such entry"
    for number in (1, 768):
        with pytest.raises(NotFound, match="the entries up to 768 are archived"):
            harness.ledger.evidence.entry(number)
    assert harness.ledger.evidence.entry(0) is None
    key = harness.ledger.evidence.log_key().verifier_key
    text = harness.ask(ReadReceipt(769))
    entry = harness.log(after=768)[0]
    assert verify_receipt(text, entry.hash, vkey=key, verify=verify_ed25519).size >= 769


def test_a_kept_reply_may_name_an_archived_entry(harness: Harness, to: Path) -> None:
    made = harness.ask(CreateKey(AES, "once"), idempotency=idempotent("once"))
    use(harness, 300)
    assert archive(harness.settings, to, keep=1).archived > 1024
    again = harness.ask(CreateKey(AES, "once"), idempotency=idempotent("once"))
    assert again.body == repr(made).encode()
    check_whole(harness, to)
    tamper(harness.path, "DELETE FROM settings WHERE name LIKE 'audit/%'")
    harness.refusal(CreateKey(AES, "once"), IntegrityViolation, idempotency=idempotent("once"))


def test_files_are_read_without_the_vault(harness: Harness, to: Path, tmp_path: Path) -> None:
    before = harness.log()
    key = harness.ledger.evidence.log_key().verifier_key
    archive(harness.settings, to, keep=800)
    use(harness, 300)
    archive(harness.settings, to, keep=300)
    nowhere = settings_for(tmp_path, "")
    read = partial(read_archive, note=pytest.fail)
    assert list(read(nowhere, to, key=key)) == before[: harness.ask(ListAudit(limit=1)).archived]
    for first, last in ((255, 258), (256, 257), (256, 256), (257, 257)):
        assert list(read(harness.settings, to, first=first, last=last)) == before[first - 1 : last]
    with pytest.raises(NotFound):
        next(read(nowhere, to))
    one, two = sorted(to.iterdir())
    older: dict[str, Any] = {"last": 256}
    newer: dict[str, Any] = {"first": 257}
    for file, its, others in ((one, older, newer), (two, newer, older)):
        whole, sound = file.read_bytes(), list(read(harness.settings, to, **others))
        data = lzma.decompress(whole)
        for spoiled in (data.replace(b"encrypt", b"decrypt", 1), data[:-1]):
            file.write_bytes(lzma.compress(spoiled))
            assert list(read(harness.settings, to, **others)) == sound
            with pytest.raises(IntegrityViolation, match=file.name):
                next(read(harness.settings, to, **its))  # before any entry of it
        file.write_bytes(whole)


# Beside others


def test_a_process_that_looked_away(harness: Harness, to: Path) -> None:
    other = Harness(harness.settings, harness.admin)
    try:
        use(harness, 700)
        harness.ask(RevokeKey(KeyRef("rotated")))
        use(harness, 300)
        known = other.ledger._writer.head.size
        assert archive(harness.settings, to, keep=1).archived > known + 900
        # It knows neither the entries nor the revocation, and the entries between are gone.
        assert other.ask(ListAudit(limit=1)).archived
        use(other, 3)
        harness.refusal(RotateKey(KeyRef("rotated")), InvalidState)
        other.refusal(RotateKey(KeyRef("rotated")), InvalidState)
        assert other.ask(VerifyAudit()).valid
    finally:
        other.close()
    check_whole(harness, to)


def test_one_of_two_that_archive(harness: Harness, to: Path, tmp_path: Path) -> None:
    other = Harness(harness.settings, harness.admin)
    try:
        segment = other.ledger.make_segment(_made(tmp_path / "other"), verify_ed25519, last=512)
        archived = archive(harness.settings, to, keep=300).archived
        with pytest.raises(Conflict):
            other.system(ArchiveEntries(segment))
        for last in (512, archived):
            with pytest.raises(Conflict):
                other.ledger.make_segment(tmp_path / "other", verify_ed25519, last=last)
    finally:
        other.close()
    check_whole(harness, to)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_servers_go_on_meanwhile(harness: Harness, to: Path) -> None:
    """One that uses keys all the time, one that wakes up late, and one that archives in a process of its own."""
    other = Harness(harness.settings, harness.admin)
    try:
        with child(harness, to, "nowhere") as running:
            while running.poll() is None:
                use(harness, 10)
            use(other, 2)
            assert running.wait() == 0
        assert other.ask(ListAudit(limit=1)).archived >= 768
    finally:
        other.close()
    check_whole(harness, to)


def child(harness: Harness, to: Path, place: str) -> subprocess.Popen[str]:
    assert harness.settings.master_key is not None
    master = harness.settings.master_key.get_secret_value()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KEYVAULT_")}
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.unit.ledger.archive.archiving_child",
            str(harness.path.parent),
            str(to),
            place,
            master,
        ],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": os.pathsep.join((str(SOURCE), str(ROOT)))},
        text=True,
    )


# What goes wrong


@pytest.mark.parametrize("place", PLACES)
def test_a_process_that_dies_has_lost_nothing(
    harness: Harness, to: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [entry.hash for entry in harness.log()]
    harness.vault.close()
    with child(harness, to, place) as running:
        assert running.wait() == 9
    harness.open()
    gone = harness.ask(ListAudit(limit=1)).archived
    assert gone == (512 if place in COMMITTED else 0)
    assert [entry.hash for entry in harness.log(after=gone)][: len(before) - gone] == before[gone:]
    files = {path.name for path in to.glob("*.kvlseg")}
    assert len(files) == (place != "the file is half written")
    monkeypatch.setattr("keyvault_lite.operator.archive.SEGMENT", 512)
    assert archive(harness.settings, to, keep=300).archived == 768
    # What it had written is taken, not written again.
    made = {path.name for path in to.glob("*.kvlseg")}
    assert files <= made
    assert len(made) == 2
    check_whole(harness, to)


def test_a_failed_deletion_leaves_everything(harness: Harness, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget = SqliteDatabase.forget_entries

    def fail(database: SqliteDatabase, connection: driver.Connection, first: int, last: int) -> None:
        forget(database, connection, first, last)
        raise failing()

    monkeypatch.setattr(SqliteDatabase, "forget_entries", fail)
    with pytest.raises(AuditUnavailable):
        archive(harness.settings, to, keep=300)
    assert harness.log()[0].id == 1
    monkeypatch.undo()
    assert archive(harness.settings, to, keep=300).archived == 768
    assert len(list(to.iterdir())) == 1
    check_whole(harness, to)


def test_a_folder_that_is_full_costs_nothing(harness: Harness, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        archive(harness.settings, to, keep=300)
    monkeypatch.undo()
    assert list(to.iterdir()) == []
    assert harness.log()[0].id == 1


def test_a_folder_that_cannot_be_flushed_archives_nothing(
    harness: Harness, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(segment_files, "_flush_folder", fail)
    with pytest.raises(OSError, match="Input/output"):
        archive(harness.settings, to, keep=300)
    monkeypatch.undo()
    assert harness.log()[0].id == 1
    archive(harness.settings, to, keep=300)
    assert len(list(to.iterdir())) == 1, "what it has left is taken"
    check_whole(harness, to)


def test_a_file_that_cannot_be_read_back_archives_nothing(
    harness: Harness, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(rows: list[Row]) -> bytes:
        return write_entries(rows)[:-1] + b"\x00"

    monkeypatch.setattr(segment_files, "write_entries", forgetful)
    with pytest.raises(IntegrityViolation):
        archive(harness.settings, to, keep=300)
    assert list(to.iterdir()) == []
    assert harness.log()[0].id == 1


def test_a_database_that_lies_is_not_archived(harness: Harness, to: Path) -> None:
    """An entry changed under a server that opened before: the chain in the file would be another one."""
    tamper(harness.path, "UPDATE audit_logs SET source = 'elsewhere' WHERE id = 5")
    with pytest.raises(IntegrityViolation):
        harness.ledger.make_segment(_made(to), verify_ed25519, last=512)
    assert list(to.iterdir()) == []


def test_a_leftover_that_is_damaged_is_not_taken(harness: Harness, to: Path) -> None:
    segment = harness.ledger.make_segment(_made(to), verify_ed25519, last=512)
    file = to / segment.file
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    done = archive(harness.settings, to, keep=600)
    assert done.segments[0].file != segment.file
    assert any("on no record" in note for note in verify(harness.settings, archive=to).notes)
    check_whole(harness, to)


def test_an_acknowledged_rollback_makes_another_archive(harness: Harness, to: Path, tmp_path: Path) -> None:
    """The same range is archived in two histories: neither file takes the other's place."""
    harness.vault.close()
    shutil.copytree(harness.path.parent, tmp_path / "older")
    harness.open()
    use(harness, 5)
    first = archive(harness.settings, to, keep=300).segments[0]
    harness.vault.close()
    for file in harness.path.parent.glob("vault.db*"):
        if not file.name.endswith(".anchor"):
            file.unlink()
    for file in (tmp_path / "older").glob("vault.db*"):
        if not file.name.endswith(".anchor"):
            shutil.copy(file, harness.path.parent / file.name)
    refusal = problems(verify(harness.settings))[0]
    size, root = re.findall(r"--size (\d+) --root (\S+?)`", refusal)[0]
    trust_anchor(harness.settings, AcceptedHead(int(size), decode_base64(root)))
    harness.open()
    second = archive(harness.settings, to, keep=300).segments[0]
    assert (first.first, first.last, first.head) == (second.first, second.last, second.head)
    check_whole(harness, to)


def test_an_anchor_from_before_still_fits(harness: Harness, to: Path) -> None:
    anchor = harness.path.with_name("vault.db.anchor")
    harness.vault.close()
    older = anchor.read_bytes()
    harness.open()
    use(harness, 300)
    archive(harness.settings, to, keep=1)
    harness.vault.close()
    anchor.write_bytes(older)
    assert problems(verify(harness.settings)) == []
    harness.open()
    use(harness, 1)
    check_whole(harness, to)


# Who changes something


def test_nothing_else_may_be_deleted(harness: Harness, to: Path) -> None:
    archive(harness.settings, to, keep=300)
    with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
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
def test_a_changed_database_is_found(harness: Harness, to: Path, what: str) -> None:
    archive(harness.settings, to, keep=300)
    harness.vault.close()
    tamper(harness.path, *EDITS[what])
    for found in all_verifications(harness, to):
        assert problems(found) != []
    with pytest.raises((DamagedVault, IntegrityViolation)):
        harness.open()


def test_a_tile_over_archived_entries_that_is_gone_is_the_one_finding(harness: Harness, to: Path) -> None:
    """What follows is in doubt with it: nothing is said of the head, nor by who remembers another tree."""
    archive(harness.settings, to, keep=300)
    tamper(harness.path, *EDITS["a tile of archived entries is gone"])
    for public in (False, True):
        (found,) = verify(harness.settings, public=public).findings
        assert (found.table, found.row) == ("tiles", "0/1")


def test_without_the_keyring_an_entry_tells_which_file_has_what_was_archived(harness: Harness, to: Path) -> None:
    archive(harness.settings, to, keep=300)
    tamper(harness.path, *EDITS["the record names another file"])
    (found,) = verify(harness.settings, public=True).findings
    assert (found.table, found.row) == ("settings", PREFIX)
    assert found.problem.endswith("the newest entry about it names another file")


def test_a_check_from_an_entry_that_was_archived_begins_at_the_boundary(harness: Harness, to: Path) -> None:
    archive(harness.settings, to, keep=300)
    harness.ledger.refresh()
    size = harness.size
    for number in (1, 767, 768, 769, size):
        with harness.ledger._readers.one() as connection:
            seen = inspect(connection, harness.vault.keyring, harness.vault.database, log_from=number)
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
    harness: Harness, to: Path, on_record: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if its hash were that of the record, as without the keyring it may be."""
    done = archive(harness.settings, to, keep=300)
    file = to / done.segments[0].file
    whole = file.read_bytes()
    if on_record:
        monkeypatch.setattr(segment_files, "_digest", lambda _: done.segments[0].file_hash)
    for what, change in FILES.items():
        file.write_bytes(change(whole))
        if on_record and what == "another compression":
            continue  # the same segment, by another road
        for public in (False, True):
            found = verify(harness.settings, public=public, archive=to)
            assert [(one.table, one.row) for one in found.findings] == [("archive", file.name)], what
            assert found.archived == 768
    assert problems(verify(harness.settings)) == []
    file.write_bytes(whole)
    check_whole(harness, to)


def test_files_that_are_missing_or_swapped(harness: Harness, to: Path) -> None:
    archive(harness.settings, to, keep=800)
    use(harness, 300)
    archive(harness.settings, to, keep=1)
    first, second = sorted(to.iterdir())
    swapped = first.read_bytes()
    first.write_bytes(second.read_bytes())
    found = verify(harness.settings, archive=to)
    assert [one.row for one in found.findings] == [first.name]
    first.unlink()
    found = verify(harness.settings, archive=to)
    assert [one.row for one in found.findings] == [first.name]
    assert "is missing" in found.findings[0].problem
    assert any(sha256(swapped).hexdigest() in note for note in found.notes)
    first.write_bytes(swapped)
    check_whole(harness, to)


def test_a_signature_in_a_file_counts(harness: Harness, to: Path) -> None:
    """A file of another log that uses our name: everything in it is consistent, but it was not signed by our key."""
    archive(harness.settings, to, keep=300)
    harness.ledger.refresh()
    keyring = harness.vault.keyring
    start = ChainState.start(genesis(keyring.instance_id, keyring.log_public_key))
    assert SegmentStore(to, keyring, verify_ed25519).find(1, 768, start) is not None
    assert SegmentStore(to, keyring, lambda *_: False).find(1, 768, start) is None
    # So does what comes before it, and that its name is the one its bytes give it.
    assert SegmentStore(to, keyring, verify_ed25519).find(1, 768, replace(start, timestamp=1)) is None
    (segment,) = segments_of(harness.ledger.snapshot().settings_under(PREFIX), [])
    assert list(SegmentStore(to, keyring, verify_ed25519).entries(segment, start))
    for other in (replace(segment, timestamp=1), replace(segment, head=bytes(32)), replace(segment, state_seq=0)):
        with pytest.raises(IntegrityViolation, match="does not end where the record says"):
            list(SegmentStore(to, keyring, verify_ed25519).entries(other, start))
    (file,) = to.iterdir()
    renamed = file.rename(file.with_name(file.name.replace(file.stem[-16:], "0" * 16)))
    assert renamed.name != file.name
    assert SegmentStore(to, keyring, verify_ed25519).find(1, 768, start) is None


def test_what_only_the_archive_can_tell(harness: Harness, to: Path, tmp_path: Path) -> None:
    """A row is put back whose newest entry was archived: that it is old is seen without the archive, which with it."""
    with closing(driver.connect(str(harness.path))) as connection:
        old = connection.execute("SELECT * FROM keys WHERE name = 'rotated'").fetchone()
    harness.ask(UpdateKey(KeyRef("rotated"), description="newer"))
    use(harness, 300)
    archive(harness.settings, to, keep=1)
    harness.vault.close()
    with closing(driver.connect(str(harness.path), isolation_level=None)) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(keys)")]
        connection.execute(f"UPDATE keys SET {', '.join(f'{name} = ?' for name in names)} WHERE id = ?", (*old, old[0]))
    found = verify(harness.settings, archive=to).findings
    assert [(one.table, one.row) for one in found] == [("keys", old[0]), ("ledger_head", "1")]
    without = verify(harness.settings)
    assert [one.table for one in without.findings] == ["ledger_head"]
    assert "or before" in without.findings[0].problem
    for known in (None, to):
        with pytest.raises(DamagedVault):
            repair_vault(harness.settings, archive=known)


def test_who_checks_without_the_keyring_sees_the_boundary_in_the_log(harness: Harness, to: Path) -> None:
    """The slots are named again by the entry of the archiving: that they are the ones on record stays public."""
    archive(harness.settings, to, keep=300)
    tamper(harness.path, "UPDATE keyring_slots SET generation = generation + 1")
    assert any("keyring_slots" in one for one in problems(verify(harness.settings, public=True)))


def test_the_background_check_goes_on(harness: Harness, to: Path) -> None:
    archive(harness.settings, to, keep=300)
    harness.ledger.refresh()
    harness.ledger.scrub()
    harness.ledger.scrub_log()
    assert harness.ledger._writer.publisher.scrubbed == harness.size
    use(harness, 1)
    assert harness.ledger.mark().scrubbed == harness.size - 1
    assert harness.ledger.fault is None


def test_a_long_log_is_checked_from_the_boundary(harness: Harness, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(harness.settings, to, keep=300)
    monkeypatch.setattr(startup, "CHECKED_AT_START", 400)
    harness.reopen()
    harness.ledger.scrub_log()
    use(harness, 1)
    harness.reopen()
    assert harness.ask(VerifyAudit()).valid


def test_a_segment_ends_with_an_entry_that_is_there(harness: Harness, to: Path) -> None:
    with pytest.raises(IntegrityViolation, match="the log has a gap"):
        harness.ledger.make_segment(_made(to), verify_ed25519, last=harness.size + 1)
    assert not list(to.iterdir())
