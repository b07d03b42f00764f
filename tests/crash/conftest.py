"""What the campaign shares: where processes are born, and a vault that is closed, for them to die in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.nursery import Nursery
from tests.crash.work import ORDERS, SIGNER
from tests.house import ED25519, House, move_in


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with Nursery() as opened:
        yield opened


@pytest.fixture
def left(template: tuple[Path, str, str], tmp_path: Path) -> Iterator[House]:
    """A vault with the keys that all callers share; closed."""
    folder, master, token = template
    house = move_in(folder, tmp_path / "vault", master, token)
    house.key(ORDERS)
    house.key(SIGNER, ED25519)
    house.vault.close()
    yield house
    house.close()
