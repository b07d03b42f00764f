"""The small wrong changes that mutation testing makes to a module; tools/mutants.py runs the tests on each."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TypeGuard

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
}
REMEMBERING = ("cache", "lru_cache", "cached_property")
UNJUDGED = ("assert_never", "cast", "TypeVar", "NewType")
"""Calls that the type checker judges and a run does not."""


@dataclass(frozen=True)
class Mutant:
    """One change, named by its function and the text of its line: so the name outlives edits elsewhere in the file."""

    where: str
    line: str
    change: str
    lines: range
    """Which lines run it: from the start of its statement to its own end."""
    imported: bool
    """Whether they run when the module is imported, and so before any test, or their result is remembered from then."""
    source: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Its name. Two that change the same in one line share it."""
        return self.where, self.line, self.change


@dataclass(frozen=True)
class _Place:
    where: str
    statement: ast.stmt
    imported: bool = True


def mutants(source: str) -> list[Mutant]:
    """All mutants of a module, in the order of its text; changes that come out the same are one."""
    found = {mutant.source: mutant for mutant in _Module(source).mutants()}
    return sorted(found.values(), key=lambda mutant: (mutant.lines.stop, mutant.lines.start))


class _Module:
    def __init__(self, source: str) -> None:
        self.text = source.encode()
        self.rows = self.text.splitlines(keepends=True)
        self.starts = [0, *accumulate(map(len, self.rows))]
        self.tree = ast.parse(source)
        self.decided = {id(part) for node in ast.walk(self.tree) for part in _parts(node)}

    def mutants(self) -> Iterator[Mutant]:
        for node in self.tree.body:
            yield from self._visit(node, _Place("", node))

    def _visit(self, node: ast.AST, place: _Place) -> Iterator[Mutant]:
        if isinstance(node, ast.stmt):
            if _is_declaration(node):
                return
            place = _Place(_inside(place.where, node), node, place.imported)
            for new, change in _statements(node):
                yield self._mutant(node, new, change, place)
        elif isinstance(node, ast.expr):
            for other, change in () if id(node) in self.decided and _is_equality(node) else _expressions(node):
                yield self._mutant(node, f"({ast.unparse(other)})", change, place)
        for test in _conditions(node):
            yield self._mutant(test, f"(not {ast.unparse(test)})", "not", place)
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_remembered(node)
        for child in _judged(node):
            called = function and isinstance(child, ast.stmt)  # its defaults are computed where it is defined
            yield from self._visit(child, replace(place, imported=False) if called else place)

    def _mutant(self, node: ast.stmt | ast.expr, new: str, change: str, place: _Place) -> Mutant:
        start, end = self._offset(node.lineno, node.col_offset), self._offset(*_end(node))
        line = self.rows[node.lineno - 1].decode()
        return Mutant(
            place.where,
            " ".join(line.split()),
            change,
            range(place.statement.lineno, _end(node)[0] + 1),
            place.imported,
            (self.text[:start] + new.encode() + self.text[end:]).decode(),
        )

    def _offset(self, row: int, column: int) -> int:
        return self.starts[row - 1] + column


def _end(node: ast.stmt | ast.expr) -> tuple[int, int]:
    return node.end_lineno or node.lineno, node.end_col_offset or node.col_offset


