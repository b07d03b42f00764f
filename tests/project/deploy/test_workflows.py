"""The workflows of continuous integration and of a release: pinned, and with no more rights than each job needs."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # comes with the tests of the OpenAPI document

from tests.support.paths import ROOT

FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RELEASE = ROOT / ".github" / "workflows" / "release.yml"
WRITERS = {
    ("release.yml", "sign"): {"id-token", "attestations"},
    ("release.yml", "draft"): {"contents"},
}
"""The only jobs that may write, and what."""


def parsed(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return loaded


def test_there_are_workflows() -> None:
    assert {file.name for file in FILES} == {"ci.yml", "release.yml"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_action_is_pinned_by_commit_with_its_tag_beside_it(file: Path) -> None:
    used = re.findall(r"(?m)^\s*-?\s*uses: (.*)$", file.read_text(encoding="utf-8"))
    assert used
    for action in used:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_job_writes_only_what_it_must(file: Path) -> None:
    workflow = parsed(file)
    assert "write" not in workflow["permissions"].values()
    for name, job in workflow["jobs"].items():
        writes = {right for right, level in job.get("permissions", {}).items() if level == "write"}
        assert writes == WRITERS.get((file.name, name), set()), name
        assert job["timeout-minutes"] <= 45


def test_a_job_that_may_write_runs_neither_the_project_nor_a_package() -> None:
    for file, name in WRITERS:
        steps = parsed(ROOT / ".github" / "workflows" / file)["jobs"][name]["steps"]
        assert not [step for step in steps if re.search("checkout|make |pip ", str(step))]


def test_a_release_is_built_checked_described_signed_and_attested() -> None:
    jobs = parsed(RELEASE)["jobs"]
    steps = {name: [step.get("uses", "") + step.get("run", "") for step in job["steps"]] for name, job in jobs.items()}
    build, sign, draft = ("\n".join(steps[name]) for name in ("build", "sign", "draft"))
    assert build.index("make check") < build.index("-m build") < build.index("upload-artifact")
    assert "cyclonedx-py requirements requirements.lock" in build
    assert "attest-build-provenance" in sign
    assert "provenance.sigstore.json" in sign
    assert "--draft" in draft
    assert (jobs["sign"]["needs"], jobs["draft"]["needs"]) == ("build", "sign")


def test_no_workflow_reads_a_stored_secret_or_runs_text_from_outside() -> None:
    for file in FILES:
        written = file.read_text(encoding="utf-8")
        assert "secrets." not in written
        assert "pull_request_target" not in written
        for job in parsed(file)["jobs"].values():
            assert not [step for step in job["steps"] if "${{" in step.get("run", "")], file.name
