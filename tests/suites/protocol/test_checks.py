"""The security checks of the ledger, each with what it refuses, and what is accepted once it is taken out.

A check that stands behind others is met by taking those out first (`before`): what is deep has to hold by itself too.
"""

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from keyvault_lite.audit.entry import row_hash
from keyvault_lite.ledger import evidence, ledger
from keyvault_lite.ledger.commit import replica, write_set
from keyvault_lite.ledger.log import kept_replies
from keyvault_lite.ledger.log.query import Filter
from keyvault_lite.ledger.state import verified_rows
from keyvault_lite.ledger.storage import statements
from keyvault_lite.ledger.storage.sqlite import database
from keyvault_lite.ledger.verify import inspection, startup
from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt, ReadKey, RevokeKey, RotateKey
from tests.suites.protocol import attacker
from tests.suites.protocol.removal import REMOVALS, Removal
from tests.support.harness import Harness, idempotent, settings_for
from tests.unit.ledger.verify.test_tampering import tamper

DONE: Final = KeyRef("done")
USED: Final = KeyRef("used")
ROWS_ARE_COMPARED: Final = Removal(replica.Replica, "catch_up", "self.suspect and not self.read_only", "False")
Act = Callable[[Harness], None]
Ask = Callable[[Harness], bool]


@dataclass(frozen=True)
class Check:
    """`attack` is made, and `accepted` tells whether it goes through, without an error, once `removal` is applied."""

    removal: Removal
    attack: Act
    accepted: Ask
    before: tuple[Removal, ...] = ()


CHECKS: Final[dict[str, Check]] = {}


# What is asked


def revoked_key_is_used(harness: Harness) -> bool:
    harness.ask(Encrypt(DONE, plaintext=b"x"))
    return True


def it_starts(harness: Harness) -> bool:
    harness.open()
    return True


def it_starts_and_uses_the_revoked_key(harness: Harness) -> bool:
    harness.open()
    return revoked_key_is_used(harness)


def it_is_answered(harness: Harness) -> bool:
    harness.ask(Encrypt(USED, plaintext=b"x"))
    return True


def it_is_answered_without_alarm(harness: Harness) -> bool:
    harness.ask(Encrypt(USED, plaintext=b"x"))
    harness.ask(Encrypt(USED, plaintext=b"x"))
    with harness.ledger._readers.one() as connection:
        sql = "SELECT count(*) FROM audit_logs WHERE action = ?"
        return bool(connection.execute(sql, (Action.INTEGRITY.value,)).fetchone() == (0,))


def it_is_answered_after_a_look_at_the_rows(harness: Harness) -> bool:
    harness.ledger.scrub()
    return it_is_answered_without_alarm(harness)


def it_is_answered_after_a_look_at_the_log(harness: Harness) -> bool:
    harness.ledger.scrub_log()
    return it_is_answered(harness)


# What is done before


def planted(statement: str) -> Act:
    def attack(harness: Harness) -> None:
        with closing(attacker.connect(harness.path)) as there:
            there.execute(statement)

    return attack


def edited(*edits: str) -> Act:
    return lambda harness: tamper(harness.path, *edits)


def at_rest(attack: Act) -> Act:
    def closed(harness: Harness) -> None:
        harness.vault.close()
        attack(harness)

    return closed


def older(harness: Harness) -> Path:
    """The copy from before the key was revoked; see `lived_in`."""
    return harness.path.with_name("older.db")


def rows_put_back(harness: Harness) -> None:
    attacker.put_back_rows(older(harness), harness.path)


def database_put_back(harness: Harness) -> None:
    attacker.copy_database(older(harness), harness.path)


def anchor_lost(harness: Harness) -> None:
    database_put_back(harness)
    harness.path.with_name("vault.db.anchor").unlink()


def file_replaced(harness: Harness) -> None:
    copy = harness.path.with_name("copy.db")
    attacker.copy_database(harness.path, copy)
    copy.rename(harness.path)


def entry_rewritten(harness: Harness) -> None:
    """An old entry tells otherwise, with the hash that its columns give now."""
    with closing(attacker.connect(harness.path)) as there:
        row = list(there.execute(f"{statements.ENTRIES} WHERE id = 2").fetchone())
    row[9] = "denied"
    tamper(
        harness.path, f"UPDATE audit_logs SET result = 'denied', hash = x'{row_hash(tuple(row)).hex()}' WHERE id = 2"
    )


