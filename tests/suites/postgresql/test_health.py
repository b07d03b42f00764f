"""What an idle node says of its health when its database server stops, or takes no records from it any more."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from keyvault_lite.ledger.commit import write_probe
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Encrypt
from tests.support.harness import Harness, create_vault, settings_for
from tests.support.paths import ROOT
from tests.support.postgres import Databases, run
from tools.postgres_server import Server

PAGE = ROOT / "docs" / "postgresql.md"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_probe, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(write_probe, "PROVE_SECONDS", 0.2)


def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def says(harness: Harness, status: str) -> bool:
    health = harness.engine.health()
    proven = harness.ledger._writer.proven_at
    return (health.status, health.serving) == (status, status == "ok") and (status != "ok" or proves(harness, proven))


def proves(harness: Harness, proven: float) -> bool:
    """Whether the next look at the store finds nothing either: a recovery alone has not shown it."""
    deadline = time.monotonic() + 3
    while harness.ledger._writer.proven_at == proven and time.monotonic() < deadline:
        time.sleep(0.02)
    return harness.engine.health().serving and harness.ledger._writer.proven_at != proven


def test_two_idle_nodes_and_a_server_that_stops(tmp_path: Path) -> None:
    server = Server()
    try:
        server.start()
        url = Databases(server.url).make()
        master, token = create_vault(tmp_path, url)
        nodes = [Harness(settings_for(tmp_path, master, url), token) for _ in range(2)]
        name = KeyRef(nodes[0].key().id)
        assert all(says(one, "ok") for one in nodes)
        server.stop()
        for one in nodes:
            until(lambda one=one: says(one, "audit_unavailable"))  # type: ignore[misc]
        server.start()
        for one in nodes:
            until(lambda one=one: says(one, "ok"))  # type: ignore[misc]
            one.ask(Encrypt(name, plaintext=b"x"))
            one.close()
    finally:
        server.remove()


def test_a_role_that_loses_a_right_it_needs(tmp_path: Path, databases: Databases) -> None:
    roles, schema, grants = re.findall(r"^```sql\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    server = Server()
    try:
        server.start()
        own = Databases(server.url)
        own.run(*(one for one in roles.split(";") if one.strip()))
        run(own.of("keyvault"), *(one for one in schema.split(";") if one.strip()))
        owner = own.of("keyvault", user="keyvault_owner")
        master, token = create_vault(tmp_path, owner)
        run(owner, *(one for one in grants.split(";") if one.strip()))
        harness = Harness(settings_for(tmp_path, master, own.of("keyvault", user="keyvault")), token)
        assert says(harness, "ok")
        for lost in ("UPDATE ON ledger_head", "INSERT ON audit_logs", "INSERT ON tiles"):
            run(owner, f"REVOKE {lost} FROM keyvault")
            until(lambda: says(harness, "audit_unavailable"))
            run(owner, f"GRANT {lost} TO keyvault")
            until(lambda: says(harness, "ok"))
        harness.key()
        harness.close()
    finally:
        server.remove()


def test_a_default_of_read_only_transactions_does_not_matter(postgres: Harness) -> None:
    url = postgres.settings.database_url
    name = run(url, "SELECT current_database()")[0][0]
    run(url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    postgres.reopen()
    time.sleep(0.5)
    assert says(postgres, "ok")
    postgres.key()
