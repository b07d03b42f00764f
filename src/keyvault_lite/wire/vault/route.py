"""A route as data, and how a path finds its route: a pure function, remembered for the paths that come again."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from msgspec import Struct

from keyvault_lite.dialects.vault.requests import key_ref
from keyvault_lite.dialects.vault.system_requests import RESERVED, TOKEN
from keyvault_lite.engine.slices import Steps
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.identity import Credential
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Request
from keyvault_lite.wire.http import MAX_BODY

READ, WRITE, LIST, DELETE = "GET", "POST", "LIST", "DELETE"
MAX_DATA: Final = 32 * 1024 * 1024
"""Bytes of a body with data to encrypt, sign and so on."""
MAX_PATH: Final = 512
WHOLE_PATH: Final = "path"
"""The named part that is a mount's path, with its slashes."""


class Call:
    """What a request says: where it goes, and its fields from path, query and body."""

    __slots__ = ("fields", "mount", "path", "token")

    def __init__(
        self, mount: str, path: Mapping[str, str], fields: Mapping[str, Any], token: str | None = None
    ) -> None:
        self.token = token
        """The caller's own token, which a look at it shows again."""
        self.mount = mount
        self.path = path
        """The parts of the path that have names."""
        self.fields = fields

    @property
    def key(self) -> KeyRef:
        """The key the path names."""
        return key_ref(self.mount, self.path["name"])


class Written(Struct, frozen=True):
    """A successful reply: the data of the envelope, or what stands in its place."""

    data: object = None
    status: int = 200
    """204 has no body."""
    warnings: tuple[str, ...] = ()
    auth: object = None
    bare: bool = False
    """Whether the data stands alone, without the envelope."""
    merged: bool = False
    """Whether the data stands in the envelope and beside it."""


NO_CONTENT: Final = Written(status=204)
NOT_FOUND: Final = Written(status=404)
Build = Callable[[Call], Request | Steps[Request]]
"""The request, or the steps of building it where that takes long."""
Render = Callable[[Any, Request, Call], Written]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation of the dialect."""

    operation: str
    """As the audit entry names it."""
    action: Action
    build: Build
    render: Render
    fields: frozenset[str] = frozenset()
    """Known fields of the body; others are ignored, with a warning that names them."""
    credential: Callable[[Call], Credential] | None = None
    """Where the caller is known by the body instead of a token."""
    missing: tuple[int, str] | None = None
    """What is said of a key that is not there; by default 404 without a message."""
    unauthenticated: tuple[int, str] | None = None
    """What is said to who is not known, where it is not the usual."""
    limit: int = MAX_BODY


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads."""

    mount: str
    path: Mapping[str, str]
    methods: Mapping[str, Route]
    ends_in_slash: bool = False

    def takes(self, method: str) -> bool:
        """Whether it may be written as it was: one slash may follow a list, and a mount that is not written to."""
        return not self.ends_in_slash or method == LIST or (WHOLE_PATH in self.path and method != WRITE)


@dataclass(frozen=True, slots=True)
class Template:
    """A path with named parts, `:name` for one segment and `*name` for one or more at the end."""

    parts: tuple[str, ...]
    methods: dict[str, Route] = field(default_factory=dict)

    def match(self, segments: tuple[str, ...]) -> dict[str, str] | None:
        """The named parts, if the path is one of this template."""
        last = self.parts[-1]
        if last.startswith("*"):
            if len(segments) < len(self.parts):
                return None
            segments = (*segments[: len(self.parts) - 1], "/".join(segments[len(self.parts) - 1 :]))
        if len(segments) != len(self.parts):
            return None
        found = {}
        for part, segment in zip(self.parts, segments, strict=True):
            if part[0] in ":*":
                found[part[1:]] = segment
            elif part != segment:
                return None
        return found


class Table:
    """Every route, by template and method."""

    def __init__(self, routes: Mapping[tuple[str, str], Route]) -> None:
        templates: dict[str, Template] = {}
        for (method, path), route in routes.items():
            template = templates.setdefault(path, Template(tuple(path.split("/"))))
            template.methods[method] = route
        self._templates: dict[str, list[Template]] = {}
        for template in templates.values():
            self._templates.setdefault(template.parts[0], []).append(template)
        for group in self._templates.values():
            # Literal parts win over named ones, whatever the order of the table.
            group.sort(key=lambda one: [part[0] in ":*" for part in one.parts])

    def find(self, segments: tuple[str, ...]) -> tuple[Mapping[str, str], Mapping[str, Route]] | None:
        """The named parts of a path and its routes by method."""
        for template in self._templates.get(segments[0], ()):
            found = template.match(segments)
            if found is not None:
                return found, template.methods
        return None

    def __contains__(self, first: str) -> bool:
        return first in self._templates

    def paths(self) -> list[tuple[tuple[str, ...], Mapping[str, Route]]]:
        """Every template there is, by its parts, and its routes by method."""
        return [(one.parts, one.methods) for group in self._templates.values() for one in group]

    def routes(self) -> list[Route]:
        """Every route there is."""
        return [route for group in self._templates.values() for one in group for route in one.methods.values()]


_NOT_CANONICAL: Final = re.compile(rb"//|/\.{1,2}(/|$)")
_CHARACTERS: Final = re.compile(rb"[A-Za-z0-9/._~@:!$&'()*+,=%-]+")
"""Of a path: none that anything on the way might take for a slash, an end or a parameter."""
_SLASHES: Final = ("%2F", "%2f")


def _mount(written: str, operations: Table, reserved: frozenset[str]) -> str | None:
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
    system: Table, transit: Table, logins: Table, check_name: Callable[[str], bool]
) -> Callable[[bytes], Place | None]:
    """How paths (from behind `/v1/`) find their routes.

    A mount may have slashes, and none of its segments begins an operation: so the operation is the first segment that
    can begin one, and a path reads one way only. What follows `auth/` is a mount of `logins`, but for tokens.
    """

    @lru_cache(maxsize=8192)
    def resolve(path: bytes) -> Place | None:
        ends_in_slash = path.endswith(b"/")
        segments = tuple(path.decode("latin-1").removesuffix("/").split("/"))
        if not all(segments) or _CHARACTERS.fullmatch(path) is None:
            return None
        if segments[0] == "auth" and segments[1:2] != (TOKEN,):
            return _mounted(segments[1:], logins, frozenset({TOKEN}), ends_in_slash=ends_in_slash)
        if segments[0] in system:
            found = None if b"%" in path else system.find(segments)
            return None if found is None else Place("", *found, ends_in_slash)
        place = _mounted(segments, transit, RESERVED, ends_in_slash=ends_in_slash)
        return None if place is None or not check_name(place.path.get("name", "x")) else place

    # A longer one is nobody's, and would be remembered as long as any.
    return lambda path: resolve(path) if len(path) <= MAX_PATH else None


def _mounted(
    segments: tuple[str, ...], operations: Table, reserved: frozenset[str], *, ends_in_slash: bool
) -> Place | None:
    """The place of a path that begins with a mount."""
    at = next((at for at in range(1, len(segments)) if segments[at] in operations), 0)
    found = None if not at or any("%" in one for one in segments[at:]) else operations.find(segments[at:])
    mount = _mount("/".join(segments[:at]), operations, reserved)
    return None if found is None or mount is None else Place(mount, *found, ends_in_slash)
