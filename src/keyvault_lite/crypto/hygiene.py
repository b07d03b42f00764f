"""Making the process a poorer place to steal keys from: no core dumps, not dumpable, memory locked where that is safe.

This does not stop a reader of live memory (tier T3); it keeps keys out of core files, swap and the environment.
"""

import ctypes
import os
import resource
import sys
from dataclasses import dataclass
from typing import Final

_PR_SET_DUMPABLE: Final = 4
_MCL_CURRENT_AND_FUTURE: Final = 3
_SECRETS: Final = ("KEYVAULT_MASTER_KEY", "KEYVAULT_DATABASE_URL", "KEYVAULT_MIGRATE_TO", "PGPASSWORD")
"""Variables that are a secret or may hold one: a database's URL may have a password in it."""
_WITHOUT_PASSWORD: Final = "sqlite:"  # noqa: S105  (the name of a kind of URL)
"""How a URL begins that has no password."""


@dataclass(frozen=True, slots=True)
class Protection:
    """What was achieved; each field is said as it is, in `kvl status`."""

    core_dumps_off: bool
    not_dumpable: bool
    memory_locked: bool
    swap_in_use: bool
    """Whether this machine has swap, into which unlocked memory can be written."""


def protect_process() -> Protection:
    """Apply what this system allows."""
    libc = ctypes.CDLL(None, use_errno=True)
    locked = False
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY and hasattr(libc, "mlockall"):
        # Under a small limit mlockall would succeed now and make later allocations fail.
        locked = libc.mlockall(_MCL_CURRENT_AND_FUTURE) == 0
    return Protection(
        core_dumps_off=_no_core_dumps(),
        not_dumpable=sys.platform == "linux" and libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0,
        memory_locked=locked,
        swap_in_use=_has_swap(),
    )


def _no_core_dumps() -> bool:
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError):
        return False
    return True


def _has_swap() -> bool:
    try:
        with open("/proc/swaps", encoding="ascii") as swaps:  # noqa: PTH123  (a kernel file, not a path of the vault)
            return len(swaps.readlines()) > 1
    except OSError:
        return False


def forget_environment_secrets() -> None:
    """Take what is secret out of this process's environment, where /proc shows it. It stays in the parent's."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    for name in _SECRETS:
        if name not in os.environ or os.environ[name].startswith(_WITHOUT_PASSWORD):
            continue
        place = libc.getenv(name.encode())
        if place:
            # unsetenv only forgets the pointer: the bytes are what /proc/self/environ reads.
            ctypes.memset(place, ord("-"), len(ctypes.string_at(place)))
        del os.environ[name]
