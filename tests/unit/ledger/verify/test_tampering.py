"""A sample of what a writer of the database can do, each found by a check and by a start."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from keyvault_lite.crypto.root import InvalidMasterKey
from keyvault_lite.dialects.vault.token_requests import CreateToken
from keyvault_lite.ledger.anchor.files import FileAnchor
from keyvault_lite.ledger.ledger import Ledger
from keyvault_lite.ledger.state.outcome import Committed, Outcome
from keyvault_lite.ledger.state.snapshot import SnapshotVersion, State
from keyvault_lite.ledger.state.verified_rows import NOT_COMMITTED
from keyvault_lite.ledger.storage import driver
from keyvault_lite.ledger.storage.sqlite.database import SqliteDatabase
from keyvault_lite.model.errors import IntegrityViolation, KeyVaultError
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.identity import Role
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt, RevokeKey, UpdateService, VerifyAudit
from tests.support.harness import Harness, grant

EDITS = {
    "a revoked key is ACTIVE again": "UPDATE keys SET status = 'ACTIVE' WHERE name = 'revoked'",
    "a revoked version is ACTIVE again": "UPDATE key_versions SET status = 'ACTIVE' WHERE status = 'REVOKED'",
    "a worker is ADMIN": "UPDATE services SET role = 'ADMIN' WHERE name = 'worker'",
    "a worker's grants are wider": "UPDATE services SET grants = '[[\"*\",[\"decrypt\"]]]' WHERE name = 'worker'",
    "an ended service acts again": "UPDATE services SET active = 1 WHERE name = 'worker'",
    "a token is another service's": "UPDATE tokens SET service_id = (SELECT id FROM services WHERE name = 'admin')",
    "a token has another digest": "UPDATE tokens SET digest = zeroblob(32)",
    "an expiry is lifted": "UPDATE services SET expires_at = NULL, created_at = created_at + 1 WHERE name = 'worker'",
    "material is exchanged": (
        "UPDATE key_versions SET encrypted_key = (SELECT encrypted_key FROM key_versions ORDER BY id DESC LIMIT 1)"
    ),
    "a key is gone": (
        "DELETE FROM key_versions WHERE key_id = (SELECT id FROM keys WHERE name = 'revoked')",
        "DELETE FROM keys WHERE name = 'revoked'",
    ),
    "a service is gone": (
        "DELETE FROM tokens WHERE service_id = (SELECT id FROM services WHERE name = 'worker')",
        "DELETE FROM services WHERE name = 'worker'",
    ),
    "a slot is gone": "DELETE FROM keyring_slots",
    "an entry tells otherwise": "UPDATE audit_logs SET result = 'denied' WHERE id = 3",
    "an entry has another author": "UPDATE audit_logs SET service_id = NULL WHERE id = 3",
    "an entry is kept from who asks for its action": (
        "UPDATE audit_logs SET action = jsonb(json_quote(action)) WHERE id = 3"
    ),
    "an entry has a number that is none": "UPDATE audit_logs SET count = jsonb(count) WHERE id = 3",
    "an entry is gone": "DELETE FROM audit_logs WHERE id = 3",
    "the newest entry is gone": "DELETE FROM audit_logs WHERE id = (SELECT max(id) FROM audit_logs)",
    "an entry is added": (
        "INSERT INTO audit_logs SELECT id + 1, epoch, timestamp, state_seq, state_root, service_id, action, key_id, "
        "key_version, result, reason, request_id, client_request_id, source, context_digest, bytes_in, bytes_out, "
        "key_ref, subject, operation, comment, count, hash, hash FROM audit_logs ORDER BY id DESC LIMIT 1"
    ),
    "the log is empty": "DELETE FROM audit_logs",
    "the head is gone": "DELETE FROM ledger_head",
    "the head is smaller": "UPDATE ledger_head SET size = size - 1",
    "everything is gone": (
        "DELETE FROM audit_logs",
        "DELETE FROM ledger_head",
        "DELETE FROM key_versions",
        "DELETE FROM keys",
        "DELETE FROM tokens",
        "DELETE FROM services",
    ),
    "a value has another type": "UPDATE keys SET created_at = CAST(created_at AS TEXT) || 'x'",
    "a text is no text": "UPDATE keys SET description = x'ff'",
}


@pytest.fixture
def lived_in(harness: Harness) -> Harness:
    """A vault with a bit of everything in it."""
    harness.key("orders")
    harness.service("worker", grant("orders", "encrypt"))
    harness.key("revoked")
    harness.ask(RevokeKey(KeyRef("revoked")))
    harness.ask(UpdateService("worker", active=False))
    harness.ask(Encrypt(KeyRef("orders"), plaintext=b"x"))
    return harness


def tamper(path: Path, *statements: str) -> None:
    connection = driver.connect(str(path), isolation_level=None)
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("BEGIN")
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        changed = connection.execute(statement).rowcount
        assert changed, statement
    for _, sql in triggers:
        connection.execute(sql)
    connection.execute("COMMIT")
    connection.close()


def test_a_head_that_goes_under_a_running_vault_ends_service(lived_in: Harness) -> None:
    tamper(lived_in.path, "DELETE FROM ledger_head")
    for _ in range(2):
        lived_in.refusal(Encrypt(KeyRef("orders"), plaintext=b"x"), IntegrityViolation)


def test_what_was_judged_before_its_key_was_set_aside_is_judged_again(
    lived_in: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the one who sets it aside is not the transaction that records it: a check, or a try that failed."""
    commit = Ledger.commit

    async def later(
        self: Ledger, outcome: Outcome, since: SnapshotVersion, redo: Callable[[State], Outcome]
    ) -> Committed:
        tamper(lived_in.path, "UPDATE keys SET created_at = created_at + 1 WHERE name = 'orders'")
        self.refresh()
        return await commit(self, outcome, since, redo)

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "commit", later)
        lived_in.refusal(Encrypt(KeyRef("orders"), plaintext=b"x"), IntegrityViolation)
    told = [(one.draft.action, one.draft.result) for one in lived_in.log()[-2:]]
    assert told == [(Action.INTEGRITY, Result.ERROR), (Action.ENCRYPT, Result.ERROR)]


