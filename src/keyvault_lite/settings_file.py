"""The settings file: read from where it is named, if nobody but root and the owner of this process can change it.

Settings decide about authority (account ids, TLS, the anchor, the witness). So the file has to be protected as the code
is, and is never looked for in the working directory, which may be the folder that an attacker writes.
"""

import os
import stat
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

VARIABLE: Final = "KEYVAULT_CONFIG"
FORMER_NAME: Final = "keyvault.toml"
"""What 0.1.0 read in the working directory."""
MAX_BYTES: Final = 64 * 1024
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class InvalidFile(Exception):
    """The file is not used; the message names the reason and repeats nothing of its content."""


def named_file() -> Path | None:
    """The file that KEYVAULT_CONFIG names."""
    name = os.environ.get(VARIABLE)
    # `..` is taken out by its letters, so that what is evaluated is what is opened.
    return Path(os.path.abspath(name)) if name else None  # noqa: PTH100  (pathlib keeps `..`, or follows links)


def ignored_file() -> Path | None:
    """A file in the working directory that 0.1.0 would have read, where no file is named. It is not opened."""
    path = Path(FORMER_NAME).absolute()
    return path if named_file() is None and os.path.lexists(path) else None


def read(path: Path) -> dict[str, Any]:
    """What the file holds. Raises InvalidFile."""
    try:
        real = path.resolve(strict=True)
        raw = _read_protected(real, path)
    except OSError as error:
        raise InvalidFile(f"the settings file {path} cannot be read: {error.strerror}") from None
    except RuntimeError:  # what Python 3.11 and 3.12 raise for links in a circle
        raise InvalidFile(f"the settings file {path} cannot be read: its links form a circle") from None
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        raise InvalidFile(f"the settings file {path} is not TOML") from None


def _read_protected(real: Path, path: Path) -> bytes:
    # Without O_NONBLOCK opening a named pipe would wait for its writer.
    descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise InvalidFile(f"the settings file {path} is not a regular file")
        if not _is_fixed(descriptor, about):
            _check_owner(path, about)
            if about.st_mode & _OTHERS_WRITE:
                raise InvalidFile(f"the settings file {path} can be changed by other users; run: chmod go-w {path}")
            for folder in {*path.parents, *real.parents}:
                _check_folder(folder, path)
        raw = os.read(descriptor, MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(raw) > MAX_BYTES:
        raise InvalidFile(f"the settings file {path} is larger than {MAX_BYTES} bytes")
    return raw


def _is_fixed(descriptor: int, about: os.stat_result) -> bool:
    """Whether it is a file of root on a read-only mount, as container engines mount what they configure."""
    return about.st_uid == 0 and bool(os.fstatvfs(descriptor).f_flag & os.ST_RDONLY)


def _check_owner(path: Path, about: os.stat_result) -> None:
    if about.st_uid not in {0, os.geteuid()}:
        raise InvalidFile(
            f"the settings file {path} can be changed by another user (uid {about.st_uid}), who owns it or a folder "
            "above it; it has to belong to root or to the user of this process"
        )


def _check_folder(folder: Path, path: Path) -> None:
    about = folder.stat()
    _check_owner(path, about)
    # In a sticky folder like /tmp nobody but the owner of a name can replace it.
    if about.st_mode & _OTHERS_WRITE and not about.st_mode & stat.S_ISVTX:
        raise InvalidFile(f"the settings file {path} can be replaced by other users; run: chmod go-w {folder}")


def check_apart(path: Path, folders: Iterable[Path]) -> None:
    """Raise InvalidFile for a settings file in one of these folders, where a writer of the database could write."""
    places = {*path.parents, *path.resolve().parents}
    for folder in folders:
        if folder.resolve() in places or folder in places:
            raise InvalidFile(
                f"the settings file {path} is in the folder of the database or the anchor, {folder}: whoever writes "
                "there would choose the settings; move it, for example to /etc/keyvault"
            )
