"""The vault of the campaign, begun once."""

import pytest

from tests.campaign.furnished import Furnished, build


@pytest.fixture(scope="session")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Furnished:
    return build(tmp_path_factory.mktemp("campaign"))
