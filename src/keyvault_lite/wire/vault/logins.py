"""Auth methods: bodies to requests, results to data."""

from collections.abc import Mapping
from typing import Any, Final

from keyvault_lite.dialects.vault.system_requests import (
    DisableLogin,
    EnableLogin,
    ListLogins,
    LoginMount,
    Mount,
    ReadLogin,
    TuneLogin,
)
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.leases import DEFAULT_TTL
from keyvault_lite.model.requests import Request
from keyvault_lite.wire.vault.route import NO_CONTENT, Operation, RawReply, VaultCall
from keyvault_lite.wire.vault.system import CONFIG, FIELDS, TTLS, TUNE, limits, mount_object, stable_uuid
from keyvault_lite.wire.vault.values import Fields, mapping, text

_TOKEN_TYPE: Final = "default-service"  # noqa: S105  (a kind of token)
_FIXED: Final[Mapping[str, frozenset[str]]] = {
    "force_no_cache": frozenset({"", "0", "false"}),
    "listing_visibility": frozenset({"", "hidden"}),
    "token_type": frozenset({"", _TOKEN_TYPE}),
}
"""What may be said of an auth method beside its description and limits: what is so anyway."""
_NOT_OFFERED: Final = (
    "allowed_response_headers",
    "audit_non_hmac_request_keys",
    "audit_non_hmac_response_keys",
    "options",
    "passthrough_request_headers",
    "plugin_version",
    "user_lockout_config",
)


def _object(found: LoginMount) -> dict[str, object]:
    config = {"token_type": _TOKEN_TYPE, **found.config}
    shown = mount_object(Mount(found.path, found.description, config, None))
    return {**shown, "type": found.kind, "accessor": f"auth_{found.kind}_{stable_uuid(found.path)[:8]}"}


def _limits(fields: Fields) -> dict[str, Any]:
    """The limits that are asked for. Raises InvalidRequest for an option that would silently not hold."""
    other = [name for name, fixed in _FIXED.items() if text(fields, name) not in fixed]
    other += [name for name in _NOT_OFFERED if fields.get(name)]
    if other:
        raise InvalidRequest(f"{other[0]} is fixed here")
    return {name: value for name, value in limits(fields).items() if name in TTLS}


def _enable(call: VaultCall) -> Request:
    path = call.path["path"]
    if path.endswith(TUNE):
        return _tune(call)
    kind = text(call.fields, "type")
    if not kind:
        raise InvalidRequest("backend type must be specified as a string")
    return EnableLogin(
        mount=path,
        kind=kind,
        description=text(call.fields, "description"),
        config=_limits(mapping(call.fields, "config")),
    )


def _tune(call: VaultCall) -> Request:
    path, fields = call.path["path"], call.fields
    if not path.endswith(TUNE):
        raise InvalidRequest("the path auth/ is reserved")
    description = None if fields.get("description") is None else text(fields, "description")
    return TuneLogin(mount=path.removesuffix(TUNE), description=description, config=_limits(fields))


def _shown(found: LoginMount, _: Request, call: VaultCall) -> RawReply:
    if not call.path["path"].endswith(TUNE):
        return RawReply(_object(found), merged=True)
    shown: dict[str, Any] = {**CONFIG, **found.config, "description": found.description, "token_type": _TOKEN_TYPE}
    # What is not set is what the vault has for all.
    shown |= {name: shown[name] or DEFAULT_TTL for name in TTLS}
    return RawReply(shown, merged=True)


def _page(found: tuple[LoginMount, ...], _: Request, __: VaultCall) -> RawReply:
    return RawReply({f"{one.path}/": _object(one) for one in found}, merged=True)


LIST: Final = Operation(
    operation="sys.auth.list", action=Action.SETTING_READ, build=lambda _: ListLogins(), render=_page
)
READ: Final = Operation(
    operation="sys.auth.read",
    action=Action.SERVICE_READ,
    build=lambda call: ReadLogin(call.path["path"].removesuffix(TUNE)),
    render=_shown,
)
TUNE_ONE: Final = Operation(
    operation="sys.auth.tune",
    action=Action.SETTING_UPDATE,
    build=_tune,
    render=lambda *_: NO_CONTENT,
    fields=FIELDS,
)
ENABLE: Final = Operation(
    operation="sys.auth.enable",
    action=Action.SETTING_UPDATE,
    build=_enable,
    render=lambda *_: NO_CONTENT,
    fields=FIELDS,
)
DISABLE: Final = Operation(
    operation="sys.auth.disable",
    action=Action.SETTING_UPDATE,
    build=lambda call: DisableLogin(mount=call.path["path"]),
    render=lambda *_: NO_CONTENT,
)
