"""Tokens and logins: bodies to requests, results to data."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from keyvault_lite.dialects.vault.credentials import AppRoleCredential
from keyvault_lite.dialects.vault.token_requests import (
    CreateToken,
    ExtendToken,
    IssuedToken,
    ListTokens,
    Login,
    ReadCapabilities,
    ReadToken,
    RevokeToken,
    TokenFacts,
)
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import Credential
from keyvault_lite.model.leases import MADE
from keyvault_lite.model.requests import Request
from keyvault_lite.wire.vault.route import NO_CONTENT, Operation, RawReply, VaultCall
from keyvault_lite.wire.vault.values import Fields, flag, mapping, optional_flag, optional_period, text, texts

_SECOND: Final = 1_000_000


def rfc3339(microseconds: int | None) -> str | None:
    """As the products write a time."""
    if microseconds is None:
        return None
    return datetime.fromtimestamp(microseconds // _SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _left(found: TokenFacts) -> int:
    return 0 if found.expires_at is None else max(0, (found.expires_at - found.now) // _SECOND)


def token_object(found: TokenFacts, token: str | None) -> dict[str, object]:
    """A token as the products show it. `id` is there for the caller's own only."""
    lease, kept = found.lease, found.token
    written: dict[str, object] = {
        "accessor": kept.id,
        "creation_time": kept.created_at // _SECOND,
        "creation_ttl": 0 if lease is None else lease.ttl,
        "display_name": f"token-{found.service}" if lease is None else lease.display_name,
        "entity_id": "",
        "expire_time": rfc3339(found.expires_at),
        "explicit_max_ttl": 0 if lease is None else lease.explicit_max_ttl,
        "id": token or "",
        "issue_time": rfc3339(kept.created_at),
        "meta": None if lease is None or not lease.meta else dict(lease.meta),
        "num_uses": 0,
        "orphan": kept.parent is None,
        "path": MADE if lease is None else lease.path,
        "policies": list(found.policies),
        "renewable": lease is not None and lease.renewable,
        "ttl": _left(found),
        "type": "service",
    }
    if lease is not None and lease.period:
        written["period"] = lease.period
    return written


def auth_object(result: IssuedToken, token: str | None) -> dict[str, object]:
    """What a login, a new token or a renewal answers."""
    found = result.facts
    lease = found.lease
    return {
        "client_token": result.text or token or "",
        "accessor": found.token.id,
        "policies": list(found.policies),
        "token_policies": list(found.policies),
        "metadata": None if lease is None or not lease.meta else dict(lease.meta),
        "lease_duration": _left(found),
        "renewable": lease is not None and lease.renewable,
        "entity_id": "",
        "token_type": "service",
        "orphan": found.token.parent is None,
        "mfa_requirement": None,
        "num_uses": 0,
    }


def _issued(result: IssuedToken, _: Request, call: VaultCall) -> RawReply:
    """Of the caller's own token, or a new one, which is in the result."""
    return RawReply(None, auth=auth_object(result, call.token), warnings=result.warnings)


def _issued_by_name(result: IssuedToken, _: Request, call: VaultCall) -> RawReply:
    return RawReply(None, auth=auth_object(result, text(call.fields, "token")), warnings=result.warnings)


def _issued_by_accessor(result: IssuedToken, _: Request, __: VaultCall) -> RawReply:
    """A caller that knows a token by its accessor alone sees no token: not its own in its place either."""
    return RawReply(None, auth=auth_object(result, None), warnings=result.warnings)


def _nothing_of(fields: Fields, *names: str) -> None:
    """Refuse options that would silently not hold."""
    for name in names:
        if fields.get(name):
            raise InvalidRequest(f"{name} is not offered here")


def _create(call: VaultCall) -> Request:
    fields = call.fields
    _nothing_of(fields, "id", "num_uses", "entity_alias", "no_default_policy")
    if text(fields, "type") not in {"", "service", "default"}:
        raise InvalidRequest("the only type of token here is service")
    meta = mapping(fields, "meta") or mapping(fields, "metadata")
    renewable = optional_flag(fields, "renewable")
    ttl = optional_period(fields, "ttl")
    return CreateToken(
        ttl=(optional_period(fields, "lease") if ttl is None else ttl) or None,
        explicit_max_ttl=optional_period(fields, "explicit_max_ttl") or 0,
        period=optional_period(fields, "period") or 0,
        renewable=True if renewable is None else renewable,
        display_name=text(fields, "display_name"),
        policies=texts(fields, "policies"),
        meta={name: text(meta, name) for name in meta},
        orphan=flag(fields, "no_parent") or call.path.get("orphan") is not None,
    )


def _create_orphan(call: VaultCall) -> Request:
    return _create(VaultCall(call.mount, {**call.path, "orphan": ""}, call.fields, call.token))


def _own(kind: Callable[..., Request]) -> Callable[[VaultCall], Request]:
    return lambda _: kind()


def _by_token(kind: Callable[..., Request]) -> Callable[[VaultCall], Request]:
    def build(call: VaultCall) -> Request:
        token = text(call.fields, "token")
        if not token:
            raise InvalidRequest("missing token")
        return kind(token=token)

    return build


def _named_or_own(call: VaultCall) -> Request:
    return ReadToken(token=text(call.fields, "token") or None)


def _by_accessor(kind: Callable[..., Request]) -> Callable[[VaultCall], Request]:
    def build(call: VaultCall) -> Request:
        accessor = text(call.fields, "accessor")
        if not accessor:
            raise InvalidRequest("missing accessor")
        return kind(accessor=accessor)

    return build


