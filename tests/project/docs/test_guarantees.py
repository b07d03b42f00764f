"""Each guarantee says whom it holds against, what it needs and where it ends; the tests that it names are there."""

import re
from pathlib import Path

import pytest

from tests.project.docs.pages import text
from tests.support.paths import ROOT

PAGE = "docs/guarantees.md"
PARTS = ["Against", "Provided", "Proven by", "Limit"]
NAMED = re.compile(r"`(tests/[\w/.]+)`")


def sections() -> dict[str, str]:
    """The guarantees by number."""
    found = re.split(r"^## (G\d+)\. .*$", text(PAGE), flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], (body.partition("\n## ")[0] for body in found[1::2]), strict=True))


def proofs(body: str) -> str:
    """What follows `Proven by`, up to the next part."""
    return body.partition("- **Proven by:**")[2].partition("\n- **")[0]


def has_tests(path: Path) -> bool:
    """Whether pytest finds something there."""
    files = [path] if path.is_file() else path.glob("test_*.py")
    return any(re.search(r"^ *(async )?def test_", file.read_text(encoding="utf-8"), re.MULTILINE) for file in files)


def test_guarantees_are_numbered_without_a_gap_and_listed() -> None:
    assert list(sections()) == [f"G{number}" for number in range(1, len(sections()) + 1)]
    assert re.findall(r"^\| \[(G\d+)\]", text(PAGE), re.MULTILINE) == list(sections())


@pytest.mark.parametrize("number", sections())
def test_each_says_against_whom_what_it_needs_its_proof_and_its_limit(number: str) -> None:
    body = sections()[number]
    assert re.findall(r"^- \*\*(.*?):\*\* \S", body, re.MULTILINE) == PARTS
    assert body.strip().partition("\n\n")[0], "no promise"
    assert NAMED.findall(proofs(body)), "no proof"


@pytest.mark.parametrize("path", sorted(set(NAMED.findall(text(PAGE)))))
def test_the_tests_that_are_named_are_there(path: str) -> None:
    assert has_tests(ROOT / path)


def test_what_is_no_test_is_no_proof(tmp_path: Path) -> None:
    assert not has_tests(tmp_path)
    (tmp_path / "test_empty.py").write_text('"""def test_"""\n')
    assert not has_tests(tmp_path)
    assert not has_tests(tmp_path / "absent")


def test_guarantees_and_threat_model_lead_to_each_other() -> None:
    assert "](../threat_model.md" in text(PAGE)
    assert "](docs/guarantees.md" in text("threat_model.md")
