"""The route table of every protocol: what it declares of an operation, and how a path finds it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from keyvault_lite.model.evidence import Action
from keyvault_lite.wire.engine_port import Engine
from keyvault_lite.wire.http import MAX_BODY, Exchange, Response

READ: Final = frozenset({"GET", "HEAD"})
"""HEAD is answered like GET, and recorded like it, without the body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What every protocol declares of an operation; each adds how its request is built and its result rendered."""

    action: Action
    operation: str | None = None
    """The operation's name in its audit entry, where that is not the action itself."""
    limit: int = MAX_BODY
    """Bytes of a body that are read from a caller that may perform the operation."""


@dataclass(frozen=True, slots=True)
class PublicPage:
    """What anyone may read without a token. The engine is asked for its health and nothing else."""

    render: Callable[[Engine, Exchange], Response]
    methods: frozenset[str] = READ


@dataclass(frozen=True, slots=True)
class PublicAction:
    """What anyone may do without a token: hand in what opens a sealed vault."""

    answer: Callable[[Engine, Exchange], Awaitable[Response]]
    methods: frozenset[str] = frozenset({"POST"})


R = TypeVar("R")


class Match(Generic[R]):
    """A template that a path fits. Made for every request: not a dataclass, whose frozen fields cost a call each."""

    __slots__ = ("methods", "parameters")

    def __init__(self, parameters: Mapping[str, str], methods: Mapping[str, R]) -> None:
        self.parameters = parameters
        self.methods = methods


class _Node(Generic[R]):
    """A position in the templates: what may follow it."""

    __slots__ = ("literals", "methods", "names", "parameter", "rest")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[R]] = {}
        self.parameter: _Node[R] | None = None
        self.rest: _Node[R] | None = None
        self.names: tuple[str, ...] = ()
        """The names of the parameters of the template that ends here."""
        self.methods: dict[str, R] = {}


class Table(Generic[R]):
    """Routes by method and template. `{name}` stands for one segment of a path, `{name...}` for one or more at its end.

    A literal segment wins over a parameter, whatever the order of the table.
    """

    def __init__(self, routes: Mapping[tuple[str, str], R]) -> None:
        self._root: _Node[R] = _Node()
        self._templates: dict[tuple[str, ...], Mapping[str, R]] = {}
        for (method, template), route in routes.items():
            parts = tuple(template.split("/"))
            node = self._root
            for part in parts:
                node = _follow(node, part)
            node.names = tuple(part[1:-1].removesuffix("...") for part in parts if part.startswith("{"))
            node.methods[method] = route
            self._templates[parts] = node.methods

    def find(self, segments: Sequence[str]) -> Match[R] | None:
        """The best template that a path fits."""
        found = self.find_all(segments)
        return found[0] if found else None

    def find_all(self, segments: Sequence[str]) -> list[Match[R]]:
        """Every template that a path fits, the best first."""
        found: list[Match[R]] = []
        _collect(found, self._root, segments, 0, ())
        return found

    def __contains__(self, first: str) -> bool:
        return first in self._root.literals

    def templates(self) -> Mapping[tuple[str, ...], Mapping[str, R]]:
        """Every template by its parts, with its routes by method."""
        return self._templates

    def routes(self) -> list[R]:
        """Every route, once for each template and method."""
        return [route for methods in self._templates.values() for route in methods.values()]


def _follow(node: _Node[R], part: str) -> _Node[R]:
    """The position behind one part of a template, made if it is not there."""
    if part.endswith("...}"):
        node.rest = node.rest or _Node()
        return node.rest
    if part.startswith("{"):
        node.parameter = node.parameter or _Node()
        return node.parameter
    return node.literals.setdefault(part, _Node())


def _collect(found: list[Match[R]], node: _Node[R], segments: Sequence[str], at: int, values: tuple[str, ...]) -> None:
    """Add what the segments from `at` on fit; `values` are those of the parameters before."""
    if at == len(segments):
        if node.methods:
            found.append(Match(dict(zip(node.names, values, strict=True)), node.methods))
        return
    segment = segments[at]
    literal = node.literals.get(segment)
    if literal is not None:
        _collect(found, literal, segments, at + 1, values)
    if node.parameter is not None:
        _collect(found, node.parameter, segments, at + 1, (*values, segment))
    if node.rest is not None:
        rest = (*values, "/".join(segments[at:]))
        found.append(Match(dict(zip(node.rest.names, rest, strict=True)), node.rest.methods))
