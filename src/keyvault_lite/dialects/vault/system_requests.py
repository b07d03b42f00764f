"""The words of the Vault dialect beside its keys: mounts, tokens, logins, policies."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec import field

from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.operation import Cost
from keyvault_lite.model.requests import Request

_PATH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*", re.ASCII)
MAX_PATH: Final = 128
RESERVED: Final = frozenset({"auth", "cubbyhole", "identity", "projects", "sys"})
"""First segments that are no mounts: the product's own, and `projects`, kept for another dialect."""
OPERATIONS: Final = frozenset(
    {
        "backup",
        "config",
        "datakey",
        "decrypt",
        "encrypt",
        "export",
        "hash",
        "hmac",
        "keys",
        "random",
        "rewrap",
        "sign",
        "verify",
        "wrapping_key",
    }
)
"""Segments that begin an operation: none of them in a mount, so that every path reads one way only."""


def check_mount(path: str) -> None:
    """Refuse a path that cannot be a mount."""
    segments = path.split("/")
    if _PATH.fullmatch(path) is None or len(path) > MAX_PATH:
        raise InvalidRequest("a mount path is segments of letters, digits, '_', '-' and '.', of 128 characters at most")
    if segments[0] in RESERVED:
        raise InvalidRequest(f"path '{segments[0]}/' is reserved")
    if not OPERATIONS.isdisjoint(segments):
        raise InvalidRequest("a mount path has no segment that is an operation of a key space")


@dataclass(frozen=True, slots=True)
class Mount:
    """A key space."""

    path: str
    description: str
    config: Mapping[str, Any]
    options: Mapping[str, Any] | None


class ListMounts(Request, frozen=True):
    """Every key space, or those that the caller's grants are about. Answers a tuple of Mount."""

    action = Action.SETTING_READ
    cost = Cost.SHORT
    own: bool = False


class EnableMount(Request, frozen=True):
    """Make a key space. Answers None."""

    action = Action.SETTING_UPDATE
    cost = Cost.SHORT
    mount: str
    kind: str = "transit"
    description: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_mount(self.mount)
        if self.kind != "transit":
            raise InvalidRequest("the only secrets engine here is transit")


class TuneMount(Request, frozen=True):
    """Change what describes a key space. Answers None."""

    action = Action.SETTING_UPDATE
    cost = Cost.SHORT
    mount: str
    description: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


class DisableMount(Request, frozen=True):
    """End a key space and schedule the destruction of its keys. Answers how many, or None."""

    action = Action.SETTING_UPDATE
    cost = Cost.SHORT
    mount: str


# Auth methods


TOKEN: Final = "token"  # noqa: S105  (a path)
"""The path of the auth method of tokens, which is always there."""
LOGIN_OPERATIONS: Final = frozenset({"login", "role", "tidy"})
"""As OPERATIONS, of auth methods."""


@dataclass(frozen=True, slots=True)
class LoginMount:
    """An auth method."""

    path: str
    kind: str
    description: str
    config: Mapping[str, Any]


def _check_login_mount(path: str) -> None:
    if _PATH.fullmatch(path) is None or len(path) > MAX_PATH:
        raise InvalidRequest("a mount path is segments of letters, digits, '_', '-' and '.', of 128 characters at most")
    if not LOGIN_OPERATIONS.isdisjoint(path.split("/")):
        raise InvalidRequest("a mount path has no segment that is an operation of an auth method")


class ListLogins(Request, frozen=True):
    """Every auth method. Answers a tuple of LoginMount."""

    action = Action.SETTING_READ
    cost = Cost.SHORT


class ReadLogin(Request, frozen=True):
    """One auth method. Answers LoginMount."""

    action = Action.SERVICE_READ
    cost = Cost.SHORT
    mount: str


class EnableLogin(Request, frozen=True):
    """Enable AppRole at a path. Answers None."""

    action = Action.SETTING_UPDATE
    cost = Cost.SHORT
    mount: str
    kind: str = "approle"
    description: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_login_mount(self.mount)
        if self.kind == TOKEN:
            raise InvalidRequest("token credential backend cannot be instantiated")
        if self.kind != "approle":
            raise InvalidRequest("the only auth method that can be enabled here is approle")


class TuneLogin(Request, frozen=True):
    """Change the description and the limits of leases of an auth method. Answers None."""

    action = Action.SETTING_UPDATE
    cost = Cost.SHORT
    mount: str
    description: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


class DisableLogin(Request, frozen=True):
    """End an auth method with its roles and their tokens. Answers how many roles, or None."""

    action = Action.SETTING_UPDATE
    cost = Cost.SHORT
    mount: str
