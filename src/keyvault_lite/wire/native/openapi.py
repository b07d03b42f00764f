"""The OpenAPI document, drawn from the table of operations and the very shapes that read and write."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import keyvault_lite
from keyvault_lite.model.requests import MAX_BATCH
from keyvault_lite.wire.native.cipher_bodies import BatchBody
from keyvault_lite.wire.native.models import NAME_PATTERN
from keyvault_lite.wire.native.route import NoFields, Operation, Tag
from keyvault_lite.wire.native.routes import ROUTES
from keyvault_lite.wire.native.sealing import SealStatusReply, UnsealBody
from keyvault_lite.wire.problems import STATUS, Problem

Schema = dict[str, Any]
TITLE: Final = "KeyVault Lite"
_DESCRIPTION: Final = """\
A self-hosted key management service. Keys stay inside; every call is on a tamper-evident record.

Authenticate with `Authorization: Bearer kvl_…`. Bodies are JSON in UTF-8 of at most 1 MiB, byte fields are standard
base64 with padding, times are RFC 3339 in UTC, `null` is the same as absent, unknown fields are refused. Errors are
`application/problem+json` (RFC 9457) with a stable `code`. `Audit-Id` is the number of the entry that records the call.
HEAD is answered where GET is, without the body.
"""
_TAGS: Final = {
    Tag.KEYS: "Keys, their versions and their states. `{key_id}` is a key's id or its name.",
    Tag.CIPHER: "Envelope encryption: each message has a key of its own, wrapped by a version of yours.",
    Tag.SIGNING: "Signatures and message authentication codes.",
    Tag.SERVICES: "Callers, their roles and their grants on keys.",
    Tag.SERVER: "What the server tells of itself.",
    Tag.AUDIT: "The log: a hash chain and Merkle tree over every attempt.",
}
_SCHEMA: Final = "#/components/schemas/"
_HEADERS: Final = "#/components/headers/"
_RESPONSES: Final = "#/components/responses/"
_REFUSALS: Final = {
    400: "The body does not parse, or a ciphertext does not open.",
    401: "No valid token.",
    403: "The role, or the grant on this key, does not allow it; or plain HTTP came from another machine.",
    404: "No such object, or none that the caller may know of.",
    409: "The request contradicts what is there, or the key's state forbids it.",
    413: "A size limit is exceeded.",
    415: "The body is not `application/json`, or it is compressed.",
    422: "A field, query parameter or combination that makes no sense.",
    429: "Too many requests.",
    500: "A defect of the server.",
    503: "Sealed, or the attempt cannot be recorded, or stored data does not verify: no answer is given on trust.",
}
_REFUSAL_HEADERS: Final = {
    401: ["WWW-Authenticate"],
    429: ["Audit-Id", "Retry-After"],
    503: ["Audit-Id", "Retry-After"],
}
_APART: Final = frozenset({"default", "description", "title"})
_PARAMETERS: Final = {
    "key_id": ("Id or name of the key.", {"type": "string", "pattern": NAME_PATTERN}),
    "service": ("Id or name of the service.", {"type": "string", "pattern": NAME_PATTERN}),
    "entry": ("Number of the entry.", {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}),
}


def document() -> Schema:
    """The whole document."""
    paths: dict[str, Schema] = {
        "/health": {"get": _health()},
        "/seal-status": {"get": _seal_status()},
        "/unseal": {"post": _unseal()},
    }
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "version": keyvault_lite.__version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "this server"}],
        "tags": [{"name": tag.value, "description": text} for tag, text in _TAGS.items()],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token of a service: `kvl_<id>_<secret>`.",
                }
            },
            "headers": _headers(),
            "responses": {str(status): _refusal(status) for status in _REFUSALS},
            "schemas": _schemas(),
        },
    }


def _operation(route: Operation) -> Schema:
    statuses = [401, 403, 422, 429, 500, 503]
    if route.parameter is not None:
        statuses.append(404)
    if route.method != "GET":
        statuses += [400, 413, 415, 409]
    operation: Schema = {
        "operationId": _operation_id(route),
        "tags": [route.tag.value],
        "summary": route.summary,
        "parameters": [*_path(route), *_query(route), *_idempotency(route)],
        "responses": {
            str(route.status): _success(route),
            **{str(status): {"$ref": f"{_RESPONSES}{status}"} for status in sorted(statuses)},
        },
    }
    if route.description:
        operation["description"] = route.description
    if route.method != "GET":
        operation["requestBody"] = _body(route)
    return operation


def _operation_id(route: Operation) -> str:
    words = [part for part in route.path.replace("-", "_").split("/") if part and not part.startswith("{")]
    return "_".join([route.method.lower(), *words, *(["one"] if route.path.endswith("}") else [])])


def _path(route: Operation) -> Iterable[Schema]:
    if route.parameter is None:
        return
    kind = route.parameter
    if kind == "id":
        kind = "service" if route.tag is Tag.SERVICES else "entry"
    text, schema = _PARAMETERS[kind]
    yield {"name": route.parameter, "in": "path", "required": True, "description": text, "schema": schema}


def _query(route: Operation) -> Iterable[Schema]:
    if route.method != "GET" or not issubclass(route.shape, BaseModel):
        return
    shape = route.shape.model_json_schema(ref_template=_SCHEMA + "{model}")
    for name, field in shape.get("properties", {}).items():
        yield {
            "name": name,
            "in": "query",
            "required": name in shape.get("required", []),
            "description": field.get("description", ""),
            "schema": _value(field),
        }


def _value(field: Schema) -> Schema:
    """The schema of a query parameter: absence is how a query says null."""
    choices = [choice for choice in field.get("anyOf", []) if choice.get("type") != "null"]
    value = choices[0] if choices else {name: word for name, word in field.items() if name not in _APART}
    return value if field.get("default") is None else value | {"default": field["default"]}


def _idempotency(route: Operation) -> Iterable[Schema]:
    if route.mutating:
        yield {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "A repeat within 24 hours with the same key and body is answered with the first reply.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[ -~]+$"},
        }


def _body(route: Operation) -> Schema:
    schema: Schema = {"$ref": f"{_SCHEMA}{route.shape.__name__}"}
    required = _has_required(route)
    if route.item is not None:
        items = {"$ref": f"{_SCHEMA}{route.item.__name__}"}
        schema = {
            "type": "object",
            "properties": {"items": {"type": "array", "minItems": 1, "maxItems": MAX_BATCH, "items": items}},
            "required": ["items"],
            "additionalProperties": False,
        }
    if not required:
        schema = {"anyOf": [schema, {"type": "null"}]}
    return {"required": required, "content": {"application/json": {"schema": schema, "example": dict(route.example)}}}


def _has_required(route: Operation) -> bool:
    if issubclass(route.shape, BaseModel):
        return any(field.is_required() for field in route.shape.model_fields.values())
    return any(field.required for field in msgspec.structs.fields(route.shape))


def _success(route: Operation) -> Schema:
    if route.reply is None:
        content: Schema = {"text/plain": {"schema": {"type": "string"}}}
    elif route.item is not None:
        content = {"application/json": {"schema": _batch_reply(route.reply.__name__)}}
    else:
        content = {"application/json": {"schema": {"$ref": f"{_SCHEMA}{route.reply.__name__}"}}}
    headers = {name: {"$ref": f"{_HEADERS}{name}"} for name in ("Request-Id", "Audit-Id")}
    return {"description": "Done.", "headers": headers, "content": content}


def _batch_reply(name: str) -> Schema:
    audit_id = {"type": "object", "properties": {"audit_id": {"type": "integer"}}, "required": ["audit_id"]}
    error = {"type": "object", "properties": {"error": {"$ref": f"{_SCHEMA}Problem"}}, "required": ["error"]}
    item = {"allOf": [audit_id, {"oneOf": [{"$ref": f"{_SCHEMA}{name}"}, error]}]}
    return {
        "type": "object",
        "properties": {"items": {"type": "array", "items": item}},
        "required": ["items"],
    }


def _refusal(status: int) -> Schema:
    names = ["Request-Id", *_REFUSAL_HEADERS.get(status, ["Audit-Id"])]
    return {
        "description": _REFUSALS[status],
        "headers": {name: {"$ref": f"{_HEADERS}{name}"} for name in names},
        "content": {"application/problem+json": {"schema": {"$ref": f"{_SCHEMA}Problem"}}},
    }


def _headers() -> Schema:
    return {
        "Request-Id": {
            "description": "This exchange's own random number.",
            "required": True,
            "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        },
        "Audit-Id": {
            "description": "Number of the audit entry that records the call, where there is one.",
            "schema": {"type": "integer", "minimum": 1},
        },
        "WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}},
        "Retry-After": {"description": "Seconds, where trying again may help.", "schema": {"type": "integer"}},
    }


def _told(text: str, reply: str) -> Schema:
    """A reply to a caller without a token."""
    return {
        "description": text,
        "headers": {"Request-Id": {"$ref": f"{_HEADERS}Request-Id"}},
        "content": {"application/json": {"schema": {"$ref": f"{_SCHEMA}{reply}"}}},
    }


def _refused(*statuses: int) -> Schema:
    return {str(status): {"$ref": f"{_RESPONSES}{status}"} for status in statuses}


def _seal_status() -> Schema:
    return {
        "operationId": "get_seal_status",
        "tags": [Tag.SERVER.value],
        "summary": "Whether the vault is open, by which root of trust, and what is missing",
        "security": [],
        "responses": {"200": _told("As it is.", "SealStatusReply"), **_refused(403, 422)},
    }


def _unseal() -> Schema:
    body = {"application/json": {"schema": {"$ref": f"{_SCHEMA}UnsealBody"}, "example": {"share": "kvlshare1…"}}}
    return {
        "operationId": "post_unseal",
        "tags": [Tag.SERVER.value],
        "summary": "Hand in a share or a passphrase to a sealed vault",
        "description": "The share or passphrase is the credential: no token is read.",
        "security": [],
        "requestBody": {"required": True, "content": body},
        "responses": {
            "200": _told("Taken, or the vault is open.", "SealStatusReply"),
            **_refused(400, 403, 409, 413, 415, 422, 429, 500, 503),
        },
    }


def _health() -> Schema:
    return {
        "operationId": "get_health",
        "tags": [],
        "summary": "Whether the vault can serve",
        "security": [],
        "responses": {
            "200": _told("It serves.", "HealthReply"),
            "403": {"$ref": f"{_RESPONSES}403"},
            "422": {"$ref": f"{_RESPONSES}422"},
            "503": _told("It cannot serve; `status` names why.", "HealthReply"),
        },
    }


class HealthReply(msgspec.Struct):
    """The state of the server."""

    status: str
    sealed: bool
    version: str
    epoch: int | None = None
    """How often the log was restarted after an acknowledged rollback."""
    anchor: str | None = None
    """`apart`, `same directory` as the database (a snapshot of the volume takes it back too), `shared` or `off`."""
    anchor_flushed_seconds_ago: float | None = None
    rows_checked_seconds_ago: float | None = None
    """When all stored rows were last read again and verified; after 15 minutes the status is `unchecked`."""
    clock: str | None = None
    """`steady`, `changed` while the server ran, `behind the log`, or `ahead of the log` at the start."""


def _schemas() -> Schema:
    models = {route.shape for route in ROUTES if issubclass(route.shape, BaseModel) and route.method != "GET"}
    by_name = sorted(models | {NoFields}, key=lambda model: model.__name__)
    _, written = models_json_schema([(model, "validation") for model in by_name], ref_template=_SCHEMA + "{model}")
    structs = {route.shape for route in ROUTES if issubclass(route.shape, msgspec.Struct)} - {BatchBody}
    structs |= {route.reply for route in ROUTES if route.reply is not None} | {
        Problem,
        HealthReply,
        SealStatusReply,
        UnsealBody,
    }
    _, components = msgspec.json.schema_components(
        sorted(structs, key=lambda struct: struct.__name__), ref_template=_SCHEMA + "{name}"
    )
    codes = sorted({error.code for error in STATUS})
    components["Problem"]["properties"]["code"] = {"type": "string", "enum": codes}
    return dict(sorted((written["$defs"] | components).items()))
