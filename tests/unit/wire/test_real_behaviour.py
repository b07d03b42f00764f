"""The document says what the routes of a real vault do. Its collection makes all the cases: see conftest."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.unit.wire.conftest import Client
from tests.unit.wire.test_openapi import DOCUMENT

DOCUMENTED = schemathesis.openapi.from_dict(DOCUMENT)
EXCLUDED: list[CheckFunction] = [positive_data_acceptance]


@pytest.fixture(scope="module", autouse=True)
def _idem(admin: Client) -> None:
    """A service other than the caller, for the routes that change one."""
    assert admin.ask("POST", "/services", {"name": "idem", "role": "AUDITOR"}).status == 201


@pytest.mark.slow
@DOCUMENTED.parametrize()
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_behaviour(case: schemathesis.Case[Any], admin: Client) -> None:
    replaced = case.path in {"/services/{id}", "/services/{id}/token"}
    if replaced:
        case.path_parameters["id"] = "idem"  # not to lock ourselves out
    excluded = [*EXCLUDED, negative_data_rejection] if replaced or "/batch/" in case.path else EXCLUDED
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{admin.port}",
        headers={"Authorization": f"Bearer {admin.token}"},
        excluded_checks=excluded,
    )
