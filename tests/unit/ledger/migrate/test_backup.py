"""`kvl backup`: a file appears whole, checked and private, or not at all; what is put back is refused or accepted."""

import base64
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from keyvault_lite import app
from keyvault_lite.ledger.migrate import backup
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.sqlite.files import beside
from keyvault_lite.ledger.verify.offline_check import check
from keyvault_lite.ledger.verify.trust import AcceptedHead
from keyvault_lite.model.errors import AuditUnavailable, Conflict, IntegrityViolation, KeyVaultError, NotFound
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Decrypt, Encrypt, ReadKey
from keyvault_lite.operator.anchor import show_anchor, trust_anchor
from keyvault_lite.operator.backup import back_up_vault, verify_backup
from keyvault_lite.operator.initialise import initialise_vault
from keyvault_lite.operator.verify import verify_vault
from tests.support.harness import Harness, create_vault, settings_for


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def shut(harness: Harness) -> Harness:
    """A vault with a key, at rest."""
    harness.key("orders")
    harness.vault.close()
    return harness


def kvl(harness: Harness, *arguments: str, **how: object) -> "subprocess.CompletedProcess[str]":
    """Run the command in a process of its own, as beside a server it always is."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYVAULT_")} | {
        "KEYVAULT_DATABASE_URL": harness.settings.database_url,
        "KEYVAULT_MASTER_KEY": harness.settings.master_key.get_secret_value() if harness.settings.master_key else "",
    }
    command = [sys.executable, "-P", "-m", "keyvault_lite", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False, **how)  # type: ignore[call-overload,no-any-return]


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_copy_beside_an_open_vault_verifies(harness: Harness, out: Path) -> None:
    harness.key("orders")
    assert beside(harness.path, "-wal").stat().st_size, "the newest commits are not in the file"
    file = out / "copy.db"
    made = kvl(harness, "backup", str(file))
    assert made.returncode == 0, made.stderr
    assert f"clean: {harness.size} entries" in made.stdout
    assert names(out) == ["copy.db"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.stat().st_nlink == 1
    assert file.read_bytes()[18:20] == b"\x02\x02", "in WAL mode"
    checked = kvl(harness, "backup", "verify", str(file))
    assert checked.returncode == 0, checked.stderr
    assert names(out) == ["copy.db"], "a check leaves nothing beside it"


def test_commits_go_on_while_it_is_made(harness: Harness, out: Path) -> None:
    key = harness.key("orders")
    for number in range(3):
        command = [sys.executable, "-P", "-m", "keyvault_lite", "backup", str(out / f"{number}.db")]
        environment = os.environ | {
            "KEYVAULT_DATABASE_URL": harness.settings.database_url,
            "KEYVAULT_MASTER_KEY": harness.settings.master_key.get_secret_value()
            if harness.settings.master_key
            else "",
        }
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
            before = harness.size
            while running.poll() is None:
                harness.ask(Encrypt(KeyRef(key.id), plaintext=b"x"))
            assert running.stderr is not None
            assert running.returncode == 0, running.stderr.read()
        assert harness.size > before
    harness.vault.close()
    for file in out.iterdir():
        assert verify_backup(harness.settings, file).valid


def test_the_drill_ends_in_a_verified_vault(harness: Harness, out: Path) -> None:
    key = harness.key("orders")
    sealed = harness.ask(Encrypt(KeyRef("orders"), plaintext=b"x"))
    harness.vault.close()
    assert back_up_vault(harness.settings, out / "copy.db").valid
    harness.open()
    harness.key("invoices")
    harness.vault.close()
    notes = verify_backup(harness.settings, out / "copy.db").notes
    assert any("older than the anchor: a restore would lose" in one for one in notes)

    for file in (harness.path, beside(harness.path, "-wal"), beside(harness.path, "-shm")):
        file.unlink(missing_ok=True)
    shutil.copy(out / "copy.db", harness.path)
    with pytest.raises(IntegrityViolation, match="put back or replaced"):
        harness.open()
    anchor = show_anchor(harness.settings).mark
    assert anchor is not None
    with pytest.raises(app.CANNOT_START):
        trust_anchor(harness.settings)
    refusal = verify_vault(harness.settings).findings[0].problem
    words = refusal.partition("--size ")[2].rstrip("`").split(" --root ")
    trust_anchor(harness.settings, AcceptedHead(int(words[0]), base64.b64decode(words[1])))
    assert verify_vault(harness.settings).valid
    harness.open()
    assert harness.ask(Decrypt(KeyRef(key.id), None, sealed.ciphertext, sealed.encrypted_dek)).plaintext == b"x"
    with pytest.raises(KeyVaultError):
        harness.ask(ReadKey(KeyRef("invoices")))


def test_the_newest_backup_is_put_back_without_a_word(shut: Harness, out: Path) -> None:
    assert back_up_vault(shut.settings, out / "copy.db").valid
    shut.path.unlink()
    shutil.copy(out / "copy.db", shut.path)
    shut.open()
    assert shut.ask(ReadKey(KeyRef("orders"))).name == "orders"


@pytest.mark.parametrize("kind", ["file", "link", "broken link", "folder", "-wal", "-shm", "-journal"])
def test_what_is_there_is_left_as_it_is(shut: Harness, out: Path, kind: str) -> None:
    target, victim = out / "copy.db", out / "victim"
    if kind == "folder":
        target.mkdir()
    elif kind.startswith("-"):
        target.with_name(f"copy.db{kind}").write_bytes(b"x")
    elif kind == "file":
        target.write_bytes(b"precious")
    else:
        target.symlink_to(victim)
        if kind == "link":
            victim.write_bytes(b"precious")
    before = names(out)
    with pytest.raises(Conflict, match="exists already"):
        back_up_vault(shut.settings, target)
    assert names(out) == before
    assert not victim.exists() or victim.read_bytes() == b"precious"


@pytest.mark.parametrize("link", [False, True])
def test_what_appears_meanwhile_is_left_as_it_is(
    shut: Harness, out: Path, monkeypatch: pytest.MonkeyPatch, link: bool
) -> None:
    target, victim = out / "copy.db", out / "victim"
    whole = check

    def plant(*arguments: object) -> object:
        if link:
            target.symlink_to(victim)
        else:
            target.write_bytes(b"precious")
        return whole(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("keyvault_lite.operator.backup.check", plant)
    with pytest.raises(Conflict, match="exists already"):
        back_up_vault(shut.settings, target)
    assert names(out) == ["copy.db"]
    assert target.is_symlink() if link else target.read_bytes() == b"precious"


def test_a_vault_that_was_tampered_with_gives_no_backup(shut: Harness, out: Path) -> None:
    with closing(driver.connect(str(shut.path))) as connection, connection:
        connection.execute("UPDATE keys SET description = 'other'")
    found = back_up_vault(shut.settings, out / "copy.db")
    assert not found.valid
    assert [one.table for one in found.findings][:1] == ["keys"]
    assert names(out) == []
    said = kvl(shut, "backup", str(out / "copy.db"))
    assert (said.returncode, names(out)) == (1, [])
    assert "was not made" in said.stderr


def test_a_vault_that_was_put_back_does_not_take_the_place_of_a_good_backup(shut: Harness, out: Path) -> None:
    old = shut.path.read_bytes()
    shut.open()
    shut.key("invoices")
    shut.vault.close()
    shut.path.write_bytes(old)
    found = back_up_vault(shut.settings, out / "copy.db")
    assert "put back or replaced" in found.findings[0].problem
    assert names(out) == []


def test_a_damaged_vault_gives_no_backup(shut: Harness, out: Path) -> None:
    raw = shut.path.read_bytes()
    shut.path.write_bytes(raw[: len(raw) // 2])
    assert not back_up_vault(shut.settings, out / "copy.db").valid
    assert names(out) == []


def test_a_rollback_journal_is_not_played_back(shut: Harness, out: Path) -> None:
    beside(shut.path, "-journal").write_bytes(b"x")
    with pytest.raises(IntegrityViolation, match="rollback journal"):
        back_up_vault(shut.settings, out / "copy.db")
    assert names(out) == []


def test_a_full_disk_leaves_nothing(shut: Harness, out: Path) -> None:
    def bound() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))

    said = kvl(shut, "backup", str(out / "copy.db"), preexec_fn=bound)
    assert said.returncode == 2, said.stdout + said.stderr
    assert "cannot be written" in said.stderr
    assert names(out) == []


@pytest.mark.parametrize("step", ["fsync", "link"])
def test_a_failing_step_leaves_nothing(shut: Harness, out: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(AuditUnavailable, match="No space left"):
        back_up_vault(shut.settings, out / "copy.db")
    monkeypatch.undo()
    assert names(out) == []


def test_a_folder_that_cannot_be_flushed_keeps_no_copy(
    shut: Harness, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = backup._flush

    def flush(path: Path) -> None:
        if path == out:
            raise OSError(5, "Input/output error")
        whole(path)

    monkeypatch.setattr(backup, "_flush", flush)
    with pytest.raises(AuditUnavailable, match="Input/output"):
        back_up_vault(shut.settings, out / "copy.db")
    assert names(out) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_one_that_is_ended_gives_no_file_its_name(shut: Harness, out: Path, number: int) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from keyvault_lite.ledger.migrate import backup\n"
        "from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase\n"
        "with backup.copied(SqliteDatabase(Path(sys.argv[1])), Path(sys.argv[2])):\n"
        "    print('copied', flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(shut.path), str(out / "copy.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"copied\n"
        assert [stat.S_IMODE(one.stat().st_mode) for one in out.iterdir()] == [0o700]
        running.send_signal(number)
        running.wait(30)
    left = names(out)
    assert "copy.db" not in left
    assert (left == []) is (number == signal.SIGINT)
    assert back_up_vault(shut.settings, out / "copy.db").valid, "what was left is not in the way"


def replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


Change = Callable[[Path], object]
CHANGES: dict[str, Change] = {
    "half": lambda file: os.truncate(file, file.stat().st_size // 2),
    "one page less": lambda file: os.truncate(file, file.stat().st_size - 4096),
    "one page": lambda file: os.truncate(file, 4096),
    "no pages": lambda file: file.write_bytes(b"\0" * file.stat().st_size),
    "another file": lambda file: file.write_bytes(b"a backup of yesterday"),
    "empty": lambda file: os.truncate(file, 0),
    "nothing": lambda file: file.unlink(),
    "a folder": replace_by_folder,
    "a journal": lambda file: beside(file, "-journal").write_bytes(b"x"),
    "a log": lambda file: beside(file, "-wal").write_bytes(b"x"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_backup_that_is_none_is_told_in_a_sentence(shut: Harness, out: Path, change: str) -> None:
    file = out / "copy.db"
    assert back_up_vault(shut.settings, file).valid
    CHANGES[change](file)
    said = kvl(shut, "backup", "verify", str(file))
    assert said.returncode in {1, 2}
    assert "Traceback" not in said.stderr
    assert said.stdout + said.stderr


def test_an_edited_backup_is_named(shut: Harness, out: Path) -> None:
    file = out / "copy.db"
    assert back_up_vault(shut.settings, file).valid
    with closing(driver.connect(str(file))) as connection, connection:
        connection.execute("UPDATE keys SET description = 'other'")
    for suffix in ("-wal", "-shm"):
        beside(file, suffix).unlink(missing_ok=True)
    assert not verify_backup(shut.settings, file).valid


@pytest.mark.parametrize("same_master", [False, True])
def test_the_backup_of_another_vault_is_named(shut: Harness, out: Path, tmp_path: Path, same_master: bool) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    if same_master:
        assert shut.settings.master_key is not None
        other = settings_for(folder, shut.settings.master_key.get_secret_value())
        initialise_vault(other)
    else:
        other = settings_for(folder, create_vault(folder)[0])
    assert back_up_vault(other, out / "copy.db").valid
    if same_master:
        found = verify_backup(shut.settings, out / "copy.db")
        assert "another vault" in found.findings[0].problem
    else:
        with pytest.raises(IntegrityViolation, match="opens no slot"):
            verify_backup(shut.settings, out / "copy.db")
    assert not verify_backup(shut.settings, out / "copy.db", public=True).valid


def test_without_the_master_key(shut: Harness, out: Path) -> None:
    without = shut.settings.model_copy(update={"master_key": None})
    assert back_up_vault(without, out / "copy.db", public=True).valid
    assert verify_backup(without, out / "copy.db", public=True).valid


def test_there_has_to_be_a_vault(shut: Harness, out: Path) -> None:
    nowhere = shut.settings.model_copy(update={"database_url": f"sqlite:///{out}/none.db"})
    with pytest.raises(NotFound):
        back_up_vault(nowhere, out / "copy.db")
    assert names(out) == []


def test_a_server_of_databases_has_its_own_tools(shut: Harness, out: Path) -> None:
    there = shut.settings.model_copy(update={"database_url": "postgresql://keyvault@/keyvault"})
    with pytest.raises(Conflict, match="pg_dump"):
        back_up_vault(there, out / "copy.db")
