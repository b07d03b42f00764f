"""Opening a file that the vault itself keeps beside its database, its anchor or its witness's records.

A writer of such a folder can leave anything under the name: a link to a file elsewhere that the server may write, a
pipe that nobody answers. So a name is opened without following a link, without waiting, and only if it is a plain file
of the vault's own.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Final

MODE: Final = 0o600
_SAFELY: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_own(path: Path, flags: int) -> int:
    """A descriptor of the file; what is made has mode 0600. Raises OSError, whose strerror says what is there instead.

    For writing the file has to belong to this user, to root, or to the owner of the folder: root may work on the vault
    of a service's user.
    """
    try:
        descriptor = os.open(path, flags | _SAFELY, MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link", str(path)) from None
        raise
    problem = _judge(os.fstat(descriptor), path, to_write=flags & os.O_ACCMODE != os.O_RDONLY)
    if problem is not None:
        os.close(descriptor)
        raise problem
    return descriptor


def _judge(about: os.stat_result, path: Path, *, to_write: bool) -> OSError | None:
    if not stat.S_ISREG(about.st_mode):
        return OSError(errno.EINVAL, "it is not a regular file", str(path))
    if to_write and about.st_uid not in {0, os.geteuid(), path.parent.stat().st_uid}:
        return OSError(errno.EPERM, "it belongs to another user", str(path))
    return None
