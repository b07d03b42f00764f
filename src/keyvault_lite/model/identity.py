"""Services, roles, grants, tokens, and the verified caller."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from keyvault_lite.model.names import ServiceId, TokenId, matches
from keyvault_lite.model.opaque import Opaque


class Role(StrEnum):
    """What a service is. Exactly one a service."""

    ADMIN = "ADMIN"
    SERVICE = "SERVICE"
    AUDITOR = "AUDITOR"


class Permission(StrEnum):
    """What a grant can allow on a key."""

    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"
    SIGN = "sign"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class Grant:
    """Permission to use the keys whose name matches `key` (a glob), or whose id equals it.

    A glob is about names of one kind: native names, which have no colon, unless a colon is before its first `*`.
    `*` alone is all keys.
    """

    key: str
    actions: frozenset[Permission]
    in_mount: bool = False
    """Whether `*` stands for no slash: a policy of one mount says nothing of those whose path begins with its own."""

    @property
    def is_native_glob(self) -> bool:
        """Whether it is a glob over native names alone."""
        head, star, _ = self.key.partition("*")
        return bool(star) and ":" not in head and self.key != "*"

    def covers(self, name: str) -> bool:
        """Whether it is about the key of that name."""
        if ":" in name and self.is_native_glob:
            return False
        return matches(self.key, name) and (not self.in_mount or name.count("/") == self.key.count("/"))


@dataclass(frozen=True, slots=True)
class Service:
    """A caller the vault knows."""

    id: ServiceId
    name: str
    role: Role
    active: bool
    created_at: int
    grants: tuple[Grant, ...] = ()
    expires_at: int | None = None


class TokenKind(StrEnum):
    """How a credential came to be. A service has one NATIVE token; dialects add others."""

    NATIVE = "native"
    LEASED = "leased"
    """A child token or login with an end of its own."""
    ACCESS_KEY = "aws"
    """An access key; its id is the token's id and `digest` holds its wrapped secret, which signatures need again."""


@dataclass(frozen=True, slots=True)
class Token:
    """A credential of a service, as stored: the keyed digest of its secret, never the secret."""

    id: TokenId
    service_id: ServiceId
    kind: TokenKind
    digest: bytes = field(repr=False)
    created_at: int
    expires_at: int | None = None
    parent: TokenId | None = None
    ended_at: int | None = None
    """When it was renewed or revoked. An ended token stays as a tombstone, so its row cannot be put back unseen; a
    leased one until its lease would have ended."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What a dialect keeps of the token."""

    def is_past_lease(self, now: int) -> bool:
        """Whether it is a leased token whose end has passed."""
        return self.kind is TokenKind.LEASED and self.expires_at is not None and self.expires_at <= now


class Credential(Opaque, frozen=True):
    """What a caller presents, not yet verified. Each scheme of authentication has a class of its own."""


class BearerCredential(Credential, frozen=True):
    """A token as presented, not yet verified. None when the request carried none or a malformed one."""

    token: str | None


class SystemCredential(Credential, frozen=True):
    """The vault's own authority, for initialisation, background jobs and offline commands.

    Not reachable from any wire: only the composition root and the background jobs make one (a test holds them to it).
    """


class PermissionCache:
    """What a principal's grants were found to allow; kept by `access.authorize.permissions_on` alone."""

    __slots__ = ("by_key", "by_name", "globs")

    def __init__(self) -> None:
        self.by_key: dict[str, tuple[object, frozenset[Permission]]] = {}
        """By a key's id, that record of the key and the permissions on it."""
        self.by_name: dict[str, frozenset[Permission]] | None = None
        """What grants on one name or id allow on it; None until somebody asks."""
        self.globs: tuple[Grant, ...] = ()
        """The other grants."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The verified caller. Made in access/authenticate.py alone."""

    service_id: ServiceId
    name: str
    role: Role | None
    """None is the vault itself."""
    grants: tuple[Grant, ...] = ()
    token_id: TokenId | None = None
    """By which token; None for the vault itself."""
    login: str | None = None
    """By which credentials of a login, as `mount/role/accessor`: good for that login and nothing else."""
    narrowed: bool = False
    """Whether it may do less than its service: what its service did is not its own then."""
    leased: bool = False
    """Whether by a token with an end of its own: it gets nothing that would outlive it."""
    permission_cache: PermissionCache = field(default_factory=PermissionCache, init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Setting:
    """A fact of the whole vault that carries authority: a mount, a policy, a role of a dialect. None is a tombstone."""

    name: str
    """A path; its first segment names whose it is."""
    value: Mapping[str, Any] | None
