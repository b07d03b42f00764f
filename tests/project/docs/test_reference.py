"""What the documentation lists is what there is: endpoints, settings, errors, links; and nothing else is in it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import keyvault_lite
from keyvault_lite.model import errors
from keyvault_lite.model.actions import RULES
from keyvault_lite.model.evidence import Action
from keyvault_lite.settings import PREFIX, Settings
from keyvault_lite.wire.http import MAX_CLIENT_ID
from keyvault_lite.wire.native import openapi
from keyvault_lite.wire.native.routes import ROUTES
from keyvault_lite.wire.problems import STATUS
from tests.project.docs.pages import pages, prose, sessions, text
from tests.support.paths import ROOT

PAGES = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages()]
METHODS = ("get", "post", "put", "patch", "delete")
# Paths of somebody's machine, and notes to oneself.
FORBIDDEN = re.compile(r"/(?:Users|home|mnt|tmp|workspace)/|localhost:\d{5}|\b(?:TODO|FIXME|XXX)\b")
EMPTY_WORDS = ("simply", "just ", "easily", "obviously", "blazing", "world-class", "military-grade", "bank-grade")


def anchors(page: str) -> set[str]:
    """The places in a page that a link can lead to, by the rules of the usual renderers."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def rows(page: str, column: int = 0) -> set[str]:
    """What stands in backticks in one column of the page's tables."""
    cells = [line.split("|")[column + 1] for line in prose(page).splitlines() if line.startswith("|")]
    return {found for cell in cells for found in re.findall(r"`([^`]+)`", cell)}


def test_every_endpoint_is_in_the_overview_and_no_other() -> None:
    there = {
        f"{method.upper()} {path}"
        for path, item in openapi.document()["paths"].items()
        for method in item
        if method in METHODS
    }
    listed = {row for row in rows(text("docs/api.md")) if re.match(r"(GET|POST|PUT|PATCH|DELETE) /", row)}
    assert listed - {"GET /openapi.json", "GET /docs"} == there


def test_the_overview_says_who_may() -> None:
    words = {"all roles": {"ADMIN", "SERVICE", "AUDITOR"}}
    lines = dict(re.findall(r"^\| `([A-Z]+ /[^`]*)` \| ([^|]*?) \|", text("docs/api.md"), re.MULTILINE))
    for route in ROUTES:
        said = lines[f"{route.method} {route.path}"]
        roles = words.get(said, set(re.findall("[A-Z]{5,}", said)))
        allowed = {role.value for role in RULES[route.action].roles}
        if "itself" in said or "its service" in said:
            assert roles <= allowed, route.path
        else:
            assert roles == allowed, route.path


def test_every_setting_is_documented() -> None:
    named = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert named <= rows(text("docs/configuration.md")), "docs/configuration.md"


def test_no_setting_is_documented_that_is_none() -> None:
    client = {f"{PREFIX}{name}" for name in ("ADDR", "TOKEN", "TOKEN_FILE", "CACERT")}
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | client
    listed = {row for page in ("docs/configuration.md",) for row in rows(text(page))}
    assert {row for row in listed if row.startswith(PREFIX)} <= known


def test_defaults_are_the_code_s() -> None:
    lines = dict(re.findall(r"^\| `(\w+)` \| `([^`|]*)` \|", text("docs/configuration.md"), re.MULTILINE))
    for name, field in Settings.model_fields.items():
        said = lines.get(f"{PREFIX}{name.upper()}")
        if said is not None:
            default = int(field.default) if isinstance(field.default, bool) else field.default
            assert said == str(default), name


def test_every_action_of_the_log_is_listed_and_no_other() -> None:
    table = text("docs/api.md").partition("## Actions of the log")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    listed = [found for cell in cells for found in re.findall(r"`([^`]+)`", cell)]
    assert sorted(listed) == sorted(Action)


def test_limits_are_said_as_they_are() -> None:
    assert f"at most {MAX_CLIENT_ID} printable ASCII" in " ".join(text("docs/api.md").split())


