"""Authorisation: pure functions over the table of model/actions.py. What the table does not allow is denied."""

from typing import Final, Protocol

from keyvault_lite.model.actions import RULES
from keyvault_lite.model.errors import Forbidden, Hidden, NotFound
from keyvault_lite.model.evidence import Action, Result
from keyvault_lite.model.identity import Permission, Principal, Role
from keyvault_lite.model.keys import Key
from keyvault_lite.model.names import SELF, KeyId
from keyvault_lite.model.operation import Authority
from keyvault_lite.model.requests import RenewToken, Request

_NOTHING: Final[frozenset[Permission]] = frozenset()
REMEMBERED: Final = 4096
"""On how many keys a principal's permissions are remembered before all are forgotten."""
ROLE_REFUSAL: Final = "the caller's role does not allow this"
GRANT_REFUSAL: Final = "the caller's grants on this key do not allow this"
NO_KEY: Final = "no such key"


def check_role(principal: Principal, request: Request, action: Action) -> None:
    """Raise Forbidden unless the principal's role may attempt the action, with whom it names if it names a service."""
    if principal.role is None:
        return
    if request.authority is Authority.VAULT or principal.role not in RULES[action].roles:
        raise Forbidden(ROLE_REFUSAL)
    if (principal.login is not None) is not (request.authority is Authority.LOGIN):
        raise Forbidden(ROLE_REFUSAL)  # credentials of a login make a token, and only they do
    if isinstance(request, RenewToken) and not may_renew(principal, request.service):
        raise Forbidden(ROLE_REFUSAL)


def check_key(principal: Principal, key: Key | None, action: Action) -> Key:
    """The key, if there is one and the principal may do this with it.

    A SERVICE without any grant on a key gets Hidden, a NotFound, exactly as for a key that does not exist; with a
    grant that covers other actions only, Forbidden. ADMIN and AUDITOR need no grants: their roles decided.
    """
    if principal.role is not Role.SERVICE:
        if key is None:
            raise NotFound(NO_KEY)
        return key
    held = _NOTHING if key is None else permissions_on(principal, key)
    if key is None or not held:
        raise Hidden(NO_KEY)
    needed = RULES[action].permissions
    if needed is None or not held >= needed:
        raise Forbidden(GRANT_REFUSAL)
    return key


def permissions_on(principal: Principal, key: Key) -> frozenset[Permission]:
    """Everything the principal's grants allow on a key.

    A pattern meets the name and the dialects' names; a key without any is matched by its id or `*` only.
    What was found is kept with the principal. Safe because records are immutable: it counts for the same object alone.
    """
    found = principal.permission_cache
    known = found.by_key.get(key.id)
    if known is not None and known[0] is key:
        return known[1]
    by_name = _sorted_out(principal) if found.by_name is None else found.by_name
    names = key.aliases if key.name is None else (key.name, *key.aliases)
    held = _NOTHING.union(*(by_name.get(one, _NOTHING) for one in (key.id, *names)))
    for grant in found.globs:
        if grant.key == "*" or any(map(grant.covers, names)):
            held |= grant.actions
    if len(found.by_key) >= REMEMBERED:
        found.by_key.clear()
    found.by_key[key.id] = (key, held)
    return held


def permissions_under(principal: Principal, name: str) -> frozenset[Permission]:
    """What the principal's grants would allow on a key of that name, if there were one."""
    return _NOTHING.union(*(grant.actions for grant in principal.grants if grant.covers(name)))


def _sorted_out(principal: Principal) -> dict[str, frozenset[Permission]]:
    """The grants on one name each, by that name, once a principal: a list of keys asks about each of them."""
    by_name: dict[str, frozenset[Permission]] = {}
    for grant in principal.grants:
        if "*" not in grant.key:
            by_name[grant.key] = by_name.get(grant.key, _NOTHING) | grant.actions
    principal.permission_cache.globs = tuple(grant for grant in principal.grants if "*" in grant.key)
    principal.permission_cache.by_name = by_name
    return by_name


def may_send(principal: Principal, action: Action, key: Key | None, space: str | None) -> bool:
    """Whether a large body is worth taking in: the principal may attempt the action, and with that key.

    A SERVICE needs a grant: on the key, or where the request names none, on some name in the space that it is about.
    """
    if principal.role is None:
        return True
    if principal.role not in RULES[action].roles:
        return False
    if principal.role is not Role.SERVICE:
        return True
    if key is not None:
        needed = RULES[action].permissions
        return permissions_on(principal, key) >= needed if needed else False
    return space is not None and may_know_space(principal, space)


class Keys(Protocol):
    """The keys of a state, set aside or not."""

    def key_record(self, key_id: KeyId) -> Key | None:
        """The record of a key."""

    def id_of_name(self, name: str) -> KeyId | None:
        """The id of the key of that name."""


def check_may_know(principal: Principal, ref: str, state: Keys) -> None:
    """Raise Hidden, as for a key that does not exist, unless the principal's grants are about a key set aside."""
    if principal.role is not Role.SERVICE:
        return
    known = state.key_record(KeyId(ref)) or state.key_record(state.id_of_name(ref) or KeyId(""))
    may = may_know(principal, known) if known else any(grant.covers(ref) for grant in principal.grants)
    if not may:
        raise Hidden(NO_KEY)


def may_know(principal: Principal, key: Key) -> bool:
    """Whether the key appears in the principal's lists."""
    return principal.role is not Role.SERVICE or bool(permissions_on(principal, key))


def may_know_space(principal: Principal, space: str) -> bool:
    """Whether any name that begins so may be one that the principal's grants are about."""
    if principal.role is not Role.SERVICE:
        return True
    parts = ((grant, *grant.key.partition("*")[:2]) for grant in principal.grants)
    return any(
        head.startswith(space) or (star and not grant.in_mount and not grant.is_native_glob and space.startswith(head))
        for grant, head, star in parts
    )


def check_reader(principal: Principal) -> None:
    """Raise Forbidden for a SERVICE: what concerns all is for ADMIN and AUDITOR."""
    if principal.role is Role.SERVICE:
        raise Forbidden(ROLE_REFUSAL)


def may_renew(principal: Principal, service: str) -> bool:
    """Whether the principal may renew the token of the service it named so: an ADMIN any, others their own.

    With that token, and not with one that was made with it or by a login: that one has less, and an end.
    """
    if principal.role in {Role.ADMIN, None}:
        return True
    return not principal.leased and service in {principal.service_id, principal.name, SELF}


def may_read_entry(principal: Principal, service_id: str | None, result: Result) -> bool:
    """Whether the principal may have the receipt of an entry of that service.

    A SERVICE has none of what was denied: such an entry names the key if there is one, and a receipt holds the entry.
    Its hash alone would reveal as much: a caller that knows a key's id could guess the entry and compare.
    """
    mine = service_id == principal.service_id and not principal.narrowed and result is not Result.DENIED
    return mine or principal.role in {Role.ADMIN, Role.AUDITOR, None}
