"""The vaults that `make bench-growth` measures are genuine, and the benchmark runs to its end."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.grown import KEY, USERS, Size, grow
from keyvault_lite import app
from keyvault_lite.operator.verify import verify_vault
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    "size", [Size(keys=40), Size(entries=700), Size(versions=5), Size(keys=20, entries=300, versions=3)]
)
def test_a_grown_vault_is_one_that_the_product_accepts(tmp_path: Path, size: Size) -> None:
    chosen = grow(tmp_path / "vault", size).chosen()
    found = verify_vault(chosen)
    assert (found.valid, found.findings) == (True, ())
    assert found.entries == max(USERS + 2, size.entries)

    vault = app.open_vault(chosen)
    try:
        assert len(list(vault.ledger.snapshot().keys_after(None))) == max(USERS, size.keys)
        key = vault.ledger.snapshot().find_key(KEY)
        assert key is not None
        assert len(key.versions) == size.versions
        assert vault.ledger.verify().valid
    finally:
        vault.close()


@pytest.mark.slow
def test_the_benchmark_runs() -> None:
    sizes = ("--keys", "16,32", "--entries", "250,520", "--versions", "1,3", "--rounds", "1", "--seconds", "0.1")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth", *sizes], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for title in ("By keys", "By entries", "By versions", "start", "newest 100", "rotate"):
        assert title in done.stdout, done.stdout
