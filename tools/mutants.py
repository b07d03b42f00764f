"""Mutation testing of the judging layers: each small wrong change of their code must make a test fail.

Each mutant (tools/mutations.py) is written into a copy of the checkout, and the tests that run its lines are run on it,
the quickest first, until one fails. One that no test notices has survived: either a test is missing, or the change
changes nothing that is promised, and then tests/mutants.toml says why. A survivor without a reason there makes this
fail, and so does a reason whose mutant is gone. Verdicts are kept in .mutants/, so that a run that was ended goes on.
"""

import argparse
import fnmatch
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from tools.mutant_map import JUDGED, Coverage, own_tests
from tools.mutant_worker import BROKEN, KILLED, SURVIVED, TIMEOUT
from tools.mutations import Mutant, mutants

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGE: Final = "src/keyvault_lite"
COPIED: Final = (
    "src",
    "tests",
    "tools",
    "docs",
    "main.py",
    "pyproject.toml",
    *(page.name for page in ROOT.glob("*.md")),
)
EXPLAINED: Final = ROOT / "tests" / "mutants.toml"
KEPT: Final = ROOT / ".mutants"
SUPPORT: Final = ("src", "tests/conftest.py", "tests/support/harness.py", "tests/vectors")
FOLDERS: Final = (
    "unit/access",
    "unit/app",
    "unit/audit",
    "unit/crypto",
    "unit/dialects",
    "unit/engine",
    "unit/ledger",
    "unit/model",
    "unit/witness",
    "suites/protocol",
    "suites/tamper",
)
"""Of tests/: what judges the layers in the process of the tests and within a minute or two."""
LOADED: Final = ("keyvault_lite.app", "keyvault_lite.server.serve", "keyvault_lite.cli.main")
UNREACHED, SUSPECT, OPEN = "unreached", "suspect", "open"
FAVOURITES: Final = 15

Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Target:
    """A mutant of a file, the file named within the package."""

    file: str
    mutant: Mutant

    @property
    def key(self) -> Key:
        """What a reason is written for."""
        return (self.file, *self.mutant.key)

    @property
    def name(self) -> str:
        """What stands for it in the verdicts: all of its mutated file, because keys may be shared within a line."""
        return hashlib.sha256(f"{self.file}\n{self.mutant.source}".encode()).hexdigest()

    def tests(self, coverage: Coverage) -> list[str]:
        """What may find it. What runs at import may be a constant: a test that asks for it runs no line."""
        if not self.mutant.imported:
            return coverage.tests(self.file, self.mutant.lines)
        return coverage.tests(self.file, None, _files_that_import(self.file))

    def __str__(self) -> str:
        mutant = self.mutant
        return f"{self.file}:{mutant.lines.stop - 1}: {mutant.where}: {mutant.line}   [{mutant.change}]"


def targets(patterns: Iterable[str] = ("*",)) -> list[Target]:
    """Every mutant of the modules that fit a pattern: `access/*`, `audit/merkle.py`."""
    wanted = list(patterns)
    files = [file for pattern in JUDGED for file in sorted((ROOT / PACKAGE).glob(pattern))]
    return [
        Target(name, mutant)
        for file in files
        if any(fnmatch.fnmatch(name := file.relative_to(ROOT / PACKAGE).as_posix(), pattern) for pattern in wanted)
        for mutant in mutants(file.read_text(encoding="utf-8"))
    ]


def explained() -> dict[Key, str]:
    """The survivors that are known, each with its reason."""
    listed = tomllib.loads(EXPLAINED.read_text(encoding="utf-8")).get("survivor", [])
    return {(one["file"], one["where"], one["line"], one["change"]): one["why"] for one in listed}


# Verdicts


def _digest(*places: Path) -> str:
    """Of all Python in these folders and files."""
    digest = hashlib.sha256()
    for file in sorted(file for place in places for file in [place, *place.rglob("*.py")] if file.is_file()):
        digest.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _files_of_tests() -> dict[str, str]:
    """Each with its digest; what is beside it in its folder is part of that."""
    files = (file for folder in FOLDERS for file in sorted((ROOT / "tests" / folder).rglob("test_*.py")))
    return {str(file.relative_to(ROOT)): _digest(file, *_beside(file)) for file in files}


def _kept_files(digest: str) -> Path:
    return KEPT / f"tests-{digest}.json"


@cache
def _survived_files(digest: str) -> dict[str, str]:
    """The files of tests, with their digests, as they were when their digest was this."""
    kept = _kept_files(digest)
    return json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}


@cache
def _files_that_import(file: str) -> frozenset[str]:
    """The files of tests in which a module is named."""
    package, stem = file.removesuffix(".py").replace("/", r"\.").rsplit(r"\.", 1)
    module = re.compile(rf"keyvault_lite\.{package}(\.| import .*\b){stem}\b")
    return frozenset(name for name in _files_of_tests() if module.search((ROOT / name).read_text(encoding="utf-8")))


def _beside(file: Path) -> list[Path]:
    return [other for other in file.parent.glob("*.py") if not other.name.startswith("test_")]


