"""What stands round the package: the scripts behind make, what git must never take, and what is installed."""

import hashlib
import importlib.resources
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

import keyvault_lite
from tests.support.paths import ROOT


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


# --------------------------------------------------------------------------------------------------- tools/find_python


def interpreter(path: Path, *, version: str = "3.13", ensurepip: bool = True) -> Path:
    """A Python that takes itself for `version` and for the file `path`."""
    disguise = "; ".join(
        [
            "import sys",
            f"sys.version_info = ({version.replace('.', ', ')}, 0)",
            f"sys._base_executable = {str(path)!r}",
            *([] if ensurepip else ["sys.modules['ensurepip'] = None"]),
            "exec(sys.argv[1])",
        ]
    )
    return script(path, f"""exec "{sys.executable}" -c "{disguise}" "$2" """)


def shim(path: Path) -> Path:
    """What a version manager leaves on PATH for a version that is not chosen."""
    return script(path, 'echo "$0: command not found" >&2; exit 127')


def find_python(*folders: Path, python: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.pathsep.join(map(str, folders))}
    if python is not None:
        env["PYTHON"] = python
    return subprocess.run(
        [str(ROOT / "tools" / "find_python")], env=env, capture_output=True, text=True, check=False, timeout=60
    )


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, "one sentence"
    return result.stderr


def test_the_newest_python_is_chosen(tmp_path: Path) -> None:
    interpreter(tmp_path / "python3", version="3.11")
    interpreter(tmp_path / "python3.12", version="3.12")
    newest = interpreter(tmp_path / "python3.14", version="3.14")
    assert find_python(tmp_path).stdout == f"{newest}\n"


def test_a_python_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    shim(tmp_path / "shims" / "python3.14")
    shim(tmp_path / "shims" / "python3.13")
    working = interpreter(tmp_path / "folder with spaces" / "python3.13")
    assert find_python(tmp_path / "shims", working.parent).stdout == f"{working}\n"


def test_a_python_without_ensurepip_is_passed_over(tmp_path: Path) -> None:
    interpreter(tmp_path / "python3.14", version="3.14", ensurepip=False)
    working = interpreter(tmp_path / "python3.11", version="3.11")
    assert find_python(tmp_path).stdout == f"{working}\n"


def test_a_python_without_ensurepip_alone_names_the_package(tmp_path: Path) -> None:
    interpreter(tmp_path / "python3.13", version="3.13", ensurepip=False)
    interpreter(tmp_path / "python3.12", version="3.12", ensurepip=False)
    assert "install python3.13-venv" in refusal(find_python(tmp_path))


def test_no_python_at_all_says_what_to_install(tmp_path: Path) -> None:
    shim(tmp_path / "python3.12")
    interpreter(tmp_path / "python3", version="3.10")
    assert "No Python 3.11 or newer runs here: install one" in refusal(find_python(tmp_path))


def test_a_named_python_replaces_the_search(tmp_path: Path) -> None:
    interpreter(tmp_path / "python3.14", version="3.14")
    named = interpreter(tmp_path / "mine", version="3.12")
    assert find_python(tmp_path, python=str(named)).stdout == f"{named}\n"
    assert find_python(tmp_path, python="mine").stdout == f"{named}\n"


def test_a_named_python_that_does_not_fit_is_not_replaced(tmp_path: Path) -> None:
    interpreter(tmp_path / "python3.14", version="3.14")
    interpreter(tmp_path / "old", version="3.10")
    interpreter(tmp_path / "bare", version="3.12", ensurepip=False)
    assert "is Python 3.10, but KeyVault Lite needs 3.11" in refusal(find_python(tmp_path, python="old"))
    assert "install python3.12-venv" in refusal(find_python(tmp_path, python="bare"))
    assert "PYTHON=absent does not run" in refusal(find_python(tmp_path, python="absent"))


# ----------------------------------------------------------------------------------------------------------- tools/run

