"""Mounts: bodies to requests, results to data."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from keyvault_lite.model.errors import InvalidRequest, NotFound
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.requests import Request
from keyvault_lite.model.transit_system import (
    DisableMount,
    EnableLogin,
    EnableMount,
    KeepLogin,
    ListMounts,
    Mount,
    ReadLogin,
    TuneMount,
)
from keyvault_lite.model.transit_tokens import DEFAULT_TTL
from keyvault_lite.wire.vault import signing
from keyvault_lite.wire.vault.route import NO_CONTENT, Call, Route, Written
from keyvault_lite.wire.vault.values import flag, mapping, optional_period, text

TUNE: Final = "/tune"
_CONFIG: Final = {"default_lease_ttl": 0, "max_lease_ttl": 0, "force_no_cache": False}
_TTLS: Final = ("default_lease_ttl", "max_lease_ttl")
_FIELDS: Final = frozenset(
    {
        "allowed_managed_keys",
        "config",
        "description",
        "external_entropy_access",
        "local",
        "options",
        "plugin_name",
        "plugin_version",
        "seal_wrap",
        "type",
    }
)


def _uuid(text: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"


def mount_object(mount: Mount) -> dict[str, object]:
    """A key space as the products show it."""
    return {
        "accessor": "transit_" + _uuid(mount.path)[:8],
        "config": {**_CONFIG, **mount.config},
        "description": mount.description,
        "external_entropy_access": False,
        "local": False,
        "options": mount.options,
        "plugin_version": "",
        "running_plugin_version": "",
        "running_sha256": "",
        "seal_wrap": False,
        "type": "transit",
        "uuid": _uuid(mount.path),
    }


def _config(fields: Any) -> dict[str, Any]:  # noqa: ANN401
    return _limits(mapping(fields, "config"))


def _limits(found: Any) -> dict[str, Any]:  # noqa: ANN401
    kept: dict[str, Any] = {name: optional_period(found, name) or 0 for name in _TTLS if name in found}
    if "force_no_cache" in found:
        kept["force_no_cache"] = flag(found, "force_no_cache")
    return kept


def _enable(call: Call) -> Request:
    path = call.path["path"]
    if path.endswith(TUNE):
        description = None if call.fields.get("description") is None else text(call.fields, "description")
        return TuneMount(mount=path.removesuffix(TUNE), description=description, config=_limits(call.fields))
    options = mapping(call.fields, "options")
    return EnableMount(
        mount=path,
        kind=text(call.fields, "type"),
        description=text(call.fields, "description"),
        config=_config(call.fields),
        options={name: value for name, value in options.items() if isinstance(value, str)} or None,
    )


def _page(found: tuple[Mount, ...], _: Request, __: Call) -> Written:
    return Written({f"{one.path}/": mount_object(one) for one in found}, merged=True)


def _one(found: tuple[Mount, ...], _: Request, call: Call) -> Written:
    path = call.path["path"]
    tuned = path.endswith(TUNE)
    path = path.removesuffix(TUNE)
    for one in found:
        if one.path == path:
            shown = mount_object(one)
            if tuned:
                shown = {**_CONFIG, **one.config, "description": one.description}
                # What is not set is what the vault has for all.
                shown |= {name: shown[name] or DEFAULT_TTL for name in _TTLS}
            return Written(shown, merged=True)
    raise InvalidRequest("No secret engine mount at that path")


def _within(found: tuple[Mount, ...], _: Request, call: Call) -> Written:
    """The mount that a path lies in: what the command line asks before it reads."""
    path = call.path["path"].rstrip("/") + "/"
    for one in found:
        if path.startswith(one.path + "/"):
            return Written({**mount_object(one), "path": one.path + "/"})
    raise NotFound


MOUNTS: Final = Route(
    operation="sys.mounts.list", action=Action.SETTING_READ, build=lambda _: ListMounts(), render=_page
)
READ_MOUNT: Final = Route(
    operation="sys.mounts.read", action=Action.SETTING_READ, build=lambda _: ListMounts(), render=_one
)
ENABLE: Final = Route(
    operation="sys.mounts.enable",
    action=Action.SETTING_UPDATE,
    build=_enable,
    render=lambda *_: NO_CONTENT,
    fields=_FIELDS,
)
DISABLE: Final = Route(
    operation="sys.mounts.disable",
    action=Action.SETTING_UPDATE,
    build=lambda call: DisableMount(mount=call.path["path"]),
    render=lambda *_: NO_CONTENT,
)
UI_MOUNT: Final = Route(
    operation="sys.internal.ui.mounts.read",
    action=Action.SETTING_READ,
    build=lambda _: ListMounts(own=True),
    render=_within,
    missing=(403, "preflight capability check returned 403, please ensure client's policies grant access to path"),
)
UI_MOUNTS: Final = Route(
    operation="sys.internal.ui.mounts.list",
    action=Action.SETTING_READ,
    build=lambda _: ListMounts(own=True),
    render=lambda found, _, __: Written({"secret": {f"{one.path}/": mount_object(one) for one in found}, "auth": {}}),
)


# What the mount `transit` has too, where clients look for it without one

HASH: Final = replace(signing.HASH, operation="sys.tools.hash")
RANDOM: Final = replace(signing.RANDOM, operation="sys.tools.random")


# Ways to log in: tokens always, AppRole too; enabling what is there succeeds, and nothing else can be

LOGINS: Final = ("approle", "token")
_TOKEN_TYPE: Final = "default-service"  # noqa: S105  (a kind of token)
_FIXED: Final[Mapping[str, frozenset[str]]] = {
    "description": frozenset({""}),
    "force_no_cache": frozenset({"", "0", "false"}),
    "listing_visibility": frozenset({"", "hidden"}),
    "token_type": frozenset({"", _TOKEN_TYPE}),
}
"""What tuning may say of a way to log in beside its TTLs: what is so anyway."""
_NOT_TUNED: Final = (
    "allowed_response_headers",
    "audit_non_hmac_request_keys",
    "audit_non_hmac_response_keys",
    "options",
    "passthrough_request_headers",
    "plugin_version",
    "user_lockout_config",
)


def _auth(kind: str) -> dict[str, object]:
    shown = mount_object(Mount(kind, "", {"token_type": _TOKEN_TYPE}, None))
    return {**shown, "type": kind, "accessor": f"auth_{kind}_{_uuid(kind)[:8]}"}


def _enable_auth(call: Call) -> Request:
    if call.path["path"].endswith(TUNE):
        return _tune_auth(call)
    if (call.path["path"], text(call.fields, "type")) != ("approle", "approle"):
        raise InvalidRequest("the ways to log in here are token and approle, each at its own path")
    return EnableLogin()


def _tune_auth(call: Call) -> Request:
    """Succeeds if it asks for what is so anyway: what would silently not hold is refused."""
    path, fields = call.path["path"], call.fields
    if not path.endswith(TUNE):
        raise InvalidRequest("the path auth/ is reserved")
    if path.removesuffix(TUNE) not in LOGINS:
        raise InvalidRequest(_NO_LOGIN)
    other = [name for name in _TTLS if optional_period(fields, name) not in {None, 0, DEFAULT_TTL}]
    other += [name for name, fixed in _FIXED.items() if text(fields, name) not in fixed]
    other += [name for name in _NOT_TUNED if fields.get(name)]
    if other:
        raise InvalidRequest(f"{other[0]} is fixed here")
    return KeepLogin()


def _read_auth(call: Call) -> Request:
    if call.path["path"].removesuffix(TUNE) not in LOGINS:
        raise InvalidRequest(_NO_LOGIN)
    return ReadLogin()


def _shown_auth(_: None, __: Request, call: Call) -> Written:
    path = call.path["path"]
    if not path.endswith(TUNE):
        return Written(_auth(path), merged=True)
    ttls = dict.fromkeys(_TTLS, DEFAULT_TTL)
    return Written({**_CONFIG, **ttls, "description": "", "token_type": _TOKEN_TYPE}, merged=True)


def _disable_auth(call: Call) -> Request:
    if call.path["path"] in LOGINS:
        raise InvalidRequest("the ways to log in cannot be disabled; delete the roles instead")
    return KeepLogin()


_NO_LOGIN: Final = "there is no way to log in at that path"
AUTHS: Final = Route(
    operation="sys.auth.list",
    action=Action.SETTING_READ,
    build=lambda _: ListMounts(),
    render=lambda *_: Written({f"{kind}/": _auth(kind) for kind in LOGINS}, merged=True),
)
READ_AUTH: Final = Route(operation="sys.auth.read", action=Action.SERVICE_READ, build=_read_auth, render=_shown_auth)
TUNE_AUTH: Final = Route(
    operation="sys.auth.tune",
    action=Action.SETTING_UPDATE,
    build=_tune_auth,
    render=lambda *_: NO_CONTENT,
    fields=_FIELDS,
)
ENABLE_AUTH: Final = Route(
    operation="sys.auth.enable",
    action=Action.SETTING_UPDATE,
    build=_enable_auth,
    render=lambda *_: NO_CONTENT,
    fields=_FIELDS,
)
DISABLE_AUTH: Final = Route(
    operation="sys.auth.disable", action=Action.SETTING_UPDATE, build=_disable_auth, render=lambda *_: NO_CONTENT
)
