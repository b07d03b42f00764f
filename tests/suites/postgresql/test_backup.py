"""The recipe of docs/postgresql.md for a backup, run as it stands there."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from keyvault_lite.model.errors import IntegrityViolation
from keyvault_lite.operator.verify import verify_vault
from tests.support.harness import Harness
from tests.support.paths import ROOT
from tests.support.postgres import Databases
from tools.postgres_server import binaries

PAGE = ROOT / "docs" / "postgresql.md"


def commands() -> list[str]:
    """The dump and the restore."""
    [block] = re.findall(r"^<!-- recipe backup -->\n```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(block).splitlines()


def test_the_recipe_ends_in_a_verified_vault(postgres: Harness, databases: Databases, tmp_path: Path) -> None:
    postgres.key("orders")
    file, empty = tmp_path / "backup.dump", databases.make()
    environment = {
        **os.environ,
        "PATH": f"{binaries()}:{os.environ['PATH']}",
        "BACKUP": str(file),
        "DATABASE": postgres.settings.database_url,
        "EMPTY": empty,
    }
    dump, restore = commands()
    subprocess.run(["/bin/sh", "-c", dump], env=environment, check=True, timeout=60, umask=0o077)
    assert file.stat().st_mode & 0o077 == 0
    subprocess.run(["/bin/sh", "-c", restore], env=environment, check=True, timeout=60)
    there = postgres.settings.model_copy(update={"database_url": empty})
    try:
        assert verify_vault(there).findings == ()
        # An older one is refused by the anchor that stayed.
        postgres.key("invoices")
        with pytest.raises(IntegrityViolation, match="put back or replaced"):
            Harness(there, postgres.admin)
    finally:
        databases.drop(empty)
