"""A vault to ask through the dialect."""

import pytest

from tests.support.harness import Harness
from tests.support.vault_client import Asker


@pytest.fixture
def ask(harness: Harness) -> Asker:
    return Asker(harness)
