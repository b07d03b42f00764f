"""The document says what the routes do: structure here, behaviour by schemathesis."""

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from keyvault_lite.model.encoding import decode_base64
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.names import check_name, check_pattern, is_name
from keyvault_lite.wire.native import cipher_bodies, models, openapi
from keyvault_lite.wire.native.routes import ROUTES
from keyvault_lite.wire.problems import STATUS
from keyvault_lite.wire.times import format_time
from tests.support.fake_engine import TOKEN, FakeEngine, ask, build

DOCUMENT = msgspec.json.decode(msgspec.json.encode(openapi.document()))
OPERATIONS = [
    (path, method, operation) for path, item in DOCUMENT["paths"].items() for method, operation in item.items()
]


def _walk(node: object) -> Iterator[dict[str, object]]:
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from _walk(child)
    elif isinstance(node, list):
        for child in node:
            yield from _walk(child)


def test_every_route_is_documented_and_no_other() -> None:
    documented = {(method.upper(), path) for path, method, _ in OPERATIONS}
    assert documented == {(route.method, route.path) for route in ROUTES} | {
        ("GET", "/health"),
        ("GET", "/seal-status"),
        ("POST", "/unseal"),
    }


def test_every_operation_may_be_refused_to_who_comes_in_plain_http_from_afar() -> None:
    assert [path for _, path, operation in OPERATIONS if "403" not in operation["responses"]] == []


def test_references_lead_somewhere_and_nothing_is_left_over() -> None:
    used = {node["$ref"] for node in _walk(DOCUMENT) if "$ref" in node}
    there = {
        f"#/components/{kind}/{name}"
        for kind, parts in DOCUMENT["components"].items()
        if kind != "securitySchemes"
        for name in parts
    }
    assert used == there


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(ids) == len(set(ids))


def test_every_status_of_the_errors_is_described() -> None:
    described = {int(status) for status in DOCUMENT["components"]["responses"]}
    assert described == {status for status, _ in STATUS.values()} - {405}  # an operation does not answer for others


def test_examples_fit_their_schemas() -> None:
    seen = 0
    for _, _, operation in OPERATIONS:
        for media in operation.get("requestBody", {}).get("content", {}).values():
            schema = {**media["schema"], "components": DOCUMENT["components"]}
            jsonschema_rs.validator_for(schema).validate(media["example"])
            seen += 1
    assert seen == sum(route.method != "GET" for route in ROUTES) + 1, "and POST /unseal"


def test_the_hot_road_is_the_hot_operations() -> None:
    """Each hot route in the table is answered before FastAPI, and stands in the document with the shape it reads."""
    documented = {path: operation for path, method, operation in OPERATIONS if method == "post"}
    for name in cipher_bodies.SINGLES:
        single = documented[f"/keys/{{key_id}}/{name}"]["requestBody"]
        batch = documented[f"/keys/{{key_id}}/batch/{name}"]["requestBody"]
        reference = single["content"]["application/json"]["schema"]
        assert batch["content"]["application/json"]["schema"]["properties"]["items"]["items"] == reference
        shape = cipher_bodies.SINGLES[name].shape
        schema = DOCUMENT["components"]["schemas"][reference["$ref"].rsplit("/", 1)[1]]
        assert list(schema["properties"]) == list(shape.__struct_fields__)
        assert schema["additionalProperties"] is False
    assert {route.path for route in ROUTES if issubclass(route.shape, msgspec.Struct)} == {
        f"/keys/{{key_id}}/{batch}{name}" for name in cipher_bodies.SINGLES for batch in ("", "batch/")
    }


@pytest.mark.parametrize("text", ["a", "a" * 63, "a" * 64, "0._-", "-a", "A", "", "a b", "ä"])
def test_the_patterns_are_those_of_the_model(text: str) -> None:
    matches = jsonschema_rs.validator_for({"pattern": models.NAME_PATTERN}).is_valid
    assert matches(text) == is_name(text)
    for pattern, check in ((models.NAME_PATTERN, check_name), (models.GRANT_PATTERN, check_pattern)):
        fits = jsonschema_rs.validator_for({"pattern": pattern}).is_valid(text)
        assert fits == _passes(check, text)
    assert matches("6f1c9a52-7f6e-4a38-9d1e-0c7d5f0a4b11")  # an id stands where a name can


def _passes(check: object, text: str) -> bool:
    try:
        check(text)  # type: ignore[operator]
    except InvalidRequest:
        return False
    return True


@pytest.mark.parametrize("text", ["", "AAE=", "AA==", "AAAA", "A", "AA=", "A===", "AAE", "AA-_"])
def test_the_base64_pattern(text: str) -> None:
    [pattern] = {
        node["pattern"] for node in _walk(DOCUMENT) if node.get("contentEncoding") == "base64" and "pattern" in node
    }
    assert jsonschema_rs.validator_for({"pattern": pattern}).is_valid(text) == _passes(decode_base64, text)


def test_the_document_is_served_without_a_token() -> None:
    reply = ask(build(FakeEngine()), "GET", "/openapi.json", token=None)
    assert reply.json == DOCUMENT


# Times are RFC 3339 in UTC: narrower than the format's name.
schemathesis.openapi.format("date-time", st.integers(1, 2**47).map(format_time))
schema = schemathesis.openapi.from_asgi("/openapi.json", build(FakeEngine()))


# What a schema cannot say is refused too: types and purposes that do not fit, base64 where `encoding` says so, 1.0.
BEYOND_SCHEMAS: list[CheckFunction] = [positive_data_acceptance]
# A batch answers 200, and each item of it for itself.
BATCHES: list[CheckFunction] = [*BEYOND_SCHEMAS, negative_data_rejection]


@schema.parametrize()
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_behaviour(case: schemathesis.Case[Any]) -> None:
    excluded = BATCHES if "/batch/" in case.path else BEYOND_SCHEMAS
    case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"}, excluded_checks=excluded)
