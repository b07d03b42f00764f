"""Mounts of the Vault dialect: the key spaces there are. Each is a setting of the vault, `vault/mounts/<path>`.

The mount `transit` is there from the beginning, so that a client needs nothing but another address; enabling it for the
first time succeeds. A mount that is disabled takes its keys with it: they wait for their destruction, and until then
each can be restored by its id.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from msgspec import structs

from keyvault_lite.access.authorize import check_reader, may_know_space
from keyvault_lite.dialects.vault.requests import DeletionKind, NoMount, ReadUpsert, Rules, SetUpsert, namespace
from keyvault_lite.dialects.vault.rules import is_absent
from keyvault_lite.dialects.vault.system_requests import DisableMount, EnableMount, ListMounts, Mount, TuneMount
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.engine.keys import DAY
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.identity import Setting
from keyvault_lite.model.keys import MAX_DESTROY_DAYS, Key, KeyStatus
from keyvault_lite.model.requests import Request

PREFIX: Final = "vault/mounts/"
WRAPPING: Final = "vault/wrapping/"
"""Where the pair is kept that a mount's keys are wrapped for on their way in; it ends with the mount."""
FIRST: Final = "transit"
"""The mount there is from the beginning."""
ENABLED: Final = "enabled"


def _setting(state: State, path: str) -> Mapping[str, Any] | None:
    found = state.setting(PREFIX + path)
    if found is None or found.value is None:
        return {} if path == FIRST else None
    return found.value if found.value.get(ENABLED, True) else None


def require_mount(state: State, path: str) -> Mapping[str, Any]:
    """What is kept of a mount. Raises NoMount."""
    found = _setting(state, path)
    if found is None:
        raise NoMount(f'no handler for route "{path}/". route entry not found.')
    return found


def _mount(path: str, value: Mapping[str, Any]) -> Mount:
    return Mount(path, value.get("description", ""), value.get("config", {}), value.get("options"))


def page(request: ListMounts, ctx: HandlerContext) -> HandlerResult:
    """Every mount, by path; a SERVICE sees those that its grants are about, without their settings."""
    if not request.own:
        check_reader(ctx.principal)
    paths = [path for path in _paths(ctx.state) if may_know_space(ctx.principal, namespace(path))]
    return HandlerResult(tuple(_mount(path, require_mount(ctx.state, path)) for path in paths))


def enable(request: EnableMount, ctx: HandlerContext) -> HandlerResult:
    """A new key space. Raises InvalidRequest for a path that is taken, lies in a mount or has one in it."""
    path = request.mount
    taken = [one for one in _paths(ctx.state) if (one + "/").startswith(path + "/") or path.startswith(one + "/")]
    first = path == FIRST and ctx.state.setting(PREFIX + FIRST) is None
    if taken and not first:
        raise InvalidRequest(f"path is already in use at {taken[0]}/")
    value = {"description": request.description, "config": dict(request.config), "options": request.options}
    return HandlerResult(None, Change(settings=(Setting(PREFIX + path, value),)))


def _paths(state: State) -> list[str]:
    names = {one.name.removeprefix(PREFIX) for one in state.settings_under(PREFIX)} | {FIRST}
    return sorted(name for name in names if _setting(state, name) is not None)


def tune(request: TuneMount, ctx: HandlerContext) -> HandlerResult:
    """Change a mount's description and limits of leases, which keys have none of."""
    value = dict(require_mount(ctx.state, request.mount))
    if request.description is not None:
        value["description"] = request.description
    value["config"] = {**value.get("config", {}), **request.config}
    return HandlerResult(None, Change(settings=(Setting(PREFIX + request.mount, value),)))


def disable(request: DisableMount, ctx: HandlerContext) -> HandlerResult:
    """The end of a key space and, after their waiting period, of its keys. A mount that is not there is none either."""
    value = _setting(ctx.state, request.mount)
    if value is None:
        return HandlerResult(None)
    space = namespace(request.mount)
    keys = tuple(
        _deleted(key, space, ctx.now)
        for key in ctx.state.keys_after(None)
        if any(name.namespace == space for name in key.names)
    )
    gone = [Setting(PREFIX + request.mount, {ENABLED: False} if request.mount == FIRST else None)]
    if ctx.state.setting(WRAPPING + request.mount) is not None:
        gone.append(Setting(WRAPPING + request.mount, None))
    return HandlerResult(len(keys), Change(keys=keys, settings=tuple(gone)))


def _deleted(key: Key, space: str, now: int) -> Key:
    """The key without its names in the space; they are free for a later mount at the path."""
    key = structs.replace(key, names=tuple(name for name in key.names if name.namespace != space))
    return key if is_absent(key) else deleted(key, DeletionKind.HARD, now)


def deleted(key: Key, how: DeletionKind, now: int) -> Key:
    """The key with its destruction scheduled; a time that stands already stays."""
    waiting = key.status is KeyStatus.PENDING_DESTRUCTION
    return structs.replace(
        key,
        status=KeyStatus.PENDING_DESTRUCTION,
        was_revoked=key.was_revoked if waiting else key.status is KeyStatus.REVOKED,
        destroy_at=key.destroy_at if waiting else now + MAX_DESTROY_DAYS * DAY,
        rotate_at=None,
        attributes={**key.attributes, **replace(Rules.of(key), deleted=how).attributes()},
    )


def upserts(state: State, mount: str) -> bool:
    """Whether encrypting under a missing key makes one, for callers that may make keys."""
    return bool(require_mount(state, mount).get("upsert", True))


def read_upsert(request: ReadUpsert, ctx: HandlerContext) -> HandlerResult:
    """See `upserts`. To a SERVICE every mount looks the same, existing or not."""
    check_reader(ctx.principal)
    return HandlerResult(upserts(ctx.state, request.mount))


def set_upsert(request: SetUpsert, ctx: HandlerContext) -> HandlerResult:
    """See `upserts`."""
    value = {**require_mount(ctx.state, request.mount), "upsert": request.enabled}
    return HandlerResult(request.enabled, Change(settings=(Setting(PREFIX + request.mount, value),)))


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    DisableMount: disable,
    EnableMount: enable,
    ListMounts: page,
    ReadUpsert: read_upsert,
    SetUpsert: set_upsert,
    TuneMount: tune,
}