def _coverage(copy: Path, processes: int) -> Coverage:
    """What is known of the tests as they are, measured where it is not known yet."""
    kept, source = KEPT / "map.json", _digest(*(ROOT / place for place in SUPPORT))
    known = Coverage.load(kept) if kept.exists() else None
    if known is None or known.source != source:
        known = Coverage(source, {}, {}, {})
    known.add(copy, _environment(copy), processes, _files_of_tests())
    known.save(kept)
    return known


@dataclass
class Verdicts:
    """What is known of mutants: one that was found stays so while its file does, a survivor while the tests do."""

    file: Path
    tests: str
    known: dict[str, str] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)
    """Survivors from before tests have changed, and the tests that they have survived."""
    suspects: set[str] = field(default_factory=set)
    """What some tests have not found, and the others have not been asked about."""
    found_by: dict[tuple[str, ...], Counter[str]] = field(default_factory=dict)
    """How many mutants a test has found in a file, and in a function of it."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        for line in self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else ():
            told = json.loads(line)
            lasting = told["verdict"] in {KILLED, TIMEOUT}
            if lasting or (told["verdict"] in {SURVIVED, UNREACHED} and told["tests"] == self.tests):
                self.known[told["name"]] = told["verdict"]
            elif told["verdict"] == SURVIVED:
                self.again[told["name"]] = told["tests"]
            elif told["verdict"] == SUSPECT and told["tests"] == self.tests:
                self.suspects.add(told["name"])
            self._note(tuple(told.get("place", ())), told["by"] if told["verdict"] == KILLED else "")

    def add(self, target: Target, verdict: str, by: str) -> None:
        """Keep a verdict, and the test that gave it."""
        told = {"name": target.name, "verdict": verdict, "tests": self.tests, "mutant": str(target), "by": by}
        place = (target.file, target.mutant.where)
        with self.lock, self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told | {"place": place}, ensure_ascii=False) + "\n")
            if verdict == SUSPECT:
                self.suspects.add(target.name)
            else:
                self.known[target.name] = verdict
            self._note(place, by if verdict == KILLED else "")

    def _note(self, place: tuple[str, ...], test: str) -> None:
        for part in (place, place[:1]) if place and test else ():
            self.found_by.setdefault(part, Counter())[test] += 1

    def favourites(self, target: Target) -> list[str]:
        """The tests that have found most mutants of its function, and then of its file."""
        place = (target.file, target.mutant.where)
        with self.lock:
            return [
                test
                for part in (place, place[:1])
                for test, _ in self.found_by.get(part, Counter()).most_common(FAVOURITES)
            ]


# Running


def _copy(folder: Path) -> Path:
    """What tests need of the checkout; changed files exist only there."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    # Compiled files that are believed for their source's content: two mutants may be of one size and one second.
    command = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "src"]
    subprocess.run(command, cwd=folder, check=True)  # noqa: S603
    return folder


