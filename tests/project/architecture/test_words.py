"""One language: public names of `model` are made of words of the glossary, and prose is plain technical English."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

MODEL = ROOT / "src" / "keyvault_lite" / "model"
PAGES = [
    *(ROOT / name for name in ("README.md", "threat_model.md", "SECURITY.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
SOURCES = sorted((ROOT / "src" / "keyvault_lite").rglob("*.py"))
BANNED = {
    "a free relative as subject: name the caller, process or user": r"\b[Ww]hoever\b",
    "a free relative as subject: a caller that …": r"(?:^|[.:;] )Who (?:may|can|has|is|comes|asks|wants)\b(?![^.]*\?)",
    "a negated predicate: say what is wrong": r"\b(?:that|which) (?:is|are) none\b",
    "a pronoun for an attacker, a caller or an ADMIN": r"\b(?:[Hh]e|[Hh]is|[Hh]im)\b",
    "again": r"\banew\b",
    "of the vault": r"\bof ours\b",
    "evaluate, verify or check": r"\bjudge[sd]?\b",
}
COMMON = {
    "a",
    "add",
    "admin",
    "algorithm",
    "allowed",
    "answer",
    "archive",
    "audit",
    "background",
    "batch",
    "bearer",
    "by",
    "cache",
    "change",
    "checkpoint",
    "cipher",
    "ciphertext",
    "conflict",
    "connection",
    "consistency",
    "create",
    "data",
    "decrypt",
    "decrypted",
    "delivered",
    "destroy",
    "dialect",
    "disable",
    "due",
    "enable",
    "encrypt",
    "encrypted",
    "entries",
    "erase",
    "error",
    "exceeded",
    "fault",
    "follow",
    "forbidden",
    "format",
    "found",
    "generate",
    "generated",
    "hidden",
    "in",
    "initialise",
    "intake",
    "integrity",
    "internal",
    "invalid",
    "key",
    "keys",
    "kind",
    "large",
    "limit",
    "list",
    "log",
    "login",
    "malformed",
    "marshaling",
    "media",
    "method",
    "metrics",
    "missing",
    "name",
    "new",
    "not",
    "of",
    "open",
    "outcome",
    "overloaded",
    "padding",
    "permission",
    "public",
    "random",
    "read",
    "record",
    "recover",
    "remove",
    "renew",
    "repair",
    "replay",
    "replayed",
    "reply",
    "request",
    "restore",
    "result",
    "revoke",
    "rewrap",
    "rewrapped",
    "rotate",
    "rule",
    "scheme",
    "self",
    "services",
    "share",
    "sign",
    "signed",
    "state",
    "status",
    "store",
    "supported",
    "system",
    "temporary",
    "token",
    "tokens",
    "too",
    "trust",
    "type",
    "unauthenticated",
    "unavailable",
    "unknown",
    "unsupported",
    "update",
    "upload",
    "use",
    "vault",
    "verified",
    "verify",
    "version",
    "versions",
    "violation",
}
"""Words of plain English and of verbs of the API, which need no entry."""


def words_of(name: str) -> list[str]:
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|[a-z]+", name)]


def glossary() -> set[str]:
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE)
    return {word for term in terms for word in re.findall(r"[a-z]+", term.lower())}


def public_names() -> Iterator[tuple[str, str]]:
    for file in sorted(MODEL.glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield file.stem, node.name


def test_public_names_of_the_model_are_made_of_words_of_the_glossary() -> None:
    known = glossary() | COMMON
    unknown = {
        f"{module}.{name}": missing
        for module, name in public_names()
        if (missing := [word for word in words_of(name) if word not in known and word.rstrip("s") not in known])
    }
    assert unknown == {}, "add the word to docs/glossary.md, or use one that is there"


def test_the_glossary_has_each_word_once_and_a_source_for_it() -> None:
    rows = re.findall(
        r"^\| (?!word|---)(.+?) \| (.+?) \| (.+?) \|$", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE
    )
    counted = Counter(term for row in rows for term in row[0].split(", "))
    assert [term for term, times in counted.items() if times > 1] == []
    assert [row[0] for row in rows] == sorted((row[0] for row in rows), key=str.lower)


def prose(file: Path) -> Iterator[tuple[int, str]]:
    """Lines of a page outside code, or of comments and docstrings of a module, without what is in backticks."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        fenced = False
        for number, line in enumerate(text.splitlines(), 1):
            fenced ^= line.lstrip().startswith("```")
            if not fenced:
                yield number, re.sub(r"`[^`]*`", "", line)
        return
    lines = text.splitlines()
    spans = {
        number
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    for number, line in enumerate(lines, 1):
        if number in spans:
            yield number, re.sub(r"`[^`]*`", "", line)
        elif "# " in line:
            yield number, re.sub(r"`[^`]*`", "", line.partition("# ")[2])


@pytest.mark.parametrize("reason", BANNED)
def test_prose_is_plain_technical_english(reason: str) -> None:
    pattern = re.compile(BANNED[reason])
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in (*PAGES, *SOURCES)
        for number, line in prose(file)
        if pattern.search(line)
    ]
    assert found == [], reason


def test_lines_of_pages_have_at_most_120_columns() -> None:
    """Tables, links and code cannot be wrapped."""
    long = [
        f"{page.relative_to(ROOT)}:{number}"
        for page in PAGES
        for number, line in prose(page)
        if len(line) > 120 and not line.lstrip().startswith("|") and not line.startswith("    ")
    ]
    assert long == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Refuse whoever asks.", "a free relative as subject: name the caller, process or user"),
        ("Who may not waits in no queue.", "a free relative as subject: a caller that …"),
        ("a text that is none", "a negated predicate: say what is wrong"),
        ("what he did", "a pronoun for an attacker, a caller or an ADMIN"),
    ],
)
def test_the_patterns_find_what_they_are_for(text: str, reason: str) -> None:
    assert re.search(BANNED[reason], text)
    assert not re.search(BANNED[reason], "The caller that may not encrypt is refused.")
