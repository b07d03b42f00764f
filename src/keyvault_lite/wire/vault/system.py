"""Mounts: bodies to requests, results to data."""

import hashlib
from dataclasses import replace
from typing import Any, Final

from keyvault_lite.dialects.vault.system_requests import (
    DisableMount,
    EnableMount,
    ListMounts,
    Mount,
    TuneMount,
)
from keyvault_lite.model.errors import InvalidRequest, NotFound
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.leases import DEFAULT_TTL
from keyvault_lite.model.requests import Request, SealVault
from keyvault_lite.wire.vault import signing
from keyvault_lite.wire.vault.route import NO_CONTENT, Operation, RawReply, VaultCall
from keyvault_lite.wire.vault.values import flag, mapping, optional_period, text

TUNE: Final = "/tune"
CONFIG: Final = {"default_lease_ttl": 0, "max_lease_ttl": 0, "force_no_cache": False}
TTLS: Final = ("default_lease_ttl", "max_lease_ttl")
FIELDS: Final = frozenset(
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


def stable_uuid(text: str) -> str:
    """A UUID that follows from a path: nothing is kept for it."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"


def mount_object(mount: Mount) -> dict[str, object]:
    """A key space as the products show it."""
    return {
        "accessor": "transit_" + stable_uuid(mount.path)[:8],
        "config": {**CONFIG, **mount.config},
        "description": mount.description,
        "external_entropy_access": False,
        "local": False,
        "options": mount.options,
        "plugin_version": "",
        "running_plugin_version": "",
        "running_sha256": "",
        "seal_wrap": False,
        "type": "transit",
        "uuid": stable_uuid(mount.path),
    }


def _config(fields: Any) -> dict[str, Any]:  # noqa: ANN401
    return limits(mapping(fields, "config"))


def limits(found: Any) -> dict[str, Any]:  # noqa: ANN401
    """What a body says of the limits of a mount."""
    kept: dict[str, Any] = {name: optional_period(found, name) or 0 for name in TTLS if name in found}
    if "force_no_cache" in found:
        kept["force_no_cache"] = flag(found, "force_no_cache")
    return kept


def _enable(call: VaultCall) -> Request:
    path = call.path["path"]
    if path.endswith(TUNE):
        description = None if call.fields.get("description") is None else text(call.fields, "description")
        return TuneMount(mount=path.removesuffix(TUNE), description=description, config=limits(call.fields))
    options = mapping(call.fields, "options")
    return EnableMount(
        mount=path,
        kind=text(call.fields, "type"),
        description=text(call.fields, "description"),
        config=_config(call.fields),
        options={name: value for name, value in options.items() if isinstance(value, str)} or None,
    )


def _page(found: tuple[Mount, ...], _: Request, __: VaultCall) -> RawReply:
    return RawReply({f"{one.path}/": mount_object(one) for one in found}, merged=True)


def _one(found: tuple[Mount, ...], _: Request, call: VaultCall) -> RawReply:
    path = call.path["path"]
    tuned = path.endswith(TUNE)
    path = path.removesuffix(TUNE)
    for one in found:
        if one.path == path:
            shown = mount_object(one)
            if tuned:
                shown = {**CONFIG, **one.config, "description": one.description}
                # What is not set is what the vault has for all.
                shown |= {name: shown[name] or DEFAULT_TTL for name in TTLS}
            return RawReply(shown, merged=True)
    raise InvalidRequest("No secret engine mount at that path")


def _within(found: tuple[Mount, ...], _: Request, call: VaultCall) -> RawReply:
    """The mount that a path lies in: what the command line asks before it reads."""
    path = call.path["path"].rstrip("/") + "/"
    for one in found:
        if path.startswith(one.path + "/"):
            return RawReply({**mount_object(one), "path": one.path + "/"})
    raise NotFound


MOUNTS: Final = Operation(
    operation="sys.mounts.list", action=Action.SETTING_READ, build=lambda _: ListMounts(), render=_page
)
SEAL: Final = Operation(
    operation="sys.seal", action=Action.SEAL, build=lambda _: SealVault(), render=lambda *_: NO_CONTENT
)
READ_MOUNT: Final = Operation(
    operation="sys.mounts.read", action=Action.SETTING_READ, build=lambda _: ListMounts(), render=_one
)
ENABLE: Final = Operation(
    operation="sys.mounts.enable",
    action=Action.SETTING_UPDATE,
    build=_enable,
    render=lambda *_: NO_CONTENT,
    fields=FIELDS,
)
DISABLE: Final = Operation(
    operation="sys.mounts.disable",
    action=Action.SETTING_UPDATE,
    build=lambda call: DisableMount(mount=call.path["path"]),
    render=lambda *_: NO_CONTENT,
)
UI_MOUNT: Final = Operation(
    operation="sys.internal.ui.mounts.read",
    action=Action.SETTING_READ,
    build=lambda _: ListMounts(own=True),
    render=_within,
    missing=(403, "preflight capability check returned 403, please ensure client's policies grant access to path"),
)
UI_MOUNTS: Final = Operation(
    operation="sys.internal.ui.mounts.list",
    action=Action.SETTING_READ,
    build=lambda _: ListMounts(own=True),
    render=lambda found, _, __: RawReply({"secret": {f"{one.path}/": mount_object(one) for one in found}, "auth": {}}),
)


# What the mount `transit` has too, where clients look for it without one

HASH: Final = replace(signing.HASH, operation="sys.tools.hash")
RANDOM: Final = replace(signing.RANDOM, operation="sys.tools.random")