def test_a_look_at_what_others_wrote_finds_that_the_head_is_gone(lived_in: Harness) -> None:
    tamper(lived_in.path, "DELETE FROM ledger_head")
    with pytest.raises(IntegrityViolation):
        lived_in.ledger.refresh()
    assert isinstance(lived_in.ledger.fault, IntegrityViolation)
    lived_in.refusal(Encrypt(KeyRef("orders"), plaintext=b"x"), IntegrityViolation)


def test_a_look_at_the_whole_log_that_finds_damage_ends_service(lived_in: Harness) -> None:
    tamper(lived_in.path, EDITS["an entry tells otherwise"])  # type: ignore[arg-type]
    with pytest.raises(IntegrityViolation, match="audit_logs 3"):
        lived_in.ledger.scrub_log()
    lived_in.refusal(Encrypt(KeyRef("orders"), plaintext=b"x"), IntegrityViolation)


def test_a_row_that_is_missing_is_named_and_leaves_the_rest_in_service(lived_in: Harness) -> None:
    """Also where the log does not tell who wrote it: memory knows which rows there are."""
    _, second = lived_in.service("second", role=Role.ADMIN)
    token = lived_in.ask(CreateToken(orphan=True), second).facts.token
    tamper(lived_in.path, f"DELETE FROM tokens WHERE id = '{token.id}'")
    found = lived_in.ledger.verify()
    assert [(one.table, one.row, one.problem) for one in found.findings] == [("tokens", token.id, NOT_COMMITTED)]
    lived_in.ledger.scrub_log()
    lived_in.ask(Encrypt(KeyRef("orders"), plaintext=b"x"))
    assert lived_in.log()[-2].draft.action is Action.INTEGRITY


def test_an_anchor_of_another_log_under_a_running_vault_ends_service(lived_in: Harness) -> None:
    anchor, mark = FileAnchor(SqliteDatabase(lived_in.path).anchor_path), lived_in.ledger.mark()
    anchor.replace(replace(mark, hash=bytes(32)))
    lived_in.refusal(Encrypt(KeyRef("orders"), plaintext=b"x"), IntegrityViolation)
    # The word of the log itself does not help any more: only a start, with its checks, does.
    anchor.replace(mark)
    anchor.close()
    lived_in.refusal(Encrypt(KeyRef("orders"), plaintext=b"x"), IntegrityViolation)
    lived_in.reopen()
    lived_in.ask(Encrypt(KeyRef("orders"), plaintext=b"x"))


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_is_found_at_the_start(lived_in: Harness, what: str) -> None:
    edits = EDITS[what]
    lived_in.vault.close()
    tamper(lived_in.path, *([edits] if isinstance(edits, str) else edits))
    with pytest.raises((KeyVaultError, InvalidMasterKey)):
        lived_in.open()


@pytest.mark.parametrize("what", [what for what in EDITS if what != "a slot is gone"])
def test_an_edit_is_found_by_a_check_beside_the_service(lived_in: Harness, what: str) -> None:
    edits = EDITS[what]
    tamper(lived_in.path, *([edits] if isinstance(edits, str) else edits))
    found = lived_in.ledger.verify()
    assert not found.valid
    assert found.reason
    if what in {"an entry tells otherwise", "an entry has another author", "an entry is gone"}:
        assert found.first_invalid == 3
    assert all(one.table and one.problem for one in found.findings)


@pytest.mark.parametrize("with_log", [True, False])
def test_an_older_copy_is_found(lived_in: Harness, tmp_path: Path, *, with_log: bool) -> None:
    lived_in.ledger.empty_write_ahead_log()
    lived_in.vault.close()
    older = tmp_path / "older.db"
    shutil.copy(lived_in.path, older)
    lived_in.open()
    key = lived_in.key("later")
    lived_in.ask(RevokeKey(KeyRef("orders")))
    lived_in.vault.close()
    if with_log:
        shutil.copy(older, lived_in.path)
    else:
        # Only the rows of one key go back to what they were; each of them is genuine.
        connection = driver.connect(str(lived_in.path), isolation_level=None)
        connection.execute(f"ATTACH '{older}' AS older")
        for table in ("keys", "key_versions"):
            connection.execute(f"REPLACE INTO {table} SELECT * FROM older.{table}")
        connection.close()
    with pytest.raises(KeyVaultError) as refused:
        lived_in.open()
    assert refused.value.code == "integrity_violation"
    assert key.name == "later"


def test_a_clean_vault_has_no_findings(lived_in: Harness) -> None:
    found = lived_in.ask(VerifyAudit())
    assert (found.valid, found.findings, found.first_invalid, found.reason) == (True, (), None, None)
    assert found.entries >= lived_in.size - 1
    _, token = lived_in.service("eye", role=Role.AUDITOR)
    assert lived_in.ask(VerifyAudit(), token).valid
