"""How a path of the protocol finds its operation: a mount, which may have slashes, and the operation behind it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from keyvault_lite.dialects.vault.system_requests import RESERVED, TOKEN
from keyvault_lite.wire.routing import Table
from keyvault_lite.wire.vault.route import LIST, WHOLE_PATH, WRITE, Operation

MAX_PATH: Final = 512


@dataclass(frozen=True, slots=True)
class PathTarget:
    """Where a path leads."""

    mount: str
    path: Mapping[str, str]
    methods: Mapping[str, Operation]
    ends_in_slash: bool = False

    def takes(self, method: str) -> bool:
        """Whether it may be written as it was: one slash may follow a list, and a mount that is not written to."""
        return not self.ends_in_slash or method == LIST or (WHOLE_PATH in self.path and method != WRITE)


_NOT_CANONICAL: Final = re.compile(rb"//|/\.{1,2}(/|$)")
_CHARACTERS: Final = re.compile(rb"[A-Za-z0-9/._~@:!$&'()*+,=%-]+")
"""Of a path: none that anything on the way might take for a slash, an end or a parameter."""
_SLASHES: Final = ("%2F", "%2f")


def _mount(written: str, operations: Table[Operation], reserved: frozenset[str]) -> str | None:
    """The mount that a path begins with; None if none can be there.

    Clients that are made from the products' own description escape a mount whole, so that a slash in it is `%2F`.
    Nothing else is decoded, and nothing twice. Safe, because what comes of it is looked up and never taken apart again:
    it names a mount, which begins with no reserved segment and has none that begins an operation, or nothing. Grants
    and the audit log know a key by its mount, however that was written.
    """
    if "%" not in written:
        return written
    for slash in _SLASHES:
        written = written.replace(slash, "/")
    segments = written.split("/")
    if "%" in written or not all(segments) or segments[0] in reserved or any(one in operations for one in segments):
        return None
    return written


def is_canonical(path: bytes) -> bool:
    """Whether a path (from behind `/v1/`) has no segment that is empty, `.` or `..`; one slash may end it."""
    return _NOT_CANONICAL.search(b"/" + path) is None


def resolver(
    system: Table[Operation], transit: Table[Operation], logins: Table[Operation], check_name: Callable[[str], bool]
) -> Callable[[bytes], PathTarget | None]:
    """How paths (from behind `/v1/`) find their routes.

    A mount may have slashes, and none of its segments begins an operation: so the operation is the first segment that
    can begin one, and a path reads one way only. What follows `auth/` is a mount of `logins`, but for tokens.
    """

    @lru_cache(maxsize=8192)
    def resolve(path: bytes) -> PathTarget | None:
        ends_in_slash = path.endswith(b"/")
        segments = tuple(path.decode("latin-1").removesuffix("/").split("/"))
        if not all(segments) or _CHARACTERS.fullmatch(path) is None:
            return None
        if segments[0] == "auth" and segments[1:2] != (TOKEN,):
            return _mounted(segments[1:], logins, frozenset({TOKEN}), ends_in_slash=ends_in_slash)
        if segments[0] in system:
            found = None if b"%" in path else system.find(segments)
            return None if found is None else PathTarget("", found.parameters, found.methods, ends_in_slash)
        target = _mounted(segments, transit, RESERVED, ends_in_slash=ends_in_slash)
        return None if target is None or not check_name(target.path.get("name", "x")) else target

    # A longer one is nobody's, and would be remembered as long as any.
    return lambda path: resolve(path) if len(path) <= MAX_PATH else None


def _mounted(
    segments: tuple[str, ...], operations: Table[Operation], reserved: frozenset[str], *, ends_in_slash: bool
) -> PathTarget | None:
    """The target of a path that begins with a mount."""
    at = next((at for at in range(1, len(segments)) if segments[at] in operations), 0)
    found = None if not at or any("%" in one for one in segments[at:]) else operations.find(segments[at:])
    mount = _mount("/".join(segments[:at]), operations, reserved)
    return None if found is None or mount is None else PathTarget(mount, found.parameters, found.methods, ends_in_slash)
