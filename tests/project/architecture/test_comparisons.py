"""Secrets and MACs are compared in constant time: what is named like one is never an operand of == or in."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.project.architecture.test_rules import TREES

SECRET = re.compile(
    r"(^|_)(macs?|tag|hmac|secret|secrets|token|tokens|password|passphrase|signatures?|digest|digests|commitment|proof|"
    r"sealed|seed|bearer|authorization|bundle|master|okm)$"
)
"""The last word of the name of a variable, an attribute or a function."""
SAME = {"write", "hex", "encode"}
"""Methods that give the same value in another form."""
PUBLIC = {
    # What is compared, and why it may take as long as the values are alike.
    ("crypto/transit_signature.py", "scheme.digest"): "the name of a hash",
    ("model/signature_schemes.py", "self.digest"): "the name of a hash",
    ("dialects/vault/requests.py", "self.digest"): "the name of a hash",
    ("dialects/vault/requests.py", "digest"): "the name of a hash",
    ("cli/quickstart.py", "tour.sealed[name]"): "a demonstration, of its own data",
    ("engine/attempt.py", "kept.body_digest"): "a plain hash of the body that this caller has just sent",
    ("engine/attempt.py", "idempotency.body_digest"): "a plain hash of the body that this caller has just sent",
    ("ledger/migrate/copy.py", "stored.mac"): "both are stored, in databases that whoever could measure it reads",
    ("ledger/migrate/copy.py", "copied.mac"): "both are stored, in databases that whoever could measure it reads",
    ("ledger/migrate/copy.py", "seen.mac"): "both are stored, in databases that whoever could measure it reads",
    ("ledger/migrate/copy.py", "known.mac"): "both are stored, in databases that whoever could measure it reads",
    ("ledger/commit/writer.py", "self.tip.mac"): "the MAC of the stored head, known to whoever can exchange it",
    ("ledger/commit/replica.py", "self.tip.mac"): "the MAC of the stored head, known to whoever can exchange it",
    ("ledger/archive/segment_files.py", "copy.digest"): "a plain hash of a file, which the log names",
    ("ledger/anchor/record.py", "hashlib.sha256(raw[:-_DIGEST]).digest()"): "a plain hash against torn writes",
    ("witness/record.py", "digest"): "a plain hash against torn writes",
}


def name_of(node: ast.expr) -> str:
    """What a value is called: its own name, that of its attribute, or of what was called for it."""
    if isinstance(node, ast.Attribute):
        return name_of(node.value) if node.attr in SAME else node.attr
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Call):
        return name_of(node.func)
    if isinstance(node, ast.Subscript):
        key = node.slice
        return str(key.value) if isinstance(key, ast.Constant) and isinstance(key.value, str) else name_of(node.value)
    return ""


def is_secret(node: ast.expr) -> bool:
    """Whether a value is called what secrets are called."""
    return bool(SECRET.search(name_of(node)))


def operands(node: ast.Compare) -> Iterator[ast.expr]:
    for one in (node.left, *node.comparators):
        yield from one.elts if isinstance(one, ast.Tuple) else (one,)


def offences(path: str, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare):
            continue
        if not any(isinstance(one, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for one in node.ops):
            continue
        values = list(operands(node))
        if any(isinstance(one, ast.Constant) for one in values):
            continue  # with what stands in the code
        for one in values:
            if is_secret(one) and (path, ast.unparse(one)) not in PUBLIC:
                yield f"{path}:{node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", TREES)
def test_no_secret_is_compared_by_what_stops_at_the_first_difference(path: str) -> None:
    assert list(offences(path, TREES[path])) == []


def test_each_exception_is_there() -> None:
    used = {
        (path, ast.unparse(one))
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        for one in operands(node)
    }
    assert PUBLIC.keys() - used == set()


@pytest.mark.parametrize(
    "code",
    [
        "token.secret == given",
        "given != row_mac(a, b)",
        "self._bundle.write() == opened",
        "tag in known",
        "value['digest'] == found",
        "(one, token) == (other, found)",
    ],
)
def test_such_a_comparison_would_be_found(code: str) -> None:
    assert list(offences("x.py", ast.parse(code)))
