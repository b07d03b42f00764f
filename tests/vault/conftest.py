"""A vault to ask through the dialect."""

import pytest

from tests.house import House
from tests.vault.asking import Asker


@pytest.fixture
def ask(house: House) -> Asker:
    return Asker(house)
