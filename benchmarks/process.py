"""What a process has used so far, read from /proc: the CPU of a server is measured and not guessed from its rate."""

import os
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_NANOSECONDS: Final = 1e9


def family(pid: int) -> list[int]:
    """A process and all that descend from it: the workers of a server count with their parent."""
    found = [pid]
    for one in found:
        for children in (_PROC / str(one) / "task").glob("*/children"):
            found += map(int, _read(children).split())
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of every thread of a process and its descendants that is alive, in seconds."""
    used = 0
    for one in family(pid):
        for thread in (_PROC / str(one) / "task").glob("*/schedstat"):
            fields = _read(thread).split()
            used += int(fields[0]) if fields else 0
    return used / _NANOSECONDS


def peak_memory(pid: int) -> int:
    """The largest resident size that any process of the family has had, in bytes."""
    return _largest(pid, "VmHWM:")


def resident_memory(pid: int) -> int:
    """The resident size of the largest process of the family, in bytes."""
    return _largest(pid, "VmRSS:")


def _largest(pid: int, name: str) -> int:
    sizes = [0]
    for one in family(pid):
        status = _read(_PROC / str(one) / "status")
        sizes += [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name)]
    return max(sizes)


def own_cpu_seconds() -> float:
    """User and system time of this process."""
    times = os.times()
    return times.user + times.system


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it ended meanwhile
        return ""
