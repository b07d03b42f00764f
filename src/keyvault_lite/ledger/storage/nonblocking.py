"""System calls of the commit path that return at once, made without letting go of the interpreter.

Python's own wrappers release the interpreter's lock round every call. Where another thread waits for it, each release
costs two switches between threads, a hundred times what a lock nobody holds or a page in the cache takes.
MUST NOT be used for a call that can wait: it would hold up every thread of the process.
"""

import ctypes
import fcntl
import os
from typing import Final

_libc: Final = ctypes.PyDLL(None, use_errno=True)
_flock: Final = _libc.flock
_flock.argtypes = (ctypes.c_int, ctypes.c_int)
_pread: Final = getattr(_libc, "pread64", _libc.pread)
_pread.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int64)
_pread.restype = ctypes.c_ssize_t
_pwrite: Final = getattr(_libc, "pwrite64", _libc.pwrite)
_pwrite.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int64)
_pwrite.restype = ctypes.c_ssize_t


def try_lock(descriptor: int) -> bool:
    """Take the exclusive flock if nobody has it."""
    return bool(_flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB) == 0)


def lock(descriptor: int) -> None:
    """Hold the exclusive flock; waits, and then as anyone waits, if somebody else has it. Raises OSError."""
    if not try_lock(descriptor):
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def unlock(descriptor: int) -> None:
    """Give the flock back. Raises OSError."""
    if _flock(descriptor, fcntl.LOCK_UN) != 0:
        raise _error()


def pread(descriptor: int, size: int, offset: int) -> bytes:
    """As os.pread, for what is in the page cache."""
    buffer = ctypes.create_string_buffer(size)
    count = _pread(descriptor, buffer, size, offset)
    if count < 0:
        raise _error()
    return buffer.raw[:count]


def pwrite(descriptor: int, data: bytes, offset: int) -> int:
    """As os.pwrite, for a page that stays in the cache until it is flushed."""
    count: int = _pwrite(descriptor, data, len(data), offset)
    if count < 0:
        raise _error()
    return count


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
