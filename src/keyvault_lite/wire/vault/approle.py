"""AppRole roles and their secrets: bodies to requests, results to data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from keyvault_lite.dialects.vault.role_requests import ChangeRole, TidySecretIds, WriteRoleAndId
from keyvault_lite.dialects.vault.token_requests import (
    CreateSecretId,
    DeleteRole,
    DestroySecretId,
    ListRoles,
    ListSecretIds,
    NewSecretId,
    ReadRole,
    ReadSecretId,
    SecretFacts,
    SetRoleId,
    WriteRole,
)
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.requests import Request
from keyvault_lite.wire.reader import read_json
from keyvault_lite.wire.vault.route import DELETE, NO_CONTENT, NOT_FOUND, READ, WRITE, Operation, RawReply, VaultCall
from keyvault_lite.wire.vault.tokens import rfc3339
from keyvault_lite.wire.vault.values import Fields, number, optional_flag, optional_number, optional_period, text, texts

_NOT_OFFERED: Final = (
    "bound_cidr_list",
    "secret_id_bound_cidrs",
    "token_bound_cidrs",
    "token_no_default_policy",
    "token_num_uses",
    "token_strictly_bind_ip",
)
_NOTHING: Final = ("0", "false")
"""How a command line, whose values are all texts, says that it does not want what is not offered."""
_NO_CIDRS: Final = ("cidr_list", "token_bound_cidrs")
_NEVER: Final = "0001-01-01T00:00:00Z"
"""As the products write that there is no such moment."""
_FIELDS: Final = frozenset(
    {
        "bind_secret_id",
        "period",
        "policies",
        "role_id",
        "secret_id_num_uses",
        "secret_id_ttl",
        "token_explicit_max_ttl",
        "token_max_ttl",
        "token_period",
        "token_policies",
        "token_ttl",
        "token_type",
        *_NOT_OFFERED,
    }
)


@dataclass(frozen=True, slots=True)
class RoleField:
    """A part of a role that has a path of its own."""

    field: str
    """Of the request, and of what is kept."""
    read: Callable[[Fields, str], object]
    names: tuple[str, ...]
    """In a body; the first is how it is shown, and wins."""
    nothing: object = 0
    """What it is without one."""

    def given(self, fields: Fields) -> object:
        """The value in a body; None if there is none, and null is none."""
        name = next((one for one in self.names if fields.get(one) is not None), None)
        return None if name is None else self.read(fields, name)


_POLICIES: Final = RoleField("policies", texts, ("token_policies", "policies"), ())
_PERIOD: Final = RoleField("token_period", optional_period, ("token_period", "period"))
PARTS: Final[Mapping[str, RoleField]] = {
    "period": _PERIOD,
    "policies": _POLICIES,
    "secret-id-num-uses": RoleField("secret_id_uses", optional_number, ("secret_id_num_uses",)),
    "secret-id-ttl": RoleField("secret_id_ttl", optional_period, ("secret_id_ttl",)),
    "token-max-ttl": RoleField("token_max_ttl", optional_period, ("token_max_ttl",)),
    "token-ttl": RoleField("token_ttl", optional_period, ("token_ttl",)),
}
"""By what is in the path."""


def _named(call: VaultCall) -> dict[str, Any]:
    """The role that a path names, and the mount that it is of."""
    return {"role": call.path["role"], "mount": call.mount}


def _write(call: VaultCall) -> Request:
    fields = call.fields
    for name in _NOT_OFFERED:
        if fields.get(name) and fields[name] not in _NOTHING:
            raise InvalidRequest(f"{name} is not offered here")
    if optional_flag(fields, "bind_secret_id") is False:
        raise InvalidRequest("a role without secrets is not offered here")
    if text(fields, "token_type") not in {"", "default", "default-service", "service"}:
        raise InvalidRequest("the only type of token here is service")
    given: dict[str, Any] = {part.field: part.given(fields) for part in PARTS.values()}
    given["token_explicit_max_ttl"] = optional_period(fields, "token_explicit_max_ttl")
    parts = WriteRole(**_named(call), **given)
    return WriteRoleAndId(parts, text(fields, "role_id")) if "role_id" in fields else parts


def _role(found: Mapping[str, Any], _: Request, __: VaultCall) -> RawReply:
    return RawReply(
        {
            "bind_secret_id": True,
            "local_secret_ids": False,
            "secret_id_bound_cidrs": None,
            "secret_id_num_uses": found["secret_id_uses"],
            "secret_id_ttl": found["secret_id_ttl"],
            "token_bound_cidrs": [],
            "token_explicit_max_ttl": found["token_explicit_max_ttl"],
            "token_max_ttl": found["token_max_ttl"],
            "token_no_default_policy": False,
            "token_num_uses": 0,
            "token_period": found["token_period"],
            "token_policies": list(found["policies"]),
            "token_strictly_bind_ip": False,
            "token_ttl": found["token_ttl"],
            "token_type": "default",
        }
    )


def _role_id(found: Mapping[str, Any], _: Request, __: VaultCall) -> RawReply:
    return RawReply({"role_id": found["role_id"]})


def _secret(found: NewSecretId, _: Request, __: VaultCall) -> RawReply:
    return RawReply(
        {
            "secret_id": found.secret_id,
            "secret_id_accessor": found.accessor,
            "secret_id_num_uses": found.uses,
            "secret_id_ttl": found.ttl,
        }
    )


def _create_secret(call: VaultCall) -> Request:
    for name in _NO_CIDRS:
        if call.fields.get(name):
            raise InvalidRequest(f"{name} is not offered here")
    return CreateSecretId(
        **_named(call),
        ttl=optional_period(call.fields, "ttl"),
        uses=optional_number(call.fields, "num_uses"),
        meta=_metadata(text(call.fields, "metadata")),
    )


def _metadata(written: str) -> Mapping[str, str]:
    found = read_json(written.encode()) if written else {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise InvalidRequest("failed to parse metadata: it is JSON, an object of texts")
    return found


def _by_field(kind: Callable[..., Request], field: str) -> Callable[[VaultCall], Request]:
    def build(call: VaultCall) -> Request:
        named = text(call.fields, field)
        if not named:
            raise InvalidRequest(f"missing {field}")
        return kind(**_named(call), **{field.replace("secret_id_accessor", "accessor"): named})

    return build


def _facts(found: SecretFacts | None, request: Request, _: VaultCall) -> RawReply:
    if found is None:
        return NO_CONTENT if isinstance(request, ReadSecretId) and request.secret_id else NOT_FOUND
    ttl = 0 if found.expires_at is None else (found.expires_at - found.created_at) // 1_000_000
    return RawReply(
        {
            "cidr_list": [],
            "creation_time": rfc3339(found.created_at),
            "expiration_time": rfc3339(found.expires_at) or _NEVER,
            "last_updated_time": rfc3339(found.created_at),
            "metadata": dict(found.meta),
            "secret_id_accessor": found.accessor,
            "secret_id_num_uses": found.uses,
            "secret_id_ttl": ttl,
            "token_bound_cidrs": [],
        }
    )


def _names(found: tuple[str, ...], _: Request, call: VaultCall) -> RawReply:
    after, limit = _page(call)
    later = sorted(name for name in found if name > after)
    shown = later[:limit] if limit > 0 else later
    return RawReply({"keys": shown}) if shown else NOT_FOUND


def _page(call: VaultCall) -> tuple[str, int]:
    """After which name to begin, and how many to show; all for 0 and less."""
    return text(call.fields, "after"), number(call.fields, "limit", -1)


def _listed(build: Callable[[VaultCall], Request]) -> Callable[[VaultCall], Request]:
    def checked(call: VaultCall) -> Request:
        _page(call)
        return build(call)

    return checked


def _of_role(kind: Callable[..., Request]) -> Callable[[VaultCall], Request]:
    return lambda call: kind(**_named(call))


def _route(
    operation: str,
    action: Action,
    build: Callable[[VaultCall], Request],
    render: Any,  # noqa: ANN401
    *fields: str,
) -> Operation:
    return Operation(
        operation=f"auth.approle.{operation}", action=action, build=build, render=render, fields=frozenset(fields)
    )


def _no_content(*_: object) -> RawReply:
    return NO_CONTENT


_LISTED: Final = ("after", "limit")
LIST_ROLES: Final = _route(
    "role.list", Action.SERVICE_READ, _listed(lambda call: ListRoles(call.mount)), _names, *_LISTED
)
WRITE_ROLE: Final = _route("role.write", Action.SERVICE_CREATE, _write, _no_content, *_FIELDS)
READ_ROLE: Final = _route("role.read", Action.SERVICE_READ, _of_role(ReadRole), _role)
DELETE_ROLE: Final = _route("role.delete", Action.SERVICE_UPDATE, _of_role(DeleteRole), _no_content)
READ_ROLE_ID: Final = _route("role-id.read", Action.SERVICE_READ, _of_role(ReadRole), _role_id)
WRITE_ROLE_ID: Final = _route(
    "role-id.write",
    Action.SERVICE_UPDATE,
    lambda call: SetRoleId(**_named(call), role_id=text(call.fields, "role_id")),
    _no_content,
    "role_id",
)
CREATE_SECRET: Final = _route(
    "secret-id.create", Action.SERVICE_UPDATE, _create_secret, _secret, "metadata", "num_uses", "ttl", *_NO_CIDRS
)
READ_SECRET: Final = _route(
    "secret-id.lookup", Action.SERVICE_READ, _by_field(ReadSecretId, "secret_id"), _facts, "secret_id"
)
READ_SECRET_BY_ACCESSOR: Final = _route(
    "secret-id-accessor.lookup",
    Action.SERVICE_READ,
    _by_field(ReadSecretId, "secret_id_accessor"),
    _facts,
    "secret_id_accessor",
)
LIST_SECRETS: Final = _route("secret-id.list", Action.SERVICE_READ, _listed(_of_role(ListSecretIds)), _names, *_LISTED)
DESTROY_SECRET: Final = _route(
    "secret-id.destroy", Action.SERVICE_UPDATE, _by_field(DestroySecretId, "secret_id"), _no_content, "secret_id"
)
DESTROY_SECRET_BY_ACCESSOR: Final = _route(
    "secret-id-accessor.destroy",
    Action.SERVICE_UPDATE,
    _by_field(DestroySecretId, "secret_id_accessor"),
    _no_content,
    "secret_id_accessor",
)
TIDY: Final = _route(
    "tidy.secret-id",
    Action.SERVICE_UPDATE,
    lambda call: TidySecretIds(call.mount),
    lambda *_: RawReply(status=202, warnings=("Tidy operation successfully started.",)),
)


# The parts of a role at paths of their own


def _read_part(name: str, part: RoleField) -> Operation:
    def render(found: Mapping[str, Any], _: Request, __: VaultCall) -> RawReply:
        value = found[part.field]
        return RawReply({part.names[0]: list(value) if part is _POLICIES else value})

    return _route(f"role.{name}.read", Action.SERVICE_READ, _of_role(ReadRole), render)


def _write_part(name: str, part: RoleField) -> Operation:
    def build(call: VaultCall) -> Request:
        value: Any = part.given(call.fields)
        if value is None:
            raise InvalidRequest(f"missing {part.names[0]}")
        return ChangeRole(WriteRole(**_named(call), **{part.field: value}))

    route = _route(f"role.{name}.write", Action.SERVICE_UPDATE, build, _no_content, *part.names)
    return replace(route, missing=(404, "unsupported path"))


def _delete_part(name: str, part: RoleField) -> Operation:
    def build(call: VaultCall) -> Request:
        nothing: Any = part.nothing
        return ChangeRole(WriteRole(**_named(call), **{part.field: nothing}), lenient=True)

    return _route(f"role.{name}.delete", Action.SERVICE_UPDATE, build, _no_content)


PART_ROUTES: Final[Mapping[tuple[str, str], Operation]] = {
    (method, f"role/{{role}}/{name}"): make(name, part)
    for name, part in PARTS.items()
    for method, make in ((READ, _read_part), (WRITE, _write_part), (DELETE, _delete_part))
}
