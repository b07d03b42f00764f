"""Much that is read at once: cycles are not looked for among it, and what is free again goes back to the system."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# glibc's, without which it keeps what was freed between things that stay. Other libraries have no such call.
_trim: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back() -> None:
    """Give free memory back. Takes milliseconds, and waits for nobody."""
    if _trim is not None:
        _trim(0)


@contextmanager
def without_collection() -> Iterator[None]:
    """Many records are made here that stay, none of them in a cycle: looking for cycles among them costs a fifth."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