def every_error() -> set[type[errors.KeyVaultError]]:
    found: set[type[errors.KeyVaultError]] = set()
    waiting: list[type[errors.KeyVaultError]] = [errors.KeyVaultError]
    while waiting:
        below = [one for one in waiting.pop().__subclasses__() if one.__module__ == errors.__name__]
        found.update(below)
        waiting += below
    return found


def test_every_error_code_has_a_row_with_its_status() -> None:
    lines = set(re.findall(r"^\| `(\w+)` \| (\d{3}) \|", text("docs/errors.md"), re.MULTILINE))
    for error in every_error():
        kind = next(one for one in error.__mro__ if one in STATUS)
        assert (error.code, str(STATUS[kind][0])) in lines, error.__name__
    assert {code for code, _ in lines} == {error.code for error in every_error()}


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_somewhere(page: Path) -> None:
    written = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(written)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, place = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if place:
            assert place in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("page", PAGES)
def test_nothing_that_does_not_belong_here(page: Path) -> None:
    written = page.read_text(encoding="utf-8")
    assert FORBIDDEN.findall(written) == []
    assert [word for word in EMPTY_WORDS if word in prose(written).lower()] == []


def test_pictures_have_sources_and_are_not_fetched() -> None:
    drawn = {path.stem for path in (ROOT / "docs" / "pictures").glob("*.dot")}
    assert {path.stem for path in (ROOT / "docs").glob("*.png")} == drawn
    for page in pages():
        for image in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert not re.match(r"[a-z]+:", image), image


def test_versions_and_status_are_said_as_they_are() -> None:
    version = keyvault_lite.__version__
    for page in ("README.md", "SECURITY.md", "docs/badges/status.svg"):
        assert version in text(page), page
        assert "audited" in text(page), page
    assert f"## [{version}]" in text("CHANGELOG.md")


def test_decisions_are_numbered_once() -> None:
    decisions = sorted((ROOT / "docs" / "adr").glob("*.md"))
    numbers = [path.name[:4] for path in decisions]
    assert len(set(numbers)) == len(numbers)
    for path in decisions:
        written = path.read_text(encoding="utf-8")
        assert re.match(
            rf"# {int(path.name[:4])}\. .+\n\nStatus: (accepted|replaced by \[ADR \d+\]\(.+\))\.\n\n", written
        ), path.name


def test_the_index_lists_every_decision_with_its_title() -> None:
    first, *others = sorted((ROOT / "docs" / "adr").glob("*.md"))
    rows = re.findall(r"(?m)^\| \[(\d+)\]\(([^)]+)\) \| (.+) \|$", first.read_text(encoding="utf-8"))
    titles = [path.read_text(encoding="utf-8").partition("\n")[0] for path in others]
    assert [(name, f"# {number}. {title}") for number, name, title in rows] == [
        (path.name, title) for path, title in zip(others, titles, strict=True)
    ]


@pytest.mark.skipif(shutil.which("git") is None, reason="asks git itself")
def test_git_takes_nothing_that_the_readme_writes(tmp_path: Path) -> None:
    commands = "\n".join(step.commands for step in sessions(text("README.md"))[""])
    written = set(re.findall(r"(?:\btee |(?<![->])>|--out |--token-out )([\w.-]+)", commands))
    assert {"admin.http", "shop.json", "master.key", "admin.token"} <= written
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    asked = ["git", "check-ignore", *sorted(written)]
    ignored = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=False).stdout.split()
    assert set(ignored) == written


def test_what_holds_a_token_is_made_with_a_umask() -> None:
    block = re.search(r"```sh\n([^`]*admin\.http\n)```", text("README.md"))
    assert block is not None
    assert block[1].startswith("umask 077\n")


def test_what_is_only_warned_of_is_not_among_the_refusals() -> None:
    table = text("docs/operations.md").partition("## It does not start")[2].partition("`kvl verify -o json`")[0]
    rows_of_it = [line for line in table.splitlines() if line.startswith("|")]
    assert not [row for row in rows_of_it if "open to other users" in row]
    assert "open to other users` is a warning" in table
