"""What tests of several layers share: a vault to ask."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import House, furnish, move_in


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A vault that was just begun, its master key and its first token: copied for each test, which is quicker."""
    folder = tmp_path_factory.mktemp("template")
    return folder, *furnish(folder)


@pytest.fixture
def house(template: tuple[Path, str, str], tmp_path: Path) -> Iterator[House]:
    folder, master, token = template
    opened = move_in(folder, tmp_path / "vault", master, token)
    yield opened
    opened.close()
