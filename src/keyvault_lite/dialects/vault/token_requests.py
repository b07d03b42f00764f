"""The words of the Vault dialect for tokens, logins and policies.

A token of the dialect is a LEASED token of one of the vault's services: a child of the token it was made with, or the
fruit of an AppRole login. Its end follows its parent's. What else the dialect keeps of it is in its attributes, as
Lease.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from keyvault_lite.dialects.vault.credentials import APPROLE
from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import Token
from keyvault_lite.model.leases import Lease
from keyvault_lite.model.operation import Authority, Cost
from keyvault_lite.model.requests import Request

MAX_TTL: Final = 10 * 365 * 24 * 3600
DEFAULT_POLICY: Final = "default"
ROOT_POLICY: Final = "root"
POLICIES: Final = "vault/policies/"
GRANTS: Final = "grants"
"""Where a policy's setting has the grants it comes to."""
MAKES_TOKENS: Final = "makes_tokens"
"""Where it says whether it lets a token make children."""
MAX_POLICY: Final = 64 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", re.ASCII)


MAX_META: Final = 64, 128, 512, 4096
"""Of what is kept beside a token: how many, and characters of a name, of a value, and of all together."""
MAX_USES: Final = 2**31 - 1


def roles_at(mount: str) -> str:
    """Under what the roles of an AppRole mount are kept."""
    return f"{_space(mount)}/roles/"


def role_ids_at(mount: str) -> str:
    """Under what it is kept which role has which id."""
    return f"{_space(mount)}/ids/"


def secrets_at(mount: str) -> str:
    """Under what the secrets of its roles are kept."""
    return f"{_space(mount)}/secrets/"


def _space(mount: str) -> str:
    # No path of a mount has a colon: what is kept of one never begins like what is kept of another.
    return "vault/approle" if mount == APPROLE else f"vault/approle:{mount.replace('/', ':')}"


def check_meta(meta: Mapping[str, str]) -> None:
    """Refuse more than is meant to be shown with a token: each token keeps it."""
    count, name, value, whole = MAX_META
    sizes = [(len(one), len(text)) for one, text in meta.items()]
    if len(sizes) > count or any(one > name or text > value for one, text in sizes) or sum(map(sum, sizes)) > whole:
        raise InvalidRequest(
            f"metadata is at most {count} pairs, names of {name} and values of {value} characters, {whole} in all"
        )


def check_lease(*seconds: int | None) -> None:
    """Refuse what is no length of a lease; None and 0 are none."""
    if any(not 0 <= (one or 0) <= MAX_TTL for one in seconds):
        raise InvalidRequest("a lease is at most ten years")


def check_uses(uses: int | None) -> None:
    """Refuse what is no number of uses; 0 is without end."""
    if not 0 <= (uses or 0) <= MAX_USES:
        raise InvalidRequest(f"num_uses is 0 to {MAX_USES}")


def check_word(name: str, what: str) -> str:
    """Refuse what cannot name a policy or role."""
    if _NAME.fullmatch(name) is None:
        raise InvalidRequest(f"the name of a {what} is 1 to 63 letters, digits, '_', '-' and '.'")
    return name


# Tokens


class TokenRequest(Request, frozen=True):
    """Base of the requests about one token: named by itself, by its accessor, or else the caller's own."""

    token: str | None = None
    accessor: str | None = None


class ReadToken(TokenRequest, frozen=True):
    """A token's facts. Answers TokenFacts."""

    action = Action.TOKEN_READ
    cost = Cost.SHORT


class CreateToken(Request, frozen=True):
    """A child of the caller's token. Answers IssuedToken."""

    action = Action.TOKEN_CREATE
    cost = Cost.SHORT
    ttl: int | None = None
    explicit_max_ttl: int = 0
    period: int = 0
    renewable: bool = True
    display_name: str = ""
    policies: tuple[str, ...] = ()
    meta: Mapping[str, str] = msgspec.field(default_factory=dict)
    orphan: bool = False

    def __post_init__(self) -> None:
        check_lease(self.ttl, self.explicit_max_ttl, self.period)
        check_meta(self.meta)
        if len(self.policies) > 64 or len(self.display_name) > 256:  # noqa: PLR2004
            raise InvalidRequest("too many policies, or too long a name")


class ListTokens(Request, frozen=True):
    """The accessors of all tokens that hold. Answers a tuple of accessors."""

    action = Action.SERVICE_READ
    cost = Cost.SHORT


class ExtendToken(TokenRequest, frozen=True):
    """A later end for a token. Answers IssuedToken."""

    action = Action.TOKEN_EXTEND
    cost = Cost.SHORT
    increment: int | None = None


class RevokeToken(TokenRequest, frozen=True):
    """The end of a token and of all its children. Answers None."""

    action = Action.TOKEN_REVOKE
    cost = Cost.SHORT


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """A token as the dialect shows it."""

    token: Token
    lease: Lease | None
    policies: tuple[str, ...]
    service: str
    expires_at: int | None
    now: int


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token with its text, if it is new and shown this once, or the caller's own."""

    facts: TokenFacts
    text: str | None = field(default=None, repr=False)
    warnings: tuple[str, ...] = ()


