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
from keyvault_lite.dialects.vault.requests import Deleted, NoMount, ReadUpsert, Rules, SetUpsert, namespace
from keyvault_lite.dialects.vault.rules import is_absent
from keyvault_lite.dialects.vault.system_requests import DisableMount, EnableMount, ListMounts, Mount, TuneMount
from keyvault_lite.engine.keys import DAY
from keyvault_lite.engine.scene import Done, Handler, Scene
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


def page(request: ListMounts, scene: Scene) -> Done:
    """Every mount, by path; a SERVICE is told of those that its grants are about, and only who asks for no more."""
    if not request.own:
        check_reader(scene.principal)
    paths = [path for path in _paths(scene.state) if may_know_space(scene.principal, namespace(path))]
    return Done(tuple(_mount(path, require_mount(scene.state, path)) for path in paths))


def enable(request: EnableMount, scene: Scene) -> Done:
    """A new key space. Raises InvalidRequest for a path that is taken, lies in a mount or has one in it."""
    path = request.mount
    taken = [one for one in _paths(scene.state) if (one + "/").startswith(path + "/") or path.startswith(one + "/")]
    first = path == FIRST and scene.state.setting(PREFIX + FIRST) is None
    if taken and not first:
        raise InvalidRequest(f"path is already in use at {taken[0]}/")
    value = {"description": request.description, "config": dict(request.config), "options": request.options}
    return Done(None, Change(settings=(Setting(PREFIX + path, value),)))


def _paths(state: State) -> list[str]:
    names = {one.name.removeprefix(PREFIX) for one in state.settings_under(PREFIX)} | {FIRST}
    return sorted(name for name in names if _setting(state, name) is not None)


def tune(request: TuneMount, scene: Scene) -> Done:
    """Change a mount's description and limits of leases, which keys have none of."""
    value = dict(require_mount(scene.state, request.mount))
    if request.description is not None:
        value["description"] = request.description
    value["config"] = {**value.get("config", {}), **request.config}
    return Done(None, Change(settings=(Setting(PREFIX + request.mount, value),)))


def disable(request: DisableMount, scene: Scene) -> Done:
    """The end of a key space and, after their waiting period, of its keys. A mount that is not there is none either."""
    value = _setting(scene.state, request.mount)
    if value is None:
        return Done(None)
    space = namespace(request.mount)
    keys = tuple(
        _deleted(key, space, scene.now)
        for key in scene.state.keys_after(None)
        if any(name.namespace == space for name in key.names)
    )
    gone = [Setting(PREFIX + request.mount, {ENABLED: False} if request.mount == FIRST else None)]
    if scene.state.setting(WRAPPING + request.mount) is not None:
        gone.append(Setting(WRAPPING + request.mount, None))
    return Done(len(keys), Change(keys=keys, settings=tuple(gone)))


def _deleted(key: Key, space: str, now: int) -> Key:
    """The key without its names in the space; they are free for whoever mounts the path again."""
    key = structs.replace(key, names=tuple(name for name in key.names if name.namespace != space))
    return key if is_absent(key) else deleted(key, Deleted.HARD, now)


def deleted(key: Key, how: Deleted, now: int) -> Key:
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
    """Whether encrypting under a missing key makes one, for who may make keys."""
    return bool(require_mount(state, mount).get("upsert", True))


def read_upsert(request: ReadUpsert, scene: Scene) -> Done:
    """See `upserts`. A SERVICE is told of no mount whether it is there."""
    check_reader(scene.principal)
    return Done(upserts(scene.state, request.mount))


def set_upsert(request: SetUpsert, scene: Scene) -> Done:
    """See `upserts`."""
    value = {**require_mount(scene.state, request.mount), "upsert": request.enabled}
    return Done(request.enabled, Change(settings=(Setting(PREFIX + request.mount, value),)))


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    DisableMount: disable,
    EnableMount: enable,
    ListMounts: page,
    ReadUpsert: read_upsert,
    SetUpsert: set_upsert,
    TuneMount: tune,
}