def unnoticed(attack: Act) -> Act:
    """Done to the file's bytes: the counter of what others have written does not move."""

    def done(harness: Harness) -> None:
        attack(harness)
        writer = harness.ledger._writer
        writer.replica._others = harness.vault.database.count_of_others(writer.connection)

    return done


# At a start

CHECKS["row MAC"] = Check(
    Removal(
        verified_rows,
        "mac_is",
        "compare_digest(authority.row_mac(table, key, row[-2], values, schema=schema), row[-1])",
        "True",
    ),
    at_rest(
        edited(
            "UPDATE keys SET status = 'ACTIVE' WHERE name = 'done'",
            "UPDATE key_versions SET status = 'ACTIVE' WHERE status = 'REVOKED'",
        )
    ),
    it_starts_and_uses_the_revoked_key,
)
CHECKS["state root at start"] = Check(
    Removal(inspection, "inspect", "head is not None and state_root != head.state_root", "False"),
    at_rest(rows_put_back),
    it_starts_and_uses_the_revoked_key,
)
CHECKS["schema at start"] = Check(
    Removal(inspection, "inspect", "database.check_schema(connection)", "[]"),
    at_rest(planted("CREATE TRIGGER planted AFTER INSERT ON keys BEGIN UPDATE keys SET status = 'ACTIVE'; END")),
    it_starts,
)
CHECKS["index at start"] = Check(
    Removal(inspection, "inspect", "database.check_schema(connection)", "[]"),
    at_rest(planted("DROP INDEX ix_key_versions_one_active")),
    it_starts,
)
CHECKS["anchor at start"] = Check(
    Removal(inspection, "inspect", "if anchor is not None:", "if False:"),
    at_rest(database_put_back),
    it_starts_and_uses_the_revoked_key,
    before=REMOVALS["R7"][2:],
)
CHECKS["anchor never backwards"] = Check(
    REMOVALS["R7"][2],
    at_rest(database_put_back),
    it_starts_and_uses_the_revoked_key,
    before=(Removal(inspection, "inspect", "if anchor is not None:", "if False:"),),
)
CHECKS["anchor is there"] = Check(
    Removal(startup, "check_anchor", "if size else []", "if False else []"),
    at_rest(anchor_lost),
    it_starts_and_uses_the_revoked_key,
)
CHECKS["log at start"] = Check(
    Removal(inspection, "inspect", "if log_from is not None:", "if False:"),
    at_rest(edited("UPDATE audit_logs SET result = 'denied' WHERE id = 2")),
    it_starts,
)

# While it serves

CHECKS["head names the newest entry"] = Check(
    Removal(
        replica.Replica, "_check_last", "(last_id or 0) != head.size or (head.size and last_hash != head.hash)", "False"
    ),
    edited("DELETE FROM audit_logs WHERE id = (SELECT max(id) FROM audit_logs)"),
    it_is_answered,
)
CHECKS["counter of what others write"] = Check(
    Removal(replica.Replica, "catch_up", "self.suspect or wrote", "self.suspect"),
    rows_put_back,
    it_is_answered_without_alarm,
)
CHECKS["rows compared with memory"] = Check(
    ROWS_ARE_COMPARED,
    rows_put_back,
    it_is_answered_without_alarm,
)
CHECKS["rows read each minute"] = Check(
    Removal(ledger.Ledger, "scrub", "bool(findings) or self.degraded", "False"),
    unnoticed(rows_put_back),
    it_is_answered_after_a_look_at_the_rows,
)
CHECKS["rows read each minute, row by row"] = Check(
    Removal(inspection, "_read_state", 'b"" if rows.differing else head.state_root', "head.state_root"),
    unnoticed(rows_put_back),
    it_is_answered_after_a_look_at_the_rows,
)
CHECKS["schema while it serves"] = Check(
    Removal(replica.Replica, "catch_up", "self._database.check_schema(connection)", "[]"),
    planted("CREATE TRIGGER planted AFTER INSERT ON keys BEGIN UPDATE keys SET status = 'ACTIVE'; END"),
    it_is_answered,
)
CHECKS["entries read back"] = Check(
    Removal(write_set.WriteSet, "store", "appended.rowcount != len(self._entries)", "False"),
    planted("CREATE TRIGGER planted BEFORE INSERT ON audit_logs BEGIN SELECT RAISE(IGNORE); END"),
    it_is_answered,
    before=(ROWS_ARE_COMPARED,),
)
CHECKS["head read back"] = Check(
    Removal(write_set.WriteSet, "store", "written.rowcount != 1", "False"),
    planted("CREATE TRIGGER planted BEFORE UPDATE ON ledger_head BEGIN SELECT RAISE(IGNORE); END"),
    it_is_answered,
    before=(ROWS_ARE_COMPARED,),
)
CHECKS["same file"] = Check(
    Removal(database.SqliteDatabase, "check_same_file", "self._stat() != self._identity", "False"),
    file_replaced,
    it_is_answered,
)
CHECKS["page of the log is proven"] = Check(
    Removal(
        evidence.Evidence,
        "_prove",
        "verify_inclusion(entry.hash, proof, index=index, size=edge.size, root=root)",
        "pass",
    ),
    entry_rewritten,
    lambda harness: any(
        one.draft.result.value == "denied" for one in harness.ledger.evidence.entries(Filter(limit=100)).items
    ),
)
CHECKS["log read each day"] = Check(
    Removal(ledger.Ledger, "scrub_log", "if damage:", "if False:"),
    entry_rewritten,
    it_is_answered_after_a_look_at_the_log,
)


