"""Auth methods of the Vault dialect: tokens, and AppRole at any number of paths, each with roles of its own.

AppRole is enabled at `approle` from the beginning, and enabling it there for the first time succeeds. What is kept of
a path is a setting of the vault, `vault/auth/<path>`. Disabling a path ends its roles with their secrets and tokens.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from keyvault_lite.access.authorize import check_reader
from keyvault_lite.dialects.vault.credentials import APPROLE
from keyvault_lite.dialects.vault.requests import NoMount
from keyvault_lite.dialects.vault.system_requests import (
    TOKEN,
    DisableLogin,
    EnableLogin,
    ListLogins,
    LoginMount,
    ReadLogin,
    TuneLogin,
)
from keyvault_lite.dialects.vault.token_requests import role_ids_at, roles_at, secrets_at
from keyvault_lite.engine.handler import Handler, HandlerContext, HandlerResult
from keyvault_lite.ledger.state.outcome import Change
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.identity import Setting
from keyvault_lite.model.leases import DEFAULT_TTL
from keyvault_lite.model.requests import Request

PREFIX: Final = "vault/auth/"
ENABLED: Final = "enabled"
NO_LOGIN: Final = "there is no auth method at that path"


def _find(state: State, path: str) -> LoginMount | None:
    if path == TOKEN:
        return LoginMount(TOKEN, TOKEN, "", {})
    found = state.setting(PREFIX + path)
    value: Mapping[str, Any] | None = None if found is None else found.value
    if value is None:
        return LoginMount(APPROLE, "approle", "", {}) if path == APPROLE else None
    if not value.get(ENABLED, True):
        return None
    return LoginMount(path, "approle", value["description"], value["config"])


def require_login(state: State, path: str) -> LoginMount:
    """The AppRole mount at a path. Raises NoMount."""
    found = _find(state, path)
    if found is None or found.kind == TOKEN:
        raise NoMount(f'no handler for route "auth/{path}/". route entry not found.')
    return found


def roles_of(mount: str, state: State) -> list[str]:
    """The names of a mount's roles."""
    prefix = roles_at(mount)
    return [one.name.removeprefix(prefix) for one in state.settings_under(prefix)]


def end_of_roles(mount: str, roles: Iterable[str], state: State) -> Change:
    """The change that ends roles: their services are deactivated, their ids and secrets are gone."""
    services, gone = [], []
    for role in roles:
        found = state.setting(roles_at(mount) + role)
        if found is None or found.value is None:
            continue
        service = state.find_service(found.value["service"])
        services += [] if service is None else [replace(service, active=False)]
        gone += [found.name, role_ids_at(mount) + found.value["role_id"]]
        gone += [one.name for one in state.settings_under(f"{secrets_at(mount)}{role}/")]
    return Change(services=tuple(services), settings=tuple(Setting(name, None) for name in gone))


def _paths(state: State) -> list[str]:
    names = {one.name.removeprefix(PREFIX) for one in state.settings_under(PREFIX)} | {APPROLE, TOKEN}
    return sorted(name for name in names if _find(state, name) is not None)


def page(_: ListLogins, ctx: HandlerContext) -> HandlerResult:
    """Every auth method, by path: for callers that may list services."""
    check_reader(ctx.principal)
    found = (_find(ctx.state, path) for path in _paths(ctx.state))
    return HandlerResult(tuple(one for one in found if one is not None))


def read(request: ReadLogin, ctx: HandlerContext) -> HandlerResult:
    """One auth method."""
    found = _find(ctx.state, request.mount)
    if found is None:
        raise InvalidRequest(NO_LOGIN)
    return HandlerResult(found)


def enable(request: EnableLogin, ctx: HandlerContext) -> HandlerResult:
    """AppRole at another path. Raises InvalidRequest for one that is taken, lies in one or has one in it."""
    path = request.mount
    taken = [one for one in _paths(ctx.state) if f"{one}/".startswith(f"{path}/") or path.startswith(f"{one}/")]
    first = path == APPROLE and ctx.state.setting(PREFIX + APPROLE) is None
    if taken and not first:
        raise InvalidRequest(f"path is already in use at {taken[0]}/")
    return _kept(path, request.description, _checked(request.config))


def tune(request: TuneLogin, ctx: HandlerContext) -> HandlerResult:
    """Another description, and other limits for the tokens of later logins; 0 is what the vault has for all."""
    found = _find(ctx.state, request.mount)
    if found is None:
        raise InvalidRequest(NO_LOGIN)
    description = found.description if request.description is None else request.description
    config = _checked({**found.config, **request.config})
    if request.mount == TOKEN:
        if description or any(value not in {0, DEFAULT_TTL} for value in config.values()):
            raise InvalidRequest("the auth method of tokens is fixed here")
        return HandlerResult(None)
    return _kept(request.mount, description, config)


def _kept(path: str, description: str, config: Mapping[str, Any]) -> HandlerResult:
    value = {"description": description, "config": dict(config)}
    return HandlerResult(None, Change(settings=(Setting(PREFIX + path, value),)), comment=f"auth/{path}")


def _checked(config: Mapping[str, Any]) -> Mapping[str, Any]:
    longest = config.get("max_lease_ttl", 0)
    default = config.get("default_lease_ttl", 0)
    if max(longest, default) > DEFAULT_TTL:
        raise InvalidRequest(f"a lease of an auth method is at most {DEFAULT_TTL} seconds here")
    if 0 < longest < default:
        raise InvalidRequest(
            f"backend max lease TTL of {longest} would be less than backend default lease TTL of {default}"
        )
    return config


def disable(request: DisableLogin, ctx: HandlerContext) -> HandlerResult:
    """The end of an auth method, its roles and their tokens. One that is not there is none either."""
    path = request.mount
    if path == TOKEN:
        raise InvalidRequest("token credential backend cannot be disabled")
    if _find(ctx.state, path) is None:
        return HandlerResult(None)
    roles = roles_of(path, ctx.state)
    ended = end_of_roles(path, roles, ctx.state)
    gone = Setting(PREFIX + path, {ENABLED: False} if path == APPROLE else None)
    return HandlerResult(len(roles), replace(ended, settings=(*ended.settings, gone)), comment=f"auth/{path}")


HANDLERS: Final[Mapping[type[Request], Handler]] = {
    DisableLogin: disable,
    EnableLogin: enable,
    ListLogins: page,
    ReadLogin: read,
    TuneLogin: tune,
}
