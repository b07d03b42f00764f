"""What the campaign shares: where processes are born, and a vault that is closed, for them to die in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.suites.crash.workload import ORDERS, SIGNER
from tests.support.harness import ED25519, Harness, open_copy
from tests.support.processes import ProcessSpawner


@pytest.fixture(scope="session")
def spawner() -> Iterator[ProcessSpawner]:
    with ProcessSpawner() as opened:
        yield opened


@pytest.fixture
def left(template: tuple[Path, str, str], tmp_path: Path) -> Iterator[Harness]:
    """A vault with the keys that all callers share; closed."""
    folder, master, token = template
    harness = open_copy(folder, tmp_path / "vault", master, token)
    harness.key(ORDERS)
    harness.key(SIGNER, ED25519)
    harness.vault.close()
    yield harness
    harness.close()