# Kept replies


def kept_by_a_branch_that_was_lost(harness: Harness) -> None:
    """A reply of a copy that went on by itself: it is genuine, and this log has not the entry that it names."""
    branch = harness.path.with_name("branch")
    branch.mkdir()
    attacker.copy_database(harness.path, branch / "vault.db")
    shutil.copy(harness.path.with_name("vault.db.anchor"), branch)
    master = harness.settings.master_key
    assert master is not None
    apart = Harness(settings_for(branch, master.get_secret_value()), harness.admin)
    for _ in range(3):
        apart.ask(Encrypt(USED, plaintext=b"x"))
    apart.ask(RotateKey(USED), idempotency=idempotent("once"))
    apart.close()
    with closing(attacker.connect(harness.path)) as there:
        there.execute("ATTACH ? AS branch", (str(branch / "vault.db"),))
        there.execute("INSERT INTO idempotency_replies SELECT * FROM branch.idempotency_replies")


def kept_and_said_to_be_of_another_entry(harness: Harness) -> None:
    kept_by_a_branch_that_was_lost(harness)
    with closing(attacker.connect(harness.path)) as there:
        there.execute("UPDATE idempotency_replies SET row_seq = 1")


def kept_by_a_branch_whose_number_another_entry_has(harness: Harness) -> None:
    """Also of a transaction whose COMMIT was refused: what it would have written was shown."""
    kept_by_a_branch_that_was_lost(harness)
    for _ in range(6):
        harness.ask(Encrypt(USED, plaintext=b"x"))


def kept_reply_is_given(harness: Harness) -> bool:
    before = len(harness.ask(ReadKey(USED)).versions)
    harness.ask(RotateKey(USED), idempotency=idempotent("once"))
    return len(harness.ask(ReadKey(USED)).versions) == before


REPLIES_ARE_JUDGED = Removal(
    kept_replies, "_problem", "mac_is(authority, _FORM.name, _FORM.key_of(bound), bound, row, schema=BOUND)", "True"
)
CHECKS["MAC of a kept reply"] = Check(
    REPLIES_ARE_JUDGED,
    kept_and_said_to_be_of_another_entry,
    kept_reply_is_given,
)
CHECKS["entry of a kept reply"] = Check(
    REPLIES_ARE_JUDGED,
    kept_by_a_branch_whose_number_another_entry_has,
    kept_reply_is_given,
)


@pytest.fixture
def lived_in(harness: Harness) -> Harness:
    """A vault with a key that was revoked, and the copy of it from before."""
    harness.key("used")
    harness.key("done")
    attacker.copy_database(harness.path, older(harness))
    harness.ask(RevokeKey(DONE))
    harness.ask(Encrypt(USED, plaintext=b"x"))
    return harness


@pytest.mark.parametrize("removed", [False, True])
@pytest.mark.parametrize("name", CHECKS)
def test_check(lived_in: Harness, monkeypatch: pytest.MonkeyPatch, name: str, *, removed: bool) -> None:
    check = CHECKS[name]
    for removal in check.before:
        removal.apply(monkeypatch.setattr)
    if removed:
        check.removal.apply(monkeypatch.setattr)
    check.attack(lived_in)
    try:
        accepted = check.accepted(lived_in)
    except IntegrityViolation:
        accepted = False
    assert accepted is removed
