"""The parent's end: has processes born that die, and hears what they said."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from tests.suites.crash.child import Order
from tests.suites.crash.workload import Told
from tests.support.paths import ROOT, SOURCE


@dataclass
class ChildProcess:
    """What one process said, in order, and how it ended."""

    ended: int
    lines: list[Told] = field(default_factory=list)

    @property
    def was_killed(self) -> bool:
        return self.ended == -signal.SIGKILL

    @property
    def died_at(self) -> str | None:
        """The way of the transaction in which it killed itself at its point."""
        # Not always its last line: another of its threads may get a word in.
        return next((str(line["way"]) for line in self.lines if "dies" in line), None)


class ProcessSpawner:
    """Where processes are born; a process itself."""

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("KEYVAULT_")}
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.suites.crash.child"],
            cwd=ROOT,
            env={**environment, "PYTHONPATH": os.pathsep.join((str(SOURCE), str(ROOT)))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def spawn(self, order: Order) -> ChildProcess:
        """Have one process born, and wait for its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        lines: list[Told] = []
        for text in self._process.stdout:
            line: dict[str, Any] = json.loads(text)
            assert "failed" not in line, line["failed"]
            if "ended" in line:
                return ChildProcess(line["ended"], lines)
            lines.append(line)
        raise AssertionError("the spawner has ended")
