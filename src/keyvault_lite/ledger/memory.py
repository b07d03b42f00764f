"""Memory that is free again after much was read goes back to the system, where the C library can say so."""

import ctypes
from typing import Final

# glibc's, without which it keeps what was freed between things that stay. Other libraries have no such call.
_trim: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back() -> None:
    """Give free memory back. Takes milliseconds, and waits for nobody."""
    if _trim is not None:
        _trim(0)
