"""docs/architecture.md is a map: its packages are those of the source, and each file that it names exists."""

import re
from itertools import pairwise

from tests.project.docs.pages import text
from tests.support.paths import ROOT

PAGE = "docs/architecture.md"
SOURCE = ROOT / "src" / "keyvault_lite"
LAST_SECTION = "## Where future parts go"


def listed() -> list[str]:
    """The packages and modules of the tables "What it does", in their order."""
    packages = text(PAGE).partition("## Encrypt, traced")[0]
    return re.findall(r"(?m)^\| `([\w/.]+)` \|", packages)


def test_the_tables_list_every_package_and_no_other() -> None:
    packages = {str(file.parent.relative_to(SOURCE)) for file in SOURCE.rglob("__init__.py")} - {"."}
    modules = {file.name for file in SOURCE.glob("*.py")} - {"__init__.py"}
    inner = {name for name in packages if name.count("/") > 1}  # of one package, such as ledger/storage/sqlite
    assert sorted(listed()) == sorted(packages - inner | modules)


def test_the_tables_follow_the_contracts() -> None:
    contracts = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for container, below in (("keyvault_lite", ""), ("keyvault_lite.ledger", "ledger/")):
        block = contracts.partition(f'containers = ["{container}"]')[2].partition("\nlayers = [")[2].partition("\n]")[0]
        floors = [re.findall(r"\w+", line) for line in re.findall(r'"([^"]+)"', block)]
        floor = {f"{below}{name}": number for number, names in enumerate(floors) for name in names}
        order = [floor[name.removesuffix(".py")] for name in listed() if name.removesuffix(".py") in floor]
        assert order
        assert all(one <= other for one, other in pairwise(order)), container


def test_every_file_that_it_names_exists() -> None:
    today = text(PAGE).partition(LAST_SECTION)[0]
    for name in re.findall(r"`([\w/]+/[\w/]*(?:\.py)?)`", today):
        assert (SOURCE / name).exists() or (ROOT / name).exists(), name