KVL = """
case "$1 ${2:-}" in
    'master-key generate') echo "key of $$" ;;
    'init -o')
        case $KEYVAULT_DATABASE_URL in sqlite:///*) : >"${KEYVAULT_DATABASE_URL#sqlite:///}" ;; esac
        echo '{"service_id": "s", "token": "kvl_a_b", "database": "d", "anchor": "a"}' ;;
    'serve ') env | grep ^KEYVAULT_ | sort ;;
    *) exit 9 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout, in a folder with a space, whose kvl only tells what it was asked."""
    folder = tmp_path / "key vault"
    script(folder / ".venv" / "bin" / "kvl", KVL)
    script(folder / ".venv" / "bin" / "python", f'exec "{sys.executable}" "$@"')
    (folder / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "run", folder / "tools")
    return folder


def run(checkout: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KEYVAULT_")}
    return subprocess.run(
        ["tools/run"],
        cwd=checkout,
        env={**clean, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_first_run_makes_what_the_second_reuses(checkout: Path) -> None:
    first = run(checkout)
    files = {file.name: file.read_text() for file in (checkout / ".kvl").iterdir()}
    second = run(checkout)

    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert files.keys() == {"master.key", "keyvault.db", "admin.token", "admin.http"}
    assert files == {file.name: file.read_text() for file in (checkout / ".kvl").iterdir()}
    assert files["admin.token"] == "kvl_a_b\n"
    assert files["admin.http"].splitlines() == ["Authorization: Bearer kvl_a_b", "Content-Type: application/json"]
    assert "kvl_a_b" in first.stdout
    assert "kvl_a_b" not in second.stdout
    assert "in .kvl/admin.token" in second.stdout
    for result in (first, second):
        assert "http://127.0.0.1:8000" in result.stdout
        assert "/keys -H @.kvl/admin.http" in result.stdout
        assert "Bearer" not in result.stdout
        assert "KEYVAULT_MASTER_KEY_FILE=.kvl/master.key\n" in result.stdout
        assert "KEYVAULT_DATABASE_URL=sqlite:///.kvl/keyvault.db\n" in result.stdout


def test_a_run_prints_what_makes_kvl_work_from_anywhere(checkout: Path) -> None:
    exports = [line[line.index("export ") :] for line in run(checkout).stdout.splitlines() if "export " in line]
    shown = subprocess.run(
        ["sh", "-c", "\n".join([*exports, "command -v kvl", "env | grep ^KEYVAULT_ | sort"])],
        cwd="/",
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.stdout.splitlines() == [
        f"{checkout}/.venv/bin/kvl",
        "KEYVAULT_ADDR=http://127.0.0.1:8000",
        f"KEYVAULT_DATABASE_URL=sqlite:///{checkout}/.kvl/keyvault.db",
        f"KEYVAULT_MASTER_KEY_FILE={checkout}/.kvl/master.key",
        f"KEYVAULT_TOKEN_FILE={checkout}/.kvl/admin.token",
    ]


def test_what_a_run_makes_is_for_its_owner_alone(checkout: Path) -> None:
    run(checkout)
    assert (checkout / ".kvl").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (checkout / ".kvl").iterdir()} == {0o600}


def test_a_lost_master_key_is_not_replaced(checkout: Path) -> None:
    run(checkout)
    (checkout / ".kvl" / "master.key").unlink()
    result = run(checkout)
    assert result.returncode == 1
    assert "put the key back" in result.stderr
    assert "remove the database and its anchor, .kvl/keyvault.db.anchor" in result.stderr
    assert not (checkout / ".kvl" / "master.key").exists()


def test_a_failing_command_leaves_no_half_made_file(checkout: Path) -> None:
    script(checkout / ".venv" / "bin" / "kvl", "exit 1")
    assert run(checkout).returncode == 1
    assert list((checkout / ".kvl").iterdir()) == []


def test_settings_of_the_user_are_respected(checkout: Path) -> None:
    settings = {
        "KEYVAULT_DATABASE_URL": "postgresql://vault",
        "KEYVAULT_HOST": "::1",
        "KEYVAULT_MASTER_KEY": "theirs",
        "KEYVAULT_PORT": "8443",
        "KEYVAULT_TLS_CERT": "cert.pem",
    }
    result = run(checkout, settings)
    assert [line for line in result.stdout.splitlines() if line.startswith("KEYVAULT_")] == [
        f"{name}={value}" for name, value in sorted(settings.items())
    ]
    assert "https://[::1]:8443" in result.stdout
    assert list((checkout / ".kvl").iterdir()) == []


# ----------------------------------------------------------------------------------------------------------- the files


def test_scripts_are_executable() -> None:
    for path in (".ci/run", "tools/find_python", "tools/install", "tools/lock", "tools/run", "tools/venv"):
        assert os.access(ROOT / path, os.X_OK), path


@pytest.mark.skipif(shutil.which("git") is None, reason="asks git itself")
def test_git_never_takes_secrets_or_data(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    ignored = [
        ".env",
        ".kvl/admin.token",
        "admin.http",
        ".kvl/keyvault.db",
        ".kvl/master.key",
        ".venv/bin/python",
        "deploy/master.key",
        "keyvault.anchor",
        "keyvault.db",
        "keyvault.db-shm",
        "keyvault.db-wal",
        "keyvault.db.anchor",
        "keyvault.toml",
        "tls/server.pem",
    ]
    taken = ["src/keyvault_lite/model/keys.py", "tests/vectors/rsa.pem", "docs/architecture.png"]
    result = subprocess.run(
        ["git", "check-ignore", *ignored, *taken], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.stdout.split() == ignored


def test_the_version_has_one_source() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]
    assert f"## [{keyvault_lite.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_has_an_upper_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    assert [need for group in groups for need in group if "<" not in need and "==" not in need] == []


def test_nobody_is_told_to_install_what_others_could_publish() -> None:
    """The project has no place in the package index: whoever took its name there would be installed instead."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    places = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), ROOT / "deploy"]
    files = [file for place in places for file in (place.iterdir() if place.is_dir() else [place]) if file.is_file()]
    named = {one for file in files for one in re.findall(r"pip install (?:--?[\w-]+ )*'?([^\s'`]+)", file.read_text())}
    known = {need for group in project["optional-dependencies"].values() for need in group}
    own = {one for one in named if one.startswith(".") or "{" in one}
    assert {re.split(r"[\[<>=]", one)[0] for one in named - own} <= {
        "psycopg",
        "pycryptodome",
        "pysqlite3",
        "python-pkcs11",
    }
    # The package whose name alone a message has is one that is installed anyway.
    assert {one for one in named - own if re.search("[<>=]", one)} <= known


# swagger-ui 5.34.0, as its authors publish it in swagger-ui-dist: no other script may run on our origin.
SWAGGER_UI = {
    "swagger-ui-bundle.js": "3f6abf70480db7e07914df4c98a77385f22ea585eaf457a3e6415ba0eae2d167",
    "swagger-ui.css": "c3cfe8248c4b0b89673600fb829924eafbac6de4bc4b2b06f5f5243483074d0a",
}


def test_the_installed_swagger_ui_is_the_published_one() -> None:
    folder = importlib.resources.files("fastapi_swagger") / "resources"
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in SWAGGER_UI}
    assert digests == SWAGGER_UI


def test_the_unit_tests_mirror_the_source() -> None:
    """Each folder of tests/unit is a package of the same path; what is not about one package is in tests/suites."""
    unit, package = ROOT / "tests" / "unit", ROOT / "src" / "keyvault_lite"
    folders = {file.parent.relative_to(unit).as_posix() for file in unit.rglob("test_*.py")}
    assert {folder for folder in folders if not (package / folder).is_dir() and folder != "app"} == set()
    assert (package / "app.py").is_file()


def test_tests_stand_in_one_of_four_places() -> None:
    files = {file.relative_to(ROOT / "tests").parts[0] for file in (ROOT / "tests").rglob("test_*.py")}
    assert files == {"unit", "suites", "clients", "project"}


def test_neither_tools_nor_benchmarks_import_tests() -> None:
    files = [*(ROOT / "tools").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    assert [
        file.name for file in files if re.search(r"^\s*(from|import) tests\b", file.read_text(), re.MULTILINE)
    ] == []
