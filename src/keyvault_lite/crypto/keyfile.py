"""Files that hold a key or a token."""

import os
from pathlib import Path
from typing import Final

MODE: Final = 0o600


def write_new(path: Path, content: str) -> None:
    """Create a private file with all of the content, durably, or none. Raises FileExistsError if there is one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:  # also Ctrl-C: half a key must not stay
        path.unlink(missing_ok=True)
        raise
