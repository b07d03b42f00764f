"""Which tests run which line of the judging layers, and how long each takes: a mutant meets those that matter."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from coverage import CoverageData

LAYERS: Final = ("access", "audit", "crypto", "ledger")
FOLDERS: Final = ("access", "audit", "aws", "crypto", "engine", "ledger", "model", "vault")
"""Of tests/: what judges the layers without servers and within a minute or two."""
QUICK: Final = 25
"""So many tests are tried first, because nearly every mutant is found by few."""
SECONDS: Final = "seconds.json"


@dataclass(frozen=True)
class Coverage:
    """Who runs a line, and how long that takes."""

    lines: Mapping[str, Mapping[int, frozenset[str]]]
    seconds: Mapping[str, float]

    @classmethod
    def load(cls, file: Path) -> "Coverage":
        """As `measure` has kept it."""
        read = json.loads(file.read_text(encoding="utf-8"))
        lines = {name: {int(n): frozenset(tests) for n, tests in of.items()} for name, of in read["lines"].items()}
        return cls(lines, read["seconds"])

    def tests(self, file: str, lines: range | None) -> list[str]:
        """Who runs these lines of a file, None for any of it; the likeliest first: those of its layer, the quickest."""
        by_line = self.lines.get(file, {})
        found = frozenset[str]().union(*(by_line.get(line, frozenset()) for line in lines or by_line))
        own = f"tests/{file.split('/', maxsplit=1)[0]}/"
        return sorted(found, key=lambda test: (not test.startswith(own), self.seconds.get(test, 0.0), test))

    def stages(self, tests: list[str]) -> list[tuple[list[str], int]]:
        """Tests in the parts in which they are tried, with the processor time that each may take."""
        parts = [part for part in (tests[:QUICK], tests[QUICK:]) if part]
        return [(part, 20 + int(5 * self.cost(part))) for part in parts]

    def cost(self, tests: list[str]) -> float:
        """How long they take."""
        return sum(self.seconds.get(test, 0.0) for test in tests)


def measure(copy: Path, environment: dict[str, str], processes: int, kept: Path) -> None:
    """Run the tests once, unchanged, in a copy of the checkout, and keep what each has run."""
    command = [sys.executable, "-m", "tools.mutant_map", str(processes)]
    if subprocess.run(command, cwd=copy, env=environment, check=False).returncode:  # noqa: S603
        raise SystemExit("The unchanged tests fail: mend them first.")
    data = CoverageData(str(copy / ".coverage"))
    data.read()
    lines: dict[str, dict[int, list[str]]] = {}
    for file in data.measured_files():
        name = file.partition("/keyvault_lite/")[2]
        if name.split("/")[0] in LAYERS:
            contexts = data.contexts_by_lineno(file)
            lines[name] = {n: sorted({one.split("|")[0] for one in told} - {""}) for n, told in contexts.items()}
    seconds = json.loads((copy / SECONDS).read_text(encoding="utf-8"))
    part = kept.with_suffix(".part")
    part.write_text(json.dumps({"lines": lines, "seconds": seconds}), encoding="utf-8")
    part.replace(kept)


class _Times:
    """Collects how long each test took."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration  # type: ignore[assignment]


def main() -> int:
    """The run itself, in the copy."""
    times = _Times()
    options = ["-q", "-n", sys.argv[1], "--cov", "--cov-context=test", "--cov-report=", "-k", "not postgresql"]
    options += ["-p", "no:cacheprovider", *(f"tests/{folder}" for folder in FOLDERS)]
    code = pytest.main(options, plugins=[times])
    Path(SECONDS).write_text(json.dumps(times.seconds), encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
