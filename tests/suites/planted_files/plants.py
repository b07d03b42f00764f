"""What a writer of a folder can put there for a program that looks for files where it stands, or in its HOME."""

import os
import sys
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.support.paths import ROOT, SOURCE

KVL = [sys.executable, str(ROOT / "tests" / "support" / "kvl.py")]


def environment(**more: str) -> dict[str, str]:
    """The environment of a service: nothing of this process's settings."""
    dropped = ("KEYVAULT_", "PG", "PYTHON", "SSL_", "XDG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, "PYTHONPATH": str(SOURCE), **more}


class Modules:
    """A module for each name that a program could import; each leaves its name in a file when it is imported."""

    def __init__(self, folder: Path, trace: Path) -> None:
        self._trace = trace
        body = self.statement() + "raise ImportError('planted')\n"
        installed = {name for name in packages_distributions() if name.isidentifier()}
        own = {"keyvault_lite", "sitecustomize", "usercustomize", "main", "__main__", "__mp_main__"}
        for name in set(sys.stdlib_module_names) | installed | own:
            (folder / f"{name}.py").write_text(body)
        for name in ("keyvault_lite", "multiprocessing", "encodings"):
            (folder / name).mkdir(exist_ok=True)
            (folder / name / "__init__.py").write_text(body)

    def statement(self) -> str:
        """What leaves a trace, on one line, without importing anything that is not built in."""
        return (
            "import sys, posix\n"
            f"posix.write(posix.open({str(self._trace)!r}, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND, 0o600),"
            " (globals().get('__name__', '?') + ' ').encode())\n"
        )

    def imported(self) -> list[str]:
        """The names that were imported."""
        return sorted(set(self._trace.read_text().split())) if self._trace.exists() else []


def user_site(home: Path, statement: str) -> None:
    """A .pth file and a usercustomize of the user's own packages."""
    folder = home / ".local" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    folder.mkdir(parents=True)
    (folder / "usercustomize.py").write_text(statement)
    # A .pth line is executed if it begins with `import`.
    (folder / "planted.pth").write_text(f"import sys; exec({statement!r})\n")


def write_all(folder: Path, files: Mapping[str, str]) -> None:
    """Write files by their path in the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o600)  # libpq ignores a password file that others can read
