"""Tokens of the Vault dialect: whether they still hold, what they are held to, and AppRole credentials. Pure functions.

A leased token lives no longer than its parent: renewing, revoking or expiring the parent, or deactivating its service,
ends it in that moment, because every use walks up to the token at the top.
"""

from typing import Final, Protocol

from keyvault_lite.dialects.vault.token_requests import (
    GRANTS,
    MAKES_TOKENS,
    POLICIES,
    Lease,
    role_ids_at,
    roles_at,
    secrets_at,
)
from keyvault_lite.model.encoding import decode_base64
from keyvault_lite.model.identity import AppRoleCredential, Grant, Permission, Role, Service, Setting, Token
from keyvault_lite.model.names import TokenId

DEPTH: Final = 16
"""Generations of children."""


class Leases(Protocol):
    """What is read of the verified state."""

    def token(self, token_id: TokenId) -> Token | None:
        """The token of that id."""

    def setting(self, name: str) -> Setting | None:
        """The setting of that name."""

    def find_service(self, ref: str) -> Service | None:
        """The service of that id."""


class Secrets(Protocol):
    """What is asked of the keyring."""

    def token_matches(self, token_id: TokenId, secret: str, stored: bytes | None) -> bool:
        """Whether a secret is the one whose keyed digest is stored; None costs the same and is false."""


def is_past(end: int | None, now: int) -> bool:
    """Whether what ends at that time, or never, has ended (microseconds)."""
    return end is not None and end <= now


def ancestors_live(token: Token, directory: Leases, now: int) -> bool:
    """Whether every token above this one still holds, up to the one that has no parent."""
    for _ in range(DEPTH):
        if token.parent is None:
            return True
        above = directory.token(token.parent)
        if above is None or above.ended_at is not None or above.service_id != token.service_id:
            return False
        if is_past(above.expires_at, now):
            return False
        token = above
    return False


def end_of(token: Token, service: Service, directory: Leases) -> int | None:
    """When a token ends: by itself, or with its service or a token above it (microseconds); None if it does not."""
    ends = [token.expires_at, service.expires_at]
    above: Token | None = token
    for _ in range(DEPTH):
        above = None if above is None or above.parent is None else directory.token(above.parent)
        ends.append(None if above is None else above.expires_at)
    return min((end for end in ends if end is not None), default=None)


def authority(token: Token, service: Service, directory: Leases) -> tuple[Role, tuple[Grant, ...], bool]:
    """The role and grants that a token acts with, and whether that is less than its service's.

    A token held to policies is a SERVICE, with what they come to. The token of a login has what its service was granted
    beside; one of an AUDITOR, who uses no key, gets none.
    """
    lease = Lease.of(token) if token.attributes else None
    if lease is None or lease.policies is None:
        return service.role, service.grants, False
    if service.role is Role.AUDITOR:
        return Role.SERVICE, (), True
    given = tuple(grant for name in lease.policies for grant in policy_grants(name, directory))
    if service.role is Role.SERVICE and not lease.alone:
        return Role.SERVICE, (*service.grants, *given), False
    return Role.SERVICE, given, True


def policy_grants(name: str, directory: Leases) -> tuple[Grant, ...]:
    """What a policy comes to; nothing, if there is none of that name."""
    found = directory.setting(POLICIES + name)
    if found is None or found.value is None:
        return ()
    kept = found.value[GRANTS]
    return tuple(Grant(key, frozenset(map(Permission, actions)), in_mount=True) for key, actions in kept)


def makes_tokens(lease: Lease | None, directory: Leases) -> bool:
    """Whether a token of that lease may make children: one that is held to policies, only if one of them says so."""
    if lease is None or lease.policies is None:
        return True
    found = (directory.setting(POLICIES + name) for name in lease.policies)
    return any(one.value.get(MAKES_TOKENS, False) for one in found if one is not None and one.value is not None)


def last_end(token: Token) -> int | None:
    """The latest end that any renewal can give a token (microseconds); None if there is none."""
    lease = Lease.of(token)
    if lease is None or not lease.renewable:
        return token.expires_at
    most = min(filter(None, (0 if lease.period else lease.max_ttl, lease.explicit_max_ttl)), default=None)
    return None if most is None else token.created_at + most * 1_000_000


SEPARATOR: Final = "."
"""Between accessor and secret in a secret id."""
PLACE: Final = "-"
"""Between the two parts of an accessor."""


def secret_of(mount: str, role: str, accessor: str, directory: Leases) -> Setting | None:
    """What is kept of a role's secret; None if it is gone, or another has its place since.

    A row is never deleted, but what ended in it makes room: an accessor is `RANDOM-PLACE`, and the row that of a place.
    The first ones, which had no place, have rows of their own.
    """
    random, _, place = accessor.partition(PLACE)
    found = directory.setting(f"{secrets_at(mount)}{role}/{place or random}")
    if found is None or found.value is None or accessor_of(found) != accessor:
        return None
    return found


def accessor_of(secret: Setting) -> str:
    """The accessor of a secret that is kept."""
    accessor: str = (secret.value or {}).get("accessor", secret.name.rpartition("/")[2])
    return accessor


def role_login(
    credential: AppRoleCredential, directory: Leases, secrets: Secrets, now: int
) -> tuple[Service, str] | None:
    """The service of the role whose credentials these are, and which: `mount/role/accessor`.

    Any fault costs the same, a mount that is not there too.
    """
    mount = credential.mount
    accessor, _, secret = credential.secret_id.partition(SEPARATOR)
    named = directory.setting(role_ids_at(mount) + credential.role_id)
    role = "" if named is None or named.value is None else named.value["role"]
    kept = secret_of(mount, role, accessor, directory)
    value = None if kept is None else kept.value
    digest = None if value is None else decode_base64(value["digest"])
    if not secrets.token_matches(TokenId(accessor), secret, digest) or value is None:
        return None
    if is_past(value["expires_at"], now):
        return None
    found = directory.setting(roles_at(mount) + role)
    service = None if found is None or found.value is None else directory.find_service(found.value["service"])
    return None if service is None else (service, f"{mount}/{role}/{accessor}")
