"""What the tests of evidence share: a small log, the published vectors, and the external ones."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.vectors import make_receipts


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], Any]:
    """Loads a file of external vectors by its path below their folder."""
    default = Path(__file__).parents[4] / "shared" / "vectors"
    folder = Path(os.environ.get("KEYVAULT_TEST_VECTORS", default))

    def load(path: str) -> Any:  # noqa: ANN401
        file = folder / path
        if not file.exists():
            pytest.skip(f"external vectors are not here ({file}); set KEYVAULT_TEST_VECTORS to their folder")
        return json.loads(file.read_text())

    return load


@pytest.fixture(scope="session")
def log() -> make_receipts.Log:
    return make_receipts.Log(23)


@pytest.fixture(scope="session")
def published() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(make_receipts.FILE.read_text(encoding="utf-8"))
    return document
