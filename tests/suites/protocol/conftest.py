"""The vault that every make_cluster of the protocol begins with."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.suites.protocol.cluster import Cluster, TemplateVaults, cluster, create_template_vaults

MakeCluster = Callable[..., Cluster]


@pytest.fixture(scope="session")
def template_vaults(tmp_path_factory: pytest.TempPathFactory) -> TemplateVaults:
    return create_template_vaults(tmp_path_factory.mktemp("protocol"))


@pytest.fixture
def make_cluster(tmp_path: Path, template_vaults: TemplateVaults) -> Iterator[MakeCluster]:
    """Makes clusters; each may have a rule taken out."""
    with ExitStack() as stack:
        count = 0

        def made(**how: Any) -> Cluster:  # noqa: ANN401
            nonlocal count
            count += 1
            return stack.enter_context(cluster(tmp_path / str(count), template_vaults, **how))

        yield made
