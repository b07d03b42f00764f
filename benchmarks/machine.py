"""The machine and the versions, as far as they explain figures: no names of hosts, users or paths."""

import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

_LIBRARIES: Final = ("uvicorn", "httptools", "uvloop", "msgspec", "cryptography", "fastapi", "pysqlite3")


def describe() -> list[str]:
    """One line a fact."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        f"{cores} cores of {_processor()}, {memory:.0f} GiB, {platform.system()} {platform.release()}",
        f"{platform.python_implementation()} {platform.python_version()}, {', '.join(_versions())}",
        f"load average at the end {os.getloadavg()[0]:.1f} (clients and servers of this run included)",
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _versions() -> Iterator[str]:
    for name in _LIBRARIES:
        try:
            yield f"{name} {version(name)}"
        except ImportError:  # PackageNotFoundError: optional on this platform
            continue
    from keyvault_lite.ledger.storage import driver  # noqa: PLC0415  (fails where no safe SQLite is installed)

    yield f"SQLite {driver.version}"
