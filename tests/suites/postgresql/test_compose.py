"""The role that the composition makes for the vault: it makes and serves a vault, and is no superuser."""

import os
import subprocess
from pathlib import Path

import psycopg
import pytest

from keyvault_lite.model.requests import ListKeys
from tests.support.harness import Harness, create_vault, settings_for
from tests.support.paths import ROOT
from tests.support.postgres import Databases
from tools.postgres_server import Server, binaries

SCRIPT = ROOT / "deploy" / "postgres-init.sh"


def test_the_role_of_the_composition(tmp_path: Path) -> None:
    if not (binaries() / "psql").exists():
        pytest.skip("this PostgreSQL came without psql")
    password = tmp_path / "password"
    password.write_text("it's a secret\n")
    server = Server()
    try:
        server.start()
        superuser = psycopg.conninfo.conninfo_to_dict(server.url)
        environment = {
            "PATH": f"{binaries()}:{os.environ['PATH']}",
            "POSTGRES_USER": str(superuser["user"]),
            "PGHOST": str(superuser["host"]),
            "PGPORT": str(superuser.get("port", 5432)),
            "KEYVAULT_PASSWORD_FILE": str(password),
        }
        subprocess.run(["sh", str(SCRIPT)], env=environment, check=True, capture_output=True)
        url = Databases(server.url).of("keyvault", user="keyvault")
        with psycopg.connect(url) as session:
            facts = "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls"
            assert session.execute(f"{facts} FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)
        master, token = create_vault(tmp_path, url)
        harness = Harness(settings_for(tmp_path, master, url), token)
        harness.ask(ListKeys())
        harness.close()
    finally:
        server.remove()
