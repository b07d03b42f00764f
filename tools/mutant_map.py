"""Which tests run which line of the judging layers, and how long each takes: a mutant meets those that matter."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final, Self

import pytest
from coverage import CoverageData

JUDGED: Final = (
    "access/*.py",
    "audit/*.py",
    "crypto/*.py",
    "dialects/aws/authorize.py",
    "dialects/aws/conditions.py",
    "dialects/aws/credentials.py",
    "dialects/aws/policy.py",
    "dialects/vault/authority.py",
    "ledger/*.py",
    "ledger/[!s]*/*.py",  # all packages but storage: without PostgreSQL and migrations
    "ledger/state/*.py",
    "ledger/storage/*.py",
    "ledger/storage/sqlite/*.py",
)
"""The modules whose mutants are made, as patterns of `glob`."""
QUICK: Final = 25
"""So many tests are tried first, because nearly every mutant is found by few."""
SHORT: Final = 15.0
"""Seconds that the second part may take; what is not found by then waits for all tests, after every other mutant."""
TOLD: Final = "told.json"


@dataclass(frozen=True)
class Coverage:
    """Who runs a line, and how long that takes."""

    source: str
    """The digest of what all tests stand on."""
    files: dict[str, str]
    """The digest of each file of tests."""
    lines: dict[str, dict[int, set[str]]]
    seconds: dict[str, float]

    @classmethod
    def load(cls, file: Path) -> Self:
        """As `save` has kept it."""
        read = json.loads(file.read_text(encoding="utf-8"))
        lines = {name: {int(n): set(tests) for n, tests in of.items()} for name, of in read["lines"].items()}
        return cls(read["source"], read["files"], lines, read["seconds"])

    def save(self, file: Path) -> None:
        """Keep it, whole or not at all."""
        lines = {name: {n: sorted(tests) for n, tests in of.items()} for name, of in self.lines.items()}
        told = {"source": self.source, "files": self.files, "lines": lines, "seconds": self.seconds}
        part = file.with_suffix(".part")
        part.write_text(json.dumps(told), encoding="utf-8")
        part.replace(file)

    def add(self, copy: Path, environment: Mapping[str, str], processes: int, files: Mapping[str, str]) -> None:
        """Run those of these files of tests that have changed, in a copy of the checkout; forget what is gone."""
        changed = sorted(file for file, digest in files.items() if self.files.get(file) != digest)
        self._forget({file for file in self.files if file in changed or file not in files})
        if changed:
            print(f"Running {len(changed)} files of tests, to learn which test runs which line …", flush=True)
            command = [sys.executable, "-m", "tools.mutant_map", str(processes), *changed]
            if subprocess.run(command, cwd=copy, env=environment, check=False).returncode:  # noqa: S603
                raise SystemExit("The unchanged tests fail: mend them first.")
            self._read(CoverageData(str(copy / ".coverage")), copy)
        self.files.update(files)

    def _forget(self, files: set[str]) -> None:
        for file in files:
            del self.files[file]
        for by_line in self.lines.values():
            for tests in by_line.values():
                tests -= {test for test in tests if test.partition("::")[0] in files}

    def _read(self, data: CoverageData, copy: Path) -> None:
        data.read()
        told = json.loads((copy / TOLD).read_text(encoding="utf-8"))
        self.seconds.update(told["seconds"])
        unsteady = {"", *told["unsteady"]}
        for file in data.measured_files():
            name = file.partition("/keyvault_lite/")[2]
            if any(PurePath(name).match(pattern) for pattern in JUDGED):
                by_line = self.lines.setdefault(name, {})
                for line, contexts in data.contexts_by_lineno(file).items():
                    by_line.setdefault(line, set()).update({one.split("|")[0] for one in contexts} - unsteady)

    def tests(self, file: str, lines: range | None, named: Collection[str] = ()) -> list[str]:
        """Who runs these lines of a file, None for any of it; the likeliest first: those of its layer, the quickest.

        What has run without any test has run at import, called from there: then it is everybody's, and of a module of
        which nothing else runs it is its layer's. With all of these come those of the files `named`.
        """
        by_line = self.lines.get(file, {})
        found = set[str]().union(*(by_line.get(line, ()) for line in lines or by_line))
        found |= {test for test in self.seconds if test.partition("::")[0] in named}
        own = _folder_of_tests(file)
        if not found and any(line in by_line for line in lines or by_line):
            if lines is not None:
                return self.tests(file, None)
            found = {test for test in self.seconds if test.startswith(own)}
        return sorted(found, key=lambda test: (not test.startswith(own), self.seconds.get(test, 0.0), test))

    def newer(self, tests: list[str], known: Mapping[str, str]) -> list[str]:
        """Those in files that were not as they are now."""
        return [test for test in tests if self.files.get(file := test.partition("::")[0]) != known.get(file)]

    def stages(self, tests: list[str], favourites: list[str], own: str) -> list[tuple[list[str], int]]:
        """Tests in the three parts in which they are tried, with the seconds of work or of waiting that each may take.

        The favourites and the quickest; then of each function with many cases one, while time is short; then the rest.
        In both the file `own` comes first, which is named like the module.
        """
        there = set(tests)
        first = [*filter(there.__contains__, favourites), *tests]
        quick = list(dict.fromkeys(first))[:QUICK]
        short, rest, functions, left = [], [], {test.partition("[")[0] for test in quick}, SHORT
        others = there.difference(quick)
        for test in sorted(others, key=lambda test: (not test.startswith(own), self.seconds.get(test, 0.0), test)):
            function, cost = test.partition("[")[0], self.seconds.get(test, 0.0)
            if function not in functions and cost <= left:
                short.append(test)
                functions.add(function)
                left -= cost
            else:
                rest.append(test)
        return [(part, 15 + int(4 * self.cost(part))) for part in (quick, short, rest)]

    def cost(self, tests: list[str]) -> float:
        """How long they take."""
        return sum(self.seconds.get(test, 0.0) for test in tests)


def _folder_of_tests(file: str) -> str:
    """The folder with the tests of a module: of its layer, or of its dialect."""
    layer, *parts = file.split("/")
    return f"tests/unit/{layer}/{parts[0]}/" if layer == "dialects" else f"tests/unit/{layer}/"


def own_tests(file: str) -> str:
    """How the tests begin that are in the file named like a module."""
    return f"tests/unit/{PurePath(file).with_name('test_' + PurePath(file).name)}::"


class _Notes:
    """Collects how long each test took, and which failed."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration  # type: ignore[assignment]
        if report.failed:
            self.failed.add(report.nodeid)


def main() -> int:
    """The run itself, in the copy. A test that fails and then passes judges no mutant: it would find what is right."""
    notes = _Notes()
    common = ["-q", "-p", "no:cacheprovider"]
    measured = ["-n", sys.argv[1], "--cov", "--cov-context=test", "--cov-report=", "-k", "not postgresql"]
    code = pytest.main([*common, *measured, *sys.argv[2:]], plugins=[notes])
    if code == pytest.ExitCode.TESTS_FAILED:
        print("Once more, alone:", *sorted(notes.failed), sep="\n  ", flush=True)
        code = subprocess.run([sys.executable, "-m", "pytest", *common, *sorted(notes.failed)], check=False).returncode  # noqa: S603
    told = {"seconds": notes.seconds, "unsteady": sorted(notes.failed)}
    Path(TOLD).write_text(json.dumps(told), encoding="utf-8")
    return 0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else int(code)


if __name__ == "__main__":
    sys.exit(main())
