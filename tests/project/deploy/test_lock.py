"""What the image and the units install is named, release by release, with the SHA-256 of each file."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WANTED = {
    "requirements.lock": [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["postgres"],
    ],
    "requirements-build.lock": PROJECT["build-system"]["requires"],
}


def locked(name: str) -> dict[str, Requirement]:
    """The requirements of a lock file by their name."""
    text = re.sub(r"(?m)^ *#.*$", "", (ROOT / name).read_text(encoding="ascii")).replace("\\\n", " ")
    found: dict[str, Requirement] = {}
    for line in text.splitlines():
        if line.strip():
            pinned, *hashes = re.split(r" +--hash=", line)
            assert hashes, line
            assert all(re.fullmatch(r"sha256:[0-9a-f]{64} *", one) for one in hashes), line
            requirement = Requirement(pinned.strip())
            assert [one.operator for one in requirement.specifier] == ["=="], line
            found[canonicalize_name(requirement.name)] = requirement
    return found


@pytest.mark.parametrize("name", WANTED)
def test_the_lock_is_within_the_ranges_of_the_project(name: str) -> None:
    found = locked(name)
    for wanted in map(Requirement, WANTED[name]):
        [version] = [one.version for one in found[canonicalize_name(wanted.name)].specifier]
        assert wanted.specifier.contains(version), f"{wanted}: run `make lock`"


@pytest.mark.parametrize("name", WANTED)
def test_no_registry_is_named_in_it(name: str) -> None:
    assert not re.search(r"://|--(?:extra-)?index|--find-links|--trusted", (ROOT / name).read_text(encoding="ascii"))


def test_nothing_comes_along_that_is_not_used() -> None:
    assert not {"watchfiles", "websockets", "pyyaml"} & locked("requirements.lock").keys()


def test_the_image_and_the_page_install_from_it() -> None:
    script = (ROOT / "tools" / "install").read_text(encoding="utf-8")
    for name in WANTED:
        assert f"--require-hashes --only-binary :all: -r {name}" in script
    assert "--no-deps --no-index" in script
    assert "tools/install /opt/keyvault" in (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    assert "tools/install /opt/keyvault" in (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
