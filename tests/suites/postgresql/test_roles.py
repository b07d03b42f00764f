"""The SQL of docs/postgresql.md, run as it stands there: what the service may do, and what it may not."""

import re
from pathlib import Path

import pytest

from keyvault_lite import app
from keyvault_lite.model.errors import AuditUnavailable
from keyvault_lite.model.keys import KeyStatus
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import CreateKey, Encrypt, ReadKey, RevokeKey, VerifyAudit
from keyvault_lite.operator.verify import verify_vault
from tests.support.harness import AES, Harness, create_vault, grant, idempotent, settings_for
from tests.support.paths import ROOT
from tests.support.postgres import Databases, run
from tools.postgres_server import Server

PAGE = ROOT / "docs" / "postgresql.md"
FORBIDDEN = [
    "DELETE FROM audit_logs",
    "UPDATE audit_logs SET result = 'denied'",
    "TRUNCATE audit_logs",
    "DELETE FROM keys",
    "DELETE FROM ledger_head",
    "UPDATE tiles SET hashes = ''",
    "UPDATE alembic_version SET version_num = '1'",
    "DROP TRIGGER audit_logs_no_delete ON audit_logs",
    "ALTER TABLE keys DISABLE TRIGGER ALL",
    "CREATE TABLE evil (a int)",
    "CREATE FUNCTION evil() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "SET session_replication_role = replica",
]


def test_the_roles_of_the_documentation_are_enough_and_no_more(tmp_path: Path) -> None:
    import psycopg

    roles, schema, grants = re.findall(r"^```sql\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    server = Server()
    try:
        server.start()
        databases = Databases(server.url)
        databases.run(*(one for one in roles.split(";") if one.strip()))
        run(databases.of("keyvault"), *(one for one in schema.split(";") if one.strip()))
        master, token = create_vault(tmp_path, databases.of("keyvault", user="keyvault_owner"))
        url = databases.of("keyvault", user="keyvault")
        run(databases.of("keyvault", user="keyvault_owner"), *(one for one in grants.split(";") if one.strip()))

        harness = Harness(settings_for(tmp_path, master, url), token)
        key = harness.rotated(harness.key("orders"))
        harness.service("worker", grant("orders", "encrypt"))
        harness.together(*(harness.perform(Encrypt(KeyRef(key.id), plaintext=b"x")) for _ in range(600)))
        harness.ask(CreateKey(AES, "once"), idempotency=idempotent("once"))
        harness.ask(RevokeKey(KeyRef("once")))
        harness.ledger.forget_replies()
        harness.run(harness.jobs.round())
        assert harness.ledger.empty_write_ahead_log()
        assert harness.ask(VerifyAudit()).findings == ()
        harness.reopen()
        assert harness.ask(ReadKey(KeyRef("once"))).status is KeyStatus.REVOKED
        assert harness.ledger.may_forget_tokens()
        run(databases.of("keyvault", user="keyvault_owner"), "REVOKE DELETE ON tokens FROM keyvault")
        assert not harness.ledger.may_forget_tokens(), "as the roles were before there was anything to remove"
        for table in ("audit_logs", "keys", "ledger_head"):
            owner = databases.of("keyvault", user="keyvault_owner")
            run(owner, f"REVOKE SELECT ON {table} FROM keyvault")
            for refused_by in (harness.reopen, lambda: verify_vault(harness.settings)):
                with pytest.raises(AuditUnavailable) as lacking:
                    refused_by()
                assert f"the role keyvault lacks a right (permission denied for table {table})" in str(lacking.value)
                assert "docs/postgresql.md" in str(lacking.value)
            run(owner, f"GRANT SELECT ON {table} TO keyvault")
        harness.open()
        for statement in FORBIDDEN:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                run(url, statement)
        harness.close()
        assert verify_vault(harness.settings).valid

        # A role that may not make the schema says so, and leaves nothing.
        databases.run("CREATE DATABASE other")
        other = tmp_path / "other"
        other.mkdir()
        with pytest.raises(app.CANNOT_START) as refused:
            create_vault(other, databases.of("other", user="keyvault"))
        assert "InsufficientPrivilege" not in str(refused.value)
    finally:
        server.remove()
