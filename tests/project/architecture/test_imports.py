"""The dependency rule of pyproject.toml is kept, and each of its contracts bites."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGE = ROOT / "src" / "keyvault_lite"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True, no_logo=True))"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src"), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_contract_is_kept() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


PLANTED = {
    "layers": ("utils.py", ""),
    "cryptography": ("model/planted.py", "import cryptography"),
    "ledger": ("ledger/planted.py", ""),
    "sql": ("engine/planted.py", "import sqlite3"),
    "pydantic": ("engine/planted.py", "import pydantic"),
    "http": ("engine/planted.py", "import starlette"),
    "sockets": ("wire/planted2.py", "import uvicorn"),
    "wire": ("wire/planted.py", "import keyvault_lite.crypto.planted"),
    "client": ("client/planted.py", "import typer"),
    "dialects": ("dialects/aws/planted.py", "import keyvault_lite.dialects.vault.planted"),
    "wires": ("wire/aws/planted.py", "import keyvault_lite.wire.gcp.planted"),
}
NEEDED = ("crypto/planted.py", "dialects/vault/planted.py", "wire/gcp/planted.py")


def test_every_contract_bites(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    copy = tmp_path / "src" / "keyvault_lite"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for path, line in [*PLANTED.values(), *((path, "") for path in NEEDED)]:
        file = copy / path
        file.parent.mkdir(parents=True, exist_ok=True)
        for folder in file.relative_to(copy).parents:
            (copy / folder / "__init__.py").touch()
        with file.open("a") as out:
            out.write(line + "\n")

    result = lint(tmp_path)

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert {contract["id"] for contract in contracts} == PLANTED.keys()
    kept = [
        contract["name"]
        for contract in contracts
        if f"{contract['name']} BROKEN" not in " ".join(result.stdout.split())
    ]
    assert not kept, result.stdout + result.stderr


@pytest.mark.parametrize("layer", ["model", "audit"])
def test_words_and_evidence_need_the_standard_library_and_msgspec_alone(layer: str) -> None:
    allowed = sys.stdlib_module_names | {"keyvault_lite", "msgspec"}
    foreign = {
        (str(file.relative_to(ROOT)), name)
        for file in (PACKAGE / layer).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        for name in imported(node)
        if name.partition(".")[0] not in allowed
    }
    assert not foreign


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return []
