"""What a token of the Vault dialect may do, by its policies; and the credentials of AppRole. Pure functions."""

from dataclasses import dataclass
from typing import Final, Protocol

from keyvault_lite.access.authenticate import AuthenticationFailed, Directory, service_fault
from keyvault_lite.access.lifetimes import Leases, is_past
from keyvault_lite.dialects.vault.credentials import AppRoleCredential
from keyvault_lite.dialects.vault.token_requests import (
    GRANTS,
    MAKES_TOKENS,
    POLICIES,
    role_ids_at,
    roles_at,
    secrets_at,
)
from keyvault_lite.model.encoding import decode_base64
from keyvault_lite.model.identity import Grant, Permission, Role, Service, Setting, Token
from keyvault_lite.model.leases import Lease
from keyvault_lite.model.names import TokenId


class Secrets(Protocol):
    """What is asked of the keyring."""

    def token_matches(self, token_id: TokenId, secret: str, stored: bytes | None) -> bool:
        """Whether a secret is the one whose keyed digest is stored; None costs the same and is false."""


def authority(token: Token, service: Service, directory: Leases) -> tuple[Role, tuple[Grant, ...], bool]:
    """The role and grants that a token acts with, and whether that is less than its service's.

    A token held to policies is a SERVICE, with what they come to. The token of a login has what its service was granted
    beside; one of an AUDITOR, a role that uses no key, gets none.
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


@dataclass(frozen=True, slots=True)
class AppRoleScheme:
    """Verifies the credentials of an AppRole login; the principal may do that login and nothing else."""

    secrets: Secrets

    def verify(self, credential: AppRoleCredential, directory: Directory, now: int) -> tuple[Service, str]:
        """The service of the role, and the login. Raises AuthenticationFailed."""
        found = role_login(credential, directory, self.secrets, now)
        if found is None:
            raise AuthenticationFailed(None)
        fault = service_fault(found[0], now)
        if fault is not None:
            raise AuthenticationFailed(found[0].id, fault)
        return found
