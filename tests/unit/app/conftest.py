"""What tests of the start share."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default database is in the working directory, and may not be where these tests are imported from."""
    monkeypatch.chdir(tmp_path)
