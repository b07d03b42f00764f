"""What is started here configures the process's logs; the tests after it find them as they were."""

import logging
from collections.abc import Iterator

import pytest

from keyvault_lite.observe.logs import ROOT


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in (ROOT, "uvicorn.error")]
    before = [(one, one.handlers[:], one.level, one.propagate) for one in loggers]
    yield
    for one, handlers, level, propagate in before:
        one.handlers[:], one.propagate = handlers, propagate
        one.setLevel(level)
