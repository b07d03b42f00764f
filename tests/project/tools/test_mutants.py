"""Mutation testing judges rightly: what it changes, that a survivor is told, and that reasons are not stale."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.mutant_map import QUICK, Coverage, _folder_of_tests, own_tests
from tools.mutants import ROOT, Target, Verdicts, _files_that_import, explained, summary, targets
from tools.mutations import Mutant, mutants

CASES = {
    "a = b < c": {"< → <="},
    "a = b == c": {"== → !="},
    "a = b is not c": {"is not → is"},
    "a = b and c": {"no b", "no c"},
    "a = b or c == d": {"no b", "no c == d"},
    "a = not b": {"no not"},
    "a = b if c else d": {"if c → always", "if c → never"},
    "if a:\n    b = c": {"not"},
    "a = [b for b in c if d]": {"not"},
    "a = 7": {"7 → 8", "7 → 6"},
    "a = True": {"True → False"},
    "a = b + c": {"Add → Sub"},
    "a = b'KVL'": {"other bytes"},
    "a = 'kvl/v1/row'": {"other label"},
    "raise Error('text')": {"no raise"},
    "check(a)": {"no call"},
    "a += b": {"no assignment"},
    "def f():\n    return a": {"return None"},
    "while a():\n    break": {"not", "break → continue"},
    "for a in b:\n    continue": {"continue → break"},
}
ALONE = (
    "'''Text.'''",
    "import a",
    "a: Literal[1]",
    "a = 'text'",
    "a = f'{b + c}'",
    "raise Error(a + b) from None",
    "class A(Protocol):\n    b = 1",
    "if TYPE_CHECKING:\n    a = 1",
    "@cache(1)\ndef f(a: Literal[1]) -> Literal[1]: ...",
    "def f():\n    return None",
    "match a:\n    case -1:\n        pass",
    "assert_never(1)",
)


@pytest.mark.parametrize("source", CASES)
def test_what_is_changed(source: str) -> None:
    made = mutants(source)
    assert {mutant.change for mutant in made} == CASES[source]
    assert all(ast.dump(ast.parse(mutant.source)) != ast.dump(ast.parse(source)) for mutant in made)


@pytest.mark.parametrize("source", ALONE)
def test_what_is_left_alone(source: str) -> None:
    assert [mutant.change for mutant in mutants(source) if mutant.change != "no raise"] == []


def test_mutants_are_python() -> None:
    for target in targets(["access/lifetimes.py", "crypto/container.py"]):
        compile(target.mutant.source, target.file, "exec", dont_inherit=True)


def test_the_tests_of_a_module_are_in_a_folder_that_is_there() -> None:
    files = {target.file for target in targets()}
    assert {file for file in files if not (ROOT / _folder_of_tests(file)).is_dir()} == set()
    assert own_tests("dialects/aws/policy.py") == "tests/unit/dialects/aws/test_policy.py::"
    assert own_tests("ledger/commit/writer.py") == "tests/unit/ledger/commit/test_writer.py::"


def test_a_mutant_is_named_by_its_function_and_its_line() -> None:
    source = "class A:\n    def é(self):\n        '''Text.'''\n        x = 'é'; return  self.b   <  c\n"
    changed = next(mutant for mutant in mutants(source) if mutant.change == "< → <=")
    assert changed.key == ("A.é", "x = 'é'; return self.b < c", "< → <=")
    assert changed.lines == range(4, 5)
    assert "x = 'é'; return  (self.b <= c)\n" in changed.source
    moved = next(mutant for mutant in mutants(f"import a\n\n{source}") if mutant.change == "< → <=")
    assert moved.key == changed.key


def test_every_reason_has_its_mutant() -> None:
    reasons = explained()
    assert reasons.keys() - {target.key for target in targets({key[0] for key in reasons})} == set()
    assert [key for key, why in reasons.items() if len(why) < 20] == []


def some(change: str = "x") -> Target:
    return Target(
        "access/lifetimes.py", Mutant("f", "line", change, range(3, 4), imported=False, source=f"source {change}")
    )


def test_a_survivor_without_a_reason_fails() -> None:
    target = some()
    assert summary([target], {target.name: "killed"}, {})[1] == 0
    assert summary([target], {target.name: "unreached"}, {})[1] == 0, "of no test here; coverage is another target"
    for verdict in ("survived", "broken"):
        told, code = summary([target], {target.name: verdict}, {})
        assert code == 1
        assert str(target) in told[-1]


def test_what_was_not_judged_is_said_to_be_open() -> None:
    told, code = summary([some()], {}, {})
    assert code == 0
    assert told[0].endswith("| open |")
    assert told[-1] == "| all | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 1 |"


def test_a_reason_is_for_one_mutant_that_is_there() -> None:
    there = targets(["access/lifetimes.py"])[0]
    assert summary([there], {there.name: "survived"}, {there.key: "because"})[1] == 0
    told, code = summary([there], {there.name: "killed"}, {some().key: "because"})
    assert code == 1
    assert told[-1].startswith("no such mutant any more")


def test_a_survivor_is_tried_again_when_tests_have_changed(tmp_path: Path) -> None:
    first = Verdicts(tmp_path / "verdicts.jsonl", "tests as they were")
    for verdict in ("killed", "survived", "suspect", "broken"):
        first.add(some(verdict), verdict, f"by {verdict}")
    same = Verdicts(first.file, first.tests)
    assert set(same.known.values()) == {"killed", "survived"}
    assert same.suspects == {some("suspect").name}
    assert same.favourites(some("another")) == ["by killed", "by killed"], "of its function, and of its file"
    others = Verdicts(first.file, "others")
    assert set(others.known.values()) == {"killed"}
    assert others.again == {some("survived").name: first.tests}


def test_a_line_meets_the_tests_that_run_it_the_quickest_of_its_layer_first() -> None:
    lines = {
        3: {"tests/unit/engine/a", "tests/unit/access/slow", "tests/unit/access/quick"},
        4: {"tests/unit/model/b"},
        5: set[str](),
    }
    coverage = Coverage(
        "", {}, {"access/lifetimes.py": lines}, {"tests/unit/access/slow": 9.0, "tests/unit/access/quick": 0.1}
    )
    assert coverage.tests("access/lifetimes.py", range(3, 4)) == [
        "tests/unit/access/quick",
        "tests/unit/access/slow",
        "tests/unit/engine/a",
    ]
    assert len(coverage.tests("access/lifetimes.py", None)) == 4, "run at import: every test of the module"
    assert len(coverage.tests("access/lifetimes.py", range(5, 6))) == 4, "called at import"
    assert coverage.tests("access/lifetimes.py", range(1, 2)) == []
    assert coverage.tests("access/lifetimes.py", range(6, 7)) == []


def test_a_module_that_runs_at_import_alone_is_its_layers() -> None:
    seconds = {"tests/unit/access/a": 1.0, "tests/unit/access/b": 0.5, "tests/unit/model/c": 0.1}
    coverage = Coverage("", {}, {"access/tables.py": {1: set[str](), 2: set[str]()}}, seconds)
    for lines in (range(1, 2), None):
        assert coverage.tests("access/tables.py", lines) == ["tests/unit/access/b", "tests/unit/access/a"]
    assert coverage.tests("access/tables.py", range(3, 4)) == []
    assert coverage.tests("access/none.py", None) == []


def test_favourites_first_then_one_case_of_each_function_then_the_rest() -> None:
    cases = [f"t.py::test_many[{number}]" for number in range(40)]
    seconds = {
        "t.py::test_slow": 30.0,
        "t.py::test_middling": 2.0,
        "t.py::test_other[0]": 1.0,
        "t.py::test_other[1]": 1.0,
        "own.py::test_of_its_own": 3.0,
        "own.py::test_too_long": 40.0,
    }
    coverage = Coverage("", {}, {}, seconds)
    tests = [*cases, *seconds]
    quick, short, rest = (part for part, _ in coverage.stages(tests, ["gone", "t.py::test_slow"], "own.py::"))
    assert quick == ["t.py::test_slow", *cases[: QUICK - 1]]
    assert short == ["own.py::test_of_its_own", "t.py::test_other[0]", "t.py::test_middling"]
    assert rest[0] == "own.py::test_too_long"
    assert sorted([*quick, *short, *rest]) == sorted(tests)
    assert [part for part, _ in coverage.stages([], [], "own.py::")] == [[], [], []]


def test_what_runs_at_import_meets_the_files_that_name_its_module() -> None:
    """A test of a constant runs no line."""
    seconds = {"tests/unit/access/test_tables.py::test_a": 1.0, "tests/unit/access/test_others.py::test_b": 0.5}
    lines = {1: set[str](), 2: {"tests/unit/model/test_c.py::test_c"}}
    coverage = Coverage("", {}, {"access/tables.py": lines}, seconds)
    assert coverage.tests("access/tables.py", None, {"tests/unit/access/test_tables.py"}) == [
        "tests/unit/access/test_tables.py::test_a",
        "tests/unit/model/test_c.py::test_c",
    ]
    assert coverage.tests("access/tables.py", range(2, 3)) == ["tests/unit/model/test_c.py::test_c"]
    importers = _files_that_import("ledger/archive/archiver.py")
    assert {
        "tests/unit/ledger/archive/test_archiver.py",
        "tests/unit/ledger/archive/test_segment_files.py",
    } <= importers
    assert "tests/unit/ledger/migrate/test_move.py" in _files_that_import("ledger/migrate/move.py"), (
        "imported from its package"
    )
    assert "tests/unit/access/test_lifetimes.py" not in importers


def test_only_tests_of_files_that_changed_are_asked_about_a_survivor() -> None:
    coverage = Coverage("", {"a.py": "1", "b.py": "2", "c.py": "3"}, {}, {})
    assert coverage.newer(["a.py::x", "b.py::y", "c.py::z"], {"a.py": "1", "b.py": "1"}) == ["b.py::y", "c.py::z"]


def test_what_runs_at_import_is_known() -> None:
    source = (
        "A = 1\nclass B:\n    c = 2\n    def d(self, e=3):\n        return 4 + e\n"
        "@cache\ndef f(g):\n    return 5\n@functools.lru_cache(maxsize=9)\ndef h(i):\n    return 6\n"
    )
    told = {mutant.change.split(" ")[0]: mutant.imported for mutant in mutants(source) if "→" in mutant.change}
    assert told == {"1": True, "2": True, "3": True, "4": False, "Add": False, "5": True, "6": True}


TESTS = """
from part import half
def test_half(): assert half(4) == 2
def test_other(): assert half
"""


def test_the_worker_judges_and_puts_the_file_back(tmp_path: Path) -> None:
    genuine = "def half(n): return n // 2\n"
    (tmp_path / "part.py").write_text(genuine)
    (tmp_path / "test_part.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    changes = {
        "def half(n): return n * 2\n": ("killed", "test_part.py::test_half"),
        "def half(n): return n >> 1\n": ("survived", ""),
        "def half(n):\n    while n: pass\n": ("timeout", ""),
        "def half(n) return": ("killed", ""),
        "import os; os._exit(5)\n": ("broken", None),
    }
    jobs = [
        {
            "path": "part.py",
            "source": source,
            "stages": [[["test_part.py::test_other"], 20], [["test_part.py"], seconds]],
        }
        for source, (verdict, _) in changes.items()
        if (seconds := 1 if verdict == "timeout" else 20)
    ]
    ran = subprocess.run(
        [sys.executable, "-m", "tools.mutant_worker"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        input="".join(json.dumps(job) + "\n" for job in jobs),
        capture_output=True,
        text=True,
        check=False,
    )
    told = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [one["verdict"] for one in told] == [verdict for verdict, _ in changes.values()], ran.stderr
    assert [by in (None, one["by"]) for one, (_, by) in zip(told, changes.values(), strict=True)] == [True] * len(told)
    assert (tmp_path / "part.py").read_text() == genuine


def test_only_files_that_changed_are_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = {1: {"tests/a.py::test_x", "tests/b.py::test_y", "tests/c.py::test_z"}}
    files = dict.fromkeys(("tests/a.py", "tests/b.py", "tests/c.py"), "1")
    old = Coverage("source", files, {"access/lifetimes.py": lines}, {})
    old.save(tmp_path / "map.json")
    known = Coverage.load(tmp_path / "map.json")
    assert known == old
    run: list[list[str]] = []

    def measured(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        run.append(command[4:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", measured)
    monkeypatch.setattr(Coverage, "_read", lambda *_: None)
    files = {"tests/a.py": "1", "tests/b.py": "2", "tests/d.py": "1"}
    known.add(tmp_path, {}, 2, files)
    assert run == [["tests/b.py", "tests/d.py"]]
    assert known.lines == {"access/lifetimes.py": {1: {"tests/a.py::test_x"}}}
    assert known.files == files
    known.add(tmp_path, {}, 2, files)
    assert len(run) == 1


UNSTEADY = """
from pathlib import Path
from keyvault_lite.access.leases import half

def test_steady(): assert half(4) == 2

def test_unsteady():
    half(4)
    if {always} or not Path("seen").exists():
        Path("seen").touch()
        raise AssertionError
"""


@pytest.mark.parametrize("always", [False, True])
def test_what_fails_now_and_then_judges_nothing(tmp_path: Path, *, always: bool) -> None:
    package = tmp_path / "keyvault_lite" / "access"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    (package / "leases.py").write_text("def half(n):\n    return n // 2\n")
    (tmp_path / "test_part.py").write_text(UNSTEADY.format(always=always))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / ".coveragerc").write_text("[run]\nsource = keyvault_lite\n")
    coverage = Coverage("", {}, {}, {})
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    if always:
        with pytest.raises(SystemExit, match="mend them first"):
            coverage.add(tmp_path, environment, 1, {"test_part.py": "1"})
        assert coverage.files == {}
    else:
        coverage.add(tmp_path, environment, 1, {"test_part.py": "1"})
        assert coverage.lines["access/leases.py"][2] == {"test_part.py::test_steady"}
