"""Input and output files: `-` and pipes, results appear whole or not at all, secrets are for their owner alone."""

import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer

from keyvault_lite.cli.failure import CannotRun
from keyvault_lite.cli.streams import broken_pipes, check_output, explain
from keyvault_lite.crypto.keyfile import write_new

PRIVATE: Final = 0o600
"""Mode of files that hold plaintexts, tokens or keys."""
ORDINARY: Final = 0o666
"""Mode of all others, less the umask."""
SPOOL: Final = 32 * 1024 * 1024
"""How much of an output that cannot be renamed into place waits in memory; more waits in an unnamed private file."""

InputArgument = Annotated[str, typer.Argument(metavar="FILE", help="A file; - is standard input.")]
OutOption = Annotated[
    str | None, typer.Option("--out", "-O", metavar="FILE", help="Where to write; - is standard output.")
]


@contextmanager
def reading(path: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """A file or standard input, open for reading, and its size if that is known."""
    if path == "-":
        yield sys.stdin.buffer, None
        return
    with Path(path).open("rb") as stream:
        status = os.fstat(stream.fileno())
        yield stream, status.st_size if Path(path).is_file() else None


@contextmanager
def writing(
    path: str | None, *, mode: int = ORDINARY, binary: bool = True, like: os.stat_result | None = None
) -> Iterator[BinaryIO]:
    """An output that is there when the block has ended without an error, and otherwise is as it was.

    A regular file is written beside its place, synced and renamed; its owner and group are those of `like`, or
    CannotRun. Standard output, pipes and devices get nothing before the block has ended. `binary` refuses a terminal
    unless it was named as `-`.
    """
    if path is None and binary and sys.stdout.isatty():
        raise CannotRun("the result is binary: name a file with -O, or say -O - to have it on the terminal")
    if path is None or path == "-":
        with _spooled() as stream:
            yield stream
            _pour(stream, sys.stdout.buffer)
    elif (target := Path(path).resolve()).exists() and not target.is_file():
        if target.is_dir():
            raise CannotRun("the output is a directory")
        with _spooled() as stream:
            yield stream
            with target.open("wb") as device:
                _pour(stream, device)
    else:
        with _called(path, target), _replacing(target, mode, like) as stream:
            yield stream


@contextmanager
def _called(path: str, target: Path) -> Iterator[None]:
    """Have an error name the file as it was given, and not the one beside it that nobody was to see."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str | Path) and Path(error.filename).name.startswith(_beside(target)):
            raise OSError(error.errno, error.strerror, path) from None
        raise


@contextmanager
def _replacing(target: Path, mode: int, like: os.stat_result | None) -> Iterator[BinaryIO]:
    with appearing(target) as part:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as stream:
            if like is not None:
                _give(descriptor, like, target)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())


def _beside(target: Path) -> str:
    return f".{target.name[:200]}."


def _give(descriptor: int, like: os.stat_result, target: Path) -> None:
    """Give a file the owner, group and mode of another. Raises CannotRun where that is not allowed."""
    made = os.fstat(descriptor)
    if (made.st_uid, made.st_gid) != (like.st_uid, like.st_gid):
        try:
            os.fchown(descriptor, like.st_uid, like.st_gid)
        except OSError:
            raise CannotRun(
                f"{target} belongs to another user or group and would not any more: do it as its owner, or say -O"
            ) from None
    os.fchmod(descriptor, stat.S_IMODE(like.st_mode))


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Where to make a file or folder, beside its place: renamed into it if the block ends without an error, else gone.

    It is made within the block, so that a signal that comes right after its making does not leave it either.
    """
    part = target.with_name(f"{_beside(target)}{secrets.token_hex(8)}.part")
    try:
        yield part
        part.replace(target)
    except BaseException:  # also Ctrl-C: a part must not stay
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
        raise
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _spooled() -> Iterator[BinaryIO]:
    with tempfile.SpooledTemporaryFile(max_size=SPOOL) as stream:
        yield stream  # type: ignore[misc]  # it has every method of BinaryIO that is used


def _pour(source: BinaryIO, target: BinaryIO) -> None:
    source.seek(0)
    shutil.copyfileobj(source, target)
    target.flush()


def check_new(path: Path | None) -> None:
    """Raise CannotRun if what is to be created is there already or cannot be made: before its content is."""
    if path is None:
        return
    if path.exists() or path.is_symlink():
        raise CannotRun(f"{path} exists already and is left as it is")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise CannotRun(f"{path} cannot be created: {error.strerror}") from None


def check_token_out(path: Path | None) -> None:
    """Raise CannotRun if what is shown this once could not be: there is no such new file, or no standard output."""
    if path is None:
        check_output()
    check_new(path)


@contextmanager
def not_lost(remedy: str) -> Iterator[None]:
    """Show a token within: if that fails, CannotRun says that there is one, and the remedy."""
    try:
        with broken_pipes():
            yield
            sys.stdout.flush()
    except (CannotRun, OSError) as error:
        said = explain(error) if isinstance(error, OSError) else str(error)
        raise CannotRun(f"the new token is in force, but it could not be written out ({said}): {remedy}") from None


def write_new_secret(path: Path, content: str) -> None:
    """Create a private file, whole or not at all. Raises CannotRun if it exists or cannot be written."""
    try:
        write_new(path, content)
    except FileExistsError:
        raise CannotRun(f"{path} exists already and is left as it is") from None
    except OSError as error:
        raise CannotRun(f"{path} cannot be written: {error.strerror}") from None