def _is_remembered(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether only the first test that calls it is seen to run it."""
    calls = (one.func if isinstance(one, ast.Call) else one for one in node.decorator_list)
    return any(_name(one) in REMEMBERING for one in calls)


def _inside(where: str, node: ast.stmt) -> str:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return f"{where}.{node.name}".lstrip(".")
    return where


def _is_declaration(node: ast.stmt) -> bool:
    """What no run judges: imports, documentation, types, and what only the type checker reads."""
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.ClassDef():
            return any(_name(base) == "Protocol" for base in node.bases)
        case ast.Assign(targets=[ast.Name(id="__all__" | "__slots__")]):
            return True
        case ast.Expr(value=call) | ast.Assign(value=call):
            return isinstance(call, ast.Call) and _name(call.func) in UNJUDGED
        case _:
            return False


def _name(node: ast.expr) -> str:
    """The last word of a (dotted, subscripted) name."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return node.attr
        case ast.Subscript():
            return _name(node.value)
        case _:
            return ""


def _judged(node: ast.AST) -> Iterator[ast.AST]:
    """The children that may be changed: no annotation, decorator, pattern, formatted text or raised error."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield from filter(None, (*node.args.defaults, *node.args.kw_defaults, *node.body))
        case ast.ClassDef():
            yield from node.body
        case ast.match_case():
            yield from filter(None, (node.guard, *node.body))
        case ast.AnnAssign():
            yield from filter(None, (node.value,))
        case ast.Raise() | ast.JoinedStr() | ast.Pass():
            return
        case _:
            yield from ast.iter_child_nodes(node)


def _conditions(node: ast.AST) -> Iterator[ast.expr]:
    """What decides by its truth alone; comparisons and the like are changed by themselves."""
    match node:
        case ast.If(test=test) | ast.While(test=test):
            tests = [test]
        case ast.comprehension(ifs=tests):
            pass
        case _:
            return
    yield from (test for test in tests if isinstance(test, ast.Name | ast.Attribute | ast.Call | ast.Subscript))


def _statements(node: ast.stmt) -> Iterator[tuple[str, str]]:
    """A statement left out, or the other way out of a loop."""
    match node:
        case ast.Raise():
            yield "pass", "no raise"
        case ast.Expr(value=ast.Call() | ast.Await(value=ast.Call())):
            yield "pass", "no call"
        case ast.AugAssign():
            yield "pass", "no assignment"
        case ast.Continue():
            yield "break", "continue → break"
        case ast.Break():
            yield "continue", "break → continue"
        case ast.Return(value=ast.expr() as value) if not _is_constant(value):
            yield "return None", "return None"


def _expressions(node: ast.expr) -> Iterator[tuple[ast.expr, str]]:
    match node:
        case ast.Compare(left, operators, right):
            for index, operator in enumerate(operators):
                other = COMPARISONS[type(operator)]()
                swapped = [*operators[:index], other, *operators[index + 1 :]]
                yield ast.Compare(left, swapped, right), f"{_sign(operator)} → {_sign(other)}"
        case ast.BoolOp(op, values):
            for index, value in enumerate(values):
                rest = values[:index] + values[index + 1 :]
                shorter = rest[0] if len(rest) == 1 else ast.BoolOp(op, rest)
                yield shorter, f"no {_short(value)}"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand, "no not"
        case ast.IfExp(test, body, orelse):
            yield body, f"if {_short(test)} → always"
            yield orelse, f"if {_short(test)} → never"
        case ast.BinOp(left, op, right) if type(op) in OPERATORS and not _is_text(left) and not _is_text(right):
            other_op = OPERATORS[type(op)]()
            yield ast.BinOp(left, other_op, right), f"{type(op).__name__} → {type(other_op).__name__}"
        case ast.Constant(value=value):
            yield from _constants(value)
        case _:
            pass


def _constants(value: object) -> Iterator[tuple[ast.expr, str]]:
    if isinstance(value, bool):
        yield ast.Constant(not value), f"{value} → {not value}"
    elif isinstance(value, int):
        for other in (value + 1, value - 1):
            yield ast.Constant(other), f"{value} → {other}"
    elif isinstance(value, bytes):
        yield ast.Constant(value + b"~"), "other bytes"
    elif isinstance(value, str) and value.startswith("kvl/"):
        yield ast.Constant(value + "~"), "other label"


def _sign(operator: ast.cmpop) -> str:
    return ast.unparse(ast.Compare(ast.Name("a"), [operator], [ast.Name("b")]))[2:-2]


def _parts(node: ast.AST) -> list[ast.expr]:
    """What is left out or fixed as a whole already, so that turning it round as well would tell nothing new."""
    match node:
        case ast.BoolOp(values=values):
            return values
        case ast.IfExp(test=test):
            return [test]
        case _:
            return []


def _is_equality(node: ast.expr) -> bool:
    return isinstance(node, ast.Compare) and not isinstance(node.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE)


def _short(node: ast.expr) -> str:
    return ast.unparse(node)[:60]


def _is_constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant)


def _is_text(node: ast.expr) -> TypeGuard[ast.Constant | ast.JoinedStr]:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
