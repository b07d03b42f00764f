"""What tests of several layers share: a vault to ask."""

import compileall
import gc
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import keyvault_lite
from keyvault_lite.observe.logs import ROOT
from tests.support.harness import Harness, create_vault, open_copy
from tests.support.postgres import Databases, serving


def pytest_configure(config: pytest.Config) -> None:
    """Compile the package once per run.

    Where PYTHONDONTWRITEBYTECODE is set, every process that a test starts would compile it again, which takes longer
    than the rest of its start. Mutants run without xdist, and their modules must not be cached.
    """
    if config.pluginmanager.hasplugin("xdist") and not hasattr(config, "workerinput"):
        compileall.compile_dir(Path(keyvault_lite.__file__).parent, quiet=2)


def pytest_collection_finish() -> None:
    """Let collections of garbage pass over the thousands of tests, which stay until the end anyway."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """What a test has done to the logs of the process is no other test's affair."""
    logs = [logging.getLogger(name) for name in (ROOT, "uvicorn.error")]
    before = [(log, log.handlers[:], log.propagate, log.level) for log in logs]
    yield
    for log, handlers, propagate, level in before:
        log.handlers[:], log.propagate = handlers, propagate
        log.setLevel(level)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A vault that was just begun, its master key and its first token: copied for each test, which is quicker."""
    folder = tmp_path_factory.mktemp("template")
    return folder, *create_vault(folder)


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """A PostgreSQL server, for this process of the run alone."""
    with serving() as made:
        yield made


@pytest.fixture(scope="session")
def postgres_template(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> tuple[Path, str, str, str]:
    """As `template`, with the URL of its database."""
    folder, url = tmp_path_factory.mktemp("postgres"), databases.make()
    return folder, *create_vault(folder, url), url


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests marked `both` are run on each database."""
    if "harness" in metafunc.fixturenames and metafunc.definition.get_closest_marker("both"):
        kinds = ["sqlite"] if metafunc.definition.get_closest_marker("sqlite_only") else ["sqlite", "postgresql"]
        metafunc.parametrize("harness", kinds, indirect=True)


@pytest.fixture
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    if getattr(request, "param", "sqlite") == "postgresql":
        yield request.getfixturevalue("postgres")
        return
    folder, master, token = request.getfixturevalue("template")
    opened = open_copy(folder, tmp_path / "vault", master, token)
    yield opened
    opened.close()


@pytest.fixture
def postgres(postgres_template: tuple[Path, str, str, str], databases: Databases, tmp_path: Path) -> Iterator[Harness]:
    """A vault on PostgreSQL."""
    folder, master, token, template = postgres_template
    url = databases.make(template)
    opened = open_copy(folder, tmp_path / "vault", master, token, url)
    yield opened
    opened.close()
    databases.drop(url)
