"""The documentation as tests see it: its pages, their links, and the shell sessions that they print.

A fenced block under one of these comments is run, those of one name in one shell, in the order of the page:

    <!-- run NAME -->      commands; each must succeed
    <!-- serve NAME -->    a server, in place of the one before; it runs until the session ends
    <!-- stop NAME -->     stops the server; no block

A line `# → TEXT` says what the output of the commands above it must contain, `…` standing for anything; `# → exit N`
says with which status they end.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT, SOURCE

TOOLS = ("bash", "curl", "jq", "openssl")
SECONDS = 240
DEFAULT_PORT = "8000"

_STEP = re.compile(r"^<!-- (run|serve|stop)(?: (\w+))? -->\n(?:```sh\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
_EXPECTED = re.compile(r"^# → (.*)$", re.MULTILINE)


def pages() -> list[Path]:
    """Every page that a reader may open."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    kind: str
    commands: str
    expected: tuple[str, ...] = ()

    @property
    def status(self) -> int:
        """With which status the commands end."""
        return next((int(line[5:]) for line in self.expected if re.fullmatch(r"exit \d+", line)), 0)

    @property
    def fragments(self) -> list[str]:
        """What the output contains."""
        return [line for line in self.expected if not re.fullmatch(r"exit \d+", line)]


def sessions(page: str) -> dict[str, list[Step]]:
    """The sessions of a page by name; the first has none."""
    found: dict[str, list[Step]] = {}
    for kind, name, block in _STEP.findall(page):
        found.setdefault(name, []).extend(_chunks(kind, block))
    return found


def _chunks(kind: str, block: str) -> Iterator[Step]:
    if kind != "run":
        yield Step(kind, block, tuple(_EXPECTED.findall(block)))
        return
    commands: list[str] = []
    expected: list[str] = []
    for line in block.splitlines():
        said = _EXPECTED.fullmatch(line)
        if said is not None:
            expected.append(said[1])
            continue
        if expected and line.strip():
            yield Step(kind, "\n".join(commands), tuple(expected))
            commands, expected = [], []
        commands.append(line)
    if any(map(str.strip, commands)):
        yield Step(kind, "\n".join(commands), tuple(expected))


def holds(fragment: str, output: str) -> bool:
    """Whether the output contains the fragment, `…` standing for anything."""
    pattern = ".*?".join(map(re.escape, fragment.split("…")))
    return re.search(pattern, output, re.DOTALL) is not None


@dataclass(frozen=True)
class Ran:
    step: Step
    output: str
    status: int | None


class Sandbox:
    """A folder with its own vault, `kvl` on the path, and one server at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / ".out"
        self.out.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = str(probe.getsockname()[1])
        (folder / "work").mkdir()
        shutil.copy(ROOT / "main.py", folder / "work")
        shutil.copytree(ROOT / "tools", folder / "work" / "tools")
        for name, command in {
            "kvl": "-P -m keyvault_lite",
            "python": "",
            "uvicorn": "-m uvicorn",
        }.items():
            port = f' --port "{self.port}"' if name == "uvicorn" else ""
            path = folder / "bin" / name
            path.parent.mkdir(exist_ok=True)
            note = '[ -z "${PID_FILE:-}" ] || echo $$ >"$PID_FILE"'  # whom to stop
            path.write_text(f'#!/bin/sh\n{note}\nexec "{sys.executable}" {command} "$@"{port}\n', encoding="utf-8")
            path.chmod(0o755)

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYVAULT_")}
        return kept | {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(SOURCE),
            "KEYVAULT_PORT": self.port,
            "KEYVAULT_ADDR": f"http://127.0.0.1:{self.port}",
            "COLUMNS": "200",
            "NO_COLOR": "1",
            "OUT": str(self.out),
        }

    def run(self, steps: Sequence[Step]) -> list[Ran]:
        """Run the steps in one shell; what comes after a step that failed is not run."""
        script: list[str] = []
        for number, step in enumerate(steps):
            commands = step.commands.replace(f":{DEFAULT_PORT}", f":{self.port}")
            script += self._serve(number, commands) if step.kind != "run" else self._run(number, commands, step.status)
        script.append("stop")
        whole = _FUNCTIONS + "\n".join(script)
        shell = subprocess.Popen(
            ["bash", "-c", whole],
            cwd=self.folder / "work",
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            shell.communicate(timeout=SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)  # what is left of it
        shell.communicate()
        return [self._ran(number, step) for number, step in enumerate(steps)]

    @staticmethod
    def _run(number: int, commands: str, status: int) -> list[str]:
        return [
            "failed=0",
            "{",
            commands or ":",
            f'}} >"$OUT/{number}" 2>&1',
            "status=$?; [ $status != 0 ] || status=$failed",
            f'echo $status >"$OUT/{number}.status"',
            f"[ $status = {status} ] || {{ stop; exit; }}",
        ]

    def _serve(self, number: int, commands: str) -> list[str]:
        lines = ["stop"]
        if commands:
            lines += [
                f'( export PID_FILE="$OUT/pid"\n{commands}\n) >"$OUT/{number}" 2>&1 &',
                f"wait_for http://127.0.0.1:{self.port}/health",
            ]
        return [*lines, f'echo 0 >"$OUT/{number}.status"']

    def _ran(self, number: int, step: Step) -> Ran:
        output, status = self.out / str(number), self.out / f"{number}.status"
        return Ran(
            step,
            output.read_text(encoding="utf-8", errors="replace") if output.exists() else "",
            int(status.read_text(encoding="ascii")) if status.exists() else None,
        )


_FUNCTIONS = """
set -o pipefail
trap 'failed=$?' ERR  # of any command, not only the last
stop() {
    [ -s "$OUT/pid" ] || return 0
    kill "$(cat "$OUT/pid")" 2>/dev/null
    rm -f "$OUT/pid"
    wait
}
wait_for() {
    for _ in $(seq 400); do
        curl -sk -o "$OUT/health" "$1" && return
        [ -n "$(jobs -r)" ] || return
        sleep 0.05
    done
}
"""