def _environment(copy: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYVAULT_")}
    vectors = os.environ.get("KEYVAULT_TEST_VECTORS", str(ROOT.parent / "shared" / "vectors"))
    return kept | {"PYTHONPATH": f"{copy / 'src'}{os.pathsep}{copy}", "KEYVAULT_TEST_VECTORS": vectors}


def _judge(worker: subprocess.Popen[str], shared: "_Shared", coverage: Coverage, verdicts: Verdicts) -> None:
    """One worker's share: what it takes from those that wait."""
    for target in shared:
        tests = target.tests(coverage)
        if target.name in verdicts.again:
            tests = coverage.newer(tests, _survived_files(verdicts.again[target.name]))
        stages = coverage.stages(tests, verdicts.favourites(target), own_tests(target.file))
        suspected = target.name in verdicts.suspects
        asked = [stage for stage in (stages if suspected else stages[:2]) if stage[0]]
        unasked = SURVIVED if target.name in verdicts.again else UNREACHED
        verdict, by = _ask(worker, target, asked) if asked else (unasked, "")
        if verdict == SURVIVED and not suspected and stages[2][0]:
            verdict = SUSPECT
            shared.append(target)
        verdicts.add(target, verdict, by)
        if verdict in {SURVIVED, SUSPECT, BROKEN}:
            print(f"{verdict}: {target}", by, flush=True)


def _ask(worker: subprocess.Popen[str], target: Target, stages: list[tuple[list[str], int]]) -> tuple[str, str]:
    if worker.stdin is None or worker.stdout is None:
        raise ValueError(worker)
    job = {"path": f"{PACKAGE}/{target.file}", "source": target.mutant.source, "stages": stages}
    worker.stdin.write(json.dumps(job) + "\n")
    worker.stdin.flush()
    answer = worker.stdout.readline()
    if not answer:
        raise SystemExit(f"The worker has died of {target}")
    told = json.loads(answer)
    return told["verdict"], told["by"]


def _employ(copy: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tools.mutant_worker", *LOADED]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=copy, env=_environment(copy), **pipes)  # noqa: S603


class _Shared(Iterator[Target]):
    """Targets that several workers take from."""

    def __init__(self, those: list[Target], seconds: float) -> None:
        self._left, self._all, self._lock = those[::-1], len(those), threading.Lock()
        self._ends = time.monotonic() + seconds

    def __next__(self) -> Target:
        with self._lock:
            if not self._left or time.monotonic() > self._ends:
                raise StopIteration
            done = self._all - len(self._left)
            if done and done % 50 == 0:
                print(f"… {done} of {self._all}", flush=True)
            return self._left.pop()

    def append(self, target: Target) -> None:
        """Have it given out once more, after all others."""
        with self._lock:
            self._left.insert(0, target)
            self._all += 1

    def stop(self) -> None:
        """Give out no more."""
        with self._lock:
            self._left.clear()


def _share_out(workers: list[subprocess.Popen[str]], shared: _Shared, coverage: Coverage, verdicts: Verdicts) -> None:
    with ThreadPoolExecutor(len(workers)) as pool:
        try:
            for share in [pool.submit(_judge, worker, shared, coverage, verdicts) for worker in workers]:
                share.result()
        finally:  # a thread that waits for an answer ends with its worker
            shared.stop()
            for worker in workers:
                worker.terminate()
                worker.wait()


def run(chosen: list[Target], processes: int, seconds: float, known: Mapping[Key, str]) -> Verdicts:
    """Judge those that are not judged yet, and not known to survive, as many as there is time for."""
    KEPT.mkdir(exist_ok=True)
    verdicts = Verdicts(KEPT / "verdicts.jsonl", _digest(*(ROOT / "tests" / folder for folder in FOLDERS)))
    _kept_files(verdicts.tests).write_text(json.dumps(_files_of_tests()), encoding="utf-8")
    new = [target for target in chosen if target.name not in verdicts.known and target.key not in known]
    print(f"{len(chosen)} mutants, {len(new)} of them to be judged.", flush=True)
    if not new:
        return verdicts
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies = [_copy(Path(folder, str(number))) for number in range(processes)]
        coverage = _coverage(copies[0], processes)
        # Former survivors first, what takes long and suspects last: a run that is ended has told what it could.
        cost = {target.name: coverage.cost(target.tests(coverage)) for target in new}
        new.sort(key=lambda one: (one.name in verdicts.suspects, one.name not in verdicts.again, cost[one.name]))
        shared = _Shared(new, seconds)
        _share_out([_employ(copy) for copy in copies], shared, coverage, verdicts)
    return verdicts


def summary(chosen: list[Target], verdicts: Mapping[str, str], reasons: Mapping[Key, str]) -> tuple[list[str], int]:
    """The table a module, and what is wrong; the exit code."""
    counts: dict[str, Counter[str]] = {}
    there = {target.key for target in targets({key[0] for key in reasons})}
    wrong = [f"no such mutant any more: {' · '.join(key)}" for key in sorted(reasons.keys() - there)]
    for target in chosen:
        verdict = verdicts.get(target.name, OPEN)
        if target.key in reasons and verdict not in {KILLED, TIMEOUT}:
            verdict = "explained"
        elif verdict in {SURVIVED, BROKEN}:
            wrong.append(f"{verdict}, without a reason in {EXPLAINED.name}: {target}")
        counts.setdefault(target.file, Counter())[verdict] += 1
    columns = (KILLED, TIMEOUT, "explained", SURVIVED, UNREACHED, BROKEN, OPEN)
    rows = [f"| module | mutants | {' | '.join(columns)} |", "| --- |" + " ---: |" * (len(columns) + 1)]
    for name, count in (*counts.items(), ("all", sum(counts.values(), Counter()))):
        rows.append(f"| {name} | {count.total()} | {' | '.join(str(count[column]) for column in columns)} |")
    return [*rows, *wrong], int(bool(wrong))


def main() -> int:
    """The exit code: 1 if something has survived or a reason is stale."""
    parser = argparse.ArgumentParser(prog="make mutants ARGS=…", description=__doc__)
    parser.add_argument("patterns", nargs="*", default=["*"], help="modules: access/*, audit/merkle.py; else all")
    parser.add_argument("--all", action="store_true", help="every mutant, not a sample: hours")
    parser.add_argument("--sample", type=int, default=300, help="so many, drawn by chance (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample: the same, the same mutants")
    parser.add_argument("--recheck", action="store_true", help="judge those too that are known to survive")
    parser.add_argument(
        "--minutes", type=float, default=30, help="then end; the next run goes on (default: %(default)s)"
    )
    parser.add_argument("--processes", type=int, default=2)
    said = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through every `finally`: no copy and no worker is left
    chosen = targets(said.patterns)
    if not chosen:
        parser.error("no module fits")
    if not said.all and said.sample < len(chosen):
        chosen = random.Random(said.seed).sample(chosen, said.sample)  # noqa: S311
    reasons = explained()
    verdicts = run(chosen, said.processes, said.minutes * 60, {} if said.recheck else reasons)
    told, code = summary(chosen, verdicts.known, reasons)
    print("\n".join(told))
    return code


if __name__ == "__main__":
    sys.exit(main())
