"""The vault that every scene of the protocol begins with."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.protocol.site import Furniture, Site, furnish_protocol, site

Scene = Callable[..., Site]


@pytest.fixture(scope="session")
def furniture(tmp_path_factory: pytest.TempPathFactory) -> Furniture:
    return furnish_protocol(tmp_path_factory.mktemp("protocol"))


@pytest.fixture
def scene(tmp_path: Path, furniture: Furniture) -> Iterator[Scene]:
    """Makes sites; each may have a rule taken out."""
    with ExitStack() as stack:
        count = 0

        def made(**how: Any) -> Site:  # noqa: ANN401
            nonlocal count
            count += 1
            return stack.enter_context(site(tmp_path / str(count), furniture, **how))

        yield made
