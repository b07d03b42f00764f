"""What the documentation tells people to type is typed here, and does what the page says it does."""

import shutil
from pathlib import Path

import pytest

from tests.project.docs.pages import TOOLS, Sandbox, Step, holds, pages, sessions
from tests.support.paths import ROOT

SESSIONS = [
    pytest.param(name, steps, id=f"{page.relative_to(ROOT)}{'#' * bool(name)}{name}")
    for page in pages()
    for name, steps in sessions(page.read_text(encoding="utf-8")).items()
]


def test_the_readme_has_a_session() -> None:
    assert sessions((ROOT / "README.md").read_text(encoding="utf-8"))[""]


@pytest.mark.timeout(300)  # seconds on a machine of its own, more on a busy one
@pytest.mark.parametrize(("name", "steps"), SESSIONS)
def test_the_commands_of_a_page(name: str, steps: list[Step], tmp_path: Path) -> None:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)}")
    for ran in Sandbox(tmp_path).run(steps):
        said = f"$ {ran.step.commands}\n{ran.output}"
        assert ran.status == ran.step.status, said
        for fragment in ran.step.fragments:
            assert holds(fragment, ran.output), f"{said}\n(no {fragment!r} in it)"
