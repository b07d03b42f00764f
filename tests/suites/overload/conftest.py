"""What a failed test of this suite shows besides: what its servers have logged."""

from collections.abc import Generator

import pytest

from tests.suites.overload.server import Vault

NEWEST = 8_000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for name, used in item.funcargs.items():
            if isinstance(used, Vault) and (used.folder / "log").exists():
                report.sections.append((f"log of {name}", used.log[-NEWEST:]))
    return report