def _extension(**named: str) -> Callable[[VaultCall], Request]:
    def build(call: VaultCall) -> Request:
        given = {name: text(call.fields, field) for name, field in named.items()}
        if "" in given.values():
            raise InvalidRequest("missing token")
        return ExtendToken(increment=optional_period(call.fields, "increment") or None, **given)

    return build


def _shown(found: TokenFacts, _: Request, call: VaultCall) -> RawReply:
    """Of the caller's own token."""
    return RawReply(token_object(found, call.token))


def _shown_by_name(found: TokenFacts, _: Request, call: VaultCall) -> RawReply:
    return RawReply(token_object(found, text(call.fields, "token") or call.token))


def _shown_by_accessor(found: TokenFacts, _: Request, __: VaultCall) -> RawReply:
    return RawReply(token_object(found, None))


def _route(
    operation: str,
    action: Action,
    build: Callable[[VaultCall], Request],
    render: Any,  # noqa: ANN401
    *fields: str,
) -> Operation:
    return Operation(
        operation=f"auth.token.{operation}", action=action, build=build, render=render, fields=frozenset(fields)
    )


_NEW: Final = (
    "display_name",
    "entity_alias",
    "explicit_max_ttl",
    "id",
    "lease",
    "meta",
    "metadata",
    "no_default_policy",
    "no_parent",
    "num_uses",
    "period",
    "policies",
    "renewable",
    "ttl",
    "type",
)
LOOKUP_SELF: Final = _route("lookup-self", Action.TOKEN_READ, _own(ReadToken), _shown, "token")
LOOKUP: Final = _route("lookup", Action.TOKEN_READ, _named_or_own, _shown_by_name, "token")
LOOKUP_ACCESSOR: Final = _route(
    "lookup-accessor", Action.TOKEN_READ, _by_accessor(ReadToken), _shown_by_accessor, "accessor"
)
LIST: Final = _route(
    "list", Action.SERVICE_READ, lambda _: ListTokens(), lambda found, _, __: RawReply({"keys": list(found)}), "list"
)
CREATE: Final = _route("create", Action.TOKEN_CREATE, _create, _issued, *_NEW)
CREATE_ORPHAN: Final = _route("create-orphan", Action.TOKEN_CREATE, _create_orphan, _issued, *_NEW)
RENEW_SELF: Final = _route("renew-self", Action.TOKEN_EXTEND, _extension(), _issued, "increment", "token")
RENEW: Final = _route("renew", Action.TOKEN_EXTEND, _extension(token="token"), _issued_by_name, "increment", "token")  # noqa: S106
RENEW_ACCESSOR: Final = _route(
    "renew-accessor",
    Action.TOKEN_EXTEND,
    _extension(accessor="accessor"),
    _issued_by_accessor,
    "increment",
    "accessor",
)
REVOKE_SELF: Final = _route("revoke-self", Action.TOKEN_REVOKE, _own(RevokeToken), lambda *_: NO_CONTENT, "token")
REVOKE: Final = _route("revoke", Action.TOKEN_REVOKE, _by_token(RevokeToken), lambda *_: NO_CONTENT, "token")
REVOKE_ACCESSOR: Final = _route(
    "revoke-accessor", Action.TOKEN_REVOKE, _by_accessor(RevokeToken), lambda *_: NO_CONTENT, "accessor"
)


# Logins and capabilities


def _role_credential(call: VaultCall) -> Credential:
    role_id, secret_id = text(call.fields, "role_id"), text(call.fields, "secret_id")
    return AppRoleCredential(role_id=role_id, secret_id=secret_id, mount=call.mount)


LOGIN: Final = Operation(
    operation="auth.approle.login",
    action=Action.LOGIN,
    build=lambda _: Login(),
    render=_issued,
    credential=_role_credential,
    fields=frozenset({"role_id", "secret_id"}),
    unauthenticated=(400, "invalid role or secret ID"),
)
MAX_PATHS: Final = 256


def _paths(call: VaultCall) -> tuple[str, ...]:
    paths = texts(call.fields, "paths") or texts(call.fields, "path")
    if not paths:
        raise InvalidRequest("missing path")
    if len(paths) > MAX_PATHS:
        raise InvalidRequest("too many paths")
    return paths


def _capabilities(named_by: str) -> Operation:
    """What a token may do: the caller's own, or the one that a field names."""
    fields = (named_by,) if named_by else ()

    def build(call: VaultCall) -> Request:
        named = {name: text(call.fields, name) for name in fields}
        if "" in named.values():
            raise InvalidRequest(f"missing {named_by}")
        return ReadCapabilities(paths=_paths(call), **named)

    return Operation(
        operation="-".join(filter(None, ("sys.capabilities", "" if named_by == "token" else named_by or "self"))),
        action=Action.TOKEN_READ,
        build=build,
        render=_shown_capabilities,
        fields=frozenset({"path", "paths", "token", *fields}),
    )


def _shown_capabilities(result: Any, _: Request, __: VaultCall) -> RawReply:  # noqa: ANN401
    shown: dict[str, object] = {path: list(held) for path, held in result.items()}
    if len(shown) == 1:
        shown["capabilities"] = next(iter(shown.values()))
    return RawReply(shown, merged=True)


CAPABILITIES: Final = _capabilities("token")
CAPABILITIES_SELF: Final = _capabilities("")
CAPABILITIES_ACCESSOR: Final = _capabilities("accessor")