# AppRole


class Login(Request, frozen=True):
    """A token for the holder of a role's credentials, which the caller authenticated with. Answers IssuedToken."""

    action = Action.LOGIN
    cost = Cost.SHORT
    authority = Authority.LOGIN


class RoleRequest(Request, frozen=True):
    """Base of the requests about one AppRole role."""

    role: str
    mount: str = APPROLE

    def __post_init__(self) -> None:
        check_word(self.role, "role")


class WriteRole(RoleRequest, frozen=True):
    """Make a role, with a service of its own, or change it. Values that are None stay. Answers None."""

    action = Action.SERVICE_CREATE
    cost = Cost.SHORT
    policies: tuple[str, ...] | None = None
    token_ttl: int | None = None
    token_max_ttl: int | None = None
    token_explicit_max_ttl: int | None = None
    token_period: int | None = None
    secret_id_ttl: int | None = None
    secret_id_uses: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_lease(
            self.token_ttl, self.token_max_ttl, self.token_explicit_max_ttl, self.token_period, self.secret_id_ttl
        )
        check_uses(self.secret_id_uses)
        if len(self.policies or ()) > 64:  # noqa: PLR2004
            raise InvalidRequest("too many policies")


class ReadRole(RoleRequest, frozen=True):
    """A role. Answers a mapping."""

    action = Action.SERVICE_READ
    cost = Cost.SHORT


class SetRoleId(RoleRequest, frozen=True):
    """Choose the role's id. Answers None."""

    action = Action.SERVICE_UPDATE
    cost = Cost.SHORT
    role_id: str = ""


class DeleteRole(RoleRequest, frozen=True):
    """The end of a role, its secrets and all its tokens; its service is deactivated. Answers None."""

    action = Action.SERVICE_UPDATE
    cost = Cost.SHORT


class ListRoles(Request, frozen=True):
    """The names of the roles. Answers a tuple of names."""

    action = Action.SERVICE_READ
    cost = Cost.SHORT
    mount: str = APPROLE


class CreateSecretId(RoleRequest, frozen=True):
    """A secret of a role, shown this once. Answers NewSecretId."""

    action = Action.SERVICE_UPDATE
    cost = Cost.SHORT
    ttl: int | None = None
    """Seconds; like `uses` at most what the role has, which is also what None is."""
    uses: int | None = None
    meta: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Shown with the secret and with the tokens that come of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_uses(self.uses)
        check_lease(self.ttl)
        check_meta(self.meta)


class ListSecretIds(RoleRequest, frozen=True):
    """The accessors of a role's secrets. Answers a tuple of accessors."""

    action = Action.SERVICE_READ
    cost = Cost.SHORT


class SecretRequest(RoleRequest, frozen=True):
    """Base of the requests about one secret of a role: named by itself, or else by its accessor."""

    secret_id: str = ""
    accessor: str = ""


class ReadSecretId(SecretRequest, frozen=True):
    """What is kept of a role's secret. Answers SecretFacts, None if there is no such secret."""

    action = Action.SERVICE_READ
    cost = Cost.SHORT


class DestroySecretId(SecretRequest, frozen=True):
    """The end of a role's secret. Answers None."""

    action = Action.SERVICE_UPDATE
    cost = Cost.SHORT


@dataclass(frozen=True, slots=True)
class NewSecretId:
    """A secret with its accessor."""

    secret_id: str = field(repr=False)
    accessor: str
    ttl: int
    uses: int


@dataclass(frozen=True, slots=True)
class SecretFacts:
    """What is shown of a secret."""

    accessor: str
    created_at: int
    expires_at: int | None
    uses: int
    """How many are left; 0 is any number."""
    meta: Mapping[str, str]


# Policies


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A path and what may be done there."""

    path: str
    capabilities: frozenset[str]


class PolicyRequest(Request, frozen=True):
    """Base of the requests about one policy."""

    name: str

    def __post_init__(self) -> None:
        check_word(self.name, "policy")


class WritePolicy(PolicyRequest, frozen=True):
    """Keep a policy, if it comes to grants exactly. Answers None."""

    action = Action.SETTING_UPDATE
    cost = Cost.SHORT
    text: str = ""
    rules: tuple[PolicyRule, ...] = ()


class ReadPolicy(PolicyRequest, frozen=True):
    """A policy as it was written. Answers text."""

    action = Action.SETTING_READ
    cost = Cost.SHORT


class DeletePolicy(PolicyRequest, frozen=True):
    """Forget a policy; tokens that are held to it lose what it gave. Answers None."""

    action = Action.SETTING_UPDATE
    cost = Cost.SHORT


class ListPolicies(Request, frozen=True):
    """The names of the policies. Answers a tuple of names."""

    action = Action.SETTING_READ
    cost = Cost.SHORT


class ReadCapabilities(TokenRequest, frozen=True):
    """What the caller's token may do at each path. Answers a mapping from path to capabilities."""

    action = Action.TOKEN_READ
    cost = Cost.SHORT
    paths: tuple[str, ...] = ()
