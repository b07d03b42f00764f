"""The vault of the campaign, begun once."""

import pytest

from tests.suites.tamper.sample_vault import SampleVault, build


@pytest.fixture(scope="session")
def vault(tmp_path_factory: pytest.TempPathFactory) -> SampleVault:
    return build(tmp_path_factory.mktemp("campaign"))
